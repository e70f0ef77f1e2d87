# SPDX-License-Identifier: Apache-2.0
"""Mail that was handed over goes again, from its safety copy: its server was restored from an old
backup."""

import json
import re
import subprocess
import time

from daemon import backup_mx, program
from peers import wait_for
from test_faults import SIZE_MB, fill, small_disk  # noqa: F401 (a fixture)

KEPT = "safety-copy = 2d\n"


def subject(message):
    return re.search(rb"Subject: (\S+)", message.content).group(1).decode()


def subjects(hop, recipient=None):
    return [subject(message) for message in hop.messages
            if recipient is None or recipient in message.recipients]


def resend(mx, *arguments, check=True):
    return mx.lines("queue", "resend", *arguments, check=check)


def send_numbered(mx, numbers, recipients=("ann@example.com",), more=b""):
    with mx.dialogue() as dialogue:
        for n in numbers:
            dialogue.send("bob@client.example", recipients,
                          b"Subject: %d\r\nMessage-ID: <%d@client.example>\r\n\r\n" % (n, n) + more)


def hand_over(mx, hop, numbers, **how):
    send_numbered(mx, numbers, **how)
    mx.wait_empty()


def restored(hop):
    """From a backup of before our mail."""
    before, hop.messages[:] = list(hop.messages), []
    return before


def test_all_of_a_window_arrives_again_once_and_in_order(holdfast, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port), top=KEPT)
    for round_ in range(10):
        for who in ("ann", "eve"):
            send_numbered(mx, [round_ * 10 + (who == "eve")], [f"{who}@example.com"])
    mx.wait_empty()
    before = restored(hop)
    assert len(before) == 20
    time.sleep(0.05)
    assert mx.status()["queue"]["messages"] == 0
    plan = resend(mx, "--domain", "example.com", "--since", "1h", "--dry-run")
    assert len(plan) == 20 and not hop.messages
    assert not any(row["done"] or row["new_id"] for row in plan)
    rows = resend(mx, "--domain", "example.com", "--since", "1h")
    assert [row["id"] for row in rows] == [row["id"] for row in plan]
    assert all(row["done"] and row["server"] == "m1" for row in rows)
    mx.wait_empty()
    for who in ("ann@example.com", "eve@example.com"):
        was = [subject(message) for message in before if who in message.recipients]
        assert subjects(hop, who) == was and len(was) == 10
    # The same bytes: nothing was added, not even a trace field.
    assert sorted(m.content for m in hop.messages) == sorted(m.content for m in before)
    assert len({row["new_id"] for row in rows} | {row["id"] for row in rows}) == 40


def test_a_second_time_sends_nothing_twice(holdfast, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port), top=KEPT)
    hand_over(mx, hop, range(5))
    restored(hop)
    window = ["--since", "1h", "--until", f"@{int(time.time()) + 1}"]
    time.sleep(1.1)  # so that the copies are handed over outside the window
    assert len(resend(mx, *window)) == 5
    mx.wait_empty()
    result = mx.tool("queue", "resend", *window, check=False)
    assert result.returncode == 1 and "sent again before" in result.stderr
    assert len(hop.messages) == 5
    assert len(resend(mx, *window, "--again")) == 5
    mx.wait_empty()
    assert sorted(subjects(hop)) == sorted([str(n) for n in range(5)] * 2)


def test_only_who_was_chosen_and_had_it(holdfast, sink):
    def rule(stage, session, argument):
        return "550 5.1.1 Unknown" if stage == "RCPT" and "nobody@" in argument else None
    hop, other = sink(rule), sink()
    mx = holdfast(backup_mx(hop.port) + f'server n1 {{ address = "127.0.0.1:{other.port}" }}\n'
                  "domain other.example { deliver-to = n1 }\n", top=KEPT)
    wait_for(lambda: mx.server_state("n1") == "up", 10, what="n1 up")
    hand_over(mx, hop, [1], recipients=("ann@example.com", "ann@other.example"))
    send_numbered(mx, [2], recipients=("nobody@example.com", "eve@example.com"))
    wait_for(lambda: mx.status()["dead_letters"] == 1 and len(hop.messages) == 2, 10,
             what="a dead letter")
    hand_over(mx, hop, [3], recipients=("ann@other.example",))
    restored(hop), restored(other)
    before = f"@{int(time.time()) + 1}"
    time.sleep(1.1)
    usage = mx.tool("queue", "resend", check=False)
    assert usage.returncode == 2 and "which ones" in usage.stderr
    (row,) = resend(mx, "--recipient", "ann@*", "--server", "m1")
    assert row["recipients"] == ["ann@example.com"]
    (row,) = resend(mx, "--recipient", "*@example.com", "--until", before)
    assert row["recipients"] == ["eve@example.com"], "not who never had it"
    rows = resend(mx, "--server", "n1")
    assert [row["recipients"] for row in rows] == [["ann@other.example"]] * 2
    wait_for(lambda: len(hop.messages) == 2 and len(other.messages) == 2, 10, what="both")
    assert subjects(other) == ["1", "3"] and subjects(hop) == ["1", "2"]


