# SPDX-License-Identifier: Apache-2.0
"""Lists of recipients out of an LDAP directory: an OpenLDAP server that a test starts. What it does
not tell to its end is no list, and leaves the last good one."""

import os
import signal
import socket
import threading

import pytest

from certificates import Authority
from daemon import backup_mx
from directory import PEOPLE, SEARCHER, why_no_slapd
from memory import memory_of
from peers import free_port, wait_for
from test_recipient_lists import PATIENCE, alerts, codes, listing, row_of, wait_codes

pytestmark = pytest.mark.skipif(why_no_slapd() is not None, reason=str(why_no_slapd()))

ANN = ("ann", "x", ("ann@example.com",))
BEN = ("ben", "x", ("ben@example.com",))


def url_of(server):
    return f"ldap://127.0.0.1:{server.port}"


def people(place, *urls, more="tls = none", password="search"):
    urls = ", ".join(f'"{url}"' for url in urls)
    secret = place / "searcher"
    secret.write_text(password + "\n")
    secret.chmod(0o600)
    return (f'ldap people {{ url = {{{urls}}} bind-dn = "{SEARCHER}" '
            f'bind-password-file = "{secret}" base = "{PEOPLE}" {more} }}\n')


def from_directory(blocks, more="", source="ldap:people", domain="example.com"):
    return blocks + backup_mx(free_port(), domain=domain,
                              more=f"recipients = {source} recipients-interval = 1s "
                                                f"unknown = defer {more}")


def wait_problem(mx, said, domain="example.com"):
    wait_for(lambda: said in ((row_of(mx, domain) or {}).get("problem") or ""), PATIENCE,
             what=f"problem: {said}")


def test_who_has_an_address_in_the_directory_exists_and_nobody_else(holdfast, slapd, place):
    directory = slapd((
        ("ann", "x", ("ann@example.com", "Ann.Other@Example.COM"),
         (("proxyAddresses", "SMTP:ann@example.com"), ("proxyAddresses", "smtp:ann.alias@example.com"),
          ("proxyAddresses", "x500:/o=First/ou=Group/cn=Recipients/cn=ann"),
          ("proxyAddresses", "SIP:ann.sip@example.com"), ("proxyAddresses", "smtp:ann@tenant.example"))),
        ("ben", "x", (), (("mailAlternateAddress", "ben.alternate@example.com"),)),
        ("carl", "x", ("@example.com", "*@example.com", "carl smith@example.com", "carl"),
         (("proxyAddresses", "smtp:@example.com"), ("mailAlternateAddress", "<carl@example.com>"))),
        ("dora", "x")))
    mx = holdfast(from_directory(people(
        place, url_of(directory),
        more="tls = none address-attribute = {mail, proxyAddresses, mailAlternateAddress}")))
    there = ("ann@example.com", "ann.other@example.com", "ann.alias@example.com",
             "ben.alternate@example.com", "carl@example.com")
    wait_codes(mx, [250] * len(there), *there)
    assert codes(mx, "ann.sip@example.com", "smith@example.com", "dora@example.com",
                 "nobody@example.com") == [550] * 4
    row = row_of(mx)
    assert (row["source"], row["problem"]) == ("ldap:people", None)
    assert row["good"] == len(there)
    wait_for(lambda: row_of(mx)["checked"] is not None, PATIENCE, what="the check")
    assert {entry["source"] for entry in mx.lines("recipients", "list", "example.com")} == {"list"}
    assert "directory-values-passed-over" in mx.log()
    assert "values=5" in mx.log()
    assert alerts(mx) == [] or "recipients" not in dict(alerts(mx))


def test_a_value_that_names_nobody_spoils_no_list(holdfast, slapd, place):
    """Who may write his own entry has no say in those of others."""
    directory = slapd((("ann", "x", ("ann@example.com", '""@example.com', "ann")), BEN))
    mx = holdfast(from_directory(people(place, url_of(directory)),
                                 domain="{example.com, example.org}"))
    wait_codes(mx, [250, 250, 550], "ann@example.com", "ben@example.com", "carl@example.com")
    wait_for(lambda: row_of(mx)["checked"] is not None, PATIENCE, what="the check")
    assert (row_of(mx)["good"], row_of(mx)["problem"]) == (2, None)
    assert "values=1" in mx.log()


