# SPDX-License-Identifier: Apache-2.0
"""What a newcomer types first, and what a packager does."""

import os
import shutil
import signal
import socket
import subprocess

import pytest

from daemon import BUILD, ROOT, Holdfast
from peers import end_process, free_port, greets, wait_for


def test_make_run(place):
    """tools/run_quickstart.sh, which `make run` ends in: it says where it listens and what to try,
    and what it says works."""
    smtp, primary, http = free_port(), free_port(), free_port()
    clone = place / "clone"
    for name in ("tools/run_quickstart.sh", "etc/quickstart.conf"):
        text = (ROOT / name).read_text().replace("2525", str(smtp)).replace("2526", str(primary)) \
            .replace("8025", str(http))
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(text)
    (clone / "build").symlink_to(BUILD)
    log = clone / "output"
    with open(log, "wb") as output:
        child = subprocess.Popen(["sh", "tools/run_quickstart.sh", "build"], cwd=clone,
                                 stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                 start_new_session=True)
    try:
        wait_for(lambda: greets(smtp), 20, what="what make run promises")
        said = log.read_text()
        commands = [line.strip() for line in said.splitlines()
                    if line.startswith("    swaks") or line.startswith("    build/holdfast")]
        assert len(commands) == 3, said
        assert f"127.0.0.1:{smtp}" in said
        if shutil.which("swaks") is None:
            pytest.skip("swaks is not installed")
        outputs = [subprocess.run(command, shell=True, cwd=clone, capture_output=True, text=True,
                                  stdin=subprocess.DEVNULL, timeout=60) for command in commands]
        for command, result in zip(commands, outputs):
            assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
        assert "ann@example.com" in outputs[2].stdout
        os.kill(child.pid, signal.SIGINT)  # Control-C
        assert child.wait(timeout=30) == 0
    finally:
        end_process(child)


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
                   "man1/holdfast.1", "man5/holdfast.conf.5", "man5/holdfast-journal.5"):
        assert has(ending), f"{ending} is not among {sorted(installed)}"


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
