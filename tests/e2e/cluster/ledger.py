# SPDX-License-Identifier: Apache-2.0
"""Who was promised what, and what came of it: numbered mail sent to any of several servers, as real
clients do it, noted at both ends, and compared.

    ledger = Ledger(place)
    ledger.collect("primary", port)                        # a sink; more than one may be
    ledger.send([("127.0.0.1", 25)], connections=4, rate=100)
    ...                                                    # kill things
    ledger.stop()                                          # what is under way is still finished
    ledger.settle(60)
    ledger.verdict().check()
    print(ledger.story(4711, nodes))                       # what became of that one

A recipient belongs to one connection, which sends its next message only when the one before was
acknowledged: so the order of a recipient's mail is known, whichever servers took it. A client whose
message is deferred, or whose connection breaks, tries the same message elsewhere; where the break
came between dot and reply it was in doubt, and may now exist twice.

What the verdict allows, and no more:

- A copy too many for each doubt of a client, and for each connection to a sink that ended without
  QUIT if that message was the last stored there: its sender may not have seen the reply.
- A copy too many from another server, if the one before came from a server just before it was away
  or in the first seconds of it, and was still the last on its connection when that copy came: a
  server's next dot on a connection waits until all may know what became of the one before. For each
  connection and time away this is allowed of one message.
- A message after a later one of its recipient if a connection to a sink ended without QUIT while it
  was under way or just stored: it was in doubt, and in doubt blocks nobody. Or if it was begun
  before its server was heard again after a time away (been_away()), and each later one arrived in
  that time or before the others may have read what it then said: these are counted apart. What a
  server takes after it was heard is nothing that it could not tell.
"""

import contextlib
import dataclasses
import json
import random
import re
import statistics
import subprocess
import threading
import time
import zlib

from client import Dialogue, Refused, stuff
from peers import wait_for
from sink import Sink

CLIENT_DOMAIN = "client.example"
FATE_SECONDS = 2.0   # a server that cannot tell all of a fate within this is away
READ_SECONDS = 1.0   # what is heard of a server is read by then, and what went before has arrived
LEASE_SECONDS = 3.5  # what a server's word is good for: away for longer, it hands nothing over


@dataclasses.dataclass
class Sent:
    """A message as its client knows it. Times are of the wall, in seconds."""
    number: int
    recipients: tuple
    begun: float = 0.0
    acknowledged: float = None
    by: tuple = None      # the server's address and port
    doubts: int = 0       # times that the dot was sent and no reply came
    deferred: int = 0
    refused: str = None   # a reply 5xx: final


@dataclasses.dataclass
class Arrival:
    number: int
    recipient: str
    time: float
    sink: str
    session: int
    sound: bool           # the body is what was sent
    peer: str = None      # the address of who sent it


@dataclasses.dataclass
class SinkSession:
    """One connection to a sink."""
    sink: str
    number: int
    stored: int = None    # the last message stored
    under_way: int = None  # between MAIL and the reply to the dot, when it ended
    began: float = 0.0     # when the last MAIL came
    quit: bool = False


class Collector(Sink):
    """A sink that keeps numbers, not contents."""

    def __init__(self, ledger, name, rule=None, **how):
        super().__init__(self.watch, **how)
        self.ledger = ledger
        self.name = name
        self.wanted = rule or (lambda stage, session, argument: None)
        self.noted = {}       # SinkSession by its number

    def watch(self, stage, session, argument):
        if stage == "MAIL":
            self.noted[session.number].under_way = number_of(argument)
            self.noted[session.number].began = time.time()
        return self.wanted(stage, session, argument)

    def serve(self, session):
        noted = self.noted[session.number] = SinkSession(self.name, session.number)
        with self.ledger.lock:
            self.ledger.sessions.append(noted)
        try:
            session.run()
            noted.quit = True
        except (ConnectionError, OSError, ValueError):
            self.ledger.note("broken", noted.stored if noted.under_way is None else noted.under_way,
                             f"{self.name}/{session.number}")
        with self.lock:
            if session in self.sessions:
                self.sessions.remove(session)
        session.connection.close()

    def keep(self, message):
        """It is here for good; the reply comes next."""
        number = number_of(message.mail)
        head, _, body = message.content.partition(b"\r\n\r\n")
        check = re.search(rb"(?mi)^X-Check: (\d+)", head)
        sound = check is not None and int(check[1]) == zlib.crc32(body)
        with self.ledger.lock:
            self.noted[message.session].stored = number
            self.noted[message.session].under_way = None
            for recipient in message.recipients:
                self.ledger.arrivals.append(Arrival(number, recipient.lower(), time.time(),
                                                    self.name, message.session, sound,
                                                    message.peer))
        self.ledger.note("arrived", number, f"{self.name}/{message.session} from {message.peer} "
                                            f"{','.join(message.recipients)}")


