/* SPDX-License-Identifier: Apache-2.0
 *
 * MAIL and RCPT as text. Strings come from mail of strangers: whatever could end the command, or
 * the path within it, is refused (R10).
 */
#include "proto/smtp_client_internal.h"

#include "base/utf8.h"

enum {
    PATH_MAX_BYTES = 1000,       /* RFC 5321 has 256; what we took from elsewhere may be longer */
    ORCPT_MAX_BYTES = 500,       /* RFC 3461 4.2 */
    ENVELOPE_ID_MAX_BYTES = 100, /* RFC 3461 4.4 */
    DELIVER_BY_MOST_S = 999999999,
};

/* No control characters, well-formed UTF-8; blanks and angle brackets only in a quoted string. */
bool path_is_sendable(struct slice path)
{
    bool quoted = false;
    for (size_t i = 0; i < path.length; i++) {
        uint8_t c = path.data[i];
        if (c < ' ' || c == 0x7f || (!quoted && (c == ' ' || c == '<' || c == '>'))) {
            return false;
        }
        if (c == '"') {
            quoted = !quoted;
        } else if (c == '\\' && quoted) {
            i++;
            if (i >= path.length || path.data[i] < ' ' || path.data[i] == 0x7f) {
                return false;
            }
        }
    }
    return !quoted && path.length <= PATH_MAX_BYTES && utf8_is_valid(path);
}

static bool word_is_sendable(struct slice word, size_t limit, bool utf8)
{
    for (size_t i = 0; i < word.length; i++) {
        uint8_t c = word.data[i];
        if (c <= ' ' || c == 0x7f || (c > 127 && !utf8)) {
            return false;
        }
    }
    return word.length > 0 && word.length <= limit && utf8_is_valid(word);
}

static bool needs_utf8(const struct transaction *t)
{
    if (t->mail.utf8 || !utf8_is_ascii(t->mail.sender)) {
        return true;
    }
    for (uint32_t i = 0; i < t->mail.recipient_count; i++) {
        if (!utf8_is_ascii(t->mail.recipients[i].address)) {
            return true;
        }
    }
    return false;
}

/* As a server would refuse it, but said by nobody. */
static struct smtp_client_cause unsendable(enum smtp_client_stage stage, uint16_t code,
                                           uint8_t subject, uint8_t detail, const char *text)
{
    struct smtp_client_cause cause = cause_of_text(stage, SMTP_CLIENT_LOCAL, text);
    cause.code = code;
    cause.enhanced[0] = (uint8_t)(code / 100);
    cause.enhanced[1] = subject;
    cause.enhanced[2] = detail;
    return cause;
}

/* RFC 8689 4.2.1. Of what has a null reverse-path nobody could be told that it was lost (section
 * 5): it goes all the same. True: *ret_cause says why it does not go. */
static bool is_kept_back(const struct smtp_client *client, const struct smtp_client_mail *mail,
                         struct smtp_client_cause *ret_cause)
{
    if (!mail->requires_tls || mail->sender.length == 0) {
        return false;
    }
    if (!client->secured && client->tls_failed) {
        *ret_cause = unsendable(SMTP_CLIENT_AT_MAIL, 450, 7, 10,
                                "not sent: it requires TLS, which has failed");
    } else if (!client->secured || !client->is_proved) {
        *ret_cause = unsendable(SMTP_CLIENT_AT_MAIL, 550, 7, 10,
                                client->secured ? "not sent: it requires TLS, and the server has "
                                                  "not proved who it is"
                                                : "not sent: it requires TLS");
    } else if (!offers(client, SMTP_CLIENT_CAP_REQUIRETLS)) {
        *ret_cause = unsendable(SMTP_CLIENT_AT_MAIL, 550, 7, 30,
                                "not sent: server does not offer REQUIRETLS");
    } else {
        return false;
    }
    return true;
}

void check_envelope(struct smtp_client *client, struct transaction *t)
{
    struct smtp_client_cause cause;
    t->utf8 = needs_utf8(t);
    if (!path_is_sendable(t->mail.sender)) {
        cause = unsendable(SMTP_CLIENT_AT_MAIL, 553, 1, 7, "not sent: bad sender address syntax");
        decide_rest(t, SMTP_CLIENT_REFUSED, &cause);
        return;
    }
    if (!offers(client, SMTP_CLIENT_CAP_SMTPUTF8) && t->utf8) {
        cause =
            unsendable(SMTP_CLIENT_AT_MAIL, 553, 6, 7, "not sent: server does not offer SMTPUTF8");
        decide_rest(t, SMTP_CLIENT_REFUSED, &cause);
        return;
    }
    if (is_kept_back(client, &t->mail, &cause)) {
        decide_rest(t, SMTP_CLIENT_REFUSED, &cause);
        return;
    }
    for (uint32_t i = 0; i < t->mail.recipient_count; i++) {
        struct slice address = t->mail.recipients[i].address;
        if (address.length == 0 || !path_is_sendable(address)) {
            cause = unsendable(SMTP_CLIENT_AT_RECIPIENT, 553, 1, 3,
                               "not sent: bad recipient address syntax");
            decide(t, i, SMTP_CLIENT_REFUSED, &cause);
            t->states[i] = RECIPIENT_SKIPPED;
        }
    }
}

