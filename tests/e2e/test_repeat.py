# SPDX-License-Identifier: Apache-2.0
"""core dies while a client waits at the dot: the next core knows whether it was stored, or stores it.
The client hears 250, and one message comes out."""

import os
import pathlib
import random
import signal
import threading
import time

import pytest

from client import Refused
from daemon import backup_mx, kill
from faults import Injected
from load import Load
from peers import end_process, free_port, wait_for

SEED = int(os.environ.get("HOLDFAST_SEED", "1"))
SIZES = [200, 20_000, 300_000]  # the last goes to core in pieces, and is nowhere else
IDS = ["small", "larger", "in-pieces"]


def core_of(mx):
    wait_for(lambda: "holdfast-core" in mx.processes(), 60, what="core")
    return mx.processes()["holdfast-core"][0]


def edge_in_of(mx):
    return mx.processes()["holdfast-edge-i"][0]


def at_work(mx):
    """Has started, and begun its journal: what comes next is one write and one sync. Its core."""
    mx.send(content=content_of("zero", 200))
    mx.wait_empty()
    return core_of(mx)


def content_of(subject, size):
    return f"Subject: {subject}\r\n\r\n".encode() + (b"x" * 70 + b"\r\n") * (size // 72)


class Sender(threading.Thread):
    """Waits at the dot."""

    def __init__(self, mx, subject, size=200, recipient="ann@example.com"):
        super().__init__(daemon=True)
        self.mx, self.subject, self.size, self.recipient = mx, subject, size, recipient
        self.code = None
        self.start()

    def run(self):
        try:
            self.code, _ = self.mx.send([self.recipient], content=content_of(self.subject, self.size))
        except Refused as refused:
            self.code = refused.code

    def hears(self, code):
        wait_for(lambda: self.code is not None, 60, what="a reply to the dot")
        assert self.code == code


def is_in_journal(mx, text):
    return any(text.encode() in path.read_bytes()
               for path in pathlib.Path(mx.state, "spool").glob("segment-*"))


def killed_before_it_answers(mx, subject, size):
    """The sender, whose message is in the journal of a core that is no more."""
    core = at_work(mx)
    with Injected(core, "fdatasync", "delay_enter=1000s"):
        sender = Sender(mx, subject, size)
        wait_for(lambda: is_in_journal(mx, f"Subject: {subject}\r\n"), 60, what="it in the journal")
        time.sleep(0.1)  # for the end of the write; else the next core stores it, with the same end
        assert sender.code is None
        kill(core)
    return sender


@pytest.mark.parametrize("size", SIZES, ids=IDS)
def test_what_core_had_stored_is_not_stored_again(holdfast, sink, size):
    hop = sink()
    mx = holdfast(backup_mx(hop.port))
    killed_before_it_answers(mx, "one", size).hears(250)
    mx.send(content=content_of("two", 200))
    wait_for(lambda: "two" in hop.subjects(), 60, what="the second")
    mx.wait_empty()
    assert hop.subjects() == ["zero", "one", "two"]
    assert len(hop.messages[1].content) > size - 100


@pytest.mark.parametrize("size", SIZES, ids=IDS)
def test_nor_when_it_has_been_delivered_meanwhile(holdfast, sink, size):
    """edge-in asks late: the message has come, gone, and its end is durable."""
    hop = sink()
    mx = holdfast(backup_mx(hop.port))
    edge = edge_in_of(mx)
    sender = None
    try:
        core = at_work(mx)
        with Injected(core, "fdatasync", "delay_enter=1000s"):
            sender = Sender(mx, "one", size)
            wait_for(lambda: is_in_journal(mx, "Subject: one\r\n"), 60, what="it in the journal")
            time.sleep(0.1)
            os.kill(edge, signal.SIGSTOP)
            kill(core)
        wait_for(lambda: hop.subjects() == ["zero", "one"], 60, what="it at the next hop")
        mx.wait_empty()
        assert sender.code is None
    finally:
        os.kill(edge, signal.SIGCONT)
    sender.hears(250)
    mx.send(content=content_of("two", 200))
    wait_for(lambda: "two" in hop.subjects(), 60, what="the second")
    mx.wait_empty()
    assert hop.subjects() == ["zero", "one", "two"]


@pytest.mark.parametrize("size, code", zip(SIZES, (250, 250, 451)), ids=IDS)
def test_what_it_had_not_is_stored_by_the_next(holdfast, sink, size, code):
    """If edge-in has it still: else the client keeps it."""
    hop = sink()
    mx = holdfast(backup_mx(hop.port))
    core = at_work(mx)
    os.kill(core, signal.SIGSTOP)
    sender = Sender(mx, "one", size)
    time.sleep(0.5)  # it is in the ring; if not, the next core has it from there
    kill(core)
    sender.hears(code)
    mx.send(content=content_of("two", 200))
    wait_for(lambda: "two" in hop.subjects(), 60, what="the second")
    mx.wait_empty()
    assert hop.subjects() == (["zero", "one", "two"] if code == 250 else ["zero", "two"])


def test_kills_of_core_under_load(holdfast, place):
    """No client hears anything of it, and nothing comes twice."""
    chance = random.Random(SEED)
    port = free_port()
    mx = holdfast(backup_mx(port, server="connections = 4", more="retry = {1s}"))
    load = Load(place, mx.port, port)
    kills = 10
    try:
        load.start_sink()
        load.start_client(kills * 2 + 5)
        for _ in range(kills):
            time.sleep(chance.uniform(0.8, 1.6))
            kill(core_of(mx))
        time.sleep(1)
        end_process(load.client)
        mx.wait_empty()
        time.sleep(0.3)
        load.stop_sink()
    finally:
        load.end()
    events = [line.split() for line in load.ack_log.read_text().splitlines()]
    assert [event for event in events if event[1] in "DF"] == []
    arrived = [number for number, _ in load.arrived()]
    assert len(arrived) == len(set(arrived)) > 100
    assert set(load.acknowledged()) <= set(arrived)
