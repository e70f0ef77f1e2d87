/* SPDX-License-Identifier: Apache-2.0
 *
 * A mail server of the simulated world: plain SMTP or LMTP with PIPELINING, in its own few lines so
 * that it shares no mistake with the program's parser.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buffer.h"
#include "sim/actors.h"
#include "sim/sim.h"
#include "sim/told.h"
#include "sys/net.h"

struct sim_server {
    const char *name;
    bool lmtp;
    struct loop *loop;
    struct ledger *ledger;
    struct server_mood mood;
    int listener;
    struct loop_watch *watch;
    uint32_t taken, visits, drills;
};

enum { RECIPIENTS_MAX = 16, TRAVEL_NS = 1000000, TRAVEL_MS = 2 };

struct visit {
    struct sim_server *server;
    int fd;
    struct loop_watch *watch;
    struct loop_timer *timer; /* a slow reply is pending while it is set */
    struct buffer in, out, content;
    bool in_content, slow, closing;
    bool hangs_up; /* when what it has said has arrived; the rest of the replies is lost */
    struct told told;
    uint32_t sender; /* the number of the message that sender is made for, or LEDGER_NOBODY */
    bool is_drill;   /* an envelope for a postmaster: RSET is to follow */
    bool is_notice;  /* to the sender of the message `notice_about` */
    uint32_t notice_about;
    uint32_t recipients[RECIPIENTS_MAX];
    uint32_t recipient_count;
    /* What was taken last, for its reply may yet be lost on the way. */
    uint32_t *taken_doubts[RECIPIENTS_MAX];
    uint32_t taken_count;
    int64_t taken_ns;
};

static bool chance(unsigned per_mille)
{
    return per_mille > 0 && sim_chance(per_mille);
}

