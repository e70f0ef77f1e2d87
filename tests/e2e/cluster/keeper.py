# SPDX-License-Identifier: Apache-2.0
"""Waits beside a run of test hosts (hosts.py) and clears away after it: keeper.py RUN

A run's name is holdfast.PID.TIME.NUMBER, of the process whose it is and when that was started; its
namespaces, and what it mounted, are called RUN.HOST and RUN. When standard input ends (its other
end is that process's) everything inside these namespaces is killed, and they are removed.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time

NAMESPACES = pathlib.Path("/run/netns")


def started(pid):
    """When, in the kernel's ticks; None if there is no such process."""
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
    except OSError:
        return None


def run_of(pid):
    return f"holdfast.{pid}.{started(pid)}"


def pids_in(namespace):
    """The living processes in a network namespace."""
    try:
        wanted = os.stat(namespace).st_ino
    except OSError:
        return []
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                if os.stat(f"/proc/{entry.name}/ns/net").st_ino == wanted:
                    found.append(int(entry.name))
            except OSError:  # gone, or dead and not yet waited for
                pass
    return found


def names(folder):
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def sweep(run, owner):
    """True if nothing of that run is left. Its owner itself is not killed."""
    namespaces = [NAMESPACES / name for name in names(NAMESPACES) if name.startswith(f"{run}.")]
    for _ in range(200):
        pids = [pid for path in namespaces for pid in pids_in(path) if pid != owner]
        if not pids:
            break
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.05)
    for path in namespaces:
        subprocess.run(["ip", "netns", "delete", path.name], check=False)
    for line in pathlib.Path("/proc/mounts").read_text().splitlines():
        source, folder = line.split()[:2]
        if source == run:
            subprocess.run(["umount", "-l", folder], check=False)
    return not pids


def sweep_the_dead():
    """Clears away after runs whose process is gone, and whose keeper was killed, too."""
    runs = {name.rsplit(".", 1)[0] for name in names(NAMESPACES) if name.startswith("holdfast.")}
    for run in runs:
        owner = int(run.split(".")[1])
        if not run.startswith(f"{run_of(owner)}."):
            sweep(run, None)


def main():
    run = sys.argv[1]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while sys.stdin.buffer.read(4096):
        pass
    return 0 if sweep(run, int(run.split(".")[1])) else 1


if __name__ == "__main__":
    sys.exit(main())
