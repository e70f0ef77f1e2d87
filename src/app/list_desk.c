/* SPDX-License-Identifier: Apache-2.0
 *
 *   source due  ->  its file is asked for, or its page  ->  has it changed?  ->  begin
 *   begin -> add, a batch of addresses at a time -> end     or, at any fault, failed
 *
 * All that a source gives becomes text, an address a line (app/recipient_list.h). A file is read
 * as it is handed over, once it has not changed for SETTLED_MS, so that one which is being written
 * is not taken for a short one; a page is in memory, as is what a directory says, and what came
 * with the settings of a cluster. A directory may take minutes: the others do not wait for its
 * answer, which lies with its source until its turn.
 */
#include "app/list_desk.h"

#include "app/hook_core.h"
#include "app/keeper_channel.h"
#include "app/list_source.h"
#include "app/list_text.h"
#include "app/recipient_list.h"
#include "app/settings.h"
#include "base/digest.h"
#include "relay/routing.h"
#include "service/control.h"
#include "service/control_frame.h"
#include "sys/clock.h"
#include "sys/log.h"
#include "sys/random.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    TICK_MS = 500,
    SETTLED_MS = 1500,
    AGAIN_MS = 5000,       /* core was not there */
    PAGE_AGAIN_MS = 60000, /* what failed and is no file, unless it is asked more often anyway */
    TOLD_EVERY_MS = 60000, /* that it is as it was */
    OPEN_PATIENCE_MS = 10000,
    DIRECTORY_WAIT_MS = 1500000, /* the process that asks one answers before */
    PAGE_TIMEOUT_MS = 60000,
    PAGE_BYTES_MAX = 64 << 20,
    BATCH = 5000,            /* addresses in a request, */
    BATCH_BYTES = 256 << 10, /* and so long together: written as JSON they fill half a frame */
    PIECE = 256 << 10,
    PROBLEM_SIZE = 160 + RECIPIENT_PROBLEM_MAX,
};

#define AUTHORIZATION "Authorization: Bearer "

enum phase { PHASE_IDLE, PHASE_ASKED, PHASE_READING, PHASE_LAST };

struct list_desk {
    struct loop *loop;
    const struct service_config *config;
    struct routing *routing; /* of it */
    struct fetcher *fetcher;
    struct hook_core *core;
    struct loop_timer *timer;
    int files;
    struct loop_watch *watch;
    int directories;
    struct loop_watch *directories_watch;
    struct list_source *sources;

    /* The source at work. */
    enum phase phase;
    struct list_source *source;
    uint64_t token; /* of what it has been asked for */
    uint64_t next_question;
    int64_t asked_ms;
    int fd;             /* -1: it is a page */
    struct buffer text; /* the page; of a file what has been read of it and not taken */
    struct recipient_lines lines;
    size_t used; /* of the page */
    size_t batch_bytes;
    bool is_end;
    uint64_t names, passed_over;
    char problem[PROBLEM_SIZE];
};

static void go_on(void *context, const char *error);

/* ---- the end of one -------------------------------------------------------------------------- */

static void drop(struct list_desk *desk)
{
    if (desk->fd >= 0) {
        close(desk->fd);
    }
    desk->fd = -1;
    buffer_done(&desk->text);
    desk->source = NULL;
    desk->phase = PHASE_IDLE;
    desk->token++;
}

/* Leaves the source at work until so much later. */
static void leave(struct list_desk *desk, int64_t later_ms)
{
    desk->source->due_ms = clock_steady_ms() + later_ms;
    drop(desk);
}

static void leave_until_due(struct list_desk *desk)
{
    const struct list_source *source = desk->source;
    int64_t every_ms = (int64_t)source->every_ms;
    bool is_urgent = source->is_failing && source->kind != SOURCE_FILE;
    leave(desk, is_urgent && every_ms > PAGE_AGAIN_MS ? PAGE_AGAIN_MS : every_ms);
}

/* False: core is not there, and the source comes again. */
static bool ask(struct list_desk *desk, const char *step, const char *key, json_t *value)
{
    const struct hook_asker asker = {.context = desk, .end = go_on};
    json_t *arguments = json_pack("{ss so}", "step", step, "source",
                                  control_string(slice_from_text(desk->source->name)));
    if (value != NULL) {
        (void)json_object_set_new(arguments, key, value);
    }
    if (arguments == NULL || !hook_core_ask(desk->core, "recipients load", arguments, &asker)) {
        desk->source->is_taken = false;
        leave(desk, AGAIN_MS);
        return false;
    }
    return true;
}