def test_a_directory_that_changes_is_taken_anew_and_one_that_does_not_is_not(holdfast, slapd, place):
    directory = slapd((ANN,))
    mx = holdfast(from_directory(people(place, url_of(directory))))
    wait_codes(mx, [250, 550], "ann@example.com", "ben@example.com")
    searches = directory.log().count(" SRCH base=")
    wait_for(lambda: directory.log().count(" SRCH base=") >= searches + 3, PATIENCE,
             what="three searches more")
    assert mx.log().count(" recipients-list ") == 1
    directory.add(*BEN)
    wait_codes(mx, [250, 250], "ann@example.com", "ben@example.com")
    directory.remove("ann")
    wait_codes(mx, [550, 250], "ann@example.com", "ben@example.com")


def test_a_large_directory_is_read_page_by_page_beyond_its_limit(holdfast, slapd, place):
    many = [(f"user{i}", "x", (f"user{i}@example.com",)) for i in range(1300)]
    directory = slapd(many, limits="size.soft=600 size.hard=600 size.pr=600 size.prtotal=unlimited")
    mx = holdfast(from_directory(people(place, url_of(directory))))
    wait_for(lambda: (row_of(mx) or {}).get("good") == 1300, PATIENCE, what="1300 recipients")
    assert codes(mx, "user0@example.com", "user1299@example.com", "user1300@example.com") == \
        [250, 250, 550]
    # What it now cuts off, in the third page, is no shorter list.
    directory.stop()
    directory.configure("size.soft=600 size.hard=1200 size.pr=600 size.prtotal=1200")
    directory.start()
    wait_problem(mx, "imit exceeded")
    assert any(kind == "recipients" and "ldap:people" in text for kind, text in alerts(mx))
    assert row_of(mx)["good"] == 1300
    assert codes(mx, "user1299@example.com", "user1300@example.com") == [250, 550]
    # Nor is what it cuts off in the first.
    directory.stop()
    directory.configure("size.soft=100 size.hard=100")
    directory.start()
    wait_for(lambda: " nentries=100 " in directory.log() or "err=11 " in directory.log(), PATIENCE,
             what="a search that is cut off")
    assert row_of(mx)["good"] == 1300


def test_while_the_directory_is_away_the_last_good_list_holds(holdfast, slapd, place):
    directory = slapd((ANN,))
    mx = holdfast(from_directory(people(place, url_of(directory))))
    wait_codes(mx, [250, 550], "ann@example.com", "ben@example.com")
    directory.stop()
    wait_problem(mx, "cannot be reached")
    assert any(kind == "recipients" for kind, text in alerts(mx))
    assert codes(mx, "ann@example.com", "ben@example.com") == [250, 550]
    mx.kill()  # and over a restart
    mx.start()
    wait_problem(mx, "cannot be reached")
    assert codes(mx, "ann@example.com", "ben@example.com") == [250, 550]
    assert "cannot be reached" in mx.tool("recipients", "list").stdout
    directory.start()
    directory.add(*BEN)
    wait_codes(mx, [250, 250], "ann@example.com", "ben@example.com")
    wait_for(lambda: "recipients" not in dict(alerts(mx)), PATIENCE, what="the alert to end")


def test_the_next_server_is_asked_when_one_is_away(holdfast, slapd, place):
    first, second = slapd((BEN,)), slapd((ANN,))
    first.stop()
    mx = holdfast(from_directory(people(place, url_of(first), url_of(second))))
    wait_codes(mx, [250, 550], "ann@example.com", "ben@example.com")


def test_a_directory_that_has_nobody_any_more_is_at_fault(holdfast, slapd, place):
    directory = slapd((ANN,))
    mx = holdfast(from_directory(people(place, url_of(directory))))
    wait_codes(mx, [250, 550], "ann@example.com", "ben@example.com")
    directory.remove("ann")
    wait_problem(mx, "names nobody")
    assert codes(mx, "ann@example.com", "ben@example.com") == [250, 550]
    directory.add(*BEN)
    wait_codes(mx, [550, 250], "ann@example.com", "ben@example.com")
    directory.modify(f"dn: uid=ben,{PEOPLE}\nchangetype: delete",
                     f"dn: {PEOPLE}\nchangetype: delete")
    wait_problem(mx, "No such object")
    assert codes(mx, "ben@example.com") == [250]


