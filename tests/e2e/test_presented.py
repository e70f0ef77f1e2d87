# SPDX-License-Identifier: Apache-2.0
"""Whose a session is, when another server or a load balancer says so: XCLIENT from `trusted` and the
PROXY protocol from `proxy-from`. All is decided by that client from then on."""

import socket
import struct

import pytest

from client import Dialogue
from daemon import backup_mx
from peers import free_port, wait_for

# Clients are other addresses of this machine; relaying is for one of them alone.
ROUTES = """\
server m1 {{ address = "127.0.0.1:{port}" xclient = off }}
domain example.com {{ deliver-to = m1 }}
relay out {{ from = {{127.0.0.50/32}} deliver-to = m1 }}
{more}
"""
TRUSTED = "trusted = {127.0.0.2/32, 127.0.0.50/32}"
PROXIES = "proxy-from = {127.0.0.3/32}"


@pytest.fixture
def mx(holdfast, sink):
    """mx(listen, more): a daemon whose mail a sink takes, as mx.sink."""
    def make(listen, more=""):
        hop = sink()
        daemon = holdfast(ROUTES.format(port=hop.port, more=more), listen=listen)
        daemon.sink = hop
        return daemon
    return make


# ---- XCLIENT ----

def test_the_client_is_who_xclient_says(mx):
    mx = mx(TRUSTED)
    with mx.dialogue(source="127.0.0.2", hello="proxy.example") as proxy:
        assert proxy.extensions["XCLIENT"].split()[:2] == ["NAME", "ADDR"]
        assert proxy.must("XCLIENT ADDR=192.0.2.7 PORT=4711 HELO=its+2Dname.example PROTO=SMTP "
                          "LOGIN=ann NAME=[UNAVAILABLE]")[1].startswith("mx2.example.net")
        code, _ = proxy.say("MAIL FROM:<bob@client.example>")
        assert code == 503  # nothing holds of what was said before
        proxy.hello("proxy.example")
        proxy.send("bob@client.example", ["ann@example.com"], b"Subject: one\r\n\r\n")
    wait_for(lambda: len(mx.sink.messages) == 1, what="the message")
    received = mx.sink.messages[0].content.split(b"Received:")[1]
    assert b"from its-name.example ([192.0.2.7])" in received and b"with SMTP id" in received
    assert "client=192.0.2.7 helo=its-name.example" in mx.log()


def test_only_to_who_is_trusted_by_the_client_it_stands_for(mx):
    mx = mx(TRUSTED)
    with mx.dialogue(source="127.0.0.9") as stranger:
        assert "XCLIENT" not in stranger.extensions
        code, text = stranger.say("XCLIENT ADDR=127.0.0.50")
        assert code == 550 and text.startswith("5.7.0")
        code, _ = stranger.say("MAIL FROM:<bob@client.example>")
        assert code == 250  # he is who he was
    with mx.dialogue(source="127.0.0.2") as proxy:
        proxy.must("XCLIENT ADDR=192.0.2.7")
        proxy.extensions = {}
        proxy.hello("x.example")
        assert "XCLIENT" not in proxy.extensions
        assert proxy.say("XCLIENT ADDR=127.0.0.50")[0] == 550


def test_rights_are_those_of_the_client_it_stands_for(mx):
    """The trusted server may not relay, or may: it is its client that is asked about."""
    mx = mx(TRUSTED)
    with mx.dialogue(source="127.0.0.2") as proxy:
        proxy.must("MAIL FROM:<bob@client.example>")
        assert proxy.say("RCPT TO:<ann@elsewhere.example>")[0] == 550
        proxy.must("RSET")
        proxy.must("XCLIENT ADDR=127.0.0.50 PORT=1")
        assert proxy.hello("x.example")[0] == 250
        proxy.must("MAIL FROM:<bob@client.example>")
        proxy.must("RCPT TO:<ann@elsewhere.example>")
        proxy.must("RSET")
        proxy.must("XCLIENT ADDR=[UNAVAILABLE] LOGIN=root")
        proxy.hello("x.example")
        assert proxy.say("ETRN example.com")[0] == 459
        proxy.must("MAIL FROM:<bob@client.example>")
        assert proxy.say("RCPT TO:<ann@elsewhere.example>")[0] == 550
        proxy.must("RCPT TO:<ann@example.com>")


