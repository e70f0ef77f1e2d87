# SPDX-License-Identifier: Apache-2.0
"""A cluster's settings: made on one machine, followed by the others; what is wrong with them stops
nobody."""

import json
import os
import re
import signal
import subprocess

import pytest

from certificates import Authority
from client import Dialogue
from daemon import program
from peers import free_port, greets, wait_for
from postgres import Postgres, programs
from submission import plain

pytestmark = pytest.mark.skipif(programs() is None, reason="no PostgreSQL server on this machine")


def is_refused(place):
    """This version reads cluster blocks, and starts with none."""
    conf = place / "cluster.conf"
    conf.write_text(f'hostname = a.example\nstate = "{place}/none"\n'
                    'cluster { database = "host=/nowhere"  name = a }\n')
    checked = subprocess.run([program("holdfastd"), "-c", conf, "-n"], capture_output=True,
                             text=True, timeout=60, check=False)
    return "cluster block is not available" in checked.stderr


@pytest.fixture
def database(place):
    if is_refused(place):
        pytest.skip("cluster blocks are not available in this version")
    server = Postgres(place / "postgres").start()
    yield server
    server.end()


class Members:
    """Daemons of one cluster, whose own files name no domain."""

    def __init__(self, make, database):
        self.make = make
        self.database = database
        self.all = []

    def add(self, name, own="", start=True):
        cluster = f'cluster {{ database = "{self.database.conninfo}"  name = {name} }}\n'
        member = self.make(cluster + own, name=name, start=False)
        self.all.append(member)
        return member.start() if start else member


@pytest.fixture
def members(holdfast, database):
    return Members(holdfast, database)


def text_of(*domains):
    """Settings that take mail for these domains, and keep it."""
    return 'server m1 { address = "127.0.0.1:9" }\n' + \
        "".join(f"domain {domain} {{ deliver-to = m1 }}\n" for domain in domains)


def put(member, name, text):
    path = member.root / name
    path.write_text(text)
    return path


def set_text(member, text, *more, check=True):
    return member.tool("settings", "set", put(member, "text", text), *more, check=check)


def answer(member, recipient):
    """The reply to RCPT."""
    with member.dialogue() as dialogue:
        dialogue.must("MAIL FROM:<bob@client.example>")
        return dialogue.say(f"RCPT TO:<{recipient}>")


def takes(member, recipient):
    return answer(member, recipient)[0] == 250


def history(member):
    return {row["version"]: row for row in member.lines("settings", "history")}


# ---- following ------------------------------------------------------------------------------


def test_what_one_sets_all_follow(members):
    n1, n2, n3 = (members.add(name) for name in ("n1", "n2", "n3"))
    made = set_text(n1, text_of("example.com"), "--comment", "the first")
    assert "version 1 is in force" in made.stdout
    for member in (n1, n2, n3):
        wait_for(lambda: takes(member, "ann@example.com"), what="the first version")
        assert answer(member, "ann@b.example")[0] == 550
        assert member.status()["settings"] == {"version": 1, "state": "known"}
    set_text(n2, "# version 1\n" + text_of("example.com", "b.example"))
    for member in (n1, n2, n3):
        wait_for(lambda: takes(member, "ann@b.example"), what="the second version")
    wait_for(lambda: history(n1)[2]["nodes"] == ["n1", "n2", "n3"], what="all of them")
    rows = history(n3)
    assert [rows[n]["state"] for n in (1, 2)] == ["approved", "approved"]
    assert rows[1]["comment"] == "the first"
    assert re.fullmatch(r".+@n1", rows[1]["author"]) and rows[2]["author"].endswith("@n2")
    assert rows[2]["tried_by"] in ("n1", "n2", "n3")
    # Nobody was restarted.
    assert all("process-died" not in member.log() for member in (n1, n2, n3))
    # One who comes later, too.
    n4 = members.add("n4")
    wait_for(lambda: takes(n4, "ann@b.example"), what="a new member")


