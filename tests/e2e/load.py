# SPDX-License-Identifier: Apache-2.0
"""A load whose every message is known by its number, around a daemon."""

import subprocess

from daemon import BUILD, is_empty
from peers import end_process, wait_for

CONNECTIONS = 4  # what tests give the primary


class Load:
    """A numbered client and a counting sink around a daemon."""

    def __init__(self, place, mx_port, sink_port, sessions=10, recipients=40):
        self.place = place
        self.logs = []
        self.sink_port = sink_port
        self.sink = None
        self.ack_log = place / "load.log"
        self.client = None
        self.command = [BUILD / "tools/cload", "-s", str(sessions), "-r", str(recipients), "-l",
                        "2000", "-g", "5", "-o", self.ack_log]
        self.mx_port = mx_port

    def start_client(self, seconds):
        self.client = subprocess.Popen(
            [*self.command, "-t", str(int(seconds * 1000)), str(self.mx_port)],
            stdout=subprocess.PIPE, text=True)

    def start_sink(self):
        log = self.place / f"sink-{len(self.logs)}.log"
        self.logs.append(log)
        self.sink = subprocess.Popen([BUILD / "tools/csink", "-u", "-o", log, "-s",
                                      self.place / "sink.status", str(self.sink_port)],
                                     stdout=subprocess.DEVNULL)

    def stop_sink(self):
        end_process(self.sink)
        self.sink = None

    def end(self):
        for child in (self.client, self.sink):
            end_process(child)

    def acknowledged(self):
        """Number to recipient, in the order of the 250s."""
        text = self.ack_log.read_text() if self.ack_log.exists() else ""
        lines = (line.split() for line in text.splitlines())
        return {int(f[2]): f[3] for f in lines if len(f) == 4 and f[1] == "A"}

    def arrived(self):
        """(number, recipient) in the order of arrival."""
        return [(int(f[1]), f[2]) for log in self.logs if log.exists()
                for f in (line.split() for line in log.read_text().splitlines()) if len(f) == 4]


def compare(load, kills):
    """Nothing lost, and doubled at most once per connection and kill. (acknowledged, doubled)"""
    acknowledged = load.acknowledged()
    arrived = load.arrived()
    times = {}
    for number, _ in arrived:
        times[number] = times.get(number, 0) + 1
    lost = [number for number in acknowledged if number not in times]
    doubled = sum(count - 1 for count in times.values())
    assert not lost, f"{len(lost)} of {len(acknowledged)} lost, such as {lost[:5]}"
    assert doubled <= kills * CONNECTIONS, f"{doubled} duplicates after {kills} kills"
    return len(acknowledged), doubled


def settle(mx, seconds=60):
    """Everything is handed over; what is held after three doubts is released by hand."""
    def empty():
        status = mx.status()
        if status["queue"].get("held"):
            mx.tool("queue", "release", "--all", check=False)
        return is_empty(status)
    wait_for(empty, seconds, 0.2, "an empty queue")
