# SPDX-License-Identifier: Apache-2.0
"""The keeper and its children: crashes, reloads, the end, and the walls around each."""

import grp
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

import inject
from daemon import alive, backup_mx, kill, program
from client import Refused
from load import CONNECTIONS, Load, compare, settle
from peers import end_process, free_port, greets, wait_for

CHILDREN = ("holdfast-core", "holdfast-edge-o", "holdfast-edge-i", "holdfast-web",
            "holdfast-helper", "holdfast-runner", "holdfast-login", "holdfast-direct",
            "holdfast-pam")

FREE = ("holdfast-runner", "holdfast-pam")


def child(mx, name):
    """Its process id; the kernel's list of children may miss one while others come and go."""
    return wait_for(lambda: mx.processes().get(name), 10, what=name)[0]


def pending(pid, number):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"ShdPnd:\s*(\w+)", status)[1], 16) >> (number - 1) & 1


def delivered(hop, subject):
    return subject in hop.subjects()


def subject(text):
    return f"Subject: {text}\r\n\r\nHello.\r\n".encode()


def refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
        return False
    except ConnectionRefusedError:
        return True


def test_all_processes_are_there_from_the_start(holdfast, sink):
    mx = holdfast(backup_mx(sink().port))
    wait_for(lambda: set(CHILDREN) <= set(mx.processes()), 5, what="all children")
    mx.stop()


@pytest.mark.parametrize("name", CHILDREN)
def test_mail_flows_after_the_crash_of(holdfast, sink, name):
    """From client to server, while a child dies again and again; no connection is refused."""
    hop = sink()
    mx = holdfast(backup_mx(hop.port))
    for number in range(3):
        kill(child(mx, name))
        assert not refused(mx.port)

        def accepted():
            try:
                return mx.send(content=subject(f"{number}"))[0] == 250
            except (AssertionError, OSError):
                return False
        wait_for(accepted, 20, 0.1, f"mail taken after the death of {name}")
        wait_for(lambda: delivered(hop, f"{number}"), 20, what="its delivery")
        wait_for(lambda: set(CHILDREN) <= set(mx.processes()), 10, what="all children again")
    assert f"process-died process={name.removeprefix('holdfast-')[:4]}" in mx.log()
    mx.wait_empty()
    mx.stop()


def test_restarts_are_counted(holdfast, sink):
    mx = holdfast(backup_mx(sink().port))
    kill(child(mx, "holdfast-helper"))
    wait_for(lambda: "process-died process=helper" in mx.log(), 5, what="word of the death")
    wait_for(lambda: "holdfast-helper" in mx.processes(), 5, what="the helper again")
    address = f"http://127.0.0.1:{mx.http_port}/metrics"
    with urllib.request.urlopen(address, timeout=5) as page:
        assert re.search(rb"^holdfast_process_restarts_total 1$", page.read(), re.M)
    mx.stop()


def test_what_a_dying_core_had_acknowledged_is_delivered(holdfast, sink):
    """core dies while messages are on their way in; each 250 is a delivery, the rest got no 250."""
    hop = sink()
    mx = holdfast(backup_mx(hop.port))
    acknowledged = []
    ending = threading.Event()

    def load(client):
        for number in range(10000):
            if ending.is_set():
                return
            name = f"{client}-{number}"
            try:
                if mx.send(content=subject(name))[0] == 250:
                    acknowledged.append(name)
            except (AssertionError, OSError):
                pass

    clients = [threading.Thread(target=load, args=(client,)) for client in range(3)]
    for client in clients:
        client.start()
    for _ in range(4):
        before = len(acknowledged)
        wait_for(lambda: len(acknowledged) > before + 20, 20, what="mail taken")
        kill(child(mx, "holdfast-core"))
    ending.set()
    for client in clients:
        client.join()
    wait_for(lambda: set(acknowledged) <= set(hop.subjects()), 30, what="all that was acknowledged")
    mx.wait_empty()
    # edge-out kept what core had not confirmed, so nothing is in doubt.
    assert len(hop.subjects()) == len(set(hop.subjects())), "nothing twice"
    mx.stop()


