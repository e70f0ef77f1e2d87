# SPDX-License-Identifier: Apache-2.0
"""The tool against a scripted core: test_tool.py HOLDFAST"""

import base64
import json
import os
import pathlib
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

from fake_core import FakeCore, end

PROGRAM = os.path.abspath(sys.argv.pop(1))


def message_id(n):
    return "01k2" + "a" * 18 + f"{n:04d}"


def row(n, **more):
    return {"id": message_id(n), "sender": f"bob{n}@client.example",
            "recipients": ["ann@example.com"], "recipient_count": 1, "received": 1700000000000,
            "age": 11520, "bytes": 4321, "attempts": 2, "next": None, "state": "waiting",
            "reason": "connection refused", "server": "m1", "route": "domain:example.com", **more}


class ToolCase(unittest.TestCase):
    def setUp(self):
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="tool-test-"))
        (self.place / "conf").write_text("hostname = a.b\nstate = run\n")
        self.core = None

    def end_core(self):
        self.core.close()
        self.core = None
        (self.place / "run" / "control.sock").unlink()

    def tearDown(self):
        if self.core:
            self.core.close()
        shutil.rmtree(self.place)

    def answers(self, **answers):
        self.core = FakeCore(self.place / "run",
                             {name.replace("_", " "): frames for name, frames in answers.items()})

    def run_tool(self, *arguments, code=0, text=None, environment=None):
        result = subprocess.run([PROGRAM, "-c", "conf", *map(str, arguments)], cwd=self.place,
                                capture_output=True, text=True, timeout=60, input=text or "",
                                env={**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC",
                                     **(environment or {})})
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result

    def json_lines(self, *arguments, code=0):
        return [json.loads(line)
                for line in self.run_tool(*arguments, "--json", code=code).stdout.splitlines()]

    def on_terminal(self, *arguments, environment=None):
        leader, follower = pty.openpty()
        with subprocess.Popen([PROGRAM, "-c", "conf", *arguments], cwd=self.place,
                              stdin=subprocess.DEVNULL, stdout=follower, stderr=follower,
                              env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8",
                                   **(environment or {})}) as child:
            os.close(follower)
            output = b""
            while True:
                try:
                    data = os.read(leader, 65536)
                except OSError:
                    break
                if not data:
                    break
                output += data
            child.wait(30)
        os.close(leader)
        return output.decode()



def member(name, state="up", here=False, lanes=1, one_copy=0):
    return {"name": name, "state": state, "here": here, "lanes": lanes,
            "queue": {"messages": 0, "deliveries": 0, "one_copy": one_copy}}


