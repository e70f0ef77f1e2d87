# SPDX-License-Identifier: Apache-2.0
"""Who gets a server's connections: lanes in their turns (R6), and as many recipients and messages
as the server says that it takes (LIMITS, RFC 9422)."""

import subprocess

from daemon import BUILD, backup_mx
from peers import free_port, wait_for
from sink import EXTENSIONS

HELD = 20000
A_TURN = 300 * 1024 // 4096  # messages, at most, that a lane sends before another's turn


def test_new_mail_does_not_wait_behind_anothers_drain(holdfast, sink):
    port = free_port()
    mx = holdfast(f'server m1 {{ address = "127.0.0.1:{port}" connections = 2 }}\n'
                  "domain a.example { deliver-to = m1 }\ndomain b.example { deliver-to = m1 }\n")
    subprocess.run([BUILD / "tools/cload", "-m", str(HELD), "-s", "20", "-l", "500", "-r", "200",
                    "-p", "-d", "a.example", str(mx.port)],
                   check=True, stdout=subprocess.DEVNULL, timeout=120)
    assert mx.status()["queue"]["messages"] == HELD
    came = []  # how many of the drain were there before each

    def rule(stage, _, argument):
        if stage == "RCPT" and "@b.example" in argument:
            came.append(len(hop.messages))

    hop = sink(rule, port=port, start=False).start()
    for number in range(3):
        wait_for(lambda: len(hop.messages) > 1000 * (number + 1), 60, what="the drain")
        mx.send(recipients=[f"new{number}@b.example"])
        accepted = len(hop.messages)
        wait_for(lambda: len(came) > number, 60, 0.001, "the new mail")
        assert came[number] < HELD / 2  # the drain goes on
        # Each of two sessions may have two messages when it comes.
        assert came[number] <= accepted + A_TURN + 4


def test_a_server_gets_what_it_says_that_it_takes(holdfast, sink):
    port = free_port()
    mx = holdfast(backup_mx(port, server="connections = 2"))
    everybody = [f"r{number}@example.com" for number in range(7)]
    for number in range(10):
        mx.send(recipients=everybody if number % 5 == 0 else everybody[number % 5:][:1])

    def over(stage, session, _):
        """Says of what is too much that it is."""
        said = [command[:4].upper() for command in session.commands]
        transactions = said.count("MAIL")
        if stage == "MAIL" and transactions > 3:
            return "421 4.7.0 Too much"
        if stage == "RCPT" and len(session.message.recipients) == 2:
            return "452 4.5.3 Too many"
        return None

    refused = []

    def rule(*asked):
        said = over(*asked)
        refused.extend([said] if said else [])
        return said

    hop = sink(rule, port=port, extensions=(*EXTENSIONS, "LIMITS RCPTMAX=2 MAILMAX=3"))
    mx.wait_empty()
    assert not refused
    assert len(hop.recipients()) == 2 * 7 + 8
    assert max(len(message.recipients) for message in hop.messages) == 2
    sessions = [message.session for message in hop.messages]
    assert max(sessions.count(session) for session in sessions) == 3
