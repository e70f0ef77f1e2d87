# SPDX-License-Identifier: Apache-2.0
"""On-demand mail relay (RFC 2645): a site without an address calls for its mail, by fetchmail or
word by word, and the connection is turned round."""

import base64
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from odmr import SITE, Caller, fetchmail, listener
from peers import free_port, wait_for

needs_fetchmail = pytest.mark.skipif(shutil.which("fetchmail") is None,
                                     reason="fetchmail is not installed")


@pytest.fixture
def provider(holdfast, place):
    """The daemon, loaded, with `odmr` as the port to call."""
    def make(routes=SITE, **more):
        port = free_port()
        mx = holdfast(listener(place, port) + routes, **more)
        mx.odmr = port
        wait_for(lambda: mx.server_state("site") == "down", what="a core that has begun")
        return mx
    return make


def fill(mx, count, domain="site.example", user="ann", first=0):
    for i in range(first, first + count):
        mx.send(recipients=[f"{user}@{domain}"], content=b"Subject: m%d\r\n\r\nHello.\r\n" % i)


def subjects(messages):
    return [line[9:] for _, content in messages for line in content.split("\n")
            if line.startswith("Subject: ")]


def lane(mx, route):
    return next(lane for lane in mx.status()["lanes"] if lane["route"] == route)


def process(mx, name):
    return wait_for(lambda: mx.processes().get(name), 10, what=name)[0]


# ---- fetchmail ----

@pytest.mark.sanitized
@needs_fetchmail
def test_fetchmail_fetches_what_waits_in_order(provider, sink, place):
    """Nothing waits: 453. Then five messages, in the order of their acceptance; then nothing."""
    site = sink()
    mx = provider()
    code, said = fetchmail(place, mx.odmr, site.port)
    assert "453 4.0.0 You have no mail" in said, said
    fill(mx, 5)
    wait_for(lambda: lane(mx, "domain:site.example")["deliveries"] == 5, what="five waiting")
    waiting = lane(mx, "domain:site.example")
    assert waiting["state"] == "idle"
    assert waiting["reason"] == "site down: waits for its client to call (ATRN)"
    assert mx.status()["alerts"] == []
    code, said = fetchmail(place, mx.odmr, site.port)
    assert code == 0, said
    mx.wait_empty(5)
    assert site.subjects() == [f"m{i}" for i in range(5)]
    code, said = fetchmail(place, mx.odmr, site.port)
    assert "453 4.0.0 You have no mail" in said, said
    server = mx.status()["servers"][0]
    assert (server["state"], server["used"], server["failures"]) == ("down", 5, 0)
    assert mx.status()["alerts"] == []
    events = [row["event"] for row in mx.lines("trace", "ann@site.example")]
    assert events.count("pulled") == 5 and "delivered" not in events
    assert "alert" not in mx.log()


@needs_fetchmail
def test_fetchmail_fetches_two_domains_in_one_call(provider, sink, place):
    site = sink()
    mx = provider()
    fill(mx, 2, "site.example", first=0)
    fill(mx, 2, "other.example", first=2)
    code, said = fetchmail(place, mx.odmr, site.port, domains="other.example")
    assert code == 0, said
    wait_for(lambda: site.subjects() == ["m2", "m3"], 5, what="only what was asked for")
    code, said = fetchmail(place, mx.odmr, site.port, domains="site.example other.example")
    assert code == 0, said
    mx.wait_empty(5)
    assert site.subjects() == ["m2", "m3", "m0", "m1"]


@needs_fetchmail
def test_fetchmail_with_a_wrong_password_gets_nothing(provider, sink, place):
    site = sink()
    mx = provider()
    fill(mx, 1)
    code, said = fetchmail(place, mx.odmr, site.port, password="wrong")
    assert code != 0 and "535" in said, said
    assert site.messages == []
    assert "login listener=fetch user=joe client=127.0.0.1 outcome=refused" in mx.log()


@needs_fetchmail
def test_fetchmail_hands_over_to_a_real_server(provider, postfix, place):
    """What it is for: a Postfix behind an address that changes."""
    primary = postfix(domains=("site.example",))
    mx = provider()
    fill(mx, 3)
    code, said = fetchmail(place, mx.odmr, primary.port)
    assert code == 0, said
    mx.wait_empty(10)
    wait_for(lambda: len(primary.messages()) == 3, what="all three")
    assert mx.status()["dead_letters"] == 0


# ---- who may have what ----

