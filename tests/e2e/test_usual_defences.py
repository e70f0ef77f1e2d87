# SPDX-License-Identifier: Apache-2.0
"""A Postfix with its usual spam defences treats mail that comes through us as if it had come
directly: each client says the same to it and to us, and what becomes of it is compared, reply by
reply, line by line of its log, and octet by octet of what is delivered."""

import contextlib
import dataclasses
import functools
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest

from client import Dialogue, Refused
from daemon import Holdfast, backup_mx
from filters import SELECTOR, Daemons, make_key, opendkim, opendmarc
from names import NameServer
from netns import alone, asking, why_no_netns
from peers import Postfix, free_port, wait_for, why_no_postfix
from sink import Sink

POLICY = "/usr/bin/policyd-spf"
missing = why_no_postfix() or why_no_netns() or next(
    (f"{name} is not installed" for name in ("opendkim", "opendmarc", POLICY)
     if shutil.which(name, path="/usr/sbin:/usr/bin") is None), None)
pytestmark = pytest.mark.skipif(missing is not None, reason=str(missing))

NAMED = "127.0.0.53"
RATE = 20  # messages of one client


@dataclasses.dataclass
class Case:
    """What a client says, and how Postfix answers: a code, and words of the reply."""
    code: int
    words: str = ""
    client: str = "198.51.100.10"
    helo: str = "mail.client.example"
    sender: str = "bob@client.example"
    author: str = "bob@client.example"
    recipient: str = ""
    subject: str = "a test"
    signed: bool = False
    found: str = ""  # in the header of what is delivered


CASES = {
    "known": Case(250, signed=True, found="dkim=pass"),
    "blocked": Case(554, "Access denied", client="198.51.100.66"),
    "v6": Case(250, client="2001:db8::10", found="spf=pass"),
    "helo": Case(554, "Helo command rejected: Access denied", helo="spammer.example"),
    "short": Case(504, "need fully-qualified hostname", helo="friend"),
    "aligned": Case(250, sender="bob@strict.example", author="bob@strict.example",
                    found="dmarc=pass"),
    "nameless": Case(450, "cannot find your reverse hostname", client="198.51.100.67"),
    "misnamed": Case(250, client="198.51.100.68", sender="", found="unknown [198.51.100.68]"),
    "listed": Case(554, "blocked using rbl.example", client="198.51.100.69"),
    "forged": Case(550, "SPF fail", client="198.51.100.20"),
    "soft": Case(250, client="198.51.100.20", sender="bob@soft.example", found="spf=softfail"),
    "unlisted": Case(550, "User unknown", recipient="none@example.com"),
    "nowhere": Case(450, "Domain not found", sender="bob@nowhere.example"),
    "header": Case(550, "No lottery here", subject="You win the lottery"),
    "dmarc": Case(550, "rejected by DMARC policy", client="198.51.100.20",
                  sender="bob@soft.example", author="bob@strict.example"),
    "last": Case(250, client="198.51.100.20", sender="bob@soft.example"),
}

ZONE = {
    "10.100.51.198.in-addr.arpa": {"PTR": ["mail.client.example"]},
    "20.100.51.198.in-addr.arpa": {"PTR": ["other.client.example"]},
    "40.100.51.198.in-addr.arpa": {"PTR": ["mail.client.example"]},
    "41.100.51.198.in-addr.arpa": {"PTR": ["mail.client.example"]},
    "66.100.51.198.in-addr.arpa": {"PTR": ["other.client.example"]},
    "68.100.51.198.in-addr.arpa": {"PTR": ["mail.client.example"]},  # which is not its own
    "69.100.51.198.in-addr.arpa": {"PTR": ["other.client.example"]},
    "0.1." + "0." * 22 + "8.b.d.0.1.0.0.2.ip6.arpa": {"PTR": ["mail.client.example"]},
    "mail.client.example": {"A": ["198.51.100.10"], "AAAA": ["2001:db8::10"]},
    "other.client.example": {"A": ["198.51.100.20", "198.51.100.66", "198.51.100.69"]},
    "client.example": {"MX": [(10, "mail.client.example")],
                       "TXT": ["v=spf1 ip4:198.51.100.10 ip4:198.51.100.40/31 ip6:2001:db8::10 "
                               "-all"]},
    "soft.example": {"MX": [(10, "mail.client.example")], "TXT": ["v=spf1 ip4:192.0.2.99 ~all"]},
    "strict.example": {"MX": [(10, "mail.client.example")],
                       "TXT": ["v=spf1 ip4:198.51.100.10 ?all"]},
    "_dmarc.strict.example": {"TXT": ["v=DMARC1; p=reject"]},
    "69.100.51.198.rbl.example": {"A": ["127.0.0.2"], "TXT": ["a known spammer"]},
    "rbl.example": {},
}

