/* SPDX-License-Identifier: Apache-2.0
 *
 * libunbound on the loop's event base. A resolution is two questions at once, A and AAAA, a look-up
 * one; the answer is given in a later turn, also when libunbound has it in its cache and calls back
 * at once.
 *
 * libunbound cannot be asked to forget a query of its event interface, so a cancelled one stays in
 * memory, deaf, until it is answered.
 */
#include "sys/dns.h"

#include "base/hosts.h"
#include "base/list.h"
#include "sys/dns_packet.h"

#include <stdio.h>
#include <stdlib.h>
#include <unbound-event.h>
#include <unbound.h>

enum {
    NAME_MAX_BYTES = 253,
    HOSTS_RECORD_MAX = 512,
    CLASS_INTERNET = 1,
    RCODE_NOERROR = 0,
    RCODE_NXDOMAIN = 3,
    /* libunbound goes on asking for minutes; whoever waits wants to know sooner. */
    QUERY_TIMEOUT_MS = 20000,
};

struct dns {
    struct loop *loop;
    struct ub_ctx *context;
    struct link queries;
};

struct dns_question {
    struct dns_query *query;
    unsigned type; /* 0: not asked */
    bool pending;
    enum error error;
    bool no_name;
    bool secure;
};

struct dns_query {
    struct link link;
    bool awaited;               /* neither cancelled nor answered */
    dns_fn *addresses_fn;       /* of dns_resolve(): two questions */
    dns_records_fn *records_fn; /* of dns_lookup(): one */
    void *context;
    struct dns_question questions[2];
    struct loop_timer *timer;
    struct dns_addresses addresses;
    struct dns_answer answer;
    struct dns_found records;
    struct arena arena; /* of the records */
};

/* ---- settings ---------------------------------------------------------------------------- */

/* Names of hosts(5), each a local record. */
static bool add_hosts(struct ub_ctx *context, struct slice text)
{
    struct hosts_reader hosts = {.rest = text};
    for (struct slice name; hosts_next(&hosts, &name);) {
        char record[HOSTS_RECORD_MAX];
        int length = snprintf(record, sizeof(record), "%.*s. %s %.*s", SLICE_PRINT(name),
                              ip_is_v4(&hosts.address) ? "A" : "AAAA", SLICE_PRINT(hosts.text));
        if (length < (int)sizeof(record) && ub_ctx_data_add(context, record) == UB_NOMEM) {
            return false;
        }
    }
    return true;
}

/* libunbound takes one record at a time, and no comments. */
static enum error add_anchors(struct ub_ctx *context, struct slice text)
{
    enum error error = ERROR_NONE;
    while (text.length > 0 && error == ERROR_NONE) {
        size_t end = slice_find(text, '\n');
        struct slice line = slice_take(text, end);
        struct slice record = slice_trim(slice_take(line, slice_find(line, ';')));
        char *copy = record.length > 0 ? strndup((const char *)record.data, record.length) : NULL;
        if (record.length > 0) {
            error = copy == NULL                        ? ERROR_MEMORY
                    : ub_ctx_add_ta(context, copy) != 0 ? ERROR_INVALID
                                                        : ERROR_NONE;
        }
        free(copy);
        text = slice_skip(text, end + 1);
    }
    return error;
}

static enum error configure(struct ub_ctx *context, const struct dns_settings *settings)
{
    (void)ub_ctx_debugout(context, NULL);
    /* A resolver on this machine is the usual forwarder, and those asked know the names of private
     * addresses, which libunbound by itself says not to exist. */
    if (ub_ctx_set_option(context, "do-not-query-localhost:", "no") != 0 ||
        ub_ctx_set_option(context, "unblock-lan-zones:", "yes") != 0 ||
        ub_ctx_set_option(context, "insecure-lan-zones:", "yes") != 0) {
        return ERROR_MEMORY;
    }
    for (size_t i = 0; i < settings->forwarder_count; i++) {
        if (ub_ctx_set_fwd(context, settings->forwarders[i]) != 0) {
            return ERROR_INVALID;
        }
    }
    if (settings->forwarder_count == 0) {
        /* None there: libunbound asks the root by itself. */
        (void)ub_ctx_resolvconf(context, NULL);
    }
    if (settings->trust_anchor != NULL) {
        enum error error = add_anchors(context, slice_from_text(settings->trust_anchor));
        if (error != ERROR_NONE) {
            return error;
        }
    }
    if (settings->hosts != NULL && !add_hosts(context, slice_from_text(settings->hosts))) {
        return ERROR_MEMORY;
    }
    return ERROR_NONE;
}

