/* SPDX-License-Identifier: Apache-2.0
 *
 * Shares come and go. One is taken: the spool loads its parts, and relay gets them as they come.
 * One is to be left: relay begins nothing more of it; when nothing of it is in flight relay forgets
 * it; when no write about it is under way either the spool lets it go, and then the others may have
 * it. One is lost: relay forgets it at once, and the rest follows the same way.
 *
 * One that is lost and comes back while a dot of it is out is taken when that has been answered: a
 * 2xx is told of the part that the spool still has, and were the message loaded before, its attempt
 * would be in doubt, and be made once more beside the one that is out. The rest of the share waits
 * with it, at most as long as its server may take for a dot; that is rare, for a share is lost when
 * another node has had it, or another life of this one. It is ours meanwhile, so nothing of it is
 * overtaken.
 */
#include "service/core_cluster.h"

#include "cluster/member.h"
#include "relay/notes.h"
#include "relay/routing.h"
#include "service/cluster_news.h"
#include "service/cluster_time.h"
#include "service/core_internal.h"
#include "service/core_out.h"
#include "service/core_post.h"
#include "service/database_trouble.h"
#include "service/upkeep.h"
#include "sys/clock.h"
#include "sys/log.h"
#include "sys/machine.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    BEAT_MS = 100, /* so often the lease is looked at, and what is being left */
};

enum owned_state {
    OWNED,
    OWNED_RESTING,   /* asked to leave it: nothing new is begun */
    OWNED_FORGOTTEN, /* relay knows it no more; writes about it may be under way */
    OWNED_LEAVING,   /* the spool lets it go */
};

struct owned {
    uint32_t number;
    int64_t token;
    enum owned_state state;
    bool is_lost;         /* nobody waits for our word that we have left */
    int64_t again;        /* taken anew meanwhile, with this token; 0: not */
    uint64_t writes_upto; /* made before relay forgot it */
    char name[SHARE_NAME_MAX + 1];
};

struct core_cluster {
    struct loop *loop;
    struct core *core; /* NULL until it has joined */
    const struct service_config *config;
    struct disk *journal;
    struct spool_settings spool_settings;
    struct spool *spool;
    struct member *member;
    struct core_post *post;
    struct routing *routing;
    struct map shares; /* number -> struct owned */
    struct loop_timer *beat;
    struct loop_later *turn;
    bool together;
    bool notes_known; /* the odometers among them */
    bool leads;
    int64_t due_ms;       /* told to relay: relay_older_due() */
    int64_t due_since_ms; /* steady */
    int64_t own_ms; /* spool_postgres_behind(), the lowest that the last reading may not cover */
    int64_t own_seen_ms;                      /* steady */
    uint64_t breaks;                          /* spool_postgres_breaks() */
    uint64_t messages_missing, fates_missing; /* told of */
    struct database_trouble trouble;
    int64_t troubled_ms; /* steady: since when it is told of; 0: it is not */
    bool stopping, stopped;
    struct cluster_time time;
    struct upkeep *upkeep;
};

/* ---- which share ------------------------------------------------------------------------------
 */

static struct slice domain_of(struct slice address)
{
    size_t at = address.length;
    while (at > 0 && address.data[at - 1] != '@') {
        at--;
    }
    return at > 0 ? slice_skip(address, at) : SLICE_EMPTY;
}

static struct slice name_share(void *context, const struct spool_message *message,
                               uint32_t delivery, uint8_t buffer[SPOOL_SHARE_MAX])
{
    _Static_assert((int)SPOOL_SHARE_MAX > (int)SHARE_NAME_MAX, "with its NUL");
    const struct core_cluster *cluster = context;
    struct slice address = message->recipients[delivery].address;
    uint32_t index = routing_domain(cluster->routing, domain_of(address));
    if (index == NO_INDEX) {
        share_name_of(SHARE_OUT, SLICE_EMPTY, false, address, (char *)buffer);
    } else {
        const struct route_config *route = &cluster->config->relay.routes[index];
        share_name_of(SHARE_IN, route->share_group, route->split, address, (char *)buffer);
    }
    return slice_from_text((const char *)buffer);
}

static bool is_common(void *context, struct slice key)
{
    (void)context;
    return note_scope(key) == NOTE_OF_CLUSTER;
}

/* ---- what the spool hands over ----------------------------------------------------------------
 */

/* Whatever came in one turn belongs together: a message is not sent before its notes are read. */
void core_cluster_loading(struct core_cluster *cluster)
{
    if (!cluster->together) {
        cluster->together = true;
        relay_together_begin(cluster->core->relay, core_now(cluster->core));
        loop_later_ask(cluster->turn);
    }
}