def test_without_the_keeper_nobody_stays(holdfast, sink):
    hop = sink(start=False)
    mx = holdfast(backup_mx(hop.port))
    mx.send(content=subject("kept"))
    children = mx.pids()[1:]
    mx.child.kill()
    mx.child.wait()
    mx.child = None
    wait_for(lambda: not any(alive(pid) for pid in children), 5, what="the children's end")
    hop.start()
    mx.start()
    wait_for(lambda: delivered(hop, "kept"), 20, what="what was kept")
    mx.stop()


def test_a_second_daemon_says_who_is_first(holdfast, sink, place):
    mx = holdfast(backup_mx(sink().port))
    second = subprocess.run([program("holdfastd"), "-c", str(mx.conf)], capture_output=True,
                            text=True, timeout=20)
    assert second.returncode == 1
    assert "another holdfastd uses this state directory" in second.stderr
    assert f"pid={mx.child.pid}" in second.stderr
    assert greets(mx.port)
    mx.stop()


RING_IN_SIZES = (8 << 20, 1 << 20)  # service/channel.h
RING_OUT_SIZES = (1 << 20, 1 << 20)


def ring_memory(mx, wanted):
    """The memory of the first ring with these sizes, as the keeper holds it (sys/ring.c)."""
    for fd in pathlib.Path(f"/proc/{mx.child.pid}/fd").iterdir():
        if "holdfast-ring" in os.readlink(fd):
            memory = os.open(fd, os.O_RDWR)
            if struct.unpack("<QQ", os.pread(memory, 16, 8)) == wanted:
                return memory
            os.close(memory)
    raise AssertionError("the keeper holds no such ring")


HEADS = {"the edge": 64, "core": 192}  # where in that memory each one's own position lies


@pytest.mark.parametrize("who", HEADS)
@pytest.mark.parametrize("name, sizes", (("edge-in", RING_IN_SIZES), ("edge-out", RING_OUT_SIZES)))
def test_an_edge_with_a_broken_ring_is_replaced(holdfast, sink, name, sizes, who):
    """Whoever broke it; core is never replaced at an edge's word."""
    hop = sink()
    mx = holdfast(backup_mx(hop.port), top="loops = 1")
    mx.send(content=subject("before"))
    wait_for(lambda: delivered(hop, "before"), 20, what="the first message")
    memory = ring_memory(mx, sizes)
    old = child(mx, f"holdfast-{name}"[:15])
    core = child(mx, "holdfast-core")
    words = {"the edge": "core has cut its ring off", "core": 'at="ring to core"'}

    def broken():
        # It is right again when its owner next moves it.
        for _ in range(2000):
            os.pwrite(memory, b"\1", HEADS[who])
        return words[who] in mx.log()
    sender = threading.Thread(target=send_until, args=(mx, lambda: not alive(old)))
    sender.start()
    try:
        wait_for(broken, 30, 0, "word of the broken ring")
        wait_for(lambda: not alive(old), 10, what="its end")
    finally:
        os.close(memory)
        sender.join(30)
    wait_for(lambda: greets(mx.port), 10, what="the new one")
    mx.send(content=subject("after"))
    wait_for(lambda: delivered(hop, "after"), 20, what="a message after")
    assert "cut off" not in str(mx.status()["alerts"]), "over with the new ring"
    assert mx.log().count("process-died") == 1
    assert alive(core)
    mx.stop()


def send_until(mx, done):
    """Mail, whatever becomes of it."""
    for count in range(3000):
        if done():
            return
        try:
            mx.send(content=subject(f"{count}"))
        except (AssertionError, OSError):
            time.sleep(0.05)


# ---- reload ----


def test_reload_moves_a_listener_and_adds_a_domain(holdfast, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port))
    wait_for(lambda: " keeper started " in mx.log(), 10, what="all children ready")
    children = mx.pids()[1:]
    old_port, mx.port = mx.port, free_port()
    mx.configure(backup_mx(hop.port) + "domain example.org { deliver-to = m1 }\n")
    mx.reload()
    wait_for(lambda: greets(mx.port), 10, what="the new listener")
    wait_for(lambda: refused(old_port), 10, what="the end of the old one")

    def accepted():
        try:
            return mx.send(["ann@example.org"], content=subject("new domain"))[0] == 250
        except AssertionError:
            return False
    wait_for(accepted, 10, 0.1, "mail to the new domain taken")
    wait_for(lambda: delivered(hop, "new domain"), 20, what="its delivery")
    assert mx.pids()[1:] == children, "nobody was restarted for it"
    mx.stop()


