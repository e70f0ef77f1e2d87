# SPDX-License-Identifier: Apache-2.0
"""What clients may and may not do on port 25. The grammar's corners are in tests/proto; here the
whole daemon answers, and what it passes on is what counts."""

import socket
import time

import pytest

from client import Dialogue, normalised, without_our_trace
from daemon import backup_mx
from peers import wait_for

HEAD = b"Subject: smuggler\r\n\r\n"


@pytest.fixture
def pair(holdfast, sink):
    hop = sink()
    return holdfast(backup_mx(hop.port)), hop


def test_extensions(pair):
    mx, _ = pair
    with mx.dialogue() as dialogue:
        assert {"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING",
                "LIMITS"} <= dialogue.extensions.keys()
        assert "BINARYMIME" not in dialogue.extensions and "STARTTLS" not in dialogue.extensions


def test_a_whole_session_in_one_segment(pair):
    mx, hop = pair
    with Dialogue(mx.port, hello=None) as dialogue:
        dialogue.write(b"EHLO c.example\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<b@example.com>\r\n"
                       b"DATA\r\n" + HEAD + b".\r\nQUIT\r\n")
        codes = [dialogue.reply()[0] for _ in range(6)]
    assert codes == [250, 250, 250, 354, 250, 221]
    wait_for(lambda: len(hop.messages) == 1, 10)


def test_one_byte_at_a_time(pair):
    mx, hop = pair
    with Dialogue(mx.port, hello=None) as dialogue:
        for byte in b"EHLO c.example\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<b@example.com>\r\n" \
                    b"DATA\r\n" + HEAD + b"..\r\n.\r\n":
            dialogue.write(bytes([byte]))
        codes = [dialogue.reply()[0] for _ in range(5)]
    assert codes == [250, 250, 250, 354, 250]
    wait_for(lambda: len(hop.messages) == 1, 10)
    assert hop.messages[0].content.endswith(HEAD + b".\r\n")


def test_relaying_is_denied(pair):
    mx, hop = pair
    with mx.dialogue() as dialogue:
        dialogue.must("MAIL FROM:<a@client.example>")
        code, text = dialogue.say("RCPT TO:<x@else.example>")
        assert (code, text[:5]) == (550, "5.7.1")
        for trick in ("x%else.example@example.org", "@example.com:x@else.example",
                      "else.example!x@example.org", '"x@else.example"@example.org'):
            assert dialogue.say(f"RCPT TO:<{trick}>")[0] // 100 == 5, trick
        assert dialogue.say("DATA")[0] // 100 == 5
    assert hop.messages == []


def test_postmaster_is_always_accepted(pair):
    mx, hop = pair
    for name in ("postmaster", "Postmaster@mx2.example.net", "abuse@mx2.example.net",
                 "postmaster@example.com"):
        mx.send(recipients=[name])
    wait_for(lambda: len(hop.messages) == 4, 10, what="mail to postmaster")
    assert set(map(str.lower, hop.recipients())) == {"postmaster@example.com"}


def test_an_error_does_not_end_the_session_but_many_do(pair):
    mx, _ = pair
    with mx.dialogue() as dialogue:
        assert dialogue.say("FROB x")[0] == 500
        assert dialogue.say("RCPT TO:<a@example.com>")[0] == 503
        assert dialogue.say("MAIL FROM:a@b")[0] == 501
        dialogue.envelope("a@client.example", ["ann@example.com"])
        dialogue.must("RSET")
        codes = []
        try:
            for _ in range(1000):
                codes.append(dialogue.say("FROB")[0])
        except (ConnectionError, OSError):
            pass
        assert len(codes) < 500 and codes[-1] == 421


@pytest.mark.sanitized
@pytest.mark.parametrize("end", [
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\n", b"\n.\r", b"\r.\r\n", b"\r\n.\r",
    b"\r\n\x00.\r\n", b"\r\n.\x00\r\n", b"\r\n.\r\r\n", b"\r\r\n.\r\r\n", b"\n\n.\n\n", b"\r\n.\t\r\n",
], ids=lambda end: end.hex())
def test_only_the_standard_end_ends_data(pair, end):
    """SMTP smuggling: after a false end nothing is taken for a command, and what is passed on
    holds no bare CR or LF for the next server to stumble over."""
    mx, hop = pair
    smuggled = (b"MAIL FROM:<evil@client.example>\r\nRCPT TO:<ben@example.com>\r\nDATA\r\n"
                b"Subject: smuggled\r\n\r\nx")
    content = HEAD + b"before" + end + smuggled
    with mx.dialogue() as dialogue:
        dialogue.envelope("a@client.example", ["ann@example.com"])
        dialogue.must("DATA", 354)
        dialogue.write(content + b"\r\n.\r\n")
        code, _ = dialogue.reply()
        dialogue.must("NOOP")
    if code == 250:
        wait_for(lambda: len(hop.messages) == 1, 10)
        got = without_our_trace(hop.messages[0].content)
        # The client's dots were stuffed by nobody: one leading dot of a line goes.
        expected = normalised(content).replace(b"\r\n.", b"\r\n") + b"\r\n"
        literal = normalised(content.replace(b"\r\n.", b"\r\n")) + b"\r\n"
        assert got in (expected, literal)
        assert b"\n" not in got.replace(b"\r\n", b"") and b"\r" not in got.replace(b"\r\n", b"")
    time.sleep(0.2)
    assert all(m.recipients == ["ann@example.com"] for m in hop.messages) and len(hop.messages) <= 1


