# SPDX-License-Identifier: Apache-2.0
"""Storage that fills up or fails: 452 and nothing else, what was accepted stays and is delivered,
and acceptance comes back by itself."""

import fcntl
import os
import pathlib
import shutil
import struct
import subprocess
import threading
import time

import pytest

from client import Refused
from daemon import backup_mx
from faults import Injected, fill
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
    fill(small_disk)
    mx.kill()
    mx.start()
    wait_for(lambda: fill(small_disk) and refused_for_space(mx), 20, 0.1,
             "452 for want of space")
    wait_for(lambda: not mx.status()["loading"], 60, what="the queue of before")
    taken = mx.status()["queue"]["messages"]
    assert taken >= 20
    hop.start()
    wait_for(lambda: len(hop.messages) == taken, 20, what="all that was accepted")
    mx.wait_empty()
    mx.kill()


def test_no_room_for_files(holdfast, sink, small_disk):
    """A file system may have bytes and yet no place for one more file: that is noticed before it
    comes to it, as with bytes."""
    subprocess.run(["mount", "-o", "remount,nr_inodes=300", str(small_disk)], check=True)
    hop = sink(start=False)
    mx = holdfast(backup_mx(hop.port))
    mx.send()
    litter = small_disk / "litter"
    litter.mkdir()
    made = 0
    while os.statvfs(small_disk).f_favail >= 50:
        made += 1
        (litter / str(made)).touch()
    wait_for(lambda: refused_for_space(mx), 30, 0.1, "452 for want of files")
    status = mx.status()
    assert status["accepting"] is False and "more files" in status["accepting_reason"]
    assert "storage" in [alert["kind"] for alert in status["alerts"]]
    taken = status["queue"]["messages"]
    hop.start()
    wait_for(lambda: len(hop.messages) == taken, 30, what="what was accepted")
    shutil.rmtree(litter)
    wait_for(lambda: accepts(mx), 30, 0.2, "acceptance again")


def test_a_start_on_a_read_only_file_system(holdfast, sink, small_disk):
    """Without a byte that can be written nothing can be delivered either, for an attempt is noted
    before its dot: it says why and ends, and whoever started it starts it again."""
    hop = sink(start=False)
    mx = holdfast(backup_mx(hop.port))
    mx.send()
    mx.kill()
    # Not while one that was killed still ends.
    wait_for(lambda: subprocess.run(["mount", "-o", "remount,ro", str(small_disk)],
                                    capture_output=True).returncode == 0, 10, what="read-only")
    before = len(mx.log())
    mx.start(wait=False)
    assert mx.child.wait(timeout=10) == 1
    said = mx.log()[before:]
    assert "cannot-start" in said and "Read-only file system" in said and str(small_disk) in said
    mx.end()
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    hop.start()
    mx.start()
    wait_for(lambda: len(hop.messages) == 1, 10, what="what was accepted before")
    mx.stop()


def core_of(mx):
    return mx.processes()["holdfast-core"[:15]][0]


CHANGES = "pwrite64,fallocate,ftruncate,renameat,unlinkat"


@pytest.mark.parametrize("calls, error", [("fdatasync", "EIO"), ("pwrite64", "EIO"),
                                          (CHANGES, "EROFS"), ("pwrite64", "EDQUOT")],
                         ids=["sync", "write", "read-only", "quota"])
def test_a_disk_that_fails_for_a_while(holdfast, sink, calls, error):
    """451 or 452 and nothing else; status, an alert and the log say so; all ends with the fault."""
    hop = sink(start=False)
    mx = holdfast(backup_mx(hop.port))
    mx.send(content=b"Subject: before\r\n\r\n")
    with Injected(core_of(mx), calls, f"error={error}"):
        for _ in range(3):
            with pytest.raises(Refused) as refused:
                mx.send(content=b"Subject: never\r\n\r\n")
            assert refused.value.code in (451, 452), refused.value
        wait_for(lambda: mx.status()["accepting"] is False, 10, what="status to say so")
        status = mx.status()
        assert status["accepting_reason"]
        assert [a for a in status["alerts"] if a["text"].startswith("no mail is accepted")]
        assert " alert kind=storage " in mx.log() and "alert-over kind=storage" not in mx.log()
        assert status["queue"]["messages"] == 1
    wait_for(lambda: accepts(mx), 20, 0.2, "acceptance again")
    wait_for(lambda: mx.status()["accepting"] is True, 10)
    wait_for(lambda: "alert-over kind=storage" in mx.log(), 10)
    assert "process-died" not in mx.log()
    hop.start()
    mx.wait_empty()
    assert sorted(hop.subjects()) == ["before", "test"]
    mx.stop()


def test_a_disk_that_hangs_is_waited_for(holdfast, sink):
    """As a replicated one does whose other half is missing: no 250, no refusal, and the rest of the
    program lives. When it goes on, so does the mail."""
    hop = sink(start=False)
    mx = holdfast(backup_mx(hop.port))
    mx.send(content=b"Subject: before\r\n\r\n")
    answers = []
    with Injected(core_of(mx), "fdatasync", "delay_enter=1000s"):
        sender = threading.Thread(
            target=lambda: answers.append(mx.send(content=b"Subject: hangs\r\n\r\n")))
        sender.start()
        time.sleep(3)  # in which a 250 would have come a thousand times
        assert answers == [] and sender.is_alive()
        assert mx.status()["queue"]["messages"] == 1
    sender.join(60)
    assert len(answers) == 1
    hop.start()
    mx.wait_empty()
    assert sorted(hop.subjects()) == ["before", "hangs"]
    mx.stop()


def test_a_newer_journal_is_refused_and_not_touched(holdfast, sink):
    """What a newer version wrote is its own: no start, no restarts, not a byte changed."""
    hop = sink(start=False)
    mx = holdfast(backup_mx(hop.port))
    mx.send()
    mx.stop()
    spool = mx.state / "spool"
    segments = sorted(spool.glob("segment-*"))
    assert segments

    def set_version(number):
        for segment in segments:
            with open(segment, "r+b") as file:
                file.seek(len(b"HOLDFAST"))
                file.write(struct.pack("<I", number))

    def contents():
        return {path.name: path.read_bytes() for path in spool.iterdir()}
    set_version(2)
    before, said_before = contents(), len(mx.log())
    mx.start(wait=False)
    assert mx.child.wait(timeout=20) == 1
    said = mx.log()[said_before:]
    assert "written by a newer version of holdfast" in said, said
    assert said.count("process=core") == 1, "one try, no restart"
    assert contents() == before
    mx.end()
    set_version(1)
    hop.start()
    mx.start()
    wait_for(lambda: len(hop.messages) == 1, 10, what="the message, by the right version")
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
    wait_for(lambda: sum(descriptors().values()) <= sum(before.values()) + 4, 60,
             what="descriptors given back")
