# SPDX-License-Identifier: Apache-2.0
"""MX routing: the daemon asks a name server of ours and talks to exchangers on port 25 of loopback
addresses of their own."""

import os
import socket
import time

import pytest

from certificates import Authority
from names import NameServer
from peers import wait_for

NET = f"127.78.{os.getpid() % 250}"  # addresses of this run alone


def why_no_port_25():
    try:
        with socket.socket() as probe:
            probe.bind((f"{NET}.1", 25))
    except OSError as error:
        return f"port 25 cannot be bound: {error}"
    return None


pytestmark = pytest.mark.skipif(why_no_port_25() is not None, reason=str(why_no_port_25()))

RELAY = 'relay out { from = 127.0.0.0/8 deliver-to = mx deliver-only-to = 127.0.0.0/8 }\n'


def number(n):
    return f"Subject: {n}\r\n\r\n".encode()


class World:
    """Exchangers h1, h2, ... by number, and the senders' own, which gets notices."""

    def __init__(self, sink, names):
        self.sink, self.names = sink, names
        self.home = self.host(1, "home.example")
        names.zone["sender.example"] = {"MX": [(10, "home.example")]}

    def address(self, n):
        return f"{NET}.{n}"

    def host(self, n, name=None, start=True, rule=None):
        name = name or f"h{n}.example"
        self.names.zone[name] = {"A": [self.address(n)]}
        return self.sink(rule, port=25, address=self.address(n), start=start)

    def mx(self, domain, *records):
        self.names.zone[domain] = {"MX": list(records)}

    def notice(self):
        wait_for(lambda: self.home.messages, 20, what="a notice")
        return self.home.messages[-1].content.decode()


@pytest.fixture
def names():
    server = NameServer({})
    yield server
    server.stop()


@pytest.fixture
def world(sink, names):
    return World(sink, names)


@pytest.fixture
def relay(holdfast, world):
    return holdfast(RELAY, top=world.names.setting)


def send(daemon, recipient, n=1):
    daemon.send(recipients=(recipient,), sender="ann@sender.example", content=number(n))


def lane(daemon, route):
    return next((one for one in daemon.status()["lanes"] if one["route"] == route), None)


def state(daemon, host):
    """Of an exchanger, or None before DNS has named it."""
    return next((one["state"] for one in daemon.status()["servers"] if one["name"] == host), None)


def test_the_best_exchanger_that_works(world, relay):
    best, next_best = world.host(2), world.host(3)
    world.mx("far.example", (20, "h3.example"), (10, "h2.example"))
    send(relay, "bob@far.example", 1)
    wait_for(lambda: best.subjects() == ["1"], 20, what="the best one")
    best.stop()
    send(relay, "bob@far.example", 2)
    wait_for(lambda: next_best.subjects() == ["2"], 20, what="the next one")
    assert state(relay, "h2.example") in ("suspect", "down")
    relay.wait_empty()
    assert relay.status()["alerts"] == []


def test_what_is_demanded_of_all_exchangers(world, holdfast, place):
    """By the block for them: here, that nothing goes in the clear."""
    relay = holdfast(RELAY + "server mx { tls = encrypt }\n", top=world.names.setting)
    best, next_best = world.host(2), world.host(3)
    next_best.tls = Authority(place).certificate("other.example.net").context()
    world.mx("far.example", (10, "h2.example"), (20, "h3.example"))
    send(relay, "bob@far.example")
    relay.wait_empty()
    assert next_best.subjects() == ["1"] and best.subjects() == []
    attempts = [row for row in relay.lines("trace", "bob@far.example") if row["event"] == "attempt"]
    assert attempts[-1]["tls"].startswith("encrypt: TLSv1.3 ")


@pytest.mark.sanitized
def test_equals_share_the_load(world, relay):
    hosts = [world.host(2), world.host(3)]
    for n in range(24):
        world.mx(f"d{n}.example", (10, "h2.example"), (10, "h3.example"))
        send(relay, f"bob@d{n}.example", n)
    relay.wait_empty()
    assert sum(len(host.messages) for host in hosts) == 24
    assert all(host.messages for host in hosts)


