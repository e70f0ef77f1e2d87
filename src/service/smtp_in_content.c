/* SPDX-License-Identifier: Apache-2.0
 *
 * A message's content on its way to core. At most CHANNEL_CHUNK bytes of it are kept here; what is
 * beyond goes on as it comes. A message that fits goes to core in one frame, with its envelope.
 */
#include "service/smtp_in_internal.h"
#include "service/smtp_in_trace.h"

#include "sys/clock.h"

#include <assert.h>
#include <stdlib.h>

enum {
    FIRST_RESERVE = 4 << 10,
    TRACE_MAX = 2048,
    SLACK = 512, /* normalising adds a byte or two to what was unread, a submission two fields */
};

/* ---- life -------------------------------------------------------------------------------- */

struct transaction *transaction_new(struct session *session)
{
    struct smtp_in *in = session->in;
    struct transaction *transaction;
    if (!list_is_empty(&in->kept)) {
        transaction = LIST_ENTRY(in->kept.next, struct transaction, link);
        list_remove(&transaction->link);
        in->kept_count--;
    } else {
        transaction = calloc(1, sizeof(*transaction));
        if (transaction == NULL) {
            return NULL;
        }
        arena_init(&transaction->arena);
        list_init(&transaction->link);
    }
    buffer_init(&transaction->content, CHANNEL_CHUNK);
    map_init(&transaction->known);
    transaction->session = session;
    transaction->received_ms = smtp_in_wall_ms(session->in);
    return transaction;
}

/* The shared sum follows the buffer. */
static void account(struct smtp_in *in, struct transaction *transaction)
{
    size_t now = transaction->content.capacity;
    if (now > transaction->accounted) {
        smtp_in_content_grown(in->shared, now - transaction->accounted);
    } else if (now < transaction->accounted) {
        smtp_in_content_shrunk(in->shared, transaction->accounted - now);
        if (!list_is_empty(&in->waiting)) {
            loop_later_ask(in->resume);
        }
    }
    transaction->accounted = now;
}

static void drop_content(struct smtp_in *in, struct transaction *transaction)
{
    buffer_done(&transaction->content);
    account(in, transaction);
}

static void drop_kept(struct smtp_in *in, struct transaction *transaction)
{
    if (transaction->kept.block_count > 0) {
        scratch_clear(in->store, &transaction->kept);
    }
}

void transaction_release(struct smtp_in *in, struct transaction *transaction)
{
    drop_content(in, transaction);
    drop_kept(in, transaction);
    buffer_done(&transaction->authored);
    map_done(&transaction->known);
    list_remove(&transaction->link);
    if (in->kept_count < SMTP_IN_TRANSACTIONS_KEPT && transaction->recipient_room <= 64) {
        struct transaction clean = {.recipients = transaction->recipients,
                                    .recipient_room = transaction->recipient_room};
        arena_reset(&transaction->arena);
        clean.arena = transaction->arena;
        *transaction = clean;
        list_init(&transaction->link);
        list_append(&in->kept, &transaction->link);
        in->kept_count++;
        return;
    }
    arena_done(&transaction->arena);
    free(transaction->recipients);
    free(transaction);
}

void transaction_free(struct transaction *transaction)
{
    if (transaction == NULL) {
        return;
    }
    struct smtp_in *in = transaction->session->in;
    transaction->session = NULL;
    if (transaction->token != 0) {
        drop_content(in, transaction);
        core_send_abort(in, transaction);
    } else {
        transaction_release(in, transaction);
    }
}

/* ---- content ----------------------------------------------------------------------------- */