def test_a_server_that_a_reload_brings_is_not_said_to_be_down(holdfast, sink):
    """core knows it before edge-out does, and nobody is told of that."""
    m1, m2 = sink(), sink()
    routes = backup_mx(m1.port)
    mx = holdfast(routes)
    wait_for(lambda: mx.server_state("m1") == "up", 30, what="m1 up")
    mx.configure(f'{routes}server new {{ address = "127.0.0.1:{m2.port}" }}\n'
                 "domain new.example { deliver-to = new }\n")
    mx.reload()
    wait_for(lambda: "state=up" in "".join(line for line in mx.log().splitlines()
                                           if "server=new" in line), 30, what="the new one up")
    assert "server=new was=suspect state=down" not in mx.log()
    assert "subject=new" not in mx.log()


@pytest.mark.parametrize("then", [signal.SIGCONT, signal.SIGKILL])
def test_a_reload_waits_for_core_or_for_its_next_life(holdfast, sink, then):
    """Nothing comes for a route that core does not know, however long it takes over it."""
    hop = sink()
    mx = holdfast(backup_mx(hop.port))
    wait_for(lambda: " keeper started " in mx.log(), 30, what="all children ready")
    core = child(mx, "holdfast-core")
    os.kill(core, signal.SIGSTOP)
    mx.port = free_port()
    mx.configure(backup_mx(hop.port) + "domain example.org { deliver-to = m1 }\n")
    mx.reload()
    wait_for(lambda: not refused(mx.port), 30, what="the keeper's new listener")
    assert " reloaded " not in mx.log()
    os.kill(core, then)
    wait_for(lambda: greets(mx.port), 30, what="the new listener")
    wait_for(lambda: " reloaded " in mx.log(), 30, what="word of the reload")
    mx.lines("queue", "list", "--all")
    mx.stop()


@pytest.mark.parametrize("then", [signal.SIGCONT, signal.SIGKILL])
def test_a_reload_waits_for_the_one_before_it(holdfast, sink, then):
    """A listener that comes back is still open in edge-in until the reload that dropped it is done."""
    routes, back = backup_mx(sink().port), free_port()
    second = f'listen second {{ address = "127.0.0.1:{back}" }}\n'
    mx = holdfast(second + routes)
    wait_for(lambda: " keeper started " in mx.log(), 30, what="all children ready")
    core = child(mx, "holdfast-core")
    os.kill(core, signal.SIGSTOP)
    mx.port = free_port()
    mx.configure(routes)
    mx.reload()
    wait_for(lambda: not refused(mx.port), 30, what="the keeper's new listener")
    mx.configure(second + routes)
    mx.reload()
    wait_for(lambda: not pending(mx.child.pid, signal.SIGHUP), 30, what="the keeper to hear of the second")
    time.sleep(1)  # a reader, if one was started too early, has its time
    os.kill(core, then)
    wait_for(lambda: mx.log().count(" reloaded ") == 2, 30, what="word of both reloads")
    wait_for(lambda: greets(back), 30, what="the listener that has come back")
    assert "reload-refused" not in mx.log() and "cannot" not in mx.log()
    mx.lines("queue", "list", "--all")
    mx.stop()


def test_reloads_do_not_pile_up(holdfast, sink):
    """A configuration that is not in force any more takes no memory."""
    hop = sink()
    domains = "\n".join(f"d{number}.example.org" for number in range(20000))
    mx = holdfast(backup_mx(hop.port) + "domain \"file:domains\" { deliver-to = m1 }\n",
                  start=False)
    mx.environment = {"ASAN_OPTIONS": "quarantine_size_mb=1"}  # else it keeps what was freed
    (mx.root / "domains").write_text(domains)
    mx.start()

    def reload(times):
        for _ in range(times):
            before = mx.log().count(" reloaded ")
            mx.reload()
            wait_for(lambda: mx.log().count(" reloaded ") == before + 1, 20, what="the reload")
            mx.send(content=subject("between"))

    with mx.dialogue() as dialogue:
        reload(5)
        before = mx.memory_bytes()
        reload(20)
        grown = mx.memory_bytes() - before
        assert dialogue.send("bob@client.example", ["ann@example.com"],
                             subject("through all of them"))[0] == 250
    assert grown < 20 << 20, f"{grown >> 20} MB more"
    wait_for(lambda: delivered(hop, "through all of them"), 20, what="its delivery")
    mx.stop()


