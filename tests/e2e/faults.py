# SPDX-License-Identifier: Apache-2.0
"""What goes wrong around a running process: system calls that fail or hang (by strace), a disk
that is full."""

import errno
import os
import pathlib
import shutil
import subprocess

import pytest

from peers import end_process, wait_for


def fill(folder, pieces=(16 << 20, 1 << 20)):
    """Takes all space there but less than the last piece, and returns the file that has it; others
    may be taking or giving some at the same time."""
    filler = folder / "filler"
    with open(filler, "ab") as file:
        for piece in pieces:
            try:
                while True:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, piece)
            except OSError as problem:
                assert problem.errno == errno.ENOSPC
    return filler


class Injected:
    """While it lasts, system calls of a process, or of one thread of it, fail ("error=EIO"), or hang
    ("delay_enter=1000s")."""

    def __init__(self, pid, calls, fault, thread=None):
        if shutil.which("strace") is None:
            pytest.skip("strace is not installed")
        whom = ["-f", "-p", str(pid)] if thread is None else ["-p", str(thread)]
        self.child = subprocess.Popen(["strace", *whom, "-qq", "-o", "/dev/null",
                                       "-e", f"trace={calls}", "-e", f"inject={calls}:{fault}"],
                                      stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        tasks = pathlib.Path(f"/proc/{pid}/task")

        def attached():
            if self.child.poll() is not None:
                pytest.skip(f"strace may not trace here: {self.child.stderr.read()[:200]}")
            return all("TracerPid:\t0\n" not in (task / "status").read_text()
                       for task in tasks.iterdir() if thread in (None, int(task.name)))
        wait_for(attached, 60, what="strace on the process")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end_process(self.child)
