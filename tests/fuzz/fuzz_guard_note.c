/* SPDX-License-Identifier: Apache-2.0
 *
 * What a damaged or foreign journal could say of a server's guard: refused, or a state that can be
 * kept again, shown, worked with for hours and led back to rest by hand.
 */
#include "service/guard.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct guard_config config = {.name = {(const uint8_t *)"m1", 2},
                                           .start = {(const uint8_t *)"/start", 6},
                                           .undo = {(const uint8_t *)"/undo", 5},
                                           .after_ms = 60000,
                                           .back_after_ms = 60000,
                                           .tries = 3,
                                           .undo_when = GUARD_UNDO_SERVER};

static void keep_again(const struct guard *guard)
{
    struct guard again;
    struct buffer note, second;
    buffer_init(&note, GUARD_NOTE_MAX);
    buffer_init(&second, GUARD_NOTE_MAX);
    guard_note_encode(guard, &note);
    assert(!note.failed);
    guard_init(&again, 0, 0);
    bool read = guard_note_decode(&again, buffer_slice(&note));
    guard_note_encode(&again, &second);
    assert(read && slice_equal(buffer_slice(&note), buffer_slice(&second)));
    buffer_done(&note);
    buffer_done(&second);
}

static void work(struct guard *guard)
{
    char why[200];
    for (int64_t i = 1; i < 1000; i++) {
        bool up = i / 200 % 2 == 1;
        const struct guard_facts facts = {
            .steady_ms = i * 1000, .wall_ms = i * 1000, .up = up, .down = !up, .gone = !up};
        (void)guard_step(guard, &config, &facts, (uint64_t)i);
        if (guard->run != 0) {
            guard_ended(guard, &config, i % 3 != 0, slice_from_text("said"), i * 1000, i * 1000);
        }
        assert(guard_state_text(guard, &config) != NULL);
        guard_why(guard, &config, why, sizeof(why));
        (void)guard_seconds_left(guard, &config);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct guard guard;
    guard_init(&guard, 0, 0);
    if (guard_note_decode(&guard, slice_make(data, size))) {
        keep_again(&guard);
        work(&guard);
        bool ended = guard_reset(&guard, 1) == NULL;
        assert(guard.phase == GUARD_RESTING || (!ended && guard.phase == GUARD_WATCHING));
    } else {
        assert(guard.phase == GUARD_RESTING && guard.run == 0);
    }
    return 0;
}
