/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "spool/pg_internal.h"
#include "sys/clock.h"
#include "tests/spool/nodes.h"
#include "tests/sys/postgres.h"

#include <stdio.h>
#include <stdlib.h>

struct world *world;

/* ---- what the nodes are told ------------------------------------------------------------- */

struct part *part_of(struct node *node, struct spool_handle handle)
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
    node->parts[node->count++] =
        (struct part){.handle = handle,
                      .n = message->id.high & 0xffffffff,
                      .sequence = message->sequence,
                      .share = spool_postgres_share(node->harness.spool, handle),
                      .taken_count = node->taken_count};
    if (node->leaves != 0 && node->parts[node->count - 1].share == node->leaves) {
        spool_postgres_leave(node->harness.spool, node->leaves);
        node->leaves = 0;
    }
    if (node->heard != NULL) {
        node->heard(node);
    }
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

static void on_late_fate(void *context, struct message_id id, struct spool_handle handle,
                         uint32_t delivery, enum spool_fate fate)
{
    struct part *part = part_of(context, handle);
    assert_int_equal(part->n, id.high & 0xffffffff);
    assert_int_equal(fate, SPOOL_DELIVERED);
    part->late |= 1u << delivery;
    part->late_count++;
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
                                 .elsewhere = on_elsewhere,
                                 .late_fate = on_late_fate};
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
    node->left_at = node->count;
    node->stale = stale;
}

/* ---- the world --------------------------------------------------------------------------- */

/* As text, so that it need not be a constant: the answer is kept in a table of its own. */
int64_t ask(const char *format, ...)
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

void run(const char *format, ...)
{
    char sql[600];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sql, sizeof(sql), format, arguments);
    va_end(arguments);
    struct database *database = harness_database();
    if (database_run(database, sql, PATIENCE_MS) != DATABASE_DONE) {
        fail_msg("%s: %s", sql, database_error(database));
    }
}

static void copy(const char *from, const char *to)
{
    char command[1400];
    snprintf(command, sizeof(command), "rm -rf '%s' && cp -a '%s' '%s'", to, from, to);
    assert_int_equal(system(command), 0);
}

static void copy_stopped(bool back)
{
    char before[300];
    const char *data = postgres_directory(harness_server());
    snprintf(before, sizeof(before), "%s-before", data);
    postgres_stop(harness_server());
    copy(back ? before : data, back ? data : before);
    postgres_start(harness_server());
}

void database_keep(void)
{
    copy_stopped(false);
}

void database_put_back(void)
{
    copy_stopped(true);
}

static bool is_common(void *context, struct slice key)
{
    (void)context;
    return slice_starts_fold(key, SLICE_LITERAL("common/"));
}

void node_open(struct node *node, uint16_t number)
{
    const struct spool_shares shares = {.context = node,
                                        .name = name_of,
                                        .is_common = is_common,
                                        .taken = on_taken,
                                        .left = on_left};
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

void pass(void)
{
    harness_pass(&world->nodes[0].harness, STEP_MS);
}

/* As who owns does: another token, in the transaction that changes the owner. */
int64_t own(struct node *node, int32_t share)
{
    return ask("UPDATE holdfast.shares SET owner = %d, token = token + 1 WHERE share = %d"
               " RETURNING token",
               (int)(node - world->nodes) + 1, share);
}

void take(struct node *node, int32_t share)
{
    size_t before = node->taken_count;
    spool_postgres_take(node->harness.spool, share, own(node, share));
    UNTIL(node->taken_count > before);
    assert_int_equal(node->taken[before % 8], share);
}

int world_set_up(void **state)
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

int world_tear_down(void **state)
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

static void put_message(struct node *node, uint64_t n, size_t length)
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
    buffer_done(&content);
    arena_done(&arena);
}

/* Accepted by that node; completions give no handles. */
void accept_at(struct node *node, uint64_t n, size_t length)
{
    put_message(node, n, length);
    assert_int_equal(harness_submit(&node->harness, SPOOL_SYNCED), ERROR_NONE);
    assert_int_equal(node->harness.handle_count, 0);
}

void accept_heard(struct node *node, struct node *owner, uint64_t n, size_t length)
{
    accept_at(node, n, length);
    UNTIL(part_with(owner, n) != NULL);
}

struct pg_spool *spool_of(const struct node *node)
{
    return pg_of(node->harness.spool);
}

size_t in_journal(const struct node *node)
{
    const struct pg_spool *pg = spool_of(node);
    size_t count = 0;
    for (uint32_t i = 0; i < pg->local_capacity; i++) {
        count += pg->locals[i] != NULL;
    }
    return count;
}

static void tell(void *context, enum error error, const struct spool_handle *handles, size_t count)
{
    struct told *told = context;
    (void)handles;
    (void)count;
    told->done = true;
    told->error = error;
}

void offer_at(struct node *node, uint64_t n, struct told *told)
{
    put_message(node, n, 10);
    spool_batch_submit(node->harness.spool, SPOOL_SYNCED, tell, told);
}

void note(struct node *node, struct spool_handle handle, uint32_t delivery, const char *text,
          struct told *told)
{
    spool_batch_begin(node->harness.spool);
    spool_batch_note(node->harness.spool, handle, delivery, 5, slice_from_text(text));
    spool_batch_submit(node->harness.spool, SPOOL_WRITTEN, tell, told);
}

void deliver(struct node *node, struct spool_handle handle, uint32_t delivery)
{
    spool_batch_begin(node->harness.spool);
    spool_batch_taken(node->harness.spool, handle, delivery, SPOOL_DELIVERED, 1,
                      SLICE_LITERAL("m1"));
    assert_int_equal(harness_submit(&node->harness, SPOOL_SYNCED), ERROR_NONE);
}

struct part *part_with(struct node *node, uint64_t n)
{
    for (size_t i = node->count; i-- > 0;) {
        if (node->parts[i].n == n) {
            return &node->parts[i];
        }
    }
    return NULL;
}

size_t parts_with(const struct node *node, uint64_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < node->count; i++) {
        count += node->parts[i].n == n;
    }
    return count;
}
