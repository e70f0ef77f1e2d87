# SPDX-License-Identifier: Apache-2.0
"""Filters that look at mail while it comes in: what they are told, what their verdicts and changes
lead to, and what happens when one is away, silent, slow, dead or out of its mind."""

import base64
import socket
import ssl
import struct
import subprocess
import time

import pytest

import milters
from certificates import Authority, listen, trusting
from client import Dialogue, by_starttls, without_our_trace
from daemon import backup_mx, program
from exposition import parse
from milters import (ACCEPT, CONTINUE, DIE, DISCARD, HANG, PROGRESS, REJECT, SILENT, SKIPPED,
                     TEMPFAIL, Milter, packet, reply)
from netns import why_no_netns
from peers import free_port, wait_for

CONTENT = (b"From: Bob <bob@client.example>\r\nTo: ann@example.com\r\nSubject: one\r\n two\r\n"
           b"Received: from a by b\r\n\r\nHello.\r\n.dot\r\n")


@pytest.fixture
def milter():
    """A maker of filters: milter(rule=None, protocol=0, ...)."""
    made = []

    def make(rule=None, start=True, **more):
        filter = Milter(rule, **more)
        made.append(filter)
        return filter.start() if start else filter

    yield make
    for filter in made:
        filter.stop()


@pytest.fixture
def filtered(holdfast, sink):
    """filtered(filter, ..., more="", listen="") -> holdfast with those filters, and its sink."""

    def make(*filters, more="", listen="", top="", **how):
        hop = sink()
        names = [f"f{number}" for number in range(len(filters))]
        blocks = "".join(filter.block(name, more) for filter, name in zip(filters, names))
        mx = holdfast(blocks + backup_mx(hop.port), top,
                      f"milters = {{{', '.join(names)}}} {listen}", **how)
        return mx, hop

    return make


def at(stage=None, *answers):
    """A rule: these answers at that stage, in turn, and afterwards the ordinary one."""
    left = list(answers)
    return lambda now, session, data: left.pop(0) if now == stage and left else None


def always(stage, answer):
    return lambda now, session, data: answer if now == stage else None


def delivered(hop, count=1):
    wait_for(lambda: len(hop.messages) >= count, what="the delivery")
    return hop.messages[-1]


