# SPDX-License-Identifier: Apache-2.0
"""R3: names of servers. A failure of DNS is never a refusal, and an address once known is kept."""

import socket
import struct
import threading
import time

import pytest

from peers import wait_for

HOST = "mail.example.com"


class NameServer:
    """Answers A of HOST with 127.0.0.1 for a second, all other names with NXDOMAIN; or is broken."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.mode = "good"  # or "nxdomain", "servfail", "silent"
        self.asked = 0
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                query, peer = self.socket.recvfrom(4096)
            except OSError:
                return
            if len(query) < 17:
                continue
            self.asked += 1
            if self.mode != "silent":
                self.socket.sendto(self.answer(query), peer)

    def answer(self, query):
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
            at += 1 + query[at]
        question = query[12:at + 5]
        (kind,) = struct.unpack("!H", query[at + 1:at + 3])
        known = ".".join(labels) == HOST
        code = {"good": 0 if known else 3, "nxdomain": 3, "servfail": 2}[self.mode]
        record = b""
        if code == 0 and kind == 1:
            record = struct.pack("!HHHIH", 0xC00C, 1, 1, 1, 4) + socket.inet_aton("127.0.0.1")
        return query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, 1 if record else 0, 0, 0) + \
            question + record

    def stop(self):
        self.socket.close()


@pytest.fixture
def names():
    server = NameServer()
    yield server
    server.stop()


def routes(port):
    return (f'server m1 {{ address = "{HOST}:{port}" }}\n'
            "domain example.com { deliver-to = m1 }\n")


def top(names):
    return f'dns-forwarders = {{"127.0.0.1:{names.port}"}}'


def number(n):
    return f"Subject: {n}\r\n\r\n".encode()


@pytest.mark.parametrize("trouble", ["nxdomain", "servfail", "silent"])
def test_addresses_are_kept_over_a_restart(holdfast, sink, names, trouble):
    hop = sink()
    mx = holdfast(routes(hop.port), top=top(names))
    mx.send(content=number(1))
    wait_for(lambda: hop.subjects() == ["1"], 20, what="the first")
    mx.stop()
    names.mode = trouble
    asked = names.asked
    mx.start()
    mx.send(content=number(2))
    wait_for(lambda: hop.subjects() == ["1", "2"], 20, what="the second, by the address kept")
    assert names.asked > asked, "it was asked for anew"


def test_an_unknown_name_is_a_server_that_is_down(holdfast, sink, names):
    """Not a refusal: the mail waits, and goes when the name is there."""
    hop = sink()
    names.mode = "nxdomain"
    mx = holdfast(routes(hop.port), top=top(names))
    mx.send(content=number(1))
    wait_for(lambda: mx.server_state("m1") == "down", 20, what="m1 down")
    assert len(mx.queue()) == 1 and mx.status()["dead_letters"] == 0
    time.sleep(1)
    names.mode = "good"
    wait_for(lambda: hop.subjects() == ["1"], 30, what="the name known again")
    mx.wait_empty()
