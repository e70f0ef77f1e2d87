# SPDX-License-Identifier: Apache-2.0
"""Lists of recipients: what they say is all there is, whether the primary is up or not. Files are
taken when they change, pages are asked for; what cannot be read leaves the last good list."""

import json
import os
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import exposition
from daemon import backup_mx
from memory import memory_of
from peers import free_port, wait_for
from test_recipients import codes

PATIENCE = 60


@pytest.fixture
def listing(place):
    """A file with these lines, made in one step and old enough to be settled."""
    path = place / "recipients"

    def write(*lines, ending="\n"):
        fresh = place / "recipients.new"
        fresh.write_bytes(("\n".join(lines) + ending).encode("latin-1"))
        os.utime(fresh, (time.time() - 60, time.time() - 60))
        fresh.replace(path)
        return path

    write.path = path
    return write


def from_file(path, more=""):
    return backup_mx(free_port(), more=f'recipients = "file:{path}" unknown = defer {more}')


def wait_codes(mx, expected, *addresses):
    wait_for(lambda: codes(mx, *addresses) == expected, PATIENCE, what=f"{addresses}: {expected}")


def row_of(mx, domain="example.com"):
    return next((row for row in mx.lines("recipients", "list") if row["domain"] == domain), None)


def alerts(mx):
    return [(alert["kind"], alert["text"]) for alert in mx.status()["alerts"]]


def test_who_is_in_the_file_exists_and_nobody_else(holdfast, listing):
    path = listing("# of Postfix: relay_recipient_maps", "ann@example.com OK",
                   "Ben@Example.com\tanything", '"carl o"@example.com', "dora",
                   "eve@elsewhere.example OK")
    mx = holdfast(from_file(path))
    wait_codes(mx, [250], "ann@example.com")
    assert codes(mx, "ben@example.com", '"carl o"@example.com', "DORA@example.com",
                 "nobody@example.com", "eve@elsewhere.example") == [250, 250, 250, 550, 550]
    row = row_of(mx)
    assert (row["good"], row["source"], row["problem"]) == (4, str(path), None)
    wait_for(lambda: row_of(mx)["checked"] is not None, PATIENCE, what="the check")
    assert {entry["source"] for entry in mx.lines("recipients", "list", "example.com")} == {"list"}


def test_a_changed_file_is_taken_without_a_reload(holdfast, listing):
    mx = holdfast(from_file(listing("ann")))
    wait_codes(mx, [250, 550], "ann@example.com", "ben@example.com")
    listing("ben")
    wait_codes(mx, [550, 250], "ann@example.com", "ben@example.com")
    listing("@example.com")
    wait_codes(mx, [250, 250], "ann@example.com", "whoever@example.com")


def test_a_name_alone_is_of_each_block_that_has_the_file(holdfast, listing):
    path = listing("ann", "ben@example.net")
    mx = holdfast(from_file(path) + f'domain example.net {{ deliver-to = m1 recipients = "file:{path}" '
                  'unknown = defer }\n')
    wait_codes(mx, [250, 250, 250, 550], "ann@example.com", "ann@example.net", "ben@example.net",
               "ben@example.com")


def test_a_list_of_long_names_is_taken(holdfast, listing):
    names = [f"u{number}".ljust(220, "x") for number in range(5500)]
    mx = holdfast(from_file(listing(*names)))
    wait_for(lambda: row_of(mx) and row_of(mx)["good"] == len(names), PATIENCE, what="all of them")


def test_a_file_with_a_fault_leaves_the_last_good_list(holdfast, listing):
    mx = holdfast(from_file(listing("ann")))
    wait_codes(mx, [250, 550], "ann@example.com", "ben@example.com")
    for fault, said in ((("ben", "<nonsense>@example.com"), "line 2: no address"),
                        (("ben", '""@example.com'), "line 2: no address"),
                        (("ben", "# \xff", "\xff" * 200), "line 3: no UTF-8"),
                        (("",), "names nobody"), (("x@elsewhere.example",), "names nobody of our")):
        listing(*fault)
        wait_for(lambda: any(kind == "recipients" and said in text for kind, text in alerts(mx)),
                 PATIENCE, what=f"an alert: {said}")
        assert codes(mx, "ann@example.com", "ben@example.com") == [250, 550]
        assert said in row_of(mx)["problem"]
    listing.path.unlink()
    wait_for(lambda: "not found" in row_of(mx)["problem"], PATIENCE, what="the missing file")
    listing("ben", "<nonsense>@example.com")
    mx.stop()  # and over a restart
    mx.start()
    assert codes(mx, "ann@example.com", "ben@example.com") == [250, 550]
    listing("ben")
    wait_codes(mx, [550, 250], "ann@example.com", "ben@example.com")
    wait_for(lambda: alerts(mx) == [] or "recipients" not in dict(alerts(mx)), PATIENCE,
             what="the alert to end")


