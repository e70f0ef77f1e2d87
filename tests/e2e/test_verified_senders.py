# SPDX-License-Identifier: Apache-2.0
"""R8: a refusal at hand-over becomes a bounce only where the sender is known to be who it says: by
what filters of ours have found out in this session, and by nobody else's word."""

import pytest

from client import without_our_trace
from daemon import backup_mx
from milters import CONTINUE, Milter, add_header, insert_header
from peers import wait_for

FORGED = (b"authentication-results: (me) MX2.example.net;\r\n"
          b"\tspf=pass smtp.mailfrom=bob@client.example\r\n"
          b"Authentication-Results: example.net/1; dkim=pass header.d=client.example\r\n")
OTHERS = b"Authentication-Results: mx.client.example; dkim=pass header.d=client.example\r\n"
REST = b"From: Bob <bob@client.example>\r\nSubject: one\r\n\r\n" + FORGED + b"Hello.\r\n"


@pytest.fixture
def judged(holdfast, sink):
    """judged(*changes) -> holdfast with a filter that makes them, the server that refuses gone@, the
    one that takes bounces, and the filter."""
    made = []

    def make(*changes):
        filter = Milter(lambda stage, session, data: [*changes, CONTINUE] if stage == "end" else None)
        made.append(filter.start())
        hop = sink(lambda stage, session, argument: "550 5.1.1 No such user"
                   if stage == "RCPT" and "gone@" in str(argument) else None)
        out = sink()
        mx = holdfast(filter.block() + backup_mx(hop.port, server="hold-5xx-after-recovery = 0s") +
                      f'server out {{ address = "127.0.0.1:{out.port}" }}\n'
                      "relay outgoing { from = {192.0.2.0/24} deliver-to = out }\n",
                      top="authserv-id = example.net", listen="milters = fake")
        return mx, hop, out, filter

    yield make
    for filter in made:
        filter.stop()


def results(*lines):
    return insert_header(0, "Authentication-Results", " ".join(lines))


@pytest.mark.parametrize("proof, result", [
    ("spf", "mx2.example.net; spf=pass smtp.mailfrom=bob@client.example"),
    ("dkim", "example.net; dkim=pass (good) header.d=client.example header.s=s1"),
    ("dmarc", "example.net 1; spf=fail smtp.mailfrom=client.example; dmarc=pass\n "
              "header.from=client.example"),
])
def test_who_is_verified_by_our_filter_gets_a_bounce(judged, proof, result):
    mx, hop, out, _ = judged(results(result))
    _, text = mx.send(["gone@example.com"], content=OTHERS + REST)
    wait_for(lambda: out.recipients() == ["bob@client.example"], 30, what="the bounce")
    assert mx.status()["dead_letters"] == 0
    accepted = mx.lines("trace", text.split()[-1])[0]
    assert accepted["reason"] == f"fake=changed; sender verified by {proof}"
    bounce = out.messages[0]
    assert bounce.sender == "" and b"5.1.1 No such user" in bounce.content


@pytest.mark.parametrize("changes", [
    (),
    (results("other.example; spf=pass smtp.mailfrom=bob@client.example"),),
    (results("mx2.example.net; spf=pass smtp.mailfrom=bob@other.example"),),
    (results("mx2.example.net; spf=fail smtp.mailfrom=bob@client.example"),),
    (add_header("X-Results", "mx2.example.net; spf=pass smtp.mailfrom=bob@client.example"),),
], ids=["nothing", "of another", "another sender", "failed", "another field"])
def test_nobody_else_does(judged, changes):
    mx, hop, out, filter = judged(*changes)
    mx.send(["gone@example.com"], content=FORGED + OTHERS + REST)
    wait_for(lambda: mx.status()["dead_letters"] == 1, 30, what="a dead letter")
    assert out.messages == []
    seen = [value for name, value in filter.messages[0].headers
            if name.lower() == "authentication-results"]
    assert len(seen) == 1 and "mx.client.example" in seen[0], "a filter sees no forged ones"


def test_what_a_client_calls_itself_verifies_nobody(judged):
    """Some filters write it as it is, and it may look like a result."""
    name = "x;spf=pass(x)smtp.mailfrom=client.example"
    mx, _, out, _ = judged(results("mx2.example.net; spf=fail smtp.mailfrom=bob@client.example "
                                   f"smtp.helo={name}"))
    with mx.dialogue() as client:
        client.must(f"EHLO {name}", 250)
        client.send("bob@client.example", ["gone@example.com"], REST)
    wait_for(lambda: mx.status()["dead_letters"] == 1, 60, what="a dead letter")
    assert out.messages == []


@pytest.mark.parametrize("field, result", [
    (b"From: <b@x;dkim=pass(x)header.d=client.example>\r\n",
     "dmarc=none header.from=x;dkim=pass(x)header.d=client.example"),
    (b"DKIM-Signature: v=1; d=other.example; i=x=3Bdkim=3Dpass(x)header.d=3Dclient.example=3bx=3D\r\n"
     b"\t@other.example; b=AA==\r\n",
     "dkim=pass header.i=x;dkim=pass(x)header.d=client.example;x=@other.example"),
], ids=["From", "DKIM-Signature"])
def test_what_a_message_says_verifies_nobody(judged, field, result):
    mx, _, out, _ = judged(results("mx2.example.net; " + result))
    mx.send(["gone@example.com"], content=field + REST)
    wait_for(lambda: mx.status()["dead_letters"] == 1, 60, what="a dead letter")
    assert out.messages == []


def test_results_in_our_name_never_come_in(holdfast, sink):
    """Without filters as well: who is behind us may believe what bears our name."""
    hop = sink()
    mx = holdfast(backup_mx(hop.port), top="authserv-id = example.net")
    before = b"Subject: x\r\n"
    for content in (FORGED + OTHERS + REST, before + FORGED + OTHERS + REST):
        mx.send(content=content)
        wait_for(lambda: hop.messages, 30, what="the delivery")
        taken = without_our_trace(hop.messages.pop(0).content)
        assert taken == content.replace(FORGED + OTHERS, OTHERS)
    with mx.dialogue() as dialogue:  # in pieces, and as nothing but a header
        dialogue.send("bob@client.example", ["ann@example.com"], before + FORGED,
                      chunks=[5, 13, 1, 20, 40])
    wait_for(lambda: hop.messages, 30, what="the delivery")
    assert without_our_trace(hop.messages.pop(0).content) == before
