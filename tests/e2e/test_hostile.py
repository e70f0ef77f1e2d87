# SPDX-License-Identifier: Apache-2.0
"""Who scans, guesses, dawdles and floods: finds nothing, and holds up nobody."""

import contextlib
import pathlib
import re
import socket
import ssl
import urllib.request

import pytest

from certificates import Authority
from client import Dialogue, Refused
from daemon import backup_mx
from exposition import parse
from netns import Net, why_no_netns
from peers import wait_for

why_not = why_no_netns()
needs_net = pytest.mark.skipif(why_not is not None, reason=str(why_not))
HELLO = bytes.fromhex("16030100310100002d0303") + b"\x11" * 32 + bytes.fromhex("000002002f0100")
PROBES = {
    "silence": b"",
    "garbage": bytes(range(128, 256)) * 8 + b"\r\n",
    "zeroes": b"\0" * 4096,
    "TLS": HELLO,
    "HTTP": b"GET / HTTP/1.1\r\nHost: mx2.example.net\r\n\r\n",
    "HTTP of a proxy": b"CONNECT example.org:25 HTTP/1.1\r\n\r\n",
    "SMTP": b"EHLO scan.example\r\nMAIL FROM:<x@scan.example>\r\nRCPT TO:<y@else.example>\r\nQUIT\r\n",
    "SSH": b"SSH-2.0-scan\r\n",
    "PROXY": b"PROXY TCP4 192.0.2.9 192.0.2.1 4711 25\r\nQUIT\r\n",
}


@pytest.fixture
def net():
    with Net() as made:
        yield made


