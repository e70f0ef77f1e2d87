# SPDX-License-Identifier: Apache-2.0
"""R3 and R4: a chain of servers, switch-over, switch-back, and a drain that starts by itself."""

import socket
import time

import pytest

from daemon import backup_mx
from peers import free_port, wait_for


def number(n):
    return f"Subject: {n}\r\n\r\n".encode()


@pytest.mark.sanitized
def test_over_and_back(holdfast, sink):
    m1, m2 = sink(), sink()
    mx = holdfast(backup_mx(m1.port, m2.port))
    mx.send(content=number(1))
    wait_for(lambda: m1.subjects() == ["1"], 10, what="the first at m1")

    m1.stop()
    mx.send(content=number(2))
    wait_for(lambda: m2.subjects() == ["2"], 5, what="the second at m2")
    mx.send(content=number(3))
    wait_for(lambda: m2.subjects() == ["2", "3"], 5, what="the third at m2")
    assert mx.server_state("m1") in ("down", "suspect")

    m1.start()
    wait_for(lambda: mx.server_state("m1") in ("up", "recovering"), 5, what="m1 believed again")
    mx.send(content=number(4))
    wait_for(lambda: m1.subjects() == ["1", "4"], 5, what="the fourth at m1")
    assert m2.subjects() == ["2", "3"]
    mx.wait_empty()
    assert mx.log().count("switched") >= 2, "switch-over and switch-back are logged"
    used = {s["name"]: s["used"] for s in mx.status()["servers"]}
    assert used == {"m1": 2, "m2": 2}


def test_the_way_back_is_told_though_no_mail_comes(holdfast, sink):
    m1, m2 = sink(), sink()
    mx = holdfast(backup_mx(m1.port, m2.port))
    wait_for(lambda: mx.server_state("m1") == "up", 10, what="m1")
    m1.stop()
    mx.send(content=number(1))
    wait_for(lambda: m2.subjects() == ["1"], 5, what="the mail at m2")
    kinds = lambda: [alert["kind"] for alert in mx.status()["alerts"]]  # noqa: E731
    assert "switched" in kinds()
    m1.start()
    wait_for(lambda: "switched" not in kinds(), 10, what="word that all is as it should be")
    assert "from_server=m2 server=m1" in mx.log()
    assert m1.messages == []
    # What did we switch, and when?
    mx.stop()
    mx.start()
    past = mx.lines("server", "history", check=True)
    lane = "domain:example.com"
    assert [(e["from"], e["to"]) for e in past if (e["event"], e["subject"]) == ("switched", lane)] \
        == [("m1", "m2"), ("m2", "m1")]
    states = [(e["from"], e["to"]) for e in past if e["subject"] == "m1"]
    assert states[0] == ("suspect", "recovering") and ("recovering", "up") in states
    assert any(e["to"] == "down" and "refused" in e["reason"] for e in past if e["subject"] == "m1")
    assert {e["subject"] for e in mx.lines("server", "history", "m2", check=True)} == {"m2", lane}
    assert mx.tool("server", "history", "nobody", check=False).returncode == 1
    assert "m1 -> m2" in mx.tool("server", "history", lane).stdout


def test_a_server_that_answers_is_not_told_to_be_down(holdfast, sink):
    """It has refused our credentials, and must take a message to be up; but it is there."""
    def rule(stage, _session, _argument):
        return "535 5.7.8 Who are you" if stage == "MAIL" else None

    m1 = sink(rule)
    mx = holdfast(backup_mx(m1.port))
    mx.send(content=number(1))
    kinds = lambda: [alert["kind"] for alert in mx.status()["alerts"]]  # noqa: E731
    wait_for(lambda: "server" in kinds(), 10, what="word that m1 is down")
    mx.tool("queue", "discard", "--all")
    wait_for(lambda: "server" not in kinds(), 30, what="word that it is not")
    assert mx.server_state("m1") == "recovering"
    assert "credentials" in kinds()


