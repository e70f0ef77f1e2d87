# SPDX-License-Identifier: Apache-2.0
"""A wall clock that is wrong, for the processes that are started with it, and jumps as they run."""

import struct

from daemon import program


class Clock:
    """Its file must stay readable, and where it is, for as long as anybody goes by it."""

    def __init__(self, path, seconds=0):
        self.path = path
        self.seconds = None
        self.jump(seconds)

    def jump(self, seconds):
        """Wrong by that from now on, for all that go by it."""
        with open(self.path, "r+b" if self.path.exists() else "w+b", buffering=0) as file:
            file.write(struct.pack("=q", seconds))  # in place: it is mapped
        self.seconds = seconds

    def environment(self):
        library = program("tools/skew.so")
        assert library, "tools/skew.so is not built"
        return {"LD_PRELOAD": library, "SKEW_FILE": str(self.path)}
