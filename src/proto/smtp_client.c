/* SPDX-License-Identifier: Apache-2.0
 *
 * Life cycle, verbs, events, deadlines. A verb changes state, then advance() sends what that makes
 * possible; events are read off the state, never queued.
 */
#include "proto/smtp_client_internal.h"

#include <assert.h>
#include <stdlib.h>

/* RFC 5321 4.5.3.2. */
enum {
    COMMAND_TIMEOUT_MS = 5 * 60 * 1000, /* MAIL, RCPT, RSET */
    DOT_TIMEOUT_MS = 10 * 60 * 1000,
    DATA_TIMEOUT_MS = 2 * 60 * 1000,
    BLOCK_TIMEOUT_MS = 3 * 60 * 1000,
    QUIT_TIMEOUT_MS = 5 * 1000,  /* nothing depends on it */
    OUTPUT_KEPT_BYTES = 8 << 10, /* of an idle session */
};

/* Each byte taken is progress, so that a server that takes one every other minute would never time
 * out. So output that waits uses up credit, and bytes that are taken earn some back. */
enum {
    SEND_CREDIT_MS = 5 * 60 * 1000,
    SEND_RATE_MIN = 500, /* octets a second, in the long run; slow links are faster */
};

/* ---- small things shared ------------------------------------------------------------------ */

void queue_bytes(struct smtp_client *client, struct slice bytes)
{
    buffer_append(&client->output, bytes);
}

void queue_text(struct smtp_client *client, const char *text)
{
    buffer_append_text(&client->output, text);
}

uint64_t output_end(const struct smtp_client *client)
{
    return client->sent + output_backlog(client);
}

bool dot_has_left(const struct smtp_client *client, const struct transaction *t)
{
    return t->dot_end > 0 && client->sent >= t->dot_end;
}

struct smtp_client_cause cause_of_reply(enum smtp_client_stage stage,
                                        const struct smtp_reply *reply)
{
    struct smtp_client_cause cause = {
        .stage = stage, .how = SMTP_CLIENT_REPLY, .code = reply->code, .text = reply->text};
    memcpy(cause.enhanced, reply->enhanced, sizeof(cause.enhanced));
    return cause;
}

struct smtp_client_cause cause_of_text(enum smtp_client_stage stage, enum smtp_client_how how,
                                       const char *text)
{
    return (struct smtp_client_cause){.stage = stage, .how = how, .text = slice_from_text(text)};
}

/* ---- life cycle ---------------------------------------------------------------------------- */

static bool take_helo(struct smtp_client *client, struct slice helo)
{
    if (helo.length == 0 || helo.length > SMTP_CLIENT_HELO_MAX) {
        return false;
    }
    for (size_t i = 0; i < helo.length; i++) {
        if (helo.data[i] <= ' ' || helo.data[i] >= 0x7f) {
            return false;
        }
    }
    memcpy(client->helo, helo.data, helo.length);
    return true;
}

static bool take_login(struct smtp_client *client,
                       const struct smtp_client_credentials *credentials)
{
    struct login *login = &client->login;
    if (credentials->user.length > sizeof(login->user) ||
        credentials->password.length > sizeof(login->password)) {
        return false;
    }
    if (credentials->user.length > 0) {
        memcpy(login->user, credentials->user.data, credentials->user.length);
        login->user_length = credentials->user.length;
    }
    if (credentials->password.length > 0) {
        memcpy(login->password, credentials->password.data, credentials->password.length);
        login->password_length = credentials->password.length;
    }
    login->in_clear = credentials->in_clear;
    memcpy(login->nonce, credentials->nonce, sizeof(login->nonce));
    return true;
}

struct smtp_client *smtp_client_new(const struct smtp_client_settings *settings, int64_t now_ms)
{
    struct smtp_client *client = calloc(1, sizeof(*client));
    if (client == NULL || !take_helo(client, settings->helo) ||
        !take_login(client, &settings->credentials)) {
        free(client);
        return NULL;
    }
    client->lmtp = settings->lmtp;
    client->origin.told = settings->tells_origin || settings->is_proxied;
    client->greeting_timeout_ms = settings->greeting_timeout_ms;
    client->command_timeout_ms =
        settings->command_timeout_ms > 0 ? settings->command_timeout_ms : COMMAND_TIMEOUT_MS;
    client->dot_timeout_ms =
        settings->dot_timeout_ms > 0 ? settings->dot_timeout_ms : DOT_TIMEOUT_MS;
    client->send_credit_ms = SEND_CREDIT_MS;
    client->tls = settings->tls;
    client->tls_failed = settings->tls_failed;
    client->step = client->tls == SMTP_CLIENT_TLS_FIRST ? SESSION_TLS : SESSION_GREETING;
    client->progress_ms = now_ms;
    buffer_init(&client->output, 0);
    buffer_init(&client->auth_secrets, 0);
    buffer_init(&client->origin.line, 0);
    if (settings->is_proxied) {
        origin_proxied(client, settings->proxied_for);
    }
    smtp_reply_parser_init(&client->parser);
    for (size_t i = 0; i < 2; i++) {
        arena_init(&client->slots[i].arena);
    }
    return client;
}

