# SPDX-License-Identifier: Apache-2.0
"""Several machines, one PostgreSQL: what one accepts another hands over; who dies is taken over."""

import glob
import html.parser
import json
import re
import signal
import threading
import time
import urllib.request

import pytest

from clock import Clock
from daemon import kill
from peers import wait_for
from postgres import Postgres, programs

DOMAINS = ("example.com", "example.net", "example.org", "a.example", "b.example", "c.example",
           "d.example", "e.example")


@pytest.fixture(name="database")
def _database(place):
    if programs() is None:
        pytest.skip("no PostgreSQL here")
    database = Postgres(place / "database").start()
    yield database
    database.end()


@pytest.fixture(name="hop")
def _hop(sink):
    return sink()


@pytest.fixture(name="member")
def _member(holdfast, database, hop):
    """A maker of members: member(name, roles=None)."""
    routes = f'server m1 {{ address = "127.0.0.1:{hop.port}"  tls = none }}\n' + \
        "".join(f"domain {domain} {{ deliver-to = m1 }}\n" for domain in DOMAINS)

    def make(name, role=None, more="", directory=None, **options):
        roles = f"role = {{{role}}}" if role else ""
        return holdfast(f'cluster {{ database = "{database.conninfo}"  name = {name}  {roles} }}\n'
                        + more + routes, name=directory or name, **options)
    return make


def nodes(daemon):
    return {row["name"]: row for row in daemon.lines("node", "list")}


def wait_for_states(daemon, **states):
    def so():
        return {name: row["state"] for name, row in nodes(daemon).items()} == states
    wait_for(so, 60, what=f"{states}")


def wait_for_lanes(daemon, *names, least=1):
    """Each of them owns some, and nobody else any."""
    def so():
        rows = nodes(daemon)
        return set(names) <= set(rows) and all((row["lanes"] >= least) == (name in names)
                                               for name, row in rows.items())
    wait_for(so, 60, what=f"lanes at {names}")


def recipients(hop):
    return sorted(address for message in hop.messages for address in message.recipients)


def test_one_member_accepts_and_hands_over(member, hop, database):
    n1 = member("n1")
    wait_for_states(n1, n1="up")
    for domain in DOMAINS:
        n1.send([f"ann@{domain}"])
    wait_for(lambda: len(hop.messages) == len(DOMAINS), 60, what="all")
    assert recipients(hop) == sorted(f"ann@{domain}" for domain in DOMAINS)
    assert database.sql("SELECT count(*) FROM holdfast.messages") == [str(len(DOMAINS))]
    wait_for(lambda: database.sql("SELECT count(*) FROM holdfast.fates") == [str(len(DOMAINS))],
             60, what="fates")


def test_a_gateway_accepts_and_nodes_hand_over(member, hop):
    gate = member("gate", role="gateway")
    n1, n2 = member("n1", role="node, hub"), member("n2", role="node, hub")
    wait_for_states(n1, gate="up", n1="up", n2="up")
    for domain in DOMAINS:
        gate.send([f"ann@{domain}"])
    wait_for(lambda: len(hop.messages) == len(DOMAINS), 60, what="all")
    assert recipients(hop) == sorted(f"ann@{domain}" for domain in DOMAINS)
    assert gate.status()["servers"][0]["used"] == 0
    used = [daemon.status()["servers"][0]["used"] for daemon in (n1, n2)]
    assert sum(used) == len(DOMAINS) and all(used), used


def test_what_is_fetched_and_what_is_here_go_out_together(member, hop):
    """One connection has both at once: neither may wait for the other."""
    n1, n2 = member("n1"), member("n2")
    wait_for_states(n1, n1="up", n2="up")
    hop.stop()
    count = 24
    content = b"Subject: large\r\n\r\n" + (b"x" * 70 + b"\r\n") * 10000  # fetching takes a while
    for i in range(count):
        (n1, n2)[i % 2].send([f"r{i}@example.com"], content=content)
    wait_for(lambda: n1.status()["queue"]["messages"] + n2.status()["queue"]["messages"] == count,
             60, what="all of it at its owner")
    hop.start()
    wait_for(lambda: len(hop.messages) >= count, 60, what="all")
    assert len(hop.messages) == count
    assert not any("late-message" in daemon.log() for daemon in (n1, n2))


