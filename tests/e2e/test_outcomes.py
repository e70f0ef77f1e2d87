# SPDX-License-Identifier: Apache-2.0
"""What a reply means for a delivery (R4's table, R2, R8): deferred, dead letter, DSN, in doubt."""

import email
import email.policy
import time
import urllib.request

import pytest

import exposition
from daemon import backup_mx
from peers import free_port, wait_for
from sink import CLOSE

RETRY_SOON = "retry = {1s}"


def relay(port, more=""):
    """Outgoing mail of this machine by one server, which takes bounces too."""
    return (f'server out {{ address = "127.0.0.1:{port}" }}\n'
            f"relay outgoing {{ from = {{127.0.0.0/8}} deliver-to = out {more} }}\n")


def refuse(stage_refused, reply, only=None, times=10**9):
    """A rule that answers a stage with `reply`, `times` times, where `only` is in the argument."""
    left = [times]

    def rule(stage, session, argument):
        if stage != stage_refused or left[0] == 0:
            return None
        if only is not None and only not in str(argument):
            return None
        left[0] -= 1
        return reply
    return rule


# ---- 4xx -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA", "dot"])
def test_4xx_is_tried_again_by_the_schedule(holdfast, sink, stage):
    hop = sink(refuse(stage, "450 4.2.0 Not yet", times=2))
    mx = holdfast(backup_mx(hop.port, more=RETRY_SOON))
    mx.send()
    wait_for(lambda: any(row["reason"] for row in mx.queue()), 10, what="a deferral")
    (row,) = mx.queue()
    assert "4.2.0 Not yet" in row["reason"] and row["attempts"] >= 1
    assert row["next"] is None or row["next"] / 1000 < time.time() + 5
    wait_for(lambda: len(hop.messages) == 1, 15, what="the message after two deferrals")
    mx.wait_empty()
    events = [e["event"] for e in mx.lines("trace", row["id"])]
    assert events.count("deferred") == 2 and events[-1] == "delivered"


def test_4xx_of_one_recipient_holds_up_no_other(holdfast, sink):
    hop = sink(refuse("RCPT", "450 4.2.1 Full", only="full@"))
    mx = holdfast(backup_mx(hop.port, more="retry = {60m}"))
    mx.send(recipients=["eve@example.com"])  # m1 is up now: its rise makes nothing due any more
    wait_for(lambda: mx.server_state("m1") == "up", 10, what="m1 up")
    mx.send(recipients=["ann@example.com", "full@example.com", "ben@example.com"])
    wait_for(lambda: {"ann@example.com", "ben@example.com"} <= set(hop.recipients()), 10,
             what="the others")
    wait_for(lambda: [(row["recipients"], row["state"]) for row in mx.queue()]
             == [(["full@example.com"], "deferred")], 5, what="one that waits")
    hop.rule = lambda *_: None
    mx.tool("queue", "retry", "--recipient", "full@example.com")
    wait_for(lambda: "full@example.com" in hop.recipients(), 5, what="the deferred one")
    mx.wait_empty()


def test_too_many_recipients_go_on_in_the_next_transaction(holdfast, sink):
    seen = {}

    def rule(stage, session, argument):
        if stage == "MAIL":
            seen[session] = 0
        if stage == "RCPT":
            seen[session] += 1
            if seen[session] > 3:
                return "452 4.5.3 Too many recipients"
        return None

    hop = sink(rule)
    mx = holdfast(backup_mx(hop.port, more="retry = {60m}"))
    names = [f"r{n}@example.com" for n in range(10)]
    mx.send(recipients=names)
    wait_for(lambda: sorted(hop.recipients()) == sorted(names), 10, what="all recipients")
    mx.wait_empty()


# ---- 5xx -----------------------------------------------------------------------------------


@pytest.fixture
def dead_letter(holdfast, sink):
    """A daemon with one dead letter: (mx, hop, its row)."""
    hop = sink(refuse("RCPT", "550 5.1.1 No such user", only="gone@"))
    mx = holdfast(backup_mx(hop.port, server="hold-5xx-after-recovery = 0s"))
    mx.send(recipients=["gone@example.com"], content=b"Subject: dead\r\n\r\nKept.\r\n")
    wait_for(lambda: mx.status()["dead_letters"] == 1, 20, what="a dead letter")
    (row,) = mx.queue("--dead")
    return mx, hop, row


