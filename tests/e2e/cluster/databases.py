# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL as a cluster has it: etcd says who leads, Patroni obeys and repairs, one server leads
and the others follow, one of them synchronously.

    with Hosts(place, ["db1", "db2", "db3", "n1"]) as hosts:
        databases = Databases(hosts, ["db1", "db2", "db3"]).start()
        databases.leader().kill()            # its Patroni and PostgreSQL, as a crash would
        databases.wait_leader(other_than="db1")

Nothing is switched off that keeps data: fsync is on, contents have checksums. `strict` means that
nothing is committed on one host alone: then a second host that fails stops commits, and a client
that has a place of its own to keep things (a node's journal) uses that. With two databases it would
stop them at the first failure, so there it is off by default: then Patroni drops the second copy
when its host is gone, and lets nobody lead who does not have everything.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time
import urllib.request

import psycopg2

from cluster.hosts import signal_all, why_no_hosts
from cluster.keeper import pids_in
from faults import fill
from peers import wait_for
from postgres import USER, programs

TTL, LOOP_WAIT, RETRY_TIMEOUT = 8, 1, 3  # seconds; ttl >= loop_wait + 2 * retry_timeout


def why_no_databases():
    for tool in ("etcd", "patroni"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    return "PostgreSQL is not installed" if programs() is None else why_no_hosts()


class Etcd:
    """One member; `members` are the hosts of all."""

    def __init__(self, host, members):
        self.host = host
        self.members = members
        self.child = None

    def start(self):
        data = self.host.root / "etcd"
        if not data.exists():
            data.mkdir(mode=0o700)
            shutil.chown(data, USER, USER)
        here = f"http://{self.host.address}"
        everyone = ",".join(f"{m.name}=http://{m.address}:2380" for m in self.members)
        self.child = self.host.start("etcd", [
            "etcd", "--name", self.host.name, "--data-dir", data,
            "--listen-peer-urls", f"{here}:2380", "--initial-advertise-peer-urls", f"{here}:2380",
            "--listen-client-urls", f"{here}:2379", "--advertise-client-urls", f"{here}:2379",
            "--initial-cluster", everyone, "--enable-v2=true", "--logger", "zap"], user=USER)
        return self

    def kill(self):
        self.child.kill()
        self.child.wait()


class Database:
    """One PostgreSQL and the Patroni that minds it."""

    def __init__(self, cluster, host, small_megabytes=None):
        self.cluster = cluster
        self.host = host
        self.name = host.name
        self.address = host.address
        self.folder = host.root / "postgresql"
        self.data = self.folder / "data"
        self.child = None
        if small_megabytes is not None:
            cluster.hosts.mount_small(self.folder, small_megabytes)
        self.folder.mkdir(exist_ok=True)
        shutil.chown(self.folder, USER, USER)
        self.configure()

    def configure(self):
        anyone = ["local all all trust", "host all all 127.0.0.1/32 trust",
                  "host all all 10.91.0.0/24 trust", "host replication all 10.91.0.0/24 trust"]
        self.conf = self.host.root / "patroni.yml"
        self.conf.write_text(json.dumps({  # JSON is YAML
            "scope": "holdfast",
            "name": self.name,
            "restapi": {"listen": f"{self.address}:8008",
                        "connect_address": f"{self.address}:8008"},
            # By version 2: with 3 Patroni 3.0.2 lets a leader that was frozen take back its lock from
            # the next one, and both lead (its issue 2689, mended since).
            "etcd3" if self.cluster.forgetful else "etcd":
                {"hosts": [f"{e.host.address}:2379" for e in self.cluster.etcd]},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL, "loop_wait": LOOP_WAIT, "retry_timeout": RETRY_TIMEOUT,
                    "primary_start_timeout": 0,  # who crashes is followed by another at once
                    "synchronous_mode": not self.cluster.forgetful,
                    **({"maximum_lag_on_failover": 1 << 30} if self.cluster.forgetful else {}),
                    "synchronous_mode_strict": self.cluster.strict and not self.cluster.forgetful,
                    "failsafe_mode": True,  # etcd away, and every member answers: go on
                    "postgresql": {"use_pg_rewind": True, "parameters": self.cluster.parameters},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums"],
            },
            "postgresql": {
                "listen": f"{self.address}:5432", "connect_address": f"{self.address}:5432",
                "data_dir": str(self.data), "bin_dir": str(programs()),
                "pgpass": str(self.folder / "pgpass"),
                "authentication": {"superuser": {"username": "postgres"},
                                   "replication": {"username": "postgres"}},
                "basebackup": [{"checkpoint": "fast"}],
                # Who led, and cannot be made to follow as he is, starts with a copy.
                "remove_data_directory_on_rewind_failure": True,
                "remove_data_directory_on_diverged_timelines": True,
                "pg_hba": anyone,
                "parameters": {"unix_socket_directories": str(self.folder)},
            },
            "watchdog": {"mode": "off"},
        }, indent=1))

    # ---- life ----

    def start(self):
        self.child = self.host.start("patroni", ["patroni", self.conf], user=USER)
        return self

    def servers(self):
        """PostgreSQL's processes: their working directory is its data."""
        found = []
        for pid in pids_in(self.host.namespace):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/cwd") == str(self.data):
                    found.append(pid)
        return found

    def kill_patroni(self):
        """PostgreSQL goes on by itself, unminded: it may think it leads when another does."""
        self.child.kill()
        self.child.wait()

    def kill_postgres(self):
        """Every process of the server, and not its Patroni."""
        while pids := self.servers():
            signal_all(pids, signal.SIGKILL)
            time.sleep(0.01)

    def kill(self):
        self.kill_patroni()
        self.kill_postgres()

    def freeze(self):
        """Patroni and PostgreSQL stand still, and every connection with them."""
        signal_all([self.child.pid, *self.servers()], signal.SIGSTOP)

    def thaw(self):
        signal_all([self.child.pid, *self.servers()], signal.SIGCONT)

    # ---- what it says ----

    def ask_patroni(self, path):
        with self.host.inside():
            with urllib.request.urlopen(f"http://{self.address}:8008/{path}", timeout=5) as page:
                return json.load(page)

    def leads(self):
        """True if its Patroni says that it holds the leader's lock."""
        try:
            return self.ask_patroni("leader") is not None
        except OSError:
            return False

    def connect(self, user="postgres", name="postgres", **how):
        """A connection as an administrator on this very host has it."""
        with self.host.inside():
            connection = psycopg2.connect(host=self.address, user=user, dbname=name,
                                          connect_timeout=10, **how)
        connection.autocommit = True
        return connection

    def ask(self, statement, *values, name="postgres"):
        """The rows of one statement, committed."""
        with contextlib.closing(self.connect(name=name)) as connection:
            with connection.cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []

    def log(self):
        return self.host.log("patroni")


class Databases:
    """All of them. `parameters` are further ones of PostgreSQL; `small` of {host: megabytes} have
    that little room for their data (on a file system of memory). `forgetful` ones lose what they
    have confirmed: a commit waits for no follower, and for a moment two may lead."""

    def __init__(self, hosts, names, etcd=None, strict=None, parameters=None, small=None,
                 forgetful=False):
        self.hosts = hosts
        self.forgetful = forgetful
        self.strict = len(names) > 2 if strict is None else strict
        self.parameters = {"max_connections": 60, "shared_buffers": "32MB", "min_wal_size": "32MB",
                           "wal_keep_size": "64MB", "dynamic_shared_memory_type": "sysv",
                           "max_wal_senders": 8,
                           # A follower comes to a new leader at once, not 5 s later.
                           "wal_retrieve_retry_interval": "500ms", **(parameters or {})}
        members = [hosts[name] for name in etcd or names]
        self.etcd = [Etcd(host, members) for host in members]
        self.all = [Database(self, hosts[name], (small or {}).get(name)) for name in names]

    def __iter__(self):
        return iter(self.all)

    def __getitem__(self, name):
        return next(database for database in self.all if database.name == name)

    def start(self, seconds=120):
        """All up: one leads, the others follow, as many in step as ought to be."""
        for service in (*self.etcd, *self.all):
            service.start()
        leader = self.wait_leader(seconds=seconds)
        # In step with nobody yet: what comes now must not wait for that.
        with contextlib.closing(leader.connect()) as connection:
            with connection.cursor() as cursor:
                cursor.execute("SET synchronous_commit = local")
                cursor.execute("CREATE ROLE holdfast LOGIN")
                cursor.execute("CREATE DATABASE holdfast OWNER holdfast")
        self.wait_whole(seconds)
        return self

    def wait_whole(self, seconds=120):
        """The leader has all the others behind it again, and who leads next is agreed: one that is
        in step."""
        def whole():
            try:
                leader = self.leader()
                states = [row[0] for row in leader.ask("SELECT sync_state FROM pg_stat_replication "
                                                       "WHERE state = 'streaming'")]
                agreed = leader.ask_patroni("cluster")["members"]
            except (psycopg2.Error, OSError, LookupError):
                return False
            in_step = "sync" in states and \
                any(member["role"] == "sync_standby" for member in agreed)
            return len(states) == len(self.all) - 1 and (in_step or self.forgetful)
        self.told(whole, seconds, "all databases in their places")

    def told(self, condition, seconds, what):
        """wait_for(), and what each of them said last if it does not come true."""
        try:
            return wait_for(condition, seconds, 0.1, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story()}") from None

    def story(self, lines=40):
        return "\n".join(f"--- {database.name}\n" + "\n".join(database.log().splitlines()[-lines:])
                         for database in self.all)

    def leader(self):
        for database in self.all:
            if database.leads():
                return database
        raise LookupError("no database leads now")

    def wait_leader(self, other_than=None, seconds=120):
        """The database that leads and takes writes, once there is one."""
        def found():
            for database in self.all:
                if database.name != other_than and database.leads():
                    with contextlib.suppress(psycopg2.Error):
                        if database.ask("SELECT NOT pg_is_in_recovery()") == [(True,)]:
                            return database
            return None
        return self.told(found, seconds, "a database that leads")

    def followers(self):
        leader = self.leader()
        return [database for database in self.all if database is not leader]

    def lead_by_hand(self):
        """What an operator does where Patroni elects nobody (docs/cluster.md): one of those that stand
        on one timeline, and most do, is made leader, and the others begin anew with a copy. Its
        name; None: Patroni has one, or tells nothing."""
        members = []
        for database in self.all:
            with contextlib.suppress(OSError):
                members = database.ask_patroni("cluster")["members"]
                break
        if any(member["role"] == "leader" for member in members):
            return None
        lines = [member["timeline"] for member in members if "timeline" in member]
        if len(lines) < 2:
            return None
        common = max(lines, key=lines.count)
        name = min((member for member in members if member.get("timeline") == common),
                   key=lambda member: member.get("lag", 0))["name"]
        self.control(name, "failover", "holdfast", "--candidate", name, "--force")
        self.wait_leader(seconds=30)
        for member in members:
            if member.get("timeline") != common:
                self.control(name, "reinit", "holdfast", member["name"], "--force")
        return name

    def control(self, name, *words):
        """patronictl on that host."""
        with self[name].host.inside():
            subprocess.run(["patronictl", "-c", self[name].conf, *words], check=True,
                           capture_output=True, timeout=60)

    def conninfo(self):
        """All of them as libpq takes them, and as a node's `cluster` block has them."""
        return f"host={','.join(d.address for d in self.all)} dbname=holdfast user=holdfast"

    # ---- faults of the database as a whole; each ends with its block ----

    @contextlib.contextmanager
    def slow(self, seconds):
        """A commit waits up to this long, and who commits one after the other nearly so for each:
        no follower says that it has a commit but in a moment each so many seconds. The leader
        itself goes on, so such a commit may well be there when its client has given up."""
        stop = threading.Event()

        def receivers():
            pids = [pid for database in self.all for pid in database.servers()]
            return [pid for pid in pids if "walreceiver" in command_line(pid)]

        def hold():
            while not stop.is_set():
                held = receivers()
                signal_all(held, signal.SIGSTOP)
                stop.wait(seconds)
                signal_all(held, signal.SIGCONT)
                time.sleep(0.01)
        thread = threading.Thread(target=hold)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    @contextlib.contextmanager
    def read_only(self):
        """Whoever leads refuses to write; sessions notice with their next transaction."""
        self.everywhere("ALTER SYSTEM SET default_transaction_read_only = on")
        try:
            yield
        finally:
            self.everywhere("ALTER SYSTEM RESET default_transaction_read_only")

    def everywhere(self, statement):
        for database in self.all:
            database.ask(statement)
            database.ask("SELECT pg_reload_conf()")

    @contextlib.contextmanager
    def no_connections_left(self):
        """All that the leader grants to ordinary users are taken."""
        leader = self.leader()
        taken = []
        try:
            with contextlib.suppress(psycopg2.OperationalError):
                while True:
                    taken.append(leader.connect("holdfast", "holdfast"))
            yield len(taken)
        finally:
            for connection in taken:
                connection.close()

    @contextlib.contextmanager
    def full(self, name):
        """No room on this host (one of `small`): nothing more can be written to its files."""
        filler = fill(self[name].folder, (16 << 20, 1 << 20, 1 << 12))
        try:
            yield
        finally:
            filler.unlink()


def command_line(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