/* ---- order between nodes ---------------------------------------------------------------------
 */

static void tell_due(struct core_cluster *cluster, const struct member_due *due, bool is_ours)
{
    int64_t now_ms = clock_steady_ms();
    if (due->upto_ms == INT64_MAX) {
        log_event(LOG_LEVEL_INFO, "mail-brought",
                  LOG_NUMBER("waited_ms", now_ms - cluster->due_since_ms));
    } else if (cluster->due_ms == INT64_MAX) {
        cluster->due_since_ms = now_ms;
        log_event(LOG_LEVEL_INFO, "mail-due",
                  LOG_SLICE("node", is_ours ? cluster->config->cluster.name : due->node),
                  LOG_NUMBER("accepted", due->upto_ms));
    }
}

/* Mail that a node has in its journal alone goes before what others accepted later. What has become
 * due is told to relay at once; that it has come only when following is behind it. */
static void keep_order(struct core_cluster *cluster)
{
    struct member_due due;
    if (cluster->member == NULL) {
        return; /* at the end */
    }
    uint64_t breaks = spool_postgres_breaks(cluster->spool);
    int64_t own_ms = spool_postgres_behind(cluster->spool), now_ms = clock_steady_ms();
    if (breaks != cluster->breaks) {
        cluster->breaks = breaks;
        member_doubt(cluster->member);
    }
    member_due(cluster->member, &due);
    if (own_ms <= cluster->own_ms || due.asked_ms > cluster->own_seen_ms) {
        cluster->own_ms = own_ms;
        cluster->own_seen_ms = now_ms;
    }
    bool is_ours = cluster->own_ms < due.upto_ms;
    due.upto_ms = is_ours ? cluster->own_ms : due.upto_ms;
    if (due.upto_ms > cluster->due_ms &&
        (due.takes || !spool_postgres_has_followed(cluster->spool, due.until_xid))) {
        due.upto_ms = cluster->due_ms; /* not yet */
        spool_postgres_follow(cluster->spool);
    }
    if (due.upto_ms != cluster->due_ms) {
        tell_due(cluster, &due, is_ours);
    }
    if (due.upto_ms != INT64_MAX || cluster->due_ms != INT64_MAX) {
        cluster->due_ms = due.upto_ms;
        relay_older_due(cluster->core->relay, due.upto_ms, core_now(cluster->core));
    }
}

static void turn_ends(void *context)
{
    struct core_cluster *cluster = context;
    cluster->together = false;
    core_early_loaded(cluster->core);
    keep_order(cluster);
    relay_together_end(cluster->core->relay, core_now(cluster->core));
    core_act(cluster->core, SPOOL_LAZY, CORE_NOTHING_AFTER);
}

static struct owned *share_of(const struct core_cluster *cluster, struct spool_handle handle)
{
    return map_get(&cluster->shares, (uint64_t)spool_postgres_share(cluster->spool, handle));
}

bool core_cluster_wants(struct core_cluster *cluster, struct spool_handle handle)
{
    const struct owned *owned = share_of(cluster, handle);
    return owned != NULL && owned->state == OWNED;
}

/* ---- leaving ----------------------------------------------------------------------------------
 */

static void rest_part(void *context, struct spool_handle handle)
{
    const struct core_cluster *cluster = context;
    (void)relay_rest(cluster->core->relay, handle, true, core_now(cluster->core));
}

static void forget_part(void *context, struct spool_handle handle)
{
    const struct core_cluster *cluster = context;
    relay_leave(cluster->core->relay, handle, core_now(cluster->core));
}

