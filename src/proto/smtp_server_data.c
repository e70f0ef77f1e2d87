/* SPDX-License-Identifier: Apache-2.0
 *
 * Content: DATA up to its dot, BDAT by counting. Content that is refused ends its transaction with
 * an ABORT at once, but is read to its end, where the reply has its place (BDAT: at once, for its
 * octets are counted and cannot be taken for commands).
 */
#include "proto/smtp_server_internal.h"

#include <assert.h>
#include <stdlib.h>

static const struct {
    const char *reply;
    const char *reason;
} faults[] = {
    [SMTP_CONTENT_GOOD] = {NULL, NULL},
    [SMTP_CONTENT_TOO_LARGE] = {"552 5.3.4 Message too large", "message too large"},
    [SMTP_CONTENT_LINE_TOO_LONG] = {"552 5.3.4 Line of the message too long", "line too long"},
    [SMTP_CONTENT_HEADER_TOO_LARGE] = {"552 5.3.4 Message header too large", "header too large"},
    [SMTP_CONTENT_TOO_MANY_HOPS] = {"554 5.4.6 Too many hops", "too many hops"},
    [SMTP_CONTENT_BARE_NEWLINE] = {"550 5.6.0 Bare CR or LF in the message", "bare newline"},
};

/* False: memory. */
static bool begin_content(struct smtp_server *server, bool is_dotted)
{
    const struct smtp_server_settings *settings = server->settings;
    struct smtp_content_limits limits = {
        .bytes = settings->message_bytes,
        .line_bytes = settings->line_bytes,
        .header_bytes = settings->header_bytes,
        .hops = settings->hops,
        .reject_bare_newline = settings->reject_bare_newline,
        .own_host = settings->hostname,
    };
    assert(server->content == NULL);
    server->content = malloc(sizeof(*server->content));
    if (server->content == NULL) {
        return false;
    }
    smtp_content_init(server->content, &limits, is_dotted);
    return true;
}

static void end_content(struct smtp_server *server)
{
    smtp_server_forget(server);
    server->mail_refused = true; /* chunks may be on their way */
}

static enum smtp_server_step out_of_memory(struct smtp_server *server,
                                           struct smtp_server_event *event)
{
    smtp_server_abort(server, event, "out of memory");
    smtp_server_reply(server, "451 4.3.0 Out of memory, try again later");
    end_content(server);
    return STEP_COMMAND;
}

enum smtp_server_step smtp_server_command_data(struct smtp_server *server, struct slice arguments,
                                               struct smtp_server_event *event)
{
    (void)arguments;
    if (!begin_content(server, true)) {
        return out_of_memory(server, event);
    }
    return smtp_server_ask(server, event, SMTP_SERVER_DATA);
}

static enum smtp_server_step ask_end(struct smtp_server *server, struct smtp_server_event *event)
{
    event->content = server->content;
    return smtp_server_ask(server, event, SMTP_SERVER_END);
}

enum smtp_server_step smtp_server_step_end(struct smtp_server *server,
                                           struct smtp_server_event *event)
{
    return ask_end(server, event);
}

enum smtp_server_step smtp_server_step_data(struct smtp_server *server,
                                            struct smtp_server_event *event)
{
    struct smtp_content *content = server->content;
    enum smtp_content_result result = smtp_content_next(content, &server->input, &event->bytes);
    if (result == SMTP_CONTENT_RUN) {
        event->kind = SMTP_SERVER_CONTENT;
        return STEP_DATA;
    }
    if (content->fault != SMTP_CONTENT_GOOD && server->has_mail) {
        smtp_server_abort(server, event, faults[content->fault].reason);
    }
    if (result == SMTP_CONTENT_MORE) {
        server->starved = true;
        return STEP_DATA;
    }
    if (content->fault == SMTP_CONTENT_GOOD) {
        return ask_end(server, event);
    }
    smtp_server_reply(server, faults[content->fault].reply);
    end_content(server);
    server->mail_refused = false;
    server->since_ms = server->now_ms;
    return STEP_COMMAND;
}

/* ---- BDAT (RFC 3030) --------------------------------------------------------------------- */

static bool read_chunk_arguments(struct slice arguments, uint64_t *ret_size, bool *ret_is_last,
                                 bool *ret_is_huge)
{
    struct slice number = slice_take(arguments, slice_find(arguments, ' '));
    struct slice word = slice_trim(slice_skip(arguments, number.length));
    *ret_is_last = slice_equal_fold(word, SLICE_LITERAL("LAST"));
    *ret_is_huge = false;
    if (number.length == 0 || (word.length > 0 && !*ret_is_last)) {
        return false;
    }
    for (size_t i = 0; i < number.length; i++) {
        if (number.data[i] < '0' || number.data[i] > '9') {
            return false;
        }
    }
    *ret_is_huge = !slice_to_u64(number, ret_size);
    return true;
}

