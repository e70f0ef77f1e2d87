/* SPDX-License-Identifier: Apache-2.0
 *
 * Two nodes on one database, each with shares of its own: what spool/postgres.h says of shares.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "spool/reader.h"
#include "sys/clock.h"
#include "tests/spool/harness_postgres.h"
#include "tests/sys/postgres.h"

#include <stdio.h>
#include <stdlib.h>

enum { PATIENCE_MS = 60000, STEP_MS = 10, LONG_MS = 100000000, PARTS_MAX = 64 };

struct part {
    struct spool_handle handle;
    uint64_t n; /* of harness_message() */
    uint64_t sequence;
    unsigned elsewhere, fates, notes; /* bits; counted */
    char last_note[32];
    int32_t share;
};

struct node {
    struct harness harness;
    struct part parts[PARTS_MAX];
    size_t count; /* in the order of their coming */
    int32_t taken[8], left[8];
    size_t taken_count, left_count;
    bool stale;
};

struct world {
    struct node nodes[2];
    int32_t share[2];
};

static struct world *world;

/* ---- what the nodes are told ------------------------------------------------------------- */

static struct part *part_of(struct node *node, struct spool_handle handle)
{
    for (size_t i = node->count; i-- > 0;) {
        if (node->parts[i].handle.index == handle.index) {
            return &node->parts[i];
        }
    }
    fail_msg("a part that is not known");
    return NULL;
}

static void on_message(void *context, struct spool_handle handle,
                       const struct spool_message *message)
{
    struct node *node = context;
    assert_true(node->count < PARTS_MAX);
    assert_int_equal(spool_find(node->harness.spool, message->id).index == SPOOL_NO_HANDLE.index,
                     0);
    node->parts[node->count++] = (struct part){
        .handle = handle, .n = message->id.high & 0xffffffff, .sequence = message->sequence};
}

static void on_fate(void *context, struct spool_handle handle, uint32_t delivery,
                    enum spool_fate fate)
{
    (void)fate;
    part_of(context, handle)->fates |= 1u << delivery;
}

static void on_elsewhere(void *context, struct spool_handle handle, uint32_t delivery)
{
    part_of(context, handle)->elsewhere |= 1u << delivery;
}

static void on_note(void *context, struct spool_handle handle, uint32_t delivery, uint16_t kind,
                    struct slice payload)
{
    struct part *part = part_of(context, handle);
    (void)delivery;
    (void)kind;
    part->notes++;
    snprintf(part->last_note, sizeof(part->last_note), "%.*s", SLICE_PRINT(payload));
}

static struct spool_loader loader_of(struct node *node)
{
    return (struct spool_loader){.context = node,
                                 .message = on_message,
                                 .fate = on_fate,
                                 .note = on_note,
                                 .elsewhere = on_elsewhere};
}

/* Recipients of even number are in one share, the others in the other. */
static struct slice name_of(void *context, const struct spool_message *message, uint32_t delivery,
                            uint8_t buffer[SPOOL_SHARE_MAX])
{
    (void)context;
    struct slice address = message->recipients[delivery].address;
    unsigned digit = address.data[slice_find(address, '@') - 1] - (unsigned)'0';
    int length = snprintf((char *)buffer, SPOOL_SHARE_MAX, "in:%u", digit % 2);
    return slice_make(buffer, (size_t)length);
}

static void on_taken(void *context, int32_t share)
{
    struct node *node = context;
    node->taken[node->taken_count++ % 8] = share;
}

static void on_left(void *context, int32_t share, bool stale)
{
    struct node *node = context;
    node->left[node->left_count++ % 8] = share;
    node->stale = stale;
}

/* ---- the world --------------------------------------------------------------------------- */

/* As text, so that it need not be a constant: the answer is kept in a table of its own. */
static int64_t ask(const char *format, ...)
{
    static const char answer_sql[] = "SELECT value FROM pg_temp.answer";
    char sql[600], statement[400];
    va_list arguments;
    const struct database_rows *rows;
    va_start(arguments, format);
    vsnprintf(statement, sizeof(statement), format, arguments);
    va_end(arguments);
    snprintf(sql, sizeof(sql),
             "CREATE TEMP TABLE IF NOT EXISTS answer (value int8); DELETE FROM pg_temp.answer;"
             " WITH w (value) AS (%s) INSERT INTO pg_temp.answer SELECT value FROM w",
             statement);
    struct database *database = harness_database();
    enum database_outcome outcome = database_run(database, sql, PATIENCE_MS);
    if (outcome != DATABASE_DONE ||
        database_query(database, answer_sql, NULL, 0, PATIENCE_MS, &rows) != DATABASE_DONE) {
        fail_msg("%s: %s", statement, database_error(database));
    }
    return database_count(rows) > 0 ? database_get_int(rows, 0, 0) : 0;
}

