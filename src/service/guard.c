/* SPDX-License-Identifier: Apache-2.0 */
#include "service/guard.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum { NOTE_VERSION = 1, FLAG_BY_HAND = 1 };

static void set_text(struct guard *guard, struct slice text)
{
    text = slice_take(text, sizeof(guard->text) - 1);
    if (text.length > 0) {
        memcpy(guard->text, text.data, text.length);
    }
    guard->text[text.length] = 0;
}

static void forget_counts(struct guard *guard)
{
    guard->gone_from_ms = guard->quiet_from_ms = guard->back_from_ms = INT64_MAX;
    guard->obstacle = GUARD_NO_OBSTACLE;
}

static void enter(struct guard *guard, enum guard_phase phase, int64_t wall_ms)
{
    guard->phase = phase;
    guard->since_wall_ms = wall_ms;
    guard->run = 0;
    guard->tries = 0;
    guard->retry_ms = INT64_MAX;
    forget_counts(guard);
}

/* One of the two scripts, by this number. */
static void begin_run(struct guard *guard, enum guard_phase phase, uint64_t run, bool by_hand,
                      int64_t wall_ms)
{
    assert(run != 0 && guard->run == 0);
    enter(guard, phase, wall_ms);
    guard->run = run;
    guard->by_hand = by_hand;
    guard->text[0] = 0;
}

void guard_init(struct guard *guard, int64_t steady_ms, int64_t wall_ms)
{
    *guard = (struct guard){.last_ms = steady_ms};
    enter(guard, GUARD_RESTING, wall_ms);
}

/* ---- what is counted ------------------------------------------------------------------------- */

static bool has_passed(int64_t from_ms, uint64_t span_ms, int64_t now_ms)
{
    return from_ms != INT64_MAX && now_ms - from_ms >= (int64_t)span_ms;
}

static void count(int64_t *from_ms, bool holds, int64_t now_ms)
{
    if (!holds) {
        *from_ms = INT64_MAX;
    } else if (*from_ms == INT64_MAX) {
        *from_ms = now_ms;
    }
}

static bool asks_places(const struct guard_config *config)
{
    return config->watch_count > 0 || config->witness_count > 0;
}

/* A refusal is an answer, too: something lives there. */
static enum guard_obstacle obstacle_of(const struct guard_config *config,
                                       const struct guard_facts *facts)
{
    if (facts->down && !facts->gone) {
        return GUARD_TAKES_NO_MAIL;
    }
    if (!facts->gone || !asks_places(config)) {
        return GUARD_NO_OBSTACLE;
    }
    if (!facts->known) {
        return GUARD_NOT_KNOWN;
    }
    if (config->watch_count > 0 && facts->watch != GUARD_SILENT) {
        return GUARD_MACHINE_ANSWERS;
    }
    return config->witness_count > 0 && facts->witness == GUARD_SILENT ? GUARD_CUT_OFF
                                                                       : GUARD_NO_OBSTACLE;
}

static bool is_back(const struct guard *guard, const struct guard_config *config,
                    const struct guard_facts *facts)
{
    if (guard->by_hand || config->undo.length == 0) {
        return false;
    }
    switch (config->undo_when) {
    case GUARD_UNDO_WATCH:
        return facts->known && facts->watch == GUARD_ACCEPTED;
    case GUARD_UNDO_SERVER:
        return facts->up;
    default:
        return false;
    }
}

static void look(struct guard *guard, const struct guard_config *config,
                 const struct guard_facts *facts)
{
    int64_t now = facts->steady_ms;
    if (now - guard->last_ms > GUARD_GAP_MS) {
        forget_counts(guard);
    }
    guard->last_ms = now;
    guard->obstacle = obstacle_of(config, facts);
    count(&guard->gone_from_ms, facts->gone, now);
    count(&guard->quiet_from_ms, facts->gone && guard->obstacle == GUARD_NO_OBSTACLE, now);
    count(&guard->back_from_ms, is_back(guard, config, facts), now);
}

