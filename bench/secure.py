# SPDX-License-Identifier: Apache-2.0
"""Rows: what TLS costs. Handshakes are full ones, and the client makes its half of each on the same
processors."""

import json
import shutil
import subprocess
import time

from clients import cload, median
from servers import BUILD, Ours, PostfixPeer, free_port, raise_file_limit
from table import Row

from certificates import Authority


def certificate_at(place):
    shutil.rmtree(place / "root", ignore_errors=True)
    return Authority(place).certificate("mx2.example.net")


def rate(server, port, messages, *how):
    """Messages a second into a fresh server, after a warming run."""
    server.start()
    try:
        cload(port, messages // 10, 20, 4096, *how)
        result = cload(port, messages, 20, 4096, *how)
        assert result["acknowledged"] == messages, result
        return messages / result["seconds"]
    finally:
        server.stop()


def tls(scale, place):
    """TLS 1.3: durable accept over connections that are kept, and over new ones; idle connections."""
    certificate = certificate_at(place)
    kept, plain, new, peer = [], [], [], []
    for _ in range(scale.rounds):
        server = Ours(place, free_port(), certificate=certificate)
        plain.append(rate(server, server.port, scale.messages(40000)))
        server = Ours(place, free_port(), certificate=certificate)
        kept.append(rate(server, server.tls_port, scale.messages(40000), "-T"))
        server = Ours(place, free_port(), certificate=certificate)
        new.append(rate(server, server.tls_port, scale.messages(5000), "-T", "-1"))
        other = PostfixPeer(place, free_port(), "tuned+hold", certificate)
        peer.append(rate(other, other.port, scale.messages(2000), "-T", "-1"))
    ratio = median([t / p for t, p in zip(kept, plain)])
    yield Row("durable accept, 4 KB, TLS 1.3, 20 sessions", f"{median(kept):,.0f}/s",
              "in the clear", f"{median(plain):,.0f}/s", ratio, ">= 0.5 x", ratio >= 0.5)
    ratio = median([n / p for n, p in zip(new, peer)])
    yield Row("new TLS connections, a message each", f"{median(new):,.0f}/s",
              "Postfix tuned, on hold", f"{median(peer):,.0f}/s", ratio, ">= 1.5 x", ratio >= 1.5)
    yield idle_by_tls(scale, place, certificate)


def idle_by_tls(scale, place, certificate):
    wanted = min(scale.messages(10000), raise_file_limit() - 32)
    server = Ours(place, free_port(), certificate=certificate).start()
    try:
        time.sleep(1)
        before = server.mx.memory_bytes()
        client = subprocess.Popen([BUILD / "tools/cidle", str(server.tls_port), str(wanted), "120",
                                   "tls"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                  preexec_fn=raise_file_limit)
        answer = json.loads(client.stdout.readline())
        after = server.mx.memory_bytes()
        client.stdin.close()
        client.wait(timeout=60)
    finally:
        server.stop()
    assert answer["welcomed"] == wanted, answer
    each = (after - before) / wanted
    return Row(f"memory per idle TLS connection, {wanted:,}", f"{each / 1024:,.1f} KB", "", "", None,
               "<= 40 KB", each <= 40 << 10)
