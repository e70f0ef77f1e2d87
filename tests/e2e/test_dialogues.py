# SPDX-License-Identifier: Apache-2.0
"""The dialogues of tests/dialogue/*.smtp with the real daemon: what the SMTP core says in a test by
itself, the processes around it say too, and what is taken arrives as the script has it.

Each script is played three times, as run_server.c does it: line by line, adjacent lines as one
piece, and byte by byte. E: lines and idle/busy speak of the core and are passed over.
"""

import pathlib
import select
import shutil
import socket
import tempfile

import pytest

from client import Dialogue, without_our_trace
from daemon import ROOT, Holdfast, backup_mx
from peers import wait_for
from sink import EXTENSIONS, Sink

SCRIPTS = sorted((ROOT / "tests/dialogue").glob("*.smtp"))

ANSWER = "the caller's answer is made up"
CLOCK = "minutes pass"
ODMR = "another kind of listener; test_odmr has it"
TRUST = "who is trusted is made up; test_presented has it"
LOGIN = "who may log in is made up; test_submission has it"
NOT_PLAYED = {
    "an_answer_421_ends_the_session": ANSWER,
    "answers_may_come_later": ANSWER,
    "chunk_refused_by_the_caller": ANSWER,
    "chunks_of_a_refused_mail_are_skipped": ANSWER,
    "etrn": ANSWER,
    "etrn_denied_too_often": ANSWER,
    "auth": LOGIN,
    "auth_only_where_nobody_reads_along": LOGIN,
    "auth_wrong_passwords_end_it": LOGIN,
    "starttls": "the handshake; test_tls_in has that",
    "requiretls": "the handshake; test_requiretls has that",
    "submission": LOGIN,
    "submission_in_clear": LOGIN,
    "odmr": ODMR,
    "odmr_starttls": ODMR,
    "xclient_begins_anew": TRUST,
    "xclient_tells_a_login": TRUST,
    "xclient_without_a_login": TRUST,
    "xforward_is_for_the_next_mail": TRUST,
    "odmr_takes_no_mail": ODMR,
    "odmr_wrong_passwords_end_it": ODMR,
    "greeting_may_be_refused": ANSWER,
    "pipelined_refusals_are_no_mistakes": ANSWER,
    "replies_stay_one_line": ANSWER,
    "idle_and_end": "the daemon would end; test_processes has that",
    "malformed_paths": "a recipient at an address literal, where DSN is not offered",
    "smtputf8": "a recipient in a domain that no configuration can name",
    "time_for_a_command": CLOCK,
    "time_for_a_session": CLOCK,
    "time_within_content": CLOCK,
}
CORE_ONLY = {"answer", "later", "now", "wait", "expired", "end"}

LIMITS = {"recipients": ("recipients", 100), "commands": ("commands", 1000),
          "errors": ("errors", 20), "size": ("message-size", 1000000),
          "line": ("line-length", 100000), "header": ("header-size", 100000), "hops": ("hops", 100)}


