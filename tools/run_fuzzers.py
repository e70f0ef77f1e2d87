#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs every fuzzer (tests/fuzz/fuzz_*.c) for some seconds each, with libFuzzer or AFL++.

    run_fuzzers.py [--engine libfuzzer|afl] [--seconds N] [--jobs N] [--keep] [NAME ...]

Both begin with tests/fuzz/seeds/NAME and know the words of tests/fuzz/words/NAME.dict, if there.
What was learned stays in build-fuzz/corpus/NAME, which both read and add to, and is where the next
run begins; --keep adds to the seeds of the tree some of what covers more than they do. An input that
crashes or hangs is left in build-fuzz/crashes as NAME-* and fails the run.
The last line says how much processor time it was, of the fuzzers alone.
"""

import argparse
import concurrent.futures
import ctypes
import os
import pathlib
import resource
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SEEDS = ROOT / "tests/fuzz/seeds"
WORDS = ROOT / "tests/fuzz/words"
LEARNED = ROOT / "build-fuzz"
PR_SET_CHILD_SUBREAPER = 36
HANG_SECONDS = 5
KEEP_FILES = 48  # seeds of one target in the tree
KEEP_BYTES = 2048  # the size of one that is kept


def configure_and_build(folder, compiler, jobs):
    environment = {**os.environ, "CC": compiler, "AFL_QUIET": "1"}
    if not (folder / "build.ninja").is_file():
        subprocess.run(["meson", "setup", str(folder), "-Dfuzzers=true", "-Doptimization=1",
                        "-Db_sanitize=address,undefined", "-Db_lundef=false",
                        "-Dc_args=-fno-sanitize=pointer-overflow"],
                       cwd=ROOT, env=environment, check=True)
    subprocess.run(["ninja", "-C", str(folder), "-j", str(jobs)], cwd=ROOT, env=environment,
                   check=True)


class Result:
    """What one target did."""

    def __init__(self, name, failed, runs, lines):
        self.name = name
        self.failed = failed
        self.runs = runs
        self.lines = lines  # the end of its output, to show if it failed


def run(command, log, environment, patience):
    """Runs a command with its output in `log`; returns its exit code."""
    with open(log, "wb") as output:
        try:
            return subprocess.run(command, env={**os.environ, **environment}, stdout=output,
                                  stderr=output, stdin=subprocess.DEVNULL,
                                  timeout=patience).returncode
        except subprocess.TimeoutExpired:
            return None


def processor_seconds():
    """Of all that has ended below us; what our children left behind ends here, too."""
    try:
        while os.waitpid(-1, 0):
            pass
    except ChildProcessError:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime


def words_of(name, switch):
    path = WORDS / f"{name}.dict"
    return [switch.format(path)] if path.is_file() else []


class LibFuzzer:
    """In one process with the target: fast, and sees each comparison."""

    folder = ROOT / "build-fuzz"
    compiler = "clang"

    def run(self, binary, name, seconds):
        corpus = LEARNED / "corpus" / name
        log = LEARNED / f"fuzz_{name}.log"
        code = run(
            [str(binary), f"-max_total_time={seconds}", f"-timeout={HANG_SECONDS}",
             "-rss_limit_mb=2048", "-print_final_stats=1",
             f"-artifact_prefix={LEARNED}/crashes/{name}-",
             *words_of(name, "-dict={}"), str(corpus),
             *(str(folder) for folder in [SEEDS / name] if folder.is_dir())],
            log, {"UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}, seconds * 3 + 120)
        lines = log.read_text(errors="replace").splitlines()
        runs = next((int(line.split()[-1]) for line in reversed(lines)
                     if line.startswith("stat::number_of_executed_units")), 0)
        return Result(name, code != 0, runs, lines[-40:])


class AflPlusPlus:
    """A fork server beside the target: other mutations, and hangs of its own judgement."""

    folder = ROOT / "build-afl"
    compiler = "afl-clang-fast"

    def run(self, binary, name, seconds):
        corpus = LEARNED / "corpus" / name
        place = self.folder / "out" / name
        start = self.folder / "in" / name
        for old in (place, start):
            shutil.rmtree(old, ignore_errors=True)
        start.mkdir(parents=True)
        place.parent.mkdir(exist_ok=True)
        for folder in (SEEDS / name, corpus):
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.stat().st_size <= 1 << 16:
                    shutil.copy(path, start / path.name)
        log = self.folder / f"fuzz_{name}.log"
        code = run(
            ["afl-fuzz", "-V", str(seconds), "-i", str(start), "-o", str(place), "-m", "none",
             "-t", f"{HANG_SECONDS * 1000}", *" ".join(words_of(name, "-x {}")).split(), "--",
             str(binary)], log,
            {"AFL_NO_UI": "1", "AFL_SKIP_CPUFREQ": "1", "AFL_NO_AFFINITY": "1",
             "AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES": "1", "AFL_QUIET": "1",
             "ASAN_OPTIONS": "abort_on_error=1:symbolize=0:detect_leaks=0",
             "UBSAN_OPTIONS": "halt_on_error=1:abort_on_error=1:symbolize=0"},
            seconds * 3 + 300)
        facts = {}
        record = place / "default/fuzzer_stats"
        for line in record.read_text().splitlines() if record.is_file() else ():
            key, _, value = line.partition(":")
            facts[key.strip()] = value.strip()
        found = 0
        for kind in ("crashes", "hangs"):
            for path in (place / "default" / kind).glob("id*"):
                shutil.copy(path, LEARNED / "crashes" / f"{name}-{kind}-{path.name[:9]}")
                found += 1
        for path in (place / "default/queue").glob("id*"):
            shutil.copy(path, corpus / f"afl-{path.name[:9].replace(':', '-')}")
        lines = log.read_text(errors="replace").splitlines()
        # Its status is that of a stop by time; without a record it never began.
        failed = found > 0 or not facts or code not in (0, 1)
        return Result(name, failed, int(facts.get("execs_done", 0)), lines[-40:])


def keep(binary, name):
    """Adds to the tree's seeds what of the corpus covers more than they do; returns how many."""
    seeds = SEEDS / name
    fresh = LEARNED / "merged" / name
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for path in seeds.iterdir():
        shutil.copy(path, fresh / path.name)
    before = {path.name for path in fresh.iterdir()}
    subprocess.run([str(binary), "-merge=1", f"-max_len={KEEP_BYTES}", str(fresh),
                    str(LEARNED / "corpus" / name)], check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    gained = sorted((path for path in fresh.iterdir() if path.name not in before),
                    key=lambda path: path.stat().st_size)
    room = min(len(gained), max(0, KEEP_FILES - len(before)))
    gained = [gained[i * len(gained) // room] for i in range(room)]  # of all sizes
    for path in gained:
        shutil.copy(path, seeds / path.name[:16])
    return len(gained)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=("libfuzzer", "afl"), default="libfuzzer")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    engine = AflPlusPlus() if arguments.engine == "afl" else LibFuzzer()
    configure_and_build(engine.folder, engine.compiler, arguments.jobs)
    binaries = {path.name.removeprefix("fuzz_"): path
                for path in sorted((engine.folder / "tests/fuzz").glob("fuzz_*"))
                if path.is_file() and os.access(path, os.X_OK)}
    unknown = set(arguments.names) - set(binaries)
    if unknown:
        parser.error(f"no such fuzzer: {', '.join(sorted(unknown))}")
    names = arguments.names or list(binaries)
    (LEARNED / "crashes").mkdir(parents=True, exist_ok=True)
    for name in names:
        (LEARNED / "corpus" / name).mkdir(parents=True, exist_ok=True)
    # AFL++ leaves its fork servers to us.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = processor_seconds()
    results = []
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for result in pool.map(lambda name: engine.run(binaries[name], name, arguments.seconds),
                               names):
            results.append(result)
            print(f"{result.name:24} {'FAILED' if result.failed else 'ok    '} "
                  f"{result.runs:>12,} runs", flush=True)
            if result.failed:
                print("\n".join(result.lines))
    spent = processor_seconds() - before
    if arguments.keep and arguments.engine == "libfuzzer":
        for name in names:
            print(f"{name:24} {keep(binaries[name], name)} more seeds")
    failed = sum(result.failed for result in results)
    print(f"{len(results) - failed} passed, {failed} failed; "
          f"{sum(result.runs for result in results):,} runs, "
          f"{spent / 3600:.2f} processor hours")
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(main())
