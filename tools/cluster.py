#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A cluster on this machine to look at, or to break: cluster.py start | drill

Three databases (etcd, Patroni, PostgreSQL) and three nodes of holdfast, each on a host of its own:
a network namespace, so nothing of it is seen from outside, and as root only. `start` stays in the
foreground, shows the status and names what to try; Control-C ends it all. `drill` starts a cluster
of its own, sends mail through all three nodes while it breaks one component after the other, and
says at the end whether every message that was acknowledged has arrived, once and in order.
"""

import argparse
import json
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/e2e"))

from cluster.bed import Bed  # noqa: E402 (the path above comes first)
from cluster.databases import why_no_databases  # noqa: E402
from cluster.drill import (Drill, fault_of_leader, faults_of_databases,  # noqa: E402
                           faults_of_nodes, only)
from cluster.ledger import Ledger  # noqa: E402
from daemon import program  # noqa: E402
from sink import Sink  # noqa: E402


# Mail of one domain is handed over by one node, but for one that is split by recipients.
DOMAINS = ("example.com", "example.net", "example.org", "a.example", "b.example", "c.example",
           "d.example", "e.example")


def settings_of(primary, more="", of_domain=""):
    server = f'server m1 {{ address = "{primary.address}:25"  connections = 8  {more} }}\n'
    return server + "".join(
        f"domain {domain} {{ deliver-to = m1 {of_domain} "
        f"{'split = yes ' if domain == DOMAINS[0] else ''}}}\n"
        for domain in DOMAINS)


def say(text):
    print(text, flush=True)


class Primary(Sink):
    """Names each message that arrives."""

    def keep(self, message):
        super().keep(message)
        found = re.search(rb"(?mi)^Subject: *([^\r\n]*)", message.content)
        say(f"{time.strftime('%H:%M:%S')}  at the primary: to {', '.join(message.recipients)}: "
            f"{found[1].decode('utf-8', 'replace') if found else ''}")


def where_what_runs(bed):
    def rows(names, what):
        return [f"{name:8}  {bed.hosts[name].address:12}  {what}" for name in names]
    return "\n".join(["", "host      address       what runs there",
                      *rows(bed.database_names, "etcd, Patroni, PostgreSQL"),
                      *rows(bed.node_names, "holdfast: SMTP at port 25, HTTP at port 80"),
                      *rows(["primary"], "the mail server that holdfast hands over to"),
                      *rows(["clients"], "nothing: connect from here"), ""])


def start(bed):
    host = bed.hosts["primary"]
    primary = Primary(port=25, address=host.address)
    with host.inside():
        primary.start()
    try:
        bed.start(settings_of(host), say)
        bed.wait_up()
        say(where_what_runs(bed))
        node, other = bed.nodes[:2]
        say(node.tool("status").stdout)
        database = bed.databases.all[0]
        patronictl = f"ip netns exec {database.host.namespace.name} patronictl -c {database.conf}"
        tool = f"ip netns exec {node.host.namespace.name} {program('holdfast')} -c {node.conf}"
        say(f"""In a second terminal, as root, try:

    {tool} status
    {tool} node list
    ip netns exec {bed.hosts['clients'].namespace.name} \\
        swaks --server {node.host.address} --from you@example.net --to ann@example.com
    {tool} node drain {other.host.name}
    kill -9 -- -{other.child.pid}     # all of {other.host.name}; then the node list, and swaks again

The database fails over so; send mail meanwhile, and look at the status and at {node.log_path}:

    {patronictl} list
    {patronictl} switchover --force

What arrives at the primary is named below. `make cluster-drill` starts a cluster of its own and
breaks it. Control-C ends this one, and removes all that is of it.
""")
        while True:
            time.sleep(3600)
    finally:
        primary.stop()


def drill(bed, place, arguments):
    """The exit code."""
    ledger = Ledger(place, seed=arguments.seed, domains=DOMAINS)
    host = bed.hosts["primary"]
    try:
        ledger.collect("primary", 25, address=host.address, inside=host.inside)
        bed.start(settings_of(host, "command-timeout = 10s  dot-timeout = 10s",
                              "retry = {5s}"), say)
        bed.wait_up()
        say(where_what_runs(bed))
        say(bed.nodes[0].tool("status").stdout)
        unheard = bed.hosts if arguments.forgetful else None
        faults = [fault_of_leader(bed.databases, unheard)] if arguments.failover else \
            faults_of_nodes(bed.hosts, bed.nodes, bed.database_names, bed.told) + \
            faults_of_databases(bed.hosts, bed.databases)
        if arguments.only:
            faults = only(faults, arguments.only.split(","))
        ledger.send([node.address() for node in bed.nodes], connections=8, rate=arguments.rate,
                    patience=20, inside=bed.hosts["clients"].inside)
        run = Drill(ledger, faults, arguments.seed, say)
        run.mind(bed.databases)
        run.run(arguments.minutes * 60, arguments.every)
        say("\nWaiting for what is under way.")
        run.finish(bed.nodes)
        report = run.report()
        say("\n" + report.text())
        verdict = report.verdict
        for number, _ in (verdict.lost + verdict.doubled_wrongly + verdict.out_of_order)[:3]:
            say("\n" + ledger.story(number, bed.nodes))
        if arguments.json:
            pathlib.Path(arguments.json).write_text(json.dumps(report.as_json(), indent=1))
        return 1 if report.wrong else 0
    finally:
        ledger.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["start", "drill"])
    parser.add_argument("--minutes", type=float, default=4, help="how long things are broken (4)")
    parser.add_argument("--every", type=float, default=20, help="seconds from one fault to the next")
    parser.add_argument("--rate", type=float, default=60, help="messages a second")
    parser.add_argument("--seed", type=int, default=1, help="what is broken, and when")
    parser.add_argument("--failover", action="store_true",
                        help="break nothing but the database that leads, each time")
    parser.add_argument("--only", metavar="NAME,...", help="break nothing but these components, or "
                        "in these ways: n1, frozen, 'cut off' and what begins so")
    parser.add_argument("--forgetful", action="store_true", help="with databases that lose what "
                        "they have confirmed: a commit waits for no follower, and two may lead for "
                        "a moment")
    parser.add_argument("--json", metavar="FILE", help="the drill's report for programs")
    parser.add_argument("--keep", action="store_true", help="keep logs and data when it ends; they are kept anyway when it went wrong")
    arguments = parser.parse_args()
    if reason := why_no_databases():
        print(f"{reason}.", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    place = pathlib.Path(tempfile.mkdtemp(prefix="holdfast-cluster-"))
    place.chmod(0o711)
    code = 1
    try:
        with Bed(place, forgetful=arguments.forgetful) as bed:
            code = start(bed) if arguments.what == "start" else drill(bed, place, arguments)
    except KeyboardInterrupt:
        print()
        code = 0 if arguments.what == "start" else 130
    finally:
        if arguments.keep or code == 1:
            print(f"kept: {place}")
        else:
            shutil.rmtree(place, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