DEFENCES = """\
inet_protocols = all
inet_interfaces = 127.0.0.1, ::1
smtpd_authorized_xclient_hosts = 127.0.0.1
smtpd_peername_lookup = yes
disable_mime_input_processing = no
virtual_mailbox_domains = example.com, direct.example.com, through.example.com
virtual_mailbox_maps = inline:{{{mailboxes}}}
smtpd_helo_required = yes
smtpd_relay_restrictions = reject_unauth_destination
smtpd_client_restrictions = check_client_access inline:{{198.51.100.66=REJECT}},
    reject_unknown_reverse_client_hostname, reject_rbl_client rbl.example
smtpd_helo_restrictions = check_helo_access inline:{{spammer.example=REJECT}},
    reject_non_fqdn_helo_hostname
smtpd_sender_restrictions = reject_unknown_sender_domain
smtpd_recipient_restrictions = reject_unlisted_recipient, check_policy_service unix:private/policy
header_checks = regexp:{place}/header_checks
smtpd_milters = inet:127.0.0.1:{dkim}, inet:127.0.0.1:{dmarc}
smtpd_client_message_rate_limit = {rate}
anvil_rate_time_unit = 3600s
"""
SERVICES = """\
[::1]:{port} inet n - n - - smtpd
policy unix - n n - 0 spawn user=nobody argv={policy} {place}/policy.conf
"""


class Site:
    """A primary, its filters and their name server, and us in front of it."""

    def __init__(self, place, stack):
        self.place = place
        wrapper = asking(NAMED, place)
        daemons = Daemons(place, wrapper)
        stack.callback(daemons.stop)
        self.key, record = make_key(place)
        record = record.replace("h=sha256;", "")  # the tool that signs makes rsa-sha1
        self.names = NameServer({**ZONE, f"{SELECTOR}._domainkey.client.example": {"TXT": [record]}},
                                address=(NAMED, 53))
        stack.callback(self.names.stop)
        dkim = opendkim(daemons, "dkim", "Mode v", "AuthservID primary.example.com",
                        f"Nameservers {NAMED}", "AlwaysAddARHeader yes")
        dmarc = opendmarc(daemons, "primary.example.com", "RejectFailures true",
                          "SPFIgnoreResults true", "SPFSelfValidate true")
        (place / "header_checks").write_text("/^Subject: .*lottery/ REJECT No lottery here\n")
        (place / "policy.conf").write_text("HELO_reject = False\nMail_From_reject = Fail\n"
                                           "Header_Type = AR\nAuthserv_Id = primary.example.com\n")
        port = free_port()
        boxes = [self.recipient(name) for name in CASES if CASES[name].recipient == ""]
        boxes += [f"{n}@{way}.example.com" for way in ("direct", "through") for n in range(RATE + 2)]
        self.primary = Postfix(
            place / "primary", port, wrapper=wrapper,
            services=SERVICES.format(port=port, policy=POLICY, place=place),
            settings=DEFENCES.format(place=place, dkim=dkim, dmarc=dmarc, rate=RATE,
                                     mailboxes=", ".join(f"{box}=all/" for box in boxes)))
        stack.callback(self.primary.stop)
        self.primary.start()
        self.bounces = Sink()  # where notices would go
        stack.callback(self.bounces.stop)
        self.bounces.start()
        six = f'listen six {{ address = "[::1]:{free_port()}" }}\n'
        self.mx = Holdfast(
            place / "holdfast",
            backup_mx(port, domain="{example.com, through.example.com}",
                      server="hold-5xx-after-recovery = 0s") + six +
            f'server out {{ address = "127.0.0.1:{self.bounces.port}" }}\n'
            "relay out { from = {192.0.2.0/24} deliver-to = out }\n", top=self.names.setting)
        self.ports = {False: (port, port), True: (self.mx.port, int(six.split("]:")[1].split('"')[0]))}
        stack.callback(self.mx.end)
        self.mx.start()

    @staticmethod
    def recipient(name):
        return CASES[name].recipient or f"{name}@example.com"

    @functools.cache
    def content(self, name):
        case = CASES[name]
        text = (f"From: Bob <{case.author}>\r\nTo: {self.recipient(name)}\r\n"
                f"Subject: {case.subject}\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n"
                f"Message-ID: <{name}@client.example>\r\n\r\nHello.\r\n").encode()
        return self.sign(text) if case.signed else text

    def sign(self, text):
        return subprocess.run(["opendkim-testmsg", "-C", "-d", "client.example", "-s", SELECTOR,
                               "-k", self.key], input=text, check=True, cwd=self.place,
                              capture_output=True).stdout

    def dialogue(self, client, helo, through):
        six = ":" in client
        return Dialogue(self.ports[through][six], address="::1" if six else "127.0.0.1",
                        source=client, hello=helo, timeout=120)

    def say(self, name, through):
        """The reply that ended it: code and text."""
        case = CASES[name]
        with self.dialogue(case.client, case.helo, through) as dialogue:
            try:
                return dialogue.send(case.sender, [self.recipient(name)], self.content(name))
            except Refused as refused:
                return refused.code, refused.text

    def waiting(self):
        return {row["recipients"][0]: row for row in self.mx.queue() + self.mx.queue("--dead")}


def judged(log):
    """What Postfix says of clients, without times, processes, ports and numbers of messages."""
    found = re.findall(r"(?<!x)(?:client=|reject: ).*", log)
    return sorted(re.sub(r"\bid=[^;]*", "id", line) for line in found)


