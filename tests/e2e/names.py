# SPDX-License-Identifier: Apache-2.0
"""A name server on loopback whose zone is a dictionary that a test may change while it runs.

    names = NameServer({"example.com": {"MX": [(10, "mx1.example.com")]},
                        "mx1.example.com": {"A": ["192.0.2.1"]}})

A name with no entry does not exist (NXDOMAIN); an entry without the type asked for has no such
record. "CNAME": ["other"] is followed within the zone. `mode` breaks it: "nxdomain", "servfail",
"silent"; `broken` does so for single names.
"""

import ipaddress
import socket
import struct
import threading

TYPES = {1: "A", 5: "CNAME", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 52: "TLSA"}
NUMBERS = {name: number for number, name in TYPES.items()}


def encode_name(name):
    labels = [label for label in name.rstrip(".").split(".") if label]
    return b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"


def encode_data(kind, value):
    if kind in ("A", "AAAA"):
        return ipaddress.ip_address(value).packed
    if kind == "MX":
        return struct.pack("!H", value[0]) + encode_name(value[1])
    if kind == "TXT":
        text = value.encode()
        return b"".join(bytes([len(text[at:at + 255])]) + text[at:at + 255]
                        for at in range(0, max(1, len(text)), 255))
    return encode_name(value) if kind in ("CNAME", "PTR") else value


class NameServer:
    def __init__(self, zone=None, ttl=1, address=("127.0.0.1", 0)):
        self.zone = zone or {}
        self.ttl = ttl
        self.mode = "good"
        self.broken = {}
        self.asked = 0
        self.names_asked = set()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.address, self.port = self.socket.getsockname()
        threading.Thread(target=self.serve, daemon=True).start()

    @property
    def setting(self):
        """The line of holdfast's configuration that makes it ask here."""
        return f'dns-forwarders = {{"{self.address}:{self.port}"}}'

    def serve(self):
        while True:
            try:
                query, peer = self.socket.recvfrom(4096)
            except OSError:
                return
            if len(query) < 17:
                continue
            self.asked += 1
            answer = self.answer(query)
            if answer is not None:
                try:
                    self.socket.sendto(answer, peer)
                except OSError:
                    return  # stopped meanwhile

    def answer(self, query):
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
            at += 1 + query[at]
        question = query[12:at + 5]
        (number,) = struct.unpack("!H", query[at + 1:at + 3])
        name = ".".join(labels)
        self.names_asked.add(name)
        mode = self.broken.get(name, self.mode)
        if mode == "silent":
            return None
        code, records = {"nxdomain": 3, "servfail": 2}.get(mode, 0), []
        if mode == "good":
            code, records = self.look_up(name, TYPES.get(number, ""))
        body = b"".join(encode_name(owner) +
                        struct.pack("!HHIH", NUMBERS[kind], 1, self.ttl, len(data)) + data
                        for owner, kind, data in records)
        return (query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(records), 0, 0) +
                question + body)

    def look_up(self, name, kind):
        found = []
        for _ in range(8):
            entry = self.zone.get(name)
            if entry is None:
                return (0 if found else 3), found
            if kind != "CNAME" and "CNAME" in entry:
                alias = entry["CNAME"][0]
                found.append((name, "CNAME", encode_data("CNAME", alias)))
                name = alias
                continue
            return 0, found + [(name, kind, encode_data(kind, value))
                               for value in entry.get(kind, [])]
        return 2, []

    def stop(self):
        self.socket.close()
