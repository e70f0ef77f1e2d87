/* SPDX-License-Identifier: Apache-2.0
 *
 * What the reader brings from the database at once.
 */
#ifndef HOLDFAST_SPOOL_PG_PAGE_H
#define HOLDFAST_SPOOL_PG_PAGE_H

#include "spool/pg_internal.h"

/* A fate or note of a part. */
struct pg_item {
    struct pg_item *next;
    bool is_note;
    uint8_t fate;
    uint16_t kind;
    uint32_t delivery;
    struct slice payload;
};

struct pg_row {
    int32_t share;
    int64_t sequence;
    uint64_t xid;
    struct message_id id;
    int32_t *deliveries; /* NULL: all */
    size_t delivery_count;
    struct slice envelope;
    struct pg_item *first, *last;
};

enum pg_page_kind {
    PG_PAGE_GLOBALS,
    PG_PAGE_KEYS,   /* what has not all its fates, of one share, in acceptance order; no more */
    PG_PAGE_SHARE,  /* some of these, given as rows */
    PG_PAGE_NOTIFY, /* tells others that there is something; brings nothing */
    PG_PAGE_FOLLOW, /* what came to shares of ours, in order of (xid, seq, id) */
};

struct pg_page {
    struct pg_spool *pg;
    struct database *database;
    enum pg_page_kind kind;
    uint16_t node;
    int32_t share;
    struct pg_share *owner;       /* of `share` */
    struct buffer shares;         /* int32_t */
    uint64_t from_xid, until_xid; /* 0: the reader sets it */
    uint64_t after_xid;
    int64_t after_sequence;
    struct message_id after_id;
    /* What came. */
    struct arena arena;
    struct buffer rows;    /* struct pg_row */
    struct buffer globals; /* keys and payloads by turns */
    enum database_outcome outcome;
    char reason[200];
};

struct pg_page *pg_page_new(struct pg_spool *pg, enum pg_page_kind kind); /* NULL: memory */
void pg_page_free(struct pg_page *page);                                  /* NULL is allowed */
void pg_page_run(void *page);

#endif
