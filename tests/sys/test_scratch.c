/* SPDX-License-Identifier: Apache-2.0
 *
 * Strings in one file: what is written is read, blocks are used again, and the file is empty in the
 * end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sys/scratch.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STRINGS = 12 };

static int watched; /* the file, beside the scratch's own descriptor */

static struct scratch *make(void)
{
    int fd = memfd_create("scratch", 0);
    watched = dup(fd);
    struct scratch *scratch = scratch_new(fd);
    assert_non_null(scratch);
    return scratch;
}

static off_t file_size(void)
{
    struct stat status;
    assert_int_equal(fstat(watched, &status), 0);
    return status.st_size;
}

static uint8_t byte_at(unsigned string, uint64_t at)
{
    return (uint8_t)(string * 31 + at * 7 + at / 251);
}

static void append(struct scratch *scratch, struct scratch_text *text, unsigned string,
                   size_t length)
{
    uint8_t *bytes = malloc(length + 1);
    for (size_t i = 0; i < length; i++) {
        bytes[i] = byte_at(string, text->length + i);
    }
    assert_int_equal(scratch_append(scratch, text, slice_make(bytes, length)), ERROR_NONE);
    free(bytes);
}

static void check(struct scratch *scratch, const struct scratch_text *text, unsigned string)
{
    uint8_t bytes[50000];
    uint64_t at = 0;
    size_t got;
    do {
        assert_int_equal(scratch_read(scratch, text, at, bytes, sizeof(bytes), &got), ERROR_NONE);
        for (size_t i = 0; i < got; i++) {
            assert_int_equal(bytes[i], byte_at(string, at + i));
        }
        at += got;
    } while (got > 0);
    assert_int_equal(at, text->length);
}

static void strings_come_and_go(void **state)
{
    (void)state;
    struct scratch *scratch = make();
    struct scratch_text texts[STRINGS] = {{0}};
    unsigned seed = 1;
    off_t largest = 0;
    for (int round = 0; round < 400; round++) {
        seed = seed * 1103515245 + 12345;
        unsigned which = (seed >> 16) % STRINGS;
        if (texts[which].length > 300000) {
            check(scratch, &texts[which], which);
            scratch_clear(scratch, &texts[which]);
            assert_int_equal(texts[which].length, 0);
        } else {
            append(scratch, &texts[which], which, (seed >> 8) % 150000);
        }
        largest = file_size() > largest ? file_size() : largest;
    }
    for (unsigned i = 0; i < STRINGS; i++) {
        check(scratch, &texts[i], i);
        scratch_clear(scratch, &texts[i]);
    }
    assert_int_equal(file_size(), 0);
    /* Blocks were used again: no more than all could have at once. */
    assert_true(largest <= (off_t)STRINGS * 8 * SCRATCH_BLOCK_BYTES);
    append(scratch, &texts[0], 0, 10);
    check(scratch, &texts[0], 0);
    scratch_clear(scratch, &texts[0]);
    scratch_free(scratch);
    close(watched);
}

static void errors_are_told(void **state)
{
    (void)state;
    int fd = open("/dev/full", O_RDWR);
    struct scratch *scratch = scratch_new(fd);
    struct scratch_text text = {0};
    assert_int_equal(scratch_append(scratch, &text, SLICE_LITERAL("x")), ERROR_SPACE);
    scratch_clear(scratch, &text);
    scratch_free(scratch);
    scratch = make();
    append(scratch, &text, 0, 100);
    assert_int_equal(ftruncate(watched, 10), 0); /* somebody has been at it */
    uint8_t bytes[100];
    size_t got;
    assert_int_equal(scratch_read(scratch, &text, 0, bytes, sizeof(bytes), &got), ERROR_IO);
    scratch_clear(scratch, &text);
    scratch_free(scratch);
    close(watched);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_come_and_go),
        cmocka_unit_test(errors_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
