# SPDX-License-Identifier: Apache-2.0
"""Rows: draining what was held, and what a failing first server costs."""

import shutil
import socket
import threading
import time

from clients import acknowledged, cload, median, out_of_order
from servers import CountingSink, Ours, PostfixPeer, free_port, wait_for
from table import Row


def drain(make, place, messages, recipients, by_hand):
    """(rate, seconds to the first, out of order, left) of a drain after the primary's return."""
    sink = CountingSink(place, free_port())
    log = place / "load.log"
    server = make(sink.port).start()
    try:
        cload(server.port, messages, 20, 4096, "-r", recipients, log=log)
        time.sleep(2)  # the server has seen that its primary is down
        sink.start()
        began = sink.started
        if by_hand:
            server.release()
            began = time.clock_gettime(time.CLOCK_MONOTONIC)
        complete = sink.wait(messages, 120)
        count, first, last, _ = sink.status()
        if not complete:
            last = time.clock_gettime(time.CLOCK_MONOTONIC)
        time.sleep(0.1)
        late = out_of_order(acknowledged(log), sink.arrivals())
        rate = count / (last - (began if by_hand else first)) if count else 0.0
        return rate, first - began if count else None, late, messages - count
    finally:
        server.stop()
        sink.stop()


def drain_row(scale, place):
    """20,000 x 4 KB for 200 recipients, and for a single one (which is serial by R6)."""
    messages = scale.messages(20000)
    ours, peer, firsts, late = [], [], [], 0
    for _ in range(scale.rounds):
        rate, first, wrong, left = drain(lambda port: Ours(place, port), place, messages, 200,
                                         False)
        assert left == 0, f"{left} not delivered"
        ours.append(rate)
        firsts.append(first)
        late += wrong
        peer.append(drain(lambda port: PostfixPeer(place, port, "tuned"), place, messages, 200,
                          True)[0])
    ratio = median([o / p for o, p in zip(ours, peer)])
    what = f"drain of {messages:,} for 200 recipients"
    yield Row(what, f"{median(ours):,.0f}/s", "Postfix tuned, flushed by hand",
              f"{median(peer):,.0f}/s", ratio, ">= 8 x", ratio >= 8)
    untouched = untouched_postfix(place)
    yield Row(f"{what}: starts by itself after", f"{max(firsts):.2f} s",
              "Postfix default, not flushed", untouched, None, "<= 1 s", max(firsts) <= 1)
    yield Row(f"{what}: out of order per recipient", f"{late}", "", "", None, "0", late == 0)
    rate, _, wrong, left = drain_single(place, scale.messages(20000))
    yield Row("drain, one single recipient (serial)", f"{rate:,.0f}/s", "", "",
              None, f"in order, none left ({wrong} late, {left} left)", wrong == 0 and left == 0)


def untouched_postfix(place):
    """How long Postfix's own schedule (300 s at least) lets held mail wait; looked at for 60 s."""
    patience = 60
    sink = CountingSink(place, free_port())
    server = PostfixPeer(place, sink.port, "default").start()
    try:
        cload(server.port, 100, 4, 4096, "-r", 10)
        wait_for(lambda: server.queued() > 0, 20, what="mail in Postfix's queue")
        time.sleep(2)
        sink.start()
        sink.wait(1, patience)
        count, first, _, _ = sink.status()
        return f"{first - sink.started:.2f} s" if count else f"nothing in {patience} s"
    finally:
        server.stop()
        sink.stop()


def drain_single(place, messages):
    """One recipient takes one session in; 20 sessions would be 20 recipients."""
    sink = CountingSink(place, free_port())
    log = place / "load.log"
    server = Ours(place, sink.port).start()
    try:
        cload(server.port, messages, 1, 4096, "-r", 1, log=log)
        time.sleep(2)
        sink.start()
        complete = sink.wait(messages, 120)
        count, first, last, _ = sink.status()
        if not complete:
            last = time.clock_gettime(time.CLOCK_MONOTONIC)
        time.sleep(0.1)
        late = out_of_order(acknowledged(log), sink.arrivals())
        return count / (last - first) if count else 0.0, first - sink.started, late, \
            messages - count
    finally:
        server.stop()
        sink.stop()


def latencies(server, sink, place, messages, first_number):
    """Milliseconds from a message's 250 to its arrival, one session, 20 ms between messages."""
    log = place / "load.log"
    before = sink.status()[0]
    cload(server.port, messages, 1, 4096, "-g", 20, "-b", first_number, log=log)
    sink.wait(before + messages, 60)
    time.sleep(0.1)
    arrived = {number: when for when, number, _ in sink.arrivals()}
    return [(arrived[number] - when) * 1e3 for when, number, _ in acknowledged(log)
            if number in arrived]


def failover(scale, place):
    """m1 refuses; m1 is silent; m1 comes back."""
    messages = max(20, scale.messages(100))
    sink = CountingSink(place, free_port()).start()
    try:
        server = Ours(place, sink.port).start()
        try:
            latencies(server, sink, place, 5, 0)
            direct = latencies(server, sink, place, messages, 1000)
        finally:
            server.stop()
        yield from refused(place, sink, direct)
        yield from silent(place, sink)
    finally:
        sink.stop()
    yield from switch_back(place)


