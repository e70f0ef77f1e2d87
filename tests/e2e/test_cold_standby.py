# SPDX-License-Identifier: Apache-2.0
"""The recipes of docs/cold-standby.md, as they stand in docs/examples: with real addresses that
move between machines, and keepalived. Of libvirt a stand-in says what it was asked."""

import contextlib
import re
import shutil
import socket
import subprocess

import pytest

from cluster.hosts import Hosts, why_no_hosts
from daemon import ROOT, Holdfast, backup_mx
from netns import ip
from peers import wait_for
from client import Dialogue
from test_guard import LONG, alerts, block, guard_of, wait_state
from test_hooks import script

EXAMPLES = ROOT / "docs/examples"
PLACE = "10.91.0.100"  # the address that moves

needs_hosts = pytest.mark.skipif(why_no_hosts() is not None, reason=str(why_no_hosts()))


@pytest.fixture
def hosts(place):
    with contextlib.ExitStack() as stack:
        yield lambda *names: stack.enter_context(Hosts(place, names))


@pytest.fixture
def daemons():
    made = []
    yield made
    for daemon in made:
        daemon.end()


def start_holdfast(daemons, host, routes):
    """One on a host, at all its addresses."""
    mx = Holdfast(host.root / "holdfast", "", port=25)
    mx.conf.write_text(f"""\
hostname = {host.name}.example.net
state = "{mx.state}"
listen mx {{ address = "0.0.0.0:25" }}
listen web {{ address = "127.0.0.1:8025" protocol = http }}
{routes}
""")
    mx.wrapper = host.prefix()
    daemons.append(mx)
    mx.start(wait=False)
    wait_for(lambda: mx.tool("status", check=False).returncode == 0, LONG, 0.2, "holdfast")
    return mx


def send(host, address, subject):
    """True if the message was accepted there."""
    try:
        with host.inside(), Dialogue(25, timeout=5, address=address) as dialogue:
            dialogue.send("bob@client.example", ["ann@example.com"],
                          f"Subject: {subject}\r\n\r\nHello.\r\n".encode())
            return True
    except OSError:
        return False


def has(host, address=PLACE):
    return f" {address}/24 " in ip("-n", host.namespace.name, "-o", "address", "show", "dev", "eth0")


def mail_sink(host, name="mail"):
    """A mail service to be started and stopped, and what it has been given."""
    folder = host.root / name
    folder.mkdir()
    script(folder, "start", f"cd {folder}\n"
           "setsid smtp-sink -u root -D got. 0.0.0.0:25 100 < /dev/null > log 2>&1 &\n"
           "echo $! > pid\n")
    script(folder, "stop", f"cd {folder}\n[ ! -e pid ] || kill $(cat pid) || true\nrm -f pid\n")
    return folder


def subjects(folder):
    try:
        return re.findall(r"^Subject: (.*)$", (folder / "got.").read_text(), re.M)
    except OSError:
        return []


@needs_hosts
@pytest.mark.skipif(shutil.which("keepalived") is None, reason="keepalived is not installed")
def test_keepalived_moves_the_address_when_holdfast_takes_no_mail(hosts, daemons):
    bed = hosts("a", "b", "client", "m1")
    a, b, client, m1 = bed
    sink = mail_sink(m1)
    m1.run([sink / "start"])
    routes = f'server m1 {{ address = "{m1.address}:25" }}\n' \
             "domain example.com { deliver-to = m1 }\n"
    first = start_holdfast(daemons, a, routes)
    start_holdfast(daemons, b, routes)
    text = (EXAMPLES / "keepalived.conf").read_text()
    for host, other, priority in (a, b, 100), (b, a, 90):
        conf = host.root / "keepalived.conf"
        conf.write_text(text.replace("192.0.2.21", host.address)
                        .replace("192.0.2.22", other.address).replace("192.0.2.25", PLACE)
                        .replace("priority 100", f"priority {priority}"))
        conf.chmod(0o644)
        host.start("keepalived", ["keepalived", "--dont-fork", "--log-console", "--vrrp",
                                  "-f", conf, "-p", host.root / "pid", "-r", host.root / "vrrp"])
    try:
        wait_for(lambda: has(a) and not has(b), LONG, 0.1, "the address at the first")
        wait_for(lambda: send(client, PLACE, "to a"), LONG, 0.2, "mail for the address")
        wait_for(lambda: "to a" in subjects(sink), LONG, 0.1, "its delivery")
        first.kill()
        wait_for(lambda: has(b) and not has(a), LONG, 0.1, "the address at the second")
        wait_for(lambda: send(client, PLACE, "to b"), LONG, 0.2, "mail for the address")
        wait_for(lambda: "to b" in subjects(sink), LONG, 0.1, "its delivery")
        first.start(wait=False)
        wait_for(lambda: first.tool("status", check=False).returncode == 0, LONG, 0.2)
        wait_for(lambda: "succeeded" in a.log("keepalived").rsplit("failed", 1)[-1], LONG, 0.2,
                 "keepalived's trust")
        assert has(b) and not has(a)  # nopreempt
        b.kill()
        wait_for(lambda: has(a), LONG, 0.1, "the address at the first again")
    except AssertionError:
        print(a.log("keepalived"), b.log("keepalived"))
        raise


