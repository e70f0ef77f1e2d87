# SPDX-License-Identifier: Apache-2.0
"""A private Exim: Debian's package, unpacked beside what is installed (tools/packages, [unpack]),
as nobody, or as us if we are not root."""

import os
import pathlib
import re
import shutil
import subprocess

from peers import NOBODY, end_process, free_port, wait_for

PROGRAM = pathlib.Path(__file__).parents[2] / "unpacked/exim4-daemon-heavy/usr/sbin/exim4"


def nss_wrapper():
    return next(pathlib.Path("/usr/lib").glob("*/libnss_wrapper.so"), None)


def why_no_exim():
    if not PROGRAM.exists():
        return "Exim is not unpacked; tools/install_packages.sh does it"
    if nss_wrapper() is None:
        return "libnss-wrapper is not installed"
    return None


class Exim:
    """Takes all mail into one maildir. `settings` are further lines of the main part, `recipient`
    of the ACL that is asked of each."""

    CONFIGURATION = """\
exim_path = {program}
primary_hostname = primary.example.com
spool_directory = {root}/spool
log_file_path = {root}/log/%s
pid_file_path = {root}/pid
log_selector = +incoming_port +proxy
keep_environment = ^(LD_PRELOAD|NSS_WRAPPER_.*)$
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
deliver_drop_privilege
tls_advertise_hosts =
host_lookup =
acl_smtp_rcpt = recipient
acl_smtp_data = accept
{settings}
begin acl
recipient:
{recipient}
  accept
begin routers
all:
  driver = accept
  transport = box
begin transports
box:
  driver = appendfile
  directory = {root}/mail
  maildir_format
  user = Debian-exim
begin retry
* * F,1h,1m
"""

    def __init__(self, root, settings="", recipient=""):
        self.root = pathlib.Path(root)
        self.port = free_port()
        self.child = None
        self.user, self.group = (NOBODY, NOBODY) if os.geteuid() == 0 else \
            (os.geteuid(), os.getegid())
        for name in ("spool", "log", "mail"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
            if os.geteuid() == 0:
                shutil.chown(self.root / name, self.user, self.group)
        # A copy, for this tree may lie where only we may look.
        self.program = pathlib.Path(shutil.copy(PROGRAM, self.root / "exim4"))
        (self.root / "exim.conf").write_text(self.CONFIGURATION.format(
            root=self.root, program=self.program, port=self.port, settings=settings,
            recipient=recipient))
        # It has its user's name compiled in, and the system may not know it.
        (self.root / "passwd").write_text(
            f"root:x:0:0::/:/bin/sh\nDebian-exim:x:{self.user}:{self.group}::/:/bin/false\n")
        (self.root / "group").write_text(f"root:x:0:\nDebian-exim:x:{self.group}:\n")

    def start(self):
        who = {"user": self.user, "group": self.group, "extra_groups": []} \
            if os.geteuid() == 0 else {}
        environment = {"PATH": "/usr/bin:/bin", "LD_PRELOAD": str(nss_wrapper()),
                       "NSS_WRAPPER_PASSWD": str(self.root / "passwd"),
                       "NSS_WRAPPER_GROUP": str(self.root / "group")}
        with open(self.root / "start.log", "ab") as log:
            self.child = subprocess.Popen(
                [self.program, "-C", self.root / "exim.conf", "-bdf"], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=environment, start_new_session=True, **who)
        # It may demand a PROXY header before it greets.
        wait_for(lambda: "listening for SMTP" in self.log(), what="Exim's start")
        return self

    def stop(self):
        end_process(self.child)
        self.child = None

    def messages(self):
        """What was delivered, as bytes with LF lines, oldest first."""
        files = sorted((self.root / "mail/new").glob("*"), key=lambda p: p.stat().st_mtime_ns)
        return [path.read_bytes() for path in files]

    def log(self):
        path = self.root / "log/main"
        return path.read_text(errors="replace") if path.exists() else ""

    def arrivals(self):
        """(HELO name, address, port) of each message in the log, and what else stands there."""
        return re.findall(r" <= \S+ H=\((\S+)\) \[([^\]]+)\]:(\d+) (.*)", self.log())
