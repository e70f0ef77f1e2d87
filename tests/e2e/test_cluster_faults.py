# SPDX-License-Identifier: Apache-2.0
"""What a database does short of dying, under mail for two nodes: it refuses to write, has no
connection or no room left, its commits do not end, its packets vanish one way. Each time: acceptance goes on, what was
acknowledged arrives, once and in order per recipient, and who asks a node is told what is wrong."""

import contextlib
import os
import time

import pytest

from cluster.hosts import Hosts, why_no_hosts
from cluster.ledger import Ledger, end_well
from cluster.nodes import Node
from peers import free_port, wait_for
from postgres import Postgres, programs

no_hosts = why_no_hosts()
with_hosts = pytest.mark.skipif(no_hosts is not None, reason=str(no_hosts))
SEED = int(os.environ.get("HOLDFAST_SEED", "1"))
DOMAINS = ("example.com", "example.net", "a.example", "b.example")
ROLE = "mail"  # no superuser: those are not held to limits


@pytest.fixture(name="database")
def _database(place):
    if programs() is None:
        pytest.skip("no PostgreSQL here")
    database = Postgres(place / "database").start()
    give_role(database)
    yield database
    database.end()


def give_role(database):
    database.sql(f"CREATE ROLE {ROLE} LOGIN")
    database.sql(f"GRANT CREATE ON DATABASE postgres TO {ROLE}")


def set_everywhere(database, setting):
    """ALTER SYSTEM that; sessions that are there follow."""
    database.sql(f"ALTER SYSTEM {setting}")
    database.sql("SELECT pg_reload_conf()")


class Traffic:
    """Mail for nodes from clients that try the next one where one does not take it."""

    def __init__(self, place, clients=None, primary=None):
        self.ledger = Ledger(place, seed=SEED, domains=DOMAINS)
        self.clients = {"inside": clients.inside} if clients else {}
        self.address = primary.address if primary else "127.0.0.1"
        self.port = free_port()
        self.ledger.collect("primary", self.port, address=self.address,
                            **({"inside": primary.inside} if primary else {}))
        self.nodes = []

    def routes(self):
        return f'server m1 {{ address = "{self.address}:{self.port}"  tls = none }}\n' + \
            "".join(f"domain {domain} {{ deliver-to = m1 }}\n" for domain in DOMAINS)

    def begin(self, *nodes):
        """All up, and mail arrives."""
        self.nodes = list(nodes)
        for node in nodes:
            wait_for(lambda node=node: [row["state"] for row in node.lines("node", "list")] ==
                     ["up"] * len(nodes), 60, what="all up")
        self.ledger.send([node.address() if self.clients else ("127.0.0.1", node.port)
                          for node in nodes], rate=60, **self.clients)
        self.arrives()

    def goes_on(self, some=30):
        """Clients are answered: so many more messages."""
        wanted = self.ledger.acknowledged() + some
        wait_for(lambda: self.ledger.acknowledged() >= wanted, 60, what=f"{some} more answered")

    def arrives(self, some=30):
        wanted = len(self.ledger.arrivals) + some
        wait_for(lambda: len(self.ledger.arrivals) >= wanted, 60, what=f"{some} more arrived")

    def end_well(self, nodes=None, in_doubt=False):
        end_well(self.ledger, nodes or self.nodes, in_doubt)


@pytest.fixture(name="traffic")
def _traffic(place):
    made = Traffic(place)
    yield made
    made.ledger.end()


@pytest.fixture(name="member")
def _member(holdfast, database, traffic):
    conninfo = database.conninfo.replace("user=holdfast", f"user={ROLE}")

    def make(name):
        return holdfast(f'cluster {{ database = "{conninfo}"  name = {name} }}\n' +
                        traffic.routes(), name=name)
    return make


def alerts(node, kind):
    return [alert["text"] for alert in node.status()["alerts"] if alert["kind"] == kind]


