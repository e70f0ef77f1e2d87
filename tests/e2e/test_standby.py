# SPDX-License-Identifier: Apache-2.0
"""Two machines share a state directory, and one of them works: here two daemons on one machine, of
which each knows the other by name alone."""

import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile

import pytest

from daemon import backup_mx, family, kill
from faults import Injected, fill
from peers import free_port, greets, wait_for

AFTER = 4


@pytest.fixture(autouse=True)
def _known(place):
    """Where the machines remember their state: on another file system than that, as it must be."""
    here = os.stat(place).st_dev
    other = [path for path in ("/dev/shm", "/tmp", "/var/tmp", "/run")
             if os.access(path, os.W_OK) and os.stat(path).st_dev != here]
    if not other:
        pytest.skip("there is but one file system")
    Pair.known = tempfile.mkdtemp(prefix="holdfast-known-", dir=other[0])
    yield
    shutil.rmtree(Pair.known)


class Pair:
    """a and b, with one state directory and one primary."""

    known = None

    def __init__(self, holdfast, place, **more):
        self.place = place
        self.primary = free_port()
        self.events = place / "events"
        self.events.touch()
        self.a = self.make(holdfast, "a", "b", more)
        self.b = self.make(holdfast, "b", "a", more)

    def make(self, holdfast, name, of, more):
        daemon = holdfast("", name=name, start=False)
        daemon.state = self.place / "shared"
        keys = more.get(name, "")
        daemon.configure(backup_mx(self.primary, more="retry = {1s}") +
                         f'standby {{ name = {name}  of = {of}  after = {AFTER}s\n'
                         f'known-state = "{self.known}"\n{keys} }}\n')
        return daemon

    def start(self):
        """a works, b stands by."""
        self.a.start()
        self.b.start(wait=False)
        wait_for(lambda: self.seen(self.b)["role"] == "standby", 60, 0.1, "b standing by")
        return self

    @staticmethod
    def seen(daemon):
        result = daemon.tool("standby", "status", "--json", check=False)
        return json.loads(result.stdout) if result.returncode == 0 else {"role": "none"}

    def program(self, name, body=""):
        """One that writes down what it was run for."""
        path = self.place / name
        path.write_text(f'#!/bin/sh\necho "$HOLDFAST_STANDBY_NAME $HOLDFAST_STANDBY_EVENT" '
                        f'>> {self.events}\n{body}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    def told(self):
        return self.events.read_text().split("\n")[:-1]


def works(daemon):
    return daemon.child is not None and daemon.child.poll() is None and greets(daemon.port)


def wait_works(daemon, seconds=90):
    wait_for(lambda: works(daemon), seconds, 0.1, f"{daemon.root.name} at work")


def kinds(daemon):
    return {alert["kind"] for alert in daemon.status()["alerts"]}


def number(n):
    return f"Subject: {n}\r\n\r\nHello.\r\n".encode()


def numbers(hop):
    return [int(m.content.split(b"Subject: ")[1].split(b"\r\n")[0]) for m in hop.messages]


def test_a_dead_machine_is_taken_over_from(holdfast, place, sink):
    """kill -9 of all of it: what it had accepted is delivered by the other one, in order, once."""
    pair = Pair(holdfast, place).start()
    for n in range(10):
        pair.a.send(content=number(n))
    assert not greets(pair.b.port)
    pair.a.kill()
    wait_works(pair.b)
    status = pair.b.status()["standby"]
    assert (status["role"], status["name"], status["unfenced"], status["taken_over"]) == \
        ("active", "b", True, True)
    for n in range(10, 15):
        pair.b.send(content=number(n))
    hop = sink(port=pair.primary)
    pair.b.wait_empty()
    assert numbers(hop) == list(range(15))
    wait_for(lambda: {"taken-over", "unfenced"} <= kinds(pair.b), 60, 0.2, "both alerts")
    # It is repaired, and stands by: it knows that its earlier life is over, and so does b then.
    pair.a.start(wait=False)
    wait_for(lambda: not pair.b.status()["standby"]["unfenced"], 60, 0.2, "a's word")
    wait_for(lambda: "taken-over" not in kinds(pair.b), 60, 0.2, "the end of the alert")
    assert not greets(pair.a.port)


def test_both_started_at_once(holdfast, place, sink):
    hop = sink()
    pair = Pair(holdfast, place)
    pair.a.start(wait=False)
    pair.b.start(wait=False)
    wait_for(lambda: works(pair.a) or works(pair.b), 60, 0.1, "one of them")
    active, other = (pair.a, pair.b) if works(pair.a) else (pair.b, pair.a)
    for n in range(5):
        active.send(content=number(n))
    wait_for(lambda: pair.seen(other)["role"] == "standby", 60, 0.1, "the other one")
    assert not greets(other.port)
    assert sorted(p.name for p in (place / "shared/standby").glob("lease-*")) == ["lease-000001"]
    hop.stop()


def test_takeover_and_back_by_command(holdfast, place, sink):
    """In order: nobody waits for `after`, programs are run in order, nothing comes twice."""
    pair = Pair(holdfast, place)
    keys = "\n".join(f'{key} = "{pair.program(key)}"'
                     for key in ("before-takeover", "after-takeover", "after-release", "fence"))
    pair = Pair(holdfast, place, a=keys, b=keys)
    pair.start()
    for n in range(5):
        pair.a.send(content=number(n))
    assert pair.a.tool("standby", "takeover", check=False).returncode == 1
    pair.b.tool("standby", "takeover", seconds=240)
    wait_works(pair.b)
    assert not pair.b.status()["standby"]["taken_over"]
    assert not pair.b.status()["standby"]["unfenced"]
    pair.b.send(content=number(5))
    wait_for(lambda: "b after-takeover" in pair.told(), 60, 0.1, "b's programs")
    assert not greets(pair.a.port)
    assert pair.a.tool("standby", "back", check=False).returncode == 1
    pair.b.tool("standby", "back", seconds=240)
    wait_works(pair.a)
    pair.a.send(content=number(6))
    hop = sink(port=pair.primary)
    pair.a.wait_empty()
    assert numbers(hop) == list(range(7))
    wait_for(lambda: pair.told().count("a after-takeover") == 2, 60, 0.1, "a's programs")
    told = pair.told()
    assert "a fence" not in told and "b fence" not in told
    for name, events in (("a", ["before-takeover", "after-takeover", "after-release"]),
                         ("b", ["before-takeover", "after-takeover", "after-release"])):
        assert [e for e in told if e.startswith(name)][:3] == [f"{name} {e}" for e in events]
    # Who hands over has stopped before the other one begins.
    assert told.index("a after-release") > told.index("a after-takeover")


def test_a_machine_that_was_stopped_stops_by_itself(holdfast, place, sink):
    """All of it is frozen for longer than `after`, a client at its dot, and wakes: no 250, and not an
    octet written to what was its."""
    pair = Pair(holdfast, place).start()
    pair.a.send(content=number(0))
    with pair.a.dialogue() as dialogue:
        dialogue.envelope("bob@client.example", ["ann@example.com"])
        dialogue.must("DATA", 3)
        frozen = family(pair.a.child.pid)
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            wait_works(pair.b)
            segments = {p: p.read_bytes() for p in (place / "shared/spool").glob("*-000001*")}
            dialogue.socket.sendall(number(1) + b".\r\n")
        finally:
            for pid in reversed(frozen):
                os.kill(pid, signal.SIGCONT)
        assert segments
        assert not answer_of(dialogue).startswith(b"250")
    wait_for(lambda: "lease-lost" in pair.a.log(), 60, 0.1, "a's insight")
    wait_for(lambda: pair.seen(pair.a)["role"] == "standby", 60, 0.1, "a standing by")
    assert {p: p.read_bytes() for p in segments} == segments
    hop = sink(port=pair.primary)
    wait_for(lambda: numbers(hop) == [0], 60, 0.1, "what was accepted, once")
    pair.b.wait_empty()
    wait_for(lambda: not pair.b.status()["standby"]["unfenced"], 60, 0.2, "a's word")


def answer_of(dialogue):
    dialogue.socket.settimeout(60)
    try:
        return dialogue.socket.recv(4096)
    except OSError:
        return b""


def test_fence_comes_first(holdfast, place):
    """While it fails nothing is taken over; with it nobody is unfenced."""
    flag = place / "may"
    pair = Pair(holdfast, place)
    fence = pair.program("fence", f"test -e {flag}")
    before = pair.program("before")
    pair = Pair(holdfast, place, b=f'fence = "{fence}"\nbefore-takeover = "{before}"').start()
    pair.a.kill()
    wait_for(lambda: pair.told() == ["b fence"], 60, 0.1, "fence")
    wait_for(lambda: "fence has failed" in pair.b.log(), 60, 0.1, "its failure")
    assert not greets(pair.b.port)
    wait_for(lambda: pair.seen(pair.b).get("problem") == "fence has failed", 60, 0.1, "status")
    text = pair.b.tool("standby", "status").stdout
    assert "It could not take over: fence has failed" in text, text
    flag.touch()
    wait_works(pair.b)
    seen = pair.seen(pair.b)
    assert seen["problem"] is None and seen["since"] == pair.b.status()["standby"]["since"], seen
    told = pair.told()
    assert told[-2:] == ["b fence", "b before-takeover"] and len(told) >= 3
    assert not pair.b.status()["standby"]["unfenced"]


def test_a_program_that_fails_stops_a_takeover(holdfast, place):
    """And what it has begun is undone; it is tried again."""
    flag = place / "may"
    pair = Pair(holdfast, place)
    before = pair.program("before", f"test -e {flag}")
    release = pair.program("release")
    pair = Pair(holdfast, place,
                b=f'before-takeover = "{before}"\nafter-release = "{release}"').start()
    pair.a.kill()
    wait_for(lambda: pair.told()[:2] == ["b before-takeover", "b after-release"], 60, 0.1,
             "both programs")
    assert not greets(pair.b.port)
    wait_for(lambda: pair.seen(pair.b).get("problem") == "before-takeover has failed", 60, 0.1,
             "status")
    flag.touch()
    wait_works(pair.b)
    assert pair.told()[-1] == "b before-takeover"


def test_an_old_sign_of_life_is_none(holdfast, place):
    """a stood by once; that file is still there when it is dead."""
    pair = Pair(holdfast, place).start()
    pair.b.tool("standby", "takeover")
    wait_for(lambda: pair.seen(pair.b)["standing_by"] == ["a"], 60, 0.1, "a standing by")
    pair.b.tool("standby", "back")
    wait_for(lambda: pair.seen(pair.a)["standing_by"] == ["b"], 60, 0.1, "b standing by")
    pair.a.kill()
    wait_works(pair.b)
    wait_for(lambda: "unfenced" in kinds(pair.b), 60, 0.1, "its first words")
    assert pair.b.status()["standby"]["standby_seen_seconds"] is None


def test_ports_that_do_not_answer(holdfast, place):
    """It gives signs of life by the storage, but nobody reaches it: it is asked, and hands over."""
    pair = Pair(holdfast, place, b=f'watch = {{"127.0.0.1:{free_port()}"}}').start()
    wait_works(pair.b)
    assert not pair.b.status()["standby"]["taken_over"]
    wait_for(lambda: not greets(pair.a.port), 60, 0.1, "a's end")


def test_a_late_group_is_adopted(holdfast, place, sink):
    """A write of the dead machine comes to its end after the take-over: its mail is not lost."""
    pair = Pair(holdfast, place).start()
    pair.a.send(content=number(0))
    segment, = (place / "shared/spool").glob("segment-000001*")
    early = segment.read_bytes()
    pair.a.send(content=number(1))
    pair.a.kill()
    late = segment.read_bytes()
    segment.write_bytes(early)  # as the storage had it at first
    wait_works(pair.b)
    wait_for(lambda: len(pair.b.queue()) == 1, 60, 0.1, "the first message")
    with open(segment, "r+b") as file:
        file.write(late)
    wait_for(lambda: len(pair.b.queue()) == 2, 90, 0.2, "the late one")
    wait_for(lambda: "split" in kinds(pair.b), 60, 0.2, "the alert")
    hop = sink(port=pair.primary)
    pair.b.wait_empty()
    assert numbers(hop) == [0, 1]
    # A restart knows of both, too.
    pair.b.stop()
    pair.b.start()
    pair.b.wait_empty()
    assert numbers(hop) == [0, 1]


def test_a_dead_keeper_takes_all_with_it(holdfast, place):
    """kill -9 of the warden alone: the daemon below it ends, and b takes over."""
    pair = Pair(holdfast, place).start()
    everybody = pair.a.pids()
    kill(pair.a.child.pid)
    wait_works(pair.b)
    assert not greets(pair.a.port)
    for pid in everybody:
        kill(pid)
    pair.a.child.wait()
    pair.a.child = None


def test_a_restart_goes_on_at_once(holdfast, place):
    """Stopped in order or killed: the same machine begins again before the other one takes over."""
    pair = Pair(holdfast, place).start()
    pair.a.stop()
    pair.a.start()
    assert pair.a.status()["standby"]["token"] == 2
    pair.a.kill()
    pair.a.start()
    assert pair.a.status()["standby"]["token"] == 3
    assert not pair.a.status()["standby"]["unfenced"]
    assert not greets(pair.b.port)


def without_the_block(holdfast, pair):
    """A third daemon on the same state, whose configuration knows nothing of the others."""
    other = holdfast("", name="c", start=False)
    other.state = pair.a.state
    other.configure(backup_mx(pair.primary))
    return other


def test_a_machine_without_the_block_does_not_start(holdfast, place):
    """While another one has a lease there, alive or dead."""
    pair = Pair(holdfast, place).start()
    other = without_the_block(holdfast, pair)
    other.start(wait=False)
    assert other.child.wait(timeout=60) == 1
    assert "has no standby block" in other.log()
    other.child = None
    assert "works since" in pair.a.tool("status").stdout
    assert "b: standby" in pair.b.tool("standby", "status").stdout


def test_a_machine_without_the_block_is_left_alone(holdfast, place, sink):
    """One that is at work when the others get theirs: no token is taken beside it."""
    pair = Pair(holdfast, place)
    other = without_the_block(holdfast, pair)
    other.start()
    other.send(content=number(0))
    pair.b.start(wait=False)
    wait_for(lambda: "without a standby block" in pair.b.log(), 60, 0.1, "b's refusal")
    assert not greets(pair.b.port)
    assert not list((place / "shared/standby").glob("lease-*"))
    other.send(content=number(1))
    other.stop()
    wait_works(pair.b)
    hop = sink(port=pair.primary)
    pair.b.wait_empty()
    assert numbers(hop) == [0, 1]


def test_a_machine_without_the_block_sees_every_open_lease(holdfast, place):
    """a has died, b worked after it and was stopped: nobody has said yet that a's writes are over."""
    pair = Pair(holdfast, place).start()
    pair.a.kill()
    wait_works(pair.b)
    pair.b.stop()
    other = without_the_block(holdfast, pair)
    other.start(wait=False)
    assert other.child.wait(timeout=60) == 1
    assert "has no standby block" in other.log()
    other.child = None


@pytest.mark.parametrize("line, problem", [
    ("standby { }", "of"),
    ("standby { of = mx2 }", "own name"),
    ("standby { of = B! }", "of"),
    ("standby { of = b  after = 1s }", "after"),
    ('standby { of = b  fence = "relative" }', "absolute"),
    ('standby { of = b  known-state = relative }', "absolute"),
    ('standby { of = b }\ncluster { database = "host=127.0.0.1" }', "without a database"),
    ('standby { of = b  watch = {"example.com:25"} }', "address"),
])
def test_wrong_blocks(holdfast, line, problem):
    daemon = holdfast(backup_mx(free_port()) + line + "\n", start=False)
    result = daemon.tool("check", check=False)
    assert result.returncode == 1 and problem in result.stderr, result.stderr


@pytest.mark.parametrize("meanwhile", ["kept", "delivered"])
def test_a_late_fate_ends_a_delivery(holdfast, place, sink, meanwhile):
    """The dead machine had handed a message over, and that comes to light after the take-over: it is
    not delivered again; if it has been, that is said."""
    pair = Pair(holdfast, place).start()
    pair.a.send(content=number(0))
    segment, = (place / "shared/spool").glob("segment-000001*")
    early = segment.read_bytes()
    hop = sink(port=pair.primary)
    pair.a.wait_empty()
    pair.a.kill()
    late = segment.read_bytes()
    segment.write_bytes(early)
    if meanwhile == "kept":
        hop.stop()
    wait_works(pair.b)
    if meanwhile == "kept":
        wait_for(lambda: len(pair.b.queue()) == 1, 60, 0.1, "the message")
        ended = pair.b.queue()[0]["id"]
    else:
        wait_for(lambda: len(hop.messages) == 2, 60, 0.1, "the second delivery")
        pair.b.wait_empty()
    with open(segment, "r+b") as file:
        file.write(late)
    word = "late-fate" if meanwhile == "kept" else "delivered-twice"
    wait_for(lambda: f" {word} " in pair.b.log(), 90, 0.2, word)
    pair.b.wait_empty()
    assert len(hop.messages) == (1 if meanwhile == "kept" else 2)
    if meanwhile == "kept":
        wait_for(lambda: any("taken over" in str(row)
                             for row in pair.b.lines("trace", ended)), 60, 0.2,
                 "the event")


@pytest.fixture
def small_storage(place):
    """A file system of 600 MB where the pair has its state."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    path = place / "shared"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m,mode=0700", "holdfast-test",
                              str(path)], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs to be had: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def mounted_storage(place):
    """A file system of its own that is mounted where the pair has its state, and how to do that."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    store, path = place / "store", place / "shared"
    store.mkdir()
    path.mkdir()

    def mount():
        subprocess.run(["mount", "--bind", str(store), str(path)], check=True)

    tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m,mode=0700", "holdfast-test",
                            str(store)], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"no tmpfs to be had: {tried.stderr.strip()}")
    mount()
    yield mount
    subprocess.run(["umount", "-l", str(path)], capture_output=True)
    subprocess.run(["umount", "-l", str(store)], check=True)


