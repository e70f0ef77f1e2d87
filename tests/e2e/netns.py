# SPDX-License-Identifier: Apache-2.0
"""Two machines in one: a network of real addresses between us and servers far away.

    with Net() as net:                     # from here on this thread, and what it starts, is "near"
        with net.far():                    # sockets made here are the servers'
            listener = socket.create_server((net.addresses[0], 25))
        net.cut(address)                   # packets to it vanish, as if its power had failed
        net.mend(address)

Near has 192.0.2.1, far the addresses of Net.addresses. Needs root; why_no_netns() says what is
missing. Nothing of it can reach the machine's own network.
"""

import contextlib
import ctypes
import os
import subprocess
import time

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def call(function, *arguments):
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def why_no_netns():
    if os.geteuid() != 0:
        return "network namespaces need root"
    tried = subprocess.run(["unshare", "-n", "ip", "link", "add", "v0", "type", "veth", "peer",
                            "name", "v1"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           check=False)
    return f"no network namespaces here: {tried.stderr.strip()}" if tried.returncode else None


def ip(*arguments):
    return subprocess.run(["ip", *arguments], check=True, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True).stdout


@contextlib.contextmanager
def alone(*networks):
    """This thread, and what it starts, has a network of its own: loopback, where each address of
    these networks (of IPv6: each of these addresses) is this machine's."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    call(libc.unshare, CLONE_NEWNET)
    try:
        ip("link", "set", "lo", "up")
        for network in networks:
            ip("address", "add", network, "dev", "lo", *(("nodad",) if ":" in network else ()))
        yield
    finally:
        call(libc.setns, home, CLONE_NEWNET)
        os.close(home)


def asking(address, place):
    """A command that runs another so that it asks the name server there, as resolv.conf tells."""
    (place / "resolv.conf").write_text(f"nameserver {address}\n")
    return ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"',
            str(place / "resolv.conf")]


class Net:
    addresses = [f"192.0.2.{number}" for number in range(11, 15)]

    def __enter__(self):
        self.home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        call(libc.unshare, CLONE_NEWNET)
        self.near_fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        ip("link", "set", "lo", "up")
        anchor = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL)
        try:
            call(libc.unshare, CLONE_NEWNET)
            self.far_fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            ip("link", "set", "lo", "up")
            ip("link", "add", "v1", "type", "veth", "peer", "name", "v0", "netns", str(anchor.pid))
            ip("link", "set", "v1", "up")
            for address in self.addresses:
                ip("address", "add", f"{address}/32", "dev", "v1")
            ip("route", "add", "192.0.2.1", "dev", "v1")
            hardware = ip("link", "show", "v1").split("link/ether ")[1].split()[0]
        finally:
            call(libc.setns, self.near_fd, CLONE_NEWNET)
            anchor.kill()
            anchor.wait()
        ip("link", "set", "v0", "up")
        ip("address", "add", "192.0.2.1/24", "dev", "v0")
        for address in self.addresses:  # known for good: who is cut off must not be told by ARP
            ip("neighbour", "replace", address, "lladdr", hardware, "dev", "v0", "nud",
               "permanent")
        return self

    def __exit__(self, *_):
        call(libc.setns, self.home, CLONE_NEWNET)
        for fd in (self.home, self.near_fd, self.far_fd):
            os.close(fd)

    @contextlib.contextmanager
    def far(self):
        call(libc.setns, self.far_fd, CLONE_NEWNET)
        try:
            yield self
        finally:
            call(libc.setns, self.near_fd, CLONE_NEWNET)

    def cut(self, address):
        with self.far():
            ip("address", "delete", f"{address}/32", "dev", "v1")

    def mend(self, address):
        with self.far():
            ip("address", "add", f"{address}/32", "dev", "v1")
        time.sleep(0.05)
