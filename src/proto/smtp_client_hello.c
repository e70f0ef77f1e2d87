/* SPDX-License-Identifier: Apache-2.0
 *
 * From the greeting to the first MAIL.
 *
 *   (TLS)     secured        -> GREETING: only where the handshake comes first
 *   GREETING  220            -> EHLO (LHLO)
 *   EHLO      250            -> STARTTLS, AUTH or OPEN
 *             5xx            -> HELO on the same connection; LMTP knows no HELO: over
 *   HELO      250            -> OPEN, nothing offered; with credentials, or where TLS is demanded:
 *                               over
 *   STARTTLS  220            -> TLS; nothing may come behind it in the clear (RFC 3207 4)
 *   TLS       secured        -> EHLO anew
 *   any       other          -> over
 */
#include "proto/smtp_client_internal.h"

void session_opened(struct smtp_client *client)
{
    client->step = SESSION_OPEN;
    client->opened = true;
}

void say_hello(struct smtp_client *client, enum session_step step, const char *verb,
               struct slice name)
{
    queue_text(client, verb);
    queue_bytes(client, name);
    queue_text(client, "\r\n");
    client->step = step;
    client->capabilities = (struct smtp_client_capabilities){0};
    client->mechanisms = 0;
}

void hello_done(struct smtp_client *client)
{
    if (client->login.user_length > 0) {
        auth_begin(client);
    } else {
        session_opened(client);
    }
}

static void take_limit(struct slice word, const char *name, uint32_t *ret_limit)
{
    struct slice prefix = slice_from_text(name);
    uint64_t value;
    if (slice_starts_fold(word, prefix) && slice_to_u64(slice_skip(word, prefix.length), &value) &&
        value > 0 && value < UINT32_MAX) {
        *ret_limit = (uint32_t)value;
    }
}

/* RCPTDOMAINMAX is not heeded (RFC 9422 4.3): what goes along in one transaction is one message's
 * recipients of one route, in one domain as a rule, and a 452 to one too many sends that one in the
 * next. */
static void take_limits(struct smtp_client *client, struct slice words)
{
    while (words.length > 0) {
        size_t end = slice_find(words, ' ');
        struct slice word = slice_take(words, end);
        take_limit(word, "RCPTMAX=", &client->capabilities.recipients_max);
        take_limit(word, "MAILMAX=", &client->capabilities.mails_max);
        words = slice_skip(words, end + 1);
    }
}

static const struct {
    const char *keyword;
    uint32_t flag;
} extensions[] = {
    {"8BITMIME", SMTP_CLIENT_CAP_8BITMIME},
    {"SMTPUTF8", SMTP_CLIENT_CAP_SMTPUTF8},
    {"DSN", SMTP_CLIENT_CAP_DSN},
    {"PIPELINING", SMTP_CLIENT_CAP_PIPELINING},
    {"CHUNKING", SMTP_CLIENT_CAP_CHUNKING},
    {"SIZE", SMTP_CLIENT_CAP_SIZE},
    {"STARTTLS", SMTP_CLIENT_CAP_STARTTLS},
    {"DELIVERBY", SMTP_CLIENT_CAP_DELIVERBY},
    {"MT-PRIORITY", SMTP_CLIENT_CAP_PRIORITY},
    {"REQUIRETLS", SMTP_CLIENT_CAP_REQUIRETLS},
};

