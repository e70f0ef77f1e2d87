# SPDX-License-Identifier: Apache-2.0
"""A cluster's settings: made on one machine, followed by the others; what is wrong with them stops
nobody."""

import json
import os
import re
import subprocess

import pytest

from certificates import Authority
from client import Dialogue
from daemon import program
from peers import free_port, greets, wait_for
from postgres import programs
from settings_cluster import (answer, database, history, members, put, set_text, takes, text_of,
                              user)
from submission import plain

pytestmark = pytest.mark.skipif(programs() is None, reason="no PostgreSQL server on this machine")


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


def test_who_logs_in_at_a_joining_node_is_put_off(members, database):
    port = free_port()
    own = f'listen users {{ address = "127.0.0.1:{port}"  protocol = submission  ' \
          "auth-without-tls = loopback }\n"
    n1 = members.add("n1", own=own)
    set_text(n1, text_of("example.com") + "relay out { auth = yes  deliver-to = m1 }\n")
    user(n1, "add", "ann@example.com", password="secret")
    wait_for(lambda: logs_in(port, "ann@example.com", "secret"), what="ann")
    database.end()
    n1.stop()
    (n1.state / "cluster" / "settings").unlink()
    n1.start()
    # Often enough for those who try passwords to be made to wait.
    client = Dialogue(port)
    for _ in range(12):
        code, text = client.say(plain("ann@example.com", "secret"))
        assert (code, text[:5]) == (454, "4.7.0"), text
        if "closing" in text:
            client.close()
            client = Dialogue(port)
    client.close()
    database.start()
    wait_for(lambda: logs_in(port, "ann@example.com", "secret"), 120, what="ann again")
    assert not logs_in(port, "ann@example.com", "wrong")


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
    n1, n2 = members.add("n1", role="hub"), members.add("n2", role="hub")
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


def test_what_was_missing_is_looked_for_again(members, place):
    port = free_port()
    pair = Authority(place).certificate("mx2.example.net")
    n1 = members.add("n1", own=f'listen tls {{ address = "127.0.0.1:{port}"  tls = starttls  '
                               f'certificate = "{pair.chain}"  key = "{pair.key}" }}\n')
    set_text(n1, text_of("example.com"))
    away = place / "away.pem"
    os.rename(pair.chain, away)
    # It stands in this machine's own file: here nobody looks for it, and the members do.
    n2 = members.add("n2", start=False)
    n2.stop()
    refused = set_text(n2, "# version 1\n" + text_of("example.com", "b.example"), check=False)
    assert refused.returncode == 1 and "version 2 is refused" in refused.stderr, refused.stderr
    os.rename(away, pair.chain)
    wait_for(lambda: takes(n1, "ann@b.example"), 240, what="another look")
    wait_for(lambda: history(n1)[2]["state"] == "approved", what="its word")
    assert history(n1)[2]["refused_by"] == []


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


def test_a_node_starts_though_its_own_file_conflicts(members):
    n1 = members.add("n1")
    set_text(n1, text_of("example.com", "b.example"))
    wait_for(lambda: "settings-taken version=1" in n1.log(), what="the settings")
    n1.stop()
    n1.conf.write_text(n1.conf.read_text() + 'server m1 { address = "127.0.0.1:10" }\n')
    n1.start()
    assert takes(n1, "ann@example.com") and takes(n1, "ann@b.example")
    assert n1.status()["settings"] == {"version": 1, "state": "known"}
    where = "settings:2: server 'm1' is there twice; first in line"
    wait_for(lambda: any(where in alert["text"] for alert in n1.status()["alerts"]),
             what="the alert")
    servers = [server["name"] for server in n1.status()["servers"]]
    assert servers == ["m1"], servers
    # It ends when that is mended.
    n1.conf.write_text(n1.conf.read_text().replace("server m1", "server own"))
    n1.reload()
    wait_for(lambda: not any("settings" in alert["text"] for alert in n1.status()["alerts"]),
             what="the end of the alert")


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


def test_users_and_secrets_do_not_come_back_unasked(members):
    n1 = members.add("n1")
    secret = put(n1, "secret", "first\n")
    people = put(n1, "people", "ann@example.com\n")
    text = 'server m1 { address = "127.0.0.1:9"  tls = none  auth-user = us  ' \
           "auth-password-file = cluster:m1.password }\n" \
           "domain example.com { deliver-to = m1  recipients = file:cluster:people }\n"
    set_text(n1, text, f"m1.password={secret}", f"people={people}", f"spare={people}")
    user(n1, "add", "gone@example.com", password="secret")
    before = history(n1)
    secret.write_text("second, longer\n")
    people.write_text("ann@example.com\nbob@example.com\n")
    n1.tool("settings", "set", f"m1.password={secret}", f"people={people}", f"spare={people}")
    user(n1, "remove", "gone@example.com")
    user(n1, "add", "new@example.com", password="secret")

    def sizes():
        shown = json.loads(n1.tool("settings", "show", "--json").stdout)
        return {file["name"]: file["bytes"] for file in shown["files"]}

    reverted = n1.tool("settings", "revert", str(max(before))).stdout
    for name in ("users", "m1.password", "spare"):
        assert f"cluster:{name} stays as it is now" in reverted
    assert "people" not in reverted
    assert sizes()["m1.password"] == len("second, longer\n")
    assert sizes()["people"] == len("ann@example.com\n")
    listed = user(n1, "list").stdout
    assert "new@example.com" in listed and "gone@example.com" not in listed
    # Whoever wants them back says so.
    n1.tool("settings", "revert", "--secrets", str(max(before)))
    assert sizes()["m1.password"] == len("first\n") and "gone@" in user(n1, "list").stdout
    assert history(n1)[max(history(n1))]["comment"].endswith(", with users and secrets")


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
