# SPDX-License-Identifier: Apache-2.0
"""Outages with real addresses: m1 fails in every way a server can, m2 stands in, m1 comes back.

After each: nothing lost, nothing doubled but what was in flight, order kept for each recipient over
both servers, the mail goes to m1 again, and the log tells the story.
"""

import concurrent.futures
import contextlib
import re
import socket
import time

import pytest

from netns import Net, ip, why_no_netns
from peers import wait_for
from sink import CLOSE, SILENCE, Sink

why_not = why_no_netns()
pytestmark = pytest.mark.skipif(why_not is not None, reason=str(why_not))

PEOPLE = [f"{name}@example.com" for name in ("ann", "bob", "cem", "dora")]


@pytest.fixture
def net():
    with Net() as made:
        yield made


class Outage:
    """A holdfast between PEOPLE and the chain m1 > m2, with numbered mail."""

    def __init__(self, net, holdfast, more="", server="", alone=False):
        self.net = net
        self.trouble = None  # of m1: stage and what it does there
        self.sent = {person: [] for person in PEOPLE}
        self.number = 0
        self.m1 = Sink(rule=self.rule, port=25, address=net.addresses[0])
        self.m2 = Sink(port=25, address=net.addresses[1])
        with net.far():
            self.m1.start()
            self.m2.start()
        times = ("connect-timeout = 1s  greeting-timeout = 1s  command-timeout = 1s  "
                 f"dot-timeout = 1s  {server}")
        self.mx = holdfast(
            f"server m1 {{ address = {net.addresses[0]}  {times}"
            f"{'' if alone else '  failover = m2'} }}\n"
            f"server m2 {{ address = {net.addresses[1]}  {times} }}\n"
            f"domain example.com {{ deliver-to = m1  retry = {{1s}} {more} }}\n")
        wait_for(lambda: self.mx.server_state("m1") == "up", what="m1 up")
        if not alone:
            wait_for(lambda: self.mx.server_state("m2") == "up", what="m2 up")

    def rule(self, stage, _session, _argument):
        if self.trouble is not None and self.trouble[0] in (stage, "any"):
            return self.trouble[1]
        return None

    def watch(self, stage):
        """The subjects of those that come so far with m1 while it is in trouble, as they come."""
        subjects, rule = set(), self.m1.rule

        def note(at, session, argument):
            if at == stage and self.trouble is not None:
                sender = re.search("<(.*?)>", argument).group(1) if at == "MAIL" else \
                    (argument if at == "dot" else session.message).sender
                subjects.add(sender.split("@")[0])
            return rule(at, session, argument)
        self.m1.rule = note
        return subjects

    def in_doubt(self):
        """The subjects of those whose reply to the dot did not come, by the log."""
        log = self.mx.log()
        senders = dict(re.findall(r" accepted id=(\w+) sender=(\d+)@", log))
        return {senders[found] for found in re.findall(r" in_doubt id=(\w+)", log)}

    def send(self, count):
        with self.mx.dialogue() as dialogue:
            for _ in range(count):
                person = PEOPLE[self.number % len(PEOPLE)]
                self.number += 1
                reply = dialogue.send(f"{self.number}@client.example", [person],
                                      b"Subject: %d\r\n\r\n" % self.number)
                assert reply[0] == 250
                self.sent[person].append(str(self.number))

    def send_many(self, count):
        """To each of the people on a connection of his own."""
        def send(person, numbers):
            with self.mx.dialogue() as dialogue:
                for number in numbers:
                    assert dialogue.send(f"{number}@client.example", [person],
                                         b"Subject: %d\r\n\r\n" % number)[0] == 250
                    self.sent[person].append(str(number))
        first, self.number = self.number + 1, self.number + count
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(send, PEOPLE, [range(first + at, self.number + 1, len(PEOPLE))
                                         for at in range(len(PEOPLE))]))

    def arrived(self):
        """(time, subject, recipient) at both servers, in time."""
        return sorted((message.time, subject, message.recipients[0])
                      for sink in (self.m1, self.m2)
                      for message, subject in zip(list(sink.messages), sink.subjects()))

    def settle(self, seconds=30):
        self.mx.wait_empty(seconds)

    def back(self):
        """m1 is well again, and takes the mail."""
        before = len(self.m1.messages)

        def takes():
            self.send(1)
            time.sleep(0.3)
            return len(self.m1.messages) > before
        wait_for(takes, 30, what="m1 to be used again")
        self.settle()

    def story(self, reason=""):
        """That the log tells of m1's trouble and why, of what stood in, and of its way back."""
        log, at = self.mx.log(), 0
        assert reason in log
        for what in ("server=m1 was=up state=suspect",
                     r"switch\S* lane=domain:example.com from_server=m1 server=m2",
                     r"server=m1 was=\w+ state=recovering",
                     r"switch\S* lane=domain:example.com from_server=m2 server=m1"):
            found = re.compile(what).search(log, at)
            assert found, f"the log does not tell of '{what}' from here on: {log[at:at + 300]}"
            at = found.start()
        assert "server=m1 was=recovering state=up" in log[at - 500:]

    def check(self, doubled=0, doubted=()):
        """Those in doubt have no place in the order (R6), but a place they have."""
        seen = {person: [] for person in PEOPLE}
        extra = 0
        for _, subject, person in self.arrived():
            if subject in seen[person]:
                extra += 1
            else:
                seen[person].append(subject)
        for person in PEOPLE:
            assert set(seen[person]) == set(self.sent[person]), "lost"
            assert [subject for subject in seen[person] if subject not in doubted] == \
                [subject for subject in self.sent[person] if subject not in doubted], "out of order"
        assert extra <= doubled, f"{extra} doubled"
        assert self.mx.status()["dead_letters"] == 0

    def end(self):
        self.m1.stop()
        self.m2.stop()


