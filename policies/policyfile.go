package policies

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gowebpki/jcs"
	"go.yaml.in/yaml/v3"
)

// maxPolicyFile bounds a policy file, in bytes.
const maxPolicyFile = 1 << 20

// Parse reads a policy file (see the package comment and builtin/comune.yaml). With a base, what the file does
// not say is the base's: single values replace, entries of types, formats, retention and rules are added or
// replace one of the same name, and null takes one away. Without a base every section but structures,
// registers and rules must be there. The error names every key that is wrong, with its line and the reason.
func Parse(file []byte, base *Policy) (*Policy, error) {
	p := &Policy{types: map[string]Type{}, formats: map[string]Admission{}, classes: map[string]Class{}, levels: map[string]Level{}}
	if base != nil {
		copied := *base
		p = &copied
		p.types, p.formats = maps.Clone(base.types), maps.Clone(base.formats)
		p.classes, p.levels = maps.Clone(base.classes), maps.Clone(base.levels)
	}
	root, err := parseYAML(file)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	r := &policyReader{p: p}
	if root != nil {
		r.policy(root)
	}
	if len(r.wrong) == 0 {
		r.check()
	}
	if len(r.wrong) > 0 {
		return nil, fmt.Errorf("policy %s: %w", p.Name, errors.Join(r.wrong...))
	}
	if p.canonical, err = p.form(); err != nil {
		return nil, fmt.Errorf("policy %s: %w", p.Name, err)
	}
	return p, nil
}

// parseYAML reads one YAML document into nodes, which keeps lines and resolves no alias; nil when empty.
func parseYAML(file []byte) (*yaml.Node, error) {
	if len(file) > maxPolicyFile {
		return nil, fmt.Errorf("file has %d bytes, at most %d are allowed", len(file), maxPolicyFile)
	}
	dec := yaml.NewDecoder(bytes.NewReader(file))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one YAML document")
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	return doc.Content[0], nil
}

// policyReader reads the nodes of a policy file and collects what is wrong.
type policyReader struct {
	p     *Policy
	wrong []error
}

func (r *policyReader) fault(n *yaml.Node, path, format string, args ...any) {
	where := ""
	if path == "" {
		path = "the file"
	}
	if n != nil {
		where = fmt.Sprintf("line %d: ", n.Line)
	}
	r.wrong = append(r.wrong, fmt.Errorf("%s%s: %s", where, path, fmt.Sprintf(format, args...)))
}

// entries calls each with every key of a mapping.
func (r *policyReader) entries(n *yaml.Node, path string, each func(key string, k, v *yaml.Node, path string)) {
	if n.Kind != yaml.MappingNode {
		r.fault(n, path, "must be a mapping of keys to values")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		at := strings.TrimPrefix(path+"."+k.Value, ".")
		switch {
		case k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge":
			r.fault(k, path, "keys must be plain text, without anchors or merges")
		case v.Kind == yaml.AliasNode:
			r.fault(v, at, "aliases are not read here: write the value")
		case seen[k.Value]:
			r.fault(k, at, "given twice")
		default:
			seen[k.Value] = true
			each(k.Value, k, v, at)
		}
	}
}

// keys reads a mapping whose keys are known.
func (r *policyReader) keys(n *yaml.Node, path string, known map[string]func(v *yaml.Node, path string)) {
	r.entries(n, path, func(key string, k, v *yaml.Node, path string) {
		read, ok := known[key]
		if !ok {
			r.fault(k, path, "unknown key; known here: %s", strings.Join(slices.Sorted(maps.Keys(known)), ", "))
			return
		}
		read(v, path)
	})
}

func (r *policyReader) text(v *yaml.Node, path string) string {
	if v.Kind != yaml.ScalarNode || v.ShortTag() != "!!str" || strings.TrimSpace(v.Value) == "" {
		r.fault(v, path, "must be text (put numbers and yes, no, null into quotes)")
		return ""
	}
	return v.Value
}

func (r *policyReader) number(v *yaml.Node, path string, least, most int) int {
	n, err := strconv.Atoi(v.Value)
	if v.Kind != yaml.ScalarNode || v.ShortTag() != "!!int" || err != nil || n < least || n > most {
		r.fault(v, path, "must be a whole number from %d to %d", least, most)
		return 0
	}
	return n
}

func (r *policyReader) list(v *yaml.Node, path string) []string {
	if v.Kind != yaml.SequenceNode {
		r.fault(v, path, "must be a list")
		return nil
	}
	list := make([]string, 0, len(v.Content))
	for i, item := range v.Content {
		list = append(list, r.text(item, path+"["+strconv.Itoa(i)+"]"))
	}
	return list
}

