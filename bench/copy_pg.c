/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tables of the cluster cost (docs/decisions/0045): a bare COPY client by libpq, into one
 * table of ids and bytes without an index, beside COPY of messages and parts into our schema, by
 * turns on one server, with the same bytes in the same groups, each group committed.
 *
 *   copy_pg CONNINFO GROUPS GROUP BYTES [SQL]     pairs of groups; SQL is run when all is made
 *   copy_pg CONNINFO GROUPS GROUP BYTES only      our side alone
 *
 * Makes the schema `holdfast` and the table `bare` anew. Prints one line for each tenth of the run:
 * messages held, microseconds a message of either side, and their ratio (bare / ours), the median
 * of the pairs, and what our side took of the server's processor; at the end that of both sides
 * (where the server is on this machine), and what they wrote of its log.
 */
#include "spool/pg_partition.h"
#include "spool/pg_schema.h"
#include "sys/clock.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { LONG_MS = 600000, ENVELOPE_BYTES = 320, SHARES = 128, LINES = 10 };

struct bench {
    PGconn *bare;
    struct database *ours;
    struct id_maker maker;
    struct buffer first, second; /* what is copied */
    uint8_t *text;               /* of all contents, at varying places */
    size_t text_length;
    size_t group, bytes;
    unsigned random;
};

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static unsigned draw(struct bench *bench)
{
    bench->random = bench->random * 1103515245u + 12345u;
    return bench->random >> 8;
}

/* Words of differing length in lines, about as compressible as mail. */
static void make_text(struct bench *bench)
{
    bench->text_length = 1 << 22;
    bench->text = malloc(bench->text_length);
    if (bench->text == NULL) {
        fail("text", "out of memory");
    }
    for (size_t at = 0; at < bench->text_length;) {
        unsigned word = draw(bench) % 20000;
        for (unsigned i = 0; i < 2 + word % 7 && at < bench->text_length; i++) {
            bench->text[at++] = (uint8_t)('a' + (word * (i + 3) + word / 7 * i) % 26);
        }
        if (at < bench->text_length) {
            bench->text[at++] = draw(bench) % 12 == 0 ? '\n' : ' ';
        }
    }
}

static struct slice content(struct bench *bench, size_t length)
{
    return slice_make(bench->text + draw(bench) % (bench->text_length - length), length);
}

static void good(struct bench *bench, enum database_outcome outcome, const char *what)
{
    if (outcome != DATABASE_DONE) {
        fail(what, database_error(bench->ours));
    }
}

/* ---- the two sides ----------------------------------------------------------------------------
 */

static void bare_run(struct bench *bench, const char *sql, ExecStatusType wanted)
{
    PGresult *result = PQexec(bench->bare, sql);
    if (PQresultStatus(result) != wanted) {
        fail(sql, PQerrorMessage(bench->bare));
    }
    PQclear(result);
}

static void bare_group(struct bench *bench)
{
    struct buffer *out = &bench->first;
    buffer_clear(out);
    database_copy_header(out);
    for (size_t i = 0; i < bench->group; i++) {
        database_copy_row(out, 3);
        database_put_uuid(out, id_make(&bench->maker, clock_wall_ms()));
        database_put_bytes(out, content(bench, ENVELOPE_BYTES));
        database_put_bytes(out, content(bench, bench->bytes));
    }
    database_copy_trailer(out);
    bare_run(bench, "COPY bare FROM STDIN (FORMAT binary)", PGRES_COPY_IN);
    if (PQputCopyData(bench->bare, (const char *)out->data, (int)out->length) != 1 ||
        PQputCopyEnd(bench->bare, NULL) != 1) {
        fail("COPY", PQerrorMessage(bench->bare));
    }
    PGresult *result;
    while ((result = PQgetResult(bench->bare)) != NULL) {
        if (PQresultStatus(result) != PGRES_COMMAND_OK) {
            fail("COPY", PQerrorMessage(bench->bare));
        }
        PQclear(result);
    }
}

static void our_group(struct bench *bench)
{
    struct buffer *messages = &bench->first, *parts = &bench->second;
    buffer_clear(messages);
    buffer_clear(parts);
    database_copy_header(messages);
    database_copy_header(parts);
    for (size_t i = 0; i < bench->group; i++) {
        struct message_id id = id_make(&bench->maker, clock_wall_ms());
        database_copy_row(messages, 3);
        database_put_uuid(messages, id);
        database_put_bytes(messages, content(bench, ENVELOPE_BYTES));
        database_put_bytes(messages, content(bench, bench->bytes));
        database_copy_row(parts, 3);
        database_put_int4(parts, (int32_t)(draw(bench) % SHARES));
        database_put_int4(parts, 1);
        database_put_uuid(parts, id);
    }
    database_copy_trailer(messages);
    database_copy_trailer(parts);
    good(bench,
         database_copy_begin(bench->ours,
                             "BEGIN; COPY holdfast.messages FROM STDIN (FORMAT binary);"
                             "COPY holdfast.parts (share, count, id) FROM STDIN (FORMAT binary);"
                             "COMMIT",
                             LONG_MS),
         "COPY");
    good(bench, database_copy_bytes(bench->ours, buffer_slice(messages), LONG_MS), "messages");
    good(bench, database_copy_end(bench->ours, LONG_MS), "messages");
    good(bench, database_copy_bytes(bench->ours, buffer_slice(parts), LONG_MS), "parts");
    good(bench, database_copy_end(bench->ours, LONG_MS), "parts");
}

/* ---- what the server spends ------------------------------------------------------------------ */

static int64_t ask(struct bench *bench, const char *constant)
{
    const struct database_rows *rows;
    good(bench, database_query(bench->ours, constant, NULL, 0, LONG_MS, &rows), constant);
    return database_get_int(rows, 0, 0);
}

