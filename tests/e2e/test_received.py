# SPDX-License-Identifier: Apache-2.0
"""What the Received field says of how mail came (RFC 5321 section 4.4, RFC 3848, RFC 6531 section 4.3,
RFC 8314 section 4.3), whoever tells us, and what of that is told on by XCLIENT."""

import email.utils
import re
import socket
import struct

from certificates import Authority, listen, trusting
from client import Dialogue
from peers import free_port, wait_for
from sink import EXTENSIONS
from submission import plain, Submission

ANN = "ann@example.org"
PROXY_V1 = b"PROXY TCP6 2001:db8::9 2001:db8::1 4711 25\r\n"
SSL = b"\x01\0\0\0\0" + b"\x21\0\7TLSv1.2"  # client spoke TLS; its version


def proxy_v2(*items):
    rest = socket.inet_aton("192.0.2.9") + socket.inet_aton("192.0.2.1") + struct.pack(">HH", 4711, 25)
    for kind, value in items:
        rest += struct.pack(">BH", kind, len(value)) + value
    return b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack(">H", len(rest)) + rest


V13, UTF8 = "(TLSv1.3)", " SMTPUTF8"

# How it comes; what stands in Received behind `from` and `with`; PROTO and LOGIN as told on.
ROWS = [
    ({"hello": "HELO"}, "c.example ([127.0.0.9])", "SMTP", "SMTP", None),
    ({}, "c.example ([127.0.0.9])", "ESMTP", "ESMTP", None),
    ({"mail": UTF8}, "c.example ([127.0.0.9])", "UTF8SMTP", "ESMTP", None),
    ({"name": "[127.0.0.9]", "recipients": 2}, "[127.0.0.9] ([127.0.0.9])", "ESMTP", "ESMTP", None),
    ({"name": "[IPv6:::1]", "source": "::1"}, "[IPv6:::1] ([IPv6:::1])", "ESMTP", "ESMTP", None),
    ({"tls": "starttls", "hello": "HELO"}, "c.example ([127.0.0.9])", f"SMTP {V13}", "SMTP", None),
    ({"tls": "starttls"}, "c.example ([127.0.0.9])", f"ESMTPS {V13}", "ESMTP", None),
    ({"tls": "starttls", "mail": UTF8}, "c.example ([127.0.0.9])", f"UTF8SMTPS {V13}", "ESMTP", None),
    ({"tls": "implicit", "hello": "HELO"}, "c.example ([127.0.0.9])", f"SMTP {V13}", "SMTP", None),
    ({"tls": "implicit"}, "c.example ([127.0.0.9])", f"ESMTPS {V13}", "ESMTP", None),
    ({"tls": "implicit", "mail": UTF8}, "c.example ([127.0.0.9])", f"UTF8SMTPS {V13}", "ESMTP", None),
    # Users.
    ({"user": True}, "c.example ([127.0.0.9])", "ESMTPA", "ESMTP", ANN),
    ({"user": True, "mail": UTF8}, "c.example ([127.0.0.9])", "UTF8SMTPA", "ESMTP", ANN),
    ({"user": True, "tls": "starttls"}, "c.example ([127.0.0.9])", f"ESMTPSA {V13}", "ESMTP", ANN),
    ({"user": True, "tls": "starttls", "mail": UTF8}, "c.example ([127.0.0.9])",
     f"UTF8SMTPSA {V13}", "ESMTP", ANN),
    # By XCLIENT: the dialogue is that with who tells, the client is who is told of.
    ({"xclient": "ADDR=192.0.2.7"}, "c.example ([192.0.2.7])", "ESMTP", "ESMTP", None),
    ({"xclient": "ADDR=192.0.2.7", "hello": "HELO"}, "c.example ([192.0.2.7])", "SMTP", "SMTP", None),
    ({"xclient": "ADDR=192.0.2.7 PROTO=SMTP HELO=h.example"}, "h.example ([192.0.2.7])", "SMTP",
     "SMTP", None),
    ({"xclient": "ADDR=192.0.2.7 PROTO=ESMTP", "hello": "HELO"}, "c.example ([192.0.2.7])", "ESMTP",
     "ESMTP", None),
    ({"xclient": "ADDR=IPV6:2001:db8::7 LOGIN=bob+2Bx", "mail": UTF8},
     "c.example ([IPv6:2001:db8::7])", "UTF8SMTPA", "ESMTP", "bob+x"),
    ({"xclient": "ADDR=192.0.2.7 LOGIN=bob", "tls": "starttls"}, "c.example ([192.0.2.7])",
     f"ESMTPSA {V13}", "ESMTP", "bob"),
    ({"xclient": "ADDR=192.0.2.7 LOGIN=bob PROTO=SMTP"}, "c.example ([192.0.2.7])", "SMTP", "SMTP",
     "bob"),
    ({"xclient": "ADDR=[UNAVAILABLE] LOGIN=[UNAVAILABLE]"}, "c.example (unknown)", "ESMTP", "ESMTP",
     None),
    # By PROXY; its TLS is the client's.
    ({"proxy": PROXY_V1}, "c.example ([IPv6:2001:db8::9])", "ESMTP", "ESMTP", None),
    ({"proxy": proxy_v2()}, "c.example ([192.0.2.9])", "ESMTP", "ESMTP", None),
    ({"proxy": proxy_v2((0x20, SSL))}, "c.example ([192.0.2.9])", "ESMTPS (TLSv1.2)", "ESMTP", None),
    ({"proxy": proxy_v2((0x20, SSL)), "hello": "HELO"}, "c.example ([192.0.2.9])", "SMTP (TLSv1.2)",
     "SMTP", None),
    ({"proxy": proxy_v2((0x20, b"\x01\0\0\0\0"))}, "c.example ([192.0.2.9])", "ESMTPS (TLS)",
     "ESMTP", None),
    ({"proxy": proxy_v2((0x20, b"\x01\0\0\0\0\x21\0\5a (b)"))}, "c.example ([192.0.2.9])",
     "ESMTPS (TLS)", "ESMTP", None),
    ({"proxy": proxy_v2((0x20, b"\0" + SSL[1:]))}, "c.example ([192.0.2.9])", "ESMTP", "ESMTP", None),
    ({"proxy": proxy_v2((0x20, SSL)), "tls": "starttls"}, "c.example ([192.0.2.9])",
     f"ESMTPS {V13}", "ESMTP", None),
]

