# SPDX-License-Identifier: Apache-2.0
"""DANE under MX routing (RFC 7672): what the signed records of a domain, of its exchangers, and of
what these are aliases of demand, from a real name server."""

import email
import gzip
import json
import os

import pytest

from certificates import Authority, listen, trusting
from client import by_starttls
from peers import wait_for
from sink import EXTENSIONS
from test_dane import tlsa_of
from test_mx import send, state, why_no_port_25
from zone import Zone, why_no_zone

why_not = why_no_zone() or why_no_port_25()
pytestmark = pytest.mark.skipif(why_not is not None, reason=str(why_not))

NET = f"127.79.{os.getpid() % 250}"  # addresses of this run alone
ASKED = "server mx { tls = dane }\n"
RELAY = f"relay out {{ from = 127.0.0.0/8 deliver-to = mx deliver-only-to = {NET}.0/28 }}\n{ASKED}"
DOMAIN = f"domain far.example {{ deliver-to = mx deliver-only-to = {NET}.0/28 }}\n{ASKED}"
TWO = f"far MX 10 mx.far\nfar MX 20 mx2.far\nmx.far A {NET}.2\nmx2.far A {NET}.3\n"
ONE = f"far MX 10 mx.far\nmx.far A {NET}.2\n"


class World:
    def __init__(self, place, sink):
        self.sink, self.authority = sink, Authority(place)
        (place / "zone").mkdir()
        self.zone = Zone(place / "zone")

    def host(self, n, *names, extensions=EXTENSIONS, clear=False, days=30):
        """An exchanger at the n-th address with a certificate for the names, or without any."""
        made = self.authority.certificate(*names, days=days) if names else None
        hop = self.sink(None, port=25, address=f"{NET}.{n}", extensions=extensions,
                        tls=None if clear or made is None else made.context())
        hop.certificate = made
        return hop

    def record(self, name, chain, **how):
        return f"_25._tcp.{name} TLSA {tlsa_of(chain, **how)}\n"

    def good(self, name, hop):
        return self.record(name, hop.certificate.chain)

    def bad(self, name):
        return self.record(name, self.authority.certificate("b.example").chain)


@pytest.fixture
def world(place, sink):
    made = World(place, sink)
    yield made
    made.zone.stop()


def said(mx, recipient="bob@far.example"):
    return [row["tls"] for row in mx.lines("trace", recipient) if row["event"] == "attempt"]


def reason(mx, host, domain="far.example"):
    """Why an exchanger is not believed, of those that the domain has signed."""
    return next((s["reason"] or "" for s in mx.lines("server", "list")
                 if s["name"] == host and s["signed_by"] == domain), "")


@pytest.mark.parametrize("policy, words", [("dane", "dane"), ("mta-sts", "mta-sts (by TLSA records)")])
def test_an_exchanger_is_known_by_its_records(world, holdfast, policy, words):
    hop = world.host(2, "other.example.net")
    world.zone.change(ONE + world.good("mx.far", hop))
    mx = holdfast(RELAY.replace("dane", policy), top=world.zone.setting)
    send(mx, "bob@far.example")
    mx.wait_empty(30)
    assert said(mx)[0].startswith(f"{words}: TLSv1.3 ") and said(mx)[0].endswith(", verified")


@pytest.mark.parametrize("fault, why", [("wrong", "not trusted"), ("forged", "forged"),
                                        ("clear", "does not offer STARTTLS")])
def test_one_that_cannot_prove_itself_is_passed_over(world, holdfast, fault, why):
    best = world.host(2, "mx.far.example", clear=fault == "clear")
    other = world.host(3, "mx2.far.example")
    records = TWO + world.good("mx2.far", other)
    if fault == "wrong":
        world.zone.change(records + world.bad("mx.far"))
    elif fault == "clear":
        world.zone.change(records + world.good("mx.far", best))
    else:
        record = world.good("mx.far", best)
        forged = world.bad("mx.far")
        world.zone.change(records + record, forge=(record.split(" ", 1)[1].strip(),
                                                   forged.split(" ", 1)[1].strip()))
    mx = holdfast(RELAY, top=world.zone.setting)
    send(mx, "bob@far.example")
    mx.wait_empty(60)
    assert other.subjects() == ["1"] and best.messages == []
    assert why in reason(mx, "mx.far.example") and said(mx)[-1].endswith(", verified")


