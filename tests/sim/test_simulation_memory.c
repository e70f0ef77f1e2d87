/* SPDX-License-Identifier: Apache-2.0
 *
 * The whole program when an allocation of core or of an edge fails, on every way there is to one:
 * loading, taking and delivering mail, dead letters and bounces, commands, a reload, searches of
 * the trace. It may refuse, put off, or end and be started again; but every 250 reaches exactly one
 * fate, in order, and nothing is bounced twice.
 *
 *   test_simulation_memory           the ordinary test run
 *   test_simulation_memory ROLE      only edge-in, core or edge-out
 *   test_simulation_memory ROLE N    only this allocation; one more word: every event is told
 */
#include <assert.h>
#include <execinfo.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "base/hash.h"
#include "proto/failing_memory.h"
#include "service/core_internal.h"
#include "sim/scene.h"
#include "sim/sim.h"
#include "sim/slow.h"

enum {
    SECOND = 1000000000,
    STEPS = 40,
    JOBS = 2,
    STRIDE = IS_SLOW ? 7 : 1,
    EDGE_STRIDE = IS_SLOW ? 149 : 37,
    WAYS_MAX = 4096,
    WAY_DEPTH = 6,
    FAILURES_MAX = 20,
    TRY_SECONDS = 60,
    HELD_RECIPIENT = 1, /* r1 */
};

/* ---- the allocation that fails --------------------------------------------------------------- */

void __real_abort(void) __attribute__((noreturn));
void __wrap_abort(void) __attribute__((noreturn));

struct way {
    uint64_t hash;
    unsigned long first, last; /* allocations by it */
};

static struct {
    const struct program *program; /* NULL: nothing fails */
    enum role role;
    struct ledger *ledger;
    bool gathers_ways; /* and none fails */
    jmp_buf died;
} memory;

/* Shared with the child that gathers them. */
static struct ways {
    unsigned long allocations; /* by all of them */
    size_t count;
    struct way way[WAYS_MAX];
} * ways;

/* A way is the chain of calls that leads to an allocation. */
static void note_way(unsigned long number)
{
    void *calls[WAY_DEPTH];
    const struct program *program = memory.program;
    memory.program = NULL; /* what backtrace() allocates is not meant */
    int depth = backtrace(calls, WAY_DEPTH);
    memory.program = program;
    uint64_t hash =
        hash_bytes((struct hash_key){1, 2}, slice_make(calls, (size_t)depth * sizeof(calls[0])));
    size_t at = 0;
    while (at < ways->count && ways->way[at].hash != hash) {
        at++;
    }
    assert(at < WAYS_MAX);
    if (at == ways->count) {
        ways->way[ways->count++] = (struct way){.hash = hash, .first = number};
    }
    ways->way[at].last = number;
    ways->allocations = number;
}

static bool is_running(void)
{
    return memory.program != NULL && program_running(memory.program) == memory.role;
}

static bool is_counted(void)
{
    bool counted = is_running();
    if (counted && memory.gathers_ways) {
        note_way((unsigned long)memory_counted() + 1);
    }
    return counted;
}

/* The end of a process that cannot go on without forgetting something. */
void __wrap_abort(void)
{
    if (is_running() && memory_has_failed()) {
        longjmp(memory.died, 1);
    }
    __real_abort();
}

/* ---- what the ledger is told ----------------------------------------------------------------- */

void __real_report_relay_event(struct core *core, const struct relay_action *action);
void __wrap_report_relay_event(struct core *core, const struct relay_action *action);

/* By the content, for the sender may be null. UINT32_MAX: it cannot be read. */
static uint32_t number_of(struct core *core, struct spool_handle handle)
{
    static const char mark[] = "\r\nX-Number: ";
    char bytes[1000] = "";
    size_t length;
    if (spool_read_content(core->spool, handle, 0, bytes, sizeof(bytes) - 1, &length) !=
        ERROR_NONE) {
        return UINT32_MAX;
    }
    bytes[length] = '\0';
    const char *at = strstr(bytes, mark);
    return at == NULL ? UINT32_MAX : (uint32_t)strtoul(at + strlen(mark), NULL, 10);
}

