/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections by client are counted in a table of fixed size that many addresses share (a count-min
 * sketch of two rows): it needs no lock, no allocation and no search, and a stranger with many
 * addresses cannot make it grow. A count is never too low. It can be too high only for a client
 * that meets others in both rows; the rows are keyed, so nobody can arrange that.
 */
#include "service/smtp_in_limits.h"

#include "base/hash.h"
#include "sys/random.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    ROWS = 2,
    CELLS = 1 << 15,
    LOGIN_CELLS = 1 << 12,
    LOGIN_COST_MS = 30000, /* of a login that failed, */
    LOGIN_CREDIT_MS = 10 * LOGIN_COST_MS,
};

struct smtp_in_shared {
    struct hash_key key;
    _Atomic uint32_t connections;
    _Atomic size_t content_bytes;
    _Atomic uint32_t cells[ROWS][CELLS];
    _Atomic int64_t logins[ROWS][LOGIN_CELLS]; /* steady ms until which failures are paid off */
};

struct smtp_in_shared *smtp_in_shared_new(void)
{
    struct smtp_in_shared *shared = calloc(1, sizeof(*shared));
    if (shared != NULL) {
        random_bytes(&shared->key, sizeof(shared->key));
    }
    return shared;
}

void smtp_in_shared_free(struct smtp_in_shared *shared)
{
    free(shared);
}

struct cells {
    _Atomic uint32_t *of[ROWS];
};

static struct cells cells_of(struct smtp_in_shared *shared, const struct ip_address *client)
{
    size_t length = ip_is_v4(client) ? sizeof(client->bytes) : sizeof(client->bytes) / 2;
    uint64_t hash = hash_bytes(shared->key, slice_make(client->bytes, length));
    return (struct cells){
        {&shared->cells[0][hash % CELLS], &shared->cells[1][(hash >> 32) % CELLS]}};
}

enum smtp_in_admission smtp_in_enter(struct smtp_in_shared *shared,
                                     const struct limits_config *limits,
                                     const struct ip_address *client)
{
    if (limits->connections != 0 &&
        atomic_fetch_add_explicit(&shared->connections, 1, memory_order_relaxed) >=
            limits->connections) {
        atomic_fetch_sub_explicit(&shared->connections, 1, memory_order_relaxed);
        return SMTP_IN_FULL;
    }
    if (limits->connections == 0) {
        atomic_fetch_add_explicit(&shared->connections, 1, memory_order_relaxed);
    }
    if (ip_is_loopback(client)) {
        return SMTP_IN_ADMITTED;
    }
    struct cells cells = cells_of(shared, client);
    uint32_t least = UINT32_MAX;
    for (int row = 0; row < ROWS; row++) {
        uint32_t before = atomic_fetch_add_explicit(cells.of[row], 1, memory_order_relaxed);
        least = before < least ? before : least;
    }
    if (limits->connections_per_client != 0 && least >= limits->connections_per_client) {
        smtp_in_leave(shared, client);
        return SMTP_IN_CLIENT_FULL;
    }
    return SMTP_IN_ADMITTED;
}

void smtp_in_leave(struct smtp_in_shared *shared, const struct ip_address *client)
{
    uint32_t before = atomic_fetch_sub_explicit(&shared->connections, 1, memory_order_relaxed);
    assert(before > 0);
    if (ip_is_loopback(client)) {
        return;
    }
    struct cells cells = cells_of(shared, client);
    for (int row = 0; row < ROWS; row++) {
        atomic_fetch_sub_explicit(cells.of[row], 1, memory_order_relaxed);
    }
}

/* A cell's time moves on by the cost of each failure, from now at the earliest. Cells are shared by
 * chance, as those of connections. */
static _Atomic int64_t *login_cell(struct smtp_in_shared *shared, const struct ip_address *client,
                                   int row)
{
    size_t length = ip_is_v4(client) ? sizeof(client->bytes) : sizeof(client->bytes) / 2;
    uint64_t hash = hash_bytes(shared->key, slice_make(client->bytes, length));
    return &shared->logins[row][(row == 0 ? hash : hash >> 32) % LOGIN_CELLS];
}

bool smtp_in_login_allowed(struct smtp_in_shared *shared, const struct ip_address *client,
                           int64_t now_ms)
{
    for (int row = 0; row < ROWS; row++) {
        int64_t paid_ms =
            atomic_load_explicit(login_cell(shared, client, row), memory_order_relaxed);
        if (paid_ms - now_ms <= LOGIN_CREDIT_MS - LOGIN_COST_MS) {
            return true;
        }
    }
    return false;
}

void smtp_in_login_failed(struct smtp_in_shared *shared, const struct ip_address *client,
                          int64_t now_ms)
{
    for (int row = 0; row < ROWS; row++) {
        _Atomic int64_t *cell = login_cell(shared, client, row);
        int64_t before = atomic_load_explicit(cell, memory_order_relaxed);
        int64_t after;
        do {
            after = (before > now_ms ? before : now_ms) + LOGIN_COST_MS;
        } while (!atomic_compare_exchange_weak_explicit(cell, &before, after, memory_order_relaxed,
                                                        memory_order_relaxed));
    }
}

void smtp_in_content_grown(struct smtp_in_shared *shared, size_t bytes)
{
    atomic_fetch_add_explicit(&shared->content_bytes, bytes, memory_order_relaxed);
}

void smtp_in_content_shrunk(struct smtp_in_shared *shared, size_t bytes)
{
    atomic_fetch_sub_explicit(&shared->content_bytes, bytes, memory_order_relaxed);
}

size_t smtp_in_content_bytes(const struct smtp_in_shared *shared)
{
    return atomic_load_explicit(&shared->content_bytes, memory_order_relaxed);
}
