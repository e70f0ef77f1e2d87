# SPDX-License-Identifier: Apache-2.0
"""What an operator reads: each thing said once, by whom it was said, and for as long as it is so."""

import base64
import fcntl
import json
import os
import pty
import re
import socketserver
import struct
import subprocess
import termios
import threading
import time
import urllib.request

import pytest

import exposition
from daemon import backup_mx, kill, program
from peers import free_port, wait_for
from sink import CLOSE


def line_of(mx, event):
    return next((line for line in mx.log().splitlines() if f" {event} id=" in line), None)


def test_a_reply_stands_once_and_under_its_name(holdfast, sink):
    m1 = sink(lambda stage, session, argument: "450 4.2.0 Greylisted" if stage == "RCPT" else None)
    mx = holdfast(backup_mx(m1.port))
    mx.send()
    line = wait_for(lambda: line_of(mx, "deferred"), 15)
    assert 'reply="450 4.2.0 Greylisted"' in line and "reason=" not in line
    assert re.search(r" next=20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$", line)
    assert mx.queue()[0]["reason"] == "450 4.2.0 Greylisted"
    row = wait_for(lambda: next((row for row in mx.lines("trace", "ann@example.com")
                                 if row["event"] == "deferred"), None))
    assert row["reply"] == "450 4.2.0 Greylisted" and row["reason"] is None
    assert mx.tool("trace", "ann@example.com").stdout.count("Greylisted") == 1


def test_what_no_server_said_is_no_reply(holdfast, sink):
    m1 = sink(lambda stage, session, argument: CLOSE if stage == "dot" else None)
    mx = holdfast(backup_mx(m1.port))
    mx.send()
    line = wait_for(lambda: line_of(mx, "in_doubt"), 15)
    assert 'reason="connection closed by server"' in line and "reply=" not in line
    row = next(row for row in mx.lines("trace", "ann@example.com") if row["event"] == "in_doubt")
    assert row["reply"] is None and row["reason"] == "connection closed by server"


# ---- logging in ------------------------------------------------------------------------------

class Login(socketserver.StreamRequestHandler):
    """Offers what its server says, and asks for a great many rounds of SCRAM."""

    def handle(self):
        self.wfile.write(b"220 login\r\n")
        for line in self.rfile:
            word, *rest = line.split()
            if word == b"EHLO":
                self.wfile.write(b"250-login\r\n250 AUTH " + self.server.offers + b"\r\n")
            elif word == b"AUTH":
                first = base64.b64decode(rest[1]).decode()
                nonce = re.search("r=(.*)", first).group(1)
                challenge = f"r={nonce}more,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=600000"
                self.wfile.write(b"334 " + base64.b64encode(challenge.encode()) + b"\r\n")
            elif word == b"QUIT":
                return
            else:
                self.wfile.write(b"501 5.7.0 Cancelled\r\n")


@pytest.mark.parametrize("offers, words", [
    ("CRAM-MD5", "cannot be logged in to: the server offers no AUTH that we know"),
    ("SCRAM-SHA-256", "cannot be logged in to: the server asks for 600000 iterations of "
                      "SCRAM-SHA-256, more than our limit of 100000")])
def test_why_a_login_is_impossible(place, holdfast, offers, words):
    secret = place / "password"
    secret.write_text("tanstaaf\n")
    secret.chmod(0o600)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Login) as server:
        server.offers = offers.encode()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mx = holdfast(f'server m1 {{ address = "127.0.0.1:{server.server_address[1]}"  '
                      f'auth-user = tim  auth-password-file = "{secret}" }}\n'
                      'domain example.com { deliver-to = m1 }\n')
        mx.send()
        alert = wait_for(lambda: next((a for a in mx.status()["alerts"]
                                       if a["kind"] == "credentials"), None), 20)
        assert alert["text"] == f"server m1 {words}"
        line = next(line for line in mx.log().splitlines() if " credentials " in line)
        assert "reply=" not in line
        mx.stop()
        server.shutdown()


