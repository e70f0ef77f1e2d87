/* SPDX-License-Identifier: Apache-2.0
 *
 * Members of a cluster in a world made from a seed: processes that are paused, killed and started
 * again, machines whose clocks stand still meanwhile, a database that is slow, away, answers
 * nothing, fails over to a clock hours off; each acts on its own, by the code that
 * cluster/member.c carries out. At each step, for each share:
 *
 *   - at most one member that runs believes that it may deliver for it
 *   - no two members, nor two lives of one, ever have it with the same token
 *   - nothing is taken from a member that was well, for lack of the database alone
 *
 * and when the trouble ends: every share has an owner, evenly, and nothing moves any more.
 *
 * Run with a number to repeat one seed, or two for a range.
 */
#include "cluster/watch.h"
#include "sim/slow.h"
#include "sim_database.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum {
    STEP_MS = 20,
    TROUBLE_MS = 50000,
    CALM_MS = 50000, /* to settle, to be given what is due, and to find that nothing moves then */
    REST_MS = 10000, /* at the end of it */
    SEEDS = IS_SLOW ? 150 : 1200,
    TOKENS_MAX = 4096,
    ILL_MS = 12000, /* what has happened to a member has its consequence within */
};

static const char *const share_names[SIM_SHARES] = {"in:0",  "in:1",  "in:2",  "in:3",  "in:4",
                                                    "in:5",  "in:6",  "in:7",  "out:0", "out:1",
                                                    "out:2", "out:3", "leader"};
static const char *const node_names[SIM_NODES] = {"n1", "n2", "n3", "n4"};

struct member {
    int number;
    bool runs;                /* the process is there */
    int64_t paused_until_ms;  /* real time */
    int64_t steady_offset_ms; /* of this machine's clocks, from real time */
    int64_t wall_offset_ms;
    uint64_t incarnation;
    bool joined;
    struct lease lease;
    struct contact contact;
    struct watch watch;
    struct holding holding;
    struct sim_statement *waiting; /* for its answer */
    struct lease_time sent;        /* the renewal of this round; */
    struct lease_time asked;       /* the statement */
    int64_t next_ms;               /* steady: when the next round begins */
    int64_t leaves_ms[SIM_SHARES]; /* steady: nothing will be under way; 0: not leaving */
    int64_t ill_ms;                /* when it last had a trouble of its own */
};

struct world {
    uint64_t seed, random;
    int64_t now_ms;
    uint64_t next_incarnation;
    int64_t trouble_until_ms; /* the present one with the database */
    bool slow, deaf;
    bool calm;
    struct sim_database database;
    struct member members[SIM_NODES];
    uint64_t takers[SIM_SHARES][TOKENS_MAX]; /* the incarnation that has had this token */
    size_t taken, moved_in_rest;
    struct arena arena;
};

static unsigned draw(struct world *world, unsigned below)
{
    world->random = world->random * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(world->random >> 33) % below;
}

static struct lease_time now_of(const struct world *world, const struct member *member)
{
    return (struct lease_time){world->now_ms + member->steady_offset_ms,
                               world->now_ms + member->wall_offset_ms};
}

static bool is_awake(const struct world *world, const struct member *member)
{
    return member->runs && world->now_ms >= member->paused_until_ms;
}

/* ---- processes ----------------------------------------------------------------------------- */

static void start(struct world *world, struct member *member)
{
    member->runs = true;
    member->incarnation = ++world->next_incarnation;
    member->joined = false;
    member->lease = (struct lease){0};
    member->contact = (struct contact){0};
    member->watch = (struct watch){0};
    holding_init(&member->holding);
    member->waiting = NULL;
    member->next_ms = now_of(world, member).steady_ms;
    memset(member->leaves_ms, 0, sizeof(member->leaves_ms));
}

/* What waits at the database runs all the same. */
static void hang_up(struct member *member)
{
    if (member->waiting != NULL) {
        member->waiting->answer_delay_ms = SIM_NEVER;
        member->waiting->answer_ms = SIM_NEVER;
        member->waiting = NULL;
    }
}

static void end(struct member *member)
{
    hang_up(member);
    holding_done(&member->holding);
    member->runs = false;
}

/* ---- a member's round: renew, read, change -------------------------------------------------- */

