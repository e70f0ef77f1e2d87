# SPDX-License-Identifier: Apache-2.0
"""The tool: what an operator asks and does, with its exit codes."""

import json
import re
import shutil
import subprocess
import time
import urllib.request

import pytest

from daemon import backup_mx, program
from peers import free_port, wait_for

ID = re.compile(r"^[0-9a-z]{26}$")


@pytest.fixture
def held(holdfast, sink):
    """A daemon whose server is down, with three messages: (mx, hop)."""
    hop = sink(start=False)
    mx = holdfast(backup_mx(hop.port))
    mx.send(recipients=["ann@example.com"], sender="one@client.example")
    mx.send(recipients=["ann@example.com", "ben@example.com"], sender="two@client.example")
    mx.send(recipients=["ben@example.com"], sender="")
    return mx, hop


def test_status(held):
    mx, _ = held
    status = mx.status()
    assert {"messages", "deliveries", "bytes", "oldest_seconds"} <= status["queue"].keys()
    assert (status["queue"]["messages"], status["queue"]["deliveries"]) == (3, 4)
    (server,) = status["servers"]
    assert {"name", "state", "since", "failures", "used"} <= server.keys()
    assert abs(server["since"] / 1000 - time.time()) < 60
    assert {"route", "state", "deliveries", "server"} <= status["lanes"][0].keys()
    assert status["dead_letters"] == 0
    wait_for(lambda: mx.status()["lanes"][0]["state"] == "stopped", 10, what="the lane stopped")
    lane = mx.status()["lanes"][0]
    assert isinstance(lane["oldest_seconds"], int)
    assert lane["since"] == mx.status()["servers"][0]["since"]
    assert lane["reason"].startswith("m1 down: ")
    text = mx.tool("status").stdout
    assert lane["reason"] in text
    assert "m1" in text and "example.com" in text


def test_queue_list_and_filters(held):
    mx, _ = held
    rows = mx.queue()
    assert [row["sender"] for row in rows] == ["one@client.example", "two@client.example", ""]
    for row in rows:
        assert ID.match(row["id"])
        assert {"recipients", "received", "bytes", "attempts", "next", "reason"} <= row.keys()
    assert len({row["id"] for row in rows}) == 3
    assert len(mx.queue("--sender", "one@client.example")) == 1
    assert len(mx.queue("--recipient", "ben@example.com")) == 2
    assert len(mx.queue("--domain", "example.com")) == 3
    assert len(mx.queue("--domain", "other.example")) == 0
    assert len(mx.queue("--server", "m1")) == 3
    assert len(mx.queue("--older", "2h")) == 0
    assert len(mx.queue(rows[1]["id"])) == 1


def test_queue_show(held):
    mx, _ = held
    row = mx.queue()[1]
    (shown,) = mx.lines("queue", "show", row["id"])
    assert [d["recipient"] for d in shown["deliveries"]] == ["ann@example.com", "ben@example.com"]
    assert shown["deliveries"][0]["id"] == f"{row['id']}/0"
    assert shown["origin"]["client"] == "127.0.0.1"
    assert "two@client.example" in mx.tool("queue", "show", row["id"]).stdout


def test_hold_and_release(held):
    mx, hop = held
    first = mx.queue()[0]["id"]
    mx.tool("queue", "hold", first)
    mx.stop()
    mx.start()
    hop.start()
    wait_for(lambda: len(hop.messages) >= 2, 10, what="what is not held")
    time.sleep(0.5)
    wait_for(lambda: [row["id"] for row in mx.queue()] == [first], 5, what="only the held one")
    assert mx.queue()[0]["state"] == "held"
    mx.tool("queue", "release", first)
    mx.wait_empty()
    assert sorted(hop.recipients()) == ["ann@example.com"] * 2 + ["ben@example.com"] * 2


def test_redirect_to_a_server_and_to_an_address(holdfast, sink):
    hop, other = sink(start=False), sink()
    mx = holdfast(backup_mx(hop.port) + f'server spare {{ address = "127.0.0.1:{other.port}" }}\n')
    mx.send(recipients=["ann@example.com"])
    mx.send(recipients=["ben@example.com"])
    first, second = (row["id"] for row in mx.queue())
    mx.tool("queue", "redirect", first, "--to", "spare")
    wait_for(lambda: other.recipients() == ["ann@example.com"], 10, what="it at the spare server")
    mx.tool("queue", "redirect", second, "--to", "eve@example.com")
    hop.start()
    wait_for(lambda: hop.recipients() == ["eve@example.com"], 10, what="it under its new address")
    mx.wait_empty()


def test_discard_one_delivery(held):
    mx, hop = held
    row = mx.queue()[1]
    mx.tool("queue", "discard", f"{row['id']}/1")
    assert mx.queue(row["id"])[0]["recipients"] == ["ann@example.com"]
    hop.start()
    mx.wait_empty()
    assert sorted(hop.recipients()) == ["ann@example.com", "ann@example.com", "ben@example.com"]


