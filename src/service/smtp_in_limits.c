/* SPDX-License-Identifier: Apache-2.0
 *
 * Clients are counted in tables of fixed size whose cells many addresses share (count-min sketches
 * of two rows): that needs no lock, no allocation and no search, and a stranger with many
 * addresses cannot make it grow. A count is never too low. It can be too high only for a client
 * that meets others in both rows; the rows are keyed, so nobody can arrange that.
 */
#include "service/smtp_in_limits.h"

#include "base/hash.h"
#include "service/greylist.h"
#include "sys/random.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    ROWS = 2,
    CELLS = 1 << 15,
};

struct smtp_in_shared {
    struct tls_tickets tickets;
    struct hash_key key;
    struct greylist *greylist; /* or NULL */
    _Atomic uint32_t connections;
    _Atomic size_t content_bytes;
    _Atomic uint32_t clients[ROWS][CELLS];
    _Atomic uint32_t networks[ROWS][CELLS];
    _Atomic int64_t deeds[SMTP_IN_DEEDS][ROWS][CELLS]; /* steady us when all is paid off */
};

struct smtp_in_shared *smtp_in_shared_new(struct greylist *greylist)
{
    struct smtp_in_shared *shared = calloc(1, sizeof(*shared));
    if (shared != NULL) {
        random_bytes(&shared->key, sizeof(shared->key));
        random_bytes(&shared->tickets, sizeof(shared->tickets));
        shared->greylist = greylist;
    }
    return shared;
}

void smtp_in_shared_free(struct smtp_in_shared *shared)
{
    free(shared);
}

const struct tls_tickets *smtp_in_tickets(const struct smtp_in_shared *shared)
{
    return &shared->tickets;
}

/* Of the first octets of the client's address. */
static void cells_of(const struct smtp_in_shared *shared, const struct ip_address *client,
                     size_t octets, uint32_t ret_cells[ROWS])
{
    uint64_t hash = hash_bytes(shared->key, slice_make(client->bytes, octets));
    ret_cells[0] = (uint32_t)(hash % CELLS);
    ret_cells[1] = (uint32_t)((hash >> 32) % CELLS);
}

static size_t client_octets(const struct ip_address *client)
{
    return ip_is_v4(client) ? 16 : 8;
}

static size_t network_octets(const struct ip_address *client)
{
    return ip_is_v4(client) ? 15 : 6;
}

/* How many there were. */
static uint32_t count_up(_Atomic uint32_t table[ROWS][CELLS], const uint32_t cells[ROWS])
{
    uint32_t least = UINT32_MAX;
    for (int row = 0; row < ROWS; row++) {
        uint32_t before =
            atomic_fetch_add_explicit(&table[row][cells[row]], 1, memory_order_relaxed);
        least = before < least ? before : least;
    }
    return least;
}

static void count_down(_Atomic uint32_t table[ROWS][CELLS], const uint32_t cells[ROWS])
{
    for (int row = 0; row < ROWS; row++) {
        atomic_fetch_sub_explicit(&table[row][cells[row]], 1, memory_order_relaxed);
    }
}

static bool is_free(const struct ip_address *client)
{
    return client == NULL || ip_is_loopback(client);
}

static void uncount(struct smtp_in_shared *shared, const struct ip_address *client)
{
    uint32_t cells[ROWS];
    if (!is_free(client)) {
        cells_of(shared, client, client_octets(client), cells);
        count_down(shared->clients, cells);
        cells_of(shared, client, network_octets(client), cells);
        count_down(shared->networks, cells);
    }
}

static enum smtp_in_admission count(struct smtp_in_shared *shared,
                                    const struct limits_config *limits,
                                    const struct ip_address *client)
{
    enum smtp_in_admission admission = SMTP_IN_ADMITTED;
    uint32_t cells[ROWS];
    if (is_free(client)) {
        return SMTP_IN_ADMITTED;
    }
    cells_of(shared, client, client_octets(client), cells);
    uint32_t of_client = count_up(shared->clients, cells);
    cells_of(shared, client, network_octets(client), cells);
    uint32_t of_network = count_up(shared->networks, cells);
    if (limits->connections_per_client != 0 && of_client >= limits->connections_per_client) {
        admission = SMTP_IN_CLIENT_FULL;
    } else if (limits->connections_per_network != 0 &&
               of_network >= limits->connections_per_network) {
        admission = SMTP_IN_NETWORK_FULL;
    }
    if (admission != SMTP_IN_ADMITTED) {
        uncount(shared, client);
    }
    return admission;
}

