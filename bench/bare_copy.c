/* SPDX-License-Identifier: Apache-2.0
 *
 * What PostgreSQL takes at most from clients that do nothing but COPY: each of CONNECTIONS commits
 * GROUP messages at a time into one table of ids and bytes, without an index, compression or
 * partitions, and begins the next ones as soon as it hears of the commit. Beside it stands a node
 * of a cluster (bench/member.py).
 *
 *   bare_copy CONNINFO MESSAGES CONNECTIONS GROUP ENVELOPE CONTENT
 *
 * The last two are bytes of each message. Makes the table `bare` anew. Prints the seconds that it
 * took.
 */
#include "sys/clock.h"
#include "sys/database.h"

#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

enum { CONNECTIONS_MAX = 1000 };

struct client {
    PGconn *connection;
    size_t left; /* groups, with the one under way */
};

struct bench {
    struct client clients[CONNECTIONS_MAX];
    struct pollfd ready[CONNECTIONS_MAX];
    struct id_maker maker;
    struct buffer out;
    uint8_t *text;
    size_t group, envelope, content;
};

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static void connect_all(struct bench *bench, const char *conninfo, size_t count)
{
    static const char *const prepare[] = {
        "SET client_min_messages = warning",
        "DROP TABLE IF EXISTS bare",
        "CREATE TABLE bare (id uuid, envelope bytea, content bytea)",
        /* Else it would spend its time compressing. */
        "ALTER TABLE bare ALTER envelope SET STORAGE EXTERNAL",
        "ALTER TABLE bare ALTER content SET STORAGE EXTERNAL",
    };
    for (size_t i = 0; i < count; i++) {
        PGconn *connection = PQconnectdb(conninfo);
        if (PQstatus(connection) != CONNECTION_OK) {
            fail("connect", PQerrorMessage(connection));
        }
        for (size_t s = 0; i == 0 && s < sizeof(prepare) / sizeof(prepare[0]); s++) {
            PGresult *result = PQexec(connection, prepare[s]);
            if (PQresultStatus(result) != PGRES_COMMAND_OK) {
                fail(prepare[s], PQerrorMessage(connection));
            }
            PQclear(result);
        }
        if (PQsetnonblocking(connection, 1) != 0) {
            fail("connect", PQerrorMessage(connection));
        }
        bench->clients[i].connection = connection;
    }
}

static void begin(struct client *client)
{
    if (!PQsendQuery(client->connection, "COPY bare FROM STDIN (FORMAT binary)")) {
        fail("COPY", PQerrorMessage(client->connection));
    }
}

static void copy(struct bench *bench, struct client *client)
{
    struct buffer *out = &bench->out;
    buffer_clear(out);
    database_copy_header(out);
    for (size_t i = 0; i < bench->group; i++) {
        database_copy_row(out, 3);
        database_put_uuid(out, id_make(&bench->maker, clock_wall_ms()));
        database_put_bytes(out, slice_make(bench->text, bench->envelope));
        database_put_bytes(out, slice_make(bench->text, bench->content));
    }
    database_copy_trailer(out);
    if (out->failed ||
        PQputCopyData(client->connection, (const char *)out->data, (int)out->length) != 1 ||
        PQputCopyEnd(client->connection, NULL) != 1) {
        fail("COPY", PQerrorMessage(client->connection));
    }
}

/* What its server has said; true when it has no more to do. */
static bool go_on(struct bench *bench, struct client *client)
{
    if (!PQconsumeInput(client->connection)) {
        fail("COPY", PQerrorMessage(client->connection));
    }
    while (!PQisBusy(client->connection)) {
        PGresult *result = PQgetResult(client->connection);
        ExecStatusType status = result != NULL ? PQresultStatus(result) : PGRES_EMPTY_QUERY;
        PQclear(result);
        if (result == NULL) { /* committed */
            if (--client->left == 0) {
                return true;
            }
            begin(client);
        } else if (status == PGRES_COPY_IN) {
            copy(bench, client);
            return false;
        } else if (status != PGRES_COMMAND_OK) {
            fail("COPY", PQerrorMessage(client->connection));
        }
    }
    return false;
}

static void run(struct bench *bench, size_t connections, size_t groups)
{
    size_t live = connections;
    for (size_t i = 0; i < connections; i++) {
        bench->clients[i].left = groups;
        bench->ready[i].fd = PQsocket(bench->clients[i].connection);
        begin(&bench->clients[i]);
    }
    while (live > 0) {
        for (size_t i = 0; i < connections; i++) {
            bool more = bench->ready[i].fd >= 0 && PQflush(bench->clients[i].connection) > 0;
            bench->ready[i].events = (short)(POLLIN | (more ? POLLOUT : 0));
        }
        if (poll(bench->ready, connections, -1) < 0) {
            fail("poll", "failed");
        }
        for (size_t i = 0; i < connections; i++) {
            if ((bench->ready[i].revents & ~POLLOUT) != 0 && go_on(bench, &bench->clients[i])) {
                bench->ready[i].fd = -1;
                live--;
            }
        }
    }
}

static size_t number(const char *text)
{
    return strtoul(text, NULL, 10);
}

int main(int argc, char **argv)
{
    static struct bench bench = {.maker = {.node = 1, .start = 7}};
    if (argc != 7 || number(argv[3]) == 0 || number(argv[3]) > CONNECTIONS_MAX ||
        number(argv[4]) == 0) {
        fprintf(stderr, "bare_copy CONNINFO MESSAGES CONNECTIONS GROUP ENVELOPE CONTENT\n");
        return 2;
    }
    size_t connections = number(argv[3]);
    bench.group = number(argv[4]);
    bench.envelope = number(argv[5]);
    bench.content = number(argv[6]);
    size_t groups = number(argv[2]) / (connections * bench.group);
    size_t longest = bench.envelope > bench.content ? bench.envelope : bench.content;
    buffer_init(&bench.out, 0);
    bench.text = calloc(1, longest + 1);
    if (bench.text == NULL || groups == 0) {
        fail("messages", "none");
    }
    memset(bench.text, 'x', longest);
    connect_all(&bench, argv[1], connections);
    run(&bench, connections, 3); /* to warm up */
    int64_t from = clock_steady_ns();
    run(&bench, connections, groups);
    printf("%.3f\n", (double)(clock_steady_ns() - from) / 1e9);
    for (size_t i = 0; i < connections; i++) {
        PQfinish(bench.clients[i].connection);
    }
    buffer_done(&bench.out);
    free(bench.text);
    return 0;
}