class Members(ToolCase):
    """What several members of a cluster answer is one answer."""

    def cluster(self, members, answers):
        self.core = FakeCore(self.place / "run", answers, members)

    two = (member("n2"), member("n1", here=True))

    def test_rows_of_all_come_in_the_order_of_acceptance(self):
        self.cluster(self.two, {
            "queue list@n1": [{"row": row(1, sequence=1, part=None)},
                              {"row": row(4, sequence=40, part=None)}, end()],
            "queue list@n2": [{"row": row(2, sequence=2, part=None)},
                              {"row": row(3, sequence=3, part=None)}, end()]})
        rows = self.json_lines("queue", "list")
        self.assertEqual([found["id"] for found in rows], [message_id(n) for n in (1, 2, 3, 4)])
        self.assertEqual([found["missing_nodes"] for found in rows], [[]] * 4)

    def test_parts_of_one_message_are_one_row(self):
        def part(sequence, recipient, **more):
            return {"row": row(1, sequence=sequence, part={"deliveries": 1, "of": 3},
                               recipients=[recipient], **more)}
        self.cluster(self.two, {
            "queue list@n1": [part(1, "a@x", state="held", attempts=1), part(3, "c@x"), end()],
            "queue list@n2": [part(2, "b@x", state="in_flight", server="m2", attempts=7, next=5),
                              {"row": row(2, sequence=4, part=None)}, end()]})
        one, other = self.json_lines("queue", "list")
        self.assertEqual(sorted(one["recipients"]), ["a@x", "b@x", "c@x"])
        self.assertEqual((one["recipient_count"], one["attempts"], one["next"]), (3, 7, 5))
        self.assertEqual((one["state"], one["server"]), ("in_flight", "m2"))
        self.assertEqual(other["id"], message_id(2))

    def test_a_part_alone_waits_for_no_other_for_ever(self):
        """The rest of its message has ended."""
        self.cluster(self.two, {
            "queue list@n1": [{"row": row(1, sequence=1, part={"deliveries": 1, "of": 2})}, end()],
            "queue list@n2": [{"row": row(2, sequence=2, part=None)}, end()]})
        self.assertEqual([found["id"] for found in self.json_lines("queue", "list")],
                         [message_id(1), message_id(2)])

    def test_each_delivery_is_shown_by_its_owner(self):
        def shown(*states):
            return {"row": row(1, sequence=1, part={"deliveries": 1, "of": 3}, deliveries=[
                {"id": f"{message_id(1)}/{n}", "state": state} for n, state in enumerate(states)])}
        self.cluster(self.two, {
            "queue show@n1": [shown("elsewhere", "waiting", "elsewhere"), end()],
            "queue show@n2": [shown("held", "elsewhere", "elsewhere"), end()]})
        one, = self.json_lines("queue", "show", message_id(1))
        self.assertEqual([delivery["state"] for delivery in one["deliveries"]],
                         ["held", "waiting", "finished"])

    def test_who_does_not_answer_is_named(self):
        self.cluster(self.two, {
            "queue list@n1": [{"row": row(1, sequence=1, part=None)}, end()],
            "queue list@n2": [end(4, "node n2 was not reached: it does not answer")]})
        result = self.run_tool("queue", "list", "--json", code=4)
        self.assertEqual(json.loads(result.stdout)["missing_nodes"], ["n2"])
        self.assertIn("holdfast: node n2 was not reached: it does not answer\n", result.stderr)

    def test_what_a_journal_alone_has_is_told(self):
        """No queue has it, but it is accepted mail."""
        nodes = (member("n1", here=True, one_copy=3), member("n2", one_copy=1))
        answers = {"queue list@n1": [end()], "queue list@n2": [end()], "queue list": [end()],
                   "queue hold@n1": [end(1, "nothing matched")],
                   "queue hold@n2": [end(1, "nothing matched")]}
        for words, told in ((("list",), ("n1 has 3 messages", "n2 has 1 message")),
                            (("list", "--local"), ("n1 has 3 messages",)),
                            (("hold", message_id(1)), ("n1 has 3 messages", "n2 has 1 message"))):
            self.cluster(nodes, answers)
            result = self.run_tool("queue", *words, code=1 if words[0] == "hold" else 0)
            self.assertEqual([line.split("node ")[1] for line in result.stderr.splitlines()
                              if "alone" in line],
                             [f"{who} in its journal alone: the queue has them when the database "
                              "takes them" for who in told])
            self.end_core()

    def test_a_dead_member_is_named_and_counts_while_it_owns(self):
        here = member("n1", here=True)
        answers = {"queue list@n1": [{"row": row(1, sequence=1, part=None)}, end()]}
        for code, dead in ((4, member("n2", "down", lanes=3)), (0, member("n2", "down", lanes=0)),
                           (4, member("n2", "down", lanes=0, one_copy=1))):
            self.cluster((here, dead), answers)
            result = self.run_tool("queue", "list", "--json", code=code)
            self.assertEqual(json.loads(result.stdout)["missing_nodes"], ["n2"])
            self.assertIn("node n2 did not answer: it is down", result.stderr)
            self.end_core()

    def test_one_that_has_it_is_enough(self):
        done = {"id": message_id(1) + "/0", "recipient": "a@x", "action": "hold", "done": True,
                "error": None}
        self.cluster(self.two, {"queue hold@n1": [end(1, "nothing matched")],
                                "queue hold@n2": [{"row": done}, end()]})
        result = self.run_tool("queue", "hold", message_id(1))
        self.assertEqual((result.stdout, result.stderr), ("Held 1 delivery.\n", ""))

    def test_nobody_has_it(self):
        self.cluster(self.two, {"queue hold@n1": [end(1, "nothing matched")],
                                "queue hold@n2": [end(1, "nothing matched")]})
        self.assertEqual(self.run_tool("queue", "hold", message_id(1), code=1).stderr,
                         "holdfast: nothing matched\n")

    def test_one_that_fails_is_told_of(self):
        self.cluster(self.two, {"queue hold@n1": [end()],
                                "queue hold@n2": [end(1, "the journal cannot be written")]})
        self.assertIn("n2: the journal cannot be written",
                      self.run_tool("queue", "hold", "--all", code=1).stderr)

    def test_events_of_all_are_one_story(self):
        """By an address only who accepted it is found; the other is asked by its id."""
        def event(time, name, **more):
            return {"row": {"time": time, "event": name, "id": message_id(1), "delivery": None,
                            "sender": None, "recipient": None, "server": None, **more}}
        accepted = event(1, "accepted", sender="bob@y", recipient="z@x, a@x")
        login = {"row": {"time": 2, "event": "login", "id": "0" * 26, "user": "a@x"}}
        delivered = event(3, "delivered", delivery=1)

        def by_id(*rows):
            return lambda arguments: [*rows, end()] if arguments.get("ids") == [message_id(1)] \
                else [end(1, "nothing matched")]
        self.cluster(self.two, {
            "trace@n1": by_id(delivered),
            "trace@n2": lambda arguments: [accepted, end()] if "ids" in arguments
            else [accepted, login, end()]})
        rows = self.json_lines("trace", "a@x")
        self.assertEqual([found["event"] for found in rows], ["accepted", "login", "delivered"])
        self.assertEqual((rows[2]["recipient"], rows[2]["sender"]), ("a@x", "bob@y"))

    def test_one_is_asked_by_name(self):
        self.cluster(self.two, {"queue list@n2": [{"row": row(2)}, end()],
                                "queue list@None": [{"row": row(1)}, end()]})
        self.assertEqual(self.json_lines("queue", "list", "--node", "n2")[0]["id"], message_id(2))
        self.assertEqual(self.json_lines("queue", "list", "--local")[0]["id"], message_id(1))


