# SPDX-License-Identifier: Apache-2.0
"""A smuggling kit, with a Postfix as the primary that minds no bare newlines: whatever stands in
contents and envelopes, each transaction is one message or none, for whom it named, there and here,
and no process of ours has been harmed."""

import pytest

from client import normalised
from daemon import backup_mx
from peers import wait_for, why_no_postfix
from sink import EXTENSIONS

POSTFIX = pytest.mark.skipif(why_no_postfix() is not None, reason=str(why_no_postfix()))
CARELESS = "smtpd_forbid_bare_newline = no\nsmtpd_forbid_unauth_pipelining = no\n"
SENDER, ANN = "bob@client.example", "ann@example.com"

# What some server, somewhere, has taken for the end of DATA.
FALSE_ENDS = [
    b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r.\n", b"\n.\r", b"\r.\r\n", b"\r\n.\r",
    b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n\0.\0\r\n", b"\n\n.\r\n", b"\r\r.\r\n", b"\n\n.\n\n",
    b"\r\n.\r\r\n", b"\r\r\n.\r\r\n", b"\r\n\r.\r\n", b"\r\n.\t\r\n", b"\r\n.\x0b\n",
    b"\r\n.\x85\r\n", b"\n\r.\n\r", b"\r\0\n.\r\0\n",
]
SMUGGLED = (b"MAIL FROM:<evil@client.example>\r\nRCPT TO:<ben@example.com>\r\nDATA\r\n"
            b"Subject: smuggled\r\n\r\nsmuggled\r\n")


def has_bare(content):
    rest = content.replace(b"\r\n", b"")
    return b"\r" in rest or b"\n" in rest


def body_of(message):
    """A message of a maildir: its subject, and what stands behind the header."""
    head, body = message.split(b"\n\n", 1)
    subject, = (line[9:] for line in head.split(b"\n") if line.startswith(b"Subject: "))
    return subject.decode(), body


class Kit:
    def __init__(self, mx, rejects):
        self.mx = mx
        self.rejects = rejects
        self.expected = {}  # subject to body
        self.before = sorted(mx.all_pids())

    def took(self, code, text, subject, body, is_bare):
        """The promised reply; what is taken must arrive so."""
        if self.rejects and is_bare:
            assert code == 550 and text.startswith("5.6.0"), (subject, code, text)
        else:
            assert code == 250, (subject, code, text)
            self.expected[subject] = normalised(body).replace(b"\r\n", b"\n")

    def by_data(self, end, subject):
        """The smuggled commands stand behind the false end, as one who sends them would write."""
        content = f"Subject: {subject}\r\n\r\nbefore".encode() + end + SMUGGLED
        with self.mx.dialogue() as dialogue:
            dialogue.envelope(SENDER, [ANN])
            dialogue.must("DATA", 354)
            dialogue.write(content + b".\r\nNOOP\r\n")
            code, text = dialogue.reply()
            assert dialogue.reply()[0] == 250  # of NOOP: nothing was answered between
        body = content.split(b"\r\n\r\n", 1)[1]
        bare = has_bare(body)
        # A line's first dot goes (RFC 5321 4.5.2), also of a line that a bare LF begins.
        self.took(code, text, subject, normalised(body).replace(b"\r\n.", b"\r\n"), bare)

    def by_bdat(self, end, subject, cut=0):
        """As content by length, where not even CR LF . CR LF means anything."""
        content = f"Subject: {subject}\r\n\r\nbefore".encode() + end + SMUGGLED
        at = content.index(b"before") + len("before") + cut
        chunks = [content[:at], content[at:]] if cut else [content]
        with self.mx.dialogue() as dialogue:
            dialogue.envelope(SENDER, [ANN])
            for number, chunk in enumerate(chunks, 1):
                last = b" LAST" if number == len(chunks) else b""
                dialogue.write(b"BDAT %d%s\r\n" % (len(chunk), last) + chunk)
            replies = [dialogue.reply() for _ in chunks]
            code, text = next((reply for reply in replies if reply[0] != 250), replies[-1])
            dialogue.must("NOOP")
        body = content.split(b"\r\n\r\n", 1)[1]
        self.took(code, text, subject, body, has_bare(body))

    def check(self, primary):
        self.mx.wait_empty()
        assert sorted(self.mx.pids()) == self.before, self.mx.log()[-2000:]
        found = dict(map(body_of, primary.messages()))
        assert len(primary.messages()) == len(self.expected)
        assert set(found) == set(self.expected)
        for subject, body in self.expected.items():
            assert found[subject].rstrip(b"\n") == body.rstrip(b"\n"), subject
        for message in primary.messages():
            assert b"Return-Path: <bob@client.example>" in message
            assert b"Delivered-To: ann@example.com" in message