static int64_t log_position(struct bench *bench)
{
    return ask(bench, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint");
}

static double processor_us(int64_t pid)
{
    char path[64], line[1024];
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof(path), "/proc/%lld/stat", (long long)pid);
    FILE *file = fopen(path, "r");
    if (file != NULL) {
        if (fgets(line, sizeof(line), file) != NULL && strrchr(line, ')') != NULL) {
            sscanf(strrchr(line, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                   &user, &system);
        }
        fclose(file);
    }
    return (double)(user + system) * 1e6 / (double)sysconf(_SC_CLK_TCK);
}

/* ---- the run ----------------------------------------------------------------------------------
 */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), by_value);
    return count > 0 ? values[count / 2] : 0;
}

static void prepare(struct bench *bench, const char *conninfo)
{
    char problem[DATABASE_ERROR_SIZE];
    size_t count;
    const struct pg_migration *migrations = pg_migrations(&count);
    struct database_settings settings = {.conninfo = slice_from_text(conninfo),
                                         .connect_timeout_ms = 10000};
    struct pg_partition_settings partitions;
    pg_partition_settings_default(&partitions);
    bench->ours = database_new(&settings);
    bench->bare = PQconnectdb(conninfo);
    if (bench->ours == NULL || PQstatus(bench->bare) != CONNECTION_OK) {
        fail("connect", PQerrorMessage(bench->bare));
    }
    good(bench, database_connect(bench->ours), "connect");
    good(bench,
         database_run(bench->ours,
                      "SET client_min_messages = warning; DROP SCHEMA IF EXISTS holdfast CASCADE;"
                      "DROP TABLE IF EXISTS bare;"
                      "CREATE TABLE bare (id uuid, envelope bytea, content bytea);"
                      /* Else it would spend its time compressing. */
                      "ALTER TABLE bare ALTER envelope SET STORAGE EXTERNAL,"
                      " ALTER content SET STORAGE EXTERNAL",
                      LONG_MS),
         "clear");
    if (pg_schema_apply(bench->ours, migrations, count, NULL, problem) != ERROR_NONE) {
        fail("schema", problem);
    }
    int64_t gap_ms;
    good(bench, pg_partition_make(bench->ours, &partitions, &gap_ms), "partitions");
}

static double timed_us(struct bench *bench, void (*group)(struct bench *bench),
                       int64_t *logged_bytes)
{
    int64_t position = log_position(bench);
    int64_t from = clock_steady_ns();
    group(bench);
    double us = (double)(clock_steady_ns() - from) / 1000 / (double)bench->group;
    *logged_bytes += log_position(bench) - position;
    return us;
}

int main(int argc, char **argv)
{
    struct bench bench = {.maker = {.node = 1, .start = 7}, .random = 1};
    if (argc < 5) {
        fprintf(stderr, "copy_pg CONNINFO GROUPS GROUP BYTES [SQL | only]\n");
        return 2;
    }
    size_t groups = strtoul(argv[2], NULL, 10);
    bool alone = argc > 5 && strcmp(argv[5], "only") == 0;
    bench.group = strtoul(argv[3], NULL, 10);
    bench.bytes = strtoul(argv[4], NULL, 10);
    buffer_init(&bench.first, 0);
    buffer_init(&bench.second, 0);
    make_text(&bench);
    prepare(&bench, argv[1]);
    if (argc > 5 && !alone) {
        good(&bench, database_run(bench.ours, argv[5], LONG_MS), argv[5]);
    }
    size_t a_line = groups / LINES > 0 ? groups / LINES : 1;
    double *ours = calloc(a_line, sizeof(*ours)), *bare = calloc(a_line, sizeof(*bare)),
           *ratio = calloc(a_line, sizeof(*ratio));
    if (ours == NULL || bare == NULL || ratio == NULL) {
        fail("results", "out of memory");
    }
    int64_t our_logged = 0, bare_logged = 0;
    int64_t our_pid = ask(&bench, "SELECT pg_backend_pid()"), bare_pid = PQbackendPID(bench.bare);
    double our_us = processor_us(our_pid), bare_us = processor_us(bare_pid), line_us = our_us;
    for (size_t i = 0; i < groups; i++) {
        size_t at = i % a_line;
        bool bare_first = draw(&bench) % 2 == 0;
        bare[at] = alone || !bare_first ? 0 : timed_us(&bench, bare_group, &bare_logged);
        ours[at] = timed_us(&bench, our_group, &our_logged);
        bare[at] = alone || bare_first ? bare[at] : timed_us(&bench, bare_group, &bare_logged);
        ratio[at] = bare[at] / ours[at];
        if (at == a_line - 1) {
            double r = median(ratio, a_line);
            double now_us = processor_us(our_pid);
            printf("held %9zu  ours %7.1f us  bare %7.1f us  ratio %.2f  processor %5.1f us\n",
                   (i + 1) * bench.group, median(ours, a_line), median(bare, a_line), r,
                   (now_us - line_us) / (double)(a_line * bench.group));
            line_us = now_us;
            fflush(stdout);
        }
    }
    double messages = (double)(groups * bench.group);
    printf("processor ours %.1f us  bare %.1f us  log ours %.0f bytes  bare %.0f bytes\n",
           (processor_us(our_pid) - our_us) / messages,
           (processor_us(bare_pid) - bare_us) / messages, (double)our_logged / messages,
           (double)bare_logged / messages);
    database_free(bench.ours);
    PQfinish(bench.bare);
    buffer_done(&bench.first);
    buffer_done(&bench.second);
    free(bench.text);
    free(ours);
    free(bare);
    free(ratio);
    return 0;
}
