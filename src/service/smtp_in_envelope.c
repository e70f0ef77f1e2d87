/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may send what to whom: the rules of relaying (R8), what the head server of a route would
 * refuse, and what core has said about space.
 */
#include "service/smtp_in_internal.h"

#include <stdlib.h>

enum { COMPARED = 16 };

static const struct smtp_answer no_memory = {451, "4.3.0", SLICE_LITERAL("Out of memory")};

_Static_assert((int)SMTP_NOTIFY_NEVER == (int)SPOOL_NOTIFY_NEVER, "RFC 3461");
_Static_assert((int)SMTP_NOTIFY_SUCCESS == (int)SPOOL_NOTIFY_SUCCESS, "RFC 3461");
_Static_assert((int)SMTP_NOTIFY_FAILURE == (int)SPOOL_NOTIFY_FAILURE, "RFC 3461");
_Static_assert((int)SMTP_NOTIFY_DELAY == (int)SPOOL_NOTIFY_DELAY, "RFC 3461");

/* From our networks, or logged in. */
static bool is_relay_client(const struct session *session)
{
    return login_user(session).length > 0 ||
           routing_is_relay_client(session->in->routing, &session->client.address);
}

/* RFC 3461 asks who offers DSN to pass it on or to act on it: for mail to our domains only when
 * every head server is known to offer it. */
static bool all_heads_offer_dsn(const struct session *session)
{
    const struct relay_config *config = &session->in->config->relay;
    bool any = false;
    for (uint32_t i = 0; i < config->route_count; i++) {
        if (config->routes[i].kind == ROUTE_DOMAIN) {
            const struct route_state *state = core_route(session->in, i);
            if (!state->head_known || (state->flags & RELAY_CAP_DSN) == 0) {
                return false;
            }
            any = true;
        }
    }
    return any;
}

/* Our own relay clients may be told of everything, so that we can act on all these. Of strangers
 * priority does not count (R6), and mail of theirs that is late could not be returned (R8). */
unsigned envelope_offers(const struct session *session)
{
    unsigned by_tls = session->tls != NULL ? SMTP_OFFER_REQUIRETLS : 0;
    if (session->listener->settings.submission || is_relay_client(session)) {
        return SMTP_OFFER_DSN | SMTP_OFFER_DELIVERBY | SMTP_OFFER_PRIORITY | by_tls;
    }
    return (all_heads_offer_dsn(session) ? SMTP_OFFER_DSN : 0) | by_tls;
}

/* A sender of a domain of ours that does not come from outside, with a client that does. */
static bool is_forged(const struct session *session, struct slice sender)
{
    const struct smtp_in *in = session->in;
    const struct relay_config *config = &in->config->relay;
    uint32_t route =
        routing_domain(in->routing, slice_skip(sender, slice_find_last(sender, '@') + 1));
    return route != NO_INDEX && config->routes[route].refuses_own_senders && !session->is_allowed &&
           !is_relay_client(session) && !core_is_server_address(in, &session->client.address);
}

struct smtp_answer envelope_mail(struct session *session, const struct smtp_server_event *event)
{
    struct transaction *transaction;
    if (session->in->ring == NULL) {
        return core_error_answer(ERROR_CLOSED);
    }
    struct smtp_answer answer = submit_mail(session, event->mailbox.text);
    if (answer.code != 0) {
        session_log_refused_sender(session, event->mailbox.text, &answer);
        return answer;
    }
    transaction = transaction_new(session);
    if (transaction == NULL) {
        return no_memory;
    }
    transaction->sender = arena_copy(&transaction->arena, event->mailbox.text);
    transaction->envelope_id = arena_copy(&transaction->arena, event->envelope_id);
    if (event->is_forwarded) {
        transaction->forwarded = arena_copy(
            &transaction->arena, slice_make(session->forwarded, session->forwarded_length));
    }
    if (transaction->sender.data == NULL || transaction->envelope_id.data == NULL ||
        (event->is_forwarded && transaction->forwarded.data == NULL)) {
        transaction_free(transaction);
        return no_memory;
    }
    transaction->id = id_make(&session->in->ids, transaction->received_ms);
    transaction->announced = event->size;
    transaction->is_smtputf8 = event->is_smtputf8;
    transaction->is_utf8_address = event->mailbox.is_utf8;
    transaction->envelope_bytes = event->mailbox.text.length + event->envelope_id.length;
    transaction->flags = (event->is_8bit ? SPOOL_8BIT : 0) |
                         (event->ret == SMTP_RET_FULL ? SPOOL_RET_FULL : 0) |
                         (event->ret == SMTP_RET_HEADERS ? SPOOL_RET_HEADERS : 0) |
                         (is_relay_client(session) ? SPOOL_SENDER_VERIFIED : 0) |
                         (event->deliver_by.mode == 'R' ? SPOOL_BY_RETURN : 0) |
                         (event->deliver_by.is_traced ? SPOOL_BY_TRACE : 0) |
                         (event->requires_tls ? SPOOL_REQUIRE_TLS : 0);
    transaction->priority = event->priority;
    transaction->has_priority = event->has_priority;
    transaction->deliver_by_ms =
        event->deliver_by.mode == 0
            ? 0
            : transaction->received_ms + event->deliver_by.in_s * (int64_t)1000;
    session->transaction = transaction;
    if (is_forged(session, transaction->sender)) {
        struct smtp_answer forged = {
            550, "5.7.1", SLICE_LITERAL("Senders of this domain do not write from outside")};
        session_log_refused(session, "mail", SLICE_EMPTY, &forged);
        return forged;
    }
    return SMTP_ACCEPT;
}