def test_without_a_signed_mx_records_of_exchangers_count_for_nothing(world, holdfast):
    """Whoever could forge that could name a host of his own; and it is said."""
    hop = world.host(2, "mx.far.example")
    world.zone.change(ONE + world.bad("mx.far"), broken="@ MX 10 mx.far.example.\n")
    mx = holdfast(RELAY, top=world.zone.setting)
    send(mx, "bob@broken.example")
    mx.wait_empty(30)
    assert hop.subjects() == ["1"]
    assert said(mx, "bob@broken.example")[0].startswith("dane (MX records not signed): TLSv1.3 ")
    # Of the same host, whose name is signed by another domain, they do.
    send(mx, "bob@far.example", 2)
    wait_for(lambda: "not trusted" in reason(mx, "mx.far.example"), 30, what="the verdict")
    send(mx, "bob@broken.example", 3)
    wait_for(lambda: hop.subjects() == ["1", "3"], 30, what="the other domain's mail")


def test_a_host_in_a_zone_that_is_not_signed_has_no_records(world, holdfast):
    hop = world.host(2, "mx.far.example")
    world.zone.change("far MX 10 mx.broken.example.\n",
                      broken=f"mx A {NET}.2\n" + world.bad("mx"))
    mx = holdfast(RELAY, top=world.zone.setting)
    send(mx, "bob@far.example")
    mx.wait_empty(30)
    assert hop.subjects() == ["1"] and said(mx)[0].startswith("dane (no TLSA records): TLSv1.3 ")


@pytest.mark.parametrize("at, name", [("real.far", "real.far.example"), ("mx.far", "mx.far.example"),
                                      ("real.far", "far.example"), ("mx.far", "far.example")])
def test_an_alias_is_known_by_either_name(world, holdfast, at, name):
    """And by the domain's own (RFC 7672 2.2.2, 3.2.2)."""
    hop = world.host(2, name)
    world.zone.change(f"far MX 10 mx.far\nmx.far CNAME real.far\nreal.far A {NET}.2\n"
                      + world.record(at, world.authority.root, usage=2))
    mx = holdfast(RELAY, top=world.zone.setting)
    send(mx, "bob@far.example")
    mx.wait_empty(30)
    assert hop.subjects() == ["1"] and said(mx)[0].endswith(", verified")


def test_where_an_alias_has_records_those_count(world, holdfast):
    hop = world.host(2, "mx.far.example")
    world.zone.change(f"far MX 10 mx.far\nmx.far CNAME real.far\nreal.far A {NET}.2\n"
                      + world.good("mx.far", hop) + world.bad("real.far"))
    mx = holdfast(RELAY, top=world.zone.setting)
    send(mx, "bob@far.example")
    wait_for(lambda: "not trusted" in reason(mx, "mx.far.example"), 30, what="the verdict")
    assert hop.messages == []


@pytest.mark.parametrize("good", [True, False])
def test_an_alias_into_a_zone_that_is_not_signed(world, holdfast, good):
    """Its own name is signed all the same (RFC 7672 2.1.3)."""
    hop = world.host(2, "mx.far.example")
    world.zone.change("far MX 10 mx.far\nmx.far CNAME mx.broken.example.\n"
                      + (world.good("mx.far", hop) if good else world.bad("mx.far")),
                      broken=f"mx A {NET}.2\n")
    mx = holdfast(RELAY, top=world.zone.setting)
    send(mx, "bob@far.example")
    if good:
        mx.wait_empty(30)
        assert said(mx)[0].endswith(", verified")
    else:
        wait_for(lambda: "not trusted" in reason(mx, "mx.far.example"), 30, what="the verdict")
        assert hop.messages == []


def test_a_domain_without_mx_is_its_own_exchanger(world, holdfast):
    hop = world.host(2, "other.example.net")
    world.zone.change(f"far A {NET}.2\n" + world.good("far", hop))
    mx = holdfast(RELAY, top=world.zone.setting)
    send(mx, "bob@far.example")
    mx.wait_empty(30)
    assert said(mx)[0].endswith(", verified")


@pytest.mark.parametrize("name, good", [("mx.org.example", True), ("far.example", True),
                                        ("org.example", True), ("other.org.example", False)])