static struct sim_statement *ask(struct world *world, struct member *member, enum sim_kind kind)
{
    struct sim_statement *statement = sim_send(&world->database);
    statement->kind = kind;
    statement->node = member->number;
    statement->incarnation = member->incarnation;
    statement->run_ms = world->now_ms + draw(world, 30);
    statement->commit_delay_ms = kind == SIM_READ ? 0 : draw(world, 30);
    statement->answer_delay_ms = draw(world, 30);
    if (world->slow && draw(world, 2) == 0) {
        statement->commit_delay_ms += draw(world, draw(world, 2) == 0 ? 1500 : 6000);
    }
    if (world->deaf && draw(world, 3) == 0) { /* and runs when nobody thinks of it any more */
        statement->answer_delay_ms = SIM_NEVER;
        statement->run_ms += draw(world, 2) == 0 ? draw(world, 8000) : 0;
    }
    member->waiting = statement;
    member->asked = now_of(world, member);
    return statement;
}

static void begin_round(struct world *world, struct member *member)
{
    struct sim_statement *statement = ask(world, member, SIM_RENEW);
    statement->joins = !member->joined;
    statement->expected = world->database.heartbeats[member->number - 1].incarnation;
    member->sent = member->asked;
    member->next_ms = member->asked.steady_ms + LEASE_BEAT_MS;
}

static void lose_connection(struct world *world, struct member *member)
{
    hang_up(member);
    contact_lost(&member->contact);
    member->next_ms = now_of(world, member).steady_ms + 100 + draw(world, 400);
}

/* Nobody loses anything because the database alone was away, or has failed over. */
static void check_victim(const struct world *world, uint32_t share, int owner)
{
    if (owner != 0 && world->now_ms - world->members[owner - 1].ill_ms > ILL_MS) {
        fail_msg("seed %llu, %lld ms: %s is taken from n%d, which is well",
                 (unsigned long long)world->seed, (long long)world->now_ms, share_names[share - 1],
                 owner);
    }
}

static void note_taken(struct world *world, struct member *member, uint32_t share, int64_t token)
{
    assert_true(token > 0 && token < TOKENS_MAX);
    uint64_t *taker = &world->takers[share - 1][token];
    if (*taker != 0) {
        fail_msg("seed %llu: two have %s with token %lld", (unsigned long long)world->seed,
                 share_names[share - 1], (long long)token);
    }
    *taker = member->incarnation;
    world->taken++;
    world->moved_in_rest += world->now_ms > TROUBLE_MS + CALM_MS - REST_MS;
}

static void build_view(const struct sim_statement *read, int own, struct view_member *members,
                       struct view_share *shares, struct view *ret_view)
{
    for (int i = 0; i < SIM_NODES; i++) {
        const struct sim_heartbeat *row = &read->heartbeats[i];
        members[i] = (struct view_member){
            .number = i + 1,
            .name = slice_from_text(node_names[i]),
            .roles = NODE_ROLE_NODE | (i < 2 ? NODE_ROLE_HUB : 0),
            .has_beat = row->has_beat,
            .incarnation = row->incarnation,
            .beat_us = row->beat_us,
            .age_ms = (read->read_us - row->beat_us) / 1000,
            .up_ms = (row->beat_us - row->since_us) / 1000,
        };
    }
    for (uint32_t i = 0; i < SIM_SHARES; i++) {
        shares[i] = (struct view_share){
            .number = i + 1, .owner = read->shares[i].owner, .token = read->shares[i].token};
        shares[i].name = slice_from_text(share_names[i]);
        assert_true(share_name_parse(shares[i].name, &shares[i].parsed));
    }
    *ret_view = (struct view){own, members, SIM_NODES, shares, SIM_SHARES};
}

static void act(struct world *world, struct member *member, const struct holding_step *steps,
                size_t count)
{
    struct sim_change changes[SIM_SHARES];
    size_t change_count = 0;
    for (size_t i = 0; i < count; i++) {
        switch (steps[i].act) {
        case HOLDING_CLAIM:
        case HOLDING_RELEASE:
            changes[change_count++] = (struct sim_change){steps[i].act == HOLDING_CLAIM,
                                                          steps[i].share,
                                                          steps[i].token,
                                                          steps[i].owner,
                                                          steps[i].beat_us,
                                                          false};
            break;
        case HOLDING_LEAVE:
            member->leaves_ms[steps[i].share - 1] =
                now_of(world, member).steady_ms + 1 + draw(world, 2000);
            break;
        case HOLDING_LOST:
            member->leaves_ms[steps[i].share - 1] = 0;
            break;
        }
    }
    if (change_count > 0) {
        struct sim_statement *statement = ask(world, member, SIM_CHANGE);
        memcpy(statement->changes, changes, sizeof(changes));
        statement->change_count = change_count;
    }
}

