# SPDX-License-Identifier: Apache-2.0
"""`queue retry`: what each way of choosing tries now, with its counts begun anew; a domain's quota."""

import pytest

from peers import wait_for


@pytest.fixture
def deferred(holdfast, sink):
    """Two domains, each with a server that defers all but its first message for an hour:
    (mx, {domain: sink}, {name: id})."""
    hops, ids = {}, {}
    for domain in ("one.example", "two.example"):
        hops[domain] = sink(
            lambda stage, _session, argument:
            "450 4.2.1 Later" if stage == "RCPT" and "first@" not in argument else None)
    mx = holdfast("".join(
        f'server m{n} {{ address = "127.0.0.1:{hop.port}" }}\n'
        f"domain {domain} {{ deliver-to = m{n}  retry = {{60m}} }}\n"
        for n, (domain, hop) in enumerate(hops.items(), 1)))
    for domain in hops:  # their rise makes nothing due any more
        mx.send(recipients=[f"first@{domain}"])
    wait_for(lambda: all(server["state"] == "up" for server in mx.status()["servers"]), 10,
             what="both up")
    mx.wait_empty()
    for sender in ("ann", "bob"):
        for domain in hops:
            mx.send(sender=f"{sender}@client.example", recipients=[f"{sender}@{domain}"])
    wait_for(lambda: [row["attempts"] for row in mx.queue()] == [1] * 4, 10, what="deferrals")
    for row in mx.queue():
        ids[row["recipients"][0]] = row["id"]
    return mx, hops, ids


CHOICES = {
    "id": (lambda ids: [ids["ann@two.example"]], {"ann@two.example"}),
    "domain": (lambda _: ["--domain", "one.example"], {"ann@one.example", "bob@one.example"}),
    "server": (lambda _: ["--server", "m2"], {"ann@two.example", "bob@two.example"}),
    "sender": (lambda _: ["--sender", "bob@client.example"],
               {"bob@one.example", "bob@two.example"}),
    "recipient": (lambda _: ["--recipient", "bob@one.example"], {"bob@one.example"}),
    "age": (lambda _: ["--older", "0s"], None),
    "all": (lambda _: ["--all"], None),
    "two at once": (lambda _: ["--domain", "one.example", "--sender", "bob@client.example"],
                    {"bob@one.example"}),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_what_is_chosen_is_tried_now(deferred, choice):
    mx, hops, ids = deferred
    arguments, wanted = CHOICES[choice]
    wanted = wanted or set(ids)
    for hop in hops.values():
        hop.rule = lambda *_: None
    mx.tool("queue", "retry", *arguments(ids))
    wait_for(lambda: {recipient for hop in hops.values() for recipient in hop.recipients()
                      if "first@" not in recipient} == wanted, 10, what="those that were chosen")
    wait_for(lambda: {row["recipients"][0] for row in mx.queue()} == set(ids) - wanted, 5,
             what="the others to wait")
    assert all(row["attempts"] == 1 and row["next"] is not None for row in mx.queue())


def test_nothing_is_old_enough(deferred):
    mx, _, _ = deferred
    assert mx.tool("queue", "retry", "--older", "2h", check=False).returncode == 1


def test_counts_begin_anew(deferred):
    """Tried and deferred once more it has one attempt behind it, not two."""
    mx, hops, ids = deferred
    before = len(hops["one.example"].connects), mx.queue(ids["ann@one.example"])[0]["next"]
    mx.tool("queue", "retry", ids["ann@one.example"])

    def again():
        (row,) = mx.queue(ids["ann@one.example"])
        return row["state"] == "deferred" and row["next"] != before[1] and row
    row = wait_for(again, 10, what="a second deferral")
    assert row["attempts"] == 1
    events = [event["event"] for event in mx.lines("trace", ids["ann@one.example"])]
    assert events.count("deferred") == 2


def test_a_domain_beyond_its_quota(holdfast, sink):
    """452 at RCPT for that domain alone, until there is room again."""
    hop, other = sink(start=False), sink()
    mx = holdfast(f'server m1 {{ address = "127.0.0.1:{hop.port}" }}\n'
                  f'server m2 {{ address = "127.0.0.1:{other.port}" }}\n'
                  "domain one.example { deliver-to = m1  quota = 1M }\n"
                  "domain two.example { deliver-to = m2 }\n")
    content = b"Subject: big\r\n\r\n" + (b"x" * 70 + b"\r\n") * 20000
    mx.send(recipients=["ann@one.example"], content=content)
    wait_for(lambda: reply_to(mx, "ann@one.example")[0] == 452, 10, what="the refusal")
    assert "4.3.1" in reply_to(mx, "ann@one.example")[1]
    assert reply_to(mx, "ann@two.example")[0] == 250
    hop.start()
    mx.wait_empty()
    wait_for(lambda: reply_to(mx, "ann@one.example")[0] == 250, 10, what="room again")


def reply_to(mx, recipient):
    with mx.dialogue() as dialogue:
        dialogue.must("MAIL FROM:<eve@client.example>")
        return dialogue.say(f"RCPT TO:<{recipient}>")
