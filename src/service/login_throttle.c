/* SPDX-License-Identifier: Apache-2.0 */
#include "service/login_throttle.h"

#include <stdlib.h>

enum {
    WAYS = 4, /* places that a key may have */
    SETS = 2048,
    CLIENT_BYTES = 16,
};

struct cell {
    uint64_t key; /* 0: free */
    int64_t last_ms;
    int64_t until_ms;
    uint32_t failures;
};

struct table {
    struct cell cells[SETS][WAYS];
};

struct login_throttle {
    struct hash_key key;
    struct table clients, accounts;
    struct table friends; /* a client and an account that it has logged in to */
};

struct login_throttle *login_throttle_new(struct hash_key key)
{
    struct login_throttle *throttle = calloc(1, sizeof(*throttle));
    if (throttle != NULL) {
        throttle->key = key;
    }
    return throttle;
}

void login_throttle_free(struct login_throttle *throttle)
{
    free(throttle);
}

/* ---- cells -------------------------------------------------------------------------------- */

static struct cell *find(struct table *table, uint64_t key)
{
    struct cell *set = table->cells[key % SETS];
    for (int way = 0; way < WAYS; way++) {
        if (set[way].key == key) {
            return &set[way];
        }
    }
    return NULL;
}

/* The one with the fewest failures matters least, of those the one that was quiet for longest. */
static bool matters_less(const struct cell *a, const struct cell *b)
{
    if ((a->key == 0) != (b->key == 0)) {
        return a->key == 0;
    }
    return a->failures != b->failures ? a->failures < b->failures : a->last_ms < b->last_ms;
}

static struct cell *take(struct table *table, uint64_t key)
{
    struct cell *cell = find(table, key);
    if (cell != NULL) {
        return cell;
    }
    struct cell *set = table->cells[key % SETS];
    cell = &set[0];
    for (int way = 1; way < WAYS; way++) {
        if (matters_less(&set[way], cell)) {
            cell = &set[way];
        }
    }
    *cell = (struct cell){.key = key};
    return cell;
}

static void forget_old(struct cell *cell, int64_t now_ms)
{
    int64_t since = cell->until_ms > cell->last_ms ? cell->until_ms : cell->last_ms;
    for (; cell->failures > 0 && now_ms - since >= LOGIN_HALF_LIFE_MS;
         since += LOGIN_HALF_LIFE_MS) {
        cell->failures /= 2;
        cell->last_ms = since + LOGIN_HALF_LIFE_MS;
    }
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t wait_of(const struct cell *cell, int64_t now_ms)
{
    return cell != NULL && cell->until_ms > now_ms ? cell->until_ms - now_ms : 0;
}

/* How long it must wait from now on; 0: not at all. */
static int64_t count_failure(struct cell *cell, uint32_t free_failures, int64_t now_ms)
{
    forget_old(cell, now_ms);
    cell->failures++;
    cell->last_ms = now_ms;
    if (cell->failures <= free_failures) {
        return 0;
    }
    uint32_t doublings = cell->failures - free_failures - 1;
    int64_t wait_ms =
        doublings < 8 ? (int64_t)LOGIN_WAIT_FIRST_MS << doublings : LOGIN_WAIT_MOST_MS;
    wait_ms = wait_ms < LOGIN_WAIT_MOST_MS ? wait_ms : LOGIN_WAIT_MOST_MS;
    cell->until_ms = now_ms + wait_ms;
    return wait_ms;
}

/* ---- keys: never 0 ------------------------------------------------------------------------ */

static struct slice client_bytes(const struct ip_address *client)
{
    return slice_make(client->bytes, ip_is_v4(client) ? CLIENT_BYTES : CLIENT_BYTES / 2);
}

static uint64_t client_key(const struct login_throttle *throttle, const struct ip_address *client)
{
    return hash_bytes(throttle->key, client_bytes(client)) | 1;
}

static uint64_t account_key(const struct login_throttle *throttle, struct slice account)
{
    return hash_bytes_fold(throttle->key, account) | 1;
}

static uint64_t friend_key(const struct login_throttle *throttle, const struct ip_address *client,
                           struct slice account)
{
    struct hash_key key = throttle->key;
    key.k0 ^= client_key(throttle, client); /* one keyed by the other */
    return hash_bytes_fold(key, account) | 1;
}

/* ---- questions ---------------------------------------------------------------------------- */

int64_t login_throttle_wait(struct login_throttle *throttle, const struct ip_address *client,
                            struct slice account, int64_t now_ms)
{
    const struct cell *known = find(&throttle->friends, friend_key(throttle, client, account));
    if (known != NULL) {
        return wait_of(known, now_ms);
    }
    int64_t a = wait_of(find(&throttle->clients, client_key(throttle, client)), now_ms);
    int64_t b = wait_of(find(&throttle->accounts, account_key(throttle, account)), now_ms);
    return most(a, b);
}

static int64_t delay_of(uint32_t failures)
{
    int64_t delay_ms = failures * (int64_t)LOGIN_DELAY_STEP_MS;
    return delay_ms < LOGIN_DELAY_MOST_MS ? delay_ms : LOGIN_DELAY_MOST_MS;
}

struct login_failure login_throttle_failed(struct login_throttle *throttle,
                                           const struct ip_address *client, struct slice account,
                                           struct slice identity, int64_t now_ms)
{
    struct login_failure result = {0};
    const struct slice names[] = {account, identity};
    const size_t count = identity.length > 0 ? 2 : 1;
    bool is_friend = false;
    for (size_t i = 0; i < count; i++) {
        struct cell *known = find(&throttle->friends, friend_key(throttle, client, names[i]));
        if (known != NULL) {
            is_friend = true;
            result.client_wait_ms =
                most(result.client_wait_ms, count_failure(known, LOGIN_FRIEND_FREE, now_ms));
            result.delay_ms = most(result.delay_ms, delay_of(known->failures));
        }
    }
    if (is_friend) {
        return result;
    }
    struct cell *from = take(&throttle->clients, client_key(throttle, client));
    result.client_wait_ms = count_failure(from, LOGIN_CLIENT_FREE, now_ms);
    result.delay_ms = delay_of(from->failures);
    for (size_t i = 0; i < count; i++) {
        struct cell *at = take(&throttle->accounts, account_key(throttle, names[i]));
        result.account_wait_ms =
            most(result.account_wait_ms, count_failure(at, LOGIN_ACCOUNT_FREE, now_ms));
    }
    return result;
}

void login_throttle_passed(struct login_throttle *throttle, const struct ip_address *client,
                           struct slice account, int64_t now_ms)
{
    struct cell *known = take(&throttle->friends, friend_key(throttle, client, account));
    *known = (struct cell){.key = known->key, .last_ms = now_ms};
}