def number_of(mail):
    """Of a MAIL command; None if it is not one of ours."""
    found = re.search(rf"<m(\d+)@{CLIENT_DOMAIN}>", mail)
    return int(found[1]) if found else None


class Connection(threading.Thread):
    """One client: one message at a time, to whichever server takes it."""

    def __init__(self, ledger, index, servers, recipients, interval, patience, inside, seed):
        super().__init__(daemon=True, name=f"client {index}")
        self.ledger = ledger
        self.index = index
        self.servers = servers
        self.recipients = recipients
        self.interval = interval
        self.patience = patience
        self.inside = inside
        self.chance = random.Random(seed)
        self.turn = index
        self.dialogue = None
        self.left = 0         # messages until this connection is closed in order

    def run(self):
        with self.inside():
            due = time.monotonic() + self.chance.random() * self.interval
            while not self.ledger.stopping.wait(max(0, due - time.monotonic())):
                due = max(due + self.interval, time.monotonic() - 1)  # no burst after an outage
                self.pass_on(self.ledger.new(self.recipients, self.chance))
            self.hang_up(in_order=True)

    def pass_on(self, message):
        """Until it is taken, refused for good, or there is no more time."""
        content = content_of(message, self.ledger.run, self.chance)
        while not self.ledger.over.is_set():
            if self.attempt(message, content) or message.refused:
                return
            self.hang_up()
            self.turn += 1
            # Once round all of them at once, then with a pause.
            self.ledger.over.wait(0.5 if self.turn % len(self.servers) == 0 else 0.05)
        self.ledger.note("abandoned", message.number, "")

    def attempt(self, message, content):
        """True if it was acknowledged."""
        server = self.servers[self.turn % len(self.servers)]
        where = f"{server[0]}:{server[1]}"
        dot_sent = False
        try:
            if self.dialogue is None:
                self.dialogue = Dialogue(server[1], address=server[0], timeout=self.patience,
                                         hello=CLIENT_DOMAIN)
                self.left = self.chance.randrange(1, 30)
            self.dialogue.envelope(f"m{message.number}@{CLIENT_DOMAIN}", message.recipients)
            self.dialogue.must("DATA", 354)
            self.dialogue.write(stuff(content) + b".\r\n")
            dot_sent = True
            code, text = self.dialogue.reply()
            if code != 250:
                raise Refused("the dot", code, text)
        except Refused as refusal:
            if refusal.code >= 500:
                message.refused = str(refusal)
                self.ledger.note("refused", message.number, f"{where} {refusal}")
                return False
            message.deferred += 1
            self.ledger.note("deferred", message.number, f"{where} {refusal}")
            return False
        except (OSError, ValueError) as error:
            if dot_sent:
                message.doubts += 1
            self.ledger.note("in-doubt" if dot_sent else "failed", message.number,
                             f"{where} {error!r}")
            return False
        message.acknowledged = time.time()
        message.by = server
        self.ledger.note("acknowledged", message.number, f"{where} {text.splitlines()[0]}")
        self.left -= 1
        if self.left <= 0:
            self.hang_up(in_order=True)
            self.turn = self.chance.randrange(len(self.servers))
        return True

    def hang_up(self, in_order=False):
        if self.dialogue is not None:
            with contextlib.suppress(OSError, ValueError):
                if in_order:
                    self.dialogue.say("QUIT")
            self.dialogue.close()
        self.dialogue = None


