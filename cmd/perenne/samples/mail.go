package samples

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/textproto"
	"strconv"
	"time"
)

// part is a MIME part before its transfer encoding.
type part struct {
	kind, name string
	content    []byte
}

// message writes an RFC 5322 message whose parts follow a multipart/mixed boundary made from its id.
func message(headers [][2]string, id string, parts ...part) []byte {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	sum := sha256.Sum256([]byte(id))
	must(0, w.SetBoundary("perenne-"+hex.EncodeToString(sum[:12])))
	for _, h := range headers {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	fmt.Fprintf(&b, "Message-ID: <%s>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=%q\r\n\r\n", id, w.Boundary())
	for _, p := range parts {
		p.write(w)
	}
	must(0, w.Close())
	return b.Bytes()
}

func (p part) write(w *multipart.Writer) {
	h := textproto.MIMEHeader{"Content-Type": {p.kind}}
	if p.name != "" {
		h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": p.name}))
	}
	switch p.kind {
	case "text/plain; charset=utf-8":
		h.Set("Content-Transfer-Encoding", "quoted-printable")
		q := quotedprintable.NewWriter(must(w.CreatePart(h)))
		must(q.Write(p.content))
		must(0, q.Close())
	case formatMail: // RFC 2046 §5.2.1 allows no encoding here but the message's own
		h.Set("Content-Transfer-Encoding", "7bit")
		must(must(w.CreatePart(h)).Write(p.content))
	default:
		h.Set("Content-Transfer-Encoding", "base64")
		out := must(w.CreatePart(h))
		text := base64.StdEncoding.EncodeToString(p.content)
		for len(text) > 76 {
			must(out.Write([]byte(text[:76] + "\r\n")))
			text = text[76:]
		}
		must(out.Write([]byte(text + "\r\n")))
	}
}

// certifiedMail is a message as a PEC box holds it: the provider's envelope around the certification data
// and the original message with its PDF; the segnatura comes as an attachment of the unit. Unlike a real
// envelope it is not signed by a provider.
func (d *desk) certifiedMail() Unit {
	at := d.ago(1).Add(94 * time.Minute)
	number := at.YearDay()*61 + 7
	subject := "Conferenza di servizi per la pista ciclabile: è convocata la prima riunione"
	other := colli
	letter := d.letter(at, other, subject)
	id := fmt.Sprintf("opec.%d.%06d@pec.unionedeicolli.invalid", at.Unix(), d.chance("mail").IntN(1_000_000))
	digest := sha256.Sum256(letter)
	stamp := form("segnatura.xml", map[string]string{
		"FromCode": other.code, "FromName": other.name, "FromAddress": other.address, "From": other.post, "To": d.body.post,
		"Number": fmt.Sprintf("%07d", number), "Date": at.Format(time.DateOnly), "Subject": subject,
		"File": "convocazione.pdf", "Digest": base64.StdEncoding.EncodeToString(digest[:]),
	})
	data := form("daticert.xml", map[string]string{
		"From": other.post, "To": d.body.post, "Subject": subject, "Day": at.Format("02/01/2006"),
		"Hour": at.Format("15:04:05"), "ID": "opec." + strconv.FormatInt(at.Unix(), 10), "MessageID": id,
	})
	text := "Si trasmette la convocazione allegata.\r\n\r\nLa riunione si terrà in modalità telematica; chi è impossibilitato può delegare.\r\n\r\nDistinti saluti\r\n"
	date := at.Format(time.RFC1123Z)
	inner := message([][2]string{
		{"From", other.post}, {"To", d.body.post}, {"Subject", mime.QEncoding.Encode("utf-8", subject)}, {"Date", date},
	}, id, part{kind: "text/plain; charset=utf-8", content: []byte(text)},
		part{kind: formatPDF, name: "convocazione.pdf", content: letter},
		part{kind: formatXML, name: "segnatura.xml", content: stamp})
	outer := message([][2]string{
		{"From", mime.QEncoding.Encode("utf-8", "Per conto di: "+other.post) + " <posta-certificata@pec.esempio.invalid>"},
		{"To", d.body.post},
		{"Subject", mime.QEncoding.Encode("utf-8", "POSTA CERTIFICATA: "+subject)},
		{"Date", date},
		{"X-Trasporto", "posta-certificata"},
		{"X-Riferimento-Message-ID", "<" + id + ">"},
	}, "busta."+id,
		part{kind: "text/plain; charset=utf-8", content: []byte("Messaggio di posta certificata\r\n\r\nIl messaggio originale è incluso in allegato.\r\n")},
		part{kind: formatXML, name: "daticert.xml", content: data},
		part{kind: formatMail, name: "postacert.eml", content: inner})
	return d.unit("PROT", "pec", at, number, subject+".",
		file("PEC ricevuta – convocazione.eml", roleMain, formatMail, outer),
		file("segnatura.xml", roleAttachment, formatXML, stamp))
}

// letter is the PDF inside the certified mail.
func (d *desk) letter(at time.Time, from body, subject string) []byte {
	s := newSheet(from, subject, "Prot. in uscita", at)
	s.paragraphs("Al "+d.body.name+"\n"+d.body.post, "")
	s.text("B", textSize, textLine, "J", "Oggetto: "+subject+".")
	s.Ln(3)
	s.paragraphs(
		"Ai sensi degli artt. 14 e 14-bis della legge 7 agosto 1990, n. 241, è convocata la conferenza di servizi in forma simultanea per l’esame del progetto di fattibilità della pista ciclabile intercomunale.",
		"La prima riunione si terrà "+withDate("il", at.AddDate(0, 0, 15))+" alle ore 10:00. Gli enti in indirizzo sono invitati a far pervenire eventuali richieste di integrazione entro quindici giorni.",
		"Gli elaborati sono consultabili presso il Servizio Mobilità, che resta a disposizione per ogni chiarimento.")
	s.signature(from.place, at, "IL RESPONSABILE DEL SERVIZIO MOBILITÀ")
	return s.bytes()
}
