# SPDX-License-Identifier: Apache-2.0
"""R1 on the system calls themselves: no 250 to a dot is sent before a sync has returned that began
after the message was written, for each file that holds a part of it: the segment with its envelope
and, where its content is streamed or large, the files with its pieces."""

import re
import shutil
import signal
import os
import threading

import pytest

from client import Dialogue
from daemon import Holdfast, backup_mx
from peers import end_process, wait_for

CALLS = ("openat,fsync,fdatasync,pwrite64,pwritev,pwritev2,write,writev,sendto,sendmsg,recvfrom,"
         "recvmsg,read")
ENTERED = re.compile(r"^(\d+) +(\w+)\((.*)$")
RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
DESCRIPTOR = re.compile(r"\d+(<[^>]*>)?")
TO = re.compile(r"TO-(\d+)-END")  # in the address of the only recipient
BODY = re.compile(r"BODY-(\d+)-END")  # in each line of the content

LARGE_CONTENT = 4 << 20  # the default of large-content
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
    """Number and, by strace -y, path."""
    found = DESCRIPTOR.match(text)
    return found.group(0) if found else ""


class Order:
    """What is known of each message, as indexes into the trace."""

    def __init__(self):
        self.envelopes, self.contents = {}, {}  # message: where written, {(descriptor, index)}
        self.made = []  # files: (descriptor, index)
        self.syncs = []  # (descriptor, begun, done)
        self.talking = {}  # (thread, descriptor of a session): [message, 354 has been said]
        self.answered = {}

    def see(self, thread, call, text, entered, returned):
        descriptor = descriptor_of(text)
        session = (thread, descriptor)
        if call in WRITES and "/spool/" in descriptor:
            for marks, known in ((TO, self.envelopes), (BODY, self.contents)):
                for number in set(marks.findall(text)):
                    known.setdefault(int(number), set()).add((descriptor, returned))
        elif call in SYNCS and result_of(text) == 0:
            self.syncs.append((descriptor, entered, returned))
        elif call == "openat" and "O_CREAT" in text and "/spool" in descriptor:
            self.made.append((text.rsplit("= ", 1)[1].strip(), returned))
        elif call in RECEIVES and "RCPT TO:" in text and (result_of(text) or 0) > 0:
            self.talking[session] = [int(TO.findall(text)[-1]), False]
        elif call in SENDS and session in self.talking:
            if '"354' in text:
                self.talking[session][1] = True
            elif '"250' in text and self.talking[session][1]:
                self.answered[self.talking.pop(session)[0]] = entered

    def demand_sync(self, what, after, before, file=None, folder=None):
        assert any((d == file or folder is not None and d.endswith(f"<{folder}>"))
                   and after < begun and done < before for d, begun, done in self.syncs), \
            f"250 at {before}, {what} at {after}, no sync of {file or folder} between"

    def check(self):
        for message, sent in self.answered.items():
            for what, known in (("envelope", self.envelopes), ("content", self.contents)):
                places = {place for place in known.get(message, ()) if place[1] < sent}
                assert places, f"message {message} was answered and its {what} never written"
                for file, at in places:
                    self.demand_sync(what, at, sent, file=file)
            for file in self.files_of(message):
                for made, at in self.made:
                    if made == file and at < sent:
                        folder = made.split("<", 1)[1].rsplit("/", 1)[0]
                        self.demand_sync(f"{made} made", at, sent, folder=folder)
        return self

    def files_of(self, message):
        return {file for file, _ in self.contents[message]}


def check_order(calls):
    order = Order()
    for call in sorted(calls, key=lambda c: c[3]):
        order.see(*call)
    return order.check()


def test_the_check_itself_sees_a_250_too_early(tmp_path):
    trace = tmp_path / "trace"
    session, segment, folder = "5<socket:[1]>", "9</s/spool/segment-1>", "7</s/spool>"
    good = (f'1 recvfrom({session}, "RCPT TO:<TO-1-END@x>\\r\\n", 100, 0, NULL, NULL) = 17\n'
            f'1 sendto({session}, "250 2.1.5 Ok\\r\\n", 14, 0, NULL, 0) = 14\n'
            f'1 sendto({session}, "354 Go\\r\\n", 14, 0, NULL, 0) = 14\n'
            f'2 openat({folder}, "c-1", O_RDWR|O_CREAT|O_EXCL, 0600) = 11</s/spool/c-1>\n'
            '3 pwrite64(11</s/spool/c-1>, "xBODY-1-ENDx", 13, 0) = 13\n'
            '3 fdatasync(11</s/spool/c-1>) = 0\n'
            f'2 pwrite64({segment}, "xTO-1-ENDx", 13, 0) = 13\n'
            f'2 fsync({folder}) = 0\n'
            f'2 fdatasync({segment} <unfinished ...>\n'
            '2 <... fdatasync resumed>) = 0\n'
            f'1 sendto({session}, "250 2.0.0 Ok\\r\\n", 14, 0, NULL, 0) = 14\n')
    trace.write_text(good)
    assert check_order(read_calls(trace)).answered.keys() == {1}
    lines = good.splitlines(keepends=True)
    early = [[*range(9), 10, 9], [*range(8), 10, 8, 9], [*range(6), 7, 8, 9, 6, 10]]  # the segment
    early += [[0, 1, 2, 3, 5, 4, 6, 7, 8, 9, 10], [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 5]]  # its file
    early += [[0, 1, 2, 7, 3, 4, 5, 6, 8, 9, 10], [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 7]]  # its name
    early += [[*range(6), 10], [0, 1, 2, 6, 7, 8, 9, 10]]  # never written
    for variant in early:
        trace.write_text("".join(lines[i] for i in variant))
        with pytest.raises(AssertionError):
            check_order(read_calls(trace))
    for error in (5, 7, 9):
        bad = lines.copy()
        bad[error] = bad[error].replace(" = 0", " = -1 EIO (Input/output error)")
        trace.write_text("".join(bad))
        with pytest.raises(AssertionError):
            check_order(read_calls(trace))


@pytest.mark.parametrize("size, sessions, each",
                         [(200, 8, 6), (20_000, 8, 6), (100_000, 8, 2), (4_300_000, 2, 2)],
                         ids=["small", "larger", "streamed", "in-files"])
def test_no_250_precedes_its_sync(place, sink, size, sessions, each):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    hop = sink()
    mx = Holdfast(place / "holdfast", backup_mx(hop.port), top="segment-size = 8M")
    trace = place / "trace"
    mx.wrapper = ["strace", "-f", "-y", "-s", "20000000", "-e", f"trace={CALLS}", "-o", str(trace)]
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
                    line = b"BODY-%d-END " % token + b"y" * 60 + b"\r\n"
                    body = b"Subject: x\r\n\r\n" + line * (size // len(line))
                    dialogue.send("a@client.example", [f"TO-{token}-END@example.com"], body)

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
    assert set(order.answered) == set(range(sessions * each)), "every message was seen on its way"
    if size > LARGE_CONTENT:
        files = [file for n in order.answered for file in order.files_of(n) if "/content-" in file]
        assert len(set(files)) == len(order.answered), "each content has a file of its own"
