/* SPDX-License-Identifier: Apache-2.0
 *
 * How fast the spool accepts on a real disk: so many submitters, each with one message under way.
 * bench_spool DIRECTORY [SUBMITTERS] [BYTES] [MESSAGES] [fates]; not a test.
 */
#include "base/buffer.h"
#include "spool/spool.h"
#include "sys/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

struct bench {
    struct loop *loop;
    struct spool *spool;
    struct loop_timer *timer;
    struct slice content;
    uint64_t started, done, all;
    bool fates;
    uint64_t worst_ns;
};

struct submitter {
    struct bench *bench;
    int64_t since_ns;
    struct spool_handle handle;
    bool ending;
};

static void accept_next(struct submitter *submitter);

static void told(void *context, enum error error, const struct spool_handle *handles, size_t count)
{
    struct submitter *submitter = context;
    struct bench *bench = submitter->bench;
    if (error != ERROR_NONE) {
        fprintf(stderr, "%s\n", error_text(error));
        exit(1);
    }
    uint64_t took = (uint64_t)(clock_steady_ns() - submitter->since_ns);
    bench->worst_ns = took > bench->worst_ns ? took : bench->worst_ns;
    if (bench->fates && count > 0) {
        submitter->handle = handles[0];
        spool_batch_begin(bench->spool);
        spool_batch_fate(bench->spool, handles[0], 0, SPOOL_DELIVERED);
        spool_batch_submit(bench->spool, SPOOL_SYNCED, told, submitter);
        return;
    }
    bench->done++;
    if (bench->done == bench->all) {
        loop_stop(bench->loop);
    } else if (bench->started < bench->all) {
        accept_next(submitter);
    }
}

static void accept_next(struct submitter *submitter)
{
    struct bench *bench = submitter->bench;
    struct spool_recipient recipient = {.address = SLICE_LITERAL("recipient@example.com")};
    struct spool_message message = {.id = {1, ++bench->started},
                                    .body_length = bench->content.length,
                                    .sender = SLICE_LITERAL("sender@example.org"),
                                    .origin = {.helo = SLICE_LITERAL("client.example.org"),
                                               .listener = SLICE_LITERAL("mx"),
                                               .protocol = SLICE_LITERAL("ESMTP")},
                                    .recipients = &recipient,
                                    .recipient_count = 1};
    submitter->since_ns = clock_steady_ns();
    spool_batch_begin(bench->spool);
    if (spool_batch_message(bench->spool, &message, NULL, bench->content) != ERROR_NONE) {
        fprintf(stderr, "refused\n");
        exit(1);
    }
    spool_batch_submit(bench->spool, SPOOL_SYNCED, told, submitter);
}

static void tick(void *context)
{
    struct bench *bench = context;
    spool_tick(bench->spool);
    loop_timer_set(bench->timer, 1000);
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static uint64_t number(int argc, char **argv, int i, uint64_t otherwise)
{
    return argc > i ? strtoull(argv[i], NULL, 10) : otherwise;
}

static void load_all(struct bench *bench)
{
    struct spool_loader loader = {0};
    bool complete = false;
    while (!complete && spool_load(bench->spool, &loader, &complete) == ERROR_NONE) {
    }
}

int main(int argc, char **argv)
{
    struct bench bench = {.all = number(argc, argv, 4, 100000), .fates = argc > 5};
    size_t submitters = number(argc, argv, 2, 20), bytes = number(argc, argv, 3, 4096);
    struct spool_settings settings;
    struct spool_owner owner = {0};
    struct disk *disk;
    if (argc < 2 || disk_open_directory(argv[1], &disk) != ERROR_NONE) {
        fprintf(stderr, "bench_spool DIRECTORY [SUBMITTERS] [BYTES] [MESSAGES] [fates]\n");
        return 2;
    }
    spool_settings_default(&settings);
    bench.loop = loop_new();
    int64_t opening = clock_steady_ns();
    if (spool_open_log(bench.loop, disk, &settings, &owner, &bench.spool) != ERROR_NONE) {
        return 1;
    }
    int64_t opened = clock_steady_ns();
    load_all(&bench);
    int64_t loaded = clock_steady_ns();
    struct spool_state state;
    spool_status(bench.spool, &state);
    printf("open %.3f s, load of %llu messages %.3f s\n", (double)(opened - opening) / 1e9,
           (unsigned long long)state.messages, (double)(loaded - opened) / 1e9);
    bench.started = state.messages;
    bench.all += state.messages;
    bench.done = state.messages;
    uint8_t *content = malloc(bytes);
    memset(content, 'x', bytes);
    bench.content = slice_make(content, bytes);
    bench.timer = loop_timer_new(bench.loop, tick, &bench);
    loop_timer_set(bench.timer, 1000);
    struct submitter *all = calloc(submitters, sizeof(*all));
    uint64_t groups = state.groups, before = state.messages;
    double cpu = cpu_seconds();
    int64_t begin = clock_steady_ns();
    for (size_t i = 0; i < submitters && bench.started < bench.all; i++) {
        all[i].bench = &bench;
        accept_next(&all[i]);
    }
    if (bench.done < bench.all) {
        loop_run(bench.loop);
    }
    double took = (double)(clock_steady_ns() - begin) / 1e9;
    cpu = cpu_seconds() - cpu;
    spool_status(bench.spool, &state);
    double count = (double)(bench.all - before);
    printf("%.0f messages/s, %.1f MB/s, %.1f us of CPU each, %.1f in a group, worst %.1f ms, "
           "%u segments\n",
           count / took, count * (double)bytes / took / 1e6, cpu / count * 1e6,
           count / (double)(state.groups - groups), (double)bench.worst_ns / 1e6, state.segments);
    spool_close(bench.spool);
    return 0;
}
