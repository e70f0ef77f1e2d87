/* SPDX-License-Identifier: Apache-2.0
 *
 * On-demand mail relay (RFC 2645): who a client is (CRAM-MD5 against the listener's users), which
 * domains he may ask for, and the handing over of his connection. What waits, core says.
 *
 * The connection goes to the sending process before 250 is said: then 250 is true. Nothing that the
 * client has sent behind ATRN may be in it, neither with us nor in the kernel.
 */
#include "service/smtp_in_internal.h"

#include "base/base64.h"
#include "base/digest.h"
#include "proto/sasl.h"
#include "relay/atrn.h"
#include "sys/clock.h"
#include "sys/log.h"
#include "sys/net.h"
#include "sys/random.h"

#include <stdlib.h>

enum { CHALLENGE_MAX = 2 * SASL_NONCE_BYTES + SMTP_DOMAIN_MAX + 3 };

struct odmr_login {
    uint8_t challenge[CHALLENGE_MAX];
    size_t challenge_length; /* 0: none is open */
    uint8_t name[SASL_SECRET_MAX];
    size_t name_length; /* 0: nobody is logged in */
};

static const struct smtp_answer not_now = {451, "4.3.0",
                                           SLICE_LITERAL("Unable to process ATRN request now")};
static const struct smtp_answer refused = {450, "4.7.1", SLICE_LITERAL("ATRN request refused")};
static const struct smtp_answer pipelined = {
    503, "5.5.1", SLICE_LITERAL("Nothing may follow ATRN before its reply")};
static const struct smtp_answer no_login = {454, "4.3.0",
                                            SLICE_LITERAL("Temporary authentication failure")};

/* ---- logging in --------------------------------------------------------------------------- */

void odmr_forget(struct session *session)
{
    if (session->login != NULL) {
        digest_forget(session->login, sizeof(*session->login));
        free(session->login);
        session->login = NULL;
    }
}

/* Of the configuration in force; NULL: nobody of that name may come in by this listener. */
static const struct odmr_user *find_user(const struct session *session, struct slice name)
{
    const struct service_config *config = session->in->config;
    for (uint32_t i = 0; i < config->listener_count; i++) {
        const struct listener_config *listener = &config->listeners[i];
        if (!slice_equal(listener->name, slice_from_text(session->listener->name))) {
            continue;
        }
        for (uint32_t j = 0; j < listener->odmr_user_count; j++) {
            if (slice_equal_fold(listener->odmr_users[j].name, name)) {
                return &listener->odmr_users[j];
            }
        }
        return NULL;
    }
    return NULL;
}

struct smtp_answer odmr_auth(struct session *session)
{
    struct smtp_in *in = session->in;
    uint8_t nonce[SASL_NONCE_BYTES];
    struct buffer challenge;
    if (!smtp_in_may(in->shared, SMTP_IN_MISTAKES, smtp_in_login_pace, &session->client.address,
                     clock_steady_ms())) {
        session_log_refused(session, "auth", SLICE_EMPTY, &no_login);
        return (struct smtp_answer){454, "4.7.0",
                                    SLICE_LITERAL("Too many failed logins, try again later")};
    }
    if (session->login == NULL) {
        session->login = calloc(1, sizeof(*session->login));
    }
    buffer_init(&challenge, CHALLENGE_MAX);
    random_bytes(nonce, sizeof(nonce));
    sasl_cram_challenge(nonce, session->listener->settings.hostname, &challenge);
    buffer_clear(&in->frame);
    base64_encode(&in->frame, buffer_slice(&challenge));
    bool good = session->login != NULL && !challenge.failed && !in->frame.failed;
    if (good) {
        memcpy(session->login->challenge, challenge.data, challenge.length);
        session->login->challenge_length = challenge.length;
    }
    buffer_done(&challenge);
    return good ? (struct smtp_answer){334, NULL, buffer_slice(&in->frame)} : no_login;
}

/* The name in `response` that has proved to be who it says. Takes as long for one that nobody has.
 */
static bool is_proved(struct session *session, struct slice response, struct slice *ret_name)
{
    struct odmr_login *login = session->login;
    struct slice challenge = slice_make(login->challenge, login->challenge_length);
    struct slice proof;
    if (sasl_cram_read(response, ret_name, &proof) != ERROR_NONE) {
        return false;
    }
    const struct odmr_user *user = find_user(session, *ret_name);
    struct slice password = user != NULL ? user->password : SLICE_LITERAL("nobody has this");
    return sasl_cram_proves(challenge, password, proof) && user != NULL;
}

static void log_login(const struct session *session, struct slice name, const char *outcome)
{
    char client[IP_TEXT_SIZE];
    ip_to_text(&session->client.address, client);
    log_event(LOG_LEVEL_INFO, "login", LOG_TEXT("listener", session->listener->name),
              LOG_SLICE("user", name), LOG_TEXT("client", client), LOG_TEXT("outcome", outcome));
}

