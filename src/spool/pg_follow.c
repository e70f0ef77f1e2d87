/* SPDX-License-Identifier: Apache-2.0
 *
 * Which page the reader reads next, on the loop: taking shares and following what came to those
 * that are ours.
 *
 * Taking. The first of all shares that are to be taken come together, so that these are here soon,
 * whatever the others hold. Then those that are as far as each other are read as one, in the order
 * of all their parts, if they are many; fewer have a page each by turns. Following has every other
 * page.
 * The first page of a share says from which transaction on it is followed (from_xid): all before it
 * are over, so the share's pages have their parts. Those after it come by following, which goes
 * back there when the share has been taken; not earlier, for they must not overtake what is older.
 *
 * Following. Parts are read below the oldest transaction that is still under way, so no commit
 * comes late into what has been read. That holds for one server. When the reader meets another one,
 * or one whose transactions count less, then it may have other mail than the one before, with ids
 * of transactions that were passed long ago: following goes on from where that one is, and each
 * share of ours is looked through once more from the start, with all that came late. When it meets
 * the same one on a new connection, that may have lost its last moments (a crash, commits that
 * nobody waited for) and use their ids again: following goes back by PG_TRAIL_MS; where nothing has
 * been followed yet, what is being taken begins anew. Parts that are known are passed over
 * (pg_load.c), so reading again costs time and does no harm. And what we have given to the one
 * before it may not have (pg_spare.c).
 *
 * What came late. Fates that were told by others are read with what is followed, page by page. A
 * page's are told when it comes, and those whose deliveries are here, but in flight, are kept and
 * told once a look: they are no more than the deliveries, and each is kept once.
 */
#include "spool/pg_page.h"
#include "sys/clock.h"

#include <stdlib.h>

/* ---- which shares are being taken ----------------------------------------------------------- */

enum error pg_load_begin(struct pg_spool *pg, struct pg_share *share)
{
    share->begun = false;
    share->at = (struct pg_place){0};
    struct pg_share *const *takes = (const void *)pg->takes.data;
    for (size_t i = 0; i < pg->takes.length / sizeof(*takes); i++) {
        if (takes[i] == share) {
            return ERROR_NONE;
        }
    }
    buffer_append(&pg->takes, slice_make(&share, sizeof(share)));
    if (pg->takes.failed) {
        pg->takes.failed = false;
        return ERROR_MEMORY;
    }
    return ERROR_NONE;
}

void pg_load_stop(struct pg_spool *pg, struct pg_share *share)
{
    struct pg_share **takes = (void *)pg->takes.data;
    size_t count = pg->takes.length / sizeof(*takes), kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (takes[i] != share) {
            takes[kept++] = takes[i];
        }
    }
    pg->takes.length = kept * sizeof(*takes);
}

static bool place_equal(struct pg_place a, struct pg_place b)
{
    return a.xid == b.xid && a.sequence == b.sequence && id_equal(a.id, b.id);
}

static struct pg_head *heads_of(const struct pg_page *page, size_t *ret_count)
{
    *ret_count = page->heads.length / sizeof(struct pg_head);
    return (struct pg_head *)(void *)page->heads.data;
}

bool pg_load_is_at(const struct pg_spool *pg, const struct pg_share *share)
{
    size_t count = 0;
    const struct pg_head *heads = pg->page == NULL ? NULL : heads_of(pg->page, &count);
    for (size_t i = 0; i < count; i++) {
        if (heads[i].share == share) {
            return true;
        }
    }
    return false;
}

/* The next one has its turn. */
static void turn(struct pg_spool *pg, struct pg_share *share)
{
    size_t before = pg->takes.length;
    pg_load_stop(pg, share);
    if (pg->takes.length < before) {
        buffer_append(&pg->takes, slice_make(&share, sizeof(share))); /* there is room */
    }
}

/* ---- where following is --------------------------------------------------------------------- */

