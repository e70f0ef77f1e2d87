/* SPDX-License-Identifier: Apache-2.0
 *
 * The loop's side: when the next job begins, and what follows from the last one.
 *
 *     apart  --found, may join-->  joining  --joined, read-->  member  --another life-->  apart
 *
 * Each job's end leads to the next: a round that was read to a change, if there is any, else to the
 * timer for the next round; a failure to a pause that doubles. Commands go with the next change.
 */
#include "cluster/member_internal.h"

#include "base/date.h"
#include "sys/clock.h"
#include "sys/random.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    PAUSE_FIRST_MS = 200,
    PAUSE_MAX_MS = 1000, /* and half of that: well within LEASE_CONTACT_MS, so that none is lost */
    PAUSE_REFUSED_MS = 1000, /* it says no: often it will go on to */
    PAUSE_REFUSED_MAX_MS = 5000,
    HURRY_MS = 20, /* to what is about to happen */
};

static void round_done(void *job);
static void change_done(void *job);

/* ---- telling -------------------------------------------------------------------------------- */

static void tell(struct member *member, const struct member_news *news)
{
    if (!member->stopping) {
        member->handler.news(member->handler.context, news);
    }
}

static void tell_of_us(struct member *member, enum member_news_kind kind, int64_t after_ms,
                       const char *text)
{
    tell(member, &(struct member_news){kind, member->settings.name, 0, after_ms, text});
}

static void tell_events(struct member *member, size_t count)
{
    static const enum member_news_kind kinds[] = {[WATCH_DOWN] = MEMBER_NODE_DOWN,
                                                  [WATCH_LEFT] = MEMBER_NODE_LEFT,
                                                  [WATCH_BACK] = MEMBER_NODE_BACK,
                                                  [WATCH_TAKEN] = MEMBER_TAKEN_OVER,
                                                  [WATCH_LATE] = MEMBER_TAKEOVER_LATE};
    for (size_t i = 0; i < count; i++) {
        const struct watch_event *event = &member->events[i];
        tell(member, &(struct member_news){kinds[event->kind], event->name, event->shares,
                                           event->after_ms, ""});
    }
}

/* ---- shares --------------------------------------------------------------------------------- */

static const struct view_share *share_at(const struct view *view, size_t row, uint32_t number)
{
    bool is_there = row < view->share_count && view->shares[row].number == number;
    return is_there ? &view->shares[row] : NULL;
}

static bool is_leader_share(const struct view *view, uint32_t number)
{
    for (size_t i = 0; i < view->share_count; i++) {
        if (view->shares[i].number == number) {
            return view->shares[i].parsed.family == SHARE_LEADER;
        }
    }
    return false;
}

typedef void share_fn(void *context, const struct member_share *share);

static void tell_share(struct member *member, share_fn *fn, size_t row, uint32_t number,
                       int64_t token)
{
    const struct view_share *share = share_at(&member->view, row, number);
    struct member_share told = {number, share != NULL ? share->name : SLICE_EMPTY, token};
    if (!member->stopping) {
        fn(member->handler.context, &told);
    }
}

static void tell_leads(struct member *member, bool leads)
{
    if (!member->stopping) {
        member->handler.leads(member->handler.context, leads);
    }
}

/* Nothing is under way for leading: it is left at once, and given up by the next round. */
static void leave_share(struct member *member, const struct holding_step *step)
{
    if (is_leader_share(&member->view, step->share)) {
        member_left(member, step->share);
        tell_leads(member, false);
    } else {
        tell_share(member, member->handler.leave, step->row, step->share, step->token);
    }
}

static void lose_share(struct member *member, const struct holding_step *step)
{
    if (is_leader_share(&member->view, step->share)) {
        tell_leads(member, false);
    } else {
        tell_share(member, member->handler.lost, step->row, step->share, step->token);
    }
}

static void take_share(struct member *member, const struct member_sql_claim *claim)
{
    uint32_t share = claim->step.share;
    if (member->stopping || holding_take(&member->holding, share, claim->token) != ERROR_NONE) {
        return; /* it stands in our name, and is claimed anew */
    }
    if (is_leader_share(&member->view, share)) {
        tell_leads(member, true);
    } else {
        tell_share(member, member->handler.taken, claim->step.row, share, claim->token);
    }
}