def test_only_who_has_logged_in_may_ask_and_only_for_his_domains(provider):
    mx = provider()
    fill(mx, 1, "site.example")
    with Caller(mx.odmr) as caller:
        assert caller.say("EHLO caller.example") == \
            (250, "mx2.example.net\nENHANCEDSTATUSCODES\nAUTH CRAM-MD5\nATRN")
        assert caller.atrn()[0] == 530
        assert caller.say("MAIL FROM:<>")[0] == 502
        assert caller.login("joe", "sesame")[0] == 535
        assert caller.login("nobody", "nobody has this")[0] == 535
        assert caller.atrn()[0] == 530
        assert caller.login("ann", "sesame")[0] == 235
        assert caller.atrn("site.example") == (450, "4.7.1 ATRN request refused")
        assert caller.atrn("other.example,site.example")[0] == 450
        assert caller.atrn("elsewhere.example")[0] == 450
        assert caller.atrn() == (453, "4.0.0 You have no mail")
        assert caller.atrn("OTHER.example")[0] == 453
    assert len(mx.queue()) == 1
    assert "refused stage=atrn" in mx.log()


PLAIN = base64.b64encode(b"\0joe\0secret").decode()


@pytest.mark.parametrize("command", [
    f"AUTH PLAIN {PLAIN}", "AUTH PLAIN", f"AUTH LOGIN {base64.b64encode(b'joe').decode()}",
    "AUTH LOGIN", f"AUTH SCRAM-SHA-256 {base64.b64encode(b'n,,n=joe,r=abcdefgh').decode()}",
    "AUTH SCRAM-SHA-256"])
def test_no_login_but_by_cram_md5(provider, command):
    """In the open nobody is asked for a password, nor heard who says it unasked: docs/decisions/0023."""
    mx = provider()
    fill(mx, 1, "site.example")
    with Caller(mx.odmr) as caller:
        assert "AUTH CRAM-MD5\n" in caller.say("EHLO caller.example")[1]
        assert caller.say(command)[0] == 504
        assert caller.atrn()[0] == 530
        assert caller.login()[0] == 235
        assert caller.atrn()[0] == 250
        assert subjects(caller.serve()) == ["m0"]
    mx.wait_empty()
    assert "secret" not in mx.log() and PLAIN not in mx.log()


def test_many_failed_logins_are_throttled(provider):
    """All at once, for each is told later than the one before."""
    mx = provider()
    callers = [Caller(mx.odmr) for _ in range(11)]
    with ThreadPoolExecutor(len(callers)) as pool:
        assert [code for code, _ in pool.map(lambda c: c.login("joe", "wrong"), callers)] == [535] * 11
    for caller in callers:
        caller.close()
    with Caller(mx.odmr) as caller:
        assert caller.login("joe", "secret")[0] == 454
    assert mx.log().count('user=joe client=127.0.0.1 outcome=refused') == 10
    assert mx.log().count('user=joe client=127.0.0.1 outcome="refused, and the client must wait"') == 1
    assert mx.log().count('user=joe client=127.0.0.1 outcome="not tried"') == 1


def test_users_change_with_a_reload(provider, place):
    mx = provider()
    (place / "users").write_text("joe secret other.example\nben new site.example\n")
    mx.reload()
    wait_for(lambda: "reloaded" in mx.log(), what="the new users")

    def sees_the_new_rule():
        with Caller(mx.odmr) as caller:
            assert caller.login()[0] == 235
            return caller.atrn("site.example")[0] == 450
    wait_for(sees_the_new_rule, 30, what="the new rule")
    with Caller(mx.odmr) as other:
        assert other.login("ben", "new")[0] == 235
        assert other.atrn()[0] == 453
    (place / "users").write_text("joe\n")
    mx.reload()
    wait_for(lambda: "users:1: users: a line is NAME PASSWORD DOMAIN" in mx.log(),
             what="a refusal with file and line")
    assert "secret" not in mx.log() and "sesame" not in mx.log()


# ---- what comes too early ----

def test_what_is_sent_behind_atrn_is_refused(provider):
    """In one packet with it, or later but before the reply: while core is stopped."""
    mx = provider()
    fill(mx, 1)
    with Caller(mx.odmr) as caller:
        assert caller.login()[0] == 235
        caller.write(b"ATRN\r\n220 evil ready\r\n")
        assert caller.reply() == (503, "5.5.1 Nothing may follow ATRN before its reply")
        assert caller.reply()[0] == 500
        core = process(mx, "holdfast-core")
        os.kill(core, signal.SIGSTOP)
        caller.write(b"ATRN\r\n")
        time.sleep(0.2)
        caller.write(b"220 evil ready\r\n")
        time.sleep(0.2)
        os.kill(core, signal.SIGCONT)
        assert caller.reply()[0] == 503
    assert len(mx.queue()) == 1
    def again():
        with Caller(mx.odmr) as caller:
            caller.login()
            return caller.atrn()[0] == 250 and caller.serve() != []
    wait_for(again, 15, 0.5, "the session that waited in vain to be given up")