def test_a_domain_that_is_an_alias_is_known_by_both_names(world, holdfast, name, good):
    """Its MX records are the other's, by whose name the exchanger may prove itself (3.2.2)."""
    hop = world.host(2, name)
    world.zone.change(f"far CNAME org\norg MX 10 mx.org\nmx.org A {NET}.2\n"
                      + world.record("mx.org", world.authority.root, usage=2))
    mx = holdfast(RELAY, top=world.zone.setting)
    send(mx, "bob@far.example")
    if good:
        mx.wait_empty(30)
        assert hop.subjects() == ["1"] and said(mx)[0].endswith(", verified")
    else:
        wait_for(lambda: "mismatch" in reason(mx, "mx.org.example"), 30, what="the verdict")
        assert hop.messages == []


def test_the_name_of_an_alias_is_signed_or_none(world, holdfast):
    """Of a domain that nobody has signed there are no names but its exchanger's own, and no records
    that count; the other's domain is not let in by them."""
    hop = world.host(2, "org.example")
    world.zone.change(f"org MX 10 mx.org\nmx.org A {NET}.2\n"
                      + world.record("mx.org", world.authority.root, usage=2),
                      broken="alias CNAME org.example.\n")
    mx = holdfast(RELAY, top=world.zone.setting)
    send(mx, "bob@alias.broken.example")
    mx.wait_empty(30)
    assert hop.subjects() == ["1"]
    assert said(mx, "bob@alias.broken.example")[0].startswith("dane (MX records not signed): ")


@pytest.mark.parametrize("name", ["far.example", "real.example"])
def test_an_alias_without_mx_is_known_by_either_name(world, holdfast, name):
    hop = world.host(2, name)
    world.zone.change(f"far CNAME real\nreal A {NET}.2\n"
                      + world.record("real", world.authority.root, usage=2))
    mx = holdfast(RELAY, top=world.zone.setting)
    send(mx, "bob@far.example")
    mx.wait_empty(30)
    assert hop.subjects() == ["1"] and said(mx)[0].endswith(", verified")


@pytest.mark.parametrize("fault, kind", [
    ("unusable", "tlsa-invalid"), ("name", "certificate-host-mismatch"),
    ("expired", "certificate-expired"), ("wrong", "tlsa-invalid"),
    ("forged", "dnssec-invalid"), ("clear", "starttls-not-supported"), (None, None)])
def test_what_a_domain_is_told_of_its_records(world, holdfast, fault, kind):
    """In reports on TLS (RFC 8460 4.3); unusable records stop no mail, and are a failure."""
    hop = world.host(2, "other.example" if fault == "name" else "mx.far.example",
                     clear=fault == "clear", days=-1 if fault == "expired" else 30)
    inbox = world.host(4)
    usage = {"unusable": 1, "name": 2, "expired": 2}.get(fault)
    record = (world.record("mx.far", world.authority.root, usage=usage) if usage
              else world.bad("mx.far") if fault == "wrong" else world.good("mx.far", hop))
    forge = (record.split(" ", 1)[1].strip(), world.bad("mx.far").split(" ", 1)[1].strip())
    world.zone.change(ONE + f"reports MX 10 inbox\ninbox A {NET}.4\n"
                      '_smtp._tls.far TXT "v=TLSRPTv1; rua=mailto:tls@reports.example"\n' + record,
                      forge=forge if fault == "forged" else None)
    mx = holdfast(RELAY, top=world.zone.setting + "tls-reports = tls@sender.example\n")
    send(mx, "bob@far.example")

    def counts():
        rows = [row for row in mx.lines("tls-reports", "list") if row["domain"] == "far.example"]
        return rows and rows[0]["successful" if fault is None else "failed"]
    wait_for(counts, 60, what="the counts")
    mx.tool("tls-reports", "send")
    wait_for(lambda: inbox.messages, 60, what="the report")
    assert hop.subjects() == (["1"] if fault in (None, "unusable") else [])
    _, part = email.message_from_bytes(inbox.messages[0].content).get_payload()
    (row,) = json.loads(gzip.decompress(part.get_payload(decode=True)))["policies"]
    assert row["policy"]["policy-type"] == "tlsa"
    assert [detail["result-type"] for detail in row.get("failure-details", [])] == \
        ([kind] if kind else [])


def test_what_is_remembered_of_a_domain_is_that_it_was_signed(world, holdfast):
    """A restart while DNS is silent is no way around the records."""
    hop = world.host(2, "mx.far.example")
    world.zone.change(ONE + world.good("mx.far", hop))
    mx = holdfast(DOMAIN, top=world.zone.setting)
    send(mx, "bob@far.example", 1)
    mx.wait_empty(30)
    mx.stop()
    world.zone.pause()
    mx.start()
    send(mx, "bob@far.example", 2)
    wait_for(lambda: state(mx, "mx.far.example") == "down", 60, what="the verdict")
    assert "TLSA records cannot be had" in reason(mx, "mx.far.example")
    assert hop.subjects() == ["1"]
    world.zone.resume()
    mx.wait_empty(90)
    assert hop.subjects() == ["1", "2"] and said(mx)[-1].endswith(", verified")