def log_ends_back(node):
    """The last that its log says of the database is that it is back, and once for each trouble."""
    said = ["database-back" in line for line in node.log().splitlines()
            if "database-back" in line or "database-away" in line]
    twice = any(one and other for one, other in zip(said, said[1:]))
    return not said or (said[-1] and not said[0] and not twice)


def wait_told(node, words):
    """That the database is away and why: in `status`, as an alert and in the log."""
    wait_for(lambda: any(words in text for text in alerts(node, "database")), 60,
             what=f"an alert of {node.root.name}: {words!r}")
    assert words in node.log()
    wait_status(node, words)


def wait_status(node, words):
    """For people too."""
    def told():
        database = node.status()["cluster"]["database"]
        return not database["up"] and words in database["reason"]
    wait_for(told, 60, what=f"{words!r} of {node.root.name}")
    line = next(line for line in node.tool("status").stdout.splitlines()
                if line.startswith("Database"))
    assert "away for " in line and words in line, line


def wait_kept(*nodes):
    """Each has accepted what is nowhere else."""
    for node in nodes:
        wait_for(lambda node=node: node.status()["cluster"]["one_copy"] > 0, 60, what="mail here")


def wait_over(*nodes):
    """Of the alert, and in the log."""
    for node in nodes:
        wait_for(lambda node=node: node.status()["cluster"]["database"]["up"] and
                 not alerts(node, "database"), 60, what="the end of the alert")
        wait_for(lambda node=node: log_ends_back(node), 60, what="the end in the log")


def test_a_database_that_is_read_only(member, traffic, database):
    n1, n2 = member("n1"), member("n2")
    traffic.begin(n1, n2)
    set_everywhere(database, "SET default_transaction_read_only = on")
    wait_kept(n1, n2)
    traffic.goes_on()
    for node in (n1, n2):
        wait_told(node, "read-only")
    set_everywhere(database, "RESET default_transaction_read_only")
    wait_over(n1, n2)
    traffic.arrives()
    traffic.end_well()


def test_a_database_that_takes_no_mail(member, traffic, database):
    """It answers, but refuses what is written, here for want of a right: told of once, and its end."""
    n1, n2 = member("n1"), member("n2")
    traffic.begin(n1, n2)
    database.sql(f"REVOKE INSERT ON holdfast.messages FROM {ROLE}")
    wait_kept(n1, n2)
    traffic.goes_on()
    for node in (n1, n2):
        wait_told(node, "permission denied")
    traffic.goes_on()
    database.sql(f"GRANT INSERT ON holdfast.messages TO {ROLE}")
    wait_over(n1, n2)
    for node in (n1, n2):
        assert node.log().count("alert kind=database ") == 1, node.log()
        assert node.log().count("alert-over kind=database ") == 1
        assert node.log().count("database-away ") == 1
    traffic.arrives()
    traffic.end_well()


