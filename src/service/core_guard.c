/* SPDX-License-Identifier: Apache-2.0
 *
 * Guards of servers with a cold standby: service/guard.h decides, this gives it the facts and keeps
 * what it must know after a restart as notes of the journal, "guard/NAME" (guard_note_encode()).
 *
 * The process that runs programs asks for work ("guard work"). A run is given out only when its
 * note is durable, and once: whoever asks for it again is told that it was begun, and says what
 * became of it, or that he knows nothing of it. So a crash of anybody at any moment leads to at
 * most one run of a number, and to an end that says so where nobody knows.
 */
#include "service/guard.h"

#include "base/hash.h"
#include "base/utf8.h"
#include "service/core_control.h"
#include "sys/log.h"
#include "sys/random.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    FRESH_MS = 30000,    /* answers of places hold for so long */
    GUARDS_KNOWN = 1024, /* with those that the configuration had, or may have again */
    RUN_BITS = 53,       /* of a number, for readers of JSON */
};
#define KEY "guard/"
#define LOST "holdfast was interrupted while the script ran; how it ended is not known"

struct core_guard {
    struct link link;
    struct core *core;
    char name[GUARD_NAME_MAX + 1];
    const struct guard_config *config; /* NULL: there is no such block now */
    struct guard guard;
    bool given;             /* the run, to who runs it */
    uint64_t changes, kept; /* those, and how many of them are durable */
    bool writing;
    enum guard_place watch, witness;
    int64_t asked_ms; /* when these were heard; far back: never */
    char reason[160]; /* why its server is away, as last seen */
    /* Where and how it is reached, in a number: now, and when it was seen at work. 0: not known. */
    uint64_t place, seen_place;
    bool moved; /* it rests since the two differ */
};

struct guards {
    struct link all;
    uint32_t count;
};

static struct slice name_of(const struct core_guard *at)
{
    return slice_from_text(at->name);
}

static struct core_guard *find(const struct core *core, struct slice name)
{
    LIST_EACH(&core->guards->all, link, after)
    {
        struct core_guard *at = LIST_ENTRY(link, struct core_guard, link);
        if (slice_equal(name_of(at), name)) {
            return at;
        }
    }
    return NULL;
}

static struct core_guard *find_or_add(struct core *core, struct slice name)
{
    struct core_guard *at = find(core, name);
    if (at != NULL || name.length > GUARD_NAME_MAX || core->guards->count == GUARDS_KNOWN) {
        return at;
    }
    at = calloc(1, sizeof(*at));
    if (at == NULL) {
        core_out_of_memory();
    }
    at->core = core;
    memcpy(at->name, name.data, name.length);
    at->asked_ms = INT64_MIN / 2;
    guard_init(&at->guard, core_now(core).steady_ms, core_now(core).wall_ms);
    list_append(&core->guards->all, &at->link);
    core->guards->count++;
    return at;
}

static uint64_t new_run(void)
{
    return (random_u64() >> (64 - RUN_BITS)) | 1;
}

/* ---- what is kept ---------------------------------------------------------------------------- */

struct keeping {
    struct core_guard *at;
    uint64_t changes;
};

static void kept(void *context, enum error error, const struct spool_handle *handles, size_t count)
{
    (void)handles;
    (void)count;
    struct keeping *keeping = context;
    keeping->at->writing = false;
    if (error == ERROR_NONE) {
        keeping->at->kept = keeping->changes;
    }
    loop_later_ask(keeping->at->core->control_later); /* who changed it by hand waits for this */
    free(keeping);
}

static void keep(struct core_guard *at)
{
    struct core *core = at->core;
    struct keeping *keeping = at->writing ? NULL : malloc(sizeof(*keeping));
    if (keeping == NULL) {
        return; /* the tick comes again */
    }
    char key[sizeof(KEY) + GUARD_NAME_MAX];
    struct buffer note;
    buffer_init(&note, GUARD_NOTE_MAX);
    guard_note_encode(&at->guard, &note);
    if (note.failed) {
        core_out_of_memory();
    }
    snprintf(key, sizeof(key), KEY "%s", at->name);
    *keeping = (struct keeping){at, at->changes};
    at->writing = true;
    spool_batch_begin(core->spool);
    spool_batch_global_note(core->spool, slice_from_text(key), buffer_slice(&note));
    spool_batch_submit(core->spool, SPOOL_SYNCED, kept, keeping);
    buffer_done(&note);
}