/* ---- steps ----------------------------------------------------------------------------------- */

static bool step_watching(struct guard *guard, const struct guard_config *config,
                          const struct guard_facts *facts, uint64_t run)
{
    if (!has_passed(guard->quiet_from_ms, config->after_ms, facts->steady_ms)) {
        return false;
    }
    int64_t gone_for_ms = facts->steady_ms - guard->gone_from_ms;
    begin_run(guard, GUARD_STARTING, run, false, facts->wall_ms);
    guard->gone_since_wall_ms = facts->wall_ms - gone_for_ms;
    return true;
}

static bool step_taken_over(struct guard *guard, const struct guard_config *config,
                            const struct guard_facts *facts, uint64_t run)
{
    if (!has_passed(guard->back_from_ms, config->back_after_ms, facts->steady_ms)) {
        return false;
    }
    begin_run(guard, GUARD_UNDOING, run, false, facts->wall_ms);
    return true;
}

/* Another try, unless it has become a mistake: what the last one did is then for people to see. */
static bool step_retry(struct guard *guard, const struct guard_facts *facts, uint64_t run)
{
    if (guard->run != 0) {
        return false;
    }
    if (guard->phase == GUARD_STARTING && !guard->by_hand && facts->up) {
        enter(guard, GUARD_START_FAILED, facts->wall_ms);
        return true;
    }
    if (facts->steady_ms < guard->retry_ms) {
        return false;
    }
    guard->run = run;
    guard->retry_ms = INT64_MAX;
    return true;
}

bool guard_moved(struct guard *guard, bool again, int64_t wall_ms)
{
    if (guard->phase != (again ? GUARD_RESTING : GUARD_WATCHING)) {
        return false;
    }
    enter(guard, again ? GUARD_WATCHING : GUARD_RESTING, wall_ms);
    return true;
}

bool guard_step(struct guard *guard, const struct guard_config *config,
                const struct guard_facts *facts, uint64_t run)
{
    look(guard, config, facts);
    switch (guard->phase) {
    case GUARD_RESTING:
        if (facts->up) {
            enter(guard, GUARD_WATCHING, facts->wall_ms);
            return true;
        }
        return false;
    case GUARD_WATCHING:
        return step_watching(guard, config, facts, run);
    case GUARD_TAKEN_OVER:
        return step_taken_over(guard, config, facts, run);
    case GUARD_STARTING:
    case GUARD_UNDOING:
        return step_retry(guard, facts, run);
    default:
        return false;
    }
}

void guard_ended(struct guard *guard, const struct guard_config *config, bool well,
                 struct slice text, int64_t steady_ms, int64_t wall_ms)
{
    bool starting = guard->phase == GUARD_STARTING;
    assert(guard->run != 0 && (starting || guard->phase == GUARD_UNDOING));
    uint32_t tries = guard->tries + 1;
    set_text(guard, text);
    if (well) {
        enter(guard, starting ? GUARD_TAKEN_OVER : GUARD_RESTING, wall_ms);
    } else if (tries >= config->tries) {
        enter(guard, starting ? GUARD_START_FAILED : GUARD_UNDO_FAILED, wall_ms);
    } else {
        guard->run = 0;
        guard->tries = tries;
        guard->retry_ms = steady_ms + GUARD_RETRY_MS;
    }
}

/* ---- by hand --------------------------------------------------------------------------------- */

static const char *why_not_now(const struct guard *guard)
{
    return guard->run != 0 ? "its script runs; wait for its end" : NULL;
}

const char *guard_start(struct guard *guard, uint64_t run, int64_t wall_ms)
{
    const char *why = why_not_now(guard);
    if (why != NULL) {
        return why;
    }
    if (guard->phase == GUARD_TAKEN_OVER || guard->phase == GUARD_UNDOING ||
        guard->phase == GUARD_UNDO_FAILED) {
        return "it is taken over already; guard undo or guard reset comes first";
    }
    int64_t gone_since = guard->phase == GUARD_WATCHING ? 0 : guard->gone_since_wall_ms;
    begin_run(guard, GUARD_STARTING, run, true, wall_ms);
    guard->gone_since_wall_ms = gone_since;
    return NULL;
}

