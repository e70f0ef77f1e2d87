# SPDX-License-Identifier: Apache-2.0
"""kill -9 under load, of one process or of all: what was acknowledged is delivered, and doubled at
most once per connection and kill."""

import json
import os
import random
import time

import pytest

from daemon import backup_mx, kill
from load import CONNECTIONS, Load, compare, settle
from peers import end_process, free_port

SEED = int(os.environ.get("HOLDFAST_SEED", "1"))


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
