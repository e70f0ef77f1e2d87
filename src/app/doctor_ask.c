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
    bool answered;
};

/* No question takes longer than that, and none goes beyond the time that its subject has. */
enum { QUESTION_MS = 6000 };

static void give_up(void *context)
{
    loop_stop(context);
}

static int64_t patience_ms(const struct doctor *doctor)
{
    int64_t left = doctor->until_ms - clock_steady_ms();
    return left > QUESTION_MS ? QUESTION_MS : left;
}

/* Until it is answered, or the patience has ended: then it is as if there had been a time-out. */
static void await_answer(struct waiting *waiting, struct dns_query *query)
{
    struct doctor *doctor = waiting->doctor;
    struct loop_timer *timer = loop_timer_new(doctor->loop, give_up, doctor->loop);
    if (timer != NULL) {
        int64_t patience = patience_ms(doctor);
        loop_timer_set(timer, patience > 0 ? patience : 0);
        loop_run(doctor->loop);
    }
    loop_timer_free(timer);
    if (!waiting->answered) {
        dns_cancel(query);
        waiting->records = (struct dns_records){.error = ERROR_TIMEOUT};
        waiting->addresses = (struct dns_answer){.error = ERROR_TIMEOUT};
    }
}

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
    waiting->answered = true;
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
    struct dns_query *query = dns_lookup(doctor->dns, name, type, got_records, &waiting);
    if (query != NULL) {
        await_answer(&waiting, query);
    }
    return waiting.records;
}

static void got_addresses(void *context, const struct dns_answer *answer)
{
    struct waiting *waiting = context;
    waiting->answered = true;
    waiting->addresses = *answer;
    loop_stop(waiting->doctor->loop);
}

struct dns_answer ask_addresses(struct doctor *doctor, struct slice name)
{
    struct waiting waiting = {.doctor = doctor, .addresses = {.error = ERROR_MEMORY}};
    struct dns_query *query = dns_resolve(doctor->dns, name, got_addresses, &waiting);
    if (query != NULL) {
        await_answer(&waiting, query);
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
        return "the answer is bogus: its DNSSEC signature is wrong, expired or missing";
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

bool conversation_begin(struct doctor *doctor, struct conversation *conversation,
                        const struct ip_endpoint *to, const char *check, struct slice subject,
                        const char *advice)
{
    char text[IP_TEXT_SIZE];
    struct smtp_reply reply = {0};
    int64_t begun = clock_steady_ms();
    ip_to_text(&to->address, text);
    enum error error = conversation_open(conversation, to, doctor->settings->timeout_ms);
    if (error != ERROR_NONE) {
        tell(doctor, check, subject, DOCTOR_BAD, advice, "%s port %u cannot be connected: %s", text,
             to->port,
             error == ERROR_CLOSED ? "refused"
             : error == ERROR_IO   ? "no way there"
                                   : error_text(error));
        return false;
    }
    error = conversation_ask(conversation, NULL, NULL, NULL, &reply);
    long long took = (long long)(clock_steady_ms() - begun);
    if (error == ERROR_NONE && reply.code == 220) {
        tell(doctor, check, subject, DOCTOR_GOOD, NULL, "%s port %u greets after %lld ms", text,
             to->port, took);
        return true;
    }
    const char *what = error == ERROR_NONE      ? "greets with a refusal"
                       : error == ERROR_INVALID ? "greets with what is no reply of SMTP"
                       : error == ERROR_TIMEOUT ? "accepts the connection and does not greet"
                                                : "accepts the connection and closes it";
    tell(doctor, check, subject, DOCTOR_BAD, "look at its log", "%s port %u %s%s%s (%lld ms)", text,
         to->port, what, error == ERROR_INVALID ? ": " : "",
         error == ERROR_INVALID ? smtp_reply_fault(&conversation->parser) : "", took);
    conversation_close(conversation);
    return false;
}
