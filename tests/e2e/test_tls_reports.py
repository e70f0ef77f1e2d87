# SPDX-License-Identifier: Apache-2.0
"""Reports on TLS (RFC 8460): what is counted, what a report says, and how it comes to the domain that
wants it, by mail and by HTTPS. World, policies and web server are those of test_mta_sts."""

import email
import gzip
import json
import time

import pytest

from certificates import Authority
from peers import wait_for
from test_mta_sts import WEB, policy, pytestmark, start_relay, world  # noqa: F401
from test_mx import RELAY, send

REPORTS = ('tls-reports = tls@sender.example\n'
           'tls-reports-organization = "Sender, Inc."\n')


@pytest.fixture
def relay(holdfast, world):  # noqa: F811
    return start_relay(holdfast, world, top=REPORTS)


def wants(world, domain, *targets):
    world.names.zone[f"_smtp._tls.{domain}"] = {"TXT": [f"v=TLSRPTv1; rua={','.join(targets)}"]}


def counted(mx, domain):
    """(successful, failed) of this day."""
    for row in mx.lines("tls-reports", "list"):
        if row["domain"] == domain and not row["waits"]:
            return row["successful"], row["failed"]
    return 0, 0


def check_form(report, domain):
    """RFC 8460 4.4: all that must be there, of the type that it must have."""
    assert set(report) == {"organization-name", "date-range", "contact-info", "report-id",
                           "policies"}
    for moment in ("start-datetime", "end-datetime"):
        time.strptime(report["date-range"][moment], "%Y-%m-%dT%H:%M:%SZ")
    assert report["organization-name"] == "Sender, Inc."
    assert report["contact-info"] == "tls@sender.example"
    for one in report["policies"]:
        assert one["policy"]["policy-domain"] == domain
        assert one["policy"]["policy-type"] in ("sts", "tlsa", "no-policy-found")
        summary = one["summary"]
        assert set(summary) == {"total-successful-session-count", "total-failure-session-count"}
        details = one.get("failure-details", [])
        assert sum(detail["failed-session-count"] for detail in details) \
            == summary["total-failure-session-count"]
        for detail in details:
            assert set(detail) <= {"result-type", "sending-mta-ip", "receiving-mx-hostname",
                                   "receiving-ip", "failed-session-count", "failure-reason-code"}


def by_type(report):
    return {one["policy"]["policy-type"]: one for one in report["policies"]}


def test_a_report_by_mail(world, relay):
    world.exchanger(2), world.exchanger(3, proves=False)
    inbox = world.host(4)
    world.mx("far.example", (10, "h3.example"), (20, "h2.example"))
    world.mx("reports.example", (10, "h4.example"))
    world.publish("reports.example", policy("enforce", "h4.example"))  # which has no TLS now
    world.publish("far.example", policy("enforce", "h2.example", "h3.example"))
    wants(world, "far.example", "mailto:tls%2Dreports@reports.example?subject=x")
    send(relay, "bob@far.example")
    relay.wait_empty(60)
    wait_for(lambda: counted(relay, "far.example")[0] >= 1, 30, what="the counts")
    good, bad = counted(relay, "far.example")
    assert bad >= 1
    relay.tool("tls-reports", "send")
    wait_for(lambda: inbox.messages, 60, what="the report")
    (got,) = inbox.messages
    assert got.sender == "" and got.recipients == ["tls-reports@reports.example"]
    message = email.message_from_bytes(got.content)
    assert message["From"] == "tls@sender.example"
    assert message["To"] == "tls-reports@reports.example"
    assert message["TLS-Report-Domain"] == "far.example"
    assert message["TLS-Report-Submitter"] == "mx2.example.net"
    assert message["TLS-Required"] == "No"
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "tlsrpt"
    text, part = message.get_payload()
    assert text.get_content_type() == "text/plain"
    assert part.get_content_type() == "application/tlsrpt+gzip"
    assert part.get_filename().startswith("mx2.example.net!far.example!")
    assert part.get_filename().endswith(".json.gz")
    report = json.loads(gzip.decompress(part.get_payload(decode=True)))
    check_form(report, "far.example")
    subject = " ".join(message["Subject"].split())
    assert subject == (f"Report Domain: far.example Submitter: mx2.example.net "
                       f"Report-ID: <{report['report-id']}>")
    sts = by_type(report)["sts"]
    assert sts["policy"]["mx-host"] == ["h2.example", "h3.example"]
    assert sts["policy"]["policy-string"] == ["version: STSv1", "mode: enforce", "mx: h2.example",
                                              "mx: h3.example", "max_age: 86400"]
    assert sts["summary"] == {"total-successful-session-count": good,
                              "total-failure-session-count": bad}
    (detail,) = sts["failure-details"]
    assert detail["result-type"] == "certificate-host-mismatch"
    assert detail["receiving-mx-hostname"] == "h3.example"
    assert detail["receiving-ip"] == world.address(3)
    assert detail["sending-mta-ip"].startswith("127.")
    # It has been sent, and is counted no more; of who wants none nothing is kept.
    wait_for(lambda: all(row["domain"] != "far.example"
                         for row in relay.lines("tls-reports", "list")), 30, what="the end")
    assert "tls-report-sent domain=far.example" in relay.log()


