/* SPDX-License-Identifier: Apache-2.0
 *
 * What the other nodes must know so that mail for one recipient keeps its order, though some of it
 * is in our journal alone: since when, and how far we have read what they have brought.
 */
#include "spool/pg_internal.h"

#include "sys/clock.h"

static int64_t earlier(int64_t one_ms, int64_t other_ms)
{
    return one_ms < other_ms ? one_ms : other_ms;
}

/* What is forwarded is in the order of its acceptance, about: it came into the journal so. */
static int64_t oldest_kept(const struct pg_spool *pg)
{
    const uint32_t *waiting = (const void *)pg->forward.data;
    size_t count = pg->forward.length / sizeof(*waiting), seen = 0;
    int64_t oldest_ms = INT64_MAX;
    for (size_t i = pg->forward_at; i < count && seen < PG_BEHIND_LOOK; i++) {
        const struct pg_local *local = pg_local_at(pg, waiting[i]);
        if (local != NULL && !local->stored) {
            oldest_ms = earlier(oldest_ms, id_time_ms(local->id));
            seen++;
        }
    }
    return oldest_ms;
}

/* 250 is answered for it when it is in the journal, at once or soon. */
static int64_t oldest_submitted(const struct link *list, bool away)
{
    int64_t oldest_ms = INT64_MAX, now_ms = clock_steady_ms();
    LIST_EACH(list, at, after)
    {
        const struct pg_batch *batch = LIST_ENTRY(at, struct pg_batch, link);
        bool is_late = away || now_ms - batch->submitted_ms >= PG_BEHIND_MS;
        for (size_t i = 0; is_late && i < batch_new_count(batch); i++) {
            oldest_ms = earlier(oldest_ms, batch_news(batch)[i].received_ms);
        }
    }
    return oldest_ms;
}

int64_t spool_postgres_behind(const struct spool *spool)
{
    const struct pg_spool *pg = pg_of(spool);
    bool away = pg_is_away(pg);
    int64_t oldest_ms = earlier(oldest_kept(pg), oldest_submitted(&pg->queue, away));
    oldest_ms = earlier(oldest_ms, pg_spare_oldest_ms(pg));
    if (pg->group != NULL) {
        oldest_ms = earlier(oldest_ms, oldest_submitted(&pg->group->batches, away));
    }
    return oldest_ms;
}

void spool_postgres_told(struct spool *spool, int64_t from_ms)
{
    struct pg_spool *pg = pg_of(spool);
    if (pg->told_ms != from_ms) {
        pg->told_ms = from_ms;
        pg_pump_later(pg);
    }
}

bool pg_may_divert(const struct pg_batch *batch, int64_t now_ms)
{
    const struct pg_spool *pg = batch->pg;
    size_t count = batch_new_count(batch);
    bool may = !pg->shared || count == 0 || now_ms - batch->submitted_ms >= PG_CLOCKS_MS;
    for (size_t i = 0; i < count && may; i++) {
        may = batch_news(batch)[i].received_ms >= pg->told_ms;
    }
    return may || pg->ending;
}

bool spool_postgres_has_followed(const struct spool *spool, uint64_t xid)
{
    const struct pg_spool *pg = pg_of(spool);
    struct pg_share *const *takes = (const void *)pg->takes.data;
    for (size_t i = 0; i < pg->takes.length / sizeof(*takes); i++) {
        if (!takes[i]->leaving) {
            return false; /* what comes next of it may be older than what is here */
        }
    }
    return pg->followed_xid == 0 || pg->followed_xid >= xid;
}

uint64_t spool_postgres_breaks(const struct spool *spool)
{
    return pg_of(spool)->breaks;
}
