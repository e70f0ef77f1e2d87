# SPDX-License-Identifier: Apache-2.0
"""The database has lost what it had confirmed: another server leads, which had not all of it. The
nodes that accepted the mail give it again, and who handed it over knows that."""

import re
import shutil
import time

from peers import wait_for
from test_cluster import _database, _hop, _member, wait_for_states  # noqa: F401 (fixtures)
from test_repeat import content_of


def count(database, table):
    return int(database.sql(f"SELECT count(*) FROM holdfast.{table}")[0])


def queued(daemon):
    return daemon.status()["queue"]["messages"]


def send(daemon, subject):
    daemon.send(["ann@example.com"], content=content_of(subject, 200))


def pair(member):
    """A gateway, and the node that hands over."""
    gate, n1 = member("gate", role="gateway"), member("n1")
    wait_for_states(n1, gate="up", n1="up")
    return gate, n1


def lost(daemon, what):
    """How many, as its log says."""
    return sum(int(found[1]) for found in
               re.finditer(rf"database-lost-mail .*\b{what}=(\d+)", daemon.log()))


def test_what_it_has_lost_comes_back(member, hop, database):
    gate, n1 = pair(member)
    send(gate, "zero")
    wait_for(lambda: count(database, "fates") == 1, 60, what="the first fate")
    before = database.root / "before"
    database.end()
    database.run("cp", "-a", database.data, before)
    database.start()
    wait_for_states(n1, gate="up", n1="up")
    send(gate, "one")
    wait_for(lambda: count(database, "fates") == 2, 60, what="its fate")
    hop.stop()
    send(gate, "two")
    wait_for(lambda: queued(n1) == 1, 60, what="it at its owner")
    database.end()
    shutil.rmtree(database.data)
    before.rename(database.data)
    database.start()
    assert count(database, "messages") == 1
    wait_for(lambda: count(database, "messages") == 3, 60, what="all messages")
    hop.start()
    wait_for(lambda: count(database, "fates") == 3, 60, what="all fates")
    send(gate, "three")
    wait_for(lambda: "three" in hop.subjects(), 60, what="the last")
    assert hop.subjects() == ["zero", "one", "two", "three"]
    assert (lost(gate, "messages"), lost(n1, "messages"), lost(n1, "fates")) == (2, 0, 1)
    assert "cannot be read" not in n1.log()


def test_what_is_not_there_yet_is_waited_for(member, hop, database):
    """Its owner has heard of it from a server that is no more."""
    gate, n1 = pair(member)
    hop.stop()
    send(gate, "one")
    wait_for(lambda: queued(n1) == 1, 60, what="it at its owner")
    database.sql("CREATE TABLE aside AS SELECT * FROM holdfast.messages;"
                 " DELETE FROM holdfast.messages")
    hop.start()
    wait_for(lambda: hop.sessions, 60, what="a connection")
    time.sleep(3)  # so it has asked
    assert not hop.messages
    database.sql("INSERT INTO holdfast.messages SELECT * FROM aside")
    wait_for(lambda: hop.subjects() == ["one"], 60, what="it")
    events = [event["event"] for event in n1.lines("trace", "ann@example.com")]
    assert "deferred" not in events, events