/* What the head server will be told of its size has our field in it. */
static bool is_too_large(const struct session *session, const struct route_state *state,
                         struct slice recipient)
{
    uint64_t announced = session->transaction->announced;
    return state->size_limit != 0 && announced != 0 &&
           (announced > state->size_limit ||
            content_trace_length(session, recipient) > state->size_limit - announced);
}

/* What the route's head server would say, or core about space. `recipient` is as the client wrote
 * it. */
static struct smtp_answer check_route(const struct session *session, uint32_t route,
                                      struct slice recipient)
{
    const struct transaction *transaction = session->transaction;
    const struct route_state *state = core_route(session->in, route);
    if (session->in->accepting != ERROR_NONE) {
        return core_error_answer(session->in->accepting);
    }
    if (state->error != ERROR_NONE) {
        return (struct smtp_answer){452, "4.3.1", SLICE_LITERAL("Too much mail is waiting there")};
    }
    if (!state->head_known) {
        return SMTP_ACCEPT;
    }
    if (transaction->is_smtputf8 && (state->flags & RELAY_CAP_SMTPUTF8) == 0) {
        return (struct smtp_answer){553, "5.6.7",
                                    SLICE_LITERAL("The next server does not take SMTPUTF8")};
    }
    if ((transaction->flags & SPOOL_REQUIRE_TLS) != 0 && transaction->sender.length > 0 &&
        (state->flags & RELAY_CAP_REQUIRETLS) == 0) {
        return (struct smtp_answer){550, "5.7.30",
                                    SLICE_LITERAL("The next server does not take REQUIRETLS")};
    }
    if (is_too_large(session, state, recipient)) {
        return (struct smtp_answer){552, "5.3.4",
                                    SLICE_LITERAL("Message too large for the next server")};
    }
    return SMTP_ACCEPT;
}

/* Whose mail it becomes: that for postmaster and abuse is somebody's (R8); empty if nobody's. */
static struct slice real_address(const struct session *session, struct slice address)
{
    const struct smtp_in *in = session->in;
    return routing_is_postmaster(in->routing, address) ? in->config->relay.postmaster : address;
}

/* What nobody here knows the cluster's settings may know, which are not here yet. */
static struct smtp_answer unknown_here(const struct smtp_in *in, struct smtp_answer otherwise)
{
    return in->config->joining
               ? (struct smtp_answer){451, "4.3.2", SLICE_LITERAL("Not ready yet, try again")}
               : otherwise;
}

static uint32_t route_of(const struct session *session, struct slice real)
{
    const struct routing_query query = {
        .sender = session->transaction->sender,
        .recipient = real,
        .client = &session->client.address,
        .authenticated = login_user(session).length > 0,
    };
    return real.length == 0 ? NO_INDEX : routing_find(session->in->routing, &query);
}

