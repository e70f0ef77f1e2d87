/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/program.h"

#include <assert.h>
#include <stdlib.h>

#include "service/channel.h"
#include "service/core_internal.h"
#include "service/login_desk.h"
#include "service/smtp_in.h"
#include "service/smtp_out.h"
#include "sim/sim.h"
#include "sys/net.h"

enum { LOOPS = 2, RELOAD_NS = 20000000 };

/* A loop that takes the newest configuration when its moment comes. */
struct reload {
    struct program *program;
    enum role role;
    uint32_t index;
};

/* One end of a ring that awaits its process, or is in use by it. */
struct edge {
    struct loop *loop;
    struct ring *ring;
    struct smtp_in *in;
    struct smtp_out *out;
};

struct program {
    const struct service_config *config;
    uint32_t generation;
    struct reload reloads[ROLE_COUNT][LOOPS];
    struct disk_sim *spool_store, *events_store;
    struct sim_process *keeper;
    struct sim_process *process[ROLE_COUNT]; /* NULL while down */
    struct loop *core_loop;
    struct core *core;
    struct edge edges_in[LOOPS], edges_out[LOOPS];
    struct smtp_in_shared *shared;
    struct disk_sim *users_store;
    struct sim_process *login; /* never killed */
    struct loop *login_loop;
    struct login_desk *desk;
    int *listeners;
    struct counter_page *page;
    bool starting_edge;
    void *left[4096]; /* what killed processes leave behind: still reachable */
    size_t left_count;
};

static void leave(struct program *program, void *what)
{
    if (what != NULL && program->left_count < sizeof(program->left) / sizeof(void *)) {
        program->left[program->left_count++] = what;
    }
}

static void must(enum error error)
{
    assert(error == ERROR_NONE);
    (void)error;
}

/* What cannot take on a configuration for want of memory is started with it. */
static void must_or_start_again(struct program *program, enum role role, enum error error)
{
    if (error == ERROR_MEMORY) {
        program_kill(program, role);
    } else {
        must(error);
    }
}

static enum error make_ring(struct program *program, struct loop *loop, bool inward,
                            struct ring **ret_theirs, struct ring **ret_ours)
{
    return ring_pair_local(inward ? CHANNEL_RING_IN : CHANNEL_RING_OUT,
                           inward ? CHANNEL_RING_IN_BACK : CHANNEL_RING_OUT, loop,
                           program->core_loop, ret_theirs, ret_ours);
}

/* A ring between core and a loop of an edge, given to both. The keeper makes it: want of memory in
 * core does not count, and a second try succeeds. */
static void wire(struct program *program, struct edge *edge, uint32_t index, bool inward)
{
    if (program->core == NULL || edge->loop == NULL) {
        return;
    }
    struct ring *theirs, *ours, *old = edge->ring;
    if (make_ring(program, edge->loop, inward, &theirs, &ours) != ERROR_NONE) {
        must(make_ring(program, edge->loop, inward, &theirs, &ours));
    }
    edge->ring = theirs;
    if (inward) {
        smtp_in_set_ring(edge->in, theirs);
        core_set_edge_in(program->core, index, ours);
    } else {
        smtp_out_set_ring(edge->out, theirs);
        core_set_edge_out(program->core, index, LOOPS, ours);
    }
    ring_free(old);
}

static void wire_all(struct program *program)
{
    for (uint32_t i = 0; i < LOOPS; i++) {
        wire(program, &program->edges_in[i], i, true);
        wire(program, &program->edges_out[i], i, false);
    }
}

static enum error start_core(struct program *program)
{
    program->core_loop = loop_new();
    if (program->core_loop == NULL) {
        return ERROR_MEMORY;
    }
    enum error error =
        core_new(program->core_loop, program->config, program->generation,
                 disk_sim_open(program->spool_store), disk_sim_open(program->events_store),
                 &program->page->slots[0], NULL, &program->core);
    if (error == ERROR_NONE) {
        wire_all(program);
    }
    return error;
}

struct turned {
    struct program *program;
    uint32_t session;
    int fd;
};

