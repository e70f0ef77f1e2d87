/* SPDX-License-Identifier: Apache-2.0
 *
 * The whole program, from a seed: strangers and relay clients send, servers fail in every way,
 * processes are killed, the power goes, the clock jumps, the configuration changes; then the world
 * heals, dead letters are released, and every 250 must have reached exactly one fate, in order per
 * recipient: delivered, or bounced by one notice that has arrived at its sender, never a stranger.
 * In each seventh seed clients are brought by load balancers and by other mail servers, and each
 * server that wants to know (by XCLIENT, XFORWARD, a PROXY header) is told its own client with each
 * message, never another's.
 *
 *   test_simulation            the seeds of the ordinary test run
 *   test_simulation FIRST N    N seeds from FIRST; stops at the first that fails
 *   test_simulation SEED 1 tell    every event of one seed
 *   test_simulation calls FIRST N  a site that calls for its mail, with N seeds from FIRST
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/digest.h"
#include "sim/scene.h"
#include "sim/sim.h"
#include "sim/slow.h"

enum {
    SECOND = 1000000000,
    SEEDS = IS_SLOW ? 8 : 30, /* of every kind some: they go by remainders of 3, 4 and 7 */
    CALLS = IS_SLOW ? 3 : 8,
    DRILLS = IS_SLOW ? 1 : 4, /* with each blow */
};

struct chaos {
    struct scene scene;
    int64_t until_ns;
    bool bad_disk;
    bool drills;
    bool follows_dns;
    bool brings; /* clients by others who say whose mail it is, to servers that want to know */
};

static void kill_something(struct chaos *chaos)
{
    uint64_t what = sim_draw(8);
    if (what < ROLE_COUNT) {
        program_kill(chaos->scene.program, (enum role)what);
    } else if (what == 3) {
        program_power_failure(chaos->scene.program);
    } else {
        return;
    }
    static const char *const words[] = {"edge-in", "core", "edge-out", "everything: power"};
    ledger_tell(chaos->scene.ledger, "killed %s", words[what]);
    chaos->scene.ledger->allowance += program_connections(chaos->scene.program);
    ledger_disturb_all(chaos->scene.ledger);
}

/* Postfix offers XCLIENT to us, but not to most that we present; others are more patient. */
static void want_to_know(struct server_mood *mood)
{
    static const unsigned offers[] = {0, 500, 1000, 1000}, troubles[] = {0, 0, 0, 20, 200};
    mood->offers_xclient = offers[sim_draw(4)];
    mood->offers_xforward = offers[sim_draw(4)];
    mood->offers_all = offers[sim_draw(4)];
    mood->xclient_refused = troubles[sim_draw(5)];
    mood->xforward_refused = troubles[sim_draw(5)];
    mood->client_4xx = troubles[sim_draw(5)];
    mood->client_5xx = troubles[sim_draw(5)] / 5;
    mood->client_421 = troubles[sim_draw(5)];
    mood->client_cut = troubles[sim_draw(5)];
}

static void change_mood(struct chaos *chaos)
{
    enum setting_server index = (enum setting_server)sim_draw(SETTING_SERVERS);
    struct ip_endpoint at = setting_server_at(index);
    static const struct server_mood moods[] = {
        {0},
        {.silent = true},
        {.greet_4xx = 500},
        {.hello_cut = 300, .hello_421 = 200},
        {.recipient_4xx = 100},
        {.dot_4xx = 100},
        {.dot_5xx = 30},
        {.recipient_5xx = 30, .dot_5xx = 30},
        {.cut_before_dot = 300},
        {.cut_after_dot = 50},
        {.slow = 100},
        {.recipient_4xx = 50, .dot_4xx = 50, .cut_before_dot = 50, .cut_after_dot = 20, .slow = 20},
        {.recipient_4xx = 50,
         .recipient_5xx = 50,
         .dot_4xx = 50,
         .dot_5xx = 50,
         .cut_after_dot = 20},
    };
    struct server_mood mood = moods[sim_draw(sizeof(moods) / sizeof(moods[0]))];
    if (chaos->brings) {
        want_to_know(&mood);
    }
    sim_server_set_mood(chaos->scene.servers[index], &mood);
    uint64_t reach = sim_draw(8);
    sim_net_reach(&at, reach == 0 ? SIM_UNREACHABLE : reach <= 2 ? SIM_REFUSED : SIM_REACHABLE);
    if (reach <= 2 || sim_chance(200)) {
        sim_net_cut(&at);
        ledger_tell(chaos->scene.ledger, "%s cut off", setting_server_name(index));
        ledger_disturb_all(chaos->scene.ledger);
    }
}