OURS = re.compile(r"Received: from [^\n]*\n\s+by mx2\.example\.net[^\n]*\n(?:[ \t][^\n]*\n)*|"
                  r"Received: from [^\n]* by mx2\.example\.net[^\n]*\n(?:[ \t][^\n]*\n)*")


def alike(message):
    """A message without our own field, and without what differs from one time to the next."""
    text, ours = OURS.subn("", message.decode())
    text = re.sub(r"(?m)^(\s+by primary\.example\.com \(Postfix\) with ESMTP id )\w+", r"\1", text)
    return ours, re.sub(r"(?m); \w{3}, +\d+ \w{3} \d{4} [\d:]+ [+-]\d{4} \(\w+\)$", "", text)


@dataclasses.dataclass
class Outcome:
    replies: dict   # case: code and text that its client heard
    mail: dict      # case: what was delivered, as alike() makes it
    log: list
    waiting: dict   # recipient: row of our queue


def run(site, through):
    """All cases, one after the other."""
    seen, logged = len(site.primary.messages()), len(site.primary.log())
    replies = {name: site.say(name, through) for name in CASES}
    taken = sum(case.code == 250 for case in CASES.values())
    wait_for(lambda: len(site.primary.messages()) - seen >= taken, 120, what="what is taken")
    if through:
        wait_for(lambda: len(judged(site.primary.log()[logged:])) >= len(CASES), 120,
                 what="a verdict on each")
        wait_for(lambda: sum(row["reason"] is not None for row in site.waiting().values()) ==
                 len(CASES) - taken, 120, what="what is refused")
    mail = {}
    for message in site.primary.messages()[seen:]:
        name = re.search(rb"Message-ID: <(\w+)@", message).group(1).decode()
        assert name not in mail, f"{name} came twice"
        mail[name] = alike(message)
    return Outcome(replies, mail, judged(site.primary.log()[logged:]),
                   site.waiting() if through else {})


@pytest.fixture(scope="module")
def site():
    with contextlib.ExitStack() as stack:
        place = pathlib.Path(tempfile.mkdtemp(prefix="holdfast-"))
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        place.chmod(0o755)
        stack.enter_context(alone("198.51.100.0/24", "2001:db8::10/128"))
        yield Site(place, stack)


@pytest.fixture(scope="module")
def direct(site):
    return run(site, False)


@pytest.fixture(scope="module")
def through(site, direct):
    return run(site, True)


@pytest.mark.parametrize("name", CASES)
def test_it_comes_to_the_same(site, direct, through, name):
    case = CASES[name]
    code, text = direct.replies[name]
    assert code == case.code and case.words in text  # Postfix's defences are what they should be
    assert through.replies[name][0] == 250  # we ask nobody while the client waits
    if code == 250:
        assert direct.mail[name][0] == 0 and through.mail[name][0] == 1  # our own trace
        assert through.mail[name][1] == direct.mail[name][1]
        assert case.found in direct.mail[name][1]
    else:
        assert name not in direct.mail and name not in through.mail
        row = through.waiting[site.recipient(name)]
        assert row["reason"] != "" and f"{code} {text}".startswith(row["reason"])
        dead = [r["recipients"] for r in site.mx.queue("--dead")]
        assert ([site.recipient(name)] in dead) == (code >= 500)


def test_its_log_says_the_same(direct, through):
    assert direct.log == through.log
    assert len(direct.log) >= len(CASES)


def test_nobody_is_told_who_did_not_send_it(site, through):
    """R8: what it refuses ends as a dead letter; no notice leaves, neither there nor here."""
    refused = [case for case in CASES.values() if case.code >= 500]
    assert site.mx.status()["dead_letters"] == len(refused)
    assert all(row["sender"] != "" for row in through.waiting.values())
    assert site.bounces.connects == 0 or not site.bounces.messages
    assert site.primary.queued() == 0


def test_it_counts_the_messages_of_the_client(site, through):
    """Its limits: as many are taken of one who comes through us as of one who comes directly."""
    def send(client, through, domain):
        codes = []
        for number in range(RATE + 2):
            with site.dialogue(client, "mail.client.example", through) as dialogue:
                try:
                    codes.append(dialogue.send("bob@client.example", [f"{number}@{domain}"],
                                               site.content("known"))[0])
                except Refused as refused:
                    assert f"too much mail from {client}" in refused.text
                    codes.append(refused.code)
        return codes

    before = len(site.primary.messages())
    assert send("198.51.100.40", False, "direct.example.com") == [250] * RATE + [450] * 2
    wait_for(lambda: len(site.primary.messages()) == before + RATE, 60, what="the first ones")
    assert send("198.51.100.41", True, "through.example.com") == [250] * (RATE + 2)
    rows = lambda: [row for row in site.waiting().values()
                    if "too much mail from 198.51.100.41" in str(row["reason"])]
    wait_for(lambda: len(rows()) == 2, 120, what="two that wait")
    wait_for(lambda: len(site.primary.messages()) == before + 2 * RATE, 60, what="the others")
    assert all(row["reason"].startswith("450 4.7.1") for row in rows())
