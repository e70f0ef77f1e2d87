# SPDX-License-Identifier: Apache-2.0
"""What strangers have to bear: rules of the operator, a late greeting, bounds on how much of what in
a minute, and slow answers for who guesses recipients."""

import contextlib
import itertools
import socket
import time
import urllib.request

import pytest

from client import Dialogue, Refused
from daemon import backup_mx, kill
from exposition import parse
from names import NameServer
from netns import Net, why_no_netns
from peers import wait_for

OURS = 'relay out { from = 127.0.0.2  deliver-to = m1 }\n'
STRANGER, CLIENT = "127.0.0.9", "127.0.0.2"
PORT = 2525


def counter(mx, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{mx.http_port}/metrics", timeout=60) as page:
        samples = parse(page.read().decode())
    return sum(value for (found, _), value in samples.items() if found == f"holdfast_{name}_total")


def greeting(mx, source=STRANGER, **how):
    """Code and text, and nothing said."""
    with Dialogue(mx.port, hello=None, source=source, **how) as dialogue:
        return dialogue.greeting


def refusal(mx, source=STRANGER, hello="client.example", sender="bob@client.example"):
    """What MAIL is answered, None if it is taken."""
    with Dialogue(mx.port, hello=hello, source=source) as dialogue:
        code, text = dialogue.say(f"MAIL FROM:<{sender}>")
        return None if code == 250 else f"{code} {text}"


# ---- rules ----


def test_a_client_that_is_blocked_is_greeted_so(holdfast, sink):
    mx = holdfast(backup_mx(sink().port) +
                  'block bad { clients = {127.0.0.8/31, "2001:db8::/32"}  '
                  'text = "see https://example.com/blocked" }\n')
    code, text = greeting(mx)
    assert code == 554 and text == \
        "5.7.1 Refused by the rule 'bad': see https://example.com/blocked"
    assert greeting(mx, "127.0.0.10")[0] == 220
    assert "refused stage=connect client=127.0.0.9" in mx.log() and "rule 'bad'" in mx.log()
    assert counter(mx, "blocked") == 1
    assert mx.send(source="127.0.0.10")[0] == 250


def test_helo_and_sender_are_known_at_mail(holdfast, sink):
    mx = holdfast(backup_mx(sink().port) +
                  'block dynamic { helo = {*.dyn.example, "[127.0.0.9]"} }\n'
                  'block spam { senders = {*@spam.example, *.junk.example, liar@ham.example} }\n'
                  'block both { clients = 127.0.0.8  senders = "<>" }\n')
    assert "'dynamic'" in refusal(mx, hello="a.b.dyn.example")
    assert "'dynamic'" in refusal(mx, hello="[127.0.0.9]")
    for sender in ("x@spam.example", "X@SPAM.example", "y@a.junk.example", "liar@ham.example"):
        assert refusal(mx, sender=sender).startswith("554 5.7.1 Refused by the rule 'spam'")
    for sender in ("x@spam.example.org", "y@junk.example", "ann@ham.example"):
        assert refusal(mx, sender=sender) is None
    assert "'both'" in refusal(mx, source="127.0.0.8", sender="")
    assert refusal(mx, sender="") is None and refusal(mx, source="127.0.0.8") is None


def test_what_is_allowed_comes_before_what_is_blocked(holdfast, sink):
    mx = holdfast(backup_mx(sink().port) +
                  'block all { clients = 127.0.0.0/24 }\n'
                  'block spam { senders = *@spam.example }\n'
                  'allow this { clients = {127.0.0.1, 127.0.0.7} }\n'
                  'allow partner { clients = 127.0.0.6  senders = *@partner.example }\n')
    assert greeting(mx)[0] == 554
    assert refusal(mx, source="127.0.0.7", sender="x@spam.example") is None
    # What an allow rule says of senders is known too late for who is blocked as a client.
    assert greeting(mx, "127.0.0.6")[0] == 554
    # No right to relay comes of it.
    with pytest.raises(Refused) as refused:
        mx.send(["ann@elsewhere.example"], source="127.0.0.7")
    assert refused.value.code == 550


def test_lists_are_read_from_files_and_again_at_a_reload(holdfast, sink, place):
    clients, senders = place / "clients", place / "senders"
    clients.write_text("# bad ones\n127.0.0.9  # him\n\n" +
                       "".join(f"10.{i // 250}.{i % 250}.0/24\n" for i in range(50000)))
    senders.write_text("*@spam.example\r\n")
    mx = holdfast(backup_mx(sink().port) + f'block listed {{ clients = "file:{clients}" }}\n'
                                           f'block from {{ senders = {{"file:{senders}"}} }}\n')
    assert greeting(mx)[0] == 554 and greeting(mx, "127.0.0.10")[0] == 220
    assert "'from'" in refusal(mx, source="127.0.0.10", sender="x@spam.example")
    clients.write_text("127.0.0.10\n")
    mx.reload()
    wait_for(lambda: greeting(mx)[0] == 220, what="the new list")
    assert greeting(mx, "127.0.0.10")[0] == 554
    clients.write_text("127.0.0.10\n127.0.0.300\n")
    checked = mx.tool("check", check=False)
    assert checked.returncode == 1 and f"{clients}:2: clients: '127.0.0.300'" in checked.stderr


# ---- the greeting ----


def test_who_speaks_first_is_no_mail_server(holdfast, sink):
    mx = holdfast(backup_mx(sink().port) + OURS + 'allow him { clients = 127.0.0.7 }\n',
                  listen="greeting-delay = 3s")
    with socket.create_connection(("127.0.0.1", mx.port), source_address=(STRANGER, 0)) as talker:
        talker.sendall(b"EHLO spam.example\r\nMAIL FROM:<x@spam.example>\r\n")
        talker.settimeout(60)
        said = b""
        with contextlib.suppress(ConnectionError):
            while more := talker.recv(4096):
                said += more
    assert said.startswith(b"554 5.5.1 You spoke before the greeting") and said.count(b"\n") == 1
    assert counter(mx, "early_talkers") == 1
    begun = time.monotonic()
    assert greeting(mx)[0] == 220
    assert time.monotonic() - begun > 2.9
    # Neither our own clients nor whom we know wait: they may even speak at once.
    for spared in (CLIENT, "127.0.0.7"):
        with socket.create_connection(("127.0.0.1", mx.port), source_address=(spared, 0)) as one:
            one.sendall(b"EHLO a.example\r\nQUIT\r\n")
            one.settimeout(60)
            assert one.makefile("rb").read().startswith(b"220 ")
    mx.send(source=STRANGER)
    mx.wait_empty()


def test_many_that_wait_for_a_greeting_may_go_or_be_stopped(holdfast, sink):
    """Held greetings whose clients leave, and a stop in the middle."""
    mx = holdfast(backup_mx(sink().port), listen="greeting-delay = 30s", start=False)
    mx.start(wait=False)
    wait_for(lambda: " keeper started " in mx.log(), what="its start")
    waiting = [socket.create_connection(("127.0.0.1", mx.port)) for _ in range(200)]
    for one in waiting[::2]:
        one.close()
    wait_for(lambda: counter(mx, "smtp_sessions") == 200, what="all of them")
    mx.stop()
    for one in waiting[1::2]:
        one.close()


# ---- guessing ----


def test_who_guesses_recipients_is_slowed_down_and_cut_off(holdfast, sink):
    mx = holdfast(backup_mx(sink().port) + OURS +
                  "limits { refused-recipients = 8  tarpit = 100ms }\n")
    with mx.dialogue(source=STRANGER) as dialogue:
        dialogue.must("MAIL FROM:<bob@client.example>")
        begun = time.monotonic()
        codes = [dialogue.say(f"RCPT TO:<x{i}@elsewhere.example>")[0] for i in range(8)]
        assert codes == [550] * 8
        assert time.monotonic() - begun > 0.25
        code, text = dialogue.say("RCPT TO:<x9@elsewhere.example>")
        assert code == 421 and "Too many refused recipients" in text
        assert dialogue.socket.recv(10) == b""
    assert counter(mx, "tarpitted") >= 3
    # The good ones of a session that has some bad ones are taken.
    with mx.dialogue(source=STRANGER) as dialogue:
        dialogue.must("MAIL FROM:<bob@client.example>")
        for i in range(6):
            assert dialogue.say(f"RCPT TO:<x{i}@elsewhere.example>")[0] == 550
            dialogue.must(f"RCPT TO:<u{i}@example.com>")
        assert dialogue.data(b"Subject: six\r\n\r\n")[0] == 250
    mx.wait_empty()


# ---- greylisting ----


def code_for(mx, sender="bob@client.example"):
    try:
        return mx.send(source=STRANGER, sender=sender)[0]
    except Refused as refused:
        assert refused.text.startswith("4.7.1 Greylisted")
        return refused.code


def start_putting_off(mx, fresh=itertools.count()):
    """Starts it, and waits until it has read what it knew: before, it puts nobody off."""
    mx.start()
    wait_for(lambda: code_for(mx, f"new{next(fresh)}@client.example") == 451, what="greylisting")


def test_an_unknown_sender_is_put_off_once(holdfast, sink):
    mx = holdfast(backup_mx(sink().port) + OURS + 'allow him { clients = 127.0.0.7 }\n',
                  listen="greylist = 2s", start=False)
    start_putting_off(mx)
    with pytest.raises(Refused) as refused:
        mx.send(source=STRANGER)
    assert refused.value.code == 451
    assert refused.value.text == "4.7.1 Greylisted: unknown here, try again in 2 seconds"
    assert mx.send(source=CLIENT)[0] == 250 and mx.send(source="127.0.0.7")[0] == 250
    # Who is refused for good is told so, and nothing is learnt of it.
    with pytest.raises(Refused) as refused:
        mx.send(["ann@elsewhere.example"], source=STRANGER)
    assert refused.value.code == 550

    def again():
        try:
            return mx.send(source=STRANGER)[0]
        except Refused:
            return None
    wait_for(lambda: again() == 250, step=0.3, what="the second try")
    assert mx.send(source=STRANGER)[0] == 250
    with pytest.raises(Refused):
        mx.send(source=STRANGER, sender="carol@client.example")
    assert counter(mx, "greylisted") >= 3
    mx.wait_empty()


def test_who_was_put_off_is_let_through_after_a_restart(holdfast, sink):
    """Killed with all that is in memory, stopped, or its receiver killed alone."""
    mx = holdfast(backup_mx(sink().port), listen="greylist = 2s", start=False)
    kept = mx.state / "state" / "greylist"
    start_putting_off(mx)
    assert code_for(mx) == 451

    def count():
        return int.from_bytes(kept.read_bytes()[32:36], "little") if kept.exists() else 0
    wait_for(lambda: count() == 2, 150, what="both on the disk")  # a minute after the first change
    mx.kill()
    time.sleep(2.1)  # what it has to wait
    start_putting_off(mx)
    assert code_for(mx) == 250
    assert code_for(mx, "carol@client.example") == 451
    mx.stop()
    time.sleep(2.1)
    start_putting_off(mx)
    assert code_for(mx) == 250 and code_for(mx, "carol@client.example") == 250
    edge_in, = mx.processes()["holdfast-edge-i"]
    kill(edge_in)
    wait_for(lambda: mx.processes().get("holdfast-edge-i", [edge_in]) != [edge_in],
             what="another one")
    assert code_for(mx) == 250 and code_for(mx, "dora@client.example") == 451
    mx.wait_empty()


def test_a_damaged_list_is_told_and_begins_anew(holdfast, sink):
    mx = holdfast(backup_mx(sink().port), listen="greylist = 2s", start=False)
    kept = mx.state / "state" / "greylist"
    start_putting_off(mx)
    assert code_for(mx) == 451
    mx.stop()
    assert "state-file" not in mx.log()
    kept.write_bytes(kept.read_bytes()[:-1])
    time.sleep(2.1)
    start_putting_off(mx)
    assert "state-file name=greylist" in mx.log()
    assert code_for(mx) == 451
    wait_for(lambda: code_for(mx) == 250, step=0.3, what="what it learns anew")
    mx.stop()
    start_putting_off(mx)
    assert code_for(mx) == 250
    mx.wait_empty()


# ---- the backup as a back door ----


def test_while_the_primary_is_up_strangers_go_there(holdfast, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port, more="only-when-down = yes") + OURS +
                  'allow him { clients = 127.0.0.7 }\n')
    wait_for(lambda: mx.server_state("m1") == "up", what="m1 up")

    def code(source=STRANGER):
        try:
            return mx.send(source=source)[0]
        except Refused as refused:
            assert refused.text == "4.7.1 The primary mail server is up, send it there"
            return refused.code
    wait_for(lambda: code() == 451, what="the first refusal")
    assert code(CLIENT) == 250 and code("127.0.0.7") == 250
    assert counter(mx, "sent_to_primary") >= 1
    # It goes while nobody speaks with it: only the strangers' coming makes us look.
    mx.wait_empty()
    wait_for(lambda: not hop.sessions, what="the end of all sessions with it")
    hop.stop()
    wait_for(lambda: code() == 250, 45, 0.2, "mail taken")
    hop.start()
    wait_for(lambda: code() == 451, step=0.2, what="the primary again")
    mx.wait_empty()


