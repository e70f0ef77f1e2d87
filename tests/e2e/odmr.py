# SPDX-License-Identifier: Apache-2.0
"""A site that calls for its mail (RFC 2645), by fetchmail or word by word."""

import base64
import hashlib
import hmac
import os
import socket
import subprocess

USERS = ("# name password domains\n"
         "joe secret site.example,other.example\n"
         "ann sesame other.example\n")
NAME = "mx2.example.net"
SITE = ("server site { protocol = odmr }\n"
        "domain site.example { deliver-to = site  retry = {1s}  order-patience = 1s }\n"
        "domain other.example { deliver-to = site  retry = {1s}  order-patience = 1s }\n")


def listener(place, port, users=USERS, more=""):
    """The listen block, with its users file."""
    path = place / "users"
    path.write_text(users)
    path.chmod(0o600)
    return f'listen fetch {{ address = "127.0.0.1:{port}" protocol = odmr users = "file:{path}" {more} }}\n'


def fetchmail(place, port, smtp_port, user="joe", password="secret", domains="site.example",
              options="", seconds=60):
    """One run of fetchmail, which hands over to an SMTP server on `smtp_port`: exit code, and what
    it said. Without domains it would ask for that of its own machine."""
    home = place / "fetchmail"
    home.mkdir(exist_ok=True)
    rc = home / "rc"
    rc.write_text(f"poll 127.0.0.1 protocol odmr service {port}\n"
                  f"  user \"{user}\" password \"{password}\" smtphost 127.0.0.1/{smtp_port}\n"
                  f"  {options}\n  fetchdomains {domains}\n")
    rc.chmod(0o600)
    result = subprocess.run(["fetchmail", "--nosyslog", "-v", "--nodetach", "--pidfile",
                             str(home / "pid"), "-f", str(rc)],
                            env={**os.environ, "HOME": str(home), "FETCHMAILHOME": str(home)},
                            stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            timeout=seconds)
    return result.returncode, result.stdout + result.stderr


class Caller:
    """A client word by word; with TLS (a context) at once, or `later` by STARTTLS."""

    def __init__(self, port, timeout=60, tls=None, later=False):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        if tls is not None and not later:
            self.socket = tls.wrap_socket(self.socket, server_hostname=NAME)
        self.stream = self.socket.makefile("rb")
        self.greeting = self.reply()
        if later:
            self.say("EHLO caller.example")
            assert self.say("STARTTLS")[0] == 220
            self.stream.close()
            self.socket = tls.wrap_socket(self.socket, server_hostname=NAME)
            self.stream = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.stream.close()
        self.socket.close()

    def write(self, data):
        self.socket.sendall(data)

    def line(self):
        line = self.stream.readline()
        if not line:
            raise ConnectionError("the other side has gone")
        return line.decode().rstrip("\r\n")

    def reply(self):
        lines = [self.line()]
        while lines[-1][3:4] == "-":
            lines.append(self.line())
        return int(lines[-1][:3]), "\n".join(line[4:] for line in lines)

    def say(self, text):
        self.write(text.encode() + b"\r\n")
        return self.reply()

    def login(self, user="joe", password="secret"):
        self.say("EHLO caller.example")
        code, challenge = self.say("AUTH CRAM-MD5")
        if code != 334:
            return code, challenge
        proof = hmac.new(password.encode(), base64.b64decode(challenge), hashlib.md5).hexdigest()
        return self.say(base64.b64encode(f"{user} {proof}".encode()).decode())

    def atrn(self, domains=""):
        return self.say(f"ATRN {domains}".strip())

    # ---- turned round: now we are the server ----

    def serve(self, most=None, dot="250 2.0.0 Taken", rcpt="250 2.1.5 Ok", greeting=True):
        """Takes messages until QUIT, or `most` of them; returns (recipients, content) of each.
        Answers `dot` to the last dot; None: it is not answered."""
        taken, recipients = [], []
        if greeting:
            self.write(b"220 caller.example ready\r\n")
        while True:
            verb = self.line()
            word = verb[:4].upper()
            if word == "EHLO":
                self.write(b"250 caller.example\r\n")
            elif word == "RCPT":
                recipients.append(verb[verb.index("<") + 1:verb.index(">")])
                self.write(rcpt.encode() + b"\r\n")
            elif word == "DATA":
                self.write(b"354 Go on\r\n")
                content = []
                while (line := self.line()) != ".":
                    content.append(line)
                taken.append((recipients, "\n".join(content)))
                recipients = []
                if most is not None and len(taken) == most:
                    if dot is not None:
                        self.write(dot.encode() + b"\r\n")
                    return taken
                self.write(b"250 2.0.0 Taken\r\n")
            elif word == "QUIT":
                self.write(b"221 2.0.0 Bye\r\n")
                return taken
            else:
                self.write(b"250 2.0.0 Ok\r\n")