def test_a_login_that_is_missing_is_not_one_refused(holdfast, sink):
    m1 = sink(lambda stage, session, argument: "530 5.7.0 Authentication required"
              if stage == "MAIL" else None)
    mx = holdfast(backup_mx(m1.port))
    mx.send()
    alert = wait_for(lambda: next((a for a in mx.status()["alerts"] if a["kind"] == "credentials"),
                                  None), 20)
    assert alert["text"] == "server m1 asks for a login, and none is set: " \
                            "530 5.7.0 Authentication required"


# ---- status ----------------------------------------------------------------------------------

def test_a_lane_says_why_it_rests(holdfast, sink):
    m1 = sink(lambda stage, session, argument: "450 4.2.0 Later" if stage == "RCPT" else None)
    mx = holdfast(backup_mx(m1.port))
    mx.send()

    def lane():
        return mx.status()["lanes"][0]
    wait_for(lambda: line_of(mx, "deferred"), 15)
    wait_for(lambda: lane()["reason"] == "all of it is deferred or held; queue list says why")
    mx.tool("queue", "hold", "--all")
    assert lane()["state"] == "held"
    assert lane()["reason"] == "all of it is held; queue list says why"


def test_a_relapse_says_what_failed(holdfast, sink):
    """A server that comes back, takes one message and breaks off at the next."""
    m1 = sink(lambda stage, session, argument: CLOSE if stage == "RCPT" and "ben" in argument
              else None, start=False)
    mx = holdfast(backup_mx(m1.port))
    mx.send()
    mx.send(recipients=["ben@example.com"])
    wait_for(lambda: mx.server_state("m1") == "down", 10)
    m1.start()
    wait_for(lambda: 'reason="failed soon after it came back: connection closed by server"'
             in mx.log(), 20, what="what failed")


def test_what_stands_is_as_old_after_core_is_killed(holdfast, sink):
    """Down, stopped and switched were so before; nobody is told that they are over."""
    m2 = sink(lambda stage, session, argument: "450 4.2.0 Later" if stage == "RCPT" else None)
    mx = holdfast(f'server m1 {{ address = "127.0.0.1:{free_port()}"  failover = m2 }}\n'
                  f'server m2 {{ address = "127.0.0.1:{m2.port}" }}\n'
                  f'server m3 {{ address = "127.0.0.1:{free_port()}" }}\n'
                  'domain example.com { deliver-to = m1 }\n'
                  'domain example.org { deliver-to = m3 }\n')
    mx.send()
    mx.send(recipients=["ann@example.org"])
    wanted = {("server", "m1"), ("server", "m3"), ("switched", "domain:example.com"),
              ("stopped", "domain:example.org")}

    def standing():
        if mx.tool("status", "--json", check=False).returncode != 0:
            return None
        found = {(a["kind"], a["subject"]): a["since"] for a in mx.status()["alerts"]}
        return found if wanted <= set(found) else None
    before = wait_for(standing, 20, what="the alerts")
    texts = {a["text"] for a in mx.status()["alerts"]}
    mx.send()  # what is noted meanwhile goes to the disk with it
    kill(mx.processes()["holdfast-core"][0])
    wait_for(lambda: "process-died" in mx.log(), 10)
    after = wait_for(standing, 20, what="the same alerts")
    assert {key: after[key] for key in wanted} == {key: before[key] for key in wanted}
    assert texts == {a["text"] for a in mx.status()["alerts"]}


def test_a_route_s_switches_are_counted(holdfast, sink):
    m1, m2 = sink(), sink()
    mx = holdfast(backup_mx(m1.port, m2.port))
    mx.send()
    mx.wait_empty()

    def switches():
        url = f"http://127.0.0.1:{mx.http_port}/metrics"
        samples = exposition.parse(urllib.request.urlopen(url, timeout=10).read().decode())
        return exposition.value(samples, "holdfast_lane_switches_total", route="domain:example.com")
    assert switches() == 0
    m1.stop()
    mx.send()
    wait_for(lambda: len(m2.messages) == 1, 15)
    wait_for(lambda: switches() == 1)
    m1.start()
    wait_for(lambda: switches() == 2, 20, what="the way back")


# ---- the configuration -----------------------------------------------------------------------