static struct slice protocol_word(const struct session *session)
{
    bool has_tls = session->tls != NULL || session->proxied_tls[0] != '\0';
    bool has_login = login_user(session).length > 0;
    if (session->transaction->is_smtputf8) {
        return has_tls && has_login ? SLICE_LITERAL("UTF8SMTPSA")
               : has_login          ? SLICE_LITERAL("UTF8SMTPA")
               : has_tls            ? SLICE_LITERAL("UTF8SMTPS")
                                    : SLICE_LITERAL("UTF8SMTP");
    }
    if (!session->is_extended) {
        return SLICE_LITERAL("SMTP"); /* RFC 3848 has no word for that by TLS */
    }
    return has_tls && has_login ? SLICE_LITERAL("ESMTPSA")
           : has_login          ? SLICE_LITERAL("ESMTPA")
           : has_tls            ? SLICE_LITERAL("ESMTPS")
                                : SLICE_LITERAL("ESMTP");
}

struct smtp_answer content_begin(struct session *session)
{
    struct transaction *transaction = session->transaction;
    struct smtp_in *in = session->in;
    if (in->ring == NULL) {
        return core_error_answer(ERROR_CLOSED);
    }
    transaction->has_content = true;
    transaction->is_filtered = session->milters != NULL;
    return SMTP_ACCEPT;
}

static void put_trace(const struct session *session, struct slice recipient,
                      struct buffer *ret_field)
{
    const struct transaction *transaction = session->transaction;
    char tls[TLS_TEXT_SIZE];
    struct smtp_in_trace trace = {
        .helo = slice_make(session->helo, session->helo_length),
        .client = &session->client.address,
        .hostname = session->listener->settings.hostname,
        .protocol = protocol_word(session),
        .tls = session_tls_text(session, tls),
        .suite = slice_from_text(session->tls != NULL ? tls_suite(session->tls) : ""),
        .id = transaction->id,
        .recipient = recipient,
        .received_ms = transaction->received_ms,
        .priority = transaction->priority,
        .has_priority = transaction->has_priority,
        .authserv_id = session->listener->own_names[1],
        .login = session->listener->tells_login ? login_user(session) : SLICE_EMPTY,
    };
    smtp_in_trace_write(&trace, ret_field);
}

void content_put_trace(const struct session *session, struct buffer *ret_field)
{
    const struct transaction *transaction = session->transaction;
    put_trace(session,
              transaction->recipient_count == 1 ? transaction->shown_recipient : SLICE_EMPTY,
              ret_field);
}

static void write_trace(struct session *session)
{
    struct transaction *transaction = session->transaction;
    content_put_trace(session, &transaction->content);
    transaction->trace_bytes = transaction->content.length;
}

struct buffer content_take(struct smtp_in *in, struct transaction *transaction)
{
    struct buffer taken = transaction->content;
    buffer_init(&transaction->content, CHANNEL_CHUNK);
    account(in, transaction);
    return taken;
}

uint64_t content_trace_length(const struct session *session, struct slice recipient)
{
    const struct transaction *transaction = session->transaction;
    struct buffer field;
    buffer_init(&field, TRACE_MAX);
    put_trace(session, transaction->recipient_count > 0 ? transaction->shown_recipient : recipient,
              &field);
    uint64_t length = field.failed ? TRACE_MAX : field.length;
    buffer_done(&field);
    return length;
}

static void fail_transaction(struct smtp_in *in, struct transaction *transaction,
                             const char *failure)
{
    transaction->failure = failure;
    drop_content(in, transaction);
    drop_kept(in, transaction);
}

/* Sends on what is here. False: the ring is full. */
static bool flush(struct smtp_in *in, struct transaction *transaction)
{
    enum error error = transaction->is_filtered
                           ? content_keep(in, &transaction->kept, &transaction->content)
                           : core_send_append(in, transaction);
    if (error == ERROR_AGAIN) {
        return false;
    }
    if (error != ERROR_NONE) {
        fail_transaction(in, transaction, "storage is away");
    }
    return true;
}

