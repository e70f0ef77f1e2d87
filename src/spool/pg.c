/* SPDX-License-Identifier: Apache-2.0
 *
 * The PostgreSQL back-end: why it keeps its promises.
 *
 * A message goes into the journal first, and from there into the database. What of it is where is
 * said by the journal alone (pg_local): a message without the note PG_NOTE_STORED is not known to
 * be in the database, and is sent to it at the next start at the latest; sending it twice does
 * nothing the second time, for its id is the key, and parts are added with the message or not at
 * all.
 *
 * Invariants
 *  P1  A SYNCED batch is told done only after a commit of it that was waited for and not warned of
 *      (pg_group_run: PG_STAGE_COMMITTED), or after the journal has synced all of it (diverted()).
 *  P2  PG_NOTE_STORED is written, and a message of the journal ended, only after such a commit.
 *      Both are written lazily: a crash before means that it is sent once more.
 *  P3  A group whose commit has an unknown end stays as it is until its row in the database says
 *      whether it was committed (resolve()), so that no note is written twice, and what somebody
 *      else was told to be done is not undone. It is over only with a commit behind it that was
 *      confirmed, and that leaves something else in the row: so it cannot be committed later.
 *  P4  A decision is committed only in a transaction that has locked its share's token and found it
 *      to be ours (check_sql). Who takes the share changes that row, so one of both waits for the
 *      other. A fact needs no share.
 *  P5  What a batch holds takes effect in the table when P1 says that it is done, and not before.
 *  P6  What is followed is below the oldest transaction that is still under way, and begins where
 *      a share's loading began: so no commit comes late into what has been read. Another server,
 *      or another connection, begins anew (pg_follow.c).
 *  P7  A part may be read again at any time: what is here, and what has ended here, is not taken a
 *      second time (pg_load.c).
 *  P8  Each other server that is met within a minute is asked for what a commit has confirmed, and
 *      what it lacks is sent again; until then the watermark stays below, and others wait for its
 *      time (pg_spare.c).
 */
#include "spool/pg_internal.h"

#include "spool/log_internal.h"
#include "sys/clock.h"
#include "sys/random.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

void spool_postgres_settings_default(struct spool_postgres_settings *settings)
{
    *settings =
        (struct spool_postgres_settings){.inline_bytes = 64 << 10, .chunk_bytes = 256 << 10};
}

/* ---- content: the journal's -------------------------------------------------------------- */

static struct spool_content *pg_content_new(struct spool *spool, uint64_t expected)
{
    return spool_content_new(pg_of(spool)->journal, expected); /* it goes there by itself */
}

static size_t pg_content_pending(const struct spool *spool)
{
    return spool_content_pending(pg_of(spool)->journal);
}

static void pg_content_relieve(struct spool *spool)
{
    spool_content_relieve(pg_of(spool)->journal);
}

/* ---- state ------------------------------------------------------------------------------- */

static void journal_state_changed(void *context)
{
    struct pg_spool *pg = context;
    if (pg->owner.state_changed != NULL && pg->opened && !pg->ending) {
        pg->owner.state_changed(pg->owner.context);
    }
}

static void pg_set_reserve(struct spool *spool, uint64_t reserve_bytes)
{
    spool_set_reserve(pg_of(spool)->journal, reserve_bytes);
}

/* Why, and on the steady clock since when; it is away while a group has no answer, too. */
static const char *why_away(const struct pg_spool *pg, int64_t *ret_since_ms)
{
    bool hangs = pg->up && pg_is_away(pg);
    *ret_since_ms = hangs ? pg->group->began_ms : pg->since_ms;
    return hangs ? "no answer to what is being written" : pg->reason;
}

static void pg_status(const struct spool *spool, struct spool_state *ret_state)
{
    const struct pg_spool *pg = pg_of(spool);
    spool_status(pg->journal, ret_state);
    ret_state->messages = pg->messages;
    ret_state->live_bytes = pg->live_bytes;
    ret_state->groups = pg->groups;
    ret_state->quarantined += pg->quarantined;
    if (ret_state->accepting == ERROR_NONE && pg->settings.defer_when_away && pg_is_away(pg)) {
        int64_t since_ms;
        ret_state->accepting = ERROR_IO;
        snprintf(ret_state->reason, sizeof(ret_state->reason), "the database is away: %.130s",
                 why_away(pg, &since_ms));
    }
}

void spool_postgres_status(const struct spool *spool, struct spool_postgres_state *ret_state)
{
    const struct pg_spool *pg = pg_of(spool);
    *ret_state = (struct spool_postgres_state){.up = !pg_is_away(pg),
                                               .one_copy = pg->one_copy,
                                               .messages_missing = pg->spare.messages_missing,
                                               .fates_missing = pg->spare.fates_missing,
                                               .commit_us = pg->commit_us};
    int64_t oldest_ms = INT64_MAX;
    const struct link *const lists[] = {&pg->queue,
                                        pg->group != NULL ? &pg->group->batches : &pg->queue};
    for (size_t i = 0; i < (pg->group != NULL ? 2 : 1); i++) {
        LIST_EACH(lists[i], at, after)
        {
            const struct pg_batch *batch = LIST_ENTRY(at, struct pg_batch, link);
            ret_state->waiting += !batch->told;
            if (!batch->told && batch->submitted_ms < oldest_ms) {
                oldest_ms = batch->submitted_ms;
            }
        }
    }
    ret_state->lag_ms = oldest_ms == INT64_MAX ? 0 : clock_steady_ms() - oldest_ms;
    snprintf(ret_state->reason, sizeof(ret_state->reason), "%s",
             why_away(pg, &ret_state->since_ms));
}

