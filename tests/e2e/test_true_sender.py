# SPDX-License-Identifier: Apache-2.0
"""The primary sees the true sender: a Postfix that takes XCLIENT or XFORWARD from us judges and logs
our clients as if they had come to it, and a Dovecot by LMTP likewise."""

import re

import pytest

from certificates import Authority
from daemon import backup_mx
from names import NameServer
from peers import Dovecot, wait_for, why_no_dovecot, why_no_postfix
from sink import EXTENSIONS

needs_postfix = pytest.mark.skipif(why_no_postfix() is not None, reason=str(why_no_postfix()))
needs_dovecot = pytest.mark.skipif(why_no_dovecot() is not None, reason=str(why_no_dovecot()))

# The clients of these tests are other addresses of this machine; us, too, the server sees there.
US = "127.0.0.1"
XCLIENT = f"smtpd_authorized_xclient_hosts = {US}\nsmtpd_client_port_logging = yes\n"
XFORWARD = f"smtpd_authorized_xforward_hosts = {US}\nsmtpd_client_port_logging = yes\n"


def send(mx, source, hello="client.example", recipient="ann@example.com", subject="test"):
    """Returns the port that the client had."""
    with mx.dialogue(source=source, hello=hello) as dialogue:
        port = dialogue.socket.getsockname()[1]
        dialogue.send("bob@client.example", [recipient], f"Subject: {subject}\r\n\r\n".encode())
        return port


@needs_postfix
def test_its_log_shows_the_original_client(holdfast, postfix):
    primary = postfix(settings=XCLIENT)
    mx = holdfast(backup_mx(primary.port))
    port = send(mx, "127.0.0.7", hello="hello.seven.example")
    wait_for(lambda: len(primary.messages()) == 1, 20, what="the message")
    assert f"client=unknown[127.0.0.7]:{port}" in primary.log()
    # Its own Received field says the same, above ours.
    first = primary.messages()[0].split(b"Received:")[1]
    assert b"from hello.seven.example (unknown [127.0.0.7])" in first


@needs_postfix
def test_each_client_is_told_though_their_mail_waited_together(holdfast, postfix):
    """The server takes XCLIENT from us, not from who we are then: each client needs a connection,
    and mail of one client goes over one."""
    primary = postfix(settings=XCLIENT, start=False)
    mx = holdfast(backup_mx(primary.port, server="connections = 1"))
    said = []
    for number in (2, 3, 4, 5, 6):
        port = send(mx, f"127.0.0.{number}", hello=f"c{number}.example", subject=f"s{number}")
        said.append((f"127.0.0.{number}", port))
    with mx.dialogue(source="127.0.0.9") as dialogue:
        port = dialogue.socket.getsockname()[1]
        for number in range(3):
            dialogue.send("bob@client.example", ["ann@example.com"], b"Subject: nine\r\n\r\n")
            said.append(("127.0.0.9", port))
    primary.start()
    wait_for(lambda: len(primary.messages()) == len(said), 30, what="all messages")
    found = re.findall(r": client=unknown\[([0-9.]+)\]:(\d+)", primary.log())
    assert found == [(address, str(port)) for address, port in said]
    wait_for(lambda: mx.server_state("m1") == "up", 10, what="m1 up")
    assert mx.status()["dead_letters"] == 0
    mx.stop()
    wait_for(lambda: "disconnect from unknown[127.0.0.9]" in primary.log(), 10, what="the end")
    assert len(re.findall(r"disconnect from unknown\[127.0.0.9\]:\d+ ehlo=2 xclient=\S+ mail=3 ",
                          primary.log())) == 1