/* Another life of this node has them now. */
static void lose_all(struct member *member)
{
    size_t rows = member->view.share_count;
    for (size_t row = 0; row < rows; row++) {
        int64_t token;
        uint32_t number = member->view.shares[row].number;
        if (holding_left(&member->holding, number, &token)) {
            lose_share(member,
                       &(struct holding_step){HOLDING_LOST, number, token, member->number, 0, row});
        }
    }
}

/* ---- the next job --------------------------------------------------------------------------- */

static void submit(struct member *member, worker_fn *run, worker_fn *done)
{
    member->busy = worker_submit(member->worker, run, done, &member->job) == ERROR_NONE;
    if (!member->busy) {
        loop_timer_set(member->round_timer, PAUSE_MAX_MS);
    }
}

/* What is said of mail that is still to be brought is as of now. While nobody waits for us more may
 * come at any moment. */
static struct member_word word_of(const struct member *member)
{
    if (!member->offset.known) {
        return (struct member_word){.good_until_ms = INT64_MAX};
    }
    int64_t now_ms = clock_steady_ms() + member->offset.ahead_ms;
    bool is_alone = member->away || member_lease_left_ms(member) == 0;
    return (struct member_word){.good_until_ms = is_alone ? 0 : now_ms + LEASE_BEAT_MS,
                                .unsaid_ms = now_ms - WATCH_UNSAID_MS};
}

static void begin_round(void *context)
{
    struct member *member = context;
    struct member_job *job = &member->job;
    if (member->busy || member->stopping) {
        return;
    }
    job->number = member->alive ? member->number : 0;
    job->incarnation = member->incarnation;
    job->health = member->health;
    job->word = word_of(member);
    job->arena = &member->arenas[1 - member->view_arena];
    submit(member, member_job_round, round_done);
}

static void begin_change(struct member *member)
{
    struct member_job *job = &member->job;
    job->number = member->number;
    job->incarnation = member->incarnation;
    memcpy(job->commands, member->commands, sizeof(job->commands));
    job->command_count = member->command_count;
    member->command_count = 0;
    submit(member, member_job_change, change_done);
    if (!member->busy) { /* no memory: the commands go with the next */
        member->command_count = job->command_count;
    }
}

/* When one of the others is about to be judged we look just then. */
static int64_t until_next_round(const struct member *member)
{
    int64_t now_ms = clock_steady_ms();
    int64_t due_ms = member->job.sent.steady_ms + LEASE_BEAT_MS;
    for (size_t i = 0; i < member->view.member_count; i++) {
        const struct view_member *other = &member->view.members[i];
        int64_t lapses_ms = member->view_ms + LEASE_MS - other->age_ms + HURRY_MS;
        if (other->number != member->number && other->state == NODE_SUSPECT && lapses_ms > now_ms &&
            lapses_ms < due_ms) {
            due_ms = lapses_ms;
        }
    }
    if (member->hurry) {
        due_ms = now_ms;
    }
    return due_ms > now_ms ? due_ms - now_ms : 0;
}

static void finish_stop(struct member *member);

/* Nothing is under way. */
static void go_on(struct member *member)
{
    if (member->closing) {
        return;
    }
    if (member->stopping) {
        finish_stop(member);
    } else if (member->command_count > 0) {
        member->job.claim_count = member->job.release_count = 0;
        begin_change(member);
    } else {
        loop_timer_set(member->round_timer, until_next_round(member));
        member->hurry = false;
    }
}

/* ---- failures ------------------------------------------------------------------------------- */

static const char *outcome_words(enum database_outcome outcome)
{
    switch (outcome) {
    case DATABASE_REFUSED:
        return "the database refuses us";
    case DATABASE_FULL:
        return "the database has no room for us";
    case DATABASE_READONLY:
        return "the database can only be read";
    case DATABASE_WARNED:
        return "no other database confirms what this one writes";
    case DATABASE_AGAIN:
        return "the database is busy";
    case DATABASE_MEMORY:
        return "out of memory";
    default:
        return "the database is away";
    }
}