def test_a_refused_reload_stands_until_one_succeeds(holdfast):
    routes = backup_mx(free_port())
    mx = holdfast(routes)

    def alert():
        result = mx.tool("status", "--json", check=False)
        alerts = json.loads(result.stdout)["alerts"] if result.returncode == 0 else []
        return next((a["text"] for a in alerts if a["kind"] == "reload"), None)
    mx.configure(routes + "colour = blue\nshape = round\n")
    line = mx.conf.read_text().splitlines().index("colour = blue") + 1
    mx.reload()
    text = wait_for(alert, 10, what="the alert")
    assert f"holdfast.conf:{line}: unknown key 'colour'" in text and "there is more" in text
    assert text in mx.tool("status").stdout
    kill(mx.processes()["holdfast-core"][0])
    wait_for(lambda: "process-died" in mx.log(), 10)
    assert wait_for(alert, 10, what="the same by the next core") == text
    mx.configure(routes, top='log-level = debug')
    mx.reload()
    wait_for(lambda: alert() == "the last reload was refused: log-level takes a restart to change",
             10, what="another reason")
    mx.configure(routes)
    mx.reload()
    wait_for(lambda: " reloaded " in mx.log(), 10)
    wait_for(lambda: mx.tool("status", check=False).returncode == 0 and alert() is None, 10,
             what="the end of it")


def test_the_doctor_says_what_is_wrong_with_the_configuration(holdfast):
    mx = holdfast(backup_mx(free_port()) + "colour = blue\n", start=False)
    line = mx.conf.read_text().splitlines().index("colour = blue") + 1
    result = mx.tool("check", "example.com", check=False)
    assert result.returncode == 1
    assert f"holdfast.conf:{line}: unknown key 'colour'" in result.stderr
    assert "nothing was looked at" in result.stderr
    rows = [json.loads(row) for row in mx.tool("check", "example.com", "--json",
                                               check=False).stdout.splitlines()]
    assert [(row["line"], row["level"]) for row in rows] == [(line, "error")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is told that all stays root")
def test_root_is_told_that_there_is_no_user(holdfast):
    mx = holdfast(backup_mx(free_port()), start=False)
    words = "no user given: started as root, all of it stays root"

    def check():
        return subprocess.run([program("holdfastd"), "-c", str(mx.conf), "-n"],
                              capture_output=True, text=True)
    result = check()
    assert result.returncode == 0 and words in result.stderr
    mx.start()
    assert words in mx.log()
    mx.configure(backup_mx(free_port()), top="user = nobody")
    result = check()
    assert result.returncode == 0 and words not in result.stderr


# ---- the words of strangers ------------------------------------------------------------------

CONTROL = "\x1b[2J\u009b31m\u202etxt.exe\u2066"
UNSAFE = ["\x1b", "\x7f", "\u0080", "\u009b", "\u202e", "\u2066"]


def test_a_server_s_words_drive_no_terminal(place, holdfast, sink):
    """In no output of the tool, for people or programs, nor in what a hook is told; programs
    still read all of it."""
    told = place / "told"
    hook = place / "hook"
    hook.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$HOLDFAST_TEXT\" >> {told}\n")
    hook.chmod(0o755)
    place.chmod(0o777)

    def rule(stage, session, argument):
        if stage == "RCPT" and "ann@" in argument:
            return f"450 4.2.0 Later {CONTROL}"
        if stage == "RCPT":
            return f"530 5.7.0 Log in {CONTROL}"
        return None
    m1 = sink(rule)
    mx = holdfast(backup_mx(m1.port)
                  + f'alert people {{ on = credentials exec = "{hook}" }}\n')
    mx.send()
    wait_for(lambda: line_of(mx, "deferred"), 15)
    mx.send(recipients=["ben@example.com"])
    wait_for(told.exists, 20, what="the hook")
    wait_for(told.read_text, 5)
    outputs = [told.read_text(), mx.log()]
    for command in (["status"], ["queue", "list"], ["queue", "show", "--all"], ["server", "list"],
                    ["server", "history"], ["trace", "ann@example.com"]):
        outputs += [mx.tool(*command).stdout, mx.tool(*command, "--json").stdout]
    for output in outputs:
        assert not any(character in output for character in UNSAFE)
    assert "Log in ?[2J?31m?txt.exe?" in outputs[0]
    reason = next(row["reason"] for row in mx.queue() if row["recipients"] == ["ann@example.com"])
    assert reason == "450 4.2.0 Later ?[2J\u009b31m\u202etxt.exe\u2066"
    assert "\\u009b31m\\u202etxt" in mx.tool("queue", "list", "--json").stdout