@pytest.fixture
def outage(net, holdfast):
    made = []

    def make(**more):
        made.append(Outage(net, holdfast, **more))
        return made[0]
    yield make
    for one in made:
        one.end()


@contextlib.contextmanager
def refused(one):
    one.m1.stop()
    yield
    with one.net.far():
        one.m1.start()


@contextlib.contextmanager
def blackholed(one):
    one.net.cut(one.net.addresses[0])
    yield
    one.net.mend(one.net.addresses[0])


def trouble(stage, what):
    @contextlib.contextmanager
    def fault(one):
        one.trouble = (stage, what)
        for session in list(one.m1.sessions):  # those that are open came before the trouble
            with contextlib.suppress(OSError):
                session.connection.shutdown(2)
        yield
        one.trouble = None
        one.m1.release()
    return fault


FAULTS = {
    "refused": refused,
    "blackholed": blackholed,
    "greeting-554": trouble("connect", "554 5.3.2 Not now"),
    "greeting-421": trouble("connect", "421 4.3.2 Not now"),
    "silent-at-connect": trouble("connect", SILENCE),
    "silent-at-EHLO": trouble("EHLO", SILENCE),
    **{f"resets-at-{stage}": trouble(stage, CLOSE)
       for stage in ("connect", "EHLO", "MAIL", "RCPT", "DATA")},
    **{f"silent-at-{stage}": trouble(stage, SILENCE) for stage in ("MAIL", "RCPT", "DATA")},
    **{f"421-at-{stage}": trouble(stage, "421 4.3.2 Going down")
       for stage in ("EHLO", "MAIL", "RCPT", "DATA", "dot")},
}
REASONS = {"refused": "connection refused", "blackholed": "timed out", "greeting": "Not now",
           "silent": "timed out", "resets": "connection", "421": "Going down"}


