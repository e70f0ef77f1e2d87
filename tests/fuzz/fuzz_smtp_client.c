/* SPDX-License-Identifier: Apache-2.0
 *
 * A hostile server, and a caller that does things at any time. Whatever happens: each mail has one
 * result, nobody's mail counts as accepted or in doubt before its dot was allowed and has left, but
 * one of which the envelope is all, which has no dot; no bare CR or LF leaves, and nothing at all
 * while hands are shaken; nobody's mail leaves while the connection stands for another client, and
 * none that requires TLS to a server that has not proved itself.
 *
 * The input is a byte of options, then operations: a byte, and bytes that it uses.
 */
#include "proto/smtp_client.h"

#include <assert.h>
#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAILS = 8 };

static const char small[] = "Subject: x\r\n\r\n.\r\n.dot\r\nno end";
static const char bare[] = "a\r\nb\n.\r\n";

struct run {
    struct smtp_client *client;
    struct slice input;
    int64_t now;
    uint64_t mails, results;
    bool gone[MAILS + 1], left[MAILS + 1], shaking, proved, closed;
    uint8_t last;  /* byte sent */
    char line[64]; /* sent so far, its beginning */
    size_t line_length;
    uint64_t stands_for; /* the client of XCLIENT; 0: us */
    struct smtp_client_recipient recipients[3];
    char senders[MAILS + 2][8];
    struct xclient origins[3];
};

static uint8_t take_byte(struct run *run)
{
    uint8_t byte = run->input.length > 0 ? run->input.data[0] : 0;
    run->input = slice_skip(run->input, 1);
    return byte;
}

static bool is_envelope_only(uint64_t tag)
{
    return tag == 2 || tag == 5;
}

static bool requires_tls(uint64_t tag)
{
    return tag % 4 == 1;
}

/* 0: us. */
static uint64_t client_of(uint64_t tag)
{
    return tag / 2 % 3;
}

static uint64_t content_size(uint64_t tag)
{
    return tag % 4 == 3 ? 150000 : tag % 4 == 2 ? sizeof(bare) - 1 : sizeof(small) - 1;
}

static void give_content(struct run *run, const struct smtp_client_event *event)
{
    static uint8_t piece[SMTP_CLIENT_PIECE_MAX];
    assert(!is_envelope_only(event->tag));
    uint64_t left = content_size(event->tag) - event->offset;
    size_t length = left < sizeof(piece) ? left : sizeof(piece);
    if (event->tag % 4 < 2) {
        memcpy(piece, small + event->offset, length);
    } else if (event->tag % 4 == 2) {
        memcpy(piece, bare + event->offset, length);
    } else {
        memset(piece, '.', length);
    }
    smtp_client_content(run->client, slice_make(piece, length), run->now);
}

static void take_result(struct run *run, const struct smtp_client_event *event)
{
    assert(event->tag == ++run->results && !run->closed);
    assert(event->outcome_count == 1 + event->tag % 3);
    for (uint32_t i = 0; i < event->outcome_count; i++) {
        const struct smtp_client_outcome *outcome = &event->outcomes[i];
        assert(!event->elsewhere || outcome->verdict == SMTP_CLIENT_NOT_TRIED);
        if (is_envelope_only(event->tag)) {
            assert(!run->left[event->tag] && outcome->verdict != SMTP_CLIENT_IN_DOUBT);
            assert(outcome->verdict != SMTP_CLIENT_ACCEPTED ||
                   outcome->cause.stage == SMTP_CLIENT_AT_RECIPIENT);
        } else if (outcome->verdict == SMTP_CLIENT_ACCEPTED ||
                   outcome->verdict == SMTP_CLIENT_IN_DOUBT) {
            assert(run->gone[event->tag] && run->left[event->tag] && event->tag % 4 != 2);
        }
        assert(outcome->cause.text.length <= 512);
        assert(outcome->verdict != SMTP_CLIENT_REFUSED || outcome->cause.code >= 400 ||
               outcome->cause.how == SMTP_CLIENT_LOCAL);
    }
}

static void take_events(struct run *run)
{
    struct smtp_client_event event;
    while (smtp_client_next(run->client, &event)) {
        if (event.kind == SMTP_CLIENT_CONTENT) {
            give_content(run, &event);
        } else if (event.kind == SMTP_CLIENT_RESULT) {
            take_result(run, &event);
        } else if (event.kind == SMTP_CLIENT_HANDSHAKE) {
            assert(run->results == 0 && smtp_client_output(run->client).length == 0);
            run->shaking = true;
        } else if (event.kind == SMTP_CLIENT_CLOSED) {
            assert(run->results == run->mails);
            run->closed = true;
        }
    }
}

/* Our own name in EHLO: XCLIENT has been refused. */
static void take_line(struct run *run)
{
    static const struct slice mail = SLICE_LITERAL("MAIL FROM:<s");
    static const struct slice xclient = SLICE_LITERAL("XCLIENT ADDR=192.0.2.");
    struct slice line = slice_make(run->line, run->line_length);
    if (slice_starts_fold(line, xclient)) {
        run->stands_for = line.data[xclient.length] - (uint64_t)'0';
    } else if (slice_equal(slice_skip(line, 1), SLICE_LITERAL("HLO mx"))) {
        run->stands_for = 0;
    } else if (slice_starts_fold(line, mail)) {
        uint64_t tag = line.data[mail.length] - (uint64_t)'0';
        assert(run->stands_for == 0 || run->stands_for == client_of(tag));
        assert(run->proved || !requires_tls(tag));
    }
}

