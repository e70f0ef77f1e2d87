# SPDX-License-Identifier: Apache-2.0
"""What the settings of a cluster do to the one who tries them, he alone suffers."""

import json
import os
import signal
import subprocess

import pytest

from daemon import program
from peers import wait_for
from postgres import programs
from settings_cluster import database, history, members, put, set_text, takes, text_of

pytestmark = pytest.mark.skipif(programs() is None, reason="no PostgreSQL server on this machine")


DOOMED = 'server doomed { address = "127.0.0.1:9" }\n'


class Still:
    """A process of a daemon that stands still, and so does what waits for it."""

    def __init__(self, member, name):
        self.pids = member.processes()[f"holdfast-{name}"]
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)

    def go_on(self):
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)

    def kill(self):
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)


def begin_set(member, text):
    return subprocess.Popen([program("holdfast"), "-c", str(member.conf), "settings", "set",
                             str(put(member, "text", text))],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_trial(member):
    """All have been given what is tried, which has a warning of its own."""
    wait_for(lambda: "no route uses server 'doomed'" in member.log(), 120, what="the trial")


def two_with_the_first(members):
    n1, n2 = members.add("n1"), members.add("n2")
    set_text(n1, text_of("example.com"))
    for member in (n1, n2):
        # Also the second in which it must live with it.
        wait_for(lambda: "settings-taken version=1" in member.log(), what="the first version")
        assert takes(member, "ann@example.com")
    return n1, n2


def be_back(members):
    """As if the member that has died of a version had been given the time to come back."""
    members.database.sql("UPDATE holdfast.settings SET settled = settled - interval '30 s'"
                           " WHERE state = 3")


def stays_with_the_first(*these):
    for member in these:
        assert takes(member, "ann@example.com") and not takes(member, "ann@b.example")
        assert member.status()["settings"]["version"] == 1


def test_a_version_that_kills_stops_one_node_at_most(members):
    n1, n2 = two_with_the_first(members)
    # n1 is to try it, and its core dies of it.
    other, core = Still(n2, "helper"), Still(n1, "core")
    command = begin_set(n1, "# version 1\n" + text_of("example.com", "b.example") + DOOMED)
    wait_for_trial(n1)
    core.kill()
    _, complaint = command.communicate(timeout=120)
    assert command.returncode == 1 and "version 2 is bad: core died of it" in complaint
    other.go_on()
    wait_for(lambda: takes(n1, "ann@example.com"), what="n1 with what it had")
    wait_for(lambda: any("version 2 of the settings: core died of it" in alert["text"]
                         for alert in n1.status()["alerts"]), what="the alert")
    row = history(n1)[2]
    assert (row["state"], row["tried_by"], row["problem"]) == ("bad", "n1", "core died of it")
    # The next one goes on, with both; and neither has ever had the bad one.
    be_back(members)
    set_text(n2, "# version 1\n" + text_of("example.com", "c.example"))
    for member in (n1, n2):
        wait_for(lambda: takes(member, "ann@c.example"), what="the third")
        assert not takes(member, "ann@b.example")
        assert "settings-taken version=2" not in member.log()
    assert "doomed" not in n2.log()
    wait_for(lambda: not any("settings" in alert["text"] for alert in n1.status()["alerts"]),
             what="the end of the alert")


def test_a_process_that_hangs_in_a_trial_has_died_of_it(members):
    n1, n2 = two_with_the_first(members)
    other, core = Still(n2, "helper"), Still(n1, "core")
    set_text(n1, "# version 1\n" + text_of("example.com", "b.example"), check=False)
    other.go_on()
    # Nobody kills it from outside.
    wait_for(lambda: history(n2)[2]["state"] == "bad", 240, what="the end of the trial")
    assert history(n2)[2]["problem"] == "core hung with it"
    assert not any(os.path.exists(f"/proc/{pid}") for pid in core.pids)
    wait_for(lambda: takes(n1, "ann@example.com"), what="n1 with what it had")
    stays_with_the_first(n1, n2)


def test_a_process_that_takes_a_version_on_and_then_hangs_has_died_of_it(members):
    n1, n2 = two_with_the_first(members)
    other, core = Still(n2, "helper"), Still(n1, "core")
    command = begin_set(n1, "# version 1\n" + text_of("example.com", "b.example") + DOOMED)
    wait_for_trial(n1)
    web = Still(n1, "web")  # has been given nothing yet: it is core's turn
    core.go_on()
    wait_for(lambda: history(n2)[2]["state"] == "bad", 240, what="the end of the trial")
    command.communicate(timeout=120)
    other.go_on()
    assert history(n2)[2]["problem"] == "web hung with it"
    assert not any(os.path.exists(f"/proc/{pid}") for pid in web.pids)
    wait_for(lambda: takes(n1, "ann@example.com"), what="n1 with what it had")
    stays_with_the_first(n1, n2)


def test_a_node_that_died_of_a_version_does_not_try_it_again(members):
    n1, n2 = two_with_the_first(members)
    other, _ = Still(n2, "helper"), Still(n1, "core")
    command = begin_set(n1, "# version 1\n" + text_of("example.com", "b.example") + DOOMED)
    wait_for_trial(n1)
    n1.kill()
    n1.start()
    _, complaint = command.communicate(timeout=120)
    assert "died" in complaint or "waits" in complaint
    other.go_on()
    wait_for(lambda: history(n2)[2]["state"] == "bad", what="the word of n1")
    stays_with_the_first(n1, n2)
    # Nor after another start.
    n1.stop()
    n1.start()
    stays_with_the_first(n1)
    assert "settings-taken version=2" not in n1.log()
    be_back(members)
    set_text(n1, "# version 1\n" + text_of("c.example"))
    for member in (n1, n2):
        wait_for(lambda: takes(member, "ann@c.example"), what="the third")


def test_what_is_bad_comes_into_no_other_version(members):
    n1, n2 = two_with_the_first(members)
    other, core = Still(n2, "helper"), Still(n1, "core")
    command = begin_set(n1, "# version 1\n" + text_of("example.com", "b.example") + DOOMED)
    wait_for_trial(n1)
    # What changes a part of the newest waits for its end.
    adding = subprocess.Popen([program("holdfast"), "-c", n2.conf, "user", "add", "ann@example.com"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
    adding.stdin.write("secret\n")
    adding.stdin.flush()
    wait_for(lambda: history(n2)[2]["state"] == "trial", what="the trial")
    assert adding.poll() is None
    core.kill()
    command.communicate(timeout=120)
    other.go_on()
    be_back(members)
    _, complaint = adding.communicate(timeout=120)
    assert adding.returncode == 0, complaint
    shown = json.loads(n1.tool("settings", "show", "--json").stdout)
    assert shown["version"] == 3 and "doomed" not in shown["text"]
    # Nor by a file, nor by a text that was made from it.
    wait_for(lambda: n2.status()["settings"]["version"] == 3, what="the third")
    made = n1.tool("settings", "show", "2").stdout + "domain d.example { deliver-to = m1 }\n"
    assert set_text(n1, made, check=False).returncode == 1
    stays = [takes(member, "ann@example.com") and not takes(member, "ann@b.example")
             for member in (n1, n2)]
    assert all(stays) and "doomed" not in n2.log()


def test_a_text_made_from_a_bad_version_is_refused(members):
    n1, _ = two_with_the_first(members)
    members.database.sql("INSERT INTO holdfast.settings (version, author, comment, body, state,"
                           " problem, tried_by) VALUES (2, 'x', '', '# version 2', 3, 'it died',"
                           " 'n1')")
    wrong = set_text(n1, "# version 2\n" + text_of("b.example"), check=False)
    assert wrong.returncode == 1 and list(history(n1)) == [2, 1]
    assert "version 2, from which this is made, is bad: it died" in wrong.stderr
    # What is shown is what it can be made from.
    shown = n1.tool("settings", "show").stdout
    assert shown == "# version 1\n" + text_of("example.com")
    set_text(n1, shown + "domain c.example { deliver-to = m1 }\n")
    wait_for(lambda: takes(n1, "ann@c.example"), what="the third")
    assert takes(n1, "ann@example.com")


def test_a_node_killed_while_it_follows_starts_with_what_it_had(members):
    n1, n2 = two_with_the_first(members)
    helper, _ = Still(n2, "helper"), Still(n2, "core")
    set_text(n1, "# version 1\n" + text_of("example.com", "b.example") + DOOMED)
    helper.go_on()
    wait_for_trial(n2)
    n2.kill()
    n2.start()
    stays_with_the_first(n2)
    wait_for(lambda: any("version 2 of the settings: this node died" in alert["text"]
                         for alert in n2.status()["alerts"]), what="the alert")
    # Others live with it: whoever looks after n2 may let it try again.
    n2.reload()
    wait_for(lambda: takes(n2, "ann@b.example"), what="the second")


def test_a_stop_during_a_trial_is_no_death(members):
    n1 = members.add("n1")
    set_text(n1, text_of("example.com"))
    core = Still(n1, "core")
    command = begin_set(n1, "# version 1\n" + text_of("example.com", "b.example") + DOOMED)
    wait_for_trial(n1)
    n1.child.terminate()
    core.go_on()
    n1.child.wait(timeout=120)
    n1.child = None
    n1.start()
    command.communicate(timeout=120)
    wait_for(lambda: takes(n1, "ann@b.example"), what="the second version")
    assert history(n1)[2]["state"] == "approved"
