# SPDX-License-Identifier: Apache-2.0
"""Users whose passwords are in an LDAP directory: an OpenLDAP server that a test starts."""

import itertools
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from certificates import Authority
from client import Dialogue
from directory import PEOPLE, SEARCHER, why_no_slapd
from memory import memory_of
from peers import free_port, wait_for
from submission import ANN, plain

pytestmark = pytest.mark.skipif(why_no_slapd() is not None, reason=str(why_no_slapd()))

ODD = "a*(b)\\c,d"  # what means something in a filter or in a name
USERS = (("ann", "secret", (ANN, "ann.other@example.org")),
         (ODD, "odd", ("odd@example.org",)),
         ("twin1", "twin", ("twin@example.org",)), ("twin2", "twin", ("twin@example.org",)),
         ("star", "secret", ("*@example.org", "*", "SMTP:star@example.org", "sip:star@x")),
         ("bare", "secret"))


def searching(place, *urls, more="tls = none", filter="(uid=%u)"):
    urls = ", ".join(f'"{url}"' for url in urls)
    password = place / "searcher"
    password.write_text("search\n")
    password.chmod(0o600)
    return (f'ldap people {{ url = {{{urls}}} '
            f'bind-dn = "{SEARCHER}" bind-password-file = "{password}" base = "{PEOPLE}" '
            f'filter = "{filter}" {more} }}\n')


def by_name(*urls, more="tls = none"):
    return (f'ldap people {{ url = "{urls[0]}" dn = "uid=%u,{PEOPLE}" {more} }}\n')


def url_of(server):
    return f"ldap://127.0.0.1:{server.port}"


def code(server, user, password):
    with server.dialogue() as client:
        return client.say(plain(user, password))[0]


def may_send_as(client, address):
    found = client.say(f"MAIL FROM:<{address}>")[0] == 250
    client.must("RSET", 250)
    return found


@pytest.fixture
def by_directory(submission):
    def make(more, auth="ldap:people", users=(), **how):
        return submission(users=users, listen=f"auth = {auth}", more=more, **how)
    return make


@pytest.mark.parametrize("how", ("search", "name"))
def test_who_knows_his_password_comes_in_as_who_he_is(slapd, place, by_directory, how):
    directory = slapd(USERS)
    server = by_directory(searching(place, url_of(directory)) if how == "search"
                          else by_name(url_of(directory)))
    with server.dialogue() as client:
        client.must(plain("ann", "secret"), 235)
        assert may_send_as(client, ANN)
        assert may_send_as(client, "ann.other@example.org")
        assert not may_send_as(client, "joe@example.org")
    assert code(server, "ann", "wrong") == 535
    assert code(server, "nobody", "secret") == 535
    assert code(server, ODD, "odd") == 235
    assert code(server, ODD, "wrong") == 535
    for name in ("*", "ann)(uid=*", "an*", "ann,ou=people", "\\2a", "uid=ann"):
        assert code(server, name, "secret") == 535, name
    wait_for(lambda: server.counter("holdfast_logins_failed_total") == 9, 30, what="the count")
    assert "secret" not in server.mx.log()


@pytest.mark.parametrize("how", ("search", "name"))
def test_an_empty_password_lets_nobody_in(slapd, place, by_directory, how):
    """A directory says yes to a bind without a password: it is an anonymous one."""
    directory = slapd(USERS)
    server = by_directory(searching(place, url_of(directory)) if how == "search"
                          else by_name(url_of(directory)))
    with server.dialogue() as client:
        assert client.say(plain("ann", ""))[0] in (501, 535)
        assert client.say("MAIL FROM:<ann@example.org>")[0] == 530
    assert code(server, "ann", "secret") == 235
    assert f'BIND dn="uid=ann,{PEOPLE}" method=128' in directory.log()
    assert 'BIND dn="" method=128' not in directory.log()


def test_what_stands_in_an_entry_is_no_pattern(slapd, place, by_directory):
    server = by_directory(searching(place, url_of(slapd(USERS))))
    with server.logged_in("star") as client:
        assert may_send_as(client, "star@example.org")
        for address in (ANN, "x@y.example", "joe@example.org"):
            assert not may_send_as(client, address), address
    with server.logged_in("bare") as client:
        assert not may_send_as(client, "bare@example.org")