@pytest.mark.parametrize("signed", [True, False])
def test_requiretls_wants_signed_names(world, holdfast, signed):
    """RFC 8689 4.2.1, step 2: that the certificate has the name is not enough."""
    hop = world.host(2, "mx.far.example", extensions=(*EXTENSIONS, "REQUIRETLS"))
    world.zone.change(ONE + world.good("mx.far", hop), broken="@ MX 10 mx.far.example.\n")
    trusted = RELAY.replace("tls = dane", f'tls = dane tls-ca = "{world.authority.root}"')
    mx = holdfast(trusted + "bounces = none\n", top=world.zone.setting,
                  listen=listen(world.authority.certificate("mx2.example.net")))
    domain = "far.example" if signed else "broken.example"
    with by_starttls(mx.port, trusting(world.authority)) as client:
        client.hello("client.example")
        client.send("ann@sender.example", [f"bob@{domain}"], b"Subject: x\r\n\r\n",
                    mail=" REQUIRETLS")
    if signed:
        mx.wait_empty(30)
        assert " REQUIRETLS" in hop.messages[0].mail
    else:
        wait_for(lambda: mx.status()["dead_letters"] == 1, 30, what="a dead letter")
        assert hop.messages == []


STRICT = (*EXTENSIONS, "REQUIRETLS")


@pytest.fixture
def strict(world, holdfast):
    """Two exchangers with good records, and a relay that takes REQUIRETLS."""
    def make(*offered):
        hosts = [world.host(2 + i, f"mx{i}.far.example", extensions=STRICT if one else EXTENSIONS)
                 for i, one in enumerate(offered)]
        names = ("mx.far", "mx2.far")
        world.zone.change(TWO + "".join(world.good(name, hop) for name, hop in zip(names, hosts)))
        routes = RELAY.replace("deliver-to = mx ", "deliver-to = mx retry = 1s ")
        mx = holdfast(routes + "bounces = none\n", top=world.zone.setting,
                      listen=listen(world.authority.certificate("mx2.example.net")))

        def send_strict(n):
            with by_starttls(mx.port, trusting(world.authority)) as client:
                client.hello("client.example")
                client.send("ann@sender.example", ["bob@far.example"],
                            f"Subject: {n}\r\n\r\n".encode(), mail=" REQUIRETLS")
        mx.send_strict = send_strict
        return mx, *hosts
    return make


@pytest.mark.sanitized
def test_requiretls_goes_to_the_exchanger_that_offers_it(strict):
    """Though another comes first, which gets all other mail."""
    mx, best, other = strict(False, True)
    mx.send_strict(1)
    wait_for(lambda: other.subjects() == ["1"], 40, what="the mail at the second exchanger")
    send(mx, "bob@far.example", 2)
    mx.send_strict(3)
    mx.wait_empty(40)
    assert best.subjects() == ["2"] and other.subjects() == ["1", "3"]
    assert all(" REQUIRETLS" in message.mail for message in other.messages)


def test_requiretls_is_returned_when_no_exchanger_offers_it(strict):
    mx, best, other = strict(False, False)
    mx.send_strict(1)
    wait_for(lambda: mx.status()["dead_letters"] == 1, 40, what="a dead letter")
    events = mx.lines("trace", "bob@far.example")
    assert "does not offer REQUIRETLS" in [e for e in events if e["event"] == "dead"][0]["reason"]
    assert best.messages == [] and other.messages == []
    assert best.connects and other.connects  # both were asked


def test_requiretls_waits_for_an_exchanger_that_may_offer_it(strict):
    mx, best, other = strict(False, True)
    other.stop()
    mx.send_strict(1)
    wait_for(lambda: any(e["event"] == "deferred" and "does not offer REQUIRETLS" in e["reason"]
                         for e in mx.lines("trace", "bob@far.example")), 60, what="the deferral")
    assert mx.status()["dead_letters"] == 0
    other.start()
    mx.tool("server", "probe", "mx2.far.example", check=False)
    wait_for(lambda: other.subjects() == ["1"], 150, what="the mail at the second exchanger")
    assert best.messages == []