def test_storage_that_is_not_mounted_is_waited_for(holdfast, place, sink, mounted_storage):
    """A machine comes up, its storage does not: nothing is made in the empty mount point, and nobody
    works there beside the other machine."""
    pair = Pair(holdfast, place).start()
    pair.a.send(content=number(0))
    pair.b.stop()
    pair.a.stop()
    subprocess.run(["umount", str(place / "shared")], check=True)
    pair.b.start(wait=False)
    wait_for(lambda: "is its storage mounted?" in pair.b.log(), 60, 0.1, "b's word")
    said = pair.b.tool("standby", "status", check=False)
    assert said.returncode != 0 and "is its storage mounted?" in said.stderr
    assert pair.b.child.poll() is None and not greets(pair.b.port)
    assert not list((place / "shared").iterdir())
    mounted_storage()
    wait_works(pair.b)
    hop = sink(port=pair.primary)
    pair.b.wait_empty()
    assert numbers(hop) == [0]


def test_a_first_start_waits_for_its_storage(holdfast, place, mounted_storage):
    """Nothing is remembered yet; but what is on the machine's own disk no other machine has."""
    pair = Pair(holdfast, place)
    subprocess.run(["umount", str(place / "shared")], check=True)
    Pair.known, elsewhere = str(place / "known"), Pair.known
    pair.b = pair.make(holdfast, "b", "a", {})
    Pair.known = elsewhere
    pair.b.start(wait=False)
    wait_for(lambda: "is its storage mounted?" in pair.b.log(), 60, 0.1, "b's word")
    said = pair.b.tool("standby", "status", check=False)
    assert said.returncode != 0 and "so no other machine has it" in said.stderr
    assert not list((place / "shared").iterdir()) and not greets(pair.b.port)
    mounted_storage()
    wait_works(pair.b)


