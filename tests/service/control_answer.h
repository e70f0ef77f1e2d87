/* SPDX-License-Identifier: Apache-2.0
 *
 * What tests of the control protocol look at in the answers, and ask with.
 */
#ifndef HOLDFAST_TESTS_CONTROL_ANSWER_H
#define HOLDFAST_TESTS_CONTROL_ANSWER_H

#include "core_bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static inline json_t *row(struct bench *bench, size_t index)
{
    json_t *object = json_array_get(bench->rows, index);
    assert_non_null(object);
    return object;
}

static inline const char *text(json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value != NULL ? value : "(null)";
}

static inline json_int_t number(json_t *object, const char *key)
{
    assert_true(json_is_integer(json_object_get(object, key)));
    return json_integer_value(json_object_get(object, key));
}

static inline bool truth(json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

/* `count` messages wait for a server that is not there. */
static inline void fill(struct bench *bench, uint32_t count)
{
    bench->connects = false;
    bench_attach_out(bench, true, true);
    for (uint32_t i = 0; i < count; i++) {
        bench_send(bench, 1 + i % 2, i % 3 == 2);
    }
    bench_until(bench, &bench->stored, count);
    for (int i = 0; i < 500 && !bench->core->dispatching; i++) {
        bench_run_ms(bench, 2);
    }
}

static inline int ask_about(struct bench *bench, const char *command, const char *format,
                            uint32_t which)
{
    char arguments[200];
    snprintf(arguments, sizeof(arguments), format, bench_id(bench, which));
    return bench_ask(bench, command, arguments);
}

#endif
