# SPDX-License-Identifier: Apache-2.0
"""Storage that fills up or fails: 452 and nothing else, what was accepted stays and is delivered,
and acceptance comes back by itself."""

import errno
import fcntl
import os
import pathlib
import struct
import subprocess

import pytest

from client import Refused
from daemon import backup_mx
from peers import wait_for

SIZE_MB = 400


@pytest.fixture
def small_disk(place):
    """A file system of SIZE_MB at place/holdfast/state."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    path = place / "holdfast/state"
    path.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m,mode=0700",
                              "holdfast-test", str(path)], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs to be had: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(folder):
    """Takes all space but a little; the daemon may be taking or giving some at the same time."""
    filler = folder / "filler"
    with open(filler, "ab") as file:
        for piece in (16 << 20, 1 << 20):
            try:
                while True:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, piece)
            except OSError as problem:
                assert problem.errno == errno.ENOSPC
    return filler


def settled(folder):
    """A journal keeps a prepared segment for fates; it has had the time to make one."""
    wait_for(lambda: list((folder / "spool").glob("spare-*")), 10, what="a prepared segment")


def refused_for_space(mx):
    try:
        mx.send()
    except Refused as refused:
        assert refused.code == 452 and "4.3.1" in refused.text, refused
        return True
    return False


def accepts(mx):
    try:
        return mx.send()[0] == 250
    except Refused:
        return False


def test_full_disk(holdfast, sink, small_disk):
    hop = sink(start=False)
    mx = holdfast(backup_mx(hop.port))
    mx.send(content=b"Subject: before\r\n\r\n")
    settled(small_disk)
    filler = fill(small_disk)
    wait_for(lambda: fill(small_disk) and refused_for_space(mx), 20, 0.1,
             "452 for want of space")
    status = mx.status()
    assert status["accepting"] is False and status["accepting_reason"]
    assert any("space" in alert["text"] or "reserve" in alert["text"] or "disk" in alert["text"]
               for alert in status["alerts"]), status["alerts"]
    taken = status["queue"]["messages"]
    assert taken >= 1
    hop.start()
    wait_for(lambda: len(hop.messages) == taken, 20, what="what was accepted, on a full disk")
    mx.wait_empty()
    filler.unlink()
    wait_for(lambda: accepts(mx), 20, 0.2, "acceptance again")
    wait_for(lambda: mx.status()["accepting"] is True, 5)
    mx.stop()


def test_full_disk_and_kill(holdfast, sink, small_disk):
    """A restart on a full disk comes up, delivers what it has, and takes no more."""
    hop = sink(start=False)
    mx = holdfast(backup_mx(hop.port))
    for n in range(20):
        mx.send(content=b"Subject: %d\r\n\r\n" % n)
    settled(small_disk)
    fill(small_disk)
    mx.kill()
    mx.start()
    wait_for(lambda: fill(small_disk) and refused_for_space(mx), 20, 0.1,
             "452 for want of space")
    taken = mx.status()["queue"]["messages"]
    assert taken >= 20
    hop.start()
    wait_for(lambda: len(hop.messages) == taken, 20, what="all that was accepted")
    mx.wait_empty()
    mx.kill()


def test_read_only_file_system(holdfast, sink, small_disk):
    hop = sink()
    mx = holdfast(backup_mx(hop.port))
    mx.send()
    wait_for(lambda: len(hop.messages) == 1, 10)
    mx.kill()
    # Not while one that was killed still ends.
    wait_for(lambda: subprocess.run(["mount", "-o", "remount,ro", str(small_disk)],
                                    capture_output=True).returncode == 0, 10, what="read-only")
    mx.start(wait=False)
    try:
        # It may say so and end, or stay up and answer 451.
        assert mx.child.wait(timeout=3) == 1
    except subprocess.TimeoutExpired:
        assert not accepts(mx)
    mx.end()
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    mx.start()
    mx.send()
    wait_for(lambda: len(hop.messages) == 2, 10)
    mx.stop()


def test_power_is_cut(holdfast, sink, place):
    """An ext4 image on a loop device, shut down in mid-flight (what was not synced is gone): every
    acknowledged message is there afterwards."""
    if os.geteuid() != 0:
        pytest.skip("a loop device needs root")
    image = place / "image"
    with open(image, "wb") as file:
        file.truncate(600 << 20)
    state = place / "holdfast/state"
    state.mkdir(parents=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(state)], capture_output=True,
                             text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no loop device to be had: {mounted.stderr.strip()}")
    hop = sink(start=False)
    mx = holdfast(backup_mx(hop.port), start=False)
    try:
        mx.start()
        with mx.dialogue() as dialogue:
            for n in range(300):
                dialogue.send("a@client.example", [f"r{n}@example.com"],
                              b"Subject: %d\r\n\r\n" % n + b"x" * (n * 37 % 5000) + b"\r\n")
        if not shut_down(state):
            pytest.skip("the file system cannot be shut down here")
        mx.kill()
        subprocess.run(["umount", str(state)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(state)], check=True)
        mx.start()
        hop.start()
        wait_for(lambda: len(hop.messages) == 300, 30, what="all that was acknowledged")
        assert sorted(map(int, hop.subjects())) == list(range(300))
        mx.wait_empty()
        mx.stop()
    finally:
        mx.end()
        subprocess.run(["umount", "-l", str(state)], check=False)


def shut_down(path):
    """EXT4_IOC_SHUTDOWN without flushing the log: as if the power had gone."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, 0x8004587D, struct.pack("I", 2))
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def test_no_descriptor_leaks(holdfast, sink):
    """After a hundred sessions that end badly, every process has as many descriptors as before."""
    hop = sink()
    mx = holdfast(backup_mx(hop.port))
    mx.send()
    wait_for(lambda: len(hop.messages) == 1, 10)

    def descriptors():
        return {pid: len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir())) for pid in mx.pids()}
    before = descriptors()
    for n in range(100):
        dialogue = mx.dialogue()
        if n % 2:
            dialogue.envelope("a@client.example", ["ann@example.com"])
            dialogue.must("DATA", 354)
            dialogue.write(b"x" * n * 1000)
        dialogue.close()
    wait_for(lambda: sum(descriptors().values()) <= sum(before.values()) + 4, 10,
             what="descriptors given back")