void smtp_client_free(struct smtp_client *client)
{
    if (client == NULL) {
        return;
    }
    for (size_t i = 0; i < 2; i++) {
        arena_done(&client->slots[i].arena);
    }
    auth_forget(client);
    digest_forget(&client->login, sizeof(client->login));
    buffer_done(&client->output);
    buffer_done(&client->origin.line);
    free(client);
}

/* ---- waiting ------------------------------------------------------------------------------- */

static int64_t shorter(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* For the reply that decides a step of a transaction. */
static int64_t reply_patience_ms(const struct smtp_client *client, enum step step)
{
    switch (step) {
    case STEP_DATA:
    case STEP_EMPTY_DOT:
        return shorter(DATA_TIMEOUT_MS, client->command_timeout_ms);
    case STEP_CONTENT:
        return shorter(BLOCK_TIMEOUT_MS, client->command_timeout_ms);
    case STEP_DOT:
        return client->dot_timeout_ms;
    default:
        return client->command_timeout_ms;
    }
}

/* How long we wait for what we wait for now; 0: for nothing. */
static int64_t patience_ms(const struct smtp_client *client)
{
    int64_t block_ms = shorter(BLOCK_TIMEOUT_MS, client->command_timeout_ms);
    if (client->step == SESSION_CLOSED) {
        return 0;
    }
    if (client->step < SESSION_OPEN) {
        return client->greeting_timeout_ms;
    }
    if (client->step == SESSION_QUIT) {
        return QUIT_TIMEOUT_MS;
    }
    for (uint32_t i = 0; i < client->count; i++) {
        const struct transaction *t = &client->slots[(client->first + i) % 2];
        if (t->answer == STEP_DONE || !transaction_awaits(t)) {
            continue;
        }
        bool leaving = t->answer == STEP_DOT && !dot_has_left(client, t);
        return leaving ? block_ms : reply_patience_ms(client, t->answer);
    }
    return output_backlog(client) > 0 ? block_ms : 0;
}

int64_t smtp_client_deadline(const struct smtp_client *client)
{
    int64_t patience = patience_ms(client);
    if (patience == 0) {
        return INT64_MAX;
    }
    int64_t at = client->progress_ms + patience;
    return client->sending && client->send_until_ms < at ? client->send_until_ms : at;
}

void smtp_client_tick(struct smtp_client *client, int64_t now_ms)
{
    if (now_ms < smtp_client_deadline(client)) {
        return;
    }
    bool quitting = client->step == SESSION_QUIT;
    bool sending = output_backlog(client) > 0;
    bool slow = sending && now_ms >= client->send_until_ms;
    bool shaking = client->step == SESSION_TLS;
    struct smtp_client_cause cause =
        cause_of_text(stage_now(client), quitting ? SMTP_CLIENT_LOCAL : SMTP_CLIENT_TIMEOUT,
                      quitting  ? "closed"
                      : shaking ? "timed out in the TLS handshake"
                      : slow    ? "takes less than 500 octets a second"
                      : sending ? "timed out while sending"
                                : "timed out waiting for a reply");
    session_end(client, &cause);
}

/* After every verb: sends what may be sent, and starts the clock of what is now awaited. */
static void proceed(struct smtp_client *client, bool was_waiting, int64_t now_ms)
{
    client->now_ms = now_ms;
    advance(client);
    if (client->step != SESSION_CLOSED && client->output.failed) {
        session_out_of_memory(client);
    }
    if (!was_waiting) {
        client->progress_ms = now_ms;
    }
    if (!client->sending) {
        client->send_until_ms = now_ms + client->send_credit_ms;
    }
    client->sending = output_backlog(client) > 0;
}

/* `count` bytes of what waited have left. */
static void earn_credit(struct smtp_client *client, size_t count, int64_t now_ms)
{
    int64_t credit = client->send_until_ms - now_ms + (int64_t)(count * 1000 / SEND_RATE_MIN);
    client->send_credit_ms = credit < SEND_CREDIT_MS ? credit : SEND_CREDIT_MS;
    client->send_until_ms = now_ms + client->send_credit_ms;
    client->sending = output_backlog(client) > 0;
}

static bool is_waiting(const struct smtp_client *client)
{
    return patience_ms(client) > 0;
}

/* ---- input and output ---------------------------------------------------------------------- */

static void take_reply(struct smtp_client *client)
{
    struct smtp_reply reply;
    smtp_reply_get(&client->parser, &reply);
    if (origin_reply(client, &reply)) {
        return;
    }
    if (client->step == SESSION_OPEN) {
        transaction_reply(client, &reply);
    } else if (client->step == SESSION_QUIT) {
        struct smtp_client_cause cause =
            cause_of_text(SMTP_CLIENT_AT_IDLE, SMTP_CLIENT_LOCAL, "closed");
        session_end(client, &cause);
    } else if (client->step == SESSION_AUTH) {
        auth_reply(client, &reply);
    } else {
        hello_reply(client, &reply);
    }
}

void smtp_client_input(struct smtp_client *client, struct slice bytes, int64_t now_ms)
{
    while (bytes.length > 0 && client->step != SESSION_CLOSED) {
        struct slice line;
        if (client->step == SESSION_TLS) {
            session_broken(client, "more than the reply to STARTTLS came in the clear");
            return;
        }
        enum smtp_reply_status status = smtp_reply_parse(&client->parser, &bytes, &line);
        if (status == SMTP_REPLY_BROKEN) {
            session_broken(client, smtp_reply_fault(&client->parser));
        } else if (status != SMTP_REPLY_MORE) {
            hello_line(client, line);
        }
        if (status == SMTP_REPLY_COMPLETE) {
            take_reply(client);
            proceed(client, false, now_ms);
        }
    }
}

void smtp_client_secured(struct smtp_client *client, bool is_proved, int64_t now_ms)
{
    if (client->step == SESSION_TLS) {
        client->is_proved = is_proved;
        hello_secured(client);
        proceed(client, false, now_ms);
    }
}

void smtp_client_lost(struct smtp_client *client, struct slice text, int64_t now_ms)
{
    (void)now_ms;
    if (text.length == 0) {
        text = SLICE_LITERAL("connection closed by server");
    }
    enum smtp_client_how how = client->step == SESSION_QUIT ? SMTP_CLIENT_LOCAL : SMTP_CLIENT_LOST;
    struct smtp_client_cause cause = {.stage = stage_now(client), .how = how, .text = text};
    session_end(client, &cause);
}

struct slice smtp_client_output(struct smtp_client *client)
{
    return slice_skip(buffer_slice(&client->output), client->output_offset);
}

void smtp_client_sent(struct smtp_client *client, size_t count, int64_t now_ms)
{
    assert(count <= output_backlog(client));
    client->sent += count;
    client->output_offset += count;
    if (output_backlog(client) == 0) {
        client->output_offset = 0;
        buffer_clear(&client->output);
    }
    earn_credit(client, count, now_ms);
    proceed(client, count == 0, now_ms);
}

/* ---- transactions -------------------------------------------------------------------------- */

static void release_reported(struct smtp_client *client)
{
    if (client->count > 0 && slot_at(client, 0)->reported) {
        client->first = (client->first + 1) % 2;
        client->count--;
        if (client->count == 0 && output_backlog(client) == 0 &&
            client->output.capacity > OUTPUT_KEPT_BYTES) {
            buffer_done(&client->output);
        }
    }
}

enum error smtp_client_mail(struct smtp_client *client, const struct smtp_client_mail *mail,
                            int64_t now_ms)
{
    assert(mail->recipient_count > 0);
    release_reported(client);
    if (client->count == 2 || client->quit_asked || client->step >= SESSION_QUIT) {
        return ERROR_AGAIN;
    }
    struct transaction *t = slot_at(client, client->count);
    struct arena arena = t->arena;
    arena_reset(&arena);
    *t = (struct transaction){
        .mail = *mail,
        .arena = arena,
        .recipient_limit = mail->recipient_count,
        .undecided = mail->recipient_count,
        .line_start = true,
    };
    t->outcomes = arena_allocate(&t->arena, mail->recipient_count * sizeof(*t->outcomes));
    t->states = arena_allocate(&t->arena, mail->recipient_count);
    if (t->outcomes == NULL || t->states == NULL) {
        return ERROR_MEMORY;
    }
    bool waiting = is_waiting(client);
    if (!client->sending) {
        client->send_credit_ms = SEND_CREDIT_MS;
    }
    client->count++;
    proceed(client, waiting, now_ms);
    return ERROR_NONE;
}

static struct transaction *asked_slot(struct smtp_client *client)
{
    for (uint32_t i = 0; i < client->count; i++) {
        if (slot_at(client, i)->asked) {
            return slot_at(client, i);
        }
    }
    return NULL;
}

/* It is this message's fault, not the server's; but begun content can only be cut off. */
static void refuse_content(struct smtp_client *client, struct transaction *t, struct slice text)
{
    struct smtp_client_cause cause = {
        .stage = SMTP_CLIENT_AT_CONTENT, .how = SMTP_CLIENT_LOCAL, .text = text};
    decide_rest(t, SMTP_CLIENT_REFUSED, &cause);
    session_end(client, &cause);
}

void smtp_client_content(struct smtp_client *client, struct slice piece, int64_t now_ms)
{
    struct transaction *t = asked_slot(client);
    if (t == NULL) {
        return;
    }
    assert(piece.length > 0 && piece.length <= SMTP_CLIENT_PIECE_MAX &&
           piece.length <= t->mail.size - t->content_offset);
    t->asked = false;
    bool waiting = is_waiting(client);
    if (t->undecided > 0 && !queue_content(client, t, piece)) {
        refuse_content(client, t, SLICE_LITERAL("content has a bare CR or LF: not sent"));
    }
    proceed(client, waiting, now_ms);
}

void smtp_client_content_failed(struct smtp_client *client, struct slice text)
{
    struct transaction *t = asked_slot(client);
    if (t != NULL) {
        refuse_content(client, t, text);
    }
}

void smtp_client_go(struct smtp_client *client, uint64_t tag, int64_t now_ms)
{
    bool waiting = is_waiting(client);
    for (uint32_t i = 0; i < client->count; i++) {
        struct transaction *t = slot_at(client, i);
        t->go = t->go || t->mail.tag == tag;
    }
    proceed(client, waiting, now_ms);
}

void smtp_client_quit(struct smtp_client *client, int64_t now_ms)
{
    bool waiting = is_waiting(client);
    client->quit_asked = true;
    proceed(client, waiting, now_ms);
}

void smtp_client_abort(struct smtp_client *client, struct slice text)
{
    struct smtp_client_cause cause = {
        .stage = stage_now(client), .how = SMTP_CLIENT_LOCAL, .text = text};
    session_give_up(client, &cause);
}

bool smtp_client_dot_sent(const struct smtp_client *client, uint64_t tag)
{
    for (uint32_t i = 0; i < client->count; i++) {
        const struct transaction *t = &client->slots[(client->first + i) % 2];
        if (t->mail.tag == tag && dot_has_left(client, t)) {
            return true;
        }
    }
    return false;
}

/* ---- events -------------------------------------------------------------------------------- */

static bool transaction_event(struct smtp_client *client, struct transaction *t, bool front,
                              struct smtp_client_event *ret_event)
{
    struct smtp_client_event event = {.tag = t->mail.tag};
    if (t->started && !t->started_told) {
        t->started_told = true;
        event.kind = SMTP_CLIENT_STARTED;
    } else if (front && t->answer == STEP_DONE) {
        t->reported = true;
        event.kind = SMTP_CLIENT_RESULT;
        event.reused = t->reused;
        event.elsewhere = t->elsewhere;
        event.outcomes = t->outcomes;
        event.outcome_count = t->mail.recipient_count;
    } else if (client->step == SESSION_OPEN && content_wanted(client, t)) {
        t->asked = true;
        event.kind = SMTP_CLIENT_CONTENT;
        event.offset = t->content_offset;
    } else {
        return false;
    }
    *ret_event = event;
    return true;
}

bool smtp_client_next(struct smtp_client *client, struct smtp_client_event *ret_event)
{
    release_reported(client);
    if (client->step == SESSION_TLS && !client->handshake_told) {
        client->handshake_told = true;
        *ret_event = (struct smtp_client_event){.kind = SMTP_CLIENT_HANDSHAKE};
        return true;
    }
    if (client->opened && !client->opened_told) {
        client->opened_told = true;
        *ret_event = (struct smtp_client_event){.kind = SMTP_CLIENT_OPENED,
                                                .capabilities = client->capabilities};
        return true;
    }
    for (uint32_t i = 0; i < client->count; i++) {
        if (transaction_event(client, slot_at(client, i), i == 0, ret_event)) {
            return true;
        }
    }
    if (client->step == SESSION_CLOSED && client->count == 0 && !client->closed_told) {
        client->closed_told = true;
        *ret_event = (struct smtp_client_event){
            .kind = SMTP_CLIENT_CLOSED, .cause = client->end, .elsewhere = client->spent};
        return true;
    }
    return false;
}
