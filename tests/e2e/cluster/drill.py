# SPDX-License-Identifier: Apache-2.0
"""Breaks one thing after the other under traffic, and reports.

    drill = Drill(ledger, faults_of_nodes(hosts, nodes) + faults_of_databases(hosts, all), seed)
    drill.run(seconds=1800, every=20)      # the ledger's clients are sending
    drill.restore()
    drill.finish(nodes)
    report = drill.report()                # .text() for people, .as_json(), .check()

Which component, how, and for how long comes from the seed. One thing is broken at a time: it is
whole again before the next one's turn, though what it did to others may not be.

What no repair by itself ends (Patroni elects nobody, docs/cluster.md) is ended as an operator would,
with Drill.mind(databases), and counted.
"""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from functools import partial

from daemon import is_empty


@dataclasses.dataclass
class Fault:
    """What can be done to one component, and undone."""
    component: str
    what: str
    begin: object         # called without arguments
    end: object = None
    server: tuple = None  # which can tell nobody of its mail meanwhile: see Ledger.been_away()
    told: object = None   # of a time: when it told the others what it has; None: not yet


@dataclasses.dataclass
class Broken:
    """What was done, in seconds since the drill began; an error is one of restoring."""
    component: str
    what: str
    at: float
    until: float = None
    error: str = None


HOUR = 3600  # seconds
TOLD_SECONDS = 30  # so long who was away gets to tell the others
ASK_SECONDS = 20   # so long a node gets to answer
UNHEARD_SECONDS = 2
LEADERLESS_SECONDS = 60  # then it is seen to by hand


def faults_of_nodes(hosts, nodes, databases=(), told=None):
    """Killed, one process killed, its clock wrong (if its host has a Clock), cut off from all or
    from these hosts of databases. `told` of a node and a time says when it told the others, after
    that, what it has."""
    found = []
    for node in nodes:
        name, server = node.host.name, node.address()
        heard = told and (lambda since, node=node: told(node, since))
        found += [
            Fault(name, "kill -9", node.kill, node.start, server, heard),
            Fault(name, "kill -9 of one process", lambda node=node: kill_one(node)),
            Fault(name, "cut off", lambda name=name: hosts.cut([name]),
                  lambda name=name: hosts.mend([name]), server, heard),
        ]
        if node.host.clock is not None:
            jump = node.host.jump_clock
            found += [
                Fault(name, "clock 5 h ahead", partial(jump, 5 * HOUR), partial(jump, 0)),
                Fault(name, "clock 2 d behind, and kill -9 of one process",
                      partial(kill_one_when_late, node), partial(jump, 0)),
            ]
        if databases:
            found.append(Fault(name, "cut off from the databases",
                               lambda name=name: hosts.cut([name], list(databases)),
                               lambda name=name: hosts.mend([name]), server, heard))
    return found


def kill_one(node):
    """A process below the keeper, which starts it anew."""
    children = node.pids()[1:]
    if children:
        os.kill(random.choice(children), signal.SIGKILL)


def kill_one_when_late(node):
    """What starts anew has never seen the right time."""
    node.host.jump_clock(-48 * HOUR)
    kill_one(node)


def faults_of_databases(hosts, databases):
    """Of each PostgreSQL, its Patroni, its etcd and its link."""
    found = []
    for database in databases:
        name = database.name

        def mind_again(database=database):
            database.kill_postgres()
            database.start()
        found += [
            Fault(name, "kill -9 of PostgreSQL and Patroni", database.kill, database.start),
            Fault(name, "kill -9 of PostgreSQL", database.kill_postgres),
            Fault(name, "kill -9 of Patroni", database.kill_patroni, mind_again),
            Fault(name, "frozen", database.freeze, database.thaw),
            Fault(name, "cut off", lambda name=name: hosts.cut([name]),
                  lambda name=name: hosts.mend([name])),
        ]
    return found + [Fault(f"etcd on {member.host.name}", "kill -9", member.kill, member.start)
                    for member in databases.etcd]