enum smtp_server_step smtp_server_skip_bdat(struct smtp_server *server, struct slice arguments)
{
    bool is_last, is_huge;
    if (!read_chunk_arguments(arguments, &server->chunk_left, &is_last, &is_huge)) {
        server->chunk_left = 0; /* how much follows is unknown: mistakes are bounded */
        return STEP_COMMAND;
    }
    return is_huge ? STEP_CLOSING : STEP_SKIP_CHUNK;
}

static enum smtp_server_step refuse_chunk(struct smtp_server *server,
                                          struct smtp_server_event *event,
                                          enum smtp_content_fault fault)
{
    if (server->has_mail) { /* else it has ended where the fault was found */
        smtp_server_abort(server, event, faults[fault].reason);
    }
    smtp_server_reply(server, faults[fault].reply);
    end_content(server);
    return STEP_SKIP_CHUNK;
}

enum smtp_server_step smtp_server_command_bdat(struct smtp_server *server, struct slice arguments,
                                               struct smtp_server_event *event)
{
    uint64_t size, limit = server->settings->message_bytes;
    bool is_last, is_huge;
    if (!read_chunk_arguments(arguments, &size, &is_last, &is_huge)) {
        return smtp_server_mistake(server, "501 5.5.4 Syntax: BDAT size [LAST]");
    }
    if (is_huge) {
        smtp_server_reply(server, faults[SMTP_CONTENT_TOO_LARGE].reply);
        return STEP_CLOSING;
    }
    server->chunk_size = size;
    server->chunk_left = size;
    server->is_last_chunk = is_last;
    uint64_t before = server->content != NULL ? server->content->length : 0;
    if (limit != 0 && (size > limit || before > limit - size)) {
        return refuse_chunk(server, event, SMTP_CONTENT_TOO_LARGE);
    }
    if (server->is_chunked) {
        return STEP_CHUNK;
    }
    if (!begin_content(server, false)) {
        (void)out_of_memory(server, event);
        return STEP_SKIP_CHUNK;
    }
    server->is_chunked = true;
    return smtp_server_ask(server, event, SMTP_SERVER_DATA);
}

static enum smtp_server_step end_chunk(struct smtp_server *server, struct smtp_server_event *event)
{
    server->since_ms = server->now_ms;
    if (server->is_last_chunk) {
        event->bytes = smtp_content_finish(server->content);
    }
    if (server->content->fault != SMTP_CONTENT_GOOD) {
        return refuse_chunk(server, event, server->content->fault);
    }
    if (!server->is_last_chunk) {
        smtp_server_reply_chunk(server, server->chunk_size);
        return STEP_COMMAND;
    }
    if (event->bytes.length > 0) {
        event->kind = SMTP_SERVER_CONTENT;
        return STEP_END;
    }
    return ask_end(server, event);
}

enum smtp_server_step smtp_server_step_chunk(struct smtp_server *server,
                                             struct smtp_server_event *event)
{
    struct slice window = slice_take(
        server->input, server->chunk_left < SIZE_MAX ? (size_t)server->chunk_left : SIZE_MAX);
    if (server->chunk_left == 0) {
        return end_chunk(server, event);
    }
    if (window.length == 0) {
        server->starved = true;
        return STEP_CHUNK;
    }
    struct slice rest = window;
    enum smtp_content_result result = smtp_content_next(server->content, &rest, &event->bytes);
    smtp_server_consume(server, window.length - rest.length);
    server->chunk_left -= window.length - rest.length;
    if (server->content->fault != SMTP_CONTENT_GOOD && server->has_mail) {
        smtp_server_abort(server, event, faults[server->content->fault].reason);
    }
    if (result == SMTP_CONTENT_RUN) {
        event->kind = SMTP_SERVER_CONTENT;
    }
    return STEP_CHUNK;
}

enum smtp_server_step smtp_server_step_skip_chunk(struct smtp_server *server,
                                                  struct smtp_server_event *event)
{
    (void)event;
    size_t count = slice_take(server->input,
                              server->chunk_left < SIZE_MAX ? (size_t)server->chunk_left : SIZE_MAX)
                       .length;
    smtp_server_consume(server, count);
    server->chunk_left -= count;
    if (server->chunk_left > 0) {
        server->starved = true;
        return STEP_SKIP_CHUNK;
    }
    server->since_ms = server->now_ms;
    return STEP_COMMAND;
}
