# SPDX-License-Identifier: Apache-2.0
"""TLS from clients: Postfix, openssl s_client, Python's ssl, and who means harm."""

import os
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import time

import pytest

from certificates import Authority, listen, trusting
from client import Dialogue, by_starttls
from daemon import program
from memory import memory_of
from peers import free_port, wait_for

NAME = "mx2.example.net"


@pytest.fixture
def authority(place):
    return Authority(place)


def routes(port):
    return f"""\
server m1 {{ address = "127.0.0.1:{port}" tls = none }}
domain example.com {{ deliver-to = m1 }}
"""


def received(message):
    return re.sub(rb"\s+", b" ", re.search(rb"(?s)Received: (.*?)\r?\n(?=\S)", message).group(1))


@pytest.mark.parametrize("version, said", [(ssl.TLSVersion.TLSv1_2, b"TLSv1.2 ECDHE-"),
                                           (ssl.TLSVersion.TLSv1_3, b"TLSv1.3 TLS_")])
def test_by_starttls(holdfast, sink, authority, version, said):
    hop = sink()
    mx = holdfast(routes(hop.port), listen=listen(authority.certificate(NAME)))
    context = trusting(authority, minimum_version=version, maximum_version=version)
    content = b"Subject: one\r\n\r\n" + b"z" * 500_000 + b"\r\n"
    with by_starttls(mx.port, context) as dialogue:
        assert dialogue.say("MAIL FROM:<bob@client.example>")[0] == 503
        dialogue.hello("client.example")
        assert "STARTTLS" not in dialogue.extensions and "PIPELINING" in dialogue.extensions
        for number in range(3):
            dialogue.send("bob@client.example", ["ann@example.com"], content)
    mx.wait_empty()
    assert [m.content.split(b"\r\n\r\n", 1)[1] for m in hop.messages] == \
        [content.split(b"\r\n\r\n", 1)[1]] * 3
    field = received(hop.messages[0].content)
    assert re.search(rb"with ESMTPS \(" + re.escape(said.split()[0]) + rb"\) id .* tls TLS_\w+;", field)
    assert f'tls="{said.decode()}' in mx.log()


