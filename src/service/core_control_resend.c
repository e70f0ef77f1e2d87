/* SPDX-License-Identifier: Apache-2.0
 *
 * `queue resend`: what was handed over and is still kept becomes mail again, under new ids and with
 * the bytes that it had, in the order in which it was accepted. Each message is one batch, and says
 * whose copy it is: so wherever a run ends, the next one goes on behind it.
 *
 * Nobody is told of what becomes of it, neither delay nor refusal: its sender has been told
 * "delivered", if anything. What is refused is a dead letter.
 *
 * A step takes a bounded number of bytes, gives them to the spool, and waits until they are stored.
 */
#include "service/core_control.h"

#include "spool/copies.h"
#include "sys/clock.h"

#include <stdlib.h>

enum {
    STEP_BYTES = 1 << 20,
    STEP_MESSAGES = 256,
    PART_BYTES = 256 << 10,
};

static const uint32_t kept_flags = SPOOL_8BIT | SPOOL_SMTPUTF8 | SPOOL_RET_FULL |
                                   SPOOL_RET_HEADERS | SPOOL_OWN_DSN | SPOOL_REQUIRE_TLS |
                                   SPOOL_TLS_OPTIONAL;

/* A message on its way to be accepted again. */
struct resent {
    struct core *core;
    struct control_request *request;
    struct arena arena;
    struct spool_message message;
    const uint32_t *deliveries; /* their numbers in the message that it is a copy of */
    uint32_t all;               /* recipients of that one */
    int64_t when_ms;
    struct slice server;
    struct spool_content *content;
    uint64_t sent; /* bytes of it */
};

struct control_resend {
    struct spool_copies *copies;
    bool searching;
    enum error error; /* of the search */
    struct spool_copies_counts counts;
    size_t next;            /* message */
    uint64_t told;          /* deliveries dealt with, as last told */
    uint64_t dealt;         /* deliveries */
    struct resent *current; /* its content is being copied */
    bool dry_run;
    bool unreadable;
    enum error refused; /* by the spool */
};

/* ---- which ----------------------------------------------------------------------------------- */

struct wanted_id {
    struct message_id id;
    uint32_t delivery; /* or SPOOL_ALL_DELIVERIES */
};

/* What a search looks at on another thread: all its own. */
struct choice {
    struct arena arena;
    struct selection selection;
    struct wanted_id *ids;
    size_t count;
};

static int by_id(const void *a, const void *b)
{
    return id_compare(((const struct wanted_id *)a)->id, ((const struct wanted_id *)b)->id);
}

