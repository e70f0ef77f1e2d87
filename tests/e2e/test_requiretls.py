# SPDX-License-Identifier: Apache-2.0
"""REQUIRETLS (RFC 8689): mail that goes by proved TLS, hop by hop, or not at all."""

import pytest

from certificates import Authority, listen, trusting
from client import Refused, by_starttls
from peers import free_port, wait_for
from sink import EXTENSIONS

HERE = "mx2.example.net"
NAME = "mail.example.com"
OFFERED = (*EXTENSIONS, "REQUIRETLS")


class World:
    """We by TLS, a next hop `hop` that is not there yet, and where notices go."""

    def __init__(self, place, holdfast, sink):
        self.sink = sink
        self.authority = Authority(place)
        self.port, self.notices_port = free_port(), free_port()
        self.certificate = self.authority.certificate(HERE)
        self.of_hop = self.authority.certificate(NAME)
        self.make, self.proof = holdfast, f'tls-name = {NAME} tls-ca = "{self.authority.root}"'

    def start(self, tls="required", clients="192.0.2.0/24", more="", **how):
        routes = f"""\
server m1 {{ address = "127.0.0.1:{self.port}" tls = {tls} {self.proof} }}
server home {{ address = "127.0.0.1:{self.notices_port}" tls = opportunistic {self.proof} }}
domain example.com {{ deliver-to = m1 {more} }}
relay out {{ from = {clients} deliver-to = home }}
"""
        self.mx = self.make(routes, listen=listen(self.certificate), **how)
        return self.mx

    def hop(self, *extensions, port=None, tls=True):
        return self.sink(port=port or self.port, extensions=(*EXTENSIONS, *extensions),
                         tls=self.of_hop.context() if tls else None)

    def send(self, mail=" REQUIRETLS", sender="bob@client.example", content=b"Subject: x\r\n\r\n",
             mx=None):
        with by_starttls((mx or self.mx).port, trusting(self.authority)) as client:
            client.hello("client.example")
            assert "REQUIRETLS" in client.extensions
            client.send(sender, ["ann@example.com"], content, mail=mail)

    def events(self, event="accepted"):
        return [row for row in self.mx.lines("trace", "ann@example.com") if row["event"] == event]


@pytest.fixture
def world(place, holdfast, sink):
    return World(place, holdfast, sink)


@pytest.mark.sanitized
def test_it_goes_on_to_who_has_proved_itself(world):
    mx = world.start()
    world.send(" REQUIRETLS")
    world.send("")
    (first, second) = mx.queue()
    shown = [mx.lines("queue", "show", row["id"])[0]["envelope"] for row in (first, second)]
    assert [one["require_tls"] for one in shown] == [True, False]
    assert [row["tls"] for row in world.events()] == ["REQUIRETLS", None]
    mx.kill()
    mx.start()
    hop = world.hop("REQUIRETLS")
    wait_for(lambda: len(hop.messages) == 2, 30, what="both")
    assert [" REQUIRETLS" in message.mail for message in hop.messages] == [True, False]


def test_it_is_offered_by_tls_alone(world):
    mx = world.start()
    with mx.dialogue() as client:
        assert "REQUIRETLS" not in client.extensions
        code, text = client.say("MAIL FROM:<bob@client.example> REQUIRETLS")
        assert code == 555, text


def test_a_server_that_is_known_not_to_take_it(world):
    """The client is told at once; what it says of it can do without may come all the same."""
    hop = world.hop()
    mx = world.start()
    wait_for(lambda: mx.server_state("m1") == "up", 30, what="the server")

    def refused():
        try:
            world.send()
        except Refused as error:
            return "550" in str(error) and "5.7.30" in str(error)
        mx.wait_empty(30)
        return False
    wait_for(refused, 30, what="the refusal at RCPT")
    world.send("")
    world.send(sender="")
    wait_for(lambda: len(hop.messages) == 2, 30, what="the others")


def test_what_cannot_go_is_a_dead_letter_of_strangers(world):
    mx = world.start()
    world.send()
    hop = world.hop()
    wait_for(lambda: mx.status()["dead_letters"] == 1, 30, what="a dead letter")
    assert "does not offer REQUIRETLS" in world.events("dead")[0]["reason"]
    assert hop.messages == [] and mx.queue() == []


