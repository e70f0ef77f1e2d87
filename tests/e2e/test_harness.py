# SPDX-License-Identifier: Apache-2.0
"""The tests' own tools: a client, a sink and a peer that lied would make every other test lie."""

import json
import subprocess

import pytest

from client import Dialogue, normalised, stuff, without_our_trace
from daemon import BUILD
from peers import free_port, wait_for
from sink import CLOSE

CONTENT = b"Subject: x\r\n\r\n.one\r\n..two\r\n.\r\n\r\n.\x00\xff end\r\n"


@pytest.mark.parametrize("chunks", [None, (), (1, 7, 20)])
def test_sink_keeps_every_byte(sink, chunks):
    hop = sink()
    with Dialogue(hop.port) as dialogue:
        dialogue.send("a@b.example", ["c@d.example"], CONTENT, chunks=chunks)
        dialogue.send("a@b.example", ["c@d.example"], b"\r\n", chunks=chunks)
    assert [m.content for m in hop.messages] == [CONTENT, b"\r\n"]
    assert hop.messages[0].by_bdat == (chunks is not None)


def test_sink_follows_its_rule(sink):
    def rule(stage, session, argument):
        if stage == "RCPT" and "late" in argument:
            return "450 4.2.0 Later"
        return CLOSE if stage == "dot" else None

    hop = sink(rule)
    with Dialogue(hop.port) as dialogue:
        dialogue.must("MAIL FROM:<>")
        assert dialogue.say("RCPT TO:<late@x.example>")[0] == 450
        dialogue.must("RCPT TO:<ann@x.example>")
        with pytest.raises(ConnectionError):
            dialogue.data(CONTENT)
    assert hop.messages == []


def test_sink_goes_and_comes_back(sink):
    hop = sink()
    hop.stop()
    with pytest.raises(OSError):
        Dialogue(hop.port, timeout=1)
    hop.start()
    Dialogue(hop.port).close()


def test_contents_are_compared_after_normalisation():
    assert normalised(b"a\nb\r\nc\rd\n\r\n\r") == b"a\r\nb\r\nc d\r\n\r\n "
    assert stuff(b".a\r\n.\r\nb") == b"..a\r\n..\r\nb\r\n"
    ours = b"Received: from x\r\n\tby mx2.example.net; now\r\nReceived: from y\r\n\r\nbody"
    assert without_our_trace(ours) == b"Received: from y\r\n\r\nbody"


@pytest.mark.parametrize("how", [[], ["-p"], ["-1"]])
def test_load_client_and_sink_agree(place, how):
    port = free_port()
    messages = 200
    sink = subprocess.Popen([BUILD / "tools/csink", "-n", str(messages), "-t", "20", "-o",
                             place / "sink.log", "-s", place / "status", str(port)],
                            stdout=subprocess.PIPE, text=True)
    wait_for((place / "status").exists)
    load = subprocess.run([BUILD / "tools/cload", "-m", str(messages), "-s", "5", "-r", "10", "-l",
                           "3000", "-t", "15000", "-o", place / "load.log", *how, str(port)],
                          capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(load.stdout)["acknowledged"] == messages
    assert json.loads(sink.communicate(timeout=30)[0])["messages"] == messages
    acked = sorted(int(line.split()[2]) for line in (place / "load.log").read_text().splitlines()
                   if line.split()[1] == "A")
    arrived = [line.split() for line in (place / "sink.log").read_text().splitlines()]
    assert acked == sorted(int(fields[1]) for fields in arrived) == list(range(messages))
    assert {fields[2] for fields in arrived} == {f"r{n}" for n in range(10)}


def test_postfix_as_primary_delivers(postfix):
    primary = postfix()
    with Dialogue(primary.port) as dialogue:
        dialogue.send("a@b.example", ["c@example.com"], CONTENT.replace(b"\x00", b""))
    stored = wait_for(primary.messages)
    assert stored[0].endswith(CONTENT.replace(b"\x00", b"").replace(b"\r\n", b"\n"))


def test_postfix_takes_nothing_for_other_domains(postfix):
    primary = postfix()
    with Dialogue(primary.port) as dialogue:
        dialogue.must("MAIL FROM:<>")
        code, text = dialogue.say("RCPT TO:<c@elsewhere.example>")
        assert code == 550 and "does not leave this machine" in text, (code, text)


def test_dovecot_takes_lmtp(dovecot):
    dialogue = Dialogue(dovecot.port, hello=None)
    dialogue.must("LHLO client.example")
    dialogue.send("a@b.example", ["ann@example.com"], b"Subject: x\r\n\r\n.dot\r\n")
    dialogue.close()
    assert wait_for(lambda: dovecot.messages("ann@example.com"))[0].endswith(b"\n\n.dot\n")
