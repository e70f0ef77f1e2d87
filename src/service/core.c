/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of core. A start: the spool is opened and accepts at once; what it holds is loaded in
 * slices between other work; when all is loaded and every ring of edge-out has said what it still
 * works on, dispatch begins.
 */
#include "service/core_cluster.h"
#include "service/core_errands.h"
#include "service/core_policies.h"
#include "service/core_tls_reports.h"

#include "sys/clock.h"
#include "sys/random.h"

#include <assert.h>
#include <stdlib.h>

enum {
    EVENTS_TOTAL_MIN = 256 << 20,
    EVENTS_FILE_BYTES = 64 << 20,
    EVENTS_FILES_LEAST = 4,
    FORESEEN_A_TURN = 200, /* envelopes: reads of the journal, which may wait for the disk */
};
#define EVENTS_TOTAL_MAX (16ULL << 30)

bool core_has_server(const struct core *core, struct slice name)
{
    if (relay_config_server(&core->config->relay, name) != NO_INDEX) {
        return true;
    }
    for (uint32_t i = relay_next_exchanger(core->relay, 0); i != NO_INDEX;
         i = relay_next_exchanger(core->relay, i + 1)) {
        if (slice_equal(core_server_name(core, i), name)) {
            return true;
        }
    }
    return false;
}

int64_t core_wall_ms(const struct core *core)
{
    return core->cluster != NULL ? core_cluster_wall_ms(core->cluster) : clock_wall_ms();
}

struct relay_time core_now(const struct core *core)
{
    return (struct relay_time){.steady_ms = clock_steady_ms(), .wall_ms = core_wall_ms(core)};
}

/* In a cluster by the database's time, which says which partition it is in. */
struct message_id core_make_id(struct core *core)
{
    return id_make(&core->ids, core_wall_ms(core));
}

_Noreturn void core_out_of_memory(void)
{
    report_problem("out of memory", ERROR_MEMORY);
    abort();
}

/* ---- asked by the spool ---------------------------------------------------------------------- */

static void put_note(void *context, uint32_t delivery, uint16_t kind, struct slice payload)
{
    const struct core_described *described = context;
    spool_batch_note(described->core->spool, described->handle, delivery, kind, payload);
}

static void describe(void *context, struct spool_handle handle)
{
    struct core_described described = {context, handle};
    relay_describe(described.core->relay, handle, put_note, &described);
}

static void state_changed(void *context)
{
    struct core *core = context;
    if (core->relay != NULL) {
        core_in_announce(core, false);
        report_spool(core);
    }
}

/* ---- loading --------------------------------------------------------------------------------- */

static void load_message(void *context, struct spool_handle handle,
                         const struct spool_message *message)
{
    struct core *core = context;
    core->unwanted = core->cluster != NULL && !core_cluster_wants(core->cluster, handle);
    if (core->unwanted) {
        return;
    }
    if (core->cluster != NULL) {
        core_cluster_loading(core->cluster);
    }
    core_lease_late_message(core, message->id);
    /* Its notes would find nobody, and compaction would forget them. */
    if (relay_add(core->relay, handle, message, core_now(core)) != ERROR_NONE) {
        core_out_of_memory();
    }
}

static void load_fate(void *context, struct spool_handle handle, uint32_t delivery,
                      enum spool_fate fate)
{
    struct core *core = context;
    if (!core->unwanted) {
        relay_load_fate(core->relay, handle, delivery, fate);
    }
}

static void load_elsewhere(void *context, struct spool_handle handle, uint32_t delivery)
{
    struct core *core = context;
    if (!core->unwanted) {
        relay_load_elsewhere(core->relay, handle, delivery);
    }
}

static void load_note(void *context, struct spool_handle handle, uint32_t delivery, uint16_t kind,
                      struct slice payload)
{
    struct core *core = context;
    if (!core->unwanted) {
        relay_load_note(core->relay, handle, delivery, kind, payload, core_now(core));
    }
}

static void load_global(void *context, struct slice key, struct slice payload)
{
    struct core *core = context;
    if (!core_names_load(core, key, payload) && !core_guards_load(core, key, payload)) {
        relay_load_global(core->relay, key, payload, core_now(core));
    }
}

/* Of a share that is on its way to somebody else it is not ours to say; and what is in flight ends
 * first, for it may be delivered twice then, or be deferred: it is told again. */