static const char *why_nothing_to_end(const struct guard *guard)
{
    bool nothing = guard->phase == GUARD_RESTING || guard->phase == GUARD_WATCHING;
    return nothing ? "it is not taken over" : why_not_now(guard);
}

const char *guard_undo(struct guard *guard, const struct guard_config *config, uint64_t run,
                       int64_t wall_ms)
{
    if (config->undo.length == 0) {
        return guard_reset(guard, wall_ms);
    }
    const char *why = why_nothing_to_end(guard);
    if (why == NULL) {
        begin_run(guard, GUARD_UNDOING, run, true, wall_ms);
    }
    return why;
}

const char *guard_reset(struct guard *guard, int64_t wall_ms)
{
    const char *why = why_nothing_to_end(guard);
    if (why == NULL) {
        enter(guard, GUARD_RESTING, wall_ms);
        guard->by_hand = false;
        guard->text[0] = 0;
    }
    return why;
}

/* ---- for people ------------------------------------------------------------------------------ */

bool guard_is_blocked(const struct guard *guard, const struct guard_config *config)
{
    /* Whoever asks its machine has a moment for that. */
    uint64_t moment_ms = guard->obstacle == GUARD_NOT_KNOWN ? GUARD_GAP_MS : 0;
    return guard->phase == GUARD_WATCHING && guard->obstacle != GUARD_NO_OBSTACLE &&
           has_passed(guard->gone_from_ms, config->after_ms + moment_ms, guard->last_ms);
}

const char *guard_state_text(const struct guard *guard, const struct guard_config *config)
{
    static const char *const texts[GUARD_PHASES] = {
        [GUARD_RESTING] = "resting",         [GUARD_WATCHING] = "watching",
        [GUARD_STARTING] = "starting",       [GUARD_TAKEN_OVER] = "taken-over",
        [GUARD_UNDOING] = "undoing",         [GUARD_START_FAILED] = "start-failed",
        [GUARD_UNDO_FAILED] = "undo-failed",
    };
    if (guard_is_blocked(guard, config)) {
        return "blocked";
    }
    if (guard->phase == GUARD_WATCHING && guard->quiet_from_ms != INT64_MAX) {
        return "counting";
    }
    if (guard->phase == GUARD_TAKEN_OVER && guard->back_from_ms != INT64_MAX) {
        return "returning";
    }
    return texts[guard->phase];
}

int64_t guard_seconds_left(const struct guard *guard, const struct guard_config *config)
{
    int64_t due = INT64_MAX;
    if (guard->phase == GUARD_WATCHING && guard->quiet_from_ms != INT64_MAX) {
        due = guard->quiet_from_ms + (int64_t)config->after_ms;
    } else if (guard->phase == GUARD_TAKEN_OVER && guard->back_from_ms != INT64_MAX) {
        due = guard->back_from_ms + (int64_t)config->back_after_ms;
    } else if (guard->run == 0) {
        due = guard->retry_ms;
    }
    if (due == INT64_MAX) {
        return -1;
    }
    return due > guard->last_ms ? (due - guard->last_ms + 999) / 1000 : 0;
}

static const char *obstacle_text(enum guard_obstacle obstacle)
{
    static const char *const texts[] = {
        [GUARD_NO_OBSTACLE] = "",
        [GUARD_TAKES_NO_MAIL] = " takes no mail, but answers: that is no reason for its standby",
        [GUARD_MACHINE_ANSWERS] =
            " is gone, but its machine answers at a watch address: nothing is started by itself",
        [GUARD_CUT_OFF] = " is gone, but no witness answers either: we may be the ones cut off",
        [GUARD_NOT_KNOWN] = " is gone; what its machine answers is not known yet",
    };
    return texts[obstacle];
}