/* Most are refused: something is always down. */
static void drill(struct chaos *chaos)
{
    char request[128];
    const char *domain = sim_draw(2) == 0 ? "lmtp.test" : "example.test";
    if (sim_chance(300)) {
        snprintf(request, sizeof(request), "{\"command\":\"drill stop\",\"arguments\":{}}");
    } else {
        snprintf(request, sizeof(request),
                 "{\"command\":\"drill\",\"arguments\":{\"domain\":\"%s\",\"minutes\":0.%u}}",
                 domain, 1 + (unsigned)sim_draw(5));
    }
    program_command(chaos->scene.program, request);
}

static void stir(void *context)
{
    struct chaos *chaos = context;
    if (sim_now_ns() >= chaos->until_ns) {
        return;
    }
    change_mood(chaos);
    change_mood(chaos);
    if (sim_chance(150)) {
        kill_something(chaos);
    }
    if (sim_chance(200)) {
        scene_reload(&chaos->scene, chaos->brings                           ? setting_new_told()
                                    : chaos->follows_dns && sim_draw(3) > 0 ? setting_new_mx()
                                                                            : setting_new_drawn());
    }
    if (sim_chance(200)) {
        sim_dns_fail((uint32_t)sim_draw(4) * 300);
    }
    if (chaos->drills) {
        drill(chaos);
    }
    if (chaos->bad_disk && sim_chance(100)) {
        ledger_tell(chaos->scene.ledger, "the disk breaks");
        program_break_disk(chaos->scene.program);
    } else if (sim_chance(300)) {
        program_mend_disk(chaos->scene.program);
    }
    if (sim_chance(20)) {
        sim_wall_jump(((int64_t)sim_draw(20) - 10) * 86400000);
    }
    sim_after(sim_current(), (int64_t)(1 + sim_draw(8)) * SECOND, stir, chaos);
}

/* Each way to tell whose mail it is was used. */
static uint32_t check_tellings(const struct ledger *ledger)
{
    const uint32_t *told = ledger->told;
    printf("told by XCLIENT %u, XFORWARD %u, PROXY %u; ", told[TOLD_BY_XCLIENT],
           told[TOLD_BY_XFORWARD], told[TOLD_BY_PROXY]);
    return told[TOLD_BY_XCLIENT] == 0 || told[TOLD_BY_XFORWARD] == 0 || told[TOLD_BY_PROXY] == 0;
}

/* The number of broken promises. */
static uint32_t run(uint64_t seed, bool tell)
{
    struct chaos chaos;
    scene_begin(&chaos.scene, seed, tell);
    chaos.brings = seed % 7 == 5;
    chaos.bad_disk = seed % 3 == 0;
    chaos.drills = seed % 3 == 1;
    chaos.follows_dns = seed % 4 == 2 && !chaos.brings;
    chaos.scene.ledger->brought = chaos.scene.ledger->telling = chaos.brings;
    if (chaos.follows_dns) {
        scene_reload(&chaos.scene, setting_new_mx());
    }
    chaos.until_ns = sim_now_ns() + 180LL * SECOND;
    sim_after(sim_current(), SECOND, stir, &chaos);
    sim_run_until(chaos.until_ns);
    scene_quiet(&chaos.scene);
    chaos.scene.ledger->telling = false; /* exchangers are told nothing */
    scene_heal(&chaos.scene);
    uint32_t broken = scene_check_end(&chaos.scene);
    broken += chaos.brings ? check_tellings(chaos.scene.ledger) : 0;
    printf("seed %llu: ", (unsigned long long)seed);
    broken += ledger_judge(chaos.scene.ledger);
    scene_end(&chaos.scene);
    return broken;
}

/* R4: a head that closes every connection behind its reply to EHLO, or with a 421 there, is no
 * server: while mail waits it is not called in a circle, and mail goes to the next one. */