def test_what_tls_has_read_ahead_is_not_forgotten(holdfast, sink, authority):
    """The end of a content that the descriptor has nothing more to tell of: a turn of the loop takes
    15 whole records, and the small one behind them comes along with the last."""
    hop = sink()
    mx = holdfast(routes(hop.port), top="loops = 1", listen=listen(authority.certificate(NAME)))
    [receiver] = mx.processes()["holdfast-edge-i"]
    with by_starttls(mx.port, trusting(authority)) as dialogue:
        dialogue.hello("client.example")
        for size in (15, 30, 45):
            dialogue.envelope("bob@client.example", ["ann@example.com"])
            dialogue.must("DATA", 354)
            os.kill(receiver, signal.SIGSTOP)
            try:
                dialogue.socket.settimeout(60)
                dialogue.write((b"x" * 62 + b"\r\n") * (size * 16384 // 64))
                dialogue.write(b".\r\n")
            finally:
                os.kill(receiver, signal.SIGCONT)
            dialogue.socket.settimeout(60)
            assert dialogue.reply()[0] == 250
    mx.wait_empty()


def test_the_envelope_says_so(holdfast, sink, authority):
    hop = sink(start=False)
    mx = holdfast(routes(hop.port), listen=listen(authority.certificate(NAME)))
    with by_starttls(mx.port, trusting(authority)) as dialogue:
        dialogue.hello("client.example")
        dialogue.send("bob@client.example", ["ann@example.com"], b"Subject: x\r\n\r\n")
    [row] = mx.queue()
    [shown] = mx.lines("queue", "show", row["id"])
    assert shown["origin"]["tls"].startswith("TLSv1.3 TLS_")
    assert shown["origin"]["protocol"] == "ESMTPS"


def test_what_xclient_said_of_the_dialogue_before_it_is_forgotten(holdfast, sink, authority):
    """As the client's own HELO is (RFC 3207 section 4.2); whose mail it is, is no word of his."""
    hop = sink()
    mx = holdfast(routes(hop.port),
                  listen=listen(authority.certificate(NAME)) + " trusted = {127.0.0.0/8}")
    with Dialogue(mx.port, hello="proxy.example") as dialogue:
        dialogue.must("XCLIENT ADDR=192.0.2.7 HELO=before.example PROTO=SMTP")
        dialogue.hello("proxy.example")
        dialogue.must("STARTTLS", 220)
        dialogue.socket = trusting(authority).wrap_socket(dialogue.socket, server_hostname=NAME)
        dialogue.hello("behind.example")
        dialogue.send("bob@client.example", ["ann@example.com"], b"Subject: one\r\n\r\n")
    mx.wait_empty()
    field = received(hop.messages[0].content)
    assert b"from behind.example ([192.0.2.7])" in field and b"with ESMTPS (" in field


def test_before_the_greeting(holdfast, sink, authority):
    hop = sink()
    port = free_port()
    certificate = authority.certificate(NAME)
    mx = holdfast(routes(hop.port) + f"""
listen secure {{ address = "127.0.0.1:{port}" {listen(certificate, 'implicit')} }}
""")
    with smtplib.SMTP_SSL("127.0.0.1", port, context=trusting(authority, check_hostname=False),
                          timeout=30) as client:
        client.sendmail("bob@client.example", ["ann@example.com"], "Subject: x\r\n\r\n")
    mx.wait_empty()
    assert b"with ESMTPS (TLSv1.3" in received(hop.messages[0].content)
    # Nobody greets in the clear there.
    with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
        plain.sendall(b"EHLO client.example\r\n")
        assert b"220" not in plain.recv(100)


def test_postfix_comes_by_tls(holdfast, sink, authority, postfix):
    hop = sink()
    mx = holdfast(routes(hop.port), listen=listen(authority.certificate(NAME)))
    sender = postfix("sender", relay_to=mx.port, settings=f"""\
smtp_tls_security_level = secure
smtp_tls_secure_cert_match = {NAME}
smtp_tls_CAfile = {authority.root}
smtp_tls_loglevel = 1
smtp_tls_session_cache_database = btree:${{data_directory}}/smtp_scache
""")
    for number in range(3):
        with Dialogue(sender.port) as dialogue:
            dialogue.send("bob@client.example", ["ann@example.com"],
                          f"Subject: {number}\r\n\r\n".encode())
        wait_for(lambda: len(hop.messages) == number + 1, what="the message")
    assert "Verified TLS connection established to" in sender.log()
    assert b"with ESMTPS" in received(hop.messages[0].content)


def shown_names(port, authority, name):
    context = trusting(authority, check_hostname=False)
    with by_starttls(port, context, name) as dialogue:
        return {value for _, value in dialogue.socket.getpeercert()["subjectAltName"]}


def test_a_certificate_for_each_name(holdfast, sink, authority):
    one, two = authority.certificate(NAME), authority.certificate("mail.example.org", "*.w.example")
    mx = holdfast(routes(sink().port), listen=f"""tls = starttls
        certificate = {{"{one.chain}", "{two.chain}"}} key = {{"{one.key}", "{two.key}"}}""")
    assert shown_names(mx.port, authority, NAME) == {NAME}
    assert shown_names(mx.port, authority, "mail.example.org") == {"mail.example.org", "*.w.example"}
    assert shown_names(mx.port, authority, "a.w.example") == {"mail.example.org", "*.w.example"}
    assert shown_names(mx.port, authority, "nobody.example") == {NAME}


def test_sessions_are_resumed_at_any_loop(holdfast, sink, authority):
    mx = holdfast(routes(sink().port), top="loops = 3",
                  listen=listen(authority.certificate(NAME)))
    context = trusting(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    session, reused = None, []
    for _ in range(6):
        dialogue = Dialogue(mx.port)
        dialogue.must("STARTTLS")
        dialogue.socket = context.wrap_socket(dialogue.socket, server_hostname=NAME,
                                              session=session)
        reused.append(dialogue.socket.session_reused)
        session = dialogue.socket.session
        dialogue.must("QUIT")
        dialogue.socket.close()
    assert reused == [False] + [True] * 5


def test_a_new_certificate_ends_no_connection(holdfast, sink, authority):
    hop = sink()
    old, new = authority.certificate(NAME), authority.certificate("mail.example.org")
    mx = holdfast(routes(hop.port), listen=listen(old))
    with by_starttls(mx.port, trusting(authority)) as dialogue:
        dialogue.hello("client.example")
        for kind in ("chain", "key"):
            os.replace(getattr(new, kind), getattr(old, kind))
        mx.reload()
        wait_for(lambda: shown_names(mx.port, authority, NAME) == {"mail.example.org"},
                 what="the new certificate")
        dialogue.send("bob@client.example", ["ann@example.com"], b"Subject: x\r\n\r\n")
    mx.wait_empty()
    # One that does not fit leaves all as it was.
    old.key.write_bytes(authority.own.key.read_bytes())
    mx.reload()
    wait_for(lambda: "key values mismatch" in mx.log(), what="the complaint")
    assert shown_names(mx.port, authority, NAME) == {"mail.example.org"}


@pytest.mark.parametrize("fault, said", [
    ("gone", "No such file"), ("mismatch", "key values mismatch"),
    ("nothing", "there is no certificate"), ("sealed", "passphrase"), ("counts", "2 for 1")])
def test_what_is_wrong_is_said_with_its_line(place, holdfast, authority, fault, said):
    good, other = authority.certificate(NAME), authority.certificate("other.example.org")
    key, chain = good.key, good.chain
    if fault == "gone":
        key = place / "gone"
    elif fault == "mismatch":
        key = other.key
    elif fault == "nothing":
        chain = place / "words"
        chain.write_text("words\n")
    elif fault == "sealed":
        key = place / "sealed"
        subprocess.run(["openssl", "ec", "-aes128", "-passout", "pass:x", "-in", good.key,
                        "-out", key], check=True, capture_output=True)
    keys = f'{{"{key}", "{key}"}}' if fault == "counts" else f'"{key}"'
    mx = holdfast(routes(1), start=False, listen=f'tls = starttls\n certificate = "{chain}"\n'
                                                 f' key = {keys}\n')
    checked = subprocess.run([program("holdfastd"), "-c", mx.conf, "-n"], capture_output=True,
                             text=True)
    assert checked.returncode == 1
    assert re.search(rf"holdfast.conf:\d+: .*{said}", checked.stdout + checked.stderr)


def test_a_certificate_that_has_expired_is_warned_of(holdfast, authority):
    mx = holdfast(routes(1), start=False, listen=listen(authority.certificate(NAME, days=-1)))
    checked = subprocess.run([program("holdfastd"), "-c", mx.conf, "-n"], capture_output=True,
                             text=True)
    assert checked.returncode == 0
    assert "has expired" in checked.stdout + checked.stderr


@pytest.mark.parametrize("behind", [b"MAIL FROM:<eve@client.example>\r\n", b"\r\n", b"x"])
def test_nothing_may_come_behind_starttls(holdfast, sink, authority, behind):
    mx = holdfast(routes(sink().port), listen=listen(authority.certificate(NAME)))
    with Dialogue(mx.port) as dialogue:
        dialogue.write(b"STARTTLS\r\n" + behind)
        assert dialogue.socket.recv(1000) == b"503 5.5.1 Nothing may come behind STARTTLS\r\n"
        assert dialogue.socket.recv(1000) == b""


def test_what_comes_in_the_clear_instead_of_the_handshake(holdfast, sink, authority):
    mx = holdfast(routes(sink().port), listen=listen(authority.certificate(NAME)))
    for garbage in (b"EHLO client.example\r\n", b"\x16\x03\x01\xff\xff" + b"\x00" * 100,
                    os.urandom(2000), b"\x80" * 70000):
        with Dialogue(mx.port) as dialogue:
            dialogue.must("STARTTLS")
            said = b""
            try:
                dialogue.socket.sendall(garbage)
                while chunk := dialogue.socket.recv(4096):
                    said += chunk
            except OSError:
                pass
            assert b"250" not in said and b"500" not in said
    wait_for(lambda: len(re.findall("stage=tls", mx.log())) == 4, what="the log")
    assert mx.processes()  # each lives


def test_a_slow_handshake_is_given_up(holdfast, sink, authority):
    mx = holdfast(routes(sink().port) + "limits { command-timeout = 1s }\n",
                  listen=listen(authority.certificate(NAME)))
    with Dialogue(mx.port) as dialogue:
        dialogue.must("STARTTLS")
        dialogue.socket.settimeout(60)
        # A byte now and then is no progress.
        hello = b"\x16\x03\x01\x02\x00" + b"\x01" * 512
        closed = False
        for byte in hello:
            try:
                dialogue.socket.sendall(bytes([byte]))
                time.sleep(0.1)
            except OSError:
                closed = True
                break
        assert closed
    assert "the handshake has taken too long" in mx.log()


def test_there_is_no_renegotiation_and_no_old_protocol(holdfast, sink, authority):
    mx = holdfast(routes(sink().port), listen=listen(authority.certificate(NAME)))
    shown = subprocess.run(
        ["openssl", "s_client", "-starttls", "smtp", "-tls1_2", "-connect", f"127.0.0.1:{mx.port}"],
        input="R\n", capture_output=True, text=True, timeout=30)
    assert "no renegotiation" in shown.stderr
    for old in ("-tls1", "-tls1_1"):
        shown = subprocess.run(
            ["openssl", "s_client", "-starttls", "smtp", old, "-cipher", "ALL:@SECLEVEL=0",
             "-connect", f"127.0.0.1:{mx.port}"], input="", capture_output=True, text=True,
            timeout=30)
        assert "Cipher is (NONE)" in shown.stdout


def test_the_key_is_with_the_receiver_alone(holdfast, sink, authority):
    certificate = authority.certificate(NAME)
    secret = b"".join(certificate.key.read_bytes().splitlines()[1:-1])[:60]
    mx = holdfast(routes(sink().port), listen=listen(certificate))
    with by_starttls(mx.port, trusting(authority)) as dialogue:
        dialogue.hello("client.example")
    holders = {name for name, pids in mx.processes().items() for pid in pids
               if secret in memory_of(pid).replace(b"\n", b"")}
    assert all(name.startswith(("holdfast-edge-i", "holdfastd", "holdfast-keeper"))
               for name in holders), holders
