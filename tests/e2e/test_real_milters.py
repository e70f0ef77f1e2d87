# SPDX-License-Identifier: Apache-2.0
"""Filters of the field, as Debian has them, each as a private instance: OpenDKIM, OpenDMARC, ClamAV's
milter and rspamd."""

import re

import pytest

from client import Refused
from corpus import made_messages
from daemon import backup_mx
from filters import SELECTOR, Daemons, make_key, opendkim, opendmarc, rspamd
from peers import free_port, wait_for
from zone import Zone, why_no_zone

EICAR = (rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR" + b"-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*")
CONTENT = (b"From: Bob <bob@client.example>\r\nTo: ann@example.com\r\nSubject: a test\r\n"
           b"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@client.example>\r\n\r\n"
           b"Hello.\r\n")


@pytest.fixture
def daemons(place):
    running = Daemons(place)
    yield running
    running.stop()


@pytest.fixture
def key(place):
    """A DKIM key of client.example: its file, and the record that proves it."""
    return make_key(place)


def send(mx, content=CONTENT, source=None):
    """One message in. Filters of the field may be slow on a busy machine."""
    with mx.dialogue(timeout=300, source=source) as dialogue:
        return dialogue.send("bob@client.example", ["ann@example.com"], content)


def delivered(hop):
    wait_for(lambda: hop.messages, what="the delivery")
    return hop.messages.pop(0).content


def verifier(place, daemons, record):
    keys = place / "keys"
    keys.write_text(f"{SELECTOR}._domainkey.client.example {record}\n")
    return opendkim(daemons, "verify", "Mode v", f"TestDNSData {keys}",
                    "AuthservID mx2.example.net", "AlwaysAddARHeader yes")


def test_opendmarc_reads_what_opendkim_wrote(holdfast, sink, place, daemons, key):
    """Two filters in a row: the second sees the field that the first has added."""
    private, record = key
    hop = sink()
    check = verifier(place, daemons, record)
    port = opendmarc(daemons, "mx2.example.net", "RejectFailures false", "SPFIgnoreResults true",
                     "SPFSelfValidate false")
    mx = holdfast(f'milter dkim {{ address = "127.0.0.1:{check}" }}\n'
                  f'milter dmarc {{ address = "127.0.0.1:{port}" }}\n' + backup_mx(hop.port),
                  listen="milters = {dkim, dmarc}")
    # Not from an address that OpenDMARC ignores.
    assert send(mx, source="127.0.0.2")[0] == 250
    header = delivered(hop).split(b"\r\n\r\n")[0]
    assert b"Authentication-Results: mx2.example.net; dkim=none" in header.replace(b"\r\n\t", b" ")
    wrote = re.findall(rb"Authentication-Results: mx2.example.net; (dkim|dmarc)=", header)
    assert wrote == [b"dmarc", b"dkim"] or wrote == [b"dkim", b"dmarc"], header


def test_a_good_signature_verifies_its_sender(holdfast, sink, place, daemons, key):
    """R8. The signature is made by another instance, in front of the one that verifies it."""
    private, record = key
    hop = sink()
    sign = opendkim(daemons, "sign", "Mode s", "Domain client.example", f"KeyFile {private}",
                    f"Selector {SELECTOR}", "Canonicalization relaxed/simple",
                    "InternalHosts 127.0.0.0/8")
    check = verifier(place, daemons, record)
    mx = holdfast(f'milter sign {{ address = "127.0.0.1:{sign}" }}\n'
                  f'milter check {{ address = "127.0.0.1:{check}" }}\n' + backup_mx(hop.port),
                  listen="milters = {sign, check}")
    _, text = send(mx)
    accepted = mx.lines("trace", text.split()[-1])[0]
    assert accepted["reason"].endswith("; sender verified by dkim")
    assert b"dkim=pass" in delivered(hop)


@pytest.mark.skipif(why_no_zone() is not None, reason=str(why_no_zone()))
def test_what_one_signs_another_verifies_and_so_does_the_primary(holdfast, postfix, place, daemons,
                                                                 key):
    """Out by one that signs, in by another that verifies with the key that DNS has, and handed over
    to a Postfix that verifies once more: not an octet that is signed changes on that way."""
    private, record = key
    (place / "zone").mkdir()
    pieces = " ".join(f'"{record[at:at + 250]}"' for at in range(0, len(record), 250))
    zone = Zone(place / "zone", f"{SELECTOR}._domainkey.client TXT {pieces}\n")
    try:
        resolver = place / "unbound.conf"
        resolver.write_text('server:\n do-not-query-localhost: no\n module-config: "iterator"\n'
                            f'forward-zone:\n name: "."\n forward-addr: 127.0.0.1@{zone.port}\n')
        sign, check, last = (
            opendkim(daemons, name, f"AuthservID {authority}", f"ResolverConfiguration {resolver}",
                     "AlwaysAddARHeader yes", *lines)
            for name, authority, lines in (
                ("sign", "out.client.example", (
                    "Mode s", "Domain client.example", f"Selector {SELECTOR}",
                    f"KeyFile {private}", "InternalHosts 127.0.0.0/8",
                    "Canonicalization simple/simple")),
                ("check", "mx2.example.net", ("Mode v",)),
                ("last", "primary.example.com", ("Mode v",))))
        primary = postfix(settings=f"smtpd_milters = inet:127.0.0.1:{last}\n")
        mx = holdfast(f'milter check {{ address = "127.0.0.1:{check}" }}\n' +
                      backup_mx(primary.port), listen="milters = check", name="mx")
        out = holdfast(f'milter sign {{ address = "127.0.0.1:{sign}" }}\n'
                       f'server next {{ address = "127.0.0.1:{mx.port}" }}\n'
                       "relay outgoing { from = 127.0.0.0/8  deliver-to = next }\n",
                       listen="milters = sign", name="out", start=False)
        out.conf.write_text(out.conf.read_text().replace("mx2.example.net", "out.client.example"))
        out.start()
        sent = [content for _, content in made_messages()
                if content.startswith(b"From: a@client.example\r\n")]
        assert len(sent) > 15
        for number, content in enumerate(sent):
            send(out, content)
            wait_for(lambda: len(primary.messages()) == number + 1, what="the delivery")
            header = re.sub(rb"\n[ \t]+", b" ", primary.messages()[-1].split(b"\n\n")[0])
            assert b"\nDKIM-Signature: v=1; a=rsa-sha256; c=simple/simple; d=client.example;" in header
            for authority in (b"mx2.example.net", b"primary.example.com"):
                assert re.search(rb"\nAuthentication-Results: " + authority + rb"; dkim=pass ",
                                 header), (content[:200], header)
        # That it could have failed: the last one again with another octet.
        signed = primary.messages()[-1].replace(b"\n", b"\r\n")
        signed = signed[signed.index(b"DKIM-Signature:"):]
        send(mx, signed.replace(b"Subject: made", b"Subject: mode"))
        wait_for(lambda: len(primary.messages()) == len(sent) + 1, what="the delivery")
        assert primary.messages()[-1].count(b"dkim=fail") == 2
    finally:
        zone.stop()


def test_clamav_refuses_a_virus(holdfast, sink, place, daemons):
    hop = sink()
    base = place / "clamav"
    base.mkdir()
    place.chmod(0o755)
    # A database of our own: the test string by its octets, for the real one is hundreds of MB.
    (base / "local.ndb").write_text(f"Eicar-Local:0:*:{EICAR.hex()}\n")
    (place / "clamd.conf").write_text(
        f"Foreground yes\nDatabaseDirectory {base}\nLocalSocket {place}/clamd.sock\n"
        f"TemporaryDirectory {place}\nUser root\n")
    daemons.serve("clamd", "-c", place / "clamd.conf", path=place / "clamd.sock")
    (place / "milter.conf").write_text(
        f"Foreground yes\nMilterSocket unix:{place}/milter.sock\nUser root\n"
        f"ClamdSocket unix:{place}/clamd.sock\nOnInfected Reject\nRejectMsg \"%v in it\"\n"
        f"AddHeader Replace\nTemporaryDirectory {place}\n")
    daemons.serve("clamav-milter", "-c", place / "milter.conf", path=place / "milter.sock")
    mx = holdfast(f'milter clamav {{ address = "unix:{place}/milter.sock" }}\n' +
                  backup_mx(hop.port), listen="milters = clamav")
    assert send(mx)[0] == 250
    assert b"\r\nX-Virus-Status: Clean" in delivered(hop)
    with pytest.raises(Refused) as refused:
        send(mx, CONTENT + EICAR + b"\r\n")
    assert refused.value.code == 550 and "Eicar-Local" in refused.value.text
    # Behind much else, where it no longer lies in memory.
    with pytest.raises(Refused):
        send(mx, CONTENT + b"x" * 76 + b"\r\n" + (b"y" * 76 + b"\r\n") * 10_000 + EICAR +
                b"\r\n")
    assert mx.queue() == [] and not hop.messages
    assert "filter-refused milter=clamav" in mx.log()
    # It accepts clean mail, and libmilter hears no second session behind that.
    assert not re.search("filter-(failed|away|meets-once)", mx.log()), mx.log()


def test_rspamd_adds_its_headers_and_refuses_gtube(holdfast, sink, daemons):
    hop = sink()
    port, _ = rspamd(daemons)
    mx = holdfast(f'milter rspamd {{ address = "127.0.0.1:{port}" }}\n' + backup_mx(hop.port),
                  listen="milters = rspamd")
    assert send(mx)[0] == 250
    delivered(hop)
    gtube = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
    with pytest.raises(Refused) as refused:
        send(mx, CONTENT + gtube + b"\r\n")
    assert refused.value.code in (550, 554)
    assert "filter-refused milter=rspamd" in mx.log() and not hop.messages
