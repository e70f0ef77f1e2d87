# SPDX-License-Identifier: Apache-2.0
"""A server with a cold standby: the script that starts it is run when the server stays away, and
only then, and once, whatever dies meanwhile; the one that ends it when the server is back."""

import json
import re
import socket
import urllib.request

import pytest

from daemon import alive, backup_mx, kill, kill_family
from peers import free_port, wait_for
from test_hooks import recorder, runs, script

LONG = 60  # the machine may be busy


def guard_of(mx, name="m1"):
    return next(g for g in mx.status()["guards"] if g["server"] == name)


def wait_state(mx, *states, name="m1", seconds=LONG):
    wait_for(lambda: guard_of(mx, name)["state"] in states, seconds, 0.1, f"the guard: {states}")
    return guard_of(mx, name)


def block(more="", after="1s", name="m1"):
    return f"guard {name} {{ after = {after}  {more} }}\n"


def alerts(mx):
    return {a["kind"]: a["text"] for a in mx.status()["alerts"] if a["subject"] == "m1"}


class Machine:
    """The own address of a machine. Off: no answer at all, not even a refusal."""

    def __init__(self, on=True):
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.at = "%s:%d" % self.listener.getsockname()
        self.fillers = []
        self.listener.listen(128)
        if not on:
            self.off()

    def off(self):
        """A queue that is full drops what comes."""
        self.drain()
        self.listener.listen(0)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self.listener.getsockname())
            self.fillers.append(filler)

    def on(self):
        self.close_fillers()
        self.listener.listen(128)
        self.drain()

    def drain(self):
        self.listener.setblocking(False)
        try:
            while True:
                self.listener.accept()[0].close()
        except BlockingIOError:
            pass

    def close_fillers(self):
        for filler in self.fillers:
            filler.close()
        self.fillers = []

    def end(self):
        self.close_fillers()
        self.listener.close()


@pytest.fixture
def machine():
    made = []

    def make(on=True):
        made.append(Machine(on))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_the_standby_is_started_once_and_ended_by_hand(holdfast, sink, place):
    m1 = sink()
    start, started = recorder(place, "start")
    undo, undone = recorder(place, "undo")
    program, told = recorder(place, "people")
    mx = holdfast(backup_mx(m1.port) + block(f'start = "{start}" undo = "{undo}"')
                  + f'alert people {{ on = guard exec = "{program}" }}\n')
    wait_state(mx, "watching")
    m1.stop()
    mx.send()
    wait_state(mx, "taken-over")
    run, = runs(started)
    assert (run["HOLDFAST_EVENT"], run["HOLDFAST_SERVER"]) == ("start", "m1")
    assert run["HOLDFAST_ADDRESS"] == f"127.0.0.1:{m1.port}"
    assert run["HOLDFAST_HOSTNAME"] == "mx2.example.net"
    assert (run["HOLDFAST_BY"], run["HOLDFAST_TRY"]) == ("itself", "1")
    assert run["HOLDFAST_REASON"] and int(run["HOLDFAST_SINCE"]) == guard_of(mx)["down_since"]
    assert guard_of(mx)["output"] == "told"
    wait_for(lambda: "the standby of m1 was started by script: told" in alerts(mx).get("guard", ""),
             LONG, what="the alert")
    assert alerts(mx)["guard"].endswith("; holdfast guard undo m1 ends it")
    text = mx.tool("status").stdout
    assert re.search(r"Guard +m1: taken-over for .*the standby of m1 was started by script", text)

    standby = sink(port=m1.port)  # it has m1's address
    mx.wait_empty()
    assert len(standby.messages) == 1
    wait_for(lambda: mx.server_state("m1") == "up", LONG)
    mx.stop()
    mx.start()
    wait_state(mx, "taken-over")  # a restart neither forgets it nor runs anything
    wait_for(lambda: mx.server_state("m1") == "up", LONG)
    assert len(runs(started)) == 1 and runs(undone) == []

    row, = mx.lines("guard", "undo", "m1", check=True)
    assert row["state"] in ("undoing", "resting") and row["by_hand"]
    wait_state(mx, "resting", "watching")
    run, = runs(undone)
    assert (run["HOLDFAST_EVENT"], run["HOLDFAST_BY"]) == ("undo", "hand")
    wait_state(mx, "watching")  # m1 is up
    assert "guard" not in alerts(mx)
    history = [(e["from"], e["to"]) for e in mx.lines("server", "history", "m1")
               if e["event"] == "guard"]
    assert history[:3] == [("resting", "watching"), ("counting", "starting"),
                           ("starting", "taken-over")]
    assert ("taken-over", "undoing") in history and ("undoing", "resting") in history
    wait_for(lambda: [r["HOLDFAST_EVENT"] for r in runs(told)][-1:] == ["standby-ended"], LONG)
    assert "standby-started" in [r["HOLDFAST_EVENT"] for r in runs(told)]
    mx.stop()


