// Package samples makes the documents that the demonstration submits: what a municipality's systems hand
// over in an ordinary week, for two bodies that do not exist, the Comune di Montesole (c_x901) and the
// Unione dei Colli (ucolli_x902).
//
// Everything is made by this package's own code when it is asked for, from a seed and a day: nothing is
// read from a disk or a clock, and one program gives the same bytes for the same seed and day. No person is
// named, tax codes are zeros, and every page says that its body is invented.
//
// # What is made
//
// PDF acts (determina, delibera, ordinanza, verbale, permesso di costruire, contratto with XMP metadata), a
// determina in a CAdES envelope (.p7m), invoices valid against the schema of FatturaPA 1.2.2, the daily
// protocol register (PDF, CSV and XML), a certified e-mail with its certification data and the segnatura of
// circolare AgID 60/2013, payment orders, drawings (PNG), a zoning map (PDF), an ODT, a plain text in UTF-8
// and a 64 MiB recording (WAV, PCM).
package samples

import (
	"bytes"
	"io"
	"strconv"
	"time"
)

// Unit is one document unit as a municipal system describes it, ready to be submitted. The fields are
// those of a submission: see the policies package for what is wanted of each.
type Unit struct {
	Producer  string // IPA code of the body
	Structure string
	Register  string
	Year      int
	Number    string
	Date      string // YYYY-MM-DD
	Type      string
	Subject   string
	Reserved  bool
	Class     string // retention class; empty: undefined, never disposed of
	Files     []File // the main document first
}

// File is one file of a unit.
type File struct {
	Name   string // as the producer calls it, accents and spaces included
	Role   string // main, attachment, annex or annotation
	Format string // the MIME type claimed
	Size   int64  // bytes
	// Open gives the content from its first byte, each time the same. It may be called repeatedly and
	// concurrently.
	Open func() io.ReadCloser
}

// The roles of a file in its unit.
const (
	roleMain       = "main"
	roleAttachment = "attachment"
	roleAnnex      = "annex"
)

// The formats claimed for the files.
const (
	formatPDF  = "application/pdf"
	formatP7M  = "application/pkcs7-mime"
	formatXML  = "application/xml"
	formatCSV  = "text/csv"
	formatText = "text/plain"
	formatMail = "message/rfc822"
	formatPNG  = "image/png"
	formatODT  = "application/vnd.oasis.opendocument.text"
	formatWAV  = "audio/wav"
)

// All gives the documents of both bodies, in the order in which a first visitor should meet them: a plain
// determina first, the large recording last. Only day's date counts; documents are dated on it and on the
// days before.
func All(seed int64, day time.Time) []Unit {
	d := newDesk(seed, montesole, day)
	u := newDesk(seed, colli, day)
	return []Unit{
		d.determina(),
		d.signedDetermina(),
		d.invoice(),
		d.dailyRegister(),
		d.certifiedMail(),
		d.deliberaWithMap(),
		d.permit(),
		d.ordinanza(),
		d.contract(),
		d.paymentOrder(),
		u.determinaWithNotice(),
		u.invoice(),
		u.deliberaWithNotes(),
		u.dailyRegister(),
		u.ordinanza(),
		u.paymentOrder(),
		u.inspection(),
		d.minutesWithRecording(),
	}
}

// Bad gives a unit that no policy should admit, to show a refusal. It breaks five rules: it has no subject, a
// day that no calendar has, a main document that is a program, which claims to be a PDF, and an attachment
// without a single byte. Its key is in order, so that the refusal can be recorded.
func Bad(day time.Time) Unit {
	program := append([]byte("MZ\x90\x00\x03\x00\x00\x00\x04\x00\x00\x00\xff\xff\x00\x00"), make([]byte, 496)...)
	return Unit{
		Producer: montesole.code, Structure: "unica", Register: "DETE", Year: day.Year(), Number: "999",
		Date: strconv.Itoa(day.Year()) + "-02-30", Type: "determina", Subject: "",
		Files: []File{
			file("determina.pdf", roleMain, formatPDF, program),
			file("computo.csv", roleAttachment, formatCSV, nil),
		},
	}
}

// file makes a File of bytes that are held in memory and not changed afterwards.
func file(name, role, format string, content []byte) File {
	return File{
		Name: name, Role: role, Format: format, Size: int64(len(content)),
		Open: func() io.ReadCloser { return io.NopCloser(bytes.NewReader(content)) },
	}
}
