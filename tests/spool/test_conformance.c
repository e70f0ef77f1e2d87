/* SPDX-License-Identifier: Apache-2.0
 *
 * What spool.h says, on every back-end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/spool/harness.h"
#include "tests/spool/harness_postgres.h"

#include <stdio.h>
#include <stdlib.h>

static enum harness_kind kind_under_test;

static int set_up(void **state)
{
    struct harness *harness = calloc(1, sizeof(*harness));
    harness_open(harness, kind_under_test);
    *state = harness;
    return 0;
}

static int tear_down(void **state)
{
    harness_done(*state);
    free(*state);
    return 0;
}

static void an_accepted_message_is_read_back(void **state)
{
    struct harness *harness = *state;
    harness_accept(harness, 1, 4096);
    harness_check(harness, 1, 4096);
    struct spool_state status;
    spool_status(harness->spool, &status);
    assert_int_equal(status.messages, 1);
    assert_int_equal(status.live_bytes, 4096);
    assert_int_equal(status.accepting, ERROR_NONE);
}

static void the_reserve_may_change(void **state)
{
    struct harness *harness = *state;
    struct spool_state status;
    spool_set_reserve(harness->spool, UINT64_MAX);
    spool_status(harness->spool, &status);
    if (kind_under_test == HARNESS_LOG) {
        assert_int_equal(status.accepting, ERROR_SPACE);
        assert_true(status.reserve_bytes == UINT64_MAX);
    }
    spool_set_reserve(harness->spool, 1);
    spool_status(harness->spool, &status);
    assert_int_equal(status.accepting, ERROR_NONE);
    assert_string_equal(status.reason, "");
    harness_accept(harness, 1, 100);
}

static void a_message_outlives_a_restart(void **state)
{
    struct harness *harness = *state;
    harness_accept(harness, 7, 1000);
    harness_reopen(harness);
    assert_int_equal(harness->messages, 1);
    assert_int_equal(harness->damages, 0);
    harness_check(harness, 7, 1000);
    harness_reopen(harness);
    assert_int_equal(harness->messages, 1);
    harness_check(harness, 7, 1000);
}

static void loading_is_in_acceptance_order_and_complete(void **state)
{
    struct harness *harness = *state;
    struct buffer expected;
    buffer_init(&expected, 0);
    for (uint64_t n = 0; n < 50; n++) {
        struct arena arena;
        struct spool_message message;
        char id[ID_TEXT_LENGTH + 1];
        harness_accept(harness, 1000 - n, 10);
        arena_init(&arena);
        harness_message(1000 - n, &arena, &message);
        id_to_text(message.id, id);
        buffer_printf(&expected, "message %s from %.*s to", id, SLICE_PRINT(message.sender));
        for (uint32_t i = 0; i < message.recipient_count; i++) {
            buffer_printf(&expected, " %.*s/%u", SLICE_PRINT(message.recipients[i].address),
                          message.recipients[i].notify);
        }
        buffer_printf(&expected, " %lld %u %u %x %d %lld 2+8 mx %.*s %u\n",
                      (long long)message.received_ms, message.odometer_s, message.elapsed_s,
                      message.flags, message.priority, (long long)message.deliver_by_ms,
                      SLICE_PRINT(message.origin.user), message.origin.client.port);
        arena_done(&arena);
    }
    buffer_put_u8(&expected, 0);
    harness_reopen(harness);
    assert_string_equal((char *)harness->loaded.data, (char *)expected.data);
    buffer_done(&expected);
}

static void sequences_grow_and_are_kept(void **state)
{
    struct harness *harness = *state;
    struct spool_handle first = harness_accept(harness, 1, 1);
    struct spool_handle second = harness_accept(harness, 2, 1);
    uint64_t sequence = spool_sequence(harness->spool, second);
    assert_true(spool_sequence(harness->spool, first) < sequence);
    harness_reopen(harness);
    second = spool_find(harness->spool, harness_id(2));
    assert_int_equal(spool_sequence(harness->spool, second), sequence);
    struct spool_handle third = harness_accept(harness, 3, 1);
    assert_true(spool_sequence(harness->spool, third) > sequence);
}

static void a_message_ends_with_its_last_fate(void **state)
{
    struct harness *harness = *state;
    struct spool_handle handle = harness_accept(harness, 2, 100); /* three recipients */
    harness_finish(harness, handle, 1);
    assert_int_equal(spool_fate_of(harness->spool, handle, 1), SPOOL_DELIVERED);
    assert_int_equal(spool_fate_of(harness->spool, handle, 0), 0);
    harness_reopen(harness);
    assert_int_equal(harness->messages, 1);
    assert_int_equal(harness->fates, 1);
    handle = spool_find(harness->spool, harness_id(2));
    harness_finish(harness, handle, 0);
    harness_finish(harness, handle, 2);
    assert_int_equal(spool_find(harness->spool, harness_id(2)).index, SPOOL_NO_HANDLE.index);
    harness_reopen(harness);
    assert_int_equal(harness->messages, 0);
    struct spool_state status;
    spool_status(harness->spool, &status);
    assert_int_equal(status.messages, 0);
    assert_int_equal(status.live_bytes, 0);
}