def test_a_list_that_core_refuses_leaves_the_last_good_one_and_waits_for_another(holdfast, listing):
    path = listing("ann@a.example.com")
    mx = holdfast(backup_mx(free_port(), domain='"*.example.com"',
                            more=f'recipients = "file:{path}" unknown = defer'))
    wait_codes(mx, [250, 550], "ann@a.example.com", "ben@a.example.com")
    said = "too many names or domains"
    listing(*[f"ben@a{number}.example.com" for number in range((1 << 16) + 1)])
    wait_for(lambda: any(kind == "recipients" and said in text for kind, text in alerts(mx)),
             PATIENCE, what="an alert")
    assert codes(mx, "ann@a.example.com", "ben@a.example.com") == [250, 550]
    assert mx.log().count("recipients-list-failed") == 1
    assert "recipients-list-refused" not in mx.log(), "it is not asked for again"
    listing("ben@a.example.com")
    wait_codes(mx, [550, 250], "ann@a.example.com", "ben@a.example.com")
    wait_for(lambda: "recipients" not in dict(alerts(mx)), PATIENCE, what="the alert to end")


def test_a_domain_with_a_block_of_its_own_is_not_of_the_pattern_around_it(holdfast, listing):
    path = listing("ann@a.example.com", "ben@own.example.com")
    mx = holdfast(backup_mx(free_port(), domain='"*.example.com"',
                            more=f'recipients = "file:{path}" unknown = defer') +
                  "domain own.example.com { deliver-to = m1 unknown = defer }\n")
    wait_codes(mx, [250, 550], "ann@a.example.com", "ben@a.example.com")
    assert alerts(mx) == [] or "recipients" not in dict(alerts(mx))


def test_one_file_serves_many_domains(holdfast, listing):
    path = listing("ann@example.com", "ben@example.org", "carl@a.example.net", "@b.example.net")
    routes = f'server m1 {{ address = "127.0.0.1:{free_port()}" }}\n'
    for title in ("example.com", "{example.org, example.info}", '"*.example.net"'):
        routes += f'domain {title} {{ deliver-to = m1 recipients = "file:{path}" unknown = defer }}\n'
    mx = holdfast(routes)
    wait_codes(mx, [250, 250, 250, 250], "ann@example.com", "ben@example.org",
               "carl@a.example.net", "any@b.example.net")
    assert codes(mx, "ann@example.org", "ann@example.info", "ann@a.example.net",
                 "ann@c.example.net") == [550] * 4, "also of domains that the list does not name"


def test_a_list_needs_no_primary_and_does_not_ask_it(holdfast, listing, sink):
    hop = sink()
    path = listing("ann")
    mx = holdfast(backup_mx(hop.port, more=f'recipients = "file:{path}"'))
    wait_for(lambda: mx.server_state("m1") == "up", PATIENCE, what="m1 up")
    wait_codes(mx, [250, 550], "ann@example.com", "ben@example.com")
    mx.send(["ann@example.com"])
    wait_for(lambda: hop.messages, PATIENCE, what="the mail")


def test_what_stays_of_a_reload_that_changes_the_source(holdfast, listing, place):
    mx = holdfast(from_file(listing("ann")))
    wait_codes(mx, [250, 550], "ann@example.com", "ben@example.com")
    other = place / "other"
    other.write_text("ben\n")
    mx.configure(from_file(other))
    mx.reload()
    wait_codes(mx, [550, 250], "ann@example.com", "ben@example.com")
    mx.configure(backup_mx(free_port()))
    mx.reload()
    wait_codes(mx, [250, 250], "ann@example.com", "ben@example.com")


# ---- pages -----------------------------------------------------------------------------------


class Page:
    """A page of the web; with an ETag it answers 304."""

    def __init__(self):
        self.status, self.body, self.asked = 200, b"", []
        self.wants = None  # an Authorization field, else 401
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                tag = f'"{hash(page.body)}"'
                given = self.headers.get("If-None-Match")
                status = 304 if page.status == 200 and given == tag else page.status
                if page.wants not in (None, self.headers.get("Authorization")):
                    status = 401
                self.send_response(status)
                self.send_header("ETag", tag)
                self.send_header("Content-Length", str(len(page.body) if status == 200 else 0))
                self.end_headers()
                if status == 200:
                    self.wfile.write(page.body)
                page.asked.append((given, status))

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/recipients"


@pytest.fixture
def page():
    made = Page()
    yield made
    made.server.shutdown()
    made.server.server_close()


def from_page(page):
    return backup_mx(free_port(), more=f'recipients = "{page.url}" recipients-interval = 1s '
                                       "unknown = defer")