@pytest.mark.sanitized
def test_reloads_in_the_middle_of_everything(holdfast, sink):
    """What is under way outlives the configuration that it began with."""
    hop = sink()
    down = free_port()
    first = (backup_mx(hop.port) + f'server m9 {{ address = "127.0.0.1:{down}" }}\n'
             "domain waits.example { deliver-to = m9 }\n"
             "relay out { from = {192.0.2.0/24} deliver-to = m9 }\n")
    second = (f'server m9 {{ address = "localhost:{down}" helo = other.example }}\n'
              + backup_mx(hop.port, domain="waits.example")
              + "domain example.com { deliver-to = m9 }\npostmaster = ben@waits.example\n")
    mx = holdfast(first)
    mx.send(["ann@waits.example"], content=subject("waiting"))
    with mx.dialogue() as dialogue:
        dialogue.envelope("bob@client.example", ["postmaster", "ann@example.com"])
        for count, routes in enumerate((second, first, second), 1):
            mx.configure(routes)
            mx.reload()
            wait_for(lambda: mx.log().count(" reloaded ") == count, 20, what="the reload")
            mx.send(["ann@waits.example"], content=subject(f"{count}"))
            mx.status()
            mx.lines("queue", "show", "--all")
        assert dialogue.data(subject("begun under the first"))[0] == 250
    wait_for(lambda: {"waiting", "1", "2", "3"} <= set(hop.subjects()), 20, what="the hand-over")
    mx.lines("server", "list")
    mx.lines("trace", "ann@example.com")
    assert "process-died" not in mx.log()
    mx.stop()


@pytest.mark.sanitized
def test_reloads_of_many_loops_under_load(holdfast, place):
    """Doors and senders of several loops take a new configuration and other listeners while all of
    them work; nothing is lost, nothing doubled."""
    primary = free_port()
    mx = holdfast(backup_mx(primary, server=f"connections = {CONNECTIONS}"), top="loops = 4")
    other = f'listen other {{ address = "127.0.0.1:{free_port()}" }}\n'
    load = Load(place, mx.port, primary)
    try:
        load.start_sink()
        load.start_client(30)
        for count in range(1, 9):
            before = len(load.acknowledged())
            wait_for(lambda: len(load.acknowledged()) > before + 20, 20, what="mail taken")
            mx.configure(backup_mx(primary, free_port(), server=f"connections = {1 + count % 4}")
                         + (other if count % 2 else ""), top="loops = 4")
            mx.reload()
            wait_for(lambda: mx.log().count(" reloaded ") == count, 20, what="the reload")
        end_process(load.client)
        settle(mx)
        load.stop_sink()
        assert compare(load, 0)[0] > 100
        assert "process-died" not in mx.log()
    finally:
        load.end()
    mx.stop()


def test_a_running_session_survives_a_reload(holdfast, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port))
    with mx.dialogue() as dialogue:
        mx.configure(backup_mx(hop.port) + "domain example.org { deliver-to = m1 }\n")
        mx.reload()
        wait_for(lambda: "reloaded" in mx.log(), 10, what="the reload")
        assert dialogue.send("bob@client.example", ["ann@example.com"],
                             subject("in the old session"))[0] == 250
    wait_for(lambda: delivered(hop, "in the old session"), 20, what="its delivery")
    mx.stop()


