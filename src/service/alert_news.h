/* SPDX-License-Identifier: Apache-2.0
 *
 * What has become of alerts lately, numbered from 1 in the life of a core: that one was raised,
 * changed or ended, or that something happened once. For whoever tells people: he asks for what is
 * newer than the last that he knows, and says up to where all has been told, so that after a crash
 * of his he goes on there.
 *
 * Bounded: the ALERT_NEWS_MAX latest are kept. Knows no clock.
 */
#ifndef HOLDFAST_SERVICE_ALERT_NEWS_H
#define HOLDFAST_SERVICE_ALERT_NEWS_H

#include "service/alert_end.h"

enum { ALERT_NEWS_MAX = 1000 };

enum alert_edge { ALERT_RAISED, ALERT_CHANGED, ALERT_ENDED, ALERT_HAPPENED, ALERT_EDGE_COUNT };

struct alert_news_item {
    struct link link; /* oldest first */
    uint64_t number;
    int64_t time_wall_ms;
    int64_t since_wall_ms;
    enum alert_kind kind;
    enum alert_edge edge;
    enum alert_ending ending; /* of one that ended */
    struct slice subject, text;
    struct slice was;      /* the text while it stood, of one that ended; else empty */
    struct slice from, to; /* servers of a switch; else empty */
};

struct alert_news {
    struct link items;
    uint32_t count;
    uint64_t last; /* number given */
    uint64_t done; /* told to people */
};

/* "raised". */
const char *alert_edge_text(enum alert_edge edge);

void alert_news_init(struct alert_news *news);
void alert_news_done(struct alert_news *news);
/* Copies all of `item` but link and number, which it gives and returns. Without memory it is lost,
 * its number too. */
uint64_t alert_news_add(struct alert_news *news, const struct alert_news_item *item);
/* The oldest that is newer than `number`, or NULL. Valid until the next is added. */
const struct alert_news_item *alert_news_after(const struct alert_news *news, uint64_t number);

#endif