@needs_postfix
@pytest.mark.parametrize("delay", ["yes", "no"])
def test_who_is_refused_by_address_is_the_forged_one_alone(place, holdfast, postfix, delay):
    """By its own access list, whether it refuses at once or at RCPT."""
    access = place / "access"
    access.write_text("127.0.0.66 REJECT forged\n")
    primary = postfix(settings=XCLIENT + f"smtpd_delay_reject = {delay}\n"
                      f"smtpd_client_restrictions = check_client_access texthash:{access}\n")
    # Nothing is held any more because the server has just come.
    mx = holdfast(backup_mx(primary.port, server="hold-5xx-after-recovery = 0s"))
    for source, subject in (("127.0.0.2", "good"), ("127.0.0.66", "forged"), ("127.0.0.3", "fine")):
        send(mx, source, subject=subject, recipient=f"{subject}@example.com")
    wait_for(lambda: len(primary.messages()) == 2, 20, what="the good messages")
    subjects = [re.search(rb"Subject: (\w+)", m).group(1) for m in primary.messages()]
    assert sorted(subjects) == [b"fine", b"good"]
    rows = lambda: mx.queue("--dead") + mx.queue()
    wait_for(lambda: any("forged" in str(row["reason"]) for row in rows()), 20, what="the refusal")
    refused, = rows()
    assert refused["recipients"] == ["forged@example.com"]
    assert refused["reason"].startswith("554 5.7.1") and "[127.0.0.66]" in refused["reason"]
    assert mx.server_state("m1") == "up"


@needs_postfix
def test_where_only_xforward_is_taken_the_log_shows_the_client(holdfast, postfix):
    """Several clients over one connection; it is the server's rules that see us."""
    primary = postfix(settings=XFORWARD, start=False)
    mx = holdfast(backup_mx(primary.port, server="connections = 1"))
    ports = {n: send(mx, f"127.0.0.{n}", hello=f"c{n}.example", subject=f"s{n}") for n in (2, 3, 4)}
    ids = [row["id"] for row in mx.queue()]
    primary.start()
    wait_for(lambda: len(primary.messages()) == 3, 20, what="the messages")
    for number, port in ports.items():
        assert f"orig_client=unknown[127.0.0.{number}]:{port}" in primary.log()
    for message in ids:
        assert f"orig_queue_id={message}" in primary.log()
    assert len(re.findall(rf" client=\w*\[{US}\]", primary.log())) == 3
    assert len(re.findall(r"smtpd\[\d+\]: connect from", primary.log())) <= 3  # two may be probes


@needs_postfix
def test_a_server_that_offers_neither_is_told_nothing(holdfast, postfix):
    primary = postfix()
    mx = holdfast(backup_mx(primary.port))
    send(mx, "127.0.0.7")
    wait_for(lambda: len(primary.messages()) == 1, 20, what="the message")
    assert "127.0.0.7" not in primary.log()
    assert b"from client.example ([127.0.0.7])" in primary.messages()[0]


@needs_postfix
def test_xclient_off_is_off(holdfast, postfix):
    primary = postfix(settings=XCLIENT + XFORWARD)
    mx = holdfast(backup_mx(primary.port, server="xclient = off"))
    send(mx, "127.0.0.7")
    wait_for(lambda: len(primary.messages()) == 1, 20, what="the message")
    assert "[127.0.0.7]" not in primary.log()


@needs_dovecot
@pytest.mark.parametrize("proxied", [False, True], ids=["xclient", "proxy"])
def test_by_lmtp(place, holdfast, proxied):
    primary = Dovecot(place / "dovecot")
    conf = primary.root / "dovecot.conf"
    trust = "" if proxied else f"login_trusted_networks = {US}\n"
    conf.write_text(conf.read_text() + trust)
    port, proxy = (primary.proxy_port, "proxy = v2") if proxied else (primary.port, "")
    try:
        primary.start()
        mx = holdfast(f'server m1 {{ address = "127.0.0.1:{port}" protocol = lmtp {proxy} }}\n'
                      "domain example.com { deliver-to = m1 }\n")
        for number in (2, 3):
            send(mx, f"127.0.0.{number}", hello=f"c{number}.example")
        wait_for(lambda: len(primary.messages("ann@example.com")) == 2, 60, what="the messages")
        for number, message in enumerate(primary.messages("ann@example.com"), 2):
            theirs, ours = message.split(b"Received:")[1:3]
            helo = "mx2.example.net" if proxied else f"c{number}.example"
            assert f"from {helo} ([127.0.0.{number}])".encode() in theirs
            assert f"from c{number}.example ([127.0.0.{number}])".encode() in ours
    finally:
        primary.stop()