def test_rules_and_limits_are_asked_about_that_client(mx):
    mx = mx(TRUSTED, more='block spam { clients = {192.0.2.66/32} }\n'
                          "limits { connections-per-client = 2 }\n")
    with mx.dialogue(source="127.0.0.2") as proxy:
        code, text = proxy.say("XCLIENT ADDR=192.0.2.66")
        assert code == 554 and "spam" in text
    held = []
    for _ in range(2):
        held.append(mx.dialogue(source="127.0.0.2"))
        held[-1].must("XCLIENT ADDR=192.0.2.7")
    with mx.dialogue(source="127.0.0.2") as third:
        code, text = third.say("XCLIENT ADDR=192.0.2.7")
        assert code == 421 and "your address" in text
    with mx.dialogue(source="127.0.0.2") as other:
        other.must("XCLIENT ADDR=192.0.2.8")
    held.pop().close()
    wait_for(lambda: takes_one_more(mx), what="room for one more")
    for dialogue in held:
        dialogue.close()


def takes_one_more(mx):
    with mx.dialogue(source="127.0.0.2") as again:
        return again.say("XCLIENT ADDR=192.0.2.7")[0] == 220


LOGINS = """\
relay users {{ auth = yes  deliver-to = m1 }}
listen more {{ address = "127.0.0.1:{port}"  {more} }}
"""


def test_a_login_is_believed_only_where_told(mx):
    """xclient-login: that client may relay as one who has logged in, and as himself alone."""
    port = free_port()
    mx = mx(TRUSTED, more=LOGINS.format(port=port, more=TRUSTED + " xclient-login = yes"))
    for where, code in ((mx.port, 550), (port, 250)):
        with Dialogue(where, source="127.0.0.2") as proxy:
            proxy.must("XCLIENT ADDR=192.0.2.7 LOGIN=ann@example.org")
            proxy.hello("its.example")
            proxy.must("MAIL FROM:<ann@example.org>")
            assert proxy.say("RCPT TO:<bob@elsewhere.example>")[0] == code
    with Dialogue(port, source="127.0.0.2") as proxy:
        proxy.must("XCLIENT ADDR=192.0.2.7 LOGIN=ann@example.org")
        proxy.hello("its.example")
        assert proxy.say("MAIL FROM:<eve@example.org>")[0] == 553
        proxy.send("ann@example.org", ["bob@elsewhere.example"], b"Subject: one\r\n\r\n")
    with Dialogue(port, source="127.0.0.9") as stranger:  # who is not trusted says nothing of it
        assert stranger.say("XCLIENT LOGIN=ann@example.org")[0] == 550
        stranger.must("MAIL FROM:<ann@example.org>")
        assert stranger.say("RCPT TO:<bob@elsewhere.example>")[0] == 550
    wait_for(lambda: len(mx.sink.messages) == 1, 30, what="the message")
    assert b"with ESMTPA id" in mx.sink.messages[0].content.replace(b"\r\n\t", b" ")
    with Dialogue(port, source="127.0.0.2") as proxy:  # no name: no login
        proxy.must("XCLIENT ADDR=192.0.2.7 LOGIN=[UNAVAILABLE]")
        proxy.hello("its.example")
        proxy.must("MAIL FROM:<ann@example.org>")
        assert proxy.say("RCPT TO:<bob@elsewhere.example>")[0] == 550


# ---- XFORWARD ----

