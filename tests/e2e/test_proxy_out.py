# SPDX-License-Identifier: Apache-2.0
"""PROXY headers to servers (`proxy = v2`): a server that knows no XCLIENT, or no name for it in its
rules, sees the original client all the same."""

import contextlib
import re
import socket
import struct
import threading

import pytest

from certificates import Authority
from daemon import backup_mx
from peers import free_port, wait_for, why_no_postfix

needs_postfix = pytest.mark.skipif(why_no_postfix() is not None, reason=str(why_no_postfix()))
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def exactly(connection, count):
    got = b""
    while len(got) < count:
        piece = connection.recv(count - len(got))
        if not piece:
            raise ConnectionError("the header ended early")
        got += piece
    return got


class Behind:
    """Takes PROXY headers, keeps who they name (None: LOCAL), and passes the rest to a next hop."""

    def __init__(self, port):
        self.port = port
        self.named = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.at = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.pass_on, args=(connection,), daemon=True).start()

    def pass_on(self, connection):
        with contextlib.suppress(OSError), connection:
            header = exactly(connection, 16)
            assert header[:12] == SIGNATURE
            command, family, length = struct.unpack(">BBH", header[12:])
            rest = exactly(connection, length)
            if command == 0x20:
                self.named.append(None)
            else:
                assert (command, family, length) == (0x21, 0x11, 12)
                self.named.append((socket.inet_ntoa(rest[:4]), struct.unpack(">H", rest[8:10])[0]))
            with socket.create_connection(("127.0.0.1", self.port)) as hop:
                back = threading.Thread(target=pump, args=(hop, connection), daemon=True)
                back.start()
                pump(connection, hop)
                back.join()

    def stop(self):
        self.listener.close()


def pump(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def send(mx, source, subject):
    with mx.dialogue(source=source) as dialogue:
        port = dialogue.socket.getsockname()[1]
        dialogue.send("bob@client.example", ["ann@example.com"], f"Subject: {subject}\r\n\r\n".encode())
        return source, port


@needs_postfix
def test_a_postfix_that_expects_it_sees_the_client(place, holdfast, postfix):
    access = place / "access"
    access.write_text("127.0.0.66 REJECT forged\n")
    port = free_port()
    primary = postfix(
        services=f"127.0.0.1:{port} inet n - n - - smtpd\n"
                 "  -o smtpd_upstream_proxy_protocol=haproxy\n",
        settings="smtpd_client_port_logging = yes\n"
                 f"smtpd_client_restrictions = check_client_access texthash:{access}\n")
    mx = holdfast(backup_mx(port, server="proxy = v2 hold-5xx-after-recovery = 0s"))
    said = [send(mx, f"127.0.0.{number}", str(number)) for number in (2, 3)]
    with mx.dialogue(source="127.0.0.66") as dialogue:
        dialogue.send("bob@client.example", ["eve@example.com"], b"Subject: forged\r\n\r\n")
    said.append(send(mx, "127.0.0.4", "4"))
    wait_for(lambda: len(primary.messages()) == 3, 60, what="the messages")
    found = re.findall(r": client=\S*?\[([0-9.]+)\]:(\d+)", primary.log())
    assert sorted(found) == sorted((address, str(number)) for address, number in said)
    wait_for(lambda: mx.status()["dead_letters"] == 1, 60, what="the dead letter")
    refused, = mx.queue("--dead")
    assert "[127.0.0.66]" in refused["reason"] and refused["recipients"] == ["eve@example.com"]


@pytest.fixture
def behind():
    made = []

    def make(port):
        made.append(Behind(port))
        return made[-1]
    yield make
    for proxy in made:
        proxy.stop()


@pytest.mark.parametrize("tls", ["none", "opportunistic", "implicit"])
def test_one_client_a_connection(place, holdfast, sink, behind, tls):
    """In order, and in the clear in front of TLS."""
    authority = Authority(place)
    certificate = authority.certificate("m1.example.net").context() if tls != "none" else None
    hop = sink(tls=certificate, implicit=tls == "implicit")
    proxy = behind(hop.port)
    more = f' tls-ca = "{authority.root}" tls-name = m1.example.net' if tls == "implicit" else ""
    mx = holdfast(backup_mx(proxy.at, server=f"proxy = v2 connections = 1 tls = {tls}{more}"))
    hop.stop()
    wait_for(lambda: mx.server_state("m1") == "down", 60, what="m1 down")
    said = [send(mx, f"127.0.0.{number}", str(number)) for number in (2, 3)]
    with mx.dialogue(source="127.0.0.4") as dialogue:
        said.append(("127.0.0.4", dialogue.socket.getsockname()[1]))
        for number in (4, 5):
            dialogue.send("bob@client.example", ["ann@example.com"],
                          f"Subject: {number}\r\n\r\n".encode())
    proxy.named.clear()
    hop.start()
    wait_for(lambda: len(hop.messages) == 4, 60, what="the messages")
    assert hop.subjects() == ["2", "3", "4", "5"]
    assert [who for who in proxy.named if who is not None] == said
    assert hop.messages[2].session == hop.messages[3].session
    assert len({message.session for message in hop.messages}) == 3
    assert mx.status()["dead_letters"] == 0


def test_our_own_mail_goes_as_ours(holdfast, behind, sink):
    """A notice, behind the mail of a client that it is about."""
    hop = sink(lambda stage, session, argument:
               "550 5.1.1 No" if stage == "RCPT" and "nobody@" in argument else None)
    proxy = behind(hop.port)
    mx = holdfast(f"""\
server m1 {{ address = "127.0.0.1:{proxy.at}" hold-5xx-after-recovery = 0s proxy = v2 }}
relay out {{ from = {{127.0.0.0/8}} deliver-to = m1 }}
""")
    wait_for(lambda: mx.server_state("m1") == "up", 60, what="m1 up")
    with mx.dialogue(source="127.0.0.2") as dialogue:
        port = dialogue.socket.getsockname()[1]
        dialogue.send("bob@client.example", ["ann@elsewhere.example"], b"Subject: x\r\n\r\n")
    wait_for(lambda: len(hop.messages) == 1, 60, what="the message")
    with mx.dialogue(source="127.0.0.2") as dialogue:
        dialogue.send("bob@client.example", ["nobody@elsewhere.example"], b"Subject: y\r\n\r\n")
    wait_for(lambda: len(hop.messages) == 2, 60, what="the notice")
    assert hop.messages[1].recipients == ["bob@client.example"]
    assert ("127.0.0.2", port) in proxy.named
    assert proxy.named[-1] is None
