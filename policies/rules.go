package policies

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Rule is one line of the table in the package comment.
type Rule struct {
	ID      string
	Level   Level  // unless the policy says otherwise
	Fixed   bool   // a policy cannot change the level: the archive relies on it
	Meaning string // what it says, in a few English words

	italian, english text
}

// text is a message and its remedy; {name} stands for an argument of the finding.
type text struct{ message, remedy string }

// Rules returns every rule there is, ordered by id.
func Rules() []Rule { return slices.Clone(rules) }

func ruleOf(id string) (Rule, bool) {
	i, ok := slices.BinarySearchFunc(rules, id, func(r Rule, id string) int { return strings.Compare(r.ID, id) })
	if !ok {
		return Rule{}, false
	}
	return rules[i], true
}

// finding makes a finding of a rule at its own level; args are names and values in turn. A value that comes
// from the submission passes through quoted first.
func finding(id, field string, args ...string) Finding {
	r, ok := ruleOf(id)
	if !ok {
		panic("policies: no rule " + id)
	}
	f := Finding{Field: field, Rule: id, Level: r.Level}
	for i := 0; i+1 < len(args); i += 2 {
		if f.Args == nil {
			f.Args = make(map[string]string, len(args)/2)
		}
		f.Args[args[i]] = args[i+1]
	}
	f.Message, f.Remedy = render(r.italian, f.Args)
	return f
}

// In renders the finding in a language, "it" or "en"; for any other, and for a rule this program does not
// know, it gives the texts that the finding carries.
func (f Finding) In(lang string) (message, remedy string) {
	r, ok := ruleOf(f.Rule)
	switch {
	case ok && lang == "en":
		return render(r.english, f.Args)
	case ok && lang == "it" && f.Message == "":
		return render(r.italian, f.Args)
	}
	return f.Message, f.Remedy
}

func render(t text, args map[string]string) (message, remedy string) {
	return fill(t.message, args), fill(t.remedy, args)
}

// fill puts the arguments in one pass, so that an argument that looks like a placeholder stays as it is.
func fill(template string, args map[string]string) string {
	if !strings.Contains(template, "{") {
		return template
	}
	pairs := make([]string, 0, 2*len(args))
	for name, value := range args {
		pairs = append(pairs, "{"+name+"}", value)
	}
	return strings.NewReplacer(pairs...).Replace(template)
}

// maxQuoted bounds, in characters, what a message repeats of a submission.
const maxQuoted = 80