enum error dns_new(struct loop *loop, const struct dns_settings *settings, struct dns **ret_dns)
{
    struct dns *dns = calloc(1, sizeof(*dns));
    if (dns == NULL) {
        return ERROR_MEMORY;
    }
    dns->loop = loop;
    list_init(&dns->queries);
    dns->context = ub_ctx_create_event(loop_backend(loop));
    enum error error = dns->context != NULL ? configure(dns->context, settings) : ERROR_MEMORY;
    if (error != ERROR_NONE) {
        dns_free(dns);
        return error;
    }
    *ret_dns = dns;
    return ERROR_NONE;
}

static void query_free(struct dns_query *query)
{
    list_remove(&query->link);
    loop_timer_free(query->timer);
    arena_done(&query->arena);
    free(query);
}

void dns_free(struct dns *dns)
{
    if (dns == NULL) {
        return;
    }
    if (dns->context != NULL) {
        ub_ctx_delete(dns->context);
    }
    LIST_EACH(&dns->queries, at, after)
    {
        query_free(LIST_ENTRY(at, struct dns_query, link));
    }
    free(dns);
}

/* ---- answers ----------------------------------------------------------------------------- */

static bool is_pending(const struct dns_query *query)
{
    return query->questions[0].pending || query->questions[1].pending;
}

/* DNS has said what there is, or that there is nothing. */
static bool is_word(const struct dns_question *question)
{
    return question->error == ERROR_NONE || question->error == ERROR_MISSING;
}

/* Some addresses are enough; without any, the worst that was heard counts, for "no such name" is
 * known only when both say so. */
static void tell_addresses(struct dns_query *query)
{
    const struct dns_question *a = &query->questions[0];
    const struct dns_question *b = &query->questions[1];
    struct dns_answer *answer = &query->answer;
    answer->count = query->addresses.count;
    answer->ttl_s = query->addresses.ttl_s == UINT32_MAX ? 0 : query->addresses.ttl_s;
    answer->secure = a->secure && b->secure;
    answer->is_whole = is_word(a) && is_word(b);
    answer->canonical = slice_make(query->addresses.owner, query->addresses.owner_length);
    if (a->error == ERROR_CORRUPT || b->error == ERROR_CORRUPT) {
        answer->error = ERROR_CORRUPT;
        answer->count = 0;
    } else if (answer->count > 0) {
        answer->error = ERROR_NONE;
    } else if (a->error != ERROR_NONE && a->error != ERROR_MISSING) {
        answer->error = a->error;
    } else if (b->error != ERROR_NONE && b->error != ERROR_MISSING) {
        answer->error = b->error;
    } else {
        answer->error = ERROR_MISSING;
    }
    query->addresses_fn(query->context, answer);
}

static void tell_records(struct dns_query *query)
{
    const struct dns_question *question = &query->questions[0];
    const struct dns_found *found = &query->records;
    bool good = question->error == ERROR_NONE;
    struct dns_records records = {.error = question->error,
                                  .no_name = question->no_name,
                                  .records = found->records,
                                  .count = good ? found->count : 0,
                                  .ttl_s = found->ttl_s == UINT32_MAX ? 0 : found->ttl_s,
                                  .secure = question->secure,
                                  .owner = good ? found->owner : SLICE_EMPTY};
    query->records_fn(query->context, &records);
}

/* All is answered, or time is up. */
static void timer_due(void *context)
{
    struct dns_query *query = context;
    if (!query->awaited) {
        return;
    }
    for (size_t i = 0; i < 2; i++) {
        if (query->questions[i].pending) {
            query->questions[i].error = ERROR_TIMEOUT;
        }
    }
    /* Who is told may free all of us, and may cancel no more. */
    struct dns_query told = *query;
    arena_init(&query->arena);
    query->awaited = false;
    if (!is_pending(query)) {
        query_free(query);
    }
    if (told.records_fn != NULL) {
        tell_records(&told);
    } else {
        tell_addresses(&told);
    }
    arena_done(&told.arena);
}

static enum error read_records(struct dns_query *query, unsigned type, struct slice packet)
{
    enum error error =
        dns_packet_records(packet, (enum dns_type)type, &query->arena, &query->records);
    if (error != ERROR_NONE) {
        return error == ERROR_MEMORY ? error : ERROR_IO;
    }
    return query->records.count > 0    ? ERROR_NONE
           : query->records.broken > 0 ? ERROR_IO
                                       : ERROR_MISSING;
}

