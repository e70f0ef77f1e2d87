# SPDX-License-Identifier: Apache-2.0
"""Several machines in one: each host a network namespace (`ip netns`) with an address of its own,
all at one switch, whose links can be cut.

    with Hosts(place, ["db1", "db2", "n1"]) as hosts:
        child = hosts["db1"].start("etcd", ["etcd", ...], user="postgres")
        with hosts["n1"].inside():             # sockets that this thread makes are n1's
            socket.create_connection((hosts["db1"].address, 2379))
        hosts.cut(["db1"], ["db2", "n1"])      # frames between them vanish, both ways
        hosts.mend()

Addresses are of 10.91.0.0/24 and exist in the namespaces only; nothing leads to the machine's own
network. A namespace's name begins with who made it, and a keeper waits beside each run: when the
run ends, or dies in whatever way, the keeper kills what still runs in the run's namespaces, and
removes these. What a keeper could not do (it was killed, too) the next run does. Only processes
inside these namespaces are ever touched. Needs root; why_no_hosts() says what is missing.
"""

import contextlib
import itertools
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys
import threading

from clock import Clock
from cluster import keeper
from netns import CLONE_NEWNET, call, ip, libc
from peers import wait_for

NETWORK = "10.91.0"
COUNTER = itertools.count(1)


def why_no_hosts():
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("nft", "nsenter", "setpriv", "unshare"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    tried = subprocess.run(["unshare", "-n", "sh", "-ec", "ip link add b0 type bridge; ip link add "
                            "v0 type veth peer name v1; nft -f -"], input=Hosts.TABLE, text=True,
                           capture_output=True, check=False)
    return f"no switch between network namespaces here: {tried.stderr.strip()}" \
        if tried.returncode else None


class Host:
    """One machine: its processes, its address."""

    def __init__(self, name, address, namespace, root):
        self.name = name
        self.address = address
        self.namespace = pathlib.Path("/run/netns", namespace)
        self.root = root
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o711)
        self.clock = None  # a Clock, for what starts from now on; else the machine's

    @contextlib.contextmanager
    def inside(self):
        """This thread, and what it starts, is on this host."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(self.namespace, os.O_RDONLY)
        try:
            call(libc.setns, there, CLONE_NEWNET)
            yield self
        finally:
            call(libc.setns, home, CLONE_NEWNET)
            os.close(there)
            os.close(home)

    def prefix(self, user=None):
        """What makes a command run here. Its shared memory ends with it and what it starts."""
        words = ["nsenter", f"--net={self.namespace}", "unshare", "--ipc"]
        if user is not None:
            words += ["setpriv", "--reuid", user, "--regid", str(pwd.getpwnam(user).pw_gid),
                      "--clear-groups"]
        return words

    def jump_clock(self, seconds):
        """Wrong by that; what was started before the first jump does not see it."""
        if self.clock is None:
            self.clock = Clock(self.root / "clock")
        self.clock.jump(seconds)

    def environment(self):
        return {} if self.clock is None else self.clock.environment()

    def start(self, name, command, user=None, environment=None):
        """Starts a command here; what it says goes to NAME.log of this host's directory."""
        with open(self.root / f"{name}.log", "ab") as log:
            return subprocess.Popen([*self.prefix(user), *map(str, command)], cwd=self.root,
                                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                    start_new_session=True,
                                    env={**os.environ, **self.environment(), **(environment or {})})

    def run(self, command, user=None, seconds=60):
        return subprocess.run([*self.prefix(user), *map(str, command)], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=seconds, check=True).stdout

    def pids(self):
        """All processes on this host."""
        return keeper.pids_in(self.namespace)

    def kill(self):
        """The power fails: kill -9 of everything on this host. Its disk keeps what it was given."""
        while pids := [pid for pid in self.pids() if pid != os.getpid()]:
            signal_all(pids, signal.SIGKILL)
            wait_for(lambda: not set(pids) & set(self.pids()), what=f"the death of {self.name}")

    def log(self, name):
        path = self.root / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""


class Hosts:
    """The hosts of one bed and the switch between them."""

    TABLE = """\
add table bridge links
add chain bridge links cuts { type filter hook forward priority 0; policy accept; }
"""

    def __init__(self, place, names):
        self.place = pathlib.Path(place)
        self.names = list(names)
        self.run = f"{keeper.run_of(os.getpid())}.{next(COUNTER)}"
        self.hosts = {}
        self.cuts = set()  # (from, to, of what)
        self.lock = threading.Lock()
        self.keeper = None

    def __enter__(self):
        keeper.sweep_the_dead()
        # Its pipe closes when we end, however we do.
        self.keeper = subprocess.Popen([sys.executable, "-B", keeper.__file__, self.run],
                                       stdin=subprocess.PIPE, start_new_session=True)
        try:
            self.build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.keeper.stdin.close()
        assert self.keeper.wait(timeout=120) == 0, "the keeper could not end everything"

    def build(self):
        switch = f"{self.run}.switch"
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "switch", "type", "bridge")
        ip("-n", switch, "link", "set", "switch", "up")
        for number, name in enumerate(self.names, 11):
            namespace = f"{self.run}.{name}"
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
            ip("-n", switch, "link", "add", f"p-{name}", "type", "veth", "peer", "name", "eth0",
               "netns", namespace)
            ip("-n", switch, "link", "set", f"p-{name}", "master", "switch", "up")
            ip("-n", namespace, "address", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            ip("-n", namespace, "link", "set", "eth0", "up")
            self.hosts[name] = Host(name, f"{NETWORK}.{number}", namespace, self.place / name)
        self.switch = pathlib.Path("/run/netns", switch)
        self.nft(self.TABLE)

    def __getitem__(self, name):
        return self.hosts[name]

    def __iter__(self):
        return iter(self.hosts.values())

    # ---- links ----

    def nft(self, text):
        subprocess.run(["nsenter", f"--net={self.switch}", "nft", "-f", "-"], input=text, text=True,
                       check=True, capture_output=True)

    def cut(self, some, others=None, one_way=False, port=None):
        """What these hosts send to the others vanishes, and the other way round unless `one_way`;
        without `others`, to all the rest. With `port` only what a server at that one says."""
        others = [name for name in self.names if name not in some] if others is None else others
        what = f"tcp sport {port} " if port else ""
        pairs = {(a, b, what) for a in some for b in others}
        one_way = one_way or port is not None
        self.change(self.cuts | pairs | (set() if one_way else {(b, a, what) for a, b, _ in pairs}))

    def mend(self, some=None):
        """Every link works again, or those of some hosts."""
        self.change({cut for cut in self.cuts if some is not None and not set(cut[:2]) & set(some)})

    def change(self, cuts):
        with self.lock:
            rules = "".join(f'add rule bridge links cuts iifname "p-{a}" oifname "p-{b}" {what}drop\n'
                            for a, b, what in sorted(cuts))
            self.nft("flush chain bridge links cuts\n" + rules)  # as one
            self.cuts = cuts

    def unplug(self, name):
        """The cable is out: the host sees that, too."""
        ip("-n", self.switch.name, "link", "set", f"p-{name}", "down")

    def plug(self, name):
        ip("-n", self.switch.name, "link", "set", f"p-{name}", "up")

    def mount_small(self, folder, megabytes):
        """A file system of this size, that does not keep data over its host's end. Gone with us."""
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", self.run, str(folder)],
                       check=True, capture_output=True)


def signal_all(pids, number):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