def test_the_lanes_of_a_killed_node_move(member, hop):
    n1, n2 = member("n1"), member("n2")
    wait_for_states(n1, n1="up", n2="up")
    hop.stop()
    for domain in DOMAINS:
        n1.send([f"ann@{domain}"])
    wait_for(lambda: n1.status()["queue"]["messages"] + n2.status()["queue"]["messages"] ==
             len(DOMAINS), 60, what="parts at both")
    n2.kill()
    wait_for(lambda: n1.status()["queue"]["messages"] == len(DOMAINS), 60, what="taken over")
    hop.start()
    wait_for(lambda: len(hop.messages) == len(DOMAINS), 60, what="all")
    assert recipients(hop) == sorted(f"ann@{domain}" for domain in DOMAINS)


def test_who_is_killed_and_starts_again_is_the_same_node(member, database):
    """So it need not wait until nobody has heard of it, and one that was removed stays so."""
    n1 = member("n1")
    wait_for_states(n1, n1="up")
    instance = database.sql("SELECT instance FROM holdfast.nodes")
    n1.kill()
    n1.start()
    wait_for_states(n1, n1="up")
    assert database.sql("SELECT instance FROM holdfast.nodes") == instance


def test_mail_is_accepted_while_the_database_is_away(member, hop, database):
    n1 = member("n1")
    wait_for_states(n1, n1="up")
    n1.send(["before@example.com"])
    wait_for(lambda: len(hop.messages) == 1, 60, what="the first")
    database.end()
    for i in range(5):
        n1.send([f"away{i}@example.com"])
    assert n1.status()["cluster"]["one_copy"] == 5
    assert not n1.status()["cluster"]["database"]["up"]
    database.start()
    wait_for(lambda: len(hop.messages) == 6, 60, what="what was kept here")
    assert recipients(hop) == sorted(["before@example.com"] +
                                     [f"away{i}@example.com" for i in range(5)])
    wait_for(lambda: n1.status()["cluster"]["one_copy"] == 0, 60, what="forwarded")


def test_mail_of_two_nodes_keeps_its_order_over_an_outage(member, hop, database):
    """Each has its part of it in its own journal, and brings it when it is back by itself."""
    n1, n2 = member("n1"), member("n2")
    wait_for_states(n1, n1="up", n2="up")

    def send(numbers):
        for number in numbers:
            time.sleep(0.02)  # closer together the mail of two nodes has no order
            (n1, n2)[number % 2].send([f"{name}@{domain}" for name in ("ann", "bob")
                                       for domain in DOMAINS],
                                      content=f"Subject: {number}\r\n\r\n".encode())
    send(range(4))
    wait_for_lanes(n1, "n1", "n2")
    database.end()
    send(range(4, 24))
    assert n1.status()["cluster"]["one_copy"] + n2.status()["cluster"]["one_copy"] >= 20
    database.start()
    send(range(24, 40))
    wait_for(lambda: len(recipients(hop)) >= 40 * 2 * len(DOMAINS), 120, what="all")
    seen = {}
    for message in hop.messages:
        number = int(re.search(rb"(?m)^Subject: (\d+)", message.content)[1])
        for address in message.recipients:
            seen.setdefault(address, []).append(number)
    wrong = {address: numbers for address, numbers in seen.items() if numbers != [*range(40)]}
    assert not wrong, str(wrong)


def test_what_is_done_by_hand_at_one_holds_at_all(member):
    n1, n2 = member("n1"), member("n2")
    wait_for_states(n1, n1="up", n2="up")
    n1.tool("server", "down", "m1")
    wait_for(lambda: n2.server_state("m1") == "disabled", 90, what="out of service at n2")
    n2.tool("server", "up", "m1")
    wait_for(lambda: n1.server_state("m1") != "disabled", 90, what="back at n1")