def trial(mx, recipients=("ann@example.com",), content=CONTENT, sender="bob@client.example"):
    """(stage, code, text) of the first refusal, or of the reply to the dot."""
    try:
        dialogue = Dialogue(mx.port, hello=None)
    except ConnectionError:
        return "connect", 0, ""
    with dialogue:
        if dialogue.greeting[0] != 220:
            return "connect", *dialogue.greeting
        for stage, command in (("helo", "EHLO client.example"), ("mail", f"MAIL FROM:<{sender}>"),
                               *(("rcpt", f"RCPT TO:<{address}>") for address in recipients),
                               ("data", "DATA")):
            code, text = dialogue.say(command)
            if code >= 400:
                return stage, code, text
        dialogue.write(content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        return "end", *dialogue.reply()


ANN = base64.b64encode(b"\0ann@example.org\0secret").decode()


def start_with_ann(mx):
    """Who may log in."""
    mx.state.mkdir()
    subprocess.run([program("holdfast"), "-c", str(mx.conf), "user", "add", "ann@example.org"],
                   input="secret\n", text=True, check=True, capture_output=True, timeout=60)
    mx.start()


# ---- what they are told ----


def test_a_filter_is_told_all_of_a_session(filtered, milter):
    filter = milter()
    mx, hop = filtered(filter)
    with mx.dialogue() as dialogue:
        dialogue.send("bob@client.example", ["ann@example.com", "eve@example.com"], CONTENT,
                      mail=" SIZE=100 BODY=8BITMIME")
        port = dialogue.socket.getsockname()[1]
    message, = filter.messages
    assert message.sender == "<bob@client.example>"
    assert message.parameters == ["SIZE=100", "BODY=8BITMIME"]
    assert message.recipients == ["<ann@example.com>", "<eve@example.com>"]
    assert message.headers == [("From", "Bob <bob@client.example>"), ("To", "ann@example.com"),
                               ("Subject", "one\n two"), ("Received", "from a by b")]
    assert message.body == b"Hello.\r\n.dot\r\n"
    wait_for(lambda: "quit-new" in filter.steps, what="the end of the session")
    steps = [step for step in filter.steps if step != "quit"]  # of who waited for the greeting
    begun = len(steps) - steps[::-1].index("connect")
    assert steps[begun:] == ["helo", "mail", "rcpt", "rcpt", "data", *["header"] * 4, "eoh", "body",
                             "end", "quit-new"]
    macros = message.macros
    assert macros["j"] == "mx2.example.net" and macros["{daemon_name}"] == "mx"
    assert macros["{client_addr}"] == "127.0.0.1" and macros["{client_port}"] == str(port)
    assert macros["{mail_addr}"] == "bob@client.example" and macros["{mail_host}"] == \
        "client.example"
    assert macros["{rcpt_addr}"] == "eve@example.com"
    content = delivered(hop).content
    assert f"id {macros['i']}".encode() in content.split(b"\r\n\r\n")[0].replace(b"\r\n\t", b" ")
    assert without_our_trace(content) == CONTENT


def test_a_content_of_any_size_passes_unchanged(filtered, milter):
    filter = milter(protocol=SILENT)
    other = milter()
    mx, hop = filtered(filter, other)
    for size in (0, 1, 60_000, 65_535, 65_536, 70_000, 200_000, 3_000_000):
        line = b"x" * 77 + b"\r\n"
        body = (line * (size // 79 + 1))[:size]
        content = b"Subject: large\r\n\r\n" + (body + b"\r\n" if body else b"")
        content = content.replace(b"\r\r\n", b"x\r\n")
        assert mx.send(content=content)[0] == 250
        assert filter.messages[-1].body == other.messages[-1].body == content[18:]
        wait_for(lambda: any(without_our_trace(m.content) == content for m in hop.messages),
                 what=f"{size} octets")
        hop.messages.clear()


def test_steps_that_a_filter_leaves_out_are_not_told(filtered, milter):
    filter = milter(protocol=milters.NO_CONNECT | milters.NO_HELO | milters.NO_RCPT |
                    milters.NO_DATA | milters.NO_HEADERS | milters.NO_EOH | milters.NO_BODY)
    mx, _ = filtered(filter)
    mx.send(content=CONTENT)
    assert [step for step in filter.steps if step not in ("negotiate", "quit-new", "quit")] == \
        ["mail", "end"]


def test_a_filter_may_skip_and_accept(filtered, milter):
    skips = milter(at("body", SKIPPED), protocol=milters.SKIP)
    accepts = milter(always("rcpt", ACCEPT))
    mx, hop = filtered(skips, accepts)
    content = b"Subject: x\r\n\r\n" + b"x\r\n" * 100_000
    with mx.dialogue() as dialogue:
        for _ in range(2):
            dialogue.send("bob@client.example", ["ann@example.com"], content)
    assert 0 < len(skips.messages[0].body) < 65536 and len(skips.messages[1].body) == 300_000
    assert [message.body for message in accepts.messages] == [b"", b""]
    assert accepts.steps.count("mail") == 2 and "end" not in accepts.steps
    wait_for(lambda: len(hop.messages) == 2, what="both")


def test_a_filter_of_an_old_version_is_understood(filtered, milter):
    filter = milter(version=2, actions=0x3f)
    mx, _ = filtered(filter)
    mx.send(content=CONTENT)
    assert filter.messages[0].ended and "data" not in filter.steps
    wait_for(lambda: "quit" in filter.steps, what="the end")
    assert "quit-new" not in filter.steps


def test_connections_are_used_again(filtered, milter):
    filter = milter()
    mx, _ = filtered(filter, more="sessions = 3", top="loops = 1")
    for _ in range(6):
        mx.send()
    assert len(filter.sessions) <= 4
    assert all(session.clients <= 3 for session in filter.sessions)
    assert len(filter.messages) == 6 and all(message.ended for message in filter.messages)


def test_no_second_session_is_begun_where_libmilter_would_not_hear_it(filtered, milter):
    """It does only behind a message whose end was answered with "continue"."""
    filter = milter()
    mx, _ = filtered(filter, top="loops = 1")
    for answer in (ACCEPT, DISCARD, reply("550 5.7.1 no"), REJECT, TEMPFAIL):
        for stage in ("mail", "rcpt", "body", "end"):
            filter.rule = at(stage, answer)
            trial(mx)
    filter.rule = always("helo", ACCEPT)
    trial(mx)
    for last in ("EHLO c", "MAIL FROM:<bob@client.example>"):
        with mx.dialogue() as dialogue:
            dialogue.must(last)
    filter.rule = at()
    mx.send()
    mx.send()
    wait_for(lambda: {"quit", "quit-new"} <= set(filter.steps), what="the end of both")
    assert "deaf" not in filter.steps


def test_a_filter_that_is_silent_to_a_second_session_is_asked_for_one_each(filtered, milter):
    hung = []

    def rule(stage, session, data):
        if stage == "connect" and session.clients > 1:
            hung.append(session)
            return HANG
        return None

    filter = milter(rule)
    mx, _ = filtered(filter, more="command-timeout = 2s", top="loops = 1")
    for _ in range(4):
        assert mx.send()[0] == 250
    assert len(hung) == 1 and "filter-failed" not in mx.log()
    assert mx.log().count("filter-meets-once milter=f0") == 1


def test_a_filter_listens_on_a_local_socket(filtered, milter, place):
    filter = milter(path=place / "filter.sock")
    mx, _ = filtered(filter)
    assert mx.send()[0] == 250 and filter.messages[0].ended


why_not = why_no_netns()


@pytest.mark.skipif(why_not is not None, reason=str(why_not))
def test_a_filter_is_found_by_its_name_in_the_hosts_file(holdfast, sink, milter, place):
    """As it stands there at the start and at each reload; one that is not there is an error."""
    filter = milter()
    port = filter.address.rsplit(":", 1)[1]
    hosts = place / "hosts"
    hosts.write_text("127.0.0.1 localhost\n127.0.0.1 filter.inner # it\n")
    mx = holdfast(f'milter fake {{ address = "inet:{port}@filter.inner" }}\n' +
                  backup_mx(sink().port), listen="milters = fake", start=False)
    mx.wrapper = ["unshare", "--mount", "sh", "-c",
                  'mount --bind "$0" /etc/hosts && exec "$@"', hosts]
    mx.start()
    assert mx.send()[0] == 250 and filter.messages[0].ended
    hosts.write_text("127.0.0.1 localhost\n")
    mx.reload()
    wait_for(lambda: "is not in /etc/hosts" in mx.log(), what="the refusal of the reload")
    where = mx.conf.read_text().splitlines().index(
        f'milter fake {{ address = "inet:{port}@filter.inner" }}') + 1
    assert f"holdfast.conf:{where}: address: 'inet:{port}@filter.inner' names a host" in mx.log()
    assert mx.send()[0] == 250 and filter.messages[1].ended  # as before
    hosts.write_text("127.0.0.1 localhost\n127.0.0.77 filter.inner\n")
    mx.reload()
    wait_for(lambda: trial(mx)[1] == 451, step=0.2, what="another address, where nobody listens")
    mx.wait_empty()


# ---- verdicts ----


@pytest.mark.parametrize("stage, told", [
    ("connect", "connect"), ("helo", "helo"), ("mail", "mail"), ("rcpt", "rcpt"), ("data", "data"),
    ("header", "end"), ("eoh", "end"), ("body", "end"), ("end", "end")])
def test_verdicts_at_each_stage(filtered, milter, stage, told):
    rule = {}
    filter = milter(lambda now, session, data: rule.get(now))
    mx, hop = filtered(filter)
    usual = {"connect": (554, 421)}.get(stage, (550, 451))
    for answer, code in ((REJECT, usual[0]), (TEMPFAIL, usual[1])):
        rule[stage] = answer
        assert trial(mx)[:2] == (told, code)
    code, text = ((554, "5.7.9 see <x> 100%") if stage == "connect" else
                  (553, "5.7.9 see <x> 100%"))
    rule[stage] = reply(f"{code} 5.7.9 see <x> 100%%")
    assert trial(mx) == (told, code, text)
    rule[stage] = reply("421 4.3.2 going down")
    assert trial(mx)[:2] == (told, 421)
    rule.clear()
    assert trial(mx)[:2] == ("end", 250)
    delivered(hop)
    assert len(hop.messages) == 1 and mx.log().count("filter-refused milter=f0") == 4


def test_a_refused_recipient_is_refused_alone(filtered, milter):
    filter = milter(lambda stage, session, data:
                    REJECT if stage == "rcpt" and b"bad" in data else None)
    mx, hop = filtered(filter)
    with mx.dialogue() as dialogue:
        dialogue.must("MAIL FROM:<bob@client.example>")
        names = [f"{'bad' if number % 3 == 0 else 'good'}{number}@example.com"
                 for number in range(40)]
        for name in names:
            assert dialogue.say(f"RCPT TO:<{name}>")[0] == (550 if "bad" in name else 250)
        # A name that was refused is no known one.
        assert dialogue.say(f"RCPT TO:<{names[0]}>")[0] == 550
        assert dialogue.data(CONTENT)[0] == 250
    wait_for(lambda: sum(len(m.recipients) for m in hop.messages) == 26, what="the good ones")
    assert not any("bad" in name for m in hop.messages for name in m.recipients)


def test_the_first_that_refuses_speaks_for_all(filtered, milter):
    first, second = milter(), milter(at("mail", REJECT))
    third = milter()
    mx, hop = filtered(first, second, third)
    with mx.dialogue() as dialogue:
        assert dialogue.say("MAIL FROM:<a@client.example>")[0] == 550
        dialogue.send("b@client.example", ["ann@example.com"], CONTENT)
    assert [m.sender for m in first.messages] == ["<a@client.example>", "<b@client.example>"]
    assert [m.sender for m in third.messages] == ["<b@client.example>"]
    assert first.steps.count("abort") == 1 and third.steps.count("abort") == 0
    delivered(hop)


def test_a_message_that_is_reset_is_given_up(filtered, milter):
    filter = milter()
    mx, _ = filtered(filter)
    with mx.dialogue() as dialogue:
        dialogue.envelope("a@client.example", ["ann@example.com"])
        dialogue.must("RSET")
        dialogue.send("b@client.example", ["ann@example.com"], CONTENT)
    assert filter.steps.count("abort") == 1
    assert [m.ended for m in filter.messages] == [False, True]


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "eoh", "body", "end"])
def test_a_discarded_message_is_taken_and_gone(filtered, milter, stage):
    filter = milter(at(stage, DISCARD))
    mx, hop = filtered(filter)
    content = b"Subject: x\r\n\r\n" + b"x\r\n" * 50_000
    with mx.dialogue() as dialogue:
        code, text = dialogue.send("bob@client.example", ["ann@example.com"], content)
        assert code == 250
        id = text.split()[-1]
        dialogue.send("bob@client.example", ["ann@example.com"], CONTENT)
    delivered(hop)
    assert len(hop.messages) == 1 and without_our_trace(hop.messages[0].content) == CONTENT
    events = [(row["event"], row["reason"]) for row in mx.lines("trace", id)]
    assert events == [("accepted", "f0=discard"), ("discarded", "f0=discard")]
    assert metric(mx, "discarded_total") == 1
    mx.kill()
    mx.start()
    assert mx.queue() == []


def metric(mx, name):
    import urllib.request
    with urllib.request.urlopen(f"http://127.0.0.1:{mx.http_port}/metrics", timeout=60) as page:
        return sum(value for (found, _), value in parse(page.read().decode()).items()
                   if found == f"holdfast_milter_{name}")


def test_a_quarantined_message_is_held_until_released(filtered, milter):
    filter = milter(always("end", [milters.quarantine("looks like a worm"), CONTINUE]))
    mx, hop = filtered(filter)
    code, text = mx.send(["ann@example.com", "eve@example.com"], content=CONTENT)
    assert code == 250
    id = text.split()[-1]
    assert [(row["event"], row["reason"]) for row in mx.lines("trace", id)] == \
        [("accepted", "f0=quarantine looks like a worm"),
         ("held", "f0=quarantine looks like a worm")]
    mx.kill()
    mx.start()
    wait_for(lambda: not mx.status()["loading"], what="the journal to be read")
    row, = mx.queue()
    assert row["reason"] == "f0=quarantine looks like a worm" and not hop.messages
    shown = mx.lines("queue", "show", id)[0]
    assert [d["state"] for d in shown["deliveries"]] == ["held", "held"]
    assert shown["origin"]["verdicts"] == "f0=quarantine looks like a worm"
    mx.tool("queue", "release", id)
    assert without_our_trace(delivered(hop).content) == CONTENT
    mx.wait_empty()


# ---- changes ----


def changed(filtered, milter, *changes, content=CONTENT, **how):
    mx, hop = filtered(milter(always("end", [*changes, CONTINUE]), **how))
    assert mx.send(["ann@example.com", "eve@example.com"], content=content)[0] == 250
    message = delivered(hop)
    return message, message.content


def test_headers_are_added_changed_and_removed(filtered, milter):
    _, content = changed(filtered, milter, milters.add_header("X-Last", "a\n b"),
                         milters.insert_header(1, "X-First", "c"),
                         milters.insert_header(0, "X-Top", "d"),
                         milters.insert_header(99, "X-Far", "e"),
                         milters.change_header(1, "subject", "new"),
                         milters.change_header(1, "To", ""),
                         milters.change_header(1, "Received", "mine"),
                         milters.change_header(5, "X-New", "f"),
                         milters.change_header(5, "X-None", ""))
    top, rest = content.split(b"\r\nReceived: from client.example", 1)
    assert top == b"X-Top: d"
    trace, rest = rest.split(b"\r\nX-First: c", 1)
    assert rest == (b"\r\nFrom: Bob <bob@client.example>\r\nSubject: new\r\nReceived: mine\r\n"
                    b"X-Last: a\r\n b\r\nX-Far: e\r\nX-New: f\r\n\r\nHello.\r\n.dot\r\n")


def test_values_keep_their_blank_where_agreed(filtered, milter):
    filter = milter(always("end", [milters.add_header("X-A", "  b"), CONTINUE]),
                    protocol=milters.LEADING_SPACE)
    mx, hop = filtered(filter)
    mx.send(content=CONTENT)
    assert b"\r\nX-A:  b\r\n\r\n" in delivered(hop).content
    assert filter.messages[0].headers[2] == ("Subject", " one\n two")


def test_a_body_is_replaced(filtered, milter):
    _, content = changed(filtered, milter, milters.replace_body(b"new\r\n"),
                         milters.replace_body(b"\xc3\xa4\r\n"))
    assert content.endswith(b"Received: from a by b\r\n\r\nnew\r\n\xc3\xa4\r\n")


def test_a_large_body_is_replaced_by_a_larger_one(filtered, milter):
    body = b"y" * 70 + b"\r\n"
    pieces = [milters.replace_body(body * 800) for _ in range(60)]
    _, content = changed(filtered, milter, *pieces,
                         content=b"Subject: x\r\n\r\n" + b"x\r\n" * 100_000)
    assert without_our_trace(content) == b"Subject: x\r\n\r\n" + body * 48_000


def test_each_filter_sees_what_those_before_it_changed(filtered, milter):
    first = milter(always("end", [milters.add_header("X-One", "1"),
                                  milters.replace_body(b"two\r\n" * 30_000), CONTINUE]))
    second = milter(always("end", [milters.change_header(1, "X-One", ""), CONTINUE]))
    mx, hop = filtered(first, second)
    mx.send(content=CONTENT)
    assert ("X-One", "1") in second.messages[0].headers
    assert second.messages[0].body == b"two\r\n" * 30_000
    assert without_our_trace(delivered(hop).content) == \
        CONTENT.split(b"\r\n\r\n")[0] + b"\r\n\r\n" + b"two\r\n" * 30_000


def test_envelopes_are_changed(filtered, milter):
    message, _ = changed(filtered, milter, milters.change_sender("<new@client.example>"),
                         milters.delete_recipient("<eve@EXAMPLE.com>"),
                         milters.delete_recipient("nobody@example.com"),
                         milters.add_recipient("joe@example.com"),
                         milters.add_recipient("<ann@example.com>"))
    assert message.sender == "new@client.example"
    assert sorted(message.recipients) == ["ann@example.com", "joe@example.com"]


def test_a_filter_knows_a_postmaster_by_the_name_that_the_client_gave(filtered, milter):
    """Whose mail goes to somebody else (R8): taken away, and added, by that name."""
    mx, hop = filtered(milter(at("end", [milters.delete_recipient("<PostMaster>"), CONTINUE],
                                 [milters.add_recipient("<abuse@mx2.example.net>"), CONTINUE])))
    for recipients in (["Postmaster", "ann@example.com"], ["ann@example.com"]):
        assert mx.send(recipients=recipients, content=CONTENT)[0] == 250
    wait_for(lambda: len(hop.messages) >= 2, what="the deliveries")
    assert [sorted(message.recipients) for message in hop.messages] == \
        [["ann@example.com"], ["ann@example.com", "postmaster@example.com"]]


def test_a_filter_adds_where_its_user_may_send(holdfast, sink, milter):
    filter = milter(at("end", [milters.add_recipient("<eve@elsewhere.example>"), CONTINUE]))
    hop = sink()
    port = free_port()
    mx = holdfast(filter.block() + f'server m1 {{ address = "127.0.0.1:{hop.port}" }}\n'
                  f'listen users {{ address = "127.0.0.1:{port}" protocol = submission '
                  "auth-without-tls = loopback  milters = fake }\n"
                  "domain example.com { deliver-to = m1 }\n"
                  "relay outgoing { auth = yes  deliver-to = m1 }\n", "loops = 1", start=False)
    start_with_ann(mx)
    with Dialogue(port) as client:
        client.must(f"AUTH PLAIN {ANN}", 235)
        client.send("ann@example.org", ["bob@elsewhere.example"], CONTENT)
    assert sorted(delivered(hop).recipients) == ["bob@elsewhere.example", "eve@elsewhere.example"]


def test_a_message_without_recipients_is_gone(filtered, milter):
    mx, hop = filtered(milter(always("end", [milters.delete_recipient("<ann@example.com>"),
                                             CONTINUE])))
    assert mx.send(content=CONTENT)[0] == 250
    assert mx.queue() == [] and not hop.messages
    assert [row["event"] for row in mx.lines("trace", "ann@example.com")] == \
        ["accepted", "discarded"]


def test_a_recipient_without_a_route_is_not_taken(filtered, milter):
    mx, hop = filtered(milter(always("end", [milters.add_header("X", "y"),
                                             milters.add_recipient("<x@elsewhere.example>"),
                                             CONTINUE])), listen="milter-default = accept")
    assert mx.send(content=CONTENT)[0] == 250
    assert without_our_trace(delivered(hop).content) == CONTENT
    assert 'reason="a recipient that has no route here"' in mx.log()


# ---- filters that fail ----


STAGES = ["negotiate", "connect", "helo", "mail", "rcpt", "data", "header", "eoh", "body", "end"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("default", ["accept", "tempfail"])
@pytest.mark.parametrize("fault", ["die", "hang", "nonsense"])
def test_a_filter_that_fails_at_a_stage(filtered, milter, stage, default, fault):
    answer = {"die": DIE, "hang": HANG, "nonsense": packet("?", b"what")}[fault]
    filter = milter(always(stage, answer))
    patience = "2s" if fault == "hang" else "60s"
    mx, hop = filtered(filter, more=f"connect-timeout = {patience}  command-timeout = {patience}  "
                                    f"content-timeout = {patience}  default = {default}")
    told, code, text = trial(mx)
    if default == "accept":
        assert (told, code) == ("end", 250)
        assert without_our_trace(delivered(hop).content) == CONTENT
        assert mx.log().count("filter-failed") >= 1
    else:
        assert code == 451 and text == "4.7.1 Service unavailable, try again later"
        assert told == {"negotiate": "mail", "connect": "mail", "helo": "mail", "header": "end",
                        "eoh": "end", "body": "end"}.get(stage, stage)
        assert not hop.messages and mx.queue() == []
    assert "default=" + default in mx.log()
    assert metric(mx, "failures_total") > 0


NONSENSE = {
    "empty packet": b"\0\0\0\0",
    "giant packet": b"\xff\xff\xff\xff" + b"x" * 100,
    "large packet": struct.pack("!I", 1 << 24) + b"x" * (2 << 20),
    "header without end": packet("h", b"X-A\0b"),
    "header with a line of its own": milters.add_header("X-A", "b\r\nBcc: all@example.com"),
    "header without name": milters.add_header("", "b"),
    "index without number": packet("i", b"\0\0"),
    "recipient with a line end": milters.add_recipient("<a@example.com>\r\nDATA"),
    "recipient that is none": milters.add_recipient("<@@>"),
    "sender that is none": milters.change_sender("<a b@c>"),
    "reply that is none": reply("250 fine"),
    "unknown packet": packet("Z", b"x" * 1000),
    "negotiation again": packet("O", struct.pack("!III", 6, 0, 0)),
    "too many changes": milters.add_recipient("a@example.com") * 10_001,
    "changes too large": milters.add_header("X", "y" * 60_000) * 30,
    "a body without end": milters.replace_body(b"x" * 65_535) * 1200,
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_at_the_end_changes_nothing(filtered, milter, name):
    filter = milter(always("end", [milters.add_header("X-Before", "1"), NONSENSE[name], CONTINUE]))
    mx, hop = filtered(filter, listen="milter-default = accept",
                       top="limits { message-size = 20M }" if "body" in name else "")
    assert mx.send(content=CONTENT)[0] == 250
    assert without_our_trace(delivered(hop).content) == CONTENT
    assert "filter-failed milter=f0 stage=end" in mx.log()
    assert all(mx.processes().values()) and "process-died" not in mx.log()


@pytest.mark.parametrize("answers", [
    [CONTINUE] * 5, [milters.add_header("X", "y"), CONTINUE], [milters.replace_body(b"x"), CONTINUE],
    [ACCEPT, REJECT], [PROGRESS, CONTINUE, CONTINUE]])
def test_answers_that_nobody_asked_for_are_none(filtered, milter, answers):
    filter = milter(always("mail", answers))
    mx, hop = filtered(filter, listen="milter-default = accept")
    assert trial(mx)[:2] == ("end", 250)
    assert without_our_trace(delivered(hop).content) == CONTENT


def test_unasked_answers_are_not_taken_for_later_ones(filtered, milter):
    filter = milter(always("connect", [CONTINUE] * 20), protocol=0)
    mx, hop = filtered(filter)
    assert trial(mx)[0] in ("helo", "mail")
    assert not hop.messages and "an answer that nobody asked for" in mx.log()


def test_wrong_negotiations_are_a_failure(filtered, milter):
    for answer in (packet("O", struct.pack("!III", 9, 0, 0)), packet("O", b"\0" * 4), CONTINUE,
                   packet("O", struct.pack("!III", 6, 0xffff, 0)),
                   packet("O", struct.pack("!III", 6, 0, 0xffffffff))):
        mx, _ = filtered(milter(always("negotiate", answer)), name=f"mx{id(answer)}")
        assert trial(mx)[:2] == ("mail", 451)
        assert "filter-away" in mx.log()


def test_a_filter_that_works_on_has_more_time(filtered, milter):
    def rule(stage, session, data):
        if stage != "end":
            return None
        for _ in range(6):
            time.sleep(0.5)
            session.connection.sendall(PROGRESS)
        return CONTINUE
    filter = milter(rule)
    mx, hop = filtered(filter, more="content-timeout = 2s")
    assert trial(mx)[:2] == ("end", 250)
    delivered(hop)


def test_a_filter_that_is_away_is_told_and_comes_back(filtered, milter):
    filter = milter(start=False)
    mx, hop = filtered(filter)
    assert trial(mx) == ("mail", 451, "4.7.1 Service unavailable, try again later")
    wait_for(lambda: any(alert["kind"] == "milter" for alert in mx.status()["alerts"]),
             what="the alert")
    alert, = (a for a in mx.status()["alerts"] if a["kind"] == "milter")
    assert alert["subject"] == "f0" and "filter f0 is away" in alert["text"]
    assert metric(mx, "connect_failures_total") > 0
    filter.start()
    wait_for(lambda: trial(mx)[:2] == ("end", 250), step=0.2, what="the filter's return")
    wait_for(lambda: not any(a["kind"] == "milter" for a in mx.status()["alerts"]),
             what="the end of the alert")
    assert "filter-back milter=f0" in mx.log()
    assert without_our_trace(delivered(hop).content) == CONTENT


def test_a_filter_that_comes_back_is_told_of_the_session(filtered, milter):
    filter = milter()
    mx, hop = filtered(filter, top="loops = 1")
    with mx.dialogue() as dialogue:
        dialogue.send("a@client.example", ["ann@example.com"], CONTENT)
        filter.stop()
        assert dialogue.say("MAIL FROM:<b@client.example>")[0] == 451
        filter.start()
        wait_for(lambda: dialogue.say("MAIL FROM:<c@client.example>")[0] == 250, step=0.3,
                 what="the filter's return")
        dialogue.must("RCPT TO:<ann@example.com>")
        assert dialogue.data(CONTENT)[0] == 250
    assert filter.messages[-1].sender == "<c@client.example>"
    session = filter.sessions[-1]
    assert session.macros["C"]["{client_addr}"] == "127.0.0.1" and session.clients >= 1


def test_others_do_not_wait_for_a_filter_that_hangs(filtered, milter):
    filter = milter(lambda stage, session, data:
                    HANG if stage == "mail" and b"slow" in data else None)
    mx, hop = filtered(filter, more="command-timeout = 60s", top="loops = 1")
    with mx.dialogue() as slow:
        slow.write(b"MAIL FROM:<slow@client.example>\r\n")
        wait_for(lambda: any("slow" in m.sender for m in filter.messages), what="the hang")
        for number in range(20):
            assert mx.send(sender=f"fast{number}@client.example")[0] == 250
    wait_for(lambda: len(hop.messages) == 20, what="the others")


def test_a_client_that_leaves_leaves_nothing(filtered, milter):
    filter = milter()
    mx, hop = filtered(filter)
    for stage in range(4):
        dialogue = Dialogue(mx.port)
        lines = [b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<ann@example.com>\r\n", b"DATA\r\n",
                 b"Subject: x\r\n\r\n" + b"x\r\n" * 60_000]
        for line in lines[:stage + 1]:
            dialogue.write(line)
        dialogue.close()
    assert mx.send(content=CONTENT)[0] == 250
    delivered(hop)
    wait_for(lambda: filter.steps.count("abort") >= 1, what="the end of the others")
    assert mx.queue() == [] and len(hop.messages) == 1


def test_a_reload_changes_filters(filtered, milter):
    first, second = milter(), milter()
    mx, hop = filtered(first)
    with mx.dialogue() as dialogue:
        dialogue.send("a@client.example", ["ann@example.com"], CONTENT)
        mx.configure(first.block("f0") + second.block("f1") + backup_mx(hop.port), "",
                     "milters = {f1}")
        mx.reload()
        wait_for(lambda: "reloaded" in mx.log(), what="the reload")
        wait_for(lambda: dialogue.send("b@client.example", ["ann@example.com"], CONTENT)[0] and
                 second.messages, what="the new filter")
    assert second.sessions[0].macros["C"]["{client_addr}"] == "127.0.0.1"
    mx.configure(backup_mx(hop.port))
    mx.reload()
    wait_for(lambda: mx.log().count("reloaded") == 2, what="the reload")
    count = len(second.messages)
    assert mx.send()[0] == 250 and len(second.messages) == count


def test_content_under_way_is_bounded_in_memory(filtered, milter):
    """Many large messages at once, with a filter that is slow to read: they lie in the scratch
    file, which is empty in the end."""
    filter = milter(lambda stage, session, data: time.sleep(0.02) if stage == "body" else None)
    mx, hop = filtered(filter, top='content-memory = 2M\nloops = 1')
    content = b"Subject: x\r\n\r\n" + (b"x" * 78 + b"\r\n") * 50_000
    dialogues = [mx.dialogue() for _ in range(12)]
    before = mx.memory_bytes()
    for dialogue in dialogues:
        dialogue.envelope("a@client.example", ["ann@example.com"])
        dialogue.must("DATA", 354)
        dialogue.write(content + b".\r\n")
    grown = mx.memory_bytes() - before
    for dialogue in dialogues:
        assert dialogue.reply()[0] == 250
        dialogue.close()
    assert grown < 24 << 20, grown
    wait_for(lambda: len(hop.messages) == 12, 60, what="all")
    assert {without_our_trace(m.content) for m in hop.messages} == {content}


def test_filters_meet_the_client_that_xclient_names(filtered, milter):
    seen = []
    filter = milter(lambda stage, session, data:
                    seen.append(data) if stage == "connect" else None)
    mx, hop = filtered(filter, listen="trusted = {127.0.0.2/32}")
    with mx.dialogue(source="127.0.0.2") as proxy:
        proxy.must("XCLIENT ADDR=192.0.2.7")
        proxy.hello("client.example")
        proxy.send("bob@client.example", ["ann@example.com"], b"Subject: two\r\n\r\n")
    assert macros_of(filter)["{client_addr}"] == "192.0.2.7"
    # The first of all was who waited for the greeting.
    assert [data.split(b"\0")[0] for data in seen[1:]] == [b"[127.0.0.2]", b"[192.0.2.7]"]


@pytest.mark.parametrize("told, name, pointer, both", [
    ("", "unknown", "unknown", "unknown [192.0.2.7]"),
    ("NAME=client.example", "client.example", "client.example", "client.example [192.0.2.7]"),
    ("NAME=[UNAVAILABLE] REVERSE_NAME=liar.example", "unknown", "liar.example",
     "liar.example [192.0.2.7] (may be forged)"),
    ("NAME=[TEMPUNAVAIL]", "unknown", "unknown", "unknown [192.0.2.7]"),
    ("NAME=client.example REVERSE_NAME=Client.EXAMPLE", "client.example", "Client.EXAMPLE",
     "Client.EXAMPLE [192.0.2.7]"),
])
def test_filters_are_told_the_names_that_xclient_gives(filtered, milter, told, name, pointer,
                                                       both):
    """As Postfix tells them."""
    seen = []
    filter = milter(lambda stage, session, data:
                    seen.append(data) if stage == "connect" else None)
    mx, _ = filtered(filter, listen="trusted = {127.0.0.2/32}")
    with mx.dialogue(source="127.0.0.2") as proxy:
        # Names of an earlier client are not the next one's.
        proxy.must("XCLIENT NAME=other.example REVERSE_NAME=other.example ADDR=127.0.0.2")
        proxy.must(f"XCLIENT ADDR=192.0.2.7 {told}".strip())
        proxy.hello("client.example")
        proxy.send("bob@client.example", ["ann@example.com"], b"Subject: two\r\n\r\n")
    macros = macros_of(filter)
    assert macros["{client_name}"] == name and macros["{client_ptr}"] == pointer
    assert macros["_"] == both
    host = b"[192.0.2.7]" if name == "unknown" else name.encode()
    assert seen[-1].split(b"\0")[0] == host


# ---- what they are told of the client ----


def macros_of(filter):
    """What a filter knew at the end of the last message."""
    assert filter.messages[-1].ended  # its end has been answered
    return filter.messages[-1].macros


def test_filters_are_told_who_has_logged_in(holdfast, sink, milter):
    """At MAIL: name, mechanism, and whose mail it was first (AUTH=); nothing of that before, and
    nothing of one client when the connection serves the next."""
    filter = milter()
    hop = sink()
    port = free_port()
    mx = holdfast(filter.block() + f'server m1 {{ address = "127.0.0.1:{hop.port}" }}\n'
                  f'listen users {{ address = "127.0.0.1:{port}" protocol = submission '
                  "auth-without-tls = loopback  milters = fake }\n"
                  "domain example.com { deliver-to = m1 }\n"
                  "relay outgoing { auth = yes  deliver-to = m1 }\n",
                  "loops = 1", "milters = fake", start=False)
    start_with_ann(mx)
    words = {"PLAIN": [ANN],
             "LOGIN": [base64.b64encode(word).decode() for word in (b"ann@example.org", b"secret")]}
    for mechanism, said in words.items():
        with Dialogue(port) as client:
            assert client.say(f"AUTH {mechanism} {said[0]}")[0] == (334 if said[1:] else 235)
            for word in said[1:]:
                client.must(word, 235)
            client.send("ann@example.org", ["bob@elsewhere.example"], CONTENT,
                        mail=" AUTH=eve+2Bx@example.org SIZE=100")
            macros = macros_of(filter)
            assert macros["{auth_authen}"] == "ann@example.org"
            assert macros["{auth_type}"] == mechanism
            assert macros["{auth_author}"] == "eve+2Bx@example.org"
            assert macros["{daemon_name}"] == "users"
            client.send("ann@example.org", ["bob@elsewhere.example"], CONTENT, mail=" AUTH=<>")
            assert "{auth_author}" not in macros_of(filter)
            assert client.say("MAIL FROM:<ann@example.org> AUTH=a+zz")[0] == 501
    mx.send()
    assert not {name for name in macros_of(filter) if name.startswith("{auth")}
    with mx.dialogue() as client:  # where nobody can log in
        assert client.say("MAIL FROM:<bob@client.example> AUTH=<>")[0] == 555


def test_filters_are_told_of_tls(holdfast, sink, milter, place):
    """From the EHLO behind STARTTLS on, and of the client's certificate if it is proved."""
    filter = milter()
    hop = sink()
    authority = Authority(place)
    own, client = (authority.certificate(name) for name in ("mx2.example.net", "client.example"))
    mx = holdfast(filter.block() + backup_mx(hop.port), "loops = 1",
                  f'milters = fake {listen(own)} client-ca = "{authority.root}"')
    context = trusting(authority)
    with by_starttls(mx.port, context) as dialogue:
        dialogue.hello("client.example")
        dialogue.send("bob@client.example", ["ann@example.com"], CONTENT)
        macros = macros_of(filter)
        assert macros["{tls_version}"] == dialogue.socket.version()
        name, _, bits = dialogue.socket.cipher()
        assert macros["{cipher}"] == name and macros["{cipher_bits}"] == str(bits)
        assert "{cert_subject}" not in macros and "{cert_issuer}" not in macros
        assert "{tls_version}" not in filter.sessions[-1].macros["C"]  # it came later
    context.load_cert_chain(client.chain, client.key)
    with by_starttls(mx.port, context) as dialogue:
        dialogue.hello("client.example")
        dialogue.send("bob@client.example", ["ann@example.com"], CONTENT)
        macros = macros_of(filter)
        assert macros["{cert_subject}"] == "client.example" and macros["{cert_issuer}"] == "root"
    mx.send()
    assert "{tls_version}" not in macros_of(filter)


def test_filters_meet_the_client_that_a_proxy_names(filtered, milter):
    filter = milter()
    mx, _ = filtered(filter, listen="proxy-from = {127.0.0.3/32}")
    with socket.create_connection(("127.0.0.1", mx.port), 60,
                                  source_address=("127.0.0.3", 0)) as raw:
        raw.sendall(b"PROXY TCP4 192.0.2.9 192.0.2.1 4711 25\r\n")
        with raw.makefile("rb") as replies:
            for command in (b"EHLO c", b"MAIL FROM:<bob@client.example>",
                            b"RCPT TO:<ann@example.com>", b"DATA", CONTENT + b"."):
                while (line := replies.readline())[3:4] == b"-":
                    pass
                assert line[:1] in b"23", line
                raw.sendall(command + b"\r\n")
            assert replies.readline()[:3] == b"250"
    macros = macros_of(filter)
    assert macros["{client_addr}"] == "192.0.2.9" and macros["{client_port}"] == "4711"
    assert macros["_"] == "unknown [192.0.2.9]" and macros["{client_name}"] == "unknown"