static void take_turned(void *context)
{
    struct turned *turned = context;
    smtp_out_turned(turned->program->edges_out[turned->session % LOOPS].out, turned->session,
                    turned->fd);
    free(turned);
}

/* The link between the edges. What is on its way when the receiver is killed goes with it. */
static bool turn(void *context, int fd, uint32_t session)
{
    struct program *program = context;
    struct sim_process *receiver = program->process[ROLE_EDGE_OUT];
    int given = receiver == NULL ? -1 : sim_net_give(fd, receiver);
    if (given < 0) {
        return false;
    }
    struct turned *turned = malloc(sizeof(*turned));
    assert(turned != NULL);
    *turned = (struct turned){program, session, given};
    sim_after(receiver, (int64_t)sim_draw(2000000), take_turned, turned);
    return true;
}

/* A pair for each loop, as app/role_edge_in and role_login do it. */
static void wire_login(struct program *program, struct edge *edge)
{
    int asker, desk;
    sim_net_pair(program->process[ROLE_EDGE_IN], program->login, &asker, &desk);
    smtp_in_set_login(edge->in, asker);
    sim_process_enter(program->login);
    login_desk_serve(program->desk, desk);
    sim_process_enter(program->process[ROLE_EDGE_IN]);
}

static void start_login(struct program *program)
{
    program->login = sim_process_new("login");
    sim_process_enter(program->login);
    program->users_store = disk_sim_new();
    program->login_loop = loop_new();
    program->desk = login_desk_new(program->login_loop, program->config,
                                   disk_sim_open(program->users_store), &program->page->slots[5]);
    assert(program->desk != NULL);
    sim_process_enter(program->keeper);
}

static void start_edge_in(struct program *program)
{
    program->shared = smtp_in_shared_new(NULL);
    for (uint32_t i = 0; i < LOOPS; i++) {
        struct edge *edge = &program->edges_in[i];
        edge->loop = loop_new();
        edge->ring = NULL;
        edge->in = smtp_in_new(edge->loop, program->config, program->generation, program->shared,
                               program->listeners, NULL, &program->page->slots[1 + i]);
        assert(edge->in != NULL);
        smtp_in_set_turn(edge->in, turn, program);
        wire_login(program, edge);
        wire(program, edge, i, true);
    }
}

static void start_edge_out(struct program *program)
{
    for (uint32_t i = 0; i < LOOPS; i++) {
        struct edge *edge = &program->edges_out[i];
        struct spool_reader *reader;
        struct dns *dns;
        edge->loop = loop_new();
        edge->ring = NULL;
        must(spool_reader_open_log(disk_sim_open(program->spool_store), &reader));
        must(dns_new(edge->loop, NULL, &dns));
        edge->out = smtp_out_new(edge->loop, program->config, reader, dns, NULL,
                                 &program->page->slots[3 + i]);
        assert(edge->out != NULL);
        wire(program, edge, i, false);
    }
}

struct restart {
    struct program *program;
    enum role role;
};

static void start(struct program *program, enum role role)
{
    static const char *const names[ROLE_COUNT] = {"edge-in", "core", "edge-out"};
    assert(program->process[role] == NULL);
    program->process[role] = sim_process_new(names[role]);
    sim_process_enter(program->process[role]);
    program->starting_edge = role != ROLE_CORE;
    switch (role) {
    case ROLE_EDGE_IN:
        start_edge_in(program);
        break;
    case ROLE_CORE:
        must_or_start_again(program, role, start_core(program));
        break;
    case ROLE_EDGE_OUT:
        start_edge_out(program);
        break;
    case ROLE_COUNT:
        break;
    }
    program->starting_edge = false;
    sim_process_enter(program->keeper);
}

static void restart(void *context)
{
    struct restart *restart = context;
    start(restart->program, restart->role);
    free(restart);
}

