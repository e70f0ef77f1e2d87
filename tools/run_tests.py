#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs every test that CI runs, step by step, and closes with one line: N passed, N failed, N skipped.

    run_tests.py [--jobs N] [--list] [STEP ...]

Each step builds what it needs in a build directory of its own and reports each test once. What comes
behind the end-to-end tests is built, and its unit tests are run, while these wait. Full
output goes to build-logs/STEP*.log; what failed is shown. An end-to-end test that failed beside the
others is run once more by itself; if it passes then it is counted as passed and named as unsteady,
with what failed at first. A step that leaves a process behind
has failed. The exit code is 0 only if nothing failed.
"""

import argparse
import ctypes
import json
import os
import pathlib
import platform
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
LOGS = ROOT / "build-logs"
PR_SET_CHILD_SUBREAPER = 36
HANDS_MORE = 3  # files of end-to-end tests at once, beyond the processors: they wait more than they work
UNSTEADY_MAX = 4  # more end-to-end tests than these fail for a reason, and get no second try
STEP_SECONDS = 2400  # more than one hung test may take, so that it is named
PYTHON = "/usr/bin/python3"  # Debian's, which Debian's pytest belongs to

# Files of end-to-end tests that take long begin first.
LONG_FILES = ("test_outages.py", "test_cluster.py", "test_standby.py", "test_settings_trials.py",
              "test_dns_faults.py", "test_settings.py", "test_cluster_commands.py")

# Suites whose code runs on more than one thread: what the thread sanitizer looks at.
THREADED_SUITES = ("sys", "spool", "cluster", "service", "app")
# Left out there: they do the same thousands of times, on one thread or slowly.
NOT_FOR_THREADS = {"crash", "faults", "cluster-simulation", "settings_errors", "settings",
                   "settings_memory"}


RUNNING = set()  # our own commands' process ids
STARTING = threading.Lock()  # held while one is started, and not in the set yet


class Tally:
    """What came out so far."""

    def __init__(self):
        self.passed = 0
        self.failed = []
        self.skipped = []
        self.unsteady = []
        self.lock = threading.Lock()

    def add(self, name, outcome, reason=""):
        with self.lock:
            if outcome == "passed":
                self.passed += 1
            elif outcome == "skipped":
                self.skipped.append((name, reason or "no reason given"))
            else:
                self.failed.append((name, reason))

    def take(self, other):
        """All that the other has."""
        with self.lock:
            self.passed += other.passed
            self.failed += other.failed
            self.skipped += other.skipped
            self.unsteady += other.unsteady


class Step:
    """One step's commands, their log and their results."""

    def __init__(self, name, jobs, tally, is_ahead=False):
        self.name = self.title = name  # of the log; of its tests
        self.jobs = jobs
        self.tally = tally
        self.is_ahead = is_ahead  # works while other steps run, with what time these leave
        LOGS.mkdir(parents=True, exist_ok=True)
        self.log_path = LOGS / f"{name}.log"
        self.log_path.write_bytes(b"")

    def run(self, command, env=None):
        """Runs a command, output to the log; returns its exit code, or None if it took too long."""
        if self.is_ahead:
            command = ["nice", "-n", "19", *command]
        with open(self.log_path, "ab") as log:
            log.write(("\n$ " + " ".join(map(str, command)) + "\n").encode())
            log.flush()
            with STARTING:
                child = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **(env or {})},
                                         stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                         start_new_session=True)
                RUNNING.add(child.pid)
            try:
                return child.wait(timeout=STEP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                return None
            except BaseException:
                os.killpg(child.pid, signal.SIGKILL)
                raise
            finally:
                RUNNING.discard(child.pid)

    def log_tail(self, lines=60):
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def check(self, name, command):
        """A command that is one test."""
        code = self.run(command)
        if code == 0:
            self.tally.add(f"{self.name}: {name}", "passed")
        else:
            self.tally.add(f"{self.name}: {name}", "failed", self.log_tail())

    def configure_and_build(self, folder, options=(), env=None, targets=None):
        """True if it could be built; a build that breaks is one failed test. Builds everything, or
        what targets() names."""
        if not (folder / "build.ninja").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            if self.run(["meson", "setup", str(folder), *options], env) != 0:
                self.tally.add(f"{self.title}: configure", "failed", self.log_tail())
                return False
        make = ["make", f"BUILD={folder}", f"JOBS={self.jobs}"]
        commands = [[*make, "programs"], ["ninja", "-C", str(folder), "-j", str(self.jobs),
                                          *targets()]] if targets else [[*make, "all"]]
        if any(self.run(command, env) != 0 for command in commands):
            self.tally.add(f"{self.title}: build", "failed", self.log_tail())
            return False
        self.tally.add(f"{self.title}: build", "passed")
        return True

    def meson_tests(self, folder, suites=(), without=(), names=(), env=None, wrapper=None,
                    slowness=1):
        command = ["meson", "test", "-C", str(folder), "--no-rebuild", "--print-errorlogs",
                   "--num-processes", str(self.jobs), "--timeout-multiplier", str(slowness)]
        for suite in suites:
            command += ["--suite", suite]
        for suite in without:
            command += ["--no-suite", suite]
        if wrapper:
            command += ["--wrapper", wrapper]
        command += names
        for old in (folder / "meson-logs").glob("testlog*.json"):
            old.unlink()
        code = self.run(command, env)
        # With a wrapper the record's name has the wrapper's.
        records = list((folder / "meson-logs").glob("testlog*.json"))
        failures = sum(self.read_meson_record(record) for record in records)
        if not records or (code != 0 and not failures):
            self.tally.add(f"{self.title}: meson test", "failed", self.log_tail())

    def read_meson_record(self, record):
        """Adds each test of a record to the tally; returns how many failed."""
        failures = 0
        for line in record.read_text(errors="replace").splitlines():
            test = json.loads(line)
            output = (test.get("stdout") or "") + (test.get("stderr") or "")
            name = f"{self.title}: {test['name'].split(' / ')[-1]}"
            if test["result"] in ("OK", "EXPECTEDFAIL"):
                self.tally.add(name, "passed")
            elif test["result"] == "SKIP":
                self.tally.add(name, "skipped", " ".join(output.split())[-200:])
            else:
                failures += 1
                tail = "\n".join(output.splitlines()[-40:])
                self.tally.add(name, "failed", f"{test['result']}\n{tail}")
        return failures

    def pytest(self, folder, arguments, env=None, wrapper=None, failures=None):
        """Runs pytest. Of one file, failures may go to a list
        instead of the tally: name, what to call pytest with, reason."""
        record = LOGS / f"{self.name}.xml"
        record.unlink(missing_ok=True)
        command = [*(wrapper or "").split(), PYTHON, "-m", "pytest", "-p", "no:cacheprovider", "-q",
                   "-ra", f"--junitxml={record}", *arguments]
        settings = {"HOLDFAST_BUILD": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
        code = self.run(command, settings)
        if not record.is_file():
            self.tally.add(f"{self.name}: pytest", "failed", self.log_tail())
            return
        failed = 0
        for case in xml.etree.ElementTree.parse(record).iter("testcase"):
            name = f"{self.name}: {case.get('classname', '').split('.')[-1]}::{case.get('name')}"
            problem = case.find("failure")
            problem = case.find("error") if problem is None else problem
            skip = case.find("skipped")
            if problem is not None:
                failed += 1
                reason = "\n".join((problem.text or "").splitlines()[-60:])
                if failures is None:
                    self.tally.add(name, "failed", reason)
                else:
                    failures.append((name, f"{arguments[0]}::{case.get('name')}", reason))
            elif skip is not None:
                self.tally.add(name, "skipped", skip.get("message", ""))
            else:
                self.tally.add(name, "passed")
        if code not in (0, 5) and not failed:
            self.tally.add(f"{self.name}: pytest", "failed", self.log_tail())


def source_files():
    return [str(p.relative_to(ROOT)) for top in ("src", "tests", "tools", "bench")
            for p in sorted((ROOT / top).rglob("*.[ch]"))]


def have(*tools):
    return all(shutil.which(tool) for tool in tools)


# ---- the steps -----------------------------------------------------------------------------


def step_layers(step):
    """who includes whom, and who may sync; what the comparison cites is there"""
    step.check("arrows", [PYTHON, "tools/check_layers.py"])
    step.check("comparison", [PYTHON, "tools/check_comparison.py"])


def step_format(step):
    """clang-format has nothing to change"""
    step.check("clang-format", ["clang-format", "--dry-run", "-Werror", *source_files()])


def step_plain(step):
    """the ordinary build (gcc): every unit test, dialogue, simulation, and the fuzzers' smoke"""
    if step.configure_and_build(BUILD):
        step.check("no mutable statics",
                   [PYTHON, "tools/check_layers.py", "--objects", str(BUILD)])
        step.meson_tests(BUILD)


def step_manuals(step):
    """manual pages, written and generated, pass mandoc's lint and name all that there is"""
    step.check("check_manuals", [PYTHON, "tools/check_manuals.py"])
    pages = sorted((ROOT / "man").glob("*.[1-9]")) + sorted(BUILD.glob("man/*.[1-9]"))
    for page in pages:
        step.check(page.name, ["mandoc", "-T", "lint", "-W", "warning", str(page)])


def step_e2e(step):
    """the real daemon between real peers (Postfix, Dovecot, swaks) on loopback"""
    def turn(path):
        name = path.name
        return (LONG_FILES.index(name) if name in LONG_FILES else len(LONG_FILES),
                -path.stat().st_size)
    files = sorted((ROOT / "tests/e2e").glob("test_*.py"), key=turn)
    second_try(step, in_hands(step, BUILD, files, "not soak", step.jobs + HANDS_MORE))


def in_hands(step, folder, files, marked, hands, env=None, wrapper=None):
    """Runs so many files at once; what failed, as pytest() has it."""
    lock = threading.Lock()
    left = list(files)
    failures = []

    def take():
        while True:
            with lock:
                if not left:
                    return
                path = left.pop(0)
            mine = []
            Step(f"{step.name}-{path.stem.removeprefix('test_')}", step.jobs, step.tally).pytest(
                folder, [str(path.relative_to(ROOT)), "-m", marked], env, wrapper, failures=mine)
            with lock:
                failures.extend(mine)

    threads = [threading.Thread(target=take) for _ in range(hands)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def second_try(step, failures):
    """Runs by themselves the few tests that failed beside others."""
    for number, (name, node, reason) in enumerate(failures):
        again = []
        if len(failures) <= UNSTEADY_MAX:
            Step(f"e2e-again-{number}", step.jobs, step.tally).pytest(BUILD, [node],
                                                                      failures=again)
        if again or len(failures) > UNSTEADY_MAX:
            step.tally.add(name, "failed", reason)
        else:
            step.tally.unsteady.append((name, reason))


def short_e2e(step, folder, env, wrapper=None):
    """The few end-to-end tests that run on such a build, too."""
    files = [path for path in sorted((ROOT / "tests/e2e").glob("test_*.py"))
             if "mark.sanitized" in path.read_text()]
    for name, _, reason in in_hands(step, folder, files, "sanitized and not soak", step.jobs, env,
                                    wrapper):
        step.tally.add(name, "failed", reason)  # no second try: what is found once is there


def step_sanitized(step):
    """clang, address and undefined-behaviour sanitizers: everything once more, and a short e2e"""
    if built_and_tested(step):
        short_e2e(step, BUILDS["sanitized"].folder, BUILDS["sanitized"].env)


def step_threads(step):
    """the thread sanitizer over what has threads, and a short e2e with several loops"""
    if built_and_tested(step):
        short_e2e(step, BUILDS["threads"].folder, BUILDS["threads"].env, unmoved())


# ---- builds ahead --------------------------------------------------------------------------


class Build:
    """A build for a later step, and its unit tests. `targets`: only these are built."""

    def __init__(self, folder, options, env, unit_tests, targets=None):
        self.folder = ROOT / folder
        self.options = options
        self.env = env
        self.unit_tests = unit_tests
        self.targets = targets

    def make(self, step):
        """True if there is a build to go on with."""
        targets = (lambda: self.targets(self)) if self.targets else None
        if not step.configure_and_build(self.folder, self.options, self.env, targets):
            return False
        self.unit_tests(step, self)
        return True

    def known(self, what):
        """What Meson has written down of it."""
        return json.loads((self.folder / f"meson-info/intro-{what}.json").read_text())


def test_sanitized(step, build):
    step.meson_tests(build.folder, without=["sim"], env=build.env, slowness=10)
    # A simulated process that is killed frees nothing: that is the point of killing it.
    careless = {**build.env, "ASAN_OPTIONS": build.env["ASAN_OPTIONS"] + ":detect_leaks=0"}
    step.meson_tests(build.folder, ["sim"], env=careless, slowness=10)


def threaded(build):
    return [test for test in build.known("tests")
            if test["suite"][0].split(":")[-1] in THREADED_SUITES
            and test["name"] not in NOT_FOR_THREADS]


def targets_of_threads(build):
    """Those of the unit tests, and what end-to-end tests send with."""
    programs = {word for test in threaded(build) for word in test["cmd"]}
    files = {file for target in build.known("targets") for file in target["filename"]
             if file in programs or pathlib.Path(file).parent == build.folder / "tools"}
    return sorted(os.path.relpath(file, build.folder) for file in files)


def test_threads(step, build):
    step.meson_tests(build.folder, names=sorted({test["name"] for test in threaded(build)}),
                     env=build.env, wrapper=unmoved(), slowness=10)


def unmoved():
    """The sanitizer's shadow memory collides with widely randomised mappings of new kernels."""
    return f"setarch {platform.machine()} -R" if have("setarch") else None


# Where, how configured, and with what in the environment. They are compiled to be compiled soon, and
# to name lines. An empty slice is {NULL, 0}; clang calls NULL + 0 undefined, C2y and every machine
# do not.
BUILDS = {
    "sanitized": Build("build-asan",
                       ["-Db_sanitize=address,undefined", "-Db_lundef=false", "-Doptimization=1",
                        "-Dc_args=-fno-sanitize=pointer-overflow -gline-tables-only"],
                       {"CC": "clang",
                        "ASAN_OPTIONS": "abort_on_error=1:detect_stack_use_after_return=1:"
                                        "strict_string_checks=1",
                        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}, test_sanitized),
    "threads": Build("build-tsan",
                     ["-Db_sanitize=thread", "-Db_lundef=false", "-Doptimization=1",
                      "-Dc_args=-g1"],
                     {"TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1"}, test_threads,
                     targets_of_threads),
}
AHEAD = {}  # by step


class Ahead(threading.Thread):
    """End-to-end tests wait more than they work: a later step takes the time."""

    def __init__(self, name, jobs, before):
        super().__init__(daemon=True)
        self.build = BUILDS[name]
        self.step = Step(f"{name}-ahead", jobs, Tally(), is_ahead=True)
        self.step.title = name
        self.before = before  # whose end it waits for, or None
        self.built = False

    def run(self):
        if self.before:
            self.before.join()
        try:
            self.built = self.build.make(self.step)
        except Exception:  # nobody sees it in a thread
            self.step.tally.add(f"{self.step.title}: ahead", "failed", traceback.format_exc())


def begin_ahead(names, jobs):
    before = None
    for name in names:
        before = AHEAD[name] = Ahead(name, jobs, before)
        before.start()


def built_and_tested(step):
    """Builds what the step needs and runs the unit tests, or waits for who does."""
    if step.name not in AHEAD:
        return BUILDS[step.name].make(step)
    ahead = AHEAD[step.name]
    ahead.join()
    step.tally.take(ahead.step.tally)
    return ahead.built


STEPS = {
    "layers": step_layers,
    "format": step_format,
    "plain": step_plain,
    "manuals": step_manuals,
    "e2e": step_e2e,
    "sanitized": step_sanitized,
    "threads": step_threads,
}


# ---- leftovers -----------------------------------------------------------------------------


def adopt_orphans():
    """Processes whose parents die become ours, so that none can be left behind unseen."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def orphans():
    """Our living children that are no command of ours, by name."""
    found = {}
    for task in pathlib.Path("/proc/self/task").iterdir():
        try:
            with STARTING:
                children = {int(pid) for pid in (task / "children").read_text().split()} - RUNNING
        except OSError:
            continue  # that thread has ended
        for pid in children:
            try:
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    found[pid] = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
            except OSError:
                pass
    return found


def end_orphans(step, tally):
    # What ends while tests ahead are run may be theirs, and slow.
    patience = 10 if any(ahead.is_alive() for ahead in AHEAD.values()) else 2
    for _ in range(patience * 10):
        left = orphans()
        if not left:
            return
        time.sleep(0.1)
    names = ", ".join(f"{name} ({pid})" for pid, name in sorted(left.items()))
    tally.add(f"{step}: no process left behind", "failed", names)
    while left := orphans():
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def work_seconds():
    """What all that has ended has used of processors."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def end_all(*_):
    for pid in list(RUNNING):
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    sys.exit(143)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--list", action="store_true", help="name the steps and stop")
    parser.add_argument("steps", nargs="*", metavar="STEP")
    arguments = parser.parse_args()
    if arguments.list:
        for name, function in STEPS.items():
            print(f"{name:10} {function.__doc__}")
        return 0
    if unknown := [name for name in arguments.steps if name not in STEPS]:
        parser.error(f"no such step: {', '.join(unknown)}; there are {', '.join(STEPS)}")

    adopt_orphans()
    signal.signal(signal.SIGTERM, end_all)
    # Whoever starts us in the background of a script has it ignored, and programs inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tally = Tally()
    for name in arguments.steps or STEPS:
        print(f"== {name}: {STEPS[name].__doc__}", flush=True)
        started, worked = time.monotonic(), work_seconds()
        if name == "e2e":
            later = (arguments.steps or list(STEPS))
            begin_ahead([each for each in later[later.index(name):] if each in BUILDS],
                        arguments.jobs)
        before = tally.passed, len(tally.failed), len(tally.skipped)
        STEPS[name](Step(name, arguments.jobs, tally))
        end_orphans(name, tally)
        for test, reason in tally.failed[before[1]:]:
            print(f"FAILED {test}\n{reason}")
        print(f"   {tally.passed - before[0]} passed, {len(tally.failed) - before[1]} failed, "
              f"{len(tally.skipped) - before[2]} skipped; {time.monotonic() - started:.0f} s, "
              f"of processors {work_seconds() - worked:.0f} s",
              flush=True)

    for test, reason in tally.skipped:
        print(f"skipped {test}: {reason}")
    for test, reason in tally.unsteady:
        print(f"UNSTEADY {test}: passed when run again by itself; at first\n{reason}")
    for test, _ in tally.unsteady:
        print(f"unsteady {test}")
    for test, _ in tally.failed:
        print(f"failed {test}")
    print(f"{tally.passed} passed, {len(tally.failed)} failed, {len(tally.skipped)} skipped, "
          f"{len(tally.unsteady)} unsteady")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