static void follow_from(struct pg_spool *pg, uint64_t xid)
{
    pg->followed_xid = xid;
    pg->follow_until_xid = 0;
    pg->follow_after = (struct pg_place){0};
    pg->follow_after_late = (struct pg_late){0};
}

static void follow_back_to(struct pg_spool *pg, uint64_t xid)
{
    bool is_back = pg->followed_xid == 0 || pg->followed_xid > xid;
    follow_from(pg, is_back ? xid : pg->followed_xid);
    pg->follow_asked = true;
}

static void keep_trail(struct pg_spool *pg, bool anew)
{
    int64_t now_ms = clock_steady_ms();
    if (anew || pg->trail[0] == 0) {
        pg->trail[0] = pg->trail[1] = pg->followed_xid;
        pg->trail_ms = now_ms;
    } else if (now_ms - pg->trail_ms >= PG_TRAIL_MS) {
        pg->trail[0] = pg->trail[1];
        pg->trail[1] = pg->followed_xid;
        pg->trail_ms = now_ms;
    }
}

/* What is being loaded is read from the start, and all that came late. */
static void take_anew(struct pg_spool *pg, struct pg_share *share)
{
    pg->lates_anew = true;
    if (pg_load_begin(pg, share) != ERROR_NONE) {
        abort(); /* what is in the queue must not be overlooked */
    }
}

static void other_session(struct pg_spool *pg)
{
    size_t cursor = 0;
    struct pg_share *share;
    uint64_t from = pg->trail[0];
    while ((share = map_next(&pg->numbers, &cursor)) != NULL) {
        if (from != 0) {
            share->from_xid = share->from_xid < from ? share->from_xid : from;
        } else if (share->taking) {
            take_anew(pg, share);
        }
    }
    if (from != 0) {
        follow_back_to(pg, from);
    }
}

static void other_server(struct pg_spool *pg, uint64_t xmin)
{
    size_t cursor = 0;
    struct pg_share *share;
    while ((share = map_next(&pg->numbers, &cursor)) != NULL) {
        share->from_xid = xmin;
        if (share->owned || share->taking) {
            share->anew = share->owned;
            take_anew(pg, share);
        }
    }
    if (pg->followed_xid != 0) {
        follow_from(pg, xmin);
        pg->follow_asked = true;
        keep_trail(pg, true);
    }
    pg_locals_heard(pg, UINT64_MAX);
}

/* False: what the page brings does not go on from what was read before. */
static bool is_as_before(struct pg_spool *pg, const struct pg_page *page)
{
    if (page->xmin == 0) {
        return true; /* it does not say */
    }
    bool first = pg->session == 0;
    bool server = page->server == pg->server && page->xmin >= pg->followed_xid;
    bool session = page->session == pg->session;
    pg->server = page->server;
    pg->session = page->session;
    if (first || !server) {
        pg_spare_doubt(pg);
    }
    if (!first && !server) {
        other_server(pg, page->xmin);
    } else if (!first && !session) {
        other_session(pg);
    }
    return first || (server && session);
}

/* ---- pages ------------------------------------------------------------------------------- */

/* Parts that were followed already need not be looked at again. */
static void share_taken(struct pg_spool *pg, struct pg_share *share)
{
    size_t cursor = 0;
    struct pg_share *other;
    pg_load_stop(pg, share);
    if (!pg->shared) {
        pg->load_complete = true;
        return;
    }
    if (share->anew) {
        share->anew = false;
        return;
    }
    while ((other = map_next(&pg->numbers, &cursor)) != NULL) {
        if (other->owned && other->from_xid < pg->followed_xid) {
            other->from_xid = pg->followed_xid;
        }
    }
    follow_back_to(pg, share->from_xid);
    keep_trail(pg, false);
    share->taking = false;
    share->owned = true;
    pg->shares.taken(pg->shares.context, share->number);
}

static bool is_wanted(const struct pg_share *share)
{
    return share->owned || share->taking;
}

