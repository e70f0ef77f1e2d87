# SPDX-License-Identifier: Apache-2.0
"""Filters of the field, as Debian has them, each as a private instance in one directory.

    daemons = Daemons(place)
    port = opendkim(daemons, "verify", "Mode v")
    daemons.stop()                          # all of them
"""

import os
import pwd
import shutil
import socket
import subprocess

import pytest

from peers import end_process, free_port, wait_for

OURSELVES = pwd.getpwuid(os.geteuid()).pw_name
SELECTOR = "s1"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class Daemons:
    """`wrapper` is a command that each is run by."""

    def __init__(self, place, wrapper=()):
        self.place = place
        self.wrapper = wrapper
        self.running = []

    def run(self, name, *command):
        """Runs one in the foreground. Skips the test where it is not installed."""
        path = shutil.which(name, path=PATH)
        if path is None:
            pytest.skip(f"{name} is not installed")
        with open(self.place / f"{name}.log", "ab") as log:
            child = subprocess.Popen([*self.wrapper, path, *map(str, command)],
                                     stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                     cwd=self.place, start_new_session=True,
                                     env={**os.environ, "RES_OPTIONS": "timeout:1 attempts:1"})
        self.running.append(child)
        return child

    def log_of(self, name):
        path = self.place / f"{name}.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def serve(self, name, *command, port=None, path=None, seconds=60):
        """Runs one, and waits until it listens there."""
        child = self.run(name, *command)

        def there():
            assert child.poll() is None, self.log_of(name)
            with socket.socket(socket.AF_INET if port else socket.AF_UNIX) as probe:
                try:
                    probe.connect(("127.0.0.1", port) if port else str(path))
                    return True
                except OSError:
                    return False
        wait_for(there, seconds, 0.05, f"{name} to listen")

    def stop(self):
        for child in self.running:  # some take seconds to end
            child.terminate()
        for child in reversed(self.running):
            end_process(child)


def make_key(place, domain="client.example"):
    """A DKIM key: its file, and the record that proves it at SELECTOR._domainkey.DOMAIN."""
    if shutil.which("opendkim-genkey") is None:
        pytest.skip("opendkim-genkey is not installed")
    subprocess.run(["opendkim-genkey", "-b", "2048", "-d", domain, "-s", SELECTOR, "-D",
                    str(place)], check=True, capture_output=True, cwd=place)
    text = (place / f"{SELECTOR}.txt").read_text()
    return place / f"{SELECTOR}.private", "".join(text.split('"')[1::2])


def configure(daemons, name, lines):
    conf = daemons.place / f"{name}.conf"
    conf.write_text("\n".join(lines) + "\n")
    return conf


def opendkim(daemons, name, *lines):
    """An OpenDKIM with these lines of configuration; its port."""
    port = free_port()
    conf = configure(daemons, name, [f"Socket inet:{port}@127.0.0.1", "Syslog no", "UMask 002",
                                     "Background no", "RequireSafeKeys no", f"UserID {OURSELVES}",
                                     *lines])
    daemons.serve("opendkim", "-f", "-x", conf, port=port)
    return port


def opendmarc(daemons, authority, *lines):
    """An OpenDMARC that writes, and believes, fields of `authority`; its port."""
    port = free_port()
    conf = configure(daemons, "opendmarc", [
        f"Socket inet:{port}@127.0.0.1", "Syslog false", "Background false",
        f"AuthservID {authority}", f"TrustedAuthservIDs {authority}", f"UserID {OURSELVES}",
        f"HistoryFile {daemons.place}/history", *lines])
    daemons.serve("opendmarc", "-f", "-c", conf, port=port)
    return port


def rspamd(daemons, *lines, rules=""):
    """An rspamd that asks no one, with these lines of configuration, and rules of its own in Lua; its
    ports for milters and for HTTP."""
    place = daemons.place
    place.chmod(0o755)
    local = place / "rspamd"
    local.mkdir()
    port, http = free_port(), free_port()
    (local / "rules.lua").write_text(rules)
    (local / "tld").write_text("com\nexample\n")  # the real list takes seconds to compile
    (local / "rspamd.conf").write_text(f"""\
options {{
    pidfile = "{local}/pid"; filters = ""; raw_mode = false; one_shot = false;
    dns {{ nameserver = ["127.0.0.1:{free_port()}"]; timeout = 0.1s; retransmits = 1; }}
    control_socket = "{local}/control.sock mode=0600"; temp_dir = "{local}";
    url_tld = "{local}/tld"; hs_cache_dir = "{local}"; gtube_patterns = "all"; enable_test_patterns = true;
}}
logging {{ type = "console"; level = "info"; }}
worker "normal" {{ bind_socket = "127.0.0.1:{http}"; count = 1; }}
worker "rspamd_proxy" {{
    bind_socket = "127.0.0.1:{port}"; milter = yes; timeout = 60s; count = 1;
    upstream "local" {{ default = yes; self_scan = yes; }}
}}
actions {{ reject = 15; add_header = 6; greylist = 4; }}
lua = "{local}/rules.lua";
""" + "\n".join(lines) + "\n")
    daemons.serve("rspamd", "-f", "-i", "-c", local / "rspamd.conf", port=port)
    return port, http