@pytest.mark.parametrize("records, code", [
    ([(0, ".")], "5.1.10"),
    (None, "5.1.2"),
    ([(10, "mx2.example.net")], "5.4.6"),
    ([(10, "lying.example")], "5.4.4"),
    ([(10, "empty.example")], "5.4.4"),
])
def test_what_dns_rules_out_is_returned(world, relay, records, code):
    world.names.zone["mx2.example.net"] = {"A": ["192.0.2.1"]}
    world.names.zone["lying.example"] = {"A": ["10.0.0.1"]}
    world.names.zone["empty.example"] = {"TXT": ["no address"]}
    if records is not None:
        world.mx("gone.example", *records)
    send(relay, "bob@gone.example")
    notice = world.notice()
    assert f"Status: {code}" in notice and "bob@gone.example" in notice
    relay.wait_empty()


def test_a_name_without_mx_is_its_own_exchanger(world, relay):
    host = world.host(2, "plain.example")
    world.names.zone["alias.example"] = {"CNAME": ["plain.example"]}
    send(relay, "bob@plain.example", 1)
    send(relay, "bob@alias.example", 2)
    wait_for(lambda: sorted(host.subjects()) == ["1", "2"], 20, what="both")
    assert sorted(host.recipients()) == ["bob@alias.example", "bob@plain.example"]


def test_an_alias_has_its_targets_exchangers(world, relay):
    host = world.host(2)
    world.mx("real.example", (10, "h2.example"))
    world.names.zone["alias.example"] = {"CNAME": ["real.example"]}
    send(relay, "bob@alias.example")
    wait_for(lambda: host.recipients() == ["bob@alias.example"], 20, what="the mail")


@pytest.mark.parametrize("trouble", ["servfail", "silent"])
def test_without_an_answer_mail_waits(world, relay, trouble):
    host = world.host(2)
    world.mx("far.example", (10, "h2.example"))
    world.names.broken["far.example"] = trouble
    send(relay, "bob@far.example")
    wait_for(lambda: world.names.asked > 0, 20, what="the question")
    time.sleep(1)
    assert len(relay.queue()) == 1 and relay.status()["dead_letters"] == 0
    assert lane(relay, "mx:far.example")["deliveries"] == 1
    del world.names.broken["far.example"]
    wait_for(lambda: host.subjects() == ["1"], 60, what="the mail")
    assert world.home.messages == []


def test_never_to_one_that_is_no_better_than_we(world, relay):
    primary, other = world.host(2, start=False), world.host(3)
    world.names.zone["mx2.example.net"] = {"A": ["192.0.2.1"]}
    world.mx("ours.example", (10, "h2.example"), (20, "mx2.example.net"), (20, "h3.example"),
             (30, "h3.example"))
    send(relay, "bob@ours.example")
    wait_for(lambda: lane(relay, "mx:ours.example")["state"] == "stopped", 20, what="the lane stopped")
    assert other.connects == []
    primary.start()
    relay.tool("queue", "retry", "--all")
    wait_for(lambda: primary.subjects() == ["1"], 20, what="the primary")


def test_an_answer_is_used_no_longer_than_it_holds(world, relay):
    old, new = world.host(2), world.host(3)
    world.mx("far.example", (10, "h2.example"))
    send(relay, "bob@far.example", 1)
    wait_for(lambda: old.subjects() == ["1"], 20, what="the first")
    world.mx("far.example", (10, "h3.example"))
    send(relay, "bob@far.example", 2)
    wait_for(lambda: old.subjects() == ["1", "2"], 20, what="the second, by what is known")
    time.sleep(31)
    send(relay, "bob@far.example", 3)
    wait_for(lambda: new.subjects() == ["3"], 20, what="the third, by what is new")


def test_a_domain_follows_its_exchangers(world, holdfast):
    primary = world.host(2, start=False)
    world.names.zone["mx2.example.net"] = {"A": ["192.0.2.1"]}
    world.mx("example.com", (10, "h2.example"), (20, "mx2.example.net"))
    mx = holdfast("domain example.com { deliver-to = mx deliver-only-to = 127.0.0.0/8 }\n",
                  top=world.names.setting)
    wait_for(lambda: state(mx, "h2.example") == "down", 20, what="the primary down")
    mx.send(content=number(1))
    mx.send(content=number(2))
    wait_for(lambda: lane(mx, "domain:example.com")["state"] == "stopped", 20, what="stopped")
    wait_for(lambda: {alert["kind"] for alert in mx.status()["alerts"]} == {"server", "stopped"}, 5,
             what="alerts")
    world.names.mode = "nxdomain"
    mx.reload()
    assert mx.status()["dead_letters"] == 0
    primary.start()
    wait_for(lambda: primary.subjects() == ["1", "2"], 10, what="the mail, by what was known")
    mx.wait_empty()
    wait_for(lambda: mx.status()["alerts"] == [], 5, what="no alerts")


