# SPDX-License-Identifier: Apache-2.0
"""Who is told of alerts: programs, webhooks, mail; and that telling them harms nothing."""

import email
import hashlib
import hmac
import http.server
import json
import os
import pathlib
import ssl
import stat
import subprocess
import threading
import time

import pytest

from daemon import alive, backup_mx, kill
from memory import memory_of
from peers import free_port, wait_for
from test_faults import fill, small_disk  # noqa: F401 (a fixture)


def script(place, name, text):
    path = place / name
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def recorder(place, name="hook", more=""):
    """A program that writes what it was told, one JSON-like file a run, and their directory."""
    told = place / f"{name}.d"
    told.mkdir()
    told.chmod(0o777)
    place.chmod(0o755)
    return script(place, name, f'''{more}
file=$(mktemp {told}/run.XXXXXX)
env -0 > $file
mv $file {told}/done.$(basename $file)
echo told
'''), told


def runs(told):
    """The environments, oldest first."""
    found = []
    for path in sorted(told.glob("done.*"), key=lambda p: p.stat().st_mtime_ns):
        pairs = path.read_bytes().decode().split("\0")
        found.append(dict(pair.split("=", 1) for pair in pairs if "=" in pair))
    return found


def events(told):
    return [run["HOLDFAST_EVENT"] for run in runs(told)]


def test_a_program_is_told_of_each_switch(holdfast, sink, place):
    m1, m2 = sink(), sink()
    program, told = recorder(place)
    mx = holdfast(backup_mx(m1.port, m2.port)
                  + f'alert people {{ on = {{switched, stopped}} exec = "{program}" }}\n')
    mx.send()
    wait_for(lambda: len(m1.messages) == 1, 10)
    m1.stop()
    mx.send()
    wait_for(lambda: len(m2.messages) == 1, 10)
    wait_for(lambda: events(told) == ["failover-succeeded"], 10, what="the first run")
    m2.stop()
    mx.send()
    wait_for(lambda: "failover-failed" in events(told), 10, what="word of the stop")
    m1.start()
    mx.wait_empty()
    wait_for(lambda: {"resumed", "switched-back"} <= set(events(told)), 10, what="word of the end")
    first = runs(told)[0]
    assert first["HOLDFAST_KIND"] == "switched" and first["HOLDFAST_EDGE"] == "raised"
    assert first["HOLDFAST_SUBJECT"] == "domain:example.com"
    assert (first["HOLDFAST_FROM"], first["HOLDFAST_TO"]) == ("m1", "m2")
    assert first["HOLDFAST_HOSTNAME"] == "mx2.example.net"
    assert first["HOLDFAST_ALERT"] == "people" and first["HOLDFAST_TEXT"]
    assert abs(int(first["HOLDFAST_SINCE"]) / 1000 - time.time()) < 600
    assert set(first) - {"PWD", "SHLVL", "_", "OLDPWD"} \
        <= {"PATH", "LANG"} | {key for key in first if key.startswith("HOLDFAST_")}
    back = next(run for run in runs(told) if run["HOLDFAST_EVENT"] == "switched-back")
    assert back["HOLDFAST_EDGE"] == "ended" and back["HOLDFAST_TO"] == "m1"
    assert "event=failover-succeeded" in mx.log() and "output=told" in mx.log()
    mx.stop()