def test_a_wrong_password_is_said_and_never_shown(holdfast, slapd, place):
    directory = slapd((ANN,))
    mx = holdfast(from_directory(people(place, url_of(directory), password="ajar-sesame")))
    wait_problem(mx, "Invalid credentials")
    assert codes(mx, "ann@example.com") == [450], "nothing is known yet"
    for text in (mx.log(), mx.tool("recipients", "list").stdout, str(alerts(mx))):
        assert "ajar-sesame" not in text
    for name, pids in mx.processes().items():
        for pid in pids:
            assert name == "holdfast-direct" or b"ajar-sesame" not in memory_of(pid), name
    (place / "searcher").write_text("search\n")
    mx.reload()
    wait_codes(mx, [250], "ann@example.com")


@pytest.mark.parametrize("scheme", ("ldaps", "ldap"))
def test_by_tls_from_whom_we_trust_only(holdfast, slapd, place, scheme):
    authority, stranger = Authority(place), Authority(place, "stranger")
    directory = slapd((ANN,), certificate=authority.certificate("dir.example.net"))
    url = f"{scheme}://127.0.0.1:{directory.tls_port if scheme == 'ldaps' else directory.port}"

    def told(name, root):
        return from_directory(people(place, url, more=f'tls-name = {name} tls-ca = "{root}"'))

    mx = holdfast(told("dir.example.net", authority.root))
    wait_codes(mx, [250, 550], "ann@example.com", "ben@example.com")
    directory.add(*BEN)
    wait_codes(mx, [250, 250], "ann@example.com", "ben@example.com")
    for wrong in (("other.example.net", authority.root), ("dir.example.net", stranger.root)):
        mx.configure(told(*wrong))
        mx.reload()
        wait_problem(mx, "certificate")
        binds = directory.log().count("BIND dn=")
        problems = mx.log().count("recipients-list-failed")
        mx.reload()
        wait_for(lambda: mx.log().count("recipients-list-failed") > problems, PATIENCE,
                 what="another try")
        assert directory.log().count("BIND dn=") == binds
        assert codes(mx, "ann@example.com", "ben@example.com") == [250, 250]
        mx.configure(told("dir.example.net", authority.root))
        mx.reload()
        wait_for(lambda: row_of(mx)["problem"] is None, PATIENCE, what="the list to be well")


def test_a_filter_says_whose_addresses_count(holdfast, slapd, place):
    directory = slapd((ANN, BEN))

    def only(name):
        return from_directory(people(place, url_of(directory),
                                     more=f'tls = none recipients-filter = "(uid={name})"'))

    mx = holdfast(only("ann"))
    wait_codes(mx, [250, 550], "ann@example.com", "ben@example.com")
    mx.configure(only("ben"))
    mx.reload()
    wait_codes(mx, [550, 250], "ann@example.com", "ben@example.com")


class Mute:
    """A directory that takes a bind and says no more."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.searched = threading.Event()
        self.connections = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        try:
            while True:
                connection = self.listener.accept()[0]
                self.connections.append(connection)
                connection.recv(4096)
                connection.sendall(b"0\x0c\x02\x01\x01a\x07\n\x01\x00\x04\x00\x04\x00")
                if connection.recv(4096):
                    self.searched.set()
        except OSError:
            pass

    def close(self):
        self.listener.close()
        for connection in self.connections:
            connection.close()


def test_a_directory_that_says_nothing_holds_up_no_other_list_nor_the_end(holdfast, place, listing):
    mute = Mute()
    routes = (people(place, url_of(mute)) +
              'domain example.org { deliver-to = m1 recipients = ldap:people unknown = defer }\n' +
              backup_mx(free_port(), more=f'recipients = "file:{listing("ann")}"'))
    mx = holdfast(routes)
    assert mute.searched.wait(PATIENCE)
    wait_codes(mx, [250, 550], "ann@example.com", "ben@example.com")
    listing("ben")
    wait_codes(mx, [550, 250], "ann@example.com", "ben@example.com")
    assert codes(mx, "ann@example.org") == [450]
    mx.stop()  # it looks at the exit status: nobody had to be killed
    assert " killed " not in mx.log()
    mute.close()


def test_the_death_of_the_process_that_asks_is_survived(holdfast, slapd, place):
    directory = slapd((ANN,))
    mx = holdfast(from_directory(people(place, url_of(directory))))
    wait_codes(mx, [250, 550], "ann@example.com", "ben@example.com")
    for victim in ("holdfast-direct", "holdfast-helper"):
        os.kill(mx.processes()[victim][0], signal.SIGKILL)
        directory.remove("ann") if victim == "holdfast-helper" else directory.add(*BEN)
        wait_codes(mx, [550 if victim == "holdfast-helper" else 250, 250],
                   "ann@example.com", "ben@example.com")
