# SPDX-License-Identifier: Apache-2.0
"""Messages to pass through: awkward ones of our own making, and a collection of real ones beside the
repository if there is one (../shared/mail, or where HOLDFAST_MAIL points)."""

import os
import pathlib
import re

from client import normalised

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
REAL = pathlib.Path(os.environ.get("HOLDFAST_MAIL", ROOT.parent / "shared/mail"))


def real_messages():
    """(name, content with CRLF) of every message of the collection, in order of name."""
    if not REAL.is_dir():
        return []
    return [(str(path.relative_to(REAL)),
             path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
            for path in sorted(REAL.rglob("*")) if path.suffix in (".eml", ".mbox")]


def made_messages():
    """(name, content) of what has broken mail servers before."""
    head = b"From: a@client.example\r\nTo: b@example.com\r\nSubject: made\r\n"
    every_byte = bytes(c for c in range(256) if c not in b"\r\n")
    made = {
        "plain": head + b"\r\nHello.\r\n",
        "empty": b"",
        "only an empty line": b"\r\n",
        "no body": head,
        "no header": b"\r\nbody only\r\n",
        "body at once": b"this is no header field\r\n\r\nand this no body\r\n",
        "no end of line": head + b"\r\nlast line has no end",
        "leading dots": head + b"\r\n.\r\n..\r\n...\r\n.x\r\n",
        "dots at the end": head + b"\r\n.\r\n.\r\n",
        "From at the start": b"From a@client.example Sat Nov 21 00:00:00 2026\r\n" + head + b"\r\nx\r\n",
        "From in the body": head + b"\r\nFrom here on\r\n>From there\r\n",
        "every byte": head + b"\r\n" + every_byte + b"\r\n",
        "every byte in a header": b"X-Bytes: " + every_byte[32:] + b"\r\n" + head + b"\r\n",
        "bare LF": head + b"\r\none\ntwo\n.\nthree\n\r\n",
        "bare CR": head + b"\r\none\rtwo\r\r\nthree\r\r\r\n",
        "NUL": head + b"\r\na\x00b\x00\r\n\x00\r\n",
        "utf-8 header": "Subject: Grüße, 世界\r\n\r\nкириллица\r\n".encode(),
        "latin-1": head + b"\r\n\xe4\xf6\xfc\xdf\r\n",
        "folded": b"Subject: one\r\n two\r\n\tthree\r\n \r\n four\r\n\r\nbody\r\n",
        "998 octets": head + b"\r\n" + b"y" * 998 + b"\r\n",
        "long line": head + b"\r\n" + b"y" * 70000 + b"\r\n",
        "long header line": b"X-Long: " + b"z" * 9000 + b"\r\n" + head + b"\r\n",
        "many header fields": b"".join(b"X-%d: v\r\n" % n for n in range(1000)) + head + b"\r\n",
        "blank lines": head + b"\r\n" * 50 + b"x" + b"\r\n" * 50,
        "delivered before": b"Return-Path: <x@y>\r\nDelivered-To: b\r\nBcc: c\r\n" + head + b"\r\n",
    }
    for size in (511, 512, 513, 1023, 4095, 4096, 4097, 16384, 65535, 65536, 65537, 131072):
        # A dot and a line end on and around the edges of likely buffers.
        body = (b"w" * 70 + b"\r\n") * (size // 72)
        rest = size - len(head) - 2 - len(body) - 5
        if rest < 0:
            body, rest = body[:-72], rest + 72
        made[f"{size} octets"] = head + b"\r\n" + body + b"v" * rest + b"\r\n.\r\n"
    made["1 MB"] = head + b"\r\n" + (b"u" * 76 + b"\r\n") * 13443
    return list(made.items())


def as_delivered(content, by_bdat):
    """What must arrive: R10's normalisation, and an end of the last line. A bare LF ends a line of
    DATA too as far as dots go, so what the client did not double behind it is taken off."""
    if not by_bdat:
        content = re.sub(rb"(?<!\r)\n\.", b"\n", content)
    content = normalised(content)
    return content if content.endswith(b"\r\n") or not content else content + b"\r\n"