static void run(const char *sql)
{
    assert_int_equal(database_run(harness_database(), sql, PATIENCE_MS), DATABASE_DONE);
}

static void node_open(struct node *node, uint16_t number)
{
    const struct spool_shares shares = {
        .context = node, .name = name_of, .taken = on_taken, .left = on_left};
    struct disk *disk;
    assert_int_equal(disk_open_directory(node->harness.path, &disk), ERROR_NONE);
    assert_int_equal(harness_open_postgres(&node->harness, disk, number, &shares), ERROR_NONE);
    const struct spool_loader loader = loader_of(node);
    bool complete = false;
    while (!complete) {
        assert_int_equal(spool_load(node->harness.spool, &loader, &complete), ERROR_NONE);
    }
    spool_postgres_lease(node->harness.spool, clock_steady_ms() + LONG_MS);
}

static void node_new(struct node *node, uint16_t number, struct loop *loop)
{
    spool_settings_default(&node->harness.settings);
    node->harness.settings.segment_bytes = 1 << 20;
    node->harness.settings.large_bytes = 256 << 10;
    node->harness.settings.reserve_bytes = 1;
    node->harness.settings.ready_segments = 1;
    node->harness.loop = loop;
    node->harness.kind = HARNESS_POSTGRES;
    strcpy(node->harness.path, "/tmp/holdfast-spool-XXXXXX");
    assert_non_null(mkdtemp(node->harness.path));
    node_open(node, number);
}

static void pass(void)
{
    harness_pass(&world->nodes[0].harness, STEP_MS);
}

#define UNTIL(condition)                                                                           \
    do {                                                                                           \
        for (int waited = 0; waited < PATIENCE_MS / STEP_MS && !(condition); waited++) {           \
            pass();                                                                                \
        }                                                                                          \
        assert_true(condition);                                                                    \
    } while (false)

/* As who owns does: another token, in the transaction that changes the owner. */
static int64_t own(struct node *node, int32_t share)
{
    return ask("UPDATE holdfast.shares SET owner = %d, token = token + 1 WHERE share = %d"
               " RETURNING token",
               (int)(node - world->nodes) + 1, share);
}

static void take(struct node *node, int32_t share)
{
    size_t before = node->taken_count;
    spool_postgres_take(node->harness.spool, share, own(node, share));
    UNTIL(node->taken_count > before);
    assert_int_equal(node->taken[before % 8], share);
}

