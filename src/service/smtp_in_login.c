/* SPDX-License-Identifier: Apache-2.0
 *
 * AUTH: the words of the mechanisms are taken apart here (proto/sasl_server), who is who
 * the process of the secrets says (service/login.h). What is kept of a client who has logged in is
 * his name, and what he may send as or fetch.
 *
 * A client waits for at most one answer, and for no longer than PATIENCE_MS: whatever becomes of
 * that process, he hears 454.
 */
#include "service/smtp_in_internal.h"

#include "base/base64.h"
#include "service/login.h"
#include "sys/clock.h"
#include "sys/fdpass.h"
#include "sys/net.h"
#include "sys/random.h"

#include <stdlib.h>

enum { PATIENCE_MS = 30000 };

struct login {
    struct sasl_server *sasl;         /* NULL: none is going on */
    enum sasl_mechanism mechanism;    /* of the last one */
    enum smtp_server_event_kind kind; /* of the question that waits */
    uint64_t token;                   /* 0: none waits */
    int64_t asked_ms;
    bool is_in;         /* he has logged in; till then what follows is only what he would be */
    struct arena arena; /* of what follows */
    struct slice account, identity; /* the latter may be empty */
    struct slice *addresses;
    uint32_t address_count;
};

static const struct smtp_answer not_now = {454, "4.7.0",
                                           SLICE_LITERAL("Temporary authentication failure")};
static const struct smtp_answer too_many = {
    454, "4.7.0", SLICE_LITERAL("Too many failed logins, try again later")};
static const struct smtp_answer refused = {535, "5.7.8",
                                           SLICE_LITERAL("Authentication credentials invalid")};
static const struct smtp_answer malformed = {501, "5.5.2",
                                             SLICE_LITERAL("Malformed authentication response")};

/* ---- of a session ------------------------------------------------------------------------- */

static void forget_question(struct session *session)
{
    struct login *login = session->login;
    if (login->token != 0) {
        (void)map_remove(&session->in->logins, login->token);
        login->token = 0;
    }
}

static void end_exchange(struct session *session)
{
    sasl_server_free(session->login->sasl);
    session->login->sasl = NULL;
}

void login_forget(struct session *session)
{
    struct login *login = session->login;
    if (login != NULL) {
        forget_question(session);
        end_exchange(session);
        arena_done(&login->arena);
        free(login);
        session->login = NULL;
    }
}

void login_let(struct session *session)
{
    smtp_server_let_log_in(&session->server, session->listener->login_in_clear &&
                                                 ip_is_loopback(&session->client.address));
}

bool login_present(struct session *session, struct slice name)
{
    struct login *login = calloc(1, sizeof(*login));
    login_forget(session);
    session->login = login;
    if (login == NULL) {
        return false;
    }
    arena_init(&login->arena);
    login->account = arena_copy(&login->arena, name);
    login->addresses = &login->account;
    login->address_count = 1;
    login->is_in = login->account.data != NULL;
    return login->is_in;
}

struct slice login_user(const struct session *session)
{
    const struct login *login = session->login;
    return login != NULL && login->is_in ? login->account : SLICE_EMPTY;
}

struct slice login_identity(const struct session *session)
{
    struct slice user = login_user(session);
    return user.length > 0 && session->login->identity.length > 0 ? session->login->identity : user;
}

const char *login_mechanism(const struct session *session)
{
    const struct login *login = session->login;
    return sasl_name(login != NULL && login->is_in ? login->mechanism : SASL_NONE);
}

uint32_t login_domains(const struct session *session, const struct slice **ret_domains)
{
    const struct login *login = session->login;
    *ret_domains = login != NULL ? login->addresses : NULL;
    return login != NULL && login->is_in ? login->address_count : 0;
}

bool login_owns(const struct session *session, struct slice address)
{
    const struct login *login = session->login;
    return login != NULL && login->is_in &&
           login_may_send_as(login->addresses, login->address_count, address);
}

unsigned login_mechanisms(const struct listener_config *listener)
{
    unsigned in_clear = 1u << SASL_PLAIN | 1u << SASL_LOGIN;
    bool all_have_keys = true; /* a client that chooses SCRAM tries nothing else */
    if (listener->protocol == LISTENER_ODMR) {
        return 1u << SASL_CRAM_MD5 | (listener->tls != LISTENER_TLS_NONE ? in_clear : 0);
    }
    for (uint32_t i = 0; i < listener->login_source_count; i++) {
        all_have_keys = all_have_keys && listener->login_sources[i].kind == LOGIN_SOURCE_USERS;
    }
    return listener->login_source_count == 0 ? 0
           : all_have_keys                   ? in_clear | 1u << SASL_SCRAM_SHA_256
                                             : in_clear;
}