static bool is_wanted_id(const struct choice *choice, struct message_id id, uint32_t delivery)
{
    size_t low = 0, high = choice->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (id_compare(choice->ids[middle].id, id) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    for (; low < choice->count && id_equal(choice->ids[low].id, id); low++) {
        uint32_t only = choice->ids[low].delivery;
        if (only == SPOOL_ALL_DELIVERIES || only == delivery) {
            return true;
        }
    }
    return false;
}

static bool wants(const void *context, const struct spool_message *message, uint32_t delivery)
{
    const struct choice *choice = context;
    return (choice->ids == NULL || is_wanted_id(choice, message->id, delivery)) &&
           control_sender_matches(&choice->selection, message->sender) &&
           control_recipient_matches(&choice->selection, message->recipients[delivery].address);
}

static void choice_free(void *context)
{
    struct choice *choice = context;
    free(choice->ids);
    arena_done(&choice->arena);
    free(choice);
}

static bool copy_ids(struct choice *choice, const json_t *ids)
{
    size_t count = json_array_size(ids);
    choice->ids = ids == NULL ? NULL : calloc(count + 1, sizeof(*choice->ids));
    for (size_t i = 0; choice->ids != NULL && i < count; i++) {
        struct wanted_id *wanted = &choice->ids[choice->count];
        choice->count += control_parse_id(json_array_get(ids, i), &wanted->id, &wanted->delivery);
    }
    if (choice->count > 0) {
        qsort(choice->ids, choice->count, sizeof(*choice->ids), by_id);
    }
    return ids == NULL || choice->ids != NULL;
}

/* NULL: memory. */
static struct choice *choice_new(const struct selection *selection)
{
    struct choice *choice = calloc(1, sizeof(*choice));
    if (choice == NULL) {
        return NULL;
    }
    arena_init(&choice->arena);
    choice->selection = *selection;
    choice->selection.domain = arena_copy(&choice->arena, selection->domain);
    choice->selection.sender = arena_copy(&choice->arena, selection->sender);
    choice->selection.recipient = arena_copy(&choice->arena, selection->recipient);
    choice->selection.ids = NULL;
    bool copied = choice->selection.domain.length == selection->domain.length &&
                  choice->selection.sender.length == selection->sender.length &&
                  choice->selection.recipient.length == selection->recipient.length;
    if (!copied || !copy_ids(choice, selection->ids)) {
        choice_free(choice);
        return NULL;
    }
    return choice;
}

/* ---- the search ------------------------------------------------------------------------------ */

static void resent_free(struct resent *resent)
{
    if (resent != NULL) {
        spool_content_abort(resent->content);
        arena_done(&resent->arena);
        free(resent);
    }
}

void control_resend_free(struct control_resend *resend)
{
    if (resend != NULL) {
        spool_copies_free(resend->copies);
        resent_free(resend->current);
        free(resend);
    }
}

static void found(void *context, enum error error)
{
    struct control_request *request = context;
    request->resend->searching = false;
    request->resend->error = error;
    control_ask(request);
}

/* False: error is set. */
static bool get_time(struct control_request *request, const char *key, int64_t *ret_ms)
{
    const json_t *value = json_object_get(request->arguments, key);
    if (value == NULL || json_is_null(value)) {
        return true;
    }
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        (void)control_fail(request, CONTROL_USAGE, "\"since\" and \"until\" must be Unix ms");
        return false;
    }
    *ret_ms = json_integer_value(value);
    return true;
}

static enum control_step search(struct control_request *request, struct spool_copies_query *query)
{
    struct choice *choice = choice_new(&request->selection);
    struct control_resend *resend = calloc(1, sizeof(*resend));
    request->resend = resend;
    if (choice == NULL || resend == NULL) {
        if (choice != NULL) {
            choice_free(choice);
        }
        return control_fail(request, CONTROL_FAILED, error_text(ERROR_MEMORY));
    }
    resend->dry_run = control_flag(request, "dry_run");
    query->again = control_flag(request, "again");
    query->wants = wants;
    query->choice = choice;
    query->choice_free = choice_free;
    query->done = found;
    query->context = request;
    enum error error = spool_copies_find(request->core->spool, query, &resend->copies);
    resend->searching = error == ERROR_NONE;
    return error == ERROR_NONE    ? STEP_MORE
           : error == ERROR_AGAIN ? control_not_yet(request)
                                  : control_fail(request, CONTROL_FAILED, error_text(error));
}

enum control_step queue_resend_begin(struct control_request *request)
{
    const struct selection *selection = &request->selection;
    struct spool_copies_query query = {.until_ms = INT64_MAX};
    if (!control_select_envelope(request) || !get_time(request, "since", &query.since_ms) ||
        !get_time(request, "until", &query.until_ms)) {
        return STEP_END;
    }
    query.server = control_argument(request, "server");
    if (selection->dead || selection->has_older) {
        return control_fail(request, CONTROL_USAGE, "resend knows no \"dead\" and no \"older\"");
    }
    if (!selection->all && control_selection_is_empty(selection) && query.server.length == 0 &&
        query.since_ms == 0 && query.until_ms == INT64_MAX) {
        return control_fail(request, CONTROL_USAGE, "say which messages, or all");
    }
    if (request->core->config->safety_copy_ms == 0) {
        return control_fail(request, CONTROL_NOTHING_MATCHED,
                            "nothing is kept of what was handed over: safety-copy is 0");
    }
    return request->core->dispatching ? search(request, &query) : control_not_yet(request);
}

/* ---- one message ----------------------------------------------------------------------------- */

