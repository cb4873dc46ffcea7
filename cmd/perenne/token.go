package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"

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
					&cli.StringFlag{Name: "expires", Usage: "last day, YYYY-MM-DD"},
				},
				Action: addToken,
			}, `perenne token add --dir p --name protocollo --roles submit,read`),
			command(&cli.Command{
				Name: "remove", Usage: "withdraw a token; it stops holding at once",
				Flags: []cli.Flag{dirFlag(), langFlag(), producerFlag(), &cli.StringFlag{Name: "name", Required: true}},
				Action: func(c *cli.Context) error {
					return editTokens(c, func(all []Token) ([]Token, error) {
						for i, t := range all {
							if t.Name == c.String("name") {
								return append(all[:i:i], all[i+1:]...), nil
							}
						}
						return nil, usagef("no token %q", c.String("name"))
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
				return nil, usagef("there is a token %q already: remove it first", t.Name)
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
func editTokens(c *cli.Context, edit func([]Token) ([]Token, error)) error {
	in, err := findInstallation(c.String("dir"))
	if err != nil {
		return err
	}
	code, err := in.pickProducer(c.String("producer"))
	if err != nil {
		return err
	}
	path := in.path("producers", code+".yaml")
	var p Producer
	if err := loadYAML(path, &p); err != nil {
		return usagef("producers/%v", err)
	}
	if p.Tokens, err = edit(p.Tokens); err != nil {
		return err
	}
	if err := p.check(code + ".yaml"); err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var doc, tokens yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return err
	}
	if err := tokens.Encode(p.Tokens); err != nil {
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
