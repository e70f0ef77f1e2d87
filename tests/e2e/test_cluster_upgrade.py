# SPDX-License-Identifier: Apache-2.0
"""Programs one version apart on one database, while a cluster is upgraded node by node: what
spool/pg_schema.h promises. The later version's part is played by its migrations, made as it would
make them; what it would write into the tables is not."""

import hashlib
import json
import re

from daemon import ROOT
from peers import wait_for
from test_cluster import (DOMAINS, _database, _hop, _member, recipients,  # noqa: F401
                          wait_for_states)

LOCK = 7526763402218500980

# Only adds, as a version does that lets the one before it go on beside it.
ADDS = """
    CREATE TABLE holdfast.later (a int PRIMARY KEY, b text);
    ALTER TABLE holdfast.nodes ADD later text;
    ALTER TABLE holdfast.shares ADD later int NOT NULL DEFAULT 7;
    ALTER TABLE holdfast.globals ADD later int;
    ALTER TABLE holdfast.parts ADD later int;
    ALTER TABLE holdfast.kept_parts ADD later int;
    ALTER TABLE holdfast.fates ADD later int DEFAULT 7;
    ALTER TABLE holdfast.kept_fates ADD later int DEFAULT 7;
    CREATE INDEX ON holdfast.kept_parts (later)"""
# And what may follow when that one is gone everywhere.
REMOVES = "ALTER TABLE holdfast.globals RENAME COLUMN payload TO place"
UNREMOVES = "ALTER TABLE holdfast.globals RENAME COLUMN place TO payload"


def migrations():
    """Their texts, from the program's own."""
    source = (ROOT / "src/spool/pg_migrations.c").read_text()
    source = re.sub(r"/\*.*?\*/", "", source, flags=re.S)
    texts = {name: "".join(json.loads(literal) for literal in re.findall(r'"(?:[^"\\]|\\.)*"', body))
             for name, body in re.findall(r"static const char (\w+)\[\] =(.*?\");", source, re.S)}
    table = re.search(r"MIGRATIONS\[\] = \{(.*?)\n\};", source, re.S).group(1)
    return [texts[name] for name in re.findall(r"\.sql = (\w+)", table)]


def known():
    """How many this program has."""
    return len(migrations())


def migrate(database, number, oldest, sql):
    """As pg_schema_apply() does it: one transaction, under the lock, impatient with others'."""
    database.sql(f"BEGIN; SET LOCAL lock_timeout = '60s'; SELECT pg_advisory_xact_lock({LOCK});"
                 f" SET LOCAL lock_timeout = '10s'; {sql};"
                 " INSERT INTO holdfast.migrations (number, checksum, oldest)"
                 f" VALUES ({number}, 'of a later version', {oldest}); COMMIT")


def cut_off(database):
    """Every connection of ours ends, and is made anew."""
    database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                 " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'")


def wait_for_mail(hop, count):
    wait_for(lambda: len(hop.messages) >= count, 90, what=f"{count} messages")
    assert len(hop.messages) == count


def test_the_version_before_goes_on_beside_the_next(member, hop, database):
    """Running, and started again; each way through both nodes."""
    n1, n2 = member("n1"), member("n2")
    wait_for_states(n1, n1="up", n2="up")
    sent = 0

    def send_all():
        nonlocal sent
        for number, domain in enumerate(DOMAINS):
            (n1, n2)[number % 2].send([f"r{sent}@{domain}"])
            sent += 1
        wait_for_mail(hop, sent)
    send_all()
    migrate(database, known() + 1, known(), ADDS)
    send_all()
    cut_off(database)
    wait_for_states(n1, n1="up", n2="up")
    send_all()
    n2.stop()
    n2.start()
    wait_for_states(n1, n1="up", n2="up")
    send_all()
    n1.kill()
    n1.start()
    wait_for_states(n2, n1="up", n2="up")
    send_all()
    wait_for(lambda: database.sql("SELECT count(*) FROM holdfast.fates") == [str(sent)], 60,
             what="a fate for each")
    assert len(set(recipients(hop))) == sent
    # It has touched nothing of what it does not know, and done nothing twice.
    assert database.sql("SELECT max(number) FROM holdfast.migrations") == [str(known() + 1)]
    assert database.sql("SELECT count(*) FROM holdfast.shares WHERE later <> 7") == ["0"]