static int next_pause(const struct member *member, enum database_outcome outcome)
{
    bool refuses = outcome == DATABASE_REFUSED || outcome == DATABASE_FULL;
    int first = refuses ? PAUSE_REFUSED_MS : PAUSE_FIRST_MS;
    int most = refuses ? PAUSE_REFUSED_MAX_MS : PAUSE_MAX_MS;
    int next = member->pause_ms == 0 ? first : member->pause_ms * 2;
    return next < first ? first : next < most ? next : most;
}

static void fail(struct member *member)
{
    struct member_job *job = &member->job;
    if (job->outcome != DATABASE_AGAIN && job->outcome != DATABASE_WARNED) {
        contact_lost(&member->contact);
        database_disconnect(job->database);
    }
    char text[sizeof(member->away_text)];
    snprintf(text, sizeof(text), "%s%s%s", outcome_words(job->outcome),
             job->text[0] != '\0' ? ": " : "", job->text);
    /* It may be back, and not for us: that is another trouble than its absence. */
    bool is_other = job->outcome == DATABASE_REFUSED
                        ? strcmp(text, member->away_text) != 0
                        : job->outcome != member->away_outcome &&
                              (job->outcome == DATABASE_FULL || job->outcome == DATABASE_READONLY);
    if (!member->away || is_other) {
        member->away_ms = member->away ? member->away_ms : clock_steady_ms();
        member->away = true;
        member->away_outcome = job->outcome;
        snprintf(member->away_text, sizeof(member->away_text), "%s", text);
        tell_of_us(member, MEMBER_AWAY, 0, member->away_text);
    }
    member->pause_ms = next_pause(member, job->outcome);
    /* Not all members at once. */
    int64_t pause_ms = member->pause_ms / 2 + (int64_t)random_below((uint64_t)member->pause_ms);
    loop_timer_set(member->round_timer, pause_ms);
}

static void lapse(void *context)
{
    struct member *member = context;
    int64_t left_ms = member_lease_left_ms(member);
    if (left_ms > 0) {
        loop_timer_set(member->lapse_timer, left_ms);
    } else if (!member->split && member->lease.held) {
        member->split = true;
        member->split_ms = clock_steady_ms();
        tell_of_us(member, MEMBER_SPLIT, 0, member->away ? member->away_text : "");
    }
}

/* ---- joining -------------------------------------------------------------------------------- */

static void refuse(struct member *member, const char *text)
{
    if (strcmp(text, member->refused) != 0) {
        snprintf(member->refused, sizeof(member->refused), "%s", text);
        tell_of_us(member, MEMBER_REFUSED, 0, member->refused);
    }
}

/* Whether the name is ours to take, and if not, who has it. */
static bool may_join(struct member *member)
{
    const struct member_settings *settings = &member->settings;
    const struct member_sql_name *found = &member->job.found;
    char text[MEMBER_TEXT_SIZE];
    if (!found->known) {
        return false;
    }
    bool is_us = id_equal(found->instance, settings->instance);
    if (found->removed && is_us) {
        snprintf(text, sizeof(text),
                 "node %.*s was removed from the cluster; holdfast node undrain %.*s lets it in "
                 "again",
                 SLICE_PRINT(settings->name), SLICE_PRINT(settings->name));
        refuse(member, text);
        return false;
    }
    if (id_is_null(found->incarnation) ||
        (is_us && slice_equal(slice_from_text(found->machine), settings->machine))) {
        return true;
    }
    struct heartbeat_seen before = member->other;
    heartbeat_read(&member->other, found->incarnation.high ^ found->incarnation.low, found->beat_us,
                   member->job.answered_ms);
    if (heartbeat_has_lapsed(&member->other, found->age_ms, &member->contact,
                             member->job.answered_ms)) {
        return true;
    }
    if (before.seen && before.first_ms != member->other.first_ms) {
        char since[DATE_TEXT_SIZE];
        date_to_text(found->since_ms, since);
        snprintf(text, sizeof(text), "%s %.*s is alive at %s, since %s",
                 is_us ? "this very node" : "another node of the name", SLICE_PRINT(settings->name),
                 found->place, since);
        refuse(member, text);
    }
    return false;
}