def test_a_program_inherits_nothing_that_cripples_it(holdfast, place):
    """It may do what a program of its user may: no filter, no walls, no descriptors of ours."""
    _, told = recorder(place, "unused")
    program = script(place, "look", f'''
grep -E "Seccomp:|NoNewPrivs:|SigIgn:|SigBlk:" /proc/self/status > {told}/status.new
ls /proc/self/fd > {told}/fds
readlink /proc/self/fd/0 >> {told}/fds
ulimit -n > {told}/files
mv {told}/status.new {told}/status
''')
    holdfast(backup_mx(free_port()) + f'alert people {{ on = server exec = "{program}" }}\n')
    wait_for(lambda: (told / "status").exists(), 15, what="a run")
    status = dict(line.split(":\t") for line in (told / "status").read_text().splitlines())
    assert status["NoNewPrivs"] == "0" and status["Seccomp"] == "0"
    of_the_c_library = 0b11 << 31  # 32 and 33: who started the tests may have left them ignored
    assert int(status["SigIgn"], 16) & ~of_the_c_library == 0 and int(status["SigBlk"], 16) == 0
    assert (told / "fds").read_text().split()[-1] == "/dev/null"
    assert set((told / "fds").read_text().split()[:-1]) <= {"0", "1", "2", "3"}
    assert int((told / "files").read_text()) <= 1024


def test_the_end_of_an_alert_is_told_in_words_of_its_own(holdfast, sink, place):
    m1 = sink(start=False)
    program, told = recorder(place)
    mx = holdfast(backup_mx(m1.port)
                  + f'alert people {{ on = {{server, stopped}} exec = "{program}" }}\n')
    mx.send()
    wait_for(lambda: {"server-down", "failover-failed"} <= set(events(told)), 15, what="the bad")
    m1.start()
    wait_for(lambda: {"server-up", "resumed"} <= set(events(told)), 15, what="the good")
    ends = {run["HOLDFAST_EVENT"]: run for run in runs(told)}
    up, down = ends["server-up"], ends["server-down"]
    assert up["HOLDFAST_TEXT"].startswith("server m1 answers again after ")
    assert down["HOLDFAST_TEXT"].startswith("server m1 is down: ") and down["HOLDFAST_WAS"] == ""
    assert up["HOLDFAST_WAS"] == down["HOLDFAST_TEXT"]
    assert ends["resumed"]["HOLDFAST_TEXT"].startswith("a server of domain:example.com works again")
    assert "down" in ends["resumed"]["HOLDFAST_WAS"]
    mx.stop()


def test_a_server_taken_out_or_away_is_not_told_to_be_up(holdfast, sink, place):
    program, told = recorder(place)
    m1 = sink()
    routes = backup_mx(m1.port) + f'alert people {{ on = server exec = "{program}" }}\n'
    others = "".join(f'server {name} {{ address = "127.0.0.1:{free_port()}" }}\n'
                     for name in ("x1", "x2"))
    mx = holdfast(routes + others)
    wait_for(lambda: events(told) == ["server-down"] * 2, 15)
    mx.tool("server", "down", "x1")
    wait_for(lambda: len(runs(told)) == 3, 10, what="word of the operator's deed")
    mx.configure(routes, "", "")
    mx.reload()
    wait_for(lambda: len(runs(told)) == 4, 10, what="word of the reload")
    disabled, removed = runs(told)[2:]
    assert (disabled["HOLDFAST_EVENT"], disabled["HOLDFAST_EDGE"], disabled["HOLDFAST_SUBJECT"]) \
        == ("server-disabled", "ended", "x1")
    assert "by hand" in disabled["HOLDFAST_TEXT"]
    assert (removed["HOLDFAST_EVENT"], removed["HOLDFAST_EDGE"], removed["HOLDFAST_SUBJECT"]) \
        == ("server-removed", "ended", "x2")
    assert removed["HOLDFAST_TEXT"] == "x2 is named no more, neither here nor by DNS"
    mx.stop()


def test_a_hanging_program_harms_nothing(holdfast, sink, place):
    m1 = sink()
    program, told = recorder(place, more=f"echo $$ > {place}/pid; (sleep 1000)")
    other, other_told = recorder(place, "other")
    mx = holdfast(backup_mx(free_port(), m1.port)
                  + f'alert hangs {{ on = switched exec = "{program}" timeout = 2s }}\n'
                  + f'alert other {{ on = switched exec = "{other}" }}\n')
    for _ in range(5):
        mx.send()
    mx.wait_empty()
    wait_for(lambda: "failover-succeeded" in events(other_told), 10)
    wait_for(lambda: "killed: it took too long" in mx.log(), 15, what="the kill")
    assert runs(told) == []
    wait_for(lambda: not alive(int((place / "pid").read_text())), 5, what="its death")
    assert "hook-failed alert=hangs" in mx.log()
    mx.stop()