static void deliver_by_id(struct harness *harness, uint64_t n, uint32_t delivery)
{
    spool_batch_fact(harness->spool, harness_id(n), delivery, SPOOL_DELIVERED, 5,
                     SLICE_LITERAL("m1"));
}

static void a_fact_is_told_by_id(void **state)
{
    struct harness *harness = *state;
    struct spool_handle handle = harness_accept(harness, 4, 100); /* two recipients */
    assert_int_equal(spool_find_delivery(harness->spool, harness_id(4), 1).index, handle.index);
    spool_batch_begin(harness->spool);
    deliver_by_id(harness, 4, 0);
    deliver_by_id(harness, 4, 0); /* said twice */
    deliver_by_id(harness, 9, 0); /* never heard of */
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    assert_int_equal(spool_fate_of(harness->spool, handle, 0), SPOOL_DELIVERED);
    harness_reopen(harness);
    assert_int_equal(harness->messages, 1);
    assert_int_equal(harness->fates, 1);
    spool_batch_begin(harness->spool);
    deliver_by_id(harness, 4, 0);
    deliver_by_id(harness, 4, 1);
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    assert_int_equal(spool_find_delivery(harness->spool, harness_id(4), 1).index,
                     SPOOL_NO_HANDLE.index);
    harness_reopen(harness);
    assert_int_equal(harness->messages, 0);
}

static void a_known_id_is_refused_and_the_batch_goes_on(void **state)
{
    struct harness *harness = *state;
    struct arena arena;
    struct spool_message message;
    harness_accept(harness, 1, 5);
    arena_init(&arena);
    spool_batch_begin(harness->spool);
    harness_message(1, &arena, &message);
    assert_int_equal(spool_batch_message(harness->spool, &message, NULL, SLICE_EMPTY),
                     ERROR_EXISTS);
    harness_message(2, &arena, &message);
    assert_int_equal(spool_batch_message(harness->spool, &message, NULL, SLICE_EMPTY), ERROR_NONE);
    assert_int_equal(spool_batch_message(harness->spool, &message, NULL, SLICE_EMPTY),
                     ERROR_EXISTS);
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    assert_int_equal(harness->handle_count, 1);
    harness_check(harness, 1, 5);
    harness_check(harness, 2, 0);
    harness_reopen(harness);
    assert_int_equal(harness->messages, 2);
    harness_message(2, &arena, &message);
    spool_batch_begin(harness->spool);
    assert_int_equal(spool_batch_message(harness->spool, &message, NULL, SLICE_EMPTY),
                     ERROR_EXISTS);
    spool_batch_cancel(harness->spool);
    arena_done(&arena);
}

static void a_cancelled_batch_leaves_nothing(void **state)
{
    struct harness *harness = *state;
    struct arena arena;
    struct spool_message message;
    struct spool_handle handle = harness_accept(harness, 3, 5); /* one recipient */
    arena_init(&arena);
    harness_message(4, &arena, &message);
    spool_batch_begin(harness->spool);
    spool_batch_fate(harness->spool, handle, 0, SPOOL_DELIVERED);
    assert_int_equal(spool_batch_message(harness->spool, &message, NULL, SLICE_EMPTY), ERROR_NONE);
    spool_batch_new_fate(harness->spool, 0, SPOOL_BOUNCED);
    spool_batch_global_note(harness->spool, SLICE_LITERAL("key"), SLICE_LITERAL("value"));
    spool_batch_cancel(harness->spool);
    assert_int_equal(spool_find(harness->spool, harness_id(4)).index, SPOOL_NO_HANDLE.index);
    assert_int_equal(spool_fate_of(harness->spool, handle, 0), 0);
    harness_accept(harness, 5, 6);
    harness_check(harness, 3, 5);
    harness_reopen(harness);
    assert_int_equal(harness->messages, 2);
    assert_int_equal(harness->fates + harness->globals, 0);
    arena_done(&arena);
}

