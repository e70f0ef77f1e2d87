/* SPDX-License-Identifier: Apache-2.0 */
#include "app/guard_desk.h"

#include "app/hook_core.h"
#include "base/list.h"
#include "service/control_frame.h"
#include "service/guard.h"
#include "sys/clock.h"
#include "sys/net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TICK_MS = 1000,
    PLACE_MS = 3000, /* a machine that has not answered for so long is silent */
    PLACES_MAX = 2 * GUARD_PLACES_MAX,
};

/* What became of a run. */
enum ending { RUNS, WELL, FAILED, LOST, LATER };

struct guarded {
    struct link link;
    struct guard_desk *desk;
    char name[GUARD_NAME_MAX + 1];

    uint64_t run; /* the last one; 0: there was none */
    enum ending ending;
    bool said; /* and core knows */
    bool saying;
    char text[GUARD_TEXT_SIZE];

    struct place {
        struct guarded *guarded;
        int fd; /* -1: decided, or not asked */
        struct loop_watch *watch;
    } places[PLACES_MAX];
    struct loop_timer *timer;
    unsigned asking; /* places that have not answered yet */
    int64_t asked_ms;
    bool answered; /* to be told */
    enum guard_place watch, witness;
};

struct guard_desk {
    struct loop *loop;
    struct programs *programs;
    const struct service_config *config;
    struct hook_core *core;
    struct loop_timer *timer;
    struct link all;
};

static const struct guard_config *find_guard(const struct guard_desk *desk, const char *name)
{
    for (uint32_t i = 0; name != NULL && desk->config != NULL && i < desk->config->guard_count;
         i++) {
        if (slice_equal(desk->config->guards[i].name, slice_from_text(name))) {
            return &desk->config->guards[i];
        }
    }
    return NULL;
}

/* ---- places ---------------------------------------------------------------------------------- */

static void place_close(struct place *place)
{
    loop_watch_free(place->watch);
    place->watch = NULL;
    if (place->fd >= 0) {
        net_close(place->fd);
        place->fd = -1;
    }
}

/* Those that have not answered are silent. */
static void all_answered(void *context)
{
    struct guarded *guarded = context;
    for (int i = 0; i < PLACES_MAX; i++) {
        place_close(&guarded->places[i]);
    }
    loop_timer_cancel(guarded->timer);
    guarded->asking = 0;
    guarded->answered = true;
}

static void take_answer(struct guarded *guarded, const struct place *place, enum error error)
{
    bool of_watch = place - guarded->places < GUARD_PLACES_MAX;
    enum guard_place *best = of_watch ? &guarded->watch : &guarded->witness;
    enum guard_place answer = error == ERROR_NONE     ? GUARD_ACCEPTED
                              : error == ERROR_CLOSED ? GUARD_REFUSED
                                                      : GUARD_SILENT;
    *best = answer > *best ? answer : *best;
}

static void place_ready(void *context, unsigned ready)
{
    (void)ready;
    struct place *place = context;
    struct guarded *guarded = place->guarded;
    take_answer(guarded, place, net_connected(place->fd));
    place_close(place);
    if (--guarded->asking == 0) {
        all_answered(guarded);
    }
}

static void ask_place(struct guarded *guarded, struct place *place, const struct ip_endpoint *at)
{
    int fd;
    enum error error = net_connect(at, NULL, &fd);
    if (error != ERROR_NONE) {
        take_answer(guarded, place, error);
        return;
    }
    place->fd = fd;
    place->watch = loop_watch_new(guarded->desk->loop, fd, place_ready, place);
    if (place->watch == NULL) {
        place_close(place);
        return;
    }
    loop_watch_set(place->watch, LOOP_WRITE);
    guarded->asking++;
}

static void ask_places(struct guarded *guarded, const struct guard_config *guard, int64_t every_ms)
{
    int64_t now_ms = clock_steady_ms();
    if (guarded->asking > 0 || now_ms - guarded->asked_ms < every_ms) {
        return;
    }
    guarded->asked_ms = now_ms;
    guarded->watch = guarded->witness = GUARD_SILENT;
    for (uint32_t i = 0; i < guard->watch_count; i++) {
        ask_place(guarded, &guarded->places[i], &guard->watch[i]);
    }
    for (uint32_t i = 0; i < guard->witness_count; i++) {
        ask_place(guarded, &guarded->places[GUARD_PLACES_MAX + i], &guard->witness[i]);
    }
    if (guarded->asking > 0) {
        loop_timer_set(guarded->timer, PLACE_MS);
    } else {
        all_answered(guarded);
    }
}

