# SPDX-License-Identifier: Apache-2.0
"""Daemons of one cluster, and what is done with its settings."""

import subprocess

import pytest

from daemon import program
from postgres import Postgres


def is_refused(place):
    """This version reads cluster blocks, and starts with none."""
    conf = place / "cluster.conf"
    conf.write_text(f'hostname = a.example\nstate = "{place}/none"\n'
                    'cluster { database = "host=/nowhere"  name = a }\n')
    checked = subprocess.run([program("holdfastd"), "-c", conf, "-n"], capture_output=True,
                             text=True, timeout=60, check=False)
    return "cluster block is not available" in checked.stderr


@pytest.fixture
def database(place):
    if is_refused(place):
        pytest.skip("cluster blocks are not available in this version")
    server = Postgres(place / "postgres").start()
    yield server
    server.end()


class Members:
    """Daemons of one cluster, whose own files name no domain."""

    def __init__(self, make, database):
        self.make = make
        self.database = database
        self.all = []

    def add(self, name, own="", start=True, role="{node, hub, gateway}"):
        cluster = f'cluster {{ database = "{self.database.conninfo}"  name = {name}  ' \
                  f"role = {role} }}\n"
        member = self.make(cluster + own, name=name, start=False)
        self.all.append(member)
        return member.start() if start else member


@pytest.fixture
def members(holdfast, database):
    return Members(holdfast, database)


def text_of(*domains):
    """Settings that take mail for these domains, and keep it."""
    return 'server m1 { address = "127.0.0.1:9" }\n' + \
        "".join(f"domain {domain} {{ deliver-to = m1 }}\n" for domain in domains)


def put(member, name, text):
    path = member.root / name
    path.write_text(text)
    return path


def set_text(member, text, *more, check=True):
    return member.tool("settings", "set", put(member, "text", text), *more, check=check)


def answer(member, recipient):
    """The reply to RCPT."""
    with member.dialogue() as dialogue:
        dialogue.must("MAIL FROM:<bob@client.example>")
        return dialogue.say(f"RCPT TO:<{recipient}>")


def takes(member, recipient):
    return answer(member, recipient)[0] == 250


def history(member):
    return {row["version"]: row for row in member.lines("settings", "history")}


def user(member, *arguments, password="", check=True):
    result = subprocess.run([program("holdfast"), "-c", member.conf, "user", *arguments],
                            input=password + "\n", capture_output=True, text=True, timeout=120)
    assert not check or result.returncode == 0, result.stderr
    return result
