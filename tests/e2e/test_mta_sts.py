# SPDX-License-Identifier: Apache-2.0
"""tls = mta-sts: what a domain's policy (RFC 8461) demands of the servers that its mail goes to. The
policies are served over HTTPS on port 443 of an address of this run alone, by a host whose
certificate is of the authority that the daemon is made to trust in place of the machine's."""

import os
import socket
import ssl
import subprocess
import threading
import time

import pytest

from certificates import Authority
from daemon import kill
from names import NameServer
from peers import wait_for
from test_dane import tlsa
from test_hooks import AUTHORITIES, trusting
from test_mx import NET, RELAY, World, lane, send, why_no_port_25
from zone import Zone, why_no_zone

WEB = f"{NET}.200"


def why_not():
    if why_no_port_25() is not None:
        return why_no_port_25()
    try:
        with socket.create_server((WEB, 443)):
            pass
    except OSError as error:
        return f"port 443 cannot be bound: {error}"
    if not os.path.exists(AUTHORITIES):
        return f"no {AUTHORITIES}"
    probe = subprocess.run([*trusting(AUTHORITIES), "true"], capture_output=True, text=True,
                           timeout=30, check=False)
    return f"no namespace of its own: {probe.stderr[:200]}" if probe.returncode != 0 else None


pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


class Web:
    """https://mta-sts.DOMAIN/.well-known/mta-sts.txt of any domain that has a certificate; takes
    reports by POST, or says what it is to answer them."""

    def __init__(self):
        self.texts, self.contexts = {}, {}
        self.status, self.type = "200 OK", "text/plain; charset=utf-8"
        self.silent = False
        self.held = {}  # by host: an event before which nothing is answered
        self.asked = []
        self.posts, self.answers = [], []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.sni_callback = self.choose
        self.listener = socket.create_server((WEB, 443))
        threading.Thread(target=self.serve, daemon=True).start()

    def choose(self, secure, name, _):
        if name in self.contexts:
            secure.context = self.contexts[name]

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection):
        try:
            with self.context.wrap_socket(connection, server_side=True) as secure:
                received = b""
                while b"\r\n\r\n" not in received:
                    more = secure.recv(65536)
                    if not more:
                        return  # whoever it was did not like the certificate
                    received += more
                head, body = received.split(b"\r\n\r\n", 1)
                lines = head.decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:])
                while len(body) < int(headers.get("content-length", 0)):
                    body += secure.recv(65536)
                if lines[0].startswith("POST "):
                    self.posts.append((lines[0], headers, body))
                    self.say(secure, self.answers.pop(0) if self.answers else "201 Created", b"")
                    return
                self.asked.append((headers["host"], lines[0]))
                if self.silent:
                    secure.recv(1)
                    return
                if headers["host"] in self.held:
                    self.held[headers["host"]].wait(120)
                self.say(secure, self.status, self.texts.get(headers["host"], "").encode(),
                         f"Location: https://{headers['host']}/elsewhere\r\n"
                         f"Content-Type: {self.type}\r\n")
        except OSError:
            pass

    def say(self, secure, status, body, more=""):
        secure.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode()
                       + body)

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def policy(mode, *hosts, max_age=86400):
    lines = ["version: STSv1", f"mode: {mode}", *(f"mx: {host}" for host in hosts),
             f"max_age: {max_age}"]
    return "".join(f"{line}\r\n" for line in lines)


class StsWorld(World):
    """World, with an authority, and domains that publish policies."""

    def __init__(self, sink, names, place):
        super().__init__(sink, names)
        self.authority = Authority(place)
        self.web = Web()

    def publish(self, domain, text, tag="1", certified=None):
        """`certified`: the name in the certificate of the policy's host."""
        host = f"mta-sts.{domain}"
        self.names.zone[f"_mta-sts.{domain}"] = {"TXT": [f"v=STSv1; id={tag};"]}
        self.names.zone[host] = {"A": [WEB]}
        self.web.texts[host] = text
        if host not in self.web.contexts:
            made = self.authority.certificate(certified or host)
            self.web.contexts[host] = made.context()

    def exchanger(self, n, proves=True):
        """h{n}.example with STARTTLS; with a certificate of its name, or of another."""
        host = self.host(n, start=False)
        name = f"h{n}.example" if proves else f"other{n}.example"
        host.tls = self.authority.certificate(name).context()
        host.start()
        return host


