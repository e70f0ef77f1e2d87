# SPDX-License-Identifier: Apache-2.0
"""A whole cluster on one machine: databases, nodes, a host of the primary and one of clients.

    with Bed(place) as bed:              # db1 db2 db3, n1 n2 n3, clients, primary
        bed.start(settings)              # text in the language of the configuration
        bed.nodes[0].tool("status")

`sites` says where each node stands ({"n1": "east"}), if that matters; `forgetful` databases lose
what they have confirmed (databases.py).
"""

import contextlib

import psycopg2

from cluster.databases import Databases
from cluster.hosts import Hosts
from cluster.nodes import Node
from peers import wait_for


class Bed:
    def __init__(self, place, databases=3, nodes=3, sites=None, forgetful=False):
        self.sites = sites or {}
        self.forgetful = forgetful
        self.database_names = [f"db{number}" for number in range(1, databases + 1)]
        self.node_names = [f"n{number}" for number in range(1, nodes + 1)]
        self.hosts = Hosts(place, [*self.database_names, *self.node_names, "clients", "primary"])
        self.databases = None
        self.nodes = []

    def __enter__(self):
        self.hosts.__enter__()
        return self

    def __exit__(self, *_):
        try:
            for node in self.nodes:
                node.end()
        finally:
            self.hosts.__exit__()

    def start(self, settings, say=lambda text: None):
        """Everything up, with these settings in force on each node."""
        # With fewer than three databases one etcd beside the clients, so that either may lead.
        members = self.database_names if len(self.database_names) > 2 else ["clients"]
        say("starting etcd, Patroni and PostgreSQL on " + ", ".join(self.database_names))
        self.databases = Databases(self.hosts, self.database_names, members,
                                   forgetful=self.forgetful).start()
        for name in self.node_names:
            say(f"starting holdfast on {name}")
            self.hosts[name].jump_clock(0)  # it may be put wrong later
            node = Node(self.hosts[name], "", top=self.membership(name))
            self.nodes.append(node)
            node.start()
        text = self.nodes[0].root / "settings"
        text.write_text(settings)
        say(self.nodes[0].tool("settings", "set", text, "--comment", "the first").stdout.strip())
        return self

    def wait_up(self, seconds=60):
        """All nodes see all up, and have the settings."""
        def up():
            for node in self.nodes:
                rows = node.lines("node", "list")
                if len(rows) < len(self.nodes) or not node.status()["servers"] or \
                   any(row["state"] != "up" for row in rows):
                    return False
            return True
        wait_for(up, seconds, 0.2, "all nodes up, with the settings")

    def told(self, node, since):
        """When this node told the others what it had, after that time: its heartbeat. None: not yet,
        or nobody can be asked now."""
        with contextlib.suppress(psycopg2.Error, OSError, LookupError):
            rows = self.databases.leader().ask(
                "SELECT extract(epoch FROM h.beat)::float8 FROM holdfast.heartbeats h"
                " JOIN holdfast.nodes n ON n.number = h.node"
                " WHERE n.name = %s AND h.beat > to_timestamp(%s)", node.host.name, since,
                name="holdfast")
            return rows[0][0] if rows else None
        return None

    def membership(self, name):
        site = f"site = {self.sites[name]}" if name in self.sites else ""
        return (f'cluster {{ database = "{self.databases.conninfo()}"  name = {name}\n'
                f"          role = {{gateway, node, hub}}  {site} }}")
