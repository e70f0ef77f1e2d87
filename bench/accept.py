# SPDX-License-Identifier: Apache-2.0
"""Rows: taking mail durably while the primary is down, and relaying it through while it is up."""

import time

from clients import cload, disk_mb_per_second, median, smtp_source
from servers import CountingSink, NullFilter, NullSink, Ours, PostfixPeer, free_port
from table import Row


def rate_of(server, messages, sessions, size):
    """Messages a second into a fresh server, after a warming run."""
    server.start()
    try:
        smtp_source(server.port, max(sessions * 5, messages // 10), sessions, size)
        return smtp_source(server.port, messages, sessions, size)
    finally:
        server.stop()


def accept_small(scale, place):
    """4 KB at 20 and 100 sessions, primary down. Interleaved: each round runs all four, and ratios
    are taken within a round."""
    for sessions in (20, 100):
        results = {"ours": [], "sink": [], "hold": [], "default": []}
        for _ in range(scale.rounds):
            down = free_port()
            results["sink"].append(rate_of(NullSink(place), scale.messages(40000), sessions, 4096))
            results["ours"].append(rate_of(Ours(place, down), scale.messages(40000), sessions,
                                           4096))
            results["hold"].append(rate_of(PostfixPeer(place, down, "tuned+hold"),
                                           scale.messages(10000), sessions, 4096))
            results["default"].append(rate_of(PostfixPeer(place, down, "default"),
                                              scale.messages(5000), sessions, 4096))
        what = f"durable accept, 4 KB, {sessions} sessions"
        for peer, name, target in (("hold", "Postfix tuned, on hold", 8.0),
                                   ("default", "Postfix default", 16.0),
                                   ("sink", "smtp-sink, stores nothing", 0.8)):
            ratio = median([o / p for o, p in zip(results["ours"], results[peer])])
            yield Row(what, f"{median(results['ours']):,.0f}/s", name,
                      f"{median(results[peer]):,.0f}/s", ratio, f">= {target:g} x",
                      ratio >= target)


def accept_filtered(scale, place):
    """4 KB at 20 sessions, each message shown to a filter that does nothing; beside none, and beside
    Postfix with the same one."""
    results = {"filtered": [], "plain": [], "hold": []}
    filter = NullFilter().start()
    try:
        for _ in range(scale.rounds):
            down = free_port()
            for name, asked in (("plain", None), ("filtered", filter)):
                results[name].append(rate_of(Ours(place, down, filter=asked),
                                             scale.messages(40000), 20, 4096))
            results["hold"].append(rate_of(PostfixPeer(place, down, "tuned+hold", filter=filter),
                                           scale.messages(10000), 20, 4096))
    finally:
        filter.stop()
    for what, ours, peer, name, target in (
            ("durable accept, 4 KB, with a filter", "filtered", "hold",
             "Postfix tuned, on hold, same filter", 1.5),
            ("durable accept, 4 KB, with a filter", "filtered", "plain", "holdfast, none", 0.3)):
        ratio = median([o / p for o, p in zip(results[ours], results[peer])])
        yield Row(what, f"{median(results[ours]):,.0f}/s", name,
                  f"{median(results[peer]):,.0f}/s", ratio, f">= {target:g} x", ratio >= target)


def accept_large(scale, place):
    """64 KB and 1 MB by cload, beside the disk in 1 MB writes, each synced."""
    for size, messages, label in ((65536, 6000, "64 KB"), (1 << 20, 600, "1 MB")):
        ours, disk = [], []
        for _ in range(scale.rounds):
            disk.append(disk_mb_per_second(place))
            server = Ours(place, free_port()).start()
            try:
                cload(server.port, messages // 20, 20, size)
                result = cload(server.port, scale.messages(messages), 20, size)
            finally:
                server.stop()
            assert result["failed"] == 0, result
            ours.append(result["acknowledged"] * size / 1e6 / result["seconds"])
        ratio = median([o / d for o, d in zip(ours, disk)])
        yield Row(f"durable accept, {label}, 20 sessions", f"{median(ours):,.0f} MB/s",
                  "disk, 1 MB + fdatasync", f"{median(disk):,.0f} MB/s", ratio, ">= 0.7 x",
                  ratio >= 0.7)


def through_rate(make, place, messages):
    """Messages a second from the first MAIL to the last arrival at the next hop."""
    sink = CountingSink(place, free_port()).start()
    server = make(sink.port).start()
    try:
        cload(server.port, messages // 10, 20, 4096, "-b", 10**9)
        sink.wait(messages // 10, 60)
        before = sink.status()[0]
        started = time.clock_gettime(time.CLOCK_MONOTONIC)
        cload(server.port, messages, 20, 4096)
        if not sink.wait(before + messages, 120):
            return (sink.status()[0] - before) / 120
        return messages / (sink.status()[2] - started)
    finally:
        server.stop()
        sink.stop()


def relay_through(scale, place):
    """In and out at once, the primary up."""
    ours, peer = [], []
    for _ in range(scale.rounds):
        ours.append(through_rate(lambda port: Ours(place, port), place, scale.messages(20000)))
        peer.append(through_rate(lambda port: PostfixPeer(place, port, "tuned"), place,
                                 scale.messages(3000)))
    ratio = median([o / p for o, p in zip(ours, peer)])
    yield Row("accept and relay through, 4 KB", f"{median(ours):,.0f}/s", "Postfix tuned",
              f"{median(peer):,.0f}/s", ratio, ">= 8 x", ratio >= 8)


def safety_copies(scale, place):
    """The same, keeping what was handed over, beside not keeping it."""
    with_copies, without = [], []
    messages = scale.messages(60000)  # some segments
    for _ in range(scale.rounds):
        with_copies.append(through_rate(lambda port: Ours(place, port, top="safety-copy = 2d"),
                                        place, messages))
        without.append(through_rate(lambda port: Ours(place, port), place, messages))
    ratio = median([w / o for w, o in zip(with_copies, without)])
    yield Row("accept and relay through, safety-copy = 2d", f"{median(with_copies):,.0f}/s",
              "without", f"{median(without):,.0f}/s", ratio, ">= 0.8 x", ratio >= 0.8)