def test_5xx_of_domain_mail_is_a_dead_letter_and_no_bounce(dead_letter):
    mx, hop, row = dead_letter
    assert row["recipients"] == ["gone@example.com"]
    assert "5.1.1 No such user" in row["reason"]
    status = mx.status()
    assert status["queue"]["messages"] == 0 and mx.queue() == []
    time.sleep(0.5)
    assert hop.messages == [], "nothing was sent to a sender who may be forged"
    mx.kill()
    mx.start()
    wait_for(lambda: mx.status()["dead_letters"] == 1, 10, what="the dead letter after kill -9")
    assert mx.queue("--dead")[0]["id"] == row["id"]


def test_dead_letter_leaves_a_dying_host_too(dead_letter, holdfast, place):
    old, hop, row = dead_letter
    old.tool("queue", "export", place / "export", "--all")
    old.kill()
    new = holdfast(backup_mx(hop.port), name="new")
    new.tool("queue", "import", place / "export")
    assert new.queue() == []
    assert [(r["id"], r["reason"]) for r in new.queue("--dead")] == [(row["id"], row["reason"])]


def test_dead_letter_released(dead_letter):
    mx, hop, row = dead_letter
    hop.rule = lambda *_: None
    mx.tool("queue", "release", row["id"])
    wait_for(lambda: hop.recipients() == ["gone@example.com"], 10, what="the released letter")
    wait_for(lambda: mx.status()["dead_letters"] == 0, 5)
    assert hop.messages[0].content.endswith(b"Subject: dead\r\n\r\nKept.\r\n")


def test_dead_letter_redirected_to_an_address(dead_letter):
    mx, hop, row = dead_letter
    mx.tool("queue", "redirect", row["id"], "--to", "ann@example.com")
    wait_for(lambda: hop.recipients() == ["ann@example.com"], 10, what="the redirected letter")
    wait_for(lambda: mx.status()["dead_letters"] == 0, 5)


def test_dead_letter_discarded(dead_letter):
    mx, hop, row = dead_letter
    mx.tool("queue", "discard", row["id"])
    assert mx.status()["dead_letters"] == 0 and mx.queue("--dead") == []
    mx.kill()
    mx.start()
    time.sleep(0.5)
    assert mx.status()["dead_letters"] == 0 and hop.messages == []


def test_bounce_by_hand_obeys_r8(holdfast, sink):
    """queue bounce of unverified mail is refused; --force sends it by the bounce relay."""
    hop = sink(refuse("RCPT", "550 5.1.1 No such user", only="gone@"))
    out = sink()
    mx = holdfast(f'server m1 {{ address = "127.0.0.1:{hop.port}" '
                  "hold-5xx-after-recovery = 0s }\n"
                  f'server out {{ address = "127.0.0.1:{out.port}" }}\n'
                  "domain example.com { deliver-to = m1 }\n"
                  "relay outgoing { from = {192.0.2.0/24} deliver-to = out }\n")
    mx.send(recipients=["gone@example.com"])
    wait_for(lambda: mx.status()["dead_letters"] == 1, 20, what="a dead letter")
    (row,) = mx.queue("--dead")
    assert mx.tool("queue", "bounce", row["id"], check=False).returncode == 1
    assert mx.status()["dead_letters"] == 1
    mx.tool("queue", "bounce", row["id"], "--force")
    wait_for(lambda: out.recipients() == ["bob@client.example"], 10, what="the bounce")
    assert mx.status()["dead_letters"] == 0


