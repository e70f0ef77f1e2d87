# SPDX-License-Identifier: Apache-2.0
"""Outages with real addresses: m1 fails in every way a server can, m2 stands in, m1 comes back.

After each: nothing lost, nothing doubled but what was in flight, order kept for each recipient over
both servers, the mail goes to m1 again, and the log tells the story.
"""

import contextlib
import socket
import threading
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

    def __init__(self, net, holdfast, more=""):
        self.net = net
        self.trouble = None  # of m1: stage and what it does there
        self.sent = {person: [] for person in PEOPLE}
        self.number = 0
        self.m1 = Sink(rule=self.rule, port=25, address=net.addresses[0])
        self.m2 = Sink(port=25, address=net.addresses[1])
        with net.far():
            self.m1.start()
            self.m2.start()
        times = "connect-timeout = 1s  greeting-timeout = 1s"
        self.mx = holdfast(
            f"server m1 {{ address = {net.addresses[0]}  {times}  failover = m2 }}\n"
            f"server m2 {{ address = {net.addresses[1]}  {times} }}\n"
            f"domain example.com {{ deliver-to = m1  retry = {{1s}} {more} }}\n")
        wait_for(lambda: self.mx.server_state("m1") == "up", what="m1 up")
        wait_for(lambda: self.mx.server_state("m2") == "up", what="m2 up")

    def rule(self, stage, _session, _argument):
        if self.trouble is not None and self.trouble[0] in (stage, "any"):
            return self.trouble[1]
        return None

    def send(self, count):
        with self.mx.dialogue() as dialogue:
            for _ in range(count):
                person = PEOPLE[self.number % len(PEOPLE)]
                self.number += 1
                reply = dialogue.send(f"eve{self.number % 5}@client.example", [person],
                                      b"Subject: %d\r\n\r\n" % self.number)
                assert reply[0] == 250
                self.sent[person].append(str(self.number))

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

    def check(self, doubled=0):
        seen = {person: [] for person in PEOPLE}
        extra = 0
        for _, subject, person in self.arrived():
            if subject in seen[person]:
                extra += 1
            else:
                seen[person].append(subject)
        assert seen == self.sent, "lost, or out of order"
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
        with one.m1.lock:
            one.m1.stopped.set()  # those who wait in silence go
            one.m1.stopped = threading.Event()
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
    **{f"421-at-{stage}": trouble(stage, "421 4.3.2 Going down")
       for stage in ("EHLO", "MAIL", "RCPT", "DATA", "dot")},
}


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
    one.back()
    one.check()
    log = one.mx.log()
    assert "server=m1" in log and "was=up state=suspect" in log
    assert "switched" in log


def test_replies_to_the_dot_that_never_come(outage):
    """In doubt (R2): not to m2 while m1 may have it; at most what was in flight is doubled."""
    one = outage()
    one.send(4)
    one.settle()
    one.trouble = ("dot", CLOSE)  # taken, and not said
    one.send(4)
    time.sleep(2)
    one.trouble = None
    one.settle(60)
    one.back()
    seen = [subject for _, subject, _ in one.arrived()]
    assert set(seen) == {str(n) for n in range(1, one.number + 1)}
    assert len(seen) - len(set(seen)) <= 4


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
    """m1 comes and goes every 3 s."""
    one = outage()
    for _ in range(3):
        with refused(one):
            one.send(20)
            time.sleep(3)
        one.send(20)
        time.sleep(3)
    one.settle(60)
    one.back()
    one.check(doubled=20)


def test_the_primary_dies_in_the_middle_of_a_drain(outage):
    one = outage()
    one.net.cut(one.net.addresses[0])
    one.m2.stop()
    wait_for(lambda: one.mx.server_state("m2") == "down" or one.send(1), 20, what="m2 down")
    one.send(2000)
    one.net.mend(one.net.addresses[0])
    wait_for(lambda: len(one.m1.messages) > 200, 30, 0.005, "the drain")
    one.net.cut(one.net.addresses[0])
    time.sleep(2)
    one.net.mend(one.net.addresses[0])
    one.settle(120)
    one.check(doubled=20)
