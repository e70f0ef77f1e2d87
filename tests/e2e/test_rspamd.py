# SPDX-License-Identifier: Apache-2.0
"""rspamd at the primary judges our clients, as docs/true-sender.md has it: behind a Postfix that takes
XCLIENT from us, and, where nothing tells it, by our Received field."""

import json
import urllib.request

import pytest

from daemon import backup_mx
from filters import Daemons, rspamd
from peers import wait_for, why_no_postfix

FORGED = ("127.0.0.66", "2001:db8::66")

# One symbol or the other says whose mail it is for rspamd: FORGED of those who may not send.
RULES = """\
local forged = {["127.0.0.66"] = true, ["2001:db8::66"] = true}
for symbol, score in pairs({CLIENT = 0, FORGED = 20}) do
  rspamd_config:register_symbol({name = symbol, score = score, callback = function(task)
    local client = tostring(task:get_from_ip())
    return (forged[client] or false) == (symbol == "FORGED"), 1.0, client, task:get_helo()
  end})
end
"""

RECIPE = """\
rules {
  BACKUP_MX {
    strategy = "hostname_map";
    hostname_map = ["mx2.example.net"];
  }
}
"""


@pytest.fixture
def daemons(place):
    running = Daemons(place)
    yield running
    running.stop()


@pytest.mark.skipif(why_no_postfix() is not None, reason=str(why_no_postfix()))
def test_behind_a_postfix_that_takes_xclient_it_judges_our_clients(holdfast, postfix, daemons):
    port, _ = rspamd(daemons, rules=RULES)
    primary = postfix(settings="smtpd_authorized_xclient_hosts = 127.0.0.1\n"
                      f"smtpd_milters = inet:127.0.0.1:{port}\nmilter_default_action = tempfail\n"
                      "milter_connect_macros = j {client_addr} {client_name} {client_port}\n")
    mx = holdfast(backup_mx(primary.port, server="hold-5xx-after-recovery = 0s"))
    for source, recipient in (("127.0.0.2", "good"), ("127.0.0.66", "forged"), ("127.0.0.3", "fine")):
        mx.send(sender="bob@client.example", recipients=[f"{recipient}@example.com"],
                content=b"From: bob@client.example\r\nSubject: test\r\n\r\ntext\r\n", source=source)
    wait_for(lambda: len(primary.messages()) == 2, what="the good messages")
    rows = lambda: mx.queue("--dead") + mx.queue()
    wait_for(lambda: any("5.7.1" in str(row["reason"]) for row in rows()), what="the refusal")
    refused, = rows()
    assert refused["recipients"] == ["forged@example.com"]
    assert refused["reason"].startswith("554 5.7.1")
    wait_for(lambda: "CLIENT(0.00){127.0.0.3;" in daemons.log_of("rspamd"), what="the log")
    assert mx.server_state("m1") == "up"


def test_without_it_takes_the_client_out_of_our_received_field(holdfast, sink, daemons):
    """Asked as the primary's mail server would ask it: by our address and name."""
    hop = sink()
    _, http = rspamd(daemons, 'modules { path = "/usr/share/rspamd/plugins/external_relay.lua"; }',
                     "external_relay {", RECIPE, "}", rules=RULES)
    mx = holdfast(backup_mx(hop.port), listen="trusted = {127.0.0.2/32}")

    def symbols(message, name):
        request = urllib.request.Request(
            f"http://127.0.0.1:{http}/checkv2", data=message.content, headers={
                "IP": "192.0.2.25", "Hostname": name, "Helo": "mx2.example.net",
                "From": "bob@client.example", "Rcpt": "ann@example.com"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)["symbols"]

    for client in ("127.0.0.7", *FORGED):
        with mx.dialogue(source="127.0.0.2") as dialogue:
            dialogue.must(f"XCLIENT ADDR={'IPV6:' if ':' in client else ''}{client}")
            dialogue.hello("client.example")
            dialogue.send("bob@client.example", ["ann@example.com"],
                          b"From: bob@client.example\r\nSubject: test\r\n\r\ntext\r\n")
        mx.wait_empty()
        found = symbols(hop.messages[-1], "mx2.example.net")
        symbol = "FORGED" if client in FORGED else "CLIENT"
        assert found[symbol]["options"] == [client, "client.example"]
        # Only from us is it believed.
        found = symbols(hop.messages[-1], "other.example.net")
        assert found["CLIENT"]["options"] == ["192.0.2.25", "mx2.example.net"]