@pytest.mark.parametrize("fault", FAULTS)
def test_m2_stands_in_and_m1_takes_over_again(outage, fault):
    one = outage()
    one.send(8)
    one.settle()
    assert len(one.m1.messages) == 8 and not one.m2.messages
    with FAULTS[fault](one):
        one.send(40)
        one.settle(60)
        assert len(one.m2.messages) == 40
        time.sleep(1.5)  # what hangs is found to do so
    one.back()
    one.check()
    one.story(REASONS[fault.split("-")[0]])


@pytest.mark.parametrize("what", [CLOSE, SILENCE], ids=["reset", "silent"])
def test_replies_to_the_dot_that_never_come(outage, what):
    """In doubt (R2): not to m2 while m1 may have it."""
    one = outage()
    one.send(4)
    one.settle()
    doubted = one.watch("dot")
    with trouble("dot", what)(one):  # come, and not said to be taken
        one.send(4)
        time.sleep(3)
    one.settle(60)
    one.back()
    one.check(doubted=doubted)
    assert doubted and not doubted & set(one.m2.subjects())
    assert " in_doubt id=" in one.mx.log()


def test_one_byte_a_second(outage):
    """A greeting that takes for ever costs one time-out, and not one for each message."""
    one = outage()
    one.settle()

    def drip(stage, session, _argument):
        if stage == "connect":
            for byte in b"220 slow":
                session.connection.sendall(bytes([byte]))
                time.sleep(1)
        return None
    one.m1.rule = drip
    for session in list(one.m1.sessions):
        with contextlib.suppress(OSError):
            session.connection.shutdown(2)
    started = time.monotonic()
    one.send(40)
    one.settle(20)
    assert time.monotonic() - started < 8
    assert len(one.m2.messages) >= 36
    one.m1.rule = one.rule
    one.back()
    one.check()


@pytest.mark.parametrize("stage", ["EHLO", "MAIL", "RCPT", "DATA", "dot"])
def test_replies_that_drip(outage, stage):
    """A reply that comes a byte each second, later than it may: m2 stands in (at the dot, it is in
    doubt instead), and nothing is lost."""
    one = outage()
    one.send(4)
    one.settle()

    def drip(session):
        for byte in b"250 2.0.0 this takes long\r\n":
            with contextlib.suppress(OSError):
                session.connection.sendall(bytes([byte]))
            if one.trouble is None:
                break
            time.sleep(1)

    def rule(at, session, _argument):
        if one.trouble is not None and at == stage:
            drip(session)
            return CLOSE
        return None
    one.m1.rule = rule
    doubted = one.watch("dot") if stage == "dot" else ()
    with trouble(stage, None)(one):
        one.send(8)
        time.sleep(6)
    one.settle(60)
    one.m1.rule = one.rule
    one.back()
    one.check(doubted=doubted)


REFUSALS = {"connect": "554 5.3.2 No", "EHLO": "502 5.5.1 No", "MAIL": "550 5.7.1 No",
            "RCPT": "550 5.1.1 No", "DATA": "554 5.5.1 No", "dot": "550 5.6.0 No"}


@pytest.mark.parametrize("stage", REFUSALS)
def test_5xx_to_everything_after_recovery(outage, stage):
    """A primary that comes back half repaired: nothing is bounced or given up, and all of it goes
    in order as soon as it is whole (R5)."""
    one = outage(alone=True, server="hold-5xx-after-recovery = 2s")
    one.send(4)
    one.settle()
    one.net.cut(one.net.addresses[0])
    wait_for(lambda: one.mx.server_state("m1") == "down" or one.send(1), 20, what="m1 down")
    one.send(20)
    within = stage not in ("connect", "EHLO")
    refused_once = one.watch(stage) if within else ()
    refusal = REFUSALS[stage]
    with trouble(stage, refusal)(one):
        one.net.mend(one.net.addresses[0])
        wait_for(lambda: refusal in one.mx.log(), 30, what="refusals")
        one.send(8)
        time.sleep(6)
        status = one.mx.status()
        held = [row for row in one.mx.queue() if row["state"] == "held"]
        assert bool(held) == within and all(row["not_believed"] for row in held)
        assert ("not believed yet" in one.mx.tool("queue", "list").stdout) == within
        assert status["dead_letters"] == 0
        assert status["queue"]["messages"] == one.number - 4
    one.settle(90)
    one.check(doubted=refused_once)  # held ones block nobody (R6)
    log = one.mx.log()
    assert refusal in log and "dead-letter" not in log