def test_files_come_with_the_settings(members, place):
    n1, n2 = members.add("n1"), members.add("n2")
    domains = put(n1, "domains", "c.example\nd.example\n")
    set_text(n1, 'server m1 { address = "127.0.0.1:9" }\n'
                 "domain file:cluster:domains { deliver-to = m1 }\n", f"domains={domains}")
    wait_for(lambda: takes(n2, "ann@d.example"), what="the list on the other")
    shown = json.loads(n2.tool("settings", "show", "--json").stdout)
    assert shown["files"] == [{"name": "domains", "bytes": 20}]
    # The file alone changes; the text stays.
    domains.write_text("e.example\n")
    n2.tool("settings", "set", f"domains={domains}")
    wait_for(lambda: takes(n1, "ann@e.example"), what="the new list")
    assert "cluster:domains changed" in n1.tool("settings", "diff").stdout
    # Who takes away what is named is told.
    refused = n1.tool("settings", "set", "domains=", check=False)
    assert refused.returncode == 1
    assert "settings:3: cluster:domains: is not in the cluster's settings" in refused.stderr


def test_a_list_of_recipients_comes_with_the_settings(members):
    n1, n2 = members.add("n1"), members.add("n2")
    text = 'server m1 { address = "127.0.0.1:9" }\n' \
           "domain example.com { deliver-to = m1  recipients = file:cluster:people }\n"
    people = put(n1, "people", "ann@example.com\n")
    set_text(n1, text, f"people={people}")
    for member in (n1, n2):
        wait_for(lambda: takes(member, "ann@example.com")
                 and answer(member, "bob@example.com")[0] == 550, what="the list")
    people.write_text("bob@example.com\n")
    n1.tool("settings", "set", f"people={people}")
    for member in (n1, n2):
        wait_for(lambda: takes(member, "bob@example.com")
                 and answer(member, "ann@example.com")[0] == 550, what="the other list")
    row, = n2.lines("recipients", "list")
    assert row["source"] == "cluster:people", row


def user(member, *arguments, password="", check=True):
    result = subprocess.run([program("holdfast"), "-c", member.conf, "user", *arguments],
                            input=password + "\n", capture_output=True, text=True, timeout=120)
    assert not check or result.returncode == 0, result.stderr
    return result


def logs_in(port, name, password):
    client = Dialogue(port)
    code, _ = client.say(plain(name, password))
    client.close()
    return code == 235


def test_users_are_those_of_the_cluster(members):
    ports = [free_port(), free_port()]
    n1, n2 = (members.add(name, own=f'listen users {{ address = "127.0.0.1:{port}"  '
                                    "protocol = submission  auth-without-tls = loopback }\n")
              for name, port in zip(("n1", "n2"), ports))
    set_text(n1, text_of("example.com") + "relay out { auth = yes  deliver-to = m1 }\n")
    added = user(n1, "add", "ann@example.com", password="secret")
    assert added.stdout == "ann@example.com: added\n"
    for port in ports:
        wait_for(lambda: logs_in(port, "ann@example.com", "secret"), what="ann")
    assert "ann@example.com" in user(n2, "list").stdout
    user(n2, "passwd", "ann@example.com", password="another")
    for port in ports:
        wait_for(lambda: logs_in(port, "ann@example.com", "another"), what="her new password")
    # The text is as it was, and the hashes are shown to nobody.
    shown = json.loads(n1.tool("settings", "show", "--json").stdout)
    assert shown["comment"] == "user passwd ann@example.com" and shown["version"] == 3
    assert [file["name"] for file in shown["files"]] == ["users"] and "relay out" in shown["text"]
    user(n1, "remove", "ann@example.com")
    assert user(n2, "list", check=False).returncode == 1
    for port in ports:
        wait_for(lambda: not logs_in(port, "ann@example.com", "another"), 120, what="her end")


def test_a_listener_waits_for_its_certificate(members, place):
    port = free_port()
    n1 = members.add("n1", own=f'listen tls {{ address = "127.0.0.1:{port}"  tls = starttls  '
                               "certificate = cluster:mx.pem  key = cluster:mx.key "
                               "milters = {clam}  milter-default = accept }\n")
    assert not greets(port) and answer(n1, "ann@example.com")[0] == 451
    pair = Authority(place).certificate("mx2.example.net")
    set_text(n1, text_of("example.com") + 'milter clam { address = "127.0.0.1:9" }\n',
             f"mx.pem={pair.chain}", f"mx.key={pair.key}")
    wait_for(lambda: greets(port), what="the listener")
    client = Dialogue(port)
    assert "STARTTLS" in client.extensions
    client.close()
    assert takes(n1, "ann@example.com")


