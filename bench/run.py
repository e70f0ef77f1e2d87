#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures holdfast beside Postfix and a sink that stores nothing, and prints one table.

    run.py [--rounds N] [--scale F] [--place DIR] [ROW ...]

Rows: accept milter large relay copies drain failover dead tls flood crossing idle million cluster crash;
held, room and takeover only where they are named. All run on this machine at
one sitting; peers and holdfast take turns within a round, and a ratio is the median of the rounds'
ratios. Below 1.3 x is no difference. --scale 0.1 is a smoke run of a tenth of the messages: its
figures mean little.
"""

import argparse
import os
import pathlib
import shutil
import sys
import tempfile
import time

import accept
import crash
import flood
import handover
import member
import secure
import standing
from servers import why_no_postfix
from table import print_table

ROWS = {
    "accept": accept.accept_small,
    "milter": accept.accept_filtered,
    "large": accept.accept_large,
    "relay": accept.relay_through,
    "copies": accept.safety_copies,
    "drain": handover.drain_row,
    "failover": handover.failover,
    "dead": handover.dead_destination,
    "tls": secure.tls,
    "flood": flood.flood,
    "crossing": standing.crossing,
    "recipients": standing.recipients,
    "listed": standing.listed,
    "idle": standing.idle,
    "million": standing.million,
    "cluster": member.accept,
    "held": member.held,
    "room": member.room,
    "takeover": member.takeover,
    "crash": crash.crash,
}
ONLY_WHEN_NAMED = {"held", "room", "takeover"}  # up to half an hour each
NEEDS_POSTFIX = {"accept", "milter", "relay", "drain", "tls", "flood"}


class Scale:
    """How much of the full measure a run takes."""

    def __init__(self, factor, rounds):
        self.factor = factor
        self.rounds = rounds

    def messages(self, full):
        return max(100, int(full * self.factor))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--place", default=None, help="on the disk to measure; default /var/tmp")
    parser.add_argument("rows", nargs="*", metavar="ROW")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.rows if name not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")

    place = pathlib.Path(tempfile.mkdtemp(prefix="holdfast-bench-",
                                          dir=arguments.place or "/var/tmp"))
    place.chmod(0o711)
    scale = Scale(arguments.scale, arguments.rounds)
    print(f"{os.cpu_count()} processors, {scale.rounds} rounds, scale {scale.factor:g}, "
          f"in {place}", flush=True)
    rows, problems = [], []
    try:
        for name in arguments.rows or [name for name in ROWS if name not in ONLY_WHEN_NAMED]:
            if name in NEEDS_POSTFIX and (reason := why_no_postfix()):
                problems.append(f"{name}: left out, {reason}")
                continue
            started = time.monotonic()
            print(f"measuring {name}: {(ROWS[name].__doc__ or '').strip().splitlines()[0]}",
                  flush=True)
            try:
                rows += ROWS[name](scale, place)
            except (AssertionError, OSError, RuntimeError) as problem:
                problems.append(f"{name}: {type(problem).__name__}: {problem}")
            print(f"    {time.monotonic() - started:.0f} s", flush=True)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print()
    print_table(rows)
    for problem in problems:
        print(problem)
    print(f"\n{sum(row.met for row in rows)} of {len(rows)} targets met")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