static void lengths_that_do_not_add_up_are_refused(void **state)
{
    struct harness *harness = *state;
    struct arena arena;
    struct spool_message message;
    arena_init(&arena);
    harness_message(1, &arena, &message);
    message.header_length = 3;
    message.body_length = UINT64_MAX;
    spool_batch_begin(harness->spool);
    assert_int_equal(spool_batch_message(harness->spool, &message, NULL, SLICE_LITERAL("ab")),
                     ERROR_INVALID);
    spool_batch_cancel(harness->spool);
    arena_done(&arena);
}

/* A message and the fate of another, as a bounce is. */
static void a_batch_of_fate_and_message_is_one(void **state)
{
    struct harness *harness = *state;
    struct arena arena;
    struct spool_message message;
    struct spool_handle handle = harness_accept(harness, 3, 5);
    arena_init(&arena);
    harness_message(4, &arena, &message);
    message.flags |= SPOOL_OWN_DSN;
    spool_batch_begin(harness->spool);
    spool_batch_fate(harness->spool, handle, 0, SPOOL_BOUNCED);
    assert_int_equal(spool_batch_message(harness->spool, &message, NULL, SLICE_EMPTY), ERROR_NONE);
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    harness_reopen(harness);
    assert_int_equal(harness->messages, 1);
    assert_int_equal(spool_find(harness->spool, harness_id(3)).index, SPOOL_NO_HANDLE.index);
    assert_int_not_equal(spool_find(harness->spool, harness_id(4)).index, SPOOL_NO_HANDLE.index);
    arena_done(&arena);
}

static void a_message_may_come_with_a_history(void **state)
{
    struct harness *harness = *state;
    struct arena arena;
    struct spool_message message;
    arena_init(&arena);
    harness_message(2, &arena, &message);
    spool_batch_begin(harness->spool);
    assert_int_equal(spool_batch_message(harness->spool, &message, NULL, SLICE_EMPTY), ERROR_NONE);
    spool_batch_new_fate(harness->spool, 2, SPOOL_DELIVERED);
    spool_batch_new_note(harness->spool, 0, 9, SLICE_LITERAL("held before"));
    harness_message(3, &arena, &message);
    assert_int_equal(spool_batch_message(harness->spool, &message, NULL, SLICE_EMPTY), ERROR_NONE);
    spool_batch_new_fate(harness->spool, 0, SPOOL_DELIVERED);
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    assert_int_equal(harness->handle_count, 2);
    assert_int_equal(spool_fate_of(harness->spool, harness->handles[0], 2), SPOOL_DELIVERED);
    assert_int_equal(spool_find(harness->spool, harness_id(3)).index, SPOOL_NO_HANDLE.index);
    harness_reopen(harness);
    assert_int_equal(harness->messages, 1);
    assert_int_equal(harness->fates, 1);
    assert_true(harness_loaded(harness, "/0 9 held before\n"));
    arena_done(&arena);
}

static void notes_come_back_in_order_after_their_message(void **state)
{
    struct harness *harness = *state;
    struct spool_handle handle = harness_accept(harness, 1, 5);
    struct spool_handle other = harness_accept(harness, 3, 5);
    for (int i = 0; i < 3; i++) {
        char payload[16];
        snprintf(payload, sizeof(payload), "note %d", i);
        spool_batch_begin(harness->spool);
        spool_batch_note(harness->spool, handle, 1, (uint16_t)i, slice_from_text(payload));
        if (i == 1) {
            spool_batch_note(harness->spool, other, SPOOL_ALL_DELIVERIES, 4, SLICE_EMPTY);
        }
        assert_int_equal(harness_submit(harness, i == 2 ? SPOOL_SYNCED : SPOOL_WRITTEN),
                         ERROR_NONE);
    }
    harness_finish(harness, other, 0);
    harness_reopen(harness);
    assert_int_equal(harness->notes, 3);
    const char *loaded = (const char *)harness->loaded.data;
    const char *message = strstr(loaded, "message "), *first = strstr(loaded, "/1 0 note 0\n");
    const char *second = strstr(loaded, "/1 1 note 1\n"), *third = strstr(loaded, "/1 2 note 2\n");
    assert_true(message != NULL && message < first && first < second && second < third);
}

