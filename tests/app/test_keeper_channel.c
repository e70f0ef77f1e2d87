/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "app/keeper_channel.h"
#include "app/plan.h"
#include "proto/failing_memory.h"
#include "sys/fdpass.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static uint8_t buffer[KEEPER_MESSAGE_MAX];

static void a_message_arrives_as_it_was_sent(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(fdpass_pair(ends), ERROR_NONE);
    struct keeper_message sent = {.kind = KEEPER_RING,
                                  .edge = KEEPER_EDGE_OUT,
                                  .index = 3,
                                  .count = 4,
                                  .generation = 7,
                                  .grace_ms = 8,
                                  .error = ERROR_SPACE,
                                  .identity = {.change = true, .user = 1, .group = 2},
                                  .bytes = SLICE_LITERAL("bytes"),
                                  .descriptors = {0, 1, 2},
                                  .descriptor_count = 3};
    assert_int_equal(keeper_send(ends[0], &sent), ERROR_NONE);
    struct keeper_message got;
    assert_int_equal(keeper_receive_wait(ends[1], buffer, &got), ERROR_NONE);
    assert_int_equal(got.kind, KEEPER_RING);
    assert_int_equal(got.edge, KEEPER_EDGE_OUT);
    assert_int_equal(got.index, 3);
    assert_int_equal(got.count, 4);
    assert_int_equal(got.generation, 7);
    assert_int_equal(got.grace_ms, 8);
    assert_int_equal(got.error, ERROR_SPACE);
    assert_true(got.identity.change);
    assert_int_equal(got.identity.group, 2);
    assert_true(slice_equal(got.bytes, SLICE_LITERAL("bytes")));
    assert_int_equal(got.descriptor_count, 3);
    assert_true(fcntl(got.descriptors[2], F_GETFD) >= 0);
    keeper_message_close(&got);
    assert_int_equal(keeper_receive(ends[1], buffer, &got), ERROR_AGAIN);
    close(ends[0]);
    assert_int_equal(keeper_receive(ends[1], buffer, &got), ERROR_CLOSED);
    close(ends[1]);
}

static void what_is_no_message_is_refused(void **state)
{
    (void)state;
    int ends[2];
    struct keeper_message good = {.kind = KEEPER_READY, .generation = 1};
    struct keeper_message got;
    assert_int_equal(fdpass_pair(ends), ERROR_NONE);
    assert_int_equal(keeper_send(ends[0], &good), ERROR_NONE);
    int descriptors[FDPASS_DESCRIPTORS_MAX];
    size_t length, count;
    assert_int_equal(fdpass_receive(ends[1], buffer, sizeof(buffer), &length, descriptors, &count),
                     ERROR_NONE);
    uint8_t bytes[128];
    assert_true(length < sizeof(bytes));
    memcpy(bytes, buffer, length);
    const int passed[] = {0, 1, 2, 0};
    for (int variant = 0; variant < 5; variant++) {
        struct slice message = slice_make(bytes, variant == 0 ? length - 1 : length);
        size_t descriptor_count = 0;
        if (variant == 1) {
            bytes[0] = 200; /* no such kind */
        } else if (variant == 2) {
            bytes[0] = KEEPER_READY;
            descriptor_count = 1; /* has none */
        } else if (variant == 3) {
            descriptor_count = 4; /* nobody has four */
        } else if (variant == 4) {
            bytes[length - 1] = 0xff; /* more bytes than there are */
        }
        assert_int_equal(fdpass_send(ends[0], message, passed, descriptor_count), ERROR_NONE);
        assert_int_equal(keeper_receive(ends[1], buffer, &got), ERROR_INVALID);
    }
    close(ends[0]);
    close(ends[1]);
}

/* Whole or not at all, and no descriptor is left behind. */
static void what_has_no_memory_is_not_sent(void **state)
{
    (void)state;
    int ends[2], fd;
    static const uint8_t bytes[KEEPER_MESSAGE_MAX];
    struct keeper_message got, sent = {.kind = KEEPER_CONFIG,
                                       .bytes = slice_make(bytes, 1000),
                                       .descriptors = {0},
                                       .descriptor_count = 1};
    assert_int_equal(fdpass_pair(ends), ERROR_NONE);
    enum error error = ERROR_MEMORY;
    long count;
    for (count = 0; error != ERROR_NONE; count++) {
        memory_fail_at(count);
        error = keeper_send(ends[0], &sent);
        memory_fail_never();
        assert_true(error == ERROR_NONE || error == ERROR_MEMORY);
        assert_int_equal(keeper_receive(ends[1], buffer, &got),
                         error == ERROR_NONE ? ERROR_NONE : ERROR_AGAIN);
    }
    assert_true(count > 1);
    keeper_message_close(&got);
    sent.bytes.length = sizeof(bytes);
    assert_int_equal(keeper_send(ends[0], &sent), ERROR_LIMIT);
    close(ends[0]);
    close(ends[1]);
    assert_int_equal(keeper_text_to_descriptor(SLICE_LITERAL("the text"), &fd), ERROR_NONE);
    char *text;
    size_t length;
    memory_fail_at(0);
    error = keeper_text_from_descriptor(fd, &text, &length);
    memory_fail_never();
    assert_int_equal(error, ERROR_MEMORY);
    close(fd);
}

