/* SPDX-License-Identifier: Apache-2.0
 *
 * Questions of core who takes a domain's mail: MX, then the addresses of each exchanger, all at
 * once. What it means is core's to decide (relay/mx.h). Nothing is kept beyond the answer.
 */
#include "service/smtp_out_internal.h"

#include <stdlib.h>

#include "sys/net.h"

enum {
    QUESTIONS_MAX = 1000, /* under way; more are answered with a failure, and asked again later */
    LITERAL_TTL_S = 24 * 3600,
};

struct question;

struct host {
    struct question *question;
    struct dns_query *query;
    struct mx_address addresses[MX_ADDRESSES_MAX];
    uint8_t name[MX_HOST_MAX];
};

struct question {
    struct link link; /* on out->questions, or on out->answers when it is answered */
    struct smtp_out *out;
    struct dns_query *query; /* for MX */
    uint32_t waiting;        /* of the hosts */
    struct mx_answer answer;
    struct mx_exchanger exchangers[MX_EXCHANGERS_MAX];
    struct host hosts[MX_EXCHANGERS_MAX];
    size_t length;
    uint8_t domain[];
};

static void cancel(struct dns_query *query)
{
    if (query != NULL) {
        dns_cancel(query);
    }
}

static void question_free(struct question *question)
{
    cancel(question->query);
    for (uint32_t i = 0; i < MX_EXCHANGERS_MAX; i++) {
        cancel(question->hosts[i].query);
    }
    list_remove(&question->link);
    free(question);
}

static void answer(struct question *question)
{
    struct smtp_out *out = question->out;
    list_remove(&question->link);
    list_append(&out->answers, &question->link);
    out->question_count--;
    loop_later_ask(out->later);
}

/* ---- addresses ----------------------------------------------------------------------------- */

static void shorten_ttl(struct question *question, uint32_t ttl_s)
{
    struct mx_answer *known = &question->answer;
    known->ttl_s = ttl_s < known->ttl_s ? ttl_s : known->ttl_s;
}

static void host_answered(void *context, const struct dns_answer *found)
{
    struct host *host = context;
    struct question *question = host->question;
    struct mx_exchanger *exchanger = &question->exchangers[host - question->hosts];
    host->query = NULL;
    exchanger->error =
        found->error == ERROR_NONE && found->count == 0 ? ERROR_MISSING : found->error;
    for (size_t i = 0; found->error == ERROR_NONE && i < found->count &&
                       exchanger->address_count < MX_ADDRESSES_MAX;
         i++) {
        host->addresses[exchanger->address_count++] = (struct mx_address){
            .address = found->addresses[i], .ours = net_is_ours(&found->addresses[i])};
    }
    if (exchanger->error == ERROR_NONE) {
        shorten_ttl(question, found->ttl_s);
    }
    if (--question->waiting == 0) {
        answer(question);
    }
}

static void add_host(struct question *question, uint16_t preference, struct slice name)
{
    uint32_t which = question->answer.count++;
    struct host *host = &question->hosts[which];
    host->question = question;
    memcpy(host->name, name.data, name.length);
    question->exchangers[which] = (struct mx_exchanger){
        .preference = preference,
        .host = slice_make(host->name, name.length),
        .addresses = host->addresses,
    };
}

static void ask_for_addresses(struct question *question)
{
    for (uint32_t i = 0; i < question->answer.count; i++) {
        struct mx_exchanger *exchanger = &question->exchangers[i];
        struct host *host = &question->hosts[i];
        if (exchanger->address_count > 0 || slice_equal(exchanger->host, SLICE_LITERAL("."))) {
            continue;
        }
        host->query = dns_resolve(question->out->dns, exchanger->host, host_answered, host);
        exchanger->error = host->query == NULL ? ERROR_MEMORY : ERROR_NONE;
        question->waiting += host->query != NULL;
    }
    if (question->waiting == 0) {
        answer(question);
    }
}

/* ---- exchangers ---------------------------------------------------------------------------- */