def test_head_of_the_chain_first_always(holdfast, sink):
    """m4 in use, m2 comes back: m2, though m4 works. m1 comes back: m1."""
    hops = [sink(start=False) for _ in range(4)]
    mx = holdfast(backup_mx(*[hop.port for hop in hops]))
    hops[3].start()
    mx.send(content=number(1))
    wait_for(lambda: hops[3].subjects() == ["1"], 10, what="m4 in use")
    hops[1].start()
    wait_for(lambda: mx.server_state("m2") in ("up", "recovering"), 5, what="m2 back")
    mx.send(content=number(2))
    wait_for(lambda: hops[1].subjects() == ["2"], 5, what="m2 in use")
    hops[0].start()
    wait_for(lambda: mx.server_state("m1") in ("up", "recovering"), 5, what="m1 back")
    mx.send(content=number(3))
    wait_for(lambda: hops[0].subjects() == ["3"], 5, what="m1 in use")
    assert hops[2].messages == [] and len(hops[3].messages) == 1


def test_a_refused_server_costs_nothing_seen(holdfast, sink):
    """m1 refuses connections: messages do not wait for it."""
    m2 = sink()
    mx = holdfast(backup_mx(free_port(), m2.port))
    mx.send(content=number(0))
    wait_for(lambda: len(m2.messages) == 1, 10, what="the first at m2")
    for n in range(1, 20):
        mx.send(content=number(n))
    wait_for(lambda: len(m2.messages) == 20, 5, what="all at m2")
    assert m2.subjects() == [str(n) for n in range(20)], "in order"


def test_a_silent_server_costs_one_greeting_timeout(holdfast, sink):
    """m1 accepts connections and never greets: one time-out, not one per message."""
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen(100)
    m2 = sink()
    port = silent.getsockname()[1]
    mx = holdfast(f'server m1 {{ address = "127.0.0.1:{port}" failover = m2 '
                  f'greeting-timeout = 2s }}\n'
                  f'server m2 {{ address = "127.0.0.1:{m2.port}" }}\n'
                  "domain example.com { deliver-to = m1 }\n")
    for n in range(10):
        mx.send(content=number(n))
    started = time.monotonic()
    wait_for(lambda: len(m2.messages) == 10, 15, what="all at m2")
    assert time.monotonic() - started < 8
    mx.send(content=number(10))
    wait_for(lambda: len(m2.messages) == 11, 1.5, what="the next at m2 without a time-out")
    silent.close()


def test_all_down_then_drain_in_order(holdfast, sink):
    """200 held for 5 recipients arrive untouched by hand, in order per recipient."""
    m1 = sink(start=False)
    mx = holdfast(backup_mx(m1.port))
    with mx.dialogue() as dialogue:
        for n in range(200):
            dialogue.send("a@client.example", [f"r{n % 5}@example.com"], number(n))
    assert mx.status()["queue"]["messages"] == 200
    m1.start()
    started = time.monotonic()
    wait_for(lambda: m1.messages, 3, what="the first delivery")
    assert time.monotonic() - started < 2, "the drain starts within a second or so"
    wait_for(lambda: len(m1.messages) == 200, 20, what="all")
    for recipient in range(5):
        got = [int(s) for s, m in zip(m1.subjects(), m1.messages)
               if m.recipients == [f"r{recipient}@example.com"]]
        assert got == sorted(got)
    mx.wait_empty()
    lane = mx.status()["lanes"][0]
    assert (lane["state"], lane["deliveries"]) in (("flowing", 0), ("idle", 0))


@pytest.mark.parametrize("greeting", ["554 5.3.2 No", "421 4.3.2 Not now"])
def test_a_bad_greeting_is_a_server_failure(holdfast, sink, greeting):
    m1 = sink(lambda stage, *_: greeting if stage == "connect" else None)
    m2 = sink()
    mx = holdfast(backup_mx(m1.port, m2.port))
    mx.send(content=number(1))
    wait_for(lambda: m2.subjects() == ["1"], 10, what="the message at m2")
    assert mx.status()["dead_letters"] == 0


def test_helo_where_ehlo_is_refused(holdfast, sink):
    def rule(stage, session, argument):
        if stage == "EHLO" and argument.upper().startswith("EHLO"):
            return "500 5.5.1 What?"
        return None

    hop = sink(rule)
    mx = holdfast(backup_mx(hop.port))
    mx.send(content="Subject: ä\r\n\r\n8-bit goes unchanged\xff\r\n".encode("latin-1"))
    wait_for(lambda: len(hop.messages) == 1, 10, what="the message by HELO")
    assert hop.messages[0].content.endswith(b"\xff\r\n")