/* ---- asking ------------------------------------------------------------------------------- */

static bool send_question(struct session *session, enum login_question question,
                          struct slice secret)
{
    struct smtp_in *in = session->in;
    struct login *login = session->login;
    struct login_request request = {
        .token = in->next_token++,
        .question = question,
        .client = session->client.address,
        .listener = slice_from_text(session->listener->name),
        .name = sasl_server_name(login->sasl),
        .secret = secret,
        .auth_message = sasl_server_auth_message(login->sasl),
    };
    buffer_clear(&in->frame);
    login_put_request(&in->frame, &request);
    bool sent = !in->frame.failed && in->login_fd >= 0 &&
                map_put(&in->logins, request.token, session) == ERROR_NONE;
    if (sent && fdpass_send(in->login_fd, buffer_slice(&in->frame), NULL, 0) != ERROR_NONE) {
        (void)map_remove(&in->logins, request.token);
        sent = false;
    }
    digest_forget(in->frame.data, in->frame.length);
    if (sent) {
        login->token = request.token;
        login->asked_ms = clock_steady_ms();
    }
    return sent;
}

/* The challenge as the text of a 334; valid until the frame is used again. */
static struct smtp_answer challenge_answer(struct smtp_in *in, struct slice challenge)
{
    buffer_clear(&in->frame);
    base64_encode(&in->frame, challenge);
    return in->frame.failed ? not_now : (struct smtp_answer){334, NULL, buffer_slice(&in->frame)};
}

/* True: *ret_answer is to be said now. */
static bool go_on(struct session *session, enum sasl_turn turn, struct slice challenge,
                  struct smtp_answer *ret_answer)
{
    struct login *login = session->login;
    bool sent = false;
    *ret_answer = not_now;
    switch (turn) {
    case SASL_CHALLENGE:
        *ret_answer = challenge_answer(session->in, challenge);
        return true;
    case SASL_PASSWORD:
        sent = send_question(session, LOGIN_PASSWORD, sasl_server_password(login->sasl));
        break;
    case SASL_SALT:
        sent = send_question(session, LOGIN_SALT, SLICE_EMPTY);
        break;
    case SASL_PROOF:
        sent = send_question(session, login->mechanism == SASL_CRAM_MD5 ? LOGIN_CRAM : LOGIN_PROOF,
                             sasl_server_proof(login->sasl));
        break;
    case SASL_DONE:
        *ret_answer = SMTP_ACCEPT;
        break;
    case SASL_REFUSED:
        *ret_answer = refused;
        break;
    case SASL_MALFORMED:
        *ret_answer = malformed;
        break;
    case SASL_NO_MEMORY:
        break;
    }
    if (sent) {
        return false;
    }
    end_exchange(session);
    login->is_in = turn == SASL_DONE;
    if (!login->is_in) {
        if (turn != SASL_REFUSED) { /* that the other process has logged */
            session_log_refused(session, "auth", SLICE_EMPTY, ret_answer);
        }
    } else {
        smtp_server_offer(&session->server, envelope_offers(session));
    }
    return true;
}

static bool begin(struct session *session, enum sasl_mechanism mechanism)
{
    uint8_t nonce[SASL_NONCE_BYTES];
    if (session->login == NULL) {
        session->login = calloc(1, sizeof(*session->login));
        if (session->login == NULL) {
            return false;
        }
        arena_init(&session->login->arena);
    }
    end_exchange(session); /* one that was cancelled */
    random_bytes(nonce, sizeof(nonce));
    session->login->mechanism = mechanism;
    session->login->sasl = sasl_server_new(mechanism, nonce, session->listener->settings.hostname);
    return session->login->sasl != NULL;
}

