# SPDX-License-Identifier: Apache-2.0
"""On-demand mail relay over TLS: the connection that is turned round stays what it was, and what
goes over it is carried (docs/decisions/0038)."""

import base64
import os
import shutil
import signal
import socket
import struct
import time

import pytest

from certificates import Authority, listen, trusting
from odmr import NAME, SITE, Caller, fetchmail, listener
from peers import free_port, wait_for
from test_odmr import fill, process, subjects

PLAIN = base64.b64encode(b"\0joe\0secret").decode()
MANY = 3000


class Provider:
    """A daemon that sites call, with a port for STARTTLS and one for TLS at once."""

    def __init__(self, holdfast, place, more=""):
        authority = Authority(place)
        self.context = trusting(authority)
        self.root = authority.root
        certificate = authority.certificate(NAME)
        self.ports = {"starttls": free_port(), "implicit": free_port()}
        first = listener(place, self.ports["starttls"], more=listen(certificate))
        second = listener(place, self.ports["implicit"], more=listen(certificate, "implicit"))
        self.mx = holdfast(first + second.replace("listen fetch", "listen fetchs") + SITE + more)
        wait_for(lambda: self.mx.server_state("site") == "down", what="a core that has begun")

    def call(self, how="starttls"):
        return Caller(self.ports[how], tls=self.context, later=how == "starttls")

    def turned(self, how="starttls"):
        caller = self.call(how)
        assert caller.login()[0] == 235
        assert caller.atrn()[0] == 250
        return caller

    def fill_many(self, count):
        """In one session."""
        with self.mx.dialogue() as dialogue:
            for i in range(count):
                dialogue.send("bob@client.example", ["ann@site.example"],
                              b"Subject: m%d\r\n\r\nHello.\r\n" % i)

    def fetch_rest(self):
        """Calls until nothing is left."""
        taken = []

        def call():
            with self.call() as caller:
                assert caller.login()[0] in (235, 454)
                if caller.atrn()[0] == 250:
                    taken.extend(caller.serve())
            return self.mx.status()["queue"]["messages"] == 0
        wait_for(call, 90, 0.3, "an empty queue")
        return subjects(taken)

    def wait_idle(self):
        """Nothing is carried any more: neither session nor pair is left."""
        wait_for(lambda: self.mx.counter("holdfast_smtp_sessions_open") == 0, 30,
                 what="the end of each session")


@pytest.fixture
def provider(holdfast, place):
    return lambda **more: Provider(holdfast, place, **more)


@pytest.mark.sanitized
@pytest.mark.parametrize("how", ["starttls", "implicit"])
def test_what_waits_comes_over_tls_in_order(provider, how):
    """Passwords as they are only there; two calls, for a second one finds all as it was."""
    site = provider()
    fill(site.mx, 5)
    with Caller(site.ports["starttls"]) as caller:
        said = caller.say("EHLO caller.example")[1].split("\n")
        assert "STARTTLS" in said and "AUTH CRAM-MD5" in said
        assert caller.say(f"AUTH PLAIN {PLAIN}")[0] == 538
    with site.call(how) as caller:
        said = caller.say("EHLO caller.example")[1].split("\n")
        assert "STARTTLS" not in said and "AUTH CRAM-MD5 PLAIN LOGIN" in said
        assert caller.say(f"AUTH PLAIN {PLAIN}")[0] == 235
        assert caller.atrn() == (250, "2.0.0 OK, now reversing the connection")
        assert subjects(caller.serve()) == [f"m{i}" for i in range(5)]
        assert caller.stream.read() == b""  # and TLS has said goodbye
    site.mx.wait_empty()
    fill(site.mx, 1, first=5)
    with site.turned(how) as caller:
        assert subjects(caller.serve()) == ["m5"]
    site.mx.wait_empty()
    site.wait_idle()
    rows = site.mx.lines("trace", "ann@site.example")
    assert [row["event"] for row in rows].count("pulled") == 6
    assert {row["tls"] for row in rows if row["event"] == "attempt"} == {"that of the site's own call"}


@pytest.mark.skipif(shutil.which("fetchmail") is None, reason="fetchmail is not installed")
def test_fetchmail_fetches_over_tls(provider, sink, place):
    """It knows TLS from the beginning for ODMR, and no STARTTLS."""
    site, own = provider(), sink()
    fill(site.mx, 5)
    code, said = fetchmail(place, site.ports["implicit"], own.port,
                           options=f'ssl sslcertck sslcertfile "{site.root}" '
                                   f'sslcommonname "{NAME}"')
    assert code == 0, said
    site.mx.wait_empty()
    assert own.subjects() == [f"m{i}" for i in range(5)]
    assert "TLS" in said


def test_thousands_come_in_order(provider):
    site = provider()
    site.fill_many(MANY)
    with site.turned() as caller:
        assert subjects(caller.serve()) == [f"m{i}" for i in range(MANY)]
    site.mx.wait_empty()
    site.wait_idle()
    assert site.mx.status()["servers"][0]["used"] == MANY