def test_what_ends_badly_is_logged_and_counted(holdfast, place):
    program = script(place, "fails", "echo the modem is silent\nexit 3\n")
    mx = holdfast(backup_mx(free_port()) + f'alert people {{ on = server exec = "{program}" }}\n')
    place.chmod(0o755)
    wait_for(lambda: "hook-failed" in mx.log(), 15)
    line = next(line for line in mx.log().splitlines() if "hook-failed" in line)
    assert "exit status 3" in line and "the modem is silent" in line and "again=no" in line
    wait_for(lambda: metric(mx, "holdfast_hook_failures_total") == 1, 5)
    mx.stop()


def test_one_that_cannot_tell_is_seen_and_told_of_by_others(holdfast, sink, place):
    """In status and /metrics as long as it lasts, also over a reload."""
    told, works = place / "told", place / "works"
    broken = script(place, "broken", f"test -e {works}\n")
    good = script(place, "good", f'echo "$HOLDFAST_EVENT $HOLDFAST_SUBJECT" >> {told}\n')
    hop = sink()
    mx = holdfast(backup_mx(hop.port)
                  + f'alert first {{ on = server exec = "{broken}" }}\n'
                  + f'alert second {{ exec = "{good}" }}\n')
    place.chmod(0o777)
    hop.stop()
    wait_for(lambda: [alert["subject"] for alert in mx.status()["alerts"]
                      if alert["kind"] == "hook"] == ["first"], 20, what="the alert")
    assert "alerts do not reach first: exit status 1" in mx.tool("status").stdout
    wait_for(lambda: "hook first" in told.read_text(), 10, what="the other to be told")
    mx.reload()
    time.sleep(3)
    assert [alert["kind"] for alert in mx.status()["alerts"]].count("hook") == 1
    works.touch()
    hop.start()
    wait_for(lambda: all(alert["kind"] != "hook" for alert in mx.status()["alerts"]), 20,
             what="its end")


