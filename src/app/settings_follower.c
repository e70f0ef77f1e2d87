/* SPDX-License-Identifier: Apache-2.0
 *
 * A round is one job of the thread: wait until there is news, or a second has gone; say what has
 * become of the last version; see what there is to take on, and fetch it. Between two rounds the
 * loop has all to itself: it gives the keeper what was fetched, and begins the next round when it
 * has heard what came of it.
 */
#include "app/settings_follower.h"

#include "app/keeper_channel.h"
#include "app/settings_offer.h"
#include "base/utf8.h"
#include "cluster/settings_store.h"
#include "cluster/share.h"
#include "sys/clock.h"
#include "sys/log.h"
#include "sys/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    POLL_MS = 1000,
    CONNECT_MS = 5000,
    AWAY_PAUSE_MS = 500, /* after a round without the database */
    BUSY_PAUSE_MS = 200, /* the keeper is at something else */
    AGAIN_MS = 30000,    /* a version that was refused here: what was missing may be there */
    AGAIN_MOST_MS = 480000,
    REFUSALS = 2, /* the newest version, and the newest that is approved */
};

struct refusal {
    uint64_t number;  /* 0: none */
    int64_t pause_ms; /* doubles each time */
    int64_t again_ms; /* until when */
};

/* What the thread is told, and tells. */
struct round {
    uint64_t in_force;
    bool starts_empty;             /* without settings in the cluster, the own file will do */
    struct settings_result result; /* to be told; number 0: nothing */
    uint64_t refused[REFUSALS];    /* not to be offered, nor is this; 0: none */
    uint64_t bad;
    bool is_known;    /* what we run with has been told, and with what problem */
    uint32_t changes; /* that were counted when it began */
    char problem[SETTINGS_PROBLEM_MAX + 1];

    enum database_outcome outcome;
    char away[DATABASE_ERROR_SIZE];    /* why it could not be connected to; or empty */
    bool told;                         /* the result */
    bool said;                         /* what we run with */
    char refusal[DATABASE_ERROR_SIZE]; /* why the database will never have one of them; or empty */
    uint64_t offer;
    bool has_offer;
    struct buffer bytes; /* of the offer */
};

struct settings_follower {
    struct loop *loop;
    struct worker *worker;
    struct loop_timer *pause;
    int link;
    struct loop_watch *watch;
    bool stopping;
    bool on_its_way; /* the keeper has the offer */
    uint64_t offer;

    uint64_t in_force;
    bool starts_empty;
    struct settings_result result;
    struct refusal refusals[REFUSALS]; /* the last one first */
    uint64_t bad;
    bool is_known;
    uint32_t changes; /* of in_force and problem */
    char problem[SETTINGS_PROBLEM_MAX + 1];
    bool away; /* has been logged */

    /* The thread's during a round. */
    struct database *database;
    char name[NODE_NAME_MAX + 1]; /* nobody changes it */
    struct round round;
};

static struct slice name_of(const struct settings_follower *follower)
{
    return slice_from_text(follower->name);
}

/* ---- on the thread ------------------------------------------------------------------------- */

/* What a trial came to, if the version is still ours to judge. */
static enum database_outcome tell_result(struct settings_follower *follower)
{
    const struct settings_result *result = &follower->round.result;
    bool done;
    if (result->number == 0) {
        return DATABASE_DONE;
    }
    if (result->outcome == SETTINGS_TAKEN) {
        return settings_store_approve(follower->database, result->number, name_of(follower), &done);
    }
    enum settings_state state = result->outcome == SETTINGS_DIED ? SETTINGS_BAD : SETTINGS_NEW;
    return settings_store_give_up(follower->database, result->number, name_of(follower), state,
                                  slice_from_text(result->problem), &done);
}

/* A version that this member may try, or has begun to: it is to be taken on, or judged at once. */
static enum database_outcome try_newest(struct settings_follower *follower, uint64_t newest,
                                        uint64_t *ret_number)
{
    const struct round *round = &follower->round;
    bool done;
    if (newest == round->in_force) {
        return settings_store_approve(follower->database, newest, name_of(follower), &done);
    }
    if (newest == round->bad) {
        return settings_store_give_up(follower->database, newest, name_of(follower), SETTINGS_BAD,
                                      slice_from_text(round->problem), &done);
    }
    *ret_number = newest;
    return DATABASE_DONE;
}