@pytest.mark.sanitized
def test_a_site_that_reads_slowly_holds_up_nothing_but_itself(provider):
    """More than all buffers hold, while it does not read; others are answered meanwhile."""
    site = provider()
    content = b"Subject: large\r\n\r\n" + b"".join(b"%070d\r\n" % i for i in range(300_000))
    site.mx.send(recipients=["ann@site.example"], content=content)
    with site.turned() as caller:
        caller.write(b"220 caller.example ready\r\n")
        while not caller.line().startswith("DATA"):
            caller.write(b"250 Ok\r\n")
        caller.write(b"354 Go on\r\n")
        time.sleep(1)
        with site.call("implicit") as other:
            assert other.login("joe", "secret")[0] == 235
            assert "being sent already" in other.atrn()[1]
        got = []
        while (line := caller.line()) != ".":
            got.append(line)
        assert got[got.index("Subject: large"):] == content.decode().split("\r\n")[:-1]
        caller.write(b"250 2.0.0 Taken\r\n")
        assert caller.line() == "QUIT"
        caller.write(b"221 Bye\r\n")
    site.mx.wait_empty()
    site.wait_idle()


def reset(caller):
    """Gone without a word of TLS or TCP's."""
    caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.sanitized
@pytest.mark.parametrize("end", [lambda caller: None, reset, lambda caller: caller.socket.unwrap()],
                         ids=["closed", "reset", "goodbye"])
def test_a_site_that_vanishes_within_a_message_loses_nothing(provider, end):
    site = provider()
    fill(site.mx, 4)
    with site.turned() as caller:
        assert subjects(caller.serve(most=1)) == ["m0"]
        while not caller.line().startswith("DATA"):
            caller.write(b"250 2.0.0 Ok\r\n")
        try:
            end(caller)
        except OSError:
            pass
    wait_for(lambda: site.mx.server_state("site") == "down", 30, what="the end of the call")
    assert site.mx.status()["servers"][0]["failures"] > 0
    assert site.mx.status()["alerts"] == []
    site.wait_idle()
    assert site.fetch_rest() == ["m1", "m2", "m3"]


@pytest.mark.sanitized
def test_a_site_that_vanishes_after_the_dot_gets_it_once_more_at_most(provider):
    site = provider()
    fill(site.mx, 4)
    with site.turned() as caller:
        assert subjects(caller.serve(most=2, dot=None)) == ["m0", "m1"]
    rest = site.fetch_rest()
    assert sorted(rest) in (["m1", "m2", "m3"], ["m2", "m3"])
    assert "in_doubt" in site.mx.log()


@pytest.mark.sanitized
@pytest.mark.parametrize("name", ["holdfast-edge-i", "holdfast-edge-o", "holdfast-core"])
def test_a_process_dies_while_a_call_is_served(provider, name):
    """Whichever: the call ends; the next gets the rest, and at most one message once more."""
    site = provider()
    fill(site.mx, 6)
    with site.turned() as caller:
        first = subjects(caller.serve(most=3, dot=None))
        assert first == ["m0", "m1", "m2"]
        os.kill(process(site.mx, name), signal.SIGKILL)
        wait_for(lambda: "process-died" in site.mx.log(), 30, what="its death")
        try:
            caller.write(b"250 2.0.0 Taken\r\n")
            first += subjects(caller.serve(greeting=False))
        except OSError:
            pass
    wait_for(lambda: not site.mx.status()["loading"], 30, what="a core that has loaded")
    rest = site.fetch_rest()
    assert set(first + rest) == {f"m{i}" for i in range(6)}
    assert len(first + rest) <= 7


def test_what_is_sent_behind_atrn_is_refused(provider):
    """In one record with it, or later but before the reply: while core is stopped."""
    site = provider()
    fill(site.mx, 1)
    with site.call() as caller:
        assert caller.login()[0] == 235
        caller.write(b"ATRN\r\n220 evil ready\r\n")
        assert caller.reply() == (503, "5.5.1 Nothing may follow ATRN before its reply")
        assert caller.reply()[0] == 500
        core = process(site.mx, "holdfast-core")
        os.kill(core, signal.SIGSTOP)
        caller.write(b"ATRN\r\n")
        time.sleep(0.3)
        caller.write(b"220 evil ready\r\n")
        time.sleep(0.3)
        os.kill(core, signal.SIGCONT)
        assert caller.reply()[0] == 503
        assert caller.reply()[0] == 500
        assert caller.say("NOOP")[0] == 250
    assert site.fetch_rest() == ["m0"]


def test_a_call_ends_with_the_daemon(provider):
    """It waits for the message under way, and the site hears the end."""
    site = provider()
    fill(site.mx, 2)
    with site.turned() as caller:
        assert subjects(caller.serve(most=1, dot=None)) == ["m0"]
        site.mx.child.terminate()
        time.sleep(0.3)
        caller.write(b"250 2.0.0 Taken\r\n")
        while True:
            try:
                if caller.line() == "QUIT":
                    caller.write(b"221 Bye\r\n")
            except OSError:
                break
    site.mx.stop()
    site.mx.start()
    assert site.fetch_rest() == ["m1"]