struct smtp_answer odmr_response(struct session *session, const struct smtp_server_event *event)
{
    struct smtp_in *in = session->in;
    struct odmr_login *login = session->login;
    struct slice name = SLICE_EMPTY;
    struct buffer response;
    buffer_init(&response, SMTP_COMMAND_LINE_MAX);
    if (base64_decode(&response, event->bytes) != ERROR_NONE || response.failed) {
        buffer_done(&response);
        return (struct smtp_answer){501, "5.5.2", SLICE_LITERAL("That is not base64")};
    }
    bool proved = is_proved(session, buffer_slice(&response), &name);
    login->challenge_length = 0;
    if (proved) {
        memcpy(login->name, name.data, name.length);
        login->name_length = name.length;
    } else {
        counter_add(in->counters, COUNTER_LOGINS_FAILED, 1);
        smtp_in_did(in->shared, SMTP_IN_MISTAKES, smtp_in_login_pace, &session->client.address,
                    clock_steady_ms());
    }
    log_login(session, name, proved ? "good" : "refused");
    buffer_done(&response);
    return proved ? SMTP_ACCEPT
                  : (struct smtp_answer){535, "5.7.8",
                                         SLICE_LITERAL("Authentication credentials invalid")};
}

/* ---- asking core -------------------------------------------------------------------------- */

static bool may_fetch(const struct odmr_user *user, struct slice domain)
{
    for (uint32_t i = 0; i < user->domain_count; i++) {
        if (slice_equal_fold(user->domains[i], domain)) {
            return true;
        }
    }
    return false;
}

/* Those that the client named, or all that are his. 0: he may not have all of them. */
static uint32_t choose_domains(const struct odmr_user *user, struct slice list,
                               struct slice ret_domains[RELAY_ATRN_DOMAINS_MAX])
{
    uint32_t count = 0;
    if (list.length == 0) {
        memcpy(ret_domains, user->domains, user->domain_count * sizeof(ret_domains[0]));
        return user->domain_count;
    }
    while (list.length > 0) {
        struct slice domain = slice_take(list, slice_find(list, ','));
        list = slice_skip(list, domain.length + 1);
        if (count == RELAY_ATRN_DOMAINS_MAX || !may_fetch(user, domain)) {
            return 0;
        }
        ret_domains[count++] = domain;
    }
    return count;
}

static bool send_request(struct session *session, struct slice name, const struct slice *domains,
                         uint32_t count)
{
    uint64_t token;
    struct buffer *frame = request_begin(session, CHANNEL_ATRN, &token);
    buffer_put_bytes(frame, name);
    buffer_put_u8(frame, (uint8_t)count);
    for (uint32_t i = 0; i < count; i++) {
        buffer_put_bytes(frame, domains[i]);
    }
    return request_send(session, REQUEST_ATRN, token);
}

/* Bytes have come behind ATRN. */
static bool has_more(const struct session *session)
{
    return smtp_server_unread(&session->server).length > 0 || session->unread_length > 0 ||
           net_has_input(session->fd);
}

bool odmr_atrn(struct session *session, const struct smtp_server_event *event,
               struct smtp_answer *ret_answer)
{
    struct slice domains[RELAY_ATRN_DOMAINS_MAX];
    struct slice name = slice_make(session->login->name, session->login->name_length);
    const struct odmr_user *user = find_user(session, name);
    uint32_t count = user == NULL ? 0 : choose_domains(user, event->name, domains);
    *ret_answer = count == 0 ? refused : not_now;
    if (smtp_server_unread(&session->server).length > 0) {
        *ret_answer = pipelined;
    } else if (count > 0 && send_request(session, name, domains, count)) {
        return false;
    }
    session_log_refused(session, "atrn", event->name, ret_answer);
    return true;
}

/* ---- the answer ---------------------------------------------------------------------------- */

static void answer(struct session *session, const struct smtp_answer *reply)
{
    request_forget(session);
    session_answer(session, SMTP_SERVER_ATRN, reply);
}

void odmr_give_up(struct session *session)
{
    answer(session, &not_now);
}

static struct smtp_answer turn(struct session *session, uint32_t relay_session)
{
    struct smtp_in *in = session->in;
    if (has_more(session)) {
        session_log_refused(session, "atrn", SLICE_EMPTY, &pipelined);
        return pipelined;
    }
    if (in->turn == NULL || !in->turn(in->turn_context, session->fd, relay_session)) {
        session_log_refused(session, "atrn", SLICE_EMPTY, &not_now);
        return not_now;
    }
    return SMTP_ACCEPT;
}

bool odmr_take(struct smtp_in *in, struct reader *reader)
{
    uint64_t token = reader_u64(reader);
    uint8_t outcome = reader_u8(reader);
    uint32_t relay_session = reader_u32(reader);
    if (reader->failed || outcome >= RELAY_ATRN_OUTCOMES) {
        return false;
    }
    struct session *session;
    if (!request_find(in, token, REQUEST_ATRN, &session)) {
        return false;
    }
    if (session == NULL) {
        return true; /* the sending process waits for it in vain, and says so */
    }
    struct smtp_answer reply = not_now;
    switch ((enum relay_atrn_outcome)outcome) {
    case RELAY_ATRN_DENIED:
    case RELAY_ATRN_OUT:
        reply = refused;
        break;
    case RELAY_ATRN_BUSY:
        reply = (struct smtp_answer){
            450, "4.7.1", SLICE_LITERAL("ATRN request refused: your mail is being sent already")};
        break;
    case RELAY_ATRN_NOTHING:
        reply = (struct smtp_answer){453, "4.0.0", SLICE_LITERAL("You have no mail")};
        break;
    case RELAY_ATRN_TURN:
        reply = turn(session, relay_session);
        break;
    case RELAY_ATRN_LATER:
    case RELAY_ATRN_OUTCOMES:
        break;
    }
    answer(session, &reply);
    return true;
}

void smtp_in_set_turn(struct smtp_in *in, smtp_in_turn_fn *turn_fn, void *context)
{
    in->turn = turn_fn;
    in->turn_context = context;
}