def test_nothing_is_run_for_a_server_that_was_taken_out_or_never_seen(holdfast, sink, place):
    """Of m1 an operator has said so; m2 was never up: its address may be wrong."""
    m1, m3 = sink(), sink()
    start, started = recorder(place, "start")
    names = block(f'start = "{start}"'), block(f'start = "{start}"', name="m2"), \
        block(f'start = "{start}"', name="m3")
    mx = holdfast(backup_mx(m1.port, free_port(), m3.port) + "".join(names))
    wait_state(mx, "watching")
    wait_state(mx, "watching", name="m3")
    mx.tool("server", "down", "m1")
    m1.stop()
    wait_for(lambda: mx.server_state("m2") == "down", LONG)
    m3.stop()
    wait_state(mx, "taken-over", name="m3")  # later than theirs would have been
    assert guard_of(mx)["state"] == "watching" and guard_of(mx, "m2")["state"] == "resting"
    assert [run["HOLDFAST_SERVER"] for run in runs(started)] == ["m3"]
    assert "nothing is counted before m2 has been up" in mx.tool("guard", "list").stdout


def test_a_mistyped_address_starts_nothing(holdfast, sink, place):
    """As it may come from the settings of a cluster: the guard is for where the server was seen."""
    m1, m2 = sink(), sink()
    start, started = recorder(place, "start")
    guards = block(f'start = "{start}"') + block(f'start = "{start}"', name="m2")
    mx = holdfast(backup_mx(m1.port, m2.port) + guards)
    wait_state(mx, "watching")
    wait_state(mx, "watching", name="m2")
    mx.configure(backup_mx(free_port(), m2.port) + guards)
    mx.reload()
    wait_for(lambda: mx.server_state("m1") == "down", LONG)
    m2.stop()
    wait_state(mx, "taken-over", name="m2")  # later than m1's would have been
    assert guard_of(mx)["state"] == "resting"
    assert [run["HOLDFAST_SERVER"] for run in runs(started)] == ["m2"]
    # Mended: it is as before, and m1 does go now.
    m1.stop()
    mx.configure(backup_mx(m1.port, m2.port) + guards)
    mx.reload()
    wait_state(mx, "taken-over")
    assert [run["HOLDFAST_SERVER"] for run in runs(started)] == ["m2", "m1"]


def test_the_machine_of_the_server_decides(holdfast, sink, place, machine):
    """While it answers nothing is started; when it is back the standby is ended by itself."""
    m1, own = sink(), machine()
    start, started = recorder(place, "start")
    undo, undone = recorder(place, "undo")
    mx = holdfast(backup_mx(m1.port)
                  + block(f'start = "{start}" undo = "{undo}" watch = "{own.at}" '
                          'undo-when = watch back-after = 1s'))
    wait_state(mx, "watching")
    m1.stop()
    wait_state(mx, "blocked")
    assert "its machine answers at a watch address" in alerts(mx)["guard-failed"]
    assert alerts(mx)["guard-failed"].endswith("; holdfast guard start m1 starts it all the same")
    assert runs(started) == []
    own.off()
    wait_state(mx, "taken-over")
    wait_for(lambda: set(alerts(mx)) == {"guard", "server"}, LONG, what="the alerts then")
    sink(port=m1.port)
    wait_for(lambda: mx.server_state("m1") == "up", LONG)
    assert runs(undone) == []  # it is the standby that answers there
    own.on()
    wait_state(mx, "resting", "watching")
    assert [run["HOLDFAST_BY"] for run in runs(undone)] == ["itself"]
    assert len(runs(started)) == 1