@pytest.mark.parametrize("heeded", ["heed", "ignore"])
def test_a_report_goes_in_spite_of_what_fails(world, holdfast, heeded):
    """RFC 8460 section 3: to the very domain whose policy stops all other mail, in the clear."""
    mx = start_relay(holdfast, world, f"tls = mta-sts tls-required-no = {heeded}", REPORTS)
    plain = world.host(2)
    world.mx("far.example", (10, "h2.example"))
    world.publish("far.example", policy("enforce", "h2.example"))
    wants(world, "far.example", "mailto:tls@far.example")
    send(mx, "bob@far.example")
    wait_for(lambda: counted(mx, "far.example")[1] >= 1, 60, what="the counts")
    mx.tool("tls-reports", "send")
    wait_for(lambda: plain.messages, 60, what="the report")
    assert [message.recipients for message in plain.messages] == [["tls@far.example"]]
    assert len(mx.queue()) == 1
    # The report's own session is no session under the domain's policy.
    report = json.loads(gzip.decompress(
        email.message_from_bytes(plain.messages[0].content).get_payload()[1].get_payload(decode=True)))
    assert set(by_type(report)) == {"sts"} and counted(mx, "far.example")[0] == 0


def test_a_report_by_https_is_posted_until_it_is_taken(world, relay):
    world.host(2)
    world.mx("far.example", (10, "h2.example"))
    world.publish("reports.example", policy("none"))  # its host has a certificate
    world.names.zone["mta-sts.reports.example"] = {"A": [WEB]}
    wants(world, "far.example", "https://mta-sts.reports.example/v1/tlsrpt")
    world.web.answers = ["503 Later"]
    send(relay, "bob@far.example")
    relay.wait_empty(60)
    wait_for(lambda: counted(relay, "far.example") == (0, 1), 30, what="the counts")
    relay.tool("tls-reports", "send")
    wait_for(lambda: len(world.web.posts) == 1, 60, what="the first try")

    def reason():
        rows = relay.lines("tls-reports", "list")
        return rows and rows[0]["reason"]
    wait_for(lambda: reason() == "HTTP status 503", 30, what="word of the refusal")
    relay.stop()  # what waits outlives a restart
    relay.start()
    wait_for(lambda: relay.lines("tls-reports", "list"), 30, what="what was kept")
    relay.tool("tls-reports", "send")
    wait_for(lambda: len(world.web.posts) == 2, 60, what="the second try")
    (line, headers, body), again = world.web.posts[1], world.web.posts[0]
    assert line == "POST /v1/tlsrpt HTTP/1.1" and body == again[2]
    assert headers["content-type"] == "application/tlsrpt+gzip"
    report = json.loads(gzip.decompress(body))
    check_form(report, "far.example")
    none = by_type(report)["no-policy-found"]
    assert none["failure-details"][0]["result-type"] == "starttls-not-supported"
    wait_for(lambda: not relay.lines("tls-reports", "list"), 30, what="the end")


def test_a_target_that_fails_keeps_the_report_from_no_other(world, relay):
    world.host(2)
    inbox = world.host(4)
    world.mx("far.example", (10, "h2.example"))
    world.mx("reports.example", (10, "h4.example"))
    world.publish("reports.example", policy("none"))
    wants(world, "far.example", "https://mta-sts.reports.example/", "mailto:%zz",
          "mailto:tls@reports.example")
    world.web.answers = ["503 Later"] * 10
    send(relay, "bob@far.example")
    relay.wait_empty(60)
    wait_for(lambda: counted(relay, "far.example") == (0, 1), 30, what="the counts")

    def send_and_see(reason):
        relay.tool("tls-reports", "send")
        wait_for(lambda: reason in [row["reason"] for row in relay.lines("tls-reports", "list")
                                    if row["domain"] == "far.example"], 60, what=reason)
    send_and_see("HTTP status 503")
    send_and_see("the address that its TXT record names is none")
    send_and_see("HTTP status 503")
    wait_for(lambda: inbox.recipients() == ["tls@reports.example"], 60, what="the report by mail")
    world.web.answers = []
    send_and_see("the address that its TXT record names is none")
    assert len(inbox.messages) == 1