static void fail(struct list_desk *desk, const char *problem)
{
    struct list_source *source = desk->source;
    snprintf(desk->problem, sizeof(desk->problem), "%s", problem);
    if (!source->is_failing || !source->is_taken) {
        log_event(LOG_LEVEL_WARNING, "recipients-list-failed",
                  LOG_SLICE("source", slice_from_text(source->name)),
                  LOG_TEXT("reason", desk->problem));
    }
    source->is_failing = source->is_taken = true;
    source->told_ms = clock_steady_ms();
    source->etag[0] = '\0';
    desk->phase = PHASE_LAST;
    (void)ask(desk, "failed", "problem", control_string(slice_from_text(desk->problem)));
}

static void is_as_it_was(struct list_desk *desk)
{
    struct list_source *source = desk->source;
    int64_t now_ms = clock_steady_ms();
    if (source->is_failing || now_ms - source->told_ms < TOLD_EVERY_MS) {
        leave_until_due(desk); /* a file with a fault stays one */
        return;
    }
    source->told_ms = now_ms;
    desk->phase = PHASE_LAST;
    (void)ask(desk, "same", NULL, NULL);
}

/* ---- reading --------------------------------------------------------------------------------- */

static const char out_of_memory[] = "out of memory";

/* Of each block that has this source: one without a domain may be of several. NULL, or why it is of
 * none. */
static const char *put_line(struct list_desk *desk, const struct recipient_line *line,
                            json_t *batch)
{
    const struct relay_config *config = &desk->config->relay;
    struct slice name = slice_from_text(desk->source->name), domain = SLICE_EMPTY;
    const char *why = "no block has this source";
    bool is_put = false;
    for (uint32_t i = 0; i < config->route_count; i++) {
        const struct route_config *route = &config->routes[i];
        if (route->recipients != RECIPIENTS_LIST || !slice_equal(route->recipients_list, name)) {
            continue;
        }
        why = recipient_line_domain(route, line, &domain);
        if (why == NULL && line->domain.length > 0 && routing_domain(desk->routing, domain) != i) {
            why = "a domain with a block of its own";
        }
        if (why == NULL) {
            is_put = true;
            if (json_array_append_new(batch, control_mailbox(line->local, domain)) != 0) {
                return out_of_memory;
            }
            desk->batch_bytes += line->local.length + domain.length;
        }
    }
    return is_put ? NULL : why;
}

static bool has_room(const struct list_desk *desk, const json_t *batch)
{
    return json_array_size(batch) < BATCH && desk->batch_bytes < BATCH_BYTES;
}

/* The whole lines that are there, as many as fit. NULL, or a fault. */
static const char *take_lines(struct list_desk *desk, json_t *batch)
{
    struct recipient_line line;
    const char *why = NULL;
    while (has_room(desk, batch) && recipient_lines_next(&desk->lines, &line, &why)) {
        why = put_line(desk, &line, batch);
        /* Of a domain that is not ours: lists may be of others, too. A name alone in a directory
         * may be what somebody has written into his own entry. */
        if (why != NULL && why != out_of_memory &&
            (line.domain.length > 0 || desk->source->kind == SOURCE_DIRECTORY)) {
            desk->passed_over++;
            continue;
        }
        if (why != NULL) {
            return why;
        }
        desk->names++;
    }
    return why;
}

/* More of a file, behind what is left of it. NULL, or why not. */
static const char *read_piece(struct list_desk *desk)
{
    size_t left = desk->lines.rest.length;
    if (left > 0) {
        memmove(desk->text.data, desk->lines.rest.data, left);
    }
    desk->text.length = left;
    if (buffer_reserve(&desk->text, PIECE) != ERROR_NONE) {
        return "out of memory";
    }
    ssize_t got;
    do {
        got = read(desk->fd, desk->text.data + left, PIECE);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        return strerror(errno);
    }
    desk->text.length += (size_t)got;
    desk->is_end = got == 0;
    desk->lines.rest = buffer_slice(&desk->text);
    desk->lines.is_end = desk->is_end;
    return NULL;
}