/* One line of a reply; those of EHLO after the first name extensions. */
void hello_line(struct smtp_client *client, struct slice line)
{
    if (client->step != SESSION_EHLO || client->parser.lines < 2) {
        return;
    }
    line = slice_trim(line);
    size_t end = slice_find(line, ' ');
    struct slice keyword = slice_take(line, end);
    struct slice words = slice_trim(slice_skip(line, end));
    for (size_t i = 0; i < sizeof(extensions) / sizeof(extensions[0]); i++) {
        if (slice_equal_fold(keyword, slice_from_text(extensions[i].keyword))) {
            client->capabilities.flags |= extensions[i].flag;
        }
    }
    uint64_t size;
    if (slice_equal_fold(keyword, SLICE_LITERAL("SIZE")) && slice_to_u64(words, &size)) {
        client->capabilities.size_limit = size;
    }
    uint64_t least;
    if (slice_equal_fold(keyword, SLICE_LITERAL("DELIVERBY")) && words.length <= 9 &&
        slice_to_u64(words, &least)) {
        client->capabilities.deliver_by_min_s = (uint32_t)least;
    }
    if (slice_equal_fold(keyword, SLICE_LITERAL("LIMITS"))) {
        take_limits(client, words);
    }
    if (slice_equal_fold(keyword, SLICE_LITERAL("AUTH"))) {
        auth_offered(client, words);
    }
    if (slice_equal_fold(keyword, SLICE_LITERAL("XCLIENT"))) {
        client->capabilities.xclient = xclient_offered(words) & XCLIENT_OF_XCLIENT;
    }
    if (slice_equal_fold(keyword, SLICE_LITERAL("XFORWARD"))) {
        client->capabilities.xforward = xclient_offered(words) & XCLIENT_OF_XFORWARD;
    }
}

/* ---- TLS ------------------------------------------------------------------------------------- */

void hello_secured(struct smtp_client *client)
{
    client->secured = true;
    client->login.in_clear = true;
    if (client->tls == SMTP_CLIENT_TLS_FIRST) {
        client->step = SESSION_GREETING;
        return;
    }
    smtp_reply_parser_init(&client->parser);
    say_hello(client, SESSION_EHLO, client->lmtp ? "LHLO " : "EHLO ",
              slice_from_text(client->helo));
}

/* A 4xx or 5xx may be due to the time or to us: whether to go on without is the caller's to say. */
static void starttls_reply(struct smtp_client *client, const struct smtp_reply *reply)
{
    if (output_backlog(client) > 0) {
        session_broken(client, "reply to STARTTLS before the command has left");
    } else if (reply->code == 220) {
        client->step = SESSION_TLS;
    } else if (reply->code / 100 < 4) {
        session_broken(client, "unexpected code to STARTTLS");
    } else {
        struct smtp_client_cause cause = cause_of_reply(SMTP_CLIENT_AT_TLS, reply);
        session_end(client, &cause);
    }
}

/* ---- the replies ----------------------------------------------------------------------------- */

static void greeted(struct smtp_client *client)
{
    bool offered = (client->capabilities.flags & SMTP_CLIENT_CAP_STARTTLS) != 0;
    if (!client->secured && client->tls != SMTP_CLIENT_TLS_NEVER && offered) {
        queue_text(client, "STARTTLS\r\n");
        client->step = SESSION_STARTTLS;
    } else if (!client->secured && client->tls == SMTP_CLIENT_TLS_DEMANDED) {
        struct smtp_client_cause cause = cause_of_text(SMTP_CLIENT_AT_TLS, SMTP_CLIENT_LOST,
                                                       "the server does not offer STARTTLS");
        session_end(client, &cause);
    } else {
        hello_done(client);
    }
}

void hello_reply(struct smtp_client *client, const struct smtp_reply *reply)
{
    bool good = reply->code == 250; /* not 2xx: a second greeting is none */
    if (client->step == SESSION_STARTTLS) {
        starttls_reply(client, reply);
        return;
    }
    if (client->step == SESSION_GREETING && reply->code == 220) {
        say_hello(client, SESSION_EHLO, client->lmtp ? "LHLO " : "EHLO ",
                  slice_from_text(client->helo));
        return;
    }
    if (client->step != SESSION_GREETING && good) {
        greeted(client);
        return;
    }
    if (client->step == SESSION_EHLO && reply->code / 100 == 5 && !client->lmtp) {
        say_hello(client, SESSION_HELO, "HELO ", slice_from_text(client->helo));
        return;
    }
    enum smtp_client_stage stage = stage_now(client);
    if (reply->code / 100 < 4) {
        session_broken(client, "unexpected code in greeting");
        return;
    }
    struct smtp_client_cause cause = cause_of_reply(stage, reply);
    session_end(client, &cause);
}
