/* SPDX-License-Identifier: Apache-2.0
 *
 * Passwords that another process finds out about. With a real one the end-to-end tests do it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "service/login_remote.h"
#include "sys/fdpass.h"

#include <unistd.h>

struct heard {
    uint32_t calls;
    enum login_verdict verdict;
};

static void hear(void *context, const struct login_answer *answer)
{
    struct heard *heard = context;
    heard->calls++;
    heard->verdict = answer->verdict;
}

/* The token of what `remote` asks. */
static uint64_t ask(struct login_remote *remote, int end, const char *name, struct heard *heard)
{
    const struct ip_address client = {{0}};
    uint8_t bytes[LOGIN_MESSAGE_MAX];
    struct login_request request;
    size_t length = 0;
    assert_true(login_remote_ask(remote, SLICE_LITERAL("people"), &client, slice_from_text(name),
                                 SLICE_LITERAL("secret"), hear, heard));
    assert_int_equal(fdpass_receive_bytes(end, bytes, sizeof(bytes), &length), ERROR_NONE);
    assert_true(login_get_request(slice_make(bytes, length), &request));
    assert_true(slice_equal(request.name, slice_from_text(name)));
    return request.token;
}

static void answer(int end, uint64_t token, const char *name)
{
    const struct login_answer good = {
        .token = token, .verdict = LOGIN_GOOD, .account = slice_from_text(name)};
    struct buffer message;
    buffer_init(&message, LOGIN_MESSAGE_MAX);
    login_put_answer(&message, &good);
    assert_int_equal(fdpass_send(end, buffer_slice(&message), NULL, 0), ERROR_NONE);
    buffer_done(&message);
}

static void stop(void *loop)
{
    loop_stop(loop);
}

static void run_a_moment(struct loop *loop)
{
    struct loop_timer *timer = loop_timer_new(loop, stop, loop);
    loop_timer_set(timer, 50);
    loop_run(loop);
    loop_timer_free(timer);
}

/* The one who asks has died and begun anew: what the other side answers to the dead one's question
 * must be nobody's. */
static void an_answer_to_who_was_here_before_is_not_ours(void **state)
{
    (void)state;
    struct loop *loop = loop_new();
    struct heard first = {0}, second = {0};
    int ends[2];
    assert_int_equal(fdpass_pair(ends), ERROR_NONE);
    struct login_remote *remote = login_remote_new(loop);
    login_remote_set_link(remote, ends[0]);
    uint64_t old = ask(remote, ends[1], "ann", &first);
    login_remote_free(remote);
    close(ends[1]);

    assert_int_equal(fdpass_pair(ends), ERROR_NONE);
    remote = login_remote_new(loop);
    login_remote_set_link(remote, ends[0]);
    uint64_t ours = ask(remote, ends[1], "mallory", &second);
    answer(ends[1], old, "ann");
    run_a_moment(loop);
    assert_int_equal(second.calls, 0);
    answer(ends[1], ours, "mallory");
    run_a_moment(loop);
    assert_int_equal(second.calls, 1);
    assert_int_equal(second.verdict, LOGIN_GOOD);
    login_remote_free(remote);
    close(ends[1]);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_to_who_was_here_before_is_not_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