# ---- one call at a time ----

def test_two_calls_at_once(provider):
    mx = provider()
    fill(mx, 2)
    fill(mx, 1, "other.example", first=2)
    with Caller(mx.odmr) as first, Caller(mx.odmr) as second:
        first.login()
        second.login("ann", "sesame")
        assert first.atrn("site.example")[0] == 250
        code, text = second.atrn()
        assert code == 450 and "being sent already" in text
        assert subjects(first.serve()) == ["m0", "m1"]
        wait_for(lambda: mx.server_state("site") == "down", what="the end of the first call")
        assert second.atrn()[0] == 250
        assert subjects(second.serve()) == ["m2"]
    mx.wait_empty(5)


# ---- who dies in the middle ----

def fetch_rest(mx, seconds=20):
    """Calls until nothing is left; what came."""
    taken = []

    def call():
        with Caller(mx.odmr) as caller:
            caller.login()
            if caller.atrn()[0] == 250:
                taken.extend(caller.serve())
        status = mx.status()
        return status["queue"]["messages"] == 0 and not status["loading"]
    wait_for(call, seconds, 0.3, "an empty queue")
    return subjects(taken)


@pytest.mark.sanitized
def test_client_dies_within_a_message(provider):
    """Before the dot: nothing is lost or doubled, and the next call begins with that message."""
    mx = provider()
    fill(mx, 4)
    with Caller(mx.odmr) as caller:
        caller.login()
        assert caller.atrn()[0] == 250
        assert subjects(caller.serve(most=1)) == ["m0"]
        while not caller.line().startswith("DATA"):
            caller.write(b"250 2.0.0 Ok\r\n")
    wait_for(lambda: mx.server_state("site") == "down", what="the end of the call")
    assert mx.status()["servers"][0]["failures"] > 0
    assert mx.status()["alerts"] == []
    assert fetch_rest(mx) == ["m1", "m2", "m3"]


@pytest.mark.sanitized
def test_client_dies_after_the_dot(provider):
    """It has the message, and we have not its word: at most that one comes twice."""
    mx = provider()
    fill(mx, 4)
    with Caller(mx.odmr) as caller:
        caller.login()
        assert caller.atrn()[0] == 250
        assert subjects(caller.serve(most=2, dot=None)) == ["m0", "m1"]
    rest = fetch_rest(mx)
    assert sorted(rest) in (["m1", "m2", "m3"], ["m2", "m3"])
    assert "in_doubt" in mx.log()


def test_client_never_greets(provider):
    mx = provider("server site { protocol = odmr greeting-timeout = 500ms }\n"
                  "domain site.example { deliver-to = site }\n"
                  "domain other.example { deliver-to = site }\n")
    fill(mx, 1)
    with Caller(mx.odmr) as caller:
        caller.login()
        assert caller.atrn()[0] == 250
        wait_for(lambda: mx.status()["servers"][0]["failures"] == 1, what="the verdict")
    assert fetch_rest(mx) == ["m0"]


def test_receiving_process_dies_while_a_call_is_served(provider):
    """The connection is the sending process's by then: nobody notices."""
    mx = provider()
    fill(mx, 4)
    with Caller(mx.odmr) as caller:
        caller.login()
        assert caller.atrn()[0] == 250
        assert subjects(caller.serve(most=1)) == ["m0"]
        os.kill(process(mx, "holdfast-edge-i"), signal.SIGKILL)
        wait_for(lambda: "process-died" in mx.log(), what="its death")
        assert subjects(caller.serve(greeting=False)) == ["m1", "m2", "m3"]
    mx.wait_empty(5)
    fill_later = wait_for(lambda: mx.send(recipients=["ann@site.example"]), 10, 0.2, "a new one")
    assert fill_later
    assert len(fetch_rest(mx)) == 1