def test_an_account_is_one_however_its_name_is_written(slapd, place, by_directory):
    """Letters of other widths are the same to a directory, and guesses count together."""
    server = by_directory(searching(place, url_of(slapd(USERS))))
    spellings = ["".join(name) for name in itertools.product("a\uff41\uff21", "n\uff4e\uff2e",
                                                            "n\uff4e\uff2e")]

    def try_all(names, password, clients):
        dialogues = [Dialogue(server.port, source=f"127.0.3.{client}") for client in clients]
        for name, client in zip(names, dialogues):
            client.write((plain(name, password) + "\r\n").encode())
        codes = [client.reply()[0] for client in dialogues]
        for client in dialogues:
            client.close()
        return codes

    assert try_all(["ann"], "secret", [100]) == [235]
    for first in (1, 8, 15):  # one more than an account has for nothing
        assert try_all(spellings[first:first + 7], "wrong", range(first, first + 7)) == [535] * 7
    for password in ("secret", "wrong"):  # and it is not told which
        assert try_all(["ann", spellings[23]], password, [50, 51]) == [454, 454]
    assert try_all([spellings[24]], "secret", [100]) == [235]  # from where he is known
    assert try_all(["star"], "secret", [52]) == [235]


def test_good_logins_are_few_events_however_the_name_is_written(slapd, place, by_directory):
    server = by_directory(searching(place, url_of(slapd(USERS))))
    spellings = itertools.product("a\uff41\uff21", "n\uff4e\uff2e", "n\uff4e\uff2e")
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(lambda name: code(server, "".join(name), "secret"), spellings))
    assert codes == [235] * 27
    # Some 7 or more are left out, also where two minutes end meanwhile.
    wait_for(lambda: server.counter("holdfast_logins_left_out_total") >= 1, 30, what="the count")


def test_names_that_nobody_can_be_told_of_raise_no_alert(slapd, place, by_directory):
    """A directory with `dn` says the same of a name that nobody has as of a wrong password."""
    server = by_directory(by_name(url_of(slapd(USERS))))

    def guess(i):
        with Dialogue(server.port, source=f"127.0.4.{i}", timeout=60) as client:
            return client.say(plain("invented", "wrong"))[0]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(guess, range(1, 22))) == [535] * 21
    with Dialogue(server.port, source="127.0.5.1", timeout=60) as client:
        assert client.say(plain("invented", "wrong"))[0] == 454
    wait_for(lambda: server.mx.lines("trace", "127.0.5.1", check=False), 30, what="the last event")
    assert server.mx.status()["alerts"] == []


def test_what_a_user_may_send_is_his_however_he_writes_his_name(slapd, place, by_directory):
    server = by_directory(searching(place, url_of(slapd(USERS))),
                          limits="limits { user-recipients = 4 }\n")
    for name, codes in (("ann", [250, 250]), ("\uff41nn", [250, 250]), ("a\uff4en", [450, 450])):
        with server.logged_in(name) as client:
            client.must(f"MAIL FROM:<{ANN}>", 250)
            assert [client.say("RCPT TO:<x@far.example>")[0] for _ in codes] == codes, name
    with server.logged_in("star") as client:
        client.must("MAIL FROM:<star@example.org>", 250)
        client.must("RCPT TO:<x@far.example>", 250)


def test_one_name_for_two_entries_is_nobody_s(slapd, place, by_directory):
    server = by_directory(searching(place, url_of(slapd(USERS)), filter="(mail=%u)"))
    assert code(server, "twin@example.org", "twin") == 535
    assert code(server, ANN, "secret") == 235


@pytest.mark.parametrize("scheme", ("ldaps", "ldap"))
def test_by_tls_with_whom_we_trust_only(slapd, place, by_directory, scheme):
    """With TLS from the beginning, and by StartTLS: nothing of a password crosses before it."""
    authority = Authority(place)
    directory = slapd(USERS, certificate=authority.certificate("dir.example.net"))
    port = directory.tls_port if scheme == "ldaps" else directory.port
    url = f"{scheme}://127.0.0.1:{port}"
    trusted = f'tls-name = dir.example.net tls-ca = "{authority.root}"'
    server = by_directory(searching(place, url, more=trusted))
    assert code(server, "ann", "secret") == 235
    assert code(server, "ann", "wrong") == 535
    stranger = Authority(place, "stranger")
    generations = 0
    for more in (f'tls-ca = "{authority.root}"', f'tls-name = other.example.net tls-ca = '
                 f'"{authority.root}"', f'tls-name = dir.example.net tls-ca = "{stranger.root}"'):
        server.mx.conf.write_text(server.mx.conf.read_text().replace(trusted, more))
        generations += 1
        server.mx.reload()
        wait_for(lambda: server.mx.log().count(" reloaded ") == generations, 30, what="the reload")
        wait_for(lambda: code(server, "ann", "secret") == 454, 30, what="no trust")
        before = directory.log().count("BIND dn=")
        assert code(server, "ann", "secret") == 454, more
        assert directory.log().count("BIND dn=") == before
        server.mx.conf.write_text(server.mx.conf.read_text().replace(more, trusted))