@pytest.mark.parametrize("how, result, kind", [
    ({"certified": "mta-sts.other.example"}, "sts-webpki-invalid", "sts"),
    ({"status": "404 Not Found"}, "sts-policy-fetch-error", "sts"),
    ({"text": "version: STSv1\r\n"}, "sts-policy-invalid", "sts"),
    ({"days": -1}, "certificate-expired", "sts"),
    ({"stranger": True}, "certificate-not-trusted", "sts"),
    ({"unlisted": True}, "validation-failure", "sts"),
])
def test_kinds_of_failures(world, relay, place, how, result, kind):
    """Each by what is wrong with the server, or with the policy."""
    host = world.host(2, start=False)
    authority = world.authority
    if "stranger" in how:
        authority = Authority(place, "stranger")
    host.tls = authority.certificate("h2.example", days=how.get("days", 30)).context()
    host.start()
    inbox = world.host(4)
    world.mx("far.example", (10, "h2.example"))
    world.mx("reports.example", (10, "h4.example"))
    world.web.status = how.get("status", world.web.status)
    world.publish("far.example",
                  how.get("text", policy("testing", "h9.example" if "unlisted" in how
                                         else "h2.example")), certified=how.get("certified"))
    wants(world, "far.example", "mailto:tls@reports.example")
    send(relay, "bob@far.example")
    relay.wait_empty(60)
    wait_for(lambda: counted(relay, "far.example")[1] >= 1, 30, what="the counts")
    relay.tool("tls-reports", "send")
    wait_for(lambda: inbox.messages, 60, what="the report")
    _, part = email.message_from_bytes(inbox.messages[0].content).get_payload()
    report = json.loads(gzip.decompress(part.get_payload(decode=True)))
    check_form(report, "far.example")
    assert [detail["result-type"] for detail in by_type(report)[kind]["failure-details"]] == [result]


@pytest.mark.parametrize("records", [
    [], ["v=TLSRPTv2; rua=mailto:tls@reports.example"],
    ["v=TLSRPTv1; rua=mailto:tls@reports.example"] * 2,  # of several none is believed
], ids=["none", "another", "several"])
def test_who_wants_no_report_gets_none(world, relay, records):
    world.names.zone["_smtp._tls.far.example"] = {"TXT": records}
    world.exchanger(2)
    world.mx("far.example", (10, "h2.example"))
    send(relay, "bob@far.example")
    relay.wait_empty(60)
    wait_for(lambda: counted(relay, "far.example") == (1, 0), 30, what="the counts")
    relay.tool("tls-reports", "send")
    wait_for(lambda: not relay.lines("tls-reports", "list"), 30, what="the end")
    assert "tls-report" not in relay.log() and relay.queue() == []


def test_nothing_is_counted_unless_it_is_wanted(world, holdfast):
    mx = holdfast(RELAY, top=world.names.setting)
    world.exchanger(2)
    world.mx("far.example", (10, "h2.example"))
    send(mx, "bob@far.example")
    mx.wait_empty(60)
    assert mx.lines("tls-reports", "list") == []


def test_a_day_that_is_over_is_reported_by_itself(world, relay):
    """In the file the day was yesterday; then what waits has waited for a day."""
    world.exchanger(2)
    world.mx("far.example", (10, "h2.example"))
    wants(world, "far.example", "mailto:tls@reports.example")
    send(relay, "bob@far.example")
    relay.wait_empty(60)
    wait_for(lambda: counted(relay, "far.example") == (1, 0), 30, what="the counts")
    relay.stop()
    path = relay.conf.parent / "state" / "state" / "tls-reports"
    kept = json.loads(path.read_text())
    kept["day_number"] -= 1
    path.write_text(json.dumps(kept))
    relay.start()
    wait_for(lambda: [row["waits"] for row in relay.lines("tls-reports", "list")] == [True], 30,
             what="the end of the day")
    (row,) = relay.lines("tls-reports", "list")
    assert row["next"] <= time.time() * 1000 + 4 * 3600_000
    assert row["until"] - row["next"] == 24 * 3600_000
    relay.stop()
    kept = json.loads(path.read_text())
    kept["pending"][0]["until"] = int(time.time() * 1000) - 1000
    path.write_text(json.dumps(kept))
    relay.start()
    wait_for(lambda: "tls-report-given-up domain=far.example" in relay.log(), 30, what="the end")
    assert relay.lines("tls-reports", "list") == []