static void pg_tick(struct spool *spool)
{
    struct pg_spool *pg = pg_of(spool);
    struct spool_state journal;
    spool_tick(pg->journal);
    spool_status(pg->journal, &journal);
    bool full = journal.available_bytes < journal.reserve_bytes;
    pg_spare_room(pg, full ? 0 : journal.available_bytes - journal.reserve_bytes);
    pg->flush_lazy = true;
    pg_pump_later(pg);
}

static void look(void *context)
{
    pg_pump(context);
}

/* ---- closing ----------------------------------------------------------------------------- */

void pg_damage(struct pg_spool *pg, const char *text)
{
    pg->quarantined++;
    if (pg->loader.damage != NULL && !pg->ending) {
        pg->loader.damage(pg->loader.context, text);
    }
}

static bool is_busy(const struct pg_spool *pg)
{
    return pg->batches > 0 || pg->group != NULL;
}

/* As the loop would: the journal, what it completes, the database. */
void pg_drain(struct pg_spool *pg)
{
    int64_t until_ms = clock_steady_ms() + PG_SLOW_MS;
    pg->flush_lazy = true;
    bool tried = false;
    do {
        journal_drain((struct journal *)pg->journal);
        pg->flush_lazy = true;
        pg_pump(pg);
        journal_drain((struct journal *)pg->journal);
        if (pg->group != NULL && !pg->group_running) {
            if (tried) {
                break; /* once more will not help */
            }
            tried = true;
            pg_group_retry(pg);
        }
        if (pg->group_running) {
            worker_drain(pg->committer);
        }
        journal_drain((struct journal *)pg->journal);
    } while ((is_busy(pg) || pg_is_forwarding(pg)) && clock_steady_ms() < until_ms);
}

/* What the database has not taken: what may be is in the journal, the rest was not done. */
static void give_up(struct pg_spool *pg)
{
    pg->up = false;
    pg_divert_due(pg);
    journal_drain((struct journal *)pg->journal);
    pg_batches_end(pg);
    pg_marks_write(pg);
}

static void pg_free(struct pg_spool *pg)
{
    pg->ending = true;
    if (pg->page != NULL) {
        database_interrupt(pg->reading);
    }
    if (pg->heard != NULL) {
        database_interrupt(pg->listening);
    }
    worker_free(pg->listener);
    worker_free(pg->committer);
    worker_free(pg->reader); /* ends what was being fetched, but for what is being written */
    if (pg->journal != NULL) {
        journal_drain((struct journal *)pg->journal);
    }
    pg_load_free(pg);
    pg_spare_done(&pg->spare);
    loop_later_free(pg->later);
    loop_timer_free(pg->timer);
    loop_timer_free(pg->retry);
    loop_timer_free(pg->follow);
    loop_timer_free(pg->listen);
    loop_alarm_free(pg->alarm);
    pg_group_free(pg->group);
    spool_close(pg->journal);
    database_free(pg->writer.database);
    database_free(pg->reading);
    database_free(pg->listening);
    database_free(pg->asking);
    pg_ahead_free(pg);
    pg_locals_free(pg);
    pg_globals_free(pg);
    pg_shares_free(pg);
    table_done(&pg->table);
    buffer_done(&pg->forward);
    buffer_done(&pg->aside);
    buffer_done(&pg->marks);
    free(pg->owners);
    free(pg);
}

static void pg_close(struct spool *spool)
{
    struct pg_spool *pg = pg_of(spool);
    assert(pg->open == NULL);
    pg->ending = true;
    if (pg->group_running && pg_is_away(pg)) {
        database_interrupt(pg->writer.database);
    }
    pg_drain(pg);
    give_up(pg);
    pg_free(pg);
}

/* ---- opening ----------------------------------------------------------------------------- */