/* Names that could not stand in a log, or be no name of a host, are as good as none. */
static bool is_host(struct slice name)
{
    for (size_t i = 0; i < name.length; i++) {
        uint8_t c = name.data[i];
        bool good =
            (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
        if (!good) {
            return false;
        }
    }
    return name.length > 0 && name.length <= MX_HOST_MAX;
}

static bool is_known(const struct question *question, struct slice name)
{
    for (uint32_t i = 0; i < question->answer.count; i++) {
        if (slice_equal(question->exchangers[i].host, name)) {
            return true;
        }
    }
    return false;
}

/* Of those that are as good as another, we come first: who is no better than we must be known as
 * that, even if there is no room for all. */
static bool is_better(const struct question *question, const struct dns_record *record,
                      const struct dns_record *best)
{
    if (best == NULL || record->preference != best->preference) {
        return best == NULL || record->preference < best->preference;
    }
    return slice_equal_fold(record->name, question->out->config->relay.hostname);
}

/* The best ones, each once, at its best preference. */
static void take_exchangers(struct question *question, const struct dns_records *records)
{
    while (question->answer.count < MX_EXCHANGERS_MAX) {
        const struct dns_record *best = NULL;
        for (size_t i = 0; i < records->count; i++) {
            const struct dns_record *record = &records->records[i];
            if (is_better(question, record, best) && is_host(record->name) &&
                !is_known(question, record->name)) {
                best = record;
            }
        }
        if (best == NULL) {
            return;
        }
        add_host(question, best->preference, best->name);
    }
}

static void records_answered(void *context, const struct dns_records *records)
{
    struct question *question = context;
    struct slice domain = slice_make(question->domain, question->length);
    question->query = NULL;
    question->answer.ttl_s = records->ttl_s;
    question->answer.secure = records->secure;
    if (records->error == ERROR_NONE) {
        take_exchangers(question, records);
    } else if (records->error == ERROR_MISSING && !records->no_name) {
        question->answer.implicit = true; /* RFC 5321 5.1 */
        question->answer.ttl_s = UINT32_MAX;
        add_host(question, 0, domain);
    } else {
        question->answer.error = records->error;
    }
    ask_for_addresses(question);
}

/* "[192.0.2.1]", "[IPv6:2001:db8::1]" (RFC 5321 4.1.3): there is nothing to ask. */
static bool take_literal(struct question *question, struct slice domain)
{
    if (domain.length < 3 || domain.data[0] != '[' || domain.data[domain.length - 1] != ']') {
        return false;
    }
    struct slice text = slice_make(domain.data + 1, domain.length - 2);
    if (slice_starts_fold(text, SLICE_LITERAL("IPv6:"))) {
        text = slice_skip(text, 5);
    }
    struct ip_address address;
    if (!ip_from_text(text, &address)) {
        question->answer.error = ERROR_MISSING;
    } else {
        question->answer.implicit = true;
        add_host(question, 0, text);
        question->hosts[0].addresses[0] =
            (struct mx_address){.address = address, .ours = net_is_ours(&address)};
        question->exchangers[0].address_count = 1;
    }
    question->answer.ttl_s = LITERAL_TTL_S;
    answer(question);
    return true;
}

/* ---- questions ----------------------------------------------------------------------------- */

static void ask(struct question *question)
{
    struct smtp_out *out = question->out;
    struct slice domain = slice_make(question->domain, question->length);
    if (take_literal(question, domain)) {
        return;
    }
    if (!is_host(domain)) {
        question->answer.error = ERROR_MISSING; /* DNS knows no such name */
    } else if (out->question_count > QUESTIONS_MAX || out->dns == NULL) {
        question->answer.error = ERROR_TIMEOUT;
    } else {
        question->query = dns_lookup(out->dns, domain, DNS_MX, records_answered, question);
        question->answer.error = question->query == NULL ? ERROR_MEMORY : ERROR_NONE;
    }
    if (question->query == NULL) {
        answer(question);
    }
}

bool mx_take(struct smtp_out *out, struct reader *reader)
{
    struct slice domain = reader_bytes(reader);
    if (reader->failed) {
        return false;
    }
    struct question *question = calloc(1, sizeof(*question) + domain.length);
    if (question == NULL) {
        return true; /* core asks again */
    }
    question->out = out;
    question->answer.exchangers = question->exchangers;
    question->length = domain.length;
    if (domain.length > 0) {
        memcpy(question->domain, domain.data, domain.length);
    }
    list_append(&out->questions, &question->link);
    out->question_count++;
    ask(question);
    return true;
}

bool mx_report(struct smtp_out *out)
{
    LIST_EACH(&out->answers, at, after)
    {
        struct question *question = LIST_ENTRY(at, struct question, link);
        struct buffer *frame = smtp_out_frame(out, CHANNEL_RESOLVED);
        buffer_put_bytes(frame, slice_make(question->domain, question->length));
        channel_put_mx(frame, &question->answer);
        if (!smtp_out_send(out)) {
            return false;
        }
        question_free(question);
    }
    return true;
}

void mx_free(struct smtp_out *out)
{
    LIST_EACH(&out->questions, at, after)
    {
        question_free(LIST_ENTRY(at, struct question, link));
    }
    LIST_EACH(&out->answers, answered, next)
    {
        question_free(LIST_ENTRY(answered, struct question, link));
    }
}
