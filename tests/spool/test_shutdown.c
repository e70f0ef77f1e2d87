/* SPDX-License-Identifier: Apache-2.0
 *
 * A real file system that stops at once, as when power fails: an ext4 image on a loop device, the
 * SHUTDOWN ioctl without a flush of its log in the middle of the work, and what is there after
 * mounting it again. Needs root, a loop device and mkfs.ext4; skipped where one is missing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "spool/spool.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 6, PER_ROUND = 4000, SUBMITTERS = 16, SKIPPED = 77 };

static char base[] = "/tmp/holdfast-shutdown-XXXXXX";

struct round {
    struct loop *loop;
    struct spool *spool;
    int mount_fd;
    uint64_t next, until, stored, stop_at;
    unsigned outstanding;
    uint8_t *told; /* by id: 1 stored, 2 fate asked, 3 fate stored */
};

struct asked {
    struct round *round;
    uint64_t id;
    bool fate;
};

static int run(const char *command)
{
    char text[256];
    snprintf(text, sizeof(text), command, base, base);
    int status = system(text);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void accept_next(struct round *round);

static void stop_the_world(struct round *round)
{
    uint32_t no_log_flush = 2;
    assert_int_equal(ioctl(round->mount_fd, _IOR('X', 125, uint32_t), &no_log_flush), 0);
    round->until = 0;
    loop_stop(round->loop);
}

static void told(void *context, enum error error, const struct spool_handle *handles, size_t count)
{
    struct asked *asked = context;
    struct round *round = asked->round;
    round->outstanding--;
    if (error == ERROR_NONE) {
        round->told[asked->id] = asked->fate ? 3 : 1;
        if (++round->stored == round->stop_at) {
            stop_the_world(round);
        }
    }
    if (error == ERROR_NONE && count == 1 && asked->id % 2 == 0) {
        round->told[asked->id] = 2;
        asked->fate = true;
        round->outstanding++;
        spool_batch_begin(round->spool);
        spool_batch_fate(round->spool, handles[0], 0, SPOOL_DELIVERED);
        spool_batch_submit(round->spool, SPOOL_SYNCED, told, asked);
        return;
    }
    free(asked);
    accept_next(round);
    if (round->outstanding == 0) {
        loop_stop(round->loop);
    }
}

static void accept_next(struct round *round)
{
    if (round->next >= round->until) {
        return;
    }
    static uint8_t content[5000];
    struct spool_recipient recipient = {.address = SLICE_LITERAL("someone@example.com")};
    struct asked *asked = malloc(sizeof(*asked));
    *asked = (struct asked){round, ++round->next, false};
    struct spool_message message = {.id = {9, asked->id},
                                    .body_length = 100 + asked->id % 4900,
                                    .recipients = &recipient,
                                    .recipient_count = 1};
    spool_batch_begin(round->spool);
    if (spool_batch_message(round->spool, &message, NULL,
                            slice_make(content, message.body_length)) != ERROR_NONE) {
        spool_batch_cancel(round->spool);
        free(asked);
        return;
    }
    round->outstanding++;
    spool_batch_submit(round->spool, SPOOL_SYNCED, told, asked);
}

static void found(void *context, struct spool_handle handle, const struct spool_message *message)
{
    uint8_t *there = context;
    (void)handle;
    there[message->id.low] = 1;
}

static void open_journal(struct round *round)
{
    char path[80];
    struct disk *disk;
    struct spool_settings settings;
    struct spool_owner owner = {0};
    snprintf(path, sizeof(path), "%s/mount/journal", base);
    spool_settings_default(&settings);
    settings.segment_bytes = 2 << 20;
    settings.reserve_bytes = 1;
    settings.ready_segments = 1;
    assert_int_equal(disk_open_directory(path, &disk), ERROR_NONE);
    assert_int_equal(spool_open_log(round->loop, disk, &settings, &owner, &round->spool),
                     ERROR_NONE);
}

static void load_and_check(struct round *round)
{
    uint8_t *there = calloc(ROUNDS * PER_ROUND + SUBMITTERS + 1, 1);
    struct spool_loader loader = {.context = there, .message = found};
    bool complete = false;
    while (!complete) {
        assert_int_equal(spool_load(round->spool, &loader, &complete), ERROR_NONE);
    }
    for (uint64_t id = 1; id <= round->next; id++) {
        if ((round->told[id] == 1 && !there[id]) || (round->told[id] == 3 && there[id])) {
            fail_msg("message %llu: told %u, there %u", (unsigned long long)id, round->told[id],
                     there[id]);
        }
        if (round->told[id] == 2) {
            round->told[id] = there[id] ? 1 : 3; /* decided now */
        }
    }
    free(there);
}

static bool mount_image(void)
{
    return run("mount -o loop %s/image %s/mount") == 0;
}

static void nothing_is_lost_when_the_file_system_stops(void **state)
{
    (void)state;
    struct round round = {.told = calloc(ROUNDS * PER_ROUND + SUBMITTERS + 1, 1)};
    round.loop = loop_new();
    for (unsigned i = 0; i < ROUNDS; i++) {
        char path[80];
        snprintf(path, sizeof(path), "%s/mount", base);
        assert_true(mount_image());
        open_journal(&round);
        load_and_check(&round);
        round.mount_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        round.until = round.next + PER_ROUND;
        round.stop_at = round.stored + 50 + i * 677;
        for (int k = 0; k < SUBMITTERS; k++) {
            accept_next(&round);
        }
        /* Fates wait for a storage that never returns: the close lets go of them. */
        while (round.until != 0) {
            loop_run(round.loop);
        }
        spool_close(round.spool);
        close(round.mount_fd);
        assert_int_equal(run("umount %s/mount"), 0);
    }
    assert_true(mount_image());
    open_journal(&round);
    load_and_check(&round);
    spool_close(round.spool);
    assert_int_equal(run("umount %s/mount"), 0);
    loop_free(round.loop);
    free(round.told);
}

static const char *prepare(void)
{
    if (geteuid() != 0) {
        return "not root";
    }
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        return "no mount namespace";
    }
    if (run("truncate -s 160M %s/image && mkdir %s/mount") != 0) {
        return "no image";
    }
    if (run("mkfs.ext4 -q %s/image") != 0) {
        return "no mkfs.ext4";
    }
    if (!mount_image()) {
        return "no loop device";
    }
    return run("umount %s/mount") == 0 ? NULL : "no umount";
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_when_the_file_system_stops),
    };
    if (mkdtemp(base) == NULL) {
        return 1;
    }
    const char *missing = prepare();
    int result = SKIPPED;
    if (missing != NULL) {
        printf("skipped: %s\n", missing);
    } else {
        result = cmocka_run_group_tests_name("spool on a stopping disk", tests, NULL, NULL);
    }
    (void)!run("umount -q %s/mount");
    (void)!run("rm -rf %s");
    return result;
}
