/* SPDX-License-Identifier: Apache-2.0
 *
 * A list of recipients out of a directory, on a thread of its own: who logs in does not wait for
 * it.
 *
 * What a directory does not tell to its end is no list: an entry that is cut, a limit of its own, a
 * connection that breaks are all failures, and the next server is asked. A value that is no address
 * is no fault of the list's, for people may write what they like into their own entry.
 */
#include "app/directory_internal.h"

#include "app/dial.h"
#include "app/keeper_channel.h"
#include "app/list_text.h"
#include "sys/clock.h"
#include "sys/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    PAGE_ENTRIES = 500, /* as most directories allow at least */
    ENTRIES_MAX = 5000000,
    SILENCE_MS = 60000, /* of a directory that searches */
    LISTS_WAITING = 4,  /* of one directory */
    REQUESTS_PER_TURN = 16,
};

struct reading {
    struct visit visit; /* the first */
    uint64_t token;
    struct ldap_session *session;
    struct buffer text;
    uint64_t entries, passed_over;
    bool is_broken_off;
    int fd; /* -1: none yet */
};

/* ---- on its thread ------------------------------------------------------------------------ */

static void allow_more(struct reading *reading)
{
    int64_t until_ms = clock_steady_ms() + SILENCE_MS;
    ldap_session_allow(reading->session, until_ms < reading->visit.deadline_ms
                                             ? until_ms
                                             : reading->visit.deadline_ms);
}

static bool break_off(struct reading *reading, const char *why, const char *dn)
{
    snprintf(reading->visit.problem, sizeof(reading->visit.problem), "%s%s%.150s", why,
             dn != NULL ? ": " : "", dn != NULL ? dn : "");
    reading->is_broken_off = true;
    return false;
}

/* Attributes of one entry have the same address often. */
static bool is_there(const struct buffer *text, size_t from, struct slice line)
{
    struct slice rest = slice_skip(buffer_slice(text), from);
    while (rest.length > 0) {
        size_t length = slice_find(rest, '\n');
        if (slice_equal_fold(slice_take(rest, length), line)) {
            return true;
        }
        rest = slice_skip(rest, length + 1);
    }
    return false;
}

static bool take_entry(void *context, const struct ldap_entry *entry)
{
    struct reading *reading = context;
    struct buffer *text = &reading->text;
    size_t before = text->length;
    if (entry->is_cut) {
        return break_off(reading, "an entry has more values than can be read", entry->dn);
    }
    for (size_t i = 0; i < entry->count; i++) {
        struct slice address;
        if (!list_text_from_value(entry->values[i].bytes, &address)) {
            reading->passed_over += !list_text_is_of_other_kind(entry->values[i].bytes);
        } else if (!is_there(text, before, address)) {
            buffer_append(text, address);
            buffer_put_u8(text, '\n');
        }
    }
    reading->entries++;
    allow_more(reading);
    return !text->failed || break_off(reading, "it is too large", NULL);
}

static bool search(struct reading *reading)
{
    const struct ldap_config *config = reading->visit.directory->config;
    char base[LDAP_TEXT_MAX], filter[LDAP_TEXT_MAX];
    const struct ldap_search what = {.base = base,
                                     .reach = LDAP_REACH_TREE,
                                     .filter = filter,
                                     .attributes = config->attributes,
                                     .attribute_count = config->attribute_count,
                                     .limit = ENTRIES_MAX,
                                     .page = PAGE_ENTRIES};
    visit_text(config->base, base);
    visit_text(config->recipients_filter, filter);
    return ldap_session_search(reading->session, &what, take_entry, reading,
                               reading->visit.problem) == ERROR_NONE &&
           !reading->is_broken_off;
}