static void a_text_travels_sealed(void **state)
{
    (void)state;
    int fd;
    char *text;
    size_t length;
    assert_int_equal(keeper_text_to_descriptor(SLICE_LITERAL("the text"), &fd), ERROR_NONE);
    assert_int_equal(pwrite(fd, "x", 1, 0), -1);
    assert_int_equal(keeper_text_from_descriptor(fd, &text, &length), ERROR_NONE);
    assert_string_equal(text, "the text");
    assert_int_equal(length, 8);
    free(text);
    close(fd);
    assert_int_equal(keeper_text_to_descriptor(SLICE_EMPTY, &fd), ERROR_NONE);
    assert_int_equal(keeper_text_from_descriptor(fd, &text, &length), ERROR_NONE);
    assert_int_equal(length, 0);
    free(text);
    close(fd);
    /* What could still change under our eyes is not read. */
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(keeper_text_from_descriptor(ends[0], &text, &length), ERROR_INVALID);
    close(ends[0]);
    close(ends[1]);
    static const int seals[] = {F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE};
    for (size_t left_out = 0; left_out <= 3; left_out++) {
        fd = memfd_create("text", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_int_equal(write(fd, "text", 4), 4);
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(i == left_out ? 0 : fcntl(fd, F_ADD_SEALS, seals[i]), 0);
        }
        enum error error = keeper_text_from_descriptor(fd, &text, &length);
        assert_int_equal(error, left_out < 3 ? ERROR_INVALID : ERROR_NONE);
        close(fd);
    }
    free(text);
}

static void a_plan_survives_the_wire(void **state)
{
    (void)state;
    static struct plan plan, back;
    plan = (struct plan){.state = "/var/lib/holdfast",
                         .loops = 2,
                         .log_target = LOG_TO_SYSLOG,
                         .log_level = LOG_LEVEL_DEBUG,
                         .fixed_count = 2,
                         .fixed = {{"node", 7}, {"loops", UINT64_MAX}},
                         .listener_count = 2};
    for (int i = 0; i < 2; i++) {
        struct plan_listener *listener = &plan.listeners[i];
        memcpy(listener->name, i == 0 ? "mx" : "web", i == 0 ? 3 : 4);
        listener->at.port = (uint16_t)(25 + i);
        listener->protocol = i == 0 ? LISTENER_SMTP : LISTENER_HTTP;
    }
    struct buffer bytes;
    buffer_init(&bytes, 0);
    plan_put(&bytes, &plan);
    assert_true(plan_get(buffer_slice(&bytes), &back));
    assert_string_equal(back.state, plan.state);
    assert_int_equal(back.loops, plan.loops);
    assert_int_equal(back.log_target, plan.log_target);
    assert_int_equal(back.log_level, plan.log_level);
    assert_int_equal(back.fixed_count, plan.fixed_count);
    assert_int_equal(back.listener_count, plan.listener_count);
    for (int i = 0; i < 2; i++) {
        assert_string_equal(back.fixed[i].key, plan.fixed[i].key);
        assert_true(back.fixed[i].digest == plan.fixed[i].digest);
        assert_string_equal(back.listeners[i].name, plan.listeners[i].name);
        assert_int_equal(back.listeners[i].at.port, plan.listeners[i].at.port);
        assert_int_equal(back.listeners[i].protocol, plan.listeners[i].protocol);
    }
    struct buffer again; /* and what else there is; not byte by byte, for there are gaps */
    buffer_init(&again, 0);
    plan_put(&again, &back);
    assert_true(slice_equal(buffer_slice(&again), buffer_slice(&bytes)));
    buffer_done(&again);
    for (size_t length = 0; length < bytes.length; length++) {
        assert_false(plan_get(slice_take(buffer_slice(&bytes), length), &back));
    }
    buffer_done(&bytes);
}

static void a_plan_is_made_of_a_configuration(void **state)
{
    (void)state;
    static struct plan plan;
    struct listener_config listener = {.name = SLICE_LITERAL("mx")};
    struct service_config config = {
        .state = SLICE_LITERAL("/run/x"), .listeners = &listener, .listener_count = 1};
    struct buffer errors;
    buffer_init(&errors, 0);
    assert_true(plan_make(&config, "f", &plan, &errors));
    assert_string_equal(plan.state, "/run/x");
    assert_true(plan.loops >= 1);
    assert_string_equal(plan.listeners[0].name, "mx");
    assert_true((errors.length > 0) == (geteuid() == 0)); /* no user is given */
    buffer_clear(&errors);
    assert_true(plan.fixed_count > 0);
    assert_string_equal(plan.fixed[0].key, "state");

    config.group = SLICE_LITERAL("no-such-group");
    assert_false(plan_make(&config, "f", &plan, &errors));
    buffer_put_u8(&errors, 0);
    assert_non_null(strstr((const char *)errors.data,
                           "f:1: group: there is no group 'no-such-group' on this machine\n"));
    buffer_done(&errors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_arrives_as_it_was_sent),
        cmocka_unit_test(what_is_no_message_is_refused),
        cmocka_unit_test(what_has_no_memory_is_not_sent),
        cmocka_unit_test(a_text_travels_sealed),
        cmocka_unit_test(a_plan_survives_the_wire),
        cmocka_unit_test(a_plan_is_made_of_a_configuration),
    };
    return cmocka_run_group_tests_name("keeper_channel", tests, NULL, NULL);
}