def test_several_transactions_use_one_connection(holdfast, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port))
    with mx.dialogue() as dialogue:
        for n in range(10):
            dialogue.send("a@client.example", ["ann@example.com"], number(n))
    wait_for(lambda: len(hop.messages) == 10, 10, what="all")
    assert hop.subjects() == [str(n) for n in range(10)]
    assert len({m.session for m in hop.messages}) <= 2, "connections are reused"


def test_several_recipients_in_one_transaction(holdfast, sink):
    hop = sink(start=False)
    mx = holdfast(backup_mx(hop.port))
    names = [f"r{n}@example.com" for n in range(20)]
    mx.send(recipients=names)
    assert mx.status()["queue"]["deliveries"] == 20
    hop.start()
    wait_for(lambda: sorted(hop.recipients()) == sorted(names), 10, what="all recipients")
    assert len(hop.messages) <= 3
    mx.wait_empty()


def test_connection_limit_of_a_server(holdfast, sink):
    hop = sink(start=False)
    mx = holdfast(backup_mx(hop.port, server="connections = 2"))
    for n in range(30):
        mx.send(recipients=[f"r{n}@example.com"], content=number(n))
    open_at_once = []

    def rule(stage, session, argument):
        if stage == "dot":
            open_at_once.append(len(hop.sessions))
        return None

    hop.rule = rule
    hop.start()
    wait_for(lambda: len(hop.messages) == 30, 15, what="all")
    assert max(open_at_once) <= 3  # two that deliver, and a probe on its way


def test_a_server_that_connects_to_us_is_probed_at_once(holdfast, sink):
    """R3: with slow probes, a connection from the server's own address starts the drain."""
    hop = sink(start=False)
    mx = holdfast(backup_mx(hop.port, server="probe-interval = 60s"))
    mx.send()
    wait_for(lambda: mx.server_state("m1") == "down", what="m1 down")
    hop.start()
    time.sleep(1)  # a client is told of once a second
    mx.dialogue().close()
    wait_for(lambda: len(hop.messages) == 1, 5, what="the message")


def test_mail_that_the_primary_sends_back_is_put_off(holdfast, sink):
    """R5: a half-repaired primary that routes back to us must not bounce mail by hop count."""
    hop = sink()
    mx = holdfast(backup_mx(hop.port))
    mx.send(content=number(1))
    wait_for(lambda: hop.subjects() == ["1"], 10, what="the first at the primary")
    wait_for(lambda: mx.server_state("m1") == "up", 10, what="m1 up")
    code, text = mx.send(content=hop.messages[0].content, check=False)
    assert (code, text.split()[0]) == (451, "4.4.6")
    row = mx.status()["servers"][0]
    assert row["changes"] > 0 and row["before"] is not None
    assert "sends mail back to us" in mx.log()
    # Once it takes mail and keeps it, all is well.
    mx.send(content=number(2))
    wait_for(lambda: hop.subjects() == ["1", "2"], 20, what="the second at the primary")
    mx.wait_empty()


def test_server_down_and_up_by_hand(holdfast, sink):
    m1, m2 = sink(), sink()
    mx = holdfast(backup_mx(m1.port, m2.port))
    mx.tool("server", "down", "m1")
    assert mx.server_state("m1") == "disabled"
    mx.send(content=number(1))
    wait_for(lambda: m2.subjects() == ["1"], 10, what="the message at m2")
    mx.stop()
    mx.start()
    wait_for(lambda: mx.server_state("m1") == "disabled", 5, what="by hand until by hand")
    mx.tool("server", "up", "m1")
    wait_for(lambda: mx.server_state("m1") == "up", 5, what="m1 up")
    mx.send(content=number(2))
    wait_for(lambda: m1.subjects() == ["2"], 5, what="the message at m1")
    (row,) = [s for s in mx.lines("server", "list") if s["name"] == "m1"]
    assert row["state"] == "up" and row["failover"] == "m2"
    assert mx.tool("server", "up", "nosuch", check=False).returncode == 1
