/* SPDX-License-Identifier: Apache-2.0
 *
 * A mail server of the simulated world: plain SMTP with PIPELINING, in its own few lines so that
 * it shares no mistake with the program's parser.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buffer.h"
#include "sim/actors.h"
#include "sim/sim.h"
#include "sys/net.h"

struct sim_server {
    const char *name;
    struct loop *loop;
    struct ledger *ledger;
    struct server_mood mood;
    int listener;
    struct loop_watch *watch;
    uint32_t taken, visits;
};

struct visit {
    struct sim_server *server;
    int fd;
    struct loop_watch *watch;
    struct loop_timer *timer; /* a slow reply is pending while it is set */
    struct buffer in, out, content;
    bool in_content, slow, closing;
    uint32_t recipients[16];
    uint32_t recipient_count;
    /* What was taken last, for its reply may yet be lost on the way. */
    uint32_t taken_number;
    uint32_t taken_recipients[16];
    uint32_t taken_count;
    int64_t taken_ns;
};

enum { TRAVEL_NS = 1000000 };

static struct ledger_entry *entry_of(struct ledger *ledger, uint32_t number, uint32_t recipient);

static bool chance(unsigned per_mille)
{
    return per_mille > 0 && sim_chance(per_mille);
}

static void visit_end(struct visit *visit)
{
    /* For all the sender knows, its dot has been read: in doubt. */
    for (uint32_t i = 0; i < visit->recipient_count; i++) {
        ledger_tell(visit->server->ledger, "%s visit %d: ended in a transaction for r%u",
                    visit->server->name, visit->fd, visit->recipients[i]);
        ledger_disturb(visit->server->ledger, visit->recipients[i]);
    }
    bool reply_lost =
        visit->slow || visit->out.length > 0 || sim_now_ns() - visit->taken_ns < TRAVEL_NS;
    for (uint32_t i = 0; reply_lost && !visit->closing && i < visit->taken_count; i++) {
        struct ledger_entry *entry =
            entry_of(visit->server->ledger, visit->taken_number, visit->taken_recipients[i]);
        entry->doubts++;
        ledger_tell(visit->server->ledger, "%s visit %d: ended, reply for %u lost",
                    visit->server->name, visit->fd, visit->taken_number);
    }
    loop_watch_free(visit->watch);
    loop_timer_free(visit->timer);
    net_close(visit->fd);
    buffer_done(&visit->in);
    buffer_done(&visit->out);
    buffer_done(&visit->content);
    free(visit);
}

/* Sends what it can; false when the connection has gone (and the visit with it). */
static bool flush(struct visit *visit)
{
    while (visit->out.length > 0) {
        size_t sent;
        enum error error = net_send(visit->fd, buffer_slice(&visit->out), &sent);
        if (error == ERROR_AGAIN) {
            loop_watch_set(visit->watch, LOOP_READ | LOOP_WRITE);
            return true;
        }
        if (error != ERROR_NONE) {
            visit_end(visit);
            return false;
        }
        buffer_consume(&visit->out, sent);
    }
    if (visit->closing) {
        visit_end(visit);
        return false;
    }
    loop_watch_set(visit->watch, LOOP_READ);
    return true;
}

static void say(struct visit *visit, const char *text)
{
    buffer_append_text(&visit->out, text);
    buffer_append_text(&visit->out, "\r\n");
}

static struct ledger_entry *entry_of(struct ledger *ledger, uint32_t number, uint32_t recipient)
{
    if (number >= ledger->issued) {
        return NULL;
    }
    struct ledger_message *message = &ledger->messages[number];
    for (uint32_t i = 0; i < message->count; i++) {
        if (message->entries[i].recipient == recipient) {
            return &message->entries[i];
        }
    }
    return NULL;
}

static uint64_t fnv(struct slice bytes)
{
    uint64_t hash = 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < bytes.length; i++) {
        hash = (hash ^ bytes.data[i]) * 0x100000001b3ULL;
    }
    return hash;
}

/* The content behind the Received field that the program put in front. */
static struct slice behind_trace(struct slice content)
{
    static const char mark[] = "\r\nX-Number: ";
    if (slice_starts_fold(content, SLICE_LITERAL("X-Number: "))) {
        return content;
    }
    const uint8_t *at = memmem(content.data, content.length, mark, sizeof(mark) - 1);
    return at == NULL ? SLICE_EMPTY : slice_skip(content, (size_t)(at + 2 - content.data));
}

static bool number_of(struct slice content, uint32_t *ret_number)
{
    struct slice line = slice_take(content, slice_find(content, '\r'));
    uint64_t value;
    if (line.length < 11 || !slice_to_u64(slice_skip(line, 10), &value)) {
        return false;
    }
    *ret_number = (uint32_t)value;
    return true;
}

enum taking { TAKEN, TAKEN_BUT_CUT, DEFERRED, REFUSED };

