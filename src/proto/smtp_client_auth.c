/* SPDX-License-Identifier: Apache-2.0
 *
 * Logging in (RFC 4954), between EHLO and the first MAIL:
 *
 *   EHLO 250, credentials given -> AUTH with the best mechanism that both sides have
 *   AUTH  334                   -> the mechanism's next step; if it has none, "*"
 *         235                   -> OPEN, if the server has shown all that the mechanism demands
 *         other                 -> over, at SMTP_CLIENT_AT_AUTH
 *
 * What we decline (no mechanism in common, a server without proof) ends the session with the code
 * that a server could have said, 534 5.7.9 or 535 5.7.8, since for the caller it is the same
 * trouble; the words are ours, and say which.
 *
 * Many servers repeat the line that they refuse. A reply's text goes to logs and people, so none
 * leaves from here that shows a piece of the password, its base64, or a response that we sent.
 */
#include "base/base64.h"
#include "proto/smtp_client_internal.h"

enum { PIECE_BYTES = 6 }; /* of a secret, or the whole of a shorter one: shown by no reply */

/* In our order of preference. */
static const enum sasl_mechanism preference[] = {SASL_SCRAM_SHA_256, SASL_PLAIN, SASL_LOGIN};

void auth_offered(struct smtp_client *client, struct slice words)
{
    while (words.length > 0) {
        size_t end = slice_find(words, ' ');
        enum sasl_mechanism mechanism = sasl_find(slice_take(words, end));
        for (size_t i = 0; i < sizeof(preference) / sizeof(preference[0]); i++) {
            client->mechanisms |= mechanism == preference[i] ? 1U << mechanism : 0;
        }
        words = slice_skip(words, end + 1);
    }
}

/* ---- what must not be shown ------------------------------------------------------------------ */

void auth_forget(struct smtp_client *client)
{
    sasl_client_free(client->sasl);
    client->sasl = NULL;
    digest_forget_buffer(&client->auth_secrets);
}

static void keep_secrets(struct smtp_client *client, struct slice password)
{
    buffer_append(&client->auth_secrets, password);
    buffer_append_text(&client->auth_secrets, "\n");
    base64_encode(&client->auth_secrets, password);
    buffer_append_text(&client->auth_secrets, "\n");
}

static void keep_response(struct smtp_client *client, struct slice response)
{
    base64_encode(&client->auth_secrets, response);
    buffer_append_text(&client->auth_secrets, "\n");
}

static bool shows(struct slice text, struct slice piece)
{
    for (size_t i = 0; i + piece.length <= text.length; i++) {
        if (slice_starts_fold(slice_skip(text, i), piece)) {
            return true;
        }
    }
    return false;
}

/* Whether `text` holds a piece of a secret, in any case. */
static bool shows_secret(const struct smtp_client *client, struct slice text)
{
    struct slice rest = buffer_slice(&client->auth_secrets);
    while (rest.length > 0) {
        size_t end = slice_find(rest, '\n');
        struct slice secret = slice_take(rest, end);
        size_t length = secret.length < PIECE_BYTES ? secret.length : PIECE_BYTES;
        for (size_t i = 0; length > 0 && i + length <= secret.length; i++) {
            if (shows(text, slice_take(slice_skip(secret, i), length))) {
                return true;
            }
        }
        rest = slice_skip(rest, end + 1);
    }
    return client->auth_secrets.failed;
}

/* ---- the dialogue ---------------------------------------------------------------------------- */

static void decline(struct smtp_client *client, uint16_t code, uint8_t detail, const char *text)
{
    struct smtp_client_cause cause = cause_of_text(SMTP_CLIENT_AT_AUTH, SMTP_CLIENT_DECLINED, text);
    cause.code = code;
    cause.enhanced[0] = 5;
    cause.enhanced[1] = 7;
    cause.enhanced[2] = detail;
    session_end(client, &cause);
}