def metric(mx, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{mx.http_port}/metrics", timeout=60) as page:
        samples = parse(page.read().decode())
    return sum(value for (found, _), value in samples.items() if found == f"holdfast_{name}_total")


def sockets(kind):
    """Local addresses of this network's sockets: listening ones of TCP, any of UDP."""
    found = set()
    for name in (kind, f"{kind}6"):
        for line in pathlib.Path(f"/proc/thread-self/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            if kind == "udp" or state == "0A":
                found.add(int(local.split(":")[1], 16))
    return found


def probe(port, said):
    """All that comes back."""
    got = b""
    with contextlib.suppress(ConnectionError, socket.timeout), \
            socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        if said:
            connection.sendall(said)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        else:
            connection.settimeout(1)
        while chunk := connection.recv(65536):
            got += chunk
    return got


@needs_net
def test_a_port_scan_finds_what_was_configured(net, holdfast, place, sink):
    hop = sink()
    made = Authority(place).certificate("mx2.example.net")
    tls = f'certificate = "{made.chain}"  key = "{made.key}"'
    mx = holdfast(
        'listen submission { address = "127.0.0.1:2587"  protocol = submission  tls = starttls '
        f'{tls} }}\n'
        'listen submissions { address = "127.0.0.1:2465"  protocol = submission  tls = implicit '
        f'{tls} }}\n' + backup_mx(hop.port) +
        "relay out { auth = yes  deliver-to = m1 }\n")
    ours = {mx.port: "smtp", 2587: "smtp", 2465: "tls", mx.http_port: "http"}
    wait_for(lambda: mx.server_state("m1") == "up", what="m1")
    before = sorted(mx.all_pids())
    assert sockets("tcp") - {hop.port} == set(ours)
    assert sockets("udp") == set()
    for port, protocol in ours.items():
        for name, said in PROBES.items():
            got = probe(port, said)
            if protocol == "tls":  # an alert at most, or a hello of TLS to one of TLS
                assert got == b"" or got[:1] in (b"\x15", b"\x16"), (port, name, got)
                assert b"220 " not in got and b"HTTP" not in got
            elif protocol == "http":
                assert b"220 " not in got and got.count(b"HTTP/1.") <= 1, (port, name, got)
                if not said.startswith(b"GET"):
                    assert got == b"" or re.match(rb"HTTP/1\.[01] [45]", got), (port, name, got)
            else:
                lines = got.split(b"\r\n")
                assert lines[-1] == b"" and b"HTTP" not in got
                good = [line for line in lines if line[:1] in b"23" and line]
                allowed = (b"220 mx2.example.net ", b"221 ", b"250") if name == "SMTP" else \
                    (b"220 mx2.example.net ", b"221 ")
                assert all(line.startswith(allowed) for line in good), (port, name, got)
                assert b"2.1.5" not in got
    assert sorted(mx.pids()) == before
    assert not hop.messages
    mx.send()
    mx.wait_empty()


@needs_net
@pytest.mark.parametrize("domain", ["example.com", "elsewhere.example"])
def test_guessing_recipients_finds_next_to_nothing(net, holdfast, place, domain):
    """Thousands of names, asked as fast as we let: who asks is slowed down, cut off and not greeted
    again, and who sends mail beside him is served all the time."""
    mx = holdfast('listen far { address = "192.0.2.1:2525" }\n'
                  'server m1 { address = "127.0.0.1:1" }\n'
                  "domain example.com { deliver-to = m1  recipients = learn  unknown = defer }\n"
                  "limits { tarpit = 100ms }\n")
    listing = place / "known"
    listing.write_text("".join(f"name{number} OK\n" for number in range(0, 3000, 30)))
    mx.tool("recipients", "import", "example.com", listing)
    names, found, asked, cut_off = iter(range(1, 3000)), [], 0, 0

    def dialogue(who, **how):
        with net.far():
            return Dialogue(2525, address="192.0.2.1", source=net.addresses[who], **how)
    for _ in range(20):
        with dialogue(0, hello=None) as guesser:
            if guesser.greeting[0] != 220:
                break
            guesser.hello("guess.example")
            guesser.must("MAIL FROM:<x@guess.example>")
            for number in names:
                code, _ = guesser.say(f"RCPT TO:<name{number}@{domain}>")
                asked += 1
                if code == 421:
                    cut_off += 1
                    break
                found += [number] if code == 250 else []
        with dialogue(1) as client:
            assert client.send("bob@client.example", ["name0@example.com"],
                               b"Subject: x\r\n\r\n")[0] == 250
    else:
        raise AssertionError("still greeted")
    assert cut_off >= 2 and asked < 300 and len(found) < 10
    assert metric(mx, "tarpitted") > 50 and metric(mx, "rate_limited") >= 1


def test_verbs_that_ask_for_names_tell_none(holdfast, place):
    mx = holdfast(backup_mx(1, more="recipients = learn  unknown = defer"))
    listing = place / "known"
    listing.write_text("ann OK\n")
    mx.tool("recipients", "import", "example.com", listing)
    with mx.dialogue() as dialogue:
        for verb in ("VRFY", "EXPN", "HELP"):
            assert len({dialogue.say(f"{verb} {name}") for name in
                        ("ann", "ann@example.com", "<ann@example.com>", "nobody@example.com")}) == 1


# ---- who dawdles ----


def test_who_dawdles_is_sent_away(holdfast, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port) +
                  "limits { command-timeout = 3s  session-timeout = 10s }\n")
    before = sorted(mx.all_pids())
    slow = {mx.dialogue(hello=None): word for word in (b"EHLO ", b"x", b"") for _ in range(20)}
    for kind in (b"DATA\r\n", b"BDAT 100000 LAST\r\n") * 10:
        dialogue = mx.dialogue()
        dialogue.envelope("bob@client.example", ["ann@example.com"])
        dialogue.write(kind)
        slow[dialogue] = b"x\r\n"
    mx.send()  # beside them

    def gone(dialogue, word):
        try:
            dialogue.write(word[-1:])
            dialogue.socket.setblocking(False)
            return dialogue.socket.recv(4096) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            dialogue.socket.setblocking(True)

    def all_gone():
        for dialogue in [d for d, word in slow.items() if gone(d, word)]:
            dialogue.close()
            del slow[dialogue]
        return not slow
    wait_for(all_gone, step=0.3, what="the end of the slow ones")
    mx.wait_empty()
    assert len(hop.messages) == 1 and sorted(mx.pids()) == before


# ---- who floods ----


@needs_net
def test_a_flood_of_connections_is_bounded(net, holdfast):
    mx = holdfast('listen far { address = "192.0.2.1:2525" }\n'
                  'server m1 { address = "127.0.0.1:1" }\n'
                  "domain example.com { deliver-to = m1 }\n"
                  "limits { connections = 100  connections-per-client = 40 }\n")
    before = sorted(mx.all_pids())

    def dialogue(who, **how):
        with net.far():
            return Dialogue(2525, address="192.0.2.1", source=net.addresses[who], **how)
    flood = [dialogue(0, hello=None) for _ in range(150)]
    assert [one.greeting[0] for one in flood] == [220] * 40 + [421] * 110
    with dialogue(1) as client:
        assert client.send("bob@client.example", ["ann@example.com"],
                           b"Subject: x\r\n\r\n")[0] == 250
    flood += [dialogue(who, hello=None) for who in (2, 3) for _ in range(40)]
    assert sum(one.greeting[0] == 220 for one in flood) <= 100
    assert {one.greeting[0] for one in flood} == {220, 421}
    for one in flood:
        one.close()

    def greeted():
        with dialogue(0, hello=None) as again:
            return again.greeting[0] == 220
    wait_for(greeted, what="room again")
    assert sorted(mx.pids()) == before