def test_two_versions_on_it_is_refused_and_says_so(member, hop, database):
    """A node that runs, one that is started again and one that is new: each touches nothing, and
    accepts into its journal. When it is upgraded (here: the tables are what they were), it goes on."""
    n1, n2 = member("n1"), member("n2")
    wait_for_states(n1, n1="up", n2="up")
    n1.send(["before@example.com"])
    wait_for_mail(hop, 1)
    wait_for(lambda: database.sql("SELECT count(*) FROM holdfast.fates") == ["1"], 60,
             what="its fate")
    migrate(database, known() + 1, known(), ADDS)
    migrate(database, known() + 2, known() + 1, REMOVES)
    cut_off(database)
    n2.stop()
    n2.start()
    n3 = member("n3")
    words = f"the schema has number {known() + 2}, which wants a program of number " \
            f"{known() + 1}; ours is {known()}"
    for daemon in (n1, n2, n3):  # the first knew that its database was away before
        wait_for(lambda d=daemon: any(words in alert["text"] for alert in d.status()["alerts"]),
                 90, what="an alert that says so")
    for number, daemon in enumerate((n1, n2, n3)):
        daemon.send([f"beside{number}@example.com"])
        wait_for(lambda d=daemon: d.status()["cluster"]["one_copy"] == 1, 60, what="in the journal")
    wait_for(lambda: words in (n1.status()["cluster"]["database"]["reason"] or ""), 60,
             what="why n1 writes nothing")
    assert database.sql("SELECT count(*) FROM holdfast.messages") == ["1"]
    assert database.sql("SELECT count(*) FROM holdfast.nodes") == ["2"]
    assert len(hop.messages) == 1
    database.sql(f"BEGIN; {UNREMOVES}; DELETE FROM holdfast.migrations WHERE number = {known() + 2};"
                 " COMMIT")
    wait_for_mail(hop, 4)
    wait_for_states(n1, n1="up", n2="up", n3="up")
    assert recipients(hop) == ["before@example.com"] + [f"beside{i}@example.com" for i in range(3)]
    for daemon in (n1, n2, n3):
        wait_for(lambda d=daemon: d.status()["cluster"]["one_copy"] == 0, 60, what="forwarded")


def make_older_tables(database):
    """As the version before the last migration left them."""
    database.sql("CREATE SCHEMA holdfast; CREATE TABLE holdfast.migrations (number int PRIMARY KEY,"
                 " checksum text NOT NULL, oldest int NOT NULL,"
                 " applied timestamptz NOT NULL DEFAULT now())")
    for number, text in enumerate(migrations()[:-1], 1):
        digest = hashlib.sha256(text.encode()).hexdigest()
        database.sql(f"{text} INSERT INTO holdfast.migrations (number, checksum, oldest)"
                     f" VALUES ({number}, '{digest}', 1)")


def test_older_tables_are_migrated_once_by_two_that_start_together(member, hop, database):
    """While somebody else is at it, who takes his time."""
    make_older_tables(database)
    holder = database.session()
    holder.write(f"BEGIN; SELECT pg_advisory_xact_lock({LOCK}); SELECT 'has it';\n")
    holder.until("has it")
    n1, n2 = member("n1"), member("n2")
    waiting = "SELECT count(DISTINCT pid) > 1 FROM pg_locks" \
              " WHERE locktype = 'advisory' AND NOT granted"
    wait_for(lambda: database.sql(waiting) == ["t"], 60, what="two that wait for the lock")
    n1.send(["waits@example.com"])
    assert database.sql("SELECT max(number) FROM holdfast.migrations") == [str(known() - 1)]
    assert len(hop.messages) == 0
    holder.write("COMMIT;\n")
    wait_for_states(n1, n1="up", n2="up")
    wait_for_mail(hop, 1)
    assert database.sql("SELECT count(*), max(number) FROM holdfast.migrations") \
        == [f"{known()}|{known()}"]
    holder.close()