@pytest.mark.parametrize("stage", ["RCPT", "DATA", "dot"])
def test_5xx_of_relay_mail_makes_a_dsn(holdfast, sink, stage):
    """RFC 3464 and 6522, with the original's header, null reverse-path, in one group with its
    fate."""
    def rule(at, session, argument):
        if at == "MAIL":
            session.is_dsn = "<>" in argument
        if at == stage and not session.is_dsn:
            return "550 5.7.1 Not wanted"
        return None

    hop = sink(rule)
    mx = holdfast(relay(hop.port))
    mx.send(recipients=["far@else.example"], sender="bob@client.example",
            content=b"From: bob\r\nSubject: original\r\nMessage-ID: <o@x>\r\n\r\nsecret body\r\n",
            mail=" RET=HDRS ENVID=QQ314159", rcpt=" ORCPT=rfc822;far@else.example")
    wait_for(lambda: len(hop.messages) == 1, 20, what="the DSN")
    dsn = hop.messages[0]
    assert (dsn.sender, dsn.recipients) == ("", ["bob@client.example"])
    parsed = email.message_from_bytes(dsn.content, policy=email.policy.SMTP)
    assert parsed.get_content_type() == "multipart/report"
    assert parsed.get_param("report-type") == "delivery-status"
    assert parsed["Auto-Submitted"].startswith("auto-")
    assert parsed["To"] and parsed["Date"] and parsed["Message-ID"]
    human, report, original = parsed.iter_parts()
    assert human.get_content_type() == "text/plain" and "far@else.example" in human.get_content()
    assert report.get_content_type() == "message/delivery-status"
    message_fields, recipient_fields = report.get_payload()
    assert message_fields["Reporting-MTA"] == "dns; mx2.example.net"
    assert message_fields["Original-Envelope-Id"] == "QQ314159"
    assert recipient_fields["Final-Recipient"].replace(" ", "") == "rfc822;far@else.example"
    assert recipient_fields["Original-Recipient"].replace(" ", "") == "rfc822;far@else.example"
    assert recipient_fields["Action"] == "failed"
    assert recipient_fields["Status"] == "5.7.1"
    assert "550 5.7.1 Not wanted" in recipient_fields["Diagnostic-Code"]
    assert original.get_content_type() in ("text/rfc822-headers", "message/rfc822-headers")
    assert b"Subject: original" in bytes(original) and b"secret body" not in dsn.content
    mx.wait_empty()


def test_notify_success_is_answered_where_the_next_hop_has_no_dsn(holdfast, sink):
    """RFC 3461 5.2.2: we tell that it was passed on; a next hop with DSN tells it itself."""
    for extensions in (("PIPELINING", "8BITMIME"), ("PIPELINING", "DSN")):
        hop = sink(extensions=extensions)
        mx = holdfast(relay(hop.port))
        mx.send(recipients=["far@else.example"], sender="bob@client.example",
                content=b"From: bob\r\nSubject: original\r\n\r\nbody\r\n",
                rcpt=" NOTIFY=SUCCESS,FAILURE")
        told = "DSN" not in extensions
        wait_for(lambda: len(hop.messages) == 1 + told, 20, what="what is due")
        mx.wait_empty()
        assert len(hop.messages) == 1 + told
        if told:
            dsn = hop.messages[1]
            assert (dsn.sender, dsn.recipients) == ("", ["bob@client.example"])
            assert b"Action: relayed" in dsn.content and b"Status: 2." in dsn.content
        else:
            assert "NOTIFY=SUCCESS,FAILURE" in hop.messages[0].rcpt[0]
        mx.stop()


def test_no_dsn_for_a_null_sender(holdfast, sink):
    hop = sink(refuse("RCPT", "550 5.1.1 No"))
    mx = holdfast(relay(hop.port))
    mx.send(recipients=["far@else.example"], sender="")
    wait_for(lambda: mx.status()["dead_letters"] == 1, 20, what="a dead letter")
    assert hop.messages == []


def test_notify_never_is_obeyed(holdfast, sink):
    hop = sink(refuse("RCPT", "550 5.1.1 No", only="far@"))
    mx = holdfast(relay(hop.port))
    mx.send(recipients=["far@else.example"], rcpt=" NOTIFY=NEVER")
    time.sleep(0.5)
    mx.wait_empty()
    assert hop.messages == []


# ---- in doubt ------------------------------------------------------------------------------


