/* SPDX-License-Identifier: Apache-2.0
 *
 * What a damaged or foreign journal could say to relay: notes about deliveries and under keys. They
 * are refused or leave a state that can be described, loaded again and worked with. The first byte
 * chooses: a note's kind, or a key.
 */
#include "relay/notes.h"
#include "relay/one_route.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct relay_time now = {1000000, 1700000000000};

static void add(struct relay *relay)
{
    static const struct spool_recipient recipients[] = {
        {.address = {(const uint8_t *)"a@example.com", 13}},
        {.address = {(const uint8_t *)"b@example.com", 13}}};
    struct spool_message message = {.sequence = 1,
                                    .received_ms = now.wall_ms,
                                    .body_length = 10,
                                    .recipients = recipients,
                                    .recipient_count = 2};
    enum error error = relay_add(relay, (struct spool_handle){0}, &message, now);
    assert(error == ERROR_NONE);
}

/* A description says the same when it is loaded. */
static void load_again(void *context, uint32_t delivery, uint16_t kind, struct slice payload)
{
    struct delivery_note note;
    struct span_note span;
    assert(payload.length <= SPOOL_NOTE_MAX);
    assert(kind == NOTE_SPAN ? note_decode_span(payload, &span) : note_decode(payload, &note));
    relay_load_note(context, (struct spool_handle){0}, delivery, kind, payload, now);
}

static void work(struct relay *relay)
{
    struct relay_action action;
    struct relay_time later = now;
    relay_start(relay, now);
    for (int i = 0; i < 10; i++) {
        while (relay_next(relay, &action)) {
        }
        int64_t due = relay_deadline(relay);
        if (due == INT64_MAX) {
            break;
        }
        later.wall_ms += due > later.steady_ms ? due - later.steady_ms : 0;
        later.steady_ms = due > later.steady_ms ? due : later.steady_ms;
        relay_tick(relay, later);
    }
    for (uint32_t i = 0; i < 2; i++) {
        struct relay_delivery_view view;
        assert(relay_delivery(relay, (struct spool_handle){0}, i, &view));
        /* A held refusal that is tried again by the clock is so within the hour. */
        int64_t most = view.state == DELIVERY_HELD ? 3600000 : one_route.routes[0].retry_ms[0];
        assert(view.next_wall_ms <= later.wall_ms + most);
    }
}

static void check_codec(struct slice payload)
{
    struct delivery_note note;
    if (!note_decode(payload, &note)) {
        return;
    }
    struct buffer again;
    buffer_init(&again, NOTE_PAYLOAD_MAX);
    note_encode(&again, &note);
    /* What an older version wrote lacks the last field. */
    size_t same = again.length <= payload.length ? again.length : again.length - 4;
    assert(!again.failed && same <= payload.length);
    assert(memcmp(again.data, payload.data, same) == 0);
    buffer_done(&again);
}

static void check_mx_codec(struct slice payload)
{
    struct mx_decision decision, second;
    if (!note_decode_mx(payload, &decision)) {
        return;
    }
    struct buffer again;
    buffer_init(&again, SPOOL_NOTE_MAX);
    note_encode_mx(&again, &decision);
    assert(!again.failed && again.length >= 3);
    assert(again.data[1] <= decision.count);
    /* The last octet is a truth; an older version has not written it. */
    assert(again.data[1] < decision.count ||
           (again.length - 1 <= payload.length &&
            memcmp(again.data, payload.data, again.length - 1) == 0));
    assert(note_decode_mx(buffer_slice(&again), &second) && second.secure == decision.secure);
    buffer_done(&again);
}

static void load_key(struct relay *relay, struct slice input)
{
    static const char *const keys[] = {"server/m1/hand",
                                       "server/m1/state",
                                       "server/m1/capabilities",
                                       "odometer/domain:example.com",
                                       "mx/example.com",
                                       "exchanger/a/state",
                                       "freeze/domain:example.com",
                                       "clock",
                                       "switched/domain:example.com",
                                       "server/gone/hand"};
    if (input.length > 0 && input.data[0] < sizeof keys / sizeof keys[0]) {
        relay_load_global(relay, slice_from_text(keys[input.data[0]]), slice_skip(input, 1), now);
    } else {
        size_t half = input.length / 2;
        relay_load_global(relay, slice_take(input, half), slice_skip(input, half), now);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice rest = slice_make(data, size);
    struct relay *relay = relay_new(&one_route, 1, now);
    struct relay *copy = relay_new(&one_route, 2, now);
    if (size == 0 || relay == NULL || copy == NULL) {
        relay_free(relay);
        relay_free(copy);
        return 0;
    }
    add(relay);
    add(copy);
    check_codec(slice_skip(rest, 1));
    check_mx_codec(slice_skip(rest, 1));
    if (data[0] == 0) {
        load_key(relay, slice_skip(rest, 1));
    } else {
        relay_load_note(relay, (struct spool_handle){0}, data[0] & 1, data[0] / 2 % 9,
                        slice_skip(rest, 1), now);
    }
    relay_describe(relay, (struct spool_handle){0}, load_again, copy);
    work(relay);
    work(copy);
    relay_free(relay);
    relay_free(copy);
    return 0;
}