# ---- why ----


def refusals(mx, what):
    """What the trace says of it: (reply, sender, recipient, client), without those left out."""
    return [(row["reply"], row["sender"], row["recipient"], row["client"])
            for row in mx.lines("trace", what) if row["event"] == "refused"]


def test_each_refusal_is_explained_in_the_trace(holdfast, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port, more="own-senders = reject  only-when-down = yes") +
                  "domain example.net { deliver-to = m1  recipients = learn  unknown = defer }\n"
                  "block bad { clients = 127.0.1.9 }\n"
                  "block spam { senders = *@spam.example }\n", listen="greylist = 1h")

    def told(what, reply, sender=None, recipient=None, client=STRANGER):
        return wait_for(lambda: any(
            row[0].startswith(reply) and row[1:] == (sender, recipient, client)
            for row in refusals(mx, what)), what=f"{reply} in the trace of {what}")

    def is_up():  # and edge-in knows
        with mx.dialogue(source="127.0.3.1") as dialogue:
            dialogue.must("MAIL FROM:<dora@client.example>")
            return "primary" in dialogue.say("RCPT TO:<x@example.com>")[1]
    wait_for(is_up, step=0.3, what="m1 up")
    assert greeting(mx, "127.0.1.9")[0] == 554
    told("127.0.1.9", "554 5.7.1 Refused by the rule 'bad'", client="127.0.1.9")
    refusal(mx, sender="x@spam.example")
    told("x@spam.example", "554 5.7.1 Refused by the rule 'spam'", "x@spam.example")
    refusal(mx, sender="boss@example.com")
    told("BOSS@example.com", "550 5.7.1 Senders of this domain", "boss@example.com")

    def recipient(name, sender="bob@client.example"):
        with pytest.raises(Refused):
            mx.send([name], sender=sender, source=STRANGER)
    recipient("x@elsewhere.example")
    told("x@elsewhere.example", "550 5.7.1 Relaying denied", "bob@client.example",
         "x@elsewhere.example")
    recipient("up@example.net")
    told("up@example.net", "451 4.7.1 Greylisted", "bob@client.example", "up@example.net")
    recipient("x@example.com")
    told("x@example.com", "451 4.7.1 The primary mail server is up", "bob@client.example",
         "x@example.com")
    assert {row[3] for row in refusals(mx, STRANGER)} == {STRANGER}
    assert len(refusals(mx, STRANGER)) == 5 and len(refusals(mx, "bob@client.example")) == 3
    text = mx.tool("trace", "x@elsewhere.example").stdout
    assert "refused" in text and "Relaying denied" in text and STRANGER in text
    # A message that came without one recipient tells of it, too.
    with mx.dialogue(source="127.0.2.2") as dialogue:
        dialogue.must("MAIL FROM:<carl@client.example>")
        assert dialogue.say("RCPT TO:<y@elsewhere.example>")[0] == 550
    told("y@elsewhere.example", "550", "carl@client.example", "y@elsewhere.example", "127.0.2.2")
    # And it outlives a restart.
    mx.stop()
    mx.start()
    told("127.0.1.9", "554 5.7.1", client="127.0.1.9")