static const char *fill(struct list_desk *desk, json_t *batch)
{
    desk->batch_bytes = 0;
    const char *why = take_lines(desk, batch);
    while (why == NULL && has_room(desk, batch) && !desk->is_end) {
        why = read_piece(desk);
        why = why == NULL ? take_lines(desk, batch) : why;
    }
    return why;
}

/* It has been written while it was read. */
static bool has_moved(const struct list_desk *desk)
{
    struct stat status;
    if (desk->fd < 0 || fstat(desk->fd, &status) != 0) {
        return false;
    }
    struct list_stamp now = list_stamp_of(&status);
    return !list_stamp_is(&now, &desk->source->stamp);
}

static void end_list(struct list_desk *desk)
{
    if (has_moved(desk)) {
        desk->source->is_taken = false;
        leave(desk, LIST_FILE_EVERY_MS);
    } else if (desk->names == 0) {
        fail(desk, desk->passed_over > 0 ? "it names nobody of our domains" : "it names nobody");
    } else {
        desk->phase = PHASE_LAST;
        (void)ask(desk, "end", "names", json_integer((json_int_t)desk->names));
    }
}

static void next_batch(struct list_desk *desk)
{
    json_t *batch = json_array();
    const char *why = batch == NULL ? "out of memory" : fill(desk, batch);
    if (why != NULL) {
        char problem[RECIPIENT_PROBLEM_MAX];
        snprintf(problem, sizeof(problem), "line %u: %s", desk->lines.line, why);
        json_decref(batch);
        fail(desk, problem);
    } else if (json_array_size(batch) > 0) {
        (void)ask(desk, "add", "addresses", batch);
    } else {
        json_decref(batch);
        end_list(desk);
    }
}

static bool is_passing(const char *error)
{
    return strcmp(error, HOOK_CORE_GONE) == 0 || strcmp(error, CONTROL_LIST_ENDED) == 0 ||
           strcmp(error, CONTROL_LIST_UNKNOWN) == 0;
}

static void refused(struct list_desk *desk, const char *error)
{
    bool comes_again = is_passing(error);
    if (!comes_again && desk->problem[0] == '\0') {
        fail(desk, error); /* the same list would be refused again */
        return;
    }
    log_event(LOG_LEVEL_WARNING, "recipients-list-refused",
              LOG_SLICE("source", slice_from_text(desk->source->name)), LOG_TEXT("reason", error));
    if (comes_again) {
        desk->source->is_taken = false;
        leave(desk, AGAIN_MS);
    } else {
        leave_until_due(desk);
    }
}

/* Core has answered. */
static void go_on(void *context, const char *error)
{
    struct list_desk *desk = context;
    if (desk->source == NULL) {
        return; /* given up meanwhile */
    }
    if (error != NULL) {
        refused(desk, error);
    } else if (desk->phase == PHASE_LAST) {
        if (desk->problem[0] == '\0') {
            desk->source->is_taken = true;
            desk->source->is_failing = false;
            desk->source->told_ms = clock_steady_ms();
        }
        leave_until_due(desk);
    } else {
        next_batch(desk);
    }
}

static void begin_list(struct list_desk *desk)
{
    desk->phase = PHASE_READING;
    desk->names = desk->passed_over = 0;
    (void)ask(desk, "begin", NULL, NULL);
}

/* ---- files ----------------------------------------------------------------------------------- */

static void take_file(struct list_desk *desk, int fd)
{
    struct list_source *source = desk->source;
    struct stat status;
    desk->fd = fd;
    if (fstat(fd, &status) != 0) {
        fail(desk, strerror(errno));
        return;
    }
    struct list_stamp stamp = list_stamp_of(&status);
    if (source->is_taken && list_stamp_is(&stamp, &source->stamp)) {
        is_as_it_was(desk);
        return;
    }
    int64_t age_ms = clock_wall_ms() - stamp.modified_ns / 1000000;
    if (age_ms >= 0 && age_ms < SETTLED_MS) {
        leave(desk, SETTLED_MS - age_ms);
        return;
    }
    source->stamp = stamp;
    if (!S_ISREG(status.st_mode)) {
        fail(desk, "it is not an ordinary file");
    } else if (status.st_size > RECIPIENT_LIST_BYTES_MAX) {
        fail(desk, "it is too large");
    } else {
        buffer_init(&desk->text, 0);
        desk->is_end = false;
        desk->lines = (struct recipient_lines){.rest = SLICE_EMPTY};
        begin_list(desk);
    }
}

