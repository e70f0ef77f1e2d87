# SPDX-License-Identifier: Apache-2.0
"""Rows: a node of a cluster on one PostgreSQL, beside clients that do nothing but COPY."""

import json
import subprocess
import time

from clients import cload, median
from postgres import Postgres, programs
from servers import BUILD, CountingSink, Ours, cpu_seconds, free_port, wait_for
from table import Row

from daemon import family

# The same for all sides. fsync and synchronous_commit are on.
SETTINGS = """\
max_connections = 200
shared_buffers = 512MB
max_wal_size = 4GB
checkpoint_timeout = 30min
"""


class Database(Postgres):
    """One server; the node has the database `postgres`, the bare clients `bare`."""

    def __init__(self, place):
        if programs() is None:
            raise RuntimeError("no PostgreSQL here")
        super().__init__(place / "database")
        with open(self.data / "postgresql.conf", "a", encoding="ascii") as conf:
            conf.write(SETTINGS)

    def start(self):
        super().start()
        assert self.sql("SELECT current_setting('fsync') || current_setting('synchronous_commit')") \
            == ["onon"]
        self.sql("CREATE DATABASE bare")
        return self

    def cpu_seconds(self):
        """Of all its processes that live."""
        return sum(cpu_seconds(pid) for pid in family(self.child.pid))

    def bare(self, messages, connections, group, envelope, content):
        """Messages a second of so many connections that each commit `group` at a time."""
        self.sql("CHECKPOINT")
        messages = max(messages // (connections * group), 1) * connections * group
        said = subprocess.run([BUILD / "bench/bare_copy",
                               self.conninfo.replace("dbname=postgres", "dbname=bare"),
                               *map(str, (messages, connections, group, envelope, content))],
                              check=True, timeout=600, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL).stdout
        return messages / float(said)


def node(place, database, next_hop, name="n1", more=""):
    """One that has joined and has its share of the work, which is all of it."""
    block = f'cluster {{ database = "{database.conninfo}"  name = {name} }}\n{more}'
    server = Ours(place, next_hop, more_servers=block).start()
    wait_for(lambda: all(row["state"] == "up" for row in server.mx.lines("node", "list")), 60,
             what="the node")
    return server


class Accepted:
    """One run of a fresh node: its rate, what a message cost, and how large its rows were."""

    def __init__(self, place, database, messages, sessions, size):
        database.sql("DROP SCHEMA IF EXISTS holdfast CASCADE")
        server = node(place, database, free_port())
        try:
            # The first mail of all finds no partition; for a second after that the node asks first.
            cload(server.port, max(sessions * 5, messages // 10), sessions, size)
            time.sleep(1.5)
            database.sql("CHECKPOINT")
            cpu, theirs = server.cpu_seconds(), database.cpu_seconds()
            result = cload(server.port, messages, sessions, size, "-b", 10**9)
            self.cpu_us = (server.cpu_seconds() - cpu) / messages * 1e6
            self.database_us = (database.cpu_seconds() - theirs) / messages * 1e6
            assert result["acknowledged"] == messages, result
            assert server.mx.status()["cluster"]["one_copy"] == 0
            self.rate = messages / result["seconds"]
            row, = database.sql("""
                SELECT round(avg(octet_length(m.envelope))) || ' ' ||
                       round(avg(coalesce(octet_length(m.content), (SELECT sum(octet_length(bytes))
                                 FROM holdfast.chunks c WHERE c.id = m.id))))
                FROM (SELECT * FROM holdfast.messages LIMIT 1000) m""")
            self.envelope, self.content = map(int, row.split())
        finally:
            server.stop()


def accept(scale, place):
    """Durable accept by a node of a cluster, primary down, beside bare COPY clients.
    Each round runs all three on one server, with the same bytes, and with as many messages that
    wait for a commit as there are sessions: a connection for each, one message a commit, as each
    session waits for its own; and one connection that commits them all together."""
    database = Database(place).start()
    try:
        for size, label, full in ((4096, "4 KB", 20000), (65536, "64 KB", 3000)):
            for sessions in (20, 100):
                yield from accept_of(scale, place, database, (size, label, full), sessions)
    finally:
        database.end()


def accept_of(scale, place, database, what, sessions):
    size, label, full = what
    messages = scale.messages(full)
    ours, each, together = [], [], []
    for _ in range(scale.rounds):
        ours.append(Accepted(place, database, messages, sessions, size))
        bytes_of = (ours[-1].envelope, ours[-1].content)
        each.append(database.bare(messages, sessions, 1, *bytes_of))
        together.append(database.bare(messages, 1, sessions, *bytes_of))
    rate = median([run.rate for run in ours])
    for peers, name in ((each, f"bare COPY, {sessions} connections, 1 a commit"),
                        (together, f"bare COPY, 1 connection, {sessions} a commit")):
        ratio = median([run.rate / peer for run, peer in zip(ours, peers)])
        yield Row(f"node of a cluster, {label}, {sessions} sessions", f"{rate:,.0f}/s", name,
                  f"{median(peers):,.0f}/s", ratio, ">= 0.7 x", ratio >= 0.7)
    cpu = median([run.cpu_us for run in ours])
    small = size == 4096
    yield Row("processor a message, all its processes", f"{cpu:.0f} us", "PostgreSQL for it",
              f"{median([run.database_us for run in ours]):.0f} us", None,
              "<= 60 us" if small else "", cpu <= 60 or not small)


# ---- room ---------------------------------------------------------------------------------------

KINDS = ("messages", "chunks", "parts", "fates", "notes")
# What is taken by all tables of mail, with their indexes, and by what stands beside them.
TAKEN = """
    SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c
    WHERE c.relnamespace = 'holdfast'::regnamespace AND c.relkind = 'r'"""
# Of mail that has deliveries without a fate, moved into new tables with the same indexes.
LIVING = """
    DROP SCHEMA IF EXISTS fresh CASCADE; CREATE SCHEMA fresh;
    CREATE TABLE fresh.living AS
      SELECT DISTINCT p.id FROM (SELECT * FROM holdfast.parts UNION ALL
                                 SELECT * FROM holdfast.kept_parts) p
      WHERE p.count > (SELECT count(*) FROM (SELECT * FROM holdfast.fates UNION ALL
                       SELECT * FROM holdfast.kept_fates) f WHERE f.id = p.id
                       AND (p.deliveries IS NULL OR f.delivery = ANY (p.deliveries)));""" + "".join(f"""
    CREATE TABLE fresh.{kind} (LIKE holdfast.kept_{kind} INCLUDING ALL);
    INSERT INTO fresh.{kind} SELECT * FROM (SELECT * FROM holdfast.{kind} UNION ALL
      SELECT * FROM holdfast.kept_{kind}) m WHERE id IN (SELECT id FROM fresh.living);"""
                                                                 for kind in KINDS)
LIVED = "SELECT " + " + ".join(f"pg_total_relation_size('fresh.{kind}')" for kind in KINDS)


def room(scale, place):
    """What the tables take after 20 minutes of mail, of which one in twenty stays, beside the same
    living mail in new tables. Sped up: ranges are a minute wide from the start."""
    database = Database(place).start()
    sink = CountingSink(place, free_port()).start()
    held = f'server away {{ address = "127.0.0.1:{free_port()}" }}\n' \
        "domain held.example { deliver-to = away }\n"
    seconds = max(60, int(1200 * scale.factor))
    server = None
    try:
        subprocess.run([BUILD / "bench/ranges_pg", database.conninfo, str(seconds // 60 + 20)],
                       check=True, timeout=600)
        server = node(place, database, sink.port, more=held)
        clients = [load(server.port, seconds, 19, "example.com"),
                   load(server.port, seconds, 1, "held.example")]
        accepted = [json.loads(client.communicate(timeout=seconds + 300)[0])["acknowledged"]
                    for client in clients]
        assert sink.wait(accepted[0], 120), f"{sink.status()} of {accepted}"
        then = size(database)
        wait_for(lambda: database.sql("SELECT count(*) FROM holdfast.messages") == ["0"], 900, 5,
                 what="ranges that have gone")
        now = size(database)
        database.sql(LIVING)
        living = int(database.sql(LIVED)[0])
    finally:
        if server is not None:
            server.stop()
        sink.stop()
        database.end()
    yield Row(f"room after {seconds // 60} minutes, {sum(accepted):,} messages",
              f"{now / 1e6:.1f} MB", f"{accepted[1]:,} living ones in new tables",
              f"{living / 1e6:.1f} MB", now / living, "<= 1.2 x", now / living <= 1.2)
    yield Row("room at the end of traffic, before the last ranges go", f"{then / 1e6:.1f} MB", "",
              "", then / living, "", True)


def size(database):
    return int(database.sql(TAKEN)[0])


def load(port, seconds, sessions, domain):
    """Ten messages a second and session, each with a recipient of its own."""
    return subprocess.Popen([BUILD / "tools/cload", "-s", str(sessions), "-g", "95", "-t",
                             str(seconds * 1000), "-d", domain, "-r", "1000", str(port)],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


# ---- what is held -------------------------------------------------------------------------------

def held(scale, place):
    """What a small message costs, accepted, and taken and delivered, beside 10,000, 100,000
    and 1,000,000 that wait for another server."""
    database = Database(place).start()
    sink = CountingSink(place, free_port()).start()
    more = f'server up {{ address = "127.0.0.1:{sink.port}" }}\n' \
        "domain up.example { deliver-to = up }\n"
    server, rows, count, number = None, [], 0, 0
    try:
        server = node(place, database, free_port(), more=more)
        costs = []
        for level in (10_000, 100_000, 1_000_000):
            level, measured = scale.messages(level), scale.messages(10_000)
            fill(server, level - count, number)
            number += level - count
            accepting = cost(server, database, lambda: fill(server, measured, number), measured)
            number += measured
            count = level + measured
            before = sink.status()[0]

            def through():
                cload(server.port, measured, 20, 300, "-d", "up.example", "-b", number)
                assert sink.wait(before + measured, 300), sink.status()

            costs.append((accepting, cost(server, database, through, measured)))
            number += measured
            taken = int(database.sql(TAKEN)[0]) / count
            rows.append((level, *costs[-1], server.mx.memory_bytes() / count, taken))
    finally:
        if server is not None:
            server.stop()
        sink.stop()
        database.end()
    for level, accepting, through, memory, taken in rows:
        ratio = sum(accepting) / sum(costs[0][0])
        yield Row(f"accepting 300 bytes beside {level:,} held", f"{accepting[0]:.0f} us",
                  "and PostgreSQL", f"{accepting[1]:.0f} us", ratio, "<= 1.3 x the first",
                  ratio <= 1.3)
        ratio = sum(through) / sum(costs[0][1])
        yield Row("  taking and delivering one", f"{through[0]:.0f} us", "and PostgreSQL",
                  f"{through[1]:.0f} us", ratio, "<= 1.3 x the first", ratio <= 1.3)
        yield Row("  each of them takes", f"{memory:.0f} B memory", "of all that is stored",
                  f"{taken:.0f} B in tables", None, "", True)


# ---- who dies -----------------------------------------------------------------------------------

def takeover(scale, place):
    """One of two nodes dies with half of 100,000, and of 1,000,000: until the other has the first
    and the last of its mail."""
    database = Database(place).start()
    domains = "".join(f"domain d{i}.example {{ deliver-to = m1 }}\n" for i in range(200))
    nodes, rows, count = [], [], 0
    try:
        for name in ("n1", "n2"):
            (place / name).mkdir(mode=0o711)
            nodes.append(node(place / name, database, free_port(), name=name, more=domains))
        first, second = nodes
        for level in (scale.messages(100_000), scale.messages(1_000_000)):
            for i in range(200):
                each = (level - count) // (200 - i)
                fill(first, each, count, "-d", f"d{i}.example", recipients=1000)
                count += each
            # Half of it, about: what has had no mail before has no owner yet.
            wait_for(lambda: shared_out([queued(one) for one in nodes], level), 300, 1, "both")
            there = queued(second)
            second.mx.kill()
            rows.append((level, there, *until_taken(first, level)))
            second.mx.start()
    finally:
        for server in nodes:
            server.stop()
        database.end()
    for level, there, begun, taken in rows:
        yield Row(f"one of two nodes dies, with {there:,} of {level:,}", f"{begun:.1f} s",
                  "all of it at the other", f"{taken:.1f} s", None, "first in 5 s", begun <= 5)
        yield Row("  each, from the first to the last", f"{(taken - begun) / there * 1e6:.0f} us",
                  "", "", None, "", True)


def shared_out(counts, level):
    return sum(counts) == level and min(counts) > level * 0.3


def queued(server):
    return server.mx.status()["queue"]["messages"]


def until_taken(server, level):
    """Seconds until it has more than before, and until it has that many."""
    began, before, first = time.monotonic(), queued(server), None
    while (now := queued(server)) < level:
        assert time.monotonic() - began < 600, now
        if first is None and now > before:
            first = time.monotonic() - began
        time.sleep(0.1)
    taken = time.monotonic() - began
    return (taken if first is None else first), taken


def fill(server, messages, number, *where, recipients=100_000):
    if messages > 0:
        result = cload(server.port, messages, 50, 300, "-r", recipients, "-p", "-b", number, *where,
                       seconds=7200)
        assert result["acknowledged"] == messages, result


def cost(server, database, work, messages):
    """Microseconds a message of the node's processor, and of the database's."""
    ours, theirs = server.cpu_seconds(), database.cpu_seconds()
    work()
    return ((server.cpu_seconds() - ours) / messages * 1e6,
            (database.cpu_seconds() - theirs) / messages * 1e6)
