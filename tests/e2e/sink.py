# SPDX-License-Identifier: Apache-2.0
"""A next hop that keeps every byte it is given and answers as a test tells it to.

`rule(stage, session, argument)` is asked before each answer; stages are "connect", "EHLO",
"STARTTLS", "XCLIENT", "MAIL", "RCPT", "DATA", "BDAT", "dot" and "recipient" (LMTP's reply per
recipient). It returns None for the ordinary answer, a reply such as "450 4.2.0 Later", CLOSE, or
SILENCE.
"""

import re
import socket
import ssl
import struct
import threading
import time

from peers import free_port

CLOSE = object()
SILENCE = object()

EXTENSIONS = ("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "SIZE 100000000",
              "CHUNKING")


class Message:
    """What came between MAIL and the dot."""

    def __init__(self, sender, mail):
        self.sender = sender
        self.mail = mail          # the whole MAIL line
        self.recipients = []
        self.rcpt = []            # the whole RCPT lines
        self.content = b""
        self.by_bdat = False
        self.session = 0
        self.peer = None          # the address it came from
        self.client = None        # whose it is by XCLIENT: its parameters; None: the peer's
        self.time = None          # monotonic, of the reply to the dot


class Session:
    """One connection as the sink sees it."""

    def __init__(self, sink, connection, number, peer=None):
        self.sink = sink
        self.connection = connection
        self.peer = peer
        self.number = number
        self.received = b""
        self.message = None
        self.messages = 0
        self.commands = []
        self.client = None

    def read_line(self):
        while b"\r\n" not in self.received:
            chunk = self.connection.recv(65536)
            if not chunk:
                raise ConnectionError
            self.received += chunk
        line, self.received = self.received.split(b"\r\n", 1)
        return line

    def read_exactly(self, length):
        parts = [self.received[:length]]
        self.received = self.received[length:]
        missing = length - len(parts[0])
        while missing > 0:
            chunk = self.connection.recv(min(missing, 1 << 20))
            if not chunk:
                raise ConnectionError
            parts.append(chunk)
            missing -= len(chunk)
        return b"".join(parts)

    def read_content(self):
        """Up to CRLF.CRLF, un-stuffed."""
        data = b"\r\n" + self.received
        parts = []
        while (end := data.find(b"\r\n.\r\n")) < 0:
            if len(data) > 1 << 20:
                parts.append(data[:-4])
                data = data[-4:]
            chunk = self.connection.recv(1 << 18)
            if not chunk:
                raise ConnectionError
            data += chunk
        parts.append(data[:end + 2])
        self.received = data[end + 5:]
        return b"".join(parts).replace(b"\r\n.", b"\r\n")[2:]

    def answer(self, stage, argument, ordinary, before=None):
        """Says what the rule wants, else `ordinary`. True if the answer is positive; then `before`
        is called first: what was said to be taken has been taken."""
        said = self.sink.rule(stage, self, argument)
        if said is SILENCE:
            self.sink.hushed.wait(600)
            raise ConnectionError
        if said is CLOSE:
            raise ConnectionError
        text = said or ordinary
        if before is not None and text[0] == "2":
            before()
        self.connection.sendall(text.encode() + b"\r\n")
        return text[0] in "23"

    def run(self):
        if self.sink.implicit:
            self.shake_hands()
        if not self.answer("connect", "", "220 sink.example ESMTP"):
            return
        while True:
            line = self.read_line()
            self.commands.append(line.decode("utf-8", "surrogateescape"))
            verb = line[:4].upper()
            step = self.VERBS.get(verb)
            if step is None:
                self.connection.sendall(b"500 5.5.1 What?\r\n")
            elif step(self, self.commands[-1]) is False:
                return

    def take_hello(self, line):
        extensions = self.sink.extensions if line[:4].upper() != "HELO" else ()
        if self.sink.tls is not None and not isinstance(self.connection, ssl.SSLSocket):
            extensions = (*extensions, "STARTTLS")
        if self.client is not None:  # as Postfix: who we are then may not say it
            extensions = [word for word in extensions if not word.startswith("XCLIENT")]
        lines = ["sink.example", *extensions]
        ordinary = "\r\n".join(f"250{'-' if i < len(lines) - 1 else ' '}{text}"
                               for i, text in enumerate(lines))
        self.answer("EHLO", line, ordinary)

    def take_mail(self, line):
        if self.answer("MAIL", line, "250 2.1.0 Ok"):
            self.message = Message(re.search("<(.*?)>", line).group(1), line)
            self.message.session = self.number
            self.message.peer = self.peer
            self.message.client = self.client

    def take_recipient(self, line):
        if self.message is None:
            self.connection.sendall(b"503 5.5.1 MAIL first\r\n")
        elif self.answer("RCPT", line, "250 2.1.5 Ok"):
            self.message.recipients.append(re.search("<(.*?)>", line).group(1))
            self.message.rcpt.append(line)

    def take_data(self, line):
        if self.message is None or not self.message.recipients:
            self.connection.sendall(b"503 5.5.1 RCPT first\r\n")
        elif self.answer("DATA", line, "354 Go on"):
            self.message.content = self.read_content()
            self.finish()

    def take_bdat(self, line):
        words = line.split()
        content = self.read_exactly(int(words[1]))
        if self.message is None or not self.message.recipients:
            self.connection.sendall(b"503 5.5.1 RCPT first\r\n")
            return
        self.message.content += content
        self.message.by_bdat = True
        if words[-1].upper() == "LAST":
            self.finish()
        else:
            self.answer("BDAT", line, "250 2.0.0 Ok")

    def finish(self):
        message, self.message = self.message, None
        self.messages += 1
        if not self.sink.lmtp:
            self.answer("dot", message, "250 2.0.0 Taken", lambda: self.sink.keep(message))
            return
        wanted, message.recipients = message.recipients, []
        for recipient in wanted:
            self.answer("recipient", recipient, "250 2.0.0 Taken",
                        lambda r=recipient: self.sink.keep_for(message, r))

    def take_xclient(self, line):
        if self.answer("XCLIENT", line, "220 sink.example ESMTP"):
            self.message = None
            self.client = dict(word.split("=", 1) for word in line.split()[1:])

    def take_reset(self, _):
        self.message = None
        self.connection.sendall(b"250 2.0.0 Ok\r\n")

    def take_starttls(self, line):
        if self.sink.tls is None:
            self.connection.sendall(b"502 5.5.1 No TLS here\r\n")
        elif self.answer("STARTTLS", line, "220 2.0.0 Go ahead"):
            self.received = b""
            self.shake_hands()
            self.message = None

    def shake_hands(self):
        self.connection = self.sink.tls.wrap_socket(self.connection, server_side=True)

    def take_quit(self, _):
        self.connection.sendall(b"221 2.0.0 Bye\r\n")
        return False

    VERBS = {b"EHLO": take_hello, b"HELO": take_hello, b"LHLO": take_hello, b"MAIL": take_mail,
             b"RCPT": take_recipient, b"DATA": take_data, b"BDAT": take_bdat, b"RSET": take_reset,
             b"XCLI": take_xclient, b"NOOP": take_reset, b"QUIT": take_quit,
             b"STAR": take_starttls}


