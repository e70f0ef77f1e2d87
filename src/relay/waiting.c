/* SPDX-License-Identifier: Apache-2.0
 *
 * Which delivery of a recipient stands in a lane that lines up (R6): open addressing over numbers
 * alone, for the key of each is found by its delivery. Cleared places are closed by moving up what
 * follows, so a look-up ends at the first free place.
 */
#include <stdlib.h>

#include "relay/relay_internal.h"

static uint32_t place_of(const struct relay *relay, uint32_t number)
{
    uint64_t key = record_key(relay, delivery_at(relay, number));
    return (uint32_t)(key >> 32 ^ key) & (relay->waiting.room - 1);
}

/* Where one of this recipient is, or would be. */
static uint32_t find_place(const struct relay *relay, uint32_t number)
{
    const struct waiting *waiting = &relay->waiting;
    uint64_t key = record_key(relay, delivery_at(relay, number));
    uint32_t place = place_of(relay, number);
    while (waiting->places[place] != NOBODY &&
           record_key(relay, delivery_at(relay, waiting->places[place])) != key) {
        place = (place + 1) & (waiting->room - 1);
    }
    return place;
}

void waiting_done(struct waiting *waiting)
{
    free(waiting->places);
    *waiting = (struct waiting){0};
}

bool waiting_reserve(struct relay *relay, uint32_t count)
{
    struct waiting *waiting = &relay->waiting;
    uint32_t room = waiting->room == 0 ? 64 : waiting->room;
    while ((uint64_t)count * 4 > (uint64_t)room * 3) {
        room *= 2;
    }
    if (room == waiting->room) {
        return true;
    }
    uint32_t *places = malloc((size_t)room * sizeof *places);
    if (places == NULL) {
        return false;
    }
    memset(places, 0xff, (size_t)room * sizeof *places); /* NOBODY */
    struct waiting old = *waiting;
    *waiting = (struct waiting){places, room, 0};
    for (uint32_t i = 0; i < old.room; i++) {
        if (old.places[i] != NOBODY) {
            waiting_put(relay, old.places[i]);
        }
    }
    waiting_done(&old);
    return true;
}

void waiting_clear(struct relay *relay)
{
    struct waiting *waiting = &relay->waiting;
    if (waiting->room > 0) {
        memset(waiting->places, 0xff, (size_t)waiting->room * sizeof *waiting->places);
    }
    waiting->count = 0;
}

void waiting_put(struct relay *relay, uint32_t number)
{
    struct waiting *waiting = &relay->waiting;
    uint32_t place = find_place(relay, number);
    if (waiting->places[place] == NOBODY) {
        assert(waiting->count < waiting->room - 1);
        waiting->places[place] = number;
        waiting->count++;
    }
}

void waiting_remove(struct relay *relay, uint32_t number)
{
    struct waiting *waiting = &relay->waiting;
    uint32_t mask = waiting->room - 1;
    uint32_t hole = find_place(relay, number);
    if (waiting->places[hole] != number) {
        return;
    }
    for (uint32_t at = (hole + 1) & mask; waiting->places[at] != NOBODY; at = (at + 1) & mask) {
        uint32_t home = place_of(relay, waiting->places[at]);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            waiting->places[hole] = waiting->places[at];
            hole = at;
        }
    }
    waiting->places[hole] = NOBODY;
    waiting->count--;
}

uint32_t waiting_find(const struct relay *relay, uint32_t number)
{
    return relay->waiting.places[find_place(relay, number)];
}