bool content_has_room(struct session *session, size_t unread)
{
    struct smtp_in *in = session->in;
    struct transaction *transaction = session->transaction;
    struct buffer *content = &transaction->content;
    uint64_t cap = in->config->content_memory_bytes;
    size_t need = unread + (transaction->trace_bytes == 0 ? TRACE_MAX : 0);
    if (unread == 0 || transaction->failure != NULL || transaction->is_discarded) {
        return true;
    }
    if (content->length + need > CHANNEL_CHUNK - SLACK && content->length > 0 &&
        !flush(in, transaction)) {
        return false;
    }
    if (cap == 0 || content->capacity - content->length >= need) {
        return true;
    }
    size_t held = smtp_in_content_bytes(in->shared);
    if (held + need <= cap || in->favoured == session) {
        return true;
    }
    /* Over the cap: only within the memory that it has already. */
    if (content->length > 0 && !flush(in, transaction)) {
        return false;
    }
    if (content->capacity < need) {
        drop_content(in, transaction);
        return false;
    }
    return true;
}

static void reserve(struct transaction *transaction, size_t more)
{
    size_t want = more;
    if (transaction->content.capacity == 0) {
        uint64_t announced = transaction->announced + TRACE_MAX;
        want = announced > FIRST_RESERVE
                   ? (size_t)(announced < CHANNEL_CHUNK ? announced : CHANNEL_CHUNK)
                   : FIRST_RESERVE;
        want = want > more ? want : more;
        want = want > CHANNEL_CHUNK ? CHANNEL_CHUNK : want;
    }
    (void)!buffer_reserve(&transaction->content, want);
}

struct auth_names content_own_names(const struct session *session)
{
    const struct listener *listener = session->listener;
    return (struct auth_names){listener->own_names,
                               sizeof(listener->own_names) / sizeof(listener->own_names[0])};
}

/* How many of `bytes`, the last that `content` has given out, belong to the header. */
static size_t header_part(const struct smtp_content *content, struct slice bytes)
{
    uint64_t start = content->length - bytes.length;
    uint64_t end = smtp_content_header_length(content);
    return end > start ? (size_t)(end - start) : 0;
}

/* What is held of a field that may be a forged one. */
static void end_header(struct transaction *transaction)
{
    struct auth_names names = content_own_names(transaction->session);
    if (!transaction->sieve.is_over) {
        buffer_append(&transaction->content, auth_sieve_end(&transaction->sieve, &names));
        counter_add(transaction->session->in->counters, COUNTER_FORGED_RESULTS,
                    transaction->sieve.fields);
    }
}

/* RFC 8601 section 5: nobody but our own filters says what we have found out of a message. */
static void add_header(struct transaction *transaction, struct slice bytes)
{
    struct auth_names names = content_own_names(transaction->session);
    struct slice run;
    while (auth_sieve_next(&transaction->sieve, &names, &bytes, &run)) {
        buffer_append(&transaction->content, run);
    }
}

static void add_bytes(struct transaction *transaction, const struct smtp_content *content,
                      struct slice bytes)
{
    if (transaction->sieve.is_over) {
        buffer_append(&transaction->content, bytes);
        return;
    }
    size_t part = header_part(content, bytes);
    size_t own = submit_header_end(transaction, content, bytes);
    submit_look(transaction, slice_take(bytes, part));
    if (own < bytes.length) {
        add_header(transaction, slice_take(bytes, own));
        submit_header(transaction, content);
        add_header(transaction, slice_take(slice_skip(bytes, own), part > own ? part - own : 0));
    } else {
        add_header(transaction, slice_take(bytes, part));
    }
    if (content->header.complete) {
        end_header(transaction);
    }
    buffer_append(&transaction->content, slice_skip(bytes, part));
}

void content_add(struct transaction *transaction, struct smtp_in *in, struct slice bytes)
{
    struct buffer *content = &transaction->content;
    if (transaction->failure != NULL || transaction->is_discarded) {
        return;
    }
    size_t first = transaction->trace_bytes == 0 ? TRACE_MAX : 0;
    if (content->capacity - content->length < bytes.length + first) {
        reserve(transaction, bytes.length + first);
    }
    if (transaction->trace_bytes == 0 && !transaction->is_filtered) {
        write_trace(transaction->session);
    }
    add_bytes(transaction, transaction->session->server.content, bytes);
    if (content->failed) {
        fail_transaction(in, transaction, "out of memory");
        return;
    }
    account(in, transaction);
}

