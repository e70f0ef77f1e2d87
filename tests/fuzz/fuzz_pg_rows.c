/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tables of a cluster could say: keys, fates, notes, envelopes, contents and copies, as
 * rows of any kind. What can be made of them is loaded, read, prepared, searched and ended, what
 * cannot is damage; the spool goes on, and is closed as ever.
 */
#include "sim/disk_sim.h"
#include "sim/sim.h"
#include "spool/copies.h"
#include "spool/postgres.h"
#include "tests/fuzz/fake_database.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HANDLES_MAX = 64, LOADS_MAX = 20, STEPS_MAX = 400, SHARE = 1 };

struct bench {
    struct spool *spool;
    struct spool_handle handles[HANDLES_MAX];
    uint32_t recipients[HANDLES_MAX];
    size_t count;
    bool left; /* the handles are no more */
};

static void on_message(void *context, struct spool_handle handle,
                       const struct spool_message *message)
{
    struct bench *bench = context;
    assert(message->recipient_count > 0);
    assert(id_equal(spool_id(bench->spool, handle), message->id));
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        assert(message->recipients[i].address.length < 100000);
    }
    if (bench->count < HANDLES_MAX) {
        bench->recipients[bench->count] = message->recipient_count;
        bench->handles[bench->count++] = handle;
    }
}

static uint32_t recipients_of(const struct bench *bench, struct spool_handle handle)
{
    for (size_t i = 0; i < bench->count; i++) {
        if (bench->handles[i].index == handle.index) {
            return bench->recipients[i];
        }
    }
    return UINT32_MAX;
}

static void on_fate(void *context, struct spool_handle handle, uint32_t delivery,
                    enum spool_fate fate)
{
    assert(delivery < recipients_of(context, handle));
    assert(fate >= SPOOL_DELIVERED && fate <= SPOOL_PULLED);
}

static void on_elsewhere(void *context, struct spool_handle handle, uint32_t delivery)
{
    assert(delivery < recipients_of(context, handle));
}

static struct slice share_of(void *context, const struct spool_message *message, uint32_t delivery,
                             uint8_t buffer[SPOOL_SHARE_MAX])
{
    (void)context;
    buffer[0] = message->recipients[delivery].address.data[0];
    return slice_make(buffer, 1);
}

static void on_taken(void *context, int32_t share)
{
    (void)context;
    assert(share == SHARE);
}

static void on_left(void *context, int32_t share, bool stale)
{
    (void)stale;
    struct bench *bench = context;
    assert(share == SHARE);
    bench->left = true;
}

static void on_late_fate(void *context, struct message_id id, struct spool_handle handle,
                         uint32_t delivery, enum spool_fate fate)
{
    (void)id;
    on_fate(context, handle, delivery, fate);
}

static void run(void)
{
    for (int i = 0; i < STEPS_MAX && sim_step(); i++) {
    }
}

static void on_prepared(void *context, enum error error)
{
    (void)error;
    (*(size_t *)context)++;
}

static void on_done(void *context, enum error error)
{
    (void)error;
    (*(size_t *)context)++;
}

static void read_all(struct bench *bench, size_t *told)
{
    size_t count = bench->left ? 0 : bench->count;
    for (size_t i = 0; i < count; i++) {
        struct arena arena;
        struct spool_message message;
        uint8_t bytes[64], fates[4];
        size_t length = 0;
        arena_init(&arena);
        if (spool_read_envelope(bench->spool, bench->handles[i], &arena, &message) == ERROR_NONE) {
            assert(message.recipient_count > 0 && message.recipients != NULL);
        }
        (void)!spool_read_content(bench->spool, bench->handles[i], i, bytes, sizeof(bytes),
                                  &length);
        assert(length <= sizeof(bytes));
        arena_done(&arena);
        (void)!spool_postgres_fates(bench->spool, spool_id(bench->spool, bench->handles[i]), fates,
                                    sizeof(fates));
        spool_pin(bench->spool, bench->handles[i]);
        (void)spool_prepare(bench->spool, bench->handles[i], on_prepared, told);
    }
    run();
    for (size_t i = 0; i < count; i++) {
        spool_unpin(bench->spool, bench->handles[i]);
    }
}

static void search(struct bench *bench, size_t *told)
{
    struct spool_copies *copies;
    const struct spool_copies_query query = {
        .since_ms = INT64_MIN / 4, .until_ms = INT64_MAX / 4, .done = on_done, .context = told};
    spool_keep_copies(bench->spool, INT64_C(1) << 40, INT64_C(1) << 41);
    size_t before = *told;
    if (spool_copies_find(bench->spool, &query, &copies) != ERROR_NONE) {
        return;
    }
    run();
    struct spool_copies_counts counts;
    if (*told > before) {
        spool_copies_counts(copies, &counts);
        for (size_t i = 0; i < counts.messages; i++) {
            struct spool_copy copy;
            spool_copies_get(copies, i, &copy);
            assert(copy.count > 0 && !id_is_null(copy.id));
        }
    }
    spool_copies_free(copies);
}

static void load(struct bench *bench, bool shared)
{
    const struct spool_loader loader = {.context = bench,
                                        .message = on_message,
                                        .fate = on_fate,
                                        .elsewhere = on_elsewhere,
                                        .late_fate = on_late_fate};
    bool complete = false;
    for (int i = 0; i < LOADS_MAX && !complete; i++) {
        (void)!spool_load(bench->spool, &loader, &complete);
    }
    if (shared) {
        spool_postgres_lease(bench->spool, INT64_MAX / 2);
        spool_postgres_take(bench->spool, SHARE, 1);
    }
    run();
}

static void use(struct bench *bench, bool shared)
{
    size_t told = 0;
    load(bench, shared);
    read_all(bench, &told);
    search(bench, &told);
    if (shared) {
        spool_postgres_leave(bench->spool, SHARE);
        run();
    }
}

static void open_and_use(struct loop *loop, struct disk_sim *sim, bool shared)
{
    struct bench bench = {0};
    struct spool_settings settings;
    struct spool_postgres_settings postgres;
    const struct spool_owner owner = {.context = &bench};
    const struct spool_shares shares = {
        .context = &bench, .name = share_of, .taken = on_taken, .left = on_left};
    spool_settings_default(&settings);
    settings.segment_bytes = 64 << 10;
    settings.large_bytes = 16 << 10;
    settings.reserve_bytes = 1;
    settings.ready_segments = 1;
    spool_postgres_settings_default(&postgres);
    postgres.node = 1;
    postgres.shares = shared ? &shares : NULL;
    if (spool_open_postgres(loop, disk_sim_open(sim), &settings, &postgres, &owner, &bench.spool) ==
        ERROR_NONE) {
        use(&bench, shared);
        spool_close(bench.spool);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool shared = size > 0 && (data[0] & 1) != 0;
    fake_database_feed(slice_skip(slice_make(data, size), 1));
    sim_begin(1);
    struct sim_process *process = sim_process_new("spool");
    sim_process_enter(process);
    struct loop *loop = loop_new();
    struct disk_sim *sim = disk_sim_new();
    open_and_use(loop, sim, shared);
    loop_free(loop);
    while (sim_step()) { /* what was on its way is let go */
    }
    fake_database_feed(SLICE_EMPTY);
    disk_sim_free(sim);
    sim_end();
    return 0;
}
