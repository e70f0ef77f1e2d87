/* SPDX-License-Identifier: Apache-2.0
 *
 * Logging in (RFC 4954), between EHLO and the first MAIL:
 *
 *   EHLO 250, credentials given -> AUTH with the best mechanism that both sides have
 *   AUTH  334                   -> the mechanism's next step; if it has none, "*"
 *         235                   -> OPEN, if the server has shown all that the mechanism demands
 *         other                 -> over, at SMTP_CLIENT_AT_AUTH
 *
 * What we refuse ourselves (no mechanism in common, a server without proof) ends the session as if
 * the server had said 534 5.7.9 or 535 5.7.8, since for the caller it is the same trouble.
 */
#include "base/base64.h"
#include "proto/smtp_client_internal.h"

/* In our order of preference. */
static const enum sasl_mechanism preference[] = {SASL_SCRAM_SHA_256, SASL_PLAIN, SASL_LOGIN};

void auth_offered(struct smtp_client *client, struct slice words)
{
    while (words.length > 0) {
        size_t end = slice_find(words, ' ');
        enum sasl_mechanism mechanism = sasl_find(slice_take(words, end));
        client->mechanisms |= mechanism == SASL_NONE ? 0 : 1U << mechanism;
        words = slice_skip(words, end + 1);
    }
}

static void auth_fail(struct smtp_client *client, uint16_t code, uint8_t detail, const char *text)
{
    struct smtp_client_cause cause = cause_of_text(SMTP_CLIENT_AT_AUTH, SMTP_CLIENT_REPLY, text);
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
        queue_text(client, "\r\n");
    } else if (error == ERROR_MEMORY) {
        client->output.failed = true;
    }
    if (response.length > 0) {
        digest_forget(response.data, response.length);
    }
    buffer_done(&decoded);
    buffer_done(&response);
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

void auth_begin(struct smtp_client *client)
{
    enum sasl_mechanism mechanism = choose(client);
    if (mechanism == SASL_NONE) {
        auth_fail(client, 534, 9,
                  client->mechanisms == 0 ? "the server offers no AUTH that we know"
                                          : "the server offers AUTH only with a bare password");
        return;
    }
    struct login *login = &client->login;
    enum error error = sasl_client_new(mechanism, slice_make(login->user, login->user_length),
                                       slice_make(login->password, login->password_length),
                                       login->nonce, &client->sasl);
    digest_forget(login, sizeof(*login));
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
        auth_fail(client, 535, 8, "the server has not proved that it knows the password");
        return;
    }
    if (reply->code == 235) {
        sasl_client_free(client->sasl);
        client->sasl = NULL;
        session_opened(client);
        return;
    }
    if (reply->code / 100 < 4) {
        session_broken(client, "unexpected code to AUTH");
        return;
    }
    struct smtp_client_cause cause = cause_of_reply(SMTP_CLIENT_AT_AUTH, reply);
    session_end(client, &cause);
}