void content_relieve(struct session *session)
{
    struct smtp_in *in = session->in;
    struct transaction *transaction = session->transaction;
    uint64_t cap = in->config->content_memory_bytes;
    if (transaction == NULL || !transaction->has_content || cap == 0 ||
        transaction->state != TRANSACTION_OPEN || transaction->content.length == 0 ||
        smtp_in_content_bytes(in->shared) < cap / 2) {
        return;
    }
    if (flush(in, transaction) && transaction->failure == NULL) {
        drop_content(in, transaction);
    }
}

/* ---- the end ----------------------------------------------------------------------------- */

static bool keep_results(struct transaction *transaction, const struct smtp_content *content)
{
    uint64_t ours =
        transaction->trace_bytes + transaction->added_bytes - transaction->sieve.removed;
    transaction->header_length = ours + smtp_content_header_length(content);
    transaction->bytes = ours + content->length;
    transaction->bare_newlines = content->bare_newlines;
    if (content->has_8bit) {
        transaction->flags |= SPOOL_8BIT;
    }
    if (content->header.is_ours) {
        transaction->flags |= CHANNEL_OWN_TRACE;
    }
    if (smtp_header_needs_no_tls(&content->header) &&
        (transaction->flags & SPOOL_REQUIRE_TLS) == 0) { /* RFC 8689 4.1 */
        transaction->flags |= SPOOL_TLS_OPTIONAL;
    }
    if (transaction->is_smtputf8 && (transaction->is_utf8_address || content->header.has_8bit)) {
        transaction->flags |= SPOOL_SMTPUTF8 | SPOOL_8BIT;
    }
    if (transaction->message_id_header.length == 0) { /* it is not of ours */
        transaction->message_id_header =
            arena_copy(&transaction->arena, smtp_header_message_id(&content->header));
    }
    return transaction->message_id_header.data != NULL;
}

bool content_end(struct session *session, const struct smtp_content *content,
                 struct smtp_answer *ret_answer)
{
    struct transaction *transaction = session->transaction;
    struct smtp_in *in = session->in;
    transaction->has_content = false;
    if (transaction->trace_bytes == 0 && transaction->failure == NULL &&
        !transaction->is_filtered) {
        content_add(transaction, in, SLICE_EMPTY); /* an empty message */
    }
    if (transaction->failure == NULL && !transaction->is_discarded) {
        /* Of a message that is all header. */
        end_header(transaction);
        if (!content->header.complete) {
            submit_header(transaction, content);
        }
    }
    if (transaction->content.failed) {
        fail_transaction(in, transaction, "out of memory");
    }
    if (transaction->failure != NULL) {
        *ret_answer = core_error_answer(ERROR_CLOSED);
        return true;
    }
    if (!keep_results(transaction, content)) {
        *ret_answer = core_error_answer(ERROR_MEMORY);
        return true;
    }
    if (transaction->head_limit != 0 && transaction->bytes > transaction->head_limit) {
        *ret_answer = (struct smtp_answer){552, "5.3.4",
                                           SLICE_LITERAL("Message too large for the next server")};
        return true;
    }
    counter_add(in->counters, COUNTER_BARE_NEWLINES, content->bare_newlines > 0);
    *ret_answer = submit_authors(transaction, content);
    if (ret_answer->code != SMTP_ACCEPT.code) {
        return true;
    }
    if (transaction->is_filtered) {
        return milters_content(session, ret_answer);
    }
    return content_commit(in, transaction, ret_answer);
}

