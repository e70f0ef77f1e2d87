# SPDX-License-Identifier: Apache-2.0
"""Logins told: in the trace, few of a storm; and an alert while somebody must wait."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from client import Dialogue
from odmr import SITE, Caller, listener
from peers import free_port, wait_for
from submission import ANN, plain
from test_hooks import recorder, runs


def guess(server, source, user=ANN, password="wrong"):
    with Dialogue(server.port, source=source, timeout=60) as client:
        return client.say(plain(user, password))[0]


def trace(mx, what, count):
    """The events of it, when there are so many."""
    return wait_for(lambda: (rows := mx.lines("trace", what, check=False)) and len(rows) >= count
                    and rows, 30, what=f"{count} events")


def standing(mx):
    return sorted((alert["kind"], alert.get("subject")) for alert in mx.status()["alerts"])


@pytest.mark.sanitized
def test_logins_are_explained_in_the_trace(submission):
    """By the user and by the client, good ones and failed ones; a password is in none."""
    server = submission()
    assert guess(server, "127.0.0.9", password="guessed") == 535
    assert guess(server, "127.0.0.9", user="nobody@example.org") == 535
    server.logged_in().close()
    rows = trace(server.mx, ANN, 2)
    assert [(row["event"], row["user"], row["client"], row["reason"]) for row in rows] == [
        ("denied", ANN, "127.0.0.9", "wrong; by password, listener users"),
        ("login", ANN, "127.0.0.1", "by password, listener users")]
    assert all(row["sender"] is None and row["left_out"] == 0 for row in rows)
    assert [row["user"] for row in trace(server.mx, "127.0.0.9", 2)] == [ANN, "nobody@example.org"]
    shown = server.mx.tool("trace", ANN).stdout
    assert "denied" in shown and "by 127.0.0.9: wrong; by password" in " ".join(shown.split())
    assert "guessed" not in shown + server.mx.log()


def test_a_storm_of_guesses_leaves_ten_events_a_minute(submission):
    server = submission()
    with ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(lambda i: guess(server, "127.0.0.9", f"u{i}@example.org"), range(40)))
    assert set(codes) <= {535, 454}
    wait_for(lambda: server.counter("holdfast_logins_left_out_total") >= 30, 30, what="the count")
    rows = trace(server.mx, "127.0.0.9", 10)
    denied = [row for row in rows if row["user"]]
    assert len(denied) <= 20  # a minute may end between two of them
    assert len(denied) + server.counter("holdfast_logins_left_out_total") == 40


def test_a_site_that_calls_is_traced_too(holdfast, place):
    port = free_port()
    mx = holdfast(listener(place, port) + SITE)
    with Caller(port) as caller:
        assert caller.login("joe", "sesame")[0] == 535
        assert caller.login("joe", "secret")[0] == 235
    assert [(row["event"], row["reason"]) for row in trace(mx, "joe", 2)] == [
        ("denied", "wrong; by cram, listener fetch"), ("login", "by cram, listener fetch")]


def test_who_must_wait_is_an_alert(submission, place):
    """A client and an account, each told once, for an hour or until those who know of the wait have
    ended; names that nobody has are not told."""
    program, told = recorder(place)
    server = submission(more="alert people { on = {login-account, login-client} "
                             f'exec = "{program}" }}\n')
    with ThreadPoolExecutor(4) as pool:  # more of one client would be too many at once
        codes = list(pool.map(lambda i: guess(server, "127.0.0.9"), range(11)))
        assert codes == [535] * 11
        codes = list(pool.map(lambda i: guess(server, f"127.0.1.{i}"), range(1, 11)))
        assert codes == [535] * 10
        assert guess(server, "127.0.0.9", password="secret") == 454
        assert guess(server, "127.0.1.77", password="secret") == 454
    both = [("login-account", ANN), ("login-client", "127.0.0.9")]
    wait_for(lambda: set(both) <= {(run["HOLDFAST_KIND"], run["HOLDFAST_SUBJECT"])
                                   for run in runs(told)}, 30, what="the hook")
    wait_for(lambda: guess(server, "127.0.1.77", password="secret") == 235, 120, 1,
             what="the end of the wait")
    assert standing(server.mx) == both
    os.kill(server.mx.processes()["holdfast-login"][0], signal.SIGKILL)
    wait_for(lambda: standing(server.mx) == [], 60, 0.5, what="the end of both")
    wait_for(lambda: len(runs(told)) == 4, 30, what="word of the ends")
    assert sorted((run["HOLDFAST_KIND"], run["HOLDFAST_SUBJECT"], run["HOLDFAST_EDGE"])
                  for run in runs(told)) == sorted(
        (*alert, edge) for alert in both for edge in ("raised", "ended"))
    assert server.mx.log().count(" alert kind=login-") == 2


def test_a_site_is_no_friend_of_the_user_of_its_name(submission, place):
    """Good logins as the site do not let the same client guess at the user more often."""
    port = free_port()
    server = submission(more=listener(place, port) + SITE)
    server.add("joe", "sesame", "joe@example.org")
    wait_for(lambda: guess(server, "127.0.0.3", "joe", "sesame") == 235, 60, what="the user")
    with Caller(port) as caller:
        assert caller.login("joe", "secret")[0] == 235
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda i: guess(server, "127.0.0.1", "joe"), range(11))) == [535] * 11
    assert guess(server, "127.0.0.1", "joe") == 454