# ---- servers that offer it and do not mean it ----

OFFERS = (*EXTENSIONS, "XCLIENT NAME ADDR PORT PROTO HELO LOGIN")


def xclient(reply):
    """A rule: such a reply to XCLIENT; it may depend on the command."""
    def rule(stage, session, argument):
        if stage != "XCLIENT":
            return None
        return reply(argument) if callable(reply) else reply
    return rule


@pytest.mark.parametrize("reply", ["550 5.7.0 Error: insufficient authorization", "501 5.5.4 What?",
                                   "503 5.5.1 Not now", "500 5.5.2 What?", "451 4.3.0 Trouble"])
def test_refused_xclient_loses_no_mail(holdfast, sink, reply):
    hop = sink(xclient(reply), extensions=OFFERS)
    mx = holdfast(backup_mx(hop.port))
    for number in (2, 3, 4):
        send(mx, f"127.0.0.{number}", subject=str(number))
    wait_for(lambda: len(hop.messages) == 3, 20, what="the messages")
    mx.wait_empty()
    assert hop.subjects() == ["2", "3", "4"]
    assert mx.status()["dead_letters"] == 0


def test_421_to_one_client_holds_up_no_other(holdfast, sink):
    """As Postfix says when its limits for that client are reached."""
    hop = sink(xclient(lambda line: "421 4.7.0 Too many connections" if "127.0.0.66" in line
                       else None), extensions=OFFERS)
    mx = holdfast(backup_mx(hop.port))
    send(mx, "127.0.0.2", subject="first")
    wait_for(lambda: len(hop.messages) == 1, 20, what="the first message")
    send(mx, "127.0.0.66", subject="limited", recipient="eve@example.com")
    send(mx, "127.0.0.3", subject="last")
    wait_for(lambda: len(hop.messages) == 2, 60, what="the last message")
    assert hop.subjects() == ["first", "last"]
    waiting, = mx.queue()
    assert waiting["recipients"] == ["eve@example.com"]


def test_all_there_is_to_tell(holdfast, sink):
    hop = sink(extensions=OFFERS)
    mx = holdfast(backup_mx(hop.port))
    port = send(mx, "127.0.0.7", hello="a+b=c.example")
    wait_for(lambda: len(hop.messages) == 1, 20, what="the message")
    assert hop.messages[0].client == {
        "ADDR": "127.0.0.7", "NAME": "[UNAVAILABLE]", "HELO": "a+2Bb+3Dc.example",
        "PROTO": "ESMTP", "PORT": str(port), "LOGIN": "[UNAVAILABLE]"}


def test_our_own_mail_is_not_a_clients(holdfast, sink):
    """A notice about mail, by the very server that was told of its client."""
    hop = sink(lambda stage, session, argument:
               "550 5.1.1 No" if stage == "RCPT" and "nobody@" in argument else None,
               extensions=OFFERS)
    mx = holdfast(f"""\
server m1 {{ address = "127.0.0.1:{hop.port}" hold-5xx-after-recovery = 0s connections = 1 }}
relay out {{ from = {{127.0.0.0/8}} deliver-to = m1 }}
""")
    send(mx, "127.0.0.2", recipient="ann@elsewhere.example")
    wait_for(lambda: len(hop.messages) == 1, 20, what="the message")
    send(mx, "127.0.0.2", recipient="nobody@elsewhere.example")
    wait_for(lambda: len(hop.messages) == 2, 30, what="the notice")
    message, notice = hop.messages
    assert message.client["ADDR"] == "127.0.0.2"
    assert notice.recipients == ["bob@client.example"] and notice.client is None


# ---- the client's name in DNS ----

ADDRESS, REVERSE = "198.18.0.7", "7.0.18.198.in-addr.arpa"