def metric(mx, name):
    import urllib.request
    with urllib.request.urlopen(f"http://127.0.0.1:{mx.http_port}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(name + " "):
                return int(line.split()[1])
    return None


# ---- webhooks --------------------------------------------------------------------------------

class Receiver:
    """A web server that keeps what is posted; answers with the statuses given, then 204."""

    def __init__(self, statuses=()):
        self.posts = []
        statuses = list(statuses)
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.posts.append((self.path, dict(self.headers), body))
                status = statuses.pop(0) if statuses else 204
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", f"http://127.0.0.1:{receiver.port}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver():
    made = []

    def make(*statuses):
        made.append(Receiver(statuses))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def secret_file(place, secret="s3cret word"):
    path = place / "secret"
    path.write_text(secret + "\n")
    path.chmod(0o600)
    return path


def test_a_webhook_is_signed_and_tried_again(holdfast, place, receiver):
    web = receiver(500, 302)
    mx = holdfast(backup_mx(free_port())
                  + f'alert web {{ on = server url = "http://127.0.0.1:{web.port}/hook?x=1" '
                  f'secret-file = "{secret_file(place)}" }}\n')
    wait_for(lambda: len(web.posts) >= 3, 30, what="the third try")
    bodies = [json.loads(body) for _, _, body in web.posts]
    for path, headers, body in web.posts:
        expected = hmac.new(b"s3cret word", body, hashlib.sha256).hexdigest()
        assert headers["X-Holdfast-Signature"] == f"sha256={expected}"
        assert headers["Content-Type"] == "application/json" and path == "/hook?x=1"
    assert len({body["id"] for body in bodies}) == 1, "the same message"
    assert bodies[0]["time"] < bodies[1]["time"] < bodies[2]["time"], "of each attempt"
    assert bodies[0]["event"] == "server-down" and bodies[0]["subject"] == "m1"
    assert bodies[0]["edge"] == "raised" and bodies[0]["kind"] == "server"
    time.sleep(1.5)
    assert len(web.posts) == 3, "a redirect is not followed, and what arrived is not sent again"
    wait_for(lambda: metric(mx, "holdfast_hooks_sent_total") == 1, 5)
    assert metric(mx, "holdfast_hook_failures_total") == 2
    assert "HTTP status 500" in mx.log() and "HTTP status 302" in mx.log()
    assert "s3cret" not in mx.log()
    mx.stop()


def test_an_address_that_is_a_secret_is_with_the_helper_alone(holdfast, place, receiver):
    web = receiver()
    path = place / "url"
    path.write_text(f"http://127.0.0.1:{web.port}/T0KENSECRET/x\n")
    path.chmod(0o600)
    mx = holdfast(backup_mx(free_port()) + f'alert web {{ on = server url-file = "{path}" }}\n')
    wait_for(lambda: web.posts, 15, what="a post")
    assert web.posts[0][0] == "/T0KENSECRET/x"
    for name, pids in mx.processes().items():
        for pid in pids:
            assert name == "holdfast-helper" or b"T0KENSECRET" not in memory_of(pid), name
    assert "T0KENSECRET" not in mx.log()


def test_a_webhook_host_is_resolved_by_name(holdfast, receiver):
    web = receiver()
    holdfast(backup_mx(free_port())
             + f'alert web {{ on = server url = "http://localhost:{web.port}/" }}\n')
    wait_for(lambda: web.posts, 15, what="a post")
    headers = web.posts[0][1]
    assert "X-Holdfast-Signature" not in headers and headers["Host"] == f"localhost:{web.port}"


def certificate(place, name):
    """Of a server of that name, signed by itself; and its key."""
    files = place / f"{name}.pem", place / f"{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                    "-addext", f"subjectAltName=DNS:{name}", "-out", files[0], "-keyout", files[1]],
                   check=True, capture_output=True, timeout=30)
    return files


def speak_tls(web, files):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    web.server.socket = context.wrap_socket(web.server.socket, server_side=True)


def trusting(authority):
    """Starts a program where the certificates that this machine trusts are those."""
    return ["unshare", "--mount", "sh", "-c",
            f'mount --bind {authority} {AUTHORITIES} && exec "$@"', "sh"]


AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


@pytest.mark.parametrize("name, trusted, why", (
    ("localhost", True, None),
    ("localhost", False, "certificate"),
    ("elsewhere.example", True, "localhost"),
))
def test_a_webhook_over_tls_goes_to_whom_this_machine_trusts(holdfast, place, receiver, name,
                                                             trusted, why):
    if not os.path.exists(AUTHORITIES):
        pytest.skip(f"no {AUTHORITIES}")
    files = certificate(place, name)
    probe = subprocess.run([*trusting(files[0]), "cmp", files[0], AUTHORITIES],
                           capture_output=True, text=True, timeout=30)
    if probe.returncode != 0:
        pytest.skip(f"no namespace of its own: {probe.stderr[:200]}")
    web = receiver()
    speak_tls(web, files)
    mx = holdfast(backup_mx(free_port())
                  + f'alert web {{ on = server url = "https://localhost:{web.port}/" }}\n',
                  start=False)
    if trusted:
        mx.wrapper = trusting(files[0])
    mx.start()
    if why is None:
        wait_for(lambda: web.posts, 30, what="a post")
        assert json.loads(web.posts[0][2])["event"] == "server-down"
        assert "hook-failed" not in mx.log()
    else:
        wait_for(lambda: "hook-failed" in mx.log(), 30, what="word of the failure")
        line = next(line for line in mx.log().splitlines() if "hook-failed" in line)
        assert why in line, line
        assert web.posts == []
    mx.stop()


