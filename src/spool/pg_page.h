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
    int64_t count, fated; /* how many deliveries; and of them, with a fate */
    struct slice envelope;
    struct pg_item *first, *last;
};

/* Where a share begins to be read; and ends. */
struct pg_head {
    struct pg_share *share;
    int32_t number;
    struct pg_place after; /* parts behind that; set to the last one that was looked at */
    size_t looked_at;      /* parts: less than the page's limit if there are no more */
};

enum pg_page_kind {
    PG_PAGE_GLOBALS,
    PG_PAGE_SHARE,  /* what has not all its fates, of the next parts of some shares */
    PG_PAGE_KEYS,   /* those parts without envelopes, fates and notes */
    PG_PAGE_ROWS,   /* these of rows that are given */
    PG_PAGE_NOTIFY, /* tells others that there is something; brings nothing */
    PG_PAGE_FOLLOW, /* what came to shares of ours, and late fates */
};

struct pg_page {
    struct pg_spool *pg;
    struct database *database;
    enum pg_page_kind kind;
    uint16_t node;
    struct buffer heads;          /* struct pg_head, of `shares`; all begin at the same place */
    struct buffer shares;         /* int32_t */
    uint64_t from_xid, until_xid; /* 0: the reader sets it */
    struct pg_place after;        /* as in a head, of all that is followed */
    struct pg_late after_late;    /* as in a head, of what came late */
    bool lates_anew;              /* of that all transactions until then, not from `from_xid` on */
    int32_t limit;                /* so many, of each share or of all that is followed; */
    bool together;                /* or of all shares there are, and those of `shares` are kept */
    /* What came. */
    struct arena arena;
    uint64_t xmin;           /* all transactions below are over; 0: not asked */
    int64_t server, session; /* which this was */
    size_t looked_at;        /* as in a head */
    struct buffer rows;      /* struct pg_row */
    struct buffer lates;     /* struct pg_late */
    struct buffer globals;   /* keys and payloads by turns */
    enum database_outcome outcome;
    char reason[200];
};

struct pg_page *pg_page_new(struct pg_spool *pg, enum pg_page_kind kind); /* NULL: memory */
void pg_page_free(struct pg_page *page);                                  /* NULL is allowed */
void pg_page_run(void *page);

#endif
