# SPDX-License-Identifier: Apache-2.0
"""Recipients known (R8): what RCPT answers while the primary is up, while it is down, and when it
was never seen; what is learned, from whom, and for how long."""

import random
import select
import threading
import time

import pytest

from daemon import backup_mx
from peers import Postfix, free_port, wait_for, why_no_postfix
from sink import CLOSE

POSTFIX = pytest.mark.skipif(why_no_postfix() is not None, reason=str(why_no_postfix()))
PEOPLE = ("ann", "ben", "carl")
LEARN = "recipients = learn"


def listed(people=PEOPLE):
    """A Postfix that knows only these."""
    entries = ", ".join(f"{name}@example.com=all/" for name in people)
    return f"virtual_mailbox_maps = inline:{{ {entries} }}\n"


@pytest.fixture
def primary(place):
    made = []

    def make(settings="", **more):
        postfix = Postfix(place / "primary", settings=settings, **more)
        made.append(postfix)
        return postfix.start()

    yield make
    for postfix in made:
        postfix.stop()


def rcpt(mx, *recipients, sender="bob@client.example"):
    """The replies to RCPT, (code, text) each."""
    with mx.dialogue() as dialogue:
        dialogue.must(f"MAIL FROM:<{sender}>")
        return [dialogue.say(f"RCPT TO:<{recipient}>") for recipient in recipients]


def codes(mx, *recipients, **how):
    return [code for code, _ in rcpt(mx, *recipients, **how)]


def wait_up(mx, name="m1"):
    wait_for(lambda: mx.server_state(name) == "up", what=f"{name} up")


def wait_down(mx, name="m1"):
    mx.tool("server", "probe", name)  # else it is found out within a minute
    wait_for(lambda: mx.server_state(name) == "down", what=f"{name} down")


# ---- with a real primary ---------------------------------------------------------------------


@POSTFIX
def test_a_primary_that_is_up_is_asked(holdfast, primary):
    postfix = primary(listed())
    mx = holdfast(backup_mx(postfix.port, more=LEARN))
    wait_up(mx)
    known, unknown, upper = rcpt(mx, "ann@example.com", "nobody@example.com", "Ben@Example.COM")
    assert known[0] == 250 and upper[0] == 250
    assert unknown == (550, "5.1.1 No such recipient here")
    for secret in ("primary", "127.0.0.1", str(postfix.port), "m1", "virtual mailbox"):
        assert secret not in unknown[1], "the answer names nobody behind us"
    asked = postfix.log().count("NOQUEUE: reject")
    assert codes(mx, "nobody@example.com", "ann@example.com") == [550, 250]
    assert postfix.log().count("NOQUEUE: reject") == asked, "both are remembered"


@POSTFIX
@pytest.mark.parametrize("policy", ["accept", "defer"])
def test_what_was_learned_answers_while_the_primary_is_down(holdfast, primary, policy):
    postfix = primary(listed())
    mx = holdfast(backup_mx(postfix.port, more=f"{LEARN} unknown = {policy}"))
    wait_up(mx)
    assert codes(mx, "ann@example.com", "nobody@example.com") == [250, 550]
    postfix.stop()
    wait_down(mx)
    other = 250 if policy == "accept" else 450
    # A refusal that was heard once does not make one bad.
    assert codes(mx, "ann@example.com", "nobody@example.com", "ben@example.com") \
        == [250, other, other]
    mx.stop()  # and after a restart
    mx.start()
    wait_down(mx)
    assert codes(mx, "ann@example.com", "ben@example.com") == [250, other]


@POSTFIX
def test_deliveries_teach(holdfast, primary):
    postfix = primary(listed())
    mx = holdfast(backup_mx(postfix.port, more=f"{LEARN} unknown = defer"))
    wait_up(mx)
    assert codes(mx, "nobody@example.com") == [550]  # and with it that not all are taken
    postfix.stop()
    wait_down(mx)
    assert codes(mx, "ben@example.com") == [450]
    mx.configure(backup_mx(postfix.port, more=LEARN))
    mx.reload()
    wait_for(lambda: codes(mx, "ben@example.com") == [250], what="the new policy")
    mx.send(recipients=["ben@example.com"])
    postfix.start()
    mx.wait_empty()
    postfix.stop()
    mx.configure(backup_mx(postfix.port, more=f"{LEARN} unknown = defer"))
    mx.reload()
    wait_down(mx)
    wait_for(lambda: codes(mx, "carl@example.com") == [450], what="the old policy")
    assert codes(mx, "ben@example.com") == [250], "it was taken, and is good"