@pytest.mark.parametrize("zone, mode, told", [
    ({REVERSE: {"PTR": ["c.client.example"]}, "c.client.example": {"A": [ADDRESS]}}, "good",
     ("c.client.example", "c.client.example")),
    ({REVERSE: {"PTR": ["c.client.example"]}, "c.client.example": {"A": ["198.18.0.8"]}}, "good",
     ("[UNAVAILABLE]", "c.client.example")),
    ({REVERSE: {"PTR": ["gone.client.example"]}}, "good",
     ("[UNAVAILABLE]", "gone.client.example")),
    ({}, "good", ("[UNAVAILABLE]", "[UNAVAILABLE]")),
    ({}, "silent", ("[TEMPUNAVAIL]", "[TEMPUNAVAIL]")),
], ids=["true", "false", "dangling", "none", "dns_fails"])
def test_its_name_is_told_as_the_server_would_have_found_it(holdfast, sink, zone, mode, told):
    names = NameServer(zone)
    names.mode = mode
    hop = sink(extensions=(*EXTENSIONS, "XCLIENT NAME ADDR REVERSE_NAME"))
    mx = holdfast(backup_mx(hop.port), top=names.setting, listen="trusted = {127.0.0.2/32}")
    with mx.dialogue(source="127.0.0.2") as dialogue:
        dialogue.must(f"XCLIENT ADDR={ADDRESS}")
        dialogue.hello("client.example")
        for number in range(2):
            dialogue.send("bob@client.example", ["ann@example.com"],
                          f"Subject: {number}\r\n\r\n".encode())
    wait_for(lambda: len(hop.messages) == 2, 30, what="the messages")
    assert hop.subjects() == ["0", "1"]
    for message in hop.messages:
        assert message.client["ADDR"] == ADDRESS
        assert (message.client["NAME"], message.client["REVERSE_NAME"]) == told


@needs_postfix
def test_a_server_that_wants_names_judges_them(holdfast, postfix):
    """reject_unknown_client_hostname: one client has a name that leads back to it, one has not."""
    names = NameServer({REVERSE: {"PTR": ["c.client.example"]},
                        "c.client.example": {"A": [ADDRESS]}})
    primary = postfix(settings=XCLIENT + "unknown_client_reject_code = 550\n"
                      "smtpd_relay_restrictions = reject_unauth_destination\n"
                      "smtpd_client_restrictions = reject_unknown_client_hostname\n")
    mx = holdfast(backup_mx(primary.port, server="hold-5xx-after-recovery = 0s"),
                  top=names.setting, listen="trusted = {127.0.0.2/32}")
    for address in (ADDRESS, "198.18.0.8"):
        with mx.dialogue(source="127.0.0.2") as dialogue:
            dialogue.must(f"XCLIENT ADDR={address}")
            dialogue.hello("client.example")
            dialogue.send("bob@client.example", [f"{address}@example.com"], b"Subject: x\r\n\r\n")
    wait_for(lambda: len(primary.messages()) == 1, 20, what="the message")
    assert f"client=c.client.example[{ADDRESS}]" in primary.log()
    wait_for(lambda: "cannot find your hostname, [198.18.0.8]" in primary.log(), 20,
             what="the refusal")


def test_behind_tls(place, holdfast, sink):
    """XCLIENT comes after STARTTLS, which is not begun twice."""
    steps = {}
    hop = sink(lambda stage, session, _: steps.setdefault(session.number, []).append(stage),
               tls=Authority(place).certificate("m1.example.net").context(), extensions=OFFERS)
    mx = holdfast(backup_mx(hop.port))
    for number in (2, 3):
        send(mx, f"127.0.0.{number}", subject=str(number))
    wait_for(lambda: len(hop.messages) == 2, 20, what="the messages")
    assert [m.client["ADDR"] for m in hop.messages] == ["127.0.0.2", "127.0.0.3"]
    for message in hop.messages:
        assert steps[message.session] == ["connect", "EHLO", "STARTTLS", "EHLO", "XCLIENT", "EHLO",
                                          "MAIL", "RCPT", "DATA", "dot"]