@pytest.mark.soak  # who is refused asks less and less often: 25 s until all are back
def test_a_database_without_connections(member, traffic, database):
    """Who has some keeps them; who starts then accepts, and joins when it gets one."""
    n1, n2 = member("n1"), member("n2")
    traffic.begin(n1, n2)
    database.sql(f"ALTER ROLE {ROLE} CONNECTION LIMIT 0")
    n3 = member("n3")
    n3.send([f"late@{DOMAINS[0]}"])
    wait_for(lambda: any("no room for us" in text for text in alerts(n3, "database")), 60,
             what="an alert at who starts")
    assert "too many connections" in n3.log()
    status = n3.status()["cluster"]
    assert status["number"] == 0 and status["one_copy"] == 1
    assert "too many connections" in status["database"]["reason"]
    traffic.arrives()
    assert n1.status()["cluster"]["database"]["up"] and n2.status()["cluster"]["database"]["up"]
    database.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'")
    wait_kept(n1, n2)
    traffic.goes_on()
    for node in (n1, n2):
        wait_told(node, "too many connections")
    database.sql(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")
    wait_over(n1, n2, n3)
    traffic.arrives()
    traffic.end_well([n1, n2, n3])
    assert traffic.ledger.verdict().strangers == 1  # what n3 took by itself
    wait_for(lambda: [row["state"] for row in n3.lines("node", "list")] == ["up"] * 3, 60,
             what="all three up")


def test_a_database_whose_commits_do_not_end(member, traffic, database):
    """As behind a standby that does not answer: clients are answered all the same."""
    n1, n2 = member("n1"), member("n2")
    traffic.begin(n1, n2)
    set_everywhere(database, "SET synchronous_standby_names = 'nobody'")
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    wait_for(lambda: database.sql(waits) != ["0"], 60, what="a commit that waits")
    wait_kept(n1, n2)
    traffic.goes_on(100)
    for node in (n1, n2):
        wait_told(node, "no answer")
    set_everywhere(database, "RESET synchronous_standby_names")
    wait_over(n1, n2)
    traffic.arrives()
    traffic.end_well()


@with_hosts
def test_a_database_without_room(place, holdfast):
    """Its disk is full; then there is room again."""
    with Hosts(place, ["db"]) as hosts:
        small = hosts["db"].root / "small"
        hosts.mount_small(small, 150)
        small.chmod(0o711)
        database = Postgres(small / "database").start()
        traffic = Traffic(place)
        try:
            n1, n2 = [holdfast(f'cluster {{ database = "{database.conninfo}"  name = {name} }}\n' +
                               traffic.routes(), name=name) for name in ("n1", "n2")]
            traffic.begin(n1, n2)
            ballast = small / "ballast"
            with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(1 << 16)):
                    pass
            wait_kept(n1, n2)
            traffic.goes_on()
            for node in (n1, n2):
                wait_told(node, "No space left on device")
            ballast.unlink()
            if database.child.poll() is not None:  # it could not even write its log
                database.start()
            wait_over(n1, n2)
            traffic.arrives()
            traffic.end_well()
        finally:
            traffic.ledger.end()
            database.end()


@pytest.mark.soak  # a lease ends and is taken over, and ends of TCP are waited for: 25 s each
@with_hosts
@pytest.mark.parametrize("sender", ["n1", "db"], ids=["from-node", "to-node"])
def test_a_link_that_is_cut_one_way(place, sender):
    """What the node says does not arrive, or it hears no answer to what is done. The other takes
    over what it has, and both go on accepting. That the nodes do not reach each other is nothing to
    either."""
    with Hosts(place, ["db", "n1", "n2", "clients", "primary"]) as hosts:
        database = Postgres(place / "database", host=hosts["db"]).start()
        traffic = Traffic(place, hosts["clients"], hosts["primary"])
        conninfo = f"host={hosts['db'].address} user=holdfast dbname=postgres"
        nodes = n1, n2 = [Node(hosts[name], traffic.routes(),
                               top=f'cluster {{ database = "{conninfo}"  name = {name} }}\n')
                          for name in ("n1", "n2")]
        try:
            for node in nodes:
                node.start()
            traffic.begin(n1, n2)
            hosts.cut(["n1"], ["n2"])
            traffic.arrives(100)
            assert all(node.status()["cluster"]["one_copy"] == 0 and node.status()["alerts"] == []
                       for node in nodes)
            since = time.time()
            hosts.cut([sender], ["db" if sender == "n1" else "n1"], one_way=True)
            wait_told(n1, "answer")
            wait_kept(n1)
            wait_for(lambda: alerts(n1, "lapsed"), 60, what="the end of n1's lease")
            wait_for(lambda: "taken-over node=n1" in n2.log(), 60, what="n2 in its place")
            traffic.arrives()
            assert n2.status()["cluster"]["database"]["up"]
            hosts.mend()
            wait_over(n1)
            wait_for(lambda: not n1.status()["cluster"]["one_copy"], 60, what="n1's mail brought")
            traffic.ledger.been_away(n1.address(), since, time.time())
            traffic.arrives()
            traffic.end_well(in_doubt=True)
        finally:
            traffic.ledger.end()
            for node in nodes:
                node.end()
            database.end()
