# SPDX-License-Identifier: Apache-2.0
"""Whichever member of a cluster an operator asks, he gets the cluster's answer
(docs/decisions/0050)."""

import json
import os
import re
import signal

import pytest

from daemon import BUILD, ROOT
from peers import wait_for
from test_cluster import DOMAINS, _database, _hop, _member, nodes, wait_for_states  # noqa: F401

LONG = 120


@pytest.fixture(name="three")
def _three(member, hop):
    """Three members, and a hop that is away."""
    made = [member(name) for name in ("n1", "n2", "n3")]
    wait_for_states(made[0], n1="up", n2="up", n3="up")
    for domain in DOMAINS:  # a share is there when mail for it has come
        made[0].send([f"first@{domain}"])
    wait_for(lambda: all(row["lanes"] > 0 for row in nodes(made[0]).values()), LONG,
             what="lanes at all")
    wait_for(lambda: len(hop.messages) == len(DOMAINS), LONG, what="the first")
    hop.stop()
    return made


def queue_of(daemon, *arguments):
    return {row["id"]: row for row in daemon.queue(*arguments)}


def is_whole(daemon, messages, recipients):
    rows = daemon.queue()
    return len(rows) == messages and sum(row["recipient_count"] for row in rows) == recipients


def without_ages(rows):
    """What differs from one moment to the next."""
    return [{key: row[key] for key in ("id", "sender", "recipient_count", "received", "bytes")} |
            {"recipients": sorted(row["recipients"])} for row in rows]


def owner_of(three, recipient):
    """The member that owns this delivery, and two others."""
    for daemon in three:
        if daemon.lines("queue", "list", "--local", "--recipient", recipient):
            return daemon, [other for other in three if other is not daemon]
    raise AssertionError(f"nobody owns {recipient}")


def send_to_all(three):
    """One message to each domain, and one to all of them."""
    for number, domain in enumerate(DOMAINS):
        three[number % 3].send([f"ann@{domain}"])
    three[0].send([f"all@{domain}" for domain in DOMAINS])
    for daemon in three:
        wait_for(lambda: is_whole(daemon, len(DOMAINS) + 1, 2 * len(DOMAINS)), LONG,  # noqa: B023
                 what="all of it, from each")


def test_a_request_that_is_too_long_is_not_read(three, database):
    """Written by whoever has the right, not by a member: a member has a bound of its own."""
    send_to_all(three)
    number = nodes(three[0])["n2"]["number"]
    database.sql("INSERT INTO holdfast.requests (id, asker, target, privileged, body)"
                 f" SELECT gen_random_uuid(), 0, {number}, false,"
                 " convert_to(repeat('x', 3 << 20), 'UTF8')")
    assert len(three[0].queue()) == len(DOMAINS) + 1  # n2 has read what there was for it
    assert database.sql("SELECT served IS NULL FROM holdfast.requests WHERE asker = 0") == ["t"]


def test_nobody_looks_for_a_request_that_is_too_long(member, database):
    """It would be found there, and not taken, each second for as long as requests are taken."""
    wait_for_states(member("n1"), n1="up")
    database.sql("INSERT INTO holdfast.requests (id, asker, target, privileged, body)"
                 " SELECT gen_random_uuid(), 0, number, false, convert_to(repeat('x', 3 << 20), 'UTF8')"
                 " FROM holdfast.nodes")
    wait_for(lambda: database.sql("SELECT made < clock_timestamp() - interval '5 s'"
                                  " FROM holdfast.requests") == ["t"], LONG, what="its end")
    assert database.sql("SELECT query FROM pg_stat_activity"
                        " WHERE query LIKE '%FROM holdfast.answers a WHERE a.request = id%'"
                        " AND pid <> pg_backend_pid()") == []


def test_each_member_lists_all_that_waits(three):
    send_to_all(three)
    lists = [daemon.queue() for daemon in three]
    assert without_ages(lists[0]) == without_ages(lists[1]) == without_ages(lists[2])
    local = [daemon.lines("queue", "list", "--local") for daemon in three]
    assert all(local) and sum(map(len, local)) > len(DOMAINS) + 1, "several parts of one message"
    assert three[0].lines("queue", "list", "--node", "n2") and \
        {row["id"] for row in three[0].lines("queue", "list", "--node", "n2")} == \
        {row["id"] for row in local[1]}
    assert [row["received"] for row in lists[0]] == sorted(row["received"] for row in lists[0])
    assert all(row["missing_nodes"] == [] for row in lists[0])
    for words, code, error in [(("--node", "n9"), 1, "there is no such node"),
                               (("--node", "n2", "--local"), 2, "choose one of them")]:
        answer = three[0].tool("queue", "list", *words, check=False)
        assert answer.returncode == code and error in answer.stderr and not answer.stdout