static int set_up(void **state)
{
    (void)state;
    world = calloc(1, sizeof(*world));
    struct loop *loop = loop_new();
    harness_tables();
    node_new(&world->nodes[0], 1, loop);
    node_new(&world->nodes[1], 2, loop);
    for (int i = 0; i < 2; i++) {
        world->share[i] = (int32_t)ask("INSERT INTO holdfast.shares (name, family, part)"
                                       " VALUES ('in:%d', 'in', %d) RETURNING share",
                                       i, i);
        take(&world->nodes[i], world->share[i]);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    struct loop *loop = world->nodes[0].harness.loop;
    for (int i = 0; i < 2; i++) {
        spool_close(world->nodes[i].harness.spool);
        world->nodes[i].harness.spool = NULL;
    }
    world->nodes[1].harness.loop = NULL;
    world->nodes[0].harness.loop = NULL;
    loop_free(loop);
    harness_done(&world->nodes[0].harness);
    harness_done(&world->nodes[1].harness);
    free(world);
    return 0;
}

/* Accepted by that node; completions give no handles. */
static void accept_at(struct node *node, uint64_t n, size_t length)
{
    struct arena arena;
    struct spool_message message;
    struct buffer content;
    arena_init(&arena);
    harness_message(n, &arena, &message);
    harness_content(n, length, &content);
    message.body_length = length;
    spool_batch_begin(node->harness.spool);
    assert_int_equal(
        spool_batch_message(node->harness.spool, &message, NULL, buffer_slice(&content)),
        ERROR_NONE);
    assert_int_equal(harness_submit(&node->harness, SPOOL_SYNCED), ERROR_NONE);
    assert_int_equal(node->harness.handle_count, 0);
    buffer_done(&content);
    arena_done(&arena);
}

struct told {
    bool done;
    enum error error;
};

static void tell(void *context, enum error error, const struct spool_handle *handles, size_t count)
{
    struct told *told = context;
    (void)handles;
    (void)count;
    told->done = true;
    told->error = error;
}

static void note(struct node *node, struct spool_handle handle, uint32_t delivery, const char *text,
                 struct told *told)
{
    spool_batch_begin(node->harness.spool);
    spool_batch_note(node->harness.spool, handle, delivery, 5, slice_from_text(text));
    spool_batch_submit(node->harness.spool, SPOOL_WRITTEN, tell, told);
}

static void deliver(struct node *node, struct spool_handle handle, uint32_t delivery)
{
    spool_batch_begin(node->harness.spool);
    spool_batch_taken(node->harness.spool, handle, delivery, SPOOL_DELIVERED, 1,
                      SLICE_LITERAL("m1"));
    assert_int_equal(harness_submit(&node->harness, SPOOL_SYNCED), ERROR_NONE);
}

/* ---- tests ------------------------------------------------------------------------------- */

static void each_owner_hears_of_its_part(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    accept_at(a, 2, 100); /* three recipients: 20, 21, 22 */
    accept_at(b, 4, 100); /* two: 40, 41 */
    UNTIL(a->count == 2 && b->count == 2);
    assert_int_equal(a->parts[0].n, 2);
    assert_int_equal(a->parts[0].elsewhere, 2);
    assert_int_equal(b->parts[0].n, 2);
    assert_int_equal(b->parts[0].elsewhere, 5);
    assert_int_equal(a->parts[1].elsewhere, 2);
    assert_int_equal(b->parts[1].elsewhere, 1);
    assert_true(a->parts[0].sequence < a->parts[1].sequence);
    deliver(a, a->parts[0].handle, 0);
    deliver(a, a->parts[0].handle, 2); /* its part has ended */
    assert_int_equal(spool_find(a->harness.spool, harness_id(2)).index, SPOOL_NO_HANDLE.index);
    deliver(b, b->parts[0].handle, 1);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.fates"), 3);
    struct spool_state status;
    spool_status(b->harness.spool, &status);
    assert_int_equal(status.messages, 1);
}

static void check_ticket(struct node *node, const struct part *part, uint64_t n, size_t length)
{
    uint8_t ticket[SPOOL_TICKET_MAX], *bytes = malloc(length + 1);
    size_t ticket_length, read = 0, got;
    struct disk *disk;
    struct spool_reader *reader;
    struct spool_stored *stored;
    struct spool_message message;
    struct arena arena;
    struct buffer want;
    arena_init(&arena);
    harness_content(n, length, &want);
    assert_int_equal(spool_ticket(node->harness.spool, part->handle, ticket, &ticket_length),
                     ERROR_NONE);
    assert_int_equal(disk_open_directory(node->harness.path, &disk), ERROR_NONE);
    assert_int_equal(spool_reader_open_log(disk, &reader), ERROR_NONE);
    assert_int_equal(
        spool_stored_open(reader, slice_make(ticket, ticket_length), &arena, &message, &stored),
        ERROR_NONE);
    assert_int_equal(message.body_length, length);
    do {
        assert_int_equal(spool_stored_read(stored, read, bytes + read, length - read, &got),
                         ERROR_NONE);
        read += got;
    } while (got > 0 && read < length);
    assert_int_equal(read, length);
    assert_memory_equal(bytes, want.data, length);
    spool_stored_close(stored);
    spool_reader_close(reader);
    buffer_done(&want);
    arena_done(&arena);
    free(bytes);
}

static void on_prepared(void *context, enum error error)
{
    struct told *told = context;
    told->done = true;
    told->error = error;
}

static void what_another_accepted_is_fetched(void **state)
{
    (void)state;
    static const size_t lengths[] = {0, 1000, 700000};
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    for (size_t i = 0; i < 3; i++) {
        accept_at(a, 4 + 3 * i, lengths[i]); /* two recipients each */
    }
    UNTIL(a->count == 3 && b->count == 3);
    for (size_t i = 0; i < 3; i++) {
        struct told told = {0}, again = {0};
        uint64_t n = 4 + 3 * i;
        struct part *part = &b->parts[i];
        assert_true(spool_prepare(a->harness.spool, a->parts[i].handle, on_prepared, &told));
        check_ticket(a, &a->parts[i], n, lengths[i]);
        spool_pin(b->harness.spool, part->handle);
        assert_false(spool_prepare(b->harness.spool, part->handle, on_prepared, &told));
        assert_false(spool_prepare(b->harness.spool, part->handle, on_prepared, &again));
        UNTIL(told.done && again.done);
        assert_int_equal(told.error, ERROR_NONE);
        assert_int_equal(again.error, ERROR_NONE);
        assert_true(spool_prepare(b->harness.spool, part->handle, on_prepared, &told));
        check_ticket(b, part, n, lengths[i]);
        spool_unpin(b->harness.spool, part->handle);
        deliver(b, part->handle, 1);
    }
    assert_int_equal(ask("SELECT count(*) FROM holdfast.fates"), 3);
}

static void a_dead_nodes_share_is_loaded_by_the_next(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    struct told told = {0};
    for (uint64_t n = 2; n < 20; n += 3) { /* three recipients each */
        accept_at(b, n, 10);
    }
    UNTIL(a->count == 6);
    deliver(a, a->parts[0].handle, 0);
    deliver(a, a->parts[0].handle, 2);
    deliver(a, a->parts[1].handle, 2);
    note(a, a->parts[2].handle, 0, "first", &told);
    UNTIL(told.done);
    told.done = false;
    note(a, a->parts[2].handle, 0, "second", &told);
    UNTIL(told.done);
    UNTIL(b->count == 6);
    take(b, world->share[0]);
    assert_int_equal(b->count, 11); /* one has ended */
    for (size_t i = 7; i < 11; i++) {
        assert_true(b->parts[i - 1].sequence < b->parts[i].sequence);
    }
    assert_int_equal(b->parts[6].n, 5);
    assert_int_equal(b->parts[6].fates, 4);
    assert_int_equal(b->parts[6].elsewhere, 2);
    assert_int_equal(b->parts[7].notes, 2);
    assert_string_equal(b->parts[7].last_note, "second");
    /* And what comes for it then. */
    accept_at(b, 23, 10);
    UNTIL(b->count == 13);
}

static void an_old_owners_decision_is_refused_and_its_fact_is_not(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    struct told told = {0};
    accept_at(a, 2, 10);
    accept_at(a, 5, 10);
    UNTIL(a->count == 2);
    take(b, world->share[0]);
    /* It does not know yet. */
    deliver(a, a->parts[0].handle, 0);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.fates"), 1);
    assert_int_equal(a->left_count, 0);
    note(a, a->parts[1].handle, 0, "too late", &told);
    UNTIL(told.done);
    assert_int_equal(told.error, ERROR_DENIED);
    UNTIL(a->left_count == 1);
    assert_int_equal(a->left[0], world->share[0]);
    assert_true(a->stale);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.notes"), 0);
    assert_int_equal(spool_find(a->harness.spool, harness_id(5)).index, SPOOL_NO_HANDLE.index);
    struct spool_state status;
    spool_status(a->harness.spool, &status);
    assert_int_equal(status.messages, 0);
    /* The other's is not. */
    told.done = false;
    struct spool_handle handle = SPOOL_NO_HANDLE;
    for (size_t i = 0; i < b->count; i++) {
        if (b->parts[i].n == 5 && b->parts[i].elsewhere == 2) {
            handle = b->parts[i].handle;
        }
    }
    note(b, handle, 0, "mine", &told);
    UNTIL(told.done);
    assert_int_equal(told.error, ERROR_NONE);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.notes"), 1);
}

static void a_share_that_is_left_goes_with_its_handles(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    accept_at(a, 3, 10); /* 30 */
    UNTIL(a->count == 1);
    spool_postgres_leave(a->harness.spool, world->share[0]);
    assert_int_equal(a->left_count, 0); /* never from inside the call */
    UNTIL(a->left_count == 1);
    assert_false(a->stale);
    assert_int_equal(spool_find(a->harness.spool, harness_id(3)).index, SPOOL_NO_HANDLE.index);
    accept_at(a, 6, 10);
    take(a, world->share[0]);
    assert_int_equal(a->count, 3);
    assert_int_equal(a->parts[1].n, 3);
    assert_int_equal(a->parts[2].n, 6);
}

/* A transaction that began before and ends after: nothing is passed by. */
static void a_late_commit_is_seen(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    run("BEGIN; SELECT pg_current_xact_id()");
    accept_at(a, 3, 10);
    accept_at(a, 6, 10);
    for (int i = 0; i < 30; i++) {
        spool_postgres_follow(a->harness.spool);
        pass();
    }
    assert_int_equal(a->count, 0);
    run("COMMIT");
    UNTIL(a->count == 2);
    assert_int_equal(a->parts[0].n, 3);
    assert_int_equal(a->parts[1].n, 6);
}

static void without_a_lease_nothing_is_decided(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0];
    struct told told = {0};
    accept_at(a, 3, 10);
    accept_at(a, 6, 10);
    UNTIL(a->count == 2);
    spool_postgres_lease(a->harness.spool, clock_steady_ms() + SPOOL_LEASE_MS - 1);
    note(a, a->parts[0].handle, 0, "attempt", &told);
    deliver(a, a->parts[1].handle, 0); /* which is a fact */
    accept_at(a, 9, 10);
    assert_false(told.done);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.notes"), 0);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.fates"), 1);
    spool_postgres_lease(a->harness.spool, clock_steady_ms() + LONG_MS);
    UNTIL(told.done);
    assert_int_equal(told.error, ERROR_NONE);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.notes"), 1);
}

