# SPDX-License-Identifier: Apache-2.0
"""Real mail servers as private instances: own configuration, own queue, high ports, loopback only.

Each lives in one directory and ends with stop(); nothing of the system's own instance is touched,
and nothing leaves the machine: what a Postfix is not told to keep or to pass on, it refuses.
"""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

POSTFIX_DAEMONS = pathlib.Path("/usr/lib/postfix/sbin")
NOBODY = 65534


def free_port(given=set()):  # one set for all calls: no port is given out twice
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in given:
            given.add(port)
            return port


def wait_for(condition, seconds=60.0, step=0.02, what="the condition"):
    """Waits until condition() is true and returns its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true in {seconds:g} s")
        time.sleep(step)


def greets(port):
    """True if an SMTP server answers there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            greeting = connection.recv(512)
            connection.sendall(b"QUIT\r\n")
            return greeting.startswith(b"220")
    except OSError:
        return False


def end_process(child, number=signal.SIGTERM, seconds=10):
    """Ends a process that we started and waits for it."""
    if child is None or child.poll() is not None:
        return
    child.send_signal(number)
    try:
        child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def why_no_postfix():
    if not (POSTFIX_DAEMONS / "master").exists():
        return "Postfix is not installed"
    if os.geteuid() != 0:
        return "Postfix's master starts only as root"
    return None


def why_no_dovecot():
    if shutil.which("dovecot", path="/usr/sbin:/usr/bin") is None:
        return "Dovecot is not installed"
    if not pathlib.Path("/usr/lib/dovecot/lmtp").exists():
        return "Dovecot has no LMTP service here"
    return None


class Postfix:
    """A Postfix that takes all mail of `domains` into one maildir, or, with `relay_to`, is their
    backup MX as Postfix is by default. `domains` may be ("static:all",): every domain there is.
    `settings` are further lines of main.cf, `services` of master.cf; it is run by `wrapper`."""

    MASTER = """\
127.0.0.1:{port} inet n - n - {limit} smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""

    MAIN = """\
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
shlib_directory = /usr/lib/postfix
meta_directory = /etc/postfix
mail_owner = postfix
setgid_group = postdrop
sendmail_path = /usr/sbin/sendmail
mailq_path = /usr/bin/mailq
newaliases_path = /usr/bin/newaliases
html_directory = no
manpage_directory = /usr/share/man
readme_directory = no
maillog_file = {root}/log/maillog
maillog_file_prefixes = {root}
multi_instance_enable = yes
multi_instance_name = postfix-{port}
myhostname = primary.example.com
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
default_transport = error:5.7.1 Mail to other domains does not leave this machine
"""

    # As a primary in tests: takes everything, changes nothing.
    FAITHFUL = """\
smtpd_peername_lookup = no
smtp_host_lookup = native
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_relay_restrictions = permit_mynetworks, reject
local_header_rewrite_clients =
message_drop_headers =
disable_mime_input_processing = yes
message_size_limit = 0
mailbox_size_limit = 0
virtual_mailbox_limit = 0
line_length_limit = 1000000
"""

    HERE = """\