void guard_why(const struct guard *guard, const struct guard_config *config, char *ret_text,
               size_t size)
{
    const char *before = "", *behind = "", *said = guard->text;
    struct slice name = slice_take(config->name, 64);
    switch (guard->phase) {
    case GUARD_RESTING:
        before = "nothing is counted before ";
        behind = " has been up";
        said = "";
        break;
    case GUARD_WATCHING:
        name = guard->obstacle == GUARD_NO_OBSTACLE ? SLICE_EMPTY : name;
        behind = obstacle_text(guard->obstacle);
        said = "";
        break;
    case GUARD_TAKEN_OVER:
        before = "the standby of ";
        behind = guard->by_hand ? " was started by hand" : " was started by script";
        break;
    case GUARD_START_FAILED:
        before = "the script that starts the standby of ";
        behind = " has failed; what it has done is not known";
        break;
    case GUARD_UNDO_FAILED:
        before = "the script that ends the standby of ";
        behind = " has failed; what it has done is not known";
        break;
    default:
        name = SLICE_EMPTY;
        behind = guard->run != 0 ? "its script runs" : "its script has failed, and is tried again";
        break;
    }
    snprintf(ret_text, size, "%s%.*s%s%s%s", before, SLICE_PRINT(name), behind,
             said[0] != 0 ? ": " : "", said);
}

uint32_t guard_look_every_ms(const struct guard *guard, const struct guard_config *config)
{
    enum { GONE_MS = 2000, TAKEN_OVER_MS = 5000 };
    if (guard->phase == GUARD_WATCHING && asks_places(config)) {
        return guard->gone_from_ms != INT64_MAX ? GONE_MS : 0;
    }
    bool awaits = guard->phase == GUARD_TAKEN_OVER && !guard->by_hand &&
                  config->undo_when == GUARD_UNDO_WATCH;
    return awaits ? TAKEN_OVER_MS : 0;
}

/* ---- notes ----------------------------------------------------------------------------------- */

void guard_note_encode(const struct guard *guard, struct buffer *ret_note)
{
    buffer_put_u8(ret_note, NOTE_VERSION);
    buffer_put_u8(ret_note, (uint8_t)guard->phase);
    buffer_put_u8(ret_note, guard->by_hand ? FLAG_BY_HAND : 0);
    buffer_put_u32(ret_note, guard->tries);
    buffer_put_u64(ret_note, guard->run);
    buffer_put_u64(ret_note, (uint64_t)guard->since_wall_ms);
    buffer_put_u64(ret_note, (uint64_t)guard->gone_since_wall_ms);
    buffer_put_bytes(ret_note, slice_from_text(guard->text));
}

bool guard_note_decode(struct guard *guard, struct slice note)
{
    struct reader reader = reader_make(note);
    uint8_t version = reader_u8(&reader), phase = reader_u8(&reader), flags = reader_u8(&reader);
    uint32_t tries = reader_u32(&reader);
    uint64_t run = reader_u64(&reader);
    uint64_t since = reader_u64(&reader), gone_since = reader_u64(&reader);
    struct slice text = reader_bytes(&reader);
    bool runs = phase == GUARD_STARTING || phase == GUARD_UNDOING;
    if (reader.failed || version != NOTE_VERSION || phase >= GUARD_PHASES || (run != 0 && !runs)) {
        return false;
    }
    enter(guard, (enum guard_phase)phase, (int64_t)since);
    guard->by_hand = (flags & FLAG_BY_HAND) != 0;
    guard->tries = tries;
    guard->run = run;
    guard->retry_ms = runs && run == 0 ? guard->last_ms + GUARD_RETRY_MS : INT64_MAX;
    guard->gone_since_wall_ms = (int64_t)gone_since;
    set_text(guard, text);
    return true;
}