def test_storage_that_is_taken_away_ends_the_work(holdfast, place, mounted_storage):
    """Another directory lies at the path: what would be started there would be elsewhere."""
    pair = Pair(holdfast, place).start()
    pair.a.send(content=number(0))
    subprocess.run(["umount", "-l", str(place / "shared")], check=True)
    for daemon in (pair.a, pair.b):
        wait_for(lambda: "another directory lies there now" in daemon.log(), 60, 0.1, "a word")
    wait_for(lambda: " standby-ended " in pair.a.log(), 60, 0.1, "a's end")
    assert not greets(pair.a.port) and not greets(pair.b.port)
    assert not list((place / "shared").iterdir())
    mounted_storage()
    wait_for(lambda: works(pair.a) or works(pair.b), 90, 0.1, "one of them")
    active = pair.a if works(pair.a) else pair.b
    wait_for(lambda: len(active.queue()) == 1, 60, 0.1, "what was accepted")


@pytest.mark.parametrize("how", ["emptied", "removed"])
def test_leases_that_are_removed_end_the_work(holdfast, place, sink, how):
    """Whoever works stops; the next token is above all that the journal knows."""
    pair = Pair(holdfast, place).start()
    pair.a.send(content=number(0))
    leases = place / "shared/standby"
    if how == "removed":
        leases.rename(place / "away")
    else:
        for path in leases.iterdir():
            path.unlink()
    why = "its directory of leases" if how == "removed" else "its file"
    wait_for(lambda: f"{why} has been removed" in pair.a.log(), 60, 0.1, "a's insight")
    wait_for(lambda: " standby-ended " in pair.a.log(), 60, 0.1, "a's end")
    wait_for(lambda: works(pair.a) or works(pair.b), 90, 0.1, "one of them")
    active = pair.a if works(pair.a) else pair.b
    status = active.status()["standby"]
    assert status["token"] >= 2
    active.send(content=number(1))
    hop = sink(port=pair.primary)
    active.wait_empty()
    assert numbers(hop) == [0, 1]
    assert not (works(pair.a) and works(pair.b))