def test_nobody_is_told_of_what_becomes_of_it(holdfast, sink):
    """A relay would return what is refused, and says so of delays; a copy is a dead letter."""
    asked, refuses = [], []

    def rule(stage, session, argument):
        if stage == "RCPT":
            asked.append(argument)
        return "554 5.7.1 Not wanted" if stage == "dot" and refuses else None
    hop = sink(rule)
    mx = holdfast(f'server m1 {{ address = "127.0.0.1:{hop.port}" }}\n'
                  "relay out { from = 127.0.0.0/8  deliver-to = m1 }\n", top=KEPT)
    send_numbered(mx, [7], ["far@away.example"])
    mx.wait_empty()
    restored(hop)
    refuses.append(True)
    (row,) = resend(mx, "--sender", "bob@client.example")
    wait_for(lambda: mx.status()["dead_letters"] == 1, 10, what="a dead letter")
    assert not hop.messages, "no notice to anybody"
    assert "NOTIFY=NEVER" not in asked[0] and "NOTIFY=NEVER" in asked[-1]
    (dead,) = mx.lines("queue", "show", row["new_id"])
    assert dead["copy_of"] == row["id"] and dead["deliveries"][0]["state"] == "dead"


def test_the_trace_of_either_leads_to_the_other(holdfast, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port), top=KEPT)
    hand_over(mx, hop, [1], recipients=("ann@example.com", "eve@example.com"))
    (row,) = resend(mx, "--recipient", "eve@example.com")
    mx.wait_empty()
    (old,) = [e for e in mx.lines("trace", row["id"]) if e["event"] == "resent"]
    assert old["reason"] == f"again as {row['new_id']}" and old["recipient"] == "eve@example.com"
    new = mx.lines("trace", row["new_id"])
    (copy,) = [e for e in new if e["event"] == "resent"]
    assert copy["reason"] == f"a copy of {row['id']}"
    assert [e["event"] for e in new][-1] == "delivered"
    # The client that it came from is told on, as of the first time.
    assert new[0]["event"] == "accepted" and new[0]["client"] == "127.0.0.1"


def test_a_copy_that_moves_to_another_host_is_known_as_one(holdfast, sink, place):
    hop = sink()
    mx = holdfast(backup_mx(hop.port), top=KEPT)
    hand_over(mx, hop, [1])
    mx.tool("server", "down", "m1")
    (row,) = resend(mx, "--all")
    mx.tool("queue", "export", place / "out", "--all")
    other = holdfast(backup_mx(hop.port), top=KEPT, name="other")
    other.tool("server", "down", "m1")
    other.tool("queue", "import", place / "out")
    (moved,) = other.lines("queue", "show", row["new_id"])
    assert moved["copy_of"] == row["id"]
    assert "Copy of" in other.tool("queue", "show", row["new_id"]).stdout


def test_after_a_restart_and_a_crash(holdfast, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port), top=KEPT + "segment-size = 256K\nlarge-content = 64K\n")
    hand_over(mx, hop, range(30), more=b"x" * 70 + b"\r\n" * 10000)
    hand_over(mx, hop, [99], more=(b"y" * 70 + b"\r\n") * 20000)  # in a file of its own
    mx.stop()
    mx.start()
    wait_for(lambda: mx.status()["safety_copies"]["segments"] > 2, 10, what="copies")
    assert mx.status()["queue"]["messages"] == 0
    mx.kill()
    mx.start()
    wait_for(lambda: not mx.status()["loading"], 10, what="the journal")
    time.sleep(1.5)
    assert mx.status()["queue"]["messages"] == 0 and len(hop.messages) == 31, "nothing by itself"
    before = restored(hop)
    assert len(resend(mx, "--domain", "example.com")) == 31
    mx.wait_empty()
    assert sorted(m.content for m in hop.messages) == sorted(m.content for m in before)
    mx.stop()
    verified = json.loads(mx.tool("spool", "verify", "--json").stdout.splitlines()[-1])
    assert verified["copies"] > 2 and verified["copy_bytes"] > 1_400_000
    assert verified["damaged_records"] + verified["missing_contents"] == 0