class Answers(ToolCase):
    STATUS = {"version": "0.1.0", "hostname": "mx2.example.net", "started": 1700000000000,
              "now": 1700000090000, "loading": False, "accepting": True, "accepting_reason": None,
              "queue": {"messages": 3, "deliveries": 4, "bytes": 123456, "oldest_seconds": 11520,
                        "held": 1, "in_doubt": 0},
              "dead_letters": 2,
              "servers": [{"name": "m1", "state": "down", "since": 1699999990000, "failures": 17,
                           "used": 5, "sessions": 0, "reason": "connection refused"}],
              "lanes": [{"route": "domain:example.com", "state": "stopped", "deliveries": 4,
                         "server": None, "done": 0, "oldest_seconds": 11520,
                         "since": 1699992890000, "reason": "m1 down: no route to host"}],
              "disk": {"used_bytes": 1, "available_bytes": 2, "reserve_bytes": 3, "segments": 1,
                       "quarantined": 0},
              "alerts": []}
    MORE = {"route": "relay:out", "state": "idle", "deliveries": 0, "server": None, "done": 0,
            "oldest_seconds": None, "since": None, "reason": None}

    def test_status_is_one_object_joined_from_its_pieces(self):
        self.answers(status=[{"row": self.STATUS}, {"more": {"lanes": [self.MORE]}}, end()])
        (status,) = self.json_lines("status")
        self.assertEqual(status, {**self.STATUS, "lanes": self.STATUS["lanes"] + [self.MORE]})

    def test_status_of_a_drain(self):
        lane = {**self.MORE, "state": "draining", "deliveries": 900, "server": "m1", "done": 300,
                "left": 900, "rate": 25.0, "left_seconds": 36}
        self.answers(status=[{"row": {**self.STATUS, "lanes": [lane]}}, end()])
        self.assertIn("300 of 1200, 25/s, 36s left", self.run_tool("status").stdout)

    def test_status_for_people(self):
        self.answers(status=[{"row": {**self.STATUS, "accepting": False,
                                      "accepting_reason": "disk full"}}, end()])
        text = self.run_tool("status").stdout
        for part in ("mx2.example.net", "up 1m", "No mail is accepted: disk full", "3 messages",
                     "4 deliveries", "3h12m", "1 held", "2 dead letters", "m1", "down", "1m",
                     "connection refused", "domain:example.com", "stopped",
                     "2h00m: m1 down: no route to host"):
            self.assertIn(part, text)
        self.assertNotIn("\033", text)

    def test_colours_only_on_a_terminal_that_wants_them(self):
        self.answers(status=[{"row": self.STATUS}, end()])
        self.assertIn("\033[1;31m", self.on_terminal("status"))
        self.assertNotIn("\033[", self.on_terminal("status", environment={"NO_COLOR": "1"}))

    def test_rows_pass_as_they_came(self):
        rows = [row(1, sender="j\u00fcrgen@b\u00fccher.example"), row(2, extra={"a": [1]})]
        self.answers(queue_list=[{"row": r} for r in rows] + [end()])
        self.assertEqual(self.json_lines("queue", "list"), rows)

    def test_a_long_list_has_one_heading_and_is_not_cut(self):
        reason = "x" * 300
        self.answers(queue_list=[{"row": row(n, reason=reason)} for n in range(2500)] + [end()])
        lines = self.run_tool("queue", "list").stdout.splitlines()
        self.assertEqual(len(lines), 2502)
        self.assertEqual(sum(line.startswith("ID ") for line in lines), 1)
        self.assertTrue(all(reason in line for line in lines[1:-1]))
        self.assertTrue(lines[-1].startswith("2500 messages"))

    def test_texts_of_strangers_do_not_reach_the_terminal(self):
        self.answers(queue_list=[{"row": row(1, sender="a\033[31m\u009b\u202e\u2066@x",
                                             reason="b\r\nc")}, end()])
        text = self.run_tool("queue", "list").stdout
        self.assertIn("a?[31m???@x", text)
        self.assertIn("b??c", text)

    def test_show(self):
        shown = row(1, message_id="<a@b>", header_bytes=9, envelope={},
                    origin={"client": "192.0.2.7", "port": 4711, "helo": "h", "listener": "mx",
                            "protocol": "ESMTP", "tls": None, "user": None, "verdicts": None},
                    deliveries=[])
        delivery = {"id": message_id(1) + "/0", "recipient": "ann@example.com",
                    "state": "deferred", "fate": None, "attempts": 3, "next": 4102444800000,
                    "reason": "450 busy", "server": "m1", "route": "domain:example.com",
                    "redirect_to": "eve@example.com"}
        self.answers(queue_show=[{"row": shown}, {"more": {"deliveries": [delivery]}}, end()])
        text = self.run_tool("queue", "show", message_id(1)).stdout
        for part in (message_id(1), "bob1@client.example", "192.0.2.7", "<a@b>",
                     "ann@example.com > eve@example.com", "next try in", "450 busy"):
            self.assertIn(part, text)

    def test_trace(self):
        event = {"time": 1700000000000, "event": "deferred", "id": message_id(1), "delivery": 0,
                 "sender": "bob@x", "recipient": "ann@y", "server": "m1", "reason": None,
                 "reply": "450 4.2.1 busy", "client": None, "bytes": None, "next": 1700000600000}
        self.answers(trace=[{"row": event}, end()])
        text = self.run_tool("trace", "<find.me@x>").stdout
        self.assertIn("2023-11-14 22:13:20", text)
        self.assertIn("450 4.2.1 busy; next try 2023-11-14 22:23:20", text)
        self.assertEqual(self.core.requests, [("trace", {"what": "<find.me@x>"})])

    def test_watch_prints_at_once(self):
        self.answers(queue_watch=[{"row": {"time": 0, "event": "accepted", "id": message_id(1)}},
                                  None])
        result = self.run_tool("queue", "watch", code=3)
        self.assertIn(message_id(1), result.stdout)


