/* SPDX-License-Identifier: Apache-2.0
 *
 * Whose mail it is (postfix.org, XCLIENT_README, XFORWARD_README). XCLIENT makes the connection
 * stand for somebody else until it ends, and its client with it as at the greeting; so it goes out
 * alone, behind no dot, and what depends on a client is said again:
 *
 *   the mail is ours, nothing in force     -> MAIL
 *   its own origin in force                -> MAIL
 *   XCLIENT offered                        -> [RSET 250 ->] XCLIENT
 *     XCLIENT 2xx                          -> EHLO with the name that the client gave
 *       EHLO  250                          -> [AUTH 235 ->] MAIL
 *             4xx, 5xx                     -> the client is refused
 *             4xx, 5xx                     -> EHLO with our name, to see what was refused
 *       EHLO  250                          -> the command: MAIL without it, now and later
 *             4xx, 5xx                     -> the client, by the reply to XCLIENT
 *   another's in force, XCLIENT refused
 *   or not offered                         -> not tried here: over a connection of its own
 *
 * Where a PROXY header has told it before the dialogue, that holds to the end, and neither command
 * is used: another's mail is not tried here.
 *
 * A client that is refused is its message refused at MAIL. Where others' mail goes out as ours,
 * XFORWARD goes in front of MAIL if that is offered; it is written down by the server and decides
 * nothing, so its refusal is nothing to the mail.
 */
#include "proto/smtp_client_internal.h"

static bool may_present(const struct smtp_client *client)
{
    return (client->capabilities.xclient & XCLIENT_ADDR) != 0 && !client->origin.xclient_refused &&
           !client->origin.proxied;
}

static void write_line(const struct smtp_client *client, const struct xclient *origin,
                       unsigned attributes, struct buffer *line)
{
    struct xclient facts = *origin;
    facts.given &= facts.has_protocol ? ~0u : ~(unsigned)XCLIENT_PROTO; /* cannot be unavailable */
    if (client->login.user_length > 0) {
        facts.login = SLICE_EMPTY; /* we log in ourselves */
    }
    xclient_put(line, &facts, attributes, sizeof("XCLIENT") - 1);
}

static struct slice name_of(const struct smtp_client *client, const struct xclient *origin)
{
    for (size_t i = 0; i < origin->helo.length; i++) {
        if (origin->helo.data[i] <= ' ' || origin->helo.data[i] >= 0x7f) {
            return slice_from_text(client->helo);
        }
    }
    return origin->helo.length > 0 && origin->helo.length <= SMTP_CLIENT_HELO_MAX
               ? origin->helo
               : slice_from_text(client->helo);
}

/* Behind the line: the name of the EHLO that follows, since servers go by that. */
static void write_name(const struct smtp_client *client, const struct xclient *origin,
                       struct buffer *line)
{
    buffer_append_text(line, "\r\n");
    buffer_append(line, name_of(client, origin));
}

/* What is in force will do for this mail. */
static bool is_in_force(struct smtp_client *client, const struct transaction *t)
{
    const struct origin *origin = &client->origin;
    if (!origin->told) {
        return true;
    }
    if (!origin->foreign) {
        return t->mail.origin == NULL || (!may_present(client) && !origin->proxied);
    }
    if (t->mail.origin == NULL) {
        return false;
    }
    struct buffer line;
    buffer_init(&line, 0);
    write_line(client, t->mail.origin, origin->attributes, &line);
    if (!origin->proxied) {
        write_name(client, t->mail.origin, &line);
    }
    bool same = !line.failed && slice_equal(buffer_slice(&line), buffer_slice(&origin->line));
    client->output.failed = client->output.failed || line.failed;
    buffer_done(&line);
    return same;
}

void origin_proxied(struct smtp_client *client, const struct xclient *client_is)
{
    struct origin *origin = &client->origin;
    origin->proxied = true;
    origin->attributes = XCLIENT_ADDR | XCLIENT_PORT;
    origin->foreign = client_is != NULL;
    if (origin->foreign) {
        write_line(client, client_is, origin->attributes, &origin->line);
        client->output.failed = client->output.failed || origin->line.failed;
    }
}

/* ---- ends ------------------------------------------------------------------------------------ */

static void spend(struct smtp_client *client)
{
    client->step = SESSION_OPEN;
    client->origin.step = ORIGIN_SETTLED;
    client->spent = true;
    client->quit_asked = true;
}

static void go_elsewhere(struct smtp_client *client, struct transaction *t)
{
    struct smtp_client_cause cause = cause_of_text(SMTP_CLIENT_AT_IDLE, SMTP_CLIENT_LOCAL,
                                                   "the connection stands for another client");
    t->elsewhere = true;
    decide_rest(t, SMTP_CLIENT_NOT_TRIED, &cause);
    transaction_finish(t);
    spend(client);
}

static void refuse_client(struct smtp_client *client, struct transaction *t,
                          const struct smtp_client_cause *cause)
{
    decide_rest(t, SMTP_CLIENT_REFUSED, cause);
    transaction_finish(t);
    spend(client);
}

/* ---- XCLIENT --------------------------------------------------------------------------------- */