static enum error read_addresses(struct dns_query *query, unsigned type, struct slice packet)
{
    size_t before = query->addresses.count;
    if (!dns_packet_read(packet, type, &query->addresses)) {
        return ERROR_IO;
    }
    return query->addresses.count > before ? ERROR_NONE : ERROR_MISSING;
}

static enum error read_answer(struct dns_question *question, int rcode, struct slice packet,
                              int security)
{
    if (security == 1) {
        return ERROR_CORRUPT; /* bogus */
    }
    question->secure = security == 2;
    /* libunbound's own is only about whether it could ask; the answer's stands in its header. */
    if (rcode == RCODE_NOERROR && packet.length > 3) {
        rcode = packet.data[3] & 15;
    }
    if (rcode == RCODE_NXDOMAIN) {
        question->no_name = true;
        return ERROR_MISSING;
    }
    if (rcode != RCODE_NOERROR) {
        return ERROR_IO;
    }
    return question->query->records_fn != NULL
               ? read_records(question->query, question->type, packet)
               : read_addresses(question->query, question->type, packet);
}

static void question_answered(void *context, int rcode, void *packet, int packet_length,
                              int security, char *why_bogus, int was_ratelimited)
{
    (void)why_bogus;
    (void)was_ratelimited;
    struct dns_question *question = context;
    struct dns_query *query = question->query;
    question->pending = false;
    if (query->awaited) {
        size_t length = packet != NULL && packet_length > 0 ? (size_t)packet_length : 0;
        question->error = read_answer(question, rcode, slice_make(packet, length), security);
        if (!is_pending(query)) {
            loop_timer_set(query->timer, 0);
        }
    } else if (!is_pending(query)) {
        query_free(query);
    }
}

/* ---- queries ----------------------------------------------------------------------------- */

static void ask(struct dns *dns, struct dns_question *question, struct slice name)
{
    char text[NAME_MAX_BYTES + 1];
    int id;
    if (name.length > NAME_MAX_BYTES || slice_find(name, 0) != name.length) {
        question->error = ERROR_MISSING;
        question->no_name = true;
        return;
    }
    memcpy(text, name.data, name.length);
    text[name.length] = '\0';
    question->pending = true;
    if (ub_resolve_event(dns->context, text, (int)question->type, CLASS_INTERNET, question,
                         question_answered, &id) != 0) {
        question->pending = false;
        question->error = ERROR_IO;
    }
}

static struct dns_query *query_new(struct dns *dns, void *context)
{
    struct dns_query *query = calloc(1, sizeof(*query));
    if (query == NULL) {
        return NULL;
    }
    query->timer = loop_timer_new(dns->loop, timer_due, query);
    if (query->timer == NULL) {
        free(query);
        return NULL;
    }
    list_append(&dns->queries, &query->link);
    arena_init(&query->arena);
    query->awaited = true;
    query->context = context;
    return query;
}

static void query_ask(struct dns *dns, struct dns_query *query, struct slice name)
{
    for (size_t i = 0; i < 2; i++) {
        query->questions[i].query = query;
        if (query->questions[i].type != 0) {
            ask(dns, &query->questions[i], name);
        }
    }
    loop_timer_set(query->timer, is_pending(query) ? QUERY_TIMEOUT_MS : 0);
}

struct dns_query *dns_resolve(struct dns *dns, struct slice name, dns_fn *fn, void *context)
{
    struct dns_query *query = query_new(dns, context);
    if (query != NULL) {
        query->addresses_fn = fn;
        query->addresses = (struct dns_addresses){
            .addresses = query->answer.addresses, .limit = DNS_ADDRESSES_MAX, .ttl_s = UINT32_MAX};
        query->questions[0].type = DNS_TYPE_A;
        query->questions[1].type = DNS_TYPE_AAAA;
        query_ask(dns, query, name);
    }
    return query;
}

struct dns_query *dns_lookup(struct dns *dns, struct slice name, enum dns_type type,
                             dns_records_fn *fn, void *context)
{
    struct dns_query *query = query_new(dns, context);
    if (query != NULL) {
        query->records_fn = fn;
        query->records.ttl_s = UINT32_MAX;
        query->questions[0].type = type;
        query_ask(dns, query, name);
    }
    return query;
}

void dns_cancel(struct dns_query *query)
{
    query->awaited = false;
    loop_timer_cancel(query->timer);
    if (!is_pending(query)) {
        query_free(query);
    }
}