/* A delivery that was deferred on our side, by no server, when memory had failed. */
void __wrap_report_relay_event(struct core *core, const struct relay_action *action)
{
    if (action->event == RELAY_EVENT_DEFERRED && action->reply.how == RELAY_LOCAL &&
        memory_has_failed()) {
        const struct program *program = memory.program;
        memory.program = NULL;
        ledger_put_off(memory.ledger, number_of(core, action->handle), action->delivery,
                       SETTING_PATIENCE_MS);
        memory.program = program;
    }
    __real_report_relay_event(core, action);
}

/* ---- what goes on ---------------------------------------------------------------------------- */

static void kill_role(struct scene *scene, enum role role)
{
    program_kill(scene->program, role);
    scene->ledger->allowance += program_connections(scene->program);
    ledger_disturb_all(scene->ledger);
}

static void run_until(struct scene *scene, int64_t until_ns)
{
    if (setjmp(memory.died) != 0) {
        kill_role(scene, memory.role);
    }
    sim_run_until(until_ns);
}

static void command(struct scene *scene, unsigned step)
{
    static const char *const commands[] = {
        "{\"command\":\"status\",\"arguments\":{}}",
        "{\"command\":\"queue hold\",\"arguments\":{\"recipient\":\"r1@example.test\"}}",
        "{\"command\":\"queue list\",\"arguments\":{}}",
        "{\"command\":\"trace\",\"arguments\":{\"what\":\"r2@example.test\"}}",
        "{\"command\":\"server list\",\"arguments\":{}}",
        "{\"command\":\"queue show\",\"arguments\":{\"all\":true}}",
        "{\"command\":\"server down\",\"arguments\":{\"name\":\"m1\"}}",
        "{\"command\":\"queue bounce\",\"arguments\":{\"dead\":true}}",
        "{\"command\":\"queue export\",\"arguments\":{\"all\":true}}",
        "{\"command\":\"server up\",\"arguments\":{\"name\":\"m1\"}}",
        "{\"command\":\"queue retry\",\"arguments\":{\"all\":true}}",
        "{\"command\":\"queue release\",\"arguments\":{\"all\":true}}",
    };
    const char *said = commands[step % (sizeof(commands) / sizeof(commands[0]))];
    if (strstr(said, "queue hold") != NULL) {
        ledger_hold(scene->ledger, HELD_RECIPIENT);
    }
    program_command(scene->program, said);
}

/* What happens between two tenths of a second. */
static void step_on(struct scene *scene, unsigned step)
{
    if (step == STEPS / 4) {
        for (enum setting_server i = 0; i < SETTING_SERVERS; i++) {
            sim_server_set_mood(scene->servers[i], &(struct server_mood){.recipient_5xx = 100,
                                                                         .dot_4xx = 200,
                                                                         .dot_5xx = 200,
                                                                         .cut_after_dot = 50});
        }
    } else if (step == STEPS / 2) {
        kill_role(scene, ROLE_CORE); /* the next one loads */
    } else if (step == STEPS / 8) {
        program_command(scene->program,
                        "{\"command\":\"drill\",\"arguments\":"
                        "{\"domain\":\"lmtp.test\",\"minutes\":0.02,\"messages\":3}}");
    } else if (step == STEPS * 3 / 4) {
        scene_reload(scene, setting_new_drawn());
    }
    command(scene, step);
}

/* Broken promises. */
static uint32_t run(enum role role, unsigned long fail_at, bool tell)
{
    struct scene scene;
    memory.program = NULL;
    scene_begin(&scene, 1, tell);
    scene.ledger->headless = true;
    memory.ledger = scene.ledger;
    memory.role = role;
    memory.gathers_ways = fail_at == 0;
    memory_count_if(is_counted);
    memory_fail_at((long)fail_at - 1);
    memory.program = scene.program;
    for (unsigned step = 0; step < STEPS; step++) {
        run_until(&scene, sim_now_ns() + SECOND / 10);
        step_on(&scene, step);
    }
    memory.program = NULL;
    scene_quiet(&scene);
    scene_heal(&scene);
    uint32_t broken = scene_check_end(&scene) + ledger_judge(scene.ledger);
    scene_end(&scene);
    return broken;
}

