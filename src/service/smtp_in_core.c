/* SPDX-License-Identifier: Apache-2.0
 *
 * The ring to core: frames both ways, and what happens when core goes.
 */
#include "service/smtp_in_internal.h"

#include "sys/clock.h"
#include "sys/log.h"

#include <assert.h>
#include <stdlib.h>

struct smtp_answer core_error_answer(enum error error)
{
    switch (error) {
    case ERROR_NONE:
        return SMTP_ACCEPT;
    case ERROR_SPACE:
        return (struct smtp_answer){452, "4.3.1", SLICE_LITERAL("Insufficient storage")};
    case ERROR_LIMIT:
        return (struct smtp_answer){552, "5.3.4", SLICE_LITERAL("Message too large")};
    case ERROR_MEMORY:
        return (struct smtp_answer){451, "4.3.0", SLICE_LITERAL("Out of memory")};
    case ERROR_LOOP:
        return (struct smtp_answer){451, "4.4.6", SLICE_LITERAL("Mail loop: you had it from us")};
    default:
        return (struct smtp_answer){451, "4.3.0", SLICE_LITERAL("Storage is away, try again")};
    }
}

/* ---- routes ------------------------------------------------------------------------------ */

bool route_table_set_count(struct route_table *table, uint32_t count)
{
    if (count > table->count) {
        struct route_state *states = realloc(table->states, count * sizeof(*states));
        if (states == NULL) {
            return false;
        }
        memset(states + table->count, 0, (count - table->count) * sizeof(*states));
        table->states = states;
        table->count = count;
    }
    return true;
}

const struct route_state *core_route(const struct smtp_in *in, uint32_t route)
{
    static const struct route_state unknown = {0};
    return route < in->routes.count ? &in->routes.states[route] : &unknown;
}

/* Core may have read a new configuration before us: what it says about that is kept until we
 * follow. */
static struct route_table *table_of(struct smtp_in *in, uint32_t generation)
{
    if (generation == in->generation) {
        return &in->routes;
    }
    if (generation != in->next_routes.generation) {
        in->next_routes.generation = generation;
        if (in->next_routes.count > 0) {
            memset(in->next_routes.states, 0,
                   in->next_routes.count * sizeof(*in->next_routes.states));
        }
    }
    return &in->next_routes;
}

static bool take_route(struct smtp_in *in, struct reader *reader)
{
    uint32_t generation = reader_u32(reader);
    uint32_t route = reader_u32(reader);
    struct route_state state = {.error = (enum error)reader_u8(reader)};
    uint8_t head = reader_u8(reader);
    state.head_known = (head & 1) != 0;
    state.head_up = (head & 2) != 0;
    state.flags = reader_u32(reader);
    state.size_limit = reader_u64(reader);
    if (reader->failed || route >= SMTP_IN_ROUTES_MAX) {
        return false;
    }
    struct route_table *table = table_of(in, generation);
    if (route_table_set_count(table, route + 1)) {
        state.doubted_ms = table->states[route].doubted_ms;
        table->states[route] = state;
    }
    return true;
}

/* ---- stored ------------------------------------------------------------------------------ */

static void log_accepted(const struct transaction *transaction, const char *id)
{
    const struct session *session = transaction->session;
    char client[IP_TEXT_SIZE] = "", room[TLS_TEXT_SIZE];
    struct slice tls = SLICE_EMPTY;
    if (session != NULL) {
        ip_to_text(&session->client.address, client);
        tls = session_tls_text(session, room);
    }
    log_event(LOG_LEVEL_INFO, "accepted", LOG_TEXT("id", id),
              LOG_SLICE("sender", transaction->sender),
              LOG_SLICE("recipient", transaction->shown_recipient),
              LOG_NUMBER("recipients", transaction->recipient_count),
              LOG_NUMBER("size", transaction->bytes), LOG_TEXT("client", client),
              LOG_SLICE("helo", session == NULL ? SLICE_LITERAL("(has gone)")
                                                : slice_make(session->helo, session->helo_length)),
              LOG_SLICE("message-id", transaction->message_id_header), LOG_SLICE("tls", tls));
    if (transaction->forwarded.length > 0) {
        log_event(LOG_LEVEL_INFO, "forwarded", LOG_TEXT("id", id),
                  LOG_SLICE("of", transaction->forwarded));
    }
}

