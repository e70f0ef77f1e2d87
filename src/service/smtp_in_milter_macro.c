/* SPDX-License-Identifier: Apache-2.0
 *
 * Macros: what filters are told of a session beside the steps, by the names that Sendmail and
 * Postfix use.
 */
#include "service/smtp_in_milter.h"

#include <stdio.h>

/* Values last until the loop's next. */
static struct slice shown(struct smtp_in *in, const char *text)
{
    snprintf(in->text, sizeof(in->text), "%s", text);
    return slice_from_text(in->text);
}

static void put_name(struct slice name, char text[UINT8_MAX + 1])
{
    snprintf(text, UINT8_MAX + 1, "%.*s",
             SLICE_PRINT(name.length > 0 ? name : SLICE_LITERAL("unknown")));
}

static bool of_client(const struct session *session, struct slice name, struct slice *ret_value)
{
    struct smtp_in *in = session->in;
    struct slice true_name = client_name(session), reverse_name = client_reverse_name(session);
    char address[IP_TEXT_SIZE], reverse[UINT8_MAX + 1], text[sizeof(reverse) + IP_TEXT_SIZE + 32];
    const char *family = ip_is_v4(&session->client.address) ? "" : "IPv6:";
    ip_to_text(&session->client.address, address);
    if (slice_equal(name, SLICE_LITERAL("client_addr"))) {
        snprintf(text, sizeof(text), "%s%s", family, address);
    } else if (slice_equal(name, SLICE_LITERAL("client_port"))) {
        snprintf(text, sizeof(text), "%u", session->client.port);
    } else if (slice_equal(name, SLICE_LITERAL("client_name"))) {
        put_name(true_name, text);
    } else if (slice_equal(name, SLICE_LITERAL("client_ptr"))) {
        put_name(reverse_name, text);
    } else if (slice_equal(name, SLICE_LITERAL("_"))) {
        put_name(reverse_name, reverse);
        snprintf(text, sizeof(text), "%s [%s]%s", reverse, address,
                 slice_equal_fold(true_name, reverse_name) ? "" : " (may be forged)");
    } else {
        return false;
    }
    *ret_value = shown(in, text);
    return true;
}

static bool of_listener(const struct session *session, struct slice name, struct slice *ret_value)
{
    const struct listener *listener = session->listener;
    char address[IP_TEXT_SIZE], text[16];
    if (slice_equal(name, SLICE_LITERAL("j"))) {
        *ret_value = listener->settings.hostname;
    } else if (slice_equal(name, SLICE_LITERAL("v"))) {
        *ret_value = SLICE_LITERAL("holdfast");
    } else if (slice_equal(name, SLICE_LITERAL("daemon_name"))) {
        *ret_value = slice_from_text(listener->name);
    } else if (slice_equal(name, SLICE_LITERAL("daemon_addr"))) {
        ip_to_text(&listener->at.address, address);
        *ret_value = shown(session->in, address);
    } else if (slice_equal(name, SLICE_LITERAL("daemon_port"))) {
        snprintf(text, sizeof(text), "%u", listener->at.port);
        *ret_value = shown(session->in, text);
    } else {
        return false;
    }
    return true;
}

static bool of_tls(const struct session *session, struct slice name, struct slice *ret_value)
{
    struct tls_facts facts;
    char subject[TLS_NAME_SIZE], issuer[TLS_NAME_SIZE], bits[16];
    const char *value = NULL;
    if (session->tls == NULL) {
        return false;
    }
    tls_facts(session->tls, &facts);
    tls_common_names(session->tls, subject, issuer);
    snprintf(bits, sizeof(bits), "%d", facts.bits);
    if (slice_equal(name, SLICE_LITERAL("tls_version"))) {
        value = facts.protocol;
    } else if (slice_equal(name, SLICE_LITERAL("cipher"))) {
        value = facts.cipher;
    } else if (slice_equal(name, SLICE_LITERAL("cipher_bits"))) {
        value = bits;
    } else if (slice_equal(name, SLICE_LITERAL("cert_subject"))) {
        value = subject;
    } else if (slice_equal(name, SLICE_LITERAL("cert_issuer"))) {
        value = issuer;
    }
    if (value == NULL || value[0] == '\0') {
        return false;
    }
    *ret_value = shown(session->in, value);
    return true;
}

/* AUTH= of MAIL (RFC 4954 section 5). */
static bool of_author(const struct session_milters *milters, struct slice *ret_value)
{
    struct slice rest = slice_skip(buffer_slice(&milters->words), milters->first_length);
    const struct slice key = SLICE_LITERAL("AUTH=");
    while (milters->stage == MILTER_MAIL && rest.length > 0) {
        size_t end = slice_find(rest, ' ');
        if (slice_starts_fold(rest, key)) {
            *ret_value = slice_skip(slice_take(rest, end), key.length);
            return !slice_equal(*ret_value, SLICE_LITERAL("<>"));
        }
        rest = slice_skip(rest, end + 1);
    }
    return false;
}

static bool of_login(const struct session_milters *milters, struct slice name,
                     struct slice *ret_value)
{
    const struct session *session = milters->session;
    if (login_user(session).length == 0) {
        return false;
    }
    if (slice_equal(name, SLICE_LITERAL("auth_type"))) {
        *ret_value = slice_from_text(login_mechanism(session));
    } else if (slice_equal(name, SLICE_LITERAL("auth_authen"))) {
        *ret_value = login_user(session);
    } else {
        return slice_equal(name, SLICE_LITERAL("auth_author")) && of_author(milters, ret_value);
    }
    return true;
}

static bool of_message(const struct session_milters *milters, struct slice name,
                       struct slice *ret_value)
{
    const struct session *session = milters->session;
    struct slice word = slice_take(buffer_slice(&milters->words), milters->first_length);
    struct slice sender = session->transaction != NULL ? session->transaction->sender : SLICE_EMPTY;
    char id[ID_TEXT_LENGTH + 1];
    if (session->transaction == NULL) {
        return false;
    }
    if (slice_equal(name, SLICE_LITERAL("i"))) {
        id_to_text(session->transaction->id, id);
        *ret_value = shown(session->in, id);
    } else if (slice_equal(name, SLICE_LITERAL("mail_addr"))) {
        *ret_value = sender;
    } else if (slice_equal(name, SLICE_LITERAL("mail_host"))) {
        *ret_value = slice_skip(sender, slice_find_last(sender, '@') + 1);
    } else if (slice_equal(name, SLICE_LITERAL("mail_mailer"))) {
        *ret_value = SLICE_LITERAL("smtp");
    } else if (milters->stage != MILTER_RCPT) {
        return false;
    } else if (slice_equal(name, SLICE_LITERAL("rcpt_addr"))) {
        *ret_value = word;
    } else if (slice_equal(name, SLICE_LITERAL("rcpt_host"))) {
        *ret_value = slice_skip(word, slice_find_last(word, '@') + 1);
    } else if (slice_equal(name, SLICE_LITERAL("rcpt_mailer"))) {
        *ret_value = SLICE_LITERAL("smtp");
    } else {
        return false;
    }
    return true;
}

bool milter_macro(void *context, struct slice name, struct slice *ret_value)
{
    const struct milter_link *link = context;
    if (link->owner == NULL) {
        return false;
    }
    const struct session_milters *milters = link->owner->all;
    return of_client(milters->session, name, ret_value) ||
           of_listener(milters->session, name, ret_value) ||
           of_tls(milters->session, name, ret_value) || of_login(milters, name, ret_value) ||
           of_message(milters, name, ret_value);
}