/* RFC 2852 4.1.4: what is left, in whole seconds; of mode R never nothing. */
static void queue_deliver_by(struct smtp_client *client, const struct smtp_client_mail *mail)
{
    int64_t left_ms = mail->deliver_by_ms - client->now_ms;
    int64_t left_s = left_ms / 1000 - (left_ms % 1000 < 0);
    left_s = left_s < -DELIVER_BY_MOST_S ? -DELIVER_BY_MOST_S : left_s;
    left_s = left_s > DELIVER_BY_MOST_S ? DELIVER_BY_MOST_S : left_s;
    if (mail->by_mode == 'R' && left_ms <= 0) {
        return; /* whoever sends it all the same gives it all the time */
    }
    if (mail->by_mode == 'R' && left_s == 0) {
        left_s = 1;
    }
    buffer_printf(&client->output, " BY=%lld;%c%s", (long long)left_s, mail->by_mode,
                  mail->by_trace ? "T" : "");
}

void queue_mail(struct smtp_client *client, const struct transaction *t)
{
    const struct smtp_client_mail *mail = &t->mail;
    queue_text(client, "MAIL FROM:<");
    queue_bytes(client, mail->sender);
    queue_text(client, ">");
    if (offers(client, SMTP_CLIENT_CAP_SIZE)) {
        buffer_printf(&client->output, " SIZE=%llu", (unsigned long long)mail->size);
    }
    if ((mail->eight_bit || t->utf8) && offers(client, SMTP_CLIENT_CAP_8BITMIME)) {
        queue_text(client, " BODY=8BITMIME");
    }
    if (t->utf8) {
        queue_text(client, " SMTPUTF8");
    }
    if (offers(client, SMTP_CLIENT_CAP_DSN)) {
        if (mail->return_content != SMTP_CLIENT_RETURN_UNSET) {
            bool full = mail->return_content == SMTP_CLIENT_RETURN_FULL &&
                        !mail->requires_tls; /* RFC 8689 section 5 */
            queue_text(client, full ? " RET=FULL" : " RET=HDRS");
        }
        if (word_is_sendable(mail->envelope_id, ENVELOPE_ID_MAX_BYTES, false)) {
            queue_text(client, " ENVID=");
            queue_bytes(client, mail->envelope_id);
        }
    }
    if (mail->by_mode != 0 && offers(client, SMTP_CLIENT_CAP_DELIVERBY)) {
        queue_deliver_by(client, mail);
    }
    if (mail->priority != 0 && offers(client, SMTP_CLIENT_CAP_PRIORITY)) {
        buffer_printf(&client->output, " MT-PRIORITY=%d", mail->priority);
    }
    if (mail->requires_tls && client->is_proved && offers(client, SMTP_CLIENT_CAP_REQUIRETLS)) {
        queue_text(client, " REQUIRETLS");
    }
    queue_text(client, "\r\n");
}

static void queue_notify(struct smtp_client *client, uint8_t notify)
{
    static const struct {
        uint8_t flag;
        const char *word;
    } words[] = {
        {SMTP_CLIENT_NOTIFY_SUCCESS, "SUCCESS"},
        {SMTP_CLIENT_NOTIFY_FAILURE, "FAILURE"},
        {SMTP_CLIENT_NOTIFY_DELAY, "DELAY"},
    };
    if (notify & SMTP_CLIENT_NOTIFY_NEVER) {
        queue_text(client, " NOTIFY=NEVER");
        return;
    }
    const char *before = " NOTIFY=";
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (notify & words[i].flag) {
            queue_text(client, before);
            queue_text(client, words[i].word);
            before = ",";
        }
    }
}

void queue_recipient(struct smtp_client *client, const struct transaction *t, uint32_t index)
{
    const struct smtp_client_recipient *recipient = &t->mail.recipients[index];
    queue_text(client, "RCPT TO:<");
    queue_bytes(client, recipient->address);
    queue_text(client, ">");
    if (offers(client, SMTP_CLIENT_CAP_DSN)) {
        queue_notify(client, recipient->notify);
        if (word_is_sendable(recipient->orcpt, ORCPT_MAX_BYTES, t->utf8)) {
            queue_text(client, " ORCPT=");
            queue_bytes(client, recipient->orcpt);
        }
    }
    queue_text(client, "\r\n");
}