def test_a_domains_exchangers_outlast_a_restart_without_dns(world, holdfast):
    primary = world.host(2)
    world.mx("example.com", (10, "h2.example"))
    mx = holdfast("domain example.com { deliver-to = mx deliver-only-to = 127.0.0.0/8 }\n",
                  top=world.names.setting)
    wait_for(lambda: state(mx, "h2.example") == "up", 20, what="the primary up")
    primary.stop()
    mx.send(content=number(1))
    wait_for(lambda: state(mx, "h2.example") == "down", 20, what="the primary down")
    world.names.mode = "silent"
    mx.stop()
    mx.start()
    wait_for(lambda: state(mx, "h2.example") in ("suspect", "down"), 10, what="the journal")
    primary.start()
    wait_for(lambda: primary.subjects() == ["1"], 10, what="the mail, by what was known")
    mx.wait_empty()


def test_a_domains_exchanger_is_taken_out_by_hand(world, holdfast):
    primary = world.host(2)
    world.mx("example.com", (10, "h2.example"))
    mx = holdfast("domain example.com { deliver-to = mx deliver-only-to = 127.0.0.0/8 }\n",
                  top=world.names.setting)
    wait_for(lambda: state(mx, "h2.example") == "up", 20, what="the primary up")
    mx.tool("server", "down", "h2.example")
    mx.send(content=number(1))
    mx.stop()
    mx.start()
    wait_for(lambda: state(mx, "h2.example") == "disabled", 10, what="what the journal says")
    rows = mx.lines("server", "list", "--json")
    assert [row["deliveries"] for row in rows] == [1]
    mx.tool("server", "up", "h2.example")
    wait_for(lambda: primary.subjects() == ["1"], 10, what="the mail")


def test_mail_is_chosen_by_the_name_of_an_exchanger(world, holdfast):
    """As by that of a configured server: of two domains, those that it is to take."""
    def later(stage, *_):
        return "450 4.2.1 Later" if stage == "RCPT" else None
    hosts = {"one.example": world.host(2, rule=later), "two.example": world.host(3, rule=later)}
    world.mx("one.example", (10, "h2.example"))
    world.mx("two.example", (10, "h3.example"))
    mx = holdfast("".join(f"domain {name} {{ deliver-to = mx retry = {{60m}} "
                          "deliver-only-to = 127.0.0.0/8 }\n" for name in hosts),
                  top=world.names.setting)
    wait_for(lambda: all(state(mx, f"h{n}.example") == "up" for n in (2, 3)), 30, what="both up")
    for name in hosts:
        mx.send(recipients=[f"bob@{name}"], content=number(1))
    wait_for(lambda: [row["attempts"] for row in mx.queue()] == [1, 1], 30, what="deferrals")
    assert [row["recipients"] for row in mx.lines("queue", "list", "--server", "h3.example")] \
        == [["bob@two.example"]]
    for host in hosts.values():
        host.rule = lambda *_: None
    mx.tool("queue", "retry", "--server", "h2.example")
    wait_for(lambda: hosts["one.example"].subjects() == ["1"], 30, what="the mail")
    assert hosts["two.example"].messages == [] and len(mx.queue()) == 1
    assert mx.tool("queue", "list", "--server", "h4.example", check=False).returncode == 1


def test_a_server_before_the_exchangers(world, holdfast, sink):
    m1, far = sink(), world.host(2)
    world.mx("far.example", (10, "h2.example"))
    mx = holdfast(f'server m1 {{ address = "127.0.0.1:{m1.port}" }}\n' +
                  RELAY.replace("= mx", "= {m1, mx}"), top=world.names.setting)
    wait_for(lambda: mx.server_state("m1") == "up", 20, what="m1 up")
    asked = world.names.asked
    send(mx, "bob@far.example", 1)
    wait_for(lambda: m1.subjects() == ["1"], 20, what="m1")
    assert world.names.asked == asked
    m1.stop()
    send(mx, "bob@far.example", 2)
    wait_for(lambda: "2" in far.subjects(), 20, what="the exchanger")


def test_exchangers_are_forgotten(world, relay):
    world.host(2)
    world.mx("far.example", (10, "h2.example"))
    send(relay, "bob@far.example")
    relay.wait_empty()
    assert [one["name"] for one in relay.status()["servers"]] == ["h2.example"]
    rows = relay.lines("server", "list", "--json")
    assert rows[0]["addresses"] == [f"{world.address(2)}:25"]
    denied = relay.tool("server", "down", "h2.example", check=False)
    assert denied.returncode == 1 and "no configuration" in denied.stderr