def test_parts_of_one_message_are_one(three):
    send_to_all(three)
    whole = [row for row in three[1].queue() if row["recipient_count"] > 1]
    assert [sorted(row["recipients"]) for row in whole] == [sorted(f"all@{d}" for d in DOMAINS)]
    for daemon in three:
        shown = daemon.lines("queue", "show", whole[0]["id"])
        assert len(shown) == 1
        assert [delivery["recipient"] for delivery in shown[0]["deliveries"]] == \
            [f"all@{domain}" for domain in DOMAINS]
        assert {delivery["state"] for delivery in shown[0]["deliveries"]} <= \
            {"waiting", "deferred", "in_flight"}


def exported(path, id_):
    return json.loads((path / f"{id_}.json").read_text())["recipients"]


def test_what_has_ended_at_another_is_told(three, place):
    """By `show` its fate; by an export all recipients under their numbers, also where each member's
    part is written by itself into one directory."""
    send_to_all(three)
    id_ = next(row["id"] for row in three[0].queue() if row["recipient_count"] > 1)
    three[0].tool("queue", "discard", id_, "--recipient", f"all@{DOMAINS[0]}")
    parts = 0
    for number, daemon in enumerate(three):
        delivery = daemon.lines("queue", "show", id_)[0]["deliveries"][0]
        assert (delivery["state"], delivery["fate"]) == ("finished", "discarded"), number
        assert "discarded" in daemon.tool("queue", "show", id_).stdout
        daemon.tool("queue", "export", place / f"out{number}", id_)
        told = exported(place / f"out{number}", id_)
        assert [one["address"] for one in told] == [f"all@{domain}" for domain in DOMAINS]
        assert [one["n"] for one in told] == list(range(len(DOMAINS)))
        assert told[0]["fate"] == "discarded" and not any(one["fate"] for one in told[1:])
        if any(row["id"] == id_ for row in daemon.lines("queue", "list", "--local")):
            daemon.tool("queue", "export", place / "parts", id_, "--local")
            parts += 1
    assert parts > 1
    told = exported(place / "parts", id_)
    assert [one["address"] for one in told] == [f"all@{domain}" for domain in DOMAINS]
    assert told[0]["fate"] == "discarded"
    assert not [one for one in told if one["state"] == "elsewhere"], told


def states_of(daemon, *arguments):
    return {row["id"]: row["state"] for row in daemon.queue(*arguments)}


def test_what_one_holds_another_owns(three):
    send_to_all(three)
    owner, others = owner_of(three, "ann@a.example")
    found = others[0].queue("--recipient", "ann@a.example")[0]["id"]
    done = others[0].lines("queue", "hold", found)
    assert [(row["id"], row["done"]) for row in done] == [(f"{found}/0", True)]
    assert states_of(others[1])[found] == "held"
    assert owner.lines("queue", "show", "--local", found)[0]["state"] == "held"
    assert others[1].lines("queue", "release", found)[0]["done"]
    assert states_of(others[0])[found] != "held"

    rows = others[0].lines("queue", "hold", "--recipient", "all@*")  # in shares of several members
    assert sorted(row["recipient"] for row in rows) == sorted(f"all@{d}" for d in DOMAINS)
    assert {row["id"].split("/")[1] for row in rows} == {str(n) for n in range(len(DOMAINS))}
    whole = others[1].queue("--recipient", "all@*")
    assert len(whole) == 1 and whole[0]["state"] == "held"
    assert whole[0]["recipient_count"] == len(DOMAINS)

    rows = others[1].lines("queue", "discard", "--recipient", "all@*")
    assert all(row["done"] for row in rows) and len(rows) == len(DOMAINS)
    for daemon in three:
        assert daemon.queue("--recipient", "all@*") == []
    nothing = three[0].tool("queue", "hold", "--recipient", "nobody@*", check=False)
    assert nothing.returncode == 1 and nothing.stderr.count("nothing matched") == 1


