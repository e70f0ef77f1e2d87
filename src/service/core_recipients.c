/* SPDX-License-Identifier: Apache-2.0
 *
 * Whether a recipient exists (R8): edge-in asks at RCPT, relay decides, and where that is to ask
 * the server, edge-out does so. A client waits for that no longer than ANSWER_MS; an answer that
 * comes later is still learned.
 *
 * Strangers choose what is asked, so it is bounded: so many questions at once, so many a second of
 * each server, the same one only once. What is beyond that is answered by the `unknown` policy.
 */
#include "service/core_recipients.h"

#include "base/crc32c.h"
#include "sys/random.h"

#include <assert.h>
#include <stdlib.h>

enum {
    REQUEST_BYTES_MAX = 1 + 8 + 16 + 4 + 1024,
    CALLOUTS_MAX = 512,     /* at once */
    CALLOUTS_A_SECOND = 50, /* of one server */
    CALLOUTS_BURST = 100,
    ANSWER_MS = 5000,
    LATE_MS = 120000, /* then it is forgotten */
    BUCKETS = 64,
};

/* Who waits: a session of edge-in, or an operator. */
struct waiter {
    struct waiter *next;
    uint32_t edge, epoch;
    uint64_t token;
    callout_fn *fn; /* NULL: a session */
    void *context;
};

struct callout {
    struct link link; /* in recipients->callouts: by time, the oldest first */
    uint64_t token, hash;
    uint32_t server;
    bool asked_random;
    bool is_late; /* nobody waits any more */
    int64_t asked_ms;
    struct waiter *waiters;
    size_t length;
    uint8_t address[];
};

struct recipients {
    struct core *core;
    struct link callouts;
    struct map by_token, by_hash;
    struct hash_key key;
    uint64_t next_token;
    struct loop_timer *timer;
    int64_t allowance[BUCKETS]; /* in thousandths of a callout */
    int64_t refilled_ms;
    struct recipients_files *files; /* NULL: nothing is kept */
};

static struct slice address_of(const struct callout *callout)
{
    return slice_make(callout->address, callout->length);
}

/* ---- answers --------------------------------------------------------------------------------- */

static void answer_session(struct core *core, uint32_t edge, uint64_t token,
                           enum mailbox_answer answer)
{
    assert(answer != MAILBOX_ASK);
    core_answer_begin(core, CHANNEL_RECIPIENT_DONE, token, (uint8_t)answer);
    core_answer_send(&core->in[edge]);
}

static void answer_waiters(struct recipients *recipients, struct callout *callout,
                           enum mailbox_answer answer, const struct relay_reply *reply,
                           const struct relay_reply *random)
{
    struct core *core = recipients->core;
    struct waiter *next;
    struct waiter *waiter = callout->waiters;
    callout->waiters = NULL;
    for (; waiter != NULL; waiter = next) {
        next = waiter->next;
        if (waiter->fn != NULL) {
            waiter->fn(waiter->context, answer, reply, random);
        } else if (core->in[waiter->edge].ring != NULL &&
                   core->in[waiter->edge].epoch == waiter->epoch) {
            answer_session(core, waiter->edge, waiter->token, answer);
        }
        free(waiter);
    }
}

static void callout_free(struct recipients *recipients, struct callout *callout)
{
    struct waiter *next;
    for (struct waiter *waiter = callout->waiters; waiter != NULL; waiter = next) {
        next = waiter->next;
        free(waiter);
    }
    (void)map_remove(&recipients->by_token, callout->token);
    (void)map_remove(&recipients->by_hash, callout->hash);
    list_remove(&callout->link);
    free(callout);
}

/* ---- time ------------------------------------------------------------------------------------ */

static void set_timer(struct recipients *recipients)
{
    int64_t now_ms = core_now(recipients->core).steady_ms;
    LIST_EACH(&recipients->callouts, at, after)
    {
        const struct callout *callout = LIST_ENTRY(at, struct callout, link);
        if (!callout->is_late) {
            int64_t left_ms = callout->asked_ms + ANSWER_MS - now_ms;
            loop_timer_set(recipients->timer, left_ms > 0 ? left_ms : 0);
            return;
        }
    }
}