/* NO_INDEX in *ret_route: to be refused with the answer, unless that accepts. */
static struct smtp_answer find_route(const struct session *session,
                                     const struct smtp_mailbox *mailbox, struct slice *ret_address,
                                     uint32_t *ret_route)
{
    *ret_address = real_address(session, mailbox->text);
    *ret_route = route_of(session, *ret_address);
    if (routing_is_postmaster(session->in->routing, mailbox->text)) {
        return ret_address->length > 0
                   ? SMTP_ACCEPT
                   : unknown_here(
                         session->in,
                         (struct smtp_answer){550, "5.1.1", SLICE_LITERAL("No postmaster here")});
    }
    if (*ret_route == NO_INDEX) {
        return unknown_here(session->in,
                            (struct smtp_answer){550, "5.7.1", SLICE_LITERAL("Relaying denied")});
    }
    /* The server behind us may trust us more than this client: "a%b@ours" must not make it relay.
     */
    if (smtp_local_part_routes(mailbox->local) && !is_relay_client(session)) {
        return (struct smtp_answer){550, "5.7.1", SLICE_LITERAL("No routing in local parts")};
    }
    return SMTP_ACCEPT;
}

/* Local parts are compared as they are, for only their server knows whether case matters. */
static bool is_same_address(struct slice a, struct slice b)
{
    size_t at = slice_find_last(a, '@');
    return a.length == b.length && slice_equal(slice_take(a, at), slice_take(b, at)) &&
           slice_equal_fold(slice_skip(a, at), slice_skip(b, at));
}

/* Among few by comparing, among many by hash. Without memory, or when two hashes meet, a second
 * delivery of the same message is all that happens. */
static bool is_known(const struct smtp_in *in, struct transaction *transaction,
                     struct slice address)
{
    uint32_t count = transaction->recipient_count;
    if (count < COMPARED) {
        for (uint32_t i = 0; i < count; i++) {
            if (is_same_address(transaction->recipients[i].address, address)) {
                return true;
            }
        }
        return false;
    }
    uintptr_t index = (uintptr_t)map_get(&transaction->known, hash_bytes_fold(in->key, address));
    return index != 0 && is_same_address(transaction->recipients[index - 1].address, address);
}

static void note_known(const struct smtp_in *in, struct transaction *transaction)
{
    uint32_t count = transaction->recipient_count;
    for (uint32_t i = count == COMPARED ? 0 : count - 1; i < count && count >= COMPARED; i++) {
        uint64_t hash = hash_bytes_fold(in->key, transaction->recipients[i].address);
        if (map_get(&transaction->known, hash) == NULL) {
            (void)!map_put(&transaction->known, hash, (void *)(uintptr_t)(i + 1));
        }
    }
}

static bool make_room(struct transaction *transaction)
{
    if (transaction->recipient_count < transaction->recipient_room) {
        return true;
    }
    uint32_t room = transaction->recipient_room == 0 ? 4 : transaction->recipient_room * 2;
    struct spool_recipient *more =
        realloc(transaction->recipients, room * sizeof(*transaction->recipients));
    if (more == NULL) {
        return false;
    }
    transaction->recipients = more;
    transaction->recipient_room = room;
    return true;
}

/* Content may be as large as the most generous head allows; the others' refusal is theirs. */
static void note_head_limit(const struct smtp_in *in, struct transaction *transaction,
                            uint32_t route)
{
    const struct route_state *state = core_route(in, route);
    uint64_t limit = state->head_known ? state->size_limit : 0;
    if (!transaction->head_limit_set) {
        transaction->head_limit = limit;
        transaction->head_limit_set = true;
    } else if (limit == 0 || (transaction->head_limit != 0 && limit > transaction->head_limit)) {
        transaction->head_limit = limit;
    }
}

/* What RCPT has said, kept while core is asked. */
struct asked_recipient {
    struct slice address;    /* rewritten, perhaps */
    struct slice shown;      /* as the client wrote it */
    struct slice parameters; /* likewise */
    struct slice orcpt;
    uint8_t notify;
    bool is_utf8;
    uint32_t route;
};