class Requests(ToolCase):
    def test_selection(self):
        self.answers(queue_list=[end(1, "nothing matched")])
        result = self.run_tool("queue", "list", "--domain", "Example.com", "--server=m1",
                               "--sender", "<>", "--recipient", "*@x", "--older", "2h", "--dead",
                               message_id(7), message_id(8) + "/3", code=1)
        self.assertIn("nothing matched", result.stderr)
        self.assertEqual(self.core.requests, [("queue list", {
            "domain": "Example.com", "server": "m1", "sender": "<>", "recipient": "*@x",
            "older": 7200, "dead": True, "ids": [message_id(7), message_id(8) + "/3"]})])

    def test_an_empty_queue_is_no_complaint(self):
        self.answers(queue_list=[end(1, "nothing matched")])
        result = self.run_tool("queue", "list", code=1)
        self.assertEqual(result.stdout, "The queue is empty.\n")
        self.assertEqual(result.stderr, "")

    def test_ids_from_standard_input_go_in_several_requests(self):
        self.answers(queue_hold=[end()])
        ids = [message_id(n % 10000) for n in range(25000)]
        self.run_tool("queue", "hold", "-", text="\n".join(ids))
        sent = [arguments["ids"] for _, arguments in self.core.requests]
        self.assertEqual([len(part) for part in sent], [10000, 10000, 5000])
        self.assertEqual(sum(sent, []), ids)

    def test_no_ids_from_standard_input_is_not_everything(self):
        self.answers(queue_discard=[end()])
        self.run_tool("queue", "discard", "-", code=1)
        self.assertEqual(self.core.requests, [])

    def test_changes_need_a_selection(self):
        self.answers()
        for verb in ("retry", "hold", "release", "discard", "bounce"):
            self.run_tool("queue", verb, code=2)
        self.run_tool("queue", "redirect", "--to", "m2", code=2)
        self.run_tool("queue", "redirect", "--all", code=2)
        self.run_tool("server", "down", code=2)
        self.assertEqual(self.core.requests, [])

    def test_not_now_is_asked_again(self):
        ends = [{"end": {"exit": 1, "error": "still loading", "again": True}}, end()]
        self.answers(queue_hold=lambda arguments: [ends[len(self.core.requests) > 2]])
        self.assertEqual(self.run_tool("queue", "hold", "--all").stderr, "")
        self.assertEqual(self.core.requests, [("queue hold", {"all": True})] * 3)

    def test_changes(self):
        rows = [{"row": {"id": message_id(1) + "/0", "recipient": "a@b", "action": "redirect",
                         "done": done, "error": None if done else "in flight"}}
                for done in (True, False)]
        self.answers(queue_redirect=rows + [end()])
        result = self.run_tool("queue", "redirect", "--all", "--to", "m2")
        self.assertEqual(result.stdout, "Redirected 1 delivery, 1 not.\n")
        self.assertIn("in flight", result.stderr)
        self.assertEqual(self.core.requests, [("queue redirect", {"all": True, "to": "m2"})])

    def resend_times(self, since, zone="CET-1"):
        """What core is asked, in seconds from now."""
        self.core.requests.clear()
        self.run_tool("queue", "resend", "--since", since, environment={"TZ": zone})
        ((command, arguments),) = self.core.requests
        self.assertEqual((command, set(arguments)),
                         ("queue resend", {"since", "dry_run", "again"}))
        return arguments["since"] / 1000

    def test_points_in_time(self):
        self.answers(queue_resend=[end()])
        for text, seconds in (("2026-11-22T14:30Z", 1795357800),
                              ("2026-11-22 14:30", 1795357800 - 3600),
                              ("2026-11-22 14:30:15", 1795357815 - 3600),
                              ("2026-11-22", 1795305600 - 3600), ("@1795305600", 1795305600)):
            self.assertEqual(self.resend_times(text), seconds, text)
        now = time.time()
        self.assertAlmostEqual(self.resend_times("6h"), now - 6 * 3600, delta=20)
        for zone, ahead in (("CET-1", 3600), ("UTC0", 0)):
            for minutes in (-2, 2):  # the last time that the clock showed it
                clock = time.gmtime(now + ahead + minutes * 60)
                want = (now + minutes * 60) // 60 * 60 - (86400 if minutes > 0 else 0)
                self.assertAlmostEqual(
                    self.resend_times(time.strftime("%H:%M", clock), zone), want, delta=61)
        for text in ("yesterday", "25:00", "2026-13-01", "2026-11-22T14:30X", "14:30Q", "", "6",
                     "2026-11-32", "@", "@x"):
            self.run_tool("queue", "resend", "--since", text, code=2)

    def test_resend(self):
        found = {"id": message_id(1), "new_id": message_id(2), "sender": "",
                 "recipients": ["ann@example.com"], "recipient_count": 3, "bytes": 2048,
                 "message_id": None, "handed_over": 1700000000000, "server": "m1", "done": True,
                 "error": None}
        self.answers(queue_resend=[{"row": found}, {"row": {**found, "error": "missing"}}, end()])
        result = self.run_tool("queue", "resend", "--server", "m1", "--until", "@5", "--again",
                               message_id(1))
        self.assertEqual(result.stdout, "Sent 1 message for 3 recipients, 2.0K.\n")
        self.assertIn("missing", result.stderr)
        self.assertEqual(self.core.requests, [("queue resend", {
            "server": "m1", "until": 5000, "again": True, "dry_run": False,
            "ids": [message_id(1)]})])
        result = self.run_tool("queue", "resend", "--all", "--dry-run")
        self.assertIn("ann@example.com and 2 more", result.stdout)
        self.assertIn("Would send 1 message", result.stdout)
        for arguments in ([], ["--dry-run"], ["--again"], ["--all", "--older", "2h"]):
            self.run_tool("queue", "resend", *arguments, code=2)

    def test_changes_show_progress_on_a_terminal(self):
        def slowly(arguments):
            time.sleep(0.4)
            yield {"progress": {"done": 50, "all": 100}}
            yield end()
        self.answers(queue_hold=slowly)
        self.assertIn("50 of 100 messages", self.on_terminal("queue", "hold", "--all"))
        self.assertEqual(self.run_tool("queue", "hold", "--all").stderr, "")

    def test_servers_by_name(self):
        server = {"name": "m1", "state": "disabled", "since": 0, "failures": 0, "used": 0,
                  "sessions": 0, "reason": None, "addresses": ["a:25", "b:25"],
                  "protocol": "smtp", "tls": "none", "connections": 1, "failover": None,
                  "capabilities": None, "size_limit": None, "deliveries": 0}
        self.answers(server_down=lambda arguments: [{"row": server}, end()]
                     if arguments["name"] == "m1" else [end(1, "no such server")])
        self.assertEqual(self.json_lines("server", "down", "m1", "m9", code=1), [server])
        self.assertIn("a:25 +1", self.run_tool("server", "down", "m1").stdout)
        self.assertEqual(self.run_tool("server", "down", "m1", "m9", code=1).stderr,
                         "holdfast: m9: no such server\n")
        self.assertIn("--all                    all servers\n",
                      self.run_tool("server", "down", "--help").stdout)

    def test_usage(self):
        for arguments in ([], ["nonsense"], ["queue"], ["queue", "nonsense"],
                          ["queue", "list", "--nonsense"], ["queue", "list", "--domain"],
                          ["queue", "list", "--older", "long"], ["queue", "list", "--dead=1"],
                          ["status", "--all"], ["status", "more"], ["trace"], ["-x"],
                          ["queue", "export"]):
            result = self.run_tool(*arguments, code=2)
            self.assertTrue(result.stderr.startswith("holdfast: "), result.stderr)
        self.answers()
        self.run_tool("queue", "show", "not-an-id", code=2)

    def test_help_of_every_command(self):
        names = re.findall(r"(?m)^    (\S+(?: \S+)?)  ", self.run_tool("--help").stdout)
        self.assertGreater(len(names), 15)
        for name in names:
            text = self.run_tool(*name.split(), "--help").stdout
            self.assertTrue(text.startswith(f"usage: holdfast {name}"), text)
        self.assertIn("queue retry", self.run_tool("queue", "--help").stdout)

    def test_not_running(self):
        self.assertIn("not running", self.run_tool("status", code=3).stderr)
        self.answers()
        self.core.close()
        self.core = None
        self.assertIn("not running", self.run_tool("status", code=3).stderr)
        (self.place / "conf").unlink()
        self.run_tool("status", code=2)

    def test_a_state_directory_with_a_long_path(self):
        long = "/".join(["x" * 100] * 4)
        (self.place / "conf").write_text(f"hostname = a.b\nstate = {long}\n")
        self.assertIn("not running", self.run_tool("status", code=3).stderr)
        self.core = FakeCore(self.place / long, {"queue list": [end(1)]})
        self.run_tool("queue", "list", code=1)

    def test_a_broken_configuration_does_not_keep_from_the_socket(self):
        (self.place / "conf").write_text("nonsense = 1\nserver {\nstate = other\n}\nstate = run\n")
        self.answers(queue_list=[end(1)])
        self.run_tool("queue", "list", code=1)

    def test_broken_answers(self):
        for frames in ([b"\0\0\0\1x"], [b"\xff\xff\xff\xff"], [b"\0\0\0\2[]"],
                       [b"\0\0\0\x10{", None], [None]):
            self.answers(status=frames)
            result = self.run_tool("status", code=3)
            self.assertTrue(result.stderr.startswith("holdfast: "), result.stderr)
            self.end_core()