@POSTFIX
@pytest.mark.parametrize("how", ["by DATA", "by BDAT"])
@pytest.mark.parametrize("setting", ["normalize", "reject"])
def test_one_message_comes_of_one(holdfast, postfix, setting, how):
    careless = CARELESS + ("smtpd_discard_ehlo_keywords = chunking\n" if how == "by DATA" else "")
    primary = postfix(settings=careless)
    mx = holdfast(backup_mx(primary.port), listen=f"bare-newline = {setting}")
    kit = Kit(mx, setting == "reject")
    for number, end in enumerate(FALSE_ENDS):
        kit.by_data(end, f"data {number}")
    for number, end in enumerate([*FALSE_ENDS, b"\r\n.\r\n", b"\r\n.\r\n.\r\n"]):
        kit.by_bdat(end, f"bdat {number}")
        for cut in range(1, len(end)):
            kit.by_bdat(end, f"bdat {number} cut {cut}", cut)
    kit.check(primary)


HOSTILE = [  # and what is said to it
    ("RCPT TO:<x%else.example@example.com>", 550),
    ("RCPT TO:<else.example!x@example.com>", 550),
    ('RCPT TO:<"x@else.example"@example.com>', 550),
    ("RCPT TO:<@example.com:x@else.example>", 550),
    ("RCPT TO:<@example.com,@example.org:x@else.example>", 550),
    ("RCPT TO:<x@example.com@else.example>", 501),
    ("RCPT TO:<x@else.example@example.com>", 501),
    ("RCPT TO:<ann@example.com", 501),
    ("RCPT TO:<ann@example.com>,<x@else.example>", 501),
    ("RCPT TO:<ann@example.com> <x@else.example>", 5),
    ("RCPT TO:<ann@example.com,x@else.example>", 501),
    ("RCPT TO:<ann@example.com;x@else.example>", 501),
    ("RCPT TO:<x(@example.com)@else.example>", 501),
    ("RCPT TO:<x@else.example(@example.com)>", 501),
    ("RCPT TO:<x\\@else.example@example.com>", 501),
    ('RCPT TO:<"x\\@else.example>"@example.com>', 550),
    ('RCPT TO:<"x@else.example> "@example.com>', 550),
    ("RCPT TO:<x@else.example\\>@example.com>", 501),
    ("RCPT TO:<|/bin/sh@example.com >", 501),
    ("RCPT TO:<ann@example.com\0>", 500),
    ("RCPT TO:<ann@else.example\0@example.com>", 500),
    ("RCPT TO:<ann@else.example\r@example.com>", 500),
    ("RCPT TO:<ann\t@example.com>", 500),
    ("RCPT TO:<ann @example.com>", 501),
    ("RCPT TO:<ann@example.com.>", 501),
    ("RCPT TO:<ann@.example.com>", 501),
    ("RCPT TO:<ann@example..com>", 501),
    ("RCPT TO:<ann@xn--exmple-cua\u3002com>", 5),
    ("RCPT TO:<ann@example\uff0ecom>", 5),
    ("RCPT TO:<ann@example.com> ORCPT=rfc822;x\0y", 500),
    ("RCPT TO:<" + "a" * 300 + "@example.com>", 5),
    ("RCPT TO:<ann@" + "a." * 200 + "example.com>", 5),
    ("RCPT TO:<" + "a" * 600 + "@example.com>", 5),
    ("RCPT TO:<ann@example.com>" + " A=B" * 1000, 5),
    ("RCPT TO:<" + "x" * 100_000 + "@example.com>", 500),
]

# Taken, and handed on as they are: nobody decodes them on the way.
LITERAL = ["=?utf-8?q?x=40else.example=3e=00?=@example.com",
           "=?x?q?x=40else.example=3e=20=3c?=ann@example.com",
           "&AEA-else.example@example.com", "x=40else.example@example.com"]