static void load_late_fate(void *context, struct message_id id, struct spool_handle handle,
                           uint32_t delivery, enum spool_fate fate)
{
    const struct core *core = context;
    if (core->cluster != NULL) {
        if (!core_cluster_wants(core->cluster, handle) || relay_in_flight(core->relay, handle)) {
            return;
        }
        core_cluster_loading(core->cluster);
    }
    core_lease_late_fate(context, id, handle, delivery, fate);
}

static void load_damage(void *context, const char *text)
{
    struct core *core = context;
    report_damage(core, text);
}

static struct spool_loader loader_of(struct core *core)
{
    return (struct spool_loader){.context = core,
                                 .message = load_message,
                                 .fate = load_fate,
                                 .elsewhere = load_elsewhere,
                                 .note = load_note,
                                 .global_note = load_global,
                                 .damage = load_damage,
                                 .late_fate = load_late_fate};
}

/* What another writer has written since: few, if any, so they are loaded at once. */
static void load_late(struct core *core)
{
    const struct spool_loader loader = loader_of(core);
    bool complete = !core->loaded || core->lease == NULL;
    enum error error = ERROR_NONE;
    while (!complete && error == ERROR_NONE) {
        relay_together_begin(core->relay, core_now(core));
        error = spool_load(core->spool, &loader, &complete);
        relay_together_end(core->relay, core_now(core));
    }
    if (core->loaded && core->lease != NULL) {
        core_act(core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    }
}

static void load_slice(void *context)
{
    struct core *core = context;
    const struct spool_loader loader = loader_of(core);
    enum error error = spool_load(core->spool, &loader, &core->loaded);
    core_act(core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    if (error != ERROR_NONE) {
        report_alert(core, ALERT_LOAD, "the journal cannot be read; loading is tried again");
        core->load_again = true; /* by the tick */
    } else if (core->loaded) {
        report_alert_over(core, ALERT_LOAD);
        report_loaded(core);
        core_guards_tick(core); /* what stands is told at once, whatever becomes of it then */
        core_out_loaded(core);
        core_in_announce(core, false);
    } else {
        loop_later_ask(core->load);
    }
}

/* ---- time ------------------------------------------------------------------------------------ */

static void relay_due(void *context)
{
    struct core *core = context;
    core->due_at = INT64_MAX;
    relay_tick(core->relay, core_now(core));
    /* Odometers and expiries: where nothing else goes on they would wait for a group for days. */
    core_act(core, SPOOL_WRITTEN, CORE_NOTHING_AFTER);
}

static void tick(void *context)
{
    struct core *core = context;
    loop_timer_set(core->tick, CORE_TICK_MS);
    spool_keep_copies(core->spool, (int64_t)core->config->safety_copy_ms, core_now(core).wall_ms);
    spool_tick(core->spool);
    load_late(core);
    core_act_tick(core);
    core_out_tick(core);
    core_in_tick(core);
    core_drill_tick(core);
    core_recipients_tick(core);
    core_errands_tick(core);
    core_policies_tick(core);
    core_greylist_tick(core);
    core_guards_tick(core);
    core_refusals_tick(core);
    logins_tick(core, core_now(core).steady_ms);
    core_tls_reports_tick(core);
    core_lease_tick(core);
    core_control_tick(core);
    events_tick(core->events, core_wall_ms(core));
    report_tick(core);
    core_check_stopped(core);
    if (core->load_again) {
        core->load_again = false;
        loop_later_ask(core->load);
    }
}

/* ---- life cycle ------------------------------------------------------------------------------ */

static struct events_settings events_settings(const struct service_config *config,
                                              struct disk *disk)
{
    uint64_t total = config->trace_bytes;
    struct disk_space space;
    if (total == 0) {
        total = disk->ops->space(disk, &space) == ERROR_NONE ? space.total_bytes / 20 : 0;
        total = total < EVENTS_TOTAL_MAX ? total : EVENTS_TOTAL_MAX;
        total = total > EVENTS_TOTAL_MIN ? total : EVENTS_TOTAL_MIN;
    }
    /* A file goes as a whole: a small bound has smaller ones. */
    uint64_t file = total / EVENTS_FILES_LEAST;
    return (struct events_settings){.keep_ms = config->trace_keep_ms,
                                    .total_bytes = total,
                                    .file_bytes = file < EVENTS_FILE_BYTES ? (uint32_t)file
                                                                           : EVENTS_FILE_BYTES};
}

static enum error read_for_relay(void *context, struct spool_handle handle, struct arena *arena,
                                 struct spool_message *ret_message)
{
    struct core *core = context;
    return spool_read_envelope(core->spool, handle, arena, ret_message);
}

static void foresee_slice(void *context)
{
    struct core *core = context;
    const struct relay_envelopes envelopes = {.context = core, .read = read_for_relay};
    if (core->coming.config == NULL) {
        return; /* one that came later needed no more slices */
    }
    if (!relay_foresee_slice(core->relay, &envelopes, FORESEEN_A_TURN)) {
        loop_later_ask(core->foresee);
        return;
    }
    const struct service_config *config = core->coming.config;
    core->coming.config = NULL;
    core->coming.done(core->coming.context,
                      core_reconfigure(core, config, core->coming.generation));
}

static bool make_timers(struct core *core)
{
    core->tick = loop_timer_new(core->loop, tick, core);
    core->due = loop_timer_new(core->loop, relay_due, core);
    core->in_relief = loop_timer_new(core->loop, core_in_read_on, core);
    core->load = loop_later_new(core->loop, load_slice, core);
    core->foresee = loop_later_new(core->loop, foresee_slice, core);
    core->in_later = loop_later_new(core->loop, core_in_read_on, core);
    core->out_later = loop_later_new(core->loop, core_out_later, core);
    core->control_later = loop_later_new(core->loop, core_control_later, core);
    return core->tick != NULL && core->due != NULL && core->in_relief != NULL &&
           core->load != NULL && core->foresee != NULL && core->in_later != NULL &&
           core->out_later != NULL && core->control_later != NULL;
}

static enum sts_demand demand_for_relay(void *context, struct slice domain, struct slice host)
{
    return core_policy_demand(context, domain, host);
}

static enum error set_up(struct core *core, core_open_spool_fn *open, void *context,
                         struct disk *events_disk)
{
    struct events_settings settings = events_settings(core->config, events_disk);
    core->events_disk = events_disk;
    enum error error = events_open(core->loop, events_disk, &settings, &core->events);
    const struct spool_owner owner = {.context = core,
                                      .describe = describe,
                                      .state_changed = state_changed,
                                      .may_write = core->lease != NULL ? core_lease_holds : NULL,
                                      .may_write_context = (void *)(uintptr_t)core->lease};
    struct spool *spool = NULL;
    enum error spool_error = open(context, core->loop, &owner, &spool); /* takes its disk over */
    core->spool = spool_error == ERROR_NONE ? spool : NULL;
    if (error == ERROR_NONE) {
        error = spool_error;
    }
    if (error != ERROR_NONE) {
        return error;
    }
    spool_keep_copies(spool, (int64_t)core->config->safety_copy_ms, core_now(core).wall_ms);
    core->relay = relay_new(&core->config->relay, random_u64(), core_now(core));
    if (core->relay == NULL || core->recipients == NULL || !make_timers(core)) {
        return ERROR_MEMORY;
    }
    const struct relay_envelopes envelopes = {.context = core, .read = read_for_relay};
    const struct relay_policies policies = {.context = core, .demand = demand_for_relay};
    relay_set_envelopes(core->relay, &envelopes);
    relay_set_policies(core->relay, &policies);
    error = core_in_reconfigure(core);
    if (error == ERROR_NONE) {
        core->refusals = event_bound_new(true);
        core->logins = logins_new(core);
        core->ids = (struct id_maker){.node = core->config->node, .start = (uint32_t)random_u64()};
        loop_timer_set(core->tick, CORE_TICK_MS);
        loop_later_ask(core->load);
        core_in_announce(core, false);
        report_spool(core);
    }
    return error;
}

enum error core_new_with(struct loop *loop, const struct service_config *config,
                         uint32_t generation, core_open_spool_fn *open, void *context,
                         struct disk *events_disk, struct counters *counters,
                         const struct lease_page *lease, struct core **ret_core)
{
    struct core *core = calloc(1, sizeof(*core));
    if (core == NULL) {
        core_out_of_memory(); /* at a start there is nothing better to do */
    }
    core->loop = loop;
    core->config = config;
    core->generation = generation;
    core->counters = counters;
    core->lease = lease;
    core->ended_token = lease != NULL ? atomic_load(&lease->ended_token) : 0;
    core->due_at = INT64_MAX;
    core->started_wall_ms = clock_wall_ms();
    core->started_steady_ms = clock_steady_ms();
    buffer_init(&core->frame, 0);
    buffer_init(&core->copy, 0);
    arena_init(&core->arena);
    alerts_init(&core->alerts, (struct hash_key){random_u64(), random_u64()});
    alert_news_init(&core->alert_news);
    core_in_init(core);
    core_out_init(core);
    core_names_init(core);
    core_act_init(core);
    core_drill_init(core);
    core_guards_init(core);
    core_recipients_init(core);
    core_errands_init(core);
    core_policies_init(core);
    core_tls_reports_init(core);
    core_control_init(core);
    enum error error = set_up(core, open, context, events_disk);
    if (error != ERROR_NONE) {
        core_free(core);
        return error;
    }
    *ret_core = core;
    return ERROR_NONE;
}

struct log_opening {
    struct disk *disk;
    struct spool_settings settings;
};

static enum error open_log(void *context, struct loop *loop, const struct spool_owner *owner,
                           struct spool **ret_spool)
{
    struct log_opening *opening = context;
    return spool_open_log(loop, opening->disk, &opening->settings, owner, ret_spool);
}

static enum error new_member(struct loop *loop, const struct service_config *config,
                             uint32_t generation, const struct log_opening *opening,
                             struct disk *events_disk, struct counters *counters,
                             struct core **ret_core)
{
    struct core_cluster *cluster = core_cluster_new(loop, config);
    if (cluster == NULL) {
        core_out_of_memory();
    }
    core_cluster_set_journal(cluster, opening->disk, &opening->settings);
    enum error error = core_new_with(loop, config, generation, core_cluster_open, cluster,
                                     events_disk, counters, NULL, ret_core);
    if (error != ERROR_NONE) {
        core_cluster_free(cluster);
        return error;
    }
    (*ret_core)->cluster = cluster;
    return ERROR_NONE;
}

enum error core_new(struct loop *loop, const struct service_config *config, uint32_t generation,
                    struct disk *spool_disk, struct disk *events_disk, struct counters *counters,
                    const struct lease_page *lease, struct core **ret_core)
{
    struct log_opening opening = {.disk = spool_disk};
    spool_settings_default(&opening.settings);
    if (config->segment_bytes != 0) {
        opening.settings.segment_bytes = config->segment_bytes;
    }
    if (config->large_content_bytes != 0) {
        opening.settings.large_bytes = config->large_content_bytes;
    }
    opening.settings.reserve_bytes = config->reserve_bytes;
    if (config->cluster.database.length > 0) {
        return new_member(loop, config, generation, &opening, events_disk, counters, ret_core);
    }
    if (lease != NULL) {
        opening.settings.token = lease->token;
        opening.settings.ended_token = atomic_load(&lease->ended_token);
    }
    return core_new_with(loop, config, generation, open_log, &opening, events_disk, counters, lease,
                         ret_core);
}

/* Drawn once for a state directory: another one with our name in the cluster is not we. */
static struct message_id own_instance(struct core *core)
{
    static const char name[] = "instance";
    struct message_id instance;
    struct buffer text;
    buffer_init(&text, 64);
    if (whole_files_read(core->files, name, &text) == ERROR_NONE &&
        id_from_text(slice_take(buffer_slice(&text), ID_TEXT_LENGTH), &instance)) {
        buffer_done(&text);
        return instance;
    }
    char id[ID_TEXT_LENGTH + 1];
    instance = (struct message_id){random_u64(), random_u64()};
    id_to_text(instance, id);
    buffer_clear(&text);
    buffer_printf(&text, "%s\n", id);
    whole_files_write(core->files, name, &text);
    return instance;
}

void core_keep_state(struct core *core, struct disk *disk, struct slice boot)
{
    core->files = whole_files_new(core->loop, disk);
    if (core->files == NULL) {
        core_out_of_memory();
    }
    if (core->cluster != NULL) {
        core_cluster_keep_clock(core->cluster, core->files, boot);
    }
    core_policies_keep(core, core->files);
    core_tls_reports_keep(core, core->files);
    if (core->cluster != NULL &&
        core_cluster_join(core->cluster, core, own_instance(core)) != ERROR_NONE) {
        core_out_of_memory();
    }
}

void core_set_broken_handler(struct core *core, void (*fn)(void *context, enum core_edge edge),
                             void *context)
{
    core->edge_broken = fn;
    core->edge_broken_context = context;
}

void core_edge_is_broken(struct core *core, enum core_edge edge, const char *text)
{
    report_alert(core, edge == CORE_EDGE_IN ? ALERT_EDGE_IN : ALERT_EDGE_OUT, text);
    if (core->edge_broken != NULL) {
        core->edge_broken(core->edge_broken_context, edge);
    }
}

void core_set_edge_in(struct core *core, uint32_t index, struct ring *ring)
{
    core_in_attach(core, index, ring);
}

void core_set_edge_out(struct core *core, uint32_t index, uint32_t count, struct ring *ring)
{
    core_out_attach(core, index, count, ring);
}

enum error core_reconfigure(struct core *core, const struct service_config *config,
                            uint32_t generation)
{
    const struct relay_envelopes envelopes = {.context = core, .read = read_for_relay};
    core_recipients_reconfigure(core);
    enum error error =
        core->cluster == NULL ? ERROR_NONE : core_cluster_reconfigure(core->cluster, config);
    if (error != ERROR_NONE) {
        return error;
    }
    error = relay_reconfigure(core->relay, &config->relay, &envelopes, core_now(core));
    if (error != ERROR_NONE) {
        return error;
    }
    const struct service_config *old = core->config;
    core_milter_forget(core, core->config);
    core->config = config;
    core->generation = generation;
    core_lists_reconfigure(core);
    core_guards_reconfigure(core);
    core_out_remap(core, old);
    if (core_in_reconfigure(core) != ERROR_NONE) {
        core_out_of_memory(); /* relay has the new one already */
    }
    struct events_settings settings = events_settings(config, core->events_disk);
    events_reconfigure(core->events, &settings);
    spool_set_reserve(core->spool, config->reserve_bytes);
    spool_keep_copies(core->spool, (int64_t)config->safety_copy_ms, core_now(core).wall_ms);
    core_act(core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    report_alerts_reconfigured(core);
    core_in_announce(core, true);
    return ERROR_NONE;
}

void core_reconfigure_soon(struct core *core, const struct service_config *config,
                           uint32_t generation, void (*done)(void *context, enum error error),
                           void *context)
{
    core->coming.config = config;
    core->coming.generation = generation;
    core->coming.done = done;
    core->coming.context = context;
    enum error error = relay_foresee(core->relay, &config->relay);
    if (error != ERROR_NONE) {
        core->coming.config = NULL;
        done(context, error);
        return;
    }
    foresee_slice(core);
}

static bool is_idle(const struct core *core)
{
    return core->commits_under_way == 0 && core->notes_pending == 0 && core_act_is_idle(core);
}

void core_check_stopped(struct core *core)
{
    if (!core->stopping || core->stopped == NULL) {
        return;
    }
    bool away = core->cluster != NULL && core_cluster_is_away(core->cluster);
    bool hopeless = (away || core->told_spool.accepting == ERROR_IO) &&
                    core_now(core).steady_ms - core->stopping_since_ms >= CORE_STOP_MS;
    if (!hopeless && !is_idle(core)) {
        return;
    }
    if (core->cluster != NULL && !core_cluster_stop(core->cluster)) {
        return;
    }
    void (*stopped)(void *context) = core->stopped;
    core->stopped = NULL;
    events_tick(core->events, core_wall_ms(core));
    core_recipients_stop(core);
    core_policies_stop(core);
    core_greylist_stop(core);
    core_tls_reports_stop(core);
    stopped(core->stopped_context);
}

void core_stop(struct core *core, void (*done)(void *context), void *context)
{
    core->stopping = true;
    core->stopping_since_ms = core_now(core).steady_ms;
    core->stopped = done;
    core->stopped_context = context;
    core_act_tick(core); /* one more try for what the journal refused */
    core_check_stopped(core);
}

void core_free(struct core *core)
{
    if (core == NULL) {
        return;
    }
    core->stopped = NULL;
    core_control_done(core);
    core_drill_done(core);
    for (uint32_t i = 0; i < CORE_EDGES_MAX; i++) {
        core_in_attach(core, i, NULL); /* contents that never came to a commit */
    }
    core_cluster_leave(core->cluster);
    spool_close(core->spool);   /* completes what is under way: relay and events still live */
    core_recipients_done(core); /* requests have waited for it, and forget what they asked */
    core_resolutions_done(core);
    core_in_done(core);
    core_out_done(core);
    core_names_done(core);
    core_guards_done(core);
    core_tls_reports_done(core);
    core_policies_done(core); /* sessions have waited for them */
    core_errands_done(core);
    whole_files_free(core->files);
    core_act_done(core);
    core_cluster_free(core->cluster);
    relay_free(core->relay);
    events_close(core->events);
    event_bound_free(core->refusals);
    logins_free(core->logins);
    loop_timer_free(core->tick);
    loop_timer_free(core->due);
    loop_timer_free(core->in_relief);
    loop_later_free(core->load);
    loop_later_free(core->foresee);
    loop_later_free(core->in_later);
    loop_later_free(core->out_later);
    loop_later_free(core->control_later);
    buffer_done(&core->frame);
    buffer_done(&core->copy);
    arena_done(&core->arena);
    alerts_done(&core->alerts);
    alert_news_done(&core->alert_news);
    free(core);
}