class Files(ToolCase):
    CONTENT = {1: b"Subject: x\r\n\r\nhello\r\n", 2: b"", 3: bytes(range(256)) * 4000}

    def head(self, n):
        return {"format": 1, "id": message_id(n), "received": 1700000000000,
                "bytes": len(self.CONTENT[n]), "header_bytes": 14, "message_id": None,
                "envelope": {"sender": "bob@x"}, "origin": {"client": "192.0.2.7"},
                "recipients": [{"n": 0, "address": "r0@y"}]}

    def rows(self, n, more=0):
        yield {"row": self.head(n)}
        if more:
            yield {"more": {"recipients": [{"n": i, "address": f"r{i}@y"}
                                           for i in range(1, more)]}}
        content, at = self.CONTENT[n], 0
        while True:
            part = content[at:at + 300000]
            last = at + len(part) == len(content)
            yield {"row": {"id": message_id(n), "offset": at, "last": last,
                           "content": base64.b64encode(part).decode()}}
            at += len(part)
            if last:
                return

    def export(self, code=0):
        self.answers(queue_export=[*self.rows(1), *self.rows(2), *self.rows(3, 1001), end()])
        return self.run_tool("queue", "export", "out", code=code)

    def test_export(self):
        for _ in range(2):
            self.assertIn("Exported 3 messages", self.export().stdout)
            names = sorted(p.name for p in (self.place / "out").iterdir())
            self.assertEqual(names, sorted(message_id(n) + suffix for n in (1, 2, 3)
                                           for suffix in (".json", ".eml")))
            for n, content in self.CONTENT.items():
                eml = self.place / "out" / (message_id(n) + ".eml")
                self.assertEqual(eml.read_bytes(), content)
                self.assertEqual(eml.stat().st_mode & 0o777, 0o600)
            record = json.loads((self.place / "out" / (message_id(3) + ".json")).read_text())
            self.assertEqual(len(record["recipients"]), 1001)
            self.end_core()

    def test_export_goes_on_after_damage(self):
        for part in ({"content": "YQ=="}, {"content": "", "error": "corrupt"}):
            self.answers(queue_export=[
                *self.rows(1), {"row": self.head(3)},
                {"row": {"id": message_id(3), "offset": 0, "last": True, **part}},
                *self.rows(2), end()])
            result = self.run_tool("queue", "export", "out", code=1)
            self.assertIn("Exported 2 messages", result.stdout)
            self.assertIn(message_id(3), result.stderr)
            self.assertEqual(sorted(p.name for p in (self.place / "out").iterdir()),
                             sorted(message_id(n) + suffix for n in (1, 2)
                                    for suffix in (".json", ".eml")))
            self.end_core()

    def test_failures_of_the_world_are_not_usage(self):
        (self.place / "file").write_text("")
        self.answers(queue_export=[*self.rows(1), end()], status=[{"row": Answers.STATUS}, end()])
        self.assertIn("Not a directory",
                      self.run_tool("queue", "export", "file", code=1).stderr)
        # What is to be written is there already, and is no file.
        (self.place / "out" / ("." + message_id(1) + ".eml")).mkdir(parents=True)
        self.assertIn("Is a directory", self.run_tool("queue", "export", "out", code=1).stderr)
        with open("/dev/full", "w") as full:
            result = subprocess.run([PROGRAM, "-c", "conf", "status"], cwd=self.place, stdout=full,
                                    stderr=subprocess.PIPE, timeout=60)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"No space left", result.stderr)

    def test_after_a_failure_no_more_ids_are_asked_for(self):
        (self.place / "out" / ("." + message_id(1) + ".eml")).mkdir(parents=True)
        self.answers(queue_export=[*self.rows(1), end()])
        ids = "\n".join(message_id(n % 10000) for n in range(30000))
        self.run_tool("queue", "export", "out", "-", text=ids, code=1)
        self.assertEqual(len(self.core.requests), 1)

    def test_export_refuses_nonsense(self):
        gap = [{"row": self.head(1)}, {"row": {"id": message_id(1), "offset": 5, "last": True,
                                              "content": "YQ=="}}, end()]
        evil = [{"row": {**self.head(1), "id": "../../evil"}}, end()]
        early = [{"row": {"id": message_id(1), "offset": 0, "last": True, "content": ""}}, end()]
        for frames in (gap, evil, early):
            self.answers(queue_export=frames)
            self.run_tool("queue", "export", "out", code=1)
            self.assertEqual([p.name for p in (self.place / "out").iterdir()
                              if not p.name.startswith(".")], [])
            self.end_core()

    def test_import_sends_what_was_exported(self):
        self.export()
        self.end_core()
        got = {}

        def take(arguments):
            if "record" in arguments:
                got["now"] = arguments["record"]["id"]
                self.assertNotIn(got["now"], got)
                got[got["now"]] = [arguments["record"], [], b""]
            entry = got[got["now"]]
            entry[1] += arguments.get("recipients", [])
            entry[2] += base64.b64decode(arguments.get("content", ""))
            if not arguments["last"]:
                return [end()]
            result = "exists" if got["now"] == message_id(2) else "imported"
            return [{"row": {"id": got["now"], "result": result}}, end()]
        self.answers(queue_import=take)
        result = self.run_tool("queue", "import", "out")
        self.assertEqual(result.stdout, "Imported 2, here already 1, failed 0.\n")
        self.assertEqual(result.stderr, "")
        del got["now"]
        self.assertEqual(list(got), [message_id(n) for n in (1, 2, 3)])
        for n, content in self.CONTENT.items():
            record, recipients, sent = got[message_id(n)]
            self.assertEqual(sent, content)
            self.assertEqual(record["envelope"], {"sender": "bob@x"})
            self.assertEqual([r["n"] for r in recipients], list(range(1001 if n == 3 else 1)))

    def import_all(self, code=0, refused=(), **more):
        def take(arguments):
            n = arguments["record"]["id"] if "record" in arguments else take.id
            take.id = n
            if n in refused:
                return [end(1, "the disk is full")]
            return ([{"row": {"id": n, "result": "imported"}}] if arguments["last"] else []) + [end()]
        self.answers(queue_import=take, **more)
        result = self.run_tool("queue", "import", "out", code=code)
        asked = [a["record"]["id"] for _, a in self.core.requests if "record" in a]
        self.end_core()
        return result, asked

    def test_what_was_imported_is_not_sent_again(self):
        self.export()
        self.end_core()
        _, asked = self.import_all(code=1, refused=[message_id(2)])
        self.assertEqual(asked, [message_id(n) for n in (1, 2, 3)])
        names = sorted(p.name for p in (self.place / "out").iterdir())
        self.assertEqual(names, [message_id(n) + suffix for n, marked in ((1, True), (2, False),
                                                                          (3, True))
                                 for suffix in (".eml", ".imported" if marked else ".json")])
        result, asked = self.import_all()
        self.assertEqual(asked, [message_id(2)])
        self.assertIn("2 had been imported before", result.stdout)
        result, asked = self.import_all()
        self.assertEqual(asked, [])
        self.assertIn("3 had been imported before", result.stdout)

    def after_a_kill(self, trace, code=0):
        """What a run does with the second message when one before it was killed over that."""
        self.export()
        self.end_core()
        record = self.place / "out" / (message_id(2) + ".json")
        record.rename(record.with_suffix(".sending"))
        result, asked = self.import_all(code=code, trace=trace)
        suffixes = {p.suffix for p in (self.place / "out").iterdir() if p.stem == message_id(2)}
        return result, message_id(2) in asked, suffixes - {".eml"}

    @staticmethod
    def event_at(time):
        return [{"row": {"id": message_id(2), "event": "imported", "time": int(time * 1000)}}, end()]

    def test_what_was_stored_when_the_tool_was_killed_is_not_sent_again(self):
        result, sent, left = self.after_a_kill(self.event_at(time.time() + 1))
        self.assertFalse(sent)
        self.assertEqual(left, {".imported"})
        self.assertIn("Imported 2, here already 1, failed 0.", result.stdout)

    def test_what_was_not_stored_when_the_tool_was_killed_is_sent_again(self):
        for trace in ([end(1)], self.event_at(time.time() - 60)):  # of an earlier stay there
            with self.subTest(trace=trace):
                _, sent, left = self.after_a_kill(trace)
                self.assertTrue(sent)
                self.assertEqual(left, {".imported"})
                shutil.rmtree(self.place / "out")

    def test_what_cannot_be_known_is_left_as_it_is(self):
        result, sent, left = self.after_a_kill([end(2, "no trace")], code=1)
        self.assertFalse(sent)
        self.assertEqual(left, {".sending"})
        self.assertIn("nothing is known", result.stderr)

    def test_a_reply_that_never_came_is_no_refusal(self):
        self.export()
        self.end_core()
        self.answers(queue_import=[end()])
        self.run_tool("queue", "import", "out", code=1)
        self.assertEqual({p.suffix for p in (self.place / "out").iterdir()}, {".eml", ".sending"})

    def test_an_import_that_cannot_be_marked_says_so(self):
        self.export()
        self.end_core()
        for n in (1, 3):
            (self.place / "out" / (message_id(n) + ".imported") / "x").mkdir(parents=True)
        result, asked = self.import_all()
        self.assertEqual(len(asked), 3)
        self.assertEqual(result.stderr.count("do not import it again"), 1)

    def test_import_says_what_is_wrong(self):
        self.export()
        self.end_core()
        out = self.place / "out"
        (out / (message_id(1) + ".eml")).write_bytes(b"cut")
        (out / (message_id(2) + ".json")).write_text("{")
        (out / (message_id(3) + ".eml")).unlink()
        (out / (message_id(3) + ".eml")).symlink_to("/etc/passwd")
        (out / "notes.json").write_text("{}")
        self.answers(queue_import=[end()])
        result = self.run_tool("queue", "import", "out", code=1)
        self.assertEqual(result.stdout, "Imported 0, here already 0, failed 3.\n")
        self.assertEqual(self.core.requests, [])
        self.assertIn("nowhere", self.run_tool("queue", "import", "nowhere", code=1).stderr)
        (self.place / "empty").mkdir()
        self.run_tool("queue", "import", "empty", code=1)


class Check(ToolCase):
    def test_check(self):
        (self.place / "conf").write_text("hostname = a.b\nlisten mx { address = 127.0.0.1 }\n"
                                         "server m1 { address = a }\n"
                                         "domain a { deliver-to = m1 }\n")
        self.assertIn("conf is good: 1 listening, 1 server, 1 domain, 0 relays",
                      self.run_tool("check").stdout)
        self.assertEqual(self.json_lines("check"), [])
        (self.place / "conf").write_text("colour = blue\nlisten x { }\n")
        self.assertIn("conf:1: unknown key 'colour'", self.run_tool("check", code=1).stderr)
        self.assertEqual(self.json_lines("check", code=1), [
            {"file": "conf", "line": 1, "level": "error",
             "message": "unknown key 'colour' in the top of the file"},
            {"file": "conf", "line": 2, "level": "error",
             "message": "listen 'x' needs address = ..."}])

    def test_verify_without_a_journal(self):
        self.assertIn("no journal", self.run_tool("spool", "verify", code=1).stderr)
        self.assertFalse((self.place / "run").exists())


if __name__ == "__main__":
    unittest.main()