@pytest.fixture
def world(sink, place):
    names = NameServer({})
    made = StsWorld(sink, names, place)
    yield made
    made.web.stop()
    names.stop()


def start_relay(holdfast, world, tls="tls = mta-sts", top=""):
    """Under MX routing, trusting the world's authority in place of the machine's."""
    mx = holdfast(RELAY + f"server mx {{ {tls} }}\n", top=world.names.setting + "\n" + top,
                  start=False)
    mx.wrapper = trusting(world.authority.root)
    mx.start()
    return mx


@pytest.fixture
def relay(holdfast, world):
    return start_relay(holdfast, world)


def said(mx, address="bob@far.example"):
    """What was said of TLS in each attempt."""
    return [row["tls"] for row in mx.lines("trace", address) if row["event"] == "attempt"]


def stuck(mx, words, domain="far.example"):
    """The mail of the domain waits, and this is why."""
    wait_for(lambda: words in ((lane(mx, f"mx:{domain}") or {}).get("reason") or ""), 40,
             what=f"'{words}' as the reason")
    assert len(mx.queue()) == 1


def warnings(mx):
    return [line for line in mx.log().splitlines() if "mta-sts-failed" in line]


# ---- modes -----------------------------------------------------------------------------------

@pytest.mark.sanitized
def test_enforce_wants_proof_from_who_is_listed(world, relay):
    world.exchanger(2)
    world.mx("far.example", (10, "h2.example"))
    world.publish("far.example", policy("enforce", "h2.example"))
    send(relay, "bob@far.example")
    relay.wait_empty(60)
    assert said(relay)[0].startswith("mta-sts (enforce): TLSv1.3 ")
    assert said(relay)[0].endswith(", verified")
    assert world.web.asked == [("mta-sts.far.example", "GET /.well-known/mta-sts.txt HTTP/1.1")]
    assert "mta-sts-policy domain=far.example mode=enforce id=1" in relay.log()
    # It is known now, and not asked for again; another domain with these hosts has none.
    world.mx("near.example", (10, "h2.example"))
    send(relay, "bob@far.example", 2)
    send(relay, "bob@near.example", 3)
    relay.wait_empty(60)
    assert len(world.web.asked) == 1
    assert said(relay, "bob@near.example")[0].startswith("mta-sts (no policy): TLSv1.3 ")


def test_enforce_sends_nothing_to_who_proves_nothing(world, relay):
    bad = world.exchanger(2, proves=False)
    world.mx("far.example", (10, "h2.example"))
    world.publish("far.example", policy("enforce", "*.example"))
    send(relay, "bob@far.example")
    stuck(relay, "hostname mismatch")
    assert bad.messages == []
    # Another domain has no policy, and its mail goes there.
    world.mx("near.example", (10, "h2.example"))
    send(relay, "bob@near.example", 2)
    wait_for(lambda: bad.subjects() == ["2"], 40, what="the mail of the other domain")
    assert len(relay.queue()) == 1


def test_enforce_sends_nothing_in_the_clear(world, relay):
    plain, good = world.host(2), world.exchanger(3)
    world.mx("far.example", (10, "h2.example"), (20, "h3.example"))
    world.publish("far.example", policy("enforce", "h2.example", "h3.example"))
    send(relay, "bob@far.example")
    relay.wait_empty(60)
    assert plain.messages == [] and good.subjects() == ["1"]


def test_enforce_passes_over_who_is_not_listed(world, relay):
    unlisted, good = world.exchanger(2), world.exchanger(3)
    world.mx("far.example", (10, "h2.example"), (20, "h3.example"))
    world.publish("far.example", policy("enforce", "h3.example"))
    send(relay, "bob@far.example")
    relay.wait_empty(60)
    assert unlisted.messages == [] and good.subjects() == ["1"]