// sizeUnits and timeUnits are the units that a policy file writes.
var (
	sizeUnits = map[string]int64{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
	timeUnits = map[string]int64{"hours": int64(time.Hour), "days": 24 * int64(time.Hour)}
)

// quantity reads "16 GiB" or "30 days".
func (r *policyReader) quantity(v *yaml.Node, path string, units map[string]int64, least, most int64) int64 {
	digits, unit, _ := strings.Cut(v.Value, " ")
	n, err := strconv.ParseInt(digits, 10, 64)
	size, known := units[unit]
	if v.Kind != yaml.ScalarNode || err != nil || !known || n < 1 || n > most/size {
		r.fault(v, path, "must be a whole number and a unit of %s, within the limit", strings.Join(slices.Sorted(maps.Keys(units)), ", "))
		return least
	}
	if n*size < least {
		r.fault(v, path, "is too little")
	}
	return n * size
}

func (r *policyReader) policy(n *yaml.Node) {
	p := r.p
	r.keys(n, "", map[string]func(*yaml.Node, string){
		"name":       func(v *yaml.Node, path string) { p.Name = r.name(v, path) },
		"title":      func(v *yaml.Node, path string) { p.Title = r.text(v, path) },
		"limits":     r.limits,
		"audit":      r.audit,
		"refusals":   func(v *yaml.Node, path string) { p.refusals = r.number(v, path, minRefusals, 1000) },
		"structures": func(v *yaml.Node, path string) { p.structures = r.list(v, path) },
		"registers":  func(v *yaml.Node, path string) { p.registers = r.list(v, path) },
		"types":      func(v *yaml.Node, path string) { section(r, v, path, p.types, r.documentType) },
		"formats":    func(v *yaml.Node, path string) { section(r, v, path, p.formats, r.admission) },
		"retention":  func(v *yaml.Node, path string) { section(r, v, path, p.classes, r.class) },
		"rules":      func(v *yaml.Node, path string) { section(r, v, path, p.levels, r.level) },
	})
}

// section reads entries into a map; null takes one away.
func section[V any](r *policyReader, n *yaml.Node, path string, into map[string]V, read func(key string, v *yaml.Node, path string) V) {
	r.entries(n, path, func(key string, _, v *yaml.Node, path string) {
		if v.ShortTag() != "!!null" {
			into[key] = read(key, v, path)
			return
		}
		if _, ok := into[key]; !ok {
			r.fault(v, path, "nothing of this name to take away")
		}
		delete(into, key)
	})
}

func (r *policyReader) limits(v *yaml.Node, path string) {
	l := &r.p.limits
	size := func(to *int64, most int64) func(*yaml.Node, string) {
		return func(v *yaml.Node, path string) { *to = r.quantity(v, path, sizeUnits, 1, most) }
	}
	r.keys(v, path, map[string]func(*yaml.Node, string){
		"files":      func(v *yaml.Node, path string) { l.MaxFiles = r.number(v, path, 1, maxFiles) },
		"file":       size(&l.MaxFileSize, maxBytes),
		"submission": size(&l.MaxSubmission, maxBytes),
		"metadata":   size(&l.MaxMetadata, MaxDescription),
	})
}

func (r *policyReader) audit(v *yaml.Node, path string) {
	r.keys(v, path, map[string]func(*yaml.Node, string){
		"every": func(v *yaml.Node, path string) {
			r.p.audit = time.Duration(r.quantity(v, path, timeUnits, int64(minAudit), int64(maxAudit)))
		},
	})
}

func (r *policyReader) documentType(key string, v *yaml.Node, path string) Type {
	var t Type
	r.checkName(key, v, path)
	r.keys(v, path, map[string]func(*yaml.Node, string){
		"title": func(v *yaml.Node, path string) { t.Title = r.text(v, path) },
		"require": func(v *yaml.Node, path string) {
			t.Require = r.list(v, path)
			for _, name := range t.Require {
				if _, ok := optional[name]; !ok {
					r.fault(v, path, "%q is no optional member of a description; there are %s", name, strings.Join(slices.Sorted(maps.Keys(optional)), ", "))
				}
			}
		},
		"formats": func(v *yaml.Node, path string) { t.Formats = r.list(v, path) },
	})
	r.titled(t.Title, v, path)
	return t
}

func (r *policyReader) admission(key string, v *yaml.Node, path string) Admission {
	var a Admission
	if canonicalMIME(key) != key {
		r.fault(v, path, "is not a MIME type as it is written here; that would be %q", canonicalMIME(key))
	}
	r.keys(v, path, map[string]func(*yaml.Node, string){
		"title": func(v *yaml.Node, path string) { a.Title = r.text(v, path) },
		"judgement": func(v *yaml.Node, path string) {
			a.Judgement = Judgement(r.text(v, path))
			if a.Judgement != Suitable && a.Judgement != Accepted && a.Judgement != Discouraged {
				r.fault(v, path, "must be suitable, accepted or discouraged")
			}
		},
	})
	r.titled(a.Title, v, path)
	if a.Judgement == "" {
		r.fault(v, path, "judgement is missing")
	}
	return a
}

func (r *policyReader) class(key string, v *yaml.Node, path string) Class {
	c := Class{Years: -1}
	r.checkName(key, v, path)
	r.keys(v, path, map[string]func(*yaml.Node, string){
		"title":  func(v *yaml.Node, path string) { c.Title = r.text(v, path) },
		"filing": func(v *yaml.Node, path string) { c.Filing = r.text(v, path) },
		"from":   func(v *yaml.Node, path string) { c.From = r.text(v, path) },
		"source": func(v *yaml.Node, path string) { c.Source = r.text(v, path) },
		"years": func(v *yaml.Node, path string) {
			if c.Years = 0; v.Value != "permanent" {
				c.Years = r.number(v, path, 1, maxYears)
			}
		},
	})
	r.titled(c.Title, v, path)
	switch {
	case c.Years < 0:
		r.fault(v, path, "years is missing: a number, or permanent")
	case c.Years > 0 && c.From == "":
		r.fault(v, path, "from is missing: years must count from something")
	}
	return c
}

func (r *policyReader) level(key string, v *yaml.Node, path string) Level {
	level := Level(r.text(v, path))
	rule, ok := ruleOf(key)
	switch {
	case !ok:
		r.fault(v, path, "there is no such rule")
	case rule.Fixed:
		r.fault(v, path, "the level of this rule is fixed")
	case level != Error && level != Warning && level != Info:
		r.fault(v, path, "must be error, warning or info")
	}
	return level
}

func (r *policyReader) titled(title string, v *yaml.Node, path string) {
	if title == "" {
		r.fault(v, path, "title is missing")
	}
}

// name reads a name; checkName holds names of policies, types and classes to a-z, 0-9 and hyphens, so that
// they can stand in a command line, an address and a file name.
func (r *policyReader) name(v *yaml.Node, path string) string {
	s := r.text(v, path)
	r.checkName(s, v, path)
	return s
}

func (r *policyReader) checkName(s string, v *yaml.Node, path string) {
	ok := s != "" && len(s) <= 64 && s[0] != '-'
	for i := range len(s) {
		ok = ok && (s[i] >= 'a' && s[i] <= 'z' || isDigit(s[i]) || s[i] == '-')
	}
	if !ok {
		r.fault(v, path, "a name has 1 to 64 of the characters a-z, 0-9 and -")
	}
}

// check looks at what only the whole policy shows.
func (r *policyReader) check() {
	p, l := r.p, r.p.limits
	missing := func(absent bool, path string) {
		if absent {
			r.fault(nil, path, "is missing")
		}
	}
	missing(p.Name == "", "name")
	missing(p.Title == "", "title")
	missing(l.MaxFiles == 0, "limits.files")
	missing(l.MaxFileSize == 0, "limits.file")
	missing(l.MaxSubmission == 0, "limits.submission")
	missing(l.MaxMetadata == 0, "limits.metadata")
	missing(p.audit == 0, "audit.every")
	missing(p.refusals == 0, "refusals")
	missing(len(p.types) == 0, "types")
	missing(len(p.formats) == 0, "formats")
	if l.MaxFileSize > l.MaxSubmission {
		r.fault(nil, "limits.file", "is more than limits.submission")
	}
	for _, name := range p.Types() {
		for _, mime := range p.types[name].Formats {
			if _, ok := p.formats[mime]; !ok {
				r.fault(nil, "types."+name+".formats", "%q is not in formats", mime)
			}
		}
	}
}

// form renders the canonical form, with the level of every rule, stated or not: a program in which a rule
// weighs differently has another policy. Lists whose order means nothing are sorted.
func (p *Policy) form() ([]byte, error) {
	types := maps.Clone(p.types)
	for name, t := range types {
		t.Require, t.Formats = sorted(t.Require), sorted(t.Formats)
		types[name] = t
	}
	levels := make(map[string]Level, len(rules))
	for _, rule := range rules {
		levels[rule.ID] = rule.Level
	}
	maps.Copy(levels, p.levels)
	b, err := json.Marshal(map[string]any{
		"form": policyForm, "name": p.Name, "title": p.Title, "limits": p.limits,
		"audit": map[string]any{"every": int64(p.audit / time.Second)}, "refusals": p.refusals,
		"structures": sorted(p.structures), "registers": sorted(p.registers),
		"types": types, "formats": p.formats, "retention": p.classes, "rules": levels,
	})
	if err != nil {
		return nil, err
	}
	return jcs.Transform(b)
}

func sorted(list []string) []string {
	out := slices.Clone(list)
	slices.Sort(out)
	if out == nil {
		out = []string{}
	}
	return slices.Compact(out)
}