def test_who_is_cut_off_starts_nothing(holdfast, sink, place, machine):
    m1, router = sink(), machine(on=False)
    start, started = recorder(place, "start")
    mx = holdfast(backup_mx(m1.port) + block(f'start = "{start}" witness = "{router.at}"'))
    wait_state(mx, "watching")
    m1.stop()
    wait_state(mx, "blocked")
    assert "we may be the ones cut off" in alerts(mx)["guard-failed"]
    assert runs(started) == []
    router.on()
    wait_state(mx, "taken-over")
    assert len(runs(started)) == 1


def test_a_standby_with_an_address_of_its_own_ends_when_the_server_is_up(holdfast, sink, place):
    m1 = sink()
    m2 = sink(start=False)
    start, started = recorder(place, "start")
    undo, undone = recorder(place, "undo")
    mx = holdfast(backup_mx(m1.port, m2.port)
                  + block(f'start = "{start}" undo = "{undo}" undo-when = server back-after = 1s'))
    wait_state(mx, "watching")
    m1.stop()
    mx.send()
    wait_state(mx, "taken-over")
    m2.start()  # the standby
    wait_for(lambda: len(m2.messages) == 1, LONG, what="mail at the standby")
    assert runs(undone) == []
    m1.start()
    wait_state(mx, "watching")
    assert len(runs(undone)) == 1 and len(runs(started)) == 1


def test_a_script_that_fails_waits_for_people(holdfast, sink, place):
    m1 = sink()
    count = place / "count"
    start = script(place, "start", f'echo run >> {count}\necho "no power switch" >&2\nexit 3\n')
    mx = holdfast(backup_mx(m1.port) + block(f'start = "{start}"'))
    count.touch()
    count.chmod(0o666)
    wait_state(mx, "watching")
    m1.stop()
    wait_state(mx, "start-failed")
    assert guard_of(mx)["output"] == "exit status 3: no power switch"
    assert "has failed; what it has done is not known: exit status 3" in alerts(mx)["guard-failed"]
    assert alerts(mx)["guard-failed"].endswith(
        "; holdfast guard start m1 tries again, undo ends it, reset forgets it")
    assert 'state=start-failed' in mx.log() and "no power switch" in mx.log()
    m1.start()
    wait_for(lambda: mx.server_state("m1") == "up", LONG)
    mx.stop()
    mx.start()
    m1.stop()
    mx.send()
    wait_for(lambda: mx.server_state("m1") == "down", LONG)
    assert guard_of(mx)["state"] == "start-failed" and "guard-failed" in alerts(mx)
    assert count.read_text() == "run\n"
    page = urllib.request.urlopen(f"http://127.0.0.1:{mx.http_port}/metrics", timeout=60)
    assert 'holdfast_guard_state{server="m1",state="start-failed"} 1' in page.read().decode()
    mx.tool("guard", "reset", "m1")
    assert guard_of(mx)["state"] == "resting" and mx.tool("guard", "undo", "m1", check=False) \
        .returncode == 1
    wait_for(lambda: "guard-failed" not in alerts(mx), LONG)
    mx.tool("guard", "start", "m1")
    wait_state(mx, "start-failed")
    assert count.read_text() == "run\nrun\n"


def test_a_script_that_hangs_is_killed(holdfast, sink, place):
    m1 = sink()
    pid = place / "pid"
    pid.touch()
    pid.chmod(0o666)
    start = script(place, "start", f"sleep 1000 & echo $! $$ > {pid}\nwait\n")
    mx = holdfast(backup_mx(m1.port) + block(f'start = "{start}" timeout = 1s'))
    wait_state(mx, "watching")
    mx.tool("guard", "start", "m1")
    wait_state(mx, "start-failed")
    assert guard_of(mx)["output"] == "killed: it took too long"
    wait_for(lambda: not any(alive(int(p)) for p in pid.read_text().split()), LONG)


