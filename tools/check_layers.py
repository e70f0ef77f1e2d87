#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds the arrows of ARCHITECTURE.md: who may include whom, and who may touch the world.

    check_layers.py                  include lines and a few calls of src/ and tests/
    check_layers.py --objects BUILD  what was compiled: no room but app/ holds mutable statics

Prints one line per offence, file:line first, and ends with 1 if there is any. Long files are only
warned about.
"""

import argparse
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A room and the rooms it may include, itself aside.
ARROWS = {
    "base": set(),
    "sys": {"base"},
    "proto": {"base"},
    "spool": {"base", "sys"},
    "relay": {"base", "spool"},
    "cluster": {"base", "sys", "spool", "relay"},
    "service": {"base", "sys", "proto", "spool", "relay", "cluster"},
    "app": {"base", "sys", "proto", "spool", "relay", "cluster", "service"},
}

# relay decides and proto parses: no descriptor, no clock, no log, no process. base holds values.
WORLDLY = re.compile(
    r"^(sys/(?!types\.h|uio\.h|queue\.h|param\.h).*|unistd\.h|fcntl\.h|poll\.h|netdb\.h|dirent\.h"
    r"|pthread\.h|signal\.h|syslog\.h|time\.h|event2/.*)$"
)
WORLDLESS_ROOMS = {"base", "proto", "relay"}

# A library is met in one place.
LIBRARIES = {
    re.compile(r"^event2/"): {"sys", "service/web"},
    re.compile(r"^unbound"): {"sys"},
    re.compile(r"^seccomp\.h|^linux/landlock\.h"): {"sys", "app"},
    re.compile(r"^systemd/"): {"sys", "app"},
    re.compile(r"^jansson\.h"): {"service", "app"},
    re.compile(r"^openssl/"): {"base/digest", "sys"},
    re.compile(r"^(sodium|crypt)\.h"): {"base/password"},
    re.compile(r"^(ldap|lber|openldap)\.h"): {"sys/ldap_session"},
    re.compile(r"^libpq-fe\.h|^libpq/"): {"sys"},
    re.compile(r"^security/"): {"app/pam_check"},
    re.compile(r"^curl/"): {"app"},
    re.compile(r"^zlib\.h"): {"service/gzip"},
    re.compile(r"^libsmartcols/"): {"app"},
}

# Only sys/disk may say fsync to the kernel, and only the spool asks it to.
SYNC_CALL = re.compile(r"\b(fsync|fdatasync|sync_file_range|syncfs|msync)\s*\(")
SYNC_FILES = re.compile(r"^src/sys/disk\w*\.c$")
DISK_SYNC_CALL = re.compile(r"(->|\.)sync\s*\(")
# The group that the committer writes; content that will be part of one; segments made ready for it;
# the table of users, which no process of the daemon writes; and leases, of which no mail depends on
# being kept.
DISK_SYNC_FILES = re.compile(
    r"^src/(sys/.*|spool/log_(group|content|segment|recover)\.c|service/login_store\.c"
    r"|app/lease_files\.c)$")

# What STYLE.md keeps out of C here.
BANNED_CALL = re.compile(r"(?<![\w.>])(strcpy|strcat|sprintf|vsprintf|strtok|atoi|atol|alloca|gets)\s*\(")

# A thread owns a loop and a loop owns everything; what is process-wide is named here.
STATICS = {"sys": {"the_log"}}
STATIC_DATA = re.compile(r"^[0-9a-f]+ .{6}O (\.bss|\.data)(?!\.rel\.ro)\S*\s+[0-9a-f]+ +(\S+)$")

INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')
LONG_FILE_LINES = 1000


def strip_comments(text):
    """The text with comments and string contents blanked, lines kept."""

    def blank(match):
        found = match.group(0)
        if found.startswith('"') or found.startswith("'"):
            return found[0] + found[0]
        return "".join(c if c == "\n" else " " for c in found)

    pattern = r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
    return re.sub(pattern, blank, text, flags=re.DOTALL)


def room_of(path):
    parts = path.parts
    return parts[1] if parts[0] == "src" and len(parts) > 2 else None


def check_include(path, room, bracket, target):
    """What is wrong with one include line, or None."""
    if bracket == "<":
        if room in WORLDLESS_ROOMS and WORLDLY.match(target):
            return f"{room}/ touches no world, but includes <{target}>"
        for pattern, places in LIBRARIES.items():
            stem = f"{room}/{path.stem}"
            if room and pattern.match(target):
                if room not in places and not any(stem.startswith(p) for p in places if "/" in p):
                    return f"<{target}> belongs to {', '.join(sorted(places))}"
        return None
    if ".." in target.split("/"):
        return f'an include says where it points: "room/file.h", not "{target}"'
    if "/" not in target and room is None and (ROOT / path.parent / target).is_file():
        return None  # a test's own world, beside it
    if "/" not in target:
        return f'an include shows its layer: "room/file.h", not "{target}"'
    head = target.split("/")[0]
    if room is None:
        return None
    if head not in ARROWS:
        return f'"{target}" is in no room'
    if head != room and head not in ARROWS[room]:
        return f'{room}/ must not include {head}/ ("{target}")'
    if head != room and target.endswith("_internal.h"):
        return f'"{target}" stays in its room'
    if not (ROOT / "src" / target).is_file():
        return f'"{target}" does not exist under src/'
    return None


def check_calls(path, room, number, line):
    if room is None:
        return
    if SYNC_CALL.search(line) and not SYNC_FILES.match(path.as_posix()):
        yield f"{path}:{number}: only sys/disk asks the kernel to sync"
    if DISK_SYNC_CALL.search(line) and not DISK_SYNC_FILES.match(path.as_posix()):
        yield f"{path}:{number}: only the journal's writing syncs; the promise has one place"
    if match := BANNED_CALL.search(line):
        yield f"{path}:{number}: {match.group(1)}() is not used here"


def check_file(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    room = room_of(path)
    if "SPDX-License-Identifier: Apache-2.0" not in text.split("\n", 1)[0]:
        yield f"{path}:1: the first line names the licence (SPDX-License-Identifier: Apache-2.0)"
    for number, line in enumerate(text.split("\n"), 1):
        if match := INCLUDE.match(line):
            if problem := check_include(path, room, match.group(1), match.group(2)):
                yield f"{path}:{number}: {problem}"
    for number, line in enumerate(strip_comments(text).split("\n"), 1):
        yield from check_calls(path, room, number, line)


def check_listed(path):
    """Every .c must be built: named, at least by its stem's last words, in a meson.build near it."""
    listing = ""
    for folder in [path.parent, *path.parent.parents]:
        build = ROOT / folder / "meson.build"
        if build.is_file():
            listing += build.read_text(encoding="utf-8")
    stem = path.stem
    names = [stem, re.sub(r"^(test|fuzz)_", "", stem)]
    if not any(re.search(rf"['/_]{re.escape(name)}(\.c)?'", listing) for name in names):
        yield f"{path}:1: no meson.build names this file"


