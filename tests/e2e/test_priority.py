# SPDX-License-Identifier: Apache-2.0
"""What a client may ask for beside a message: priority (RFC 6710) and a time of delivery (RFC
2852)."""

import random
import re
import time

import pytest

from daemon import backup_mx
from peers import free_port, wait_for
from sink import EXTENSIONS
from test_outcomes import relay

PROMISES = (*EXTENSIONS, "DELIVERBY 2", "MT-PRIORITY MIXER")


def events(mx, message_id):
    return [event["event"] for event in mx.lines("trace", message_id)]


def routes(port, out):
    return backup_mx(port, server="connections = 1") + relay(out)


def content(subject):
    return f"Subject: {subject}\r\n\r\nHello.\r\n".encode()


def test_recipients_go_by_priority_and_their_own_mail_by_acceptance(holdfast, sink):
    port = free_port()
    mx = holdfast(routes(port, free_port()))
    rng = random.Random(6710)
    sent = []
    with mx.dialogue() as client:
        assert "MT-PRIORITY" in client.extensions
        for number in range(60):
            recipient = f"r{rng.randrange(12)}@example.com"
            priority = rng.choice([-9, -4, 0, 0, 0, 4, 9])
            client.send("bob@client.example", [recipient], content(number),
                        mail=f" MT-PRIORITY={priority}" if priority or number % 2 else "")
            sent.append((recipient, priority))
    shown = [mx.lines("queue", "show", row["id"])[0] for row in mx.queue()]
    assert [row["envelope"]["priority"] for row in shown] == [priority for _, priority in sent]
    mx.kill()  # what was asked for is in the journal
    mx.start()
    hop = sink(port=port, extensions=PROMISES)
    mx.wait_empty()
    order = [int(subject) for subject in hop.subjects()]
    assert sorted(order) == list(range(60))
    for recipient in {recipient for recipient, _ in sent}:
        own = [number for number in order if sent[number][0] == recipient]
        assert own == sorted(own), recipient
    # What goes before an urgent one of its own recipient goes as early, so this is all that can be
    # said of where they stand.
    urgent = [order.index(number) for number, (_, priority) in enumerate(sent)
                     if priority == 9]
    low = [order.index(number) for number, (_, priority) in enumerate(sent)
                   if priority == -9]
    assert sum(urgent) / len(urgent) < sum(low) / len(low)
    for message in hop.messages:
        number = int(message.content.split(b"Subject: ")[1].split(b"\r\n")[0])
        said = re.search(r" MT-PRIORITY=(\S+)", message.mail)
        assert (int(said.group(1)) if said else 0) == sent[number][1]
        assert (b"PRIORITY %d" % sent[number][1] in message.content.split(b"Subject")[0]) == \
            bool(sent[number][1] or number % 2)


def test_distinct_recipients_go_strictly_by_priority(holdfast, sink):
    port = free_port()
    mx = holdfast(routes(port, free_port()))
    sent = [0, 3, -2, 9, 3, 0, -9, 9, 1]
    with mx.dialogue() as client:
        for number, priority in enumerate(sent):
            client.send("bob@client.example", [f"r{number}@example.com"], content(number),
                        mail=f" MT-PRIORITY={priority}")
    hop = sink(port=port, extensions=PROMISES)
    mx.wait_empty()
    order = [int(subject) for subject in hop.subjects()]
    canary = order[0]
    rest = sorted((n for n in range(len(sent)) if n != canary), key=lambda n: (-sent[n], n))
    assert order[1:] == rest


def test_what_a_stranger_asks_for_does_not_count(holdfast, sink):
    hop = sink(extensions=PROMISES)
    mx = holdfast(backup_mx(hop.port))
    with mx.dialogue() as client:
        assert not {"MT-PRIORITY", "DELIVERBY"} & set(client.extensions)
        assert client.say("MAIL FROM:<a@b.example> MT-PRIORITY=9")[0] == 555
        assert client.say("MAIL FROM:<a@b.example> BY=60;R")[0] == 555


def late(mx, mode, seconds, recipient="ann@example.com", **more):
    """Sends one that has so much time; its id."""
    with mx.dialogue() as client:
        _, text = client.send("bob@client.example", [recipient], content("late"),
                              mail=f" BY={seconds};{mode}", **more)
    return text.split()[-1]


