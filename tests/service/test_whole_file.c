/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "service/whole_file.h"
#include "sim/disk_sim.h"

static bool is_there(struct disk *disk, const char *name)
{
    struct disk_file *file;
    if (disk->ops->open(disk, name, DISK_READ, &file) != ERROR_NONE) {
        return false;
    }
    disk->ops->close(file);
    return true;
}

static void what_cannot_be_written_takes_no_room(void **state)
{
    (void)state;
    struct disk_sim *sim = disk_sim_new();
    struct disk *disk = disk_sim_open(sim);
    assert_int_equal(whole_file_put(disk, "table", SLICE_LITERAL("the old one")), ERROR_NONE);
    enum error error = ERROR_SPACE;
    uint64_t faults = 0;
    for (uint64_t nth = 1; error != ERROR_NONE || faults == 0; nth++) {
        assert_true(nth < 16);
        uint64_t used = disk_sim_used(sim);
        disk_sim_fail(sim, nth, DISK_SIM_SHORT, ERROR_SPACE);
        error = whole_file_put(disk, "table", SLICE_LITERAL("a new one, and longer"));
        disk_sim_fail(sim, 0, DISK_SIM_ONCE, ERROR_NONE);
        assert_false(is_there(disk, "~table"));
        if (error != ERROR_NONE) {
            assert_int_equal(error, ERROR_SPACE);
            assert_int_equal(disk_sim_used(sim), used);
            assert_true(is_there(disk, "table"));
            faults++;
        }
    }
    assert_int_equal(faults, 3); /* it is made, written, renamed */
    disk_free(disk);
    disk_sim_free(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_written_takes_no_room),
    };
    return cmocka_run_group_tests_name("whole_file", tests, NULL, NULL);
}