def fault_of_leader(databases, hosts=None):
    """Failover: whichever PostgreSQL leads is killed with its Patroni, and comes back to follow. With
    `hosts`, its followers have not heard of it for a while, though it goes on: if it does not wait
    for them, what it has confirmed then is lost."""
    killed = []

    def kill():
        killed.append(databases.wait_leader())
        name = killed[-1].name
        if hosts is not None:
            hosts.cut([name], [other.name for other in databases if other.name != name], port=5432)
            time.sleep(UNHEARD_SECONDS)
        killed[-1].kill()
        if hosts is not None:
            hosts.mend([name])
    return Fault("the database that leads", "kill -9", kill, lambda: killed[-1].start())


def only(faults, names):
    """Those of these components, or that are called or begin so ("n1", "frozen", "cut off")."""
    unknown = [name for name in names if not any(is_called(fault, name) for fault in faults)]
    if unknown:
        known = sorted({fault.component for fault in faults} | {fault.what for fault in faults})
        raise ValueError(f"no fault is called {', '.join(unknown)}; there are: {', '.join(known)}")
    return [fault for fault in faults if any(is_called(fault, name) for name in names)]


def is_called(fault, name):
    return fault.component == name or fault.what.startswith(name)


class Drill:
    def __init__(self, ledger, faults, seed, say=None):
        self.ledger = ledger
        self.faults = faults
        self.seed = seed
        self.chance = random.Random(seed)
        self.say = say or (lambda text: print(text, file=sys.stderr, flush=True))
        self.broken = []
        self.standing = None  # the fault that has begun and not ended, and since when
        self.began = None
        self.waiters = []
        self.ended = None     # when no more was sent
        self.end_seconds = None  # from then until all had come and no node had mail
        self.stuck = []       # what each node says, if that did not come
        self.by_hand = []     # who was made leader so
        self.over = threading.Event()

    def now(self):
        return round(time.monotonic() - self.began, 2)

    def run(self, seconds, every):
        """Each `every` seconds one component; whole again after 0.2 to 0.7 of that."""
        self.began = time.monotonic()
        turns = max(1, int(seconds / every))
        for turn in range(turns):
            self.sleep_until((turn + 0.1) * every)
            self.begin(self.choose())
            self.sleep_until((turn + 0.1 + self.chance.uniform(0.2, 0.7)) * every)
            self.restore()
        self.sleep_until(seconds)

    def choose(self):
        """Every component is as likely as any other, whatever can be done to it."""
        component = self.chance.choice(sorted({fault.component for fault in self.faults}))
        return self.chance.choice([f for f in self.faults if f.component == component])

    def sleep_until(self, at):
        time.sleep(max(0, self.began + at - time.monotonic()))

    def begin(self, fault):
        if self.began is None:
            self.began = time.monotonic()
        self.broken.append(Broken(fault.component, fault.what, self.now()))
        self.tell(f"{fault.component}: {fault.what}")
        self.standing = fault, time.time()
        try:
            fault.begin()
        except Exception as error:
            self.fail("cannot be broken", error)

    def fail(self, what, error):
        """The drill goes on, and the report has it."""
        self.broken[-1].error = f"{what}: {error!r}"[:500]
        self.tell(f"{self.broken[-1].component}: {self.broken[-1].error}")

    def restore(self):
        """What is broken is made whole again."""
        if self.standing is None:
            return
        (fault, since), self.standing = self.standing, None
        try:
            if fault.end is not None:
                fault.end()
        except Exception as error:
            self.fail("does not come back", error)
        self.broken[-1].until = self.now()
        self.tell(f"{fault.component}: again without fault")
        if fault.server is not None:
            waiter = threading.Thread(target=self.wait_told, args=(fault, since, time.time()))
            self.waiters.append(waiter)
            waiter.start()

    def wait_told(self, fault, since, mended):
        heard = mended
        while fault.told is not None and time.time() < mended + TOLD_SECONDS:
            if (told := fault.told(mended)) is not None:
                heard = told
                break
            time.sleep(0.1)
        self.ledger.been_away(fault.server, since, heard)
        self.ledger.note("drill", "-", f"{fault.component}: told the others "
                                       f"{heard - mended:.2f} s after it could")

    def tell(self, text):
        self.ledger.note("drill", "-", text)
        self.say(f"{self.now():8.1f} s  {text}; acknowledged {self.ledger.acknowledged()}")

    def mind(self, databases):
        """From now until the report."""
        def look():
            last = time.monotonic()
            while not self.over.wait(2):
                if any(database.leads() for database in databases):
                    last = time.monotonic()
                elif time.monotonic() > last + LEADERLESS_SECONDS:
                    self.lead(databases)
                    last = time.monotonic()
        threading.Thread(target=look, daemon=True).start()

    def lead(self, databases):
        try:
            name = databases.lead_by_hand()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            self.tell(f"Patroni elects nobody, nor by hand: {error!r}"[:500])
        else:
            if name is not None:
                self.by_hand.append(name)
                self.tell(f"Patroni elects nobody: {name} was made leader by hand")

    def finish(self, nodes, seconds=180):
        """No more mail; what is under way gets so long to arrive."""
        self.ended = time.monotonic()
        until = self.ended + seconds
        self.ledger.stop(seconds / 3)
        while self.ledger.missing() or not all(has_ended(node) for node in nodes):
            if time.monotonic() > until:
                self.stuck = [what_it_says(node) for node in nodes]
                return
            time.sleep(0.2)
        self.end_seconds = round(time.monotonic() - self.ended, 2)

    def report(self):
        self.over.set()
        for waiter in self.waiters:
            waiter.join(2 * TOLD_SECONDS)
        return Report(self, self.ledger.verdict())