def test_a_hung_server_is_switched_off_and_on(net, holdfast):
    """It accepted our connection and hung; its power went without a word; it is noticed at once that
    it is back, not when the greeting has taken too long (300 s here)."""
    address = net.addresses[0]
    with net.far():
        hung = socket.create_server((address, 25))
    mx = holdfast(f"server m1 {{ address = {address} }}\n"
                  "domain example.com { deliver-to = m1 }\n")
    connection, _ = hung.accept()
    mx.send(content=b"Subject: 1\r\n\r\n")
    time.sleep(1.5)
    with net.far():
        ip("link", "set", "v1", "down")
    connection.close()
    hung.close()
    time.sleep(3)
    m1 = Sink(port=25, address=address)
    with net.far():
        ip("link", "set", "v1", "up")
        ip("route", "replace", "192.0.2.1", "dev", "v1")
        m1.start()
    try:
        wait_for(lambda: m1.messages, 30, what="the first delivery")
        mx.wait_empty()
        assert m1.subjects() == ["1"]
    finally:
        m1.stop()


def test_both_are_away_and_come_back(outage):
    """Stopped, alerted, and drained in order by itself."""
    one = outage()
    one.net.cut(one.net.addresses[0])
    one.m2.stop()
    one.send(40)
    wait_for(lambda: one.mx.status()["lanes"][0]["state"] == "stopped", 20, what="the stop")
    wait_for(lambda: any(alert["kind"] == "stopped" for alert in one.mx.status()["alerts"]), 5,
             what="the alert")
    one.net.mend(one.net.addresses[0])
    one.settle()
    assert len(one.m1.messages) == 40
    one.check()
    wait_for(lambda: not any(alert["kind"] == "stopped" for alert in one.mx.status()["alerts"]),
             5, what="the alert's end")


def test_flapping(outage):
    """m1 comes and goes every 3 s, for two minutes."""
    one = outage()
    for _ in range(20):
        with refused(one):
            one.send(20)
            time.sleep(3)
        one.send(20)
        time.sleep(3)
    one.settle(60)
    one.back()
    one.check(doubled=20)  # a dot on its way at each of its ends
    one.story()
    states = one.mx.log().count("server=m1 was=")
    assert states < 20 * 12, f"{states} changes of state in 20 ups and downs"


def test_the_primary_dies_in_the_middle_of_a_drain(outage):
    one = outage()
    one.net.cut(one.net.addresses[0])
    one.m2.stop()
    wait_for(lambda: one.mx.server_state("m2") == "down" or one.send(1), 20, what="m2 down")
    one.send_many(20000)
    one.net.mend(one.net.addresses[0])
    wait_for(lambda: len(one.m1.messages) > 2000, 60, 0.005, "the drain")
    one.net.cut(one.net.addresses[0])
    time.sleep(2)
    assert 0 < one.mx.status()["queue"]["messages"] < 20000
    one.net.mend(one.net.addresses[0])
    one.settle(120)
    doubted = one.in_doubt()
    assert len(doubted) <= 20  # one a connection: there are twenty
    one.check(doubled=20, doubted=doubted)
    log = one.mx.log()
    assert log.count("server=m1 was=") >= 4 and "draining" in log


@pytest.mark.usefixtures("net")
def test_a_server_without_a_way_to_it_is_said_to_be_so(holdfast):
    mx = holdfast("server m1 { address = 203.0.113.77 }\ndomain example.com { deliver-to = m1 }\n")
    wait_for(lambda: mx.server_state("m1") == "down", what="m1 down")
    assert mx.status()["servers"][0]["reason"] == \
        "[203.0.113.77]:25: cannot be reached"