static void put_commit(const struct transaction *transaction, struct buffer *frame)
{
    const struct session *session = transaction->session;
    char tls[TLS_TEXT_SIZE];
    struct spool_message message = {
        .id = transaction->id,
        .received_ms = transaction->received_ms,
        .flags = transaction->flags | (transaction->repeat_until_ms != 0 ? CHANNEL_REPEATED : 0),
        .priority = transaction->priority,
        .deliver_by_ms = transaction->deliver_by_ms,
        .header_length = transaction->header_length,
        .body_length = transaction->bytes - transaction->header_length,
        .sender = transaction->sender,
        .envelope_id = transaction->envelope_id,
        .message_id_header = transaction->message_id_header,
        .origin = {.client = session->client,
                   .helo = slice_make(session->helo, session->helo_length),
                   .listener = slice_from_text(session->listener->name),
                   .protocol = protocol_word(session),
                   .tls = session_tls_text(session, tls),
                   .verdicts = transaction->verdicts,
                   .forwarded = transaction->forwarded,
                   .user = login_user(session)},
        .recipients = transaction->recipients,
        .recipient_count = transaction->recipient_count,
    };
    buffer_put_u8(frame, CHANNEL_COMMIT);
    buffer_put_u64(frame, transaction->token);
    channel_put_message(frame, &message);
}

bool transaction_name(struct smtp_in *in, struct transaction *transaction)
{
    if (transaction->token != 0) {
        return true;
    }
    uint64_t token = in->next_token;
    if (map_put(&in->tokens, token, transaction) != ERROR_NONE) {
        return false;
    }
    in->next_token++;
    transaction->token = token;
    return true;
}

static void commit_later(struct transaction *transaction)
{
    transaction->state = TRANSACTION_WAITING;
    if (transaction->session != NULL) {
        session_wait(transaction->session);
    }
}

/* What is all here in one piece is kept until core has answered, as far as that takes nobody's
 * room: else the next core can only say whether this one has stored it. */
static void keep_for_repeat(struct smtp_in *in, struct transaction *transaction)
{
    uint64_t cap = in->config->content_memory_bytes;
    account(in, transaction); /* what filters have passed was not */
    if (transaction->streamed > 0 || (cap != 0 && smtp_in_content_bytes(in->shared) > cap / 2)) {
        drop_content(in, transaction);
    }
}

bool content_commit(struct smtp_in *in, struct transaction *transaction,
                    struct smtp_answer *ret_answer)
{
    struct buffer *frame = &in->frame;
    struct slice content = buffer_slice(&transaction->content);
    bool is_repeated = transaction->repeat_until_ms != 0;
    bool is_late = is_repeated && clock_steady_ms() >= transaction->repeat_until_ms;
    if (is_late || transaction->failure != NULL || (in->ring == NULL && !is_repeated)) {
        *ret_answer = core_error_answer(ERROR_CLOSED);
        return true;
    }
    if (is_repeated && !in->core_has_loaded) {
        commit_later(transaction);
        return false;
    }
    assert(is_repeated || transaction->streamed + content.length == transaction->bytes);
    if (!transaction_name(in, transaction)) {
        *ret_answer = core_error_answer(ERROR_MEMORY);
        return true;
    }
    buffer_clear(frame);
    put_commit(transaction, frame);
    if (frame->failed || frame->length + content.length > ring_record_limit(in->ring)) {
        *ret_answer = core_error_answer(frame->failed ? ERROR_MEMORY : ERROR_LIMIT);
        return true;
    }
    uint8_t *room = ring_reserve(in->ring, frame->length + content.length);
    if (room == NULL) {
        commit_later(transaction);
        return false;
    }
    memcpy(room, frame->data, frame->length);
    if (content.length > 0) {
        memcpy(room + frame->length, content.data, content.length);
    }
    ring_publish(in->ring, frame->length + content.length);
    transaction->state = TRANSACTION_SENT;
    keep_for_repeat(in, transaction);
    return false;
}