@POSTFIX
def test_a_primary_that_takes_all_teaches_nothing(holdfast, primary):
    postfix = primary()
    mx = holdfast(backup_mx(postfix.port, more=f"{LEARN} unknown = defer"))
    wait_up(mx)
    assert codes(mx, "ann@example.com", "whoever@example.com") == [250, 250]
    postfix.stop()
    wait_down(mx)
    assert codes(mx, "ann@example.com", "whoever@example.com") == [450, 450]


@POSTFIX
def test_a_dictionary_attack_finds_whom_the_primary_knows(holdfast, primary):
    postfix = primary(listed())
    mx = holdfast(backup_mx(postfix.port, more=f"{LEARN} unknown = defer"))
    wait_up(mx)
    names = [f"name{number}" for number in range(60)] + list(PEOPLE)
    random.Random(1).shuffle(names)
    found = []
    for at in range(0, len(names), 9):
        some = names[at:at + 9]
        found += [name for name, code in
                  zip(some, codes(mx, *(f"{name}@example.com" for name in some))) if code == 250]
    assert sorted(found) == sorted(PEOPLE)
    mx.send(recipients=["carl@example.com"])
    wait_for(lambda: len(postfix.messages()) == 1, what="the mail")


# ---- what servers say ------------------------------------------------------------------------


def rule_of(answers, random_answer="550 5.1.1 No such user"):
    """RCPT answered by the local part; anybody else as an address that cannot exist."""
    def rule(stage, session, argument):
        if stage != "RCPT":
            return None
        name = str(argument).split("<")[-1].split("@")[0]
        return answers.get(name, random_answer)
    return rule


@pytest.mark.parametrize("reply, code", [
    ("550 5.1.1 No such user", 550),
    ("551 User not local", 550),
    ("553 5.1.3 Bad address", 550),
    ("550 5.7.1 You are blocked", 250),  # speaks of us, not of the recipient
    ("554 5.1.1 Whatever", 250),
    ("450 4.2.0 Greylisted", 250),
    (CLOSE, 250),
])
def test_only_what_says_so_refuses(holdfast, sink, reply, code):
    hop = sink(rule_of({"ann": reply}))
    mx = holdfast(backup_mx(hop.port, more=LEARN))
    wait_up(mx)
    assert codes(mx, "ann@example.com") == [code]


def test_a_refused_null_sender_says_nothing(holdfast, sink):
    hop = sink(lambda stage, session, argument:
               "550 5.7.1 No bounces please" if stage == "MAIL" and "<>" in str(argument) else None)
    mx = holdfast(backup_mx(hop.port, more=f"{LEARN} unknown = defer"))
    wait_up(mx)
    assert codes(mx, "ann@example.com") == [450]


def test_a_silent_server_is_waited_for_5_s(holdfast, sink):
    speaks = threading.Event()
    speaks.set()

    def rule(stage, session, argument):
        if stage == "RCPT":
            speaks.wait(120)
        return None

    hop = sink(rule)
    mx = holdfast(backup_mx(hop.port, more=LEARN))
    wait_up(mx)
    speaks.clear()
    with mx.dialogue() as one, mx.dialogue() as other:
        one.must("MAIL FROM:<bob@client.example>")
        other.must("MAIL FROM:<bob@client.example>")
        one.write(b"RCPT TO:<ann@example.com>\r\n")
        other.must("RCPT TO:<postmaster@mx2.example.net>")  # nobody else waits
        assert select.select([one.socket], [], [], 0)[0] == []
        assert one.reply()[0] == 250 and not speaks.is_set()
        speaks.set()


def test_a_server_never_reached_decides_nothing(holdfast):
    mx = holdfast(backup_mx(free_port(), more=f"{LEARN} unknown = defer"))
    assert codes(mx, '""@example.com') == [450], "a name that no table can have is no way in"
    assert codes(mx, "ann@example.com", "postmaster@mx2.example.net") == [450, 250]
    mx.configure(backup_mx(free_port(), more=LEARN))
    mx.reload()
    wait_for(lambda: codes(mx, "ann@example.com") == [250], what="the other policy")


def test_only_the_head_or_who_is_authoritative_is_asked(holdfast, sink):
    second = sink(rule_of({}))
    head = free_port()
    for authoritative, code in (("no", 450), ("yes", 550)):
        routes = f"""\
server m1 {{ address = "127.0.0.1:{head}" failover = m2 }}
server m2 {{ address = "127.0.0.1:{second.port}" authoritative = {authoritative} }}
domain example.com {{ deliver-to = m1 {LEARN} unknown = defer }}
"""
        mx = holdfast(routes, name=f"holdfast-{authoritative}")
        wait_up(mx, "m2")
        assert codes(mx, "ann@example.com") == [code]