static void stored(struct smtp_in *in, struct transaction *transaction, enum error error)
{
    char id[ID_TEXT_LENGTH + 1], text[64];
    struct smtp_answer answer = core_error_answer(error);
    transaction->token = 0;
    if (error == ERROR_NONE) {
        id_to_text(transaction->id, id);
        counter_add(in->counters, COUNTER_MESSAGES_ACCEPTED, 1);
        counter_add(in->counters, COUNTER_BYTES_ACCEPTED, transaction->bytes);
        log_accepted(transaction, id);
        static const char queued[] = "Ok: queued as ";
        memcpy(text, queued, sizeof(queued) - 1);
        memcpy(text + sizeof(queued) - 1, id, ID_TEXT_LENGTH);
        answer = (struct smtp_answer){250, "2.0.0",
                                      slice_make(text, sizeof(queued) - 1 + ID_TEXT_LENGTH)};
    }
    if (transaction->session != NULL) {
        session_answer(transaction->session, SMTP_SERVER_END, &answer);
    } else {
        transaction_release(in, transaction);
    }
}

static bool take_stored(struct smtp_in *in, struct reader *reader)
{
    uint64_t token = reader_u64(reader);
    enum error error = (enum error)reader_u8(reader);
    if (reader->failed) {
        return false;
    }
    struct transaction *transaction = map_get(&in->tokens, token);
    if (transaction == NULL) {
        return true; /* aborted meanwhile */
    }
    if (transaction->state != TRANSACTION_SENT) {
        return false;
    }
    (void)map_remove(&in->tokens, token);
    stored(in, transaction, error);
    return true;
}

static bool take_recipient(struct smtp_in *in, struct reader *reader)
{
    uint64_t token = reader_u64(reader);
    uint8_t outcome = reader_u8(reader);
    struct session *session;
    if (reader->failed || outcome >= MAILBOX_ASK ||
        !request_find(in, token, REQUEST_RECIPIENT, &session)) {
        return false;
    }
    if (session != NULL) {
        envelope_recipient_known(session, (enum mailbox_answer)outcome);
    }
    return true;
}

/* ---- receiving --------------------------------------------------------------------------- */

static bool take_frame(struct smtp_in *in, struct slice frame)
{
    struct reader reader = reader_make(frame);
    switch (reader_u8(&reader)) {
    case CHANNEL_STORED:
        return take_stored(in, &reader);
    case CHANNEL_ACCEPTING:
        in->accepting = (enum error)reader_u8(&reader);
        in->time_ahead_ms = (int64_t)reader_u64(&reader);
        in->core_has_loaded = reader_u8(&reader) != 0;
        if (!in->knows_time) {
            in->knows_time = true;
            listeners_resume(in);
        }
        return !reader.failed;
    case CHANNEL_ROUTE:
        return take_route(in, &reader);
    case CHANNEL_ETRN_DONE:
        return etrn_take(in, &reader);
    case CHANNEL_ATRN_DONE:
        return odmr_take(in, &reader);
    case CHANNEL_RECIPIENT_DONE:
        return take_recipient(in, &reader);
    case CHANNEL_LISTED:
        return listing_take(in, &reader);
    default:
        return false;
    }
}

void core_ring_ready(void *context)
{
    struct smtp_in *in = context;
    for (;;) {
        struct slice record;
        uint8_t frame[64]; /* longer than any frame of this direction */
        if (in->ring == NULL) {
            return;
        }
        enum error error = ring_receive(in->ring, &record);
        if (error == ERROR_AGAIN) {
            break;
        }
        bool good = error == ERROR_NONE && record.length <= sizeof(frame);
        size_t length = good ? record.length : 0;
        if (good && length > 0) {
            memcpy(frame, record.data, length);
        }
        if (error == ERROR_NONE) {
            ring_release(in->ring);
        }
        if (!good || !take_frame(in, slice_make(frame, length))) {
            log_event(LOG_LEVEL_ERROR, "broken", LOG_TEXT("ring", "core to edge-in"));
            in->ring = NULL;
            core_forget(in);
            if (in->broken != NULL) {
                in->broken(in->broken_context);
            }
            return;
        }
    }
    core_send_aborts(in);
    if (!list_is_empty(&in->waiting)) {
        loop_later_ask(in->resume);
    }
}

