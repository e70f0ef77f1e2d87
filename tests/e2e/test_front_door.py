# SPDX-License-Identifier: Apache-2.0
"""What a newcomer types first, and what a packager does."""

import os
import shutil
import signal
import socket
import subprocess

import pytest

from daemon import BUILD, ROOT, Holdfast, kill_family
from peers import end_process, free_port, greets, wait_for


class Clone:
    """A newcomer's clone: the scripts that `make run` and `make primary` end in, on free ports."""

    def __init__(self, folder):
        self.folder = folder
        self.smtp, self.primary, self.http = free_port(), free_port(), free_port()
        for name in ("tools/run_quickstart.sh", "etc/quickstart.conf"):
            text = (ROOT / name).read_text()
            for port, ours in (("2525", self.smtp), ("2526", self.primary), ("8025", self.http)):
                text = text.replace(port, str(ours))
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        shutil.copy(ROOT / "tools/primary.py", folder / "tools")
        (folder / "build").symlink_to(BUILD)
        (folder / "tests").symlink_to(ROOT / "tests")
        self.children = []

    def start(self, *command, log):
        with open(self.folder / log, "wb") as output:
            child = subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL,
                                     stdout=output, stderr=output, start_new_session=True)
        self.children.append(child)
        return child

    def make_run(self):
        child = self.start("sh", "tools/run_quickstart.sh", "build", log="run.log")
        wait_for(lambda: greets(self.smtp), 20, what="what make run promises")
        return child

    def make_primary(self):
        """As the Makefile starts it; the port comes by argument here."""
        return self.start("/usr/bin/python3", "-B", "tools/primary.py", str(self.primary),
                          log="primary.log")

    def said(self, log):
        return (self.folder / log).read_text(errors="replace")

    def shell(self, command):
        return subprocess.run(command, shell=True, cwd=self.folder, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=60)

    def end(self):
        for child in self.children:
            end_process(child)


@pytest.fixture
def clone(place):
    made = Clone(place / "clone")
    yield made
    made.end()


def control_c(child):
    os.kill(child.pid, signal.SIGINT)
    assert child.wait(timeout=90) == 0


@pytest.mark.skipif(shutil.which("swaks") is None, reason="swaks is not installed")
def test_make_run_and_make_primary(clone):
    """The first half hour: `make run` says where it listens and what to try, and what it says
    works; all is killed and started again; `make primary` shows the message as it arrives."""
    daemon = clone.make_run()
    said = clone.said("run.log")
    assert f"127.0.0.1:{clone.smtp}" in said
    commands = [line.strip() for line in said.splitlines()
                if line.startswith("    swaks") or line.startswith("    build/holdfast")]
    assert len(commands) == 3, said
    outputs = [clone.shell(command) for command in commands]
    for command, result in zip(commands, outputs):
        assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    list_queue = commands[2]
    assert "ann@example.com" in outputs[2].stdout

    kill_family(daemon)
    daemon = clone.make_run()
    primary = clone.make_primary()

    def arrived():
        assert primary.poll() is None, clone.said("primary.log")
        return "to ann@example.com" in clone.said("primary.log")
    wait_for(arrived, 30, what="the message at the primary")
    wait_for(lambda: clone.shell(list_queue).returncode == 1, 10, what="an empty queue")
    assert clone.said("primary.log").count("to ann@example.com") == 1

    # Mail to elsewhere goes by the relay to the primary too, and no further.
    outgoing = clone.shell(f"swaks --server 127.0.0.1:{clone.smtp} --from ann@example.com "
                           "--to you@example.net")
    assert outgoing.returncode == 0, outgoing.stdout
    wait_for(lambda: "to you@example.net" in clone.said("primary.log"), 10, what="outgoing mail")
    control_c(primary)
    control_c(daemon)


def test_make_install(place):
    """Everything has its place, and an administrator's configuration is not overwritten."""
    conf = place / "root/etc/holdfast/holdfast.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text("# mine\n")
    subprocess.run(["meson", "install", "-C", str(BUILD), "--no-rebuild", "--destdir",
                    str(place / "root")], check=True, capture_output=True, cwd=ROOT, timeout=120)
    assert conf.read_text() == "# mine\n"
    installed = {str(p.relative_to(place / "root")) for p in (place / "root").rglob("*")
                 if p.is_file()}

    def has(ending):
        return any(name.endswith(ending) for name in installed)
    for ending in ("/holdfastd", "bin/holdfast", "systemd/system/holdfast.service",
                   "sysusers.d/holdfast.conf", "tmpfiles.d/holdfast.conf", "man8/holdfastd.8",
                   "man1/holdfast.1", "man5/holdfast.conf.5", "man5/holdfast-journal.5",
                   "man5/holdfast-metrics.5", "man5/holdfast-json.5"):
        assert has(ending), f"{ending} is not among {sorted(installed)}"


def test_the_unit_is_sound(place):
    """systemd understands every line; it starts the daemon again for ever, but ever more slowly."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    text = (ROOT / "etc/holdfast.service.in").read_text()
    for name, path in (("bindir", str(place)), ("sysconfdir", "/etc")):
        text = text.replace(f"@{name}@", path)
    shutil.copy("/bin/true", place / "holdfastd")
    unit = place / "holdfast.service"
    unit.write_text(text)
    result = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)],
                            capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    since_254 = ("Unknown key 'RestartSteps'", "Unknown key 'RestartMaxDelaySec'")
    complaints = [line for line in result.stderr.splitlines()
                  if not any(key in line for key in since_254)]
    assert complaints == []
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    assert values["Restart"] == "always" and values["StartLimitIntervalSec"] == "0"
    assert 1 < int(values["RestartSec"]) < int(values["RestartMaxDelaySec"]) <= 60
    assert int(values["RestartSteps"]) > 1
    exposure = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--no-pager",
                               "--threshold=28", str(unit)],
                              capture_output=True, text=True, timeout=60)
    assert exposure.returncode == 0, exposure.stdout


def test_version_and_usage():
    for name in ("holdfastd", "holdfast"):
        binary = BUILD / name if (BUILD / name).exists() else BUILD / "src/app" / name
        version = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10)
        assert version.returncode == 0 and "0.1" in version.stdout
        usage = subprocess.run([binary, "--nonsense"], capture_output=True, text=True, timeout=10)
        assert usage.returncode == 2 and usage.stderr


def test_the_service_manager_is_told(place):
    """READY=1 when it answers, STOPPING=1 when it ends."""
    path = place / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(20)
        mx = Holdfast(place / "holdfast", f'server m1 {{ address = "127.0.0.1:{free_port()}" }}\n'
                      "domain example.com { deliver-to = m1 }\n")
        mx.environment = {"NOTIFY_SOCKET": str(path)}
        mx.start(wait=False)
        try:
            assert b"READY=1" in manager.recv(4096)
            assert greets(mx.port)
            mx.stop()
            assert b"STOPPING=1" in manager.recv(4096)
        finally:
            mx.end()