# ---- what is refused ------------------------------------------------------------------------


def test_wrong_settings_are_refused_with_their_line(members):
    n1 = members.add("n1")
    set_text(n1, text_of("example.com"))
    for text, error in (
            ("domain b.example { deliver-to = m7 }", "settings:4: there is no server 'm7'"),
            ("listen b { address = 127.0.0.1:25 }",
             "settings:4: a listen block stands in each node's own file only"),
            ("hostname = x.example", "settings:4: 'hostname' stands in each node's own file only"),
            ("alert a { exec = /bin/true }", "settings:4: 'exec' stands in each"),
            ("domain {", "settings:4: ")):
        wrong = set_text(n1, f"# version 1\n{text_of('example.com')}{text}\n", check=False)
        assert wrong.returncode == 1 and error in wrong.stderr, wrong.stderr
    assert list(history(n1)) == [1]


def test_of_two_who_set_at_once_one_is_told(members):
    n1, n2 = members.add("n1"), members.add("n2")
    set_text(n1, text_of("example.com"))
    shown = n1.tool("settings", "show").stdout
    assert shown == "# version 1\n" + text_of("example.com")
    commands = [subprocess.Popen(
        [program("holdfast"), "-c", str(member.conf), "settings", "set",
         str(put(member, "text", shown + f"domain {member.root.name}.example {{ deliver-to = m1 }}\n"))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for member in (n1, n2)]
    ends = [(command.communicate(timeout=120), command.returncode) for command in commands]
    assert sorted(code for _, code in ends) == [0, 1], ends
    (_, complaint), _ = next(end for end in ends if end[1] == 1)
    assert "have moved on from version 1" in complaint and "made version 2" in complaint
    assert list(history(n1)) == [2, 1]
    # Without a word on what it was made from it is not taken either.
    blind = set_text(n1, text_of("z.example"), check=False)
    assert blind.returncode == 1 and "--version 2" in blind.stderr
    set_text(n1, text_of("z.example"), "--version", "2")


def test_a_node_whose_own_file_conflicts_stays_behind_and_says_so(members):
    n1 = members.add("n1")
    n2 = members.add("n2", own='server m2 { address = "127.0.0.1:9" }\n')
    set_text(n1, text_of("example.com"))
    wait_for(lambda: takes(n2, "ann@example.com"), what="the first")
    set_text(n1, "# version 1\n" + text_of("example.com", "b.example") +
             'server m2 { address = "127.0.0.1:10" }\n')
    wait_for(lambda: takes(n1, "ann@b.example"), what="n1")
    problem = "settings:5: server 'm2' is there twice; first in line 7 of the node's own file"
    wait_for(lambda: any(problem in alert["text"] for alert in n2.status()["alerts"]),
             what="the alert")
    assert takes(n2, "ann@example.com") and not takes(n2, "ann@b.example")
    assert n2.status()["settings"]["version"] == 1
    # When it is mended there, it follows.
    n2.conf.write_text(n2.conf.read_text().replace("server m2", "server own"))
    n2.reload()
    wait_for(lambda: takes(n2, "ann@b.example"), 120, what="n2")
    wait_for(lambda: not any("settings" in alert["text"] for alert in n2.status()["alerts"]),
             what="the end of the alert")


def test_what_is_no_text_in_a_refusal_holds_nobody_up(members):
    # A name of more octets than are quoted, which ends within a character there.
    name = "x" + "\N{LATIN SMALL LETTER A WITH DIAERESIS}" * 40
    n1 = members.add("n1")
    n2 = members.add("n2", own=f'server "{name}" {{ address = "127.0.0.1:9" }}\n')
    set_text(n1, text_of("example.com"))
    wait_for(lambda: takes(n2, "ann@example.com"), what="the first")
    set_text(n1, "# version 1\n" + text_of("example.com") +
             f'server "{name}" {{ address = "127.0.0.1:10" }}\n'
             f'domain c.example {{ deliver-to = "{name}" }}\n')
    wait_for(lambda: any("is there twice" in alert["text"] for alert in n2.status()["alerts"]),
             what="the alert")
    made = n1.tool("settings", "show").stdout.replace(f'"{name}"', "other")
    set_text(n1, made + "domain b.example { deliver-to = m1 }\n")
    wait_for(lambda: takes(n2, "ann@b.example"), 120, what="n2, which goes on")
    assert "state=away" not in n2.log() and "settings-not-reported" not in n2.log()


# ---- back -----------------------------------------------------------------------------------


def test_back_to_an_earlier_version(members):
    n1, n2 = members.add("n1"), members.add("n2")
    set_text(n1, text_of("example.com"))
    set_text(n1, "# version 1\n" + text_of("b.example"))
    wait_for(lambda: takes(n2, "ann@b.example"), what="the second")
    difference = n2.tool("settings", "diff", "1", "2").stdout
    assert "-domain example.com" in difference and "+domain b.example" in difference
    n2.tool("settings", "revert", "1")
    for member in (n1, n2):
        wait_for(lambda: takes(member, "ann@example.com"), what="the first again")
        assert not takes(member, "ann@b.example")
    assert history(n1)[3]["comment"] == "back to version 1"
    assert n1.tool("settings", "show").stdout == "# version 3\n" + text_of("example.com")
    assert n1.tool("settings", "revert", "9", check=False).returncode == 1


# ---- without the database -------------------------------------------------------------------


def test_the_last_good_copy_is_enough(members, database):
    n1 = members.add("n1")
    set_text(n1, text_of("example.com"))
    wait_for(lambda: takes(n1, "ann@example.com"), what="the settings")
    database.end()
    n1.stop()
    n1.start()
    assert takes(n1, "ann@example.com")
    assert n1.status()["settings"] == {"version": 1, "state": "known"}
    # And when it is back, it follows again.
    database.start()
    set_text(n1, "# version 1\n" + text_of("b.example"))
    wait_for(lambda: takes(n1, "ann@b.example"), what="the next")


@pytest.mark.parametrize("copy", [None, "torn", "empty"])
def test_without_a_copy_and_without_the_database_mail_waits(members, database, copy):
    n1 = members.add("n1")
    set_text(n1, text_of("example.com"))
    wait_for(lambda: takes(n1, "ann@example.com"), what="the settings")
    database.end()
    n1.stop()
    path = n1.state / "cluster" / "settings"
    if copy is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-5] if copy == "torn" else b"")
    n1.start()
    for recipient in ("ann@example.com", "ann@other.example", "postmaster"):
        code, text = answer(n1, recipient)
        assert (code, text[:5]) == (451, "4.3.2"), recipient
    assert n1.status()["settings"] == {"version": 0, "state": "joining"}
    assert "Joining" in n1.tool("status").stdout
    database.start()
    wait_for(lambda: takes(n1, "ann@example.com"), 120, what="the settings again")
    assert answer(n1, "ann@other.example")[0] == 550


# ---- what kills -----------------------------------------------------------------------------


def copies(member):
    directory = member.state / "cluster"
    return {path.name for path in directory.iterdir()} if directory.is_dir() else set()


# ---- what kills -----------------------------------------------------------------------------


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
        wait_for(lambda: takes(member, "ann@example.com"), what="the first version")
    return n1, n2


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
    set_text(n2, "# version 2\n" + text_of("example.com", "c.example"))
    for member in (n1, n2):
        wait_for(lambda: takes(member, "ann@c.example"), what="the third")
        assert not takes(member, "ann@b.example")
        assert "settings-taken version=2" not in member.log()
    assert "doomed" not in n2.log()
    wait_for(lambda: not any("settings" in alert["text"] for alert in n1.status()["alerts"]),
             what="the end of the alert")


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
    set_text(n1, "# version 2\n" + text_of("c.example"))
    for member in (n1, n2):
        wait_for(lambda: takes(member, "ann@c.example"), what="the third")


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
