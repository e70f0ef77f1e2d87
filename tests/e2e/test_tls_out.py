# SPDX-License-Identifier: Apache-2.0
"""TLS to next hops: each policy, with a Postfix and with servers that do it badly."""

import pathlib
import re

import pytest

from certificates import Authority
from peers import Dovecot, wait_for, why_no_dovecot
from sink import CLOSE

NAME = "mail.example.com"
MACHINE = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")


@pytest.fixture
def authority(place):
    return Authority(place)


def routes(port, *words, more=""):
    return f"""\
server m1 {{ address = "127.0.0.1:{port}"  {' '.join(words)} }}
domain example.com {{ deliver-to = m1 }}
{more}"""


def attempts(mx):
    """What the trace says of the TLS of each attempt."""
    return [row["tls"] for row in mx.lines("trace", "ann@example.com")
            if row["event"] == "attempt"]


def failure(mx, name="m1"):
    """Why the server is not believed."""
    row = next(s for s in mx.lines("server", "list") if s["name"] == name)
    return row["reason"] or ""


def with_tls(certificate, level="may", more=""):
    return (f"smtpd_tls_security_level = {level}\nsmtpd_tls_cert_file = {certificate.chain}\n"
            f"smtpd_tls_key_file = {certificate.key}\nsmtpd_tls_loglevel = 1\n"
            f"smtpd_tls_received_header = yes\n{more}")


def test_postfix_is_spoken_to_by_tls_where_it_offers_it(holdfast, postfix, authority):
    primary = postfix(settings=with_tls(authority.certificate(NAME)))
    mx = holdfast(routes(primary.port))
    mx.send(content=b"Subject: secret\r\n\r\n")
    wait_for(lambda: len(primary.messages()) == 1, what="the message")
    assert b"(using TLSv1.3 with cipher" in primary.messages()[0]
    assert "TLS connection established from" in primary.log()
    [said] = attempts(mx)
    asked = r"not verified: .+" if MACHINE.exists() else "not asked to prove itself"
    assert re.fullmatch(rf"opportunistic: TLSv1\.3 TLS_\w+, {asked}", said)
    assert said in " ".join(mx.tool("trace", "ann@example.com").stdout.split())


@pytest.mark.parametrize("name, result", [(NAME, "verified"),
                                          ("other.example.net", "not verified: hostname mismatch")])
def test_what_a_certificate_proves_is_told_where_nobody_asks(holdfast, sink, authority, name, result):
    hop = sink(tls=authority.certificate(name).context())
    mx = holdfast(routes(hop.port, f'tls-name = {NAME} tls-ca = "{authority.root}"'))
    mx.send()
    mx.wait_empty()
    assert re.fullmatch(rf"opportunistic: TLSv1\.3 TLS_\w+, {result}", attempts(mx)[0])


@pytest.mark.parametrize("most, wanted", [("!TLSv1.3", "TLSv1.2"), (">=TLSv1.3", "TLSv1.3")])
def test_both_versions(holdfast, postfix, authority, most, wanted):
    primary = postfix(settings=with_tls(authority.certificate(NAME), "encrypt",
                                        f"smtpd_tls_mandatory_protocols = {most}\n"))
    mx = holdfast(routes(primary.port, "tls = encrypt"))
    mx.send()
    wait_for(lambda: len(primary.messages()) == 1, what="the message")
    assert attempts(mx)[0].startswith(f"encrypt: {wanted} ")


def test_what_proves_its_name_gets_the_mail(holdfast, sink, authority):
    hop = sink(tls=authority.certificate("other.example.net", NAME).context())
    mx = holdfast(routes(hop.port, "tls = required", f"tls-name = {NAME}",
                         f'tls-ca = "{authority.root}"'))
    mx.send()
    mx.wait_empty()
    assert [row.endswith(", verified") for row in attempts(mx)] == [True]
    assert "STARTTLS" in hop.sessions[0].commands if hop.sessions else True


@pytest.mark.parametrize("fault, why", [("name", "hostname mismatch"), ("expired", "expired"),
                                        ("stranger", "unable to get|self-signed")])
def test_what_does_not_gets_nothing(place, holdfast, sink, authority, fault, why):
    signer = Authority(place, "stranger") if fault == "stranger" else authority
    name = "other.example.net" if fault == "name" else NAME
    shown = signer.certificate(name, days=-1 if fault == "expired" else 30)
    hop = sink(tls=shown.context())
    good = sink(tls=authority.certificate(NAME).context())
    asked = f'tls-name = {NAME} tls-ca = "{authority.root}"'
    mx = holdfast(f"""\
server m1 {{ address = "127.0.0.1:{hop.port}" tls = required {asked} failover = m2 }}
server m2 {{ address = "127.0.0.1:{good.port}" tls = required {asked} }}
domain example.com {{ deliver-to = m1 }}
domain encrypted.example {{ deliver-to = m3 }}
server m3 {{ address = "127.0.0.1:{hop.port}" tls = encrypt {asked} }}
""")
    mx.send()
    wait_for(lambda: len(good.messages) == 1, what="the message at the next server")
    wait_for(lambda: mx.server_state("m1") == "down", what="the verdict")
    assert re.search(why, failure(mx))
    assert hop.messages == []
    assert not any(command.startswith("MAIL") for s in hop.sessions for command in s.commands)
    # Who is not asked for a proof is told of all the same.
    mx.send(recipients=["eve@encrypted.example"])
    wait_for(lambda: len(hop.messages) == 1, what="the message by tls = encrypt")
    [said] = [row["tls"] for row in mx.lines("trace", "eve@encrypted.example")
              if row["event"] == "attempt"]
    assert re.search(f"^encrypt: .* not verified: .*({why})", said)