bool core_guards_load(struct core *core, struct slice key, struct slice payload)
{
    if (!slice_starts_fold(key, SLICE_LITERAL(KEY))) {
        return false;
    }
    struct core_guard *at = find_or_add(core, slice_skip(key, strlen(KEY)));
    if (at == NULL || !guard_note_decode(&at->guard, payload)) {
        log_event(LOG_LEVEL_WARNING, "guard-note", LOG_SLICE("key", key),
                  LOG_TEXT("error", "not understood; the guard rests"));
    } else {
        at->given = at->guard.run != 0; /* nobody knows any more whether it was */
    }
    return true;
}

/* ---- what is told ---------------------------------------------------------------------------- */

/* What the operator can do now. */
static void put_advice(const struct core_guard *at, char *text, size_t size)
{
    static const char *const advice[] = {
        [GUARD_WATCHING] = "holdfast guard start %s starts it all the same",
        [GUARD_TAKEN_OVER] = "holdfast guard undo %s ends it",
        [GUARD_START_FAILED] =
            "holdfast guard start %s tries again, undo ends it, reset forgets it",
        [GUARD_UNDO_FAILED] = "holdfast guard undo %s tries again, reset forgets it",
    };
    enum guard_phase phase = at->guard.phase;
    size_t length = strlen(text);
    if (phase < sizeof(advice) / sizeof(advice[0]) && advice[phase] != NULL && length + 2 < size) {
        memcpy(text + length, "; ", 3);
        snprintf(text + length + 2, size - length - 2, advice[phase], at->name);
    }
}

static void tell_alerts(struct core_guard *at)
{
    char why[GUARD_TEXT_SIZE + 512];
    const struct guard *guard = &at->guard;
    enum guard_phase phase = guard->phase;
    bool started =
        phase == GUARD_TAKEN_OVER || phase == GUARD_UNDOING || phase == GUARD_UNDO_FAILED;
    bool blocked = guard_is_blocked(guard, at->config);
    bool failed = phase == GUARD_START_FAILED || phase == GUARD_UNDO_FAILED || blocked;
    guard_why(guard, at->config, why, sizeof(why));
    put_advice(at, why, sizeof(why));
    if (phase == GUARD_TAKEN_OVER) {
        report_guard(at->core, ALERT_GUARD, name_of(at), why, guard->since_wall_ms);
    } else if (!started) {
        report_guard(at->core, ALERT_GUARD, name_of(at), NULL, 0);
    }
    report_guard(at->core, ALERT_GUARD_FAILED, name_of(at), failed ? why : NULL,
                 blocked ? 0 : guard->since_wall_ms);
}

/* Its state was another before. */
static void changed(struct core_guard *at, const char *was)
{
    const struct guard *guard = &at->guard;
    const char *state = guard_state_text(guard, at->config);
    bool failed = guard->phase == GUARD_START_FAILED || guard->phase == GUARD_UNDO_FAILED;
    at->changes++;
    at->given = false;
    keep(at);
    log_event(failed ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, "guard", LOG_TEXT("server", at->name),
              LOG_TEXT("was", was), LOG_TEXT("state", state),
              LOG_TEXT("by", guard->by_hand ? "hand" : "itself"), LOG_TEXT("text", guard->text));
    const struct event event = {.kind = EVENT_GUARD,
                                .time_ms = core_now(at->core).wall_ms,
                                .id = EVENTS_NO_MESSAGE,
                                .delivery = EVENTS_NO_DELIVERY,
                                .subject = name_of(at),
                                .from = slice_from_text(was),
                                .to = slice_from_text(state),
                                .reason = slice_from_text(guard->text)};
    report_event(at->core, &event);
    tell_alerts(at);
}

/* ---- time ------------------------------------------------------------------------------------ */

static void look_at_server(struct core_guard *at, struct guard_facts *ret_facts)
{
    struct relay_server_view view;
    struct relay_time now = core_now(at->core);
    relay_server(at->core->relay, at->config->server, &view);
    *ret_facts = (struct guard_facts){.steady_ms = now.steady_ms,
                                      .wall_ms = now.wall_ms,
                                      .up = view.state == SERVER_UP,
                                      .down = view.state == SERVER_DOWN,
                                      .gone = view.unreachable,
                                      .known = now.steady_ms - at->asked_ms < FRESH_MS,
                                      .watch = at->watch,
                                      .witness = at->witness};
    if (view.state == SERVER_DOWN) {
        snprintf(at->reason, sizeof(at->reason), "%.*s",
                 SLICE_PRINT(slice_take(view.reason, sizeof(at->reason) - 1)));
    }
}

