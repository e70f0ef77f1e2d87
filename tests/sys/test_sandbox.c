/* SPDX-License-Identifier: Apache-2.0
 *
 * Each test confines a child and lets it try; its exit status tells what came of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sys/disk.h"
#include "sys/net.h"
#include "sys/ring.h"
#include "sys/sandbox.h"
#include "sys/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct sandbox_profile nothing = {"nothing", 0, 32, "holds nothing"};
static const struct sandbox_profile reading = {"reading", SANDBOX_READ_FILES, 0, "reads"};
static const struct sandbox_profile writing = {"writing", SANDBOX_READ_FILES | SANDBOX_WRITE_FILES,
                                               0, "writes"};
static const struct sandbox_profile connecting = {"connecting", SANDBOX_CONNECT, 0, "connects"};

/* A directory with a file in it, made before the walls go up. */
struct place {
    char path[64];
    int directory;
};

static void place_make(struct place *place)
{
    snprintf(place->path, sizeof(place->path), "/tmp/holdfast-sandbox-XXXXXX");
    assert_non_null(mkdtemp(place->path));
    place->directory = open(place->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = openat(place->directory, "a", O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, "a", 1), 1);
    close(fd);
}

static void place_remove(struct place *place)
{
    (void)unlinkat(place->directory, "a", 0);
    (void)unlinkat(place->directory, "b", 0);
    close(place->directory);
    rmdir(place->path);
}

typedef int try_fn(struct place *place);

enum { SKIPPED = 99 };

static int run_confined(const struct sandbox_profile *profile, try_fn *fn)
{
    struct place place;
    place_make(&place);
    pid_t child = fork();
    if (child == 0) {
        struct sandbox_result result;
        if (sandbox_confine(profile, &place.directory, 1, &result) != ERROR_NONE) {
            _exit(98);
        }
        _exit(result.seccomp ? fn(&place) : SKIPPED);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    place_remove(&place);
    return status;
}

static void expect_exit(const struct sandbox_profile *profile, try_fn *fn)
{
    int status = run_confined(profile, fn);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == SKIPPED) {
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

#define TRY(condition)                                                                             \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            return __LINE__ % 90 + 1;                                                              \
        }                                                                                          \
    } while (0)

static void do_nothing(void *context)
{
    (void)context;
}

static void stop(void *context)
{
    loop_stop(context);
}

/* What every process lives by still works. */
static int try_ordinary_life(struct place *place)
{
    (void)place;
    struct loop *loop = loop_new();
    TRY(loop != NULL);
    struct loop_timer *timer = loop_timer_new(loop, stop, loop);
    loop_timer_set(timer, 1);
    loop_run(loop);
    struct worker *worker = worker_new(loop, "thread");
    TRY(worker != NULL);
    TRY(worker_submit(worker, do_nothing, do_nothing, NULL) == ERROR_NONE);
    worker_free(worker);
    struct ring *a, *b;
    TRY(ring_pair_local(4096, 4096, loop, loop, &a, &b) == ERROR_NONE);
    TRY(prctl(PR_SET_NAME, "named") == 0);
    void *memory = malloc(10 << 20);
    memset(memory, 1, 10 << 20);
    free(memory);
    return 0;
}