def test_a_node_is_drained_under_traffic(member, hop):
    """It goes on accepting while what it owns goes to the other."""
    n1, n2 = member("n1"), member("n2")
    wait_for_states(n1, n1="up", n2="up")
    for domain in DOMAINS:
        n1.send([f"first@{domain}"])
    wait_for(lambda: len(hop.messages) == len(DOMAINS), 60, what="the first")
    n1.tool("node", "drain", "n2")
    sent = 0

    def drained():
        nonlocal sent
        n2.send([f"r{sent}@{DOMAINS[sent % len(DOMAINS)]}"])
        sent += 1
        return nodes(n1)["n2"]["lanes"] == 0
    wait_for(drained, 60, what="nothing owned by n2")
    assert nodes(n1)["n2"]["state"] == "draining"
    wait_for(lambda: len(hop.messages) == len(DOMAINS) + sent, 60, what="all of it")
    n2.stop()
    wait_for(lambda: n1.tool("node", "remove", "n2", check=False).returncode == 0, 60,
             what="n2 removed")
    wait_for(lambda: list(nodes(n1)) == ["n1"], 60, what="n1 alone")
    # It is started all the same, and says what has become of it and what to do.
    n2.start()
    wait_for(lambda: "node n2 was removed from the cluster; holdfast node undrain n2 lets it in again"
             in n2.tool("node", "list", check=False).stderr, 60, what="n2's word")
    n2.tool("node", "undrain", "n2")
    wait_for_states(n1, n1="up", n2="up")


def test_who_dies_as_leader_is_told_of(member):
    n1, n2 = member("n1"), member("n2")
    wait_for_states(n1, n1="up", n2="up")
    leader, other = (n1, n2) if nodes(n1)["n1"]["leader"] else (n2, n1)
    name = "n1" if leader is n1 else "n2"
    leader.kill()
    wait_for(lambda: ("node", name) in {(alert["kind"], alert["subject"])
                                        for alert in other.status()["alerts"]}, 60,
             what="an alert")
    leader.start()
    wait_for(lambda: not [alert for alert in other.status()["alerts"] if alert["kind"] == "node"],
             60, what="its end")


def test_what_any_member_handed_over_goes_again_from_any(member, hop, database):
    kept = "safety-copy = 2d\n"
    n1, n2 = member("n1", top=kept), member("n2", top=kept)
    wait_for_states(n1, n1="up", n2="up")
    for domain in DOMAINS:
        for node, who in ((n1, "ann"), (n2, "eve")):
            node.send([f"{who}@{domain}"])
    wait_for(lambda: len(hop.messages) == 2 * len(DOMAINS), 60, what="all")
    for node in (n1, n2):
        node.wait_empty()
    before, hop.messages[:] = list(hop.messages), []
    wait_for(lambda: database.sql("SELECT count(*) FROM holdfast.fates") == [str(len(before))], 60,
             what="fates")
    window = ["--since", "1h", "--until", f"@{int(time.time()) + 1}"]
    time.sleep(1.1)  # so that the copies are handed over outside of it
    rows = n2.lines("queue", "resend", *window)
    assert len(rows) == len(before) and all(row["done"] for row in rows)
    wait_for(lambda: len(hop.messages) == len(before), 60, what="all again")
    assert sorted(m.content for m in hop.messages) == sorted(m.content for m in before)
    for node in (n1, n2):
        again = node.tool("queue", "resend", *window, check=False)
        assert again.returncode == 1 and "sent again before" in again.stderr