static void the_last_global_note_counts(void **state)
{
    struct harness *harness = *state;
    spool_batch_begin(harness->spool);
    spool_batch_global_note(harness->spool, SLICE_LITERAL("odometer"), SLICE_LITERAL("1"));
    spool_batch_global_note(harness->spool, SLICE_LITERAL("down"), SLICE_LITERAL("m1"));
    spool_batch_global_note(harness->spool, SLICE_LITERAL("odometer"), SLICE_LITERAL("2"));
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    harness_reopen(harness);
    assert_int_equal(harness->globals, 2);
    assert_true(harness_loaded(harness, "global odometer 2\n"));
    spool_batch_begin(harness->spool);
    spool_batch_global_note(harness->spool, SLICE_LITERAL("down"), SLICE_EMPTY);
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    for (int i = 0; i < 3; i++) {
        harness_reopen(harness);
        assert_int_equal(harness->globals, 1);
        assert_true(harness_loaded(harness, "global odometer 2\n"));
    }
}

struct told {
    int order;
    int *next;
    enum error error;
};

static void tell_order(void *context, enum error error, const struct spool_handle *handles,
                       size_t count)
{
    struct told *told = context;
    (void)handles;
    (void)count;
    told->error = error;
    told->order = ++*told->next;
}

static void batches_complete_in_order(void **state)
{
    struct harness *harness = *state;
    struct told told[20];
    int next = 0;
    for (int i = 0; i < 20; i++) {
        struct arena arena;
        struct spool_message message;
        told[i] = (struct told){.next = &next};
        arena_init(&arena);
        harness_message((uint64_t)i, &arena, &message);
        spool_batch_begin(harness->spool);
        assert_int_equal(spool_batch_message(harness->spool, &message, NULL, SLICE_EMPTY),
                         ERROR_NONE);
        spool_batch_submit(harness->spool, SPOOL_SYNCED, tell_order, &told[i]);
        arena_done(&arena);
    }
    spool_batch_begin(harness->spool);
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(told[i].order, i + 1);
        assert_int_equal(told[i].error, ERROR_NONE);
    }
}

static void a_lazy_batch_rides_along(void **state)
{
    struct harness *harness = *state;
    struct told told = {.next = &(int){0}};
    struct spool_handle handle = harness_accept(harness, 3, 5);
    spool_batch_begin(harness->spool);
    spool_batch_note(harness->spool, handle, 0, 1, SLICE_LITERAL("lazy"));
    spool_batch_submit(harness->spool, SPOOL_LAZY, tell_order, &told);
    spool_batch_begin(harness->spool);
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    assert_int_equal(told.order, 1);
    spool_batch_begin(harness->spool);
    spool_batch_note(harness->spool, handle, 0, 1, SLICE_LITERAL("lazy too"));
    spool_batch_submit(harness->spool, SPOOL_LAZY, NULL, NULL);
    harness_reopen(harness); /* closing completes what was submitted */
    assert_int_equal(harness->notes, 2);
}

