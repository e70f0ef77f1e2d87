/* SPDX-License-Identifier: Apache-2.0
 *
 * Asking and waiting for the answer.
 */
#include "app/doctor_internal.h"

#include "sys/clock.h"
#include "sys/net.h"

#include <poll.h>
#include <stdio.h>

/* ---- names -------------------------------------------------------------------------------- */

struct waiting {
    struct doctor *doctor;
    struct dns_records records;
    struct dns_answer addresses;
};

static struct slice kept(struct doctor *doctor, struct slice bytes)
{
    return bytes.length > 0 ? arena_copy(&doctor->arena, bytes) : SLICE_EMPTY;
}

static void got_records(void *context, const struct dns_records *records)
{
    struct waiting *waiting = context;
    struct doctor *doctor = waiting->doctor;
    struct dns_record *copies =
        arena_allocate(&doctor->arena, (records->count + 1) * sizeof(*copies));
    waiting->records = *records;
    waiting->records.records = copies;
    for (size_t i = 0; copies != NULL && i < records->count; i++) {
        copies[i] = (struct dns_record){records->records[i].preference,
                                        kept(doctor, records->records[i].name),
                                        kept(doctor, records->records[i].data)};
    }
    if (copies == NULL) {
        waiting->records = (struct dns_records){.error = ERROR_MEMORY};
    }
    loop_stop(doctor->loop);
}

struct dns_records ask_records(struct doctor *doctor, struct slice name, enum dns_type type)
{
    struct waiting waiting = {.doctor = doctor, .records = {.error = ERROR_MEMORY}};
    if (dns_lookup(doctor->dns, name, type, got_records, &waiting) != NULL) {
        loop_run(doctor->loop);
    }
    return waiting.records;
}

static void got_addresses(void *context, const struct dns_answer *answer)
{
    struct waiting *waiting = context;
    waiting->addresses = *answer;
    loop_stop(waiting->doctor->loop);
}

struct dns_answer ask_addresses(struct doctor *doctor, struct slice name)
{
    struct waiting waiting = {.doctor = doctor, .addresses = {.error = ERROR_MEMORY}};
    if (dns_resolve(doctor->dns, name, got_addresses, &waiting) != NULL) {
        loop_run(doctor->loop);
    }
    return waiting.addresses;
}

struct slice name_under(struct doctor *doctor, const char *prefix, struct slice name)
{
    struct buffer text;
    buffer_init(&text, 0);
    buffer_append_text(&text, prefix);
    buffer_append(&text, name);
    struct slice copy = text.failed ? SLICE_EMPTY : kept(doctor, buffer_slice(&text));
    buffer_done(&text);
    return copy;
}

const char *ask_trouble(const struct dns_records *records)
{
    switch (records->error) {
    case ERROR_MISSING:
        return records->no_name ? "there is no such name" : "there is no such record";
    case ERROR_CORRUPT:
        return "the answer is bogus: DNSSEC says it was changed on its way";
    case ERROR_TIMEOUT:
        return "the name server does not answer";
    default:
        return "the name server fails";
    }
}

/* ---- conversations ------------------------------------------------------------------------ */

static enum error await(struct conversation *conversation, short what)
{
    struct pollfd waiting = {.fd = conversation->fd, .events = what};
    int64_t left = conversation->deadline_ms - clock_steady_ms();
    int count = left > 0 ? poll(&waiting, 1, (int)left) : 0;
    return count > 0 ? ERROR_NONE : count == 0 ? ERROR_TIMEOUT : ERROR_IO;
}

enum error conversation_open(struct conversation *conversation, const struct ip_endpoint *to,
                             uint32_t timeout_ms)
{
    conversation->timeout_ms = timeout_ms;
    conversation->deadline_ms = clock_steady_ms() + timeout_ms;
    conversation->rest = SLICE_EMPTY;
    smtp_reply_parser_init(&conversation->parser);
    enum error error = net_connect(to, NULL, &conversation->fd);
    if (error != ERROR_NONE) {
        return error;
    }
    error = await(conversation, POLLOUT);
    error = error == ERROR_NONE ? net_connected(conversation->fd) : error;
    if (error != ERROR_NONE) {
        conversation_close(conversation);
    }
    return error;
}

void conversation_close(struct conversation *conversation)
{
    net_close(conversation->fd);
}

static enum error say(struct conversation *conversation, struct slice text)
{
    while (text.length > 0) {
        size_t sent = 0;
        enum error error = net_send(conversation->fd, text, &sent);
        text = slice_skip(text, sent);
        if (error == ERROR_AGAIN) {
            error = await(conversation, POLLOUT);
        }
        if (error != ERROR_NONE) {
            return error;
        }
    }
    return ERROR_NONE;
}

static enum error hear(struct conversation *conversation)
{
    for (;;) {
        size_t length = 0;
        enum error error = net_receive(conversation->fd, conversation->bytes,
                                       sizeof(conversation->bytes), &length);
        if (error == ERROR_NONE) {
            conversation->rest = slice_make(conversation->bytes, length);
            return ERROR_NONE;
        }
        if (error == ERROR_AGAIN) {
            error = await(conversation, POLLIN);
        }
        if (error != ERROR_NONE) {
            return error;
        }
    }
}

enum error conversation_ask(struct conversation *conversation, const char *line,
                            void (*told)(void *context, struct slice line), void *context,
                            struct smtp_reply *ret_reply)
{
    enum smtp_reply_status status = SMTP_REPLY_MORE;
    conversation->deadline_ms = clock_steady_ms() + conversation->timeout_ms;
    enum error error = line != NULL ? say(conversation, slice_from_text(line)) : ERROR_NONE;
    while (error == ERROR_NONE && status != SMTP_REPLY_COMPLETE) {
        struct slice text;
        if (conversation->rest.length == 0) {
            error = hear(conversation);
            continue;
        }
        status = smtp_reply_parse(&conversation->parser, &conversation->rest, &text);
        if (status == SMTP_REPLY_BROKEN) {
            error = ERROR_INVALID;
        } else if (status != SMTP_REPLY_MORE && told != NULL) {
            told(context, text);
        }
    }
    if (error == ERROR_NONE) {
        smtp_reply_get(&conversation->parser, ret_reply);
    }
    return error;
}
