/* SPDX-License-Identifier: Apache-2.0
 *
 * A machine that shares its state directory with another works while its lease lasts. Here it is
 * asked before each 250 and each dot; when it is over, this process ends at once, in the middle of
 * whatever it does, for what it would say may not be true any more. And what another writer has
 * written late is taken over (spool_load()).
 */
#include "service/core_internal.h"

#include "sys/clock.h"
#include "sys/log.h"

#include <jansson.h>
#include <stdio.h>
#include <unistd.h>

enum { EXIT_LEASE_OVER = 1 };

/* Also of the spool's threads. */
bool core_lease_holds(void *page)
{
    const struct lease_page *lease = page;
    return lease == NULL || clock_steady_ms() < atomic_load(&lease->until_ms);
}

void core_lease_check(const struct core *core)
{
    if (!core_lease_holds((void *)(uintptr_t)core->lease)) {
        log_event(LOG_LEVEL_ERROR, "lease-over",
                  LOG_TEXT("text", "the other machine may have taken over: nothing more is said"));
        _exit(EXIT_LEASE_OVER);
    }
}

/* ---- what comes late ------------------------------------------------------------------------- */

static bool is_handed_over(unsigned fate)
{
    return fate == SPOOL_DELIVERED || fate == SPOOL_PULLED;
}

void core_lease_late_fate(void *context, struct message_id id, struct spool_handle handle,
                          uint32_t delivery, enum spool_fate fate)
{
    struct core *core = context;
    char text[ID_TEXT_LENGTH + 1];
    id_to_text(id, text);
    bool gone = handle.index == SPOOL_NO_HANDLE.index;
    unsigned ours = gone ? SPOOL_DELIVERED : spool_fate_of(core->spool, handle, delivery);
    enum error error = ERROR_EXISTS;
    if (!gone && ours == 0) {
        error = relay_ended_elsewhere(core->relay, handle, delivery, fate,
                                      SLICE_LITERAL("by the machine that was taken over from"),
                                      core_now(core));
    }
    bool twice = error != ERROR_NONE && is_handed_over(fate) && (ours == 0 || is_handed_over(ours));
    log_event(twice ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING, twice ? "delivered-twice" : "late-fate",
              LOG_TEXT("id", text), LOG_NUMBER("delivery", delivery),
              LOG_TEXT("reason", twice ? "the other machine had handed it over, too"
                                       : "the other machine had ended it"));
    core->late++;
}

static void say_late_message(struct core *core, struct message_id id)
{
    char text[ID_TEXT_LENGTH + 1];
    id_to_text(id, text);
    log_event(
        LOG_LEVEL_WARNING, "late-message", LOG_TEXT("id", text),
        LOG_TEXT("reason", "the other machine had accepted it before it was taken over from"));
    core->late++;
}

void core_lease_late_message(struct core *core, struct message_id id)
{
    if (core->loaded && core->lease != NULL) {
        say_late_message(core, id);
    }
}

/* ---- what is told ---------------------------------------------------------------------------- */

static void tell(struct core *core, const struct lease_page *lease)
{
    char text[ALERT_TEXT_SIZE];
    int64_t seen_ms = atomic_load(&lease->other_seen_ms);
    bool stands_by = seen_ms != 0 && clock_steady_ms() - seen_ms < (int64_t)lease->after_ms;
    bool unfenced = atomic_load(&lease->ended_token) + 1 < lease->token;
    snprintf(text, sizeof(text), "%s has taken over from %s, which is not back", lease->name,
             lease->of);
    report_alert_while(core, ALERT_TAKEN_OVER, lease->taken_over && !stands_by, text);
    snprintf(text, sizeof(text),
             "%s is not known to have stopped: what it may still write is looked for", lease->of);
    report_alert_while(core, ALERT_UNFENCED, unfenced, text);
    /* At a start it may not have had its turn. */
    bool settled = core_now(core).wall_ms - lease->since_ms > 3 * (int64_t)lease->after_ms;
    snprintf(text, sizeof(text), "%s does not stand by", lease->of);
    report_alert_while(core, ALERT_NO_STANDBY, settled && !stands_by && !lease->taken_over, text);
    snprintf(text, sizeof(text), "%s was still at work when it was taken over from: see the log",
             lease->of);
    report_alert_while(core, ALERT_SPLIT, core->late > 0, text);
}

void core_lease_tick(struct core *core)
{
    const struct lease_page *lease = core->lease;
    if (lease == NULL) {
        return;
    }
    core_lease_check(core);
    uint32_t ended = atomic_load(&lease->ended_token);
    if (ended != core->ended_token) {
        core->ended_token = ended;
        spool_others_ended(core->spool, ended);
    }
    tell(core, lease);
}

json_t *core_lease_status(const struct core *core)
{
    const struct lease_page *lease = core->lease;
    if (lease == NULL) {
        return json_null();
    }
    int64_t seen_ms = atomic_load(&lease->other_seen_ms), now_ms = clock_steady_ms();
    return json_pack(
        "{ss ss ss sI sI sb sb so}", "name", lease->name, "of", lease->of, "role", "active",
        "since", (json_int_t)lease->since_ms, "token", (json_int_t)lease->token, "unfenced",
        atomic_load(&lease->ended_token) + 1 < lease->token, "taken_over", lease->taken_over,
        "standby_seen_seconds",
        seen_ms == 0 ? json_null() : json_integer((json_int_t)((now_ms - seen_ms) / 1000)));
}
