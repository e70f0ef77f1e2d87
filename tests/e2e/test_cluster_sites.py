# SPDX-License-Identifier: Apache-2.0
"""Two sites whose link is cut, wholly or one way, under mail for both: in the east a database and two
nodes, in the west two databases, so that these go on without the east, and a node. Clients and the
primary are at neither, and reach both. Each time: both sites go on accepting, the west hands over
what was the east's, what was acknowledged arrives, once and in order per recipient, and the east
has its domains again when the link is back."""

import os
import re
import time

import pytest

from cluster.bed import Bed
from cluster.databases import why_no_databases
from cluster.ledger import Ledger, end_well
from peers import wait_for

no_databases = why_no_databases()
pytestmark = [pytest.mark.soak,  # a cluster is started, leases end, databases fail over: 60 s each
              pytest.mark.skipif(no_databases is not None, reason=str(no_databases))]
SEED = int(os.environ.get("HOLDFAST_SEED", "1"))
EAST, WEST = ("db1", "n1", "n2"), ("db2", "db3", "n3")
OF_EAST, OF_WEST, OF_ANY = "east.example", "west.example", "example.com"


class TwoSites:
    def __init__(self, place, bed):
        self.bed = bed
        self.hosts = bed.hosts
        self.ledger = Ledger(place, seed=SEED, domains=(OF_EAST, OF_WEST, OF_ANY))

    def start(self):
        primary = self.hosts["primary"]
        self.ledger.collect("primary", 25, address=primary.address, inside=primary.inside)
        self.bed.start(f'server m1 {{ address = "{primary.address}:25"  tls = none }}\n'
                       f"domain {OF_EAST} {{ deliver-to = m1  site = east }}\n"
                       f"domain {OF_WEST} {{ deliver-to = m1  site = west }}\n"
                       f"domain {OF_ANY} {{ deliver-to = m1 }}\n")
        self.bed.wait_up()
        self.east, self.west = self.bed.nodes[:2], self.bed.nodes[2:]
        self.ledger.send([node.address() for node in self.bed.nodes], connections=6, rate=60,
                         patience=30, inside=self.hosts["clients"].inside)

    def lead_in(self, site):
        """A database of this site leads."""
        databases = self.bed.databases
        while (leader := databases.wait_leader()).name not in site:
            leader.kill()
            databases.wait_leader(other_than=leader.name)
            leader.start()
            databases.wait_whole()

    def arrives(self, domain, nodes, some=20):
        """So many more messages for this domain, from now on, handed over by these nodes."""
        peers = {node.host.address for node in nodes}

        def count():
            with self.ledger.lock:
                return sum(arrival.peer in peers and arrival.recipient.endswith(f"@{domain}")
                           for arrival in self.ledger.arrivals)
        wanted = count() + some
        wait_for(lambda: count() >= wanted, 90,
                 what=f"{some} more for {domain} by {[node.host.name for node in nodes]}")

    def as_it_should_be(self):
        self.arrives(OF_EAST, self.east)
        self.arrives(OF_WEST, self.west)
        self.arrives(OF_ANY, self.bed.nodes)

    def goes_on(self, nodes, some=20):
        """Each of these acknowledges so many more."""
        def count(node):
            with self.ledger.lock:
                return sum(message.acknowledged is not None and message.by == node.address()
                           for message in self.ledger.sent)
        wanted = {node: count(node) + some for node in nodes}
        wait_for(lambda: all(count(node) >= wanted[node] for node in nodes), 60,
                 what=f"{some} more answered by each of {[node.host.name for node in nodes]}")

    def split(self, cut, away):
        """The east is alone: it knows, and the west works for it. Then the link is back. `away`: who
        could tell nobody anything."""
        since = time.time()
        cut()
        for node in self.east:
            wait_for(lambda node=node: {"lapsed", "database"} <= kinds(node), 60,
                     what=f"alerts of {node.host.name}")
            wait_for(lambda node=node: node.status()["cluster"]["one_copy"] > 0, 60,
                     what=f"mail that {node.host.name} alone has")
        self.goes_on(self.bed.nodes)
        for node in self.east:
            wait_for(lambda node=node: self.moved(node) is not None, 60,
                     what=f"{self.west[0].host.name} in the place of {node.host.name}")
            print(f"{node.host.name}: taken over {self.moved(node)} ms after its last heartbeat")
        for domain in (OF_EAST, OF_WEST, OF_ANY):
            self.arrives(domain, self.west)
        mended = time.time()
        self.hosts.mend()
        for node in away:
            heard = wait_for(lambda node=node: self.bed.told(node, mended), 60,
                             what=f"a heartbeat of {node.host.name}")
            self.ledger.been_away(node.address(), since, heard)
        for node in self.bed.nodes:
            wait_for(lambda node=node: not {"lapsed", "database", "cluster"} & kinds(node) and
                     not node.status()["cluster"]["one_copy"], 90,
                     what=f"the end of it at {node.host.name}")
        self.as_it_should_be()

    def moved(self, node):
        """After how many ms the west had what was the node's; None: not yet."""
        found = re.search(rf" taken-over node={node.host.name} shares=\d+ after_ms=(\d+)",
                          self.west[0].log())
        return found and int(found[1])


def kinds(node):
    return {alert["kind"] for alert in node.status()["alerts"]}


@pytest.fixture(name="sites")
def _sites(place):
    sites = {"n1": "east", "n2": "east", "n3": "west"}
    with Bed(place, sites=sites) as bed:
        made = TwoSites(place, bed)
        try:
            made.start()
            yield made
        finally:
            made.ledger.end()


@pytest.mark.parametrize("sender, receiver, one_way", [
    (EAST, WEST, False), (EAST, WEST, True), (WEST, EAST, True)], ids=["both-ways", "from-east",
                                                                     "to-east"])
def test_sites_that_are_split(sites, sender, receiver, one_way):
    """The database that leads is in the west, and goes on; if its synchronous standby was in the
    east, once Patroni has named the other one."""
    sites.lead_in(WEST)
    sites.as_it_should_be()
    sites.split(lambda: sites.hosts.cut(sender, receiver, one_way), away=sites.east)
    end_well(sites.ledger, sites.bed.nodes)


def test_the_site_of_the_leading_database_is_split_off(sites):
    """The two databases in the west agree on another; until then nobody hands over."""
    sites.lead_in(EAST)
    sites.as_it_should_be()
    sites.split(lambda: sites.hosts.cut(EAST, WEST), away=sites.bed.nodes)
    end_well(sites.ledger, sites.bed.nodes)