static bool hanging_up_after_hello(const struct server_mood *mood)
{
    struct scene scene;
    scene_begin(&scene, 1, false);
    sim_server_set_mood(scene.servers[M1], mood);
    struct ip_endpoint second = setting_server_at(M2), third = setting_server_at(M3);
    sim_net_reach(&second, SIM_REFUSED);
    sim_net_reach(&third, SIM_REFUSED);
    sim_run_until(sim_now_ns() + 30LL * SECOND);
    sim_net_reach(&second, SIM_REACHABLE);
    sim_run_until(sim_now_ns() + 30LL * SECOND);
    uint32_t taken = sim_server_taken(scene.servers[M2]);
    uint32_t visits = sim_server_visits(scene.servers[M1]);
    scene_end(&scene);
    printf("m1 hangs up after EHLO: called %u times in a minute, m2 has %u\n", visits, taken);
    return taken > 500 && visits < 30;
}

/* R3: all servers have been silent for a while, their hosts switched off; the first is back, and
 * the probe notices within its interval, however long the kernel waits with its next SYN. */
static bool silent_then_back(uint64_t seed)
{
    struct scene scene;
    scene_begin(&scene, seed, false);
    for (enum setting_server i = 0; i < SETTING_SERVERS; i++) {
        struct ip_endpoint at = setting_server_at(i);
        sim_net_reach(&at, SIM_UNREACHABLE);
        sim_net_cut(&at);
    }
    sim_run_until(sim_now_ns() + (int64_t)(20 + sim_draw(60)) * SECOND);
    struct ip_endpoint head = setting_server_at(M1);
    sim_net_reach(&head, SIM_REACHABLE);
    int64_t back_ns = sim_now_ns();
    while (sim_server_taken(scene.servers[M1]) == 0 && sim_now_ns() - back_ns < 60LL * SECOND) {
        sim_step();
    }
    int64_t ms = (sim_now_ns() - back_ns) / 1000000;
    scene_end(&scene);
    printf("a silent m1 is back: noticed after %lld ms\n", (long long)ms);
    return ms <= 900; /* 700 ms +-20 %, and the dialogue */
}

static void turn(struct scene *scene, enum sim_reach reach)
{
    struct ip_endpoint head = setting_server_at(M1);
    sim_net_reach(&head, reach);
    if (reach != SIM_REACHABLE) {
        sim_net_cut(&head);
        ledger_disturb_all(scene->ledger);
    }
}

/* R5: the only server left was away, comes back in a mood, flapping perhaps, and is well after
 * three minutes of that. All mail arrives, in order, and none of it became a dead letter or a
 * notice meanwhile. */
static bool half_repaired(const char *name, const struct server_mood *mood, bool flaps)
{
    struct scene scene;
    scene_begin(&scene, 7, false);
    scene.ledger->patient = true; /* a time of delivery may end in a notice */
    struct ip_endpoint second = setting_server_at(M2), third = setting_server_at(M3);
    sim_net_reach(&second, SIM_REFUSED);
    sim_net_reach(&third, SIM_REFUSED);
    turn(&scene, SIM_REFUSED);
    sim_run_until(sim_now_ns() + 20LL * SECOND);
    sim_server_set_mood(scene.servers[M1], mood);
    for (int i = 0; i < 60; i++) {
        turn(&scene, flaps && i % 2 == 1 ? SIM_REFUSED : SIM_REACHABLE);
        sim_run_until(sim_now_ns() + 3LL * SECOND);
    }
    turn(&scene, SIM_REACHABLE);
    sim_net_reach(&second, SIM_REACHABLE);
    sim_net_reach(&third, SIM_REACHABLE);
    sim_server_set_mood(scene.servers[M1], &(struct server_mood){0});
    scene_quiet(&scene);
    sim_run_until(sim_now_ns() + 2 * 3600LL * SECOND);
    uint64_t left = program_unfinished(scene.program);
    bool settled = ledger_is_settled(scene.ledger);
    printf("m1 comes back %s: %llu left, %u notices; ", name, (unsigned long long)left,
           scene.ledger->notice_count);
    uint32_t broken = ledger_judge(scene.ledger) + scene.ledger->notice_count;
    scene_end(&scene);
    return settled && left == 0 && broken == 0;
}

