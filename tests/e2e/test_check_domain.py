# SPDX-License-Identifier: Apache-2.0
"""`holdfast check DOMAIN`: what the doctor finds, each finding once good and once bad.

The exchangers are 127.0.0.1 (this holdfast) and 127.0.0.2 (a primary that the test plays), both at
the port that --port names; as the server m1 the primary has a port of its own.
"""

import socket
import ssl
import subprocess
import threading

import pytest

from certificates import Authority, listen
from names import NameServer
from peers import wait_for

ROUTES = """\
server m1 {{ address = "127.0.0.2:{port}" }}
domain example.com {{ deliver-to = m1 }}
"""


def zone():
    return {
        "example.com": {"MX": [(20, "mx2.example.net"), (10, "mx1.example.com")],
                        "TXT": ["v=spf1 mx -all"]},
        "mx1.example.com": {"A": ["127.0.0.2"]},
        "mx2.example.net": {"A": ["127.0.0.1"]},
    }


class Primary:
    """Greets, offers STARTTLS, and has a certificate of its own making."""

    def __init__(self, place, server, port, greeting=b"220 mx1.example.com ESMTP\r\n"):
        self.greeting = greeting
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "90",
                        "-subj", "/CN=mx1.example.com", "-addext",
                        "subjectAltName=DNS:mx1.example.com", "-keyout", place / "key",
                        "-out", place / "certificate"], check=True, capture_output=True)
        self.context.load_cert_chain(place / "certificate", place / "key")
        self.listeners = [server, socket.create_server(("127.0.0.2", port))]
        for listener in self.listeners:
            threading.Thread(target=self.serve, args=(listener,), daemon=True).start()

    def serve(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        try:
            with connection:
                connection.sendall(self.greeting)
                file = connection.makefile("rb")
                while line := file.readline():
                    verb = line.split()[0].upper()
                    if verb == b"EHLO":
                        connection.sendall(b"250-mx1.example.com\r\n250 STARTTLS\r\n")
                    elif verb == b"STARTTLS":
                        connection.sendall(b"220 go\r\n")
                        with self.context.wrap_socket(connection, server_side=True) as secure:
                            secure.recv(100)
                        return
        except OSError:
            pass

    def stop(self):
        for listener in self.listeners:
            if listener.fileno() >= 0:
                listener.shutdown(socket.SHUT_RDWR)
                listener.close()


@pytest.fixture
def clinic(place, holdfast):
    """mx, names and examine(): the findings as {(check, subject): [finding, ...]}."""

    class Clinic:
        names = NameServer(zone())
        mx = None
        primary = None

        def open(self, listening="", **more):
            server = socket.create_server(("127.0.0.2", 0))
            self.primary_port = server.getsockname()[1]
            routes = ROUTES.format(port=self.primary_port)
            self.mx = holdfast(routes, top=self.names.setting, listen=listening)
            self.primary = Primary(place, server, self.mx.port, **more)

        def examine(self, domain="example.com"):
            found = {}
            for row in self.mx.lines("check", domain, "--port", self.mx.port):
                found.setdefault((row["check"], row["subject"]), []).append(row)
            return found

        def level(self, check, subject, domain="example.com"):
            (row,) = self.examine(domain)[check, subject]
            return row["level"], row["text"]

    clinic = Clinic()
    yield clinic
    clinic.names.stop()
    if clinic.primary is not None:
        clinic.primary.stop()


def test_a_domain_that_is_well(clinic):
    clinic.open()
    found = clinic.examine()
    levels = {key: [row["level"] for row in rows] for key, rows in found.items()}
    assert levels["route", "example.com"] == ["good"]
    assert levels["mx", "example.com"] == ["good"]
    assert "mx1.example.com (10) comes first" in found["mx", "example.com"][0]["text"]
    assert levels["server", "m1"] == ["good"]
    assert levels["greeting", "mx1.example.com"] == ["good"]
    assert levels["greeting", "mx2.example.net"] == ["good"]
    assert levels["spf", "example.com"] == ["good"]
    assert levels["mta-sts", "example.com"] == ["good"]
    assert levels["daemon", "mx2.example.net"] == ["good"]
    assert levels["disk", "mx2.example.net"] == ["good"]
    (tls,) = found["tls", "mx1.example.com"]
    assert tls["level"] == "warning" and "self-signed" in tls["text"].replace(" ", "-")
    (mine,) = found["tls", "mx2.example.net"]
    assert mine["level"] == "warning" and "in the open" in mine["text"]
    assert "tls = starttls" in mine["advice"]
    assert not any("bad" in level for level in levels.values())
    assert clinic.mx.tool("check", "example.com", "--port", clinic.mx.port).returncode == 0


@pytest.mark.parametrize("names, days, trusted, level, words", [
    (["other.example.net"], 30, True, "warning", "is not proved by the usual authorities"),
    (["mx2.example.net"], 30, False, "warning", "is not proved by the usual authorities"),
    (["mx2.example.net"], 5, True, "warning", "the certificate ends in"),
    (["mx2.example.net"], 30, True, "good", "the certificate is valid for"),
], ids=["of another name", "of nobody known", "ends soon", "good"])
def test_our_own_certificate(clinic, place, names, days, trusted, level, words):
    """The listener is looked at as senders see it, by the name in the MX record."""
    authority = Authority(place)
    clinic.open(listening=listen(authority.certificate(*names, days=days)))
    if trusted:
        clinic.mx.wrapper_of_tool = ["env", f"SSL_CERT_FILE={authority.root}"]
    found = clinic.level("tls", "mx2.example.net")
    assert found[0] == level and words in found[1] and found[1].startswith("TLSv1.3; ")


def test_the_text_says_what_to_do(clinic):
    clinic.open()
    del clinic.names.zone["example.com"]["MX"][0]
    result = clinic.mx.tool("check", "example.com", "--port", clinic.mx.port, check=False)
    assert result.returncode == 1
    assert "bad      mx         example.com: this host is not the one exchanger" in \
        result.stdout
    assert "-> publish an MX record for this host" in result.stdout


@pytest.mark.parametrize("change, level, words", [
    ({"MX": [(10, "mx1.example.com")]}, "bad", "not the one exchanger"),
    ({"MX": [(10, "mx1.example.com"), (20, "other.example.com")]}, "bad", "among the 2"),
    ({"MX": [(10, "other.example.com"), (20, "mx2.example.net"), (30, "mx1.example.com")]},
     "warning", "comes before mx1.example.com"),
    ({"MX": [(10, "other.example.com"), (20, "mx1.example.com"), (30, "mx2.example.net")]},
     "good", "mx1.example.com (20) comes first"),
    ({"MX": [(10, "other.example.com"), (20, "mx2.example.net")]}, "warning",
     "no exchanger is a server that this host hands over to"),
    ({"MX": [(5, "mx2.example.net"), (10, "mx1.example.com")]}, "warning", "comes before"),
    ({"MX": [(10, "mx2.example.net"), (10, "mx1.example.com")]}, "warning", "is split"),
    ({"MX": [(10, "mx2.example.net")]}, "warning", "only exchanger"),
    ({"MX": [(0, ".")]}, "bad", "null MX"),
    ({"A": ["127.0.0.2"]}, "bad", "no MX record"),
    (None, "bad", "no such name"),
])
def test_our_place_among_the_exchangers(clinic, change, level, words):
    clinic.open()
    clinic.names.zone["other.example.com"] = {"A": ["127.0.0.4"]}
    if change is None:
        del clinic.names.zone["example.com"]
    else:
        clinic.names.zone["example.com"] = change
    found = clinic.level("mx", "example.com")
    assert found[0] == level and words in found[1]


def test_how_fresh_the_recipients_are(clinic, place):
    clinic.open()
    assert clinic.level("recipients", "example.com") == \
        ("warning", "every recipient is accepted: there is no list of those that exist")
    listing = place / "recipients"

    def known_by(source):
        clinic.mx.configure(ROUTES.format(port=clinic.primary_port).replace(
            "domain example.com {", f"domain example.com {{ recipients = {source} "),
            top=clinic.names.setting)
        clinic.mx.reload()

    def is_said(level, words):
        found = clinic.level("recipients", "example.com")
        return found[0] == level and words in found[1]

    known_by("learn")
    wait_for(lambda: is_said("warning", "nothing has been learned"), what="learning")
    listing.write_text("# nobody yet\n")
    known_by(f'"file:{listing}"')
    wait_for(lambda: is_said("bad", "never been taken: it names nobody"), what="no list")
    listing.write_text("ann\nben\n")
    wait_for(lambda: is_said("good", "list of 2 recipients was looked at 0 min ago"), what="a list")
    listing.write_text("<nonsense>\n")
    wait_for(lambda: is_said("warning", "list of 2 recipients is 0 min old and not fresh: line 1"),
             what="a faulty list")


def test_name_servers_that_fail(clinic):
    clinic.open()
    clinic.names.mode = "servfail"
    found = clinic.examine()
    assert found["mx", "example.com"][0]["level"] == "bad"
    assert "the name server fails" in found["mx", "example.com"][0]["text"]


def test_name_servers_that_are_silent(clinic):
    """It says so, and does not wait for each name again and again."""
    clinic.open()
    clinic.names.mode = "silent"
    found = clinic.examine()
    assert "no answer" in found["address", "mx2.example.net"][0]["text"]
    assert "does not answer" in found["mx", "example.com"][0]["text"]


def test_addresses(clinic):
    clinic.open()
    clinic.names.zone["example.com"]["MX"] += [(30, "gone.example.com"), (40, "127.0.0.3")]
    found = clinic.examine()
    assert found["address", "gone.example.com"][0]["level"] == "bad"
    assert "name a host" in found["address", "127.0.0.3"][0]["advice"]


def test_our_own_name_without_an_address(clinic):
    clinic.open()
    del clinic.names.zone["mx2.example.net"]
    first = clinic.examine()["address", "mx2.example.net"][0]
    assert first["level"] == "bad" and "our hostname has no address" in first["text"]


def test_reverse_names(clinic):
    """The resolver answers for 127.0.0.1 (localhost, which leads back) and 127.0.0.2 (no name)."""
    clinic.open()
    found = clinic.examine()
    assert found["reverse", "mx2.example.net"][0]["level"] == "good"
    assert found["reverse", "mx1.example.com"][0]["level"] == "warning"
    assert "has no name" in found["reverse", "mx1.example.com"][0]["text"]


def test_exchangers_that_do_not_greet(clinic):
    clinic.open(greeting=b"554 go away\r\n")
    level, text = clinic.level("greeting", "mx1.example.com")
    assert level == "bad" and "refusal" in text
    clinic.primary.stop()
    level, text = clinic.level("greeting", "mx1.example.com")
    assert level == "bad" and "cannot be connected" in text
    level, text = clinic.level("server", "m1")
    assert level == "bad" and "cannot be connected" in text


def test_an_exchanger_that_speaks_no_smtp(clinic):
    clinic.open(greeting=b"\xff\x00 hello\r\n" * 200)
    level, text = clinic.level("server", "m1")
    assert level == "bad" and "no reply of SMTP" in text


@pytest.mark.parametrize("record, level", [
    ("v=spf1 ip4:127.0.0.0/8 -all", "good"),
    ("v=spf1 a:mx2.example.net ~all", "good"),
    ("v=spf1 include:_spf.example.com -all", "good"),
    ("v=spf1 redirect=_spf.example.com", "good"),
    ("v=spf1 ip4:192.0.2.1 -all", "warning"),
    ("v=spf1 -ip4:127.0.0.1 +all", "warning"),
    ("v=spf1 exists:%{i}.example.org -all", "warning"),
    ("v=spf1 include:loop.example.com -all", "warning"),
    ("some other text", "good"),
])
def test_spf_of_our_address(clinic, record, level):
    clinic.open()
    clinic.names.zone["example.com"]["TXT"] = [record]
    clinic.names.zone["_spf.example.com"] = {"TXT": ["v=spf1 ip4:127.0.0.1 -all"]}
    clinic.names.zone["loop.example.com"] = {"TXT": ["v=spf1 include:loop.example.com -all"]}
    assert clinic.level("spf", "example.com")[0] == level


def test_which_text_is_the_spf_record(clinic):
    """Of two nobody knows which counts, and the receiver gives up (RFC 7208 4.5)."""
    clinic.open()
    texts = clinic.names.zone["example.com"]
    texts["TXT"] = ["v=spf10 -all", "v=spf1 ip4:127.0.0.1 -all"]
    assert clinic.level("spf", "example.com") == ("good", "the SPF record passes 127.0.0.1")
    texts["TXT"] = ["v=spf1 ip4:127.0.0.1 -all", "v=spf1 mx -all"]
    level, text = clinic.level("spf", "example.com")
    assert level == "warning" and "cannot be worked out" in text


def test_spf_with_names_that_never_answer(clinic):
    """Others' name servers cannot keep us: the first silence ends it (RFC 7208 2.6.6)."""
    clinic.open()
    names = clinic.names
    names.zone["example.com"]["TXT"] = [
        "v=spf1 " + " ".join(f"mx:x{i}.example.com" for i in range(8)) + " -all"]
    for i in range(8):
        names.zone[f"x{i}.example.com"] = {"MX": [(1, f"silent{i}-{k}.example.com")
                                                  for k in range(10)]}
        for k in range(10):
            names.broken[f"silent{i}-{k}.example.com"] = "silent"
    names.names_asked.clear()
    level, text = clinic.level("spf", "example.com")
    assert level == "warning" and "cannot be worked out" in text
    assert len([name for name in names.names_asked if name.startswith("silent")]) == 1


@pytest.mark.parametrize("record", [
    "v=spf1 a:gone1.example.com a:gone2.example.com a:gone3.example.com ip4:127.0.0.1 -all",
    "v=spf1 mx:many.example.com ip4:127.0.0.1 -all",
])
def test_spf_beyond_its_limits(clinic, record):
    clinic.open()
    clinic.names.zone["example.com"]["TXT"] = [record]
    clinic.names.zone["many.example.com"] = {"MX": [(1, f"h{i}.example.com") for i in range(11)]}
    assert "cannot be worked out" in clinic.level("spf", "example.com")[1]


def test_several_policies(clinic):
    clinic.open()
    clinic.names.zone["_mta-sts.example.com"] = {"TXT": ["v=STSv1; id=1", "v=STSv1; id=2"]}
    level, text = clinic.level("mta-sts", "example.com")
    assert level == "warning" and "several records" in text


def test_a_policy_that_cannot_be_fetched(clinic):
    clinic.open()
    clinic.names.zone["_mta-sts.example.com"] = {"TXT": ["v=STSv1; id=1"]}
    level, text = clinic.level("mta-sts", "example.com")
    assert level == "warning" and "no address" in text


def test_a_domain_that_is_not_ours(clinic):
    clinic.open()
    level, text = clinic.level("route", "example.org", "example.org")
    assert level == "bad" and "not configured" in text


def test_without_the_daemon(clinic):
    clinic.open()
    clinic.mx.stop()
    assert clinic.level("daemon", "mx2.example.net")[0] == "warning"
