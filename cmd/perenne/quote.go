package main

import (
	"regexp"
	"strings"
)

// plainWord is text that every POSIX shell takes as one word, letter by letter. A leading ~ or = means something to
// some shells, and a leading dash something to the command, so those are no plain words.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:@%+,][A-Za-z0-9_./:@%+,=~-]*$`)

// quote writes a path, or any other argument, so that the command printed around it can be copied into a shell and
// does what it says. A relative path that starts with a dash gets ./ in front: no command takes it for a flag then.
func quote(path string) string {
	if strings.HasPrefix(path, "-") {
		path = "./" + path
	}
	if plainWord.MatchString(path) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
