# SPDX-License-Identifier: Apache-2.0
"""Several machines, one PostgreSQL: what one accepts another hands over; who dies is taken over."""

import pytest

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

    def make(name, role=None, more="", **options):
        roles = f"role = {{{role}}}" if role else ""
        return holdfast(f'cluster {{ database = "{database.conninfo}"  name = {name}  {roles} }}\n'
                        + more + routes, name=name, **options)
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
        return all((row["lanes"] >= least) == (name in names) for name, row in rows.items())
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