def test_a_full_house_is_explained_in_the_trace(holdfast, sink):
    mx = holdfast(backup_mx(sink().port) + "limits { connections = 3 }\n")
    wait_for(lambda: mx.counter("holdfast_smtp_sessions_open") == 0,
             what="the end of who has waited for the daemon")
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(mx.dialogue(source=CLIENT))
        # Who has waited for the daemon may have gone only now.
        def refused():
            dialogue = stack.enter_context(Dialogue(mx.port, hello=None, source=STRANGER))
            return dialogue.greeting[0] == 421
        wait_for(refused, what="a full house")
    wait_for(lambda: refusals(mx, STRANGER), what="the trace")
    assert refusals(mx, STRANGER)[0] == ("421 4.3.2 Too many connections", None, None, STRANGER)
    assert mx.lines("trace", STRANGER)[0]["reason"] == "stage connect"
    assert "Too many connections" in mx.tool("trace", STRANGER).stdout


def test_a_flood_of_refusals_does_not_fill_the_trace(holdfast, sink):
    mx = holdfast(backup_mx(sink().port) + "block bad { clients = 127.0.1.0/24 }\n",
                  top="loops = 1")  # in their order
    for number in range(300):
        assert greeting(mx, f"127.0.1.{number % 200 + 1}")[0] == 554
    assert greeting(mx, "127.0.1.250")[0] == 554
    wait_for(lambda: counter(mx, "refusals_left_out") == 291, what="the count")
    assert [len(refusals(mx, f"127.0.1.{number}")) for number in (1, 10, 11, 250)] == [1, 1, 0, 0]
    # When the minute is over the rest is told, to who asks for any of them.
    left_out = wait_for(lambda: [row["left_out"] for row in mx.lines("trace", "127.0.1.250")], 120,
                        0.5, "the rest")
    assert left_out == [291]
    text = mx.tool("trace", "127.0.1.77").stdout
    assert "291 more of its network were left out" in text