static bool was_refused(const struct round *round, uint64_t number)
{
    for (int i = 0; i < REFUSALS; i++) {
        if (round->refused[i] == number) {
            return true;
        }
    }
    return false;
}

/* The version to take on now; round->in_force: none. */
static enum database_outcome choose(struct settings_follower *follower, uint64_t *ret_number)
{
    const struct round *round = &follower->round;
    struct settings_heads heads;
    *ret_number = round->in_force;
    enum database_outcome outcome =
        settings_store_heads(follower->database, name_of(follower), &heads);
    if (outcome == DATABASE_DONE && heads.is_overdue) {
        outcome = settings_store_expire(follower->database);
    }
    if (outcome != DATABASE_DONE || heads.newest == 0) {
        return outcome;
    }
    bool is_ours = heads.state == SETTINGS_TRIAL && heads.is_mine; /* from before a restart */
    if (heads.state == SETTINGS_NEW && !was_refused(round, heads.newest)) {
        outcome =
            settings_store_claim(follower->database, heads.newest, name_of(follower), &is_ours);
    }
    if (outcome == DATABASE_DONE && is_ours) {
        return try_newest(follower, heads.newest, ret_number);
    }
    if (heads.approved != 0 && heads.approved != round->bad &&
        !was_refused(round, heads.approved)) {
        *ret_number = heads.approved;
    }
    return outcome;
}

static enum database_outcome fetch(struct settings_follower *follower)
{
    struct round *round = &follower->round;
    enum database_outcome outcome = choose(follower, &round->offer);
    if (outcome != DATABASE_DONE) {
        return outcome;
    }
    if (round->offer != round->in_force) {
        return settings_store_fetch(follower->database, round->offer, &round->bytes,
                                    &round->has_offer);
    }
    if (round->offer == 0 && round->starts_empty) {
        settings_version_put(&round->bytes, &(struct settings_version){0});
        round->has_offer = !round->bytes.failed;
    }
    return outcome;
}

static enum database_outcome wait_for_news(struct settings_follower *follower)
{
    const struct round *round = &follower->round;
    bool woken;
    if (!database_is_connected(follower->database)) {
        return settings_store_connect(follower->database, follower->round.away)
                   ? database_run(follower->database, settings_store_listen, CONNECT_MS)
                   : DATABASE_LOST;
    }
    bool at_once = round->result.number != 0 || !round->is_known;
    return database_wait(follower->database, at_once ? 0 : POLL_MS, &woken);
}

/* What the database refuses for good is not told again: it must not keep us from following. */
static bool is_told(struct settings_follower *follower, enum database_outcome *outcome)
{
    struct round *round = &follower->round;
    if (*outcome == DATABASE_REFUSED) {
        snprintf(round->refusal, sizeof(round->refusal), "%s", database_error(follower->database));
        *outcome = DATABASE_DONE;
    }
    return *outcome == DATABASE_DONE;
}

static void run_round(void *context)
{
    struct settings_follower *follower = context;
    struct round *round = &follower->round;
    round->outcome = wait_for_news(follower);
    if (round->outcome == DATABASE_DONE) {
        round->outcome = tell_result(follower);
        round->told = is_told(follower, &round->outcome);
    }
    if (round->outcome == DATABASE_DONE && !round->is_known) {
        round->outcome = settings_store_report(follower->database, name_of(follower),
                                               round->in_force, slice_from_text(round->problem));
        round->said = is_told(follower, &round->outcome);
    }
    if (round->outcome == DATABASE_DONE) {
        round->outcome = fetch(follower);
    }
    if (round->outcome == DATABASE_READONLY) {
        database_disconnect(follower->database);
    }
}

/* ---- on the loop --------------------------------------------------------------------------- */

static void begin_round(void *context);

