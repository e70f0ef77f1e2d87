# SPDX-License-Identifier: Apache-2.0
"""tls = dane: what the signed TLSA records of a server's name demand, from a real name server."""

import hashlib
import re
import subprocess

import pytest

from certificates import Authority
from peers import wait_for
from zone import Zone, why_no_zone

pytestmark = pytest.mark.skipif(why_no_zone() is not None, reason=str(why_no_zone()))

NAME = "mail.example"


@pytest.fixture
def authority(place):
    return Authority(place)


@pytest.fixture
def zone(place):
    (place / "zone").mkdir()
    made = Zone(place / "zone", "mail A 127.0.0.1\n")
    yield made
    made.stop()


def tlsa_of(certificate, usage=3, selector=1, matching=1):
    """The data of a record of a file's first certificate's key."""
    key = subprocess.run(["openssl", "x509", "-in", certificate, "-noout", "-pubkey"],
                         capture_output=True, check=True).stdout
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=key,
                         capture_output=True, check=True).stdout
    return f"{usage} {selector} {matching} {hashlib.sha256(der).hexdigest()}"


def tlsa(port, certificate, **how):
    """A record of that, as a line of the zone."""
    return f"_{port}._tcp.mail TLSA {tlsa_of(certificate, **how)}\n"


def routes(port):
    return f"""\
server m1 {{ address = "{NAME}:{port}"  tls = dane  connect-timeout = 3s }}
domain example.com {{ deliver-to = m1 }}
"""


def said(mx):
    return [row["tls"] for row in mx.lines("trace", "ann@example.com")
            if row["event"] == "attempt"]


def failure(mx):
    return mx.lines("server", "list")[0]["reason"] or ""


HOST = "mail A 127.0.0.1\n"


def test_a_record_that_fits(holdfast, sink, authority, zone):
    """Of the key alone: neither name, nor date, nor signer count (RFC 7672 3.1.1)."""
    certificate = authority.certificate("other.example.net", days=-1)
    hop = sink(tls=certificate.context())
    zone.change(HOST + tlsa(hop.port, authority.root) + tlsa(hop.port, certificate.chain))
    mx = holdfast(routes(hop.port), top=zone.setting)
    mx.send()
    mx.wait_empty()
    assert said(mx)[0].startswith("dane: TLSv1.3 ") and said(mx)[0].endswith(", verified")


def test_an_authority_s_record_wants_the_name(holdfast, sink, authority, zone):
    hop = sink(tls=authority.certificate(NAME).context())
    zone.change(HOST + tlsa(hop.port, authority.root, usage=2))
    mx = holdfast(routes(hop.port), top=zone.setting)
    mx.send()
    mx.wait_empty()
    assert said(mx)[0].endswith(", verified")
    hop.tls = authority.certificate("other.example.net").context()
    hop.stop()
    hop.start()
    mx.send(sender="second@client.example")
    wait_for(lambda: "hostname mismatch" in failure(mx), what="the verdict")
    assert len(hop.messages) == 1


def test_a_record_that_does_not_fit(holdfast, sink, authority, zone):
    hop = sink(tls=authority.certificate(NAME).context())
    zone.change(HOST + tlsa(hop.port, authority.certificate("b.example").chain))
    mx = holdfast(routes(hop.port), top=zone.setting)
    mx.send()
    wait_for(lambda: "not trusted" in failure(mx), what="the verdict")
    assert mx.server_state("m1") != "up" and hop.messages == [] and len(mx.queue()) == 1
    # The record is corrected.
    zone.change(HOST + tlsa(hop.port, authority.folder / f"{NAME}.pem"))
    mx.wait_empty()


def test_where_there_are_records_nothing_goes_in_the_clear(holdfast, sink, authority, zone):
    hop = sink()
    zone.change(HOST + tlsa(hop.port, authority.root))
    mx = holdfast(routes(hop.port), top=zone.setting)
    mx.send()
    wait_for(lambda: "does not offer STARTTLS" in failure(mx), what="the verdict")
    assert hop.messages == []


def test_records_that_cannot_be_used_demand_tls_and_no_proof(holdfast, sink, authority, zone):
    hop = sink(tls=authority.certificate("other.example.net").context())
    zone.change(HOST + tlsa(hop.port, authority.root, usage=1))
    mx = holdfast(routes(hop.port), top=zone.setting)
    mx.send()
    mx.wait_empty()
    assert said(mx)[0].startswith("dane (no usable TLSA record): TLSv1.3 ")
    hop.tls = None
    hop.stop()
    hop.start()
    mx.send(sender="second@client.example")
    wait_for(lambda: "does not offer STARTTLS" in failure(mx), what="the verdict")
    assert len(hop.messages) == 1


def test_without_records_it_is_opportunistic(holdfast, sink, authority, zone):
    hop = sink(tls=authority.certificate("other.example.net").context())
    mx = holdfast(routes(hop.port), top=zone.setting)
    mx.send()
    mx.wait_empty()
    assert said(mx)[0].startswith("dane (no TLSA records): TLSv1.3 ")
    assert re.search("not asked to prove itself$|not verified: self-signed", said(mx)[0])
    hop.tls = None
    hop.stop()
    hop.start()
    mx.send(sender="second@client.example")
    mx.wait_empty()
    assert said(mx)[-1] == "dane (no TLSA records): not offered"


@pytest.mark.parametrize("how", ["forged", "stripped", "silent"])
def test_an_answer_that_is_none_is_no_reason_to_do_without(holdfast, sink, authority, zone, how):
    certificate = authority.certificate(NAME)
    hop = sink(tls=certificate.context())
    record = tlsa(hop.port, certificate.chain)
    zone.change(HOST + record)
    if how == "forged":
        other = tlsa(hop.port, authority.root)
        zone.change(HOST + record, forge=(record.split(" ", 1)[1].strip(),
                                          other.split(" ", 1)[1].strip()))
    elif how == "stripped":
        zone.change(HOST + record, strip=f"_{hop.port}._tcp.mail")
    mx = holdfast(routes(hop.port), top=zone.setting, start=how != "silent")
    if how == "silent":
        zone.pause()
        mx.start()
    mx.send()
    wait_for(lambda: mx.server_state("m1") == "down", what="the verdict")
    assert hop.messages == [] and len(mx.queue()) == 1
    if how != "silent":
        assert "TLSA records cannot be had: the answer is forged" in failure(mx)
    # It is repaired, and the mail goes by itself.
    zone.resume()
    zone.change(HOST + record)
    mx.wait_empty(90)
    assert said(mx)[-1].endswith(", verified")
