# SPDX-License-Identifier: Apache-2.0
"""The fire drill: hand-over stops for a while, mail is taken and waits, and then goes in order."""

import json
import signal
import subprocess
import time

import pytest

from daemon import backup_mx, program
from peers import wait_for

RECIPIENT = "drill-recipient = drill@example.com"


@pytest.fixture
def drilled(holdfast, sink):
    """A daemon whose server is up, and how to begin a drill there."""
    primary = sink()
    mx = holdfast(backup_mx(primary.port, more=RECIPIENT))
    wait_for(lambda: mx.server_state("m1") == "up", what="m1 up")
    children = []

    def begin(*arguments):
        child = subprocess.Popen([program("holdfast"), "-c", str(mx.conf), "drill", "example.com",
                                  *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True)
        children.append(child)
        wait_for(lambda: lane(mx)["state"] == "held" or child.poll() is not None,
                 what="the drill to begin")
        return child
    yield mx, primary, begin
    for child in children:
        child.kill()
        child.communicate()


def lane(mx):
    return mx.status()["lanes"][0]


def send_numbered(mx, count):
    with mx.dialogue() as dialogue:
        for number in range(count):
            assert dialogue.send("bob@client.example", ["ann@example.com", "eve@example.com"][
                number % 2:][:1], b"Subject: real %d\r\n\r\n" % number)[0] == 250


def test_mail_waits_goes_in_order_and_is_reported(drilled):
    mx, primary, begin = drilled
    drill = begin("--minutes", "10", "--messages", "600", "--json")  # one a second
    assert lane(mx)["reason"].startswith("drill until ")
    assert [a["subject"] for a in mx.status()["alerts"] if a["kind"] == "drill"] \
        == ["domain:example.com"]
    send_numbered(mx, 10)
    wait_for(lambda: mx.status()["queue"]["messages"] >= 13, what="three messages of the drill")
    assert primary.messages == [] and lane(mx)["state"] == "held"
    assert mx.server_state("m1") == "up"
    mx.tool("drill", "stop", "example.com")
    out, errors = drill.communicate(timeout=30)
    assert drill.returncode == 0, errors
    report = json.loads(out)
    assert report["ended"] == "stop" and report["domain"] == "example.com"
    assert report["injected"] >= 3
    assert report["held"] == report["delivered"] == 10 + report["injected"]
    assert report["out_of_order"] == report["doubled"] == 0
    assert 0 <= report["first_ms"] <= report["drained_ms"]
    assert report["rate"] > 0
    for recipient, parity in (("ann@example.com", 0), ("eve@example.com", 1)):
        assert [m for m in primary.subjects() if m.startswith("real")
                and int(m[5:]) % 2 == parity] == [f"real {n}" for n in range(parity, 10, 2)]
    marked = [m for m in primary.messages if m.recipients == ["drill@example.com"]]
    assert [int(m.content.split(b"X-Holdfast-Drill: ")[1].split()[1]) for m in marked] \
        == list(range(1, report["injected"] + 1))
    assert all(m.sender == "" and b"\r\nAuto-Submitted: auto-generated\r\n" in m.content
               for m in marked)
    events = [row["event"] for row in mx.lines("trace", "drill@example.com")]
    assert events.count("accepted") == events.count("delivered") == report["injected"]
    assert "drill-report" in mx.log()
    assert not [a for a in mx.status()["alerts"] if a["kind"] == "drill"]


def test_without_a_drill_recipient_all_ends_at_rcpt(holdfast, sink):
    primary = sink()
    mx = holdfast(backup_mx(primary.port))
    wait_for(lambda: mx.server_state("m1") == "up", what="m1 up")
    said = []
    primary.rule = lambda stage, session, argument: said.append((session, stage, argument))
    report = json.loads(mx.tool("drill", "example.com", "--minutes", "0.05", "--messages", "2",
                                "--json").stdout)
    assert report["recipient"] == "postmaster@example.com" and report["envelope_only"] is True
    assert report["held"] == report["injected"] == report["asked"] == 2
    assert report["delivered"] == report["refused"] == report["out_of_order"] == 0
    assert primary.messages == []
    asked = [argument for _, stage, argument in said if stage == "RCPT"]
    assert len(asked) == 2
    assert all(line.startswith("RCPT TO:<postmaster@example.com>") for line in asked)
    assert not [stage for _, stage, _ in said if stage in ("DATA", "BDAT", "dot")]
    sessions = {session for session, _, _ in said}
    commands = [line.split()[0] for session in sessions for line in session.commands]
    assert commands.count("MAIL") == commands.count("RCPT") == commands.count("RSET") == 2
    primary.rule = lambda stage, session, argument: "450 4.7.1 Not yet" if stage == "RCPT" else None
    refused = mx.tool("drill", "example.com", "--minutes", "0.02", "--messages", "1").stdout
    assert "Drill of example.com: bad" in refused and "refused      1 at RCPT" in refused
    assert mx.status()["queue"]["messages"] == mx.status()["dead_letters"] == 0
    ends = [row for row in mx.lines("trace", "postmaster@example.com")
            if row["event"] == "discarded"]
    assert len(ends) == 3 and "RCPT" in ends[0]["reason"]


@pytest.mark.sanitized
def test_it_ends_with_its_time(drilled):
    mx, primary, begin = drilled
    drill = begin("--minutes", "0.05", "--messages", "1", "--json")
    out, errors = drill.communicate(timeout=30)
    assert drill.returncode == 0, errors
    report = json.loads(out)
    assert report["ended"] == "time" and report["minutes"] == 0.05
    assert report["held"] == report["delivered"] == len(primary.messages) == 1


def test_stop_ends_it_and_the_text_says_so(drilled):
    mx, primary, begin = drilled
    drill = begin("--messages", "2")
    mx.send()
    assert "example.com" in mx.tool("drill", "stop", "example.com").stdout
    out, _ = drill.communicate(timeout=30)
    assert drill.returncode == 0
    assert "held back until" in out and "Drill of example.com: good" in out and "it was stopped" in out
    assert "kept for every recipient" in out and "none possible" in out
    assert len(primary.messages) == 2
    assert mx.tool("drill", "stop", check=False).returncode == 1
    nothing = mx.tool("drill", "example.com", "--minutes", "0.02", "--messages", "0").stdout
    assert "held         nothing" in nothing and "order" not in nothing


def test_an_interrupted_tool_leaves_the_drill_alone(drilled):
    mx, primary, begin = drilled
    drill = begin()
    time.sleep(0.3)
    drill.send_signal(signal.SIGINT)
    _, errors = drill.communicate(timeout=30)
    assert drill.returncode == 1 and "the drill goes on until" in errors
    assert lane(mx)["state"] == "held"
    again = begin()
    assert "another drill runs there" in again.communicate(timeout=30)[1]
    assert again.returncode == 1
    mx.tool("drill", "stop")
    mx.wait_empty()
    assert "drill-report" in mx.log()


def test_kill_and_restart_do_not_prolong_it(drilled):
    mx, primary, begin = drilled
    began = time.monotonic()
    drill = begin("--minutes", "0.3", "--messages", "3")
    mx.send(content=b"Subject: before\r\n\r\n")
    mx.kill()
    assert drill.communicate(timeout=30)[1] and drill.returncode == 3
    mx.start()
    wait_for(lambda: not mx.status()["loading"] and mx.server_state("m1") == "up", what="m1 up")
    assert lane(mx)["state"] == "held"
    mx.send(content=b"Subject: after\r\n\r\n")
    assert primary.messages == []
    wait_for(lambda: "after" in primary.subjects(), 30, what="the end of the drill")
    assert primary.messages[0].time - began >= 17
    real = [s for s in primary.subjects() if not s.startswith("Fire drill")]
    assert real == ["before", "after"]
    mx.wait_empty()
    assert lane(mx)["state"] == "idle"


def test_a_real_failure_ends_it(drilled):
    mx, primary, begin = drilled
    drill = begin("--json", "--messages", "1")
    mx.send()
    primary.stop()
    mx.tool("server", "down", "m1")
    out, _ = drill.communicate(timeout=30)
    assert drill.returncode == 1
    report = json.loads(out)
    assert report["ended"] == "failure" and report["drained_ms"] is None
    assert report["held"] == 2 and report["delivered"] == 0
    assert lane(mx)["state"] == "stopped"
    refused = begin()
    assert "all servers of the domain are down" in refused.communicate(timeout=30)[1]
    primary.start()
    mx.tool("server", "up", "m1")
    mx.wait_empty()
    assert len(primary.messages) == 2


def test_refusals(drilled):
    mx, _, _ = drilled
    for arguments, code in ((["elsewhere.example"], 1), (["example.com", "--minutes", "0"], 2),
                            (["example.com", "--minutes", "x"], 2), ([], 2),
                            (["example.com", "--minutes", "241"], 2),
                            (["example.com", "--messages", "1.5"], 2),
                            (["example.com", "--messages", "10001"], 2)):
        result = mx.tool("drill", *arguments, check=False)
        assert result.returncode == code and result.stderr, arguments
    assert lane(mx)["state"] == "idle"
