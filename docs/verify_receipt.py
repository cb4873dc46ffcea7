#!/usr/bin/env python3
"""Verifies a Perenne receipt or refusal offline, as docs/formats.md says, without any code of Perenne's.

    verify_receipt.py RECEIPT.json trust/ledger.vkey [trust/tsa-ca.pem]

Needs Python 3.8 and, for the Ed25519 signature, the package cryptography or openssl 3. With tsa-ca.pem openssl
also judges the timestamp; without it only that the token names the root. Exit: 0 valid, 1 not valid, 2 cannot tell."""
import base64, datetime, hashlib, json, pathlib, subprocess, sys, tempfile

def need(ok, what):
    if not ok: raise ValueError(what)
def sha(*parts): return hashlib.sha256(b"".join(parts)).digest()
def canonical(v): return json.dumps(v, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

def b64(text):
    need(base64.b64encode(base64.b64decode(text)).decode() == text, "base64 not in its one spelling")
    return base64.b64decode(text)

def openssl(args, **files):
    with tempfile.TemporaryDirectory() as d:
        for name in files: pathlib.Path(d, name).write_bytes(files[name])
        return subprocess.run(["openssl"] + args.split(), cwd=d, capture_output=True).returncode == 0

def ed25519(key, sig, msg):
    try: from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        spki = bytes.fromhex("302a300506032b6570032100") + key
        return openssl("pkeyutl -verify -pubin -keyform DER -inkey k -rawin -in m -sigfile s", k=spki, m=msg, s=sig)
    try: return Ed25519PublicKey.from_public_bytes(key).verify(sig, msg) is None
    except Exception: return False

def checkpoint(note, vkeys):
    """A signed note with one signature, by a key named like its origin → origin, size, root."""
    text, sig = note.split("\n\n")
    origin, size, root = text.split("\n")
    raw, signed = b64(sig.rstrip("\n").split(" ")[2]), (text + "\n").encode()
    need(note == f"{text}\n\n— {origin} {base64.b64encode(raw).decode()}\n", "checkpoint: not in its one spelling")
    for line in vkeys:
        name, _, key = line.strip().split("+", 2)
        key = b64(key) # 0x01 for Ed25519, then the public key
        if name == origin and key[:1] == b"\1" and raw[:4] == sha(name.encode(), b"\n", key)[:4] and ed25519(key[1:], raw[4:], signed):
            return origin, int(size), b64(root)
    raise ValueError("checkpoint: no key given has signed it")

def inclusion(proof, vkeys):
    """A c2sp.org/tlog-proof@v1 (RFC 9162, 2.1.3.2) → the entry's line, its index, origin, size, checkpoint."""
    head, note = proof.split("\n\n", 1)
    magic, extra, index, *path = head.split("\n")
    line, i, (origin, size, root) = b64(extra[6:]), int(index[6:]), checkpoint(note, vkeys)
    need([magic, extra[:6], index] == ["c2sp.org/tlog-proof@v1", "extra ", f"index {i}"] and 0 <= i < size, "proof: form")
    fn, sn, r = i, size - 1, sha(b"\0", line)
    for p in map(b64, path):
        need(sn > 0 and len(p) == 32, "proof: path")
        left = fn & 1 or fn == sn
        r = sha(b"\1", p, r) if left else sha(b"\1", r, p)
        while left and not fn & 1 and fn: fn, sn = fn >> 1, sn >> 1
        fn, sn = fn >> 1, sn >> 1
    need(sn == 0 and r == root, "proof: the path does not lead to the root signed")
    return line, i, origin, size, note.encode()

def der(data):
    """The elements in data: (tag, contents, whole element)."""
    out = []
    while data:
        n, at = data[1], 2
        if n & 0x80: n, at = int.from_bytes(data[2:2 + (n & 0x7f)], "big"), 2 + (n & 0x7f)
        need(at + n <= len(data), "evidence: DER")
        out, data = out + [(data[0], data[at:at + n], data[:at + n])], data[at + n:]
    return out

def tlv(tag, body):
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag]) + (bytes([0x80 | len(size)]) + size if len(body) > 0x7f else bytes([len(body)])) + body