static void look_at_found(struct member *member)
{
    struct member_job *job = &member->job;
    contact_heard(&member->contact, job->sent.steady_ms, job->answered_ms, 0);
    job->joins = may_join(member);
    if (job->joins) {
        member->incarnation = (struct message_id){random_u64(), random_u64() | 1};
        member->hurry = true;
    }
}

/* ---- a round's end -------------------------------------------------------------------------- */

static void measure(struct member *member)
{
    const struct member_job *job = &member->job;
    member->health.database_lag_ms = job->returned.steady_ms - job->sent.steady_ms;
    if (job->database_wall_us != 0) {
        clock_offset_read(&member->offset, job->database_wall_us / 1000, job->sent.steady_ms,
                          job->returned.steady_ms);
        member->database_time =
            (struct lease_time){.steady_ms = job->returned.steady_ms,
                                .wall_ms = job->returned.steady_ms + member->offset.ahead_ms};
        member->clock_ahead_ms = member->database_time.wall_ms - job->returned.wall_ms;
        member->health.clock_offset_ms = -member->clock_ahead_ms;
    }
}

static void hold_lease(struct member *member, struct lease renewed)
{
    member->lease = renewed;
    int64_t left_ms = member_lease_left_ms(member);
    loop_timer_set(member->lapse_timer, left_ms > 0 ? left_ms : 1);
    if (member->split && left_ms >= LEASE_MARGIN_MS) {
        member->split = false;
        tell_of_us(member, MEMBER_HEALED, clock_steady_ms() - member->split_ms, "");
    }
}

static bool collect_changes(struct member *member, const struct holding_step *steps, size_t count)
{
    struct member_job *job = &member->job;
    arena_reset(&member->changes);
    job->claim_count = job->release_count = 0;
    job->claims = arena_allocate(&member->changes, (count + 1) * sizeof(*job->claims));
    job->releases = arena_allocate(&member->changes, (count + 1) * sizeof(*job->releases));
    for (size_t i = 0; job->claims != NULL && job->releases != NULL && i < count; i++) {
        if (steps[i].act == HOLDING_CLAIM) {
            job->claims[job->claim_count++] = (struct member_sql_claim){.step = steps[i]};
        } else if (steps[i].act == HOLDING_RELEASE) {
            job->releases[job->release_count++] =
                (struct member_sql_release){steps[i].share, steps[i].token};
        }
    }
    return job->claim_count + job->release_count > 0;
}

static void end_doubt(struct member *member)
{
    const struct member_job *job = &member->job;
    if (member->doubted_ms != 0 && job->sent.steady_ms >= member->doubted_ms) {
        member->doubted_ms = 0;
        member->known_ms = job->answered_ms;
    }
    if (member->known_ms < member->contact.since_ms) {
        member->known_ms = member->contact.since_ms;
    }
}

/* What we have said is read by the others within the next moments. */
static void note_word(struct member *member)
{
    const struct member_job *job = &member->job;
    bool is_good = job->database_wall_us / 1000 <= job->word.good_until_ms;
    int64_t told_ms = job->health.behind_ms >= 0 ? job->health.behind_ms : INT64_MAX;
    if (!is_good) {
        told_ms = job->word.unsaid_ms < told_ms ? job->word.unsaid_ms : told_ms;
        member->hurry = true; /* with a better one */
    }
    if (told_ms == INT64_MAX) {
        member->told_since_ms = 0;
    } else if (member->told_since_ms == 0 || told_ms < member->told_ms) {
        member->told_since_ms = job->returned.steady_ms;
    }
    member->told_ms = told_ms;
}

