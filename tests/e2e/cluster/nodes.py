# SPDX-License-Identifier: Apache-2.0
"""holdfast on a host of its own."""

import urllib.request

from daemon import Holdfast


class Node(Holdfast):
    """A daemon at port 25 of its host, with its pages at port 80."""

    def __init__(self, host, routes, top="", listen=""):
        self.host = host
        super().__init__(host.root / "holdfast", routes, top, listen, port=25)
        self.wrapper = self.wrapper_of_tool = host.prefix()

    def configure(self, routes, top="", listen=""):
        self.conf.write_text(f"""\
hostname = {self.host.name}.example.net
state = "{self.state}"
{top}
listen mx {{ address = "0.0.0.0:25" {listen} }}
listen web {{ address = "0.0.0.0:80" protocol = http }}
{routes}
""")

    def start(self, wait=True):
        self.environment = self.host.environment()
        with self.host.inside():
            return super().start(wait)

    def address(self):
        return (self.host.address, 25)

    def counter(self, name):
        with self.host.inside():
            return super().counter(name)