static void patience_is_over(void *context)
{
    struct recipients *recipients = context;
    struct core *core = recipients->core;
    int64_t now_ms = core_now(core).steady_ms;
    LIST_EACH(&recipients->callouts, at, after)
    {
        struct callout *callout = LIST_ENTRY(at, struct callout, link);
        if (now_ms - callout->asked_ms < ANSWER_MS) {
            break;
        }
        if (!callout->is_late) {
            callout->is_late = true;
            counter_add(core->counters, COUNTER_CALLOUTS_UNANSWERED, 1);
            answer_waiters(recipients, callout,
                           relay_recipient_unanswered(core->relay, address_of(callout)), NULL,
                           NULL);
        }
    }
    set_timer(recipients);
}

static void forget_late(struct recipients *recipients)
{
    int64_t now_ms = core_now(recipients->core).steady_ms;
    LIST_EACH(&recipients->callouts, at, after)
    {
        struct callout *callout = LIST_ENTRY(at, struct callout, link);
        if (callout->is_late && now_ms - callout->asked_ms >= LATE_MS) {
            callout_free(recipients, callout);
        }
    }
}

static bool is_allowed(struct recipients *recipients, uint32_t server)
{
    int64_t now_ms = core_now(recipients->core).steady_ms;
    int64_t passed_ms = now_ms - recipients->refilled_ms;
    for (uint32_t i = 0; passed_ms > 0 && i < BUCKETS; i++) {
        int64_t more = recipients->allowance[i] + passed_ms * CALLOUTS_A_SECOND;
        recipients->allowance[i] = more < CALLOUTS_BURST * 1000 ? more : CALLOUTS_BURST * 1000;
    }
    recipients->refilled_ms = now_ms;
    int64_t *allowance = &recipients->allowance[server % BUCKETS];
    if (recipients->by_token.count >= CALLOUTS_MAX || *allowance < 1000) {
        return false;
    }
    *allowance -= 1000;
    return true;
}

/* ---- asking ---------------------------------------------------------------------------------- */

struct slice core_recipients_random(struct slice domain, struct buffer *buffer)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz234567";
    uint64_t bits = random_u64();
    buffer_clear(buffer);
    for (int i = 0; i < 12; i++, bits >>= 5) {
        buffer_put_u8(buffer, (uint8_t)letters[bits % 32]);
    }
    buffer_put_u8(buffer, '@');
    buffer_append(buffer, domain);
    return buffer_slice(buffer);
}

/* One server is always asked over the same ring, where a connection to it may stand already. */
static struct core_edge_out *edge_for(struct core *core, uint32_t server)
{
    struct slice name = core_server_name(core, server);
    struct core_edge_out *out =
        core->out_count == 0 ? NULL : &core->out[crc32c(0, name) % core->out_count];
    return out != NULL && out->ring != NULL && out->resumed ? out : NULL;
}

static void send_question(struct core *core, struct core_edge_out *out,
                          const struct callout *callout)
{
    struct buffer exchanger, random;
    struct slice address = address_of(callout);
    struct slice domain = slice_skip(address, slice_find_last(address, '@') + 1);
    buffer_init(&exchanger, 0);
    buffer_init(&random, 0);
    if (callout->server >= RELAY_EXCHANGERS) {
        channel_put_exchanger(&exchanger, relay_server_config(core->relay, callout->server));
    }
    buffer_clear(&core->frame);
    buffer_put_u8(&core->frame, CHANNEL_CALLOUT);
    buffer_put_u64(&core->frame, callout->token);
    buffer_put_u32(&core->frame, channel_server_key(&core->config->relay, callout->server));
    buffer_put_bytes(&core->frame, buffer_slice(&exchanger));
    buffer_put_bytes(&core->frame, address);
    buffer_put_bytes(&core->frame,
                     callout->asked_random ? core_recipients_random(domain, &random) : SLICE_EMPTY);
    channel_put_sts(&core->frame, core_server_demand(core, callout->server));
    if (!exchanger.failed && !random.failed) {
        core_out_send(out, &core->frame);
    }
    buffer_done(&exchanger);
    buffer_done(&random);
}

