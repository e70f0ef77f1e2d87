# SPDX-License-Identifier: Apache-2.0
"""The ledger that clusters are judged by: it must see what is wrong, excuse what SMTP leaves no
choice in, and nothing else. Then a single node under it, killed again and again."""

import os
import random
import time

import pytest

from client import Dialogue
from cluster.hosts import Hosts, why_no_hosts
from cluster.ledger import Arrival, Ledger, Sent, SinkSession, Verdict, number_of
from cluster.nodes import Node
from daemon import backup_mx
from load import settle
from peers import free_port, wait_for
from sink import CLOSE, Sink

no_hosts = why_no_hosts()
SEED = int(os.environ.get("HOLDFAST_SEED", "1"))
N1 = ("10.0.0.1", 25)


def sent(number, recipients="r1", at=None, **more):
    """Acknowledged at the second of its number, or `at`."""
    return Sent(number, tuple(recipients.split()), 0.0, at or float(number), by=N1, **more)


def arrived(*rows, sound=True):
    """Rows of "number recipient", a second apart from 10 on, in session 1."""
    return [Arrival(int(row.split()[0]), row.split()[1], 10.0 + at, "s", 1, sound)
            for at, row in enumerate(rows)]


def broken(**more):
    return [SinkSession("s", 1, **more)]


def judge(messages, arrivals, sessions=(), away=()):
    return Verdict(messages, arrivals, sessions, away)


def wrong(verdict):
    """The names of what check() objects to."""
    if verdict.wrong():
        with pytest.raises(AssertionError):
            verdict.check()
    else:
        verdict.check()
    return set(verdict.wrong())


def test_all_is_well():
    verdict = judge([sent(1), sent(2, "r1 r2"), sent(3, "r2")],
                    arrived("1 r1", "2 r2", "3 r2", "2 r1"))
    assert wrong(verdict) == set()
    assert verdict.numbers()["arrived"] == 3


def test_what_was_acknowledged_and_did_not_come_is_lost_and_only_that():
    never = Sent(3, ("r1",))
    verdict = judge([sent(1), sent(2, "r1 r2"), never], arrived("1 r1", "2 r1"))
    assert wrong(verdict) == {"lost"} and verdict.lost == [(2, "r2")]
    assert wrong(judge([Sent(1, ("r1",))], arrived("1 r1"))) == set()  # it came all the same


def test_what_came_changed_or_elsewhere_is_wrong():
    assert wrong(judge([sent(1)], arrived("1 r1", sound=False))) == {"damaged"}
    assert wrong(judge([sent(1)], arrived("1 r1", "1 r2"))) == {"misdelivered"}
    verdict = judge([sent(1)], arrived("1 r1", "7 r1"))
    assert wrong(verdict) == set() and verdict.strangers == 1


@pytest.mark.parametrize("doubts, sessions, allowed", [
    (0, [], 0),
    (1, [], 1),
    (0, broken(stored=1), 1),
    (0, broken(stored=2), 0),
    (0, broken(stored=2, under_way=1), 0),
    (0, [SinkSession("s", 1, stored=1, quit=True)], 0),
    (1, broken(stored=1) + broken(stored=1), 3),
])
def test_copies_are_allowed_for_doubts_only(doubts, sessions, allowed):
    messages = [sent(1, doubts=doubts)]
    for copies in range(1, 6):
        verdict = judge(messages, arrived(*["1 r1"] * copies), sessions)
        assert wrong(verdict) == (set() if copies - 1 <= allowed else {"doubled_wrongly"}), copies
        assert verdict.doubled == (1 if 1 < copies <= allowed + 1 else 0)


def test_doubles_are_counted_for_the_connection_of_the_first_copy():
    messages = [sent(number, doubts=1) for number in (1, 2, 3)]
    rows = [(1, 10, 1, N1), (2, 11, 1, N1), (3, 12, 2, N1), (1, 13, 3, N1), (3, 14, 3, N1)]
    most = "doubled_of_one_connection"
    assert judge(messages, passed_on(*rows)).numbers()[most] == 1
    assert judge(messages, passed_on(*rows, (2, 15, 3, N1))).numbers()[most] == 2
    assert judge(messages, passed_on(*rows[:3])).numbers()[most] == 0