/* True: a change has to follow. */
static bool take_reading(struct member *member)
{
    struct member_job *job = &member->job;
    struct lease renewed = {0};
    struct holding_step *steps;
    size_t count;
    contact_heard(&member->contact, job->sent.steady_ms, job->answered_ms, job->server);
    member->view = job->view;
    member->view_ms = job->answered_ms;
    member->view_asked_ms = job->sent.steady_ms;
    member->view_arena = 1 - member->view_arena;
    end_doubt(member);
    size_t events = watch_read(&member->watch, &member->view, &member->contact, job->answered_ms,
                               member->events);
    lease_renew(&renewed, job->sent);
    struct lease_time now = member_now(&member->settings);
    if (holding_follow(&member->holding, &member->view, lease_allows(&renewed, now),
                       &member->arenas[member->view_arena], &steps, &count) != ERROR_NONE) {
        return false; /* no memory: nothing was learned, so the lease is what it was */
    }
    hold_lease(member, renewed);
    for (size_t i = 0; i < count; i++) {
        if (steps[i].act == HOLDING_LOST) {
            lose_share(member, &steps[i]);
        } else if (steps[i].act == HOLDING_LEAVE) {
            leave_share(member, &steps[i]);
        }
    }
    tell_events(member, events);
    return collect_changes(member, steps, count);
}

static void become_member(struct member *member)
{
    member->alive = true;
    member->number = member->job.number;
    member->job.joins = false;
    member->other = (struct heartbeat_seen){0};
    member->refused[0] = '\0';
    if (!member->stopping) {
        member->handler.joined(member->handler.context, member->number);
    }
}

static void come_back(struct member *member)
{
    member->pause_ms = 0;
    if (member->away) {
        member->away = false;
        tell_of_us(member, MEMBER_HERE, clock_steady_ms() - member->away_ms, "");
    }
}

static void end_life(struct member *member)
{
    member->alive = false;
    member->lease = (struct lease){0};
    lose_all(member);
}

static void round_done(void *context)
{
    struct member_job *job = context;
    struct member *member = (struct member *)((char *)job - offsetof(struct member, job));
    bool changes = false;
    member->busy = false;
    if (member->closing || member->stopping) {
        member->number = job->number != 0 ? job->number : member->number;
        go_on(member);
        return;
    }
    if (job->end == JOB_FAILED) {
        job->joins = false;
        fail(member);
        member_fail_commands(member);
        return;
    }
    come_back(member);
    if (job->end == JOB_FOUND) {
        look_at_found(member);
    } else if (job->end == JOB_SUPERSEDED) {
        end_life(member);
    } else {
        if (!member->alive) {
            become_member(member);
        }
        note_word(member);
        measure(member);
        changes = take_reading(member);
    }
    if (changes && !member->stopping) {
        begin_change(member);
    } else {
        go_on(member);
    }
}

static void change_done(void *context)
{
    struct member_job *job = context;
    struct member *member = (struct member *)((char *)job - offsetof(struct member, job));
    member->busy = false;
    for (size_t i = 0; i < job->claim_count; i++) {
        if (job->claims[i].done) {
            take_share(member, &job->claims[i]);
        }
    }
    job->claim_count = job->release_count = 0;
    for (size_t i = 0; i < job->command_count; i++) {
        member->hurry = member->hurry || job->commands[i].answer == MEMBER_DONE;
    }
    bool failed = job->outcome != DATABASE_DONE && job->outcome != DATABASE_AGAIN;
    member_answer_commands(member);
    if (failed && !member->stopping && !member->closing) {
        fail(member);
    } else {
        go_on(member);
    }
}

/* ---- stopping ------------------------------------------------------------------------------- */

static void say_stopped(void *context)
{
    struct member *member = context;
    if (!member->stopped) {
        member->stopped = true;
        loop_timer_cancel(member->stop_timer);
        if (member->busy) {
            database_interrupt(member->job.database);
        }
        member->stop_done(member->stop_context);
    }
}

static void leave_done(void *context)
{
    struct member_job *job = context;
    struct member *member = (struct member *)((char *)job - offsetof(struct member, job));
    member->busy = false;
    if (!member->closing) {
        say_stopped(member);
    }
}

