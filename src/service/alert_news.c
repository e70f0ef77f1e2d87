/* SPDX-License-Identifier: Apache-2.0 */
#include "service/alert_news.h"

#include <stdlib.h>

const char *alert_edge_text(enum alert_edge edge)
{
    static const char *const texts[ALERT_EDGE_COUNT] = {"raised", "changed", "ended", "happened"};
    return texts[edge];
}

void alert_news_init(struct alert_news *news)
{
    *news = (struct alert_news){0};
    list_init(&news->items);
}

static void drop_oldest(struct alert_news *news)
{
    struct alert_news_item *item = LIST_ENTRY(news->items.next, struct alert_news_item, link);
    list_remove(&item->link);
    free(item);
    news->count--;
}

void alert_news_done(struct alert_news *news)
{
    while (news->count > 0) {
        drop_oldest(news);
    }
}

static struct slice put(uint8_t **at, struct slice text)
{
    struct slice copy = slice_make(*at, text.length);
    if (text.length > 0) {
        memcpy(*at, text.data, text.length);
        *at += text.length;
    }
    return copy;
}

uint64_t alert_news_add(struct alert_news *news, const struct alert_news_item *item)
{
    uint64_t number = ++news->last;
    struct alert_news_item *copy = malloc(sizeof(*copy) + item->subject.length + item->text.length +
                                          item->was.length + item->from.length + item->to.length);
    if (copy == NULL) {
        return number;
    }
    if (news->count == ALERT_NEWS_MAX) {
        drop_oldest(news);
    }
    uint8_t *at = (uint8_t *)(copy + 1);
    *copy = *item;
    copy->number = number;
    copy->subject = put(&at, item->subject);
    copy->text = put(&at, item->text);
    copy->was = put(&at, item->was);
    copy->from = put(&at, item->from);
    copy->to = put(&at, item->to);
    list_append(&news->items, &copy->link);
    news->count++;
    return number;
}

const struct alert_news_item *alert_news_after(const struct alert_news *news, uint64_t number)
{
    LIST_EACH(&news->items, at, after)
    {
        const struct alert_news_item *item = LIST_ENTRY(at, struct alert_news_item, link);
        if (item->number > number) {
            return item;
        }
    }
    return NULL;
}
