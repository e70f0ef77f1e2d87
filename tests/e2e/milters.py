# SPDX-License-Identifier: Apache-2.0
"""A filter that a test writes: it speaks the milter protocol byte by byte, keeps what it hears, and
answers as it is told to.

`rule(stage, session, data)` is asked before each answer. Stages are "negotiate", "connect", "helo",
"mail", "rcpt", "data", "header", "eoh", "body" and "end". It returns None for the ordinary answer
(continue), packets (one or a list, made by packet()), HANG or DIE.

Like libmilter it takes another session (SMFIC_QUIT_NC) only behind a message whose end it has
answered with "continue"; in any other state it is deaf to that, and to the connect that follows.
"""

import socket
import struct
import threading

from peers import free_port

HANG = object()
DIE = object()
NEW, AT_REST, DEAF = range(3)

ALL_ACTIONS = 0x1ff
# Bits of the protocol: what is left out, what gets no answer.
NO_CONNECT, NO_HELO, NO_MAIL, NO_RCPT, NO_BODY, NO_HEADERS, NO_EOH = (1 << n for n in range(7))
NR_HEADER, NO_UNKNOWN, NO_DATA, SKIP = 0x80, 0x100, 0x200, 0x400
NR_CONNECT, NR_HELO, NR_MAIL, NR_RCPT, NR_DATA, NR_UNKNOWN, NR_EOH, NR_BODY = (
    1 << n for n in range(12, 20))
LEADING_SPACE = 1 << 20
SILENT = (NR_HEADER | NR_CONNECT | NR_HELO | NR_MAIL | NR_RCPT | NR_DATA | NR_EOH | NR_BODY)

STAGES = {b"O": "negotiate", b"C": "connect", b"H": "helo", b"M": "mail", b"R": "rcpt",
          b"T": "data", b"L": "header", b"N": "eoh", b"B": "body", b"E": "end"}
MACROS = b"CHMRTEN"  # steps that macros are told of, in libmilter's order
UNANSWERED = {"connect": NR_CONNECT, "helo": NR_HELO, "mail": NR_MAIL, "rcpt": NR_RCPT,
              "data": NR_DATA, "header": NR_HEADER, "eoh": NR_EOH, "body": NR_BODY}


def packet(command, data=b""):
    return struct.pack("!I", len(data) + 1) + command.encode() + data


def texts(*words):
    return b"".join(word if isinstance(word, bytes) else word.encode() for word in
                    (piece for word in words for piece in (word, b"\0")))


CONTINUE, ACCEPT, REJECT, TEMPFAIL, DISCARD, PROGRESS, SKIPPED = map(packet, "cartdps")


def reply(text):
    return packet("y", texts(text))


def add_header(name, value):
    return packet("h", texts(name, value))


def insert_header(index, name, value):
    return packet("i", struct.pack("!I", index) + texts(name, value))


def change_header(index, name, value):
    return packet("m", struct.pack("!I", index) + texts(name, value))


def add_recipient(address):
    return packet("+", texts(address))


def delete_recipient(address):
    return packet("-", texts(address))


def change_sender(address):
    return packet("e", texts(address))


def replace_body(data):
    return packet("b", data)


def quarantine(reason):
    return packet("q", texts(reason))


class Message:
    def __init__(self, sender):
        self.sender = sender
        self.recipients = []
        self.headers = []
        self.body = b""
        self.macros = {}
        self.ended = False