def ask(node, *words):
    """What it answers; None: nothing in time."""
    try:
        return node.tool(*words, check=False, seconds=ASK_SECONDS).stdout
    except subprocess.TimeoutExpired:
        return None


def has_ended(node):
    """It has no mail; what is held after three doubts is released by hand."""
    try:
        status = json.loads(ask(node, "status", "--json") or "")
    except ValueError:
        return False
    if status["queue"].get("held"):
        ask(node, "queue", "release", "--all", "--local")
    return is_empty(status)


def what_it_says(node):
    said = {words: ask(node, *words) for words in
            (("status",), ("node", "list"), ("queue", "list", "--local"))}
    return f"--- {node.root.parent.name} has mail still, or others wait for what it had\n" + "".join(
        f"{' '.join(words)}: " + ("no answer\n" if text is None else "\n" + cut(text))
        for words, text in said.items())


def cut(text, lines=25):
    rows = text.splitlines()
    return "\n".join(rows[:lines] + ["..."] * (len(rows) > lines)) + "\n"


class Report:
    def __init__(self, drill, verdict):
        self.seed = drill.seed
        self.seconds = drill.now()
        self.broken = drill.broken
        self.end_seconds = drill.end_seconds
        self.stuck = drill.stuck
        self.by_hand = drill.by_hand
        self.verdict = verdict
        self.wrong = verdict.wrong()
        if dead := [b.component for b in drill.broken if b.error]:
            self.wrong["not_restored"] = dead
        if drill.stuck:
            self.wrong["not_empty"] = True

    def as_json(self):
        return {"seed": self.seed, "seconds": self.seconds, "passed": not self.wrong,
                "wrong": self.wrong, "faults": [dataclasses.asdict(b) for b in self.broken],
                "end_seconds": self.end_seconds, "stuck": self.stuck, "by_hand": self.by_hand,
                "mail": self.verdict.numbers()}

    def text(self):
        counted = {}
        for broken in self.broken:
            key = broken.component, broken.what
            counted[key] = counted.get(key, 0) + 1
        width = max((len(component) for component, _ in counted), default=0)
        rows = [f"{component:{width}}  {what:36} {times} times"
                for (component, what), times in sorted(counted.items())]
        if self.by_hand:
            rows.append(f"Patroni elected nobody, leader by hand: {', '.join(self.by_hand)}")
        ending = "Nothing acknowledged was lost, doubled without need, or out of order." \
            if not self.wrong else f"WRONG: {self.wrong}"
        return "\n".join([f"{len(self.broken)} faults in {self.seconds:.0f} s (seed {self.seed})",
                          *rows, "", self.verdict.text(), *self.end(), "", ending, *self.stuck])

    def end(self):
        if self.end_seconds is None:
            return []
        return [f"{'end seconds':28} {self.end_seconds}"]

    def check(self):
        assert not self.wrong, self.text()