def test_enforce_with_nobody_left(world, relay):
    unlisted = world.exchanger(2)
    world.mx("far.example", (10, "h2.example"))
    world.publish("far.example", policy("enforce", "mx.elsewhere.example"))
    send(relay, "bob@far.example")
    stuck(relay, "the MTA-STS policy of the domain does not list this server")
    assert unlisted.messages == []


@pytest.mark.parametrize("listed, proves, words", [
    (True, True, "mta-sts (testing): TLSv1.3 "),
    (True, False, "mta-sts (testing): TLSv1.3 "),
    (False, True, "mta-sts (testing, and the policy does not list it): TLSv1.3 "),
])
def test_testing_delivers_and_tells(world, relay, listed, proves, words):
    world.exchanger(2, proves=proves)
    world.mx("far.example", (10, "h2.example"))
    world.publish("far.example", policy("testing", "h2.example" if listed else "h9.example"))
    send(relay, "bob@far.example")
    relay.wait_empty(60)
    assert said(relay)[0].startswith(words)
    assert (", verified" if proves else "not verified: hostname mismatch") in said(relay)[0]


def test_testing_delivers_even_in_the_clear(world, relay):
    world.host(2)
    world.mx("far.example", (10, "h2.example"))
    world.publish("far.example", policy("testing", "h2.example"))
    send(relay, "bob@far.example")
    relay.wait_empty(60)
    assert said(relay) == ["mta-sts (testing): not offered"]


def test_none_is_no_policy(world, relay):
    world.exchanger(2, proves=False)
    world.mx("far.example", (10, "h2.example"))
    world.publish("far.example", policy("none"))
    send(relay, "bob@far.example")
    relay.wait_empty(60)
    assert said(relay)[0].startswith("mta-sts (no policy): TLSv1.3 ")


# ---- policies that cannot be had --------------------------------------------------------------

ENFORCE = policy("enforce", "h9.example")


@pytest.mark.parametrize("how, reason", [
    ({"certified": "mta-sts.other.example"}, "certificate subject name"),
    ({"status": "302 Found"}, "HTTP status 302"),
    ({"status": "404 Not Found"}, "HTTP status 404"),
    ({"type": "text/html"}, "it is no text/plain"),
    ({"text": ENFORCE + "x: y\r\n" * 20000}, "it is larger than 65536 bytes"),
    ({"text": "version: STSv1\r\nmode: enforce\r\n"}, "the policy cannot be used"),
], ids=["certificate", "redirect", "missing", "type", "size", "grammar"])
def test_a_policy_that_cannot_be_had(world, relay, how, reason):
    world.exchanger(2, proves=False)
    world.mx("far.example", (10, "h2.example"))
    world.web.status = how.get("status", world.web.status)
    world.web.type = how.get("type", world.web.type)
    world.publish("far.example", how.get("text", ENFORCE), certified=how.get("certified"))
    send(relay, "bob@far.example")
    relay.wait_empty(60)
    assert said(relay)[0].startswith("mta-sts (its policy cannot be had): TLSv1.3 ")
    (line,) = warnings(relay)
    assert reason in line and "delivered as if there were none" in line, line
    assert all("elsewhere" not in request for _, request in world.web.asked)


def test_mail_waits_for_a_policy_but_not_for_ever(world, relay):
    world.exchanger(2)
    world.mx("far.example", (10, "h2.example"))
    world.publish("far.example", ENFORCE)
    world.web.silent = True
    send(relay, "bob@far.example")
    wait_for(lambda: world.web.asked, 40, what="the fetch")
    assert len(relay.queue()) == 1
    relay.wait_empty(90)
    assert said(relay)[0].startswith("mta-sts (its policy cannot be had): ")
    assert "the policy does not come" in warnings(relay)[0]


def test_several_announcements_are_none(world, relay):
    world.exchanger(2, proves=False)
    world.mx("far.example", (10, "h2.example"))
    world.publish("far.example", ENFORCE)
    world.names.zone["_mta-sts.far.example"]["TXT"].append("v=STSv1; id=2;")
    send(relay, "bob@far.example")
    relay.wait_empty(60)
    assert said(relay)[0].startswith("mta-sts (no policy): ") and world.web.asked == []


