#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""holdfast(1) tells of each command, option and kind of alert that there is. Settings, metrics and
JSON are put into their pages by man/print_manual.c."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def found(pattern, path):
    names = re.findall(pattern, (ROOT / path).read_text(), re.M)
    assert names, path
    return names


def main():
    page = (ROOT / "man/holdfast.1").read_text()
    items = "\n".join(re.findall(r"^\.It (.*)", page, re.M)).replace("\\&", "")
    missing = [f"alert {kind}" for kind in found(r'X\([A-Z_]+, "([a-z-]+)"', "src/service/alerts.h")
               if not re.search(rf"^\.(It )?Cm (\S+ , )*{kind}( ,|$)", page, re.M)]
    missing += [f"command {words}"
                for words in found(r'^    \{"([a-z]+(?:[ -][a-z]+)*)", "', "src/app/main_tool.c")
                if not re.search(rf"^Ic {words}( |$)", items, re.M)]
    missing += [f"option --{name}"
                for name in found(r'^    \{"([a-z-]+)", .*OPTION_', "src/app/tool_options.c")
                if not re.search(rf"Fl -{name}( |$)", page, re.M)]
    for name in missing:
        print(f"man/holdfast.1: no {name}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
