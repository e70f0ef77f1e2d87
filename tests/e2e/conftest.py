# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a place of one's own, daemons, next hops. Whatever a test started is ended after it."""

import os
import pathlib
import re
import shutil
import tempfile

import pytest

from daemon import BUILD, Holdfast, program
from directory import Slapd, why_no_slapd
from peers import Dovecot, Postfix, why_no_dovecot, why_no_postfix
from sink import Sink
from submission import ANN, Submission


def pytest_collection_modifyitems(items):
    """Without a daemon only the tests of the tests themselves run."""
    if program("holdfastd") is None:
        skip = pytest.mark.skip(reason=f"no holdfastd in {BUILD}")
        for item in items:
            if item.path.name != "test_harness.py":
                item.add_marker(skip)


@pytest.fixture
def place(request):
    """An empty directory that other users can pass through; kept if the test failed and
    HOLDFAST_KEEP is set."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="holdfast-"))
    path.chmod(0o711)
    yield path
    report = getattr(request.node, "report", None)
    if os.environ.get("HOLDFAST_KEEP") and report is not None and report.failed:
        print(f"kept: {path}")
    else:
        shutil.rmtree(path, ignore_errors=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.when == "call":
        item.report = outcome.get_result()
        started = getattr(item, "started_daemons", [])
        if item.report.failed:
            for daemon in started:
                item.report.sections.append((f"log of {daemon.root.name}", daemon.log()[-6000:]))


@pytest.fixture
def holdfast(place, request):
    """A maker of daemons: holdfast(routes, top="", listen="", name="holdfast", start=True)."""
    made = request.node.started_daemons = []

    def make(routes, top="", listen="", name="holdfast", start=True, **more):
        daemon = Holdfast(place / name, routes, top, listen, **more)
        made.append(daemon)
        return daemon.start() if start else daemon

    yield make
    for daemon in made:
        daemon.end()
    for daemon in made:
        # The keeper restarts a process that a sanitizer has ended: only the log tells.
        report = re.search(r"Sanitizer: |: runtime error: ", daemon.log())
        assert report is None, daemon.log()[report.start() - 500:][:8000]


@pytest.fixture
def sink():
    """A maker of next hops: sink(rule=None, lmtp=False, start=True, ...)."""
    made = []

    def make(rule=None, start=True, **more):
        hop = Sink(rule, **more)
        made.append(hop)
        return hop.start() if start else hop

    yield make
    for hop in made:
        hop.stop()


@pytest.fixture
def submission(holdfast, place, sink):
    """A maker of daemons that users log in to: submission(users=((name, password, addresses), ...),
    ...)."""
    def make(users=((ANN, "secret", None),), **how):
        server = Submission(holdfast, place, sink, **how)
        server.mx.state.mkdir(parents=True, exist_ok=True)
        for user in users:
            server.add(*user)
        return server.start()
    return make


@pytest.fixture
def slapd(place):
    """A maker of directories: slapd(people, ...); see Slapd."""
    if reason := why_no_slapd():
        pytest.skip(reason)
    made = []

    def make(people=(), **how):
        server = Slapd(place / f"slapd{len(made)}", people, **how)
        made.append(server)
        return server.start()
    yield make
    for server in made:
        server.stop()


@pytest.fixture
def postfix(place):
    """A maker of private Postfix instances: postfix(name="primary", start=True, ...)."""
    if reason := why_no_postfix():
        pytest.skip(reason)
    made = []

    def make(name="primary", start=True, **more):
        instance = Postfix(place / name, **more)
        made.append(instance)
        return instance.start() if start else instance

    yield make
    for instance in made:
        instance.stop()


@pytest.fixture
def dovecot(place):
    if reason := why_no_dovecot():
        pytest.skip(reason)
    instance = Dovecot(place / "dovecot").start()
    yield instance
    instance.stop()