# ---- mail whose sender needs no TLS (RFC 8689 5) -----------------------------------------------

WAIVED = b"TLS-Required: No\r\nSubject: %d\r\n\r\n"


def send_waived(mx, recipient, n=1):
    mx.send(recipients=(recipient,), sender="ann@sender.example", content=WAIVED % n)


def stopped_by_enforce(world):
    bad = world.exchanger(2, proves=False)
    world.mx("far.example", (10, "h2.example"))
    world.publish("far.example", policy("enforce", "h2.example"))
    return bad


@pytest.mark.sanitized
def test_a_sender_may_waive_what_the_domain_demands(world, relay):
    """His mail goes past the rest, which waits; and no other over his connection."""
    bad = stopped_by_enforce(world)
    send(relay, "bob@far.example", 1)
    stuck(relay, "hostname mismatch")
    send_waived(relay, "bob@far.example", 2)
    wait_for(lambda: bad.subjects() == ["2"], 40, what="the mail that needs no TLS")
    send(relay, "bob@far.example", 3)
    send_waived(relay, "bob@far.example", 4)
    wait_for(lambda: bad.subjects() == ["2", "4"], 40, what="the next one")
    assert len(relay.queue()) == 2
    waived = [words for words in said(relay) if words.startswith("opportunistic (TLS-Required: No): ")]
    assert len(waived) == 2 and all("TLSv1.3" in words for words in waived)
    assert sorted(row["tls_waived"] for row in relay.lines("server", "list")
                  if row["name"] == "h2.example") == [False, True]


def test_a_waiver_lets_mail_go_in_the_clear(world, relay):
    plain = world.host(2)
    world.mx("far.example", (10, "h2.example"))
    world.publish("far.example", policy("enforce", "h9.example"))
    send_waived(relay, "bob@far.example")
    relay.wait_empty(60)
    assert plain.subjects() == ["1"]
    assert said(relay) == ["opportunistic (TLS-Required: No): not offered"]


def test_a_waiver_outlives_a_crash(world, relay):
    bad = stopped_by_enforce(world)
    bad.stop()
    send(relay, "bob@far.example", 1)
    send_waived(relay, "bob@far.example", 2)
    relay.kill()
    bad.start()
    relay.start()
    wait_for(lambda: bad.subjects() == ["2"], 90, what="the mail that needs no TLS")
    assert len(relay.queue()) == 1


@pytest.mark.parametrize("tls, words", [("mta-sts tls-required-no = ignore", "hostname mismatch"),
                                        ("required", "hostname mismatch")])
def test_what_the_operator_demands_is_not_waived(world, holdfast, tls, words):
    bad = stopped_by_enforce(world)
    mx = start_relay(holdfast, world, f"tls = {tls}")
    send_waived(mx, "bob@far.example")
    stuck(mx, words)
    assert bad.messages == []


def test_a_waiver_ends_and_begins_with_a_reload(world, relay):
    bad = stopped_by_enforce(world)
    text = relay.conf.read_text()
    relay.conf.write_text(text.replace("tls = mta-sts", "tls = mta-sts tls-required-no = ignore"))
    relay.reload()
    send_waived(relay, "bob@far.example")
    stuck(relay, "hostname mismatch")
    relay.conf.write_text(text)
    relay.reload()
    wait_for(lambda: bad.subjects() == ["1"], 60, what="the mail that needs no TLS")


@pytest.mark.parametrize("waived", [True, False])
def test_the_notice_of_mail_that_needs_none_goes_the_same_way(world, relay, waived):
    world.host(2, rule=lambda stage, session, argument: "550 5.1.1 Nobody" if stage == "RCPT" else None)
    world.mx("far.example", (10, "h2.example"))
    world.publish("sender.example", policy("enforce", "home.example"))
    (send_waived if waived else send)(relay, "bob@far.example")
    if waived:
        assert "TLS-Required: No\r\n" in world.notice().split("\r\n\r\n")[0]
        relay.wait_empty(60)
    else:
        wait_for(lambda: (lane(relay, "mx:sender.example") or {}).get("reason"), 60, what="its reason")
        assert world.home.messages == []