def test_a_helper_killed_loses_nothing(holdfast, place, receiver):
    """It dies while a webhook is refused; the next one tells what was not told, and no more."""
    web = receiver(*[503] * 4)
    program, told = recorder(place)
    mx = holdfast(backup_mx(free_port())
                  + f'alert web {{ on = server url = "http://127.0.0.1:{web.port}/" }}\n'
                  + f'alert people {{ on = server exec = "{program}" }}\n')
    wait_for(lambda: len(web.posts) >= 2 and runs(told), 20)
    kill(mx.processes()["holdfast-helper"][0])
    wait_for(lambda: any(p["event"] == "server-down" for p in map(json.loads, good(web))), 30,
             what="word of the server")
    # Both blocks told all: from here on a death repeats nothing.
    time.sleep(2.5)
    count, run_count = len(web.posts), len(runs(told))
    kill(mx.processes()["holdfast-helper"][0])
    wait_for(lambda: mx.log().count("process-died process=helper") == 2, 5)
    time.sleep(3)
    assert (len(web.posts), len(runs(told))) == (count, run_count)
    mx.stop()


def good(web):
    return [body for _, _, body in web.posts[4:]]


def test_core_and_runner_killed_are_met_again(holdfast, sink, place):
    m1 = sink(start=False)
    program, told = recorder(place)
    mx = holdfast(backup_mx(m1.port) + f'alert people {{ on = server exec = "{program}" }}\n')
    wait_for(lambda: events(told) == ["server-down"], 15)
    wait_for(lambda: "hook alert=people" in mx.log(), 5, what="the helper's knowing of it")
    kill(mx.processes()["holdfast-runner"][0])
    kill(mx.processes()["holdfast-core"][0])
    wait_for(lambda: mx.log().count("process-died") == 2, 5)
    wait_for(lambda: mx.tool("status", check=False).returncode == 0, 10)
    wait_for(lambda: mx.server_state("m1") == "down", 10)
    time.sleep(2.5)
    assert events(told) == ["server-down"], "it is down as before"
    m1.start()
    wait_for(lambda: events(told) == ["server-down", "server-up"], 15)
    mx.stop()


def test_a_reload_changes_whom_to_tell(holdfast, place):
    first, told = recorder(place)
    second, second_told = recorder(place, "second")
    routes = backup_mx(free_port())
    mx = holdfast(routes + f'alert people {{ on = server exec = "{first}" }}\n')
    wait_for(lambda: events(told) == ["server-down"], 15)
    mx.configure(routes + f'alert people {{ on = server exec = "{first}" }}\n'
                 f'alert more {{ on = server exec = "{second}" }}\n', "", "")
    mx.reload()
    wait_for(lambda: events(second_told) == ["server-down"], 15, what="what stands told to a new one")
    assert runs(second_told)[0]["HOLDFAST_EDGE"] == "repeated"
    assert events(told) == ["server-down"]
    mx.stop()


# ---- mail ------------------------------------------------------------------------------------