def test_xforward_is_handed_on_and_decides_nothing(holdfast, sink):
    """The server behind us is told who it was at first; here it is the one who speaks that counts."""
    hop = sink(extensions=("PIPELINING", "XCLIENT ADDR NAME HELO PORT PROTO LOGIN"))
    mx = holdfast(backup_mx(hop.port, more="") +
                  "relay out { from = {127.0.0.50/32} deliver-to = m1 }\n"
                  "block spam { clients = {192.0.2.66/32} }\n", listen=TRUSTED)
    with mx.dialogue(source="127.0.0.2", hello="front.example") as front:
        assert front.extensions["XFORWARD"] == "NAME ADDR PORT PROTO HELO IDENT SOURCE"
        front.must("XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.66 PORT=4711")
        front.must("XFORWARD PROTO=SMTP HELO=its+2Dname.example IDENT=4711 SOURCE=REMOTE")
        front.send("bob@client.example", ["ann@example.com"], b"Subject: first\r\n\r\n")
        front.send("bob@client.example", ["ann@example.com"], b"Subject: its own\r\n\r\n")
        front.must("XFORWARD ADDR=127.0.0.50")
        front.must("MAIL FROM:<bob@client.example>")
        assert front.say("RCPT TO:<ann@elsewhere.example>")[0] == 550
    with mx.dialogue(source="127.0.0.50") as relay:  # whose right holds whoever it was at first
        relay.must("XFORWARD ADDR=192.0.2.7 HELO=inner.example PROTO=ESMTP")
        relay.send("bob@client.example", ["ann@elsewhere.example"], b"Subject: out\r\n\r\n")
    with mx.dialogue(source="127.0.0.9") as stranger:
        assert "XFORWARD" not in stranger.extensions
        assert stranger.say("XFORWARD ADDR=192.0.2.7")[0] == 550
    wait_for(lambda: len(hop.messages) == 3, 30, what="the messages")
    told = {message.content.split(b"Subject: ")[1].split(b"\r\n")[0]: message.client
            for message in hop.messages}
    assert told[b"first"] == {"ADDR": "192.0.2.66", "PORT": "4711", "PROTO": "SMTP",
                              "HELO": "its-name.example", "NAME": "[UNAVAILABLE]",
                              "LOGIN": "[UNAVAILABLE]"}
    assert told[b"its own"]["ADDR"] == "127.0.0.2"
    assert told[b"its own"]["HELO"] == "front.example"
    assert told[b"out"]["ADDR"] == "192.0.2.7" and told[b"out"]["HELO"] == "inner.example"
    assert b"from front.example ([127.0.0.2])" in hop.messages[0].content
    assert 'of="NAME=[UNAVAILABLE] ADDR=192.0.2.66 PORT=4711 PROTO=SMTP' in mx.log()


def test_what_xforward_said_is_kept_over_a_restart(holdfast, sink):
    hop = sink(extensions=("PIPELINING", "XCLIENT ADDR HELO"), start=False)
    mx = holdfast(backup_mx(hop.port), listen=TRUSTED)
    with mx.dialogue(source="127.0.0.2", hello="front.example") as front:
        front.must("XFORWARD ADDR=IPV6:2001:db8::7 HELO=first.example")
        front.send("bob@client.example", ["ann@example.com"], b"Subject: x\r\n\r\n")
    row, = mx.queue()
    shown, = mx.lines("queue", "show", row["id"])
    assert shown["origin"]["forwarded"] == "ADDR=IPV6:2001:db8::7 HELO=first.example"
    assert shown["origin"]["client"] == "127.0.0.2"
    mx.kill()
    mx.start()
    hop.start()
    wait_for(lambda: len(hop.messages) == 1, 60, what="the message")
    assert hop.messages[0].client == {"ADDR": "IPV6:2001:db8::7", "HELO": "first.example"}


def test_two_of_us_in_a_row(holdfast, sink):
    """The one in front tells the one behind, and that one the server, who it was at first."""
    hop = sink(extensions=("PIPELINING", "XCLIENT ADDR NAME HELO PORT PROTO"))
    behind = holdfast(backup_mx(hop.port), listen="trusted = {127.0.0.1/32}", name="behind")
    front = holdfast(backup_mx(behind.port), name="front")
    with front.dialogue(source="127.0.0.7", hello="first.example") as client:
        client.send("bob@client.example", ["ann@example.com"], b"Subject: one\r\n\r\n")
        port = client.socket.getsockname()[1]
    wait_for(lambda: len(hop.messages) == 1, what="the message")
    assert hop.messages[0].client == {"ADDR": "127.0.0.7", "PORT": str(port), "PROTO": "ESMTP",
                                      "HELO": "first.example", "NAME": "[UNAVAILABLE]"}