static void put_row(struct control_request *request, const struct resent *resent, const char *error)
{
    const struct spool_message *message = &resent->message;
    bool planned = request->resend != NULL && request->resend->dry_run;
    json_t *row = json_object();
    control_set(row, "id", control_id(message->copy_of, -1));
    control_set(row, "new_id",
                planned || error != NULL ? json_null() : control_id(message->id, -1));
    control_set(row, "sender", control_string(message->sender));
    json_t *recipients = json_array();
    for (uint32_t i = 0; i < message->recipient_count && i < CONTROL_LIST_MAX; i++) {
        json_array_append_new(recipients, control_string(message->recipients[i].address));
    }
    control_set(row, "recipients", recipients);
    control_set(row, "recipient_count", json_integer(message->recipient_count));
    control_set(row, "bytes",
                json_integer((json_int_t)(message->header_length + message->body_length)));
    control_set(row, "message_id", control_string_or_null(message->message_id_header));
    control_set(row, "handed_over", control_time(resent->when_ms));
    control_set(row, "server", control_string_or_null(resent->server));
    control_set(row, "done", json_boolean(!planned && error == NULL));
    control_set(row, "error", error != NULL ? json_string(error) : json_null());
    control_row(request, row);
}

static void put_unreadable(struct control_request *request, const struct spool_copy *copy,
                           enum error error)
{
    const struct resent resent = {
        .message = {.copy_of = copy->id}, .when_ms = copy->when_ms, .server = copy->server};
    request->resend->unreadable = true;
    put_row(request, &resent, error_text(error));
}

/* Of all that it was only what was chosen, and nobody to be told. */
static enum error narrow(struct resent *resent, const struct spool_copy *copy)
{
    struct spool_message *message = &resent->message;
    struct spool_recipient *recipients =
        arena_allocate(&resent->arena, copy->count * sizeof(*recipients));
    uint32_t *deliveries = arena_allocate(&resent->arena, copy->count * sizeof(*deliveries));
    if (recipients == NULL || deliveries == NULL) {
        return ERROR_MEMORY;
    }
    for (uint32_t i = 0; i < copy->count; i++) {
        if (copy->deliveries[i] >= message->recipient_count) {
            return ERROR_CORRUPT;
        }
        deliveries[i] = copy->deliveries[i];
        recipients[i] = message->recipients[copy->deliveries[i]];
        recipients[i].notify = SPOOL_NOTIFY_NEVER;
    }
    resent->all = message->recipient_count;
    resent->deliveries = deliveries;
    message->recipients = recipients;
    message->recipient_count = copy->count;
    message->copy_of = message->id;
    message->flags &= kept_flags;
    message->deliver_by_ms = 0;
    message->elapsed_s = 0;
    return ERROR_NONE;
}

/* The next one, its envelope read. NULL: it cannot be read, and that has been told. */
static struct resent *begin(struct control_request *request)
{
    struct control_resend *resend = request->resend;
    struct spool_copy copy;
    size_t i = resend->next++;
    spool_copies_get(resend->copies, i, &copy);
    resend->dealt += copy.count;
    struct resent *resent = calloc(1, sizeof(*resent));
    enum error error = resent == NULL ? ERROR_MEMORY : ERROR_NONE;
    if (error == ERROR_NONE) {
        arena_init(&resent->arena);
        resent->core = request->core;
        resent->request = request;
        resent->when_ms = copy.when_ms;
        resent->server = arena_copy(&resent->arena, copy.server);
        error = spool_copies_read_envelope(resend->copies, i, &resent->arena, &resent->message);
    }
    if (error == ERROR_NONE) {
        error = narrow(resent, &copy);
    }
    if (error != ERROR_NONE) {
        put_unreadable(request, &copy, error);
        resent_free(resent);
        return NULL;
    }
    return resent;
}

