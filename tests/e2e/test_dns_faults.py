# SPDX-License-Identifier: Apache-2.0
"""MX routing while DNS fails or lies: an authoritative server with a signed zone, on loopback, does
what servers and those between do. After each of it nothing is lost, each recipient's order is kept,
and the log tells what happened."""

import os
import shutil
import tempfile
import time

import pytest

from peers import wait_for
from test_mx import lane, number, send, state, why_no_port_25
from zone import Zone, why_no_zone

why_not = why_no_zone() or why_no_port_25()
pytestmark = pytest.mark.skipif(why_not is not None, reason=str(why_not))

NET = f"127.77.{os.getpid() % 250}"  # addresses of this run alone; the first 16 may be gone to
RELAY = f'relay out {{ from = 127.0.0.0/8 deliver-to = mx deliver-only-to = {NET}.0/28 }}\n'
DOMAIN = f'domain far.example {{ deliver-to = mx deliver-only-to = {NET}.0/28 }}\n'
HOME = f"sender MX 10 home\nhome A {NET}.1\n"


@pytest.fixture
def zone():
    directory = tempfile.mkdtemp(prefix="holdfast-zone-")
    server = Zone(directory, HOME)
    yield server
    server.stop()
    shutil.rmtree(directory)


class World:
    """Exchangers by number; the first is the senders' own, which gets notices."""

    def __init__(self, zone, sink):
        self.zone, self.sink = zone, sink
        self.home = self.host(1)

    def host(self, n, start=True):
        return self.sink(None, port=25, address=f"{NET}.{n}", start=start)

    def say(self, records, **how):
        self.zone.change(HOME + records, **how)

    def notice(self):
        wait_for(lambda: self.home.messages, 20, what="a notice")
        return self.home.messages[-1].content.decode()


@pytest.fixture
def world(zone, sink):
    return World(zone, sink)


def far(host=2):
    """far.example and its exchanger."""
    return f"far MX 10 mx.far\nmx.far A {NET}.{host}\n"


def send_some(daemon, first, domain="far.example"):
    for n in range(first, first + 3):
        for name in ("bob", "carl"):
            daemon.send(recipients=(f"{name}@{domain}",), sender="ann@sender.example",
                        content=number(f"{name} {n}"))


def arrived(host, name):
    return [subject for subject in host.subjects() if subject.startswith(name)]


def all_arrive(daemon, host, count, seconds=30):
    """All, once, in order; and nobody was told otherwise."""
    wanted = [[f"{name} {n}" for n in range(1, count + 1)] for name in ("bob", "carl")]
    wait_for(lambda: len(host.messages) >= 2 * count, seconds, what="all mail")
    assert [arrived(host, name) for name in ("bob", "carl")] == wanted
    daemon.wait_empty()
    assert daemon.status()["dead_letters"] == 0


def told(daemon, text):
    return any(" dns " in line and text in line for line in daemon.log().splitlines())


def test_a_secure_answer_is_followed(world, holdfast):
    host = world.host(2)
    world.say(far())
    relay = holdfast(RELAY, top=world.zone.setting)
    send_some(relay, 1)
    all_arrive(relay, host, 3)


@pytest.mark.parametrize("forgery", [
    {"forge": ("MX 10 mx.far.example.", "MX 10 evil.example.")},
    {"strip": "far"},
    {"expired": True},
], ids=["another exchanger", "no signature", "signatures of long ago"])
def test_a_bogus_answer_is_believed_by_nobody(world, holdfast, forgery):
    host, evil = world.host(2), world.host(3)
    world.say(far() + f"evil A {NET}.3\n", **forgery)
    relay = holdfast(RELAY, top=world.zone.setting)
    send_some(relay, 1)
    wait_for(lambda: told(relay, "bogus"), 30, what="the log")
    assert lane(relay, "mx:far.example")["deliveries"] == 6
    world.say(far() + f"evil A {NET}.3\n")
    send_some(relay, 4)
    all_arrive(relay, host, 6, 180)  # a bogus answer is kept a minute
    assert evil.connects == [] and world.home.messages == []
    assert told(relay, "known again")


def test_a_bogus_address_leaves_the_next_exchanger(world, holdfast):
    host, evil = world.host(2), world.host(3)
    world.say(f"far MX 10 first.far\nfar MX 20 mx.far\nfirst.far A {NET}.4\nmx.far A {NET}.2\n",
              forge=(f"A {NET}.4", f"A {NET}.3"))
    relay = holdfast(RELAY, top=world.zone.setting)
    send_some(relay, 1)
    all_arrive(relay, host, 3)
    assert evil.connects == []


def test_a_server_that_fails_loses_no_mail(world, holdfast):
    host = world.host(2)
    relay = holdfast(RELAY, top=world.zone.setting)
    send_some(relay, 1, "broken.example")
    wait_for(lambda: told(relay, "DNS does not say"), 30, what="the log")
    assert lane(relay, "mx:broken.example")["deliveries"] == 6
    world.say("", broken=f"@ MX 10 mx\nmx A {NET}.2\n")
    send_some(relay, 4, "broken.example")
    all_arrive(relay, host, 6, 120)
    assert world.home.messages == []


