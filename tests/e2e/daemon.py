# SPDX-License-Identifier: Apache-2.0
"""holdfast itself, as a test meets it: a configuration, the processes, the tool."""

import json
import os
import pathlib
import pwd
import re
import signal
import subprocess
import urllib.request

from client import Dialogue
from peers import end_process, free_port, greets, wait_for

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("HOLDFAST_BUILD", ROOT / "build"))


def program(name):
    for path in (BUILD / name, BUILD / "src/app" / name):
        if path.exists():
            return str(path)
    return None


class Holdfast:
    """One daemon on free ports with all it keeps under `root`. `routes` is the part of the
    configuration from the first server on; `top` are further keys at the top."""

    def __init__(self, root, routes, top="", listen="", port=None, user=None):
        self.root = pathlib.Path(root)
        self.root.mkdir(parents=True, exist_ok=True)
        self.state = self.root / "state"
        self.port = port or free_port()
        self.http_port = free_port()
        self.conf = self.root / "holdfast.conf"
        self.log_path = self.root / "log"
        self.user = user
        self.child = None
        self.wrapper = []
        self.wrapper_of_tool = []
        self.environment = {}
        self.limits = None  # called in the child before it becomes the daemon
        self.configure(routes, top, listen)

    def configure(self, routes, top="", listen=""):
        self.conf.write_text(f"""\
hostname = mx2.example.net
state = "{self.state}"
{top}
listen mx {{ address = "127.0.0.1:{self.port}" {listen} }}
listen web {{ address = "127.0.0.1:{self.http_port}" protocol = http }}
{routes}
""")

    # ---- life ----

    def start(self, wait=True):
        command = [*self.wrapper, program("holdfastd"), "-c", str(self.conf)]
        if self.user is not None:
            command = ["setpriv", "--reuid", self.user,
                       "--regid", str(pwd.getpwnam(self.user).pw_gid), "--clear-groups",
                       *command]
        with open(self.log_path, "ab") as log:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                          stderr=log, start_new_session=True, cwd=self.root,
                                          env={**os.environ, **self.environment},
                                          preexec_fn=self.limits)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, seconds=60):
        def ready():
            assert self.child.poll() is None, f"holdfastd ended: {self.log()[-2000:]}"
            return greets(self.port)
        wait_for(ready, seconds, what="holdfast's greeting")

    def stop(self, seconds=60):
        """In order: SIGTERM, exit code 0, no process left."""
        if self.child is None:
            return
        pids = self.pids()
        self.child.terminate()
        code = self.child.wait(timeout=seconds)
        self.child = None
        assert code == 0, f"exit code {code}: {self.log()[-2000:]}"
        wait_for(lambda: not any(alive(pid) for pid in pids), what="the end of all processes")

    def end(self):
        """However the test went: nothing stays."""
        if self.child is None:
            return
        pids = self.pids()
        end_process(self.child, seconds=20)
        for pid in pids:
            kill(pid)
        self.child = None

    def kill(self):
        """kill -9 of every process at once, the keeper first."""
        kill_family(self.child)
        self.child = None

    def reload(self):
        self.child.send_signal(signal.SIGHUP)

    def pids(self):
        """The keeper and all below it."""
        return [] if self.child is None else family(self.child.pid)

    def all_pids(self):
        """Of a daemon whose processes have all come: it greets before that."""
        wait_for(lambda: " keeper started " in self.log(), 60, what="all processes")
        return self.pids()

    def processes(self):
        """Name to process ids, by the name that each process shows (comm or argument)."""
        found = {}
        for pid in self.pids():
            found.setdefault(process_name(pid), []).append(pid)
        return found

    def memory_bytes(self):
        """Proportional set size of all processes."""
        total = 0
        for pid in self.pids():
            try:
                for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
            except OSError:
                pass
        return total

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    # ---- the tool ----

    def tool(self, *arguments, check=True, seconds=60):
        result = subprocess.run([*self.wrapper_of_tool, program("holdfast"), "-c", str(self.conf),
                                 *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                timeout=seconds)
        if check:
            assert result.returncode == 0, \
                f"holdfast {' '.join(map(str, arguments))}: {result.returncode}\n" \
                f"{result.stdout}{result.stderr}"
        return result

    def status(self):
        return json.loads(self.tool("status", "--json").stdout)

    def lines(self, *arguments, check=False):
        """The rows of a command that lists: JSON Lines. Exit code 1 (nothing matched) is no row; 4:
        those of the members of a cluster that have answered."""
        result = self.tool(*arguments, "--json", check=check)
        assert result.returncode in (0, 1, 4), result.stdout + result.stderr
        return [json.loads(line) for line in result.stdout.splitlines() if line]

    def queue(self, *arguments):
        return self.lines("queue", "list", *arguments)

    def counter(self, name):
        """As /metrics has it."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/metrics",
                                    timeout=60) as page:
            text = page.read().decode()
        return int(re.search(rf"^{name} (\d+)$", text, re.M).group(1))

    def server_state(self, name):
        return next(s["state"] for s in self.status()["servers"] if s["name"] == name)

    # ---- mail ----

    def dialogue(self, **how):
        return Dialogue(self.port, **how)

    def send(self, recipients=("ann@example.com",), sender="bob@client.example",
             content=b"Subject: test\r\n\r\nHello.\r\n", source=None, **how):
        """One message in; returns the reply to the dot. Everything before it must succeed."""
        with self.dialogue(source=source) as dialogue:
            return dialogue.send(sender, recipients, content, **how)

    def wait_empty(self, seconds=60):
        wait_for(lambda: is_empty(self.status()), seconds, 0.05, "an empty queue")


def is_empty(status):
    """Nothing waits; while the journal is read after a start, nobody knows."""
    return status["queue"]["messages"] == 0 and not status["loading"]


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def family(pid):
    """A process and all below it."""
    found = [pid]
    for parent in found:
        try:
            for task in pathlib.Path(f"/proc/{parent}/task").iterdir():
                found += [int(p) for p in (task / "children").read_text().split()]
        except OSError:
            pass
    return found


def kill_family(child):
    """kill -9 of a process that we started and of all below it, itself first."""
    pids = family(child.pid)
    for pid in pids:
        kill(pid)
    child.wait()
    wait_for(lambda: not any(alive(pid) for pid in pids), what="the death of all")


def process_name(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"


def backup_mx(*ports, domain="example.com", more="", server=""):
    """Routes: servers m1, m2 ... in a chain, and one domain."""
    lines = []
    for number, port in enumerate(ports, 1):
        failover = f" failover = m{number + 1}" if number < len(ports) else ""
        lines.append(f'server m{number} {{ address = "127.0.0.1:{port}"{failover} {server} }}')
    lines.append(f"domain {domain} {{ deliver-to = m1\n{more} }}")
    return "\n".join(lines) + "\n"