/* ---- sending ----------------------------------------------------------------------------- */

enum error core_send_append(struct smtp_in *in, struct transaction *transaction)
{
    struct slice content = buffer_slice(&transaction->content);
    size_t length = 1 + sizeof(uint64_t) + content.length;
    if (in->ring == NULL) {
        return ERROR_CLOSED;
    }
    if (!transaction_name(in, transaction)) {
        return ERROR_MEMORY;
    }
    buffer_clear(&in->frame);
    buffer_put_u8(&in->frame, CHANNEL_APPEND);
    buffer_put_u64(&in->frame, transaction->token);
    if (in->frame.failed) {
        return ERROR_MEMORY;
    }
    uint8_t *room = ring_reserve(in->ring, length);
    if (room == NULL) {
        return ERROR_AGAIN;
    }
    memcpy(room, in->frame.data, in->frame.length);
    memcpy(room + in->frame.length, content.data, content.length);
    ring_publish(in->ring, length);
    transaction->streamed += content.length;
    buffer_clear(&transaction->content);
    return ERROR_NONE;
}

static bool send_abort(struct smtp_in *in, uint64_t token)
{
    struct buffer *frame = &in->frame;
    buffer_clear(frame);
    buffer_put_u8(frame, CHANNEL_ABORT);
    buffer_put_u64(frame, token);
    return !frame->failed && ring_send(in->ring, buffer_slice(frame)) == ERROR_NONE;
}

void core_send_abort(struct smtp_in *in, struct transaction *transaction)
{
    assert(map_get(&in->tokens, transaction->token) == transaction);
    (void)map_remove(&in->tokens, transaction->token);
    if (in->ring == NULL || transaction->streamed == 0 || send_abort(in, transaction->token)) {
        transaction_release(in, transaction);
        return;
    }
    list_remove(&transaction->link);
    list_append(&in->aborted, &transaction->link);
}

void core_send_aborts(struct smtp_in *in)
{
    while (in->ring != NULL && !list_is_empty(&in->aborted)) {
        struct transaction *transaction = LIST_ENTRY(in->aborted.next, struct transaction, link);
        if (!send_abort(in, transaction->token)) {
            return;
        }
        transaction_release(in, transaction);
    }
}

void core_send_milter(struct smtp_in *in, struct slice name, bool is_away, struct slice why)
{
    if (in->ring == NULL) {
        return;
    }
    buffer_clear(&in->frame);
    buffer_put_u8(&in->frame, CHANNEL_MILTER);
    buffer_put_bytes(&in->frame, name);
    buffer_put_u8(&in->frame, is_away);
    buffer_put_bytes(&in->frame, slice_take(why, CHANNEL_WHY_MAX));
    /* While it is away that is said again and again. */
    (void)!ring_send(in->ring, buffer_slice(&in->frame));
}

bool core_is_server_address(const struct smtp_in *in, const struct ip_address *client)
{
    const struct relay_config *config = &in->config->relay;
    for (uint32_t i = 0; i < config->server_count; i++) {
        const struct server_config *server = &config->servers[i];
        for (uint32_t k = 0; k < server->address_count; k++) {
            if (server->addresses[k].is_literal &&
                ip_equal(&server->addresses[k].literal, client)) {
                return true;
            }
        }
    }
    return false;
}

/* A server may be known to us by name only; then core, which knows its addresses, has to look at
 * every client. The same client is named at most once a second. */