static void stop(struct program *program, enum role role)
{
    sim_process_kill(program->process[role]);
    program->process[role] = NULL;
    struct edge *edges = role == ROLE_EDGE_IN ? program->edges_in : program->edges_out;
    if (role == ROLE_CORE) {
        leave(program, program->core);
        leave(program, program->core_loop);
        program->core = NULL;
        for (uint32_t i = 0; i < LOOPS; i++) {
            if (program->edges_in[i].in != NULL) {
                smtp_in_set_ring(program->edges_in[i].in, NULL);
                ring_free(program->edges_in[i].ring);
                program->edges_in[i].ring = NULL;
            }
            if (program->edges_out[i].out != NULL) {
                smtp_out_set_ring(program->edges_out[i].out, NULL);
                ring_free(program->edges_out[i].ring);
                program->edges_out[i].ring = NULL;
            }
        }
        return;
    }
    for (uint32_t i = 0; i < LOOPS; i++) {
        leave(program, edges[i].in);
        leave(program, edges[i].out);
        leave(program, edges[i].ring);
        leave(program, edges[i].loop);
        edges[i] = (struct edge){0};
        if (program->core != NULL && role == ROLE_EDGE_IN) {
            core_set_edge_in(program->core, i, NULL);
        } else if (program->core != NULL) {
            core_set_edge_out(program->core, i, LOOPS, NULL);
        }
    }
}

static void restart_later(struct program *program, enum role role)
{
    struct restart *later = malloc(sizeof(*later));
    assert(later != NULL);
    *later = (struct restart){program, role};
    sim_after(program->keeper, (int64_t)(1000000 + sim_draw(300000000)), restart, later);
}

struct program *program_start(const struct service_config *config, struct disk_sim *spool_store,
                              struct disk_sim *events_store)
{
    struct program *program = calloc(1, sizeof(*program));
    assert(program != NULL);
    program->config = config;
    program->generation = 1;
    program->spool_store = spool_store;
    program->events_store = events_store;
    disk_sim_record(spool_store);
    disk_sim_record(events_store);
    program->page = calloc(1, sizeof(*program->page));
    program->keeper = sim_process_new("keeper");
    sim_process_enter(program->keeper);
    program->listeners = calloc(config->listener_count, sizeof(int));
    assert(program->page != NULL && program->listeners != NULL);
    for (uint32_t i = 0; i < config->listener_count; i++) {
        must(net_listen(&config->listeners[i].at, 128, &program->listeners[i]));
    }
    start_login(program);
    for (enum role role = 0; role < ROLE_COUNT; role++) {
        start(program, role);
    }
    return program;
}

static void take_config(void *context)
{
    struct reload *reload = context;
    struct program *program = reload->program;
    const struct service_config *config = program->config;
    enum error error = ERROR_NONE;
    switch (reload->role) {
    case ROLE_EDGE_IN:
        error = smtp_in_reconfigure(program->edges_in[reload->index].in, config,
                                    program->generation, program->listeners);
        break;
    case ROLE_CORE:
        error = core_reconfigure(program->core, config, program->generation);
        break;
    case ROLE_EDGE_OUT:
        error = smtp_out_reconfigure(program->edges_out[reload->index].out, config);
        break;
    case ROLE_COUNT:
        break;
    }
    must_or_start_again(program, reload->role, error);
}

void program_reload(struct program *program, const struct service_config *config)
{
    program->config = config;
    program->generation++;
    login_desk_reconfigure(program->desk, config);
    for (enum role role = 0; role < ROLE_COUNT; role++) {
        for (uint32_t i = 0; program->process[role] != NULL && i < LOOPS; i++) {
            if (role != ROLE_CORE || i == 0) {
                program->reloads[role][i] = (struct reload){program, role, i};
                sim_after(program->process[role], (int64_t)sim_draw(RELOAD_NS), take_config,
                          &program->reloads[role][i]);
            }
        }
    }
}

void program_kill(struct program *program, enum role role)
{
    if (program->process[role] != NULL) {
        sim_process_enter(program->keeper);
        stop(program, role);
        restart_later(program, role);
    }
}