def test_order_is_of_each_recipient():
    messages = [sent(1, "r1"), sent(2, "r2"), sent(3, "r1")]
    assert wrong(judge(messages, arrived("2 r2", "1 r1", "3 r1"))) == set()
    verdict = judge(messages, arrived("2 r2", "3 r1", "1 r1"))
    assert wrong(verdict) == {"out_of_order"} and verdict.out_of_order == [(1, "r1")]


def test_a_copy_that_comes_late_is_no_disorder():
    messages = [sent(1, doubts=1), sent(2)]
    assert wrong(judge(messages, arrived("1 r1", "2 r1", "1 r1"))) == set()


def test_in_doubt_blocks_nobody():
    messages = [sent(1), sent(2)]
    late = arrived("2 r1", "1 r1")
    for sessions in (broken(under_way=1), broken(stored=1)):
        verdict = judge(messages, late, sessions)
        assert wrong(verdict) == set() and verdict.late_in_doubt == 1
    assert wrong(judge(messages, late, broken(under_way=2))) == {"out_of_order"}
    # What had passed it before anybody tried it was not let by.
    assert wrong(judge(messages, late, broken(under_way=1, began=10.5))) == {"out_of_order"}
    assert wrong(judge(messages, late, broken(under_way=1, began=9.5))) == set()


def test_what_a_server_has_that_is_away_comes_late():
    """Only from that server, and only if it was away when each later one arrived, at 10 and 11, or
    had been heard too shortly before."""
    messages = [sent(1), sent(2), sent(3)]
    late = arrived("2 r1", "3 r1", "1 r1")
    for server, since, heard, excused in ((N1, 2, 11.5, True), (N1, 2, 10.5, True),
                                          (N1, 2, 9.9, False),
                                          (N1, 10.5, 13, False), (N1, 2, 8, False),
                                          (("10.0.0.2", 25), 2, 11.5, False)):
        verdict = judge(messages, late, away=[(server, since, heard)])
        assert wrong(verdict) == (set() if excused else {"out_of_order"}), (server, since, heard)
        assert verdict.late_while_away == excused


def test_what_a_server_takes_after_it_was_heard_is_not_late():
    """It came to a server that was back, however soon after."""
    late = arrived("2 r1", "1 r1")
    for begun, excused in ((9.4, True), (9.6, False)):
        first = Sent(1, ("r1",), begun, 9.8, by=N1)
        verdict = judge([first, sent(2)], late, away=[(N1, 2, 9.5)])
        assert wrong(verdict) == (set() if excused else {"out_of_order"}), begun
        assert verdict.late_while_away == excused


N2 = ("10.0.0.2", 25)
CUT_OFF = (N1, 9.5, 30.0)  # just before the first copy of those below, which arrived at 10


def passed_on(*rows):
    """Rows of "number time session peer", for one recipient."""
    return [Arrival(int(number), "r1", float(at), "s", int(session), True, peer[0])
            for number, at, session, peer in rows]


@pytest.mark.parametrize("away, rows, doubled_wrongly", [
    # The last of its connection, as its server was cut off, or just before.
    ([CUT_OFF], [(1, 10, 1, N1), (1, 15, 2, N2)], False),
    ([(N1, 11, 30)], [(1, 10, 1, N1), (1, 15, 2, N2)], False),
    # Its connection goes on afterwards: when it came a second time it was still the last.
    ([CUT_OFF], [(1, 10, 1, N1), (1, 15, 2, N2), (2, 40, 1, N1)], False),
    # On each connection one, and one more when the server is cut off once more.
    ([CUT_OFF], [(1, 10, 1, N1), (2, 10, 3, N1), (1, 15, 2, N2), (2, 15, 2, N2)], False),
    ([CUT_OFF, (N1, 40, 60)], [(1, 10, 1, N1), (1, 15, 2, N2), (2, 40, 1, N1), (2, 45, 2, N2)],
     False),
    # Nobody was away; another was; long before; not yet; only after the copy.
    ([], [(1, 10, 1, N1), (1, 15, 2, N2)], True),
    ([(N2, 9.5, 30)], [(1, 10, 1, N1), (1, 15, 2, N2)], True),
    ([(N1, 2, 9)], [(1, 10, 1, N1), (1, 15, 2, N2)], True),
    ([(N1, 5, 30)], [(1, 10, 1, N1), (1, 15, 2, N2)], True),
    ([(N1, 12.5, 30)], [(1, 10, 1, N1), (1, 15, 2, N2)], True),
    ([(N1, 11, 30)], [(1, 10, 1, N1), (1, 10.5, 2, N2)], True),
    # A dot followed on its connection, so all may know what became of it.
    ([CUT_OFF], [(1, 10, 1, N1), (2, 10.1, 1, N1), (1, 15, 2, N2)], True),
    # By the same server; a third copy; two of one connection, at two copies of others.
    ([CUT_OFF], [(1, 10, 1, N1), (1, 15, 2, N1)], True),
    ([CUT_OFF], [(1, 10, 1, N1), (1, 15, 2, N2), (1, 16, 2, N2)], True),
    ([CUT_OFF], [(1, 10, 1, N1), (1, 10.1, 2, N2), (2, 10.2, 1, N1), (2, 15, 2, N2)], True),
])
def test_what_was_in_flight_as_its_server_was_cut_off_may_double(away, rows, doubled_wrongly):
    sessions = [SinkSession("s", number, quit=True) for number in (1, 2, 3)]
    arrivals = passed_on(*rows)
    messages = [sent(number) for number in sorted({arrival.number for arrival in arrivals})]
    verdict = judge(messages, arrivals, sessions, away)
    assert wrong(verdict) == ({"doubled_wrongly"} if doubled_wrongly else set())


