/* SPDX-License-Identifier: Apache-2.0
 *
 * The record: magic "HOLDLEAS" (8), version (4), CRC32C of the rest (4), token (4), hold (4),
 * counter (8), since (8), machine (16), length of the name (1), name (63), trouble (1; 0 in older
 * ones); zeros up to 512.
 */
#include "app/lease.h"

#include "base/buffer.h"
#include "base/crc32c.h"

#include <string.h>

enum { VERSION = 1, BODY_AT = 16, TROUBLE_AT = 120 };

static const char magic[] = "HOLDLEAS";

static void put(uint8_t *at, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

static uint64_t get(const uint8_t *at, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = bytes; i-- > 0;) {
        value = value << 8 | at[i];
    }
    return value;
}

bool lease_name_is_good(struct slice name)
{
    bool good = name.length > 0 && name.length <= LEASE_NAME_MAX;
    for (size_t i = 0; good && i < name.length; i++) {
        uint8_t c = name.data[i];
        good = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
               (i > 0 && (c == '-' || c == '.' || c == '_'));
    }
    return good;
}

const char *lease_trouble_text(enum lease_trouble trouble)
{
    static const char *const texts[] = {NULL, "fence has failed", "before-takeover has failed",
                                        "the daemon has ended by itself"};
    size_t at = (size_t)trouble;
    return at < sizeof(texts) / sizeof(texts[0]) ? texts[at] : "it has failed";
}

void lease_encode(const struct lease_record *record, uint8_t ret_bytes[LEASE_BYTES])
{
    size_t length = strlen(record->name);
    memset(ret_bytes, 0, LEASE_BYTES);
    memcpy(ret_bytes, magic, 8);
    put(ret_bytes + 8, VERSION, 4);
    put(ret_bytes + 16, record->token, 4);
    put(ret_bytes + 20, record->hold_ms, 4);
    put(ret_bytes + 24, record->counter, 8);
    put(ret_bytes + 32, (uint64_t)record->since_ms, 8);
    memcpy(ret_bytes + 40, record->machine, LEASE_MACHINE);
    ret_bytes[56] = (uint8_t)length;
    memcpy(ret_bytes + 57, record->name, length);
    ret_bytes[TROUBLE_AT] = (uint8_t)record->trouble;
    put(ret_bytes + 12, crc32c(0, slice_make(ret_bytes + BODY_AT, LEASE_BYTES - BODY_AT)), 4);
}

bool lease_decode(struct slice bytes, struct lease_record *ret_record)
{
    const uint8_t *at = bytes.data;
    if (bytes.length != LEASE_BYTES || memcmp(at, magic, 8) != 0 || get(at + 8, 4) != VERSION ||
        get(at + 12, 4) != crc32c(0, slice_skip(bytes, BODY_AT)) || at[56] > LEASE_NAME_MAX) {
        return false;
    }
    *ret_record = (struct lease_record){.token = (uint32_t)get(at + 16, 4),
                                        .hold_ms = (uint32_t)get(at + 20, 4),
                                        .counter = get(at + 24, 8),
                                        .since_ms = (int64_t)get(at + 32, 8)};
    memcpy(ret_record->machine, at + 40, LEASE_MACHINE);
    memcpy(ret_record->name, at + 57, at[56]);
    ret_record->trouble = (enum lease_trouble)at[TROUBLE_AT];
    return lease_name_is_good(slice_make(at + 57, at[56])) &&
           ret_record->hold_ms <= LEASE_AFTER_MOST_MS;
}

void lease_watch_saw(struct lease_watch *watch, const struct lease_view *view, int64_t now_ms)
{
    bool is_short = lease_view_is_short(view);
    uint32_t token = is_short ? 0 : view->token;
    if (!watch->begun || watch->token != token) {
        *watch = (struct lease_watch){
            .token = token, .begun = true, .hold_ms = watch->hold_ms, .seen_ms = now_ms};
    }
    /* One that cannot be read shows no change; what is read for the first time is news. */
    const struct lease_record *record = &view->record;
    if (view->readable && !is_short && (!watch->known || watch->counter != record->counter)) {
        watch->known = true;
        watch->counter = record->counter;
        watch->hold_ms = record->hold_ms;
        watch->seen_ms = now_ms;
    }
}

int64_t lease_watch_due(const struct lease_watch *watch, uint32_t after_ms)
{
    /* The other one may have been told another `after`. */
    uint32_t least = watch->known ? watch->hold_ms * 2 : LEASE_AFTER_MOST_MS;
    return watch->seen_ms + (after_ms > least ? after_ms : least);
}

bool lease_may_take(const struct lease_view *view, const struct lease_watch *watch,
                    struct slice name, const uint8_t machine[LEASE_MACHINE], uint32_t after_ms,
                    int64_t began_ms)
{
    if (lease_view_is_short(view)) {
        /* Its holder may be in the middle of a renewal, and looks after it. */
        uint32_t least_ms = watch->hold_ms * 2 > after_ms ? watch->hold_ms * 2 : after_ms;
        return began_ms >= watch->seen_ms + 2 * (int64_t)least_ms;
    }
    if (view->token == 0) {
        return true;
    }
    bool ours = view->readable && slice_equal(slice_from_text(view->record.name), name) &&
                memcmp(view->record.machine, machine, LEASE_MACHINE) == 0;
    bool given_up = view->end != LEASE_GOES_ON && view->end != LEASE_STOPPED;
    if (ours ? !given_up : given_up) {
        return true; /* an earlier life of ours is over: who asks holds the lock of this name */
    }
    if (view->end != LEASE_GOES_ON) {
        return began_ms >= watch->seen_ms + after_ms; /* nobody works; who should begins first */
    }
    return began_ms >= lease_watch_due(watch, after_ms);
}