static void pause_for(struct settings_follower *follower, int64_t ms)
{
    loop_timer_set(follower->pause, ms);
}

static void set_in_force(struct settings_follower *follower, uint64_t number)
{
    if (follower->in_force != number) {
        follower->in_force = number;
        follower->is_known = false;
        follower->changes++;
    }
}

static void set_problem(struct settings_follower *follower, const char *problem)
{
    if (strcmp(follower->problem, problem) != 0) {
        snprintf(follower->problem, sizeof(follower->problem), "%s", problem);
        follower->is_known = false;
        follower->changes++;
    }
}

/* To the keeper. False: it is not to be had now. */
static bool send_offer(const struct settings_follower *follower)
{
    const struct round *round = &follower->round;
    int fd;
    enum error error = keeper_text_to_descriptor(buffer_slice(&round->bytes), &fd);
    if (error == ERROR_NONE) {
        error = settings_offer_send(follower->link, round->offer, fd);
        close(fd);
    }
    return error == ERROR_NONE;
}

static void log_outcome(struct settings_follower *follower)
{
    bool away = follower->round.outcome != DATABASE_DONE;
    const char *why = follower->round.away;
    if (away && !follower->away) {
        log_event(LOG_LEVEL_WARNING, "settings-database", LOG_TEXT("state", "away"),
                  LOG_TEXT("reason", why[0] != '\0' ? why : database_error(follower->database)));
    } else if (!away && follower->away) {
        log_event(LOG_LEVEL_INFO, "settings-database", LOG_TEXT("state", "back"));
    }
    follower->away = away;
    if (follower->round.refusal[0] != '\0') {
        log_event(LOG_LEVEL_ERROR, "settings-not-reported",
                  LOG_TEXT("reason", follower->round.refusal));
    }
}

static void round_done(void *context)
{
    struct settings_follower *follower = context;
    struct round *round = &follower->round;
    if (follower->stopping) {
        buffer_done(&round->bytes);
        return;
    }
    log_outcome(follower);
    if (round->told && follower->result.number == round->result.number) {
        follower->result = (struct settings_result){0};
    }
    follower->is_known = follower->is_known || (round->said && round->changes == follower->changes);
    follower->on_its_way =
        round->outcome == DATABASE_DONE && round->has_offer && send_offer(follower);
    follower->offer = round->offer;
    bool goes_on = round->outcome == DATABASE_DONE && !round->has_offer;
    buffer_done(&round->bytes);
    if (goes_on) {
        begin_round(follower);
    } else if (!follower->on_its_way) {
        pause_for(follower, AWAY_PAUSE_MS);
    }
}

static void begin_round(void *context)
{
    struct settings_follower *follower = context;
    int64_t now_ms = clock_steady_ms();
    follower->round = (struct round){
        .in_force = follower->in_force,
        .starts_empty = follower->starts_empty,
        .result = follower->result,
        .bad = follower->bad,
        .is_known = follower->is_known,
        .changes = follower->changes,
    };
    for (int i = 0; i < REFUSALS; i++) {
        const struct refusal *refusal = &follower->refusals[i];
        follower->round.refused[i] = now_ms >= refusal->again_ms ? 0 : refusal->number;
    }
    snprintf(follower->round.problem, sizeof(follower->round.problem), "%s", follower->problem);
    buffer_init(&follower->round.bytes, SETTINGS_VERSION_BYTES_MAX);
    if (worker_submit(follower->worker, run_round, round_done, follower) != ERROR_NONE) {
        pause_for(follower, AWAY_PAUSE_MS);
    }
}

/* The database takes nothing but UTF-8, and what is quoted may be something else, or cut. */
static void clean_problem(struct settings_result *result)
{
    char clean[sizeof(result->problem)];
    (void)utf8_clean(slice_from_text(result->problem), "", clean, sizeof(clean));
    snprintf(result->problem, sizeof(result->problem), "%s", clean);
}