def test_mail_takes_a_chain_that_works(holdfast, sink):
    """The domain's own server is down, and it is what the mail is about: it goes by a relay's."""
    m1, out = sink(start=False), sink()
    mx = holdfast(f'server m1 {{ address = "127.0.0.1:{m1.port}" }}\n'
                  f'server out {{ address = "127.0.0.1:{out.port}" }}\n'
                  'domain example.com { deliver-to = m1 }\n'
                  'relay outgoing { from = 192.0.2.0/24 deliver-to = out }\n'
                  'alert ops { on = {stopped, server} mail = ops@example.com }\n')
    mx.send()
    wait_for(lambda: len(out.messages) == 2, 20, what="the mails")
    subjects = {email.message_from_bytes(m.content)["Subject"] for m in out.messages}
    assert subjects == {"[mx2.example.net] failover failed: domain:example.com",
                        "[mx2.example.net] server down: m1"}
    message = out.messages[0]
    parsed = email.message_from_bytes(message.content)
    assert message.sender == "" and message.recipients == ["ops@example.com"]
    assert parsed["Auto-Submitted"] == "auto-generated" and parsed["To"] == "<ops@example.com>"
    assert parsed["From"].endswith("<postmaster@mx2.example.net>") and parsed["Date"]
    assert "is down" in parsed.get_payload() or "are down" in parsed.get_payload()
    assert mx.status()["queue"]["messages"] == 1, "the other mail waits"
    m1.start()
    mx.wait_empty()
    # All is well: now the address' own route takes it.
    wait_for(lambda: any("resumed" in email.message_from_bytes(m.content)["Subject"]
                         for m in m1.messages + out.messages), 20)
    mx.stop()


def test_mail_waits_when_nothing_works(holdfast, sink):
    m1 = sink(start=False)
    mx = holdfast(backup_mx(m1.port) + 'alert ops { on = server mail = ops@example.com }\n')
    wait_for(lambda: "no server works that could take it" in mx.log(), 15)
    assert mx.status()["queue"]["messages"] == 0
    m1.start()
    wait_for(lambda: len(m1.messages) == 2, 20, what="both mails")
    assert [email.message_from_bytes(m.content)["Subject"] for m in m1.messages] == [
        "[mx2.example.net] server down: m1", "[mx2.example.net] server up: m1"]
    last = email.message_from_bytes(m1.messages[-1].content).get_payload()
    assert last.startswith("server m1 answers again after ") and "was: server m1 is down" in last
    mx.stop()


def test_a_mail_that_cannot_be_delivered_makes_no_others(holdfast, sink):
    """It becomes a dead letter, and of that no mail is sent, which would become one too."""
    def refuse(stage, session, argument):
        return "550 5.1.1 No such user" if stage == "RCPT" and "ops@" in argument else None
    m1 = sink(refuse)
    down = free_port()
    mx = holdfast(f'server m1 {{ address = "127.0.0.1:{m1.port}" hold-5xx-after-recovery = 0 }}\n'
                  f'server m2 {{ address = "127.0.0.1:{down}" }}\n'
                  'domain example.com { deliver-to = m1 }\n'
                  'relay r { from = 192.0.2.0/24 deliver-to = m2 }\n'
                  'alert ops { on = {server, dead-letter} mail = ops@example.com }\n')
    mx.send()  # m1 is up
    wait_for(lambda: mx.status()["dead_letters"] >= 1, 30, what="the dead letter")
    time.sleep(4)
    assert mx.status()["dead_letters"] == 1
    assert mx.log().count(" helper hook ") == 1
    mx.stop()


# ---- rate ------------------------------------------------------------------------------------

def test_more_than_the_rate_is_summed_up(holdfast, place):
    program, told = recorder(place)
    servers = "".join(f'server s{i} {{ address = "127.0.0.1:{free_port()}" }}\n'
                      for i in range(12))
    mx = holdfast(servers + 'domain example.com { deliver-to = s0 }\n'
                  f'alert people {{ on = server exec = "{program}" rate = 3600 }}\n'
                  f'alert few {{ on = server exec = "{program}" rate = 3 }}\n')
    wait_for(lambda: [r["HOLDFAST_ALERT"] for r in runs(told)].count("people") == 12, 20)
    assert [r["HOLDFAST_ALERT"] for r in runs(told)].count("few") == 3
    mx.stop()


# ---- storage, and what waits too long --------------------------------------------------------