// quoted makes a string of the submission fit for a message: what is invisible, reverses the text or ends a
// line is escaped, what is long is cut.
func quoted(s string) string {
	if utf8.RuneCountInString(s) > maxQuoted {
		n := 0
		for i := range s {
			if n == maxQuoted {
				s = s[:i] + "…"
				break
			}
			n++
		}
	}
	q := strconv.QuoteToGraphic(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// rules is ordered by ID.
var rules = []Rule{
	{
		"class.absent", Info, false, "no retention class: never disposed of",
		text{"nessuna classe di conservazione: il documento non sarà mai proposto per lo scarto", ""},
		text{"no retention class: the document will never be proposed for disposal", ""},
	},
	{
		"class.unknown", Error, false, "retention class the policy does not have",
		text{"la classe di conservazione «{value}» non è tra quelle previste", "indicare una classe del piano di conservazione{hint} o non indicarne alcuna"},
		text{"retention class “{value}” is not one of the policy's", "give a class of the retention plan{hint_en}, or none"},
	},
	{
		"date.future", Error, false, "date that no place on Earth has reached",
		text{"la data {value} è nel futuro", "correggere la data di registrazione o l'orologio del sistema che versa"},
		text{"date {value} is in the future", "correct the date of registration, or the clock of the sending system"},
	},
	{
		"date.invalid", Error, true, "date that is not a day of the calendar as YYYY-MM-DD",
		text{"«{value}» non è una data valida", "scrivere la data come AAAA-MM-GG, per esempio 2026-03-09"},
		text{"“{value}” is not a valid date", "write the date as YYYY-MM-DD, for example 2026-03-09"},
	},
	{
		"date.year", Warning, false, "year of the date differs from the year of the register",
		text{"la data {value} non cade nell'anno {year} del registro", "verificare anno e data; se sono giusti non occorre altro"},
		text{"date {value} does not fall in the register's year {year}", "check year and date; nothing to do if both are right"},
	},
	{
		"digest.form", Error, true, "declared SHA-256 that is not 64 hexadecimal digits",
		text{"l'impronta dichiarata non è uno SHA-256 in esadecimale", "scrivere 64 cifre esadecimali o non dichiarare l'impronta"},
		text{"the declared digest is not a hexadecimal SHA-256", "write 64 hexadecimal digits, or declare no digest"},
	},
	{
		"digest.mismatch", Error, true, "bytes received differ from the declared SHA-256",
		text{"l'impronta del file ricevuto è {found}, quella dichiarata è {declared}", "inviare di nuovo il file, o correggere l'impronta"},
		text{"the file received has the digest {found}, declared is {declared}", "send the file again, or correct the digest"},
	},
	{
		"field.required", Error, true, "required member missing or blank",
		text{"dato obbligatorio mancante o vuoto", "indicare «{name}»"},
		text{"required and missing or blank", "give “{name}”"},
	},
	{
		"file.undeclared", Error, true, "bytes received for a file that the description does not declare",
		text{"è arrivato un file che la descrizione non dichiara", "dichiarare ogni file, nell'ordine in cui è inviato"},
		text{"a file arrived that the description does not declare", "declare every file, in the order in which it is sent"},
	},
	{
		"files.count", Error, true, "no file, or more files than the policy allows",
		text{"i file sono {count}, ammessi da 1 a {max}", "versare almeno un file; dividere le unità documentarie troppo grandi"},
		text{"there are {count} files, 1 to {max} are allowed", "submit at least one file; divide a unit that is too large"},
	},
	{
		"files.main", Error, true, "not exactly one main file",
		text{"i file con ruolo «main» sono {count}, deve essercene uno", "dare il ruolo «main» al documento principale e «attachment», «annex» o «annotation» agli altri"},
		text{"{count} files have the role “main”, there must be one", "give “main” to the main document and “attachment”, “annex” or “annotation” to the others"},
	},
	{
		"files.role", Error, true, "unknown role of a file",
		text{"il ruolo «{value}» non esiste", "usare main (documento principale), attachment (allegato), annex (annesso) o annotation (annotazione)"},
		text{"there is no role “{value}”", "use main, attachment, annex or annotation"},
	},
	{
		"findings.more", Info, true, "as many further findings as it says, not listed",
		text{"altri {count} rilievi non elencati", "correggere quelli elencati e versare di nuovo"},
		text{"{count} further findings not listed", "correct those listed and submit again"},
	},
	{
		"flow.value", Error, true, "flow other than E, U, I",
		text{"la tipologia di flusso «{value}» non esiste", "usare E (in entrata), U (in uscita), I (interno), o non indicarla"},
		text{"there is no flow “{value}”", "use E (incoming), U (outgoing), I (internal), or none"},
	},
	{
		"format.claim", Error, true, "claimed format that is not a MIME type",
		text{"«{value}» non è un tipo MIME", "scrivere per esempio application/pdf, o non dichiarare il formato"},
		text{"“{value}” is not a MIME type", "write for example application/pdf, or claim no format"},
	},
	{
		"format.discouraged", Warning, false, "admitted format that will have to be migrated",
		text{"il formato {found} è ammesso ma sconsigliato per la conservazione", "quando possibile versare anche una copia in un formato idoneo, per esempio PDF/A"},
		text{"format {found} is admitted but discouraged for conservation", "where possible, submit a copy in a suitable format too, for example PDF/A"},
	},
	{
		"format.encrypted", Error, false, "content that nobody can read without a key",
		text{"il file è cifrato ({found})", "versare il documento in chiaro: cifrato non resterebbe leggibile"},
		text{"the file is encrypted ({found})", "submit the document in clear: encrypted it would not stay readable"},
	},
	{
		"format.executable", Error, true, "program or script, by its bytes or, for plain text, by its name",
		text{"il file è un programma ({found})", "versare documenti, non programmi"},
		text{"the file is a program ({found})", "submit documents, not programs"},
	},
	{
		"format.main", Error, false, "main file in a format its document type does not have",
		text{"il documento principale è {found}; per il tipo «{type}» sono ammessi {admitted}", "versare l'originale nel formato previsto, o scegliere un altro tipo documentale"},
		text{"the main document is {found}; type “{type}” admits {admitted}", "submit the original in its proper format, or choose another document type"},
	},
	{
		"format.mismatch", Error, false, "claimed format differs from the format found",
		text{"dichiarato {claimed}, trovato {found}", "dichiarare il formato trovato, inviare il file giusto, o non dichiarare il formato"},
		text{"claimed {claimed}, found {found}", "claim the format found, send the right file, or claim no format"},
	},
	{
		"format.protected", Warning, false, "PDF with encryption: its restrictions may hinder a later migration",
		text{"il PDF è protetto o limitato", "quando possibile versarne una versione senza protezione"},
		text{"the PDF is protected or restricted", "where possible, submit a version without protection"},
	},
	{
		"format.truncated", Warning, false, "file that ends before its own structure does",
		text{"il file sembra incompleto ({found})", "aprirlo all'origine e, se non si apre, inviarlo di nuovo"},
		text{"the file seems incomplete ({found})", "open it where it comes from and, if it does not open, send it again"},
	},
	{
		"format.unlisted", Error, false, "format that was not recognised, or that the policy does not list",
		text{"il formato {found} non è ammesso", "convertire il file in un formato ammesso, per esempio PDF/A, o chiedere al responsabile della conservazione di ammetterlo"},
		text{"format {found} is not admitted", "convert the file to an admitted format, for example PDF/A, or ask the conservation officer to admit it"},
	},
	{
		"json.duplicate", Error, true, "member given twice",
		text{"membro indicato due volte", "indicarlo una volta sola"},
		text{"member given twice", "give it once"},
	},
	{
		"json.encoding", Error, true, "description that is not UTF-8",
		text{"la descrizione non è in UTF-8 (byte {offset})", "codificare il JSON in UTF-8"},
		text{"the description is not UTF-8 (byte {offset})", "encode the JSON in UTF-8"},
	},
	{
		"json.limits", Error, true, "description too large, too deep, or with too many members or faults",
		text{"la descrizione supera un limite: {what} oltre {max}", "ridurla"},
		text{"the description exceeds a limit: {what_en} over {max}", "reduce it"},
	},
	{
		"json.name", Error, true, "unknown member, or a known one in other letters",
		text{"membro sconosciuto", "toglierlo{hint}; i dati propri del produttore vanno in «extra»"},
		text{"unknown member", "remove it{hint_en}; the producer's own data belong in “extra”"},
	},
	{
		"json.syntax", Error, true, "description that is not one JSON value",
		text{"la descrizione non è JSON (riga {line}, colonna {column})", "correggere il JSON"},
		text{"the description is not JSON (line {line}, column {column})", "correct the JSON"},
	},
	{
		"json.type", Error, true, "member of another JSON type",
		text{"valore di tipo sbagliato: atteso {want}", "scrivere un valore di tipo {want}, o togliere il membro se è facoltativo"},
		text{"value of the wrong type: {want_en} wanted", "write a value of type {want_en}, or remove the member if it is optional"},
	},
	{
		"key.characters", Error, true, "character that a structure, register or number cannot have",
		text{"«{value}» contiene caratteri non ammessi in una chiave", "togliere caratteri di controllo o invisibili, spazi iniziali, finali o ripetuti"},
		text{"“{value}” contains characters that a key cannot have", "remove control and invisible characters, leading, trailing and repeated spaces"},
	},
	{
		"key.year", Error, true, "year of the register outside 1861 to 2200",
		text{"l'anno {value} non è ammesso", "indicare l'anno del registro con quattro cifre, da 1861 a 2200"},
		text{"year {value} is not allowed", "give the register's year in four digits, 1861 to 2200"},
	},
	{
		"name.duplicate", Warning, false, "two files with names that many systems take for the same",
		text{"il nome «{value}» è già usato da {other}", "dare nomi diversi ai file di una unità documentaria"},
		text{"name “{value}” is used by {other} already", "give the files of a unit different names"},
	},
	{
		"name.extension", Warning, false, "extension that belongs to another format than the one found",
		text{"l'estensione «{value}» non corrisponde al formato trovato, {found}", "correggere il nome all'origine"},
		text{"extension “{value}” does not belong to the format found, {found}", "correct the name where it comes from"},
	},
	{
		"name.forbidden", Error, true, "name with path separators, control characters, invalid UTF-8, “.”, “..”, or over 1024 bytes",
		text{"il nome «{value}» non è ammesso", "usare un nome di file semplice, senza percorso né caratteri di controllo, fino a 1024 byte"},
		text{"name “{value}” is not allowed", "use a plain file name, without path or control characters, up to 1024 bytes"},
	},
	{
		"name.misleading", Warning, false, "name that looks like another: bidirectional or invisible characters, mixed alphabets",
		text{"il nome «{value}» può trarre in inganno chi lo legge", "togliere caratteri invisibili o che invertono il testo; non mescolare alfabeti"},
		text{"name “{value}” may deceive its reader", "remove invisible characters and those that reverse text; do not mix alphabets"},
	},
	{
		"name.portable", Warning, false, "name that some systems cannot write: reserved, special characters, over 255 bytes",
		text{"il nome «{value}» non si può scrivere su ogni sistema", "evitare nomi riservati, i caratteri < > : \" | ? * %, spazi e punti in fondo, più di 255 byte"},
		text{"name “{value}” cannot be written on every system", "avoid reserved names, the characters < > : \" | ? * %, trailing spaces and dots, more than 255 bytes"},
	},
	{
		"party.tax-code", Warning, false, "tax code that is neither 16 characters nor 11 digits",
		text{"«{value}» non ha la forma di un codice fiscale né di una partita IVA", "verificarlo; i soggetti esteri possono avere codici diversi"},
		text{"“{value}” has the form of neither a tax code nor a VAT number", "check it; foreign parties may have other codes"},
	},
	{
		"register.unknown", Error, false, "register that the policy does not list",
		text{"il registro «{value}» non è tra quelli previsti", "usare un registro della configurazione{hint}, o aggiungerlo"},
		text{"register “{value}” is not one of the policy's", "use a configured register{hint_en}, or add it"},
	},
	{
		"size.limit", Error, true, "file or submission over its limit, or a negative size",
		text{"{size} byte, ammessi fino a {max}", "dividere il versamento o far alzare il limite"},
		text{"{size} bytes, up to {max} are allowed", "divide the submission, or have the limit raised"},
	},
	{
		"size.mismatch", Error, true, "number of bytes received differs from the declared one",
		text{"ricevuti {found} byte, dichiarati {declared}", "inviare di nuovo il file intero, o correggere la dimensione"},
		text{"received {found} bytes, declared {declared}", "send the whole file again, or correct the size"},
	},
	{
		"size.zero", Error, true, "file without bytes, or without a declared size",
		text{"il file è vuoto o la dimensione non è dichiarata", "dichiarare la dimensione e inviare un file che abbia un contenuto"},
		text{"the file is empty or its size is not declared", "declare the size and send a file that has content"},
	},
	{
		"structure.unknown", Error, false, "structure that the policy does not list",
		text{"la struttura «{value}» non è tra quelle previste", "usare una struttura della configurazione{hint}, o aggiungerla"},
		text{"structure “{value}” is not one of the policy's", "use a configured structure{hint_en}, or add it"},
	},
	{
		"text.characters", Error, true, "character that no XML index can carry: control characters, U+FFFE, U+FFFF, invalid UTF-8",
		text{"il testo contiene un carattere non ammesso ({value})", "togliere i caratteri di controllo"},
		text{"the text contains a character that is not allowed ({value})", "remove control characters"},
	},
	{
		"text.invisible", Warning, false, "invisible characters or characters that reverse the text",
		text{"il testo contiene caratteri invisibili o che ne invertono il verso ({value})", "toglierli all'origine"},
		text{"the text contains invisible characters or characters that reverse it ({value})", "remove them where it comes from"},
	},
	{
		"text.length", Error, true, "text longer than its limit",
		text{"{count} caratteri, ammessi fino a {max}", "abbreviare; i testi lunghi vanno versati come file"},
		text{"{count} characters, up to {max} are allowed", "shorten it; long texts are submitted as files"},
	},
	{
		"text.normalised", Info, false, "text not in Unicode normal form C: kept as it is, compared in that form",
		text{"il testo non è in forma normale Unicode C", "nessuno: è conservato com'è e confrontato in forma C"},
		text{"the text is not in Unicode normal form C", "none: it is kept as it is and compared in form C"},
	},
	{
		"type.unknown", Error, false, "document type that the policy does not have",
		text{"il tipo documentale «{value}» non è tra quelli previsti", "usare un tipo documentale della configurazione{hint}, o aggiungerlo"},
		text{"document type “{value}” is not one of the policy's", "use a configured document type{hint_en}, or add it"},
	},
}