static void many_recipients_keep_their_fates(void **state)
{
    struct harness *harness = *state;
    enum { COUNT = SPOOL_RECIPIENTS_MAX };
    struct arena arena;
    struct spool_message message;
    struct spool_recipient *recipients = calloc(COUNT, sizeof(*recipients));
    char(*addresses)[32] = calloc(COUNT, sizeof(*addresses));
    for (int i = 0; i < COUNT; i++) {
        snprintf(addresses[i], sizeof(addresses[i]), "r%d@example.com", i);
        recipients[i].address = slice_from_text(addresses[i]);
    }
    arena_init(&arena);
    harness_message(1, &arena, &message);
    message.recipients = recipients;
    message.recipient_count = COUNT;
    spool_batch_begin(harness->spool);
    assert_int_equal(spool_batch_message(harness->spool, &message, NULL, SLICE_EMPTY), ERROR_NONE);
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    struct spool_handle handle = harness->handles[0];
    spool_batch_begin(harness->spool);
    for (uint32_t i = 0; i < COUNT; i++) {
        if (i % 7 != 3) {
            spool_batch_fate(harness->spool, handle, i, SPOOL_DELIVERED + i % 4);
        }
    }
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    harness_reopen(harness);
    handle = spool_find(harness->spool, harness_id(1));
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_int_equal(spool_fate_of(harness->spool, handle, i),
                         i % 7 != 3 ? SPOOL_DELIVERED + i % 4 : 0);
    }
    spool_batch_begin(harness->spool);
    for (uint32_t i = 3; i < COUNT; i += 7) {
        spool_batch_fate(harness->spool, handle, i, SPOOL_PULLED);
    }
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    assert_int_equal(spool_find(harness->spool, harness_id(1)).index, SPOOL_NO_HANDLE.index);
    arena_done(&arena);
    free(recipients);
    free(addresses);
}

/* ---- content ----------------------------------------------------------------------------- */

static void accept_streamed(struct harness *harness, uint64_t n, size_t length, size_t part,
                            size_t tail_length)
{
    struct arena arena;
    struct spool_message message;
    struct buffer bytes;
    arena_init(&arena);
    harness_message(n, &arena, &message);
    harness_content(n, length, &bytes);
    message.body_length = length;
    struct spool_content *content = spool_content_new(harness->spool, 0);
    struct slice rest = slice_take(buffer_slice(&bytes), length - tail_length);
    while (rest.length > 0) {
        assert_int_equal(spool_content_append(content, slice_take(rest, part)), ERROR_NONE);
        rest = slice_skip(rest, part);
        if (n % 3 == 0) {
            spool_content_relieve(harness->spool);
        }
        if (n % 2 == 0) { /* other mail in between */
            harness_accept(harness, 1000000 * n + rest.length, 10);
        }
    }
    spool_batch_begin(harness->spool);
    assert_int_equal(spool_batch_message(harness->spool, &message, content,
                                         slice_skip(buffer_slice(&bytes), length - tail_length)),
                     ERROR_NONE);
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    assert_int_equal(spool_content_pending(harness->spool), 0);
    buffer_done(&bytes);
    arena_done(&arena);
}

static void content_of_any_length_is_kept(void **state)
{
    struct harness *harness = *state;
    static const size_t lengths[] = {0,      1,      65535,  65536,   65537,  131072,
                                     200000, 262144, 262145, 1000000, 3000001};
    enum { COUNT = sizeof(lengths) / sizeof(lengths[0]) };
    for (size_t i = 0; i < COUNT; i++) {
        accept_streamed(harness, i + 1, lengths[i], 50000, lengths[i] / 3 % 70000);
        harness_accept(harness, i + 21, lengths[i]);
    }
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < COUNT; i++) {
            harness_check(harness, i + 1, lengths[i]);
            harness_check(harness, i + 21, lengths[i]);
        }
        harness_reopen(harness);
        assert_int_equal(harness->damages, 0);
    }
}

static void check_content(struct harness *harness, struct spool_handle handle, struct slice want)
{
    uint8_t *bytes = malloc(want.length + 1);
    size_t length;
    assert_int_equal(spool_read_content(harness->spool, handle, 0, bytes, want.length + 1, &length),
                     ERROR_NONE);
    assert_int_equal(length, want.length);
    assert_memory_equal(bytes, want.data, length);
    /* And in odd parts. */
    for (size_t at = 0; at < want.length; at += length) {
        assert_int_equal(spool_read_content(harness->spool, handle, at, bytes, 7919, &length),
                         ERROR_NONE);
        assert_true(length > 0);
        assert_memory_equal(bytes, want.data + at, length);
    }
    free(bytes);
}