def evidence(record, leaf):
    """An RFC 4998 record in our one form → the root its tree leads to, the token, its genTime."""
    ats = der(der(der(der(der(record)[0][1])[2][1])[0][1])[0][1])
    groups = [[v[1] for v in der(g[1])] for g in der(ats[1][1])] if len(ats) == 3 else []
    token, root = ats[-1][2], leaf
    for n, group in enumerate(groups):
        need(len(group) == (1 if n else 2) and (n or leaf in group), "evidence: not the record of this digest")
        root = sha(*sorted(group + [root] if n else group))
    alg, lists = bytes.fromhex("06096086480165030402010500"), b"".join(tlv(0x30, b"".join(tlv(4, h) for h in sorted(g))) for g in groups)
    again = tlv(0x30, tlv(0x30, tlv(0x30, tlv(0xa0, alg) + (tlv(0xa2, lists) if groups else b"") + token)))
    need(tlv(0x30, b"\2\1\1" + tlv(0x30, tlv(0x30, alg)) + again) == record, "evidence: not in its one form")
    tst = der(der(der(der(der(der(der(der(token)[0][1])[1][1])[0][1])[2][1])[1][1])[0][1])[0][1])
    need(der(tst[2][1])[1][1] == root, "evidence: the token stamps something else than the root")
    return root, token, tst[4][1].decode()

def verify(data, vkeys, tsa):
    r = json.loads(data.decode())
    need(canonical(r) == data and set(r) == {"body", "evidence", "proof"}, "receipt: not its own RFC 8785 form")
    body, ev, refused = r["body"], r["evidence"], r["body"]["kind"] == "refusal"
    need(body["statement"] == ("documento non preso in carico" if refused else "documento preso in carico"), "body: statement")
    parts = {"files": [{"sha256": f["sha256"], "size": f["size"]} for f in body["files"]], "metadata": body["metadata"]}
    need(sha(canonical(parts)).hex() == body["submission"], "body: digest over the submission")
    line, i, origin, size, note = inclusion(r["proof"], vkeys)
    entry = json.loads(line)
    need(canonical(entry) == line and origin == body["installation"] + "/" + body["producer"]["code"], "proof: of another ledger")
    need(entry["type"] == ("submission.refused" if refused else "package.sealed") and entry["id"] == body["identifier"].split(":")[-1], "proof: of another entry")
    need(sha(bytes.fromhex(body["salt"]), canonical(body)).hex() == entry["receipt"], "body: not the one in the ledger")
    print(f"+ entry {i} of {size} in {origin}: body, path and signature hold")
    if ev == {"seal": "pending"}: return print("? the seal is pending: fetch the receipt again") or 2
    if refused and "proof" in ev:
        *later, more, note = inclusion(ev["proof"], vkeys)
        need(later == [line, i, origin] and more > size, "evidence: the second proof is of another entry")
    root, token, at = evidence(b64(ev["record"]), sha(note) if refused else bytes.fromhex(entry["sha256"]))
    when = datetime.datetime.strptime(at + "+0000", "%Y%m%d%H%M%S.%fZ%z" if "." in at else "%Y%m%d%H%M%SZ%z")
    need([ev["seal"], ev["root"], ev["time"]] == ["sealed", root.hex(), when.isoformat(timespec="milliseconds")[:-6] + "Z"], "evidence: root or time")
    print(f"+ the token of {ev['time']} stamps the root {root.hex()}")
    if tsa is None: return print("? no tsa-ca.pem given: the token's own signature was not checked") or 2
    need(openssl(f"ts -verify -token_in -in t -digest {root.hex()} -CAfile c -attime {int(when.timestamp())}", t=token, c=tsa), "evidence: openssl refuses the token")
    return print("+ openssl accepts the token") or 0

if __name__ == "__main__":
    if len(sys.argv) not in (3, 4): sys.exit(__doc__)
    receipt, keys, tsa = [open(f, "rb").read() for f in sys.argv[1:]] + [None] * (4 - len(sys.argv))
    try: sys.exit(verify(receipt, [l for l in keys.decode().splitlines() if "+" in l and l[0] != "#"], tsa))
    except Exception as e: sys.exit(print(f"- NOT VALID: {e or type(e).__name__}") or 1)