# ---- how much in a minute ----

why_not = why_no_netns()
needs_net = pytest.mark.skipif(why_not is not None, reason=str(why_not))


@pytest.fixture
def net():
    with Net() as made:
        yield made


@pytest.fixture
def bounded(net, holdfast):
    """A daemon with the limits given, and a way to speak to it from one of the far addresses."""
    stack = contextlib.ExitStack()

    class Bounded:
        def __init__(self, limits, more=""):
            self.mx = holdfast(
                f'listen far {{ address = "192.0.2.1:{PORT}" }}\n'
                'server m1 { address = "127.0.0.1:1" }\n'
                f"domain example.com {{ deliver-to = m1 }}\n{more}\nlimits {{ {limits} }}\n")

        def dialogue(self, who=0, **how):
            with net.far():
                made = Dialogue(PORT, address="192.0.2.1", source=net.addresses[who], **how)
            stack.callback(made.close)
            return made

        @staticmethod
        def address(who):
            return net.addresses[who]

        def message(self, who=0, recipients=1):
            """The code that ends it."""
            dialogue = self.dialogue(who)
            if dialogue.greeting[0] != 220:
                return dialogue.greeting[0]
            try:
                return dialogue.send("bob@client.example",
                                     [f"u{i}@example.com" for i in range(recipients)],
                                     b"Subject: x\r\n\r\n")[0]
            except Refused as refused:
                return refused.code
            finally:
                dialogue.close()
    with stack:
        yield Bounded