/* It was finished, and went between its key and its row. */
static bool has_gone(const struct pg_page *page, const struct pg_row *row)
{
    return page->kind == PG_PAGE_ROWS && row->envelope.length == 0;
}

static void share_loaded(struct pg_spool *pg, struct pg_page *page)
{
    size_t count;
    const struct pg_head *heads = heads_of(page, &count);
    const struct pg_row *rows = (const void *)page->rows.data;
    for (size_t i = 0; i < count; i++) {
        struct pg_share *share = heads[i].share;
        if (!share->begun && !share->anew) {
            share->from_xid = page->xmin;
        }
        bool front = pg->shared && !share->begun && !share->anew;
        share->begun = true;
        share->at = front ? share->at : heads[i].after; /* so that all begin at one place */
    }
    for (size_t i = 0; i < page->rows.length / sizeof(*rows); i++) {
        struct pg_share *share = map_get(&pg->numbers, (uint64_t)rows[i].share);
        if (is_wanted(share) && !share->leaving && !has_gone(page, &rows[i])) {
            pg_load_row(pg, share, &rows[i]);
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (heads[i].looked_at < (size_t)page->limit && is_wanted(heads[i].share)) {
            share_taken(pg, heads[i].share);
        } else {
            turn(pg, heads[i].share);
        }
    }
}

static bool submit(struct pg_spool *pg, struct pg_page *page);

/* Of what is known nothing more is read. True: the page is on its way again, for the rest. */
static bool keys_loaded(struct pg_spool *pg, struct pg_page *page)
{
    struct pg_row *rows = (void *)page->rows.data;
    size_t count = page->rows.length / sizeof(*rows), kept = 0;
    for (size_t i = 0; i < count; i++) {
        const struct pg_share *share = map_get(&pg->numbers, (uint64_t)rows[i].share);
        if (pg_part_find(pg, rows[i].id, share) == STORED_NONE) {
            rows[kept++] = rows[i];
        }
    }
    page->rows.length = kept * sizeof(*rows);
    if (kept == 0) {
        share_loaded(pg, page);
        return false;
    }
    page->kind = PG_PAGE_ROWS;
    return submit(pg, page);
}

/* ---- what came late -------------------------------------------------------------------------- */

static size_t late_count(const struct pg_spool *pg)
{
    return pg->lates.length / sizeof(struct pg_late);
}

/* From that one on. They are kept until their fate is known: what is in flight may be waited for.
 */
static void tell_lates(struct pg_spool *pg, size_t from)
{
    struct pg_late *lates = (void *)pg->lates.data;
    size_t count = late_count(pg), kept = from;
    for (size_t i = from; i < count; i++) {
        const struct pg_share *share = map_get(&pg->numbers, (uint64_t)lates[i].share);
        if (share != NULL && share->owned && !share->leaving &&
            pg_load_late(pg, share, lates[i].id, lates[i].delivery, lates[i].fate)) {
            lates[kept++] = lates[i];
        }
    }
    pg->lates.length = kept * sizeof(*lates);
}

static int by_delivery(const void *a, const void *b)
{
    const struct pg_late *left = a, *right = b;
    int order = id_compare(left->id, right->id);
    return order != 0 ? order
                      : (left->delivery > right->delivery) - (left->delivery < right->delivery);
}

/* What is read again may be kept already. */
static void keep_lates_once(struct pg_spool *pg)
{
    struct pg_late *lates = (void *)pg->lates.data;
    size_t count = late_count(pg), kept = 0;
    if (count > 0) {
        qsort(lates, count, sizeof(*lates), by_delivery);
    }
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || by_delivery(&lates[kept - 1], &lates[i]) != 0) {
            lates[kept++] = lates[i];
        }
    }
    pg->lates.length = kept * sizeof(*lates);
    pg->lates_added = false;
}