void core_guards_tick(struct core *core)
{
    if (!core->loaded || core->stopping) {
        return;
    }
    LIST_EACH(&core->guards->all, link, after)
    {
        struct core_guard *at = LIST_ENTRY(link, struct core_guard, link);
        if (at->config != NULL) {
            struct guard_facts facts;
            look_at_server(at, &facts);
            const char *was = guard_state_text(&at->guard, at->config);
            at->seen_place = facts.up ? at->place : at->seen_place;
            at->moved = at->moved && !facts.up;
            if (guard_step(&at->guard, at->config, &facts, new_run())) {
                changed(at, was);
            }
            tell_alerts(at);
        }
        if (at->kept != at->changes) {
            keep(at);
            loop_later_ask(core->control_later);
        }
    }
}

/* ---- where its server is ----------------------------------------------------------------------
 */

static uint64_t mix(uint64_t sum, struct slice bytes)
{
    return hash_bytes((struct hash_key){sum, bytes.length}, bytes);
}

static uint64_t where_is(const struct core_guard *at)
{
    const struct server_config *server = &at->core->config->relay.servers[at->config->server];
    const uint32_t ways[] = {(uint32_t)server->protocol, (uint32_t)server->tls,
                             (uint32_t)server->proxy, server->has_source, server->address_count};
    uint64_t sum = mix(1, slice_make(ways, sizeof(ways)));
    if (server->has_source) {
        sum = mix(sum, slice_make(server->source.bytes, sizeof(server->source.bytes)));
    }
    for (uint32_t i = 0; i < server->address_count; i++) {
        const struct server_address *address = &server->addresses[i];
        sum = mix(sum, address->is_literal
                           ? slice_make(address->literal.bytes, sizeof(address->literal.bytes))
                           : address->host);
        sum = mix(sum, slice_make(&address->port, sizeof(address->port)));
    }
    return sum | 1;
}

/* A server that others have mistyped is not one that has gone; and whoever mends the words finds
 * the guard as it was. */
static void look_where(struct core_guard *at)
{
    uint64_t before = at->place;
    const char *was = guard_state_text(&at->guard, at->config);
    at->place = where_is(at);
    if (before == 0 || before == at->place) {
        return;
    }
    if (at->guard.phase == GUARD_WATCHING && at->seen_place == 0) {
        at->seen_place = before; /* as it was in our life before */
    }
    bool again = at->moved && at->place == at->seen_place;
    if (guard_moved(&at->guard, again, core_now(at->core).wall_ms)) {
        at->moved = !again;
        changed(at, was);
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

void core_guards_reconfigure(struct core *core)
{
    LIST_EACH(&core->guards->all, link, after)
    {
        LIST_ENTRY(link, struct core_guard, link)->config = NULL;
    }
    for (uint32_t i = 0; i < core->config->guard_count; i++) {
        struct core_guard *at = find_or_add(core, core->config->guards[i].name);
        if (at != NULL) {
            at->config = &core->config->guards[i];
            look_where(at);
        }
    }
}

void core_guards_init(struct core *core)
{
    core->guards = calloc(1, sizeof(*core->guards));
    if (core->guards == NULL) {
        core_out_of_memory();
    }
    list_init(&core->guards->all);
    core_guards_reconfigure(core);
}

void core_guards_done(struct core *core)
{
    LIST_EACH(&core->guards->all, link, after)
    {
        struct core_guard *at = LIST_ENTRY(link, struct core_guard, link);
        list_remove(&at->link);
        free(at);
    }
    free(core->guards);
}

bool core_guard_is_there(const struct core *core, struct slice server)
{
    const struct core_guard *at = find(core, server);
    return at != NULL && at->config != NULL;
}

/* ---- "guard list", "guard start", "guard undo", "guard reset" -------------------------------- */

static json_t *row_of(const struct core_guard *at)
{
    static const char *const whens[] = {[GUARD_UNDO_MANUAL] = "manual",
                                        [GUARD_UNDO_WATCH] = "watch",
                                        [GUARD_UNDO_SERVER] = "server"};
    const struct guard *guard = &at->guard;
    char why[GUARD_TEXT_SIZE + 256];
    int64_t left = guard_seconds_left(guard, at->config);
    guard_why(guard, at->config, why, sizeof(why));
    json_t *row = json_object();
    control_set(row, "server", control_string(name_of(at)));
    control_set(row, "state", json_string(guard_state_text(guard, at->config)));
    control_set(row, "since", control_time(guard->since_wall_ms));
    control_set(row, "down_since", control_time(guard->gone_since_wall_ms));
    control_set(row, "by_hand", json_boolean(guard->by_hand));
    control_set(row, "running", json_boolean(guard->run != 0));
    control_set(row, "tries", json_integer(guard->tries));
    control_set(row, "left_seconds", left < 0 ? json_null() : json_integer((json_int_t)left));
    control_set(row, "undo_when", json_string(whens[at->config->undo_when]));
    control_set(row, "reason", control_string_or_null(slice_from_text(why)));
    control_set(row, "output", control_string_or_null(slice_from_text(guard->text)));
    return row;
}

json_t *control_guards(const struct core *core)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < core->config->guard_count; i++) {
        const struct core_guard *at = find(core, core->config->guards[i].name);
        if (at != NULL) {
            json_array_append_new(array, row_of(at));
        }
    }
    return array;
}

