# SPDX-License-Identifier: Apache-2.0
"""Exim as the primary, as docs/true-sender.md has it: Debian's knows neither XCLIENT nor XFORWARD,
but takes PROXY headers, and then logs and judges our clients as its own."""

import re

import pytest

from client import Dialogue, Refused
from daemon import backup_mx
from exim import Exim, why_no_exim
from peers import wait_for

pytestmark = pytest.mark.skipif(why_no_exim() is not None, reason=str(why_no_exim()))

RECIPE = "hosts_proxy = 127.0.0.1\n"


@pytest.fixture
def exim(place):
    made = []

    def make(**more):
        made.append(Exim(place / f"exim{len(made)}", **more))
        return made[-1].start()

    yield make
    for instance in made:
        instance.stop()


def send(mx, source, recipient="ann@example.com", hello="client.example"):
    """Returns the port that the client had."""
    with mx.dialogue(source=source, hello=hello) as dialogue:
        port = dialogue.socket.getsockname()[1]
        dialogue.send("bob@client.example", [recipient], b"Subject: test\r\n\r\n")
        return port


def test_its_log_and_its_received_field_show_the_original_client(holdfast, exim):
    primary = exim(settings=RECIPE)
    mx = holdfast(backup_mx(primary.port, server="proxy = v2"))
    ports = [(f"127.0.0.{n}", str(send(mx, f"127.0.0.{n}", hello=f"c{n}.example")))
             for n in (7, 8, 9)]
    wait_for(lambda: len(primary.messages()) == 3, what="the messages")
    arrived = primary.arrivals()
    assert [(address, port) for _, address, port, _ in arrived] == ports
    # The HELO name is ours; PRX is where the header came from.
    assert {helo for helo, *_ in arrived} == {"mx2.example.net"}
    assert all("PRX=127.0.0.1 " in rest for *_, rest in arrived)
    for (address, port), message in zip(ports, primary.messages()):
        fields = re.sub(rb"\n[ \t]+", b" ", message).split(b"\n")
        theirs, ours = [field for field in fields if field.startswith(b"Received:")]
        assert f"from [{address}] (port={port} helo=mx2.example.net) by primary".encode() in theirs
        assert f"from c{address[-1]}.example ([{address}]) by mx2.example.net".encode() in ours


def test_its_access_list_refuses_the_right_client(holdfast, exim):
    primary = exim(settings=RECIPE, recipient="""\
  deny hosts = 127.0.0.66
       message = forged [$sender_host_address]""")
    mx = holdfast(backup_mx(primary.port, server="proxy = v2 hold-5xx-after-recovery = 0s"))
    for source, recipient in (("127.0.0.2", "good"), ("127.0.0.66", "forged"), ("127.0.0.3", "fine")):
        send(mx, source, recipient=f"{recipient}@example.com")
    wait_for(lambda: len(primary.messages()) == 2, what="the good messages")
    rows = lambda: mx.queue("--dead") + mx.queue()
    wait_for(lambda: any("forged" in str(row["reason"]) for row in rows()), what="the refusal")
    refused, = rows()
    assert refused["recipients"] == ["forged@example.com"]
    assert refused["reason"] == "550 forged [127.0.0.66]"
    assert sorted(address for _, address, *_ in primary.arrivals()) == ["127.0.0.2", "127.0.0.3"]
    assert mx.server_state("m1") == "up"


def test_a_rule_that_asks_for_helo_can_leave_us_out(holdfast, exim):
    primary = exim(settings="hosts_proxy = 127.0.0.1\n", recipient="""\
  deny !condition = ${if bool{$proxy_session}}
       message = HELO $sender_helo_name""")
    mx = holdfast(backup_mx(primary.port, server="proxy = v2"))
    send(mx, "127.0.0.7")
    wait_for(lambda: len(primary.messages()) == 1, what="the message")
    with Dialogue(primary.port, source="127.0.0.5") as dialogue, pytest.raises(Refused) as refused:
        dialogue.send("bob@client.example", ["ann@example.com"], b"Subject: test\r\n\r\n")
    assert refused.value.text.startswith("HELO ")


def test_without_the_recipe_it_sees_us_and_our_received_field_tells(holdfast, exim):
    primary = exim()
    mx = holdfast(backup_mx(primary.port))
    send(mx, "127.0.0.7")
    wait_for(lambda: len(primary.messages()) == 1, what="the message")
    (_, address, _, _), = primary.arrivals()
    assert address == "127.0.0.1"
    fields = re.sub(rb"\n[ \t]+", b" ", primary.messages()[0])
    assert b"\nReceived: from client.example ([127.0.0.7]) by mx2.example.net" in fields
