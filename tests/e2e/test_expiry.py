# SPDX-License-Identifier: Apache-2.0
"""The clock that stops (R7, R8): what waits too long, in seconds instead of days."""

import time

from daemon import backup_mx
from peers import free_port, wait_for
from test_outcomes import refuse, relay

SHORT = "keep = 3s  keep-max = 1h"


def events(mx, message_id):
    return [event["event"] for event in mx.lines("trace", message_id)]


def test_an_outage_ends_no_mail_and_the_time_goes_on_after_it(holdfast, sink):
    port = free_port()
    mx = holdfast(backup_mx(port, more=f"{SHORT}  retry = {{1h}}"))
    mx.send()
    time.sleep(5)  # longer than keep: nobody was there to take it
    (row,) = mx.queue()
    (shown,) = mx.lines("queue", "show", row["id"])
    assert shown["envelope"]["elapsed"] == 0
    assert shown["deliveries"][0]["expires"] > (time.time() + 3000) * 1000  # keep-max
    sink(refuse("RCPT", "450 4.2.1 Not now"), port=port)
    wait_for(lambda: mx.status()["dead_letters"] == 1, 30, what="a dead letter")
    (dead,) = mx.lines("queue", "list", "--dead")
    assert dead["reason"].startswith("not delivered in 3 s (keep); last: 450 4.2.1")
    assert "dead" in events(mx, row["id"]) and "bounced" not in events(mx, row["id"])


def test_a_restart_keeps_what_has_elapsed(holdfast, sink):
    hop = sink(refuse("RCPT", "450 4.2.1 Not now"))
    mx = holdfast(backup_mx(hop.port, more="keep = 1h  retry = {1h}"))
    mx.send()
    (row,) = mx.queue()

    def elapsed():
        return mx.lines("queue", "show", row["id"])[0]["envelope"]["elapsed"]
    wait_for(lambda: elapsed() >= 3, 20, what="three seconds on the odometer")
    assert mx.tool("server", "down", "m1").returncode == 0  # it stands, and that is written
    before = elapsed()
    mx.stop()
    mx.start()
    wait_for(lambda: not mx.status()["loading"], 10, what="the journal")
    assert before <= elapsed() + 1 and elapsed() <= before + 1


def test_mail_of_a_relay_is_returned_whatever_the_state_of_its_servers(holdfast, sink):
    hop = sink(refuse("RCPT", "450 4.2.1 Not now", only="far@"))
    mx = holdfast(relay(hop.port, "keep = 3s  retry = {1h}"))
    mx.send(recipients=["far@away.example"], sender="bob@client.example")
    wait_for(lambda: len(hop.messages) == 1, 30, what="the notice")
    (notice,) = hop.messages
    text = notice.content.decode()
    assert "4.4.7" in text and "not delivered in 3 s" in text
    mx.wait_empty()


def test_a_dead_letter_goes_in_its_time(holdfast, sink):
    hop = sink(refuse("RCPT", "550 5.1.1 Unknown", only="nobody@"))
    mx = holdfast(backup_mx(hop.port), top="dead-letter-keep = 4s\n")
    mx.send(recipients=["eve@example.com"])
    wait_for(lambda: mx.server_state("m1") == "up", 10, what="m1 up")
    mx.send(recipients=["nobody@example.com"])
    wait_for(lambda: mx.status()["dead_letters"] == 1, 10, what="a dead letter")
    (dead,) = mx.lines("queue", "list", "--dead")
    wait_for(lambda: mx.status()["dead_letters"] == 0, 30, what="its end")
    last = mx.lines("trace", dead["id"])[-1]
    assert last["event"] == "discarded" and "dead-letter-keep" in last["reason"]