/* Those of a page are told as they come; all that are kept, once a look. So a look costs no more
 * than they are, and of its pages nothing stays but what is about deliveries that are here. */
static void take_lates(struct pg_spool *pg, const struct pg_page *page, bool is_last)
{
    size_t before = late_count(pg);
    buffer_append(&pg->lates, buffer_slice(&page->lates));
    if (pg->lates.failed) {
        abort(); /* it would be delivered again */
    }
    pg->lates_added |= late_count(pg) > before;
    if (is_last && pg->lates_added) {
        keep_lates_once(pg);
    }
    tell_lates(pg, is_last ? 0 : before);
}

/* ---- what is followed ------------------------------------------------------------------------ */

static void followed(struct pg_spool *pg, struct pg_page *page)
{
    const struct pg_row *rows = (const void *)page->rows.data;
    size_t count = page->rows.length / sizeof(*rows), limit = (size_t)page->limit;
    bool is_last = page->looked_at < limit && page->lates.length / sizeof(struct pg_late) < limit;
    for (size_t i = 0; i < count; i++) {
        struct pg_share *share = map_get(&pg->numbers, (uint64_t)rows[i].share);
        if (share != NULL && share->owned && !share->leaving && rows[i].xid >= share->from_xid) {
            pg_load_row(pg, share, &rows[i]);
        }
    }
    take_lates(pg, page, is_last);
    if (!is_last) {
        pg->follow_until_xid = page->until_xid;
        pg->follow_after = page->after;
        pg->follow_after_late = page->after_late;
        pg->follow_asked = true;
        return;
    }
    pg->lates_anew = false;
    follow_from(pg, page->until_xid);
    keep_trail(pg, false);
    pg_locals_heard(pg, pg->followed_xid);
}

static void page_failed(struct pg_spool *pg, const struct pg_page *page)
{
    size_t count;
    const struct pg_head *heads = heads_of(page, &count);
    bool halved = page->limit > 1 && (count <= 1 || page->together);
    pg->page_failed = true;
    pg->breaks++;
    if (halved) {
        pg->page_limit = page->limit / 2; /* a slow link brings that in time, perhaps */
    }
    if (page->kind == PG_PAGE_FOLLOW) {
        pg->follow_asked = true;
    } else if (count == 1) {
        turn(pg, heads[0].share); /* others may have more luck */
    } else if (count > 1 && !halved) {
        pg->one_by_one = true;
    }
    loop_timer_set(pg->follow, PG_AGAIN_MS);
}

/* True: the page is kept. */
static bool page_loaded(struct pg_spool *pg, struct pg_page *page)
{
    if (page->kind == PG_PAGE_GLOBALS) {
        pg_load_globals(pg, page);
    } else if (page->kind == PG_PAGE_NOTIFY || !is_as_before(pg, page)) {
        /* That is all. */
    } else if (page->kind == PG_PAGE_FOLLOW) {
        followed(pg, page);
    } else if (page->kind == PG_PAGE_KEYS) {
        return keys_loaded(pg, page);
    } else {
        share_loaded(pg, page);
    }
    return false;
}

static void page_done(void *context)
{
    struct pg_page *page = context;
    struct pg_spool *pg = page->pg;
    bool kept = false;
    pg->page = NULL;
    if (page->outcome != DATABASE_DONE) {
        page_failed(pg, page);
    } else {
        pg->page_failed = pg->ask_failed = false;
        if (page->limit > 0) {
            pg->page_limit = pg->page_limit < PG_PAGE / 2 ? pg->page_limit * 2 : PG_PAGE;
        }
        pg_ended_sort(pg);
        kept = !pg->ending && page_loaded(pg, page);
    }
    if (kept) {
        return;
    }
    bool failed = page->outcome != DATABASE_DONE;
    pg_page_free(page);
    buffer_clear(&pg->ended);
    if (pg->shared && !pg->ending && !failed) {
        pg_load_next(pg);
        pg_pump_later(pg); /* who is to be left may have waited for the page */
    }
}