def test_a_connection_that_broke_is_no_second_excuse():
    """Its last message counts once, though its server was away as well."""
    rows = passed_on((1, 10, 1, N1), (1, 15, 2, N2))
    sessions = [*broken(stored=1), SinkSession("s", 2, quit=True)]
    assert wrong(judge([sent(1)], rows, sessions, [CUT_OFF])) == set()
    rows += passed_on((1, 16, 2, N2))
    assert wrong(judge([sent(1)], rows, sessions, [CUT_OFF])) == {"doubled_wrongly"}


# ---- its clients and sinks ----


@pytest.fixture
def ledger(place):
    made = Ledger(place, seed=SEED)
    yield made
    made.end()


def finish(ledger):
    ledger.stop()
    ledger.settle()
    return ledger.verdict()


def test_clients_and_sinks_agree(ledger):
    """Straight from one to the other."""
    ports = [ledger.collect(f"s{n}", free_port()).port for n in range(2)]
    ledger.send([("127.0.0.1", port) for port in ports], connections=3, rate=300)
    wait_for(lambda: ledger.acknowledged() >= 200, what="200 messages")
    verdict = finish(ledger)
    verdict.check()
    numbers = verdict.numbers()
    assert numbers["sent"] == numbers["acknowledged"] == numbers["arrived"]
    assert numbers["doubts"] == numbers["deferred"] == numbers["doubled"] == 0
    assert len(verdict.copies) > numbers["sent"]  # some went to several
    assert {arrival.peer for arrival in ledger.arrivals} == {"127.0.0.1"}


def test_a_client_tries_again_until_it_is_taken(ledger):
    """Deferred, hung up on at every point, and silence: each message is acknowledged in the end."""
    chance = random.Random(SEED)

    def rule(stage, _session, _argument):
        if chance.random() < 0.05:
            return chance.choice([CLOSE, "451 4.3.0 Later"])
        return None
    port = ledger.collect("s", free_port(), rule=rule).port
    ledger.send([("127.0.0.1", port)], connections=8, rate=300)
    wait_for(lambda: ledger.acknowledged() >= 200, what="200 messages")
    verdict = finish(ledger)
    verdict.check()
    assert verdict.numbers()["deferred"] > 5 and len(verdict.taken) == len(verdict.sent)


def test_a_reply_that_is_lost_may_double(ledger):
    """The sink stores, and hangs up instead of saying so."""
    chance = random.Random(SEED)
    port = free_port()
    sink = ledger.collect("s", port)
    keep = sink.keep

    def keep_and_hang_up(message):
        keep(message)
        if chance.random() < 0.1:
            raise ConnectionError
    sink.keep = keep_and_hang_up
    ledger.send([("127.0.0.1", port)], connections=4, rate=300)
    wait_for(lambda: ledger.acknowledged() >= 200, what="200 messages")
    verdict = finish(ledger)
    verdict.check()
    assert verdict.numbers()["doubts"] > 5 and verdict.doubled > 5


