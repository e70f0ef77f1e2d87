/* SPDX-License-Identifier: Apache-2.0
 *
 * Questions of edge-in, by way of core, whether DNS lists know a client (RFC 5782): every list is
 * asked at once, what each says is weighed, and what has not answered in time says nothing.
 */
#include "service/smtp_out_internal.h"

#include <stdlib.h>

enum {
    PATIENCE_MS = 3000,
    LISTINGS_MAX = 10000, /* under way; more are answered with what is known: nothing */
    NAME_MAX_BYTES = 255,
    UNLISTED_TTL_S = 300, /* where DNS says nothing of how long a list knows nobody */
};

struct list_question {
    struct listing *listing;
    const struct dnsbl_config *list;
    struct dns_query *query; /* NULL: answered */
};

struct listing {
    struct link link; /* out->listings, or out->listed when it is answered */
    struct smtp_out *out;
    struct loop_timer *timer;
    struct channel_listing is;
    uint8_t name[CHANNEL_LIST_NAME_MAX]; /* of the list that weighs most */
    int32_t heaviest;
    uint32_t waiting;
    uint32_t count;
    struct list_question questions[];
};

static void listing_free(struct listing *listing)
{
    for (uint32_t i = 0; i < listing->count; i++) {
        if (listing->questions[i].query != NULL) {
            dns_cancel(listing->questions[i].query);
        }
    }
    loop_timer_free(listing->timer);
    list_remove(&listing->link);
    free(listing);
}

static void finish(struct listing *listing)
{
    struct smtp_out *out = listing->out;
    for (uint32_t i = 0; i < listing->count; i++) {
        if (listing->questions[i].query != NULL) {
            dns_cancel(listing->questions[i].query);
            listing->questions[i].query = NULL;
            listing->is.ttl_s = 0; /* to be asked again */
        }
    }
    loop_timer_cancel(listing->timer);
    list_remove(&listing->link);
    list_append(&out->listed, &listing->link);
    out->listing_count--;
    loop_later_ask(out->later);
}

static void patience_is_over(void *context)
{
    finish(context);
}

/* One of its addresses is among those that mean something. */
static bool is_listed(const struct dnsbl_config *list, const struct dns_records *found)
{
    for (size_t i = 0; found->error == ERROR_NONE && i < found->count; i++) {
        struct ip_address address = {.bytes = {[10] = 0xff, [11] = 0xff}};
        if (found->records[i].data.length != 4) {
            continue;
        }
        memcpy(address.bytes + 12, found->records[i].data.data, 4);
        for (uint32_t j = 0; j < list->answer_count; j++) {
            if (ip_network_contains(&list->answers[j], &address)) {
                return true;
            }
        }
    }
    return false;
}

static void weigh(struct listing *listing, const struct dnsbl_config *list)
{
    int32_t weight = (int32_t)list->weight;
    listing->is.score += list->is_good ? -weight : weight;
    if (!list->is_good && weight > listing->heaviest) {
        size_t length =
            list->name.length < sizeof(listing->name) ? list->name.length : sizeof(listing->name);
        memcpy(listing->name, list->name.data, length);
        listing->is.name = slice_make(listing->name, length);
        listing->heaviest = weight;
    }
}

static void answered(void *context, const struct dns_records *found)
{
    struct list_question *question = context;
    struct listing *listing = question->listing;
    uint32_t ttl_s = found->error == ERROR_NONE      ? found->ttl_s
                     : found->error == ERROR_MISSING ? UNLISTED_TTL_S
                                                     : 0;
    question->query = NULL;
    listing->is.ttl_s = ttl_s < listing->is.ttl_s ? ttl_s : listing->is.ttl_s;
    if (is_listed(question->list, found)) {
        weigh(listing, question->list);
    }
    if (--listing->waiting == 0) {
        finish(listing);
    }
}

/* "7.2.0.192.zone" or thirty-two nibbles. 0: too long. */
static size_t name_of(const struct ip_address *client, struct slice zone,
                      char ret_name[NAME_MAX_BYTES + 1])
{
    char reverse[DNS_REVERSE_MAX];
    dns_reverse_name(client, reverse);
    size_t suffix = ip_is_v4(client) ? sizeof("in-addr.arpa") - 1 : sizeof("ip6.arpa") - 1;
    size_t length = strlen(reverse) - suffix;
    if (length + zone.length > NAME_MAX_BYTES) {
        return 0;
    }
    memcpy(ret_name, reverse, length);
    memcpy(ret_name + length, zone.data, zone.length);
    return length + zone.length;
}

static void ask(struct listing *listing, const struct service_config *config)
{
    struct smtp_out *out = listing->out;
    for (uint32_t i = 0; i < listing->count; i++) {
        struct list_question *question = &listing->questions[i];
        char name[NAME_MAX_BYTES + 1];
        question->listing = listing;
        question->list = &config->dnsbls[i];
        size_t length = name_of(&listing->is.client, question->list->zone, name);
        question->query =
            length == 0 || out->dns == NULL
                ? NULL
                : dns_lookup(out->dns, slice_make(name, length), DNS_A, answered, question);
        listing->waiting += question->query != NULL;
    }
}

bool lists_take(struct smtp_out *out, struct reader *reader)
{
    struct channel_listing asked;
    if (!channel_get_listing_question(reader, &asked)) {
        return false;
    }
    uint32_t count = out->listing_count < LISTINGS_MAX ? out->config->dnsbl_count : 0;
    struct listing *listing = calloc(1, sizeof(*listing) + count * sizeof(struct list_question));
    if (listing == NULL) {
        return true; /* edge-in gives up by itself */
    }
    listing->out = out;
    listing->is = asked;
    listing->is.ttl_s = count == 0 ? 0 : UINT32_MAX;
    listing->count = count;
    list_append(&out->listings, &listing->link);
    out->listing_count++;
    listing->timer = loop_timer_new(out->loop, patience_is_over, listing);
    if (listing->timer == NULL) {
        out->listing_count--;
        listing_free(listing);
        return true;
    }
    ask(listing, out->config);
    loop_timer_set(listing->timer, listing->waiting == 0 ? 0 : PATIENCE_MS);
    return true;
}

bool lists_report(struct smtp_out *out)
{
    LIST_EACH(&out->listed, at, after)
    {
        struct listing *listing = LIST_ENTRY(at, struct listing, link);
        channel_put_listing(smtp_out_frame(out, CHANNEL_LOOKED_UP), &listing->is);
        if (!smtp_out_send(out)) {
            return false;
        }
        listing_free(listing);
    }
    return true;
}

void lists_finish_all(struct smtp_out *out)
{
    LIST_EACH(&out->listings, at, after)
    {
        finish(LIST_ENTRY(at, struct listing, link));
    }
}

void lists_free_all(struct smtp_out *out)
{
    lists_finish_all(out);
    LIST_EACH(&out->listed, at, after)
    {
        listing_free(LIST_ENTRY(at, struct listing, link));
    }
}