/* Nobody has it in the database, and its node has gone: when that is back, the owner hears of it.
 */
static void what_a_node_kept_comes_to_the_owner_with_it(void **state)
{
    (void)state;
    struct node *a = &world->nodes[0], *b = &world->nodes[1];
    accept_at(a, 2, 10);
    UNTIL(a->count == 1 && b->count == 1);
    postgres_stop(harness_server());
    accept_at(a, 5, 300000);
    deliver(a, a->parts[0].handle, 0);
    spool_close(a->harness.spool);
    postgres_start(harness_server());
    UNTIL(ask("SELECT count(*) FROM holdfast.messages") == 1);
    a->count = 0;
    node_open(a, 1);
    take(a, world->share[0]);
    UNTIL(b->count == 2);
    assert_int_equal(b->parts[1].n, 5);
    UNTIL(a->count == 2);
    assert_int_equal(a->parts[0].n, 2);
    UNTIL(ask("SELECT count(*) FROM holdfast.fates") == 1);
    assert_int_equal(ask("SELECT count(*) FROM holdfast.parts"), 4);
    struct spool_postgres_state status;
    spool_postgres_status(a->harness.spool, &status);
    assert_int_equal(status.one_copy, 0);
}

static void others_are_told_that_there_is_something(void **state)
{
    (void)state;
    bool notified = false;
    run("LISTEN holdfast_mail");
    accept_at(&world->nodes[0], 2, 10);
    for (int i = 0; i < PATIENCE_MS / STEP_MS && !notified; i++) {
        pass();
        assert_int_equal(database_wait(harness_database(), STEP_MS, &notified), DATABASE_DONE);
    }
    assert_true(notified);
    run("UNLISTEN *");
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(each_owner_hears_of_its_part),
        CASE(what_another_accepted_is_fetched),
        CASE(a_dead_nodes_share_is_loaded_by_the_next),
        CASE(an_old_owners_decision_is_refused_and_its_fact_is_not),
        CASE(a_share_that_is_left_goes_with_its_handles),
        CASE(a_late_commit_is_seen),
        CASE(without_a_lease_nothing_is_decided),
        CASE(what_a_node_kept_comes_to_the_owner_with_it),
        CASE(others_are_told_that_there_is_something),
    };
    if (harness_server() == NULL) {
        return 77;
    }
    int failed = cmocka_run_group_tests_name("shares on PostgreSQL", tests, NULL, NULL);
    harness_server_done();
    return failed;
}