static void stored(void *context, enum error error, const struct spool_handle *handles,
                   size_t count)
{
    struct resent *resent = context;
    struct core *core = resent->core;
    struct control_request *request = resent->request;
    struct spool_handle handle = count > 0 ? handles[0] : SPOOL_NO_HANDLE;
    if (error == ERROR_NONE) {
        report_accepted(core, &resent->message);
        report_resent(core, &resent->message, resent->deliveries, resent->all, resent->server);
        if (!core_in_relay(core, handle, &resent->message)) {
            core_out_of_memory(); /* a restart reads it */
        }
        request->done++;
    }
    if (request->control != NULL && request->resend != NULL) {
        if (error == ERROR_NONE) {
            put_row(request, resent, NULL);
        } else {
            request->resend->refused = error;
        }
    }
    resent_free(resent);
    core_control_written(request, ERROR_NONE);
}

/* A piece of its content; true: that was all. */
static enum error copy_part(struct control_resend *resend, struct resent *resent, size_t *budget,
                            bool *ret_whole)
{
    const struct spool_message *message = &resent->message;
    uint64_t all = message->header_length + message->body_length;
    uint64_t rest = all - resent->sent;
    size_t want = rest < PART_BYTES ? (size_t)rest : PART_BYTES, length = 0;
    *ret_whole = rest == 0;
    if (rest == 0) {
        return ERROR_NONE;
    }
    uint8_t *bytes = malloc(want);
    enum error error = bytes == NULL
                           ? ERROR_MEMORY
                           : spool_copies_read_content(resend->copies, resend->next - 1,
                                                       resent->sent, bytes, want, &length);
    if (error == ERROR_NONE && length == 0) {
        error = ERROR_CORRUPT;
    }
    if (error == ERROR_NONE) {
        error = spool_content_append(resent->content, slice_make(bytes, length));
    }
    free(bytes);
    resent->sent += length;
    *budget -= length < *budget ? length : *budget;
    *ret_whole = resent->sent == all;
    return error;
}

static enum error submit(struct control_request *request, struct resent *resent)
{
    struct core *core = request->core;
    struct spool_message *message = &resent->message;
    message->id = core_make_id(core);
    message->received_ms = core_wall_ms(core);
    message->odometer_s = relay_odometer(core->relay, message, core_now(core));
    spool_batch_begin(core->spool);
    enum error error = spool_batch_message(core->spool, message, resent->content, SLICE_EMPTY);
    resent->content = NULL; /* consumed in any case */
    if (error != ERROR_NONE) {
        spool_batch_cancel(core->spool);
        return error;
    }
    (void)control_after(request); /* stored() says when */
    spool_batch_submit(core->spool, SPOOL_SYNCED, stored, resent);
    return ERROR_NONE;
}

static void pause_over(void *context, enum error error, const struct spool_handle *handles,
                       size_t count)
{
    struct control_request *request = context;
    (void)handles;
    (void)count;
    if (error != ERROR_NONE && request->resend != NULL) {
        request->resend->refused = error;
    }
    core_control_written(request, ERROR_NONE);
}

/* Until the pieces of a large content have left memory. */
static void pause_for_storage(struct control_request *request)
{
    struct spool *spool = request->core->spool;
    (void)control_after(request);
    spool_batch_begin(spool);
    spool_batch_submit(spool, SPOOL_WRITTEN, pause_over, request);
}

/* ---- steps ----------------------------------------------------------------------------------- */

static const char database_away[] = "the database does not answer: say it again when it does";

static bool is_refusal(enum error error)
{
    return error == ERROR_SPACE || error == ERROR_IO || error == ERROR_MEMORY ||
           error == ERROR_AGAIN;
}

/* Goes on with the current one, to its end or that of the budget. */
static void send_current(struct control_request *request, size_t *budget)
{
    struct control_resend *resend = request->resend;
    struct resent *resent = resend->current;
    bool whole = false;
    enum error error = ERROR_NONE;
    while (error == ERROR_NONE && !whole && *budget > 0) {
        error = copy_part(resend, resent, budget, &whole);
    }
    if (error == ERROR_NONE && !whole) {
        return;
    }
    resend->current = NULL;
    if (error == ERROR_NONE) {
        error = submit(request, resent);
    }
    if (error == ERROR_NONE) {
        return;
    }
    if (is_refusal(error)) {
        resend->refused = error;
    } else {
        resend->unreadable = true;
        put_row(request, resent, error_text(error));
    }
    resent_free(resent);
}