def test_what_one_redirects_another_hands_over(three, place):
    """And what another owns is exported, whole."""
    send_to_all(three)
    _, others = owner_of(three, "ann@b.example")
    found = others[0].queue("--recipient", "ann@b.example")[0]["id"]
    assert others[0].lines("queue", "redirect", "--to", "moved@c.example", found)[0]["done"]
    for daemon in three:
        shown = daemon.lines("queue", "show", found)[0]["deliveries"][0]
        assert shown["redirect_to"] == "moved@c.example", shown

    three[2].tool("queue", "export", place / "out")
    records = [json.loads(path.read_text()) for path in (place / "out").glob("*.json")]
    assert len(records) == len(DOMAINS) + 1
    whole = [record for record in records if len(record["recipients"]) > 1]
    assert [recipient["address"] for recipient in whole[0]["recipients"]] == \
        [f"all@{domain}" for domain in DOMAINS]
    assert not any(recipient["state"] == "elsewhere"
                   for record in records for recipient in record["recipients"])


def test_status_has_the_totals_of_all(three):
    send_to_all(three)
    deliveries = 2 * len(DOMAINS)
    for daemon in three:
        wait_for(lambda: daemon.status()["cluster"]["queue"]["deliveries"] == deliveries, LONG,  # noqa: B023
                 what="the totals")
    three[0].tool("queue", "hold", "--recipient", "ann@*")
    wait_for(lambda: three[1].status()["cluster"]["queue"]["held"] == len(DOMAINS), LONG,
             what="all that is held")
    states = [daemon.status() for daemon in three]
    assert sum(status["queue"]["deliveries"] for status in states) == deliveries
    assert json.loads(three[0].tool("status", "--json", "--node", "n2").stdout)["cluster"]["name"] \
        == "n2"
    assert states[0]["cluster"]["missing_nodes"] == [] and "Cluster " in three[0].tool("status").stdout
    three[2].kill()
    wait_for(lambda: three[0].status()["cluster"]["missing_nodes"] == ["n3"], LONG, what="its name")
    answer = three[0].tool("queue", "list", "--node", "n3", check=False)
    assert answer.returncode == 4 and "node n3 was not reached: it is down" in answer.stderr
    wait_for(lambda: three[0].status()["cluster"]["queue"]["deliveries"] == deliveries, LONG,
             what="the totals of the others, who have it all")


def test_a_member_that_does_not_answer_is_named(three):
    send_to_all(three)
    asked, other, silent = three
    for pid in silent.pids():
        os.kill(pid, signal.SIGSTOP)
    try:
        answer = asked.tool("queue", "list", "--json", check=False, seconds=LONG)
        assert answer.returncode == 4 and "node n3 was not reached" in answer.stderr
        rows = [json.loads(line) for line in answer.stdout.splitlines()]
        assert rows and all(row["missing_nodes"] == ["n3"] for row in rows)
        wait_for(lambda: other.tool("queue", "list", check=False).returncode == 0, LONG,
                 what="an answer without it, when others have its mail")
    finally:
        for pid in silent.pids():
            os.kill(pid, signal.SIGCONT)


def test_a_message_s_events_are_told_across_a_takeover(three, hop):
    send_to_all(three)
    owner, others = owner_of(three, "ann@example.org")
    others[0].send(["late@example.org"])  # who accepts it lives on, and knows its address
    wait_for(lambda: others[1].queue("--recipient", "late@example.org"), LONG, what="it in the list")
    found = others[0].queue("--recipient", "late@example.org")[0]["id"]
    others[0].tool("queue", "hold", found)
    owner.kill()
    wait_for(lambda: others[1].queue("--recipient", "late@example.org"), LONG, what="taken over")
    assert states_of(others[1], "--recipient", "late@example.org") == {found: "held"}
    others[1].tool("queue", "release", found)
    hop.start()
    wait_for(lambda: any("late@example.org" in message.recipients for message in hop.messages), LONG,
             what="its hand-over")
    name = {0: "n1", 1: "n2", 2: "n3"}[three.index(owner)]

    def events(daemon, what):
        answer = daemon.tool("trace", what, "--json", check=False)
        rows = [json.loads(line) for line in answer.stdout.splitlines()]
        return answer, [row for row in rows if row["id"] == found]
    for daemon in others:
        wait_for(lambda: "delivered" in [row["event"] for row in events(daemon, found)[1]],  # noqa: B023
                 LONG, what="in the trace")
        for what in (found, "late@example.org"):
            answer, rows = events(daemon, what)
            assert answer.returncode == 4
            assert re.search(f"node {name} (did not answer|was not reached)", answer.stderr)
            assert {"released", "delivered"} <= {row["event"] for row in rows}, rows
            assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)
    owner.start()
    wait_for(lambda: events(others[0], "late@example.org")[0].returncode == 0, LONG, what="all answer")
    rows = events(others[0], "late@example.org")[1]
    assert {"accepted", "released", "delivered"} <= {row["event"] for row in rows}
    assert {row["recipient"] for row in rows} == {"late@example.org"}