static bool half_repaired_servers(void)
{
    const struct server_mood well = {0};
    return half_repaired("well, and goes, every 3 s", &well, true) &&
           half_repaired("refusing all content", &(struct server_mood){.dot_5xx = 1000}, false) &&
           half_repaired("refusing all content, and goes, every 3 s",
                         &(struct server_mood){.dot_5xx = 1000}, true) &&
           half_repaired("knowing nobody", &(struct server_mood){.recipient_5xx = 1000}, false) &&
           half_repaired("deferring all", &(struct server_mood){.dot_4xx = 1000}, false) &&
           half_repaired("slow", &(struct server_mood){.slow = 500}, false) &&
           half_repaired("half open", &(struct server_mood){.silent = true}, false);
}

enum blow { BLOW_NONE, BLOW_CORE, BLOW_EDGE_OUT, BLOW_POWER, BLOW_CLOCK, BLOWS };

/* Something happens in the middle of a drill. */
static void strike(struct scene *scene, enum blow blow)
{
    int64_t day_ms = sim_chance(500) ? 86400000 : -86400000;
    switch (blow) {
    case BLOW_CORE:
        program_kill(scene->program, ROLE_CORE);
        break;
    case BLOW_EDGE_OUT:
        program_kill(scene->program, ROLE_EDGE_OUT);
        break;
    case BLOW_POWER:
        program_power_failure(scene->program);
        break;
    case BLOW_CLOCK:
        sim_wall_jump(day_ms);
        program_kill(scene->program, ROLE_CORE);
        break;
    default:
        return;
    }
    scene->ledger->allowance += program_connections(scene->program);
    ledger_disturb_all(scene->ledger);
}

/* A drill of example.test holds its mail for half a minute, and m1, which has no other mail, takes
 * none; whatever is killed meanwhile it holds on, and no longer than that. Where the clock is set
 * while core is down nobody knows how long it was: then it is over. */
static bool a_drill(uint64_t seed, enum blow blow)
{
    static const char *const names[] = {"nothing", "core", "edge-out", "the power", "the clock"};
    enum { HELD_S = 30, LATE_S = 4 }; /* a restart, and the servers' first verdicts */
    struct scene scene;
    scene_begin(&scene, seed, false);
    sim_run_until(sim_now_ns() + 20LL * SECOND);
    int64_t end_ns = sim_now_ns() + HELD_S * (int64_t)SECOND;
    program_command(scene.program, "{\"command\":\"drill\",\"arguments\":"
                                   "{\"domain\":\"example.test\",\"minutes\":0.5}}");
    sim_run_until(sim_now_ns() + SECOND); /* what was under way has arrived, and the note stands */
    uint32_t taken = sim_server_taken(scene.servers[M1]);
    uint32_t others = sim_server_taken(scene.servers[L1]);
    sim_run_until(sim_now_ns() + (int64_t)sim_draw((HELD_S - 8) * (uint64_t)SECOND));
    bool held = sim_server_taken(scene.servers[M1]) == taken;
    strike(&scene, blow);
    int64_t held_until_ns = blow == BLOW_CLOCK ? sim_now_ns() : end_ns;
    if (blow != BLOW_CLOCK) {
        sim_run_until(held_until_ns - SECOND / 10);
        held = held && sim_server_taken(scene.servers[M1]) == taken;
    }
    sim_run_until(held_until_ns + LATE_S * (int64_t)SECOND);
    uint32_t after = sim_server_taken(scene.servers[M1]) - taken;
    others = sim_server_taken(scene.servers[L1]) - others;
    uint32_t asked = sim_server_drills(scene.servers[M1]);
    scene_quiet(&scene);
    scene_heal(&scene);
    uint32_t broken = scene_check_end(&scene);
    printf("a drill, and %s goes: %s, then m1 has %u, asked %u, meanwhile l1 %u; ", names[blow],
           held ? "held" : "not held", after, asked, others);
    broken += ledger_judge(scene.ledger);
    scene_end(&scene);
    return held && after > 0 && asked > 0 && others > 0 && broken == 0;
}

static bool drills(void)
{
    bool good = true;
    for (uint64_t seed = 1; good && seed <= (uint64_t)DRILLS * BLOWS; seed++) {
        good = a_drill(seed, (enum blow)(seed % BLOWS));
    }
    return good;
}

/* What befalls a site that calls, and us: its line is cut, a process is killed, the power goes. */
static void befall(struct scene *scene)
{
    struct ip_endpoint line = setting_odmr_listener();
    uint64_t what = sim_draw(10);
    if (what < ROLE_COUNT) {
        program_kill(scene->program, (enum role)what);
    } else if (what == 3) {
        program_power_failure(scene->program);
    } else if (what < 7) {
        sim_net_cut(&line);
    } else {
        return;
    }
    scene->ledger->allowance += program_connections(scene->program);
    ledger_disturb_all(scene->ledger);
}