static uint64_t hash_of(struct recipients *recipients, struct slice address)
{
    if (recipients->next_token == 0) { /* the first; a core before us may have used others */
        recipients->next_token = random_u64();
        recipients->key = (struct hash_key){random_u64(), random_u64()};
    }
    return hash_bytes_fold(recipients->key, address);
}

/* NULL: it cannot be asked now. */
static struct callout *callout_begin(struct recipients *recipients, struct slice address,
                                     const struct relay_recipient *recipient)
{
    struct core *core = recipients->core;
    struct core_edge_out *out = edge_for(core, recipient->server);
    if (out == NULL || !is_allowed(recipients, recipient->server)) {
        return NULL;
    }
    struct callout *callout = calloc(1, sizeof(*callout) + address.length);
    if (callout == NULL) {
        return NULL;
    }
    *callout = (struct callout){.token = recipients->next_token++,
                                .hash = hash_of(recipients, address),
                                .server = recipient->server,
                                .asked_random = recipient->asks_random,
                                .asked_ms = core_now(core).steady_ms,
                                .length = address.length};
    memcpy(callout->address, address.data, address.length);
    list_append(&recipients->callouts, &callout->link);
    if (map_put(&recipients->by_token, callout->token, callout) != ERROR_NONE ||
        map_put(&recipients->by_hash, callout->hash, callout) != ERROR_NONE) {
        callout_free(recipients, callout);
        return NULL;
    }
    counter_add(core->counters, COUNTER_CALLOUTS, 1);
    send_question(core, out, callout);
    set_timer(recipients);
    return callout;
}

/* False: nobody is asked. */
static bool ask(struct recipients *recipients, struct slice address,
                const struct relay_recipient *recipient, const struct waiter *who)
{
    struct waiter *waiter = malloc(sizeof(*waiter));
    if (waiter == NULL) {
        return false;
    }
    struct callout *callout = map_get(&recipients->by_hash, hash_of(recipients, address));
    if (callout == NULL) {
        callout = callout_begin(recipients, address, recipient);
    } else if (callout->is_late || !slice_equal_fold(address_of(callout), address)) {
        callout = NULL; /* the server is slow: that is known by now */
    }
    if (callout == NULL) {
        free(waiter);
        return false;
    }
    *waiter = *who;
    waiter->next = callout->waiters;
    callout->waiters = waiter;
    return true;
}

bool core_recipient_take(struct core_edge_in *in, struct slice frame)
{
    struct core *core = in->core;
    uint8_t copy[REQUEST_BYTES_MAX];
    struct ip_address client;
    struct reader reader;
    uint64_t token;
    struct relay_recipient recipient;
    if (!core_request_read(frame, copy, sizeof(copy), &reader, &token, &client)) {
        return false;
    }
    struct slice address = reader_bytes(&reader);
    if (reader.failed || address.length == 0 || reader.rest.length > 0) {
        return false;
    }
    relay_recipient(core->relay, address, core_now(core), &recipient);
    const struct waiter who = {.edge = in->index, .epoch = in->epoch, .token = token};
    if (recipient.answer == MAILBOX_ASK) {
        if (ask(core->recipients, address, &recipient, &who)) {
            return true;
        }
        recipient.answer = relay_recipient_unanswered(core->relay, address);
    }
    answer_session(core, in->index, token, recipient.answer);
    return true;
}