static void cannot_open(struct list_desk *desk, enum error why)
{
    static const struct list_stamp none = {0};
    struct list_source *source = desk->source;
    if (source->is_failing && source->is_taken && list_stamp_is(&source->stamp, &none)) {
        leave_until_due(desk); /* as before */
        return;
    }
    source->stamp = none;
    fail(desk, error_text(why));
}

static void file_answered(void *context, unsigned ready)
{
    (void)ready;
    struct list_desk *desk = context;
    for (;;) {
        struct dial_answer answer;
        enum error error = dial_answered(desk->files, &answer);
        if (error == ERROR_AGAIN) {
            return;
        }
        if (error != ERROR_NONE) {
            loop_watch_set(desk->watch, 0); /* the keeper has gone, and we go with it */
            return;
        }
        if (desk->phase != PHASE_ASKED || answer.token != desk->token) {
            if (answer.fd >= 0) {
                close(answer.fd);
            }
        } else if (answer.fd >= 0) {
            take_file(desk, answer.fd);
        } else {
            cannot_open(desk, answer.error);
        }
    }
}

/* ---- pages ----------------------------------------------------------------------------------- */

static void take_text(struct list_desk *desk)
{
    desk->lines = (struct recipient_lines){.rest = buffer_slice(&desk->text), .is_end = true};
    desk->is_end = true;
    begin_list(desk);
}

static void take_page(struct list_desk *desk, struct slice body)
{
    const char *why = list_text_from_page(body, &desk->text);
    if (why != NULL) {
        fail(desk, why);
        return;
    }
    take_text(desk);
}

static void page_answered(void *context, uint64_t slot, const struct fetch_answer *answer)
{
    struct list_desk *desk = context;
    if (desk->phase != PHASE_ASKED || slot != desk->token) {
        return;
    }
    struct list_source *source = desk->source;
    if (answer->problem != NULL) {
        fail(desk, answer->problem);
    } else if (answer->status == 304) {
        is_as_it_was(desk);
    } else {
        bool fits = answer->etag.length < LIST_ETAG_SIZE;
        snprintf(source->etag, LIST_ETAG_SIZE, "%.*s", fits ? (int)answer->etag.length : 0,
                 (const char *)answer->etag.data);
        source->is_taken = false;
        take_page(desk, answer->body);
    }
}

/* ---- directories ----------------------------------------------------------------------------- */

static void directory_answered(void *context, unsigned ready)
{
    (void)ready;
    struct list_desk *desk = context;
    for (;;) {
        struct dial_answer answer;
        enum error error = dial_answered(desk->directories, &answer);
        if (error == ERROR_AGAIN) {
            return;
        }
        if (error != ERROR_NONE) {
            loop_watch_set(desk->directories_watch, 0); /* the keeper gives another */
            return;
        }
        struct list_source *source = desk->sources;
        while (source != NULL && source->token != answer.token) {
            source = source->next;
        }
        if (source == NULL || source->is_answered) {
            if (answer.fd >= 0) {
                close(answer.fd);
            }
            continue;
        }
        list_source_answer(source, &answer);
    }
}

static void ask_directory(struct list_desk *desk, struct list_source *source)
{
    struct slice name = slice_from_text(source->name);
    name = slice_skip(name, slice_find(name, ':') + 1);
    bool is_asked = desk->directories >= 0 &&
                    dial_ask(desk->directories, ++desk->next_question, name) == ERROR_NONE;
    source->token = is_asked ? desk->next_question : 0;
    source->due_ms = clock_steady_ms() + (is_asked ? DIRECTORY_WAIT_MS : AGAIN_MS);
}

/* Its text in memory, an address a line. */
static const char *read_answer(struct list_desk *desk, int fd)
{
    char *text;
    size_t length;
    enum error error = keeper_text_from_descriptor(fd, &text, &length);
    if (error != ERROR_NONE) {
        return error_text(error);
    }
    desk->text.data = (uint8_t *)text;
    desk->text.length = length;
    desk->text.capacity = length + 1;
    return NULL;
}