@needs_net
def test_messages_in_a_minute(bounded):
    it = bounded("message-rate = 4", "allow friend { clients = 192.0.2.13 }")
    assert [it.message() for _ in range(5)] == [250] * 4 + [450]
    assert it.message(who=1) == 250
    assert [it.message(who=2) for _ in range(6)] == [250] * 6  # the friend
    assert counter(it.mx, "rate_limited") == 1
    assert "You send too many messages" in it.mx.log()


@needs_net
def test_recipients_in_a_minute(bounded):
    it = bounded("recipient-rate = 10")
    assert it.message(recipients=8) == 250
    assert it.message(recipients=8) == 450
    assert it.message(who=1, recipients=10) == 250


@needs_net
def test_connections_in_a_minute(bounded):
    it = bounded("connection-rate = 3")
    assert [it.dialogue(hello=None).greeting[0] for _ in range(4)] == [220] * 3 + [421]
    assert it.dialogue(1, hello=None).greeting[0] == 220


@needs_net
def test_connections_of_neighbours(bounded):
    it = bounded("connections-per-network = 3  connections-per-client = 2")
    assert [it.dialogue(0).greeting[0] for _ in range(2)] == [220, 220]
    assert "your address" in it.dialogue(0, hello=None).greeting[1]
    assert it.dialogue(1).greeting[0] == 220
    code, text = it.dialogue(2, hello=None).greeting
    assert code == 421 and "Too many connections from your network" in text
    for who, whose in ((0, "address"), (2, "network")):
        wait_for(lambda: [row[0] for row in refusals(it.mx, it.address(who))] ==
                 [f"421 4.7.0 Too many connections from your {whose}"], what="the trace")


@needs_net
def test_who_has_guessed_much_is_not_greeted_for_a_while(bounded):
    it = bounded("refused-recipient-rate = 10  refused-recipients = 30  tarpit = none")
    dialogue = it.dialogue()
    dialogue.must("MAIL FROM:<bob@client.example>")
    for i in range(20):
        assert dialogue.say(f"RCPT TO:<x{i}@elsewhere.example>")[0] == 550
    dialogue.close()
    code, text = it.dialogue(hello=None).greeting
    assert code == 421 and "recipients of yours were refused" in text
    assert it.message(who=1) == 250


