package web

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/marchesud/perenne/archive/paper"
	"github.com/marchesud/perenne/policies"
)

// language picks the language of an answer: the one of ours that Accept-Language prefers, else Italian.
func language(r *http.Request) paper.Lang {
	header := r.Header.Get("Accept-Language")
	best, quality := paper.Italian, 0.0
	for _, part := range strings.SplitN(header[:min(len(header), 512)], ",", 32) {
		tag, q := weigh(part)
		primary, _, _ := strings.Cut(tag, "-")
		var l paper.Lang
		switch strings.ToLower(primary) {
		case "it":
			l = paper.Italian
		case "en":
			l = paper.English
		default:
			continue
		}
		if q > quality {
			best, quality = l, q
		}
	}
	return best
}

// weigh splits one element of an Accept header into its value and its weight.
func weigh(part string) (value string, q float64) {
	value, params, _ := strings.Cut(part, ";")
	q = 1
	for p := range strings.SplitSeq(params, ";") {
		if text, ok := strings.CutPrefix(strings.ReplaceAll(p, " ", ""), "q="); ok {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil || !(v >= 0 && v <= 1) {
				v = 0
			}
			q = v
		}
	}
	return strings.TrimSpace(value), q
}

// prefersProblem reports whether Accept wants problem details rather than plain JSON.
func prefersProblem(r *http.Request) bool {
	header := r.Header.Get("Accept")
	weights := map[string]float64{}
	for _, part := range strings.SplitN(header[:min(len(header), 512)], ",", 32) {
		value, q := weigh(part)
		weights[strings.ToLower(value)] = q
	}
	return weights[ProblemType] > weights["application/json"]
}

// phrase gives title and detail for a word of a problem.
func phrase(word string, l paper.Lang) (title, detail string) {
	p, ok := phrases[word]
	if !ok {
		p = phrases["internal"]
	}
	return l.T(p[0], p[2]), l.T(p[1], p[3])
}

// phrases holds, for each word, title and detail in Italian, then in English.
var phrases = map[string][4]string{
	"internal":    {"Errore interno", "Nulla è stato preso in carico. L'identificativo della richiesta aiuta chi gestisce il servizio a trovarne la causa.", "Internal error", "Nothing was taken in charge. The identifier of the request helps the operator to find the cause."},
	"invalid":     {"Richiesta non valida", "Nulla è stato registrato. I rilievi indicano il campo e il rimedio.", "Invalid request", "Nothing was recorded. The findings name the field and the remedy."},
	"refused":     {"Documento non preso in carico", "La policy del produttore non ammette il versamento; i rilievi dicono perché.", "Document not taken in charge", "The producer's policy does not admit the submission; the findings say why."},
	"conflict":    {"Chiave già occupata", "Con questa chiave è già conservato un documento di altro contenuto.", "Key already taken", "A document with other content is already kept under this key."},
	"not-found":   {"Non trovato", "Non esiste, oppure il token non vi dà accesso.", "Not found", "It does not exist, or the token gives no access to it."},
	"damaged":     {"Danno rilevato", "Ciò che è conservato non è ciò che fu conservato: non viene rilasciato nulla. Eseguire una verifica (perenne audit).", "Damage found", "What is kept is not what was kept: nothing is given out. Run an audit (perenne audit)."},
	"unavailable": {"Servizio non disponibile ora", "Nulla è stato preso in carico. Ripetere più tardi: ripetere è sempre sicuro.", "Service not available now", "Nothing was taken in charge. Try again later: retrying is always safe."},
	"read-only":   {"Archivio in sola lettura", "Le chiavi di questo archivio non sono qui: nulla può essere scritto né sigillato.", "Read-only archive", "The keys of this archive are not here: nothing can be written or sealed."},

	"unauthorized":           {"Token mancante o non valido", "Inviare un token valido: Authorization: Bearer …", "Missing or invalid token", "Send a valid token: Authorization: Bearer …"},
	"forbidden":              {"Ruolo mancante", "Il token non ha il ruolo che questa operazione richiede.", "Role lacking", "The token does not have the role that this operation needs."},
	"method-not-allowed":     {"Metodo non ammesso", "I metodi ammessi sono nell'intestazione Allow.", "Method not allowed", "The methods allowed are in the Allow header."},
	"too-slow":               {"Troppo lento", "Il corpo della richiesta arriva troppo lentamente. Nulla è stato preso in carico; ripetere è sempre sicuro.", "Too slow", "The body of the request arrives too slowly. Nothing was taken in charge; retrying is always safe."},
	"too-large":              {"Troppo grande", "Nulla è stato registrato. I rilievi indicano il campo e il limite.", "Too large", "Nothing was recorded. The findings name the field and the limit."},
	"unsupported-media-type": {"Tipo di contenuto non ammesso", "I rilievi indicano il tipo richiesto.", "Unsupported media type", "The findings name the type wanted."},
	"too-many":               {"Troppi versamenti contemporanei", "Il produttore ha già il massimo dei versamenti in corso. Ripetere fra poco.", "Too many submissions at once", "The producer already has as many submissions under way as it may. Try again soon."},
}