def test_bare_newlines_rejected_where_configured(holdfast, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port), listen="bare-newline = reject")
    with mx.dialogue() as dialogue:
        for chunks in (None, ()):
            code, text = dialogue.send("a@client.example", ["ann@example.com"],
                                       HEAD + b"one\ntwo\r\n", chunks=chunks, check=False)
            assert (code, text[:5]) == (550, "5.6.0")
        dialogue.send("a@client.example", ["ann@example.com"], HEAD)
    wait_for(lambda: len(hop.messages) == 1, 10)


def test_oversize(holdfast, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port), top="limits { message-size = 100K }")
    with mx.dialogue() as dialogue:
        assert int(dialogue.extensions["SIZE"]) in (100_000, 102_400)
        assert dialogue.say("MAIL FROM:<a@client.example> SIZE=200000")[0] == 552
        big = HEAD + (b"x" * 70 + b"\r\n") * 2000
        for chunks in (None, (), (50_000, 50_000)):
            code, _ = dialogue.send("a@client.example", ["ann@example.com"], big, chunks=chunks,
                                    check=False)
            assert code == 552
            dialogue.must("RSET")
        dialogue.send("a@client.example", ["ann@example.com"], HEAD + b"small\r\n")
    wait_for(lambda: len(hop.messages) == 1, 10)
    assert mx.status()["queue"]["messages"] == 0, "nothing of the large ones was kept"


def test_full_house_is_421(holdfast, sink):
    mx = holdfast(backup_mx(sink().port), top="limits { connections = 5 }")

    def another():
        try:
            return mx.dialogue()
        except ConnectionError:  # who looked whether it is there has not quite gone
            return None
    open_ones = [wait_for(another, 5, what="room for one more") for _ in range(5)]
    late = Dialogue(mx.port, hello=None)
    assert late.greeting[0] == 421
    for dialogue in open_ones:
        dialogue.must("NOOP")
        dialogue.close()
    wait_for(lambda: Dialogue(mx.port, hello=None).greeting[0] == 220, 5)


def test_trace_header(pair):
    mx, hop = pair
    mx.send()
    wait_for(lambda: len(hop.messages) == 1, 10)
    content = hop.messages[0].content
    field = " ".join(content[:content.index(b"Subject:")].decode().split())
    assert field.startswith("Received: from client.example")
    for part in ("127.0.0.1", "by mx2.example.net", "with ESMTP", "for <ann@example.com>"):
        assert part in field, field


def test_hop_limit(pair):
    mx, hop = pair
    trace = b"Received: from a by b; Sat, 21 Nov 2026 00:00:00 +0000\r\n"
    with mx.dialogue() as dialogue:
        code, text = dialogue.send("a@client.example", ["ann@example.com"], trace * 101 + HEAD,
                                   check=False)
        assert (code, text[:5]) == (554, "5.4.6")
        dialogue.send("a@client.example", ["ann@example.com"], trace * 50 + HEAD)
    wait_for(lambda: len(hop.messages) == 1, 10)


def test_smtputf8_and_8bitmime_are_passed_on(pair):
    mx, hop = pair
    with mx.dialogue() as dialogue:
        dialogue.send("grüße@client.example", ["ann@example.com"], "Subject: ü\r\n\r\n".encode(),
                      mail=" SMTPUTF8 BODY=8BITMIME")
    wait_for(lambda: len(hop.messages) == 1, 10)
    assert hop.messages[0].sender == "grüße@client.example"
    assert "SMTPUTF8" in hop.messages[0].mail and "8BITMIME" in hop.messages[0].mail


def test_many_recipients_in_one_transaction(pair):
    mx, hop = pair
    names = [f"r{n}@example.com" for n in range(150)]
    mx.send(recipients=names)
    wait_for(lambda: sorted(hop.recipients()) == sorted(names), 20, what="all recipients")


def test_a_connection_cut_in_the_content_leaves_nothing(pair):
    mx, hop = pair
    for how in (b"DATA\r\n", b"BDAT 1000 LAST\r\n"):
        dialogue = mx.dialogue()
        dialogue.envelope("a@client.example", ["ann@example.com"])
        dialogue.write(how)
        time.sleep(0.1)
        dialogue.write(HEAD + b"half")
        dialogue.close()
    time.sleep(0.3)
    assert hop.messages == [] and mx.status()["queue"]["messages"] == 0


def test_slow_clients_hold_up_nobody(pair):
    mx, hop = pair
    slow = []
    for _ in range(50):
        connection = socket.create_connection(("127.0.0.1", mx.port))
        connection.sendall(b"EHLO slow")
        slow.append(connection)
    started = time.monotonic()
    mx.send()
    wait_for(lambda: len(hop.messages) == 1, 5)
    assert time.monotonic() - started < 3
    for connection in slow:
        connection.close()