# ---- what is kept -----------------------------------------------------------------------------

@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_policy_outlives_a_restart_and_its_publication(world, relay, end):
    """Who can silence DNS and the web server does not get the mail."""
    good = world.exchanger(2)
    world.mx("far.example", (10, "h2.example"))
    world.publish("far.example", policy("enforce", "h2.example"))
    send(relay, "bob@far.example")
    relay.wait_empty(60)
    if end == "stopped":
        relay.stop()
    else:
        state = relay.conf.parent / "state" / "state" / "policies"
        wait_for(lambda: state.exists() and "far.example" in state.read_text(), 30,
                 what="the file")
        relay.kill()
    good.stop()
    del world.names.zone["_mta-sts.far.example"], world.names.zone["mta-sts.far.example"]
    good.tls = world.authority.certificate("impostor.example").context()
    good.start()
    relay.start()
    send(relay, "bob@far.example", 2)
    stuck(relay, "hostname mismatch")
    assert good.subjects() == ["1"] and len(world.web.asked) == 1


def stopped_under_enforce(world, relay):
    """A listed exchanger that cannot prove its name, and a message that waits for it."""
    host = world.exchanger(2, proves=False)
    world.mx("far.example", (10, "h2.example"))
    world.publish("far.example", policy("enforce", "h2.example"))
    send(relay, "bob@far.example")
    stuck(relay, "hostname mismatch")
    relay.stop()
    return host


def test_a_new_id_is_a_new_policy(world, relay):
    host = stopped_under_enforce(world, relay)
    world.publish("far.example", policy("testing", "h2.example"), tag="2")
    relay.start()
    wait_for(lambda: host.subjects() == ["1"], 60, what="the mail under the new policy")
    assert "mode=testing id=2" in relay.log() and len(world.web.asked) == 2


def test_a_new_id_that_cannot_be_fetched_leaves_the_old_policy(world, relay):
    host = stopped_under_enforce(world, relay)
    world.publish("far.example", policy("none"), tag="2")
    world.web.status = "500 Oh"
    relay.start()
    wait_for(lambda: "the policy that is known holds" in relay.log(), 60, what="word of the failure")
    stuck(relay, "hostname mismatch")
    assert host.messages == []


def test_a_policy_ends(world, relay):
    host = world.exchanger(2, proves=False)
    world.mx("far.example", (10, "h2.example"))
    world.publish("far.example", policy("enforce", "h2.example", max_age=5))
    send(relay, "bob@far.example")
    stuck(relay, "hostname mismatch")
    del world.names.zone["_mta-sts.far.example"]
    wait_for(lambda: host.subjects() == ["1"], 120, what="the mail when the policy has ended")
    assert said(relay)[-1].startswith("mta-sts (no policy): ")


def test_a_policy_in_use_is_fetched_again_in_time(world, relay):
    world.exchanger(2)
    world.mx("far.example", (10, "h2.example"))
    world.publish("far.example", policy("enforce", "h2.example", max_age=20))
    send(relay, "bob@far.example")
    relay.wait_empty(60)
    send(relay, "bob@far.example", 2)  # it is in use
    wait_for(lambda: len(world.web.asked) == 2, 60, what="the second fetch")


def test_helper_and_core_killed_meet_again(world, relay):
    world.exchanger(2)
    world.mx("far.example", (10, "h2.example"))
    world.publish("far.example", policy("enforce", "h2.example"))
    world.web.silent = True
    send(relay, "bob@far.example")
    wait_for(lambda: len(world.web.asked) == 1, 40, what="the fetch")
    world.web.silent = False
    kill(relay.processes()["holdfast-helper"][0])
    wait_for(lambda: len(world.web.asked) == 2, 40, what="the fetch by another helper")
    relay.wait_empty(60)
    assert said(relay)[0].startswith("mta-sts (enforce): ")