static void replace_in(struct harness *harness, uint64_t n, size_t header, size_t body,
                       size_t new_header, size_t new_body)
{
    struct buffer old, fresh, want;
    struct arena arena;
    struct spool_message message;
    arena_init(&arena);
    harness_message(n, &arena, &message);
    harness_content(n, header + body, &old);
    harness_content(n + 1, new_header + new_body, &fresh);
    struct slice fresh_header = slice_take(buffer_slice(&fresh), new_header);
    struct slice fresh_body = slice_skip(buffer_slice(&fresh), new_header);
    buffer_init(&want, 0);
    buffer_append(&want, fresh_header);
    struct spool_content *content = spool_content_new(harness->spool, 0);
    assert_int_equal(spool_content_append(content, buffer_slice(&old)), ERROR_NONE);
    assert_int_equal(spool_content_replace_header(content, header, fresh_header), ERROR_NONE);
    if (new_body > 0) {
        assert_int_equal(spool_content_replace_body(content, new_header, fresh_body), ERROR_NONE);
        buffer_append(&want, fresh_body);
    } else {
        buffer_append(&want, slice_skip(buffer_slice(&old), header));
    }
    message.header_length = new_header;
    message.body_length = want.length - new_header;
    spool_batch_begin(harness->spool);
    assert_int_equal(spool_batch_message(harness->spool, &message, content, SLICE_EMPTY),
                     ERROR_NONE);
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    check_content(harness, harness->handles[0], buffer_slice(&want));
    harness_reopen(harness);
    check_content(harness, spool_find(harness->spool, message.id), buffer_slice(&want));
    assert_int_equal(spool_content_pending(harness->spool), 0);
    buffer_done(&old);
    buffer_done(&fresh);
    buffer_done(&want);
    arena_done(&arena);
}

static void header_and_body_are_replaced(void **state)
{
    struct harness *harness = *state;
    replace_in(harness, 10, 100, 1000, 120, 0);
    replace_in(harness, 20, 100, 1000, 0, 500);
    replace_in(harness, 30, 100, 200000, 300, 0);
    replace_in(harness, 40, 70000, 200000, 80000, 0);
    replace_in(harness, 50, 70000, 200000, 10, 5);
    replace_in(harness, 60, 1000, 400000, 2000, 0);
    replace_in(harness, 70, 1000, 400000, 2000, 300000);
    struct spool_content *content = spool_content_new(harness->spool, 0);
    assert_int_equal(spool_content_append(content, SLICE_LITERAL("abc")), ERROR_NONE);
    assert_int_equal(spool_content_replace_header(content, 4, SLICE_EMPTY), ERROR_INVALID);
    assert_int_equal(spool_content_replace_body(content, 4, SLICE_EMPTY), ERROR_INVALID);
    spool_content_abort(content);
}

static void aborted_content_leaves_nothing(void **state)
{
    struct harness *harness = *state;
    struct buffer bytes;
    harness_content(1, 600000, &bytes);
    struct spool_content *content = spool_content_new(harness->spool, 0);
    assert_int_equal(spool_content_append(content, buffer_slice(&bytes)), ERROR_NONE);
    assert_true(harness->kind == HARNESS_MEMORY || spool_content_pending(harness->spool) > 0);
    spool_content_abort(content);
    content = spool_content_new(harness->spool, 1 << 30);
    assert_int_equal(spool_content_append(content, buffer_slice(&bytes)), ERROR_NONE);
    spool_content_abort(content);
    spool_content_abort(NULL);
    harness_accept(harness, 1, 5);
    harness_settle(harness);
    assert_int_equal(spool_content_pending(harness->spool), 0);
    harness_reopen(harness);
    assert_int_equal(harness->messages, 1);
    buffer_done(&bytes);
}

static void a_pinned_message_is_readable_after_its_end(void **state)
{
    struct harness *harness = *state;
    struct spool_handle handle = harness_accept(harness, 3, 5000);
    struct buffer want;
    harness_content(3, 5000, &want);
    spool_pin(harness->spool, handle);
    spool_pin(harness->spool, handle);
    harness_finish(harness, handle, 0);
    harness_settle(harness);
    assert_int_equal(spool_find(harness->spool, harness_id(3)).index, SPOOL_NO_HANDLE.index);
    check_content(harness, handle, buffer_slice(&want));
    spool_unpin(harness->spool, handle);
    check_content(harness, handle, buffer_slice(&want));
    spool_unpin(harness->spool, handle);
    harness_reopen(harness);
    assert_int_equal(harness->messages, 0);
    buffer_done(&want);
}