def with_spare(place, first, sink, server=""):
    return Ours(place, first, server=f"failover = m2 {server}",
                more_servers=f'server m2 {{ address = "127.0.0.1:{sink.port}" }}')


def refused(place, sink, direct):
    """m1 works, carries mail, and is killed: what the first message behind that waits longer."""
    folder = place / "refused"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    m1 = CountingSink(folder, free_port()).start()
    server = with_spare(place, m1.port, sink).start()
    costs = []
    try:
        for cycle in range(9):
            wait_for(lambda: server.mx.server_state("m1") == "up", 20, what="m1 up")
            before = m1.status()[0]
            cload(server.port, 5, 1, 4096, "-b", 2000 + 100 * cycle)
            wait_for(lambda: m1.status()[0] == before + 5, 10, what="mail at m1")
            m1.stop()
            costs.append(latencies(server, sink, place, 1, 2050 + 100 * cycle)[0])
            m1.start()
    finally:
        server.stop()
        m1.stop()
    extra, worst = median(costs) - median(direct), max(costs) - median(direct)
    yield Row("failover: a refused server costs its first message", f"{extra:.2f} ms",
              "the same without it", f"{median(direct):.2f} ms", None, "< 2 ms", extra < 2)
    yield Row("failover: and at worst, of 9 outages", f"{worst:.2f} ms", "", "", None, "< 2 ms",
              worst < 2)


class Mute:
    """Accepts connections and never greets."""

    def __init__(self):
        self.connections = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                self.connections.append(self.listener.accept()[0])
            except OSError:
                return

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            connection.close()


def silent(place, sink):
    """A time-out of 2 s once, not once a message."""
    timeout = 2
    mute = Mute()
    server = with_spare(place, mute.port, sink, f"greeting-timeout = {timeout}s").start()
    try:
        first = latencies(server, sink, place, 20, 3000)
        asked = len(mute.connections)
        later = latencies(server, sink, place, 50, 4000)
    finally:
        server.stop()
        mute.stop()
    once, worst = max(first) / 1e3, max(later)
    yield Row("failover: a silent server, the longest wait", f"{once:.2f} s",
              "its greeting time-out, connections made for 20 messages", f"{timeout} s, {asked}",
              None, "once, + 0.5 s", once < timeout + 0.5 and asked <= 2)
    yield Row("failover: a silent server, later messages", f"{worst:.1f} ms at most", "", "", None,
              "< 100 ms", worst < 100)


def switch_back(place):
    """How long after m1's return the next message goes there."""
    folders = [place / "m1", place / "m2"]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    m1, m2 = CountingSink(folders[0], free_port()), CountingSink(folders[1], free_port()).start()
    server = with_spare(place, m1.port, m2).start()
    try:
        log = place / "load.log"
        client = threading.Thread(
            target=lambda: cload(server.port, 600, 1, 4096, "-g", 10, log=log))
        client.start()
        wait_for(lambda: m2.status()[0] > 50, 20, what="mail at m2")
        m1.start()
        client.join()
        wait_for(lambda: m1.status()[0] > 0, 20, what="mail at m1")
        back = m1.status()[1] - m1.started
    finally:
        server.stop()
        m1.stop()
        m2.stop()
    yield Row("failover: switch-back", f"{back:.2f} s", "", "", None, "<= 2 s", back <= 2)


class Healthy:
    """A holdfast with a domain whose server works and one whose server is dead."""

    def __init__(self, place, name):
        here = place / name
        here.mkdir()
        here.chmod(0o711)
        self.sink = CountingSink(here, free_port()).start()
        dead = (f'server dead {{ address = "127.0.0.1:{free_port()}" }}\n'
                "domain dead.example { deliver-to = dead }")
        self.server = Ours(here, self.sink.port, more_servers=dead).start()

    def cost(self, messages, first):
        """Processor seconds a message from the first MAIL to the last arrival."""
        before, used = self.sink.status()[0], self.server.cpu_seconds()
        cload(self.server.port, messages, 20, 4096, "-b", first)
        assert self.sink.wait(before + messages, 120), "messages of the healthy lane are missing"
        time.sleep(0.3)
        return (self.server.cpu_seconds() - used) / messages

    def stop(self):
        self.server.stop()
        self.sink.stop()


def dead_destination(scale, place):
    """What 100,000 deliveries held for a dead destination cost the mail for a healthy one."""
    held, messages, pairs = scale.messages(100_000), max(2000, scale.messages(4000)), 9
    alone = beside = None
    try:
        alone, beside = Healthy(place, "alone"), Healthy(place, "beside")
        cload(beside.server.port, held, 50, 300, "-r", min(held, 20_000), "-p",
              "-d", "dead.example", seconds=600)
        for server in (alone, beside):
            server.cost(messages, 10**9)
        ratios = []
        for pair in range(pairs):
            first = pair * messages
            order = (alone, beside) if pair % 2 == 0 else (beside, alone)
            costs = {server: server.cost(messages, first) for server in order}
            ratios.append(costs[beside] / costs[alone])
            last = costs[beside]
    finally:
        for server in (alone, beside):
            if server is not None:
                server.stop()
    ratio = median(ratios)
    yield Row(f"processor a message beside {held:,} held for a dead server",
              f"{last * 1e6:,.0f} us", "the same without them, 9 pairs", "", ratio, "< 1.1 x",
              ratio < 1.1)