static void record(struct visit *visit, uint32_t number, enum taking taking)
{
    static const char *const words[] = {"taken", "taken but cut", "deferred", "refused"};
    struct ledger *ledger = visit->server->ledger;
    for (uint32_t i = 0; i < visit->recipient_count; i++) {
        uint32_t recipient = visit->recipients[i];
        ledger_tell(ledger, "%s visit %d: %u for r%u %s", visit->server->name, visit->fd, number,
                    recipient, words[taking]);
        struct ledger_entry *entry = entry_of(ledger, number, recipient);
        if (entry == NULL) {
            printf("fault: message %u arrived for r%u, which it was not sent to\n", number,
                   recipient);
            ledger->faults++;
            continue;
        }
        switch (taking) {
        case DEFERRED:
            entry->disturbed = true;
            break;
        case REFUSED:
            entry->disturbed = true;
            entry->refused++;
            break;
        case TAKEN_BUT_CUT:
            entry->disturbed = true;
            entry->doubts++;
            entry->delivered++;
            break;
        case TAKEN:
            entry->delivered++;
            visit->server->taken++;
            if (entry->delivered == 1 && !entry->disturbed) {
                if (ledger->last_delivered[recipient] > number + 1) {
                    printf("fault: message %u for r%u arrived after %u\n", number, recipient,
                           ledger->last_delivered[recipient] - 1);
                    ledger->faults++;
                }
                ledger->last_delivered[recipient] = number + 1;
            }
            break;
        }
    }
}

/* The dot. False: the visit is over. */
static bool take_content(struct visit *visit)
{
    const struct server_mood *mood = &visit->server->mood;
    struct ledger *ledger = visit->server->ledger;
    struct slice content = behind_trace(buffer_slice(&visit->content));
    uint32_t number;
    if (!number_of(content, &number) || number >= ledger->issued) {
        printf("fault: content without a number arrived, %zu bytes\n", visit->content.length);
        ledger->faults++;
        say(visit, "250 2.0.0 odd");
        return true;
    }
    if (fnv(content) != ledger->messages[number].hash) {
        printf("fault: message %u arrived altered\n", number);
        ledger->faults++;
    }
    if (chance(mood->dot_4xx)) {
        record(visit, number, DEFERRED);
        say(visit, "451 4.3.0 not now");
    } else if (chance(mood->dot_5xx)) {
        record(visit, number, REFUSED);
        say(visit, "554 5.6.0 not wanted");
    } else if (chance(mood->cut_after_dot)) {
        record(visit, number, TAKEN_BUT_CUT);
        visit_end(visit);
        return false;
    } else {
        record(visit, number, TAKEN);
        visit->taken_number = number;
        visit->taken_count = visit->recipient_count;
        memcpy(visit->taken_recipients, visit->recipients, sizeof(visit->recipients));
        visit->taken_ns = sim_now_ns();
        say(visit, "250 2.0.0 taken");
    }
    visit->recipient_count = 0;
    return true;
}

static void take_recipient(struct visit *visit, struct slice line)
{
    const struct server_mood *mood = &visit->server->mood;
    uint64_t recipient;
    size_t at = slice_find(line, '@');
    if (line.length < 11 || at < 10 ||
        !slice_to_u64(slice_take(slice_skip(line, 10), at - 10), &recipient) ||
        recipient >= LEDGER_RECIPIENTS) {
        say(visit, "501 5.1.3 who?");
    } else if (chance(mood->recipient_4xx)) {
        /* Which message it is for is not known yet, but only the oldest can be under way. */
        ledger_disturb(visit->server->ledger, (uint32_t)recipient);
        ledger_tell(visit->server->ledger, "%s visit %d: r%u deferred", visit->server->name,
                    visit->fd, (uint32_t)recipient);
        say(visit, "450 4.2.1 later");
    } else {
        assert(visit->recipient_count < 16);
        visit->recipients[visit->recipient_count++] = (uint32_t)recipient;
        say(visit, "250 2.1.5 yes");
    }
}

static void take_hello(struct visit *visit)
{
    const struct server_mood *mood = &visit->server->mood;
    say(visit, "250-sim.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 10000000");
    if (chance(mood->hello_421)) {
        say(visit, "421 4.3.2 closing");
        visit->closing = true;
    }
    visit->closing = visit->closing || chance(mood->hello_cut);
    if (visit->closing) { /* whose mail has met it, nobody can say; two such meetings defer it */
        ledger_tell(visit->server->ledger, "%s visit %d: hangs up", visit->server->name, visit->fd);
        ledger_disturb_all(visit->server->ledger);
    }
}