def test_a_page_may_want_a_token(holdfast, page, place):
    """It comes out of a file, and only who fetches has it."""
    page.body, page.wants = b"ann@example.com\n", "Bearer open-sesame-4711"
    token = place / "token"
    token.write_text("open-sesame-4711\n")
    token.chmod(0o600)
    mx = holdfast(backup_mx(free_port(), more=f'recipients = "{page.url}" recipients-interval = 1s '
                            f'recipients-token-file = "{token}" unknown = defer'))
    wait_codes(mx, [250, 550], "ann@example.com", "ben@example.com")
    for name, pids in mx.processes().items():
        has = b"open-sesame-4711" in memory_of(pids[0])
        assert has == (name in ("holdfast-helper", "holdfastd")), name
    assert "sesame" not in mx.log()


def test_a_page_is_asked_for_and_only_taken_when_it_is_new(holdfast, page):
    page.body = json.dumps({"recipients": ["ann@example.com", "ben"]}).encode()
    mx = holdfast(from_page(page))
    wait_codes(mx, [250, 250, 550], "ann@example.com", "ben@example.com", "carl@example.com")
    wait_for(lambda: [status for _, status in page.asked[-3:]] == [304] * 3, PATIENCE,
             what="304 three times")
    page.body = json.dumps(["carl@example.com"]).encode()
    wait_codes(mx, [550, 250], "ann@example.com", "carl@example.com")
    page.body = b"dora@example.com\nemil@example.com\n"  # as in a file
    wait_codes(mx, [550, 250, 250], "carl@example.com", "dora@example.com", "emil@example.com")
    assert mx.log().count(" recipients-list ") == 3


@pytest.mark.parametrize("status, body, said", [
    (500, b"", "500"),
    (200, b'{"recipients": "ann"}', 'no array "recipients"'),
    (200, b'{"recipients": ["ann", 7]}', "something else than addresses"),
    (200, b'["ann\\nben"]', "something that is no address"),
    (200, b'["ann@example.com"', "no JSON"),
    (200, b"[]", "names nobody"),
])
def test_a_page_that_cannot_be_used_leaves_the_last_good_list(holdfast, page, status, body, said):
    page.body = b'["ann@example.com"]'
    mx = holdfast(from_page(page))
    wait_codes(mx, [250, 550], "ann@example.com", "ben@example.com")
    page.status, page.body = status, body
    wait_for(lambda: said in (row_of(mx)["problem"] or ""), PATIENCE, what=f"problem: {said}")
    assert ("recipients", True) in [(kind, page.url in text) for kind, text in alerts(mx)]
    mx.kill()
    mx.start()
    page.status, page.body = 200, b'["ben@example.com"]'
    wait_codes(mx, [550, 250], "ann@example.com", "ben@example.com")


# ---- beside other rules ----------------------------------------------------------------------


def test_who_does_not_exist_is_not_greylisted_but_refused(holdfast, listing):
    mx = holdfast(from_file(listing("ann")), listen="greylist = 1h")

    def answers():
        with mx.dialogue(source="127.0.0.9") as stranger:
            stranger.must("MAIL FROM:<bob@client.example>")
            return [stranger.say(f"RCPT TO:<{name}@example.com>")[0] for name in ("ann", "ben")]

    wait_for(lambda: answers() == [451, 550], PATIENCE, what="451 for one, 550 for the other")


def test_only_when_down_says_nothing_of_who_exists(holdfast, listing, sink):
    hop = sink()
    mx = holdfast(backup_mx(hop.port, more=f'recipients = "file:{listing("ann")}" '
                                           "only-when-down = yes"))

    def answers():
        with mx.dialogue(source="127.0.0.9") as stranger:
            stranger.must("MAIL FROM:<bob@client.example>")
            return [stranger.say(f"RCPT TO:<{name}@example.com>") for name in ("ann", "ben")]

    wait_for(lambda: row_of(mx) and row_of(mx)["good"] == 1, PATIENCE, what="the list")
    wait_for(lambda: [code for code, _ in answers()] == [451, 451], PATIENCE, what="m1 to be up")
    ann, ben = answers()
    assert ann == ben and "primary" in ann[1]
    hop.stop()
    mx.tool("server", "probe", "m1")
    wait_for(lambda: [code for code, _ in answers()] == [250, 550], PATIENCE, what="m1 to be down")


def test_metrics_tell_of_each_domain(holdfast, listing):
    mx = holdfast(from_file(listing("ann", "ben")))
    wait_codes(mx, [250], "ann@example.com")

    def samples():
        with urllib.request.urlopen(f"http://127.0.0.1:{mx.http_port}/metrics", timeout=30) as page:
            return exposition.parse(page.read().decode())

    def good():
        return exposition.value(samples(), "holdfast_recipients_good", domain="example.com")

    wait_for(lambda: good() == 2, PATIENCE, what="two good ones")
    taken = exposition.value(samples(), "holdfast_recipients_list_since_seconds",
                             domain="example.com")
    assert abs(taken - time.time()) < 300