class Tables(html.parser.HTMLParser):
    """A page's tables: {caption above it: [[cell, ...], ...]}."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.title, self.place = {}, "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "h2":
            self.title, self.place = "", "title"
        elif tag == "tr":
            self.tables.setdefault(self.title, []).append([])
        elif tag in ("td", "th"):
            self.tables[self.title][-1].append("")
            self.place = "cell"

    def handle_endtag(self, tag):
        self.place = None if tag in ("h2", "td", "th") else self.place

    def handle_data(self, data):
        if self.place == "title":
            self.title += data
        elif self.place == "cell":
            self.tables[self.title][-1][-1] += data


def test_each_hub_shows_all_members(member, hop):
    n1, n2 = member("n1"), member("n2")
    wait_for_states(n1, n1="up", n2="up")
    wait_for_states(n2, n1="up", n2="up")
    hop.stop()
    for domain in DOMAINS:
        n1.send([f"ann@{domain}"])

    def page(daemon, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{daemon.http_port}{path}") as answer:
            return answer.read().decode()

    def members(daemon):
        header, *rows = Tables(page(daemon, "/")).tables["Members"]
        return {row[0].split()[0]: dict(zip(header, row)) for row in rows}

    def lanes(daemon):
        return [row[0] for row in Tables(page(daemon, "/")).tables[
            "Lanes of this node that hold mail"][1:]]
    wait_for(lambda: sorted(lanes(n1) + lanes(n2)) == sorted(f"domain:{name}" for name in DOMAINS),
             60, what="each lane on its owner's page")
    for daemon in (n1, n2):
        wait_for(lambda: sum(int(row["Waiting"]) for row in members(daemon).values()) ==
                 len(DOMAINS), 60, what="all that waits")
        assert {name: row["State"] for name, row in members(daemon).items()} == \
            {"n1": "up", "n2": "up"}
        shown = json.loads(page(daemon, "/api/status"))
        assert {row["name"] for row in shown["nodes"]} == {"n1", "n2"}
        assert shown["cluster"]["queue"]["messages"] == len(DOMAINS)
    n2.kill()
    wait_for(lambda: members(n1)["n2"]["State"] == "down", 60, what="n2 down on the page")
    metrics = page(n1, "/metrics")
    assert 'holdfast_node_state{node="n2",state="down"} 1' in metrics
    assert "holdfast_database_up 1" in metrics


class SlowDot:
    """A hop's rule: the reply to a dot waits until it may come."""

    def __init__(self):
        self.asked, self.may_come = threading.Event(), threading.Event()
        self.dots = 0

    def __call__(self, stage, session, argument):
        if stage == "dot":
            self.dots += 1
            self.asked.set()
            self.may_come.wait(240)


IMPATIENT = "domain impatient.example { deliver-to = m1  retry = {1s} }\n"


def kill_core(daemon):
    """Waits for the next one: that nothing is asked of the old one."""
    old = daemon.processes()["holdfast-core"][0]
    kill(old)
    wait_for(lambda: daemon.processes().get("holdfast-core", [old]) != [old], 60,
             what="core again")


def send_named(daemon, name, to="ann@impatient.example"):
    daemon.send([to], content=f"Subject: {name}\r\n\r\nHello.\r\n".encode())


def test_what_was_taken_while_core_was_away_is_not_sent_again(member, hop, database):
    """edge-out lives on, and its result is there before core has its shares again."""
    slow = hop.rule = SlowDot()
    n1 = member("n1", more=IMPATIENT)
    wait_for_states(n1, n1="up")
    send_named(n1, "first")
    assert slow.asked.wait(60)
    kill(n1.processes()["holdfast-core"][0])
    slow.may_come.set()
    wait_for(lambda: hop.messages, 60, what="the first at the hop")
    wait_for(lambda: n1.tool("status", check=False).returncode == 0, 60, what="status again")
    send_named(n1, "second")
    wait_for(lambda: "second" in hop.subjects(), 60, what="the second")
    n1.wait_empty()
    assert hop.subjects() == ["first", "second"]
    wait_for(lambda: database.sql("SELECT count(*) FROM holdfast.fates") == ["2"], 60,
             what="fates")


