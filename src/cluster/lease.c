/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/lease.h"

#include "cluster/balance.h"

#include <assert.h>

void lease_renew(struct lease *lease, struct lease_time sent)
{
    *lease = (struct lease){true, sent};
}

int64_t lease_left_ms(const struct lease *lease, struct lease_time now)
{
    if (!lease->held) {
        return 0;
    }
    int64_t steady = now.steady_ms - lease->sent.steady_ms;
    int64_t wall = now.wall_ms - lease->sent.wall_ms;
    int64_t passed = steady + (wall > steady ? wall - steady : steady - wall);
    return passed < LEASE_MS ? LEASE_MS - passed : 0;
}

bool lease_allows(const struct lease *lease, struct lease_time now)
{
    return lease_left_ms(lease, now) >= LEASE_MARGIN_MS;
}

void contact_heard(struct contact *contact, int64_t sent_ms, int64_t now_ms, uint64_t database)
{
    bool goes_on = contact->made && contact->database == database &&
                   now_ms - contact->last_ms <= LEASE_GAP_MS && now_ms - sent_ms <= LEASE_GAP_MS;
    if (!goes_on) {
        contact->since_ms = now_ms;
    }
    contact->made = true;
    contact->last_ms = now_ms;
    contact->database = database;
}

void contact_lost(struct contact *contact)
{
    contact->made = false;
}

int64_t contact_ms(const struct contact *contact, int64_t now_ms)
{
    if (!contact->made || now_ms - contact->last_ms > LEASE_GAP_MS) {
        return 0;
    }
    return contact->last_ms - contact->since_ms;
}

void heartbeat_read(struct heartbeat_seen *seen, uint64_t incarnation, int64_t beat_us,
                    int64_t now_ms)
{
    if (!seen->seen || seen->incarnation != incarnation || seen->beat_us != beat_us) {
        *seen = (struct heartbeat_seen){incarnation, beat_us, now_ms, true};
    }
}

int64_t heartbeat_unchanged_ms(const struct heartbeat_seen *seen, int64_t now_ms)
{
    return seen->seen ? now_ms - seen->first_ms : 0;
}

bool heartbeat_has_lapsed(const struct heartbeat_seen *seen, int64_t age_ms,
                          const struct contact *contact, int64_t now_ms)
{
    int64_t unchanged_ms = heartbeat_unchanged_ms(seen, now_ms);
    return contact_ms(contact, now_ms) >= LEASE_CONTACT_MS &&
           (unchanged_ms >= LEASE_MS ||
            (age_ms >= LEASE_MS && unchanged_ms >= LEASE_MS - LEASE_MARGIN_MS));
}

enum node_state node_state_of(const struct node_read *read)
{
    if (read->gone) {
        return NODE_DOWN;
    }
    if (read->age_ms >= LEASE_SUSPECT_MS) {
        return NODE_SUSPECT;
    }
    if (read->draining) {
        return NODE_DRAINING;
    }
    return read->up_ms < BALANCE_SETTLE_MS ? NODE_JOINING : NODE_UP;
}

const char *node_state_text(enum node_state state)
{
    static const char *const texts[] = {"joining", "up", "suspect", "draining", "down"};
    assert((unsigned)state < sizeof(texts) / sizeof(texts[0]));
    return texts[state];
}