# ---- DNS lists ----


@pytest.fixture
def names():
    server = NameServer({}, ttl=60)
    yield server
    server.stop()


LISTS = """
dnsbl zen { zone = zen.example  weight = 3 }
dnsbl grey { zone = grey.example  weight = 2  answers = {127.0.0.2, 127.0.0.8/29} }
dnsbl nice { zone = nice.example  lists = good  weight = 4 }
"""
ONE, TWO, THREE, FOUR = (f"{number}.2.0.192" for number in (11, 12, 13, 14))


class Listed:
    """A daemon that asks a name server of ours."""

    def __init__(self, net, holdfast, names, more=""):
        self.net = net
        self.mx = holdfast(f'listen far {{ address = "192.0.2.1:{PORT}"  dnsbl-score = 3  {more} }}\n'
                           'server m1 { address = "127.0.0.1:1" }\n'
                           "domain example.com { deliver-to = m1 }\n" + LISTS, top=f"loops = 1\n{names.setting}")
        wait_for(lambda: self.mx.server_state("m1") == "down", what="a sending process")

    def greeting(self, who=0, **how):
        with self.net.far():
            with Dialogue(PORT, address="192.0.2.1", source=self.net.addresses[who], hello=None,
                          **how) as dialogue:
                return dialogue.greeting


@needs_net
def test_what_lists_know_of_a_client_is_weighed(net, holdfast, names):
    listed = {"A": ["127.0.0.2"]}
    names.zone = {
        f"{ONE}.zen.example": listed,
        f"{TWO}.grey.example": listed,  # too little by itself
        f"{THREE}.zen.example": listed, f"{THREE}.grey.example": {"A": ["127.0.0.9"]},
        f"{THREE}.nice.example": listed,
        f"{FOUR}.zen.example": {"A": ["127.255.255.254"]},  # refuses the question
        f"{FOUR}.grey.example": {"A": ["127.0.0.7"]},  # means something else
    }
    it = Listed(net, holdfast, names)
    assert it.greeting(0) == \
        (554, "5.7.1 Your address 192.0.2.11 is listed by zen (zen.example)")
    assert [it.greeting(who)[0] for who in (1, 2, 3)] == [220, 220, 220]
    assert {name.split(".", 4)[4] for name in names.names_asked} == \
        {"zen.example", "grey.example", "nice.example"}
    # Remembered: nobody is asked again.
    names.mode = "silent"
    assert it.greeting(0)[0] == 554 and it.greeting(1)[0] == 220
    assert counter(it.mx, "dnsbl_questions") >= 4 and counter(it.mx, "dnsbl_refused") == 2
    assert "listed by zen" in it.mx.log()


@needs_net
def test_lists_that_do_not_answer_hold_up_no_mail(net, holdfast, names):
    names.mode = "silent"
    it = Listed(net, holdfast, names)
    assert it.greeting(0)[0] == 220  # after some seconds
    names.mode = "servfail"
    assert it.greeting(1)[0] == 220
    # What answers counts, though another does not.
    names.mode = "good"
    names.zone = {f"{THREE}.zen.example": {"A": ["127.0.0.4"]}}
    names.broken = {f"{THREE}.grey.example": "silent"}
    assert it.greeting(2)[0] == 554


@needs_net
def test_a_core_that_dies_meanwhile_holds_up_no_greeting(net, holdfast, names):
    names.mode = "silent"
    it = Listed(net, holdfast, names)
    with net.far():
        waiting = [socket.create_connection(("192.0.2.1", PORT), timeout=60) for _ in range(20)]
    wait_for(lambda: counter(it.mx, "dnsbl_questions") == 20, what="the questions")
    kill(it.mx.processes()["holdfast-core"][0])
    for one in waiting:
        assert one.recv(3) in (b"220", b"421")
        one.close()
    names.mode = "good"
    wait_for(lambda: it.greeting(1)[0] == 220, what="a greeting")


@needs_net
def test_who_speaks_while_lists_are_asked_has_spoken_early(net, holdfast, names):
    names.mode = "silent"
    it = Listed(net, holdfast, names, more="greeting-delay = 3s")
    with net.far():
        talker = socket.create_connection(("192.0.2.1", PORT), timeout=60)
    talker.sendall(b"EHLO spam.example\r\n")
    assert talker.recv(100).startswith(b"554 5.5.1 You spoke before the greeting")
    talker.close()