static void visit_end(struct visit *visit)
{
    /* For all the sender knows, its dot has been read: in doubt. */
    for (uint32_t i = 0; !visit->is_notice && i < visit->recipient_count; i++) {
        ledger_tell(visit->server->ledger, "%s visit %d: ended in a transaction for r%u",
                    visit->server->name, visit->fd, visit->recipients[i]);
        ledger_disturb(visit->server->ledger, visit->recipients[i]);
    }
    bool reply_lost =
        visit->slow || visit->out.length > 0 || sim_now_ns() - visit->taken_ns < TRAVEL_NS;
    for (uint32_t i = 0; reply_lost && !visit->closing && i < visit->taken_count; i++) {
        *visit->taken_doubts[i] += 1;
        ledger_tell(visit->server->ledger, "%s visit %d: ended, a reply lost", visit->server->name,
                    visit->fd);
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

/* ---- the dot --------------------------------------------------------------------------------- */

enum taking { TAKEN, TAKEN_BUT_CUT, DEFERRED, REFUSED };

static const char *const taking_words[] = {"taken", "taken but cut", "deferred", "refused"};

static enum taking draw_taking(const struct server_mood *mood)
{
    return chance(mood->dot_4xx)         ? DEFERRED
           : chance(mood->dot_5xx)       ? REFUSED
           : chance(mood->cut_after_dot) ? TAKEN_BUT_CUT
                                         : TAKEN;
}

static void taken(struct visit *visit, uint32_t *doubts)
{
    visit->server->taken++;
    visit->taken_doubts[visit->taken_count++] = doubts;
    visit->taken_ns = sim_now_ns();
}

static void record(struct visit *visit, uint32_t number, uint32_t recipient, enum taking taking)
{
    struct ledger *ledger = visit->server->ledger;
    ledger_tell(ledger, "%s visit %d: %u for r%u %s", visit->server->name, visit->fd, number,
                recipient, taking_words[taking]);
    struct ledger_entry *entry = ledger_find(ledger, number, recipient);
    if (entry == NULL) {
        ledger_fault(ledger, "message %u arrived for r%u, which it was not sent to", number,
                     recipient);
        return;
    }
    entry->disturbed = entry->disturbed || taking != TAKEN;
    entry->refused += taking == REFUSED;
    if (taking == TAKEN_BUT_CUT) {
        entry->doubts++;
        entry->delivered++;
    } else if (taking == TAKEN) {
        entry->delivered++;
        taken(visit, &entry->doubts);
        ledger_check_order(ledger, entry, number);
    }
}

static void record_notice(struct visit *visit, enum taking taking)
{
    struct ledger *ledger = visit->server->ledger;
    ledger_tell(ledger, "%s visit %d: notice about %u %s", visit->server->name, visit->fd,
                visit->notice_about, taking_words[taking]);
    struct ledger_notice *notice =
        ledger_take_notice(ledger, visit->notice_about, buffer_slice(&visit->content));
    if (notice == NULL) {
        return;
    }
    notice->refused += taking == REFUSED;
    notice->delivered += taking == TAKEN || taking == TAKEN_BUT_CUT;
    notice->doubts += taking == TAKEN_BUT_CUT;
    if (taking == TAKEN) {
        taken(visit, &notice->doubts);
    }
}

/* The number of the message whose content it is, or LEDGER_NOBODY. */
static uint32_t check_content(struct visit *visit)
{
    struct ledger *ledger = visit->server->ledger;
    struct slice content = behind_trace(buffer_slice(&visit->content));
    uint32_t number;
    if (!number_of(content, &number) || number >= ledger->issued) {
        ledger_fault(ledger, "content without a number arrived, %zu bytes", visit->content.length);
        return LEDGER_NOBODY;
    }
    if (fnv(content) != ledger->messages[number].hash) {
        ledger_fault(ledger, "message %u arrived altered", number);
    }
    if (visit->sender != LEDGER_NOBODY && visit->sender != number) {
        ledger_fault(ledger, "message %u arrived with the sender of %u", number, visit->sender);
    }
    return number;
}

static void say_taking(struct visit *visit, enum taking taking)
{
    static const char *const replies[] = {"250 2.0.0 taken", NULL, "451 4.3.0 not now",
                                          "554 5.6.0 not wanted"};
    if (replies[taking] != NULL) {
        say(visit, replies[taking]);
    }
}

/* LMTP: each recipient has a reply of its own; when one is lost, so are those behind it. */
static void take_content(struct visit *visit)
{
    const struct server_mood *mood = &visit->server->mood;
    uint32_t number = visit->is_notice ? LEDGER_NOBODY : check_content(visit);
    enum taking taking = TAKEN;
    told_check(&visit->told, visit->server->ledger, visit->server->name, number);
    told_reset(&visit->told);
    visit->taken_count = 0;
    for (uint32_t i = 0; i < visit->recipient_count; i++) {
        if (i == 0 || (visit->server->lmtp && taking != TAKEN_BUT_CUT)) {
            taking = draw_taking(mood);
        }
        if (visit->is_notice) {
            record_notice(visit, taking);
        } else if (number != LEDGER_NOBODY) {
            record(visit, number, visit->recipients[i], taking);
        }
        if (i == 0 || visit->server->lmtp) {
            say_taking(visit, taking);
        }
    }
    if (taking == TAKEN_BUT_CUT) {
        visit->hangs_up = true;
        visit->slow = true;
        loop_timer_set(visit->timer, TRAVEL_MS);
    } else {
        visit->recipient_count = 0;
    }
}

/* ---- the envelope ---------------------------------------------------------------------------- */

/* RFC 2852 and RFC 6710: the first servers of the domain and of the relay. */
static bool promises(const struct sim_server *server)
{
    return server->name[1] == '1' && !server->lmtp;
}

static bool says(struct slice line, const char *word)
{
    return memmem(line.data, line.length, word, strlen(word)) != NULL;
}

/* What its client asked for is asked for here, if we know of such things. */
static void check_parameters(struct visit *visit, struct slice line)
{
    struct ledger *ledger = visit->server->ledger;
    if (visit->sender == LEDGER_NOBODY || visit->sender >= ledger->issued) {
        return;
    }
    const struct ledger_message *message = &ledger->messages[visit->sender];
    char priority[32] = " MT-PRIORITY=", by[] = {';', message->by_mode, 0};
    if (message->priority != 0) {
        snprintf(priority, sizeof priority, " MT-PRIORITY=%d", message->priority);
    }
    bool known = promises(visit->server);
    if (says(line, priority) != (known && message->priority != 0) ||
        (message->by_mode == 'N' && (says(line, " BY=") && says(line, by)) != known) ||
        (message->by_mode == 0 && says(line, " BY="))) {
        ledger_fault(ledger, "%u comes with other parameters: %.*s", visit->sender,
                     SLICE_PRINT(line));
    }
}

static void take_sender(struct visit *visit, struct slice line)
{
    uint64_t number;
    char expected[64];
    visit->recipient_count = 0;
    visit->sender = LEDGER_NOBODY;
    visit->is_notice = false;
    struct slice path = slice_skip(line, sizeof("MAIL FROM:<") - 1);
    path = slice_take(path, slice_find(path, '>'));
    if (path.length > 0) {
        struct slice digits = slice_skip(slice_take(path, slice_find(path, '@')), 1);
        visit->sender = slice_to_u64(digits, &number) ? (uint32_t)number : LEDGER_NOBODY;
        ledger_sender(visit->sender, expected);
        if (!slice_equal(path, slice_from_text(expected))) {
            ledger_fault(visit->server->ledger, "mail from nobody: %.*s", SLICE_PRINT(path));
        }
    }
    check_parameters(visit, line);
    say(visit, "250 2.1.0 yes");
}

static void refuse_recipient(struct visit *visit, uint32_t recipient)
{
    struct ledger *ledger = visit->server->ledger;
    struct ledger_entry *entry = ledger_find(ledger, visit->sender, recipient);
    if (entry != NULL) {
        entry->refused++;
        entry->disturbed = true;
    } else {
        ledger_disturb(ledger, recipient); /* from the null sender: which message, nobody knows */
    }
    say(visit, "550 5.1.1 unknown");
}

/* Nobody writes to a postmaster but a drill, which asks no more than this. */
static void take_drill(struct visit *visit)
{
    const struct server_mood *mood = &visit->server->mood;
    if (visit->sender != LEDGER_NOBODY) {
        ledger_fault(visit->server->ledger, "a drill with a sender");
    }
    told_check(&visit->told, visit->server->ledger, visit->server->name, LEDGER_NOBODY);
    visit->is_drill = true;
    visit->server->drills++;
    say(visit, chance(mood->recipient_4xx)   ? "450 4.2.1 later"
               : chance(mood->recipient_5xx) ? "550 5.1.1 unknown"
                                             : "250 2.1.5 yes");
}

static void take_rcpt(struct visit *visit, struct slice line)
{
    const struct server_mood *mood = &visit->server->mood;
    struct ledger *ledger = visit->server->ledger;
    struct slice path = slice_skip(line, sizeof("RCPT TO:<") - 1);
    path = slice_take(path, slice_find(path, '>'));
    if (slice_starts_fold(path, SLICE_LITERAL("postmaster@"))) {
        take_drill(visit);
        return;
    }
    uint64_t value;
    bool good = path.length > 1 &&
                slice_to_u64(slice_skip(slice_take(path, slice_find(path, '@')), 1), &value);
    uint32_t number = good ? (uint32_t)value : LEDGER_NOBODY;
    char expected[64] = "";
    if (good && path.data[0] == 's') {
        ledger_sender(number, expected);
    } else if (good && number < LEDGER_RECIPIENTS) {
        ledger_address(number, expected);
    }
    if (!slice_equal(path, slice_from_text(expected))) {
        ledger_fault(ledger, "mail to nobody: %.*s", SLICE_PRINT(path));
        say(visit, "501 5.1.3 who?");
        return;
    }
    visit->is_notice = path.data[0] == 's';
    if (visit->is_notice && visit->sender != LEDGER_NOBODY) {
        ledger_fault(ledger, "a notice about %u with a sender", number);
    }
    if (chance(mood->recipient_4xx)) {
        ledger_tell(ledger, "%s visit %d: %.*s deferred", visit->server->name, visit->fd,
                    SLICE_PRINT(path));
        if (!visit->is_notice) {
            /* Which message it is for may not be known, but only the oldest can be under way. */
            ledger_disturb(ledger, number);
        }
        say(visit, "450 4.2.1 later");
    } else if (!visit->is_notice && chance(mood->recipient_5xx)) {
        ledger_tell(ledger, "%s visit %d: %.*s refused", visit->server->name, visit->fd,
                    SLICE_PRINT(path));
        refuse_recipient(visit, number);
    } else {
        assert(visit->recipient_count < RECIPIENTS_MAX);
        visit->notice_about = number;
        visit->recipients[visit->recipient_count++] = number;
        say(visit, "250 2.1.5 yes");
    }
}

static void take_hello(struct visit *visit, struct slice name)
{
    const struct server_mood *mood = &visit->server->mood;
    if (!told_hello(&visit->told, name)) {
        say(visit, "554 5.7.1 not from there");
        return;
    }
    buffer_append_text(&visit->out, "250-sim.test\r\n");
    told_offer(&visit->told, mood, &visit->out);
    say(visit, promises(visit->server) ? "250-PIPELINING\r\n250-8BITMIME\r\n"
                                         "250-DELIVERBY\r\n250-MT-PRIORITY\r\n250 SIZE 10000000"
                                       : "250-PIPELINING\r\n250-8BITMIME\r\n"
                                         "250 SIZE 10000000");
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

/* XCLIENT or XFORWARD; false: it is neither. */
static bool take_origin(struct visit *visit, struct slice line)
{
    const struct server_mood *mood = &visit->server->mood;
    struct slice words = slice_skip(line, slice_find(line, ' ') + 1);
    const char *reply;
    if (slice_starts_fold(line, SLICE_LITERAL("XCLIENT "))) {
        reply = told_xclient(&visit->told, mood, words, visit->server->ledger);
    } else if (slice_starts_fold(line, SLICE_LITERAL("XFORWARD "))) {
        reply = told_xforward(&visit->told, mood, words, visit->server->ledger);
    } else {
        return false;
    }
    ledger_tell(visit->server->ledger, "%s visit %d: %.*s: %s", visit->server->name, visit->fd,
                SLICE_PRINT(line), reply != NULL ? reply : "hangs up");
    if (reply != NULL) {
        say(visit, reply);
    }
    visit->closing = reply == NULL || memcmp(reply, "421", 3) == 0;
    return true;
}

/* One command line. */
static void take_line(struct visit *visit, struct slice line)
{
    if (visit->is_drill && !slice_starts_fold(line, SLICE_LITERAL("RSET"))) {
        ledger_fault(visit->server->ledger, "a drill goes on behind RCPT: %.*s", SLICE_PRINT(line));
    }
    visit->is_drill = false;
    if (slice_starts_fold(line, slice_from_text(visit->server->lmtp ? "LHLO " : "EHLO "))) {
        take_hello(visit, slice_skip(line, 5));
    } else if (take_origin(visit, line)) {
        return;
    } else if (slice_starts_fold(line, SLICE_LITERAL("MAIL FROM:<"))) {
        take_sender(visit, line);
    } else if (slice_starts_fold(line, SLICE_LITERAL("RCPT TO:<"))) {
        take_rcpt(visit, line);
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
        told_reset(&visit->told);
        say(visit, "250 2.0.0 yes");
    } else if (slice_starts_fold(line, SLICE_LITERAL("QUIT"))) {
        say(visit, "221 2.0.0 bye");
        visit->closing = true;
    } else {
        say(visit, "500 5.5.2 what?");
    }
}

static bool work(struct visit *visit)
{
    while (!visit->closing && !visit->slow) {
        size_t header = told_header(&visit->told, buffer_slice(&visit->in), visit->server->ledger);
        if (header == SIZE_MAX) {
            break;
        }
        buffer_consume(&visit->in, header);
        struct slice input = buffer_slice(&visit->in);
        static const char crlf[] = "\r\n";
        const uint8_t *end = input.length == 0 ? NULL : memmem(input.data, input.length, crlf, 2);
        if (end == NULL) {
            break;
        }
        struct slice line = slice_take(input, (size_t)(end - input.data));
        if (visit->in_content) {
            if (chance(visit->server->mood.cut_before_dot) && sim_chance(100)) {
                visit_end(visit);
                return false;
            }
            if (slice_equal(line, SLICE_LITERAL("."))) {
                visit->in_content = false;
                take_content(visit);
            } else {
                bool stuffed = line.length > 0 && line.data[0] == '.';
                buffer_append(&visit->content, slice_skip(line, stuffed ? 1 : 0));
                buffer_append_text(&visit->content, crlf);
            }
        } else {
            take_line(visit, line);
        }
        buffer_consume(&visit->in, line.length + 2);
        if (!visit->slow && visit->out.length > 0 && chance(visit->server->mood.slow)) {
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
    if (visit->hangs_up) {
        visit_end(visit);
    } else if (flush(visit)) {
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

void sim_server_visit(struct sim_server *server, int fd)
{
    struct visit *visit = calloc(1, sizeof(*visit));
    assert(visit != NULL);
    visit->server = server;
    server->visits++;
    visit->sender = LEDGER_NOBODY;
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

static void accept_ready(void *context, unsigned ready)
{
    (void)ready;
    struct sim_server *server = context;
    int fd;
    struct ip_endpoint peer;
    while (net_accept(server->listener, &fd, &peer) == ERROR_NONE) {
        sim_server_visit(server, fd);
    }
}

struct sim_server *sim_server_new(struct loop *loop, const char *name, const struct ip_endpoint *at,
                                  bool lmtp, struct ledger *ledger)
{
    struct sim_server *server = calloc(1, sizeof(*server));
    assert(server != NULL);
    server->name = name;
    server->lmtp = lmtp;
    server->loop = loop;
    server->ledger = ledger;
    if (at == NULL) {
        return server;
    }
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

uint32_t sim_server_drills(const struct sim_server *server)
{
    return server->drills;
}

uint32_t sim_server_visits(const struct sim_server *server)
{
    return server->visits;
}