bool login_take(struct session *session, const struct smtp_server_event *event,
                struct smtp_answer *ret_answer)
{
    struct buffer response, challenge;
    bool has_response = event->kind == SMTP_SERVER_RESPONSE || event->has_response;
    if (event->kind == SMTP_SERVER_AUTH && !begin(session, event->mechanism)) {
        *ret_answer = not_now;
        return true;
    }
    session->login->kind = event->kind;
    buffer_init(&response, SMTP_COMMAND_LINE_MAX);
    buffer_init(&challenge, SASL_MESSAGE_MAX);
    enum sasl_turn turn = SASL_MALFORMED;
    if (base64_decode(&response, event->bytes) == ERROR_NONE && !response.failed) {
        turn = sasl_server_step(session->login->sasl, has_response, buffer_slice(&response),
                                &challenge);
    }
    bool now = go_on(session, turn, buffer_slice(&challenge), ret_answer);
    digest_forget_buffer(&response);
    buffer_done(&challenge);
    return now;
}

/* ---- the answer --------------------------------------------------------------------------- */

static void say(struct session *session, const struct smtp_answer *answer)
{
    session_answer(session, session->login->kind, answer);
}

static bool keep_account(struct login *login, const struct login_answer *answer)
{
    arena_reset(&login->arena);
    login->account = arena_copy(&login->arena, answer->account);
    login->identity = arena_copy(&login->arena, answer->identity);
    login->addresses =
        arena_allocate(&login->arena, (answer->address_count + 1) * sizeof(*login->addresses));
    login->address_count = 0;
    if (login->account.data == NULL || login->account.length == 0 || login->addresses == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < answer->address_count; i++) {
        login->addresses[i] = arena_copy(&login->arena, answer->addresses[i]);
        if (login->addresses[i].data == NULL) {
            return false;
        }
        login->address_count++;
    }
    return true;
}

static enum sasl_turn judge(struct login *login, const struct login_answer *answer,
                            struct buffer *challenge)
{
    if (answer->verdict == LOGIN_GOOD && answer->salt.length > 0) {
        return sasl_server_salt(login->sasl, answer->salt, answer->iterations, challenge);
    }
    bool is_good = answer->verdict == LOGIN_GOOD && keep_account(login, answer);
    return sasl_server_judge(login->sasl, is_good, answer->signature, challenge);
}

static void take_answer(struct smtp_in *in, const struct login_answer *answer)
{
    struct session *session = map_get(&in->logins, answer->token);
    if (session == NULL) {
        return; /* the client has gone */
    }
    struct smtp_answer reply = answer->verdict == LOGIN_LATER ? too_many : not_now;
    forget_question(session);
    if (answer->verdict != LOGIN_GOOD && answer->verdict != LOGIN_REFUSED) {
        end_exchange(session);
        say(session, &reply);
        return;
    }
    struct buffer challenge;
    buffer_init(&challenge, SASL_MESSAGE_MAX);
    enum sasl_turn turn = judge(session->login, answer, &challenge);
    bool now = go_on(session, turn, buffer_slice(&challenge), &reply);
    buffer_done(&challenge);
    if (now) {
        say(session, &reply);
    }
}

/* ---- the link ----------------------------------------------------------------------------- */

static void link_gone(struct smtp_in *in)
{
    if (in->login_fd >= 0) {
        loop_watch_free(in->login_watch);
        in->login_watch = NULL;
        net_close(in->login_fd);
        in->login_fd = -1;
    }
    size_t cursor = 0;
    for (struct session *session; (session = map_next(&in->logins, &cursor)) != NULL;) {
        forget_question(session);
        end_exchange(session);
        say(session, &not_now);
        cursor = 0; /* the table has changed */
    }
}

static bool answer_heard(void *context, struct slice message)
{
    struct smtp_in *in = context;
    struct login_answer answer;
    bool good = login_get_answer(message, &answer);
    if (good) {
        take_answer(in, &answer);
    }
    return good;
}

static void on_answer(void *context, unsigned ready)
{
    struct smtp_in *in = context;
    (void)ready;
    if (!login_hear(&in->login_fd, answer_heard, in)) {
        link_gone(in);
    }
}

void smtp_in_set_login(struct smtp_in *in, int fd)
{
    link_gone(in);
    in->login_watch = fd >= 0 ? loop_watch_new(in->loop, fd, on_answer, in) : NULL;
    if (in->login_watch == NULL) {
        if (fd >= 0) {
            net_close(fd);
        }
        return;
    }
    in->login_fd = fd;
    loop_watch_set(in->login_watch, LOOP_READ);
}

bool login_expire(struct session *session, int64_t now_ms)
{
    struct login *login = session->login;
    if (login == NULL || login->token == 0 || now_ms - login->asked_ms < PATIENCE_MS) {
        return false;
    }
    forget_question(session);
    end_exchange(session);
    say(session, &not_now);
    return true;
}
