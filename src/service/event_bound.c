/* SPDX-License-Identifier: Apache-2.0
 *
 * A table of those of whom there were events in the last minute. One that finds its place taken is
 * left out, and counted with whose place it is: few are, and nothing is lost of the sum.
 */
#include "service/event_bound.h"

#include "base/hash.h"
#include "sys/random.h"

#include <stdlib.h>

enum { PLACES = 4096, MINUTE_MS = 60000 };

struct place {
    bool in_use;
    uint64_t whose;
    struct ip_address client; /* the last one */
    int64_t since_ms;
    uint32_t kept;
    uint64_t left_out;
};

struct event_bound {
    struct hash_key key;
    bool has_total;
    uint32_t used;   /* places */
    int64_t paid_ms; /* when all that was kept is paid off */
    uint32_t looked; /* event_bound_over() goes round */
    struct place places[PLACES];
};

struct event_bound *event_bound_new(bool has_total)
{
    struct event_bound *bound = calloc(1, sizeof(*bound));
    if (bound != NULL) {
        random_bytes(&bound->key, sizeof(bound->key));
        bound->paid_ms = INT64_MIN;
        bound->has_total = has_total;
    }
    return bound;
}

void event_bound_free(struct event_bound *bound)
{
    free(bound);
}

/* One more may be kept, and is paid for. */
static bool spend(struct event_bound *bound, int64_t now_ms)
{
    if (!bound->has_total) {
        return true;
    }
    const int64_t cost_ms = MINUTE_MS / EVENT_BOUND_A_MINUTE;
    int64_t paid_ms = bound->paid_ms > now_ms ? bound->paid_ms : now_ms;
    if (paid_ms - now_ms > cost_ms * (EVENT_BOUND_BURST - 1)) {
        return false;
    }
    bound->paid_ms = paid_ms + cost_ms;
    return true;
}

static bool is_over(const struct place *place, int64_t now_ms)
{
    return now_ms - place->since_ms >= MINUTE_MS;
}

bool event_bound_take(struct event_bound *bound, struct slice of, const struct ip_address *client,
                      int64_t now_ms, uint64_t *ret_left_out)
{
    uint64_t hash = hash_bytes(bound->key, of);
    struct place *place = &bound->places[hash % PLACES];
    if (!place->in_use || (is_over(place, now_ms) && place->left_out == 0)) {
        bound->used += !place->in_use;
        *place =
            (struct place){.in_use = true, .whose = hash, .client = *client, .since_ms = now_ms};
    }
    bool is_its = place->whose == hash;
    if (is_its && is_over(place, now_ms)) { /* else event_bound_over() tells it first */
        place->since_ms = now_ms;
        place->kept = 0;
    }
    if (!is_its || place->kept >= EVENT_BOUND_OF_ONE || !spend(bound, now_ms)) {
        place->left_out++;
        place->client = is_its ? *client : place->client;
        return false;
    }
    place->kept++;
    *ret_left_out = place->left_out;
    place->left_out = 0;
    return true;
}

bool event_bound_over(struct event_bound *bound, int64_t now_ms, struct ip_address *ret_client,
                      uint64_t *ret_left_out)
{
    for (uint32_t i = 0; i < PLACES && bound->used > 0; i++) {
        struct place *place = &bound->places[bound->looked];
        if (place->in_use && is_over(place, now_ms)) {
            if (place->left_out > 0) {
                if (!spend(bound, now_ms)) {
                    return false;
                }
                *ret_client = place->client;
                *ret_left_out = place->left_out;
                place->in_use = false;
                bound->used--;
                return true;
            }
            place->in_use = false;
            bound->used--;
        }
        bound->looked = (bound->looked + 1) % PLACES;
    }
    return false;
}
