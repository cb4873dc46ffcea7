package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"github.com/marchesud/perenne/archive/web"
)

func tokenCommand() *cli.Command {
	return command(&cli.Command{
		Name: "token", Usage: "make and withdraw the tokens of document systems",
		Subcommands: []*cli.Command{
			command(&cli.Command{
				Name: "add", Usage: "make a token; it is shown once, and holds at once",
				Flags: []cli.Flag{
					dirFlag(), langFlag(), producerFlag(),
					&cli.StringFlag{Name: "name", Required: true, Usage: "which system it is for"},
					&cli.StringFlag{Name: "roles", Value: "submit,read", Usage: "submit, read, audit, admin"},
					&cli.StringFlag{Name: "expires", Usage: "last day, YYYY-MM-DD; it ends at midnight UTC"},
				},
				Action: addToken,
			}, `perenne token add --dir p --name protocollo --roles submit,read`),
			command(&cli.Command{
				Name: "remove", Usage: "withdraw a token; it stops holding at once",
				Flags: []cli.Flag{dirFlag(), langFlag(), producerFlag(), &cli.StringFlag{Name: "name", Required: true, Usage: "the token to withdraw"}},
				Action: func(c *cli.Context) error {
					return editTokens(c, func(all []Token) ([]Token, error) {
						for i, t := range all {
							if t.Name == c.String("name") {
								return append(all[:i:i], all[i+1:]...), nil
							}
						}
						return nil, usageIn("non c'è un token %q", "no token %q", c.String("name"))
					})
				},
			}, `perenne token remove --dir p --name protocollo`),
		},
	}, "perenne token add --help")
}

func addToken(c *cli.Context) error {
	token, err := newToken()
	if err != nil {
		return err
	}
	t := Token{Name: c.String("name"), SHA256: hashToken(token), Expires: c.String("expires")}
	for r := range strings.SplitSeq(c.String("roles"), ",") {
		t.Roles = append(t.Roles, web.Role(strings.TrimSpace(r)))
	}
	err = editTokens(c, func(all []Token) ([]Token, error) {
		for _, have := range all {
			if have.Name == t.Name {
				return nil, usageIn("c'è già un token %q: prima va tolto, con token remove", "there is a token %q already: remove it first", t.Name)
			}
		}
		return append(all, t), nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(c.App.Writer, token)
	return nil
}

// editTokens changes the tokens in a producer's file and nothing else in it: its comments stay.
func editTokens(c *cli.Context, edit func([]Token) ([]Token, error)) (err error) {
	in, err := here(c)
	if err != nil {
		return err
	}
	code, err := in.pickProducer(c.String("producer"))
	if err != nil {
		return err
	}
	release, err := in.lockProducers()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	path := in.path("producers", code+".yaml")
	var p Producer
	if err := loadYAML(path, &p); err != nil {
		return usagef("producers/%v", err)
	}
	if p.Tokens, err = edit(p.Tokens); err != nil {
		return err
	}
	if err := p.check(code+".yaml", in.config.ReadOnly); err != nil {
		return err
	}
	return rewriteTokens(path, p.Tokens)
}

// lockProducers waits until no other command changes the producers' files, and keeps others waiting until release.
func (in *installation) lockProducers() (release func() error, err error) {
	if err := os.MkdirAll(in.path("state"), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(in.path("state", "producers.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the producers: %w", err), f.Close())
	}
	return f.Close, nil
}

// rewriteTokens puts tokens into a producer's file as it is.
func rewriteTokens(path string, all []Token) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var doc, tokens yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return err
	}
	if err := tokens.Encode(all); err != nil {
		return err
	}
	setKey(doc.Content[0], "tokens", &tokens)
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return err
	}
	return writeFile(path, out.Bytes(), 0o644)
}

func setKey(m *yaml.Node, key string, value *yaml.Node) {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			m.Content[i+1] = value
			return
		}
	}
	m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, value)
}
