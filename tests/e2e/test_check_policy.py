# SPDX-License-Identifier: Apache-2.0
"""`holdfast check DOMAIN` on what senders are told about TLS: TLSA records in a signed zone, and an
MTA-STS policy from a web server with a certificate of an authority of our own. The exchanger is
played by a server that has one certificate; each finding once good and once bad."""

import hashlib
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading

import pytest

from names import NameServer
from test_check_domain import Primary
from test_hooks import AUTHORITIES, certificate, trusting
from zone import Zone, why_no_zone

why_not = why_no_zone()
pytestmark = pytest.mark.skipif(why_not is not None, reason=str(why_not))

PRIMARY = "127.0.0.2"
WEB = f"127.78.{os.getpid() % 250}.2"  # port 443 of it is this run's alone
RECORDS = f"far MX 10 mx1.far\nmx1.far A {PRIMARY}\n"


@pytest.fixture
def zone():
    directory = tempfile.mkdtemp(prefix="holdfast-zone-")
    server = Zone(directory, RECORDS)
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture
def clinic(place, holdfast):
    """clinic(top): a daemon whose name servers `top` names, and the exchanger."""
    made = []

    def make(top):
        server = socket.create_server((PRIMARY, 0))
        mx = holdfast(f'server m1 {{ address = "{PRIMARY}:{server.getsockname()[1]}" }}\n'
                      "domain far.example { deliver-to = m1 }\n", top=top)
        made.append(Primary(place, server, mx.port))
        return mx

    yield make
    for primary in made:
        primary.stop()


def finding(mx, check):
    """Level, text and advice of the one finding of that kind."""
    (row,) = [row for row in mx.lines("check", "far.example", "--port", mx.port)
              if row["check"] == check]
    return row["level"], row["text"], row["advice"] or ""


# ---- TLSA ------------------------------------------------------------------------------------

def key_digest(place):
    """SHA-256 of the exchanger's public key: what "3 1 1" stands for."""
    pem = subprocess.run(["openssl", "x509", "-in", place / "certificate", "-noout", "-pubkey"],
                         check=True, capture_output=True).stdout
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=pem, check=True,
                         capture_output=True).stdout
    return hashlib.sha256(der).hexdigest()


WELL = "a TLSA record matches the certificate"
LOST = "senders that follow DANE do not deliver"


@pytest.mark.parametrize("usage, true, forged, level, words, advice", [
    ("3 1 1", True, False, "good", WELL, ""),  # though the certificate has another name
    ("3 1 1", False, False, "bad", "no TLSA record matches the certificate", LOST),
    ("0 1 1", True, False, "bad", "none of the TLSA records can be used for mail", LOST),
    ("3 1 1", True, True, "bad", "signature is wrong, expired or missing", f"{LOST} until"),
], ids=["right", "of another key", "of a use that mail has not", "forged"])
def test_tlsa(place, clinic, zone, usage, true, forged, level, words, advice):
    mx = clinic(zone.setting)
    digest = key_digest(place) if true else "00" * 32
    forge = (f"TLSA {usage} {digest}", f"TLSA {usage} {'11' * 32}") if forged else None
    zone.change(RECORDS + f"_25._tcp.mx1.far TLSA {usage} {digest}\n", forge=forge)
    found = finding(mx, "tlsa")
    assert found[0] == level and words in found[1] and advice in found[2], found
    # Who follows DANE needs no authority; who does not is told of what he sees.
    assert finding(mx, "tls")[0] == ("warning" if forged else "good")


def test_tlsa_of_a_zone_that_is_not_signed(place, clinic):
    names = NameServer({"far.example": {"MX": [(10, "mx1.far.example")]},
                        "mx1.far.example": {"A": [PRIMARY]},
                        "mx2.example.net": {"A": ["127.0.0.1"]}})
    try:
        mx = clinic(names.setting)
        digest = bytes.fromhex(key_digest(place))
        names.zone["_25._tcp.mx1.far.example"] = {"TLSA": [b"\3\1\1" + digest]}
        level, text, advice = finding(mx, "tlsa")
        assert level == "warning" and "the answer is not validated" in text
        assert "sign the zone" in advice
    finally:
        names.stop()


