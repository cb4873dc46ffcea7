// Package policies holds a producer's rules: which submissions are admitted, how long documents stay, how
// often they are checked. It only judges: it reads no file, no clock, no network, and the same question has
// always the same answer.
//
// # Description
//
// A submission begins with its description, a JSON object in UTF-8 without byte order mark, of at most 8 MiB
// and 16 levels. Its members are those of [Description], [Party] and [FileDescription], spelled exactly as in
// their json tags, each at most once and none null; under "extra" any names may stand, no two the same but for
// the case of letters. Integers are written as integers. Required are register, year, number, date, type,
// subject, reserved and files, and of each file name, role and size. There are at most 10,000 files, 1,000
// parties and 256 extra members.
//
//	{"register": "DETE", "year": 2026, "number": "12", "date": "2026-03-09", "type": "determina",
//	 "subject": "Affidamento lavori", "reserved": false,
//	 "files": [{"name": "determina.pdf", "role": "main", "size": 48213}]}
//
// Structure, register, year and number are the document unit's [Key]: exact strings in Unicode normal form C.
// Everything else is kept as it came. Structure, register and number have at most 100 characters, the subject
// and the value of an extra member 4,000, the notes 20,000, other texts 500; a file's name at most 1,024 bytes.
//
// # Order
//
// [ParseDescription] reads, [Policy.AdmitDescription] judges before the files arrive, [Policy.AdmitFile]
// judges each file that arrived. [Join] puts the first two together, [Refused] decides. Every rule looks at
// every submission, so that one refusal names all there is to mend. Of each level at most 100 findings are
// listed, the others counted. The caller holds the bytes it reads to [Policy.Limits]: the description before
// it parses it, every file while it arrives.
//
// # Rules
//
// A rule has an id, a level and a meaning. A policy may change the level of a rule unless it is marked "!".
// An error refuses the submission; a warning and an info stand in its receipt.
//
//	class.absent       info     no retention class: never disposed of
//	class.unknown      error    retention class the policy does not have
//	date.future        error    date that no place on Earth has reached
//	date.invalid       error!   date that is not a day of the calendar as YYYY-MM-DD
//	date.year          warning  year of the date differs from the year of the register
//	digest.form        error!   declared SHA-256 that is not 64 hexadecimal digits
//	digest.mismatch    error!   bytes received differ from the declared SHA-256
//	field.required     error!   required member missing or blank
//	file.undeclared    error!   bytes received for a file that the description does not declare
//	files.count        error!   no file, or more files than the policy allows
//	files.main         error!   not exactly one main file
//	files.role         error!   unknown role of a file
//	findings.more      info!    as many further findings as it says, not listed
//	flow.value         error!   flow other than E, U, I
//	format.claim       error!   claimed format that is not a MIME type
//	format.discouraged warning  admitted format that will have to be migrated
//	format.encrypted   error    content that nobody can read without a key
//	format.executable  error!   program or script, by its bytes or, for plain text, by its name
//	format.main        error    main file in a format its document type does not have
//	format.mismatch    error    claimed format differs from the format found
//	format.protected   warning  PDF with encryption: its restrictions may hinder a later migration
//	format.truncated   warning  file that ends before its own structure does
//	format.unlisted    error    format that was not recognised, or that the policy does not list
//	json.duplicate     error!   member given twice
//	json.encoding      error!   description that is not UTF-8
//	json.limits        error!   description too large, too deep, or with too many members or faults
//	json.name          error!   unknown member, or a known one in other letters
//	json.syntax        error!   description that is not one JSON value
//	json.type          error!   member of another JSON type
//	key.characters     error!   character that a structure, register or number cannot have
//	key.year           error!   year of the register outside 1861 to 2200
//	name.duplicate     warning  two files with names that many systems take for the same
//	name.extension     warning  extension that belongs to another format than the one found
//	name.forbidden     error!   name with path separators, control characters, invalid UTF-8, “.”, “..”, or over 1024 bytes
//	name.misleading    warning  name that looks like another: bidirectional or invisible characters, mixed alphabets
//	name.portable      warning  name that some systems cannot write: reserved, special characters, over 255 bytes
//	party.tax-code     warning  tax code that is neither 16 characters nor 11 digits
//	register.unknown   error    register that the policy does not list
//	size.limit         error!   file or submission over its limit, or a negative size
//	size.mismatch      error!   number of bytes received differs from the declared one
//	size.zero          error!   file without bytes, or without a declared size
//	structure.unknown  error    structure that the policy does not list
//	text.characters    error!   character that no XML index can carry: control characters, U+FFFE, U+FFFF, invalid UTF-8
//	text.invisible     warning  invisible characters or characters that reverse the text
//	text.length        error!   text longer than its limit
//	text.normalised    info     text not in Unicode normal form C: kept as it is, compared in that form
//	type.unknown       error    document type that the policy does not have
//
// # Formats
//
// What a file is its first 4 KiB tell ([DetectFormat]), never its name. In order: signatures of programs, where
// the bytes are no text; ZIP, by its first members (a stored "mimetype", the main type in
// "[Content_Types].xml", the marks of Java and Android packages); CMS, time-stamps and certificates in DER, BER
// or Base64, by their object identifiers; PDF; scripts; XML in any encoding, its dialect by namespace and name
// of the root; PEM; mail, by two usual header fields; then a general library, whose answers in signatures of
// letters are dropped for plain text; last a PDF header within the first KiB.
//
// Extension and claimed type are compared with what was found, as far as leading bytes can tell formats apart:
// a CSV may be found as plain text, a DOCX as a ZIP. The one exception refuses and never admits: plain text and
// unrecognised bytes whose extension makes a computer run them. What lies inside archives and envelopes is not
// looked at here.
//
// # Policy file
//
// A policy is a YAML file; builtin/comune.yaml, the policy of a municipality, explains every key. A producer's
// own file states what differs from it ([Parse]). Unknown keys, keys given twice, aliases and merges are
// refused. Bounds set by the norms hold: at least 3 refusals (AgID Linee guida 4.7 c), an audit at least every
// five years (4.5 f), retention of 1 to 4999 years or permanent (Allegato 5). A document without a class, or
// of a class that says permanent, is never disposed of. [Policy.Canonical] is the form that receipts name.
package policies