def slow_script(place, name="start"):
    """It counts its runs, and goes on when it may."""
    count, go = place / "count", place / "go"
    count.touch()
    count.chmod(0o666)
    place.chmod(0o755)
    return script(place, name, f"echo run >> {count}\n"
                  f"while [ ! -e {go} ]; do sleep 0.1; done\necho done\n"), count, go


def begun(mx, count):
    wait_for(lambda: count.read_text() == "run\n", LONG, what="the script's beginning")
    assert guard_of(mx)["state"] == "starting" and guard_of(mx)["running"]


def test_core_may_die_while_the_script_runs(holdfast, sink, place):
    """Who runs it remembers, and tells the next core how it ended."""
    m1 = sink()
    start, count, go = slow_script(place)
    mx = holdfast(backup_mx(m1.port) + block(f'start = "{start}"'))
    wait_state(mx, "watching")
    m1.stop()
    begun(mx, count)
    core, = mx.processes()["holdfast-core"]
    kill(core)
    wait_for(lambda: not alive(core), LONG)
    wait_for(lambda: mx.tool("status", check=False).returncode == 0, LONG, 0.2)
    wait_state(mx, "starting")
    go.touch()
    assert wait_state(mx, "taken-over")["output"] == "done"
    assert count.read_text() == "run\n"


@pytest.mark.parametrize("who", ["all", "runner", "stop"])
def test_a_script_whose_end_nobody_knows_is_not_run_again(holdfast, sink, place, who):
    m1 = sink()
    start, count, go = slow_script(place)
    undo, undone = recorder(place, "undo")
    mx = holdfast(backup_mx(m1.port) + block(f'start = "{start}" undo = "{undo}"'))
    wait_state(mx, "watching")
    m1.stop()
    begun(mx, count)
    if who == "all":
        kill_family(mx.child)
        mx.start()
    elif who == "stop":
        mx.stop()
        mx.start()
    else:
        for pid in mx.processes()["holdfast-runner"]:
            kill(pid)
    wait_state(mx, "start-failed")
    assert "how it ended is not known" in guard_of(mx)["output"]
    go.touch()
    assert count.read_text() == "run\n" and runs(undone) == []
    mx.tool("guard", "undo", "m1")
    wait_state(mx, "resting")
    assert len(runs(undone)) == 1


def test_reloads_leave_a_takeover_as_it_is(holdfast, sink, place):
    m1 = sink()
    start, count, go = slow_script(place)
    program, told = recorder(place, "people")
    routes = backup_mx(m1.port) + f'alert people {{ on = guard exec = "{program}" }}\n'
    mx = holdfast(routes)
    assert mx.lines("guard", "list") == [] and "no guards" in mx.tool("guard", "list").stdout

    def reload(text):
        before = mx.log().count("reloaded")
        mx.configure(text)
        mx.reload()
        wait_for(lambda: mx.log().count("reloaded") > before, LONG, what="the reload")

    reload(routes + block(f'start = "{start}"'))
    wait_state(mx, "watching")
    m1.stop()
    begun(mx, count)
    reload(routes + block(f'start = "{start}"', after="2s"))
    go.touch()
    wait_state(mx, "taken-over")
    reload(routes)
    assert mx.status()["guards"] == []
    wait_for(lambda: "guard" not in alerts(mx), LONG)
    wait_for(lambda: [(r["HOLDFAST_EVENT"], r["HOLDFAST_TEXT"]) for r in runs(told)][1:]
             == [("guard-removed", "m1 has no guard block any more")], LONG, what="word of that")
    reload(routes + block(f'start = "{start}"'))
    wait_state(mx, "taken-over")
    assert count.read_text() == "run\n"


def test_only_who_may_change_things_may_start_a_standby(holdfast, sink, place):
    m1 = sink()
    start, started = recorder(place, "start")
    mx = holdfast(backup_mx(m1.port) + block(f'start = "{start}"'))
    wait_state(mx, "watching")
    answer = mx.tool("guard", "start", "m2", check=False)
    assert answer.returncode == 1 and "no such guard" in answer.stderr
    assert mx.tool("guard", "start", check=False).returncode == 2
    rows = json.loads(mx.tool("status", "--json").stdout)["guards"]
    assert rows == [guard_of(mx)] and rows[0]["undo_when"] == "manual"
    assert runs(started) == []