@needs_hosts
def test_a_standby_takes_the_primarys_address_and_gives_it_back(hosts, daemons):
    """The primary is cut off, not dead: it is switched off first. When its machine is back, it gets
    its place again."""
    bed = hosts("n1", "m1", "m2", "router")
    n1, m1, m2, router = bed
    sinks = {}
    for host in m1, m2:
        sinks[host.name] = folder = mail_sink(host)
        text = (EXAMPLES / "place").read_text()
        (host.root / "place.conf").write_text(
            f"address={PLACE}/24 interface=eth0 storage=none\n"
            f"start={folder}/start stop={folder}/stop\n")
        (host.root / "place").write_text(text.replace("/etc/place.conf",
                                                      str(host.root / "place.conf")))
        (host.root / "place").chmod(0o755)

    def over_there(host):  # what ssh does between real machines
        return f"nsenter --net={host.namespace} env PATH={host.root}:/usr/sbin:/usr/bin:/sbin:/bin"

    fence = script(n1.root, "fence", f"for pid in $(ip netns pids {m1.namespace.name}); do\n"
                   f"kill -9 $pid\ndone\necho off >> {n1.root}/fenced\n")
    (n1.root / "standby.conf").write_text(
        f'fence={fence}\nprimary="{over_there(m1)}"\nstandby="{over_there(m2)}"\n')
    program = n1.root / "standby"
    program.write_text((EXAMPLES / "standby").read_text().replace("/etc/holdfast/standby.conf",
                                                                  str(n1.root / "standby.conf")))
    program.chmod(0o755)
    with contextlib.ExitStack() as stack:
        for host in m1, router:  # what answers at their own addresses
            with host.inside():
                stack.enter_context(socket.create_server((host.address, 22)))
        subprocess.run([*over_there(m1).split(), "place", "take"], check=True)
        mx = start_holdfast(
            daemons, n1,
            f'server m1 {{ address = "{PLACE}:25" connect-timeout = 5s }}\ndomain example.com {{ deliver-to = m1 }}\n'
            + block(f'start = "{program}" undo = "{program}" watch = "{m1.address}:22" '
                    f'witness = "{router.address}:22" undo-when = watch back-after = 2s',
                    after="2s"))
        wait_state(mx, "watching")
        assert send(n1, n1.address, "one")
        wait_for(lambda: subjects(sinks["m1"]) == ["one"], LONG, 0.1)

        bed.cut(["m1"])
        assert send(n1, n1.address, "two")
        wait_state(mx, "taken-over", seconds=300)  # what hangs is given time
        assert m1.pids() == [] and (n1.root / "fenced").read_text() == "off\n"
        assert guard_of(mx)["output"] == "the standby has the place of m1"
        assert has(m2) and "guard" in alerts(mx)
        wait_for(lambda: subjects(sinks["m2"]) == ["two"], 300, 0.1, "mail at the standby")

        ip("-n", m1.namespace.name, "address", "delete", f"{PLACE}/24", "dev", "eth0")  # it boots
        (sinks["m1"] / "pid").unlink()
        bed.mend()
        wait_state(mx, "watching", "resting", seconds=300)
        assert has(m1) and not has(m2) and m2.pids() == []
        assert guard_of(mx)["output"] == "m1 has its place again"
        assert send(n1, n1.address, "three")
        wait_for(lambda: subjects(sinks["m1"]) == ["one", "three"], 300, 0.1)
        assert (n1.root / "fenced").read_text() == "off\n"


