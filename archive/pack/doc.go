// Package pack writes, reads and verifies Perenne's container: the form of packages, sealed reports and
// distribution packages. It knows no clock, no network, no keys: a signature is made and judged by functions
// its caller gives.
//
// # The container
//
// A container is a ZIP file (APPNOTE 6.3) and an ASiC-E container with a CAdES signature (ETSI EN 319 162-1,
// clause 4.4). It has exactly one form: [Open] accepts bytes only if a [Builder] given the same files would
// write the same bytes. It consists of, without gaps:
//
//	one local header and the file's bytes, for each member, in member order
//	one central header for each member, in the same order
//	the ZIP64 end record and its locator, only when needed
//	the end record
//
// The members come in this order; those of one line in the order they were added:
//
//	mimetype                     always first; its bytes are application/vnd.etsi.asic-e+zip
//	content/…                    the files exactly as submitted
//	metadata/…                   what belongs to them
//	PIndex.xml                   the SInCRO index ([PIndex]); at most one
//	any other name               the parts of reports and distribution packages
//	META-INF/ASiCManifest.xml    the SHA-256 of every member above ([MarshalManifest])
//	META-INF/signature.p7s       the detached signature over the bytes of the manifest, 1 byte to 1 MiB
//
// # Names
//
// A name is one to eight components joined by single slashes, at most 255 bytes in all. A component is 1 to
// 100 characters of a-z, A-Z, 0-9, '.', '_' and '-'; the first is neither '.' nor '-', the last not '.', and
// what stands before its first dot is no device name of Windows (con, prn, aux, nul, com0…9, lpt0…9, in any
// case). No two names are equal when letter case is ignored, and no name is a folder of another. There are no
// entries for folders. What the submitter called a file stands in the index; [SafeName] makes a name from it.
//
// # Records
//
// All numbers are little-endian. A field of 16 or 32 bits whose value would be 2^16-1 or 2^32-1 or more holds
// that marker instead, and the value stands in a ZIP64 field of 64 bits; ZIP64 appears in no other case.
//
//	local header      "PK\3\4"
//	                  u16 version needed: 20; 45 with an extra field
//	                  u16 flags: 0   u16 method: 0 (stored)   u16 time: 0   u16 date: 0x0021 (1980-01-01)
//	                  u32 CRC-32   u32 size   u32 size
//	                  u16 length of the name   u16 length of the extra field
//	                  name
//	                  extra field, only if the size is marked: u16 1, u16 16, u64 size, u64 size
//	central header    "PK\1\2"
//	                  u16 version made by: 0x032D (4.5, Unix)
//	                  then as in the local header from "version needed" to "length of the extra field"
//	                  u16 comment: 0   u16 disk: 0   u16 internal attributes: 0
//	                  u32 external attributes: 0x81A40000 (regular file, 0644)
//	                  u32 offset of the local header
//	                  name
//	                  extra field, only if size or offset is marked: u16 1, u16 8, 16 or 24,
//	                  then, of "u64 size, u64 size, u64 offset", those marked
//	ZIP64 end record  "PK\6\6"   u64 44   u16 0x032D   u16 45   u32 0   u32 0
//	                  u64 members   u64 members   u64 size of the central headers   u64 their offset
//	ZIP64 locator     "PK\6\7"   u32 0   u64 offset of the ZIP64 end record   u32 1
//	end record        "PK\5\6"   u16 0   u16 0   u16 members   u16 members
//	                  u32 size of the central headers   u32 their offset   u16 0
//
// Flag bit 11 (UTF-8) is never set, since names are ASCII. A container holds at most 200,000 members, and no
// size or offset exceeds 2^50.
//
// # The manifest
//
// META-INF/ASiCManifest.xml is, with "\n" after every line and one DataObjectReference line for each member
// before it, in member order:
//
//	<?xml version="1.0" encoding="UTF-8"?>
//	<asic:ASiCManifest xmlns:asic="http://uri.etsi.org/02918/v1.2.1#" xmlns:ds="http://www.w3.org/2000/09/xmldsig#">
//	<asic:SigReference URI="META-INF/signature.p7s" MimeType="application/pkcs7-signature"/>
//	<asic:DataObjectReference URI="NAME" MimeType="TYPE"><ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/><ds:DigestValue>BASE64</ds:DigestValue></asic:DataObjectReference>
//	</asic:ASiCManifest>
//
// TYPE is a media type without parameters: lower-case letters, digits and ".+-" on both sides of one slash.
// A writer derives it from the extension of the name; a reader takes any, since what counts is the digest.
//
// # XML
//
// The XML documents written here ([PIndex], [Profile], [RdV]) have one form as well: the declaration
// `<?xml version="1.0" encoding="UTF-8"?>`, one element a line, two spaces of indentation a level, "\n" after
// every line, attributes in double quotes in fixed order, an element that holds text on one line, never the
// short form of an empty element. In text & < > " become &amp; &lt; &gt; &quot;, and tab, line feed and
// carriage return become &#x9; &#xA; &#xD;. A character that XML 1.0 cannot hold is written _xHHHH_, its code
// in four upper-case hexadecimal digits; so that this can be undone, an underscore
// followed by x and four such digits is written _x005F_. Bytes that are no UTF-8 become U+FFFD.
package pack
