# SPDX-License-Identifier: Apache-2.0
"""Logging in at a next hop: a Postfix that asks a Dovecot who knows the password."""

import socketserver
import threading

import pytest

from memory import memory_of
from peers import Dovecot, Postfix, wait_for, why_no_dovecot, why_no_postfix

why_not = why_no_postfix() or why_no_dovecot()
pytestmark = pytest.mark.skipif(why_not is not None, reason=str(why_not))

SETTINGS = """\
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:127.0.0.1:{auth_port}
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
"""


@pytest.fixture
def primary(place):
    """primary(mechanisms): a Postfix that takes mail only from who has logged in."""
    made = []

    def make(mechanisms):
        keeper = Dovecot(place / "dovecot", mechanisms=mechanisms, password="tanstaaf")
        made.append(keeper)
        keeper.start()
        postfix = Postfix(place / "primary",
                          settings=SETTINGS.format(auth_port=keeper.auth_port))
        made.append(postfix)
        return postfix.start()

    yield make
    for server in reversed(made):
        server.stop()


def routes(place, port, password="tanstaaf"):
    path = place / "password"
    path.write_text(password + "\n")
    path.chmod(0o600)
    return f"""\
server m1 {{ address = "127.0.0.1:{port}"  auth-user = tim  auth-password-file = "{path}" }}
domain example.com {{ deliver-to = m1 }}
"""


@pytest.mark.parametrize("mechanisms, used", [("scram-sha-256 plain login", "SCRAM-SHA-256"),
                                              ("plain login", "PLAIN"), ("login", "LOGIN")])
def test_by_the_best_mechanism_there_is(place, holdfast, primary, mechanisms, used):
    postfix = primary(mechanisms)
    mx = holdfast(routes(place, postfix.port))
    mx.send(content=b"Subject: hello\r\n\r\n")
    wait_for(lambda: len(postfix.messages()) == 1, 20, what="the message")
    assert f"sasl_method={used}, sasl_username=tim" in postfix.log()


def test_a_wrong_password_is_the_server_s_trouble_not_the_mail_s(place, holdfast, primary):
    postfix = primary("plain")
    mx = holdfast(routes(place, postfix.port, "wrong"))
    mx.send()
    wait_for(lambda: any("credentials" in alert["kind"] for alert in mx.status()["alerts"]), 20,
             what="the alert")
    assert mx.server_state("m1") == "down"
    assert len(mx.queue()) == 1 and mx.status()["dead_letters"] == 0
    # The operator corrects it, and reloads.
    (place / "password").write_text("tanstaaf\n")
    mx.reload()
    mx.tool("server", "probe", "m1")
    wait_for(lambda: len(postfix.messages()) == 1, 90, what="the message")
    wait_for(lambda: mx.status()["alerts"] == [], 20, what="the alert's end")


def test_the_password_is_with_the_sender_alone(place, holdfast, primary):
    postfix = primary("plain")
    mx = holdfast(routes(place, postfix.port))
    mx.send()
    wait_for(lambda: len(postfix.messages()) == 1, 20, what="the message")
    for name, pids in mx.processes().items():
        for pid in pids:
            found = b"tanstaaf" in memory_of(pid)
            assert not found or name.startswith("holdfast-edge-o"), f"{name} has it"


class Echo(socketserver.StreamRequestHandler):
    """Refuses each login with the line that it got, as many servers do."""

    def handle(self):
        self.wfile.write(b"220 echo\r\n")
        for line in self.rfile:
            word = line[:4].upper()
            if word == b"EHLO":
                self.wfile.write(b"250-echo\r\n250 AUTH PLAIN\r\n")
            elif word == b"QUIT":
                return
            else:
                self.wfile.write(b"535 5.7.8 what is " + line)


def test_what_a_server_repeats_goes_nowhere(place, holdfast):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as echo:
        threading.Thread(target=echo.serve_forever, daemon=True).start()
        told = place / "told"
        script = place / "hook"
        script.write_text(f"#!/bin/sh\nenv >> {told}\n")
        script.chmod(0o755)
        mx = holdfast(routes(place, echo.server_address[1], "wrongpassword")
                      + f'alert people {{ exec = "{script}" }}\n')
        mx.send()
        wait_for(lambda: any("credentials" in alert["kind"] for alert in mx.status()["alerts"]),
                 20, what="the alert")
        wait_for(lambda: told.exists() and "credentials" in told.read_text(), 20, what="the hook")
        assert "535 5.7.8" in mx.log()
        secrets = (b"wrongpassword", b"AHRpbQB3cm9uZ3Bhc3N3b3Jk")
        for secret in secrets:
            text = secret.decode()
            assert text not in mx.log() and text not in told.read_text()
            for command in (("status",), ("server", "list", "--json"), ("queue", "list")):
                assert text not in mx.tool(*command, check=False).stdout
        for name, pids in mx.processes().items():
            if not name.startswith("holdfast-edge-o"):
                assert not any(secret in memory_of(pid) for pid in pids for secret in secrets), name
        echo.shutdown()