static void finish_stop(struct member *member)
{
    if (member->left || member->stopped) {
        return;
    }
    member->left = true;
    member->job.number = member->number;
    member->job.incarnation = member->incarnation;
    submit(member, member_job_leave, leave_done);
    loop_timer_cancel(member->round_timer);
    if (!member->busy) {
        say_stopped(member);
    }
}

void member_stop(struct member *member, void (*done)(void *context), void *context)
{
    assert(!member->stopping);
    member->stopping = true;
    member->stop_done = done;
    member->stop_context = context;
    member->lease = (struct lease){0};
    loop_timer_cancel(member->round_timer);
    loop_timer_cancel(member->lapse_timer);
    loop_timer_set(member->stop_timer, LEASE_ANSWER_MS);
    if (!member->busy) {
        finish_stop(member);
    }
}

/* ---- making --------------------------------------------------------------------------------- */

static bool copy_settings(struct member *member, const struct member_settings *settings)
{
    struct slice *texts[] = {&member->settings.name, &member->settings.site,
                             &member->settings.version, &member->settings.place,
                             &member->settings.machine};
    member->settings = *settings;
    member->settings.database = (struct database_settings){0};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        *texts[i] = arena_copy(&member->texts, slice_take(*texts[i], MEMBER_PLACE_MAX));
        if (texts[i]->data == NULL) {
            return false;
        }
    }
    return true;
}

struct member *member_new(struct loop *loop, const struct member_settings *settings,
                          const struct member_handler *handler)
{
    struct member *member = calloc(1, sizeof(*member));
    if (member == NULL) {
        return NULL;
    }
    member->loop = loop;
    member->handler = *handler;
    member->health = (struct node_health){-1, -1, -1, -1, -1, 0, 0, -1, -1, -1, -1, -1};
    arena_init(&member->texts);
    arena_init(&member->arenas[0]);
    arena_init(&member->arenas[1]);
    arena_init(&member->changes);
    holding_init(&member->holding);
    member->job.settings = &member->settings;
    member->job.database = database_new(&settings->database);
    member->round_timer = loop_timer_new(loop, begin_round, member);
    member->lapse_timer = loop_timer_new(loop, lapse, member);
    member->stop_timer = loop_timer_new(loop, say_stopped, member);
    member->worker = worker_new(loop, "lease");
    if (!copy_settings(member, settings) || member->job.database == NULL ||
        member->round_timer == NULL || member->lapse_timer == NULL || member->stop_timer == NULL ||
        member->worker == NULL) {
        member_free(member);
        return NULL;
    }
    loop_timer_set(member->round_timer, 0);
    return member;
}

void member_free(struct member *member)
{
    if (member == NULL) {
        return;
    }
    member->closing = member->stopping = true;
    if (member->busy) {
        database_interrupt(member->job.database);
    }
    worker_free(member->worker);
    member_fail_commands(member);
    database_free(member->job.database);
    loop_timer_free(member->round_timer);
    loop_timer_free(member->lapse_timer);
    loop_timer_free(member->stop_timer);
    holding_done(&member->holding);
    arena_done(&member->changes);
    arena_done(&member->arenas[0]);
    arena_done(&member->arenas[1]);
    arena_done(&member->texts);
    free(member);
}

/* ---- what the next round takes with it ------------------------------------------------------ */

static void hurry(struct member *member)
{
    member->hurry = true;
    if (!member->busy && !member->away && !member->stopping) {
        loop_timer_set(member->round_timer, 0);
    }
}

void member_set_health(struct member *member, const struct node_health *health)
{
    int64_t offset_ms = member->health.clock_offset_ms;
    int64_t lag_ms = member->health.database_lag_ms;
    bool brought = member->health.behind_ms >= 0 && health->behind_ms < 0;
    member->health = *health;
    member->health.clock_offset_ms = offset_ms;
    member->health.database_lag_ms = lag_ms;
    if (brought) {
        hurry(member); /* the others wait for it */
    }
}

void member_doubt(struct member *member)
{
    member->doubted_ms = clock_steady_ms();
}

void member_left(struct member *member, uint32_t share)
{
    int64_t token;
    if (holding_left(&member->holding, share, &token)) {
        hurry(member); /* somebody waits for it */
    }
}