/* Sends the mechanism's answer to `challenge`, which is base64. False: it has none. */
static bool auth_step(struct smtp_client *client, struct slice challenge, bool with_command)
{
    struct buffer decoded, response;
    buffer_init(&decoded, 0);
    buffer_init(&response, 0);
    enum error error = base64_decode(&decoded, challenge);
    if (error == ERROR_NONE) {
        error = sasl_client_step(client->sasl, buffer_slice(&decoded), &response);
    }
    if (error == ERROR_NONE) {
        if (with_command && response.length == 0) {
            queue_text(client, "="); /* RFC 4954: present, but empty */
        }
        base64_encode(&client->output, buffer_slice(&response));
        keep_response(client, buffer_slice(&response));
        queue_text(client, "\r\n");
    } else if (error == ERROR_MEMORY) {
        client->output.failed = true;
    }
    buffer_done(&decoded);
    digest_forget_buffer(&response);
    return error != ERROR_INVALID;
}

static enum sasl_mechanism choose(const struct smtp_client *client)
{
    for (size_t i = 0; i < sizeof(preference) / sizeof(preference[0]); i++) {
        bool allowed = client->login.in_clear || !sasl_shows_password(preference[i]);
        if (allowed && (client->mechanisms & 1U << preference[i]) != 0) {
            return preference[i];
        }
    }
    return SASL_NONE;
}

/* XCLIENT undoes the login (smtp_client_origin.c); else its secrets have done their work. The next
 * nonce is one that nobody foretells who does not know the password. */
static enum error login_keep(struct smtp_client *client)
{
    struct login *login = &client->login;
    uint8_t next[DIGEST_MAX_BYTES];
    if (!client->origin.told || client->capabilities.xclient == 0) {
        digest_forget(login, sizeof(*login));
        return ERROR_NONE;
    }
    enum error error =
        digest_hmac(DIGEST_SHA256, slice_make(login->password, login->password_length),
                    slice_make(login->nonce, sizeof(login->nonce)), next);
    memcpy(login->nonce, next, sizeof(login->nonce));
    return error;
}

void auth_begin(struct smtp_client *client)
{
    enum sasl_mechanism mechanism = choose(client);
    if (mechanism == SASL_NONE) {
        decline(client, 534, 9,
                client->mechanisms == 0 ? "the server offers no AUTH that we know"
                                        : "the server offers AUTH only with a bare password");
        return;
    }
    struct login *login = &client->login;
    enum error error = sasl_client_new(mechanism, slice_make(login->user, login->user_length),
                                       slice_make(login->password, login->password_length),
                                       login->nonce, &client->sasl);
    keep_secrets(client, slice_make(login->password, login->password_length));
    if (error == ERROR_NONE) {
        error = login_keep(client);
    }
    if (error != ERROR_NONE) {
        client->output.failed = true;
        return;
    }
    client->step = SESSION_AUTH;
    queue_text(client, "AUTH ");
    queue_text(client, sasl_name(mechanism));
    if (!sasl_client_begins(client->sasl)) {
        queue_text(client, "\r\n");
        return;
    }
    queue_text(client, " ");
    (void)auth_step(client, SLICE_EMPTY, true);
}

void auth_reply(struct smtp_client *client, const struct smtp_reply *reply)
{
    if (reply->code == 334 && !client->auth_cancelled) {
        if (!auth_step(client, reply->text, false)) {
            client->auth_cancelled = true;
            queue_text(client, "*\r\n");
        }
        return;
    }
    if (client->auth_cancelled || (reply->code == 235 && !sasl_client_done(client->sasl))) {
        decline(client, 535, 8, sasl_client_trouble(client->sasl));
        return;
    }
    if (reply->code == 235) {
        auth_forget(client);
        session_opened(client);
        return;
    }
    if (reply->code / 100 < 4) {
        session_broken(client, "unexpected code to AUTH");
        return;
    }
    struct smtp_client_cause cause = cause_of_reply(SMTP_CLIENT_AT_AUTH, reply);
    if (shows_secret(client, reply->text)) {
        cause.text = SLICE_LITERAL("(its text repeats what we sent: withheld)");
    }
    session_end(client, &cause);
}