static bool submit(struct pg_spool *pg, struct pg_page *page)
{
    if (page == NULL || page->shares.failed || page->heads.failed ||
        worker_submit(pg->reader, pg_page_run, page_done, page) != ERROR_NONE) {
        return false;
    }
    pg->page = page;
    return true;
}

static void add_head(struct pg_page *page, struct pg_share *share)
{
    const struct pg_head head = {.share = share, .number = share->number, .after = share->at};
    buffer_append(&page->heads, slice_make(&head, sizeof(head)));
    buffer_append(&page->shares, slice_make(&share->number, sizeof(share->number)));
}

/* Others that are where it is go with it. */
static void add_company(const struct pg_spool *pg, struct pg_page *page,
                        const struct pg_share *first, size_t most)
{
    struct pg_share *const *takes = (const void *)pg->takes.data;
    size_t count = pg->takes.length / sizeof(*takes), heads = 1;
    for (size_t i = 0; i < count && heads < most; i++) {
        if (takes[i] != first && !takes[i]->leaving && takes[i]->begun == first->begun &&
            takes[i]->anew == first->anew && place_equal(takes[i]->at, first->at)) {
            add_head(page, takes[i]);
            heads++;
        }
    }
}

/* Whose turn it is. What is to be left waits for the pages that it is in: it gets no more. */
static struct pg_share *next_to_take(const struct pg_spool *pg)
{
    struct pg_share *const *takes = (const void *)pg->takes.data;
    for (size_t i = 0; i < pg->takes.length / sizeof(*takes); i++) {
        if (!takes[i]->leaving) {
            return takes[i];
        }
    }
    return NULL;
}

/* The next one, or the first of all that have not begun: so all have soon. */
static struct pg_page *share_page(struct pg_spool *pg, struct pg_share *first)
{
    struct pg_page *page = pg_page_new(pg, first->anew ? PG_PAGE_KEYS : PG_PAGE_SHARE);
    if (page == NULL) {
        return NULL;
    }
    page->limit = pg->page_limit;
    add_head(page, first);
    if (!pg->shared || pg->one_by_one) {
        return page;
    }
    if (!first->begun && !first->anew) {
        page->limit = PG_PAGE_FIRST;
        add_company(pg, page, first, PG_PAGE / PG_PAGE_FIRST);
        return page;
    }
    add_company(pg, page, first, SIZE_MAX);
    page->together = page->heads.length >= PG_TOGETHER * sizeof(struct pg_head);
    if (!page->together) {
        page->heads.length = sizeof(struct pg_head);
        page->shares.length = sizeof(int32_t);
    }
    return page;
}

static struct pg_page *follow_page(struct pg_spool *pg)
{
    struct pg_page *page = pg_page_new(pg, PG_PAGE_FOLLOW);
    size_t cursor = 0;
    struct pg_share *share;
    while (page != NULL && (share = map_next(&pg->numbers, &cursor)) != NULL) {
        if (share->owned) {
            buffer_append(&page->shares, slice_make(&share->number, sizeof(share->number)));
        }
    }
    if (page != NULL) {
        page->from_xid = pg->followed_xid;
        page->until_xid = pg->follow_until_xid;
        page->after = pg->follow_after;
        page->after_late = pg->follow_after_late;
        page->lates_anew = pg->lates_anew;
        page->limit = pg->page_limit;
    }
    return page;
}

static bool ask(struct pg_spool *pg, struct pg_page *page)
{
    bool asked = submit(pg, page);
    if (!asked) {
        pg_page_free(page);
    }
    return asked;
}

static bool owns_any(const struct pg_spool *pg)
{
    size_t cursor = 0;
    const struct pg_share *share;
    while ((share = map_next(&pg->numbers, &cursor)) != NULL) {
        if (share->owned) {
            return true;
        }
    }
    return false;
}