@pytest.mark.sanitized
@pytest.mark.parametrize("name", ["holdfast-edge-o", "holdfast-core"])
def test_process_dies_while_a_call_is_served(provider, name):
    """The call ends; the next gets the rest, and at most the message under way once more."""
    mx = provider()
    fill(mx, 6)
    with Caller(mx.odmr) as caller:
        caller.login()
        assert caller.atrn()[0] == 250
        first = subjects(caller.serve(most=3, dot=None))
        assert first == ["m0", "m1", "m2"]
        os.kill(process(mx, name), signal.SIGKILL)
        wait_for(lambda: "process-died" in mx.log(), what="its death")
        try:
            caller.write(b"250 2.0.0 Taken\r\n")
            first += subjects(caller.serve(greeting=False))
        except (ConnectionError, OSError):
            pass
    rest = fetch_rest(mx, 30)
    assert set(first + rest) == {f"m{i}" for i in range(6)}
    assert len(first + rest) <= 7


def test_core_dies_while_it_is_asked(provider):
    mx = provider()
    fill(mx, 1)
    with Caller(mx.odmr) as caller:
        caller.login()
        core = process(mx, "holdfast-core")
        os.kill(core, signal.SIGSTOP)
        caller.write(b"ATRN\r\n")
        os.kill(core, signal.SIGKILL)
        assert caller.reply() == (451, "4.3.0 Unable to process ATRN request now")
    assert fetch_rest(mx) == ["m0"]


def test_without_a_sending_process_nobody_is_turned(provider):
    """Stopped so that the keeper does not know: the connection waits with it, and goes on."""
    mx = provider()
    fill(mx, 1)
    out = process(mx, "holdfast-edge-o")
    os.kill(out, signal.SIGSTOP)
    with Caller(mx.odmr) as caller:
        caller.login()
        assert caller.atrn()[0] == 250
        caller.write(b"220 caller.example ready\r\n")
        time.sleep(0.3)
        os.kill(out, signal.SIGCONT)
        assert subjects(caller.serve(greeting=False)) == ["m0"]
    mx.wait_empty(5)


# ---- what the site says, and the operator ----

def test_refusals_and_deferrals_of_the_site(provider):
    """A 4xx waits for the next call, however soon; a 5xx is final: a dead letter of the domain."""
    mx = provider("server site { protocol = odmr }\n"
                  "domain site.example { deliver-to = site }\n"
                  "domain other.example { deliver-to = site }\n")
    fill(mx, 1)
    with Caller(mx.odmr) as caller:
        caller.login()
        assert caller.atrn()[0] == 250
        assert caller.serve(rcpt="450 4.2.0 Later") == []
    wait_for(lambda: mx.server_state("site") == "down", what="the end of the call")
    with Caller(mx.odmr) as caller:
        caller.login()
        assert caller.atrn()[0] == 250
        assert caller.serve(rcpt="550 5.1.1 Nobody here") == []
    wait_for(lambda: mx.status()["dead_letters"] == 1, what="a dead letter")


def test_operator_takes_the_site_out(provider):
    mx = provider()
    fill(mx, 1)
    probed = mx.tool("server", "probe", "site", check=False)
    assert probed.returncode == 1 and "its client calls us" in probed.stdout + probed.stderr
    mx.tool("server", "down", "site")
    wait_for(lambda: lane(mx, "domain:site.example")["state"] == "stopped", what="a stop")
    assert [alert["kind"] for alert in mx.status()["alerts"]] == ["stopped"]
    with Caller(mx.odmr) as caller:
        caller.login()
        assert caller.atrn()[0] == 450
        mx.tool("server", "up", "site")
        assert mx.server_state("site") == "down"
        assert caller.atrn()[0] == 250
        assert subjects(caller.serve()) == ["m0"]
    mx.wait_empty(5)
    wait_for(lambda: mx.status()["alerts"] == [], what="the end of the alert")


def test_site_is_the_last_of_a_chain(provider, sink):
    """While the server before it works there is nothing to fetch; when that is down there is."""
    m1 = sink()
    mx = provider(f'server m1 {{ address = "127.0.0.1:{m1.port}" probe-interval = 100ms }}\n'
                  "server site { protocol = odmr }\n"
                  "domain site.example { deliver-to = {m1, site} }\n"
                  "domain other.example { deliver-to = site }\n")
    fill(mx, 1)
    wait_for(lambda: m1.subjects() == ["m0"], what="the way over m1")
    m1.stop()
    wait_for(lambda: mx.server_state("m1") in ("up", "suspect", "down"), what="m1")
    fill(mx, 1, first=1)
    wait_for(lambda: mx.server_state("m1") == "down", 90, what="m1 down")
    with Caller(mx.odmr) as caller:
        caller.login()
        assert caller.atrn("site.example")[0] == 250
        assert subjects(caller.serve()) == ["m1"]
    mx.wait_empty(5)
