# SPDX-License-Identifier: Apache-2.0
"""Rows: what it costs to be there: idle connections, a million held messages, a restart with them."""

import json
import os
import re
import subprocess
import time

from clients import cload
from servers import BUILD, CountingSink, Holdfast, Ours, cpu_seconds, free_port, raise_file_limit, wait_for
from table import Row


def idle(scale, place):
    """PSS of all processes per idle connection, at 20,000 of them."""
    allowed = raise_file_limit()
    wanted = min(scale.messages(20000), allowed - 32)  # one process's own files
    server = Ours(place, free_port()).start()
    try:
        time.sleep(1)
        before = server.mx.memory_bytes()
        client = subprocess.Popen([BUILD / "tools/cidle", str(server.port), str(wanted), "60"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                  preexec_fn=raise_file_limit)
        answer = json.loads(client.stdout.readline())
        after = server.mx.memory_bytes()
        client.stdin.close()
        client.wait(timeout=60)
    finally:
        server.stop()
    welcomed = answer["welcomed"]
    yield Row("idle connections held", f"{welcomed:,}", f"asked for, of {allowed:,} descriptors",
              f"{wanted:,}", None, "all",
              welcomed == wanted)
    each = (after - before) / max(1, welcomed)
    yield Row("memory per idle connection", f"{each:,.0f} B", "", "", None, "<= 8 KB",
              each <= 8192)


def million(scale, place):
    """1,000,000 held: bytes each, the processor at rest, a restart."""
    messages = scale.messages(1_000_000)
    down = free_port()
    domain = "backup.mail.example.com"
    # Addresses of 30 octets: r or m, up to six digits, @, 23 octets of domain.
    addresses = ("-d", domain, "-f", "senders.client2.example")
    server = Ours(place, down, domain=domain).start()
    sink = CountingSink(place, down)
    try:
        cload(server.port, 1000, 20, 300, *addresses)
        before = server.mx.memory_bytes()
        result = cload(server.port, messages, 50, 300, "-r", min(messages, 100_000), "-p",
                       *addresses, seconds=900)
        assert result["acknowledged"] == messages, result
        held = server.mx.memory_bytes()
        each = (held - before) / messages
        yield Row(f"memory per held delivery, {messages:,} held", f"{each:,.0f} B", "", "", None,
                  "<= 200 B", each <= 200)

        time.sleep(3)
        span = 60 if messages > 100_000 else 10
        used = server.cpu_seconds()
        time.sleep(span)
        share = 100 * (server.cpu_seconds() - used) / span
        yield Row(f"{messages:,} held, primary down: processor", f"{share:.3f} % of a core", "",
                  "", None, "<= 0.1 %", share <= 0.1)

        server.mx.kill()
        started = time.monotonic()
        server.mx.start(wait=False)
        wait_for(lambda: takes_mail(server, domain), 60, 0.005, "the first 250")
        accepts = time.monotonic() - started
        yield Row(f"restart with {messages:,} queued: accepts", f"{accepts:.2f} s", "", "", None,
                  "<= 1 s", accepts <= 1)
        server.mx.kill()
        sink.start()
        started = time.clock_gettime(time.CLOCK_MONOTONIC)
        server.mx.start(wait=False)
        wait_for(lambda: sink.status()[0] > 0, 120, 0.01, "the first delivery")
        delivers = sink.status()[1] - started
        yield Row(f"restart with {messages:,} queued: delivers", f"{delivers:.2f} s", "", "",
                  None, "<= 5 s", delivers <= 5)
    finally:
        server.stop()
        sink.stop()


def crossing(scale, _place):
    """What a 4 KB message costs to cross from edge-in to core and to be answered."""
    said = subprocess.run([BUILD / "bench/crossing", str(scale.messages(400_000))], check=True,
                          capture_output=True, text=True, timeout=120).stdout
    cost = float(re.search(r"the split costs ([0-9.]+) us", said).group(1))
    wall = float(re.search(r"([0-9.]+) us wall", said).group(1))
    yield Row("crossing between processes, 4 KB", f"{cost:.2f} us of processor", "",
              f"{wall:.2f} us wall", None, "2 to 4 us", cost <= 4)


def recipients(scale, _place):
    """Looking one up among a domain's known recipients, and what they cost."""
    said = subprocess.run([BUILD / "tests/relay/bench_mailboxes", str(scale.messages(1_000_000))],
                          check=True, capture_output=True, text=True, timeout=120).stdout
    look_up = float(re.search(r"([0-9.]+) ns a look-up", said).group(1))
    each = float(re.search(r"([0-9.]+) bytes each", said).group(1))
    read = float(re.search(r"read in ([0-9.]+) s", said).group(1))
    yield Row("recipients known, a million", f"{look_up:.0f} ns a look-up", "",
              f"{each:.1f} bytes each, read at a start in {read:.2f} s of processor", None,
              "< 2,000 ns, < 64 bytes, < 1 s", look_up < 2000 and each < 64 and read < 1)


def listed(scale, place):
    """A list of recipients from a file: until it is in force, what it costs, and a restart."""
    names = scale.messages(1_000_000)
    path = place / "recipients"
    with open(path, "w") as file:
        file.writelines(f"firstname.name{number}@example.com OK\n" for number in range(names))
    os.utime(path, (time.time() - 60, time.time() - 60))
    mx = Holdfast(place / "holdfast", f'server m1 {{ address = "127.0.0.1:{free_port()}" }}\n'
                  f'domain example.com {{ deliver-to = m1 recipients = "file:{path}" }}\n')
    last = f"firstname.name{names - 1}@example.com"

    def knows():
        with mx.dialogue() as dialogue:
            dialogue.must("MAIL FROM:<bob@client.example>")
            return [dialogue.say(f"RCPT TO:<{who}>")[0] for who in (last, "x@example.com")] \
                == [250, 550]

    try:
        started = time.monotonic()
        mx.start()
        empty = mx.memory_bytes()
        wait_for(knows, 120, 0.05, "the list")
        taken = time.monotonic() - started
        time.sleep(1)
        each = (mx.memory_bytes() - empty) / names
        mx.stop()  # writes the table
        started = time.monotonic()
        mx.start(wait=False)
        wait_for(lambda: reaches(knows), 120, 0.005, "the list after a restart")
        again = time.monotonic() - started
        used = sum(cpu_seconds(pid) for pid in mx.pids())
    finally:
        mx.end()
    yield Row("recipients from a file, a million", f"in force after {taken:.1f} s", "",
              f"{each:.0f} bytes each in all processes; first answer of it after a restart: "
              f"{again:.2f} s, {used:.2f} s of processor",
              None, "<= 64 bytes, <= 1 s of processor", each <= 64 and used <= 1)


def reaches(knows):
    try:
        return knows()
    except (OSError, AssertionError):
        return False


def takes_mail(server, domain):
    try:
        return server.mx.send(recipients=[f"after@{domain}"])[0] == 250
    except (OSError, AssertionError):
        return False
