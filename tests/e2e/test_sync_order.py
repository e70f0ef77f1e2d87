# SPDX-License-Identifier: Apache-2.0
"""R1 on the system calls themselves: no 250 to a dot is sent before a sync of the journal has
returned that began after the message was written there."""

import re
import shutil
import signal
import os
import threading

import pytest

from client import Dialogue
from daemon import Holdfast, backup_mx
from peers import end_process, wait_for

CALLS = "fsync,fdatasync,pwrite64,pwritev,pwritev2,write,writev,sendto,sendmsg,recvfrom,recvmsg,read"
ENTERED = re.compile(r"^(\d+) +(\w+)\((.*)$")
RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
TOKEN = re.compile(r"TOKEN-(\d+)-END")

WRITES = {"pwrite64", "pwritev", "pwritev2"}
SYNCS = {"fdatasync", "fsync"}
SENDS = {"sendto", "sendmsg", "write", "writev"}
RECEIVES = {"recvfrom", "recvmsg", "read"}


def read_calls(path):
    """(thread, call, arguments and result, index of entry, index of return), by return."""
    pending = {}
    calls = []
    for index, line in enumerate(path.read_text(errors="replace").splitlines()):
        if found := RESUMED.match(line):
            thread, call, rest = found.groups()
            entered, text = pending.pop((thread, call), (index, ""))
            calls.append((thread, call, text + rest, entered, index))
        elif found := ENTERED.match(line):
            thread, call, rest = found.groups()
            if rest.endswith("<unfinished ...>"):
                pending[(thread, call)] = (index, rest[:-len("<unfinished ...>")])
            else:
                calls.append((thread, call, rest, index, index))
    return calls


def result_of(text):
    found = re.search(r"= (-?\d+)[^=]*$", text)
    return int(found.group(1)) if found else None


def descriptor_of(text):
    return text.split(",", 1)[0].split("<", 1)[0].rstrip(")")


def check_order(calls):
    """{message: (written, sync begun, sync done, answered)}, each an index into the trace; asserts
    on the way."""
    written, answered, waiting = {}, {}, {}
    syncs = []
    for thread, call, text, entered, returned in sorted(calls, key=lambda c: c[3]):
        tokens = [int(t) for t in TOKEN.findall(text)]
        if call in WRITES and tokens:
            for token in tokens:
                written[token] = returned
        elif call in SYNCS and result_of(text) == 0:
            syncs.append((entered, returned))
        elif call in RECEIVES and tokens and (result_of(text) or 0) > 0:
            waiting[(thread, descriptor_of(text))] = tokens[-1]
        elif call in SENDS and '"250' in text and (thread, descriptor_of(text)) in waiting:
            token = waiting.pop((thread, descriptor_of(text)))
            answered[token] = entered
    order = {}
    for token, sent in answered.items():
        assert token in written, f"message {token} was answered and never written"
        good = [s for s in syncs if s[0] > written[token] and s[1] < sent]
        assert good, f"message {token}: 250 at {sent}, written at {written[token]}, no sync between"
        order[token] = (written[token], *good[0], sent)
    return order


def test_the_check_itself_sees_a_250_too_early(tmp_path):
    trace = tmp_path / "trace"
    good = ('1 recvfrom(5, "TOKEN-1-END\\r\\n.\\r\\n", 100, 0, NULL, NULL) = 17\n'
            '2 pwrite64(9, "xTOKEN-1-ENDx", 13, 0) = 13\n'
            '2 fdatasync(9 <unfinished ...>\n'
            '2 <... fdatasync resumed>) = 0\n'
            '1 sendto(5, "250 2.0.0 Ok\\r\\n", 14, 0, NULL, 0) = 14\n')
    trace.write_text(good)
    assert check_order(read_calls(trace)).keys() == {1}
    lines = good.splitlines(keepends=True)
    for early in ([0, 1, 2, 4, 3], [0, 1, 4, 2, 3], [0, 2, 3, 1, 4], [0, 2, 1, 3, 4]):
        trace.write_text("".join(lines[i] for i in early))
        with pytest.raises(AssertionError):
            check_order(read_calls(trace))
    trace.write_text(good.replace(") = 0", ") = -1 EIO (Input/output error)"))
    with pytest.raises(AssertionError):
        check_order(read_calls(trace))


@pytest.mark.parametrize("size", [200, 20_000], ids=["small", "larger"])
def test_no_250_precedes_its_sync(place, sink, size):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    hop = sink()
    mx = Holdfast(place / "holdfast", backup_mx(hop.port))
    trace = place / "trace"
    mx.wrapper = ["strace", "-f", "-s", "400000", "-e", f"trace={CALLS}", "-o", str(trace)]
    sessions, each = 8, 6
    try:
        mx.start(wait=False)
        try:
            mx.wait_ready()
        except AssertionError:
            if "ptrace" in mx.log() or "Operation not permitted" in mx.log():
                pytest.skip("strace may not trace here")
            raise

        def talk(session):
            with Dialogue(mx.port) as dialogue:
                for number in range(each):
                    token = session * each + number
                    body = b"Subject: x\r\n\r\n" + b"y" * size + b"\r\nTOKEN-%d-END\r\n" % token
                    dialogue.send("a@client.example", [f"r{token}@example.com"], body)

        threads = [threading.Thread(target=talk, args=(n,)) for n in range(sessions)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_for(lambda: len(hop.messages) == sessions * each, 30, what="all at the next hop")
    finally:
        for pid in mx.pids()[1:2]:  # the keeper is strace's child
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda: mx.child.poll() is not None, 30, what="the end under strace")
        end_process(mx.child)
    order = check_order(read_calls(trace))
    assert set(order) == set(range(sessions * each)), "every message was seen on its way"