def test_a_directory_without_tls_hears_no_password(slapd, place, by_directory):
    authority = Authority(place)
    directory = slapd(USERS)
    server = by_directory(searching(place, url_of(directory), more=f'tls-ca = "{authority.root}"'))
    assert code(server, "ann", "secret") == 454
    assert "BIND dn=" not in directory.log()


def test_a_directory_that_is_away_is_no_wrong_password(slapd, place, by_directory):
    directory = slapd(USERS)
    server = by_directory(searching(place, url_of(directory)))
    assert code(server, "ann", "secret") == 235
    directory.stop()
    for _ in range(12):  # more than a client may guess
        assert code(server, "ann", "secret") == 454
    assert server.counter("holdfast_logins_failed_total") == 0
    assert server.counter("holdfast_logins_unanswered_total") == 12
    assert server.mx.log().count("directory-away") == 1
    directory.start()
    wait_for(lambda: code(server, "ann", "secret") == 235, 30, what="the directory's return")
    assert "directory-back" in server.mx.log()


def test_the_next_server_is_asked_when_one_is_away(slapd, place, by_directory):
    first, second = slapd(USERS), slapd(USERS)
    first.stop()
    server = by_directory(searching(place, url_of(first), url_of(second)))
    assert code(server, "ann", "secret") == 235
    assert code(server, "ann", "wrong") == 535


def test_a_directory_that_says_nothing_holds_up_nobody_else(slapd, place, by_directory):
    """Each of its threads waits; those who are in the table, or in another directory, come in."""
    silent = socket.create_server(("127.0.0.1", 0), backlog=64)
    mute = (f'ldap mute {{ url = "ldap://127.0.0.1:{silent.getsockname()[1]}" tls = none '
            f'dn = "uid=%u,{PEOPLE}" timeout = 10s }}\n')
    port = free_port()
    directory = slapd(USERS)
    server = by_directory(mute + searching(place, url_of(directory)) + (
        f'listen others {{ address = "127.0.0.1:{port}" protocol = submission '
        "auth = ldap:people auth-without-tls = loopback }\n"), auth="{users, ldap:mute}",
        users=((ANN, "secret", None),))
    waiting = []
    for i in range(12):  # three times as many as there are threads
        client = Dialogue(server.port, source=f"127.0.2.{i - 3}" if i > 3 else None)
        client.write((plain(f"user{i}", "x") + "\r\n").encode())
        waiting.append(client)
    assert code(server, ANN, "secret") == 235
    with Dialogue(port) as client:
        assert client.say(plain("ann", "secret"))[0] == 235
    assert {client.reply()[0] for client in waiting} == {454}
    for client in waiting:
        client.close()
    silent.close()


def test_the_table_comes_first_and_may_name_the_addresses(slapd, place, by_directory):
    server = by_directory(searching(place, url_of(slapd(USERS))), auth="{users, ldap:people}",
                          users=(("joe", "sesame", "joe@example.org"), ("ann", "mine", ANN)))
    assert code(server, "joe", "sesame") == 235
    assert code(server, "ann", "mine") == 235
    assert code(server, "ann", "secret") == 535  # the first that knows the name decides
    assert code(server, "star", "secret") == 235
    assert code(server, "nobody", "secret") == 535


def test_passwords_are_where_they_are_needed(slapd, place, by_directory):
    """The one that searches is with the process that asks; that of a user is forgotten."""
    server = by_directory(searching(place, url_of(slapd(USERS))))
    assert code(server, "ann", "secret") == 235
    for name, pids in server.mx.processes().items():
        for pid in pids:
            found = b"search\n" in memory_of(pid)
            assert not found or name in ("holdfast-direct",), f"{name} has it"


def test_the_death_of_the_process_that_asks_is_survived(slapd, place, by_directory):
    server = by_directory(searching(place, url_of(slapd(USERS))))
    assert code(server, "ann", "secret") == 235
    os.kill(server.mx.processes()["holdfast-direct"][0], signal.SIGKILL)
    wait_for(lambda: code(server, "ann", "secret") == 235, 60, what="a login after the restart")