def content_of(message, run, chance):
    size = 200_000 if chance.random() < 0.005 else int(chance.lognormvariate(8, 1))
    line = b"%x" % chance.getrandbits(70 * 4) + b"\r\n"
    body = b"." + line + line * (min(size, 200_000) // len(line))
    return (f"From: m{message.number}@{CLIENT_DOMAIN}\r\nTo: {', '.join(message.recipients)}\r\n"
            f"Subject: {message.number}\r\nMessage-ID: {message_id(message.number, run)}\r\n"
            f"X-Check: {zlib.crc32(body)}\r\n\r\n").encode() + body


def message_id(number, run):
    return f"<{number}.{run}@{CLIENT_DOMAIN}>"


class Ledger:
    """All clients and sinks of one run; what they say goes to `place`/ledger.log as well, one line
    an event: time, event, number, where and what."""

    def __init__(self, place, seed=1, domains=("example.com",)):
        self.run = f"{int(time.time())}"
        self.seed = seed
        self.domains = domains
        self.lock = threading.Lock()
        self.sent = []
        self.arrivals = []
        self.sessions = []
        self.away = []             # (server, from, until)
        self.connections = []
        self.sinks = []
        self.stopping = threading.Event()
        self.over = threading.Event()
        self.path = place / "ledger.log"
        self.log = open(self.path, "w", buffering=1)

    def note(self, event, number, text):
        with self.lock:
            if not self.log.closed:
                self.log.write(f"{time.time():.6f} {event} {number} {text}\n")

    def new(self, recipients, chance):
        """The next message, for one of these recipients or now and then for several."""
        some = chance.randrange(2, 4) if chance.random() < 0.1 and len(recipients) > 3 else 1
        with self.lock:
            message = Sent(len(self.sent), tuple(chance.sample(recipients, some)), time.time())
            self.sent.append(message)
        return message

    # ---- the two ends ----

    def collect(self, name, port, address="127.0.0.1", inside=contextlib.nullcontext, **how):
        """A sink; `inside` makes a thread be where it stands (Host.inside)."""
        sink = Collector(self, name, port=port, address=address, **how)
        with inside():
            self.sinks.append(sink.start())
        return sink

    def send(self, servers, connections=4, rate=50.0, recipients=40, patience=60.0,
             inside=contextlib.nullcontext):
        """From now on so many messages a second in all, to `servers` (address, port)."""
        people = [f"r{n}@{self.domains[n % len(self.domains)]}" for n in range(recipients)]
        for index in range(connections):
            connection = Connection(self, index, servers, people[index::connections],
                                    connections / rate, patience, inside, f"{self.seed}/{index}")
            self.connections.append(connection)
            connection.start()

    def stop(self, seconds=120):
        """No new messages; those under way get so long to be acknowledged."""
        self.stopping.set()
        until = time.monotonic() + seconds
        for connection in self.connections:
            connection.join(max(0, until - time.monotonic()))
        self.over.set()
        for connection in self.connections:
            connection.join(max(1, until + connection.patience - time.monotonic()))

    def end(self):
        """However it went: nothing stays."""
        self.stopping.set()
        self.over.set()
        for sink in self.sinks:
            sink.stop()
        with self.lock:
            self.log.close()

    def been_away(self, server, since, heard):
        """This server could tell the others nothing in between (time.time())."""
        self.away.append((tuple(server), since, heard))

    # ---- what came of it ----

    def acknowledged(self):
        with self.lock:
            return sum(message.acknowledged is not None for message in self.sent)

    def missing(self):
        """(number, recipient) of what was acknowledged and is not here."""
        with self.lock:
            here = {(arrival.number, arrival.recipient) for arrival in self.arrivals}
            return [(message.number, recipient) for message in self.sent
                    if message.acknowledged is not None for recipient in message.recipients
                    if (message.number, recipient) not in here]

    def settle(self, seconds=60):
        """Waits until all has arrived, or no longer; the verdict tells."""
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not self.missing(), seconds, 0.2)

    def verdict(self):
        with self.lock:
            return Verdict(list(self.sent), list(self.arrivals), list(self.sessions), self.away)

    def story(self, number, nodes=()):
        """Everything known of one message, across nodes (Holdfast or made like it)."""
        lines = [line for line in self.path.read_text().splitlines()
                 if line.split(" ", 3)[2] == str(number)]
        for node in nodes:
            lines.append(f"--- {node.root.name}")
            try:
                traced = node.tool("trace", message_id(number, self.run), check=False, seconds=20)
                lines += (traced.stdout + traced.stderr).splitlines()
            except subprocess.TimeoutExpired:
                lines.append("no answer")
        return "\n".join(lines)