def test_leases_that_are_removed_say_nothing_of_their_end(holdfast, place):
    """The one that worked is dead, and its lease is removed by hand."""
    pair = Pair(holdfast, place).start()
    pair.a.kill()
    for path in (place / "shared/standby").iterdir():
        path.unlink()
    wait_works(pair.b)
    status = pair.b.status()["standby"]
    assert (status["token"], status["unfenced"]) == (2, True)
    pair.b.tool("standby", "fenced", seconds=60)
    wait_for(lambda: not pair.b.status()["standby"]["unfenced"], 60, 0.2, "the word")


def test_a_machine_that_will_not_come_back(holdfast, place):
    """Its hardware is gone, and with it who could say that its life is over: the operator says so."""
    pair = Pair(holdfast, place).start()
    assert pair.a.tool("standby", "fenced", check=False).returncode == 1
    pair.a.kill()
    wait_works(pair.b)
    assert pair.b.status()["standby"]["unfenced"]
    assert "standby fenced" in pair.b.tool("standby", "status").stdout
    pair.b.tool("standby", "fenced", seconds=60)
    wait_for(lambda: not pair.b.status()["standby"]["unfenced"], 60, 0.2, "the word")
    wait_for(lambda: "unfenced" not in kinds(pair.b), 60, 0.2, "the end of the alert")
    assert pair.b.tool("standby", "fenced", check=False).returncode == 1