def test_no_such_domain_returns_a_relays_mail(world, holdfast):
    relay = holdfast(RELAY, top=world.zone.setting)
    send(relay, "bob@gone.example")
    assert "Status: 5.1.2" in world.notice()
    relay.wait_empty()
    assert told(relay, "there is no such domain")


def test_no_such_domain_never_returns_a_domains_mail(world, holdfast):
    host = world.host(2)
    mx = holdfast(DOMAIN + RELAY, top=world.zone.setting)
    send_some(mx, 1)
    wait_for(lambda: told(mx, "there is no such domain"), 30, what="the log")
    assert lane(mx, "domain:far.example")["state"] == "stopped"
    world.say(far())
    send_some(mx, 4)
    all_arrive(mx, host, 6, 60)
    assert world.home.messages == []


def test_a_silent_server_loses_no_mail(world, holdfast):
    host = world.host(2)
    world.say(far())
    relay = holdfast(RELAY, top=world.zone.setting)
    world.zone.pause()
    send_some(relay, 1)
    wait_for(lambda: told(relay, "DNS does not"), 60, what="the log")
    assert lane(relay, "mx:far.example")["deliveries"] == 6
    world.zone.resume()
    send_some(relay, 4)
    all_arrive(relay, host, 6, 120)
    assert world.home.messages == []


def test_a_silent_server_stops_no_domain_that_was_known(world, holdfast):
    host = world.host(2)
    world.say(far())
    mx = holdfast(DOMAIN, top=world.zone.setting)
    wait_for(lambda: state(mx, "mx.far.example") == "up", 20, what="the primary up")
    world.zone.pause()
    mx.stop()
    mx.start()
    send_some(mx, 1)
    all_arrive(mx, host, 3)
    time.sleep(31)  # longer than the answer held
    send_some(mx, 4)
    all_arrive(mx, host, 6)


@pytest.mark.parametrize("records, code", [
    (f"lie A {NET}.99\n", "5.4.4"),
    ("lie A 10.0.0.1\n", "5.4.4"),
    ("lie AAAA fe80::1\n", "5.4.4"),
    (f"lie A {NET}.9\n", "5.4.6"),
    ("lie CNAME lie2\nlie2 CNAME lie\n", None),
], ids=["loopback", "private", "link-local", "ourselves", "in a circle"])
def test_a_lying_exchanger_is_not_gone_to(world, holdfast, records, code):
    hosts = [world.host(9), world.host(99)]
    world.say("far MX 10 lie\n" + records)
    relay = holdfast(RELAY, top=world.zone.setting + f'nat-address = "{NET}.9"\n')
    send(relay, "bob@far.example")
    if code is None:
        wait_for(lambda: told(relay, "DNS"), 30, what="the log")
        assert len(relay.queue()) == 1
    else:
        assert f"Status: {code}" in world.notice()
        relay.wait_empty()
    assert [host.connects for host in hosts] == [[], []]


def test_our_own_name_is_not_gone_to(world, holdfast):
    host = world.host(2)
    world.say(far() + f"far MX 5 mx2.example.net.\nfar MX 1 first\nfirst A {NET}.3\n")
    first = world.host(3, start=False)
    relay = holdfast(RELAY, top=world.zone.setting)
    send_some(relay, 1)
    wait_for(lambda: lane(relay, "mx:far.example")["state"] == "stopped", 20, what="stopped")
    assert host.connects == []
    first.start()
    relay.tool("queue", "retry", "--all")
    all_arrive(relay, first, 3)


def test_an_address_in_place_of_a_name_is_no_exchanger(world, holdfast):
    host, other = world.host(2), world.host(3)
    world.say(far() + f"far MX 1 {NET}.3.\n")
    relay = holdfast(RELAY, top=world.zone.setting)
    send_some(relay, 1)
    all_arrive(relay, host, 3)
    assert other.connects == []


def test_an_exchanger_may_be_an_alias(world, holdfast):
    host = world.host(2)
    world.say(f"far MX 10 alias.far\nalias.far CNAME real.far\nreal.far A {NET}.2\n")
    relay = holdfast(RELAY, top=world.zone.setting)
    send_some(relay, 1)
    all_arrive(relay, host, 3)


def test_of_hundreds_of_exchangers_the_best_is_used(world, holdfast):
    host = world.host(2)
    world.say(far() + "".join(f"far MX {n} much.too.long.to.fit.into.one.datagram.{n}.far\n"
                              for n in range(11, 311)))
    relay = holdfast(RELAY, top=world.zone.setting)
    send_some(relay, 1)
    all_arrive(relay, host, 3)
    assert len(relay.status()["servers"]) <= 16


def test_anchors_come_from_a_file_too(world, holdfast, tmp_path):
    host = world.host(2)
    anchors = tmp_path / "anchors"
    anchors.write_text("; our own\n\nother. IN DS 1 13 2 " + 64 * "0" + "\n" + world.zone.anchor +
                       " ; the zone\n")
    world.say(far())
    top = world.zone.setting.splitlines()[0] + f'\ndns-trust-anchor = "file:{anchors}"\n'
    relay = holdfast(RELAY, top=top)
    send_some(relay, 1)
    all_arrive(relay, host, 3)
    world.say(far() + far().replace("far", "near"), strip="near")
    send(relay, "bob@near.example")
    wait_for(lambda: told(relay, "bogus"), 30, what="the log")
