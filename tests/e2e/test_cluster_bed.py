# SPDX-License-Identifier: Apache-2.0
"""The bed that clusters are tested on: hosts with cut links, etcd, Patroni and PostgreSQL. What it
claims to break must be broken, and what PostgreSQL promises must hold there without us.

The ordinary bed has two databases and one etcd; with `-m soak` three of each, and the rarer faults.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import psycopg2
import pytest

from cluster.databases import Databases, why_no_databases
from cluster.drill import Drill, faults_of_databases
from cluster.hosts import Hosts, why_no_hosts
from cluster.keeper import pids_in
from cluster.ledger import Ledger
from peers import wait_for

no_hosts = why_no_hosts()
no_databases = why_no_databases()
TO_WRITE = "target_session_attrs=read-write connect_timeout=2"  # whichever of several takes writes
with_hosts = pytest.mark.skipif(no_hosts is not None, reason=str(no_hosts))
with_databases = pytest.mark.skipif(no_databases is not None, reason=str(no_databases))


# ---- hosts and links ----


@pytest.fixture
def hosts(place):
    with Hosts(place, ["a", "b", "c"]) as made:
        yield made


def reaches(sender, receiver, seconds):
    """A datagram of one is seen by the other."""
    with receiver.inside():
        there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        there.bind((receiver.address, 0))
    with sender.inside():
        here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with there, here:
        there.settimeout(0.1)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                here.sendto(b"x", there.getsockname())
                there.recv(1)
                return True
    return False


def links_are(hosts, expected):
    """Exactly these hosts reach these, as "ab"."""
    for a in hosts:
        for b in hosts:
            if a is not b:
                wanted = a.name + b.name in expected
                assert reaches(a, b, 30 if wanted else 0.5) == wanted, (a.name, b.name)


@with_hosts
def test_links_are_cut_and_mended(hosts):
    everything = {"ab", "ac", "ba", "bc", "ca", "cb"}
    links_are(hosts, everything)
    hosts.cut(["a"], ["b"])
    links_are(hosts, everything - {"ab", "ba"})
    hosts.cut(["c"], ["b"], one_way=True)
    links_are(hosts, everything - {"ab", "ba", "cb"})
    hosts.mend(["a"])
    links_are(hosts, everything - {"cb"})
    hosts.cut(["c"])
    links_are(hosts, {"ab", "ba"})
    hosts.mend()
    links_are(hosts, everything)
    hosts.unplug("a")
    links_are(hosts, {"bc", "cb"})
    hosts.plug("a")
    links_are(hosts, everything)


def answers(client, server, port):
    """A connection there is made, and what its server says first comes."""
    with server.inside():
        listener = socket.create_server((server.address, port))
    with listener, client.inside(), contextlib.suppress(OSError):
        listener.settimeout(1)
        with socket.create_connection((server.address, port), 1) as here:
            here.settimeout(1)
            there = listener.accept()[0]
            with there:
                there.sendall(b"x")
                return here.recv(1) == b"x"
    return False


@with_hosts
def test_what_one_server_says_is_cut(hosts):
    hosts.cut(["a"], ["b"], port=5432)
    assert not answers(hosts["b"], hosts["a"], 5432)
    assert answers(hosts["b"], hosts["a"], 5433)
    assert answers(hosts["c"], hosts["a"], 5432)
    assert answers(hosts["a"], hosts["b"], 5432)
    hosts.mend(["a"])
    assert answers(hosts["b"], hosts["a"], 5432)


@with_hosts
def test_a_host_has_a_clock_of_its_own(hosts):
    """It jumps for what runs there."""
    hosts["b"].jump_clock(5 * 3600)
    for name in "ab":
        hosts[name].start("clock", ["sh", "-c", "while date +%s; do sleep 0.1; done"])

    def ahead():
        a, b = [int(hosts[name].log("clock").split()[-1]) for name in "ab"]
        return round((b - a) / 3600)
    wait_for(lambda: all(hosts[name].log("clock") for name in "ab"), what="the time at both")
    assert ahead() == 5
    hosts["b"].jump_clock(-48 * 3600)
    wait_for(lambda: ahead() == -48, what="a jump")


@with_hosts
def test_a_host_dies_alone(hosts):
    sleepers = {host.name: host.start("sleep", ["sleep", "600"]) for host in hosts}
    wait_for(lambda: all(host.pids() for host in hosts), what="a process on each")
    hosts["a"].kill()
    assert sleepers["a"].wait() == -signal.SIGKILL
    assert sleepers["b"].poll() is None and sleepers["c"].poll() is None


A_RUN = """
import sys, time
from cluster.hosts import Hosts
with Hosts(sys.argv[1], ["a"]) as hosts:
    hosts.mount_small(hosts["a"].root / "small", 1)
    child = hosts["a"].start("sleep", ["sh", "-c", "sleep 600 & sleep 600"])
    while len(hosts["a"].pids()) < 3:
        time.sleep(0.01)
    print(hosts.run, hosts.keeper.pid, flush=True)
    time.sleep(600)