// english are the texts, without parameters, of rules that speak only Italian where they are made: those of
// archive about the transport and the ledger, and those of this package. Message, then remedy.
var english = map[string][2]string{
	"metadata.size":    {"the metadata are larger than the policy takes", "make them smaller"},
	"file.size":        {"the file is larger than the policy takes", "split the file, or agree on a higher limit"},
	"submission.size":  {"the submission is larger than the policy takes", "split it into several document units"},
	"file.short":       {"fewer bytes arrived than announced", "state the exact size of the file in size and send it whole"},
	"file.long":        {"more bytes arrived than announced", "state the exact size of the file in size"},
	"file.missing":     {"the file announced did not arrive", "send the files in the order in which the description announces them"},
	"file.order":       {"a file of another name arrived", "send the files in the order in which the description announces them"},
	"file.unannounced": {"a file arrived that the description does not announce", "list in files every file you send"},
	"transport":        {"the body of the request ends early or is malformed", "send again: repeating a submission is always safe"},
	"key.taken":        {"the key is taken by a package with other content", "check the key; to replace the document its package must be annulled first"},
	"refusals.limit":   {"this key has been refused as often as was agreed", "agree with the conservatore on how to proceed; the limit is in the producer's policy"},

	"http.content-type":  {"the content type is not the one this request needs", "see docs/api.md: multipart/form-data with a boundary for submissions, application/json for the others"},
	"multipart.metadata": {"the first part is not the metadata", "send first a part named metadata, of type application/json"},
	"multipart.file":     {"a part is not named file", "after metadata send only parts named file, in the order announced"},
	"multipart.name":     {"the file name in Content-Disposition is not UTF-8 or is malformed", "send it as filename in UTF-8, as filename* (RFC 5987), or leave it out"},
	"multipart.encoding": {"a part has a Content-Transfer-Encoding", "send the bytes as they are (binary)"},
	"multipart.header":   {"the header of a part is too large or malformed", "send only Content-Disposition and Content-Type, within 8 KiB"},
	"multipart.epilogue": {"bytes follow the last boundary", "end the body at the final boundary"},
	"multipart.form":     {"the body is not well-formed multipart/form-data, or is cut short", "send each part between the announced boundaries, and the final boundary"},
	"http.slow":          {"the body arrives too slowly", "send again over a faster line: repeating is always safe"},
	"http.encoding":      {"the body is compressed", "send it without Content-Encoding"},
	"json.form":          {"the body is not the JSON this request needs", "see docs/api.md"},
	"json.size":          {"the body is too large", "ask for less at once"},
	"query.unknown":      {"unknown parameter", "use structure, register, number, year, from, to, type, q, limit, after"},
	"query.repeated":     {"parameter given twice", "give it once"},
	"query.form":         {"the value cannot be understood", "see docs/api.md: dates as YYYY-MM-DD, year and limit as numbers, after as the page before gave it"},
	"purpose.form":       {"the purpose is missing, longer than 1000 bytes, or has control characters", "say in purpose why the copy is asked for"},
	"against.receipt":    {"not a receipt of this producer that checks out against this archive", "send the receipt file exactly as it was issued"},
	"ids.form":           {"not a list of identifiers of packages", "send at most 10,000 identifiers as search gives them, or leave ids out to audit everything"},
}

// speak renders findings in a language. Italian is the language they are made in.
func speak(fs []policies.Finding, l paper.Lang) []policies.Finding {
	out := make([]policies.Finding, 0, len(fs))
	for _, f := range fs {
		f.Message, f.Remedy = f.In(string(l))
		if t, ok := english[f.Rule]; ok && l == paper.English {
			f.Message, f.Remedy = t[0], t[1]
		}
		out = append(out, f)
	}
	return out
}

// finding makes one of this package's own.
func finding(field, rule, message, remedy string) policies.Finding {
	return policies.Finding{Field: field, Rule: rule, Level: policies.Error, Message: message, Remedy: remedy}
}

// badRequest is a 400 with one finding.
func badRequest(field, rule, message, remedy string) error {
	return &transportError{status: http.StatusBadRequest, finding: finding(field, rule, message, remedy)}
}