def test_a_run_that_is_killed_goes_on_where_it_was(holdfast, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port), top=KEPT)
    hand_over(mx, hop, range(300), more=(b"z" * 76 + b"\r\n") * 1300)
    restored(hop)
    window = ["--domain", "example.com", "--until", f"@{int(time.time()) + 1}"]
    time.sleep(1.1)
    command = [program("holdfast"), "-c", str(mx.conf), "queue", "resend", *window, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        child.kill()
    mx.wait_empty()
    first = len(hop.messages)
    assert 0 < first < 300
    assert len(resend(mx, *window)) == 300 - first
    mx.wait_empty()
    assert subjects(hop) == [str(n) for n in range(300)]


def test_their_time_ends(holdfast, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port), top="safety-copy = 4s\nsegment-size = 256K\n"
                                           "large-content = 64K\n")
    hand_over(mx, hop, range(20), more=b"x" * 70 + b"\r\n" * 10000)
    hand_over(mx, hop, [99], more=(b"y" * 70 + b"\r\n") * 20000)
    assert len(resend(mx, "--all", "--dry-run")) == 21
    wait_for(lambda: mx.tool("queue", "resend", "--all", "--dry-run",
                             check=False).returncode == 1, 20, what="their end")
    wait_for(lambda: mx.status()["safety_copies"]["bytes"] == 0, 20, what="room again")
    names = [path.name for path in (mx.state / "spool").iterdir()]
    assert not [name for name in names if name.startswith(("copy-", "large-", "content-"))]


def test_off_by_default_and_by_a_reload(holdfast, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port), top="segment-size = 256K\n")
    hand_over(mx, hop, range(10), more=b"x" * 70 + b"\r\n" * 10000)
    result = mx.tool("queue", "resend", "--all", check=False)
    assert result.returncode == 1 and "safety-copy is 0" in result.stderr
    mx.configure(backup_mx(hop.port), KEPT + "segment-size = 256K\n")
    mx.reload()
    wait_for(lambda: mx.status()["safety_copies"]["keep_seconds"] == 172800, 10, what="the reload")
    hand_over(mx, hop, range(20), more=b"x" * 70 + b"\r\n" * 10000)
    wait_for(lambda: mx.status()["safety_copies"]["bytes"] > 0, 10, what="copies")
    assert "Copies" in mx.tool("status").stdout
    mx.configure(backup_mx(hop.port), "segment-size = 256K\n")
    mx.reload()
    wait_for(lambda: mx.status()["safety_copies"]["bytes"] == 0, 20, what="their end")


def test_a_full_disk_costs_copies_and_no_mail(holdfast, sink, small_disk):  # noqa: F811
    """Copies fill what there is and make room: not one message is refused for their sake."""
    hop = sink()
    mx = holdfast(backup_mx(hop.port), top=KEPT + "segment-size = 1M\nreserve = 16M\n"
                                                  "large-content = 256K\n")
    body = b"x" * 76 + b"\r\n"
    sent, deadline = 0, time.monotonic() + 120
    while mx.status()["safety_copies"]["gone_until"] is None:
        assert time.monotonic() < deadline
        send_numbered(mx, range(sent, sent + 20), more=body * 13000)  # 1 MB each
        hop.messages.clear()
        sent += 20
    assert sent > SIZE_MB / 4
    send_numbered(mx, range(200), more=body * 1300)
    status = mx.status()
    assert status["accepting"] and status["safety_copies"]["bytes"] > 0
    wait_for(lambda: [a for a in mx.status()["alerts"] if a["kind"] == "safety-copy"], 10,
             what="an alert")
    assert "safety-copies-gone" in mx.log()
    mx.wait_empty()


def test_a_real_primary_is_filled_again(holdfast, postfix):
    primary = postfix()
    mx = holdfast(backup_mx(primary.port), top=KEPT)
    wait_for(lambda: mx.server_state("m1") == "up", 20, what="m1 up")
    hand_over(mx, None, range(10))
    wait_for(lambda: len(primary.messages()) == 10, 20, what="all of it")
    for path in (primary.root / "mail/all/new").iterdir():
        path.unlink()
    assert len(resend(mx, "--server", "m1")) == 10
    wait_for(lambda: len(primary.messages()) == 10, 20, what="all of it again")
    assert {re.search(rb"Message-ID: <(\d+)@", m).group(1) for m in primary.messages()} == \
        {b"%d" % n for n in range(10)}