def test_trace_by_id_address_and_message_id(holdfast, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port))
    mx.send(content=b"Message-ID: <find.me@client.example>\r\n\r\n")
    wait_for(lambda: len(hop.messages) == 1, 10)
    mx.wait_empty()
    by_address = mx.lines("trace", "ann@example.com")
    assert [e["event"] for e in by_address][0] == "accepted"
    assert by_address[-1]["event"] == "delivered"
    assert mx.lines("trace", "<find.me@client.example>") == by_address
    assert mx.lines("trace", by_address[0]["id"]) == by_address
    assert mx.tool("trace", "nobody@else.example", check=False).returncode == 1
    mx.kill()
    mx.start()
    assert mx.lines("trace", by_address[0]["id"])[0]["event"] == "accepted", "kept over kill -9"


def test_watch_tells_events_as_they_happen(holdfast, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port))
    watches = [subprocess.Popen([program("holdfast"), "-c", str(mx.conf), "queue", "watch", "--json",
                                 *more], stdout=subprocess.PIPE, text=True)
               for more in ([], ["--recipient", "ben@*"], ["--sender", "no@one"])]
    try:
        time.sleep(0.5)  # until they have asked
        mx.send(recipients=["ann@example.com", "ben@example.com"])
        wait_for(lambda: len(hop.messages) == 1, 10)
        mx.wait_empty()
        seen = []
        while len(seen) < 5:
            event = json.loads(watches[0].stdout.readline())
            seen += [] if event.get("subject") else [event]  # of a server
        assert [e["event"] for e in seen] == ["accepted", "attempt", "attempt", "delivered",
                                              "delivered"]
        assert {e["recipient"] for e in seen[1:]} == {"ann@example.com", "ben@example.com"}
        seen = [json.loads(watches[1].stdout.readline()) for _ in range(3)]
        assert [e["event"] for e in seen] == ["accepted", "attempt", "delivered"]
        assert seen[2]["recipient"] == "ben@example.com"
        watches[0].kill()
        watches[0].wait()
        mx.send(recipients=["cid@example.com"])
        wait_for(lambda: len(hop.messages) == 2, 10)
        assert mx.status()["queue"]["messages"] in (0, 1), "a watcher's end disturbs nobody"
    finally:
        for watch in watches:
            watch.kill()
        rest = [watch.communicate()[0] for watch in watches]
    assert rest[2] == "", "nothing matched"


def test_exit_codes(held):
    mx, _ = held
    assert mx.tool("status").returncode == 0
    assert mx.tool("queue", "show", "0" * 26, check=False).returncode == 1
    assert mx.tool("queue", "list", "--sender", "no@one", check=False).returncode == 1
    assert mx.tool("nonsense", check=False).returncode == 2
    assert mx.tool("queue", "list", "--nonsense", check=False).returncode == 2
    assert mx.tool("queue", "discard", check=False).returncode == 2, "discard what?"
    assert mx.status()["queue"]["messages"] == 3
    mx.stop()
    assert mx.tool("status", check=False).returncode == 3
    assert mx.tool("status", "--json", check=False).returncode == 3


@pytest.mark.parametrize("command", [[], ["status"], ["queue"], ["queue", "list"], ["server"],
                                     ["trace"], ["check"]])
def test_help_everywhere(holdfast, command):
    mx = holdfast(backup_mx(free_port()), start=False)
    result = mx.tool(*command, "--help")
    assert "holdfast" in result.stdout and len(result.stdout) > 60


@pytest.mark.parametrize("line, word", [
    ("hostnme = x", "hostnme"),
    ("server m9 { address = \"127.0.0.1:0x\" }", "address"),
    ("domain two.example { deliver-to = nosuch }", "nosuch"),
    ("server a { address = \"127.0.0.1:1\" failover = b }\n"
     "server b { address = \"127.0.0.1:2\" failover = a }", "loop"),
    ("include \"/no/such/file\"", "no/such/file"),
    ("domain unclosed.example { deliver-to = m1", "{"),
    ("relay nobody { deliver-to = m1 }", "from"),
    ("server s { address = \"127.0.0.1:3\" tls = perhaps }", "tls"),
])
def test_a_wrong_configuration_is_refused_with_file_and_line(holdfast, line, word):
    mx = holdfast(backup_mx(free_port()), start=False)
    mx.conf.write_text(mx.conf.read_text() + line + "\n")
    result = subprocess.run([program("holdfastd"), "-c", str(mx.conf), "-n"], capture_output=True,
                            text=True, timeout=30)
    assert result.returncode == 1
    assert re.search(rf"{re.escape(str(mx.conf))}:\d+: ", result.stderr), result.stderr
    assert word in result.stderr
    assert mx.tool("check", check=False).returncode != 0


def test_metrics_and_health(holdfast, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port))
    mx.send()
    wait_for(lambda: len(hop.messages) == 1, 10)

    def metrics():
        with urllib.request.urlopen(f"http://127.0.0.1:{mx.http_port}/metrics", timeout=5) as page:
            return page.read().decode()

    def value(name):
        found = re.search(rf"(?m)^{name}(?:{{[^}}]*}})? ([0-9.e+]+)$", metrics())
        return float(found.group(1)) if found else None
    wait_for(lambda: value("holdfast_deliveries_total") == 1, 5, 0.1, "the delivery counted")
    assert value("holdfast_messages_accepted_total") == 1
    assert value("holdfast_journal_syncs_total") >= 1
    with urllib.request.urlopen(f"http://127.0.0.1:{mx.http_port}/health", timeout=5) as page:
        assert page.status == 200


