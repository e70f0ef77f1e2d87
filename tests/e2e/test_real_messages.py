# SPDX-License-Identifier: Apache-2.0
"""Every message passes byte for byte, after R10's normalisation and our Received field."""

import re

import pytest

from client import Refused, without_our_trace
from corpus import REAL, as_delivered, made_messages, real_messages
from daemon import backup_mx
from peers import wait_for
from sink import EXTENSIONS

BY_DATA = tuple(e for e in EXTENSIONS if e != "CHUNKING")


def sizes_for(content):
    """Chunk sizes that cut a content in awkward places."""
    return [n for n in (1, 2, 3, 70, 1000, 65536) if n < len(content) // 7]


def pass_all(mx, hop, messages, by_bdat):
    """Sends all, waits for all, compares each. Recipients tell them apart."""
    dialogue = mx.dialogue()
    for number, (name, content) in enumerate(messages):
        try:
            dialogue.send("a@client.example", [f"n{number}@example.com"], content,
                          mail=" BODY=8BITMIME", chunks=sizes_for(content) if by_bdat else None)
        except Refused as refused:
            raise AssertionError(f"{name}: {refused}") from None
    dialogue.close()
    wait_for(lambda: len(hop.messages) >= len(messages), 120, 0.1,
             f"{len(messages)} messages at the next hop")
    arrived = {message.recipients[0]: message for message in hop.messages}
    different = []
    for number, (name, content) in enumerate(messages):
        got = without_our_trace(arrived[f"n{number}@example.com"].content)
        if got != as_delivered(content, by_bdat):
            different.append(name)
    assert not different
    assert len(hop.messages) == len(messages), "each arrives once"


@pytest.mark.sanitized
@pytest.mark.parametrize("by_bdat", [False, True], ids=["data", "bdat"])
def test_made_messages(holdfast, sink, by_bdat):
    hop = sink(extensions=EXTENSIONS if by_bdat else BY_DATA)
    mx = holdfast(backup_mx(hop.port))
    pass_all(mx, hop, made_messages(), by_bdat)
    assert all(message.by_bdat <= by_bdat for message in hop.messages)
    mx.stop()


@pytest.mark.parametrize("by_bdat", [False, True], ids=["data", "bdat"])
def test_real_messages(holdfast, sink, by_bdat):
    messages = real_messages()
    if not messages:
        pytest.skip(f"no collection of real messages at {REAL}")
    hop = sink(extensions=EXTENSIONS if by_bdat else BY_DATA)
    mx = holdfast(backup_mx(hop.port))
    pass_all(mx, hop, messages, by_bdat)
    mx.stop()


def test_real_messages_to_postfix(holdfast, postfix):
    """A tenth of them through a real Postfix into its maildir."""
    messages = real_messages()[::10] or made_messages()
    # Postfix ends a header at the first line that is none, and keeps no NUL apart.
    messages = [(n, c) for n, c in messages if b"\0" not in c and re.match(rb"[!-9;-~]+:", c)]
    primary = postfix()
    mx = holdfast(backup_mx(primary.port))
    with mx.dialogue() as dialogue:
        for number, (_, content) in enumerate(messages):
            dialogue.send("a@client.example", [f"n{number}@example.com"], content,
                          mail=" BODY=8BITMIME")
    wait_for(lambda: len(primary.messages()) >= len(messages), 60, 0.1, "all messages")
    arrived = {}
    for stored in primary.messages():
        number = int(re.search(rb"(?m)^Delivered-To: n(\d+)@", stored).group(1))
        # Return-Path, X-Original-To, Delivered-To and Received of Postfix, then ours.
        content = re.sub(rb"\A(?:(?:Return-Path|X-Original-To|Delivered-To): .*\n)+", b"", stored)
        content = re.sub(rb"\AReceived: .*\n(?:[ \t].*\n)*", b"", content)
        arrived[number] = without_our_trace(content.replace(b"\n", b"\r\n"))
    different = [name for number, (name, content) in enumerate(messages)
                 if arrived[number] != as_delivered(content, False)]
    assert not different
    mx.stop()