class Sink:
    """Comes and goes on one port: start(), stop(), start() again."""

    def __init__(self, rule=None, lmtp=False, extensions=EXTENSIONS, port=None,
                 address="127.0.0.1", tls=None, implicit=False):
        self.address = address
        self.tls = tls            # an ssl.SSLContext of a server
        self.implicit = implicit  # before the greeting, not by STARTTLS
        self.port = port or free_port()
        self.rule = rule or (lambda stage, session, argument: None)
        self.lmtp = lmtp
        self.extensions = extensions
        self.messages = []
        self.connects = []        # monotonic times
        self.sessions = []
        self.lock = threading.Lock()
        self.listener = None
        self.stopped = threading.Event()
        self.hushed = threading.Event()

    def start(self):
        self.stopped = threading.Event()
        self.hushed = threading.Event()
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((self.address, self.port))
        self.listener.listen(256)
        threading.Thread(target=self.accept, args=(self.listener, self.stopped),
                         daemon=True).start()
        return self

    def stop(self):
        """Like a killed server: the port refuses, every session is reset."""
        if self.listener is None:
            return
        self.stopped.set()
        self.hushed.set()
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self.listener = None
        with self.lock:
            for session in self.sessions:
                reset(session.connection)
            self.sessions = []

    def release(self):
        """Sessions that wait in SILENCE end."""
        self.hushed.set()
        self.hushed = threading.Event()

    def accept(self, listener, stopped):
        while not stopped.is_set():
            try:
                connection, peer = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connects.append(time.monotonic())
            session = Session(self, connection, len(self.connects), peer[0])
            with self.lock:
                self.sessions.append(session)
            threading.Thread(target=self.serve, args=(session,), daemon=True).start()

    def serve(self, session):
        try:
            session.run()
        except (ConnectionError, OSError):
            pass
        with self.lock:
            if session in self.sessions:
                self.sessions.remove(session)
        session.connection.close()

    def keep(self, message):
        message.time = time.monotonic()
        with self.lock:
            self.messages.append(message)

    def keep_for(self, message, recipient):
        message.recipients.append(recipient)
        if len(message.recipients) == 1:
            self.keep(message)

    def subjects(self):
        return [subject_of(message.content) for message in list(self.messages)]

    def recipients(self):
        return [r for message in list(self.messages) for r in message.recipients]


def subject_of(content):
    found = re.search(rb"(?mi)^Subject: *([^\r\n]*)", content)
    return found.group(1).decode() if found else ""


def reset(connection):
    """Closes with a RST, as when a process is killed with unread data."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connection.close()