@needs_hosts
def test_nothing_is_started_when_the_primary_cannot_be_switched_off(hosts, daemons):
    n1, m2 = hosts("n1", "m2")
    (n1.root / "standby.conf").write_text(
        f'fence=false\nprimary=true\nstandby="touch {m2.root}/taken"\n')
    program = n1.root / "standby"
    program.write_text((EXAMPLES / "standby").read_text().replace("/etc/holdfast/standby.conf",
                                                                  str(n1.root / "standby.conf")))
    program.chmod(0o755)
    mx = start_holdfast(daemons, n1, backup_mx(24) + block(f'start = "{program}"'))
    mx.tool("guard", "start", "m1")
    wait_state(mx, "start-failed")
    assert "cannot be switched off: nothing is started" in guard_of(mx)["output"]
    assert not (m2.root / "taken").exists()


class Libvirt:
    """Stands for virsh at two hosts: what it was asked, and each guest's state in a file."""

    def __init__(self, place):
        self.place = place
        self.log = place / "asked"
        self.log.touch()
        for host in "host1", "host2":
            (place / host).write_text("shut off")
        self.virsh = script(place, "virsh", f"""
host=$1 verb=$2 guest=$3
[ ! -e {place}/$host.away ] || exit 1
[ $verb = domstate ] || echo "$host $verb $guest" >> {self.log}
case $verb in
domstate) cat {place}/$host ;;
start) [ "$(cat {place}/$host)" = "shut off" ] && echo running > {place}/$host ;;
shutdown|destroy) echo "shut off" > {place}/$host ;;
esac
""")
        (place / "conf").write_text(f"guest=mail primary='{self.virsh} host1' "
                                    f"standby='{self.virsh} host2' fence=\n")
        self.program = place / "standby"
        self.program.write_text((EXAMPLES / "standby-libvirt").read_text()
                                .replace("/etc/holdfast/standby-libvirt.conf", str(place / "conf")))
        self.program.chmod(0o755)

    def run(self, event):
        return subprocess.run([self.program], env={"HOLDFAST_EVENT": event, "HOLDFAST_SERVER": "m1"},
                              capture_output=True, text=True, check=False)

    def asked(self):
        return self.log.read_text().splitlines()

    def state(self, host):
        return (self.place / host).read_text().strip()


def test_a_guest_of_libvirt_stands_in(holdfast, sink, place):
    libvirt = Libvirt(place)
    (place / "host1").write_text("running")
    m1 = sink()
    mx = holdfast(backup_mx(m1.port)
                  + block(f'start = "{libvirt.program}" undo = "{libvirt.program}"'))
    wait_state(mx, "watching")
    m1.stop()
    mx.send()
    wait_state(mx, "taken-over")
    assert libvirt.asked() == ["host1 destroy mail", "host2 start mail"]
    mx.tool("guard", "undo", "m1")
    wait_state(mx, "resting")
    assert libvirt.asked()[2:] == ["host2 shutdown mail", "host1 start mail"]
    assert (libvirt.state("host1"), libvirt.state("host2")) == ("running", "shut off")


def test_a_guest_is_started_only_when_the_other_is_off_for_certain(place):
    libvirt = Libvirt(place)
    (place / "host1").write_text("running")
    (place / "host1.away").touch()
    start = libvirt.run("start")
    assert start.returncode == 1 and "nobody knows that mail is off" in start.stdout
    (place / "conf").write_text((place / "conf").read_text().replace("fence=", "fence=false"))
    assert libvirt.run("start").returncode == 1 and libvirt.asked() == []
    (place / "conf").write_text((place / "conf").read_text().replace("fence=false", "fence=true"))
    assert libvirt.run("start").returncode == 0 and libvirt.state("host2") == "running"
    undo = libvirt.run("undo")  # its own host is still away
    assert undo.returncode == 1 and libvirt.state("host2") == "running"
    again = libvirt.run("start")
    assert again.returncode == 1 and "already" in again.stdout