FIELD = re.compile(r"from (?P<client>\S+ \((?:\[[^]]+\]|unknown)\)) by mx2\.example\.net \(holdfast\) "
                   r"with (?P<how>[A-Z0-9]+(?: \([A-Za-z0-9.]+\))?) id [0-9a-z]{26}"
                   r"(?: for <(?P<recipient>[^<>]+)>)?(?: tls (?P<suite>TLS_[A-Z0-9_]+))?; (?P<date>.*)")


class Client(Dialogue):
    def __init__(self, port, source, header=b"", context=None):
        address = "::1" if ":" in source else "127.0.0.1"
        self.socket = socket.create_connection((address, port), timeout=60,
                                               source_address=(source, 0))
        self.received, self.extensions = b"", {}
        self.socket.sendall(header)
        if context is not None:
            self.handshake(context)
        self.greeting = self.reply()

    def handshake(self, context):
        self.socket = context.wrap_socket(self.socket, server_hostname="mx2.example.net")


def send(ports, context, subject, hello="EHLO", name="c.example", source="127.0.0.9", tls=None,
         user=False, xclient=None, proxy=b"", mail="", recipients=1):
    source = "127.0.0.2" if xclient else "127.0.0.3" if proxy else source
    listener = "users" if user else "secure" if tls == "implicit" else "v6" if ":" in source else "mx"
    implicit = context if tls == "implicit" else None
    with Client(ports[listener], source, proxy, implicit) as client:
        if tls == "starttls":
            client.hello("before.example")
            client.must("STARTTLS", 220)
            client.handshake(context)
        if xclient:
            client.must("EHLO proxy.example")
            client.must(f"XCLIENT {xclient}", 220)
        client.must(f"{hello} {name}")
        if user:
            client.must(plain(ANN, "secret"), 235)
        client.send(ANN if user else "bob@client.example",
                    [f"r{n}@example.com" for n in range(recipients)],
                    f"Date: Sun, 22 Nov 2026 10:56:57 +0000\r\nMessage-ID: <{subject}@x>\r\n"
                    f"From: {ANN}\r\nSubject: {subject}\r\n\r\n".encode(), mail=mail)


def test_each_way_has_its_words(holdfast, place, sink):
    authority = Authority(place)
    certificate = authority.certificate("mx2.example.net")
    context = trusting(authority)
    ports = {"secure": free_port(), "v6": free_port()}
    offers = (*EXTENSIONS, "SMTPUTF8", "XCLIENT NAME ADDR PORT PROTO HELO LOGIN")
    more = (f'listen secure {{ address = "127.0.0.1:{ports["secure"]}" '
            f"{listen(certificate, 'implicit')} }}\n"
            f'listen v6 {{ address = "[::1]:{ports["v6"]}" }}\n')
    submission = Submission(
        holdfast, place, lambda: sink(extensions=offers), listen=listen(certificate), limits=more)
    mx = submission.mx
    conf = mx.conf.read_text()
    first = "trusted = {127.0.0.2/32} xclient-login = yes sender-check = none " \
            "proxy-from = {127.0.0.3/32} " + listen(certificate)
    mx.conf.write_text(re.sub(r"(listen mx \{)", lambda m: f"{m[1]} {first} ", conf, count=1))
    submission.start()
    submission.add(ANN, "secret")
    ports |= {"mx": mx.port, "users": submission.port}
    for number, (how, *_) in enumerate(ROWS):
        send(ports, context, f"s{number}", **how)
    hop = submission.sink
    wait_for(lambda: len(set(hop.subjects())) == len(ROWS), what="all messages")
    for message in hop.messages:
        number = int(re.search(rb"Subject: s(\d+)", message.content)[1])
        how, client, word, proto, login = ROWS[number]
        text = re.sub(r"\r\n[ \t]+", " ", message.content.decode())
        field = FIELD.fullmatch(re.match(r"Received: (.*)\r\n", text)[1])
        assert field, (how, text)
        assert (field["client"], field["how"]) == (client, word), how
        # With the TLS that we have seen for ourselves, and for one recipient alone.
        assert (field["suite"] is not None) == (how.get("tls") is not None), (how, field[0])
        assert field["recipient"] == (None if how.get("recipients") == 2 else "r0@example.com"), how
        assert email.utils.parsedate_to_datetime(field["date"]).utcoffset().seconds == 0
        assert message.client["PROTO"] == proto, how
        assert message.client["LOGIN"] == (login or "[UNAVAILABLE]").replace("+", "+2B"), how
    wait_for(lambda: "tls=TLSv1.2\n" in mx.log(), what="the log to say it, too")
