# SPDX-License-Identifier: Apache-2.0
"""The clients of a run: Postfix's smtp-source for 4 KB, tools/cload where smtp-source is too slow or
the order counts; and the disk on its own."""

import json
import os
import statistics
import subprocess
import time

from servers import BUILD, raise_file_limit


def smtp_source(port, messages, sessions, size):
    """Messages a second, connections kept, one recipient each."""
    started = time.perf_counter()
    subprocess.run(["smtp-source", "-d", "-N", "-s", str(sessions), "-m", str(messages), "-l",
                    str(size), "-f", "load@client.example", "-t", "user@example.com",
                    f"127.0.0.1:{port}"],
                   check=True, timeout=300, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   preexec_fn=raise_file_limit)
    return messages / (time.perf_counter() - started)


def cload(port, messages, sessions, size, *more, log=None, seconds=600):
    """What cload says at its end: acknowledged, in_doubt, failed, not_connected, seconds."""
    command = [BUILD / "tools/cload", "-m", str(messages), "-s", str(sessions), "-l", str(size),
               "-t", str(seconds * 1000), *map(str, more), *(["-o", log] if log else []),
               str(port)]
    result = subprocess.run(command, check=True, timeout=seconds + 60, capture_output=True,
                            text=True, stdin=subprocess.DEVNULL, preexec_fn=raise_file_limit)
    return json.loads(result.stdout)


def acknowledged(log):
    """(seconds, number, recipient) of each 250, in their order."""
    fields = (line.split() for line in log.read_text().splitlines())
    return [(int(f[0]) / 1e9, int(f[2]), f[3]) for f in fields if len(f) == 4 and f[1] == "A"]


def disk_mb_per_second(place, seconds=2.0):
    """1 MB writes to a new file, each synced: what the disk gives one writer at most."""
    block = b"x" * (1 << 20)
    path = place / "disk"
    count = 0
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        os.pwrite(descriptor, block, count << 20)
        os.fdatasync(descriptor)
        count += 1
    elapsed = time.perf_counter() - started
    os.close(descriptor)
    path.unlink()
    return count * (len(block) / 1e6) / elapsed


def out_of_order(sent, arrived):
    """How many messages came after a later one of their recipient. Both are (time, number,
    recipient); a recipient's order is that of its 250s."""
    position = {}
    for index, (_, number, _) in enumerate(sent):
        position[number] = index
    highest, count = {}, 0
    for _, number, recipient in arrived:
        at = position.get(number)
        if at is None:
            continue
        if at < highest.get(recipient, -1):
            count += 1
        highest[recipient] = max(at, highest.get(recipient, -1))
    return count


def median(values):
    return statistics.median(values) if values else None
