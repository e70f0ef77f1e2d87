# SPDX-License-Identifier: Apache-2.0
"""An SMTP client that says exactly what a test wants, byte for byte."""

import re
import socket


class Refused(AssertionError):
    """A command was not accepted."""

    def __init__(self, command, code, text):
        super().__init__(f"{command}: {code} {text}")
        self.code = code
        self.text = text


class Dialogue:
    """One session. Content is always CRLF bytes, not yet dot-stuffed."""

    def __init__(self, port, timeout=60, hello="client.example", address="127.0.0.1",
                 source=None):
        self.socket = socket.create_connection((address, port), timeout=timeout,
                                               source_address=source and (source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.extensions = {}
        self.greeting = self.reply()
        if hello is not None:
            self.hello(hello)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def write(self, data):
        self.socket.sendall(data)

    def line(self):
        while b"\n" not in self.received:
            chunk = self.socket.recv(65536)
            if not chunk:
                raise ConnectionError("the server closed the connection")
            self.received += chunk
        line, self.received = self.received.split(b"\n", 1)
        return line.rstrip(b"\r").decode("utf-8", "replace")

    def reply(self):
        """(code, text) of one whole reply."""
        lines = []
        while True:
            line = self.line()
            lines.append(line[4:])
            if line[3:4] != "-":
                return int(line[:3]), "\n".join(lines)

    def say(self, command):
        if isinstance(command, str):
            command = command.encode()
        self.write(command + b"\r\n")
        return self.reply()

    def must(self, command, code=2):
        got, text = self.say(command)
        if not str(got).startswith(str(code)):
            raise Refused(command, got, text)
        return got, text

    def hello(self, name):
        code, text = self.say(f"EHLO {name}")
        if code == 250:
            for line in text.split("\n")[1:]:
                keyword, _, value = line.partition(" ")
                self.extensions[keyword.upper()] = value
        return code, text

    def envelope(self, sender, recipients, mail="", rcpt=""):
        self.must(f"MAIL FROM:<{sender}>{mail}")
        for recipient in recipients:
            self.must(f"RCPT TO:<{recipient}>{rcpt}")

    def data(self, content):
        self.must("DATA", 354)
        self.write(stuff(content) + b".\r\n")
        return self.reply()

    def bdat(self, content, sizes=()):
        """In chunks of the given sizes, the rest last."""
        for size in sizes:
            chunk, content = content[:size], content[size:]
            self.write(f"BDAT {len(chunk)}\r\n".encode() + chunk)
            code, text = self.reply()
            if code != 250:
                return code, text
        self.write(f"BDAT {len(content)} LAST\r\n".encode() + content)
        return self.reply()

    def send(self, sender, recipients, content, mail="", rcpt="", chunks=None, check=True):
        self.envelope(sender, recipients, mail, rcpt)
        code, text = self.data(content) if chunks is None else self.bdat(content, chunks)
        if check and code != 250:
            raise Refused("the dot", code, text)
        return code, text


def by_starttls(port, context, name="mx2.example.net"):
    """A dialogue that has said STARTTLS and shaken hands, and nothing since."""
    dialogue = Dialogue(port)
    assert "STARTTLS" in dialogue.extensions
    dialogue.must("STARTTLS")
    dialogue.socket = context.wrap_socket(dialogue.socket, server_hostname=name)
    dialogue.extensions = {}
    return dialogue


def stuff(content):
    """Dot-stuffing (RFC 5321 4.5.2); ends in CRLF."""
    if content.startswith(b"."):
        content = b"." + content
    content = content.replace(b"\r\n.", b"\r\n..")
    return content if content.endswith(b"\r\n") or not content else content + b"\r\n"


def normalised(content):
    """What R10 makes of any bytes: a bare LF becomes CRLF, a bare CR a space."""
    content = re.sub(rb"(?<!\r)\n", b"\r\n", content)
    return re.sub(rb"\r(?!\n)", b" ", content)


def without_our_trace(content, hostname=b"mx2.example.net"):
    """The content as the client gave it: without the Received field that holdfast put in front."""
    head = re.match(rb"Received: [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*", content)
    assert head is not None, content[:200]
    assert b"by " + hostname in head.group(0), head.group(0)
    return content[head.end():]
