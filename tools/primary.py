#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A primary mail server to try holdfast with, on 127.0.0.1, in the foreground: primary.py [PORT]

The port is 2526 if none is given, as etc/quickstart.conf has it. As root a real Postfix with its
own configuration and queue under run-primary/; else a small server that only stores. It takes mail
for every domain, so that outgoing mail and bounces can be tried too, and sends none on. Each
message that arrives is named as it comes; Control-C ends it.
"""

import argparse
import errno
import os
import pathlib
import re
import shutil
import signal
import socket
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/e2e"))

from peers import Postfix, why_no_postfix  # noqa: E402 (the path above comes first)
from sink import Sink  # noqa: E402

PORT = 2526


def line_of(content):
    def field(name):
        found = re.search(rb"(?mi)^" + name + rb": *([^\r\n]*)", content)
        return found.group(1).decode("utf-8", "replace") if found else ""
    return f"from {field(b'From')} to {field(b'To')}: {field(b'Subject')}"


def postfix_folder():
    """Where Postfix's daemons, who run as other users, can come to. True: ours to remove."""
    if all(os.stat(p).st_mode & 0o001 for p in [ROOT, *ROOT.parents]):
        return ROOT / "run-primary", False
    folder = pathlib.Path(tempfile.mkdtemp(prefix="holdfast-primary-"))
    folder.chmod(0o711)
    return folder, True


def taken(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) != errno.ECONNREFUSED


def start_server(port):
    """(server, what gives its messages, what cleans up)."""
    if reason := why_no_postfix():
        sink = Sink(port=port).start()
        print(f"({reason}; a small server stands in.) The primary of example.com is on "
              f"127.0.0.1:{port}.")
        return sink, lambda: [m.content for m in list(sink.messages)], lambda: None
    folder, temporary = postfix_folder()
    postfix = Postfix(folder, port=port, domains=("static:all",))
    try:
        postfix.start()
    except BaseException:
        postfix.stop()
        if temporary:
            shutil.rmtree(folder)
        raise
    print(f"Postfix is the primary of example.com on 127.0.0.1:{port}; it stores in {folder}/mail")
    return postfix, postfix.messages, lambda: temporary and shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", nargs="?", type=int, default=PORT, metavar="PORT")
    port = parser.parse_args().port
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if taken(port):
        print(f"Something listens on 127.0.0.1:{port} already.", file=sys.stderr)
        return 1
    server, messages, clean = start_server(port)
    seen = 0
    try:
        while True:
            for content in messages()[seen:]:
                seen += 1
                print(f"{time.strftime('%H:%M:%S')}  {line_of(content)}", flush=True)
            time.sleep(0.1)
    except (KeyboardInterrupt, SystemExit):
        print()
    finally:
        server.stop()
        clean()
    return 0


if __name__ == "__main__":
    sys.exit(main())
