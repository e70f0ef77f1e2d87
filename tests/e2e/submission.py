# SPDX-License-Identifier: Apache-2.0
"""A daemon that users log in to, and how they do."""

import base64
import subprocess

from client import Dialogue
from daemon import program
from peers import free_port, wait_for

ANN = "ann@example.org"


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def plain(user, password):
    return "AUTH PLAIN " + encoded(f"\0{user}\0{password}")


class Submission:
    """A daemon with a sink behind its relays and a listener for users at `port`."""

    def __init__(self, holdfast, place, sink, listen="", more="", limits="", relays=None, **how):
        self.sink = sink()
        self.port = free_port()
        self.place = place
        relays = relays or "relay outgoing { auth = yes  deliver-to = m1 }\n"
        routes = (f'server m1 {{ address = "127.0.0.1:{self.sink.port}" }}\n'
                  "domain example.com { deliver-to = m1 }\n" + relays)
        self.listen = (f'listen users {{ address = "127.0.0.1:{self.port}" protocol = submission '
                       f'auth-without-tls = loopback {listen} }}\n')
        self.mx = holdfast(self.listen + limits + routes + more, start=False, **how)
        self.routes = routes

    def start(self):
        self.mx.start()
        wait_for(lambda: self.mx.processes().get("holdfast-login"), what="a login process")
        return self

    def add(self, name, password, address=None, check=True):
        more = ["--address", address] if address else []
        return self.tool("add", name, *more, password=password, check=check)

    def tool(self, *arguments, password="", check=True):
        result = subprocess.run([program("holdfast"), "-c", str(self.mx.conf), "user", *arguments],
                                input=password + "\n", capture_output=True, text=True, timeout=60)
        assert not check or result.returncode == 0, result.stderr
        return result

    def dialogue(self):
        client = Dialogue(self.port)
        return client

    def logged_in(self, user=ANN, password="secret"):
        client = self.dialogue()
        client.must(plain(user, password), 235)
        return client

    def counter(self, name):
        return self.mx.counter(name)