/* ---- runs ------------------------------------------------------------------------------------ */

static void set_ending(struct guarded *guarded, enum ending ending)
{
    guarded->ending = ending;
    guarded->said = guarded->saying = false;
}

static void ended(void *context, uint64_t number, const struct program_end *end)
{
    struct guarded *guarded = context;
    struct slice output = end->output;
    while (output.length > 0 && output.data[output.length - 1] == '\n') {
        output.length--;
    }
    if (guarded->run == number) {
        snprintf(guarded->text, sizeof(guarded->text), "%s%s%.*s",
                 end->problem != NULL ? end->problem : "",
                 end->problem != NULL && output.length > 0 ? ": " : "", SLICE_PRINT(output));
        set_ending(guarded, end->problem == NULL ? WELL : FAILED);
    }
}

static void begin_run(struct guarded *guarded, const struct guard_config *guard, uint64_t run,
                      const json_t *row)
{
    const char *step = json_string_value(json_object_get(row, "step"));
    bool starts = step != NULL && strcmp(step, "start") == 0;
    const struct program what = {.fn = ended,
                                 .context = guarded,
                                 .number = run,
                                 .path = starts ? guard->start : guard->undo,
                                 .environment = json_object_get(row, "environment"),
                                 .timeout_ms = guard->timeout_ms};
    if (guarded->ending == RUNS && guarded->run != 0) {
        return; /* never two; core hears that it is not begun by asking again: LOST */
    }
    guarded->run = run;
    guarded->text[0] = 0;
    set_ending(guarded, RUNS);
    const char *why = what.path.length == 0 ? "there is no such script in the configuration"
                                            : programs_run(guarded->desk->programs, &what);
    if (why != NULL) {
        snprintf(guarded->text, sizeof(guarded->text), "could not be begun: %s", why);
        set_ending(guarded, FAILED);
    }
}

/* Core names a run each time until it has heard of its end. */
static void take_run(struct guarded *guarded, const struct guard_config *guard, const json_t *row)
{
    uint64_t run = (uint64_t)json_integer_value(json_object_get(row, "run"));
    if (guarded->run == run && guarded->ending != LATER) {
        guarded->said = false;
    } else if (json_is_true(json_object_get(row, "begin"))) {
        begin_run(guarded, guard, run, row);
    } else if (guarded->run == 0 || guarded->ending != RUNS) {
        guarded->run = run; /* of a runner that died, or of one whose beginning got lost */
        set_ending(guarded, LOST);
    }
}

/* ---- core ------------------------------------------------------------------------------------ */

static struct guarded *find_or_add(struct guard_desk *desk, const char *name)
{
    LIST_EACH(&desk->all, at, after)
    {
        struct guarded *guarded = LIST_ENTRY(at, struct guarded, link);
        if (strcmp(guarded->name, name) == 0) {
            return guarded;
        }
    }
    struct guarded *guarded = strlen(name) <= GUARD_NAME_MAX ? calloc(1, sizeof(*guarded)) : NULL;
    struct loop_timer *timer =
        guarded != NULL ? loop_timer_new(desk->loop, all_answered, guarded) : NULL;
    if (timer == NULL) {
        free(guarded);
        return NULL;
    }
    guarded->desk = desk;
    guarded->timer = timer;
    guarded->asked_ms = INT64_MIN / 2;
    memcpy(guarded->name, name, strlen(name) + 1);
    for (int i = 0; i < PLACES_MAX; i++) {
        guarded->places[i] = (struct place){.guarded = guarded, .fd = -1};
    }
    list_append(&desk->all, &guarded->link);
    return guarded;
}

