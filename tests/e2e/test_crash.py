# SPDX-License-Identifier: Apache-2.0
"""kill -9 under load, of one process or of all: what was acknowledged is delivered, and doubled at
most once per connection and kill."""

import json
import os
import random
import subprocess
import time

import pytest

from daemon import BUILD, backup_mx, kill
from peers import end_process, free_port, wait_for

CONNECTIONS = 4
SEED = int(os.environ.get("HOLDFAST_SEED", "1"))


class Load:
    """A numbered client and a counting sink around a daemon."""

    def __init__(self, place, mx_port, sink_port, sessions=10, recipients=40):
        self.place = place
        self.logs = []
        self.sink_port = sink_port
        self.sink = None
        self.ack_log = place / "load.log"
        self.client = None
        self.command = [BUILD / "tools/cload", "-s", str(sessions), "-r", str(recipients), "-l",
                        "2000", "-g", "5", "-o", self.ack_log]
        self.mx_port = mx_port

    def start_client(self, seconds):
        self.client = subprocess.Popen(
            [*self.command, "-t", str(int(seconds * 1000)), str(self.mx_port)],
            stdout=subprocess.PIPE, text=True)

    def start_sink(self):
        log = self.place / f"sink-{len(self.logs)}.log"
        self.logs.append(log)
        self.sink = subprocess.Popen([BUILD / "tools/csink", "-u", "-o", log, "-s",
                                      self.place / "sink.status", str(self.sink_port)],
                                     stdout=subprocess.DEVNULL)

    def stop_sink(self):
        end_process(self.sink)
        self.sink = None

    def end(self):
        for child in (self.client, self.sink):
            end_process(child)

    def acknowledged(self):
        """Number to recipient, in the order of the 250s."""
        lines = (line.split() for line in self.ack_log.read_text().splitlines())
        return {int(f[2]): f[3] for f in lines if len(f) == 4 and f[1] == "A"}

    def arrived(self):
        """(number, recipient) in the order of arrival."""
        return [(int(f[1]), f[2]) for log in self.logs if log.exists()
                for f in (line.split() for line in log.read_text().splitlines()) if len(f) == 4]


def compare(load, kills, connections=CONNECTIONS):
    acknowledged = load.acknowledged()
    arrived = load.arrived()
    times = {}
    for number, _ in arrived:
        times[number] = times.get(number, 0) + 1
    lost = [number for number in acknowledged if number not in times]
    doubled = sum(count - 1 for count in times.values())
    assert not lost, f"{len(lost)} of {len(acknowledged)} lost, such as {lost[:5]}"
    assert doubled <= kills * connections, f"{doubled} duplicates after {kills} kills"
    return len(acknowledged), doubled


def settle(mx, seconds=60):
    """Everything is handed over; what is held after three doubts is released by hand."""
    def empty():
        status = mx.status()
        if status["queue"].get("held"):
            mx.tool("queue", "release", "--all", check=False)
        return status["queue"]["messages"] == 0
    wait_for(empty, seconds, 0.2, "an empty queue")


def crash_loop(holdfast, place, choose, kills, pause, primary_up, seed):
    """Kills what choose(mx, random) names, `kills` times under load; returns what came out."""
    chance = random.Random(seed)
    port = free_port()
    mx = holdfast(backup_mx(port, server=f"connections = {CONNECTIONS}",
                            more="retry = {1s}"))
    load = Load(place, mx.port, port)
    try:
        if primary_up:
            load.start_sink()
        load.start_client(kills * (pause + 1) + 5)
        for _ in range(kills):
            time.sleep(chance.uniform(0.5, 1) * pause)
            pids = choose(mx, chance)
            everything = mx.child.pid in pids
            if everything:
                mx.kill()
                mx.start()
            else:
                for pid in pids:
                    kill(pid)
        time.sleep(1)
        end_process(load.client)
        if not primary_up:
            load.start_sink()
        settle(mx)
        time.sleep(0.3)
        load.stop_sink()
        mx.stop()
        return compare(load, kills)
    finally:
        load.end()


def everything(mx, chance):
    return mx.pids()


def one_child(mx, chance):
    children = mx.pids()[1:]
    return [chance.choice(children)] if children else []


@pytest.mark.parametrize("primary_up", [False, True], ids=["primary-down", "primary-up"])
def test_kill_everything_under_load(holdfast, place, primary_up):
    acknowledged, _ = crash_loop(holdfast, place, everything, 5, 0.7, primary_up, SEED)
    assert acknowledged > 100


@pytest.mark.parametrize("primary_up", [False, True], ids=["primary-down", "primary-up"])
def test_kill_single_processes_under_load(holdfast, place, primary_up):
    acknowledged, _ = crash_loop(holdfast, place, one_child, 10, 0.6, primary_up, SEED)
    assert acknowledged > 100


@pytest.mark.sanitized
def test_kill_everything_once(holdfast, place):
    crash_loop(holdfast, place, everything, 1, 1.0, True, SEED)


def test_the_primary_dies_again_and_again(holdfast, place):
    """The next hop is killed under load: nothing lost, in order per recipient but for what was
    doubled."""
    port = free_port()
    mx = holdfast(backup_mx(port, server=f"connections = {CONNECTIONS}", more="retry = {1s}"))
    load = Load(place, mx.port, port)
    kills = 5
    try:
        load.start_client(12)
        for _ in range(kills):
            load.start_sink()
            time.sleep(1.2)
            end_process(load.sink, 9)
            time.sleep(0.3)
        load.start_sink()
        end_process(load.client)
        settle(mx)
        time.sleep(0.3)
        load.stop_sink()
        compare(load, kills)
    finally:
        load.end()


@pytest.mark.soak
def test_soak(holdfast, place):
    """Kills of one and of all, primary up and down, for HOLDFAST_SOAK_SECONDS."""
    until = time.monotonic() + float(os.environ.get("HOLDFAST_SOAK_SECONDS", "600"))
    seed, kills, acknowledged, doubled = SEED, 0, 0, 0
    while time.monotonic() < until:
        chance = random.Random(seed)
        round_place = place / str(seed)
        round_place.mkdir()
        some = chance.randrange(5, 30)
        choose = chance.choice([everything, one_child])

        def make(routes, name=f"holdfast-{seed}", **more):
            return holdfast(routes, name=name, **more)
        got, twice = crash_loop(make, round_place, choose, some, chance.uniform(0.05, 1),
                                chance.random() < 0.5, seed)
        kills, acknowledged, doubled, seed = kills + some, acknowledged + got, doubled + twice, \
            seed + 1
        print(json.dumps({"seed": seed - 1, "kills": kills, "acknowledged": acknowledged,
                          "lost": 0, "doubled": doubled}), flush=True)