def test_what_is_fetched_for_a_core_that_died_is_no_other_domain_s(world, relay):
    """The answer to the first fetch of the one is none to the first of the next."""
    for n, domain in ((2, "far.example"), (3, "near.example")):
        world.exchanger(n)
        world.mx(domain, (10, f"h{n}.example"))
        world.publish(domain, policy("enforce", f"h{n}.example"), tag=domain[:3])
        world.web.held[f"mta-sts.{domain}"] = threading.Event()
    send(relay, "bob@far.example")
    wait_for(lambda: len(world.web.asked) == 1, 60, what="the fetch")
    relay.tool("queue", "discard", "--all")
    relay.wait_empty(60)
    core = relay.processes()["holdfast-core"]
    kill(core[0])
    wait_for(lambda: relay.processes().get("holdfast-core", core) != core, 60, what="another core")
    send(relay, "bob@near.example", 2)
    wait_for(lambda: world.web.asked[-1][0] == "mta-sts.near.example", 60, what="its fetch")
    world.web.held["mta-sts.far.example"].set()
    time.sleep(2)  # in which it would be taken for the answer to near.example's
    assert "mta-sts-policy" not in relay.log()
    world.web.held["mta-sts.near.example"].set()
    relay.wait_empty(90)
    assert said(relay, "bob@near.example")[-1].startswith("mta-sts (enforce): ")


# ---- a server of the configuration -------------------------------------------------------------

def test_a_configured_server_by_the_policy_of_its_name(world, holdfast):
    """RFC 8461 3.4: the host of a smart host is the domain of its policy."""
    hop = world.exchanger(2)
    world.publish("h2.example", policy("enforce", "h2.example"))
    mx = holdfast('server m1 { address = "h2.example" tls = mta-sts }\n'
                  "domain example.com { deliver-to = m1 }\n", top=world.names.setting, start=False)
    mx.wrapper = trusting(world.authority.root)
    mx.start()
    mx.send()
    mx.wait_empty(60)
    assert said(mx, "ann@example.com")[0].startswith("mta-sts (enforce): TLSv1.3 ")
    hop.stop()
    hop.tls = world.authority.certificate("impostor.example").context()
    hop.start()
    mx.send(sender="second@client.example")
    wait_for(lambda: "hostname mismatch" in (mx.lines("server", "list")[0]["reason"] or ""), 60,
             what="the verdict")
    assert len(hop.messages) == 1


@pytest.mark.skipif(why_no_zone() is not None, reason=str(why_no_zone()))
@pytest.mark.parametrize("lists, record, verdict", [
    ("h9.example", "fits", "mta-sts (by TLSA records): "),
    ("mail.example", "does not fit", "not trusted"),
    ("mail.example", None, "mta-sts (enforce): "),
    ("h9.example", None, "does not list this server"),
])
def test_tlsa_records_come_before_a_policy(world, holdfast, sink, place, lists, record, verdict):
    """RFC 8461 2: a policy that would refuse the server does not where DANE proves it; and one that
    would let it pass does not where DANE refuses it. Without records the policy holds."""
    certificate = world.authority.certificate("mail.example")
    other = world.authority.certificate("b.example")
    hop = sink(tls=certificate.context())
    (place / "zone").mkdir()
    record = tlsa(hop.port, (certificate if record == "fits" else other).chain) if record else ""
    zone = Zone(place / "zone", "mail A 127.0.0.1\n_mta-sts.mail TXT \"v=STSv1; id=1\"\n"
                f"mta-sts.mail A {WEB}\n" + record)
    try:
        world.publish("mail.example", policy("enforce", lists))
        mx = holdfast(f'server m1 {{ address = "mail.example:{hop.port}" tls = mta-sts }}\n'
                      "domain example.com { deliver-to = m1 }\n", top=zone.setting, start=False)
        mx.wrapper = trusting(world.authority.root)
        mx.start()
        mx.send()
        if verdict.startswith("mta-sts"):
            mx.wait_empty(60)
            assert said(mx, "ann@example.com")[0].startswith(verdict + "TLSv1.3 ")
            assert said(mx, "ann@example.com")[0].endswith(", verified")
        else:
            wait_for(lambda: verdict in (mx.lines("server", "list")[0]["reason"] or ""), 60,
                     what="the verdict")
            assert hop.messages == []
    finally:
        zone.stop()
