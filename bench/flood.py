# SPDX-License-Identifier: Apache-2.0
"""Rows: what honest clients notice of a flood of others that are refused. The load is an open loop
(tools/cflood): it does not slow down when the server does."""

import json
import shutil
import subprocess

from clients import median
from servers import (BUILD, HOLD, TUNED, Holdfast, NameServer, Postfix, free_port, listens,
                     raise_file_limit, wait_for)
from table import Row

FLOOD, HONEST, SECONDS, CLIENTS = 3000, 50, 10, 1000
LISTS = ("203.0.112.0/24", "203.0.113.0/24", "203.0.114.0/24", "203.0.115.0/24")

OURS = """\
server m1 {{ address = "127.0.0.1:{down}" }}
domain example.com {{ deliver-to = m1  recipients = learn  unknown = defer }}
listen proxied {{ address = "127.0.0.1:{proxied}"  proxy-from = 127.0.0.0/8  dnsbl-score = 1 }}
dnsbl bad {{ zone = bad.example }}
limits {{ connections = 25000  refused-recipient-rate = none  connections-per-client = 25000 }}
"""

UNLISTED = "relay_recipient_maps = inline:{ user@example.com=ok }\n"
SCREEN = """\
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = check_client_access static:HOLD
postscreen_upstream_proxy_protocol = haproxy
postscreen_access_list = cidr:{root}/etc/access
postscreen_blacklist_action = drop
"""


class Postscreen(Postfix):
    MASTER = Postfix.MASTER.replace("smtpd\npickup", "postscreen\nsmtpd pass - - n - {limit} smtpd\n"
                                    "pickup", 1).replace("{limit} postscreen", "1 postscreen", 1)


class OurServer:
    def __init__(self, place):
        self.names = NameServer({f"{last}.{third}.0.203.bad.example": {"A": ["127.0.0.2"]}
                                 for third in range(112, 116) for last in range(1, 251)}, ttl=3600)
        self.proxied = free_port()
        self.mx = Holdfast(place / "holdfast", OURS.format(down=free_port(), proxied=self.proxied),
                           top=self.names.setting)
        self.mx.limits = raise_file_limit
        self.port = self.mx.port

    def start(self):
        self.mx.start()
        known = self.mx.root / "known"
        known.write_text("user OK\n")
        self.mx.tool("recipients", "import", "example.com", known)
        wait_for(lambda: self.mx.server_state("m1") == "down", what="the verdict on the primary")
        return self

    def stop(self):
        self.mx.end()
        self.names.stop()
        shutil.rmtree(self.mx.state, ignore_errors=True)


class Peer:
    """Postfix at its best, which keeps what it takes on hold; `screened`: by postscreen, which
    knows all clients by a list."""

    def __init__(self, place, screened):
        self.root = place / "postfix"
        settings = TUNED.format(next_hop=free_port()) + UNLISTED
        settings += SCREEN.format(root=self.root) if screened else HOLD
        self.postfix = (Postscreen if screened else Postfix)(
            self.root, relay_to=free_port(), settings=settings, process_limit="300")
        (self.root / "etc/access").write_text("198.51.100.0/24 permit\n" + "".join(
            f"{network} reject\n" for network in LISTS))
        self.port = self.proxied = self.postfix.port

    def start(self):
        self.postfix.start(wait=False)
        wait_for(lambda: listens(self.port), what="Postfix's port")
        return self

    def stop(self):
        self.postfix.stop()
        shutil.rmtree(self.root, ignore_errors=True)


def cflood(port, flood, seconds, *more):
    command = [BUILD / "tools/cflood", "-f", str(flood), "-g", str(HONEST), "-t", str(seconds),
               *map(str, more), str(port)]
    result = subprocess.run(command, check=True, timeout=seconds + 60, capture_output=True,
                            text=True, stdin=subprocess.DEVNULL, preexec_fn=raise_file_limit)
    return json.loads(result.stdout)


def run(server, seconds, listed):
    """(p99 quiet, p99 under the flood, part of the flood that was refused in time)."""
    more = ("-p", CLIENTS) if listed else ()
    server.start()
    port = server.proxied if listed else server.port
    try:
        cflood(port, 300, 4, *more)  # warm, and everybody has been looked up
        quiet = cflood(port, 0, seconds, *more)
        loud = cflood(port, FLOOD, seconds, *more)
    finally:
        server.stop()
    assert quiet["good"]["done"] == quiet["good"]["begun"], quiet
    return quiet, loud


def flood(scale, place):
    """3,000 refused connections a second: the p99 of honest messages beside them, to the quiet."""
    seconds = max(3, int(SECONDS * scale.factor))
    for listed, what in ((False, "unknown recipients"), (True, "listed clients")):
        ours, theirs = [], []
        for _ in range(scale.rounds):
            ours.append(run(OurServer(place), seconds, listed))
            theirs.append(run(Peer(place, listed), seconds, listed))
        ratio, other = (median([loud["p99"] / quiet["p99"] for quiet, loud in found])
                        for found in (ours, theirs))
        for quiet, loud in ours:
            assert loud["good"]["done"] == loud["good"]["begun"], loud
        peer = "postscreen, by a list" if listed else "Postfix tuned, on hold"
        missed = [1 - loud["flood"]["refused"] / loud["flood"]["begun"] for _, loud in theirs]
        yield Row(f"p99 of mail beside 3,000/s of {what}",
                  f"{median([loud['p99'] for _, loud in ours]):,.1f} ms, quiet "
                  f"{median([quiet['p99'] for quiet, _ in ours]):,.1f}", peer,
                  f"{median([loud['p99'] for _, loud in theirs]):,.0f} ms, quiet "
                  f"{median([quiet['p99'] for quiet, _ in theirs]):,.1f} ({other:,.1f} x), "
                  f"{100 * median(missed):.0f} % unserved", ratio, "<= 3 x", ratio <= 3)