static void take_reading(struct world *world, struct member *member,
                         const struct sim_statement *read)
{
    struct view_member members[SIM_NODES];
    struct view_share shares[SIM_SHARES];
    static struct watch_event events[WATCH_EVENTS_MAX];
    struct view view;
    struct lease_time now = now_of(world, member);
    build_view(read, member->number, members, shares, &view);
    contact_heard(&member->contact, member->sent.steady_ms, now.steady_ms, read->database);
    (void)watch_read(&member->watch, &view, &member->contact, now.steady_ms, events);
    struct lease renewed;
    lease_renew(&renewed, member->sent);
    struct holding_step *steps;
    size_t count;
    arena_reset(&world->arena);
    assert_int_equal(holding_follow(&member->holding, &view, lease_allows(&renewed, now),
                                    &world->arena, &steps, &count),
                     ERROR_NONE);
    member->lease = renewed;
    act(world, member, steps, count);
}

static void take_answer(struct world *world, struct member *member)
{
    struct sim_statement *statement = member->waiting;
    member->waiting = NULL;
    switch (statement->kind) {
    case SIM_RENEW:
        /* A statement of an earlier life may have been before us, once. */
        assert_true(!statement->refused || !member->joined);
        if (!statement->refused) {
            member->joined = true;
            ask(world, member, SIM_READ);
        }
        break;
    case SIM_READ:
        take_reading(world, member, statement);
        break;
    case SIM_CHANGE:
        for (size_t i = 0; i < statement->change_count; i++) {
            const struct sim_change *change = &statement->changes[i];
            if (change->claim && change->done) {
                note_taken(world, member, change->share, change->token + 1);
                check_victim(world, change->share,
                             change->owner == member->number ? 0 : change->owner);
                assert_int_equal(holding_take(&member->holding, change->share, change->token + 1),
                                 ERROR_NONE);
                member->leaves_ms[change->share - 1] = 0;
            }
        }
        break;
    }
    statement->used = false;
}

static void leave(const struct world *world, struct member *member)
{
    for (uint32_t i = 0; i < SIM_SHARES; i++) {
        int64_t token;
        if (member->leaves_ms[i] != 0 && now_of(world, member).steady_ms >= member->leaves_ms[i]) {
            (void)holding_left(&member->holding, i + 1, &token);
            member->leaves_ms[i] = 0;
        }
    }
}

static void step_member(struct world *world, struct member *member)
{
    int64_t now_ms = now_of(world, member).steady_ms;
    leave(world, member);
    if (member->waiting != NULL && world->now_ms >= member->waiting->answer_ms) {
        take_answer(world, member);
    } else if (member->waiting != NULL && now_ms - member->asked.steady_ms >= LEASE_ANSWER_MS) {
        lose_connection(world, member);
    } else if (member->waiting == NULL && now_ms >= member->next_ms) {
        begin_round(world, member);
    }
}

/* ---- trouble ------------------------------------------------------------------------------- */

static void trouble_with_database(struct world *world)
{
    struct sim_database *database = &world->database;
    database->away = world->slow = world->deaf = false;
    world->trouble_until_ms = world->now_ms + 1000 + draw(world, 9000);
    switch (draw(world, 7)) {
    case 0:
        database->away = true;
        break;
    case 1:
        world->slow = true;
        break;
    case 2:
        world->deaf = true;
        break;
    case 3: /* another takes over; it has all that was confirmed, and a clock of its own */
        database->identity++;
        database->clock_offset_ms += (int64_t)draw(world, 7200000) - 3600000;
        for (int i = 0; i < SIM_NODES; i++) {
            lose_connection(world, &world->members[i]);
        }
        break;
    case 4: /* the same one, and nobody notices */
        database->clock_offset_ms += (int64_t)draw(world, 20000) - 10000;
        break;
    default:
        break;
    }
}

static void trouble_with_member(struct world *world)
{
    struct member *member = &world->members[draw(world, SIM_NODES)];
    if (world->now_ms < member->paused_until_ms) {
        return;
    }
    int64_t pause_ms = draw(world, 2) == 0 ? 2500 + draw(world, 2000) : draw(world, 12000);
    switch (draw(world, 5)) {
    case 0:
        if (member->runs) {
            end(member);
        }
        break;
    case 1:
        member->paused_until_ms = world->now_ms + pause_ms;
        break;
    case 2: /* the host of the machine pauses it; its clocks stand still, and the wall is set after
             */
        member->paused_until_ms = world->now_ms + pause_ms;
        member->steady_offset_ms -= pause_ms;
        break;
    case 3:
        member->wall_offset_ms += (int64_t)draw(world, 7200000) - 3600000;
        break;
    default:
        break;
    }
    if (!member->runs && draw(world, 2) == 0) {
        start(world, member);
    }
}

static void make_trouble(struct world *world)
{
    if (world->now_ms >= world->trouble_until_ms) {
        trouble_with_database(world);
    }
    if (draw(world, 40) == 0) {
        trouble_with_member(world);
    }
}