def test_lost_after_the_dot_is_in_doubt_and_goes_back_to_the_same_server(holdfast, sink):
    """R2: the same bytes, the same server; not to the next one of the chain."""
    lost = []

    def rule(stage, session, argument):
        if stage == "dot" and not lost:
            lost.append(argument)
            return CLOSE
        return None

    m1, m2 = sink(rule), sink()
    mx = holdfast(backup_mx(m1.port, m2.port, more=RETRY_SOON))
    mx.send(content=b"Subject: doubt\r\nMessage-ID: <d@x>\r\n\r\n")
    wait_for(lambda: mx.status()["queue"].get("in_doubt") == 1, 10, what="in doubt")
    wait_for(lambda: len(m1.messages) == 1, 20, what="the message at m1 again")
    assert m1.messages[0].content == lost[0].content
    assert m2.messages == []
    mx.wait_empty()


def test_it_is_in_doubt_as_long_as_that_lasts(holdfast, sink):
    """Its server stays away: it waits for that one alone, and everything that shows it says so."""
    def rule(stage, session, argument):
        if stage == "dot":
            m1.stopped.wait(2)
            return CLOSE
        return None

    m1, m2 = sink(rule), sink()
    mx = holdfast(backup_mx(m1.port, m2.port, more=RETRY_SOON)
                  + 'server shelf { address = "127.0.0.1:1" }\n')
    wait_for(lambda: mx.server_state("m1") == "up", 10, what="m1")
    mx.send()
    wait_for(lambda: [row["state"] for row in mx.queue()] == ["in_flight"], 10, what="the dot")
    m1.stop()
    wait_for(lambda: mx.server_state("m1") == "down", 10, what="m1's end")
    wait_for(lambda: any(lane["doubt"] == "m1" for lane in mx.status()["lanes"]), 20,
             what="the second try")
    # Another is redirected by hand: a third lane of the route.
    m2.stop()
    wait_for(lambda: mx.server_state("m2") == "down", 10, what="m2's end")
    mx.send(recipients=("eve@example.com",))
    mx.tool("queue", "redirect", "--recipient", "eve@example.com", "--to", "shelf")
    status = mx.status()
    assert status["queue"]["in_doubt"] == 1
    assert "in-doubt" in [alert["kind"] for alert in status["alerts"]]
    lanes = {(lane["redirect_to"], lane["doubt"]): lane for lane in status["lanes"]}
    assert set(lanes) == {(None, None), (None, "m1"), ("shelf", None)}
    assert "m1 may have it; others get it from " in lanes[None, "m1"]["reason"]
    row = next(row for row in mx.queue() if row["recipients"] == ["ann@example.com"])
    assert row["state"] == "in_doubt" and row["server"] == "m1"
    assert 600 < row["doubt_until"] / 1000 - time.time() < 901
    shown = mx.tool("status").stdout
    assert "domain:example.com in doubt" in shown and "domain:example.com to shelf" in shown
    assert "m1 may have it, which alone gets it until" in mx.tool("queue", "list").stdout
    samples = exposition.parse(metrics(mx))
    assert exposition.value(samples, "holdfast_lane_deliveries", route="domain:example.com") == 2
    assert exposition.value(samples, "holdfast_queue_in_doubt") == 1
    assert exposition.value(samples, "holdfast_alerts_by_kind", kind="in-doubt") == 1
    assert exposition.value(samples, "holdfast_alerts_by_kind", kind="server") >= 2
    since = exposition.value(samples, "holdfast_server_state_since_seconds", server="m1")
    assert 0 <= time.time() - since < 60
    assert exposition.value(samples, "holdfast_server_transitions_total", server="m1") >= 2
    assert exposition.value(samples, "holdfast_lane_stopped_since_seconds",
                            route="domain:example.com") >= since
    m1.rule = lambda stage, session, argument: None
    m1.start()
    wait_for(lambda: len(m1.messages) == 1, 20, what="the message at m1 again")
    wait_for(lambda: mx.status()["queue"]["in_doubt"] == 0, 10, what="its end")
    assert m2.messages == []