def test_control_socket_is_private(held):
    mx, _ = held
    mode = (mx.state / "control.sock").stat().st_mode & 0o777
    assert mode & 0o007 == 0
    assert (mx.state / "spool").stat().st_mode & 0o077 == 0
    assert (mx.state / "events").stat().st_mode & 0o077 == 0


def test_export_and_import(holdfast, sink, place):
    """The way off a dying host: all of it, ids kept, twice is once, now and when it has gone."""
    old_hop, new_hop = sink(start=False), sink(start=False)
    old = holdfast(backup_mx(old_hop.port), name="old")
    contents = {}
    for n in range(20):
        contents[f"r{n}@example.com"] = b"Subject: %d\r\n\r\n" % n + bytes([65 + n]) * (n * 9000)
        old.send(recipients=[f"r{n}@example.com"], content=contents[f"r{n}@example.com"] + b"\r\n")
    ids = [row["id"] for row in old.queue()]
    folder = place / "export"
    old.tool("queue", "export", folder)
    assert old.status()["queue"]["messages"] == 20, "export changes nothing"
    old.kill()

    new = holdfast(backup_mx(new_hop.port), name="new")
    new.tool("queue", "import", folder)
    new.tool("queue", "import", folder)
    rows = new.queue()
    # Imported in the order of the ids: two of one millisecond may have come by different loops.
    assert [row["id"] for row in rows] == sorted(ids)
    assert {row["sender"] for row in rows} == {"bob@client.example"}
    (shown,) = new.lines("queue", "show", ids[0])
    assert shown["origin"]["client"] == "127.0.0.1"
    new_hop.start()
    wait_for(lambda: len(new_hop.messages) == 20, 20, what="all at the new primary")
    new.wait_empty()
    for message in new_hop.messages:
        assert message.content.endswith(contents[message.recipients[0]] + b"\r\n")
    new.tool("queue", "import", folder)
    assert new.queue() == []
    assert len(new_hop.messages) == 20, "what was delivered meanwhile is not taken in again"


def test_an_import_killed_between_storing_and_marking(holdfast, sink, place):
    """The mail goes on meanwhile; the next run takes nothing in twice, and leaves nothing out."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    hop = sink(start=False)
    mx = holdfast(backup_mx(hop.port))
    for n in range(3):
        mx.send(recipients=[f"r{n}@example.com"], content=b"Subject: %d\r\n\r\nx\r\n" % n)
    folder = place / "export"
    mx.tool("queue", "export", folder)
    mx.tool("queue", "discard", "--all")
    command = [program("holdfast"), "-c", str(mx.conf), "queue", "import", str(folder)]
    renames = "renameat2,renameat,?rename"
    killed = subprocess.run(["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={renames}",
                             "-e", f"inject={renames}:signal=SIGKILL:when=4", *command],
                            capture_output=True, text=True, timeout=60)
    if "ptrace" in killed.stderr:
        pytest.skip("strace may not trace here")
    assert killed.returncode != 0
    assert len(mx.queue()) == 2, "the second is stored, and not marked"
    assert len(list(folder.glob("*.sending"))) == 1
    hop.start()
    wait_for(lambda: len(hop.messages) == 2, 20, what="both at the primary")
    mx.wait_empty()
    mx.tool("queue", "import", folder)
    wait_for(lambda: len(hop.messages) == 3, 20, what="the third")
    mx.wait_empty()
    assert sorted(m.recipients[0] for m in hop.messages) == [f"r{n}@example.com" for n in range(3)]
    assert {p.suffix for p in folder.iterdir()} == {".eml", ".imported"}


def test_a_state_directory_with_a_long_path(holdfast):
    mx = holdfast(backup_mx(free_port()), name="long" * 40)
    assert len(str(mx.state)) > 107, "longer than the address of a socket"
    mx.send()
    assert mx.status()["queue"]["messages"] == 1


def test_two_daemons_do_not_share_a_state(holdfast, place):
    mx = holdfast(backup_mx(free_port()))
    conf = place / "second.conf"
    conf.write_text(f'hostname = second.example.net\nstate = "{mx.state}"\n'
                    f'listen mx {{ address = "127.0.0.1:{free_port()}" }}\n'
                    + backup_mx(free_port()))
    second = subprocess.run([program("holdfastd"), "-c", str(conf)], capture_output=True,
                            text=True, timeout=30)
    assert second.returncode == 1 and str(mx.state) in second.stderr, second.stderr
    mx.send()
    assert mx.status()["queue"]["messages"] == 1


def test_spool_verify_offline(held):
    mx, _ = held
    mx.kill()
    result = mx.tool("spool", "verify", "--json")
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["messages"] == 3 and report["damaged_records"] == 0
