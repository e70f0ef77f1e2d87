# SPDX-License-Identifier: Apache-2.0
"""Submission: users of the table and of files of hashes log in by what real clients speak, and send
as who they are; others are kept out, and guessing is slow.

The clients here are on this machine, where auth-without-tls = loopback lets them log in."""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import pty
import re
import shutil
import smtplib
import ssl
import subprocess

import pytest

from certificates import Authority
from client import Dialogue, Refused
from daemon import program
from milters import DISCARD, Milter
from peers import free_port, wait_for
from submission import ANN, Submission, encoded, plain


def arrived(sink, count):
    wait_for(lambda: len(sink.messages) >= count, what=f"{count} messages")
    return sink.messages


# ---- the tool ----

def test_users_are_added_listed_changed_and_removed(submission):
    server = submission(users=())
    assert server.tool("list", check=False).returncode == 1
    added = json.loads(server.tool("add", ANN, "--json", password="secret").stdout)
    assert added == {"name": ANN, "outcome": "added"}
    assert server.add(ANN.upper(), "other", check=False).returncode == 1
    server.add("joe", "sesame", "joe@example.org,*@sales.example.org")
    rows = [json.loads(line) for line in server.tool("list", "--json").stdout.splitlines()]
    assert rows == [
        {"name": ANN, "addresses": [ANN], "password": True, "scram": True},
        {"name": "joe", "addresses": ["joe@example.org", "*@sales.example.org"], "password": True,
         "scram": True}]
    server.tool("change", "joe", "--address", "joe@example.org")
    row = json.loads(server.tool("list", "joe", "--json").stdout)
    assert row["addresses"] == ["joe@example.org"]
    server.tool("remove", "joe")
    assert server.tool("remove", "joe", check=False).returncode == 1
    assert "joe" not in server.tool("list").stdout
    for wrong in (["add", "joe"], ["add", "a b"], ["add", "joe", "--address", "x"], ["add"]):
        assert server.tool(*wrong, password="x", check=False).returncode == 2, wrong
    for password in ("", "x" * 256):
        failed = server.tool("add", "bob", "--address", "bob@example.org", password=password,
                             check=False)
        assert failed.returncode == 1, password
    table = server.mx.state / "login/users"
    assert table.stat().st_mode & 0o777 == 0o600
    assert "secret" not in table.read_text().replace('"secret":', "")


def test_a_password_on_the_command_line_is_no_password(submission):
    server = submission(users=())
    assert server.tool("add", ANN, "secret", check=False).returncode == 2


