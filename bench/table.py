# SPDX-License-Identifier: Apache-2.0
"""The one table that `make bench` prints."""

import dataclasses


@dataclasses.dataclass
class Row:
    """One measured thing. `ratio` is ours / peer by rounds, None where there is no peer."""

    what: str
    ours: str
    peer: str
    peer_value: str
    ratio: float | None
    target: str
    met: bool


HEADINGS = ("work", "holdfast", "beside", "measured", "ratio", "target", "")


def cells(row):
    ratio = "" if row.ratio is None else f"{row.ratio:.2f} x"
    return (row.what, row.ours, row.peer, row.peer_value, ratio, row.target,
            "met" if row.met else "MISSED")


def print_table(rows):
    lines = [HEADINGS, *(cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADINGS))]
    for number, line in enumerate(lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))
