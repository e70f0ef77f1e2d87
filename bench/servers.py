# SPDX-License-Identifier: Apache-2.0
"""The servers that are measured side by side, each started afresh for a run: holdfast, Postfix in
several moods, and sinks that store nothing. All on loopback, all with the same client and the same
next hop."""

import os
import pathlib
import resource
import shutil
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/e2e"))

from daemon import BUILD, Holdfast  # noqa: E402 (the path above comes first)
from names import NameServer  # noqa: E402
from peers import Postfix, end_process, free_port, greets, wait_for, why_no_postfix  # noqa: E402


TUNED = """\
maillog_file =
in_flow_delay = 0
default_process_limit = 300
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_peername_lookup = no
enable_long_queue_ids = yes
hash_queue_depth = 1
max_use = 1000
qmgr_message_active_limit = 40000
qmgr_message_recipient_limit = 40000
initial_destination_concurrency = 20
default_destination_concurrency_limit = 50
default_destination_concurrency_failed_cohort_limit = 100
smtp_connection_cache_on_demand = yes
smtp_connection_cache_destinations = [127.0.0.1]:{next_hop}
"""

# The access action puts each message on hold, so that the queue manager never sees it: what
# accepting alone costs Postfix at its best.
HOLD = """\
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = check_client_access static:HOLD, permit_mynetworks, reject
"""


class Ours:
    """holdfast as the backup MX of `domain`; its primary is at port `next_hop`."""

    name = "holdfast"

    def __init__(self, place, next_hop, server="", more_servers="", domain="example.com", top="",
                 certificate=None, filter=None):
        limits = "limits { connections = 25000 }"
        if certificate is not None:  # at a port of its own, before the greeting
            self.tls_port = free_port()
            more_servers += (f'\nlisten secure {{ address = "127.0.0.1:{self.tls_port}" '
                             f'tls = implicit certificate = "{certificate.chain}" '
                             f'key = "{certificate.key}" }}\n')
        if filter is not None:
            more_servers += f'\nmilter fake {{ address = "{filter.address}" }}\n'
        self.mx = Holdfast(place / "holdfast",
                           f'server m1 {{ address = "127.0.0.1:{next_hop}" {server} }}\n'
                           f"{more_servers}\ndomain {domain} {{ deliver-to = m1 }}\n",
                           top=f"{limits}\nlog-level = warning\n{top}\n",
                           listen="milters = fake" if filter is not None else "")
        self.mx.limits = raise_file_limit
        self.port = self.mx.port

    def start(self):
        self.mx.start()
        return self

    def stop(self):
        self.mx.end()
        shutil.rmtree(self.mx.state, ignore_errors=True)

    def release(self):
        """Nothing: that is the point."""

    def queued(self):
        return self.mx.status()["queue"]["messages"]

    def cpu_seconds(self):
        return sum(cpu_seconds(pid) for pid in self.mx.pids())


class PostfixPeer:
    """Postfix as the backup MX of example.com. Moods: "default", "tuned", "tuned+hold"."""

    def __init__(self, place, next_hop, mood, certificate=None, filter=None):
        self.name = f"Postfix {mood}"
        self.root = place / ("postfix-" + mood.replace("+", "-"))
        settings = TUNED.format(next_hop=next_hop) if "tuned" in mood else ""
        settings += HOLD if "hold" in mood else ""
        settings += f"smtpd_milters = {filter.address}\n" if filter is not None else ""
        if certificate is not None:
            settings += (f"smtpd_tls_cert_file = {certificate.chain}\n"
                         f"smtpd_tls_key_file = {certificate.key}\n"
                         "smtpd_tls_security_level = may\nsmtpd_tls_wrappermode = yes\n")
        self.postfix = Postfix(self.root, relay_to=next_hop, settings=settings)
        self.port = self.postfix.port
        self.waits = certificate is None

    def start(self):
        self.postfix.start(wait=self.waits)
        if not self.waits:  # it greets nobody in the clear
            wait_for(lambda: listens(self.port), 15, what="Postfix's port")
        return self

    def stop(self):
        self.postfix.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def release(self):
        self.postfix.flush()

    def queued(self):
        return self.postfix.queued()


class NullFilter:
    """A filter that hears all and changes nothing (tools/cmilter)."""

    def __init__(self):
        self.port = free_port()
        self.address = f"inet:127.0.0.1:{self.port}"
        self.child = None

    def start(self):
        self.child = subprocess.Popen([str(BUILD / "tools/cmilter"), str(self.port)],
                                      stdin=subprocess.DEVNULL, start_new_session=True,
                                      preexec_fn=raise_file_limit)
        wait_for(lambda: listens(self.port), 15, what="the filter's port")
        return self

    def stop(self):
        end_process(self.child)


class NullSink:
    """Postfix's smtp-sink: takes everything and stores nothing. What the client and the loopback
    can do at most."""

    name = "smtp-sink"

    def __init__(self, _place):
        self.port = free_port()
        self.child = None

    def start(self):
        command = ["smtp-sink", f"127.0.0.1:{self.port}", "1024"]
        if os.geteuid() == 0:
            command[1:1] = ["-u", "nobody"]
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                      start_new_session=True, preexec_fn=raise_file_limit)
        wait_for(lambda: greets(self.port), what="smtp-sink's greeting")
        return self

    def stop(self):
        end_process(self.child)


class CountingSink:
    """The next hop of every run (tools/csink): logs number and recipient of what arrives."""

    def __init__(self, place, port):
        self.port = port
        self.log = place / "sink.log"
        self.status_path = place / "sink.status"
        self.child = None
        self.started = None

    def start(self):
        self.status_path.unlink(missing_ok=True)
        self.started = time.clock_gettime(time.CLOCK_MONOTONIC)
        self.child = subprocess.Popen([BUILD / "tools/csink", "-o", self.log, "-s",
                                       self.status_path, str(self.port)],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_for(lambda: self.status_path.exists() and self.status_path.read_text(), step=0.001,
                 what="the sink")
        return self

    def status(self):
        """(messages, seconds of the first, of the last, connections) on the monotonic clock."""
        count, first, last, connections, _ = map(int, self.status_path.read_text().split())
        return count, first / 1e9, last / 1e9, connections

    def wait(self, messages, seconds):
        """True when so many have come."""
        deadline = time.monotonic() + seconds
        while self.status()[0] < messages:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def arrivals(self):
        """(seconds, number, recipient) in the order of arrival."""
        fields = (line.split() for line in self.log.read_text().splitlines())
        return [(int(f[0]) / 1e9, int(f[1]), f[2]) for f in fields if len(f) == 4]

    def stop(self):
        end_process(self.child)


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        return True
    except OSError:
        return False


def raise_file_limit():
    """As far as this machine lets us: how many descriptors a process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, 1 << 16), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return limit
        except ValueError:
            pass
    return hard


def cpu_seconds(pid):
    """Of a process's living threads, to the nanosecond: ticks are too coarse for what rests."""
    try:
        return sum(int((task / "schedstat").read_text().split()[0])
                   for task in pathlib.Path(f"/proc/{pid}/task").iterdir()) / 1e9
    except OSError:
        return 0.0


__all__ = ["BUILD", "CountingSink", "Holdfast", "NameServer", "NullSink", "Ours", "Postfix",
           "PostfixPeer", "end_process", "free_port", "listens", "raise_file_limit", "wait_for",
           "why_no_postfix"]