def test_warnings_are_logged_at_start_and_reload(holdfast, sink):
    """R8: with no postmaster, 550 and a warning."""
    nobody = backup_mx(sink().port, domain='"*.example.com"')
    mx = holdfast(nobody)
    words = re.compile(r"warning keeper configuration .*holdfast\.conf:\d+: warning: no postmaster")
    wait_for(lambda: len(words.findall(mx.log())) == 1, 10, what="the warning at the start")
    with pytest.raises(Refused):
        mx.send(["postmaster"])
    mx.configure(nobody + "server m9 { address = nowhere.example }\n")
    mx.reload()
    wait_for(lambda: len(words.findall(mx.log())) == 2, 10, what="the warning at the reload")
    wait_for(lambda: "no route uses server 'm9'" in mx.log(), 10, what="the new one")
    mx.stop()


def test_a_wrong_reload_changes_nothing_and_says_why(holdfast, sink):
    hop = sink()
    routes = backup_mx(hop.port)
    mx = holdfast(routes)
    mx.configure(routes + "domain example.org { deliver-to = nowhere }\nlimits { colour = 1 }\n")
    mx.reload()
    wait_for(lambda: mx.log().count("reload-refused") == 2, 10, what="both errors")
    assert re.search(r"holdfast\.conf:\d+: ", mx.log())
    # A listener that cannot be bound, beside one that could: neither is there.
    taken, free = hop.port, free_port()
    mx.configure(routes + f'listen a {{ address = "127.0.0.1:{free}" }}\n'
                 f'listen b {{ address = "127.0.0.1:{taken}" }}\n')
    mx.reload()
    wait_for(lambda: "cannot-listen" in mx.log(), 10, what="word of the port")
    assert refused(free)
    assert mx.send(content=subject("as before"))[0] == 250
    wait_for(lambda: delivered(hop, "as before"), 20, what="its delivery")
    mx.stop()


def test_a_reload_changes_the_reserve(holdfast, sink):
    routes = backup_mx(sink().port)
    mx = holdfast(routes)

    def answer():
        try:
            return mx.send()[0]
        except Refused as refused:
            return refused.code

    for reserve, code in (("100T", 452), ("1M", 250)):
        mx.configure(routes, top=f"reserve = {reserve}")
        mx.reload()
        wait_for(lambda: answer() == code, 10, 0.1, f"answer {code}")
    mx.stop()


def test_a_reload_that_takes_a_restart_is_refused_whole(holdfast, sink):
    hop = sink()
    routes = backup_mx(hop.port)
    mx = holdfast(routes)
    changes = ("node = 3", "segment-size = 1M", "large-content = 1M", "log-level = debug",
               "loops = 1", "log = syslog", 'dns-forwarders = {"127.0.0.1:5353"}',
               'dns-trust-anchor = ". IN DS 20326 8 2 E06D"')
    for change in changes:
        mx.configure(routes + "domain example.org { deliver-to = m1 }\n", top=change)
        mx.reload()
        key = change.split()[0]
        wait_for(lambda: f'reload-refused setting={key} reason="takes a restart' in mx.log(), 10,
                 what=f"word of {key}")
    assert mx.log().count("reload-refused") == len(changes)
    assert "reloaded" not in mx.log()
    with pytest.raises(Refused):
        mx.send(["ann@example.org"])
    mx.stop()


def test_a_crashed_child_comes_back_with_the_reloaded_configuration(holdfast, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port))
    mx.configure(backup_mx(hop.port) + "domain example.org { deliver-to = m1 }\n")
    mx.reload()
    wait_for(lambda: "reloaded" in mx.log(), 10, what="the reload")
    for name in ("holdfast-edge-i", "holdfast-core", "holdfast-edge-o"):
        kill(child(mx, name))

    def accepted():
        try:
            return mx.send(["ann@example.org"], content=subject("later"))[0] == 250
        except (AssertionError, OSError):
            return False
    wait_for(accepted, 20, 0.1, "mail to the new domain taken")
    wait_for(lambda: delivered(hop, "later"), 20, what="its delivery")
    mx.stop()