# ---- MTA-STS ---------------------------------------------------------------------------------

class Policies:
    """https://mta-sts.far.example/.well-known/mta-sts.txt, with what a test says there."""

    def __init__(self, files):
        self.status, self.text = "200 OK", ""
        self.asked = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*files)
        self.listener = socket.create_server((WEB, 443))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            try:
                with self.context.wrap_socket(connection, server_side=True) as secure:
                    self.asked.append(secure.recv(4096).split(b"\r\n")[0].decode())
                    body = self.text.encode()
                    secure.sendall(f"HTTP/1.1 {self.status}\r\nContent-Length: {len(body)}\r\n"
                                   "Location: https://elsewhere.example/\r\n"
                                   "Content-Type: text/plain\r\n\r\n".encode() + body)
            except OSError:
                pass

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def policies(place, zone):
    """The web server, and how a program is made to trust its certificate."""
    try:
        with socket.create_server((WEB, 443)):
            pass
    except OSError as error:
        pytest.skip(f"port 443 cannot be bound: {error}")
    files = certificate(place, "mta-sts.far.example")
    trust = trusting(files[0])
    probe = subprocess.run([*trust, "true"], capture_output=True, text=True, timeout=30)
    if not os.path.exists(AUTHORITIES) or probe.returncode != 0:
        pytest.skip(f"no namespace of its own: {probe.stderr[:200]}")
    zone.change(RECORDS + f'_mta-sts.far TXT "v=STSv1; id=1"\nmta-sts.far A {WEB}\n')
    server = Policies(files)
    yield server, trust
    server.stop()


def policy(mode, *exchangers):
    lines = ["version: STSv1", f"mode: {mode}", *(f"mx: {name}" for name in exchangers),
             "max_age: 86400"]
    return "".join(f"{line}\r\n" for line in lines)


def check(mx, trust):
    """The finding on the policy, by a tool that trusts those of `trust`."""
    mx.wrapper_of_tool = trust
    (row,) = [row for row in mx.lines("check", "far.example", "--port", mx.port)
              if row["check"] == "mta-sts"]
    return row["level"], row["text"], row["advice"] or ""


BOTH = ("mx1.far.example", "mx2.example.net")


@pytest.mark.parametrize("text, status, level, words, advice", [
    (policy("enforce", *BOTH), "200 OK", "good", "the policy (enforce) lists this host", ""),
    (policy("testing", "mx1.far.example", "*.example.net"), "200 OK", "good",
     "the policy (testing) lists this host", ""),
    (policy("enforce", "mx1.far.example"), "200 OK", "bad",
     "does not list this host among its 1 exchangers: senders that follow it do not deliver here",
     "add an mx line for this host"),
    (policy("testing", "mx1.far.example", "x.far.example"), "200 OK", "warning",
     "does not list this host among its 2 exchangers", "change the id of its TXT record"),
    (policy("none"), "200 OK", "good", "the policy says none", ""),
    ("version: STSv1\r\nmode: perhaps\r\n", "200 OK", "warning",
     "the policy that is announced cannot be used", "it needs version, mode, max_age"),
    (policy("enforce", *BOTH), "404 Not Found", "warning", "cannot be fetched: HTTP status 404",
     "may not be the present one"),
    (policy("enforce", *BOTH), "302 Found", "warning", "cannot be fetched: HTTP status 302",
     "may not be the present one"),
])
def test_mta_sts(clinic, zone, policies, text, status, level, words, advice):
    server, trust = policies
    server.text, server.status = text, status
    found = check(clinic(zone.setting), trust)
    assert found[0] == level and words in found[1] and advice in found[2]
    assert server.asked == ["GET /.well-known/mta-sts.txt HTTP/1.1"]


def test_mta_sts_of_whom_nobody_has_proved(clinic, zone, policies):
    server, _ = policies
    server.text = policy("enforce", *BOTH)
    level, text, _ = check(clinic(zone.setting), [])
    assert level == "warning" and "cannot be fetched" in text and "certificate" in text
    assert server.asked == []