static struct core_guard *asked_for(const struct control_request *request)
{
    struct core_guard *at = find(request->core, control_argument(request, "name"));
    return at != NULL && at->config != NULL ? at : NULL;
}

enum control_step guard_list_begin(struct control_request *request)
{
    bool named = control_argument(request, "name").length > 0;
    return named && asked_for(request) == NULL
               ? control_fail(request, CONTROL_NOTHING_MATCHED, "no such guard")
               : STEP_MORE;
}

enum control_step guard_list_step(struct control_request *request)
{
    struct slice name = control_argument(request, "name");
    const struct service_config *config = request->core->config;
    for (uint32_t i = 0; i < config->guard_count; i++) {
        const struct core_guard *at = find(request->core, config->guards[i].name);
        if (at != NULL && (name.length == 0 || slice_equal(name, name_of(at)))) {
            control_row(request, row_of(at));
        }
    }
    return STEP_END;
}

enum by_hand { START, UNDO, RESET };

static enum control_step change_by_hand(struct control_request *request, enum by_hand what)
{
    struct core_guard *at = asked_for(request);
    int64_t wall_ms = core_now(request->core).wall_ms;
    if (!request->core->loaded) {
        return control_not_yet(request);
    }
    if (at == NULL) {
        return control_fail(request, CONTROL_NOTHING_MATCHED, "no such guard");
    }
    const char *was = guard_state_text(&at->guard, at->config);
    const char *why = what == START  ? guard_start(&at->guard, new_run(), wall_ms)
                      : what == UNDO ? guard_undo(&at->guard, at->config, new_run(), wall_ms)
                                     : guard_reset(&at->guard, wall_ms);
    if (why != NULL) {
        return control_fail(request, CONTROL_NOTHING_MATCHED, why);
    }
    changed(at, was);
    request->waiting_since_ms = core_now(request->core).steady_ms;
    return STEP_MORE;
}

enum control_step guard_start_begin(struct control_request *request)
{
    return change_by_hand(request, START);
}

enum control_step guard_undo_begin(struct control_request *request)
{
    return change_by_hand(request, UNDO);
}

enum control_step guard_reset_begin(struct control_request *request)
{
    return change_by_hand(request, RESET);
}

/* What was changed by hand is answered when it is durable. */
enum control_step guard_changed_step(struct control_request *request)
{
    const struct core_guard *at = asked_for(request);
    if (at == NULL) {
        return control_fail(request, CONTROL_NOTHING_MATCHED, "no such guard");
    }
    if (at->kept == at->changes) {
        control_row(request, row_of(at));
        return STEP_END;
    }
    if (core_now(request->core).steady_ms - request->waiting_since_ms >= CONTROL_WAIT_MS) {
        return control_fail(request, CONTROL_NOTHING_MATCHED, CONTROL_NOT_WRITTEN);
    }
    return STEP_WAIT; /* for kept() */
}

/* ---- "guard work" ---------------------------------------------------------------------------- */

static bool is_run(const struct core_guard *at, const json_t *number)
{
    return json_is_integer(number) && at->guard.run != 0 &&
           at->guard.run == (uint64_t)json_integer_value(number);
}

static void take_end(struct core_guard *at, const json_t *end)
{
    char clean[GUARD_TEXT_SIZE];
    const char *text = json_string_value(json_object_get(end, "text"));
    bool well = json_is_true(json_object_get(end, "well"));
    bool lost = json_is_true(json_object_get(end, "lost"));
    if (json_is_true(json_object_get(end, "later"))) {
        at->given = false;
        return;
    }
    struct relay_time now = core_now(at->core);
    const char *was = guard_state_text(&at->guard, at->config);
    utf8_clean(slice_from_text(lost || text == NULL ? LOST : text), "\n\t", clean, sizeof(clean));
    counter_add(at->core->counters, COUNTER_GUARD_RUNS, 1);
    if (!well) {
        counter_add(at->core->counters, COUNTER_GUARD_FAILURES, 1);
    }
    guard_ended(&at->guard, at->config, well && !lost, slice_from_text(clean), now.steady_ms,
                now.wall_ms);
    changed(at, was);
}

