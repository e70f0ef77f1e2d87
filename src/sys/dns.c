/* SPDX-License-Identifier: Apache-2.0
 *
 * libunbound on the loop's event base. A resolution is two queries at once, A and AAAA; its answer
 * is given in a later turn, also when libunbound has it in its cache and calls back at once.
 *
 * libunbound cannot be asked to forget a query of its event interface, so a cancelled one stays in
 * memory, deaf, until it is answered.
 */
#include "sys/dns.h"

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

/* One of the two questions. */
struct dns_half {
    struct dns_query *query;
    unsigned type;
    bool pending;
    enum error error;
    bool secure;
};

struct dns_query {
    struct link link;
    dns_fn *fn; /* NULL: cancelled or answered */
    void *context;
    struct dns_half halves[2];
    struct loop_timer *timer;
    struct dns_addresses found;
    struct dns_answer answer;
};

/* ---- settings ---------------------------------------------------------------------------- */

static struct slice next_word(struct slice *rest)
{
    size_t start = 0;
    while (start < rest->length && strchr(" \t\r", rest->data[start]) != NULL) {
        start++;
    }
    size_t end = start;
    while (end < rest->length && strchr(" \t\r", rest->data[end]) == NULL) {
        end++;
    }
    struct slice word = slice_make(rest->data + start, end - start);
    *rest = slice_skip(*rest, end);
    return word;
}

/* One line of hosts(5): an address and names, each a local record. */
static bool add_hosts_line(struct ub_ctx *context, struct slice line)
{
    struct slice rest = slice_take(line, slice_find(line, '#'));
    struct slice text = next_word(&rest);
    struct ip_address address;
    if (!ip_from_text(text, &address)) {
        return true; /* empty, or scoped and such: passed over as the C library does */
    }
    for (;;) {
        struct slice name = next_word(&rest);
        if (name.length == 0) {
            return true;
        }
        char record[HOSTS_RECORD_MAX];
        int length = snprintf(record, sizeof(record), "%.*s. %s %.*s", SLICE_PRINT(name),
                              ip_is_v4(&address) ? "A" : "AAAA", SLICE_PRINT(text));
        if (length < (int)sizeof(record) && ub_ctx_data_add(context, record) == UB_NOMEM) {
            return false;
        }
    }
}

static bool add_hosts(struct ub_ctx *context, struct slice hosts)
{
    while (hosts.length > 0) {
        size_t end = slice_find(hosts, '\n');
        if (!add_hosts_line(context, slice_take(hosts, end))) {
            return false;
        }
        hosts = slice_skip(hosts, end + 1);
    }
    return true;
}

static enum error configure(struct ub_ctx *context, const struct dns_settings *settings)
{
    (void)ub_ctx_debugout(context, NULL);
    /* A resolver on this machine is the usual forwarder. */
    if (ub_ctx_set_option(context, "do-not-query-localhost:", "no") != 0) {
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
    if (settings->trust_anchor != NULL && ub_ctx_add_ta(context, settings->trust_anchor) != 0) {
        return ERROR_INVALID;
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

/* ---- queries ----------------------------------------------------------------------------- */

static bool is_pending(const struct dns_query *query)
{
    return query->halves[0].pending || query->halves[1].pending;
}

/* Some addresses are enough; without any, the worst that was heard counts, for "no such name" is
 * known only when both say so. */
static void conclude(struct dns_query *query)
{
    const struct dns_half *a = &query->halves[0];
    const struct dns_half *b = &query->halves[1];
    struct dns_answer *answer = &query->answer;
    answer->count = query->found.count;
    answer->ttl_s = query->found.ttl_s == UINT32_MAX ? 0 : query->found.ttl_s;
    answer->secure = a->secure && b->secure;
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
}

/* Both are answered, or time is up. */
static void timer_due(void *context)
{
    struct dns_query *query = context;
    for (size_t i = 0; i < 2; i++) {
        if (query->halves[i].pending) {
            query->halves[i].error = ERROR_TIMEOUT;
        }
    }
    conclude(query);
    dns_fn *fn = query->fn;
    query->fn = NULL;
    struct dns_answer answer = query->answer;
    void *fn_context = query->context;
    if (!is_pending(query)) {
        query_free(query);
    }
    if (fn != NULL) {
        fn(fn_context, &answer);
    }
}

static enum error read_half(struct dns_half *half, int rcode, struct slice packet, int security)
{
    if (security == 1) {
        return ERROR_CORRUPT; /* bogus */
    }
    half->secure = security == 2;
    if (rcode == RCODE_NXDOMAIN) {
        return ERROR_MISSING;
    }
    if (rcode != RCODE_NOERROR) {
        return ERROR_IO;
    }
    size_t before = half->query->found.count;
    if (!dns_packet_read(packet, half->type, &half->query->found)) {
        return ERROR_IO;
    }
    return half->query->found.count > before ? ERROR_NONE : ERROR_MISSING;
}

static void half_answered(void *context, int rcode, void *packet, int packet_length, int security,
                          char *why_bogus, int was_ratelimited)
{
    (void)why_bogus;
    (void)was_ratelimited;
    struct dns_half *half = context;
    struct dns_query *query = half->query;
    half->pending = false;
    if (query->fn != NULL) {
        size_t length = packet != NULL && packet_length > 0 ? (size_t)packet_length : 0;
        half->error = read_half(half, rcode, slice_make(packet, length), security);
        if (!is_pending(query)) {
            loop_timer_set(query->timer, 0);
        }
    } else if (!is_pending(query)) {
        query_free(query);
    }
}

static void ask(struct dns *dns, struct dns_half *half, const char *name)
{
    int id;
    half->pending = true;
    if (ub_resolve_event(dns->context, name, (int)half->type, CLASS_INTERNET, half, half_answered,
                         &id) != 0) {
        half->pending = false;
        half->error = ERROR_IO;
    }
}

struct dns_query *dns_resolve(struct dns *dns, struct slice name, dns_fn *fn, void *context)
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
    query->fn = fn;
    query->context = context;
    query->found = (struct dns_addresses){
        .addresses = query->answer.addresses, .limit = DNS_ADDRESSES_MAX, .ttl_s = UINT32_MAX};
    query->halves[0] = (struct dns_half){.query = query, .type = DNS_TYPE_A};
    query->halves[1] = (struct dns_half){.query = query, .type = DNS_TYPE_AAAA};
    char text[NAME_MAX_BYTES + 1];
    if (name.length > NAME_MAX_BYTES || slice_find(name, 0) != name.length) {
        query->halves[0].error = ERROR_MISSING;
        query->halves[1].error = ERROR_MISSING;
    } else {
        memcpy(text, name.data, name.length);
        text[name.length] = '\0';
        ask(dns, &query->halves[0], text);
        ask(dns, &query->halves[1], text);
    }
    loop_timer_set(query->timer, is_pending(query) ? QUERY_TIMEOUT_MS : 0);
    return query;
}

void dns_cancel(struct dns_query *query)
{
    query->fn = NULL;
    loop_timer_cancel(query->timer);
    if (!is_pending(query)) {
        query_free(query);
    }
}
