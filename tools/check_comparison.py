#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds docs/comparison.md to its word: each test, bench row and page that it names is there.

In the last column stand, in backticks: FILE::TEST of tests/e2e, the name of a test of meson, or
"bench ROW". Prints one line per offence and ends with 1 if there is any.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/comparison.md"


def unit_tests():
    """The names of meson's tests: test('NAME' ..., and foreach name : [...] with a prefix or not."""
    names = set()
    for path in ROOT.glob("tests/**/meson.build"):
        text = path.read_text()
        names |= set(re.findall(r"\btest\('([\w-]+)'", text))
        for listed, body in re.findall(r"foreach name : \[(.*?)\](.*?)endforeach", text, re.S):
            prefix = re.search(r"test\('([\w-]*)' \+ name", body)
            names |= {(prefix[1] if prefix else "") + name
                      for name in re.findall(r"'([\w-]+)'", listed)}
    return names


def bench_rows():
    return set(re.findall(r'^    "(\w+)": \w+\.', (ROOT / "bench/run.py").read_text(), re.M))


def is_there(name, units, rows):
    if name.startswith("bench "):
        return name[6:] in rows
    if "::" in name:
        file, test = name.split("::")
        path = ROOT / "tests/e2e" / f"{file}.py"
        return path.exists() and re.search(rf"^def {test}\(", path.read_text(), re.M)
    return name in units


def main():
    units, rows, offences = unit_tests(), bench_rows(), 0
    for number, line in enumerate(PAGE.read_text().splitlines(), 1):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| ") or len(cells) != 3 or cells[0] == "question":
            continue
        names = re.findall(r"`([^`]+)`", cells[2])
        if not names and "not yet" not in cells[1] and not cells[2].startswith("---"):
            print(f"{PAGE.relative_to(ROOT)}:{number}: shown by nothing")
            offences += 1
        for name in names:
            if not is_there(name, units, rows):
                print(f"{PAGE.relative_to(ROOT)}:{number}: there is no test '{name}'")
                offences += 1
    return 1 if offences else 0


sys.exit(main())