bool core_recipients_verify(struct core *core, struct slice address, callout_fn *fn, void *context)
{
    struct relay_recipient recipient;
    const struct waiter who = {.fn = fn, .context = context};
    relay_recipient_to_ask(core->relay, address, core_now(core), &recipient);
    return recipient.answer == MAILBOX_ASK && ask(core->recipients, address, &recipient, &who);
}

void core_recipients_forget_context(struct core *core, void *context)
{
    LIST_EACH(&core->recipients->callouts, at, after)
    {
        struct waiter **place = &LIST_ENTRY(at, struct callout, link)->waiters;
        while (*place != NULL) {
            struct waiter *waiter = *place;
            if (waiter->fn != NULL && waiter->context == context) {
                *place = waiter->next;
                free(waiter);
            } else {
                place = &waiter->next;
            }
        }
    }
}

/* ---- what the server has said ---------------------------------------------------------------- */

static bool get_reply(struct reader *reader, struct relay_reply *ret_reply)
{
    (void)reader_u32(reader);
    (void)reader_u8(reader);
    return channel_get_reply(reader, ret_reply);
}

bool core_recipients_called(struct core_edge_out *out, struct reader *reader)
{
    struct core *core = out->core;
    struct recipients *recipients = core->recipients;
    struct relay_reply replies[2] = {0};
    uint64_t token = reader_u64(reader);
    uint32_t count = reader_u32(reader);
    if (reader->failed || count == 0 || count > 2 || !get_reply(reader, &replies[0]) ||
        (count > 1 && !get_reply(reader, &replies[1]))) {
        return false;
    }
    struct callout *callout = map_get(&recipients->by_token, token);
    if (callout == NULL) {
        return true; /* forgotten, or another core's */
    }
    const struct relay_callout said = {.address = address_of(callout),
                                       .server = callout->server,
                                       .reply = &replies[0],
                                       .random = count > 1 ? &replies[1] : NULL};
    enum mailbox_answer answer = relay_recipient_asked(core->relay, &said, core_now(core));
    answer_waiters(recipients, callout, answer, said.reply, said.random);
    callout_free(recipients, callout);
    return true;
}

/* ---- life ------------------------------------------------------------------------------------ */

void core_recipients_init(struct core *core)
{
    struct recipients *recipients = calloc(1, sizeof(*recipients));
    list_init(&core->list_sources);
    if (recipients == NULL) {
        return; /* set_up() finds that */
    }
    recipients->core = core;
    list_init(&recipients->callouts);
    map_init(&recipients->by_token);
    map_init(&recipients->by_hash);
    recipients->timer = loop_timer_new(core->loop, patience_is_over, recipients);
    if (recipients->timer == NULL) {
        free(recipients);
        return;
    }
    core->recipients = recipients;
}

void core_keep_recipients(struct core *core, struct disk *disk)
{
    core->recipients->files = recipients_files_new(core, disk);
}

void core_recipients_reconfigure(struct core *core)
{
    struct recipients *recipients = core->recipients;
    LIST_EACH(&recipients->callouts, at, after)
    {
        struct callout *callout = LIST_ENTRY(at, struct callout, link);
        answer_waiters(recipients, callout,
                       relay_recipient_unanswered(core->relay, address_of(callout)), NULL, NULL);
        callout_free(recipients, callout);
    }
}

void core_recipients_tick(struct core *core)
{
    forget_late(core->recipients);
    recipients_files_tick(core->recipients->files);
}

void core_recipients_stop(struct core *core)
{
    recipients_files_stop(core->recipients->files);
}

void core_recipients_done(struct core *core)
{
    struct recipients *recipients = core->recipients;
    core_lists_done(core);
    if (recipients == NULL) {
        return;
    }
    LIST_EACH(&recipients->callouts, at, after)
    {
        callout_free(recipients, LIST_ENTRY(at, struct callout, link));
    }
    map_done(&recipients->by_token);
    map_done(&recipients->by_hash);
    loop_timer_free(recipients->timer);
    recipients_files_free(recipients->files);
    free(recipients);
    core->recipients = NULL;
}