static void take_ends(struct core *core, const json_t *ends)
{
    size_t i;
    json_t *end;
    json_array_foreach(ends, i, end)
    {
        LIST_EACH(&core->guards->all, link, after)
        {
            struct core_guard *at = LIST_ENTRY(link, struct core_guard, link);
            /* One whose block has gone stays as it is, until that is back. */
            if (at->config != NULL && is_run(at, json_object_get(end, "run"))) {
                take_end(at, end);
            }
        }
    }
}

static enum guard_place place_of(const json_t *word)
{
    const char *text = json_string_value(word);
    return text == NULL                    ? GUARD_SILENT
           : strcmp(text, "accepted") == 0 ? GUARD_ACCEPTED
           : strcmp(text, "refused") == 0  ? GUARD_REFUSED
                                           : GUARD_SILENT;
}

static void take_places(struct core *core, const json_t *places)
{
    size_t i;
    json_t *place;
    json_array_foreach(places, i, place)
    {
        const char *name = json_string_value(json_object_get(place, "guard"));
        struct core_guard *at = name != NULL ? find(core, slice_from_text(name)) : NULL;
        if (at != NULL) {
            at->watch = place_of(json_object_get(place, "watch"));
            at->witness = place_of(json_object_get(place, "witness"));
            at->asked_ms = core_now(core).steady_ms;
        }
    }
}

static void set_number(json_t *environment, const char *name, int64_t number)
{
    char text[24];
    snprintf(text, sizeof(text), "%lld", (long long)number);
    control_set(environment, name, json_string(text));
}

/* What the script is told; as much of the server's own words as a line may have. */
static json_t *environment_of(const struct core_guard *at, const char *step)
{
    char reason[sizeof(at->reason) + 64];
    const struct core *core = at->core;
    const struct server_config *server = relay_server_config(core->relay, at->config->server);
    json_t *environment = json_object();
    control_set(environment, "HOLDFAST_EVENT", json_string(step));
    control_set(environment, "HOLDFAST_SERVER", control_string(name_of(at)));
    control_set(environment, "HOLDFAST_HOSTNAME", control_string(core->config->hostname));
    control_set(environment, "HOLDFAST_ADDRESS",
                server->address_count > 0 ? control_server_address(&server->addresses[0])
                                          : json_string(""));
    control_set(environment, "HOLDFAST_REASON",
                json_string(utf8_clean(slice_from_text(at->reason), "", reason, sizeof(reason))));
    control_set(environment, "HOLDFAST_BY", json_string(at->guard.by_hand ? "hand" : "itself"));
    set_number(environment, "HOLDFAST_SINCE", at->guard.gone_since_wall_ms);
    set_number(environment, "HOLDFAST_TRY", (int64_t)at->guard.tries + 1);
    return environment;
}

/* NULL: there is nothing to do for it. */
static json_t *work_of(struct core_guard *at)
{
    uint32_t every_ms = guard_look_every_ms(&at->guard, at->config);
    bool runs = at->guard.run != 0 && at->kept == at->changes && !at->core->stopping;
    if (every_ms == 0 && !runs) {
        return NULL;
    }
    json_t *row = json_object();
    control_set(row, "guard", control_string(name_of(at)));
    control_set(row, "every_ms", json_integer(every_ms));
    if (runs) {
        const char *step = at->guard.phase == GUARD_STARTING ? "start" : "undo";
        control_set(row, "run", json_integer((json_int_t)at->guard.run));
        control_set(row, "step", json_string(step));
        control_set(row, "begin", json_boolean(!at->given));
        control_set(row, "environment", environment_of(at, step));
        at->given = true;
    }
    return row;
}

enum control_step guard_work_step(struct control_request *request)
{
    struct core *core = request->core;
    if (!core->loaded) {
        return control_not_yet(request);
    }
    take_ends(core, json_object_get(request->arguments, "ends"));
    take_places(core, json_object_get(request->arguments, "places"));
    LIST_EACH(&core->guards->all, link, after)
    {
        struct core_guard *at = LIST_ENTRY(link, struct core_guard, link);
        json_t *row = at->config != NULL ? work_of(at) : NULL;
        if (row != NULL) {
            control_row(request, row);
        }
    }
    return STEP_END;
}