@pytest.mark.parametrize("policy", ["encrypt", "required"])
def test_where_it_is_demanded_nothing_goes_in_the_clear(place, holdfast, sink, authority, policy):
    hop = sink()
    mx = holdfast(routes(hop.port, f"tls = {policy}", f'tls-ca = "{authority.root}"'))
    mx.send()
    wait_for(lambda: mx.server_state("m1") == "down", what="the verdict")
    assert "does not offer STARTTLS" in failure(mx)
    assert hop.messages == [] and len(mx.queue()) == 1
    # It comes to offer it.
    hop.tls = authority.certificate("127.0.0.1", NAME).context()
    mx.configure(routes(hop.port, f"tls = {policy}", f'tls-ca = "{authority.root}"',
                        f"tls-name = {NAME}"))
    mx.reload()
    wait_for(lambda: len(hop.messages) == 1, 60, what="the message")


def refuses(stage, session, argument):
    return "454 4.7.0 TLS is not available" if stage == "STARTTLS" else None


def closes(stage, session, argument):
    return CLOSE if stage == "STARTTLS" else None


def garbage(stage, session, argument):
    return "220 go\r\n250 AUTH PLAIN" if stage == "STARTTLS" else None


@pytest.mark.parametrize("rule, why", [(refuses, "454|TLS is not available"), (closes, "closed"),
                                       (garbage, "in the clear")])
def test_where_it_is_not_a_failure_is_no_end_and_never_silent(holdfast, sink, authority, rule,
                                                               why):
    hop = sink(rule, tls=authority.certificate(NAME).context())
    mx = holdfast(routes(hop.port))
    mx.send()
    mx.wait_empty()
    assert len(hop.messages) == 1
    [said] = attempts(mx)
    assert re.search(f"^opportunistic: in the clear, after: .*({why})", said)
    assert re.search(f"tls-failed.*server=m1.*({why})", mx.log())
    # The next connection tries again.
    hop.rule = lambda *_: None
    hop.stop()
    hop.start()
    mx.send(sender="second@client.example")
    wait_for(lambda: len(hop.messages) == 2, what="the second message")
    assert attempts(mx)[-1].startswith("opportunistic: TLSv1.3")


def test_a_server_that_falls_silent_in_the_handshake(holdfast, sink):
    class Mute:
        """A handshake that never comes."""

        def wrap_socket(self, connection, server_side):
            hop.hushed.wait(60)
            raise ConnectionError

    hop = sink(tls=Mute())
    mx = holdfast(routes(hop.port, "greeting-timeout = 1s"))
    mx.send()
    mx.wait_empty()
    assert "timed out in the TLS handshake" in attempts(mx)[0]


def test_tls_before_the_greeting(holdfast, sink, authority):
    hop = sink(tls=authority.certificate(NAME).context(), implicit=True)
    words = ("tls = implicit", f'tls-ca = "{authority.root}"')
    mx = holdfast(routes(hop.port, *words, f"tls-name = {NAME}"))
    for number in range(3):
        mx.send(content=b"Subject: large %d\r\n\r\n" % number + b"x" * 60 * 1000 + b"\r\n"
                + (b"y" * 70 + b"\r\n") * 40000)
    mx.wait_empty()
    assert sorted(hop.subjects()) == ["large 0", "large 1", "large 2"]
    assert all(len(message.content) > 2800000 for message in hop.messages)
    assert re.search(r"^implicit: TLSv1.3 \S+, verified$", attempts(mx)[0])


@pytest.mark.skipif(why_no_dovecot() is not None, reason=str(why_no_dovecot()))
def test_a_password_goes_over_tls(place, holdfast, postfix, authority):
    keeper = Dovecot(place / "dovecot", mechanisms="plain", password="tanstaaf")
    keeper.start()
    try:
        primary = postfix(settings=with_tls(authority.certificate(NAME), "may", f"""\
smtpd_tls_auth_only = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:127.0.0.1:{keeper.auth_port}
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
smtpd_relay_restrictions = permit_sasl_authenticated, reject
"""))
        password = place / "password"
        password.write_text("tanstaaf\n")
        password.chmod(0o600)
        mx = holdfast(routes(primary.port, "tls = required", f"tls-name = {NAME}",
                             f'tls-ca = "{authority.root}"', "auth-user = tim",
                             f'auth-password-file = "{password}"'))
        mx.send()
        wait_for(lambda: len(primary.messages()) == 1, what="the message")
        assert "sasl_method=PLAIN, sasl_username=tim" in primary.log()
    finally:
        keeper.stop()
