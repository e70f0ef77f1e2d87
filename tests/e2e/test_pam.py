# SPDX-License-Identifier: Apache-2.0
"""Users whom PAM knows: a service whose module runs a script of the test's."""

import pathlib

import pytest

from memory import memory_of
from peers import wait_for
from submission import ANN, plain

MODULES = [path for path in pathlib.Path("/").glob("usr/lib/*/security") if
           (path / "pam_exec.so").exists()]
pytestmark = pytest.mark.skipif(not MODULES, reason="PAM's modules are not installed")

SCRIPT = """\
#!/bin/sh
read -r password
echo "$PAM_USER $PAM_RHOST $PAM_SERVICE" >> {root}/asked
case "$PAM_USER" in
slow*) while kill -0 $PPID 2> /dev/null; do sleep 0.2; done ;;
broken*) kill -KILL $PPID ;;
esac
[ "$password" = "sesame" ]
"""


@pytest.fixture
def by_pam(submission, place):
    def make(account="account required pam_permit.so", auth="PAM", users=(), **how):
        root = place / "pam.d"
        root.mkdir()
        script = root / "script"
        script.write_text(SCRIPT.format(root=root))
        script.chmod(0o755)
        (root / "asked").write_text("")
        service = root / "mail"
        service.write_text(f"auth sufficient pam_exec.so expose_authtok quiet {script}\n"
                           f"auth required pam_deny.so\n{account}\n")
        source = f'"pam:{service}"'
        server = submission(users=users, listen=f"auth = {auth}".replace("PAM", source), **how)
        server.asked = lambda: (root / "asked").read_text()
        server.service = service
        return server
    return make


def code(server, user, password):
    with server.dialogue() as client:
        return client.say(plain(user, password))[0]


def test_who_pam_knows_comes_in(by_pam):
    server = by_pam()
    with server.dialogue() as client:
        client.must(plain(ANN, "sesame"), 235)
        client.must(f"MAIL FROM:<{ANN}>", 250)
        client.must("RSET", 250)
        assert client.say("MAIL FROM:<joe@example.org>")[0] == 553
    assert code(server, ANN, "wrong") == 535
    assert f"{ANN} 127.0.0.1 mail" in server.asked()
    with server.dialogue() as client:
        client.must(plain("joe", "sesame"), 235)
        assert client.say("MAIL FROM:<joe@example.org>")[0] == 553  # PAM knows no address of his
    assert "sesame" not in server.mx.log()


def test_an_empty_password_is_not_asked_for(by_pam):
    server = by_pam()
    assert code(server, ANN, "") in (501, 535)
    assert server.asked() == ""


@pytest.mark.parametrize("account, outcome", (
    ("account required pam_deny.so", 535),
    ("account requisite pam_succeed_if.so quiet user = nobody", 535),
    ("account required pam_nonexistent.so", 454)))
def test_an_account_that_may_not_be_used_lets_nobody_in(by_pam, account, outcome):
    server = by_pam(account=account)
    assert code(server, ANN, "sesame") == outcome
    assert server.asked() != ""


def test_a_service_that_is_not_there_is_no_wrong_password(by_pam):
    server = by_pam()
    server.service.write_text("auth required pam_nonexistent.so\n")
    for _ in range(12):  # more than a client may guess
        assert code(server, ANN, "sesame") == 454
    server.service.write_text("auth required pam_permit.so\naccount required pam_permit.so\n")
    assert code(server, ANN, "sesame") == 235


def test_one_that_takes_its_time_holds_up_nobody_else_and_is_ended(by_pam):
    server = by_pam(auth="{users, PAM}", users=((ANN, "secret", None),))
    waiting = [server.dialogue() for _ in range(3)]
    for i, client in enumerate(waiting):
        client.write((plain(f"slow{i}", "sesame") + "\r\n").encode())
    wait_for(lambda: server.asked().count("slow") == 3, what="the modules")
    assert code(server, ANN, "secret") == 235
    assert {client.reply()[0] for client in waiting} == {454}
    for client in waiting:
        client.close()
    pam = server.mx.processes()["holdfast-pam"]
    wait_for(lambda: server.mx.processes()["holdfast-pam"] == pam, what="the children's end")
    assert server.counter("holdfast_logins_failed_total") == 0
    assert code(server, "joe", "sesame") == 235


def test_a_module_that_kills_its_process_lets_nobody_in(by_pam):
    server = by_pam()
    assert code(server, "broken", "sesame") == 454
    assert code(server, ANN, "sesame") == 235
    assert "process-died" not in server.mx.log()


def test_odd_names_are_names(by_pam):
    server = by_pam()
    for name in ("$(id)", "a;b", "-x", "../x", "%u", "ünï"):
        assert code(server, name, "sesame") == 235, name
        assert code(server, name, "wrong") == 535, name


def test_who_pam_knows_and_lets_not_in_is_sought_nowhere_else(by_pam):
    """The service's account knows users of the machine alone, which she is not."""
    server = by_pam(account="account required pam_unix.so", auth="{PAM, users}",
                    users=((ANN, "sesame", None), ("joe@example.org", "secret", None)))
    assert code(server, ANN, "sesame") == 535
    assert server.asked() != ""


def test_the_password_is_nowhere_afterwards(by_pam):
    server = by_pam(auth="{users, PAM}", users=(("joe@example.org", "open sesame", None),))
    assert code(server, ANN, "sesame") == 235
    assert code(server, "joe@example.org", "open sesame") == 235
    for name, pids in server.mx.processes().items():
        for pid in pids:
            if name not in ("holdfast-edge-i",):  # which hears it, and may have it still
                assert b"sesame" not in memory_of(pid), name


def test_naming_pam_in_a_reload_suffices(by_pam):
    server = by_pam(auth="users", users=((ANN, "secret", None),))
    assert code(server, "joe@example.org", "sesame") == 535
    before = server.mx.processes()["holdfast-pam"]
    server.mx.conf.write_text(server.mx.conf.read_text().replace(
        "auth = users", f'auth = {{users, "pam:{server.service}"}}'))
    server.mx.reload()
    wait_for(lambda: server.mx.processes().get("holdfast-pam", before) != before, what="another")
    wait_for(lambda: code(server, "joe@example.org", "sesame") == 235, step=5, what="PAM")