/* Following and taking by turns. False: memory. */
static bool ask_for_mail(struct pg_spool *pg)
{
    pg->one_by_one &= pg->takes.length > 0;
    struct pg_share *take = next_to_take(pg);
    bool owns = owns_any(pg), follow = pg->follow_asked && pg->followed_xid != 0 && owns;
    if (!owns && pg->takes.length == 0) {
        pg_locals_heard(pg, UINT64_MAX); /* nothing of it will come */
    }
    if (follow && (pg->follow_next || take == NULL)) {
        pg->follow_next = pg->follow_asked = false;
        pg->looked_ms = clock_steady_ms();
        return ask(pg, follow_page(pg));
    }
    if (take != NULL) {
        pg->follow_next = true;
        return ask(pg, share_page(pg, take));
    }
    return true;
}

void pg_load_next(struct pg_spool *pg)
{
    if (pg->page != NULL || pg->page_failed || !pg->shared || pg->ending || !pg->journal_loaded ||
        !pg_has_joined(pg)) {
        return;
    }
    bool asked = true;
    if (!pg->globals_loaded || clock_steady_ms() - pg->globals_ms >= PG_GLOBALS_MS) {
        asked = ask(pg, pg_page_new(pg, PG_PAGE_GLOBALS));
    } else if (pg->notify_asked) {
        pg->notify_asked = false;
        asked = ask(pg, pg_page_new(pg, PG_PAGE_NOTIFY));
    } else {
        asked = ask_for_mail(pg);
    }
    if (!asked || pg->page == NULL) {
        loop_timer_set(pg->follow, asked ? PG_POLL_MS : PG_AGAIN_MS);
    }
}

void pg_follow_now(void *context)
{
    struct pg_spool *pg = context;
    pg->follow_asked = true;
    pg->page_failed = false;
    pg_load_next(pg);
}

void pg_follow_soon(struct pg_spool *pg)
{
    if (pg->shared && !pg->page_failed && !pg->ending) {
        int64_t rest_ms = pg->looked_ms + PG_PACE_MS - clock_steady_ms();
        loop_timer_set(pg->follow, rest_ms > 0 ? rest_ms : 0);
    }
}

void pg_notify_soon(struct pg_spool *pg)
{
    pg->notify_asked = pg->shared;
    pg_follow_soon(pg);
}

void spool_postgres_follow(struct spool *spool)
{
    pg_follow_soon(pg_of(spool));
}

void pg_load_free(struct pg_spool *pg)
{
    buffer_done(&pg->takes);
    buffer_done(&pg->lates);
    buffer_done(&pg->ended);
    buffer_done(&pg->awaiting);
    buffer_done(&pg->loaded);
}

/* ---- spool_load() ------------------------------------------------------------------------ */

static enum error page_now(struct pg_spool *pg, struct pg_page *page)
{
    if (!ask(pg, page)) {
        return ERROR_MEMORY;
    }
    worker_drain(pg->reader);
    return pg->page_failed ? ERROR_AGAIN : ERROR_NONE;
}

enum error pg_load(struct spool *spool, const struct spool_loader *loader, bool *ret_complete)
{
    struct pg_spool *pg = pg_of(spool);
    enum error error = ERROR_NONE;
    pg->loader = *loader;
    *ret_complete = false;
    if (!pg->journal_loaded) {
        return pg_local_load(pg, &pg->journal_loaded);
    }
    if (!pg->globals_loaded && !pg->shared) {
        return page_now(pg, pg_page_new(pg, PG_PAGE_GLOBALS));
    }
    if (!pg->shared && !pg->load_complete) {
        if (pg_is_forwarding(pg)) {
            pg_drain(pg);
        }
        error = pg_is_forwarding(pg) ? ERROR_AGAIN : page_now(pg, share_page(pg, pg->only));
    }
    pg_load_next(pg);
    *ret_complete = error == ERROR_NONE && (pg->shared || pg->load_complete);
    return error;
}