static void take_directory(struct list_desk *desk)
{
    struct list_source *source = desk->source;
    uint8_t digest[DIGEST_MAX_BYTES];
    enum error error = source->answer.error;
    const char *why = error == ERROR_NONE                 ? read_answer(desk, source->answer.fd)
                      : source->answer.problem[0] != '\0' ? source->answer.problem
                                                          : error_text(error);
    list_source_forget(source);
    if (error == ERROR_AGAIN) {
        leave(desk, AGAIN_MS); /* a reload, say */
        return;
    }
    if (why != NULL) {
        fail(desk, why);
        return;
    }
    error = digest_make(DIGEST_SHA256, buffer_slice(&desk->text), digest);
    if (error == ERROR_NONE && source->is_taken && !source->is_failing &&
        memcmp(digest, source->digest, sizeof(digest)) == 0) {
        is_as_it_was(desk);
        return;
    }
    memcpy(source->digest, digest, sizeof(digest));
    source->is_taken = false;
    take_text(desk);
}

/* ---- what came with the configuration -------------------------------------------------------- */

static void take_shared(struct list_desk *desk)
{
    const struct relay_config *config = &desk->config->relay;
    struct slice name = slice_from_text(desk->source->name), text = SLICE_EMPTY;
    if (desk->source->is_taken) {
        is_as_it_was(desk); /* another one comes with another configuration */
        return;
    }
    for (uint32_t i = 0; i < config->route_count; i++) {
        if (route_list_is_shared(&config->routes[i]) &&
            slice_equal(config->routes[i].recipients_list, name)) {
            text = config->routes[i].recipients_text;
        }
    }
    buffer_init(&desk->text, 0);
    buffer_append(&desk->text, text);
    if (desk->text.failed) {
        fail(desk, out_of_memory);
        return;
    }
    take_text(desk);
}

/* ---- whose turn it is ------------------------------------------------------------------------ */

/* RFC 6750 section 2.1. False: no block of this page has a token. */
static bool put_token(const struct list_desk *desk, char *header, size_t size)
{
    const struct relay_config *config = &desk->config->relay;
    for (uint32_t i = 0; i < config->route_count; i++) {
        const struct route_config *route = &config->routes[i];
        if (route->recipients_token.length > 0 &&
            slice_equal(route->recipients_list, slice_from_text(desk->source->name))) {
            snprintf(header, size, AUTHORIZATION "%.*s", SLICE_PRINT(route->recipients_token));
            return true;
        }
    }
    return false;
}

static void begin(struct list_desk *desk, struct list_source *source)
{
    if (source->kind == SOURCE_DIRECTORY && source->token == 0) {
        ask_directory(desk, source);
        return;
    }
    if (source->kind == SOURCE_DIRECTORY && !source->is_answered) {
        list_source_answer(source, &(struct dial_answer){.error = ERROR_TIMEOUT, .fd = -1});
    }
    desk->source = source;
    desk->phase = PHASE_ASKED;
    desk->asked_ms = clock_steady_ms();
    desk->problem[0] = '\0';
    desk->token++;
    if (source->kind == SOURCE_DIRECTORY) {
        take_directory(desk);
        return;
    }
    if (source->kind == SOURCE_SHARED) {
        take_shared(desk);
        return;
    }
    if (source->kind == SOURCE_FILE) {
        if (desk->files < 0 ||
            dial_ask(desk->files, desk->token, slice_from_text(source->name)) != ERROR_NONE) {
            leave(desk, AGAIN_MS);
        }
        return;
    }
    char header[sizeof(AUTHORIZATION) + SETTINGS_SECRET_MAX];
    bool has_token = put_token(desk, header, sizeof(header));
    const struct fetch page = {
        .fn = page_answered,
        .context = desk,
        .slot = desk->token,
        .url = source->name,
        .may_be_plain = true, /* to this machine alone: the settings see to it */
        .etag = source->is_taken && source->etag[0] != '\0' ? source->etag : NULL,
        .header = has_token ? header : NULL,
        .most_bytes = PAGE_BYTES_MAX,
        .timeout_ms = PAGE_TIMEOUT_MS};
    fetch_begin(desk->fetcher, &page);
    digest_forget(header, sizeof(header));
}

