/* SPDX-License-Identifier: Apache-2.0
 *
 * The queue of events, the clocks and the randomness of the simulated world.
 */
#include "sim/sim.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "sys/clock.h"
#include "sys/random.h"

struct event {
    int64_t at_ns;
    uint64_t order;
    struct sim_process *process;
    sim_fn *fn;
    void *context;
};

struct sim_process {
    struct sim_process *next;
    const char *name;
    bool dead;
};

static struct {
    int64_t now_ns;
    int64_t wall_offset_ms;
    uint64_t random;
    uint64_t order;
    struct event *heap;
    size_t count, capacity;
    struct sim_process *processes;
    struct sim_process *current;
} world;

enum { START_WALL_S = 1767225600 };

void sim_begin(uint64_t seed)
{
    sim_end();
    world.now_ns = 1000000000;
    world.wall_offset_ms = (int64_t)START_WALL_S * 1000 - world.now_ns / 1000000;
    world.random = seed * 0x9e3779b97f4a7c15ULL + 0x2545f4914f6cdd1dULL;
    world.current = sim_process_new("world");
    sim_loop_begin();
    sim_net_begin();
    sim_net_in_process(world.current);
}

void sim_end(void)
{
    sim_net_end();
    while (world.processes != NULL) {
        struct sim_process *next = world.processes->next;
        free(world.processes);
        world.processes = next;
    }
    free(world.heap);
    memset(&world, 0, sizeof(world));
}

static bool before(const struct event *a, const struct event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void heap_push(struct event event)
{
    if (world.count == world.capacity) {
        world.capacity = world.capacity == 0 ? 256 : world.capacity * 2;
        world.heap = realloc(world.heap, world.capacity * sizeof(event));
        assert(world.heap != NULL);
    }
    size_t at = world.count++;
    while (at > 0 && before(&event, &world.heap[(at - 1) / 2])) {
        world.heap[at] = world.heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    world.heap[at] = event;
}

static struct event heap_pop(void)
{
    struct event top = world.heap[0];
    struct event last = world.heap[--world.count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= world.count) {
            break;
        }
        if (child + 1 < world.count && before(&world.heap[child + 1], &world.heap[child])) {
            child++;
        }
        if (!before(&world.heap[child], &last)) {
            break;
        }
        world.heap[at] = world.heap[child];
        at = child;
    }
    if (world.count > 0) {
        world.heap[at] = last;
    }
    return top;
}

void sim_after(struct sim_process *process, int64_t delay_ns, sim_fn *fn, void *context)
{
    heap_push((struct event){world.now_ns + (delay_ns < 0 ? 0 : delay_ns), world.order++, process,
                             fn, context});
}

bool sim_step(void)
{
    if (world.count == 0) {
        return false;
    }
    struct event event = heap_pop();
    assert(event.at_ns >= world.now_ns);
    world.now_ns = event.at_ns;
    if (!event.process->dead) {
        world.current = event.process;
        event.fn(event.context);
    }
    return true;
}

void sim_run_until(int64_t until_ns)
{
    while (world.count > 0 && world.heap[0].at_ns <= until_ns) {
        sim_step();
    }
    if (world.now_ns < until_ns) {
        world.now_ns = until_ns;
    }
}

int64_t sim_now_ns(void)
{
    return world.now_ns;
}

void sim_wall_jump(int64_t delta_ms)
{
    world.wall_offset_ms += delta_ms;
}

struct sim_process *sim_process_new(const char *name)
{
    struct sim_process *process = calloc(1, sizeof(*process));
    assert(process != NULL);
    process->name = name;
    process->next = world.processes;
    world.processes = process;
    return process;
}

void sim_process_enter(struct sim_process *process)
{
    assert(!process->dead);
    world.current = process;
}

void sim_process_kill(struct sim_process *process)
{
    process->dead = true;
    sim_net_kill(process);
}

bool sim_process_alive(const struct sim_process *process)
{
    return !process->dead;
}

struct sim_process *sim_current(void)
{
    return world.current;
}

/* ---- clocks (sys/clock.h) ---- */

int64_t clock_wall_ms(void)
{
    return world.now_ns / 1000000 + world.wall_offset_ms;
}

int64_t clock_steady_ms(void)
{
    return world.now_ns / 1000000;
}

int64_t clock_steady_ns(void)
{
    return world.now_ns;
}

/* ---- randomness (sys/random.h); splitmix64 ---- */

uint64_t random_u64(void)
{
    uint64_t z = world.random += 0x9e3779b97f4a7c15ULL;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
}

uint64_t random_below(uint64_t bound)
{
    assert(bound > 0);
    return random_u64() % bound;
}

void random_bytes(void *ret_bytes, size_t length)
{
    uint8_t *bytes = ret_bytes;
    for (size_t i = 0; i < length; i++) {
        bytes[i] = (uint8_t)random_u64();
    }
}

uint64_t sim_draw(uint64_t bound)
{
    return random_below(bound);
}

bool sim_chance(unsigned per_mille)
{
    return random_below(1000) < per_mille;
}