# ---- the end ----


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_it_ends_in_order_under_load(holdfast, sink, number):
    hop = sink()
    mx = holdfast(backup_mx(hop.port))
    acknowledged = []

    def load():
        for count in range(10000):
            try:
                if mx.send(content=subject(f"{count}"))[0] == 250:
                    acknowledged.append(f"{count}")
            except (AssertionError, OSError):
                return

    client = threading.Thread(target=load)
    client.start()
    wait_for(lambda: len(acknowledged) > 50, 20, what="mail taken")
    pids = mx.pids()
    mx.child.send_signal(number)
    code = mx.child.wait(timeout=40)
    mx.child = None
    client.join()
    assert code == 0
    assert not any(alive(pid) for pid in pids)
    mx.start()
    wait_for(lambda: set(acknowledged) <= set(hop.subjects()), 20, what="all that was acknowledged")
    mx.wait_empty()
    assert len(hop.subjects()) == len(set(hop.subjects())), "nothing twice"
    mx.stop()


def test_signals_to_the_whole_group_are_the_keepers_alone(holdfast, sink):
    """As Ctrl-C in a terminal, and systemd's default, send them."""
    mx = holdfast(backup_mx(sink().port))
    os.killpg(mx.child.pid, signal.SIGTERM)
    assert mx.child.wait(timeout=30) == 0
    mx.child = None
    assert "process-died" not in mx.log()


# ---- the walls ----