virtual_mailbox_domains = {domains}
virtual_mailbox_base = {root}/mail
virtual_mailbox_maps = static:all/
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_minimum_uid = 1
"""

    def __init__(self, root, port=None, domains=("example.com",), settings="", relay_to=None,
                 process_limit="-", services="", wrapper=()):
        self.wrapper = wrapper
        self.root = pathlib.Path(root)
        self.port = port or free_port()
        self.child = None
        for name in ("etc", "queue", "data", "mail", "log"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)
        shutil.chown(self.root / "data", "postfix")
        shutil.chown(self.root / "mail", NOBODY, NOBODY)
        (self.root / "etc/master.cf").write_text(
            self.MASTER.format(port=self.port, limit=process_limit) + services)
        main = self.MAIN.format(root=self.root, port=self.port)
        if relay_to is None:
            main += self.FAITHFUL + self.HERE.format(root=self.root, domains=" ".join(domains))
        else:
            main += f"relay_domains = {' '.join(domains)}\n"
            main += f"relay_transport = relay:[127.0.0.1]:{relay_to}\n"
        # Each setting once: Postfix hangs at start when it has much to warn of.
        ours = set(re.findall(r"(?m)^(\w+) *=", settings))
        main = re.sub(r"(?m)^(\w+) *=.*\n", lambda m: "" if m[1] in ours else m[0], main)
        (self.root / "etc/main.cf").write_text(main + settings)
        for name in ("postfix-files", "dynamicmaps.cf"):
            if pathlib.Path("/etc/postfix", name).exists():
                shutil.copy(f"/etc/postfix/{name}", self.root / "etc" / name)

    def command(self, *arguments):
        return [*self.wrapper, "postfix", "-c", str(self.root / "etc"), *arguments]

    def start(self, wait=True):
        with open(self.root / "start.log", "ab") as log:
            self.child = subprocess.Popen(self.command("start-fg"), stdin=subprocess.DEVNULL,
                                          stdout=log, stderr=log, start_new_session=True)
        if wait:
            wait_for(lambda: greets(self.port), what="Postfix's greeting")
        return self

    def stop(self):
        if self.child is None:
            return
        subprocess.run(self.command("stop"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, timeout=30, check=False)
        end_process(self.child)
        # A daemon that served a client goes when it notices that its master has gone.
        wait_for(lambda: not self.pids(), what="the end of Postfix's daemons")
        self.child = None

    def pids(self):
        """The processes of this instance: those whose working directory is its queue."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if os.readlink(entry / "cwd").startswith(str(self.root / "queue")):
                        found.append(int(entry.name))
                except OSError:
                    pass
        return found

    def flush(self):
        subprocess.run(["postqueue", "-c", str(self.root / "etc"), "-f"], check=True,
                       stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def queued(self):
        queue = self.root / "queue"
        return sum(1 for name in ("incoming", "active", "deferred", "hold")
                   for path in (queue / name).rglob("*") if path.is_file())

    def messages(self):
        """What was delivered, as bytes with LF lines, oldest first."""
        folder = self.root / "mail/all/new"
        files = sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime_ns) \
            if folder.is_dir() else []
        return [path.read_bytes() for path in files]

    def log(self):
        path = self.root / "log/maillog"
        return path.read_text(errors="replace") if path.exists() else ""


class Dovecot:
    """A Dovecot that takes mail for anyone@example.com by LMTP into maildirs, and that other servers
    may ask at `auth_port` who knows `password` (whoever he says he is). At `proxy_port` it takes the
    same mail behind PROXY headers."""

    CONFIGURATION = """\
base_dir = {root}/run
state_dir = {root}/state
log_path = {root}/log
protocols = lmtp
listen = 127.0.0.1
ssl = no
haproxy_trusted_networks = 127.0.0.1
mail_location = maildir:{root}/mail/%u
mail_uid = {user}
mail_gid = {group}
first_valid_uid = 1
last_valid_uid = 0
default_internal_user = {user_name}
default_internal_group = {group_name}
default_login_user = {user_name}
postmaster_address = postmaster@example.com
auth_mechanisms = {mechanisms}
disable_plaintext_auth = no
passdb {{
  driver = static
  args = {password}
}}
userdb {{
  driver = static
  args = uid={user} gid={group} home={root}/mail/%u allow_all_users=yes
}}
service lmtp {{
  chroot =
  user = {user_name}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
  inet_listener lmtp-proxied {{
    address = 127.0.0.1
    port = {proxy_port}
    haproxy = yes
  }}
  unix_listener lmtp {{
    mode = 0600
  }}
}}
service auth {{
  inet_listener {{
    address = 127.0.0.1
    port = {auth_port}
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
service log {{
  chroot =
}}
"""

    def __init__(self, root, port=None, mechanisms="plain", password=None):
        self.root = pathlib.Path(root)
        self.port = port or free_port()
        self.proxy_port = free_port()
        self.auth_port = free_port()
        self.child = None
        for name in ("run", "state", "mail"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        root_user = os.geteuid() == 0
        user = 65534 if root_user else os.geteuid()
        group = 65534 if root_user else os.getegid()
        self.root.chmod(0o755)
        if root_user:
            shutil.chown(self.root / "mail", user, group)
        import grp
        import pwd
        (self.root / "dovecot.conf").write_text(self.CONFIGURATION.format(
            root=self.root, port=self.port, proxy_port=self.proxy_port,
            auth_port=self.auth_port, mechanisms=mechanisms,
            password=f"password={password}" if password else "nopassword=y",
            user=user, group=group,
            user_name=pwd.getpwuid(user).pw_name, group_name=grp.getgrgid(group).gr_name))

    def start(self):
        with open(self.root / "start.log", "ab") as log:
            self.child = subprocess.Popen(
                ["/usr/sbin/dovecot", "-F", "-c", str(self.root / "dovecot.conf")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        wait_for(lambda: greets(self.port), what="Dovecot's LMTP greeting")
        return self

    def stop(self):
        end_process(self.child)
        self.child = None

    def messages(self, user):
        """What was delivered to user@example.com, oldest first."""
        folder = self.root / "mail" / user / "new"
        files = sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime_ns) \
            if folder.is_dir() else []
        return [path.read_bytes() for path in files]
