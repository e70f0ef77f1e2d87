#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs every fuzzer (tests/fuzz/fuzz_*.c) as a libFuzzer binary for some seconds each.

    run_fuzzers.py [--seconds N] [--jobs N] [NAME ...]

What was learned is kept in build-fuzz/corpus/NAME and used by the next run; tests/fuzz/seeds/NAME,
if there, is read too. A crash leaves its input in build-fuzz/crashes/NAME-* and fails the run.
"""

import argparse
import concurrent.futures
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build-fuzz"
SEEDS = ROOT / "tests/fuzz/seeds"


def build(jobs):
    environment = {**os.environ, "CC": "clang"}
    if not (BUILD / "build.ninja").is_file():
        subprocess.run(["meson", "setup", str(BUILD), "-Dfuzzers=true", "-Doptimization=1",
                        "-Db_sanitize=address,undefined", "-Db_lundef=false",
                        "-Dc_args=-fno-sanitize=pointer-overflow"],
                       cwd=ROOT, env=environment, check=True)
    subprocess.run(["ninja", "-C", str(BUILD), "-j", str(jobs)], cwd=ROOT, check=True)


def run_one(binary, seconds):
    name = binary.name.removeprefix("fuzz_")
    corpus = BUILD / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    crashes = BUILD / "crashes"
    crashes.mkdir(exist_ok=True)
    folders = [str(corpus)] + [str(SEEDS / n) for n in (name,) if (SEEDS / n).is_dir()]
    log = BUILD / f"fuzz_{name}.log"
    with open(log, "wb") as output:
        code = subprocess.run(
            [str(binary), f"-max_total_time={seconds}", "-timeout=5", "-rss_limit_mb=2048",
             f"-artifact_prefix={crashes}/{name}-", *folders],
            env={**os.environ, "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"},
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            timeout=seconds * 3 + 120).returncode
    lines = log.read_text(errors="replace").splitlines()
    return name, code, lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    build(arguments.jobs)
    binaries = sorted(p for p in (BUILD / "tests/fuzz").glob("fuzz_*")
                      if p.is_file() and os.access(p, os.X_OK))
    if arguments.names:
        binaries = [p for p in binaries if p.name.removeprefix("fuzz_") in arguments.names]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for name, code, lines in pool.map(lambda p: run_one(p, arguments.seconds), binaries):
            done = next((line for line in reversed(lines) if line.startswith("Done ")), "")
            print(f"{name:24} {'ok  ' + done if code == 0 else 'FAILED'}", flush=True)
            if code != 0:
                failed += 1
                print("\n".join(lines[-40:]))
    print(f"{len(binaries) - failed} passed, {failed} failed")
    return 1 if failed or not binaries else 0


if __name__ == "__main__":
    sys.exit(main())