@pytest.mark.sanitized
def test_what_is_left_of_the_time_goes_along(holdfast, sink):
    port = free_port()
    mx = holdfast(routes(port, free_port()))
    late(mx, "RT", 600)
    late(mx, "N", 600)
    late(mx, "N", -600)
    (first, _, _) = mx.queue()
    (shown,) = mx.lines("queue", "show", first["id"])
    assert shown["envelope"]["deliver_by_mode"] == "return"
    assert shown["envelope"]["deliver_by_trace"] is True
    assert shown["deliveries"][0]["expires"] == shown["envelope"]["deliver_by"]
    time.sleep(2)
    mx.kill()
    mx.start()
    hop = sink(port=port, extensions=PROMISES)
    wait_for(lambda: len(hop.messages) == 3, 20, what="all three")
    said = [re.search(r" BY=(-?\d+);(\w+)", message.mail).groups() for message in hop.messages]
    assert [mode for _, mode in said] == ["RT", "N", "N"]
    assert all(590 <= int(left) <= 598 for left, _ in said[:2])
    assert -620 <= int(said[2][0]) <= -602


@pytest.mark.sanitized
def test_mail_is_returned_when_its_time_is_over(holdfast, sink):
    notices = sink()
    mx = holdfast(routes(free_port(), notices.port))
    began = time.monotonic()
    message = late(mx, "R", 3)
    wait_for(lambda: len(notices.messages) == 1, 20, what="the notice")
    assert 2.5 < time.monotonic() - began < 8
    text = notices.messages[0].content.decode()
    for line in ("Action: failed", "Status: 5.4.7", "Deliver-By-Date: "):
        assert line in text, text
    assert "not delivered by the time that its sender set" in text
    assert notices.messages[0].sender == ""
    assert "bounced" in events(mx, message)


def test_the_sender_of_late_mail_is_told_once_and_it_is_delivered(holdfast, sink):
    notices, port = sink(), free_port()
    mx = holdfast(routes(port, notices.port))
    late(mx, "N", 2)
    late(mx, "N", 2, recipient="quiet@example.com", rcpt=" NOTIFY=NEVER")
    wait_for(lambda: len(notices.messages) == 1, 20, what="the notice")
    text = notices.messages[0].content.decode()
    assert "Action: delayed" in text and "Status: 4.4.7" in text and "ann@example.com" in text
    mx.kill()
    mx.start()
    time.sleep(3)
    hop = sink(port=port, extensions=PROMISES)
    wait_for(lambda: len(hop.messages) == 2, 20, what="both")
    mx.wait_empty()
    assert len(notices.messages) == 1


def test_a_server_that_promises_nothing(holdfast, sink):
    """Mode R does not go there; of mode N the sender is told that nobody promises any more."""
    hop, notices = sink(), sink()
    mx = holdfast(routes(hop.port, notices.port))
    returned = late(mx, "R", 600)
    wait_for(lambda: len(notices.messages) == 1, 20, what="the notice")
    text = notices.messages[0].content.decode()
    assert "Action: failed" in text and "Status: 5.4.7" in text and "DELIVERBY" in text
    assert not hop.messages and "bounced" in events(mx, returned)
    late(mx, "N", 600)
    wait_for(lambda: len(notices.messages) == 2, 20, what="another notice")
    assert "Action: relayed" in notices.messages[1].content.decode()
    assert len(hop.messages) == 1 and " BY=" not in hop.messages[0].mail


def test_a_time_that_the_server_cannot_keep(holdfast, sink):
    hop, notices = sink(extensions=(*EXTENSIONS, "DELIVERBY 300")), sink()
    mx = holdfast(routes(hop.port, notices.port))
    late(mx, "R", 200)
    wait_for(lambda: len(notices.messages) == 1, 20, what="the notice")
    late(mx, "R", 400)
    wait_for(lambda: len(hop.messages) == 1, 20, what="the one that has time")


def test_both_move_to_another_node(holdfast, sink, tmp_path):
    port = free_port()
    mx = holdfast(routes(free_port(), free_port()))
    late(mx, "RT", 900, rcpt=" NOTIFY=FAILURE")
    with mx.dialogue() as client:
        client.send("bob@client.example", ["ann@example.com"], content("low"),
                    mail=" MT-PRIORITY=-3 BY=800;N")
    assert mx.tool("queue", "export", str(tmp_path / "queue"), "--all").returncode == 0
    other = holdfast(routes(port, free_port()), name="other")
    assert other.tool("queue", "import", str(tmp_path / "queue")).returncode == 0
    before = [mx.lines("queue", "show", row["id"])[0]["envelope"] for row in mx.queue()]
    after = [other.lines("queue", "show", row["id"])[0]["envelope"] for row in other.queue()]
    keys = ("priority", "deliver_by", "deliver_by_mode", "deliver_by_trace")
    assert [[row[key] for key in keys] for row in before] == \
        [[row[key] for key in keys] for row in after]
    hop = sink(port=port, extensions=PROMISES)
    wait_for(lambda: len(hop.messages) == 2, 20, what="both")
    assert " MT-PRIORITY=-3" in hop.messages[1].mail and ";RT" in hop.messages[0].mail
