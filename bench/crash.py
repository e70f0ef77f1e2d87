# SPDX-License-Identifier: Apache-2.0
"""The row of crashes: not fast or slow, but lost or not."""

import re
import subprocess

from servers import BUILD
from table import Row


def crash(scale, place):
    """The journal after a crash at every operation, writes torn; the whole program killed and cut."""
    journal = subprocess.run([BUILD / "tests/spool/test_crash"], capture_output=True, text=True,
                             timeout=900, cwd=place)
    points = sum(map(int, re.findall(r"(\d+) crashes looked at", journal.stdout)))
    yield Row("journal: crash points, unsynced writes kept, dropped or torn", f"{points:,}", "", "",
              None, ">= 10,000, 0 harmed", journal.returncode == 0 and points >= 10000)
    seeds = scale.messages(300)
    world = subprocess.run([BUILD / "tests/sim/test_simulation", "1", str(seeds)],
                           capture_output=True, text=True, timeout=1800, cwd=place)
    runs = re.findall(r"acknowledged (\d+), .* doubled (\d+) \((\d+) excused\), lost (\d+)",
                      world.stdout)
    acknowledged, doubled, excused, lost = (sum(int(run[i]) for run in runs) for i in range(4))
    yield Row(f"simulated kills and power failures, {len(runs)} seeds: lost",
              f"{lost} of {acknowledged:,}", "", "", None, "0",
              world.returncode == 0 and lost == 0 and len(runs) == seeds)
    yield Row("and delivered twice", f"{doubled}", "connections cut by a kill", f"{excused:,}", None,
              "<= one per connection", world.returncode == 0 and doubled <= excused)