void core_contact(struct smtp_in *in, const struct ip_address *client)
{
    if (in->ring == NULL || (!in->servers_by_name && !core_is_server_address(in, client))) {
        return;
    }
    uint64_t hash = hash_bytes(in->key, slice_make(client->bytes, sizeof(client->bytes)));
    uint64_t *cell = &in->contacted[hash % (sizeof(in->contacted) / sizeof(in->contacted[0]))];
    uint64_t stamp = (hash & ~(uint64_t)0xffffffff) | (uint32_t)(clock_steady_ms() / 1000);
    if (*cell == stamp) {
        return;
    }
    *cell = stamp;
    buffer_clear(&in->frame);
    buffer_put_u8(&in->frame, CHANNEL_CONTACT);
    buffer_append(&in->frame, slice_make(client->bytes, sizeof(client->bytes)));
    /* It only saves time: without room it may get lost. */
    (void)!ring_send(in->ring, buffer_slice(&in->frame));
}

void core_send_refused(struct smtp_in *in, struct channel_refusal *refusal)
{
    enum { A_SECOND = 1000 };
    int64_t second = clock_steady_ms() / 1000;
    in->refusals = second == in->refusals_ms ? in->refusals + 1 : 1;
    in->refusals_ms = second;
    if (id_equal(refusal->id, (struct message_id){0, 0})) {
        refusal->id = id_make(&in->ids, clock_wall_ms());
    }
    buffer_clear(&in->frame);
    buffer_put_u8(&in->frame, CHANNEL_REFUSED);
    channel_put_refusal(&in->frame, refusal);
    if (in->ring == NULL || in->refusals > A_SECOND || in->frame.failed ||
        ring_send(in->ring, buffer_slice(&in->frame)) != ERROR_NONE) {
        counter_add(in->counters, COUNTER_REFUSALS_LEFT_OUT, 1);
    }
}

void core_sent_on(struct smtp_in *in, uint32_t route)
{
    enum { EVERY_MS = 500 };
    int64_t now_ms = clock_steady_ms();
    if (in->ring == NULL || route >= in->routes.count ||
        now_ms - in->routes.states[route].doubted_ms < EVERY_MS) {
        return;
    }
    in->routes.states[route].doubted_ms = now_ms;
    buffer_clear(&in->frame);
    buffer_put_u8(&in->frame, CHANNEL_SENT_ON);
    buffer_put_u32(&in->frame, in->generation);
    buffer_put_u32(&in->frame, route);
    /* The next stranger says it again. */
    (void)!ring_send(in->ring, buffer_slice(&in->frame));
}

/* ---- core has gone ----------------------------------------------------------------------- */

static void forget_transaction(struct smtp_in *in, struct transaction *transaction)
{
    transaction->token = 0;
    if (transaction->session == NULL) {
        transaction_release(in, transaction);
    } else if (transaction->state == TRANSACTION_SENT) {
        transaction->state = TRANSACTION_WAITING;
        if (transaction->repeat_until_ms == 0) {
            transaction->repeat_until_ms = clock_steady_ms() + SMTP_IN_REPEAT_MS;
        }
        session_wait(transaction->session);
    } else if (transaction->streamed > 0 && transaction->repeat_until_ms == 0) {
        transaction->failure = "storage is away";
    }
}

/* What core had begun to take is lost with it: the clients hear 451. What it was given whole it may
 * have stored, and who waits at the dot cannot know: the next core is asked. What is still whole
 * here may go to that, too. */
void core_forget(struct smtp_in *in)
{
    struct map known = in->tokens;
    struct transaction *transaction;
    map_init(&in->tokens);
    for (size_t cursor = 0; (transaction = map_next(&known, &cursor)) != NULL;) {
        forget_transaction(in, transaction);
    }
    map_done(&known);
    request_core_gone(in);
    while (!list_is_empty(&in->aborted)) {
        transaction_release(in, LIST_ENTRY(in->aborted.next, struct transaction, link));
    }
    in->accepting = ERROR_NONE;
    in->core_has_loaded = false;
    for (uint32_t i = 0; i < in->routes.count; i++) {
        in->routes.states[i] = (struct route_state){0};
    }
    in->next_routes.generation = in->generation;
    if (!list_is_empty(&in->waiting)) {
        loop_later_ask(in->resume);
    }
}