class Liar(Sink):
    """Takes mail and hands it on to a sink by itself, but not quite all, not quite once, not quite
    in order."""

    def __init__(self, hop, **how):
        super().__init__(**how)
        self.hop = hop
        self.late = None

    def keep(self, message):
        number = number_of(message.mail)
        if number % 20 == 3:
            return
        if number % 20 == 5:
            self.late = message
            return
        self.pass_on(message)
        if number % 20 == 7:
            self.pass_on(message)
        if number % 20 == 9 and self.late:
            self.pass_on(self.late)

    def pass_on(self, message):
        with Dialogue(self.hop) as dialogue:
            dialogue.send(message.sender, message.recipients, message.content)
            dialogue.say("QUIT")


def test_a_server_that_lies_is_found_out(ledger):
    hop = ledger.collect("s", free_port())
    liar = Liar(hop.port, port=free_port()).start()
    try:
        ledger.send([("127.0.0.1", liar.port)], connections=1, rate=300, recipients=1)
        wait_for(lambda: ledger.acknowledged() >= 100, what="100 messages")
        ledger.stop()
        verdict = ledger.verdict()
    finally:
        liar.stop()
    assert wrong(verdict) == {"lost", "doubled_wrongly", "out_of_order"}
    assert {number % 20 for number, _ in verdict.doubled_wrongly} == {7}
    assert {number % 20 for number, _ in verdict.out_of_order} == {5}
    assert {3} <= {number % 20 for number, _ in verdict.lost} <= {3, 5}
    assert f"acknowledged {verdict.lost[0][0]} " in ledger.story(verdict.lost[0][0])


# ---- a single node ----


def killed_again_and_again(ledger, mx, seconds):
    """A node under traffic, kill -9 of all of it at random moments; the kills."""
    chance = random.Random(SEED)
    kills = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(chance.uniform(0.3, 3))
        mx.kill()
        kills += 1
        time.sleep(chance.uniform(0, 0.3))
        mx.start()
    ledger.stop()
    settle(mx)
    ledger.settle()
    return kills


def tell(ledger, kills, nodes):
    verdict = ledger.verdict()
    print(f"{kills} kills\n{verdict.text()}")
    for name in ("lost", "doubled_wrongly", "out_of_order"):
        for number, _ in getattr(verdict, name)[:2]:
            print(f"{name}: {ledger.story(number, nodes)}")
    verdict.check()
    return verdict.numbers()


@pytest.mark.parametrize("seconds", [12, pytest.param(60, marks=pytest.mark.soak)])
def test_a_node_that_is_killed_again_and_again(holdfast, ledger, seconds):
    port = ledger.collect("primary", free_port()).port
    mx = holdfast(backup_mx(port, server="connections = 4", more="retry = {1s}"))
    ledger.send([("127.0.0.1", mx.port)], connections=6, rate=150)
    kills = killed_again_and_again(ledger, mx, seconds)
    numbers = tell(ledger, kills, [mx])
    assert kills > 2 and numbers["acknowledged"] > 200 and numbers["refused"] == 0


@pytest.mark.skipif(no_hosts is not None, reason=str(no_hosts))
def test_three_hosts_one_of_them_cut_off(place, ledger):
    """Clients, nodes and primary on hosts of their own; two nodes without a common database. Who
    cannot reach one node, reaches the other; what the one has comes when it is back."""
    with Hosts(place, ["clients", "n1", "n2", "primary"]) as hosts:
        primary = hosts["primary"]
        ledger.collect("primary", 25, address=primary.address, inside=primary.inside)
        routes = (f'server m1 {{ address = "{primary.address}:25" connections = 4 }}\n'
                  "domain example.com { deliver-to = m1  retry = {1s} }\n")
        nodes = [Node(hosts[name], routes) for name in ("n1", "n2")]
        try:
            for node in nodes:
                node.start()
            ledger.send([node.address() for node in nodes], connections=4, rate=60, patience=3,
                        inside=hosts["clients"].inside)
            wait_for(lambda: ledger.acknowledged() > 50, what="50 messages")
            since = time.time()
            hosts.cut(["n1"])
            seen = ledger.acknowledged()
            wait_for(lambda: ledger.acknowledged() > seen + 100, what="100 messages more")
            hosts.mend()
            ledger.stop()
            for node in nodes:
                settle(node, 120)
            ledger.settle()
            ledger.been_away(nodes[0].address(), since, time.time())
            numbers = tell(ledger, 0, nodes)
            assert numbers["refused"] == 0 and len({m.by for m in ledger.sent}) == 2
            for node in nodes:
                node.stop()
        finally:
            for node in nodes:
                node.end()