static void forget(struct core_cluster *cluster, struct owned *owned)
{
    spool_postgres_parts(cluster->spool, (int32_t)owned->number, forget_part, cluster);
    owned->state = OWNED_FORGOTTEN;
    core_act(cluster->core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    owned->writes_upto = cluster->core->writes_made;
}

static bool is_in_flight(const struct core_cluster *cluster, const struct owned *owned)
{
    const struct core *core = cluster->core;
    size_t cursor = 0;
    const struct job *job;
    while ((job = map_next(&core->jobs, &cursor)) != NULL) {
        if (spool_postgres_share(cluster->spool, job->handle) == (int32_t)owned->number) {
            return true;
        }
    }
    return false;
}

/* One step on the way out, if it can be taken. */
static void go_on(struct core_cluster *cluster, struct owned *owned)
{
    if (owned->state == OWNED || owned->state == OWNED_LEAVING || is_in_flight(cluster, owned)) {
        return;
    }
    if (owned->state == OWNED_RESTING) {
        forget(cluster, owned);
    }
    if (core_act_oldest(cluster->core) > owned->writes_upto) {
        owned->state = OWNED_LEAVING;
        spool_postgres_leave(cluster->spool, (int32_t)owned->number);
    }
}

/* The spool has let it go. */
static void left(void *context, int32_t number, bool is_stale)
{
    (void)is_stale;
    struct core_cluster *cluster = context;
    struct owned *owned = map_get(&cluster->shares, (uint64_t)number);
    assert(owned != NULL && owned->state == OWNED_LEAVING);
    log_event(LOG_LEVEL_INFO, "share-left", LOG_TEXT("share", owned->name));
    if (owned->again != 0) {
        owned->state = OWNED;
        owned->is_lost = false;
        owned->token = owned->again;
        owned->again = 0;
        spool_postgres_take(cluster->spool, number, owned->token);
        return;
    }
    bool is_lost = owned->is_lost;
    (void)map_remove(&cluster->shares, (uint64_t)number);
    free(owned);
    if (!is_lost && cluster->member != NULL) {
        member_left(cluster->member, (uint32_t)number);
    }
}

static void lose(struct core_cluster *cluster, struct owned *owned)
{
    owned->is_lost = true;
    owned->again = 0;
    if (owned->state <= OWNED_RESTING) {
        log_event(LOG_LEVEL_WARNING, "share-lost", LOG_TEXT("share", owned->name),
                  LOG_NUMBER("token", owned->token));
        forget(cluster, owned);
    }
}

/* The database has refused what we decided: somebody else owns it, and we have not heard yet. */
static void stale(void *context, int32_t number)
{
    struct core_cluster *cluster = context;
    struct owned *owned = map_get(&cluster->shares, (uint64_t)number);
    if (owned != NULL && owned->state <= OWNED_RESTING) {
        lose(cluster, owned);
        owned->is_lost = false; /* the member holds it still: it is told when we have left */
    }
}

static void notes_loaded(void *context)
{
    struct core_cluster *cluster = context;
    if (!cluster->notes_known) {
        cluster->notes_known = true;
        core_out_loaded(cluster->core);
        relay_odometers_known(cluster->core->relay, true, core_now(cluster->core));
    }
    core_act(cluster->core, SPOOL_LAZY, CORE_NOTHING_AFTER);
}

/* All that was in it is here. */
static void loaded(void *context, int32_t number)
{
    const struct core_cluster *cluster = context;
    const struct owned *owned = map_get(&cluster->shares, (uint64_t)number);
    if (owned != NULL) {
        log_event(LOG_LEVEL_DEBUG, "share-loaded", LOG_TEXT("share", owned->name));
    }
}

/* ---- told by the member -----------------------------------------------------------------------
 */

static void joined(void *context, int number)
{
    struct core_cluster *cluster = context;
    cluster->core->ids.node = (uint16_t)number;
    spool_postgres_set_node(cluster->spool, (uint16_t)number);
    core_post_begin(cluster->post, cluster->core, number);
    log_event(LOG_LEVEL_INFO, "joined", LOG_NUMBER("number", number));
    report_alert_over(cluster->core, ALERT_CLUSTER);
}

static void taken(void *context, const struct member_share *share)
{
    struct core_cluster *cluster = context;
    struct owned *owned = map_get(&cluster->shares, share->number);
    if (owned != NULL && owned->state != OWNED) {
        owned->again = share->token; /* taken when it has gone */
        return;
    }
    if (owned == NULL) {
        owned = calloc(1, sizeof(*owned));
        if (owned == NULL || map_put(&cluster->shares, share->number, owned) != ERROR_NONE) {
            core_out_of_memory();
        }
        owned->number = share->number;
        snprintf(owned->name, sizeof(owned->name), "%.*s", SLICE_PRINT(share->name));
    }
    owned->token = share->token;
    log_event(LOG_LEVEL_INFO, "share-taken", LOG_TEXT("share", owned->name),
              LOG_NUMBER("token", owned->token));
    spool_postgres_take(cluster->spool, (int32_t)owned->number, owned->token);
}

static void leave(void *context, const struct member_share *share)
{
    struct core_cluster *cluster = context;
    struct owned *owned = map_get(&cluster->shares, share->number);
    if (owned == NULL) {
        member_left(cluster->member, share->number);
    } else if (owned->state != OWNED) {
        owned->again = 0; /* it is being left already */
        owned->is_lost = false;
    } else {
        owned->state = OWNED_RESTING;
        spool_postgres_parts(cluster->spool, (int32_t)owned->number, rest_part, cluster);
        core_act(cluster->core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    }
}

static void lost(void *context, const struct member_share *share)
{
    struct core_cluster *cluster = context;
    struct owned *owned = map_get(&cluster->shares, share->number);
    if (owned != NULL) {
        lose(cluster, owned);
    }
}

static void leads(void *context, bool leads)
{
    struct core_cluster *cluster = context;
    cluster->leads = leads;
    upkeep_soon(cluster->upkeep);
    log_event(LOG_LEVEL_INFO, leads ? "leader" : "leader-no-more", LOG_TEXT("node", "this one"));
    if (leads) {
        cluster_news_of_those_down(cluster->core, cluster->member);
    }
}

static void tell_trouble(struct core_cluster *cluster)
{
    const char *text = database_trouble_text(&cluster->trouble);
    int64_t now_ms = clock_steady_ms();
    if (text != NULL && cluster->troubled_ms == 0) {
        cluster->troubled_ms = now_ms;
    } else if (text == NULL && cluster->troubled_ms != 0) {
        log_event(LOG_LEVEL_INFO, "database-back",
                  LOG_NUMBER("away_ms", now_ms - cluster->troubled_ms));
        cluster->troubled_ms = 0;
    }
    report_alert_while(cluster->core, ALERT_DATABASE, text != NULL, text);
}

static void tell_database(struct core_cluster *cluster, const char *text)
{
    if (text[0] != '\0') {
        log_event(LOG_LEVEL_WARNING, "database-away", LOG_TEXT("reason", text));
    }
    database_trouble_member(&cluster->trouble, text);
    tell_trouble(cluster);
}

/* Another server than the one that confirmed it. */
static void tell_missing(struct core_cluster *cluster, const struct spool_postgres_state *state)
{
    uint64_t messages = state->messages_missing - cluster->messages_missing;
    uint64_t fates = state->fates_missing - cluster->fates_missing;
    if (messages > 0 || fates > 0) {
        log_event(LOG_LEVEL_WARNING, "database-lost-mail",
                  LOG_NUMBER("messages", (int64_t)messages), LOG_NUMBER("fates", (int64_t)fates),
                  LOG_TEXT("reason", "the database had confirmed it and has it no more;"
                                     " it is given to it again"));
        cluster->messages_missing = state->messages_missing;
        cluster->fates_missing = state->fates_missing;
    }
}

static void look_at_spool(struct core_cluster *cluster)
{
    struct spool_postgres_state state;
    spool_postgres_status(cluster->spool, &state);
    tell_missing(cluster, &state);
    bool up = state.up || member_number(cluster->member) == 0; /* then it does not try */
    if (database_trouble_spool(&cluster->trouble, up, state.reason, clock_steady_ms())) {
        log_event(LOG_LEVEL_WARNING, "database-away", LOG_TEXT("reason", cluster->trouble.spool));
    }
    tell_trouble(cluster);
}

static void news(void *context, const struct member_news *news)
{
    struct core_cluster *cluster = context;
    if (news->kind == MEMBER_AWAY || news->kind == MEMBER_HERE) {
        tell_database(cluster, news->text);
    } else {
        cluster_news(cluster->core, news, cluster->leads);
    }
}

/* ---- time -------------------------------------------------------------------------------------
 */

int64_t core_cluster_wall_ms(struct core_cluster *cluster)
{
    cluster_time_read(&cluster->time, cluster->member);
    return cluster_time_wall_ms(&cluster->time);
}

void core_cluster_keep_clock(struct core_cluster *cluster, struct whole_files *files,
                             struct slice boot)
{
    cluster_time_keep(&cluster->time, files, boot);
}

/* ---- the beat ---------------------------------------------------------------------------------
 */

static void tell_health(struct core_cluster *cluster)
{
    const struct core *core = cluster->core;
    struct relay_totals totals;
    struct spool_postgres_state database;
    struct disk_space space = {0};
    relay_totals(core->relay, &totals);
    spool_postgres_status(cluster->spool, &database);
    int64_t behind_ms = spool_postgres_behind(cluster->spool);
    bool known = core->events_disk->ops->space(core->events_disk, &space) == ERROR_NONE;
    const struct node_health health = {
        .messages = (int64_t)totals.messages,
        .deliveries = (int64_t)totals.deliveries,
        .journalled = (int64_t)database.one_copy,
        .bytes = (int64_t)totals.bytes,
        .held = (int64_t)totals.held,
        .dead_letters = (int64_t)totals.dead_letters,
        .oldest_ms = totals.oldest_wall_ms,
        .disk_free_bytes = known ? (int64_t)space.available_bytes : -1,
        .disk_bytes = known ? (int64_t)space.total_bytes : -1,
        .clock_offset_ms = -1,
        .database_lag_ms = -1,
        .behind_ms = behind_ms == INT64_MAX ? -1 : behind_ms,
    };
    member_set_health(cluster->member, &health);
}

static void beat(void *context)
{
    struct core_cluster *cluster = context;
    loop_timer_set(cluster->beat, BEAT_MS);
    keep_order(cluster); /* before the lease lets anything go */
    core_act(cluster->core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    int64_t left_ms = member_lease_left_ms(cluster->member);
    spool_postgres_lease(cluster->spool, clock_steady_ms() + left_ms);
    spool_postgres_told(cluster->spool, member_told_ms(cluster->member));
    core_job_lease(cluster->core, left_ms >= LEASE_MARGIN_MS);
    size_t cursor = 0;
    struct owned *owned;
    while ((owned = map_next(&cluster->shares, &cursor)) != NULL) {
        go_on(cluster, owned);
    }
    tell_health(cluster);
    look_at_spool(cluster);
    spool_postgres_time(cluster->spool, core_cluster_wall_ms(cluster));
    cluster_time_write(&cluster->time);
    if (cluster->leads && member_leads(cluster->member)) {
        upkeep_if_due(cluster->upkeep, (int64_t)cluster->config->safety_copy_ms);
    }
}

/* ---- life cycle -------------------------------------------------------------------------------
 */

static struct database_settings database_settings(const struct cluster_config *config)
{
    return (struct database_settings){.conninfo = config->database,
                                      .password = config->password,
                                      .name = SLICE_LITERAL("holdfast"),
                                      .connect_timeout_ms = 5000};
}

struct core_cluster *core_cluster_new(struct loop *loop, const struct service_config *config)
{
    struct core_cluster *cluster = calloc(1, sizeof(*cluster));
    if (cluster == NULL) {
        return NULL;
    }
    const struct database_settings database = database_settings(&config->cluster);
    cluster->loop = loop;
    cluster->config = config;
    cluster->due_ms = cluster->own_ms = INT64_MAX;
    map_init(&cluster->shares);
    cluster->routing = routing_new(&config->relay);
    cluster->upkeep = upkeep_new(loop, &database);
    cluster->post = core_post_new(loop, &database);
    cluster->beat = loop_timer_new(loop, beat, cluster);
    cluster->turn = loop_later_new(loop, turn_ends, cluster);
    if (cluster->routing == NULL || cluster->upkeep == NULL || cluster->post == NULL ||
        cluster->beat == NULL || cluster->turn == NULL) {
        core_cluster_free(cluster);
        return NULL;
    }
    return cluster;
}

void core_cluster_set_journal(struct core_cluster *cluster, struct disk *journal,
                              const struct spool_settings *settings)
{
    cluster->journal = journal;
    cluster->spool_settings = *settings;
}

enum error core_cluster_open(void *context, struct loop *loop, const struct spool_owner *owner,
                             struct spool **ret_spool)
{
    struct core_cluster *cluster = context;
    const struct spool_shares shares = {.context = cluster,
                                        .name = name_share,
                                        .is_common = is_common,
                                        .notes_loaded = notes_loaded,
                                        .taken = loaded,
                                        .left = left,
                                        .stale = stale};
    struct spool_postgres_settings settings;
    spool_postgres_settings_default(&settings);
    settings.database = database_settings(&cluster->config->cluster);
    settings.defer_when_away = cluster->config->cluster.defers;
    settings.shares = &shares;
    enum error error = spool_open_postgres(loop, cluster->journal, &cluster->spool_settings,
                                           &settings, owner, ret_spool);
    cluster->spool = error == ERROR_NONE ? *ret_spool : NULL;
    return error;
}

enum error core_cluster_join(struct core_cluster *cluster, struct core *core,
                             struct message_id instance)
{
    const struct cluster_config *config = &cluster->config->cluster;
    char machine[MACHINE_NAME_SIZE], place[MEMBER_PLACE_MAX + 1];
    snprintf(place, sizeof(place), "%.*s, pid %d",
             SLICE_PRINT(slice_take(cluster->config->hostname, 200)), (int)getpid());
    const struct member_settings settings = {.database = database_settings(config),
                                             .name = config->name,
                                             .site = config->site,
                                             .version = SLICE_LITERAL(HOLDFAST_VERSION),
                                             .roles = config->roles,
                                             .instance = instance,
                                             .place = slice_from_text(place),
                                             .machine = machine_name(machine)};
    const struct member_handler handler = {.context = cluster,
                                           .joined = joined,
                                           .taken = taken,
                                           .leave = leave,
                                           .lost = lost,
                                           .leads = leads,
                                           .news = news};
    cluster->core = core;
    relay_odometers_known(core->relay, false, core_now(core));
    cluster->member = member_new(cluster->loop, &settings, &handler);
    if (cluster->member == NULL) {
        return ERROR_MEMORY;
    }
    loop_timer_set(cluster->beat, BEAT_MS);
    return ERROR_NONE;
}

enum error core_cluster_reconfigure(struct core_cluster *cluster,
                                    const struct service_config *config)
{
    struct routing *routing = routing_new(&config->relay);
    if (routing == NULL) {
        return ERROR_MEMORY;
    }
    routing_free(cluster->routing);
    cluster->routing = routing;
    cluster->config = config;
    return ERROR_NONE;
}

static void member_has_stopped(void *context)
{
    struct core_cluster *cluster = context;
    cluster->stopped = true;
    core_check_stopped(cluster->core);
}

bool core_cluster_stop(struct core_cluster *cluster)
{
    if (!cluster->stopping) {
        cluster->stopping = true;
        loop_timer_cancel(cluster->beat);
        cluster->stopped = cluster->member == NULL;
        if (!cluster->stopped) {
            member_stop(cluster->member, member_has_stopped, cluster);
        }
    }
    return cluster->stopped;
}

void core_cluster_leave(struct core_cluster *cluster)
{
    if (cluster != NULL) {
        core_post_free(cluster->post);
        cluster->post = NULL;
        member_free(cluster->member);
        cluster->member = NULL;
        upkeep_free(cluster->upkeep);
        cluster->upkeep = NULL;
    }
}

void core_cluster_free(struct core_cluster *cluster)
{
    if (cluster == NULL) {
        return;
    }
    core_cluster_leave(cluster);
    size_t cursor = 0;
    struct owned *owned;
    while ((owned = map_next(&cluster->shares, &cursor)) != NULL) {
        free(owned);
    }
    map_done(&cluster->shares);
    routing_free(cluster->routing);
    loop_timer_free(cluster->beat);
    loop_later_free(cluster->turn);
    free(cluster);
}

bool core_cluster_is_loaded(const struct core_cluster *cluster)
{
    return cluster->notes_known;
}

bool core_cluster_is_away(const struct core_cluster *cluster)
{
    struct spool_postgres_state state;
    spool_postgres_status(cluster->spool, &state);
    return !state.up;
}

bool core_cluster_may_send(const struct core_cluster *cluster)
{
    return cluster->member != NULL && member_lease_left_ms(cluster->member) >= LEASE_MARGIN_MS &&
           spool_postgres_has_told(cluster->spool);
}

/* ---- state ------------------------------------------------------------------------------------
 */

struct member *core_cluster_member(struct core_cluster *cluster)
{
    return cluster->member;
}

struct slice core_cluster_owner(const struct core_cluster *cluster, struct slice domain)
{
    char name[SHARE_NAME_MAX + 1];
    uint32_t index = routing_domain(cluster->routing, domain);
    const struct route_config *route =
        index != NO_INDEX ? &cluster->config->relay.routes[index] : NULL;
    if (route == NULL || route->split || route->share_group.length > 0 || cluster->member == NULL) {
        return SLICE_EMPTY;
    }
    char address[300];
    snprintf(address, sizeof(address), "x@%.*s", SLICE_PRINT(slice_take(domain, 290)));
    share_name_of(SHARE_IN, SLICE_EMPTY, false, slice_from_text(address), name);
    struct slice owner = member_owner_of(cluster->member, slice_from_text(name));
    return slice_equal(owner, cluster->config->cluster.name) ? SLICE_EMPTY : owner;
}

struct core_post *core_cluster_post(struct core_cluster *cluster)
{
    return cluster->post;
}

void core_cluster_database(const struct core_cluster *cluster,
                           struct spool_postgres_state *ret_state)
{
    spool_postgres_status(cluster->spool, ret_state);
}