/* What was not synced is there, gone or torn, as drawn. */
static struct disk_sim *disk_after_power_failure(struct program *program, struct disk_sim *before)
{
    struct disk_replay *replay = disk_replay_new(before, false);
    uint64_t mark;
    while (disk_replay_step(replay, &mark)) {
    }
    struct disk_sim *after = disk_replay_crash(replay, sim_draw(1 << 20));
    disk_replay_free(replay);
    leave(program, before);
    disk_sim_record(after);
    return after;
}

void program_power_failure(struct program *program)
{
    sim_process_enter(program->keeper);
    for (enum role role = 0; role < ROLE_COUNT; role++) {
        if (program->process[role] == NULL) {
            return; /* something is down already: not now */
        }
    }
    for (enum role role = 0; role < ROLE_COUNT; role++) {
        stop(program, role);
    }
    program->spool_store = disk_after_power_failure(program, program->spool_store);
    program->events_store = disk_after_power_failure(program, program->events_store);
    for (enum role role = 0; role < ROLE_COUNT; role++) {
        restart_later(program, role);
    }
}

void program_break_disk(struct program *program)
{
    static const enum disk_sim_fault faults[] = {DISK_SIM_ONCE, DISK_SIM_SHORT, DISK_SIM_STUCK};
    static const enum error errors[] = {ERROR_IO, ERROR_SPACE};
    /* One after another: the order of arguments is the compiler's. */
    enum error error = errors[sim_draw(2)];
    enum disk_sim_fault fault = faults[sim_draw(3)];
    disk_sim_fail(program->spool_store, 1 + sim_draw(40), fault, error);
}

void program_mend_disk(struct program *program)
{
    disk_sim_fail(program->spool_store, 0, DISK_SIM_ONCE, ERROR_NONE);
}

struct command {
    struct loop *loop;
    struct loop_watch *watch;
    int fd;
};

/* Reads the answer away until core has nothing more to say. */
static void command_ready(void *context, unsigned ready)
{
    (void)ready;
    struct command *command = context;
    uint8_t bytes[4096];
    size_t length;
    enum error error = net_receive(command->fd, bytes, sizeof(bytes), &length);
    if (error != ERROR_NONE && error != ERROR_AGAIN) {
        loop_watch_free(command->watch);
        net_close(command->fd);
        loop_free(command->loop);
        free(command);
    }
}

void program_command(struct program *program, const char *request)
{
    if (program->core == NULL) {
        return;
    }
    struct command *command = calloc(1, sizeof(*command));
    int theirs;
    assert(command != NULL);
    sim_process_enter(program->keeper);
    command->loop = loop_new();
    sim_net_pair(program->keeper, program->process[ROLE_CORE], &command->fd, &theirs);
    command->watch = loop_watch_new(command->loop, command->fd, command_ready, command);
    loop_watch_set(command->watch, LOOP_READ);
    uint32_t length = (uint32_t)strlen(request);
    uint8_t head[4] = {(uint8_t)(length >> 24), (uint8_t)(length >> 16), (uint8_t)(length >> 8),
                       (uint8_t)length};
    size_t sent;
    must(net_send(command->fd, slice_make(head, 4), &sent));
    assert(sent == 4);
    must(net_send(command->fd, slice_from_text(request), &sent));
    assert(sent == length);
    sim_process_enter(program->process[ROLE_CORE]);
    core_add_control(program->core, theirs, true);
    sim_process_enter(program->keeper);
}

uint64_t program_unfinished(const struct program *program)
{
    if (program->core == NULL || !program->core->loaded) {
        return UINT64_MAX;
    }
    struct relay_totals totals;
    relay_totals(program->core->relay, &totals);
    return totals.deliveries + totals.dead_letters;
}

enum role program_running(const struct program *program)
{
    enum role role = 0;
    while (role < ROLE_COUNT && program->process[role] != sim_current()) {
        role++;
    }
    return program->starting_edge ? ROLE_COUNT : role;
}

uint32_t program_connections(const struct program *program)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < program->config->relay.server_count; i++) {
        count += program->config->relay.servers[i].connections;
    }
    return count;
}