static void end_trouble(struct world *world)
{
    world->calm = true;
    world->database.away = world->slow = world->deaf = false;
    for (int i = 0; i < SIM_NODES; i++) {
        if (!world->members[i].runs) {
            start(world, &world->members[i]);
        }
    }
}

/* ---- what must hold ------------------------------------------------------------------------- */

static void check_owners(const struct world *world)
{
    for (uint32_t share = 1; share <= SIM_SHARES; share++) {
        int believer = 0;
        for (int i = 0; i < SIM_NODES; i++) {
            const struct member *member = &world->members[i];
            int64_t token;
            if (!is_awake(world, member) || !holding_has(&member->holding, share, &token) ||
                !lease_allows(&member->lease, now_of(world, member))) {
                continue;
            }
            if (believer != 0) {
                fail_msg("seed %llu, %lld ms: %s is delivered by n%d and by n%d",
                         (unsigned long long)world->seed, (long long)world->now_ms,
                         share_names[share - 1], believer, member->number);
            }
            believer = member->number;
        }
    }
}

static void check_rest(const struct world *world)
{
    size_t in[SIM_NODES] = {0};
    for (uint32_t share = 1; share <= SIM_SHARES; share++) {
        int owner = world->database.shares[share - 1].owner;
        int64_t token = 0;
        if (owner == 0 || !holding_has(&world->members[owner - 1].holding, share, &token) ||
            token != world->database.shares[share - 1].token) {
            fail_msg("seed %llu: nobody has %s in the end", (unsigned long long)world->seed,
                     share_names[share - 1]);
        }
        in[owner - 1] += share <= 8;
        assert_true(share < SIM_SHARES || owner <= 2);
    }
    for (int i = 0; i < SIM_NODES; i++) {
        if (in[i] != 2 || world->moved_in_rest != 0) {
            fail_msg("seed %llu: n%d has %zu of 8, and %zu moved", (unsigned long long)world->seed,
                     i + 1, in[i], world->moved_in_rest);
        }
    }
}

/* Answers that nobody waits for. */
static void forget_statements(struct world *world)
{
    for (size_t i = 0; i < SIM_STATEMENTS; i++) {
        struct sim_statement *statement = &world->database.statements[i];
        if (statement->used && statement->has_committed && statement->answer_ms == SIM_NEVER) {
            bool is_waited_for = false;
            for (int j = 0; j < SIM_NODES; j++) {
                is_waited_for = is_waited_for || world->members[j].waiting == statement;
            }
            statement->used = is_waited_for;
        }
    }
}

static size_t run_seed(uint64_t seed)
{
    struct world *world = calloc(1, sizeof(*world));
    assert_non_null(world);
    world->seed = seed;
    world->random = seed * 0x9e3779b97f4a7c15ULL;
    arena_init(&world->arena);
    for (int i = 0; i < SIM_NODES; i++) {
        world->members[i].number = i + 1;
        world->members[i].steady_offset_ms = draw(world, 1000000);
        world->members[i].wall_offset_ms = (int64_t)draw(world, 7200000) - 3600000;
        start(world, &world->members[i]);
    }
    for (; world->now_ms < TROUBLE_MS + CALM_MS; world->now_ms += STEP_MS) {
        if (world->now_ms < TROUBLE_MS) {
            make_trouble(world);
        } else if (!world->calm) {
            end_trouble(world);
        }
        sim_database_step(&world->database, world->now_ms);
        for (int i = 0; i < SIM_NODES; i++) {
            if (is_awake(world, &world->members[i])) {
                step_member(world, &world->members[i]);
            }
            if (!is_awake(world, &world->members[i]) || world->slow || world->deaf) {
                world->members[i].ill_ms = world->now_ms;
            }
        }
        forget_statements(world);
        check_owners(world);
    }
    check_rest(world);
    size_t taken = world->taken;
    for (int i = 0; i < SIM_NODES; i++) {
        end(&world->members[i]);
    }
    arena_done(&world->arena);
    free(world);
    return taken;
}

static uint64_t first_seed = 1, last_seed = SEEDS;

static void at_most_one_delivers(void **state)
{
    (void)state;
    size_t taken = 0;
    for (uint64_t seed = first_seed; seed <= last_seed; seed++) {
        taken += run_seed(seed);
    }
    printf("%llu seeds: shares taken %zu times\n", (unsigned long long)(last_seed - first_seed + 1),
           taken);
    assert_true(taken > (last_seed - first_seed + 1) * SIM_SHARES);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        first_seed = last_seed = strtoull(argv[1], NULL, 10);
        last_seed = argc > 2 ? strtoull(argv[2], NULL, 10) : first_seed;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(at_most_one_delivers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