static struct smtp_answer add_recipient(struct session *session,
                                        const struct asked_recipient *asked)
{
    struct transaction *transaction = session->transaction;
    struct arena *arena = &transaction->arena;
    size_t bytes = asked->address.length + asked->orcpt.length + 32;
    size_t limit = ring_record_limit(session->in->ring) / 4;
    limit = limit < SPOOL_ENVELOPE_MAX / 2 ? limit : SPOOL_ENVELOPE_MAX / 2;
    if (is_known(session->in, transaction, asked->address)) {
        return SMTP_ACCEPT; /* twice the same is once */
    }
    if (transaction->envelope_bytes + bytes > limit) {
        return (struct smtp_answer){452, "4.5.3", SLICE_LITERAL("Too many recipients")};
    }
    struct spool_recipient recipient = {
        .address = arena_copy(arena, asked->address),
        .orcpt = arena_copy(arena, asked->orcpt),
        .notify = asked->notify,
    };
    if (transaction->recipient_count == 0) {
        transaction->shown_recipient = arena_copy(arena, asked->shown);
    }
    if (recipient.address.data == NULL || recipient.orcpt.data == NULL ||
        transaction->shown_recipient.data == NULL || !make_room(transaction)) {
        return no_memory;
    }
    transaction->recipients[transaction->recipient_count++] = recipient;
    transaction->envelope_bytes += bytes;
    note_known(session->in, transaction);
    transaction->is_utf8_address = transaction->is_utf8_address || asked->is_utf8;
    note_head_limit(session->in, transaction, asked->route);
    return SMTP_ACCEPT;
}

/* ---- whether there is one (R8) --------------------------------------------------------------- */

/* Those whom we have promised to take, and those who are taken already, need no asking. */
static bool is_to_be_asked(const struct session *session, const struct asked_recipient *asked)
{
    const struct smtp_in *in = session->in;
    const struct relay_config *config = &in->config->relay;
    return asked->route != NO_INDEX && config->routes[asked->route].recipients != RECIPIENTS_ANY &&
           !slice_equal_fold(asked->address, config->postmaster) &&
           !is_known(in, session->transaction, asked->address);
}

/* True: core has been asked, and answers by envelope_recipient_known(). */
static bool ask(struct session *session, const struct asked_recipient *asked,
                struct smtp_answer *ret_answer)
{
    struct transaction *transaction = session->transaction;
    struct arena *arena = &transaction->arena;
    uint64_t token;
    if (transaction->asked == NULL) {
        transaction->asked = arena_allocate(arena, sizeof(*transaction->asked));
    }
    struct asked_recipient *kept = transaction->asked;
    if (kept == NULL) {
        *ret_answer = no_memory;
        return false;
    }
    *kept = *asked;
    kept->address = arena_copy(arena, asked->address);
    kept->shown = arena_copy(arena, asked->shown);
    kept->orcpt = arena_copy(arena, asked->orcpt);
    kept->parameters = arena_copy(arena, asked->parameters);
    if (kept->address.data == NULL || kept->shown.data == NULL || kept->orcpt.data == NULL ||
        kept->parameters.data == NULL) {
        *ret_answer = no_memory;
        return false;
    }
    buffer_put_bytes(request_begin(session, CHANNEL_RECIPIENT, &token), kept->address);
    *ret_answer = core_error_answer(ERROR_AGAIN);
    return request_send(session, REQUEST_RECIPIENT, token);
}

/* The answer that is given, which takes longer where many were refused. */
static void count_refused(struct session *session, struct slice shown, struct smtp_answer *answer)
{
    if (answer->code != 0) {
        *answer = guard_missed(session, *answer);
        counter_add(session->in->counters, COUNTER_RECIPIENTS_REFUSED, 1);
        session_log_refused(session, "rcpt", shown, answer);
    }
}

/* What can be said without core. While the primary is up only-when-down speaks first, of whomever:
 * strangers learn there who exists. */
static struct smtp_answer check_recipient(struct session *session,
                                          const struct smtp_server_event *event,
                                          struct asked_recipient *asked)
{
    struct smtp_answer answer = guard_recipient(session);
    if (answer.code == 0) {
        answer = submit_recipient(session);
    }
    if (answer.code == 0) {
        answer = find_route(session, &event->mailbox, &asked->address, &asked->route);
    }
    if (answer.code == 0) {
        answer = check_route(session, asked->route, asked->shown);
    }
    if (answer.code == 0 && asked->route != NO_INDEX) {
        answer = guard_only_when_down(session, asked->route);
    }
    return answer;
}

/* One that exists. Who does not was refused for good before, for greylisting would only have its
 * sender come again for that. */
static struct smtp_answer take_recipient(struct session *session,
                                         const struct asked_recipient *asked)
{
    struct smtp_answer answer = guard_greylist(session, asked->address);
    return answer.code == 0 ? add_recipient(session, asked) : answer;
}