static int try_forbidden_life(struct place *place)
{
    TRY(open("/etc/passwd", O_RDONLY) < 0);
    TRY(openat(place->directory, "a", O_RDONLY) < 0);
    TRY(socket(AF_INET, SOCK_STREAM, 0) < 0);
    TRY(socket(AF_UNIX, SOCK_STREAM, 0) < 0);
    TRY(fork() < 0);
    TRY(kill(getppid(), 0) < 0);
    TRY(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TRY(page != MAP_FAILED && mprotect(page, 4096, PROT_READ | PROT_EXEC) < 0);
    TRY(prctl(PR_SET_DUMPABLE, 1) < 0);
    int ends[2];
    TRY(pipe2(ends, O_NONBLOCK) == 0);
    TRY(fcntl(ends[0], F_SETFL, 0) < 0);
    TRY(fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
    TRY(mkdir("/tmp/x", 0700) < 0);
    return 0;
}

static int try_to_go_beyond_limits(struct place *place)
{
    struct rlimit limit;
    TRY(getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_max == 0);
    TRY(getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur == 32 && limit.rlim_max == 32);
    limit.rlim_cur = 16;
    TRY(setrlimit(RLIMIT_NOFILE, &limit) < 0);
    int last = 0;
    for (int i = 0; i < 32 && last >= 0; i++) {
        last = dup(place->directory);
    }
    TRY(last < 0 && errno == EMFILE);
    return 0;
}

static int try_to_run_a_program(struct place *place)
{
    (void)place;
    char name[] = "true";
    char *const arguments[] = {name, NULL};
    execv("/bin/true", arguments);
    return 1;
}

static int try_reading(struct place *place)
{
    int fd = openat(place->directory, "a", O_RDONLY);
    char byte;
    TRY(fd >= 0 && pread(fd, &byte, 1, 0) == 1 && byte == 'a');
    TRY(openat(place->directory, "a", O_RDWR) < 0);
    TRY(openat(place->directory, "b", O_WRONLY | O_CREAT, 0600) < 0);
    TRY(unlinkat(place->directory, "a", 0) < 0);
    TRY(pwrite(fd, "x", 1, 0) < 0);
    TRY(open("/etc/passwd", O_RDONLY) < 0);
    return 0;
}

static int try_writing(struct place *place)
{
    struct disk *disk;
    struct disk_file *file;
    TRY(disk_from_descriptor(dup(place->directory), &disk) == ERROR_NONE);
    TRY(disk->ops->open(disk, "b", DISK_WRITE | DISK_CREATE, &file) == ERROR_NONE);
    TRY(disk->ops->allocate(file, 8192) == ERROR_NONE);
    TRY(disk->ops->write(file, 0, SLICE_LITERAL("bytes")) == ERROR_NONE);
    TRY(disk->ops->sync(file) == ERROR_NONE);
    TRY(disk->ops->truncate(file, 3) == ERROR_NONE);
    disk->ops->close(file);
    TRY(disk->ops->rename(disk, "b", "a") == ERROR_NONE);
    TRY(disk->ops->unlink(disk, "a") == ERROR_NONE);
    TRY(disk->ops->sync_directory(disk) == ERROR_NONE);
    struct disk_space space;
    TRY(disk->ops->space(disk, &space) == ERROR_NONE);
    TRY(open("/etc/passwd", O_RDONLY) < 0);
    TRY(openat(AT_FDCWD, "/tmp/holdfast-outside", O_WRONLY | O_CREAT, 0600) < 0);
    TRY(socket(AF_INET, SOCK_STREAM, 0) < 0);
    return 0;
}

/* The files of others are read, none is written, and only sockets are made. */
static int try_database(struct place *place)
{
    int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    char byte;
    TRY(fd >= 0 && read(fd, &byte, 1) == 1);
    close(fd);
    TRY(access("/etc/passwd", R_OK) == 0);
    TRY(socket(AF_UNIX, SOCK_STREAM, 0) >= 0);
    TRY(socket(AF_INET, SOCK_STREAM, 0) >= 0);
    TRY(socket(AF_NETLINK, SOCK_RAW, 0) < 0);
    TRY(openat(place->directory, "a", O_RDWR) < 0);
    TRY(open("/tmp/holdfast-sandbox-none", O_WRONLY | O_CREAT, 0600) < 0);
    TRY(unlinkat(place->directory, "a", 0) != 0);
    TRY(fork() < 0);
    return 0;
}

/* With a directory of its own to write in. */
static int try_database_beside(struct place *place)
{
    int fd = openat(place->directory, "b", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    TRY(fd >= 0 && write(fd, "b", 1) == 1);
    TRY(open("/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0);
    TRY(open("/tmp/holdfast-sandbox-none", O_WRONLY | O_CREAT, 0600) < 0);
    return 0;
}

static int try_connecting(struct place *place)
{
    struct ip_endpoint to = {.port = 9};
    int fd = -1;
    TRY(ip_from_text(SLICE_LITERAL("127.0.0.1"), &to.address));
    enum error error = net_connect(&to, &to.address, &fd);
    TRY(error == ERROR_NONE || error == ERROR_CLOSED);
    TRY(openat(place->directory, "a", O_RDONLY) < 0);
    TRY(listen(fd, 1) < 0);
    return 0;
}

static void ordinary_life_goes_on(void **state)
{
    (void)state;
    expect_exit(&nothing, try_ordinary_life);
}

static void nothing_else_is_left(void **state)
{
    (void)state;
    expect_exit(&nothing, try_forbidden_life);
}

static void limits_hold(void **state)
{
    (void)state;
    expect_exit(&nothing, try_to_go_beyond_limits);
}

static void running_a_program_is_deadly(void **state)
{
    (void)state;
    int status = run_confined(&nothing, try_to_run_a_program);
    if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED) {
        skip();
    }
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSYS);
}

static void a_reader_reads_its_directory_only(void **state)
{
    (void)state;
    expect_exit(&reading, try_reading);
}

static void a_writer_writes_its_directory_only(void **state)
{
    (void)state;
    expect_exit(&writing, try_writing);
}

static void a_sender_connects(void **state)
{
    (void)state;
    expect_exit(&connecting, try_connecting);
}

static void who_has_a_database_reads_and_connects(void **state)
{
    (void)state;
    static const struct sandbox_profile member = {"member", SANDBOX_CONNECT | SANDBOX_DATABASE, 0,
                                                  "asks a database"};
    static const struct sandbox_profile writer = {
        "writer", SANDBOX_CONNECT | SANDBOX_DATABASE | SANDBOX_READ_FILES | SANDBOX_WRITE_FILES, 0,
        "and writes"};
    expect_exit(&member, try_database);
    expect_exit(&writer, try_database_beside);
}

static void another_user_in_an_empty_root(void **state)
{
    (void)state;
    if (geteuid() != 0 || sandbox_is_left_out()) {
        skip();
    }
    struct place place;
    place_make(&place);
    chmod(place.path, 0755);
    pid_t child = fork();
    if (child == 0) {
        struct sandbox_identity identity = {.user = 65534, .group = 65534, .root = place.path};
        enum error error = sandbox_become(&identity);
        _exit(error == ERROR_NONE && getuid() == 65534 && getegid() == 65534 &&
                      access("/etc", F_OK) < 0 && setuid(0) < 0
                  ? 0
                  : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    place_remove(&place);
    assert_int_equal(status, 0);
}

static void a_profile_can_be_printed(void **state)
{
    (void)state;
    struct buffer text;
    buffer_init(&text, 0);
    sandbox_describe(&writing, &text);
    buffer_put_u8(&text, 0);
    assert_false(text.failed);
    assert_non_null(strstr((const char *)text.data, "writing: writes\n"));
    assert_non_null(strstr((const char *)text.data, "fdatasync"));
    assert_non_null(strstr((const char *)text.data, "read and written"));
    assert_non_null(strstr((const char *)text.data, "sockets of its own: none"));
    assert_null(strstr((const char *)text.data, "accept4"));
    assert_null(strstr((const char *)text.data, "ptrace"));
    buffer_done(&text);
    buffer_init(&text, 0);
    sandbox_describe_all(&text);
    buffer_put_u8(&text, 0);
    assert_non_null(strstr((const char *)text.data, "  always: read, "));
    assert_non_null(strstr((const char *)text.data, "clone: threads only"));
    assert_non_null(strstr((const char *)text.data, "  deadly: execve, "));
    assert_null(strstr((const char *)text.data, "fdatasync"));
    buffer_done(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ordinary_life_goes_on),
        cmocka_unit_test(nothing_else_is_left),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(running_a_program_is_deadly),
        cmocka_unit_test(a_reader_reads_its_directory_only),
        cmocka_unit_test(a_writer_writes_its_directory_only),
        cmocka_unit_test(a_sender_connects),
        cmocka_unit_test(who_has_a_database_reads_and_connects),
        cmocka_unit_test(another_user_in_an_empty_root),
        cmocka_unit_test(a_profile_can_be_printed),
    };
    return cmocka_run_group_tests_name("sandbox", tests, NULL, NULL);
}