"""


def left_of(run):
    """Namespaces, mounts and processes of a run."""
    spaces = [path for path in pathlib.Path("/run/netns").iterdir() if path.name.startswith(run)]
    return spaces + [pid for path in spaces for pid in pids_in(path)] + \
        [line for line in pathlib.Path("/proc/mounts").read_text().splitlines()
         if line.startswith(f"{run} ")]


@with_hosts
@pytest.mark.parametrize("keeper_too", [False, True], ids=["run", "run-and-keeper"])
def test_nothing_stays_of_a_run_that_dies(place, keeper_too):
    """By the keeper; if that is killed as well, by the next run."""
    child = subprocess.Popen([sys.executable, "-B", "-c", A_RUN, place], stdout=subprocess.PIPE,
                             cwd=pathlib.Path(__file__).parent, text=True)
    run, keeper = child.stdout.readline().split()
    assert len(left_of(run)) > 5
    if keeper_too:
        os.kill(int(keeper), signal.SIGKILL)
    child.kill()
    child.wait()
    if keeper_too:
        assert len(left_of(run)) > 5
        with Hosts(place / "next", ["a"]):
            pass
    wait_for(lambda: not left_of(run), what="the end of what the run left")


# ---- databases ----


class Bed:
    def __init__(self, place, size):
        self.place = place
        self.names = [f"db{number}" for number in range(1, size + 1)]
        self.hosts = Hosts(place, [*self.names, "n1", "n2"])
        self.databases = None

    def __enter__(self):
        started = time.monotonic()
        self.hosts.__enter__()
        try:
            self.databases = Databases(self.hosts, self.names, self.names if len(self.names) > 2
                                       else ["n1"]).start()
        except BaseException:
            self.__exit__()
            raise
        print(f"{len(self.names)} databases are up after {time.monotonic() - started:.1f} s")
        return self

    def __exit__(self, *_):
        self.hosts.__exit__()


class Shared:
    """One bed for all tests; a new one after one that left it broken. So may Patroni 3.0.2 itself:
    a leader that it takes for synchronous without having told PostgreSQL so, now and then."""

    def __init__(self, size):
        self.size = size
        self.bed = None
        self.place = None

    def start(self):
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="holdfast-bed-"))
        self.place.chmod(0o711)
        self.bed = Bed(self.place, self.size).__enter__()

    def stop(self):
        if self.bed is not None:
            self.bed.__exit__()
        shutil.rmtree(self.place, ignore_errors=True)
        self.bed = None

    def whole(self):
        if self.bed is not None:
            try:
                self.bed.hosts.mend()
                self.bed.databases.wait_whole(60)
            except AssertionError:
                self.stop()
        if self.bed is None:
            self.start()
        return self.bed


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.soak)],
                ids=["two", "three"])
def shared(request):
    made = Shared(request.param)
    yield made
    made.stop()


@pytest.fixture
def bed(shared):
    """All databases in their places, and an empty table."""
    made = shared.whole()
    leader = made.databases.leader()
    leader.ask("DROP TABLE IF EXISTS rows", name="holdfast")
    leader.ask("CREATE TABLE rows (number int)", name="holdfast")
    leader.ask("GRANT ALL ON rows TO holdfast", name="holdfast")
    return made


class Writer:
    """Commits one number after the other, from a host, and notes which commits were acknowledged:
    number, server, when it was begun, when it was there. A commit that warns is none; from a server
    that says nothing for PATIENCE seconds it goes away."""

    PATIENCE = 5

    def __init__(self, host, conninfo):
        self.host = host
        self.conninfo = f"{conninfo} {TO_WRITE} tcp_user_timeout=3000"
        self.acknowledged = []
        self.errors = []
        self.number = 0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join(timeout=60)

    def run(self):
        with self.host.inside():
            while not self.stopped.is_set():
                try:
                    with contextlib.closing(psycopg2.connect(self.conninfo)) as connection:
                        self.write(connection)
                except (psycopg2.Error, psycopg2.Warning) as error:
                    self.errors.append(str(error))
                    time.sleep(0.05)

    def write(self, connection):
        cursor = connection.cursor()
        while not self.stopped.is_set():
            begun = time.monotonic()
            self.number += 1
            # Never cancelled: a commit that is cancelled while it waits for a follower says "done".
            impatience = threading.Timer(self.PATIENCE, hang_up, [connection.fileno()])
            impatience.start()
            try:
                cursor.execute("INSERT INTO rows VALUES (%s)", (self.number,))
                connection.commit()
            finally:
                impatience.cancel()
                impatience.join()
            if connection.notices:
                raise psycopg2.Warning(connection.notices)
            self.acknowledged.append((self.number, connection.info.host, begun, time.monotonic()))

    def count(self):
        return len(self.acknowledged)

    def wait_more(self, some=20, seconds=120):
        """So many more commits than now."""
        wanted = self.count() + some
        wait_for(lambda: self.count() >= wanted, seconds, what=f"{some} more commits")


def hang_up(fd):
    with contextlib.suppress(OSError):
        with socket.socket(fileno=os.dup(fd)) as connection:
            connection.shutdown(socket.SHUT_RDWR)


def numbers_in(database):
    return [row[0] for row in database.ask("SELECT number FROM rows", name="holdfast")]


@pytest.mark.soak  # of Patroni more than of us, and slow where much else runs
@with_databases
@pytest.mark.parametrize("how", ["kill", "kill_postgres", pytest.param(
    "freeze", marks=pytest.mark.soak)])
def test_failover_keeps_every_acknowledged_commit(bed, how):
    """Under load the leader is lost; who follows has it all, and libpq finds him."""
    databases = bed.databases
    with Writer(bed.hosts["n2"], databases.conninfo()) as writer:
        writer.wait_more(50)
        old = databases.leader()
        failed = time.monotonic()
        getattr(old, how)()
        new = databases.wait_leader(other_than=old.name)
        wait_for(lambda: writer.acknowledged[-1][1] == new.address, 120, what="commits there")
        writer.wait_more()
        again = next(at for _, host, begun, at in writer.acknowledged
                     if host == new.address and begun > failed)
        print(f"{how}: {new.name} for {old.name}, commits again after {again - failed:.1f} s")
        if how == "freeze":
            old.thaw()
        elif how == "kill":
            old.start()
        writer.wait_more()
    compare(writer, databases)


def compare(writer, databases):
    """All that was acknowledged is there, once."""
    kept = numbers_in(databases.leader())
    lost = {number for number, *_ in writer.acknowledged} - set(kept)
    assert not lost and len(kept) == len(set(kept)), (sorted(lost)[:10], writer.errors[-5:])


@with_databases
@pytest.mark.soak
def test_a_leader_that_nobody_minds_acknowledges_nothing_once_another_leads(bed):
    """Its Patroni is dead, it is not: it goes on taking sessions and writing, and libpq that finds
    it first is content. No commit ends there, so nothing is lost; but who waits, waits."""
    databases = bed.databases
    old = databases.leader()
    with Writer(bed.hosts["n2"], f"host={old.address} dbname=holdfast user=holdfast") as writer:
        writer.wait_more(50)
        old.kill_patroni()
        new = databases.wait_leader(other_than=old.name)
        led = time.monotonic()
        assert old.ask("SELECT NOT pg_is_in_recovery()") == [(True,)]
        with Writer(bed.hosts["n1"], f"host={new.address} dbname=holdfast user=holdfast") as others:
            others.number = 10 ** 6
            others.wait_more()
            seen = len(writer.errors)
            wait_for(lambda: len(writer.errors) > seen + 1, what="two commits given up")
        old.kill_postgres()
        old.start()
        databases.wait_whole()
    assert [row for row in writer.acknowledged if row[2] > led] == []
    compare(writer, databases)
    compare(others, databases)


@pytest.mark.soak
@with_databases
def test_a_leader_that_is_cut_off_acknowledges_nothing(bed):
    """Its own side still reaches it, and hears of no commit that the others do not know."""
    databases, hosts = bed.databases, bed.hosts
    old = databases.leader()
    here = f"host={old.address} dbname=holdfast user=holdfast"
    rest = [name for name in hosts.names if name not in (old.name, "n2")]
    with Writer(hosts["n2"], here) as near:
        near.wait_more(50)
        hosts.cut([old.name, "n2"], rest)
        cut = time.monotonic()
        try:
            new = databases.wait_leader(other_than=old.name)
            print(f"cut off: {new.name} leads after {time.monotonic() - cut:.1f} s")
            with Writer(hosts["n1"], databases.conninfo()) as far:
                far.number = 10 ** 6
                far.wait_more()
            assert far.acknowledged[-1][1] == new.address
            assert [row for row in near.acknowledged if row[2] > cut] == []
        finally:
            hosts.mend()
    compare(near, databases)


@with_databases
@pytest.mark.soak
def test_a_drill_of_the_databases(bed):
    """Everything that a drill does to one of them, once and again."""
    ledger = Ledger(bed.place)
    drill = Drill(ledger, faults_of_databases(bed.hosts, bed.databases), 1)
    try:
        with Writer(bed.hosts["n2"], bed.databases.conninfo()) as writer:
            for fault in drill.faults:
                writer.wait_more()
                drill.begin(fault)
                time.sleep(3)
                drill.restore()
                bed.databases.wait_whole()
            writer.wait_more()
    finally:
        ledger.end()
    compare(writer, bed.databases)
    assert [broken for broken in drill.broken if broken.error] == []


@with_databases
def test_slow_commits(bed):
    with Writer(bed.hosts["n2"], bed.databases.conninfo()) as writer:
        writer.wait_more()
        with bed.databases.slow(3):
            def waited():
                return [row for row in writer.acknowledged if row[3] - row[2] > 2.5]
            wait_for(lambda: len(waited()) > 2, 120, what="three commits that took 2.5 s")
        writer.wait_more()
    assert len({host for _, host, *_ in writer.acknowledged}) == 1


@with_databases
def test_read_only(bed):
    databases = bed.databases
    with contextlib.closing(databases.leader().connect("holdfast", "holdfast")) as connection:
        cursor = connection.cursor()
        with databases.read_only():
            def refused():
                with contextlib.suppress(psycopg2.errors.ReadOnlySqlTransaction):
                    cursor.execute("INSERT INTO rows VALUES (1)")
                    return False
                return True
            wait_for(refused, what="a refusal in a session that was there before")
            with pytest.raises(psycopg2.OperationalError, match="read-only"), \
                    bed.hosts["n2"].inside():
                psycopg2.connect(f"{databases.conninfo()} {TO_WRITE}")
        wait_for(lambda: not refused(), what="writing again")


@with_databases
def test_no_connections_left(bed):
    with bed.databases.no_connections_left() as taken:
        assert taken > 10
        with pytest.raises(psycopg2.OperationalError, match="too many|remaining connection slots"):
            bed.databases.leader().connect("holdfast", "holdfast")
    wait_for(lambda: bed.databases.leader().ask("SELECT 1", name="holdfast"))


@with_databases
@pytest.mark.soak
def test_etcd_away_does_not_stop_commits(bed):
    """All of it: who leads goes on while he reaches every other."""
    with Writer(bed.hosts["n2"], bed.databases.conninfo()) as writer:
        writer.wait_more()
        leader = bed.databases.leader().address
        for member in bed.databases.etcd:
            member.kill()
        time.sleep(12)  # longer than a leader's lock is held
        writer.wait_more()
        for member in bed.databases.etcd:
            member.start()
        bed.databases.wait_whole()
        writer.wait_more()
    assert {host for _, host, *_ in writer.acknowledged} == {leader}


@with_databases
def test_a_database_without_room(place):
    """The disk of the one that leads is full: it takes no more, and goes on when there is room."""
    with Hosts(place, ["db1", "db2", "n1"]) as hosts:
        databases = Databases(hosts, ["db1"], ["n1"], strict=False, small={"db1": 250})
        for service in (*databases.etcd, *databases):
            service.start()
        leader = databases.wait_leader()
        leader.ask("CREATE TABLE rows AS SELECT 1 AS number, repeat('x', 500) AS filler")
        double = "INSERT INTO rows SELECT * FROM rows"
        with databases.full("db1"):
            with pytest.raises(psycopg2.Error, match="[Nn]o space left|closed|terminat"):
                for _ in range(20):
                    leader.ask(double)
        wait_for(lambda: works(leader, "INSERT INTO rows VALUES (2)"), 120, 0.2, "writing again")


def works(database, statement):
    try:
        database.ask(statement)
    except psycopg2.Error:
        return False
    return True