static void say_xclient(struct smtp_client *client, const struct transaction *t)
{
    struct origin *origin = &client->origin;
    origin->attributes = client->capabilities.xclient;
    buffer_clear(&origin->line);
    write_line(client, t->mail.origin, origin->attributes, &origin->line);
    queue_text(client, "XCLIENT");
    queue_bytes(client, buffer_slice(&origin->line));
    queue_text(client, "\r\n");
    write_name(client, t->mail.origin, &origin->line);
    client->output.failed = client->output.failed || origin->line.failed;
    client->step = SESSION_XCLIENT;
}

static void present(struct smtp_client *client, struct transaction *t)
{
    client->origin.step = ORIGIN_PRESENTING;
    t->started = true;
    t->reused = client->mails > 0;
    if (client->needs_reset) {
        client->needs_reset = false;
        client->step = SESSION_XCLIENT_RESET;
        queue_text(client, "RSET\r\n");
    } else {
        say_xclient(client, t);
    }
}

bool origin_begin(struct smtp_client *client, struct transaction *t)
{
    struct origin *origin = &client->origin;
    origin->step = ORIGIN_SETTLED;
    bool in_force = is_in_force(client, t);
    if (client->spent || (!in_force && (origin->foreign || origin->proxied) &&
                          (t->mail.origin == NULL || !may_present(client)))) {
        go_elsewhere(client, t);
        return true;
    }
    if (in_force) {
        t->send = STEP_RESET;
        t->answer = STEP_RESET;
        return true;
    }
    if (slot_at(client, 0) == t || slot_at(client, 0)->answer == STEP_DONE) {
        present(client, t);
    }
    return false;
}

static void greet(struct smtp_client *client, struct slice name)
{
    say_hello(client, SESSION_EHLO, client->lmtp ? "LHLO " : "EHLO ", name);
}

static void take_xclient_reply(struct smtp_client *client, struct transaction *t,
                               const struct smtp_reply *reply)
{
    struct origin *origin = &client->origin;
    if (reply->code < 300) {
        greet(client, name_of(client, t->mail.origin));
    } else if (origin->foreign) {
        go_elsewhere(client, t);
    } else {
        origin->step = ORIGIN_FALLING_BACK;
        origin->refusal = cause_of_reply(SMTP_CLIENT_AT_MAIL, reply);
        if (reply->text.length > 0) {
            memcpy(client->end_text, reply->text.data, reply->text.length);
        }
        origin->refusal.text = slice_make(client->end_text, reply->text.length);
        greet(client, slice_from_text(client->helo));
    }
}

static void take_hello_reply(struct smtp_client *client, struct transaction *t,
                             const struct smtp_reply *reply)
{
    struct origin *origin = &client->origin;
    struct smtp_client_cause cause = cause_of_reply(SMTP_CLIENT_AT_MAIL, reply);
    bool fallen_back = origin->step == ORIGIN_FALLING_BACK;
    if (reply->code >= 400) {
        refuse_client(client, t, fallen_back ? &origin->refusal : &cause);
    } else if (reply->code != 250) {
        session_broken(client, "unexpected reply to EHLO");
    } else if (fallen_back) {
        origin->xclient_refused = true;
        session_opened(client);
    } else {
        origin->foreign = true;
        hello_done(client);
    }
}

bool origin_reply(struct smtp_client *client, const struct smtp_reply *reply)
{
    struct transaction *t = slot_at(client, 0);
    if (t->answer == STEP_DONE) {
        t = slot_at(client, 1); /* the first one's result has not been fetched */
    }
    if (client->origin.step == ORIGIN_SETTLED || client->step == SESSION_AUTH) {
        return false;
    }
    if (reply->code == 421) {
        struct smtp_client_cause cause = cause_of_reply(SMTP_CLIENT_AT_MAIL, reply);
        session_end(client, &cause);
    } else if (reply->code / 100 == 3) {
        session_broken(client, "unexpected reply to XCLIENT");
    } else if (client->step == SESSION_XCLIENT) {
        take_xclient_reply(client, t, reply);
    } else if (client->step == SESSION_EHLO) {
        take_hello_reply(client, t, reply);
    } else if (reply->code < 300) {
        say_xclient(client, t);
    } else {
        session_broken(client, "RSET refused");
    }
    return true;
}

/* ---- XFORWARD -------------------------------------------------------------------------------- */

bool origin_forwards(const struct smtp_client *client)
{
    const struct origin *origin = &client->origin;
    return origin->told && client->capabilities.xforward != 0 && !origin->xforward_refused &&
           !origin->foreign && !origin->proxied && !may_present(client);
}

void origin_queue_forward(struct smtp_client *client, const struct transaction *t)
{
    /* Ours goes without; but not with what was said of a message before. */
    static const struct xclient ours = {.given = XCLIENT_OF_XFORWARD, .is_local = true};
    const struct xclient *facts = t->mail.origin != NULL ? t->mail.origin : &ours;
    queue_text(client, "XFORWARD");
    xclient_put(&client->output, facts, client->capabilities.xforward & XCLIENT_OF_XFORWARD,
                sizeof("XFORWARD") - 1);
    queue_text(client, "\r\n");
}