static void tick(void *context)
{
    struct list_desk *desk = context;
    int64_t now_ms = clock_steady_ms();
    loop_timer_set(desk->timer, TICK_MS);
    if (desk->phase == PHASE_ASKED && desk->source->kind == SOURCE_FILE &&
        now_ms - desk->asked_ms > OPEN_PATIENCE_MS) {
        leave(desk, AGAIN_MS);
    }
    struct list_source *first = NULL;
    for (struct list_source *at = desk->sources; at != NULL; at = at->next) {
        first = at->due_ms <= now_ms && (first == NULL || at->due_ms < first->due_ms) ? at : first;
    }
    if (desk->phase == PHASE_IDLE && first != NULL) {
        begin(desk, first);
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

static void give_up(struct list_desk *desk)
{
    fetch_cancel(desk->fetcher, desk);
    hook_core_forget(desk->core);
    if (desk->source != NULL) {
        leave(desk, 0);
    }
}

enum error list_desk_reconfigure(struct list_desk *desk, const struct service_config *config)
{
    struct list_source *sources;
    struct routing *routing = routing_new(&config->relay);
    enum error error =
        routing == NULL ? ERROR_MEMORY : list_sources_make(&config->relay, desk->sources, &sources);
    if (error != ERROR_NONE) {
        routing_free(routing);
        return error;
    }
    give_up(desk);
    list_sources_free(desk->sources);
    routing_free(desk->routing);
    desk->sources = sources;
    desk->routing = routing;
    desk->config = config;
    return ERROR_NONE;
}

void list_desk_set_core(struct list_desk *desk, int fd)
{
    give_up(desk);
    for (struct list_source *at = desk->sources; at != NULL; at = at->next) {
        at->is_taken = false;
        at->due_ms = 0;
        list_source_forget(at);
    }
    hook_core_set(desk->core, fd);
}

bool list_desk_set_files(struct list_desk *desk, int fd)
{
    desk->files = fd;
    desk->watch = loop_watch_new(desk->loop, fd, file_answered, desk);
    if (desk->watch != NULL) {
        loop_watch_set(desk->watch, LOOP_READ);
    }
    return desk->watch != NULL;
}

void list_desk_set_directories(struct list_desk *desk, int fd)
{
    loop_watch_free(desk->directories_watch);
    if (desk->directories >= 0) {
        close(desk->directories);
    }
    desk->directories_watch =
        fd >= 0 ? loop_watch_new(desk->loop, fd, directory_answered, desk) : NULL;
    desk->directories = desk->directories_watch != NULL ? fd : -1;
    if (desk->directories_watch != NULL) {
        loop_watch_set(desk->directories_watch, LOOP_READ);
    } else if (fd >= 0) {
        close(fd);
    }
    for (struct list_source *at = desk->sources; at != NULL; at = at->next) {
        if (at->token != 0 && !at->is_answered) {
            list_source_answer(at, &(struct dial_answer){
                                       .error = ERROR_CLOSED,
                                       .fd = -1,
                                       .problem = "the process that asks directories has ended"});
        }
    }
}

struct list_desk *list_desk_new(struct loop *loop, const struct service_config *config,
                                struct fetcher *fetcher)
{
    struct list_desk *desk = calloc(1, sizeof(*desk));
    if (desk == NULL) {
        return NULL;
    }
    *desk = (struct list_desk){.loop = loop,
                               .config = config,
                               .fetcher = fetcher,
                               .files = -1,
                               .directories = -1,
                               .fd = -1};
    desk->next_question = random_u64();
    buffer_init(&desk->text, 0);
    desk->core = hook_core_new(loop);
    desk->timer = loop_timer_new(loop, tick, desk);
    desk->routing = routing_new(&config->relay);
    if (desk->core == NULL || desk->timer == NULL || desk->routing == NULL ||
        list_sources_make(&config->relay, NULL, &desk->sources) != ERROR_NONE) {
        list_desk_free(desk);
        return NULL;
    }
    loop_timer_set(desk->timer, 0);
    return desk;
}

void list_desk_free(struct list_desk *desk)
{
    if (desk == NULL) {
        return;
    }
    if (desk->core != NULL) {
        give_up(desk);
    }
    hook_core_free(desk->core);
    loop_timer_free(desk->timer);
    loop_watch_free(desk->watch);
    if (desk->files >= 0) {
        close(desk->files);
    }
    list_desk_set_directories(desk, -1);
    list_sources_free(desk->sources);
    routing_free(desk->routing);
    free(desk);
}