# ---- the PROXY protocol ----

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(source, destination, command=0x21):
    body = socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack(">HH", 4711, 25)
    return SIGNATURE + struct.pack(">BBH", command, 0x11, len(body)) + body


def through_proxy(mx, header, pieces=1):
    connection = socket.create_connection(("127.0.0.1", mx.port), timeout=60,
                                          source_address=("127.0.0.3", 0))
    for i in range(0, len(header), max(1, len(header) // pieces)):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(header[i:i + max(1, len(header) // pieces)])
    return connection


class Proxied(Dialogue):
    """A dialogue over a connection that is there."""

    def __init__(self, connection, hello="client.example"):
        self.socket = connection
        self.received = b""
        self.extensions = {}
        self.greeting = self.reply()
        if hello is not None:
            self.hello(hello)


@pytest.mark.parametrize("pieces", [1, 1000])
@pytest.mark.parametrize("header", [b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\n",
                                    v2("192.0.2.7", "192.0.2.1")], ids=["v1", "v2"])
def test_the_client_is_who_the_proxy_says(mx, header, pieces):
    mx = mx(PROXIES)
    with Proxied(through_proxy(mx, header, pieces)) as client:
        client.send("bob@client.example", ["ann@example.com"], b"Subject: one\r\n\r\n")
    wait_for(lambda: len(mx.sink.messages) == 1, what="the message")
    assert b"from client.example ([192.0.2.7])" in mx.sink.messages[0].content
    assert "client=192.0.2.7" in mx.log()


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", v2("0.0.0.0", "0.0.0.0", 0x20)],
                         ids=["unknown", "local"])
def test_a_proxy_that_speaks_for_itself(mx, header):
    mx = mx(PROXIES)
    with Proxied(through_proxy(mx, header)) as client:
        client.send("bob@client.example", ["ann@example.com"], b"Subject: one\r\n\r\n")
    wait_for(lambda: "client=127.0.0.3" in mx.log(), what="the log")


def closes(connection):
    connection.settimeout(60)
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


def test_a_proxy_that_does_not_say_it_is_not_served(mx):
    mx = mx(PROXIES)
    with through_proxy(mx, b"EHLO client.example\r\n") as connection:
        assert closes(connection)
    with through_proxy(mx, v2("192.0.2.7", "192.0.2.1")[:15]) as waiting:
        assert "no PROXY header in time" not in mx.log()
        assert closes(waiting)
    assert "no PROXY header in time" in mx.log()
    rows = wait_for(lambda: len(rows := mx.lines("trace", "127.0.0.3")) == 2 and rows,
                    what="the trace")
    assert [(row["event"], row["reply"], row["reason"]) for row in rows] == \
        [("refused", "no PROXY header", "stage proxy"),
         ("refused", "no PROXY header in time", "stage proxy")]


def test_nobody_else_may_say_it(mx):
    mx = mx(PROXIES)
    with mx.dialogue(source="127.0.0.9", hello=None) as stranger:
        code, _ = stranger.say("PROXY TCP4 127.0.0.50 192.0.2.1 4711 25")
        assert code == 500
        stranger.hello("x.example")
        stranger.must("MAIL FROM:<bob@client.example>")
        assert stranger.say("RCPT TO:<ann@elsewhere.example>")[0] == 550


def test_limits_and_trust_are_asked_about_the_proxys_client(mx):
    mx = mx(PROXIES + " trusted = {192.0.2.9/32}", more="limits { connections-per-client = 1 }\n")
    with Proxied(through_proxy(mx, v2("192.0.2.7", "192.0.2.1"))) as first:
        assert first.greeting[0] == 220 and "XCLIENT" not in first.extensions
        with Proxied(through_proxy(mx, v2("192.0.2.7", "192.0.2.1")), hello=None) as second:
            assert second.greeting[0] == 421
        rows = wait_for(lambda: mx.lines("trace", "192.0.2.7"), what="the trace")
        assert rows[0]["reply"] == "421 4.7.0 Too many connections from your address"
        with Proxied(through_proxy(mx, v2("192.0.2.9", "192.0.2.1"))) as trusted:
            assert "XCLIENT" in trusted.extensions