def steps_of(path):
    """(word, rest) of each line that says something."""
    lines = [line for line in path.read_text(encoding="utf-8").split("\n")
             if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def test_every_script_is_played_or_named():
    """A script that only the core can play is in NOT_PLAYED, and no other is."""
    core_only = {path.stem for path in SCRIPTS
                 if any(word in CORE_ONLY or (word, rest.split(" ")[0]) in {("set", "odmr"), ("set", "auth"),
                                                                  ("set", "starttls"), ("set", "trusted")}
                        for word, rest in steps_of(path))}
    assert SCRIPTS and core_only | {"malformed_paths", "smtputf8"} == set(NOT_PLAYED)


def unescaped(text):
    return text.encode().decode("unicode_escape").encode("latin-1")


class Player(Dialogue):
    """A client that does what a script says."""

    HOW = ("lines", "joined", "bytes")

    def __init__(self, port, primary, how):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.primary = primary
        self.had = self.arrived = len(primary.messages)
        self.accepted = 0
        self.how = how
        self.pending = b""

    def flush(self):
        size = 1 if self.how == "bytes" else max(1, len(self.pending))
        pieces = [self.pending[at:at + size] for at in range(0, len(self.pending), size)]
        self.pending = b""
        try:
            for piece in pieces:
                self.write(piece)
        except OSError:
            pass  # closed by the daemon: the next reply that is expected will tell

    def give(self, data):
        self.pending += data
        if self.how == "lines":
            self.flush()

    def expect(self, pattern):
        pattern = pattern.replace("mx.example.net", "mx2.example.net")
        line = self.line()
        if pattern.endswith("*"):
            assert line.startswith(pattern[:-1]), f"expected {pattern!r}, got {line!r}"
        elif line.startswith("250 2.0.0 Ok: queued as "):
            assert pattern == "250 2.0.0 Ok", f"expected {pattern!r}, got {line!r}"
            self.accepted += 1
        else:
            assert line == pattern

    def expect_nothing(self):
        ready, _, _ = select.select([self.socket], [], [], 0)
        data = self.received + (self.socket.recv(4096) if ready else b"")
        assert data == b""

    def expect_content(self, wanted):
        """Of all messages since the last time, as the primary gets them."""
        def got():
            return b"".join(without_our_trace(message.content)
                            for message in self.primary.messages[self.arrived:])
        wait_for(lambda: len(got()) >= len(wanted) and len(self.primary.messages) > self.arrived,
                 10, what=f"{wanted!r} at the primary, not {got()!r}")
        assert got() == wanted
        self.arrived = len(self.primary.messages)

    def step(self, word, rest):
        if word == "C:":
            self.give(rest.encode() + b"\r\n")
        elif word == "C\\":
            self.give(unescaped(rest))
        elif word == "fill":
            count, character = rest.split()
            self.give(int(count) * character.encode())
        else:
            self.flush()
            if word == "S:":
                self.expect(rest)
            elif word == "S-":
                self.expect_nothing()
            elif word == "content":
                self.expect_content(unescaped(rest))
            else:
                assert word in ("E:", "idle", "busy", "set"), word

    def finish(self):
        """Nothing more comes, and what was taken has arrived."""
        self.flush()
        try:
            self.socket.shutdown(socket.SHUT_WR)
            assert self.received + self.socket.recv(4096) == b""
        except OSError:
            pass  # closed by the daemon
        wait_for(lambda: len(self.primary.messages) == self.had + self.accepted, 10,
                 what="all that was taken, once, at the primary")


class Stage:
    """Daemons with the settings that scripts want, each made once."""

    def __init__(self):
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="holdfast-"))
        self.place.chmod(0o711)
        # Some is offered to relay clients alone, DSN also to all where the primary has it: not here.
        self.primary = Sink(extensions=[e for e in EXTENSIONS if e != "DSN"]).start()
        self.daemons = {}

    def daemon(self, steps):
        settings = frozenset(rest for word, rest in steps if word == "set")
        if settings not in self.daemons:
            wanted = dict(setting.split() for setting in settings)
            limits = " ".join(f"{name} = {wanted.get(key, usual)}"
                              for key, (name, usual) in LIMITS.items())
            routes = backup_mx(self.primary.port)
            if wanted.get("relay-client") == "1":
                routes += "relay outgoing { from = 127.0.0.0/8 deliver-to = m1 }\n"
            listen = "bare-newline = reject" if wanted.get("reject-bare") == "1" else ""
            mx = Holdfast(self.place / str(len(self.daemons)), routes,
                          top=f"limits {{ {limits} }}", listen=listen)
            self.daemons[settings] = mx
            mx.start()
        return self.daemons[settings]

    def end(self):
        for mx in self.daemons.values():
            mx.end()
        self.primary.stop()
        shutil.rmtree(self.place, ignore_errors=True)


@pytest.fixture(scope="module")
def stage():
    made = Stage()
    yield made
    made.end()


@pytest.mark.sanitized
@pytest.mark.parametrize("path", [path for path in SCRIPTS if path.stem not in NOT_PLAYED],
                         ids=lambda path: path.stem)
def test_dialogue(stage, path):
    steps = steps_of(path)
    mx = stage.daemon(steps)
    for how in Player.HOW:
        with Player(mx.port, stage.primary, how) as player:
            for number, (word, rest) in enumerate(steps):
                try:
                    player.step(word, rest)
                except (AssertionError, OSError) as error:
                    raise AssertionError(f"step {number} ({how}), {word} {rest[:100]}: {error}\n"
                                         f"{mx.log()[-2000:]}") from error
            player.finish()
