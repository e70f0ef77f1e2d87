# SPDX-License-Identifier: Apache-2.0
"""ETRN (RFC 1985): a primary that is back asks for its mail, by fetchmail or by hand."""

import os
import shutil
import signal
import subprocess

import pytest

from daemon import backup_mx
from peers import free_port, wait_for

needs_fetchmail = pytest.mark.skipif(shutil.which("fetchmail") is None,
                                     reason="fetchmail is not installed")


def fetchmail(place, port, domain):
    """One run of fetchmail: what it said."""
    home = place / "fetchmail"
    home.mkdir(exist_ok=True)
    rc = home / "rc"
    rc.write_text(f"poll 127.0.0.1 protocol etrn service {port} fetchdomains {domain}\n")
    rc.chmod(0o600)
    result = subprocess.run(["fetchmail", "--nosyslog", "-v", "--nodetach", "--pidfile",
                             str(home / "pid"), "-f", str(rc)],
                            env={**os.environ, "HOME": str(home), "FETCHMAILHOME": str(home)},
                            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    return result.stdout + result.stderr


def loaded(mx):
    """The daemon, once it has read its journal: before, it says 458."""
    wait_for(lambda: not mx.status()["loading"], what="a queue that has been read")
    return mx


@pytest.mark.sanitized
@needs_fetchmail
def test_fetchmail_starts_the_queue(holdfast, sink, place):
    """The server is up but has deferred: ETRN tries again now, not by the schedule."""
    m1 = sink()
    mx = loaded(holdfast(backup_mx(m1.port)))
    # Until it may deliver, too, it is 458.
    wait_for(lambda: "251" in fetchmail(place, mx.port, "example.com"), step=0.5,
             what="nothing that waits")
    m1.rule = lambda stage, session, argument: "450 4.2.0 Not yet" if stage == "RCPT" else None
    mx.send(content=b"Subject: one\r\n\r\n")
    mx.send(content=b"Subject: two\r\n\r\n", recipients=["ben@example.com"])
    wait_for(lambda: [m["next"] is not None for m in mx.queue()] == [True, True],
             what="two deferred")
    m1.rule = lambda stage, session, argument: None
    said = fetchmail(place, mx.port, "example.com")
    assert "253 2.0.0 Ok, 2 pending messages started" in said, said
    mx.wait_empty(5)
    assert sorted(m1.subjects()) == ["one", "two"]
    assert 'etrn domain=example.com' in mx.log()


def ask(mx, what, source=None):
    with mx.dialogue(source=source) as dialogue:
        assert "ETRN" in dialogue.extensions
        return dialogue.say(f"ETRN {what}")


def test_who_may_not_ask_is_let_go_and_logged_once(holdfast, sink):
    mx = loaded(holdfast(backup_mx(sink().port)))
    for _ in range(3):
        with mx.dialogue(source="127.0.0.9") as dialogue:
            codes = [dialogue.say("ETRN example.com")[0] for _ in range(21)]
            assert codes == [459] * 20 + [421]
    assert mx.log().count("etrn") == 1 and "etrn-denied client=127.0.0.9" in mx.log()


def test_a_server_that_is_down_is_asked_at_once(holdfast, sink):
    """Greeted with 554 it is probed more and more seldom, until ETRN says that it is well. From
    another address than its own: a connection from that is a reason to probe by itself."""
    probes = []

    def being_repaired(stage, session, argument):
        probes.append(stage)
        return "554 5.3.2 Being repaired" if stage == "connect" else None

    m1 = sink()
    m1.rule = being_repaired
    mx = loaded(holdfast(backup_mx(m1.port, more="etrn-from = 127.0.0.5")))
    mx.send()
    wait_for(lambda: len(probes) >= 3, 20, what="three probes: the next is 8 s away")
    m1.rule = lambda stage, session, argument: None
    code, text = ask(mx, "example.com", source="127.0.0.5")
    assert (code, text) == (253, "2.0.0 Ok, 1 pending messages started")
    wait_for(lambda: len(m1.messages) == 1, 3, what="the message")


def test_answers_are_true(holdfast):
    """By one who is no server of the domain but may ask by etrn-from, while its server is down."""
    routes = (f'server m1 {{ address = "127.0.0.9:{free_port()}" }}\n'
              'domain {example.com, "*.example.com"} { deliver-to = m1 '
              'etrn-from = {127.0.0.1} }\n'
              'domain example.org { deliver-to = m1 }\n')
    mx = loaded(holdfast(routes))
    assert ask(mx, "example.com") == (251, "2.0.0 Ok, no messages waiting")
    mx.send(recipients=["ann@example.com", "ben@example.com"])
    mx.send(recipients=["ann@sub.example.com"])
    mx.send(recipients=["ann@example.org"])
    assert ask(mx, "example.com") == (253, "2.0.0 Ok, 1 pending messages started")
    assert ask(mx, "@example.com") == (253, "2.0.0 Ok, 2 pending messages started")
    assert ask(mx, "example.org")[0] == 459
    assert ask(mx, "elsewhere.example")[0] == 459
    assert ask(mx, "#queue")[0] == 458
    mx.tool("queue", "hold", "--recipient", "*@example.com")
    assert ask(mx, "example.com") == \
        (458, "4.3.0 Unable to queue messages: 1 held by the operator")
    mx.tool("queue", "release", "--domain", "example.com")
    mx.tool("server", "down", "m1")
    assert ask(mx, "example.com") == \
        (458, "4.3.0 Unable to queue messages: 1 wait for servers that are taken out by hand")
    assert 'outcome="servers taken out by hand"' in mx.log()


def test_core_dies_while_it_is_asked(holdfast):
    """Stopped, it answers nobody; killed, those who wait hear 458, and its successor answers."""
    mx = holdfast(f'server m1 {{ address = "127.0.0.1:{free_port()}" }}\n'
                  'domain example.com { deliver-to = m1 }\n')
    core = wait_for(lambda: mx.processes().get("holdfast-core"), 10, what="core")[0]
    with mx.dialogue() as dialogue:
        os.kill(core, signal.SIGSTOP)
        dialogue.write(b"ETRN example.com\r\n")
        os.kill(core, signal.SIGKILL)
        assert dialogue.reply()[0] == 458

        def answered():
            return dialogue.say("ETRN example.com")[0] == 251
        wait_for(answered, 10, 0.1, "an answer of the new core")
