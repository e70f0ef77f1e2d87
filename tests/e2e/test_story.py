# SPDX-License-Identifier: Apache-2.0
"""The main job, as a newcomer sees it: primary absent, a message in by swaks, seen in status and
queue list, a Postfix started as the primary, the message there, nothing typed. And kill -9 at any
moment of this changes nothing."""

import shutil
import subprocess
import time

import pytest

from daemon import ROOT, backup_mx, kill, program
from peers import wait_for


def swaks(port, recipient="ann@example.com", subject="story"):
    if shutil.which("swaks") is None:
        pytest.skip("swaks is not installed")
    return subprocess.run(["swaks", "--server", f"127.0.0.1:{port}", "--from", "you@example.net",
                           "--to", recipient, "--header", f"Subject: {subject}"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)


def send_by_swaks(mx, subject):
    result = swaks(mx.port, subject=subject)
    assert result.returncode == 0, result.stdout + result.stderr


def count(primary, subject):
    return sum(f"Subject: {subject}\n".encode() in message for message in primary.messages())


def test_hold_show_hand_over(holdfast, postfix):
    primary = postfix(start=False)
    mx = holdfast(backup_mx(primary.port))

    send_by_swaks(mx, "story")

    queue = mx.status()["queue"]
    assert (queue["messages"], queue["deliveries"]) == (1, 1)
    assert queue["bytes"] > 100
    (row,) = mx.queue()
    assert row["sender"] == "you@example.net"
    assert row["recipients"] == ["ann@example.com"]
    assert row["next"] is None, "it waits for its server, not for a timer"
    for command in (["status"], ["queue", "list"]):
        text = mx.tool(*command).stdout
        assert "example.com" in text, text
    wait_for(lambda: mx.server_state("m1") == "down", what="m1 seen as down")
    lane = next(lane for lane in mx.status()["lanes"] if lane["route"] == "domain:example.com")
    assert (lane["state"], lane["deliveries"]) == ("stopped", 1)

    primary.start()
    started = time.monotonic()
    wait_for(lambda: count(primary, "story") == 1, 5, what="the message at the primary")
    assert time.monotonic() - started < 3
    mx.wait_empty()
    assert mx.server_state("m1") == "up"
    events = [event["event"] for event in mx.lines("trace", row["id"])]
    assert events[0] == "accepted" and events[-1] == "delivered", events
    mx.stop()
    assert count(primary, "story") == 1


@pytest.mark.sanitized
def test_hold_and_hand_over_to_a_sink(holdfast, sink):
    """The same without Postfix, short enough for the sanitizers."""
    primary = sink(start=False)
    mx = holdfast(backup_mx(primary.port))
    mx.send(content=b"Subject: one\r\n\r\nHello.\r\n")
    mx.send(content=b"Subject: two\r\n\r\n" + b"x" * 70 + b"\r\n" * 3000)
    assert [row["recipients"] for row in mx.queue()] == [["ann@example.com"]] * 2
    primary.start()
    wait_for(lambda: len(primary.messages) == 2, 10, what="both messages at the primary")
    assert primary.subjects() == ["one", "two"]
    mx.wait_empty()
    mx.stop()


def test_kill_after_every_step_changes_nothing(holdfast, postfix):
    primary = postfix(start=False)
    mx = holdfast(backup_mx(primary.port))
    mx.kill()
    mx.start()
    send_by_swaks(mx, "step")
    mx.kill()
    mx.start()
    wait_for(lambda: len(mx.queue()) == 1, what="the message in the queue again")
    mx.tool("status")
    mx.kill()
    primary.start()
    mx.start()
    wait_for(lambda: count(primary, "step") == 1, 10, what="the message at the primary")
    mx.wait_empty()
    mx.kill()
    mx.start()
    send_by_swaks(mx, "after")
    wait_for(lambda: count(primary, "after") == 1, 10, what="the later message")
    mx.wait_empty()
    mx.stop()
    assert count(primary, "step") == 1, "delivered once"


def test_a_killed_child_is_restarted(holdfast, sink):
    """Any process but the keeper dies: the listening socket stays, what was acknowledged stays."""
    primary = sink(start=False)
    mx = holdfast(backup_mx(primary.port))
    mx.send(content=b"Subject: first\r\n\r\n")
    children = mx.pids()[1:]
    assert len(children) >= 3, mx.processes()
    for number, pid in enumerate(children):
        kill(pid)

        def takes_mail():
            assert mx.child.poll() is None, "the keeper lives"
            try:
                return mx.send(content=f"Subject: after {number}\r\n\r\n".encode())[0] == 250
            except (AssertionError, OSError):
                return False
        wait_for(takes_mail, 20, 0.1, f"mail taken after the death of child {number}")
    wait_for(lambda: len(mx.pids()) == len(children) + 1, 10, what="all children again")
    primary.start()
    expected = {"first"} | {f"after {number}" for number in range(len(children))}
    wait_for(lambda: set(primary.subjects()) == expected, 20, what="all acknowledged mail")
    mx.wait_empty()
    mx.stop()


def test_quickstart_configuration_is_good():
    result = subprocess.run([program("holdfastd"), "-c", "etc/quickstart.conf", "-n"], cwd=ROOT,
                            capture_output=True, text=True, timeout=30)
    assert result.returncode == 0, result.stdout + result.stderr
    example = subprocess.run([program("holdfastd"), "-c", "etc/holdfast.conf", "-n"], cwd=ROOT,
                             capture_output=True, text=True, timeout=30)
    assert example.returncode == 0 or "holdfast" in example.stderr, example.stderr


def test_as_an_ordinary_user(holdfast, sink, place):
    import os
    if os.geteuid() != 0:
        pytest.skip("we are an ordinary user already: every other test shows it")
    primary = sink()
    mx = holdfast(backup_mx(primary.port), start=False, user="nobody")
    for path in (place, mx.root):
        path.chmod(0o777)
    mx.start()
    mx.send(content=b"Subject: ordinary\r\n\r\n")
    wait_for(lambda: primary.subjects() == ["ordinary"], 10, what="the message")
    mx.stop()