def test_no_dot_follows_one_that_the_database_has_not_heard_of(member, hop, database):
    """Else two of one connection would go again if the node died now."""
    slow = hop.rule = SlowDot()
    n1 = member("n1", more='server m2 { address = "127.0.0.1:%d"  tls = none  connections = 1 }\n'
                "domain alone.example { deliver-to = m2 }\n" % hop.port)
    wait_for_states(n1, n1="up")
    send_named(n1, "before", "ann@alone.example")
    slow.may_come.set()
    wait_for(lambda: hop.subjects() == ["before"], 60, what="the server is up")
    slow.may_come.clear()
    send_named(n1, "first", "bob@alone.example")
    wait_for(lambda: slow.dots == 2, 60, what="the first dot")
    send_named(n1, "second", "cat@alone.example")
    notes = "SELECT count(DISTINCT id) FROM holdfast.notes JOIN holdfast.parts USING (id)"
    wait_for(lambda: database.sql(notes) == ["3"], 60, what="the second, behind that dot")
    database.end(signal.SIGQUIT)
    slow.may_come.set()
    wait_for(lambda: "first" in hop.subjects(), 60, what="the first")
    wait_for(lambda: any(alert["kind"] == "lapsed" for alert in n1.status()["alerts"]), 60,
             what="the end of the lease")
    assert hop.subjects() == ["before", "first"]
    database.start()
    n1.wait_empty()
    assert hop.subjects() == ["before", "first", "second"]


def test_a_dot_that_is_out_when_core_dies_is_waited_for(member, hop):
    """The next core knows whose it is when it has its shares again: nothing overtakes it, and it is
    not sent once more."""
    slow = hop.rule = SlowDot()
    n1 = member("n1", more=IMPATIENT)
    wait_for_states(n1, n1="up")
    send_named(n1, "first")
    assert slow.asked.wait(60)
    kill_core(n1)
    wait_for(lambda: n1.tool("status", check=False).returncode == 0, 60, what="status again")
    send_named(n1, "second")
    wait_for(lambda: n1.status()["queue"]["messages"] == 2, 60, what="both in the queue again")
    time.sleep(5)  # more than the schedule of those in doubt: nothing may happen
    assert slow.dots == 1
    slow.may_come.set()
    wait_for(lambda: len(hop.messages) >= 2, 60, what="both")
    n1.wait_empty()
    assert hop.subjects() == ["first", "second"]


def shifted(clock):
    """The environment of a daemon whose wall clock is off by that."""
    libraries = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    assert libraries, "libfaketime is not installed"
    return {"LD_PRELOAD": libraries[0], "FAKETIME": clock, "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1"}


HURRIED = [f"hurried{i}.example" for i in range(8)]


def is_about_now(time_ms):
    return abs(time_ms / 1000 - time.time()) < 600


@pytest.mark.parametrize("clock", ["+5h", "-5h", "+40d", "-40d"])
def test_a_node_whose_clock_is_off_goes_by_the_database_s(member, hop, database, clock):
    """Nothing of its own or of others ends by it, is late by it, or is told with its time."""
    short = "".join(f"domain {domain} {{ deliver-to = m1  keep = 30m  keep-max = 1h }}\n"
                    for domain in HURRIED)
    n1, n2 = member("n1", more=short, start=False), member("n2", more=short)
    n1.environment = shifted(clock)
    n1.start()
    wait_for_states(n2, n1="up", n2="up")
    hop.stop()
    for i in range(3):
        for domain in HURRIED:
            (n1, n2)[i % 2].send([f"ann@{domain}"],
                                 content=f"Subject: {i} {domain}\r\n\r\nHello.\r\n".encode())
    count = 3 * len(HURRIED)

    def queued():
        return sum(daemon.status()["queue"]["messages"] for daemon in (n1, n2))
    wait_for(lambda: queued() == count, 60, what="all of it at its owner")
    wait_for_lanes(n1, "n1", "n2")
    rows = n1.queue()
    assert rows and all(is_about_now(row["received"]) for row in rows)
    assert n1.status()["queue"]["oldest_seconds"] < 600
    events = n1.lines("trace", rows[0]["id"])
    assert events and all(is_about_now(event["time"]) for event in events)
    time.sleep(10)  # some rounds of what looks for mail that is too old
    assert queued() == count and n1.status()["dead_letters"] == 0
    n1.stop()
    database.end()
    n1.start()  # it has not heard the database in this life
    n1.send([f"eve@{HURRIED[0]}"], content=b"Subject: of an outage\r\n\r\nHello.\r\n")
    events = n1.lines("trace", "--local", f"eve@{HURRIED[0]}")  # nobody else can be asked
    assert events and all(is_about_now(event["time"]) for event in events)
    database.start()
    wait_for_states(n2, n1="up", n2="up")
    wait_for(lambda: queued() == count + 1, 60, what="all of it at its owner again")
    time.sleep(5)
    hop.start()
    wait_for(lambda: len(hop.messages) >= count + 1, 60, what="all of it")
    for domain in HURRIED:
        got = [subject for subject in hop.subjects() if subject.endswith(f" {domain}")]
        assert got == [f"{i} {domain}" for i in range(3)]
    assert hop.subjects().count("of an outage") == 1
    assert queued() == 0 and n1.status()["dead_letters"] == n2.status()["dead_letters"] == 0