def server_states(daemon):
    row, = daemon.lines("server", "list", "--local", "m1")
    return row["state"]


def test_a_server_is_out_at_all_at_once(three):
    row, = three[0].lines("server", "down", "m1", check=True)
    assert row["nodes"] == {"n1": "disabled", "n2": "disabled", "n3": "disabled"}
    assert {server_states(daemon) for daemon in three} == {"disabled"}
    three[1].tool("server", "up", "m1")
    assert "disabled" not in {server_states(daemon) for daemon in three}
    row, = three[2].lines("server", "list")
    assert set(row["nodes"]) == {"n1", "n2", "n3"} and row["missing_nodes"] == []


def test_a_drill_runs_where_the_mail_is(three, hop):
    hop.start()
    three[0].send(["ann@a.example"])
    wait_for(lambda: any("ann@a.example" in message.recipients for message in hop.messages), LONG,
             what="its hand-over")
    def owner_by_all():
        """Shares still move to members that came last."""
        answers = {name: daemon.tool("drill", "a.example", "--minutes", "0.05", "--messages", "2",
                                     check=False, seconds=LONG)
                   for name, daemon in zip(("n1", "n2", "n3"), three)}
        done = [name for name, answer in answers.items() if answer.returncode == 0]
        named = all(f"by node {done[0]}:" in answer.stderr for name, answer in answers.items()
                    if name != done[0]) if done else False
        return done[0] if len(done) == 1 and named else None
    owner = wait_for(owner_by_all, LONG, what="a drill at one of them, whom the others name")
    other = three[0] if owner != "n1" else three[1]
    report = json.loads(other.tool("drill", "a.example", "--minutes", "0.05", "--messages", "2",
                                   "--node", owner, "--json", seconds=LONG).stdout)
    assert report["domain"] == "a.example" and report["injected"] == 2


def keys_of(value, data=("nodes",)):
    """Of all objects in it; not of those whose keys are names."""
    if isinstance(value, list):
        return {key for item in value for key in keys_of(item, data)}
    if not isinstance(value, dict):
        return set()
    return set(value) | {key for name, item in value.items()
                         if name not in data or isinstance(item, list)
                         for key in keys_of(item, data)}


def test_every_key_is_in_the_manual(three, tmp_path):
    """holdfast-json(5) has those of what the daemon is asked, holdfast(1) the others."""
    rows = (BUILD / "man/holdfast-json.5").read_text()
    page = (ROOT / "man/holdfast.1").read_text()
    others = set(re.findall(r"[a-z0-9_]+", " ".join(re.findall(r"^\.(?:Cm|Dq|Pq Cm) .*", page, re.M))))
    send_to_all(three)
    found = three[0].queue()[0]["id"]
    text = tmp_path / "text"
    text.write_text('server other { address = "127.0.0.1:9" }\n')
    for words in (("status",), ("node", "list"), ("queue", "list"), ("queue", "show", "--all"),
                  ("queue", "hold", found), ("trace", found), ("server", "list"),
                  ("server", "history"), ("server", "down", "m1"), ("server", "up", "m1"),
                  ("node", "drain", "n3"), ("node", "undrain", "n3"),
                  ("settings", "set", "--version", "0", str(text)), ("settings", "show"),
                  ("settings", "history"), ("settings", "diff")):
        known = others if words[0] == "settings" else set(re.findall(r'"([a-z0-9_]+)"', rows))
        for row in three[0].lines(*words):
            assert keys_of(row) <= known, f"{words}: {sorted(keys_of(row) - known)}"
