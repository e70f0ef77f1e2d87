/* SPDX-License-Identifier: Apache-2.0
 *
 * What a message costs to cross from one process to another over a ring, answer included.
 *
 *   crossing [MESSAGES [BYTES [OUTSTANDING]]]
 *
 * Two processes, each with a loop. One sends records of BYTES and keeps OUTSTANDING under way; the
 * other copies each one out, as core must, and answers with nine bytes. The same copies are then
 * made within one process. Printed: microseconds of wall time and of processor time a message,
 * for both, and the difference, which is the price of the split.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "service/channel.h"
#include "sys/clock.h"
#include "sys/loop.h"
#include "sys/ring.h"

struct side {
    struct loop *loop;
    struct ring *ring;
    uint64_t to_send, under_way, outstanding, answered;
    size_t bytes;
    uint8_t *copy;
};

static void must(enum error error)
{
    if (error != ERROR_NONE) {
        fprintf(stderr, "crossing: %s\n", error_text(error));
        exit(1);
    }
}

static void fill(struct side *side)
{
    while (side->to_send > 0 && side->under_way < side->outstanding) {
        uint8_t *place = ring_reserve(side->ring, side->bytes);
        if (place == NULL) {
            return;
        }
        memcpy(place, side->copy, side->bytes);
        ring_publish(side->ring, side->bytes);
        side->to_send--;
        side->under_way++;
    }
}

static void sender_ready(void *context)
{
    struct side *side = context;
    struct slice record;
    while (ring_receive(side->ring, &record) == ERROR_NONE) {
        ring_release(side->ring);
        side->under_way--;
        side->answered++;
    }
    fill(side);
    if (side->to_send == 0 && side->under_way == 0) {
        loop_stop(side->loop);
    }
}

static void receiver_ready(void *context)
{
    struct side *side = context;
    struct slice record;
    while (ring_receive(side->ring, &record) == ERROR_NONE) {
        memcpy(side->copy, record.data, record.length);
        ring_release(side->ring);
        must(ring_send(side->ring, slice_make(side->copy, 9)));
        if (--side->to_send == 0) {
            loop_stop(side->loop);
        }
    }
}

static double cpu_seconds(int who)
{
    struct rusage usage;
    getrusage(who, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void run_side(struct side *side, struct ring_descriptors descriptors, enum ring_side which)
{
    side->loop = loop_new();
    if (side->loop == NULL) {
        exit(1);
    }
    must(ring_attach(descriptors, which, side->loop,
                     which == RING_SIDE_A ? sender_ready : receiver_ready, side, &side->ring));
    if (which == RING_SIDE_A) {
        fill(side);
    }
    loop_run(side->loop);
}

static uint64_t argument(int count, char **arguments, int at, uint64_t otherwise)
{
    uint64_t value;
    return count > at && slice_to_u64(slice_from_text(arguments[at]), &value) ? value : otherwise;
}

int main(int count, char **arguments)
{
    uint64_t messages = argument(count, arguments, 1, 500000);
    struct side side = {.to_send = messages,
                        .bytes = argument(count, arguments, 2, 4096 + 300),
                        .outstanding = argument(count, arguments, 3, 20)};
    side.copy = calloc(2, side.bytes);
    struct ring_descriptors ours;
    if (side.copy == NULL || messages == 0) {
        return 2;
    }
    must(ring_create(CHANNEL_RING_IN, CHANNEL_RING_IN_BACK, &ours));
    struct ring_descriptors theirs = {dup(ours.memory), dup(ours.wake_a), dup(ours.wake_b)};
    int64_t start_ns = clock_steady_ns();
    pid_t child = fork();
    if (child == 0) {
        run_side(&side, theirs, RING_SIDE_B);
        _exit(0);
    }
    run_side(&side, ours, RING_SIDE_A);
    waitpid(child, NULL, 0);
    double wall = (double)(clock_steady_ns() - start_ns) / 1e3 / (double)messages;
    double split = (cpu_seconds(RUSAGE_SELF) + cpu_seconds(RUSAGE_CHILDREN)) * 1e6;

    double before = cpu_seconds(RUSAGE_SELF);
    for (uint64_t i = 0; i < messages; i++) {
        memcpy(side.copy + side.bytes, side.copy, side.bytes);
        __asm__ volatile("" : : "r"(side.copy) : "memory");
        memcpy(side.copy, side.copy + side.bytes, side.bytes);
        __asm__ volatile("" : : "r"(side.copy) : "memory");
    }
    double one = (cpu_seconds(RUSAGE_SELF) - before) * 1e6;
    printf("crossing: %llu messages of %zu bytes, %llu under way: %.2f us wall, %.2f us cpu a "
           "message; in one process %.2f us cpu; the split costs %.2f us cpu a message\n",
           (unsigned long long)messages, side.bytes, (unsigned long long)side.outstanding, wall,
           split / (double)messages, one / (double)messages, (split - one) / (double)messages);
    return 0;
}
