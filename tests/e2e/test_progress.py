# SPDX-License-Identifier: Apache-2.0
"""A drain shows how far it is: in `status`, and as a bar in `queue watch`."""

import os
import pty
import subprocess
import time

from daemon import program
from peers import free_port, wait_for

COUNT = 200


def slowly(stage, _session, _argument):
    if stage == "dot":
        time.sleep(0.02)


def drain(holdfast, sink):
    """A daemon whose server comes back slow, with COUNT messages to hand over, one after another."""
    port = free_port()
    mx = holdfast(f'server m1 {{ address = "127.0.0.1:{port}"  connections = 1 }}\n'
                  "domain example.com { deliver-to = m1 }\n")
    wait_for(lambda: mx.server_state("m1") == "down", what="m1 down")
    with mx.dialogue() as dialogue:
        for number in range(COUNT):
            assert dialogue.send("bob@client.example", ["ann@example.com"],
                                 b"Subject: %d\r\n\r\n" % number)[0] == 250
    return mx, lambda: sink(port=port, rule=slowly)


def test_status_tells_done_left_rate_and_time_left(holdfast, sink):
    mx, come_back = drain(holdfast, sink)
    (lane,) = mx.status()["lanes"]
    assert lane["state"] == "stopped" and lane["done"] == 0
    assert lane["left"] is None and lane["rate"] is None and lane["left_seconds"] is None
    come_back()

    def far():
        (lane,) = mx.status()["lanes"]
        return lane if lane["state"] == "draining" and lane["done"] >= 20 else None
    lane = wait_for(far, what="a part of the drain")
    assert lane["done"] + lane["left"] == COUNT
    assert 5 < lane["rate"] < 60
    assert abs(lane["left_seconds"] - lane["left"] / lane["rate"]) <= 1
    assert f" of {COUNT}, " in mx.tool("status").stdout
    mx.wait_empty()
    (lane,) = mx.status()["lanes"]
    assert lane["done"] == 0 and lane["left"] is None


def test_a_drain_that_was_cut_off_shows_no_figures(holdfast, sink):
    mx, come_back = drain(holdfast, sink)
    server = come_back()
    wait_for(lambda: mx.status()["lanes"][0]["done"] >= 5, what="a part of the drain")
    server.stop()
    lane = wait_for(lambda: next((lane for lane in mx.status()["lanes"]
                                  if lane["state"] == "stopped"), None), what="the stop")
    assert lane["done"] == 0 and lane["left"] is None and lane["rate"] is None


def test_watch_draws_a_bar(holdfast, sink):
    mx, come_back = drain(holdfast, sink)
    ours, theirs = pty.openpty()
    watch = subprocess.Popen([program("holdfast"), "-c", str(mx.conf), "queue", "watch",
                              "--recipient", "nobody@example.com"],
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    os.set_blocking(ours, False)
    seen = b""

    def text():
        nonlocal seen
        try:
            seen += os.read(ours, 65536)
        except BlockingIOError:
            pass
        return seen
    try:
        come_back()
        wait_for(lambda: b"/s, " in text(), what="the bar with its rate")
        bar = text().split(b"\r")[-1]
        assert bar.startswith(b"[#") and f" of {COUNT} deliveries, ".encode() in bar
        assert b" left" in bar
        mx.wait_empty()
        wait_for(lambda: text().endswith(b"\r\x1b[K"), what="the bar to go")
    finally:
        watch.terminate()
        watch.wait()
        os.close(ours)