def test_the_address_is_given_up_though_the_storage_is_dead(holdfast, place):
    """Nothing can be written any more, nor can it be said that it is over."""
    pair = Pair(holdfast, place)
    pair = Pair(holdfast, place, a=f'after-release = "{pair.program("release")}"').start()
    with Injected(pair.a.child.pid, "pwrite64", "delay_enter=1000s"):
        wait_for(lambda: "a after-release" in pair.told(), 90, 0.1, "a's program")
        assert not greets(pair.a.port)
        wait_works(pair.b)
        pair.a.child.terminate()
        wait_for(lambda: " stopped status=0" in pair.a.log(), 90, 0.1, "a's end")
    assert pair.a.child.wait(timeout=90) == 0
    pair.a.child = None


def test_it_may_be_stopped_while_it_takes_over(holdfast, place):
    """SIGTERM while the lease is being taken: it does not work, and has ended."""
    pair = Pair(holdfast, place).start()
    with Injected(pair.b.child.pid, "flock", "delay_enter=10s"):
        pair.a.kill()
        wait_for(lambda: "taking-over" in pair.b.log(), 60, 0.1, "b's beginning")
        pair.b.child.terminate()
        assert pair.b.child.wait(timeout=120) == 0
    assert "standby-works" not in pair.b.log()
    pair.b.child = None
    pair.b.start(wait=False)
    wait_works(pair.b)


def test_full_storage_is_no_death(holdfast, place, small_storage):
    """The lease is renewed in its place: who has no room for mail keeps it, and says so."""
    pair = Pair(holdfast, place).start()
    pair.a.send(content=number(0))

    def full():
        fill(small_storage)
        return not pair.a.status()["accepting"]

    wait_for(full, 60, 0.2, "a's refusal")
    renewed = pair.a.status()["now"]
    wait_for(lambda: pair.a.status()["now"] - renewed > 3 * AFTER * 1000, 60, 0.5, "some time")
    assert pair.a.status()["standby"]["token"] == 1
    assert not greets(pair.b.port)
    assert "lease-lost" not in pair.a.log()
