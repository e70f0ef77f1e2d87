# SPDX-License-Identifier: Apache-2.0
"""A real authoritative name server (NSD) on loopback with the signed zone "example".

    zone = Zone(directory, "far MX 10 mx1.far\\nmx1.far A 192.0.2.1\\n")
    zone.change(records)                    # signed anew, served at once
    zone.change(records, forge=("A 192.0.2.1", "A 192.0.2.66"))   # after signing: it is bogus
    zone.change(records, strip="far")       # without its signatures: a downgrade
    zone.change(records, expired=True)      # every signature has ended
    zone.pause(), zone.resume()             # it hears, and says nothing

Names below "broken" are of a zone that it cannot load: SERVFAIL, until change(..., broken=records).
What is not below "example" it refuses to answer. Records have a TTL of a second.
"""

import os
import re
import shutil
import signal
import socket
import subprocess

from peers import wait_for

FRONT = "$ORIGIN {zone}.\n$TTL 1\n@ SOA ns.example. root.example. {serial} 3600 600 86400 1\n@ NS ns.example.\n"


def why_no_zone():
    missing = [tool for tool in ("nsd", "ldns-keygen", "ldns-signzone") if not shutil.which(tool)]
    return f"{', '.join(missing)} missing" if missing else None


def free_port():
    with socket.socket() as stream:
        stream.bind(("127.0.0.1", 0))
        return stream.getsockname()[1]


class Zone:
    def __init__(self, directory, records=""):
        self.directory = str(directory)
        self.port = free_port()
        self.serial = 0
        key = self.run("ldns-keygen", "-a", "ECDSAP256SHA256", "-k", "example.").split()[-1]
        self.key = key
        with open(f"{self.directory}/{key}.ds", encoding="ascii") as file:
            self.anchor = " ".join(file.read().split())
        self.child = None
        self.change(records)
        with open(f"{self.directory}/nsd.conf", "w", encoding="ascii") as file:
            file.write(self.configuration())
        self.child = subprocess.Popen(["nsd", "-d", "-c", f"{self.directory}/nsd.conf"],
                                      cwd=self.directory, stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                      start_new_session=True)
        self.wait_for_serial()

    def run(self, *command):
        return subprocess.run(command, cwd=self.directory, check=True, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True).stdout

    def configuration(self):
        own = "".join(f'  {key}: "{self.directory}/{file}"\n' for key, file in
                      (("zonelistfile", "list"), ("pidfile", "pid"), ("logfile", "log"),
                       ("xfrdfile", "xfrd"), ("xfrdir", "."), ("zonesdir", ".")))
        return (f"server:\n  ip-address: 127.0.0.1@{self.port}\n  server-count: 1\n"
                f'  database: ""\n  username: ""\n  chroot: ""\n{own}'
                "remote-control:\n  control-enable: no\n"
                "zone:\n  name: example\n  zonefile: example.signed\n"
                "zone:\n  name: broken.example\n  zonefile: broken.zone\n")

    @property
    def setting(self):
        """The lines of holdfast's configuration that make it ask here, and believe what is
        signed."""
        return (f'dns-forwarders = {{"127.0.0.1:{self.port}"}}\n'
                f'dns-trust-anchor = "{self.anchor}"\n')

    def write(self, name, zone, records):
        with open(f"{self.directory}/{name}", "w", encoding="ascii") as file:
            file.write(FRONT.format(zone=zone, serial=self.serial) + records)

    def change(self, records, forge=None, strip=None, broken=None, expired=False):
        self.serial += 1
        self.write("example.zone", "example", records + "ns A 127.0.0.1\nbroken NS ns.example.\n")
        times = ("-i", "20200101", "-e", "20200201") if expired else ()
        self.run("ldns-signzone", *times, "-f", "example.signed", "example.zone", self.key)
        path = f"{self.directory}/example.signed"
        with open(path, encoding="ascii") as file:
            text = file.read()
        if forge is not None:
            old, new = (re.sub(r"\s+", r"\\s+", forge[0]), forge[1])
            text, count = re.subn(rf"{old}(?=\s*$)", new, text, flags=re.MULTILINE)
            assert count == 1, f"{count} records say {forge[0]}"
        if strip is not None:
            text = re.sub(rf"(?m)^{re.escape(strip)}\.example\.\s+\d+\s+IN\s+RRSIG\s.*\n", "", text)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        if broken is not None:
            self.write("broken.zone", "broken.example", broken)
        if self.child is not None:
            os.kill(self.child.pid, signal.SIGHUP)
            self.wait_for_serial()

    def wait_for_serial(self):
        def served():
            assert self.child.poll() is None, "nsd has ended"
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
                asker.settimeout(0.2)
                asker.sendto(b"\x12\x34\0\0\0\1\0\0\0\0\0\0\7example\0\0\6\0\1",
                             ("127.0.0.1", self.port))
                try:
                    answer = asker.recv(4096)
                except OSError:
                    return False
            return self.serial.to_bytes(4, "big") + (3600).to_bytes(4, "big") in answer
        wait_for(served, 20, what="the zone")

    def pause(self):
        os.killpg(self.child.pid, signal.SIGSTOP)

    def resume(self):
        os.killpg(self.child.pid, signal.SIGCONT)

    def stop(self):
        self.resume()
        os.killpg(self.child.pid, signal.SIGTERM)
        self.child.wait(timeout=20)