static bool read_list(struct visit *visit, struct ldap_session *session)
{
    struct reading *reading = (struct reading *)visit;
    reading->session = session;
    reading->entries = reading->passed_over = 0;
    reading->is_broken_off = false;
    buffer_clear(&reading->text);
    if (!visit_bind(visit, session)) {
        return false;
    }
    allow_more(reading);
    if (!search(reading)) {
        return visit_fails(visit, "search");
    }
    enum error error = keeper_text_to_descriptor(buffer_slice(&reading->text), &reading->fd);
    return error == ERROR_NONE || visit_fails(visit, error_text(error));
}

/* ---- its answer --------------------------------------------------------------------------- */

static void answer(struct directory_desk *desk, const struct dial_answer *answer)
{
    if (desk->lists.fd >= 0 && dial_answer(desk->lists.fd, answer) != ERROR_NONE) {
        log_event(LOG_LEVEL_WARNING, "list-unanswered", LOG_TEXT("reason", "helper is slow"));
    }
}

static void reading_free(struct visit *visit)
{
    struct reading *reading = (struct reading *)visit;
    visit->directory->lists--;
    visit_done(visit);
    if (reading->fd >= 0) {
        close(reading->fd);
    }
    buffer_done(&reading->text);
    free(reading);
}

/* Said when it changes, not at each reading. */
static void log_list(struct reading *reading)
{
    struct directory *directory = reading->visit.directory;
    log_event(LOG_LEVEL_DEBUG, "directory-list", LOG_SLICE("ldap", directory->config->name),
              LOG_NUMBER("entries", (int64_t)reading->entries));
    if (reading->passed_over > 0 && reading->passed_over != directory->passed_over) {
        log_event(LOG_LEVEL_WARNING, "directory-values-passed-over",
                  LOG_SLICE("ldap", directory->config->name),
                  LOG_NUMBER("values", (int64_t)reading->passed_over),
                  LOG_TEXT("reason", "they are no addresses"));
    }
    directory->passed_over = reading->passed_over;
}

static void end_reading(struct visit *visit)
{
    struct reading *reading = (struct reading *)visit;
    struct generation *generation = visit->directory->generation;
    struct dial_answer reply = {.token = reading->token, .fd = -1};
    if (visit->is_answered) {
        log_list(reading);
        reply.fd = reading->fd;
    } else if (generation != generation->desk->generation) {
        reply.error = ERROR_AGAIN;
    } else {
        reply.error = ERROR_IO;
        snprintf(reply.problem, sizeof(reply.problem), "%s", visit->problem);
    }
    answer(generation->desk, &reply);
    reading_free(visit);
}

static const struct visit_kind list_visit = {
    .is_interrupted = true, .ask = read_list, .end = end_reading, .free = reading_free};

/* ---- requests ----------------------------------------------------------------------------- */

static void take_request(struct directory_desk *desk, const struct dial_request *request)
{
    struct directory *directory = directory_named(desk->generation, slice_from_text(request->name));
    bool has_room = directory != NULL && directory->workers[DIRECTORY_LIST_THREAD] != NULL &&
                    directory->lists < LISTS_WAITING;
    struct reading *reading = has_room ? calloc(1, sizeof(*reading)) : NULL;
    if (reading == NULL) {
        answer(desk, &(struct dial_answer){request->token, ERROR_AGAIN, -1, ""});
        return;
    }
    reading->token = request->token;
    reading->fd = -1;
    buffer_init(&reading->text, DIRECTORY_LIST_BYTES_MAX);
    directory->lists++;
    visit_begin(&reading->visit, &list_visit, directory, DIRECTORY_LIST_THREAD,
                DIRECTORY_LIST_PATIENCE_MS);
}

void directory_list_heard(void *context, unsigned ready)
{
    struct directory_desk *desk = context;
    (void)ready;
    for (int i = 0; i < REQUESTS_PER_TURN && desk->lists.fd >= 0; i++) {
        struct dial_request request;
        enum error error = dial_receive(desk->lists.fd, &request);
        if (error == ERROR_AGAIN) {
            return;
        }
        if (error != ERROR_NONE) {
            directory_desk_set_lists(desk, -1); /* the keeper gives another */
            return;
        }
        take_request(desk, &request);
    }
}
