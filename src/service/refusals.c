/* SPDX-License-Identifier: Apache-2.0
 *
 * A table of networks that were refused in the last minute. One that finds its place taken is left
 * out, and counted with whose place it is: few are, and nothing is lost of the sum.
 */
#include "service/refusals.h"

#include "base/hash.h"
#include "sys/random.h"

#include <stdlib.h>

enum { PLACES = 1024, MINUTE_MS = 60000 };

struct network_refused {
    bool in_use;
    struct ip_address client; /* the last one */
    int64_t since_ms;
    uint32_t kept;
    uint64_t left_out;
};

struct refusals {
    struct hash_key key;
    int64_t paid_ms; /* when all that was kept is paid off */
    uint32_t looked; /* refusals_over() goes round */
    struct network_refused places[PLACES];
};

struct refusals *refusals_new(void)
{
    struct refusals *refusals = calloc(1, sizeof(*refusals));
    if (refusals != NULL) {
        random_bytes(&refusals->key, sizeof(refusals->key));
        refusals->paid_ms = INT64_MIN;
    }
    return refusals;
}

void refusals_free(struct refusals *refusals)
{
    free(refusals);
}

/* One more may be kept, and is paid for. */
static bool spend(struct refusals *refusals, int64_t now_ms)
{
    const int64_t cost_ms = MINUTE_MS / REFUSALS_A_MINUTE;
    int64_t paid_ms = refusals->paid_ms > now_ms ? refusals->paid_ms : now_ms;
    if (paid_ms - now_ms > cost_ms * (REFUSALS_BURST - 1)) {
        return false;
    }
    refusals->paid_ms = paid_ms + cost_ms;
    return true;
}

static bool is_over(const struct network_refused *place, int64_t now_ms)
{
    return now_ms - place->since_ms >= MINUTE_MS;
}

bool refusals_take(struct refusals *refusals, const struct ip_address *client, int64_t now_ms,
                   uint64_t *ret_left_out)
{
    uint64_t hash = hash_bytes(refusals->key, ip_neighbours(client));
    struct network_refused *place = &refusals->places[hash % PLACES];
    if (!place->in_use || (is_over(place, now_ms) && place->left_out == 0)) {
        *place = (struct network_refused){.in_use = true, .client = *client, .since_ms = now_ms};
    }
    if (is_over(place, now_ms)) {
        place->since_ms = now_ms;
        place->kept = 0;
    }
    bool is_its = slice_equal(ip_neighbours(&place->client), ip_neighbours(client));
    if (!is_its || place->kept >= REFUSALS_OF_NETWORK || !spend(refusals, now_ms)) {
        place->left_out++;
        place->client = is_its ? *client : place->client;
        return false;
    }
    place->kept++;
    *ret_left_out = place->left_out;
    place->left_out = 0;
    return true;
}

bool refusals_over(struct refusals *refusals, int64_t now_ms, struct ip_address *ret_client,
                   uint64_t *ret_left_out)
{
    for (uint32_t i = 0; i < PLACES; i++) {
        struct network_refused *place = &refusals->places[refusals->looked];
        if (place->in_use && is_over(place, now_ms)) {
            if (place->left_out > 0) {
                if (!spend(refusals, now_ms)) {
                    return false;
                }
                *ret_client = place->client;
                *ret_left_out = place->left_out;
                place->in_use = false;
                return true;
            }
            place->in_use = false;
        }
        refusals->looked = (refusals->looked + 1) % PLACES;
    }
    return false;
}