def test_the_terminal_does_not_show_the_password(submission):
    server = submission(users=())
    ours, theirs = pty.openpty()
    child = subprocess.Popen([program("holdfast"), "-c", str(server.mx.conf), "user", "add", ANN],
                             stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown = b""

    def until(text):
        nonlocal shown
        while text not in shown:
            shown += os.read(ours, 1000)
    until(b"Password:")
    os.write(ours, b"hidden\n")
    until(b"Once more:")
    os.write(ours, b"hidden\n")
    until(b"added")
    assert child.wait(timeout=30) == 0
    os.close(ours)
    assert b"hidden" not in shown
    server.logged_in(password="hidden").close()


def test_changes_hold_from_the_next_login(submission):
    server = submission()
    server.logged_in().close()
    server.tool("passwd", ANN, password="changed")
    with server.dialogue() as client:
        assert client.say(plain(ANN, "secret"))[0] == 535
        assert client.say(plain(ANN, "changed"))[0] == 235
    server.tool("remove", ANN)
    with server.dialogue() as client:
        assert client.say(plain(ANN, "changed"))[0] == 535


def test_a_broken_table_changes_nothing_and_is_told(submission):
    server = submission()
    server.logged_in().close()
    table = server.mx.state / "login/users"
    good = table.read_text()
    table.write_text(good + "not json\n")
    server.logged_in().close()
    assert "users-unreadable" in server.mx.log()
    assert "line=3" in server.mx.log()
    assert server.tool("list", check=False).returncode == 1
    assert server.add("joe", "x", "joe@example.org", check=False).returncode == 1
    assert table.read_text() == good + "not json\n"


# ---- clients ----

@pytest.mark.sanitized
@pytest.mark.parametrize("mechanism", ("PLAIN", "LOGIN"))
def test_swaks_logs_in_and_sends(submission, mechanism):
    if shutil.which("swaks") is None:
        pytest.skip("swaks is not installed")
    server = submission()
    done = subprocess.run(["swaks", "--server", f"127.0.0.1:{server.port}", "--from", ANN, "--to",
                           "bob@elsewhere.example", "--auth", mechanism, "--auth-user", ANN,
                           "--auth-password", "secret"], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done.stdout
    message = arrived(server.sink, 1)[0]
    assert message.recipients == ["bob@elsewhere.example"]
    assert b"ESMTPA" in message.content.split(b"\r\n\r\n")[0]


@pytest.mark.parametrize("options", ([], ["--login-options", "AUTH=PLAIN"],
                                     ["--login-options", "AUTH=LOGIN"]))
def test_curl_logs_in_and_sends(submission, place, options):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    server = submission()
    mail = place / "mail"
    mail.write_text("Subject: by curl\n\nHello\n")
    done = subprocess.run(["curl", "-sS", f"smtp://127.0.0.1:{server.port}/client.example",
                           "--mail-from", ANN, "--mail-rcpt", "bob@elsewhere.example",
                           "--upload-file", str(mail), "--user", f"{ANN}:secret", *options],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert b"Subject: by curl" in arrived(server.sink, 1)[0].content


@pytest.mark.parametrize("mechanism", ("plain", "login", "scram-sha-256"))
def test_msmtp_logs_in_and_sends(submission, mechanism):
    if shutil.which("msmtp") is None:
        pytest.skip("msmtp is not installed")
    offered = subprocess.run(["msmtp", "--version"], capture_output=True, text=True,
                             timeout=10).stdout
    if mechanism not in offered:
        pytest.skip(f"this msmtp knows no {mechanism}")
    server = submission()
    done = subprocess.run(["msmtp", "--host=127.0.0.1", f"--port={server.port}", "--file=/dev/null",
                           f"--auth={mechanism}", f"--user={ANN}", "--passwordeval=echo secret",
                           f"--from={ANN}", "--tls=off", "--", "bob@elsewhere.example"],
                          input="Subject: by msmtp\n\nHello\n", capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done.stderr
    assert b"Subject: by msmtp" in arrived(server.sink, 1)[0].content


def test_smtplib_logs_in_and_sends(submission):
    server = submission()
    with smtplib.SMTP("127.0.0.1", server.port, timeout=30) as client:
        client.login(ANN.upper(), "secret")
        client.sendmail(ANN, ["bob@elsewhere.example"], "Subject: by smtplib\r\n\r\nHello\r\n")
    message = arrived(server.sink, 1)[0]
    assert message.sender == ANN
    events = [row["event"] for row in server.mx.lines("trace", ANN)]
    assert events[:2] == ["login", "accepted"]


def scram_proof(password, first_bare, server_first, nonce):
    fields = dict(part.split("=", 1) for part in server_first.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(fields["s"]),
                                 int(fields["i"]))
    key = hmac.digest(salted, b"Client Key", "sha256")
    bare = f"c=biws,r={fields['r']}"
    message = f"{first_bare},{server_first},{bare}".encode()
    signed = hmac.digest(hashlib.sha256(key).digest(), message, "sha256")
    proof = bytes(a ^ b for a, b in zip(key, signed))
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return (f"{bare},p={base64.b64encode(proof).decode()}",
            "v=" + base64.b64encode(hmac.digest(server_key, message, "sha256")).decode())


def scram(client, user, password):
    """The code of the last reply; the server's signature must be right."""
    first = f"n={user},r=abcdefgh"
    code, challenge = client.say("AUTH SCRAM-SHA-256 " + encoded("n,," + first))
    assert code == 334
    answer, signature = scram_proof(password, first, base64.b64decode(challenge).decode(), "")
    code, challenge = client.say(encoded(answer))
    if code != 334:
        return code
    assert base64.b64decode(challenge).decode() == signature
    return client.say("")[0]


@pytest.mark.sanitized
def test_scram_proves_both_sides_and_tells_nobody_who_exists(submission):
    server = submission()
    with server.dialogue() as client:
        assert scram(client, ANN, "secret") == 235
    with server.dialogue() as client:
        assert scram(client, ANN, "wrong") == 535
        assert scram(client, "nobody@example.org", "secret") == 535

    def salt(user):
        with server.dialogue() as client:
            challenge = client.say("AUTH SCRAM-SHA-256 " + encoded(f"n,,n={user},r=x"))[1]
            client.say("*")
        fields = base64.b64decode(challenge).decode().split(",")
        return fields[1:]
    assert salt("nobody@example.org") == salt("Nobody@example.org")
    assert salt("nobody@example.org") != salt("noone@example.org")
    assert salt("nobody@example.org")[1] == salt(ANN)[1]
    before = salt("nobody@example.org")
    server.mx.stop()
    server.mx.start()
    assert salt("nobody@example.org") == before


def test_who_cancels_behind_his_proof_is_not_logged_in(submission):
    server = submission()
    with server.dialogue() as client:
        first = f"n={ANN},r=abcdefgh"
        challenge = client.say("AUTH SCRAM-SHA-256 " + encoded("n,," + first))[1]
        answer, _ = scram_proof("secret", first, base64.b64decode(challenge).decode(), "")
        assert client.say(encoded(answer))[0] == 334
        assert client.say("*")[0] == 501
        assert client.say(f"MAIL FROM:<{ANN}>")[0] == 530


# ---- TLS ----

@pytest.fixture
def by_tls(holdfast, place, sink):
    """A server at STARTTLS and one at a port that is TLS from the beginning; nobody in the clear."""
    authority = Authority(place)
    certificate = authority.certificate("mx2.example.net")
    keys = f'certificate = "{certificate.chain}"  key = "{certificate.key}"'
    implicit = free_port()
    server = Submission(holdfast, place, sink, listen=f"tls = starttls {keys}", more=(
        f'listen implicit {{ address = "127.0.0.1:{implicit}" protocol = submission '
        f"tls = implicit {keys} }}\n"))
    server.mx.conf.write_text(server.mx.conf.read_text().replace("auth-without-tls = loopback", ""))
    server.mx.state.mkdir(parents=True, exist_ok=True)
    server.add(ANN, "secret")
    server.implicit = implicit
    server.authority = authority
    server.context = ssl.create_default_context(cafile=authority.root)
    server.context.check_hostname = False
    return server.start()


@pytest.mark.sanitized
def test_users_send_by_tls(by_tls):
    with smtplib.SMTP("127.0.0.1", by_tls.port, timeout=30) as client:
        client.ehlo()
        assert "auth" not in client.esmtp_features
        assert client.docmd("AUTH", "PLAIN " + encoded(f"\0{ANN}\0secret"))[0] == 538
        assert client.docmd(f"MAIL FROM:<{ANN}>")[0] == 530
        client.starttls(context=by_tls.context)
        client.login(ANN, "secret")
        client.sendmail(ANN, ["bob@elsewhere.example"], "Subject: by STARTTLS\r\n\r\nHello\r\n")
    with smtplib.SMTP_SSL("127.0.0.1", by_tls.implicit, timeout=30,
                          context=by_tls.context) as client:
        client.login(ANN, "secret")
        client.sendmail(ANN, ["bob@elsewhere.example"], "Subject: by TLS\r\n\r\nHello\r\n")
    messages = arrived(by_tls.sink, 2)
    for message in messages:
        assert b"ESMTPSA (TLS" in message.content.split(b"\r\n\r\n")[0]


def test_a_real_client_sends_by_tls(by_tls, place):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    mail = place / "mail"
    mail.write_text("Subject: by curl\n\nHello\n")
    for url in (f"smtp://mx2.example.net:{by_tls.port}", f"smtps://mx2.example.net:{by_tls.implicit}"):
        port = url.rsplit(":", 1)[1]
        done = subprocess.run(["curl", "-sS", url + "/client.example", "--ssl-reqd", "--cacert",
                               str(by_tls.authority.root), "--resolve",
                               f"mx2.example.net:{port}:127.0.0.1", "--mail-from", ANN,
                               "--mail-rcpt", "bob@elsewhere.example", "--upload-file", str(mail),
                               "--user", f"{ANN}:secret"], capture_output=True, text=True,
                              timeout=60)
        assert done.returncode == 0, done.stderr
    assert len(arrived(by_tls.sink, 2)) == 2


def test_a_login_in_the_clear_is_forgotten_by_starttls(holdfast, place, sink):
    """Where it is let at all."""
    certificate = Authority(place).certificate("mx2.example.net")
    server = Submission(holdfast, place, sink, listen=(
        f'tls = starttls certificate = "{certificate.chain}"  key = "{certificate.key}"'))
    server.mx.state.mkdir(parents=True, exist_ok=True)
    server.add(ANN, "secret")
    server.start()
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with smtplib.SMTP("127.0.0.1", server.port, timeout=30) as client:
        client.login(ANN, "secret")
        client.starttls(context=context)
        client.ehlo()
        assert client.docmd(f"MAIL FROM:<{ANN}>")[0] == 530
        client.login(ANN, "secret")
        assert client.docmd(f"MAIL FROM:<{ANN}>")[0] == 250


# ---- files of hashes ----

def crypted(password, kind):
    """As crypt(3) does it."""
    return subprocess.run(["openssl", "passwd", kind, "-salt", "saltsalt", password],
                          capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def test_a_file_of_hashes_serves(submission, place):
    path = place / "hashes"
    path.write_text("# htpasswd and passwd\n"
                    f"ann:{crypted('secret', '-6')}:{ANN}\n"
                    f"joe@example.org:{crypted('sesame', '-1')}\n")
    path.chmod(0o600)
    server = submission(users=[("users@example.org", "third", None)],
                        listen=f'auth = {{"file:{path}", users}}')
    with server.dialogue() as client:
        assert client.say("AUTH SCRAM-SHA-256")[0] == 504
    with server.logged_in("ann", "secret") as client:
        client.must(f"MAIL FROM:<{ANN}>", 250)
    with server.logged_in("joe@example.org", "sesame") as client:
        client.must("MAIL FROM:<joe@example.org>", 250)
        assert client.say("RSET")[0] == 250
        assert client.say(f"MAIL FROM:<{ANN}>")[0] == 553
    server.logged_in("users@example.org", "third").close()
    with server.dialogue() as client:
        assert client.say(plain("ann", "sesame"))[0] == 535
    assert "$6$" not in server.mx.log() and "saltsalt" not in server.mx.log()
    # Only one process has them.
    for name, pids in server.mx.processes().items():
        for pid in pids:
            maps = open(f"/proc/{pid}/maps", encoding="utf-8").read().splitlines()
            found = False
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                for line in maps:
                    fields = line.split()
                    if "rw" not in fields[1] or "[v" in line:
                        continue
                    start, end = (int(x, 16) for x in fields[0].split("-"))
                    try:
                        memory.seek(start)
                        found = found or b"$6$saltsalt$" in memory.read(end - start)
                    except OSError:
                        continue
            assert found == (name == "holdfast-login"), name


# ---- who may send as whom ----

def test_the_sender_must_be_his_own(submission):
    server = submission(users=[("joe", "secret", "joe@example.org,*@sales.example.org")])
    with server.logged_in("joe") as client:
        for sender in ("joe@example.org", "JOE@example.org", "any@sales.example.org", ""):
            client.must(f"MAIL FROM:<{sender}>", 250)
            client.must("RSET", 250)
        for sender in (ANN, "joe@example.com", "joe@example.org.evil.example"):
            assert client.say(f"MAIL FROM:<{sender}>")[0] == 553, sender


def test_who_has_logged_in_is_no_forger(submission):
    """own-senders is for those who have not."""
    server = submission(more='server m9 { address = "127.0.0.9:25" }\n'
                        "domain example.org { deliver-to = m9 own-senders = reject }\n")
    with Dialogue(server.mx.port, source="127.0.0.8") as stranger:
        assert stranger.say(f"MAIL FROM:<{ANN}>")[0] == 550
    with Dialogue(server.port, source="127.0.0.8") as client:
        client.must(plain(ANN, "secret"), 235)
        client.must(f"MAIL FROM:<{ANN}>", 250)


def test_any_sender_where_nobody_checks(submission):
    server = submission(listen="sender-check = none")
    with server.logged_in() as client:
        client.must("MAIL FROM:<other@example.net>", 250)


def test_each_sender_goes_by_the_first_relay_that_matches(submission, sink):
    """One chain per mailbox."""
    others = sink()
    relays = (f'server m2 {{ address = "127.0.0.1:{others.port}" }}\n'
              'relay sales { auth = yes  senders = {"*@sales.example.org"}  deliver-to = m2 }\n'
              'relay inside { from = {192.0.2.0/24}  deliver-to = m2 }\n'
              'relay outgoing { auth = yes  senders = {"*@example.org"}  deliver-to = m1 }\n')
    server = submission(users=[("joe", "secret", "*")], relays=relays)
    with server.logged_in("joe") as client:
        client.send("a@sales.example.org", ["x@elsewhere.example"], b"Subject: sales\r\n\r\n.\r\n")
        client.send("b@example.org", ["x@elsewhere.example"], b"Subject: other\r\n\r\n.\r\n")
        client.must("MAIL FROM:<c@example.net>", 250)
        assert client.say("RCPT TO:<x@elsewhere.example>")[0] == 550
        client.must("RCPT TO:<x@example.com>", 250)
    assert b"Subject: sales" in arrived(others, 1)[0].content
    assert b"Subject: other" in arrived(server.sink, 1)[0].content


def test_mail_of_users_goes_on_its_way_over_a_restart(submission):
    """Who he was is kept with the message: its route is found again."""
    server = submission()
    server.sink.stop()
    with server.logged_in() as client:
        client.send(ANN, ["x@elsewhere.example"], b"Subject: kept\r\n\r\n.\r\n")
    server.mx.kill()
    server.mx.start()
    wait_for(lambda: server.mx.status()["queue"]["messages"] == 1, what="the message")
    lanes = server.mx.status()["lanes"]
    assert [lane["route"] for lane in lanes if lane["deliveries"]] == ["relay:outgoing"]


def test_nobody_relays_without_a_login(submission):
    server = submission()
    with server.dialogue() as client:
        assert client.say(f"MAIL FROM:<{ANN}>") [0] == 530
        assert client.say("VRFY x")[0] == 530
        assert client.say("ETRN example.com")[0] == 502
    with server.mx.dialogue() as client:
        assert client.say(plain(ANN, "secret"))[0] == 502
        client.must(f"MAIL FROM:<{ANN}>", 250)
        assert client.say("RCPT TO:<x@elsewhere.example>")[0] == 550


def test_login_at_the_listener_for_mail(submission):
    server = submission(more=f'listen both {{ address = "127.0.0.1:{free_port()}" auth = users '
                             f'auth-without-tls = loopback }}\n')
    port = int(re.search(r'listen both { address = "127.0.0.1:(\d+)"',
                         server.mx.conf.read_text()).group(1))
    with Dialogue(port) as client:
        client.must("MAIL FROM:<stranger@example.net>", 250)
        assert client.say("RCPT TO:<x@elsewhere.example>")[0] == 550
        client.must("RSET", 250)
        client.must(plain(ANN, "secret"), 235)
        client.must(f"MAIL FROM:<{ANN}> MT-PRIORITY=3", 250)
        client.must("RCPT TO:<x@elsewhere.example>", 250)


def test_without_tls_only_who_is_here_may_log_in_and_only_if_told(submission):
    server = submission()
    server.mx.conf.write_text(server.mx.conf.read_text().replace("auth-without-tls = loopback", ""))
    server.mx.stop()
    server.mx.start()
    with server.dialogue() as client:
        assert "AUTH" not in client.say("EHLO client.example")[1]
        assert client.say(plain(ANN, "secret"))[0] == 538
        assert client.say(f"MAIL FROM:<{ANN}>")[0] == 530


# ---- the header ----

def test_what_is_missing_of_the_header_is_added(submission):
    server = submission()
    cases = (
        (b"Subject: both\r\n\r\nbody\r\n", True, True),
        (b"Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nSubject: id\r\n\r\nbody\r\n", False, True),
        (b"Message-ID: <x@y>\r\nSubject: date\r\n\r\nbody\r\n", True, False),
        (b"message-id: <x@y>\r\ndate: Mon, 1 Jan 2024 00:00:00 +0000\r\n\r\nbody\r\n", False,
         False),
        (b"Subject: all header\r\n", True, True),
        (b"\r\nno header\r\n", True, True),
        (b"no header at all\r\n", True, True),
        (b"Subject: long\r\nX: " + b"y" * 70000 + b"\r\n\r\n" + b"body\r\n" * 30000, True, True),
    )
    with server.logged_in() as client:
        for content, _, _ in cases:
            client.send(ANN, ["x@elsewhere.example"], content)
    with server.logged_in() as client:  # byte by byte
        client.envelope(ANN, ["x@elsewhere.example"])
        client.must("DATA", 354)
        for byte in b"Subject: slow\r\n\r\nbody\r\n.\r\n":
            client.write(bytes([byte]))
        assert client.reply()[0] == 250
    messages = arrived(server.sink, len(cases) + 1)
    for message, (content, date, identity) in zip(messages, cases + ((
            b"Subject: slow\r\n\r\nbody\r\n", True, True),)):
        head = re.match(rb"Received: [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*", message.content)
        rest = message.content[head.end():]
        added = re.findall(rb"^(?:Date: [^\r\n]*\+0000|Message-ID: <[0-9a-z]{26}@mx2\.example\.net>)"
                           rb"\r\n", rest, re.M)
        added = [line for line in added if line not in content]
        assert len(added) == date + identity, rest[:300]
        without = rest
        for line in added:
            without = without.replace(line, b"", 1)
        assert without == content
        # They are in the header: nothing but fields stands before them.
        before = rest.split(added[0])[0] if added else b""
        assert b"\r\n\r\n" not in before and b"no header" not in before


def test_filters_behind_us_may_be_told_who_has_logged_in(submission):
    """RFC 8601. What he writes in our name himself is taken out."""
    server = submission(listen="auth-results = yes", top="authserv-id = example.net\n")
    with server.logged_in() as client:
        client.send(ANN, ["x@elsewhere.example"],
                    b"Authentication-Results: example.net; auth=pass smtp.auth=boss\r\n"
                    b"Subject: x\r\n\r\nbody\r\n")
    told = arrived(server.sink, 1)[0].content
    assert re.match(rb"Received: [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*Authentication-Results: "
                    rb'example.net;\r\n\tauth=pass smtp.auth="ann@example.org"\r\n', told), told
    assert b"boss" not in told


def test_fields_are_put_into_no_body(submission):
    """The first line behind the fields comes in two pieces: their place has gone by."""
    server = submission()
    content = b"Subject: x\r\nno field, but the body\r\n"
    with server.logged_in() as client:
        for cut in (10, 11, 12, 13, 20):
            client.send(ANN, ["x@elsewhere.example"], content, chunks=(cut,))
    for message in arrived(server.sink, 5):
        assert b"\r\nno field, but the body\r\n" in message.content
        assert message.content.endswith(b"body\r\n")


@pytest.mark.sanitized
def test_the_content_says_who_he_is(submission):
    server = submission(users=((ANN, "secret", f"{ANN},ann@other.example"),),
                        listen="sender-check = header")
    good = ("From: Ann <ann@example.org>\r\n", "From: ann@example.org, Ann <ann@other.example>\r\n",
            "FROM : Us:\r\n ann@example.org;\r\nSender: ann@example.org\r\n",
            "From: nobody:;\r\nSender: ann@example.org\r\n")
    bad = (("", "is missing"), ("From: boss@example.org\r\n", "not yours"),
           ("From: ann@example.org\r\nFrom: boss@example.org\r\n", "not yours"),
           ("From: ann@example.org\r\nFrom: ann@example.org\r\n", "twice"),
           ("From: boss@example.org <ann@example.org>\r\n", "not yours"),
           ("From: Ann\r\n <ann@example.org>,\r\n boss@example.org\r\n", "not yours"),
           ("From: ann@example.org\r\nSender: boss@example.org\r\n", "Sender field has"),
           ("From: ann@example.org <boss\r\n", "cannot be understood"),
           ("From: nobody:;\r\n", "names nobody"),
           ("Resent-From: ann@example.org\r\nFrom: boss@example.org\r\n", "not yours"))
    with server.logged_in() as client:
        for fields in good + tuple(fields for fields, _ in bad):
            client.envelope(ANN, ["bob@elsewhere.example"])
            code, text = client.data(("Subject: x\r\n" + fields + "\r\nbody\r\n").encode())
            assert (code == 250) == (fields in good), (fields, text)
            assert code in (250, 550) and dict(bad).get(fields, "") in text, (fields, text)
        client.envelope(ANN, ["bob@elsewhere.example"])  # only the header's From counts
        assert client.data(b"From: ann@example.org\r\n\r\nFrom: boss@example.org\r\n")[0] == 250
    arrived(server.sink, len(good) + 1)
    server.mx.send(recipients=["a@example.com"], content=b"From: boss@example.org\r\n\r\n")
    arrived(server.sink, len(good) + 2)


def test_mail_of_strangers_is_left_as_it_is(submission):
    server = submission()
    server.mx.send(recipients=["a@example.com"], content=b"Subject: x\r\n\r\nbody\r\n")
    content = arrived(server.sink, 1)[0].content
    assert b"Date:" not in content and b"Message-ID:" not in content


# ---- the guide ----

GUIDE = (pathlib.Path(__file__).resolve().parents[2] / "docs/submission.md").read_text()


@pytest.mark.parametrize("line", re.findall(r"^(?:swaks|msmtp) .*$", GUIDE, re.M))
def test_the_commands_of_the_guide_send(by_tls, line):
    command = line.split()
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    if command[0] == "swaks" and b"TLS not available" in subprocess.run(
            ["swaks", "--support"], capture_output=True, timeout=60).stdout:
        pytest.skip("this swaks has no TLS: libnet-ssleay-perl is not installed")
    ports = {"587": str(by_tls.port), "465": str(by_tls.implicit)}
    for port, ours in ports.items():
        line = line.replace(f"mx2.example.net:{port}", f"127.0.0.1:{ours}")
        line = line.replace(f"--port={port}", f"--port={ours}")
    command = line.replace("--host=mx2.example.net", "--host=127.0.0.1").split()
    if command[0] == "swaks":
        command += ["--auth-password", "secret"]
    else:
        command[1:1] = ["--file=/dev/null", "--tls-certcheck=off", "--passwordeval=echo secret"]
    done = subprocess.run(command, input="Subject: by the guide\n\nHello\n", capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert b"ESMTPSA" in arrived(by_tls.sink, 1)[0].content


def test_the_configuration_of_the_guide_is_one(place):
    authority = Authority(place)
    certificate = authority.certificate("mx2.example.net")
    blocks = [block for block in re.findall(r"^```\n(.*?)^```", GUIDE, re.M | re.S)
              if block.startswith(("listen", "ldap"))]
    assert len(blocks) == 2
    password = place / "searcher"
    password.write_text("search\n")
    password.chmod(0o600)
    text = f'hostname = mx2.example.net\nstate = "{place}/state"\n' + "".join(blocks)
    text = text.replace("protocol    = submission\n",
                        'protocol = submission\nauth = {users, ldap:people, "pam:mail"}\n')
    for theirs, ours in (("/etc/holdfast/mx2.pem", certificate.chain),
                         ("/etc/holdfast/mx2.key", certificate.key),
                         ("/etc/holdfast/searcher", password)):
        assert theirs in text
        text = text.replace(theirs, str(ours))
    text = text.replace("ldap people {", f'ldap people {{ tls-ca = "{authority.root}"')
    conf = place / "guide.conf"
    conf.write_text(text)
    done = subprocess.run([program("holdfastd"), "-c", str(conf), "-n"], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_fail2ban_finds_who_failed_and_nobody_else(submission):
    """By the filter of the guide; a name may look like the line of another client."""
    server = submission()
    pattern = re.compile(re.search(r"^failregex = (.*)$", GUIDE, re.M).group(1).replace(
        "<HOST>", r"(?P<host>[0-9a-f:.]+)"))
    lies = " info login login listener=users user=x client=192.0.2.66 outcome=refused"
    names = (ANN, "nobody@example.org", "x" + lies, lies, '"' + lies, 'a" ' + lies)
    with Dialogue(server.port, source="127.0.0.9") as client:
        for name in names:
            assert client.say(plain(name, "wrong"))[0] == 535
    server.logged_in().close()
    found = [pattern.search(line.split(" ", 1)[1]) for line in server.mx.log().splitlines()]
    assert [match["host"] for match in found if match] == ["127.0.0.9"] * len(names)


# ---- guessing ----

def test_unknown_users_and_wrong_passwords_hear_the_same(submission):
    server = submission()
    with server.dialogue() as client:
        wrong = client.say(plain(ANN, "wrong"))
        unknown = client.say(plain("nobody@example.org", "wrong"))
    assert wrong == unknown == (535, "5.7.8 Authentication credentials invalid")


@pytest.mark.sanitized
def test_guessing_is_stopped_and_the_user_comes_in_from_where_he_was(submission):
    """Ten wrong passwords of a client, then it must wait, whatever it says and wherever it guesses.
    A client from which the user has logged in is not concerned by what others do."""
    server = submission()
    server.logged_in().close()  # 127.0.0.1 is known
    def stranger(password, user=ANN):
        with Dialogue(server.port, source="127.0.0.9") as client:
            return client.say(plain(user, password))[0]
    codes = [stranger(f"guess{i}", user=ANN if i % 2 else f"nobody{i}@example.org")
             for i in range(11)]
    assert codes == [535] * 11
    assert stranger("secret") == 454
    assert stranger("x", user="another@example.org") == 454
    server.logged_in().close()
    wait_for(lambda: server.counter("holdfast_logins_failed_total") == 11, what="the count")
    assert server.counter("holdfast_logins_total") == 2
    assert server.counter("holdfast_logins_not_tried_total") == 2
    assert server.counter("holdfast_login_lockouts_total") >= 1
    log = server.mx.log()
    assert 'outcome="refused, and the client must wait"' in log
    assert "guess1" not in log and "secret" not in log


def test_many_clients_lock_an_account_for_strangers_only(submission):
    server = submission()
    server.logged_in().close()
    def stranger(number, password):
        with Dialogue(server.port, source=f"127.0.1.{number}") as client:
            return client.say(plain(ANN, password))[0]
    codes = [stranger(number, "guess") for number in range(1, 22)]
    assert codes == [535] * 21
    assert stranger(50, "secret") == 454
    server.logged_in().close()


def test_hostile_logins(submission):
    """Garbage, overlong lines, all at once: the session ends or goes on, nothing else does."""
    server = submission()
    with server.dialogue() as client:
        for line in ("AUTH", "AUTH PLAIN !!!", "AUTH PLAIN ====", "AUTH PLAIN AAAA=", "AUTH PLAIN",
                     "AUTH NTLM", "AUTH PLAIN " + "A" * 1900, "AUTH SCRAM-SHA-256 biws",
                     "AUTH LOGIN =", "AUTH PLAIN " + encoded("\0a\0" + "b" * 300)):
            code, _ = client.say(line)
            if code == 334:
                code, _ = client.say("*")
            assert code in (501, 504, 535), line
    with server.dialogue() as client:
        client.write(b"AUTH LOGIN\r\n" + b"A" * 200000 + b"\r\nNOOP\r\n")
        assert [client.reply()[0] for _ in range(3)] == [334, 500, 250]
    with server.dialogue() as client:
        client.write(b"AUTH LOGIN\r\n" + encoded(ANN).encode() + b"\r\n" +
                     encoded("secret").encode() + b"\r\nMAIL FROM:<" + ANN.encode() +
                     b">\r\nRCPT TO:<x@elsewhere.example>\r\nAUTH PLAIN AA==\r\nQUIT\r\n")
        assert [client.reply()[0] for _ in range(7)] == [334, 334, 235, 250, 250, 503, 221]
    clients = [server.dialogue() for _ in range(40)]
    for client in clients:
        client.write((plain(f"u{id(client)}@example.org", "x") + "\r\n").encode())
    codes = {client.reply()[0] for client in clients}
    assert codes <= {535, 454}, codes
    for client in clients:
        client.close()
    assert "process-died" not in server.mx.log()


# ---- the process of the secrets ----

def test_its_death_is_a_temporary_failure(submission):
    server = submission()
    pid = server.mx.processes()["holdfast-login"][0]
    os.kill(pid, 9)
    def comes_in():
        with server.dialogue() as client:
            code, _ = client.say(plain(ANN, "secret"))
            assert code in (235, 454)
            return code == 235
    wait_for(comes_in, what="a login after the restart")


def test_the_death_of_edge_in_is_survived(submission):
    server = submission()
    os.kill(server.mx.processes()["holdfast-edge-i"][0], 9)
    def comes_in():
        try:
            with server.dialogue() as client:
                return client.say(plain(ANN, "secret"))[0] == 235
        except (OSError, ConnectionError, Refused):
            return False
    wait_for(comes_in, what="a login after the restart")


def test_recipients_of_a_user_are_bounded_by_the_hour(submission):
    server = submission(users=((ANN, "secret", None), ("joe@example.org", "secret", None)),
                        limits="limits { user-recipients = 5 }\n")
    with server.logged_in() as client:
        client.must(f"MAIL FROM:<{ANN}>", 250)
        codes = [client.say(f"RCPT TO:<x{i}@elsewhere.example>")[0] for i in range(7)]
    assert codes == [250] * 5 + [450] * 2
    with server.logged_in() as client:  # another connection, whichever loop has it
        client.must(f"MAIL FROM:<{ANN}>", 250)
        assert client.say("RCPT TO:<y@elsewhere.example>")[0] == 450
    with server.logged_in("joe@example.org") as client:
        client.must("MAIL FROM:<joe@example.org>", 250)
        client.must("RCPT TO:<y@elsewhere.example>", 250)


@pytest.fixture
def filter():
    """A filter; its rule may be set."""
    filter = Milter().start()
    yield filter
    filter.stop()


def test_filters_see_the_mail_of_users_as_it_is_sent_on(submission, filter):
    server = submission(listen="milters = {f0}", more=filter.block("f0"))
    with server.logged_in() as client:
        assert client.send(ANN, ["ann@example.com"], b"Subject: one\r\n\r\n")[0] == 250
    message, = arrived(server.sink, 1)
    assert [name for name, _ in filter.messages[0].headers] == ["Subject", "Date", "Message-ID"]
    assert filter.messages[0].headers[2][1].encode() in message.content


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "header", "end"])
def test_nothing_is_added_to_what_a_filter_throws_away(submission, filter, stage):
    left = [DISCARD]
    filter.rule = lambda now, session, data: left.pop() if now == stage and left else None
    server = submission(listen="milters = {f0}", more=filter.block("f0"))
    with server.logged_in() as client:
        assert client.send(ANN, ["ann@example.com"], b"Subject: one\r\n\r\n")[0] == 250
        assert client.send(ANN, ["ann@example.com"], b"Subject: two\r\n\r\n")[0] == 250
    message, = arrived(server.sink, 1)
    assert b"Subject: two\r\n" in message.content and b"\r\nMessage-ID: <" in message.content