# ---- addresses -------------------------------------------------------------------------------


@POSTFIX
def test_one_recipient_has_many_addresses(holdfast, primary):
    postfix = primary(listed() + "recipient_delimiter = +\nvirtual_alias_domains = example.org\n"
                      "virtual_alias_maps = inline:{ ann@example.org=ann@example.com }\n")
    mx = holdfast(backup_mx(postfix.port, more=f'{LEARN} unknown = defer separators = "+" '
                                               "aliases = example.org"))
    wait_up(mx)
    assert codes(mx, "ann@example.com", "nobody+x@example.com") == [250, 550]
    postfix.stop()
    wait_down(mx)
    assert codes(mx, "Ann@example.com", "ann+lists@example.com", "ann@example.org",
                 "ANN+x@Example.Org", '"ann"@example.com', "ann-x@example.com") \
        == [250, 250, 250, 250, 250, 450]


def test_own_senders_from_outside_are_refused(holdfast, sink):
    hop = sink()
    out = (f'server out {{ address = "127.0.0.1:{hop.port}" }}\n'
           "relay outgoing { from = {127.0.0.2/32} deliver-to = out }\n")
    mx = holdfast(out + 'server m1 { address = "127.0.0.3:25" }\n'
                  "domain example.com { deliver-to = m1 own-senders = reject }\n")
    with mx.dialogue(source="127.0.0.9") as outside:
        code, text = outside.say("MAIL FROM:<ann@Example.com>")
        assert (code, text[:5]) == (550, "5.7.1")
        assert outside.say("MAIL FROM:<bob@client.example>")[0] == 250
    for ours in ("127.0.0.2", "127.0.0.3"):
        with mx.dialogue(source=ours) as inside:
            assert inside.say("MAIL FROM:<ann@example.com>")[0] == 250


# ---- the operator ----------------------------------------------------------------------------


@POSTFIX
def test_an_operator_sees_and_says_who_exists(holdfast, primary, place):
    postfix = primary(listed())
    mx = holdfast(backup_mx(postfix.port, more=f"{LEARN} unknown = defer"))
    wait_up(mx)
    assert mx.lines("recipients", "list") == []
    assert codes(mx, "ann@example.com", "nobody@example.com") == [250, 550]
    rows = {row["address"]: row for row in mx.lines("recipients", "list", "example.com")}
    assert {name: (row["standing"], row["source"]) for name, row in rows.items()} == {
        "ann@example.com": ("good", "callout"), "nobody@example.com": ("unknown", "callout")}
    assert abs(rows["ann@example.com"]["said"] / 1000 - time.time()) < 60
    assert rows["nobody@example.com"]["refused"] is not None
    (row,) = mx.lines("recipients", "list")
    assert (row["domain"], row["good"], row["bad"], row["refused"]) == ("example.com", 1, 0, 1)
    ben, ghost = (mx.lines("recipients", "verify", "example.com", f"{name}@example.com")[0]
                  for name in ("ben", "ghost"))
    assert ben["exists"] is True and ghost["exists"] is False and "550 5.1.1" in ghost["reply"]
    assert ben["takes_all"] is False
    listing = place / "list"
    listing.write_text("# from elsewhere\ndora@example.com OK\nemil\nfritz@elsewhere.example\n")
    assert mx.lines("recipients", "import", "example.com", listing) \
        == [{"domain": "example.com", "imported": 2, "passed_over": 1}]
    listing.write_text("emil\n<nonsense>@example.com\n")
    wrong = mx.tool("recipients", "import", "example.com", listing, check=False)
    assert wrong.returncode == 1 and f"{listing}:2: no address" in wrong.stderr
    postfix.stop()
    wait_down(mx)
    assert codes(mx, "dora@example.com", "Emil@example.com", "ben@example.com",
                 "carl@example.com") == [250, 250, 250, 450]
    assert mx.tool("recipients", "verify", "example.com", check=False).returncode == 1
    mx.tool("recipients", "forget", "example.com", "dora@example.com")
    assert codes(mx, "dora@example.com", "emil@example.com") == [450, 250]
    mx.tool("recipients", "forget", "example.com", "--all")
    assert codes(mx, "ann@example.com", "emil@example.com") == [450, 450]
    assert mx.tool("recipients", "list", "elsewhere.example", check=False).returncode == 1