static void take_row(void *context, const json_t *row)
{
    struct guard_desk *desk = context;
    const char *name = json_string_value(json_object_get(row, "guard"));
    const struct guard_config *guard = find_guard(desk, name);
    struct guarded *guarded = name != NULL ? find_or_add(desk, name) : NULL;
    bool runs = json_is_integer(json_object_get(row, "run"));
    int64_t every_ms = json_integer_value(json_object_get(row, "every_ms"));
    if (guarded == NULL) {
        return;
    }
    if (guard == NULL && runs && json_is_true(json_object_get(row, "begin"))) {
        /* A configuration that core has and we have not yet. */
        guarded->run = (uint64_t)json_integer_value(json_object_get(row, "run"));
        set_ending(guarded, LATER);
    } else if (runs) {
        take_run(guarded, guard, row);
    }
    if (guard != NULL && every_ms > 0) {
        ask_places(guarded, guard, every_ms);
    }
}

/* What was said with the question is known. */
static void asked(void *context, const char *error)
{
    struct guard_desk *desk = context;
    LIST_EACH(&desk->all, at, after)
    {
        struct guarded *guarded = LIST_ENTRY(at, struct guarded, link);
        guarded->said |= guarded->saying && error == NULL;
        guarded->saying = false;
        if (guarded->said && guarded->ending == LATER) {
            guarded->run = 0;
        }
    }
}

static void put_end(json_t *ends, struct guarded *guarded)
{
    if (guarded->run == 0 || guarded->ending == RUNS || guarded->said) {
        return;
    }
    json_t *end = json_object();
    (void)json_object_set_new(end, "run", json_integer((json_int_t)guarded->run));
    (void)json_object_set_new(end, "well", json_boolean(guarded->ending == WELL));
    (void)json_object_set_new(end, "lost", json_boolean(guarded->ending == LOST));
    (void)json_object_set_new(end, "later", json_boolean(guarded->ending == LATER));
    (void)json_object_set_new(end, "text", control_string(slice_from_text(guarded->text)));
    (void)json_array_append_new(ends, end);
    guarded->saying = true;
}

static void put_places(json_t *places, struct guarded *guarded)
{
    static const char *const words[] = {
        [GUARD_SILENT] = "silent", [GUARD_REFUSED] = "refused", [GUARD_ACCEPTED] = "accepted"};
    if (guarded->answered) {
        guarded->answered = false;
        (void)json_array_append_new(places, json_pack("{ssssss}", "guard", guarded->name, "watch",
                                                      words[guarded->watch], "witness",
                                                      words[guarded->witness]));
    }
}

static void tick(void *context)
{
    struct guard_desk *desk = context;
    json_t *ends = json_array(), *places = json_array();
    loop_timer_set(desk->timer, TICK_MS);
    LIST_EACH(&desk->all, at, after)
    {
        struct guarded *guarded = LIST_ENTRY(at, struct guarded, link);
        put_end(ends, guarded);
        put_places(places, guarded);
    }
    const struct hook_asker asker = {.context = desk, .row = take_row, .end = asked};
    (void)hook_core_ask(desk->core, "guard work",
                        json_pack("{soso}", "ends", ends, "places", places), &asker);
}

/* ---- life ------------------------------------------------------------------------------------ */

void guard_desk_configure(struct guard_desk *desk, const struct service_config *config)
{
    desk->config = config;
    if (config->guard_count > 0) {
        loop_timer_set(desk->timer, 0);
    } else {
        loop_timer_cancel(desk->timer);
    }
}

void guard_desk_set_core(struct guard_desk *desk, int fd)
{
    hook_core_set(desk->core, fd);
}

struct guard_desk *guard_desk_new(struct loop *loop, struct programs *programs)
{
    struct guard_desk *desk = calloc(1, sizeof(*desk));
    if (desk == NULL) {
        return NULL;
    }
    desk->loop = loop;
    desk->programs = programs;
    list_init(&desk->all);
    desk->core = hook_core_new(loop);
    desk->timer = loop_timer_new(loop, tick, desk);
    if (desk->core == NULL || desk->timer == NULL) {
        guard_desk_free(desk);
        return NULL;
    }
    return desk;
}

void guard_desk_free(struct guard_desk *desk)
{
    if (desk == NULL) {
        return;
    }
    LIST_EACH(&desk->all, at, after)
    {
        struct guarded *guarded = LIST_ENTRY(at, struct guarded, link);
        programs_forget(desk->programs, guarded);
        all_answered(guarded);
        loop_timer_free(guarded->timer);
        list_remove(&guarded->link);
        free(guarded);
    }
    hook_core_forget(desk->core);
    hook_core_free(desk->core);
    loop_timer_free(desk->timer);
    free(desk);
}