def test_a_disk_that_fills_up_and_empties(holdfast, small_disk, place):
    program, told = recorder(place)
    mx = holdfast(backup_mx(free_port()) + f'alert people {{ on = storage exec = "{program}" }}\n')
    filler = fill(small_disk)
    wait_for(lambda: fill(small_disk) and events(told), 30, 0.2, "word of it")
    (run,) = runs(told)
    assert (run["HOLDFAST_EVENT"], run["HOLDFAST_EDGE"]) == ("storage", "raised")
    assert run["HOLDFAST_TEXT"].startswith("no mail is accepted: ")
    (alert,) = [a for a in mx.status()["alerts"] if a["kind"] == "storage"]
    assert alert["text"] == run["HOLDFAST_TEXT"]
    filler.unlink()
    wait_for(lambda: len(runs(told)) == 2, 30, what="word of its end")
    end = runs(told)[1]
    assert end["HOLDFAST_EDGE"] == "ended" and end["HOLDFAST_WAS"] == run["HOLDFAST_TEXT"]
    assert end["HOLDFAST_TEXT"].startswith("mail is accepted again after ")
    mx.send()
    mx.stop()


def test_the_reserve_is_a_storage_alert(holdfast, place):
    program, told = recorder(place)
    routes = backup_mx(free_port()) + f'alert people {{ on = storage exec = "{program}" }}\n'
    mx = holdfast(routes)
    mx.configure(routes, top="reserve = 100T")
    mx.reload()
    wait_for(lambda: events(told) == ["storage"], 20, what="word of it")
    assert "reserve" in runs(told)[0]["HOLDFAST_TEXT"]
    mx.configure(routes, top="reserve = 1M")
    mx.reload()
    wait_for(lambda: [run["HOLDFAST_EDGE"] for run in runs(told)] == ["raised", "ended"], 20,
             what="word of its end")
    mx.stop()


def aged(place, holdfast, days):
    """A directory with a message that another host has held for so long."""
    other = holdfast(backup_mx(free_port()), name=f"other-{days}")
    other.send()
    out = place / f"out-{days}"
    other.tool("queue", "export", out)
    other.stop()
    (path,) = out.glob("*.json")
    head = json.loads(path.read_text())
    head["received"] -= int(days * 86400 * 1000)
    path.write_text(json.dumps(head))
    return out


def test_mail_that_ends_soon_is_told_of_a_week_and_a_day_ahead(holdfast, sink, place):
    """By the wall: 90 days after the outage began, whoever held the mail in that time."""
    program, told = recorder(place)
    m1 = sink(start=False)
    week, day, over = (aged(place, holdfast, days) for days in (84.5, 89.5, 90.1))
    mx = holdfast(backup_mx(m1.port)
                  + f'alert people {{ on = {{expiry, dead-letter}} exec = "{program}" }}\n')

    def heard(count):
        mx.reload()  # after which all is looked at, as every ten minutes
        wait_for(lambda: len(runs(told)) >= count, 30, what=f"{count} words")
        run = runs(told)[count - 1]
        return run["HOLDFAST_EVENT"], run["HOLDFAST_EDGE"], run["HOLDFAST_TEXT"]
    mx.tool("queue", "import", week)
    words = "mail of domain:example.com becomes dead letters in {}: its time ends then"
    assert heard(1) == ("expiry", "raised", words.format("6 days"))
    mx.tool("queue", "import", day)
    assert heard(2) == ("expiry", "changed", words.format("12 hours"))
    (alert,) = [a for a in mx.status()["alerts"] if a["kind"] == "expiry"]
    assert alert["text"] == words.format("12 hours") and alert["subject"] == "domain:example.com"
    mx.tool("queue", "import", over)
    event, edge, text = heard(3)
    assert (event, edge) == ("dead-letter", "happened") and "not delivered in 90 d (keep-max)" in text
    m1.start()
    mx.wait_empty()
    event, edge, text = heard(4)
    assert (event, edge) == ("expiry", "ended")
    assert text.startswith("mail of domain:example.com no longer waits for its end after ")
    assert mx.status()["dead_letters"] == 1
    mx.stop()