bool envelope_recipient(struct session *session, const struct smtp_server_event *event,
                        struct smtp_answer *ret_answer)
{
    struct asked_recipient asked = {.shown = event->mailbox.text,
                                    .parameters = event->parameters,
                                    .orcpt = event->orcpt,
                                    .notify = event->notify,
                                    .is_utf8 = event->mailbox.is_utf8,
                                    .route = NO_INDEX};
    if (session->in->ring == NULL) {
        *ret_answer = core_error_answer(ERROR_CLOSED);
    } else {
        *ret_answer = check_recipient(session, event, &asked);
        if (ret_answer->code == 0 && !is_to_be_asked(session, &asked)) {
            *ret_answer = take_recipient(session, &asked);
        } else if (ret_answer->code == 0 && ask(session, &asked, ret_answer)) {
            return false;
        }
    }
    count_refused(session, asked.shown, ret_answer);
    return true;
}

/* Answers that name nobody but the recipient: what a server behind us has said is its own. */
static struct smtp_answer answer_of(enum mailbox_answer outcome)
{
    switch (outcome) {
    case MAILBOX_TAKE:
        return SMTP_ACCEPT;
    case MAILBOX_REFUSE:
        return (struct smtp_answer){550, "5.1.1", SLICE_LITERAL("No such recipient here")};
    default:
        return (struct smtp_answer){
            450, "4.1.1", SLICE_LITERAL("The recipient cannot be verified now, try again later")};
    }
}

static void go_on(struct session *session, struct smtp_answer answer)
{
    struct asked_recipient asked = *session->transaction->asked;
    request_forget(session);
    if (answer.code == 0) {
        answer = session->in->ring == NULL ? core_error_answer(ERROR_CLOSED)
                                           : take_recipient(session, &asked);
    }
    count_refused(session, asked.shown, &answer);
    const struct smtp_server_event event = {.kind = SMTP_SERVER_RECIPIENT,
                                            .mailbox = {.text = asked.shown},
                                            .parameters = asked.parameters};
    if (!milters_hold(session, &event, &answer) && !guard_holds(session, event.kind, &answer)) {
        session_answer(session, SMTP_SERVER_RECIPIENT, &answer);
    }
}

void envelope_recipient_known(struct session *session, enum mailbox_answer outcome)
{
    go_on(session, answer_of(outcome));
}

void envelope_recipient_give_up(struct session *session)
{
    go_on(session, core_error_answer(ERROR_AGAIN));
}

/* ---- what filters want ------------------------------------------------------------------- */

bool envelope_has_route(const struct session *session, const struct smtp_mailbox *mailbox)
{
    return route_of(session, real_address(session, mailbox->text)) != NO_INDEX;
}

bool envelope_add_recipient(struct session *session, const struct smtp_mailbox *mailbox)
{
    struct slice address = real_address(session, mailbox->text);
    const struct asked_recipient added = {.address = address,
                                          .shown = mailbox->text,
                                          .is_utf8 = mailbox->is_utf8,
                                          .route = route_of(session, address)};
    return added.route != NO_INDEX && add_recipient(session, &added).code == 0;
}

/* Those that are known by their places. */
static void know_again(const struct smtp_in *in, struct transaction *transaction)
{
    uint32_t all = transaction->recipient_count;
    map_done(&transaction->known);
    map_init(&transaction->known);
    for (uint32_t count = COMPARED; count <= all; count++) {
        transaction->recipient_count = count;
        note_known(in, transaction);
    }
    transaction->recipient_count = all;
}

bool envelope_drop_recipient(struct session *session, struct slice address)
{
    struct transaction *transaction = session->transaction;
    address = real_address(session, address);
    for (uint32_t i = 0; i < transaction->recipient_count; i++) {
        if (is_same_address(transaction->recipients[i].address, address)) {
            if (transaction->recipient_count == 1) {
                return false;
            }
            transaction->recipient_count--;
            memmove(&transaction->recipients[i], &transaction->recipients[i + 1],
                    (transaction->recipient_count - i) * sizeof(transaction->recipients[0]));
            know_again(session->in, transaction);
            return true;
        }
    }
    return true;
}

void envelope_forget_recipients(struct session *session, uint32_t count)
{
    struct transaction *transaction = session->transaction;
    if (count < transaction->recipient_count) {
        transaction->recipient_count = count;
        know_again(session->in, transaction);
    }
}