static void send_some(struct run *run, size_t most)
{
    struct slice output = slice_take(smtp_client_output(run->client), most);
    assert(!run->shaking || output.length == 0);
    for (size_t i = 0; i < output.length; i++) {
        assert((run->last == '\r') == (output.data[i] == '\n'));
        run->last = output.data[i];
        if (run->last == '\n') {
            take_line(run);
            run->line_length = 0;
        } else if (run->last != '\r' && run->line_length < sizeof(run->line)) {
            run->line[run->line_length++] = (char)run->last;
        }
    }
    smtp_client_sent(run->client, output.length, run->now);
    for (uint64_t tag = 1; tag <= run->mails; tag++) {
        run->left[tag] = run->left[tag] || smtp_client_dot_sent(run->client, tag);
    }
}

static void queue_mail(struct run *run)
{
    uint64_t tag = run->mails + 1, of = client_of(tag);
    snprintf(run->senders[tag], sizeof(run->senders[tag]), "s%u@x", (unsigned)tag);
    run->origins[of] = (struct xclient){.given = ~0u,
                                        .helo = SLICE_LITERAL("client"),
                                        .login = SLICE_LITERAL("= \r\n"),
                                        .has_address = true};
    (void)ip_from_text(slice_from_text(of == 1 ? "192.0.2.1" : "192.0.2.2"),
                       &run->origins[of].client.address);
    struct smtp_client_mail mail = {.tag = tag,
                                    .sender = slice_from_text(run->senders[tag]),
                                    .origin = of == 0 ? NULL : &run->origins[of],
                                    .size = content_size(tag),
                                    .envelope_only = is_envelope_only(tag),
                                    .requires_tls = requires_tls(tag),
                                    .priority = (int8_t)((int)(tag % 19) - 9),
                                    .by_mode = tag % 2 == 0 ? 'R' : 'N',
                                    .deliver_by_ms = run->now + ((int64_t)tag - 2) * 60000,
                                    .recipients = run->recipients,
                                    .recipient_count = 1 + (uint32_t)(tag % 3)};
    if (run->mails < MAILS && smtp_client_mail(run->client, &mail, run->now) == ERROR_NONE) {
        run->mails++;
    }
}

static void operate(struct run *run)
{
    uint8_t what = take_byte(run);
    switch (what % 8) {
    case 0:
    case 1:
    case 2: {
        struct slice bytes = slice_take(run->input, take_byte(run));
        bytes = slice_take(run->input, bytes.length);
        run->input = slice_skip(run->input, bytes.length);
        smtp_client_input(run->client, bytes, run->now);
        break;
    }
    case 3:
        queue_mail(run);
        break;
    case 4: {
        uint64_t tag = take_byte(run) % (MAILS + 1);
        run->gone[tag] = true;
        smtp_client_go(run->client, tag, run->now);
        break;
    }
    case 5:
        send_some(run, what & 8 ? SIZE_MAX : take_byte(run));
        break;
    case 6:
        run->now += (int64_t)take_byte(run) * 10000;
        smtp_client_tick(run->client, run->now);
        break;
    default:
        if (what == 7) {
            smtp_client_lost(run->client, SLICE_EMPTY, run->now);
        } else if (what == 15) {
            smtp_client_abort(run->client, SLICE_LITERAL("stop"));
        } else if (what == 23) {
            smtp_client_quit(run->client, run->now);
        } else if (what == 31 || what == 39) {
            run->proved = run->shaking && what == 31;
            run->shaking = false;
            smtp_client_secured(run->client, what == 31, run->now);
        }
    }
    take_events(run);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run run = {.input = slice_make(data, size),
                      .recipients = {{.address = SLICE_LITERAL("b@y")},
                                     {.address = SLICE_LITERAL("c@y\r\n")},
                                     {.address = SLICE_LITERAL("d@y")}}};
    uint8_t how = take_byte(&run);
    struct smtp_client_settings settings = {.helo = SLICE_LITERAL("mx"),
                                            .lmtp = how & 1,
                                            .tells_origin = how & 32,
                                            .greeting_timeout_ms = 60000,
                                            .tls = (enum smtp_client_tls)(how >> 3 & 3)};
    if (how & 2) {
        settings.credentials = (struct smtp_client_credentials){
            .user = SLICE_LITERAL("tim"), .password = SLICE_LITERAL("secret"), .in_clear = how & 4};
    }
    run.client = smtp_client_new(&settings, run.now);
    assert(run.client != NULL);
    while (run.input.length > 0) {
        operate(&run);
    }
    smtp_client_abort(run.client, SLICE_EMPTY);
    take_events(&run);
    assert(run.closed && run.results == run.mails);
    assert(smtp_client_output(run.client).length == 0);
    assert(smtp_client_deadline(run.client) == INT64_MAX);
    smtp_client_free(run.client);
    return 0;
}