static void note_refusal(struct settings_follower *follower, uint64_t number)
{
    struct refusal *first = &follower->refusals[0], *second = &follower->refusals[1];
    if (first->number != number) {
        struct refusal before = *first;
        *first = second->number == number ? *second : (struct refusal){.number = number};
        *second = before;
    }
    int64_t pause_ms = first->pause_ms == 0 ? AGAIN_MS : first->pause_ms * 2;
    first->pause_ms = pause_ms < AGAIN_MOST_MS ? pause_ms : AGAIN_MOST_MS;
    first->again_ms = clock_steady_ms() + first->pause_ms;
}

static void take_result(struct settings_follower *follower, const struct settings_result *result)
{
    bool was_ours = follower->on_its_way && result->number == follower->offer;
    if (result->outcome == SETTINGS_BUSY) {
        follower->on_its_way = false;
        pause_for(follower, BUSY_PAUSE_MS);
        return;
    }
    if (result->outcome == SETTINGS_DIED) {
        follower->bad = result->number;
    } else if (result->outcome == SETTINGS_REFUSED) {
        note_refusal(follower, result->number);
    } else if (result->number == 0) {
        follower->starts_empty = false;
    }
    if (result->outcome == SETTINGS_TAKEN) {
        set_in_force(follower, result->number);
    }
    set_problem(follower, result->problem);
    if (was_ours) {
        follower->on_its_way = false;
        follower->result = *result;
        begin_round(follower);
    }
}

static void link_heard(void *context, unsigned ready)
{
    (void)ready;
    struct settings_follower *follower = context;
    struct settings_result result;
    enum error error = settings_result_receive(follower->link, &result);
    if (error == ERROR_NONE) {
        clean_problem(&result);
        take_result(follower, &result);
    } else if (error != ERROR_AGAIN) {
        loop_watch_set(follower->watch, 0); /* the keeper has gone, and we go with it */
    }
}

/* ---- all ------------------------------------------------------------------------------------ */

struct settings_follower *settings_follower_new(const struct service_config *config, int link)
{
    struct settings_follower *follower = calloc(1, sizeof(*follower));
    const struct cluster_config *cluster = &config->cluster;
    const struct database_settings settings = {.conninfo = cluster->database,
                                               .password = cluster->password,
                                               .name = SLICE_LITERAL("holdfast settings"),
                                               .connect_timeout_ms = CONNECT_MS};
    if (follower == NULL) {
        return NULL;
    }
    follower->link = link;
    snprintf(follower->name, sizeof(follower->name), "%.*s", SLICE_PRINT(cluster->name));
    follower->database = database_new(&settings);
    settings_follower_configure(follower, config);
    if (follower->database == NULL) {
        settings_follower_free(follower);
        return NULL;
    }
    return follower;
}

enum error settings_follower_start(struct settings_follower *follower, struct loop *loop)
{
    follower->loop = loop;
    follower->worker = worker_new(loop, "settings");
    follower->pause = loop_timer_new(loop, begin_round, follower);
    follower->watch = loop_watch_new(loop, follower->link, link_heard, follower);
    if (follower->worker == NULL || follower->pause == NULL || follower->watch == NULL) {
        return ERROR_MEMORY;
    }
    loop_watch_set(follower->watch, LOOP_READ);
    begin_round(follower);
    return ERROR_NONE;
}

void settings_follower_configure(struct settings_follower *follower,
                                 const struct service_config *config)
{
    set_in_force(follower, config->settings_version);
    follower->starts_empty = config->joining && config->relay.route_count > 0;
    /* The own file may be another one; whether a version is still bad the keeper knows. */
    memset(follower->refusals, 0, sizeof(follower->refusals));
    follower->bad = 0;
}

void settings_follower_free(struct settings_follower *follower)
{
    if (follower == NULL) {
        return;
    }
    follower->stopping = true;
    if (follower->worker != NULL) {
        /* What waits there ends now; so does what comes after it, once. */
        database_interrupt(follower->database);
        worker_free(follower->worker);
    }
    loop_timer_free(follower->pause);
    loop_watch_free(follower->watch);
    database_free(follower->database);
    if (follower->link >= 0) {
        close(follower->link);
    }
    free(follower);
}
