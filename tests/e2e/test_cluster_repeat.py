# SPDX-License-Identifier: Apache-2.0
"""A node's core dies while a client waits at the dot, and its mail is in the database, or in the
node's journal alone: the client hears 250, and one message comes out, whoever hands it over."""

import os
import pathlib
import signal

import pytest

from daemon import kill
from faults import Injected
from peers import wait_for
from test_cluster import _database, _hop, _member, wait_for_states  # noqa: F401 (fixtures)
from test_repeat import Sender, at_work, content_of, edge_in_of, is_in_journal

IN_PIECES = 70_000  # octets: no more, for all of a group must go into the socket to the database


def committer_of(core):
    """The thread that writes to the database."""
    for thread in pathlib.Path(f"/proc/{core}/task").iterdir():
        if (thread / "comm").read_text().strip() == "spool-pg":
            return int(thread.name)
    raise AssertionError("core has no such thread")


def has(database, count):
    return database.sql("SELECT count(*) FROM holdfast.messages") == [str(count)]


def all_is_told(database, count):
    return database.sql("SELECT count(*) FROM holdfast.fates") == [str(count)]


def comes_once(mx, hop, database):
    """Of three: the one in the middle was repeated."""
    mx.send(["ann@example.com"], content=content_of("two", 200))
    wait_for(lambda: "two" in hop.subjects(), 60, what="the last")
    wait_for(lambda: all_is_told(database, 3), 60, what="all fates")
    assert hop.subjects() == ["zero", "one", "two"]
    assert has(database, 3)


@pytest.mark.parametrize("role", [None, "gateway"], ids=["by-itself", "by-another"])
@pytest.mark.parametrize("size", [200, IN_PIECES], ids=["small", "in-pieces"])
def test_what_the_database_has(member, hop, database, role, size):
    """It is handed over, by this node or another, before edge-in can ask."""
    mx = member("gate", role=role)
    others = {} if role is None else {"n1": member("n1")}
    wait_for_states(mx, gate="up", **{name: "up" for name in others})
    core, edge = at_work(mx), edge_in_of(mx)
    wait_for(lambda: all_is_told(database, 1), 60, what="the first fate")
    try:
        with Injected(core, "recvfrom", "delay_enter=1000s", thread=committer_of(core)):
            sender = Sender(mx, "one", size)
            wait_for(lambda: has(database, 2), 60, what="it in the database")
            os.kill(edge, signal.SIGSTOP)
            assert sender.code is None
            kill(core)
        wait_for(lambda: all_is_told(database, 2), 60, what="its fate")
        assert sender.code is None
    finally:
        os.kill(edge, signal.SIGCONT)
    sender.hears(250)
    comes_once(mx, hop, database)


@pytest.mark.parametrize("size", [200, IN_PIECES], ids=["small", "in-pieces"])
def test_what_the_journal_alone_has(member, hop, database, size):
    """The next core brings it to the database."""
    mx = member("n1")
    wait_for_states(mx, n1="up")
    core = at_work(mx)
    wait_for(lambda: all_is_told(database, 1), 60, what="the first fate")
    lock = database.session()
    lock.write("BEGIN; LOCK TABLE holdfast.messages IN SHARE MODE; SELECT 'locked';\n")
    lock.until("locked")
    sender = Sender(mx, "one", size)
    wait_for(lambda: is_in_journal(mx, "Subject: one\r\n"), 60, what="it in the journal")
    assert sender.code is None
    kill(core)
    sender.hears(250)
    lock.write("COMMIT;\n")
    lock.close()
    comes_once(mx, hop, database)


def test_what_neither_has(member, hop, database):
    """The next core stores it."""
    mx = member("n1")
    wait_for_states(mx, n1="up")
    core = at_work(mx)
    os.kill(core, signal.SIGSTOP)
    sender = Sender(mx, "one")
    kill(core)
    sender.hears(250)
    comes_once(mx, hop, database)