/* ---- every way ------------------------------------------------------------------------------- */

/* In a process of its own, for what processes that died leave behind is much. */
static pid_t try(enum role role, unsigned long fail_at)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(TRY_SECONDS);
        FILE *said = tmpfile();
        int real_stdout = dup(STDOUT_FILENO);
        dup2(fileno(said), STDOUT_FILENO);
        uint32_t broken = run(role, fail_at, false);
        fflush(stdout);
        dup2(real_stdout, STDOUT_FILENO);
        if (broken > 0) {
            char line[400];
            printf("allocation %lu:\n", fail_at);
            rewind(said);
            while (fgets(line, sizeof(line), said) != NULL) {
                printf("    %s", line);
            }
        }
        exit(broken == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    return child;
}

struct trials {
    const char *name;
    enum role role;
    unsigned running, failed;
    struct {
        pid_t pid;
        unsigned long fail_at;
    } jobs[JOBS];
};

static void await_one(struct trials *trials)
{
    int status;
    pid_t pid = wait(&status);
    assert(pid > 0);
    for (unsigned i = 0; i < trials->running; i++) {
        if (trials->jobs[i].pid == pid) {
            if (status != 0) {
                printf("%s breaks a promise when its allocation %lu fails (status %d); to see it: "
                       "test_simulation_memory %s %lu\n",
                       trials->name, trials->jobs[i].fail_at, status, trials->name,
                       trials->jobs[i].fail_at);
                trials->failed++;
            }
            trials->jobs[i] = trials->jobs[--trials->running];
            return;
        }
    }
}

static void try_soon(struct trials *trials, unsigned long fail_at)
{
    if (trials->running == JOBS) {
        await_one(trials);
    }
    trials->jobs[trials->running].fail_at = fail_at;
    trials->jobs[trials->running++].pid = try(trials->role, fail_at);
}

/* An edge has few ways, each taken in many states of a session: more of each is tried. */
static unsigned try_every_way(const char *name, enum role role)
{
    struct trials trials = {.name = name, .role = role};
    ways->count = 0;
    int status = -1;
    pid_t child = try(role, 0);
    bool good = child > 0 && waitpid(child, &status, 0) == child && status == 0;
    size_t count = ways->count;
    if (!good || count < 10) {
        printf("%s: %zu ways found, status %d\n", name, count, status);
        return 1;
    }
    for (size_t i = 0; i < count && trials.failed < FAILURES_MAX; i += STRIDE) {
        try_soon(&trials, i % 2 == 0 ? ways->way[i].first : ways->way[i].last);
    }
    for (unsigned long i = 1;
         role != ROLE_CORE && i <= ways->allocations && trials.failed < FAILURES_MAX;
         i += EDGE_STRIDE) {
        try_soon(&trials, i);
    }
    while (trials.running > 0) {
        await_one(&trials);
    }
    printf("%s: %zu ways to an allocation, %u failed\n", name, count, trials.failed);
    return trials.failed;
}

int main(int count, char **arguments)
{
    static const char *const names[ROLE_COUNT] = {"edge-in", "core", "edge-out"};
    json_set_alloc_funcs(malloc, free);
    ways = mmap(NULL, sizeof(*ways), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert(ways != MAP_FAILED);
    unsigned failed = 0;
    for (enum role role = 0; role < ROLE_COUNT; role++) {
        if (count > 2 && strcmp(arguments[1], names[role]) == 0) {
            return run(role, strtoul(arguments[2], NULL, 10), count > 3) == 0 ? EXIT_SUCCESS
                                                                              : EXIT_FAILURE;
        }
        if (count < 2 || strcmp(arguments[1], names[role]) == 0) {
            failed += try_every_way(names[role], role);
        }
    }
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