/* One command line. False: the visit is over. */
static bool take_line(struct visit *visit, struct slice line)
{
    if (slice_starts_fold(line, SLICE_LITERAL("EHLO"))) {
        take_hello(visit);
    } else if (slice_starts_fold(line, SLICE_LITERAL("MAIL FROM:"))) {
        visit->recipient_count = 0;
        say(visit, "250 2.1.0 yes");
    } else if (slice_starts_fold(line, SLICE_LITERAL("RCPT TO:<r"))) {
        take_recipient(visit, line);
    } else if (slice_equal_fold(line, SLICE_LITERAL("DATA"))) {
        if (visit->recipient_count == 0) {
            say(visit, "554 5.5.1 nobody");
        } else {
            visit->in_content = true;
            buffer_clear(&visit->content);
            say(visit, "354 go on");
        }
    } else if (slice_starts_fold(line, SLICE_LITERAL("RSET")) ||
               slice_starts_fold(line, SLICE_LITERAL("NOOP"))) {
        visit->recipient_count = 0;
        say(visit, "250 2.0.0 yes");
    } else if (slice_starts_fold(line, SLICE_LITERAL("QUIT"))) {
        say(visit, "221 2.0.0 bye");
        visit->closing = true;
    } else {
        say(visit, "500 5.5.2 what?");
    }
    return true;
}

static bool work(struct visit *visit)
{
    while (!visit->closing && !visit->slow) {
        struct slice input = buffer_slice(&visit->in);
        static const char crlf[] = "\r\n";
        const uint8_t *end = input.length == 0 ? NULL : memmem(input.data, input.length, crlf, 2);
        if (end == NULL) {
            break;
        }
        struct slice line = slice_take(input, (size_t)(end - input.data));
        bool going = true;
        if (visit->in_content) {
            if (chance(visit->server->mood.cut_before_dot) && sim_chance(100)) {
                visit_end(visit);
                return false;
            }
            if (slice_equal(line, SLICE_LITERAL("."))) {
                visit->in_content = false;
                going = take_content(visit);
            } else {
                bool stuffed = line.length > 0 && line.data[0] == '.';
                buffer_append(&visit->content, slice_skip(line, stuffed ? 1 : 0));
                buffer_append_text(&visit->content, crlf);
            }
        } else {
            going = take_line(visit, line);
        }
        if (!going) {
            return false;
        }
        buffer_consume(&visit->in, line.length + 2);
        if (visit->out.length > 0 && chance(visit->server->mood.slow)) {
            visit->slow = true;
            loop_timer_set(visit->timer, (int64_t)(500 + sim_draw(8000)));
            return true;
        }
    }
    return flush(visit);
}

static void slow_over(void *context)
{
    struct visit *visit = context;
    visit->slow = false;
    if (flush(visit)) {
        work(visit);
    }
}

static void visit_ready(void *context, unsigned ready)
{
    struct visit *visit = context;
    if ((ready & LOOP_WRITE) != 0 && !flush(visit)) {
        return;
    }
    uint8_t bytes[8192];
    size_t length;
    enum error error = net_receive(visit->fd, bytes, sizeof(bytes), &length);
    if (error == ERROR_AGAIN) {
        return;
    }
    if (error != ERROR_NONE) {
        visit_end(visit);
        return;
    }
    buffer_append(&visit->in, slice_make(bytes, length));
    work(visit);
}

static void accept_ready(void *context, unsigned ready)
{
    (void)ready;
    struct sim_server *server = context;
    int fd;
    struct ip_endpoint peer;
    while (net_accept(server->listener, &fd, &peer) == ERROR_NONE) {
        struct visit *visit = calloc(1, sizeof(*visit));
        assert(visit != NULL);
        visit->server = server;
        server->visits++;
        visit->fd = fd;
        visit->watch = loop_watch_new(server->loop, fd, visit_ready, visit);
        visit->timer = loop_timer_new(server->loop, slow_over, visit);
        buffer_init(&visit->in, 0);
        buffer_init(&visit->out, 0);
        buffer_init(&visit->content, 0);
        if (chance(server->mood.greet_4xx)) {
            say(visit, "421 4.3.2 busy");
            visit->closing = true;
        } else if (!server->mood.silent) {
            say(visit, "220 sim.test ESMTP");
        }
        flush(visit);
    }
}

struct sim_server *sim_server_new(struct loop *loop, const char *name, const struct ip_endpoint *at,
                                  struct ledger *ledger)
{
    struct sim_server *server = calloc(1, sizeof(*server));
    assert(server != NULL);
    server->name = name;
    server->loop = loop;
    server->ledger = ledger;
    enum error error = net_listen(at, 16, &server->listener);
    assert(error == ERROR_NONE);
    (void)error;
    server->watch = loop_watch_new(loop, server->listener, accept_ready, server);
    loop_watch_set(server->watch, LOOP_READ);
    return server;
}

void sim_server_set_mood(struct sim_server *server, const struct server_mood *mood)
{
    server->mood = *mood;
}

uint32_t sim_server_taken(const struct sim_server *server)
{
    return server->taken;
}

uint32_t sim_server_visits(const struct sim_server *server)
{
    return server->visits;
}
