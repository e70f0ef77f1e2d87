/* SPDX-License-Identifier: Apache-2.0
 *
 * How soon the mail of a node that has died is another's: so many held messages in the shares of
 * one, which a node takes all at once, as it does on a takeover (docs/decisions/0045).
 *
 *   take_pg CONNINFO DIRECTORY MESSAGES FINISHED RANGES
 *
 * Beside those that are held there are FINISHED in a hundred that are not and whose ranges stand
 * yet; all lie in RANGES partitions. Told is when the first of each share was here (the last share
 * of all: when its lanes could move) and when all were.
 * The node's journal is made in DIRECTORY, which must be empty. Makes the schema `holdfast` anew.
 */
#include "base/crc32c.h"
#include "spool/log_format.h"
#include "spool/pg_partition.h"
#include "spool/pg_schema.h"
#include "spool/postgres.h"
#include "sys/clock.h"

#include <stdio.h>
#include <stdlib.h>

enum { LONG_MS = 3600000, SHARES = 128, BATCH = 1000, RANGE_MS = 60000, BYTES = 512 };

struct bench {
    struct database *database;
    struct buffer messages, parts, fates;
    uint64_t wanted, loaded;
    int shares_begun, shares_taken;
    bool begun[SHARES + 1];
    int64_t from_ns, begun_ns, taken_ns;
    struct loop *loop;
    struct spool *spool;
};

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static void good(struct database *database, enum database_outcome outcome, const char *what)
{
    if (outcome != DATABASE_DONE) {
        fail(what, database_error(database));
    }
}

static struct database_settings settings_of(const char *conninfo)
{
    return (struct database_settings){.conninfo = slice_from_text(conninfo),
                                      .name = SLICE_LITERAL("take_pg"),
                                      .connect_timeout_ms = 10000};
}

/* ---- what is held --------------------------------------------------------------------------- */

static void put_message(struct bench *bench, uint64_t n, struct message_id id, bool finished)
{
    char address[64];
    uint8_t content[BYTES] = {0};
    struct buffer envelope;
    snprintf(address, sizeof(address), "recipient%llu@example.com", (unsigned long long)n);
    const struct spool_recipient recipient = {.address = slice_from_text(address)};
    const struct spool_message message = {.id = id,
                                          .received_ms = id_time_ms(id),
                                          .body_length = BYTES,
                                          .sender = SLICE_LITERAL("sender@example.org"),
                                          .origin.helo = SLICE_LITERAL("client.example.org"),
                                          .origin.listener = SLICE_LITERAL("mx"),
                                          .origin.protocol = SLICE_LITERAL("ESMTP"),
                                          .recipients = &recipient,
                                          .recipient_count = 1};
    const struct log_piece piece = {.kind = LOG_NEAR,
                                    .stored = BYTES,
                                    .take = BYTES,
                                    .crc = crc32c(0, slice_make(content, BYTES))};
    buffer_init(&envelope, 0);
    buffer_put_u32(&envelope, 0);
    log_put_message(&envelope, &message, &piece, 1);
    uint32_t crc = crc32c(0, slice_skip(buffer_slice(&envelope), 4));
    for (int i = 0; i < 4; i++) {
        envelope.data[i] = (uint8_t)(crc >> (8 * i));
    }
    database_copy_row(&bench->messages, 3);
    database_put_uuid(&bench->messages, id);
    database_put_bytes(&bench->messages, buffer_slice(&envelope));
    database_put_bytes(&bench->messages, slice_make(content, BYTES));
    database_copy_row(&bench->parts, 3);
    database_put_int4(&bench->parts, (int32_t)(n % SHARES) + 1);
    database_put_int4(&bench->parts, 1);
    database_put_uuid(&bench->parts, id);
    if (finished) {
        database_copy_row(&bench->fates, 3);
        database_put_uuid(&bench->fates, id);
        database_put_int4(&bench->fates, 0);
        database_put_int2(&bench->fates, SPOOL_DELIVERED);
    }
    buffer_done(&envelope);
}

static void copy(struct bench *bench, struct buffer *out, const char *sql)
{
    database_copy_trailer(out);
    good(bench->database, database_copy_begin(bench->database, sql, LONG_MS), sql);
    good(bench->database, database_copy_bytes(bench->database, buffer_slice(out), LONG_MS), sql);
    good(bench->database, database_copy_end(bench->database, LONG_MS), sql);
    buffer_clear(out);
    database_copy_header(out);
}

static void fill(struct bench *bench, uint64_t messages, uint64_t finished, uint64_t ranges)
{
    int64_t start_ms = clock_wall_ms() / RANGE_MS * RANGE_MS - (int64_t)ranges * RANGE_MS;
    struct id_maker maker = {.node = 2, .start = 7};
    uint64_t all = messages * 100 / (100 - finished);
    database_copy_header(&bench->messages);
    database_copy_header(&bench->parts);
    database_copy_header(&bench->fates);
    for (uint64_t r = 0; r < ranges; r++) {
        good(bench->database,
             pg_partition_add(bench->database, start_ms + (int64_t)r * RANGE_MS,
                              start_ms + (int64_t)(r + 1) * RANGE_MS),
             "add");
    }
    for (uint64_t n = 0; n < all; n++) {
        int64_t at_ms =
            start_ms + (int64_t)((double)n / (double)all * (double)ranges * (double)RANGE_MS);
        bool is_finished = (n + 1) * finished / 100 != n * finished / 100;
        put_message(bench, n, id_make(&maker, at_ms), is_finished);
        bench->wanted += !is_finished;
        if ((n + 1) % BATCH == 0 || n + 1 == all) {
            good(bench->database, database_run(bench->database, "BEGIN", LONG_MS), "begin");
            copy(bench, &bench->messages,
                 "COPY holdfast.messages (id, envelope, content) FROM STDIN (FORMAT binary)");
            copy(bench, &bench->parts,
                 "COPY holdfast.parts (share, count, id) FROM STDIN (FORMAT binary)");
            copy(bench, &bench->fates,
                 "COPY holdfast.fates (id, delivery, fate) FROM STDIN (FORMAT binary)");
            good(bench->database, database_run(bench->database, "COMMIT", LONG_MS), "commit");
        }
    }
    /* As it stands after the traffic of a while: the server's own tending has been there. */
    good(bench->database,
         database_run(bench->database, "ANALYZE holdfast.parts; ANALYZE holdfast.fates", LONG_MS),
         "analyze");
}

