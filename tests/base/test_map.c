/* SPDX-License-Identifier: Apache-2.0 */
#include "base/map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>

#include <cmocka.h>

static int things[4096];

static void finds_what_was_put(void **state)
{
    (void)state;
    struct map map;
    map_init(&map);
    assert_null(map_get(&map, 1));
    assert_null(map_remove(&map, 1));
    size_t cursor = 0;
    assert_null(map_next(&map, &cursor));
    assert_int_equal(map_put(&map, 0, &things[0]), ERROR_NONE);
    assert_int_equal(map_put(&map, UINT64_MAX, &things[1]), ERROR_NONE);
    assert_ptr_equal(map_get(&map, 0), &things[0]);
    assert_ptr_equal(map_get(&map, UINT64_MAX), &things[1]);
    assert_ptr_equal(map_remove(&map, 0), &things[0]);
    assert_null(map_get(&map, 0));
    cursor = 0;
    assert_ptr_equal(map_next(&map, &cursor), &things[1]);
    assert_null(map_next(&map, &cursor));
    map_done(&map);
}

/* Against a plain array, with keys that collide and a table that breathes. */
static void agrees_with_an_array(void **state)
{
    (void)state;
    struct map map;
    map_init(&map);
    bool present[4096] = {false};
    size_t count = 0;
    uint64_t random = 12345;
    for (int i = 0; i < 200000; i++) {
        random = random * 6364136223846793005ULL + 1442695040888963407ULL;
        size_t key = (size_t)(random >> 40) % 4096;
        uint64_t far = (uint64_t)key << 32;
        if (present[key]) {
            assert_ptr_equal(map_get(&map, far), &things[key]);
            assert_ptr_equal(map_remove(&map, far), &things[key]);
            count--;
        } else {
            assert_null(map_get(&map, far));
            assert_int_equal(map_put(&map, far, &things[key]), ERROR_NONE);
            count++;
        }
        present[key] = !present[key];
        assert_int_equal(map.count, count);
    }
    for (size_t key = 0; key < 4096; key++) {
        assert_ptr_equal(map_get(&map, (uint64_t)key << 32), present[key] ? &things[key] : NULL);
    }
    map_done(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_was_put),
        cmocka_unit_test(agrees_with_an_array),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