@POSTFIX
def test_addresses_go_to_whom_they_name(holdfast, postfix):
    """Splitting the e-mail atom: percent and source routes, encoded words, quoting, NULs."""
    primary = postfix(settings=CARELESS)
    mx = holdfast(backup_mx(primary.port) + "limits { errors = 1000  refused-recipients = none }\n")
    before = sorted(mx.all_pids())
    for command, code in HOSTILE:
        with mx.dialogue() as dialogue:
            dialogue.must(f"MAIL FROM:<{SENDER}>")
            said, text = dialogue.say(command)
            assert str(said).startswith(str(code)), (command[:80], said, text)
            assert dialogue.say("DATA")[0] in (503, 554), command[:80]
    for number, address in enumerate(LITERAL):
        mx.send([address], content=f"Subject: {number}\r\n\r\n".encode())
    mx.send(["@else.example,@example.org:ann@example.com"], content=b"Subject: route\r\n\r\n")
    mx.wait_empty()
    wanted = sorted([*LITERAL, ANN])
    wait_for(lambda: len(primary.messages()) == len(wanted), what="the mail")
    assert sorted(line[14:].decode() for message in primary.messages()
                  for line in message.split(b"\n") if line.startswith(b"Delivered-To: ")) == wanted
    assert sorted(mx.pids()) == before


NO_CHUNKS = [b"BDAT", b"BDAT -1", b"BDAT +5", b"BDAT 0x10", b"BDAT 1e3", b"BDAT 5 LASTT",
             b"BDAT 5 LAST LAST", b"BDAT LAST", b"BDAT 5,LAST"]

CHUNKS = [  # behind an envelope, and what they are answered
    (b"BDAT 3\r\nabcDATA\r\n", [250, 503]),
    (b"BDAT 3\r\nabcMAIL FROM:<evil@client.example>\r\n", [250, 503]),
    (b"BDAT 3\r\nabcRCPT TO:<ben@example.com>\r\n", [250, 503]),
    (b"BDAT 3\r\nabcRSET\r\nBDAT 3 LAST\r\nabc", [250, 250, 503]),
    (b"DATA\r\nBDAT 3 LAST\r\nabc\r\n.\r\nBDAT 3 LAST\r\nabc", [354, 250, 503]),
    (b"BDAT 0 LAST\r\nBDAT 0 LAST\r\n", [250, 503]),
    (b"BDAT 14\r\nSubject: one\r\nBDAT 15 LAST\r\n\r\nBDAT 9 LAST\r\nBDAT 6\r\nQUIT\r\n",
     [250, 250, 503]),
]


def test_chunks_are_as_long_as_they_say(holdfast, sink):
    hop = sink(extensions=[word for word in EXTENSIONS if word != "CHUNKING"])
    mx = holdfast(backup_mx(hop.port))
    before = sorted(mx.all_pids())
    taken = 0
    with mx.dialogue() as dialogue:
        dialogue.envelope(SENDER, [ANN])
        for line in NO_CHUNKS:
            assert dialogue.say(line)[0] == 501, line
        assert dialogue.data(b"Subject: after all\r\n\r\n")[0] == 250
        taken += 1
    for said, codes in CHUNKS:
        with mx.dialogue() as dialogue:
            dialogue.envelope(SENDER, [ANN])
            dialogue.write(said + b"NOOP\r\n")
            got = [dialogue.reply() for _ in codes]
            assert [code for code, _ in got] == codes, said
            assert dialogue.reply()[0] == 250, said
            taken += sum("queued" in text for _, text in got)
    # A chunk without an envelope is passed over, not read as commands.
    with mx.dialogue() as dialogue:
        dialogue.write(b"BDAT 27 LAST\r\nRCPT TO:<ben@example.com>\r\nNOOP\r\nQUIT\r\n")
        assert [dialogue.reply()[0] for _ in range(3)] == [503, 250, 221]
    # One that is cut off is no message, however long it says it is.
    for announced in (b"1000 LAST", b"4294967295 LAST", b"9223372036854775807 LAST",
                      b"18446744073709551616 LAST", b"99999999999999999999999 LAST"):
        with mx.dialogue() as dialogue:
            dialogue.envelope(SENDER, [ANN])
            dialogue.write(b"BDAT " + announced + b"\r\nSubject: half\r\n\r\n")
            if announced != b"1000 LAST":
                assert dialogue.reply()[0] == 552, announced
    mx.wait_empty()
    assert len(hop.messages) == taken == 4 and "half" not in hop.subjects()
    assert set(hop.recipients()) == {ANN}
    assert sorted(mx.pids()) == before