/* ---- who takes it --------------------------------------------------------------------------- */

static void on_message(void *context, struct spool_handle handle,
                       const struct spool_message *message)
{
    struct bench *bench = context;
    int32_t share = spool_postgres_share(bench->spool, handle);
    (void)message;
    bench->loaded++;
    if (!bench->begun[share]) {
        bench->begun[share] = true;
        bench->shares_begun++;
        bench->begun_ns = clock_steady_ns() - bench->from_ns;
    }
}

static struct slice name_of(void *context, const struct spool_message *message, uint32_t delivery,
                            uint8_t buffer[SPOOL_SHARE_MAX])
{
    (void)context;
    (void)message;
    (void)delivery;
    return slice_make(buffer, (size_t)snprintf((char *)buffer, SPOOL_SHARE_MAX, "in:0"));
}

static void on_taken(void *context, int32_t share)
{
    struct bench *bench = context;
    (void)share;
    if (++bench->shares_taken == SHARES) {
        bench->taken_ns = clock_steady_ns() - bench->from_ns;
        loop_stop(bench->loop);
    }
}

static void on_left(void *context, int32_t share, bool stale)
{
    (void)context;
    (void)share;
    (void)stale;
}

static void take_all(struct bench *bench, const char *conninfo, const char *directory)
{
    struct disk *disk;
    struct spool_settings settings;
    struct spool_postgres_settings postgres;
    const struct spool_owner owner = {0};
    const struct spool_shares shares = {
        .context = bench, .name = name_of, .taken = on_taken, .left = on_left};
    const struct spool_loader loader = {.context = bench, .message = on_message};
    bool complete = false;
    bench->loop = loop_new();
    spool_settings_default(&settings);
    spool_postgres_settings_default(&postgres);
    postgres.database = settings_of(conninfo);
    postgres.node = 1;
    postgres.shares = &shares;
    if (disk_open_directory(directory, &disk) != ERROR_NONE ||
        spool_open_postgres(bench->loop, disk, &settings, &postgres, &owner, &bench->spool) !=
            ERROR_NONE) {
        fail(directory, "cannot be opened");
    }
    while (!complete) {
        if (spool_load(bench->spool, &loader, &complete) != ERROR_NONE) {
            fail(directory, "cannot be loaded");
        }
    }
    spool_postgres_lease(bench->spool, clock_steady_ms() + LONG_MS);
    bench->from_ns = clock_steady_ns();
    for (int32_t share = 1; share <= SHARES; share++) {
        spool_postgres_take(bench->spool, share, 1);
    }
    loop_run(bench->loop);
}

int main(int argc, char **argv)
{
    struct bench bench = {0};
    char problem[DATABASE_ERROR_SIZE];
    size_t count;
    const struct pg_migration *migrations = pg_migrations(&count);
    uint64_t finished = argc == 6 ? strtoull(argv[4], NULL, 10) : 100;
    if (finished > 99) {
        fprintf(stderr, "take_pg CONNINFO DIRECTORY MESSAGES FINISHED RANGES\n");
        return 2;
    }
    const struct database_settings settings = settings_of(argv[1]);
    bench.database = database_new(&settings);
    if (bench.database == NULL) {
        fail("start", "out of memory");
    }
    good(bench.database, database_connect(bench.database), "connect");
    good(bench.database,
         database_run(bench.database,
                      "SET client_min_messages = warning; DROP SCHEMA IF EXISTS holdfast CASCADE",
                      LONG_MS),
         "clear");
    if (pg_schema_apply(bench.database, migrations, count, NULL, problem) != ERROR_NONE) {
        fail("schema", problem);
    }
    fill(&bench, strtoull(argv[3], NULL, 10), finished, strtoull(argv[5], NULL, 10));
    take_all(&bench, argv[1], argv[2]);
    printf("held %llu  first of each of %d shares %.2f s  all %.2f s  (%.1f us each)\n",
           (unsigned long long)bench.loaded, bench.shares_begun, (double)bench.begun_ns / 1e9,
           (double)bench.taken_ns / 1e9,
           (double)bench.taken_ns / 1e3 / (double)(bench.loaded > 0 ? bench.loaded : 1));
    if (bench.loaded != bench.wanted) {
        fprintf(stderr, "%llu were held\n", (unsigned long long)bench.wanted);
        return 1;
    }
    spool_close(bench.spool);
    loop_free(bench.loop);
    database_free(bench.database);
    buffer_done(&bench.messages);
    buffer_done(&bench.parts);
    buffer_done(&bench.fates);
    return 0;
}