class Session:
    """One connection: of one client, or of several one after another."""

    def __init__(self, filter, connection, number):
        self.filter = filter
        self.connection = connection
        self.number = number
        self.macros = {}
        self.messages = []
        self.clients = 0
        self.quit = False
        self.state = NEW

    @property
    def message(self):
        return self.messages[-1]

    def exactly(self, length):
        data = b""
        while len(data) < length:
            chunk = self.connection.recv(length - len(data))
            if not chunk:
                raise ConnectionError
            data += chunk
        return data

    def run(self):
        while True:
            length = struct.unpack("!I", self.exactly(4))[0]
            data = self.exactly(length)
            self.heard(data[:1], data[1:])

    def heard(self, command, data):
        words = data.split(b"\0")
        if command == b"D":
            names = [word.decode() for word in data[1:].split(b"\0")[:-1]]
            self.macros[data[:1].decode()] = dict(zip(names[::2], names[1::2]))
            return
        if command in b"QKA":
            self.filter.note({b"Q": "quit", b"K": "quit-new", b"A": "abort"}[command])
            self.quit = self.quit or command == b"Q"
            self.state = NEW if command == b"K" and self.state == AT_REST else DEAF
            if command == b"Q":
                raise ConnectionError
            return
        stage = STAGES[command]
        if command in MACROS[:4]:  # nothing holds any more of what was told of later steps
            for later in MACROS[MACROS.index(command) + 1:].decode():
                self.macros.pop(later, None)
        if stage == "connect" and self.state != NEW:
            self.filter.note("deaf")
            return
        self.filter.note(stage)
        self.state = NEW if stage == "negotiate" else DEAF
        if stage == "connect":
            self.clients += 1
        elif stage == "mail":
            self.messages.append(Message(words[0].decode()))
            self.filter.messages.append(self.message)
            self.message.parameters = [word.decode() for word in words[1:-1]]
        elif stage == "rcpt":
            self.message.recipients.append(words[0].decode())
        elif stage == "header":
            self.message.headers.append((words[0].decode(), words[1].decode("latin-1")))
        elif stage == "body":
            self.message.body += data
        elif stage == "end" and self.messages:
            self.message.ended = True
            self.message.macros = {name: value for of in self.macros.values()
                                   for name, value in of.items()}
        self.answer(stage, data)

    def answer(self, stage, data):
        said = self.filter.rule(stage, self, data)
        if said is HANG:
            self.filter.hushed.wait(600)
            raise ConnectionError
        if said is DIE:
            raise ConnectionError
        if said is None:
            if stage == "negotiate":
                said = packet("O", struct.pack("!III", self.filter.version, self.filter.actions,
                                               self.filter.protocol))
            elif UNANSWERED.get(stage, 0) & self.filter.protocol:
                return
            else:
                said = CONTINUE
        said = said if isinstance(said, bytes) else b"".join(said)
        if stage == "end" and said.endswith(CONTINUE):
            self.state = AT_REST
        self.connection.sendall(said)


class Milter:
    """start(), stop(), start() again, on one port or path."""

    def __init__(self, rule=None, protocol=0, actions=ALL_ACTIONS, version=6, path=None, port=None):
        self.rule = rule or (lambda stage, session, data: None)
        self.protocol = protocol
        self.actions = actions
        self.version = version
        self.path = path
        self.port = None if path else port or free_port()
        self.sessions = []
        self.messages = []
        self.steps = []
        self.lock = threading.Lock()
        self.listener = None

    @property
    def address(self):
        return f"unix:{self.path}" if self.path else f"inet:127.0.0.1:{self.port}"

    def block(self, name="fake", more=""):
        return f'milter {name} {{ address = "{self.address}" {more} }}\n'

    def note(self, step):
        with self.lock:
            self.steps.append(step)

    def start(self):
        self.hushed = threading.Event()
        if self.path:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(str(self.path))
        else:
            self.listener = socket.socket()
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(128)
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()
        return self

    def accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self.lock:
                session = Session(self, connection, len(self.sessions))
                self.sessions.append(session)
            threading.Thread(target=self.serve, args=(session,), daemon=True).start()

    def serve(self, session):
        try:
            session.run()
        except (OSError, ConnectionError):
            pass
        finally:
            try:
                session.connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            session.connection.close()

    def stop(self):
        """As if it had died: the listener and every connection are gone."""
        if self.listener is None:
            return
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.listener = None
        self.hushed.set()
        with self.lock:
            for session in self.sessions:
                try:
                    session.connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
