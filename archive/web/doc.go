// Package web is the archive over HTTP, both ends: [Server] and [Client] speak the same few routes and the same
// wire types. docs/api.md shows them with curl.
//
// # Routes
//
// All under /api/v1, with a bearer token, JSON unless said:
//
//	POST /producers/{producer}/submissions              submit   multipart/form-data, see below
//	GET  /producers/{producer}/packages                 read     search: structure register number year from to type q limit after
//	GET  /producers/{producer}/packages/{id}            read     one record of the catalog
//	GET  /producers/{producer}/packages/{id}/package    read     the package (application/vnd.etsi.asic-e+zip)
//	GET  /producers/{producer}/packages/{id}/receipt    submit, read  the receipt file, or the refusal
//	GET  /producers/{producer}/packages/{id}/receipt.xml submit, read the same as rapporto di versamento (XML)
//	GET  /producers/{producer}/packages/{id}/proof      submit, read  tlog-proof (text/plain)
//	GET  /producers/{producer}/packages/{id}/evidence   submit, read  RFC 4998 record (application/octet-stream)
//	POST /producers/{producer}/packages/{id}/copies     read     {"purpose": …} → the distribution package
//	POST /producers/{producer}/audits                   audit    {"ids": […], "against": [receipt, …]} → NDJSON
//	GET  /status                                        any      what the token may see of archive.Health
//	GET  /healthz, /readyz                              none     200 or 503, one word
//
// and outside it, for C2SP tlog-tiles clients, without a token where the installation is configured so:
//
//	GET /ledger/{producer}/checkpoint
//	GET /ledger/{producer}/tile/…
//
// Role admin implies the others. HEAD is answered wherever GET is.
//
// # Submission
//
// The body is multipart/form-data: first a part named metadata (application/json, the description), then one
// part named file for each file, in the order in which the description announces them. A file name in
// Content-Disposition is optional; where it is given, as filename or as filename* (RFC 5987), it must be the
// one announced. Parts are binary: a Content-Transfer-Encoding other than 7bit, 8bit or binary is turned away.
// Nothing but a few line ends may follow the last boundary. No file is ever held in memory.
//
// The answer is 201 with the receipt file, byte for byte (RFC 8785), and Perenne-Outcome: accepted; 200 when
// the package existed already, so that retrying is always safe; 422 with the refusal in the same form and
// Perenne-Outcome: refused when the policy does not admit it (or, for who prefers application/problem+json,
// problem details with the same findings). Everything else is an error.
//
// # Errors
//
// Every error of ours is a [Problem] (RFC 9457), in Italian or English by Accept-Language. Statuses follow from
// archive.Kind in one place, the function statusOf. An unknown producer, a producer that the token is not
// for, and an unknown identifier get the same bytes with status 404, without an instance: nobody learns
// from them what exists.
//
// # Slow and large
//
// A request's header must arrive within HeaderTimeout; after that its body, and the reading of the answer,
// must make MinRate bytes a second over any 30 seconds in which the other side is waited for. Who is slower is
// cut (408 while that can still be said). Each header of a part fits 8 KiB, metadata 16 MiB; the sizes of files
// are bounded by the description, and that by the policy.
//
// # What is logged
//
// One line a request: identifier, method, route pattern, status, duration, bytes, producer. Never a subject, a
// file name, a key of a document, a token, a query or an address.
package web