def status_of(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_it_works_when_every_other_call_is_deadly(holdfast, sink):
    """The allow-lists hold all that is needed: here a call outside ends the process."""
    hop = sink(start=False)
    mx = holdfast(backup_mx(hop.port), start=False)
    mx.environment = {"HOLDFAST_SECCOMP": "strict"}
    mx.start()
    if "left out of this build" in mx.log():
        pytest.skip("no seccomp in this build")
    big = b"Subject: big\r\n\r\n" + b"x" * 70 + b"\r\n" * 200000
    mx.send(content=big)
    mx.send(content=subject("small"))
    hop.start()
    wait_for(lambda: {"big", "small"} <= set(hop.subjects()), 30, what="both messages")
    mx.status()
    mx.lines("queue", "list")
    mx.lines("trace", "ann@example.com")
    for path in ("/metrics", "/health", "/nothing"):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{mx.http_port}{path}", timeout=5).close()
        except urllib.error.HTTPError:
            pass
    mx.reload()
    wait_for(lambda: "reloaded" in mx.log(), 10, what="the reload")
    kill(child(mx, "holdfast-core"))
    wait_for(lambda: "holdfast-core" in mx.processes(), 10, what="core again")
    wait_for(lambda: mx.tool("status", check=False).returncode == 0, 10, what="its answer")
    assert mx.log().count("process-died") == 1, mx.log()
    mx.stop()
    assert mx.log().count("process-died") == 1, mx.log()


def test_processes_hold_no_more_than_they_need(holdfast, sink, place):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    place.chmod(0o755)
    mx = holdfast(backup_mx(sink().port), top="user = nobody")
    wait_for(lambda: " keeper started " in mx.log(), 10, what="all children ready")
    if "left out of this build" in mx.log():
        pytest.skip("no seccomp in this build")
    empty = mx.state / "empty"
    for name in CHILDREN:
        pid = child(mx, name)
        status = status_of(pid)
        assert status["Uid"].split() == ["65534"] * 4, name
        assert int(status["CapEff"], 16) == 0 and int(status["CapBnd"], 16) >= 0
        if name in FREE:  # what they run would inherit them
            assert status["NoNewPrivs"] == "0" and status["Seccomp"] == "0", name
        else:
            assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", name
            assert os.readlink(f"/proc/{pid}/root") == str(empty), name
        held = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        files = {path for path in held if path.startswith(str(mx.root))} - {str(mx.log_path)}
        if name == "holdfast-core":
            assert str(mx.state / "spool") in files
        elif name == "holdfast-edge-o":
            assert all(path.startswith(str(mx.state / "spool")) for path in files)
        elif name == "holdfast-edge-i":  # without a name: what filters have changed
            assert all(re.fullmatch(r"state/scratch\.\d+ \(deleted\)",
                                    os.path.relpath(path, mx.root)) for path in files), files
        elif name == "holdfast-login":
            assert files == {str(mx.state / "login")}
        else:
            assert not files, name
    assert mx.send()[0] == 250
    mx.wait_empty()
    mx.stop()


def test_the_control_socket_is_for_the_group(holdfast, sink, place):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    place.chmod(0o755)
    group = next(entry for entry in grp.getgrall() if entry.gr_gid not in (0, 65534))
    mx = holdfast(backup_mx(sink().port), top=f"user = nobody\ngroup = {group.gr_name}")
    path = mx.state / "control.sock"
    assert path.stat().st_mode & 0o777 == 0o660 and path.stat().st_gid == group.gr_gid

    def tool_as(groups):
        who = ["setpriv", "--reuid", "54321", "--regid", "54321", *groups]
        return subprocess.run([*who, program("holdfast"), "-c", str(mx.conf), "server", "probe",
                               "m1"], capture_output=True, text=True, timeout=20)
    mx.conf.chmod(0o644)
    mx.root.chmod(0o755)
    assert tool_as(["--clear-groups"]).returncode != 0
    member = tool_as(["--groups", str(group.gr_gid)])
    assert member.returncode == 0, member.stderr
    mx.stop()


CONFINED = [name for name in CHILDREN if name not in FREE]
MAKES_SOCKETS = ("holdfast-edge-o", "holdfast-helper", "holdfast-direct")

# What is refused from inside each of them; a path is one that an attacker would look for.
REFUSED = [
    ("openat", -100, b"/etc/passwd", os.O_RDONLY),
    ("openat", -100, b"/proc/self/environ", os.O_RDONLY),
    ("openat", -100, b"/planted", os.O_WRONLY | os.O_CREAT, 0o777),
    ("mkdir", b"/planted", 0o777),
    ("unlink", b"/control.sock"),
    ("chmod", b"/", 0o777),
    ("chown", b"/", 0, 0),
    ("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0),
    ("socket", socket.AF_NETLINK, socket.SOCK_RAW, 0),
    ("socket", socket.AF_PACKET, socket.SOCK_RAW, 0),
    ("fork",),
    ("kill", 1, 0),
    ("setuid", 0),
    ("capset", 0, 0),
    ("mmap", 0, 4096, 7, 0x22, -1, 0),  # writable and executable
    ("prlimit64", 0, 7, b"\xff" * 16, 0),
]
# What nothing of ours has a reason to do: the process ends.
DEADLY = [("execve", b"/bin/sh", 0, 0), ("ptrace", 16, 1, 0, 0), ("mount", b"none", b"/", b"tmpfs"),
          ("unshare", 0x10000000), ("chroot", b"/"), ("bpf", 0, 0, 0), ("io_uring_setup", 1, 0)]


@pytest.mark.parametrize("user", ["nobody", None])
def test_who_takes_a_process_over_gains_nothing(holdfast, sink, place, user):
    """System calls made from inside each process, as by code of an attacker."""
    if not inject.AVAILABLE:
        pytest.skip(inject.WHY_NOT)
    place.chmod(0o755)
    mx = holdfast(backup_mx(sink().port), top=f"user = {user}" if user else "")
    wait_for(lambda: " keeper started " in mx.log(), 10, what="all children ready")
    if "left out of this build" in mx.log():
        pytest.skip("no seccomp in this build")
    for name in CONFINED:
        pid = child(mx, name)
        assert inject.call(pid, "getpid") == pid
        for what in REFUSED:
            assert -200 < inject.call(pid, *what) < 0, (name, what)
        internet = inject.call(pid, "socket", socket.AF_INET, socket.SOCK_STREAM, 0)
        assert (internet >= 0) == (name in MAKES_SOCKETS), name
    assert mx.send()[0] == 250
    mx.wait_empty()
    assert "process-died" not in mx.log()


@pytest.mark.parametrize("what", DEADLY, ids=[what[0] for what in DEADLY])
def test_what_only_an_attacker_does_ends_the_process(holdfast, sink, what):
    if not inject.AVAILABLE:
        pytest.skip(inject.WHY_NOT)
    mx = holdfast(backup_mx(sink().port))
    wait_for(lambda: " keeper started " in mx.log(), 10, what="all children ready")
    if "left out of this build" in mx.log():
        pytest.skip("no seccomp in this build")
    for name in CONFINED:
        pid = child(mx, name)
        with pytest.raises(inject.Died) as died:
            inject.call(pid, *what)
        assert died.value.signal == signal.SIGSYS, name
        wait_for(lambda: mx.processes().get(name, [pid]) != [pid], 10, what=f"a new {name}")
        wait_for(lambda: mx.tool("status", check=False).returncode == 0, 10, what="an answer")
    wait_for(lambda: mx.send()[0] == 250, 10, what="mail taken again")
    mx.wait_empty()


def test_roles_can_be_shown():
    text = subprocess.run([program("holdfastd"), "--show-roles"], capture_output=True, text=True,
                          check=True, timeout=10).stdout
    for role in ("core", "edge-out", "edge-in", "web", "helper", "runner", "login", "directory", "pam",
                 "reader"):
        assert re.search(rf"^{role}: ", text, re.M), role
    edge_in = re.search(r"^edge-in: .*?(?=^\S)", text, re.M | re.S).group(0)
    assert "accept4" in edge_in
    assert "fdatasync" not in edge_in and "connect:" not in edge_in


# ---- the command line ----


def test_check_says_every_error_at_once(place):
    conf = place / "wrong.conf"
    conf.write_text('hostname = a.example\nstate = /tmp/none\ncolour = red\n'
                    'listen mx { address = "127.0.0.1:99999" }\n'
                    'domain example.com { deliver-to = nowhere }\n')
    result = subprocess.run([program("holdfastd"), "-c", str(conf), "-n"], capture_output=True,
                            text=True, timeout=10)
    assert result.returncode == 1
    for line in (3, 4, 5):
        assert f"{conf}:{line}: " in result.stderr, result.stderr
    run = subprocess.run([program("holdfastd"), "-c", str(conf)], capture_output=True, text=True,
                         timeout=20)
    assert run.returncode == 1
    for line in (3, 4, 5):
        assert f"{conf}:{line}: " in run.stderr, run.stderr


@pytest.mark.parametrize("arguments, code, word", (
    (["--help"], 0, "usage: holdfastd"), (["--version"], 0, "holdfastd "),
    (["-x"], 2, "usage"), (["more"], 2, "usage"), (["-c", "/nowhere", "-n"], 1, "/nowhere"),
    (["-c", "/nowhere"], 1, "/nowhere")))
def test_command_line(arguments, code, word):
    result = subprocess.run([program("holdfastd"), *arguments], capture_output=True, text=True,
                            timeout=10)
    assert result.returncode == code
    assert word in result.stdout + result.stderr


# ---- names ----


class NameServer:
    """Answers A with 127.0.0.1 for one name, NXDOMAIN for others, until it is stopped."""

    def __init__(self, name):
        self.wanted = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.questions = 0
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            query, peer = self.socket.recvfrom(512)
            if not query:
                return
            self.questions += 1
            end = query.index(b"\0", 12) + 5
            known = query[12:12 + len(self.wanted)].lower() == self.wanted
            is_a = query[end - 4:end - 2] == b"\0\1"
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1" if known and is_a else b""
            head = query[:2] + (b"\x85\x80" if known else b"\x85\x83") + b"\0\1" + \
                (b"\0\1" if answer else b"\0\0") + b"\0\0\0\0"
            self.socket.sendto(head + query[12:end] + answer, peer)

    def stop(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", ("127.0.0.1", self.port))
        self.thread.join(5)
        self.socket.close()


@pytest.mark.parametrize("name", ("primary.example.net", "localhost"))
def test_a_server_by_name_behind_the_walls(holdfast, sink, name):
    """libunbound works where every call outside the list is deadly."""
    names = NameServer("primary.example.net")
    hop = sink()
    routes = (f'server m1 {{ address = "{name}:{hop.port}" }}\n'
              "domain example.com { deliver-to = m1 }\n")
    mx = holdfast(routes, top=f'dns-forwarders = {{"127.0.0.1:{names.port}"}}', start=False)
    mx.environment = {"HOLDFAST_SECCOMP": "strict"}
    mx.start()
    mx.send(content=subject("by name"))
    wait_for(lambda: delivered(hop, "by name"), 20, what="its delivery")
    assert name == "localhost" or names.questions > 0
    assert "process-died" not in mx.log()
    mx.stop()
    names.stop()
