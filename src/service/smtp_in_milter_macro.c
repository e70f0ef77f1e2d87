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

static bool of_client(const struct session *session, struct slice name, struct slice *ret_value)
{
    struct smtp_in *in = session->in;
    char address[IP_TEXT_SIZE], text[IP_TEXT_SIZE + 16];
    const char *family = ip_is_v4(&session->client.address) ? "" : "IPv6:";
    ip_to_text(&session->client.address, address);
    if (slice_equal(name, SLICE_LITERAL("client_addr"))) {
        snprintf(text, sizeof(text), "%s%s", family, address);
    } else if (slice_equal(name, SLICE_LITERAL("client_port"))) {
        snprintf(text, sizeof(text), "%u", session->client.port);
    } else if (slice_equal(name, SLICE_LITERAL("client_name")) ||
               slice_equal(name, SLICE_LITERAL("_"))) {
        snprintf(text, sizeof(text), "[%s%s]", family, address);
    } else if (slice_equal(name, SLICE_LITERAL("client_ptr"))) {
        snprintf(text, sizeof(text), "unknown"); /* nobody has asked for it */
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
    struct smtp_in *in = session->in;
    char text[TLS_TEXT_SIZE];
    if (session->tls == NULL) {
        return false;
    }
    tls_describe(session->tls, text);
    struct slice whole = shown(in, text);
    struct slice version = slice_take(whole, slice_find(whole, ' '));
    if (slice_equal(name, SLICE_LITERAL("tls_version"))) {
        *ret_value = version;
        return true;
    }
    *ret_value = slice_skip(whole, version.length + 1);
    return slice_equal(name, SLICE_LITERAL("cipher"));
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
           of_tls(milters->session, name, ret_value) || of_message(milters, name, ret_value);
}
