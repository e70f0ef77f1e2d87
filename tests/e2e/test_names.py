# SPDX-License-Identifier: Apache-2.0
"""R3: names of servers. A failure of DNS is never a refusal, and an address once known is kept."""

import time

import pytest

from names import NameServer
from peers import wait_for

HOST = "mail.example.com"


@pytest.fixture
def names():
    server = NameServer({HOST: {"A": ["127.0.0.1"]}})
    yield server
    server.stop()


def routes(port):
    return (f'server m1 {{ address = "{HOST}:{port}" }}\n'
            "domain example.com { deliver-to = m1 }\n")


def number(n):
    return f"Subject: {n}\r\n\r\n".encode()


@pytest.mark.parametrize("trouble", ["nxdomain", "servfail", "silent"])
def test_addresses_are_kept_over_a_restart(holdfast, sink, names, trouble):
    hop = sink()
    mx = holdfast(routes(hop.port), top=names.setting)
    mx.send(content=number(1))
    wait_for(lambda: hop.subjects() == ["1"], 20, what="the first")
    mx.stop()
    names.mode = trouble
    asked = names.asked
    mx.start()
    mx.send(content=number(2))
    wait_for(lambda: hop.subjects() == ["1", "2"], 20, what="the second, by the address kept")
    assert names.asked > asked, "it was asked for anew"


def test_an_unknown_name_is_a_server_that_is_down(holdfast, sink, names):
    """Not a refusal: the mail waits, and goes when the name is there."""
    hop = sink()
    names.mode = "nxdomain"
    mx = holdfast(routes(hop.port), top=names.setting)
    mx.send(content=number(1))
    wait_for(lambda: mx.server_state("m1") == "down", 20, what="m1 down")
    assert len(mx.queue()) == 1 and mx.status()["dead_letters"] == 0
    time.sleep(1)
    names.mode = "good"
    wait_for(lambda: hop.subjects() == ["1"], 30, what="the name known again")
    mx.wait_empty()


def test_a_name_that_leads_elsewhere_than_it_may(holdfast, sink, names):
    """deliver-only-to: an address outside is not connected to, whatever DNS says."""
    inside, outside = sink(), sink(address="127.0.0.9")
    outside.stop()
    outside.port = inside.port
    outside.start()
    names.zone[HOST]["A"] = ["127.0.0.9"]
    mx = holdfast(f'server m1 {{ address = "{HOST}:{inside.port}" }}\n'
                  "domain example.com { deliver-to = m1  deliver-only-to = {127.0.0.0/29} }\n",
                  top=names.setting)
    mx.send(content=number(1))
    wait_for(lambda: "deliver-only-to" in mx.log(), 20, what="the reason")
    time.sleep(1)
    assert not outside.connects
    names.zone[HOST]["A"] = ["127.0.0.9", "127.0.0.1"]
    wait_for(lambda: inside.subjects() == ["1"], 30, what="the address inside")
    assert not outside.connects
    mx.wait_empty()