enum smtp_in_admission smtp_in_enter(struct smtp_in_shared *shared,
                                     const struct limits_config *limits,
                                     const struct ip_address *client)
{
    uint32_t all = atomic_fetch_add_explicit(&shared->connections, 1, memory_order_relaxed);
    enum smtp_in_admission admission = limits->connections != 0 && all >= limits->connections
                                           ? SMTP_IN_FULL
                                           : count(shared, limits, client);
    if (admission != SMTP_IN_ADMITTED) {
        atomic_fetch_sub_explicit(&shared->connections, 1, memory_order_relaxed);
    }
    return admission;
}

enum smtp_in_admission smtp_in_change(struct smtp_in_shared *shared,
                                      const struct limits_config *limits,
                                      const struct ip_address *old, const struct ip_address *client)
{
    enum smtp_in_admission admission = count(shared, limits, client);
    if (admission == SMTP_IN_ADMITTED) {
        uncount(shared, old);
    }
    return admission;
}

void smtp_in_leave(struct smtp_in_shared *shared, const struct ip_address *client)
{
    uint32_t before = atomic_fetch_sub_explicit(&shared->connections, 1, memory_order_relaxed);
    assert(before > 0);
    uncount(shared, client);
}

struct smtp_in_pace smtp_in_per_minute(uint32_t count)
{
    enum { MINUTE_US = 60000000 };
    return (struct smtp_in_pace){count == 0 ? 0 : MINUTE_US / count, MINUTE_US};
}

static bool is_counted(struct smtp_in_pace pace, const struct ip_address *client)
{
    return pace.cost_us != 0 && !ip_is_loopback(client);
}

bool smtp_in_may(struct smtp_in_shared *shared, enum smtp_in_deed deed, struct smtp_in_pace pace,
                 const struct ip_address *client, int64_t now_ms)
{
    uint32_t cells[ROWS];
    bool may = false;
    if (!is_counted(pace, client)) {
        return true;
    }
    cells_of(shared, client, client_octets(client), cells);
    for (int row = 0; row < ROWS && !may; row++) {
        int64_t paid_us =
            atomic_load_explicit(&shared->deeds[deed][row][cells[row]], memory_order_relaxed);
        may = paid_us - now_ms * 1000 <= pace.credit_us - pace.cost_us;
    }
    return may;
}

/* A cell's time moves on by the cost, from now at the earliest. */
void smtp_in_did(struct smtp_in_shared *shared, enum smtp_in_deed deed, struct smtp_in_pace pace,
                 const struct ip_address *client, int64_t now_ms)
{
    uint32_t cells[ROWS];
    if (!is_counted(pace, client)) {
        return;
    }
    cells_of(shared, client, client_octets(client), cells);
    for (int row = 0; row < ROWS; row++) {
        _Atomic int64_t *cell = &shared->deeds[deed][row][cells[row]];
        int64_t before = atomic_load_explicit(cell, memory_order_relaxed);
        int64_t most = now_ms * 1000 + 2 * pace.credit_us, after;
        do {
            after = (before > now_ms * 1000 ? before : now_ms * 1000) + pace.cost_us;
            after = after < most ? after : most; /* a penance has an end */
        } while (!atomic_compare_exchange_weak_explicit(cell, &before, after, memory_order_relaxed,
                                                        memory_order_relaxed));
    }
}

struct ip_address smtp_in_user(const struct smtp_in_shared *shared, struct slice name)
{
    struct ip_address address = {0};
    uint64_t hash = hash_bytes_fold(shared->key, name) | 1;
    memcpy(address.bytes, &hash, sizeof(hash)); /* not 0: no IPv4 address, nor loopback */
    return address;
}

struct greylist *smtp_in_greylist(struct smtp_in_shared *shared)
{
    return shared->greylist;
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