/* ODMR: a site calls for its mail when it likes. Nothing is lost, the order is kept. */
static bool a_site_calls(uint64_t seed)
{
    static const struct server_mood moods[] = {
        {0},
        {.recipient_4xx = 50, .dot_4xx = 50},
        {.dot_5xx = 30},
        {.cut_before_dot = 300},
        {.cut_after_dot = 50},
        {.slow = 100},
        {.hello_cut = 200, .greet_4xx = 200},
    };
    struct scene scene;
    scene_begin(&scene, seed, false);
    scene_reload(&scene, setting_new_odmr());
    struct loop *loop = loop_new();
    struct sim_server *server = sim_server_new(loop, "site", NULL, false, scene.ledger);
    struct ip_endpoint line = setting_odmr_listener();
    struct sim_site *site = sim_site_new(loop, &line, SETTING_SITE, SETTING_SITE_PASSWORD, server);
    int64_t until_ns = sim_now_ns() + 120LL * SECOND;
    while (sim_now_ns() < until_ns) {
        sim_run_until(sim_now_ns() + (int64_t)(1 + sim_draw(8)) * SECOND);
        sim_server_set_mood(server, &moods[sim_draw(sizeof(moods) / sizeof(moods[0]))]);
        befall(&scene);
    }
    sim_server_set_mood(server, &(struct server_mood){0});
    scene_quiet(&scene);
    scene_settle(&scene);
    uint64_t left = program_unfinished(scene.program);
    uint32_t taken = sim_server_taken(server), turns = sim_site_turns(site);
    printf("a site calls, seed %llu: %u turns, %u taken, %llu left; ", (unsigned long long)seed,
           turns, taken, (unsigned long long)left);
    uint32_t broken = scene_check_end(&scene) + ledger_judge(scene.ledger);
    scene_end(&scene);
    return broken == 0 && turns > 10 && taken > 100;
}

static bool calls(uint64_t first, uint64_t count)
{
    bool good = digest_prepare() == ERROR_NONE;
    for (uint64_t seed = first; good && seed < first + count; seed++) {
        good = a_site_calls(seed);
    }
    return good;
}

static bool scenarios(void)
{
    bool good = hanging_up_after_hello(&(struct server_mood){.hello_cut = 1000}) &&
                hanging_up_after_hello(&(struct server_mood){.hello_421 = 1000});
    for (uint64_t seed = 1; good && seed <= 5; seed++) {
        good = silent_then_back(seed);
    }
    return good && half_repaired_servers() && drills() && calls(1, CALLS);
}

/* Seeds that once found something. */
static const uint64_t remembered[] = {
    144, /* a fate that compaction carried on went before the segment it was kept for */
    245,
};

/* In a process of its own, for what killed processes leave behind is much. */
static bool try_seed(uint64_t seed, bool tell)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        exit(run(seed, tell) == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    int status = -1;
    bool kept = child > 0 && waitpid(child, &status, 0) == child && status == 0;
    if (!kept) {
        printf("seed %llu broke a promise; to see all: test_simulation %llu 1 tell\n",
               (unsigned long long)seed, (unsigned long long)seed);
    }
    return kept;
}

int main(int count, char **arguments)
{
    if (count > 3 && strcmp(arguments[1], "calls") == 0) {
        return calls(strtoull(arguments[2], NULL, 10), strtoull(arguments[3], NULL, 10)) ? 0 : 1;
    }
    uint64_t first = count > 1 ? strtoull(arguments[1], NULL, 10) : 1;
    uint64_t seeds = count > 2 ? strtoull(arguments[2], NULL, 10) : SEEDS;
    if (count == 1 && !scenarios()) {
        return 1;
    }
    for (size_t i = 0; count == 1 && i < sizeof(remembered) / sizeof(remembered[0]); i++) {
        if (!try_seed(remembered[i], false)) {
            return 1;
        }
    }
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        if (!try_seed(seed, count > 3)) {
            return 1;
        }
    }
    printf("%llu seeds, every 250 reached exactly one fate, in order\n", (unsigned long long)seeds);
    return 0;
}
