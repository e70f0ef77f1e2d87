/* SPDX-License-Identifier: Apache-2.0
 *
 * The real disk, with the faults that an ordinary user can bring about: a file size limit for short
 * and failing writes, descriptors of the wrong kind, files that are shorter than expected.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sys/disk.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

struct place {
    char parent[64];
    char path[80];
    struct disk *disk;
};

static int setup(void **state)
{
    struct place *place = calloc(1, sizeof(*place));
    snprintf(place->parent, sizeof(place->parent), "/tmp/holdfast-disk-XXXXXX");
    if (mkdtemp(place->parent) == NULL) {
        return -1;
    }
    snprintf(place->path, sizeof(place->path), "%s/spool", place->parent);
    *state = place;
    return disk_open_directory(place->path, &place->disk) == ERROR_NONE ? 0 : -1;
}

static void remove_file(void *context, const char *name, uint64_t size)
{
    (void)size;
    struct disk *disk = context;
    assert_int_equal(disk->ops->unlink(disk, name), ERROR_NONE);
}

static int teardown(void **state)
{
    struct place *place = *state;
    struct disk *disk = place->disk;
    assert_int_equal(disk->ops->list(disk, remove_file, disk), ERROR_NONE);
    disk_free(disk);
    rmdir(place->path);
    rmdir(place->parent);
    free(place);
    return 0;
}

static struct disk_file *create(struct disk *disk, const char *name)
{
    struct disk_file *file;
    assert_int_equal(disk->ops->open(disk, name, DISK_READ | DISK_WRITE | DISK_CREATE, &file),
                     ERROR_NONE);
    return file;
}

static void what_is_written_is_read(void **state)
{
    struct disk *disk = ((struct place *)*state)->disk;
    struct disk_file *file = create(disk, "a");
    char bytes[8];
    uint64_t size;
    assert_int_equal(disk->ops->write(file, 100, SLICE_LITERAL("content")), ERROR_NONE);
    assert_int_equal(disk->ops->sync(file), ERROR_NONE);
    assert_int_equal(disk->ops->read(file, 100, bytes, 7), ERROR_NONE);
    assert_memory_equal(bytes, "content", 7);
    assert_int_equal(disk->ops->read(file, 101, bytes, 7), ERROR_CORRUPT);
    assert_int_equal(disk->ops->allocate(file, 1 << 20), ERROR_NONE);
    assert_int_equal(disk->ops->size(file, &size), ERROR_NONE);
    assert_int_equal(size, 1 << 20);
    assert_int_equal(disk->ops->truncate(file, 104), ERROR_NONE);
    assert_int_equal(disk->ops->read(file, 100, bytes, 5), ERROR_CORRUPT);
    assert_true(disk_file_descriptor(file) >= 0);
    disk->ops->close(file);
}

static void names_are_single_components(void **state)
{
    struct disk *disk = ((struct place *)*state)->disk;
    struct disk_file *file;
    const char *bad[] = {"", ".", "..", "../a", "/tmp/a", "a/b"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(disk->ops->open(disk, bad[i], DISK_READ, &file), ERROR_INVALID);
        assert_int_equal(disk->ops->unlink(disk, bad[i]), ERROR_INVALID);
        assert_int_equal(disk->ops->rename(disk, "a", bad[i]), ERROR_INVALID);
    }
}

static void opening_says_what_is_wrong(void **state)
{
    struct place *place = *state;
    struct disk *disk = place->disk;
    struct disk_file *file;
    assert_int_equal(disk->ops->open(disk, "a", DISK_READ, &file), ERROR_MISSING);
    disk->ops->close(create(disk, "a"));
    assert_int_equal(disk->ops->open(disk, "a", DISK_WRITE | DISK_CREATE, &file), ERROR_EXISTS);
    /* A link planted in the directory is not followed. */
    char link[128];
    snprintf(link, sizeof(link), "%s/link", place->path);
    assert_int_equal(symlink("/etc/passwd", link), 0);
    assert_int_not_equal(disk->ops->open(disk, "link", DISK_READ, &file), ERROR_NONE);
    assert_int_equal(disk->ops->unlink(disk, "link"), ERROR_NONE);
}

static void count_entry(void *context, const char *name, uint64_t size)
{
    int *sum = context;
    *sum += (int)size + (name[0] == 'f' ? 1000 : 0);
}

static void listing_and_renaming(void **state)
{
    struct disk *disk = ((struct place *)*state)->disk;
    for (int i = 0; i < 3; i++) {
        char name[8];
        snprintf(name, sizeof(name), "f%d", i);
        struct disk_file *file = create(disk, name);
        assert_int_equal(disk->ops->write(file, 0, SLICE_LITERAL("xy")), ERROR_NONE);
        disk->ops->close(file);
    }
    assert_int_equal(disk->ops->rename(disk, "f0", "f1"), ERROR_NONE);
    assert_int_equal(disk->ops->sync_directory(disk), ERROR_NONE);
    for (int i = 0; i < 2; i++) { /* again, from the start */
        int sum = 0;
        assert_int_equal(disk->ops->list(disk, count_entry, &sum), ERROR_NONE);
        assert_int_equal(sum, 2004);
    }
    struct disk_space space;
    assert_int_equal(disk->ops->space(disk, &space), ERROR_NONE);
    assert_true(space.total_bytes >= space.available_bytes);
}

static void a_short_write_is_continued_and_its_failure_told(void **state)
{
    struct disk *disk = ((struct place *)*state)->disk;
    struct disk_file *file = create(disk, "a");
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 1000;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    char bytes[1500] = {0};
    /* The kernel takes 1000 bytes, then refuses: the whole is an error, never a short success. */
    enum error error = disk->ops->write(file, 0, slice_make(bytes, sizeof(bytes)));
    enum error grown = disk->ops->allocate(file, 4000);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    uint64_t size;
    assert_int_equal(disk->ops->size(file, &size), ERROR_NONE);
    assert_int_equal(size, 1000);
    assert_int_equal(error, ERROR_SPACE);
    assert_int_equal(grown, ERROR_SPACE);
    disk->ops->close(file);
}

static void a_failing_sync_is_told(void **state)
{
    struct disk *disk = ((struct place *)*state)->disk;
    struct disk_file *file = create(disk, "a");
    /* A pipe cannot be synced. */
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_true(dup2(ends[1], disk_file_descriptor(file)) >= 0);
    assert_int_equal(disk->ops->sync(file), ERROR_IO);
    assert_int_not_equal(disk->ops->write(file, 0, SLICE_LITERAL("x")), ERROR_NONE);
    disk->ops->close(file);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_written_is_read, setup, teardown),
        cmocka_unit_test_setup_teardown(names_are_single_components, setup, teardown),
        cmocka_unit_test_setup_teardown(opening_says_what_is_wrong, setup, teardown),
        cmocka_unit_test_setup_teardown(listing_and_renaming, setup, teardown),
        cmocka_unit_test_setup_teardown(a_short_write_is_continued_and_its_failure_told, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_failing_sync_is_told, setup, teardown),
    };
    return cmocka_run_group_tests_name("disk", tests, NULL, NULL);
}