static void acceptance_goes_on_between_parts_of_a_load(void **state)
{
    struct harness *harness = *state;
    for (uint64_t n = 0; n < 5; n++) {
        harness_accept(harness, 3 * n, 10);
    }
    spool_close(harness->spool);
    assert_int_equal(harness_try_open(harness), ERROR_NONE);
    harness_accept(harness, 1000, 10);
    harness_check(harness, 1000, 10);
    assert_int_equal(spool_find(harness->spool, harness_id(3)).index, SPOOL_NO_HANDLE.index);
    spool_batch_begin(harness->spool);
    spool_batch_global_note(harness->spool, SLICE_LITERAL("new"), SLICE_LITERAL("1"));
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    harness_load(harness);
    assert_int_equal(harness->messages, 5);
    harness_reopen(harness);
    assert_int_equal(harness->messages, 6);
    assert_true(harness_loaded(harness, "global new 1\n"));
}

/* Many messages, many segments, many restarts. */
static void a_long_history_comes_out_right(void **state)
{
    struct harness *harness = *state;
    enum { COUNT = 600 };
    static bool alive[COUNT];
    uint64_t random = 42;
    memset(alive, 0, sizeof(alive));
    for (uint64_t n = 0; n < COUNT; n++) {
        harness_accept(harness, n * 3, 100 + n * 37 % 9000);
        alive[n] = true;
        for (int i = 0; i < 2; i++) {
            random = random * 6364136223846793005ULL + 1442695040888963407ULL;
            uint64_t other = (random >> 33) % (n + 1);
            if (alive[other] && other % 10 != 0) {
                struct spool_handle handle = spool_find(harness->spool, harness_id(other * 3));
                harness_finish(harness, handle, 0);
                alive[other] = false;
            }
        }
        if (n % 50 == 49) {
            spool_tick(harness->spool);
        }
        if (n % 200 == 199) {
            harness_reopen(harness);
        }
    }
    harness_settle(harness);
    harness_reopen(harness);
    assert_int_equal(harness->damages, 0);
    size_t count = 0;
    for (uint64_t n = 0; n < COUNT; n++) {
        count += alive[n];
        if (alive[n]) {
            harness_check(harness, n * 3, 100 + n * 37 % 9000);
        } else {
            assert_int_equal(spool_find(harness->spool, harness_id(n * 3)).index,
                             SPOOL_NO_HANDLE.index);
        }
    }
    assert_int_equal(harness->messages, count);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(an_accepted_message_is_read_back),
        CASE(the_reserve_may_change),
        CASE(a_message_outlives_a_restart),
        CASE(loading_is_in_acceptance_order_and_complete),
        CASE(sequences_grow_and_are_kept),
        CASE(a_message_ends_with_its_last_fate),
        CASE(a_fact_is_told_by_id),
        CASE(a_known_id_is_refused_and_the_batch_goes_on),
        CASE(a_cancelled_batch_leaves_nothing),
        CASE(lengths_that_do_not_add_up_are_refused),
        CASE(a_batch_of_fate_and_message_is_one),
        CASE(a_message_may_come_with_a_history),
        CASE(notes_come_back_in_order_after_their_message),
        CASE(the_last_global_note_counts),
        CASE(batches_complete_in_order),
        CASE(a_lazy_batch_rides_along),
        CASE(many_recipients_keep_their_fates),
        CASE(content_of_any_length_is_kept),
        CASE(header_and_body_are_replaced),
        CASE(aborted_content_leaves_nothing),
        CASE(a_pinned_message_is_readable_after_its_end),
        CASE(acceptance_goes_on_between_parts_of_a_load),
        CASE(a_long_history_comes_out_right),
    };
    kind_under_test = HARNESS_MEMORY;
    int failed = cmocka_run_group_tests_name("spool on memory", tests, NULL, NULL);
    kind_under_test = HARNESS_LOG;
    failed += cmocka_run_group_tests_name("spool on log", tests, NULL, NULL);
    kind_under_test = HARNESS_POSTGRES;
    if (harness_server() != NULL) {
        failed += cmocka_run_group_tests_name("spool on PostgreSQL", tests, NULL, NULL);
        harness_server_done();
    }
    return failed;
}