# ---- on a terminal ---------------------------------------------------------------------------

class Terminal:
    """The tool on a terminal of so many columns."""

    def __init__(self, mx, columns, *arguments):
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        self.child = subprocess.Popen([program("holdfast"), "-c", str(mx.conf), *arguments],
                                      stdin=theirs, stdout=theirs, stderr=theirs,
                                      env={**os.environ, "TERM": "xterm", "NO_COLOR": "1",
                                           "LC_ALL": "C.UTF-8"})
        os.close(theirs)
        os.set_blocking(self.ours, False)
        self.seen = b""

    def lines(self):
        try:
            while chunk := os.read(self.ours, 65536):
                self.seen += chunk
        except OSError:
            pass
        return [line for line in self.seen.decode().split("\r\n") if line]

    def rest(self):
        while self.child.poll() is None:
            self.lines()
            time.sleep(0.02)
        return self.lines()

    def end(self):
        self.child.terminate()
        self.child.wait()
        os.close(self.ours)


LONG = "a-very-long-name-of-a-mailbox@example.com"
REFUSAL = "450 4.2.0 The mailbox is not available at present, for the store is being moved to " \
          "another place"


def test_watch_keeps_its_columns_in_80(holdfast, sink):
    m1 = sink(lambda stage, session, argument: REFUSAL if stage == "RCPT" and LONG in argument
              else None)
    mx = holdfast(backup_mx(m1.port))
    terminal = Terminal(mx, 80, "queue", "watch")
    try:
        wait_for(lambda: mx.send() and terminal.lines(), what="the first line")
        mx.send(recipients=["ann@example.com", LONG])
        wait_for(lambda: any("deferred" in line for line in terminal.lines())
                 and any("delivered" in line for line in terminal.lines()), 15)
        lines = wait_for(lambda: terminal.lines() if any("450 4.2.0" in line
                         for line in terminal.lines()) else None)
    finally:
        terminal.end()
    assert all(len(line) <= 80 for line in lines)
    heads = [line for line in lines if re.match(r"\d\d:\d\d:\d\d ", line)]
    for line in heads:
        assert re.match(r"[0-9:]{8} ([0-9a-z]{26}| {26}) [a-z_]+ *$", line[:46]), line
        assert line[47:55].strip() in ("", "m1") and line[46] == line[55] == " "
    assert any(line[56:].startswith("a-very-long-name") and line.endswith("…") for line in heads)
    detail = next(line for line in lines if line.lstrip().startswith("450 4.2.0"))
    assert detail.startswith(" " * 9) and detail.endswith("…")


def test_tables_show_what_they_cut(holdfast, sink):
    m1 = sink(lambda stage, session, argument: REFUSAL if stage == "RCPT" else None)
    mx = holdfast(backup_mx(m1.port))
    mx.send(recipients=[LONG])
    wait_for(lambda: line_of(mx, "deferred"), 15)
    lines = Terminal(mx, 80, "queue", "list").rest()
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].endswith("…") and "a-very-long…" in lines[1]
    lines = Terminal(mx, 80, "queue", "show", "--all").rest()
    assert all(len(line) <= 80 for line in lines)
    assert "another place" in " ".join(" ".join(line[40:] for line in lines).split())
    assert LONG in mx.tool("queue", "list").stdout and REFUSAL in mx.tool("queue", "list").stdout


def test_long_names_fit_too(holdfast):
    name = "mail-server-one.in-the-basement.example.com"
    mx = holdfast(f'server {name} {{ address = "127.0.0.1:{free_port()}" }}\n'
                  f"domain example.com {{ deliver-to = {name} }}\n")
    mx.send()
    wait_for(lambda: mx.server_state(name) == "down", 10)
    for command in (("status",), ("server", "list")):
        lines = Terminal(mx, 80, *command).rest()
        table = lines[next(i for i, line in enumerate(lines) if line.startswith("SERVER")):]
        assert all(len(line) <= 80 for line in table)
        assert "mail-ser" in table[1] and "down" in table[1]
        assert "connection" in " ".join(table) and "refused" in " ".join(table)