@pytest.mark.parametrize("offered", [True, False])
def test_the_notice_requires_it_too_where_it_can(world, offered):
    """RFC 8689 section 5: it is not lost where it cannot be had."""
    mx = world.start(clients="127.0.0.0/8")
    notices = world.hop(*(["REQUIRETLS"] if offered else []), port=world.notices_port)
    world.send()
    world.hop()
    wait_for(lambda: len(notices.messages) == 1, 30, what="the notice")
    assert (" REQUIRETLS" in notices.messages[0].mail) == offered
    text = notices.messages[0].content.decode()
    assert "Status: 5.7.30" in text and "does not offer REQUIRETLS" in text
    mx.wait_empty()


def test_the_notice_of_other_mail_does_not(world):
    mx = world.start(clients="127.0.0.0/8")
    notices = world.hop("REQUIRETLS", port=world.notices_port)
    world.send("")
    mx.tool("queue", "bounce", mx.queue()[0]["id"])
    wait_for(lambda: len(notices.messages) == 1, 30, what="the notice")
    assert " REQUIRETLS" not in notices.messages[0].mail


def test_who_is_not_asked_for_a_proof_and_has_one(world):
    """It is the proof that counts, not whether all mail there demands it."""
    world.start(tls="opportunistic")
    world.send()
    hop = world.hop("REQUIRETLS")
    wait_for(lambda: len(hop.messages) == 1, 30, what="the message")
    assert " REQUIRETLS" in hop.messages[0].mail


@pytest.mark.parametrize("fault, why", [("name", "not proved"), ("clear", "it requires TLS")])
def test_who_proves_nothing_does_not_get_it(world, fault, why):
    mx = world.start(tls="opportunistic")
    world.send()
    world.send("")
    if fault == "name":
        world.of_hop = world.authority.certificate("other.example.net")
    hop = world.hop("REQUIRETLS", tls=fault == "name")
    wait_for(lambda: mx.status()["dead_letters"] == 1, 30, what="a dead letter")
    assert why in world.events("dead")[0]["reason"]
    wait_for(lambda: len(hop.messages) == 1, 30, what="the other")
    assert " REQUIRETLS" not in hop.messages[0].mail


def test_a_handshake_that_fails_once_is_no_reason_to_return_it(world):
    mx = world.start(tls="opportunistic", more="retry = 1s")
    broken = []

    def rule(stage, session, argument):
        if stage == "STARTTLS" and not broken:
            broken.append(session)
            return "454 4.7.0 Not now"
        return None
    world.send()
    hop = world.sink(rule, port=world.port, extensions=OFFERED, tls=world.of_hop.context())
    wait_for(lambda: world.events("deferred"), 30, what="the deferral")
    assert "TLS, which has failed" in world.events("deferred")[0]["reason"]
    hop.stop()  # so that the next session is a fresh one
    hop.start()
    wait_for(lambda: len(hop.messages) == 1, 60, what="the message")
    assert " REQUIRETLS" in hop.messages[0].mail and mx.status()["dead_letters"] == 0


def test_it_moves_to_another_node(world, tmp_path):
    mx = world.start()
    world.send()
    world.send("", content=b"TLS-Required: No\r\nSubject: y\r\n\r\n")
    mx.tool("queue", "export", str(tmp_path / "queue"), "--all")
    world.port = free_port()
    other = world.start(name="other")
    other.tool("queue", "import", str(tmp_path / "queue"))
    shown = [other.lines("queue", "show", row["id"])[0]["envelope"] for row in other.queue()]
    assert [(one["require_tls"], one["tls_optional"]) for one in shown] == \
        [(True, False), (False, True)]


def test_mail_that_says_it_needs_none(world):
    """REQUIRETLS counts more (RFC 8689 4.1)."""
    mx = world.start()
    field = b"TLS-Required: No\r\nSubject: y\r\n\r\n"
    world.send("", content=field)
    world.send(content=field)
    shown = [mx.lines("queue", "show", row["id"])[0]["envelope"] for row in mx.queue()]
    assert [(one["require_tls"], one["tls_optional"]) for one in shown] == \
        [(False, True), (True, False)]
    assert [row["tls"] for row in world.events()] == ["TLS-Required: No", "REQUIRETLS"]