static const struct spool_ops pg_ops = {
    .load = pg_load,
    .close = pg_close,
    .content_new = pg_content_new,
    .content_pending = pg_content_pending,
    .content_relieve = pg_content_relieve,
    .batch_begin = pg_batch_begin,
    .batch_cancel = pg_batch_cancel,
    .batch_message = pg_batch_message,
    .batch_about = pg_batch_about,
    .batch_new_fate = pg_batch_new_fate,
    .batch_new_note = pg_batch_new_note,
    .batch_fate = pg_batch_fate,
    .batch_taken = pg_batch_taken,
    .batch_fact = pg_batch_fact,
    .batch_note = pg_batch_note,
    .batch_global_note = pg_batch_global_note,
    .batch_submit = pg_batch_submit,
    .find = pg_find,
    .was_stored = pg_was_stored,
    .find_delivery = pg_find_delivery,
    .id = pg_id,
    .sequence = pg_sequence,
    .fate_of = pg_fate_of,
    .read_envelope = pg_read_envelope,
    .read_content = pg_read_content,
    .pin = pg_pin,
    .unpin = pg_unpin,
    .prepare = pg_prepare,
    .ticket = pg_ticket,
    .set_reserve = pg_set_reserve,
    .keep_copies = pg_keep_copies,
    .copies_find = pg_copies_find,
    .copies_progress = pg_copies_progress,
    .copies_counts = pg_copies_counts,
    .copies_get = pg_copies_get,
    .copies_read_envelope = pg_copies_read_envelope,
    .copies_read_content = pg_copies_read_content,
    .copies_free = pg_copies_free,
    .status = pg_status,
    .tick = pg_tick,
};

static enum error connect_later(struct pg_spool *pg, const struct database_settings *database)
{
    struct database_settings at_once = *database;
    at_once.connect_timeout_ms = PG_CONNECT_AT_ONCE_MS;
    pg->writer.database = database_new(database);
    pg->reading = database_new(database);
    pg->listening = database_new(database);
    pg->asking = database_new(&at_once);
    return pg->writer.database != NULL && pg->reading != NULL && pg->listening != NULL &&
                   pg->asking != NULL
               ? ERROR_NONE
               : ERROR_MEMORY;
}

static enum error start(struct pg_spool *pg, const struct spool_postgres_settings *postgres)
{
    pg->committer = worker_new(pg->loop, "spool-pg");
    pg->reader = worker_new(pg->loop, "spool-pg-read");
    pg->listener = worker_new(pg->loop, "spool-pg-hear");
    pg->listen = loop_timer_new(pg->loop, pg_listen, pg);
    pg->later = loop_later_new(pg->loop, pg_pump, pg);
    pg->timer = loop_timer_new(pg->loop, look, pg);
    pg->retry = loop_timer_new(pg->loop, pg_group_retry, pg);
    pg->alarm = loop_alarm_new(pg->loop, pg_company_late, pg);
    pg->follow = loop_timer_new(pg->loop, pg_follow_now, pg);
    if (pg->committer == NULL || pg->reader == NULL || pg->later == NULL || pg->timer == NULL ||
        pg->retry == NULL || pg->follow == NULL || pg->listener == NULL || pg->listen == NULL ||
        pg->alarm == NULL) {
        return ERROR_MEMORY;
    }
    if (!pg->shared) {
        pg->only = pg_share_numbered(pg, 0);
        if (pg->only == NULL) {
            return ERROR_MEMORY;
        }
        pg->only->owned = true;
    }
    enum error error = table_init(&pg->table);
    return error == ERROR_NONE ? connect_later(pg, &postgres->database) : error;
}

enum error spool_open_postgres(struct loop *loop, struct disk *journal,
                               const struct spool_settings *settings,
                               const struct spool_postgres_settings *postgres,
                               const struct spool_owner *owner, struct spool **ret_spool)
{
    struct pg_spool *pg = calloc(1, sizeof(*pg));
    if (pg == NULL) {
        disk_free(journal);
        return ERROR_MEMORY;
    }
    pg->spool.ops = &pg_ops;
    pg->loop = loop;
    pg->disk = journal;
    pg->owner = *owner;
    pg->settings = *postgres;
    pg->settings.database = (struct database_settings){0}; /* its strings are the caller's */
    pg->settings.shares = NULL;
    pg->shared = postgres->shares != NULL;
    pg->shares = pg->shared ? *postgres->shares : (struct spool_shares){0};
    pg->key = (struct hash_key){random_u64(), random_u64()};
    pg->next_group = random_u64();
    pg->told_ms = INT64_MIN;
    pg->up = pg_has_joined(pg); /* until we know better */
    snprintf(pg->reason, sizeof(pg->reason), "%s", pg->up ? "" : "this node has not joined yet");
    pg->since_ms = clock_steady_ms();
    pg->page_limit = PG_PAGE;
    pg_spare_init(&pg->spare);
    pg->forward_most = PG_FORWARD_MOST;
    pg->time_ahead_ms = clock_wall_ms() - clock_steady_ms();
    pg->unsynced = pg->syncing = PG_NO_ID;
    map_init(&pg->names);
    map_init(&pg->numbers);
    list_init(&pg->queue);
    list_init(&pg->held);
    list_init(&pg->globals);
    list_init(&pg->fetches);
    const struct spool_owner journal_owner = {
        .context = pg, .describe = pg_describe, .state_changed = journal_state_changed};
    enum error error = spool_open_log(loop, journal, settings, &journal_owner, &pg->journal);
    if (error == ERROR_NONE) {
        error = start(pg, postgres);
    }
    if (error != ERROR_NONE) {
        pg_free(pg);
        return error;
    }
    if (pg->shared) {
        pg_listen(pg);
    }
    pg->opened = true;
    *ret_spool = &pg->spool;
    return ERROR_NONE;
}