@pytest.mark.parametrize("hours", [5, -48])
def test_a_clock_that_is_set_while_its_node_works(member, hop, place, hours):
    """No message is accepted by it, neither before core knows of it nor by the next core."""
    short = "".join(f"domain {domain} {{ deliver-to = m1  keep = 30m  keep-max = 1h }}\n"
                    for domain in HURRIED)
    clock = Clock(place / "clock")
    n1, n2 = member("n1", more=short, start=False), member("n2", more=short)
    n1.environment = clock.environment()
    n1.start()
    wait_for_states(n2, n1="up", n2="up")
    time.sleep(3)  # heartbeats: what the database's clock is, and a file of it
    hop.stop()

    def send(daemon, number):
        for domain in HURRIED:
            daemon.send([f"ann@{domain}"],
                        content=f"Subject: {number} {domain}\r\n\r\nHello.\r\n".encode())
    send(n1, 0)
    clock.jump(hours * 3600)
    send(n1, 1)
    send(n2, 2)
    kill(n1.processes()["holdfast-core"][0])
    wait_for(lambda: n1.tool("status", check=False).returncode == 0, 60, what="core again")
    send(n1, 3)
    send(n2, 4)
    count = 5 * len(HURRIED)
    wait_for(lambda: sum(daemon.status()["queue"]["messages"] for daemon in (n1, n2)) == count,
             60, what="all of it at its owner")
    rows = n2.queue()
    assert len(rows) == count and all(is_about_now(row["received"]) for row in rows)
    hop.start()
    wait_for(lambda: len(hop.messages) >= count, 60, what="all of it")
    for domain in HURRIED:
        got = [subject for subject in hop.subjects() if subject.endswith(f" {domain}")]
        assert got == [f"{i} {domain}" for i in range(5)]
    assert n1.status()["dead_letters"] == n2.status()["dead_letters"] == 0


def test_two_nodes_with_one_name(member, hop, database):
    """The second does not join, says who has the name, and keeps what it accepts until it has one."""
    n1 = member("n1")
    wait_for_states(n1, n1="up")
    twin = member("n1", directory="twin")

    def told():
        return [alert["text"] for alert in twin.status()["alerts"] if alert["kind"] == "cluster"]
    wait_for(told, 60, what="an alert at the second")
    core = n1.processes()["holdfast-core"][0]
    year = time.strftime("%Y", time.gmtime())
    assert re.search(rf"another node of the name n1 is alive at mx2\.example\.net, pid {core}, "
                     rf"since \w+, \d+ \w+ {year} ", told()[0])
    assert f"pid {core}, since " in twin.log()
    for domain in DOMAINS:
        n1.send([f"ann@{domain}"])
        twin.send([f"eve@{domain}"])
    wait_for(lambda: len(hop.messages) == len(DOMAINS), 60, what="what the first accepted")
    status = twin.status()["cluster"]
    assert status["number"] == 0 and status["one_copy"] == len(DOMAINS)
    assert nodes(n1).keys() == {"n1"} and nodes(n1)["n1"]["state"] == "up"
    assert f"pid {core}" in nodes(n1)["n1"]["place"]
    wait_for_lanes(n1, "n1")
    assert recipients(hop) == sorted(f"ann@{domain}" for domain in DOMAINS)
    twin.stop()
    twin.conf.write_text(twin.conf.read_text().replace("name = n1 ", "name = n2 "))
    twin.start()
    wait_for_states(n1, n1="up", n2="up")
    wait_for(lambda: len(hop.messages) >= 2 * len(DOMAINS), 60, what="what the second kept")
    n1.wait_empty()
    twin.wait_empty()
    assert recipients(hop) == sorted(f"{who}@{domain}" for who in ("ann", "eve")
                                     for domain in DOMAINS)
    wait_for(lambda: database.sql("SELECT count(*) FROM holdfast.fates") ==
             [str(2 * len(DOMAINS))], 60, what="fates")
    assert not told()


