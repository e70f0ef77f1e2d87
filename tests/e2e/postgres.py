# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server of a test's own: in a directory, on a Unix socket, as an ordinary user."""

import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import time

from peers import wait_for

USER = "postgres"


def programs():
    """Where initdb and postgres are; the newest version."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"),
                   key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class Session:
    """psql, written to and read from."""

    def __init__(self, command):
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      text=True, bufsize=1)

    def write(self, text):
        self.child.stdin.write(text)
        self.child.stdin.flush()

    def until(self, line):
        """Reads on until that line comes."""
        for got in self.child.stdout:
            if got.rstrip("\n") == line:
                return
        raise AssertionError(f"no {line!r}: psql has ended")

    def close(self):
        self.child.stdin.close()
        self.child.wait(timeout=60)
        self.child.stdout.close()


class Postgres:
    """`start()` begins it, `end()` ends it, `start()` begins it again. `host` (cluster/hosts.py) is
    where it is reached by TCP; the socket is there for all."""

    def __init__(self, root, host=None):
        self.root = pathlib.Path(root)
        self.data = self.root / "data"
        self.child = None
        self.prefix = host.prefix() if host else []
        self.environment = {}  # beside ours, from the next start on
        self.root.mkdir()
        if os.geteuid() == 0:
            shutil.chown(self.root, USER)
        self.run(programs() / "initdb", "-D", self.data, "-U", "holdfast", "-A", "trust",
                 "--no-sync", "--locale=C", "-E", "UTF8")
        with open(self.data / "postgresql.conf", "a", encoding="ascii") as conf:
            conf.write(f"listen_addresses = '{host.address if host else ''}'\nunix_socket_directories = '{self.root}'\n"
                       "unix_socket_permissions = 0777\n")
        if host:
            with open(self.data / "pg_hba.conf", "a", encoding="ascii") as conf:
                conf.write("host all all samenet trust\n")
        self.root.chmod(0o711)

    def as_user(self, *command):
        command = [str(word) for word in command]
        if os.geteuid() != 0:
            return command
        return ["setpriv", "--reuid", USER, "--regid", str(pwd.getpwnam(USER).pw_gid),
                "--clear-groups", *command]

    def run(self, *command):
        subprocess.run(self.as_user(*command), check=True, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, cwd="/", timeout=120)

    @property
    def conninfo(self):
        return f"host={self.root} user=holdfast dbname=postgres"

    def sql(self, text):
        """What it answers, a line each, columns joined by '|'."""
        result = subprocess.run([programs() / "psql", "-X", "-A", "-t", "-q", "-v",
                                 "ON_ERROR_STOP=1", "-d", self.conninfo, "-c", text],
                                check=True, capture_output=True, text=True, timeout=120)
        return result.stdout.splitlines()

    def session(self):
        """A connection that stays, for what must not end."""
        return Session([programs() / "psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d",
                        self.conninfo])

    def answers(self):
        return subprocess.run([programs() / "pg_isready", "-q", "-h", str(self.root)],
                              check=False, timeout=60).returncode == 0

    def start(self):
        with open(self.root / "log", "ab") as log:
            self.child = subprocess.Popen(
                [*self.prefix, *self.as_user(programs() / "postgres", "-D", self.data)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True,
                env={**os.environ, **self.environment})
        wait_for(self.answers, 120, what="PostgreSQL")
        return self

    def end(self, how=signal.SIGINT):
        if self.child is not None:
            self.child.send_signal(how)
            try:
                self.child.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
            self.child = None
