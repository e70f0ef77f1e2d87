# SPDX-License-Identifier: Apache-2.0
"""The drill: what it breaks is broken and whole again, the same for the same seed, and its report
says what came of the mail. Here with nodes that share nothing."""

import json
import os
import subprocess
import time

import pytest

from cluster.drill import Drill, Fault, faults_of_nodes, only
from cluster.hosts import Hosts, why_no_hosts
from cluster.ledger import Ledger
from cluster.nodes import Node
from peers import wait_for

no_hosts = why_no_hosts()
SEED = int(os.environ.get("HOLDFAST_SEED", "1"))


@pytest.fixture
def ledger(place):
    made = Ledger(place, seed=SEED)
    yield made
    made.end()


def faults(done, names="abc", failing=None):
    def make(name, what):
        def end():
            done.append((name, "restored"))
            if name == failing:
                raise OSError("gone for good")
        return Fault(name, what, lambda: done.append((name, what)), end)
    return [make(name, what) for name in names for what in ("killed", "cut")]


def test_the_same_seed_breaks_the_same(ledger):
    done = [], [], []
    for seed, list_of in zip((5, 5, 6), done):
        Drill(ledger, faults(list_of), seed, say=lambda _: None).run(0.4, 0.02)
    assert done[0] == done[1] != done[2]
    assert len(done[0]) == 40 and {name for name, _ in done[0]} == set("abc")
    assert [what for _, what in done[0][1::2]] == ["restored"] * 20


def test_a_drill_of_some_faults_only():
    def named(*names):
        return [(fault.component, fault.what) for fault in only(faults([], "ab"), names)]
    assert named("a") == [("a", "killed"), ("a", "cut")]
    assert named("cu") == [("a", "cut"), ("b", "cut")]
    assert named("cut", "a") == [("a", "killed"), ("a", "cut"), ("b", "cut")]
    with pytest.raises(ValueError, match="called frozen; there are: a, b, cut, killed"):
        named("a", "frozen")


def test_who_does_not_come_back_fails_the_drill(ledger):
    said = []
    drill = Drill(ledger, faults([], failing="b"), SEED, say=said.append)
    drill.run(0.4, 0.02)
    report = drill.report()
    assert set(report.as_json()["wrong"]["not_restored"]) == {"b"} and len(drill.broken) == 20
    assert "WRONG" in report.text() and any("gone for good" in line for line in said)
    with pytest.raises(AssertionError):
        report.check()


def test_what_cannot_be_broken_ends_no_drill(ledger):
    def begin():
        raise AssertionError("no database leads")
    drill = Drill(ledger, [Fault("a", "killed", begin)], SEED, say=lambda _: None)
    drill.run(0.1, 0.02)
    report = drill.report()
    assert len(drill.broken) == 5 and set(report.wrong["not_restored"]) == {"a"}
    assert "no database leads" in drill.broken[0].error


class Silent:
    """A node that answers nothing."""

    def __init__(self, place):
        self.root = place / "n1" / "holdfast"

    def tool(self, *words, check, seconds):
        raise subprocess.TimeoutExpired(words, seconds)


def test_the_end_is_bounded_and_says_what_the_nodes_say(place, ledger):
    drill = Drill(ledger, [], SEED, say=lambda _: None)
    drill.began = time.monotonic()
    drill.finish([Silent(place)], seconds=0.3)
    report = drill.report()
    assert set(report.wrong) == {"not_empty"} and report.as_json()["end_seconds"] is None
    assert "n1" in report.text() and "status: no answer" in report.text()


class Leaderless:
    """Databases of which none leads until somebody says so."""

    def __init__(self):
        self.leader = None

    def __iter__(self):
        return iter([self])

    def leads(self):
        return self.leader is not None

    def lead_by_hand(self):
        self.leader = "db2"
        return self.leader


def test_databases_that_elect_nobody_get_a_leader_by_hand(ledger, monkeypatch):
    monkeypatch.setattr("cluster.drill.LEADERLESS_SECONDS", 1)
    drill = Drill(ledger, [], SEED, say=lambda _: None)
    drill.began = time.monotonic()
    drill.mind(Leaderless())
    wait_for(lambda: drill.by_hand, 20, what="a leader")
    report = drill.report()
    assert report.as_json()["by_hand"] == ["db2"] and "leader by hand: db2" in report.text()
    assert report.as_json()["passed"]


@pytest.mark.skipif(no_hosts is not None, reason=str(no_hosts))
def test_a_drill_of_two_nodes(place, ledger):
    """Each fault of a node once and again; what was acknowledged arrives."""
    with Hosts(place, ["clients", "n1", "n2", "primary"]) as hosts:
        primary = hosts["primary"]
        ledger.collect("primary", 25, address=primary.address, inside=primary.inside)
        routes = (f'server m1 {{ address = "{primary.address}:25" connections = 4 '
                  "command-timeout = 2s dot-timeout = 2s }\n"
                  "domain example.com { deliver-to = m1  retry = {1s} }\n")
        nodes = [Node(hosts[name], routes) for name in ("n1", "n2")]
        try:
            for node in nodes:
                node.host.jump_clock(0)
                node.start()
            ledger.send([node.address() for node in nodes], connections=4, rate=60, patience=3,
                        inside=hosts["clients"].inside)
            drill = Drill(ledger, faults_of_nodes(hosts, nodes), SEED)
            for fault in drill.faults:
                drill.begin(fault)
                seen = ledger.acknowledged()
                wait_for(lambda: ledger.acknowledged() > seen + 30, what="30 messages more")
                drill.restore()
            drill.finish(nodes)
            report = drill.report()
            print(report.text())
            report.check()
            told = json.loads(json.dumps(report.as_json()))
            assert told["passed"] and len(told["faults"]) == 10
            assert told["mail"]["acknowledged"] > 180 and told["mail"]["refused"] == 0
            assert all(fault["until"] > fault["at"] for fault in told["faults"])
            for node in nodes:
                node.stop()
        finally:
            for node in nodes:
                node.end()