class Verdict:
    """Lost, doubled, out of order."""

    def __init__(self, sent, arrivals, sessions, away=()):
        self.sent = {message.number: message for message in sent}
        self.arrivals = sorted((a for a in arrivals if a.number in self.sent),
                               key=lambda arrival: arrival.time)
        self.away = away
        self.strangers = len(arrivals) - len(self.arrivals)
        self.copies = {}
        for arrival in self.arrivals:
            self.copies.setdefault((arrival.number, arrival.recipient), []).append(arrival)
        broken = [session for session in sessions if not session.quit]
        self.broken_at = {(session.sink, session.number) for session in broken}
        self.unseen_replies = count(session.stored for session in broken)
        self.on_connection = {}
        for arrival in arrivals:
            self.on_connection.setdefault((arrival.sink, arrival.session), []).append(
                (arrival.time, arrival.number))
        self.in_doubt = {}  # since then, at the earliest
        for session in broken:
            for number in (session.stored, session.under_way):
                self.in_doubt.setdefault(number, session.began)
                self.in_doubt[number] = min(self.in_doubt[number], session.began)
        self.taken = [m for m in sent if m.acknowledged is not None]
        self.lost = [(m.number, r) for m in self.taken for r in m.recipients
                     if (m.number, r) not in self.copies]
        self.damaged = [a.number for a in self.arrivals if not a.sound]
        self.refused = [m.number for m in sent if m.refused]
        self.misdelivered = [key for key in self.copies
                             if key[1] not in self.sent[key[0]].recipients]
        self.judge_copies()
        self.judge_order()

    def judge_copies(self):
        self.doubled, self.doubled_wrongly = 0, []
        self.doubled_of = {}  # connection: messages that came over it and then once more
        self.in_flight = {}  # the one message of a connection and time away that may double
        for (number, recipient), copies in self.copies.items():
            allowed = self.sent[number].doubts + self.unseen_replies.get(number, 0) + \
                sum(self.was_in_flight(*pair) for pair in zip(copies, copies[1:]))
            if len(copies) - 1 > allowed:
                self.doubled_wrongly.append((number, recipient))
            elif len(copies) > 1:
                self.doubled += 1
            for copy in copies[:-1]:
                self.doubled_of.setdefault((copy.sink, copy.session), set()).add(number)

    def was_in_flight(self, first, second):
        """Whose fate its server may have been unable to tell, so that another sent it again. A
        connection that broke is not looked at: its last message counts as unseen already."""
        connection = first.sink, first.session
        if first.peer == second.peer or connection in self.broken_at or \
           any(first.time < at < second.time and number != first.number
               for at, number in self.on_connection[connection]):
            return False
        return any(server[0] == first.peer and since <= second.time and
                   since - FATE_SECONDS <= first.time <= min(since + LEASE_SECONDS, heard) and
                   self.in_flight.setdefault((connection, index), first.number) == first.number
                   for index, (server, since, heard) in enumerate(self.away))

    def judge_order(self):
        self.late_in_doubt, self.late_while_away, self.out_of_order = 0, 0, []
        before = {}  # recipient: what has arrived for him first, as (number, time)
        for (number, recipient), copies in self.copies.items():  # in order of first arrival
            passed = [time for other, time in before.get(recipient, ()) if other > number]
            before.setdefault(recipient, []).append((number, copies[0].time))
            if not passed:
                continue
            if number in self.in_doubt and min(passed) >= self.in_doubt[number]:
                self.late_in_doubt += 1
            elif self.was_away(self.sent[number], passed):
                self.late_while_away += 1
            else:
                self.out_of_order.append((number, recipient))

    def was_away(self, message, times):
        return all(any(message.by == server and message.begun <= heard and
                       since <= time <= heard + READ_SECONDS
                       for server, since, heard in self.away) for time in times)

    def numbers(self):
        """As JSON has it."""
        replies = sorted(m.acknowledged - m.begun for m in self.taken)
        under_way = sorted(self.copies[key][0].time - m.acknowledged for m in self.taken
                           for key in ((m.number, m.recipients[0]),) if key in self.copies)
        times = sorted(m.acknowledged for m in self.taken)
        gaps = [after - before for before, after in zip(times, times[1:])]
        return {
            "sent": len(self.sent), "acknowledged": len(self.taken),
            "arrived": len({number for number, _ in self.copies}),
            "lost": len(self.lost), "damaged": len(self.damaged),
            "misdelivered": len(self.misdelivered), "strangers": self.strangers,
            "doubled": self.doubled, "doubled_wrongly": len(self.doubled_wrongly),
            "doubled_of_one_connection": max(map(len, self.doubled_of.values()), default=0),
            "out_of_order": len(self.out_of_order), "late_in_doubt": self.late_in_doubt,
            "late_while_away": self.late_while_away,
            "refused": len(self.refused), "deferred": sum(m.deferred for m in self.sent.values()),
            "doubts": sum(m.doubts for m in self.sent.values()),
            "longest_without_250_seconds": round(max(gaps, default=0), 3),
            "reply_seconds": spread(replies), "delivery_seconds": spread(under_way),
        }

    def text(self):
        """For people."""
        rows = []
        for name, value in self.numbers().items():
            if isinstance(value, dict):
                value = "  ".join(f"{key} {number}" for key, number in value.items())
            rows.append(f"{name.replace('_', ' '):28} {value}")
        return "\n".join(rows)

    def wrong(self):
        """What must not be, by name, with a few examples."""
        return {name: found[:10] for name in ("lost", "damaged", "misdelivered", "doubled_wrongly",
                                              "out_of_order")
                if (found := getattr(self, name))}

    def check(self):
        """Every message that was acknowledged arrived, once, in order per recipient."""
        assert not self.wrong(), f"{json.dumps(self.wrong())}\n{self.text()}"


def count(items):
    counted = {}
    for item in items:
        counted[item] = counted.get(item, 0) + 1
    return counted


def spread(values):
    """Of sorted values: in the middle, nearly all, the worst."""
    if not values:
        return {}
    return {"median": round(statistics.median(values), 4),
            "p99": round(values[int(len(values) * 0.99)], 4), "max": round(values[-1], 4)}


def end_well(ledger, nodes, in_doubt=False):
    """All that was promised, and that no client heard anything else. `in_doubt`: what was under way to
    the primary when a lease ended may be late, or there twice."""
    ledger.stop()
    ledger.settle(90)
    for node in nodes:
        wait_for(lambda node=node: not node.status()["cluster"]["one_copy"], 60,
                 what="all of it in the database")
        node.wait_empty()
    verdict = ledger.verdict()
    print(verdict.text())
    verdict.check()
    numbers = verdict.numbers()
    assert numbers["deferred"] == numbers["refused"] == numbers["doubts"] == 0
    assert in_doubt or numbers["doubled"] == numbers["late_in_doubt"] == 0
