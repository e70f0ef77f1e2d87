# SPDX-License-Identifier: Apache-2.0
"""Recipients known (R8): what RCPT answers while the primary is up, while it is down, and when it
was never seen; what is learned, from whom, and for how long."""

import random
import time

import pytest

from client import Refused
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
    wait_for(lambda: mx.server_state(name) == "up", 15, what=f"{name} up")


def wait_down(mx, name="m1"):
    mx.tool("server", "probe", name)  # else it is found out within a minute
    wait_for(lambda: mx.server_state(name) == "down", 15, what=f"{name} down")


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
    wait_for(lambda: codes(mx, "ben@example.com") == [250], 10, what="the new policy")
    mx.send(recipients=["ben@example.com"])
    postfix.start()
    mx.wait_empty()
    postfix.stop()
    mx.configure(backup_mx(postfix.port, more=f"{LEARN} unknown = defer"))
    mx.reload()
    wait_down(mx)
    wait_for(lambda: codes(mx, "carl@example.com") == [450], 10, what="the old policy")
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
    wait_for(lambda: len(postfix.messages()) == 1, 20, what="the mail")
