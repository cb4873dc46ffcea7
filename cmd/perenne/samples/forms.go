package samples

import (
	"bytes"
	"embed"
	"encoding/xml"
	"path"
	"strings"
	"text/template"
)

//go:embed forms
var forms embed.FS

// form fills in the XML form called name. Every value is escaped where the form says {{x …}}.
func form(name string, values any) []byte {
	escape := template.FuncMap{"x": func(v string) string {
		var b strings.Builder
		must(0, xml.EscapeText(&b, []byte(v)))
		return b.String()
	}}
	t := must(template.New(path.Base(name)).Funcs(escape).ParseFS(forms, "forms/"+name))
	var b bytes.Buffer
	must(0, t.Execute(&b, values))
	return b.Bytes()
}