HOUR = 3600  # seconds


def test_a_node_that_comes_back_after_an_hour_brings_what_it_accepted(member, hop, database, place):
    """Its lease ended long ago: others went on. What it has is as old as it is, and not too old."""
    clock = Clock(place / "clock", -HOUR)
    database.end()
    database.environment = clock.environment()
    database.start()
    kept = "".join(f"domain {domain} {{ deliver-to = m1  keep = 2h  keep-max = 3h }}\n"
                   for domain in HURRIED)
    n1, n2 = [member(name, more=kept, start=False) for name in ("n1", "n2")]
    for node in (n1, n2):
        node.environment = clock.environment()
        node.start()
    wait_for_states(n1, n1="up", n2="up")
    people = [f"{who}@{domain}" for who in ("ann", "bob") for domain in (*DOMAINS[:4], *HURRIED)]
    count = 960

    def send(numbers):
        with n2.dialogue() as dialogue:
            for number in numbers:
                dialogue.send("bob@client.example", [people[number % len(people)]],
                              f"Subject: {number}\r\n\r\nHello.\r\n".encode())
    send(range(len(people)))
    wait_for(lambda: len(hop.messages) == len(people), 60, what="the first")
    wait_for_lanes(n1, "n1", "n2")
    n1.wait_empty()
    n2.wait_empty()
    database.end()
    send(range(len(people), count))
    away = count - len(people)
    wait_for(lambda: n2.status()["cluster"]["one_copy"] == away, 60, what="all of it at n2 alone")
    n2.stop()
    n1.stop()

    clock.jump(0)  # an hour later
    database.start()
    n1.start()
    wait_for_states(n1, n1="up", n2="down")
    wait_for_lanes(n1, "n1")
    n1.send([f"eve@{DOMAINS[0]}"], content=b"Subject: meanwhile\r\n\r\nHello.\r\n")
    wait_for(lambda: "meanwhile" in hop.subjects(), 60, what="mail of those who went on")
    hop.stop()
    n2.start()
    wait_for_states(n1, n1="up", n2="up")
    wait_for(lambda: n1.status()["queue"]["messages"] + n2.status()["queue"]["messages"] == away,
             60, what="all of it at its owners")
    assert n2.status()["cluster"]["one_copy"] == 0
    rows = wait_for(lambda: (found := n1.queue()) and len(found) == away and found, 60,
                    what="both in time for an answer")
    for row in rows:
        assert abs(row["received"] / 1000 + HOUR - time.time()) < 600, row
    events = n2.lines("trace", rows[0]["id"])
    assert abs(min(event["time"] for event in events) / 1000 + HOUR - time.time()) < 600, events
    time.sleep(5)  # some rounds of what looks for mail that is too old
    hop.start()
    wait_for(lambda: len(hop.messages) >= count + 1, 120, what="all of it")
    n1.wait_empty()
    n2.wait_empty()
    seen = {}
    for message in hop.messages:
        if (subject := re.search(rb"(?m)^Subject: (\d+)", message.content)) is not None:
            seen.setdefault(message.recipients[0], []).append(int(subject[1]))
    assert seen == {who: [*range(first, count, len(people))] for first, who in enumerate(people)}
    assert len(hop.messages) == count + 1
    assert n1.status()["dead_letters"] == n2.status()["dead_letters"] == 0
    assert all(row["state"] == "up" for row in nodes(n2).values())