static void send_some(struct control_request *request)
{
    struct control_resend *resend = request->resend;
    int64_t until = clock_steady_ns() + CONTROL_STEP_NS;
    size_t budget = STEP_BYTES;
    for (unsigned i = 0; i < STEP_MESSAGES && budget > 0 && resend->refused == ERROR_NONE &&
                         clock_steady_ns() < until;
         i++) {
        if (resend->current == NULL) {
            if (resend->next == resend->counts.messages) {
                return;
            }
            resend->current = begin(request);
            if (resend->current == NULL) {
                continue;
            }
            const struct spool_message *message = &resend->current->message;
            resend->current->content = spool_content_new(
                request->core->spool, message->header_length + message->body_length);
            if (resend->current->content == NULL) {
                resend->refused = ERROR_MEMORY;
                return;
            }
        }
        send_current(request, &budget);
    }
    if (resend->current != NULL && request->waiting == 0) {
        pause_for_storage(request);
    }
}

static void list_some(struct control_request *request)
{
    struct control_resend *resend = request->resend;
    int64_t until = clock_steady_ns() + CONTROL_STEP_NS;
    while (resend->next < resend->counts.messages && clock_steady_ns() < until &&
           request->rows.length < CONTROL_OUT_HIGH) {
        struct resent *resent = begin(request);
        if (resent != NULL) {
            put_row(request, resent, NULL);
            request->done++;
        }
        resent_free(resent);
    }
}

static void tell(struct control_request *request)
{
    struct control_resend *resend = request->resend;
    if (resend->dealt - resend->told >= CONTROL_PROGRESS_EVERY && !resend->dry_run) {
        resend->told = resend->dealt;
        if (control_put_progress(&request->rows, resend->dealt, resend->counts.deliveries) !=
            ERROR_NONE) {
            request->control->broken = true;
        }
    }
}

static enum control_step nothing_found(struct control_request *request)
{
    const struct spool_copies_counts *counts = &request->resend->counts;
    const char *why = counts->sent > 0         ? "all of that was sent again before (--again)"
                      : counts->unreadable > 0 ? "nothing matched, but not all that is kept could "
                                                 "be read: see spool verify"
                                               : "nothing matched";
    return control_fail(request, CONTROL_NOTHING_MATCHED, why);
}

static enum control_step end(struct control_request *request)
{
    const struct control_resend *resend = request->resend;
    if (resend->refused != ERROR_NONE) {
        return control_fail(request, CONTROL_FAILED,
                            resend->refused == ERROR_SPACE
                                ? "no room for more: say it again when there is"
                            : resend->refused == ERROR_AGAIN
                                ? database_away
                                : "the journal takes no more: say it again when it does");
    }
    if (resend->unreadable || resend->counts.unreadable > 0) {
        return control_fail(request, CONTROL_NOTHING_MATCHED,
                            "not all that is kept could be read: see spool verify");
    }
    return STEP_END;
}

enum control_step queue_resend_step(struct control_request *request)
{
    struct control_resend *resend = request->resend;
    if (resend->searching) {
        return STEP_WAIT;
    }
    if (resend->error != ERROR_NONE) {
        return control_fail(request, CONTROL_FAILED,
                            resend->error == ERROR_LIMIT
                                ? "more than a million deliveries: say less at a time"
                            : resend->error == ERROR_AGAIN ? database_away
                                                           : error_text(resend->error));
    }
    spool_copies_counts(resend->copies, &resend->counts);
    if (resend->counts.messages == 0) {
        return nothing_found(request);
    }
    if (resend->refused == ERROR_NONE && resend->dry_run) {
        list_some(request);
    } else if (resend->refused == ERROR_NONE) {
        send_some(request);
    }
    tell(request);
    bool over = resend->next == resend->counts.messages && resend->current == NULL;
    if ((over || resend->refused != ERROR_NONE) && request->waiting == 0) {
        return end(request);
    }
    return STEP_MORE;
}
