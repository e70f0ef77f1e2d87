# SPDX-License-Identifier: Apache-2.0
"""Lets a running process make a system call, as code that took it over would: what its walls allow
is then seen from inside. By ptrace(2), so for root, and here for x86-64.
"""

import ctypes
import os
import platform
import struct

AVAILABLE = platform.machine() == "x86_64" and os.geteuid() == 0
WHY_NOT = "needs root and x86-64, to make calls from inside another process"

PEEK, POKE, STEP, GET, SET, ATTACH, DETACH = 1, 4, 9, 12, 13, 16, 17
SYSCALL = 0x050f
REGISTERS = ("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp "
             "ss fs_base gs_base ds es fs gs").split()
ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")

CALLS = {
    "mmap": 9, "socket": 41, "fork": 57, "execve": 59, "kill": 62, "mkdir": 83, "unlink": 87,
    "chmod": 90, "chown": 92, "ptrace": 101, "setuid": 105, "capset": 126, "chroot": 161,
    "mount": 165, "openat": 257, "unshare": 272, "prlimit64": 302, "bpf": 321, "memfd_create": 319,
    "getpid": 39, "io_uring_setup": 425,
}

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Died(Exception):
    """The call ended the process, by this signal."""

    def __init__(self, by):
        super().__init__(f"ended by signal {by}")
        self.signal = by


def ptrace(request, pid, address=0, data=0):
    ctypes.set_errno(0)
    result = libc.ptrace(request, pid, address, data)
    if result == -1 and ctypes.get_errno() != 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request} of {pid}")
    return result


def registers(pid):
    raw = ctypes.create_string_buffer(8 * len(REGISTERS))
    ptrace(GET, pid, 0, ctypes.addressof(raw))
    return dict(zip(REGISTERS, struct.unpack(f"{len(REGISTERS)}Q", raw.raw)))


def set_registers(pid, values):
    raw = struct.pack(f"{len(REGISTERS)}Q", *(values[name] for name in REGISTERS))
    raw = ctypes.create_string_buffer(raw, len(raw))
    ptrace(SET, pid, 0, ctypes.addressof(raw))


def write(pid, address, data):
    data += b"\0" * (-len(data) % 8)
    for at in range(0, len(data), 8):
        ptrace(POKE, pid, address + at, struct.unpack_from("Q", data, at)[0])


def wait_stopped(pid):
    _, status = os.waitpid(pid, 0x40000000)  # __WALL
    if os.WIFSIGNALED(status):
        raise Died(os.WTERMSIG(status))
    assert os.WIFSTOPPED(status), status
    return os.WSTOPSIG(status)


def stop_in_a_call(pid):
    """Its registers, with the instruction that makes calls right before the next: so a process
    stands that waits for something to do."""
    for _ in range(1000):
        ptrace(ATTACH, pid)
        wait_stopped(pid)
        values = registers(pid)
        if ptrace(PEEK, pid, values["rip"] - 2) & 0xffff == SYSCALL:
            return values
        ptrace(DETACH, pid)
    raise AssertionError(f"process {pid} never rests")


def call(pid, name, *arguments):
    """What the call returns in that process: a negative errno if it failed. An argument that is
    bytes is put into its memory. Raises Died if the process does not survive it."""
    before = stop_in_a_call(pid)
    within = dict(before, rip=before["rip"] - 2, rax=CALLS[name],
                  orig_rax=2 ** 64 - 1)  # so that nothing is restarted
    free = (before["rsp"] - 4096) & ~15
    for register, value in zip(ARGUMENTS, arguments):
        if isinstance(value, bytes):
            write(pid, free, value + b"\0")
            value, free = free, free + (len(value) + 16 & ~15)
        within[register] = value & (2 ** 64 - 1)
    set_registers(pid, within)
    ptrace(STEP, pid)
    while (signal := wait_stopped(pid)) != 5:  # SIGTRAP
        ptrace(STEP, pid, 0, 0 if signal == 19 else signal)
    result = registers(pid)["rax"]
    set_registers(pid, before)
    ptrace(DETACH, pid)
    return result - 2 ** 64 if result >= 2 ** 63 else result