def check_objects(build):
    """Mutable statics in the rooms' libraries."""
    libraries = sorted((build / "src").glob("*/*.a"))
    if not libraries:
        yield f"{build}: no libraries of rooms here"
    for library in libraries:
        room = library.parent.name
        if room == "app":
            continue
        table = subprocess.run(["objdump", "-t", library.name], cwd=library.parent, check=True,
                               capture_output=True, text=True).stdout
        for line in table.splitlines():
            if (found := STATIC_DATA.match(line)) and not allowed_static(room, found.group(2)):
                yield f"{library.relative_to(build)}: {found.group(2)} is a mutable static"


def allowed_static(room, name):
    """Compilers add a number to a static of a function."""
    return name.split(".")[0] in STATICS.get(room, ()) or name.startswith("__")


def report(offences, text):
    for line in offences:
        print(line)
    print(text)
    return 1 if offences else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=pathlib.Path, metavar="BUILD")
    arguments = parser.parse_args()
    if arguments.objects is not None:
        offences = list(check_objects(arguments.objects))
        return report(offences, f"objects: {len(offences)} mutable statics")
    offences = []
    warnings = []
    files = sorted(p.relative_to(ROOT) for top in ("src", "tests", "tools", "bench")
                   for p in (ROOT / top).rglob("*.[ch]"))
    for path in files:
        offences += check_file(path)
        if path.suffix == ".c":
            offences += check_listed(path)
        length = (ROOT / path).read_text(encoding="utf-8").count("\n")
        if length > LONG_FILE_LINES:
            warnings.append(f"{path}: warning: {length} lines; which thought deserves a file?")
    for line in warnings:
        print(line)
    return report(offences, f"layers: {len(files)} files, {len(offences)} offences, "
                            f"{len(warnings)} warnings")


if __name__ == "__main__":
    sys.exit(main())
