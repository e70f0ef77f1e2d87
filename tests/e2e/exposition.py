# SPDX-License-Identifier: Apache-2.0
"""A strict reader of Prometheus' text format, version 0.0.4: what a server drops or complains of is
an error here. Written after its description, not after what holdfast writes."""

import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\n"])*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{((?:{LABEL},?)*)\}})? ([^ ]+)(?: (-?\d+))?")
TYPES = ("counter", "gauge", "histogram", "summary", "untyped")


def parse(text):
    """{(name, ((label, value), ...)): number}; AssertionError when it is no valid exposition."""
    assert text.endswith("\n"), "the last line has no end"
    samples, families, helped, current = {}, {}, set(), None
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            assert re.fullmatch(NAME, name) and name not in helped, f"again: {line}"
            helped.add(name)
            current = name
        elif line.startswith("# TYPE "):
            name, kind = line.split(" ")[2:]
            assert kind in TYPES and name not in families, f"again, or no type: {line}"
            families[name] = kind
            current = name
        elif line and not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match, f"no sample: {line}"
            name, labels = match.group(1), match.group(2) or ""
            assert name == current, f"not with its family: {line}"
            assert families.get(name) != "counter" or name.endswith("_total"), f"no counter: {line}"
            assert families.get(name) == "counter" or not name.endswith("_total"), f"gauge? {line}"
            pairs = tuple(sorted(re.findall(LABEL, labels)))
            assert len({label for label, _ in pairs}) == len(pairs), f"a label twice: {line}"
            assert (name, pairs) not in samples, f"the same series again: {line}"
            samples[name, pairs] = float(match.group(5))
    return samples


def value(samples, name, **labels):
    return samples.get((name, tuple(sorted(labels.items()))))