def metrics(mx):
    with urllib.request.urlopen(f"http://127.0.0.1:{mx.http_port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def test_421_to_the_dot_is_a_refusal_not_a_doubt(holdfast, sink):
    hop = sink(refuse("dot", "421 4.3.2 Going down", times=1))
    mx = holdfast(backup_mx(hop.port, more=RETRY_SOON))
    mx.send()
    wait_for(lambda: len(hop.messages) == 1, 20, what="the message")
    events = [e["event"] for e in mx.lines("trace", "ann@example.com")]
    assert "in_doubt" not in events and "deferred" in events


def test_crash_between_dot_and_reply_is_in_doubt(holdfast, sink):
    """The attempt note outlives us: after kill -9 the delivery is in doubt, not forgotten."""
    reached = []

    def rule(stage, session, argument):
        if stage == "dot" and not reached:
            reached.append(argument)
            hop.stopped.wait(3)
            return CLOSE
        return None

    hop = sink(rule)
    mx = holdfast(backup_mx(hop.port, more=RETRY_SOON))
    mx.send()
    wait_for(lambda: reached, 10, what="the dot at the next hop")
    (row,) = mx.queue()
    mx.kill()
    mx.start()
    wait_for(lambda: len(hop.messages) == 1, 20, what="the message, tried again")
    mx.wait_empty()
    events = [e["event"] for e in mx.lines("trace", row["id"])]
    assert "in_doubt" in events and events[-1] == "delivered", events


# ---- LMTP ----------------------------------------------------------------------------------


def lmtp(port, more=""):
    return (f'server box {{ address = "127.0.0.1:{port}" protocol = lmtp '
            "hold-5xx-after-recovery = 0s }\n"
            f"domain example.com {{ deliver-to = box {more} }}\n")


def test_lmtp_replies_count_per_recipient(holdfast, sink):
    def rule(stage, session, argument):
        if stage == "recipient":
            return {"late@example.com": "450 4.2.1 Later",
                    "gone@example.com": "550 5.1.1 Gone"}.get(argument)
        return None

    hop = sink(rule, lmtp=True)
    mx = holdfast(lmtp(hop.port, "retry = {60m}"))
    mx.send(recipients=["ann@example.com", "late@example.com", "gone@example.com"])
    wait_for(lambda: hop.recipients() == ["ann@example.com"], 10, what="the good one")
    wait_for(lambda: mx.status()["dead_letters"] == 1, 20, what="the dead one")
    (row,) = mx.queue()
    assert row["recipients"] == ["late@example.com"] and "4.2.1" in row["reason"]
    assert len(hop.messages) == 1


def test_dovecot_by_lmtp(holdfast, dovecot):
    mx = holdfast(lmtp(dovecot.port))
    mx.send(recipients=["ann@example.com", "ben@example.com"],
            content=b"Subject: lmtp\r\n\r\n.dot\r\n")
    for user in ("ann", "ben"):
        stored = wait_for(lambda: dovecot.messages(f"{user}@example.com"), 10)
        assert stored[0].endswith(b"Subject: lmtp\n\n.dot\n")
    mx.wait_empty()


# ---- where nothing goes --------------------------------------------------------------------


def test_mail_without_its_route_is_orphaned_and_found_again(holdfast, sink):
    """R13: never MX-routed, never bounced; it waits in `orphan` until its route is back."""
    hop = sink(start=False)
    mx = holdfast(backup_mx(hop.port))
    mx.send()
    routes = backup_mx(hop.port)
    mx.configure(backup_mx(hop.port, domain="other.example"))
    mx.reload()
    wait_for(lambda: any(lane["route"] == "orphan" and lane["deliveries"] == 1
                         for lane in mx.status()["lanes"]), 10, what="the orphan lane")
    hop.start()
    time.sleep(1)
    assert hop.messages == []
    mx.configure(routes)
    mx.reload()
    wait_for(lambda: len(hop.messages) == 1, 10, what="the message with its route back")


def test_reload_is_all_or_nothing(holdfast, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port))
    good = mx.conf.read_text()
    mx.conf.write_text(good + "\nserver broken { addres = nowhere }\n")
    mx.reload()
    time.sleep(1)
    mx.send()
    wait_for(lambda: len(hop.messages) == 1, 10, what="mail under the old configuration")
    assert [s["name"] for s in mx.status()["servers"]] == ["m1"]
    mx.conf.write_text(good)
    mx.stop()


def test_stop_and_start_with_nothing_up(holdfast):
    """A daemon with no server up at all starts, takes mail and stops."""
    mx = holdfast(backup_mx(free_port()))
    mx.send()
    mx.stop()
    mx.start()
    wait_for(lambda: len(mx.queue()) == 1)
    mx.stop()
