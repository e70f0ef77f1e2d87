/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sys/ring.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SMALL = 4096 };

static void ignore(void *context)
{
    (void)context;
}

static void count_call(void *context)
{
    int *calls = context;
    (*calls)++;
}

/* Lets what is due on the loop run, and nothing more. */
static void stop_loop(void *context)
{
    loop_stop(context);
}

static void run_briefly(struct loop *loop)
{
    struct loop_timer *timer = loop_timer_new(loop, stop_loop, loop);
    loop_timer_set(timer, 5);
    loop_run(loop);
    loop_timer_free(timer);
}

struct pair {
    struct loop *loop;
    struct ring *a;
    struct ring *b;
    int a_calls;
    int b_calls;
};

static int pair_setup(void **state)
{
    struct pair *pair = calloc(1, sizeof(*pair));
    pair->loop = loop_new();
    if (ring_pair_local(SMALL, SMALL, pair->loop, pair->loop, &pair->a, &pair->b) != ERROR_NONE) {
        return -1;
    }
    ring_set_handler(pair->a, count_call, &pair->a_calls);
    ring_set_handler(pair->b, count_call, &pair->b_calls);
    *state = pair;
    return 0;
}

static int pair_teardown(void **state)
{
    struct pair *pair = *state;
    ring_free(pair->a);
    ring_free(pair->b);
    loop_free(pair->loop);
    free(pair);
    return 0;
}

static void expect_record(struct ring *ring, struct slice expected)
{
    struct slice got;
    assert_int_equal(ring_receive(ring, &got), ERROR_NONE);
    assert_true(slice_equal(got, expected));
    ring_release(ring);
}

static void expect_none(struct ring *ring)
{
    struct slice got;
    assert_int_equal(ring_receive(ring, &got), ERROR_AGAIN);
}

static void records_arrive_whole_and_in_order(void **state)
{
    struct pair *pair = *state;
    uint8_t bytes[1500];
    memset(bytes, 'x', sizeof(bytes));
    expect_none(pair->b);
    /* Many times round, with every alignment at the end of the memory. */
    for (size_t i = 0; i < 5000; i++) {
        struct slice record = slice_make(bytes, i * 37 % sizeof(bytes));
        bytes[0] = (uint8_t)i;
        assert_int_equal(ring_send(pair->a, record), ERROR_NONE);
        assert_int_equal(ring_send(pair->a, SLICE_LITERAL("second")), ERROR_NONE);
        expect_record(pair->b, record);
        expect_record(pair->b, SLICE_LITERAL("second"));
        expect_none(pair->b);
        expect_none(pair->a);
    }
}

static void the_largest_record_fits_and_no_larger(void **state)
{
    struct pair *pair = *state;
    size_t limit = ring_record_limit(pair->a);
    uint8_t *bytes = calloc(1, limit + 1);
    assert_int_equal(ring_send(pair->a, slice_make(bytes, limit + 1)), ERROR_LIMIT);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ring_send(pair->a, slice_make(bytes, limit)), ERROR_NONE);
        assert_int_equal(ring_send(pair->a, SLICE_EMPTY), ERROR_AGAIN);
        expect_record(pair->b, slice_make(bytes, limit));
    }
    free(bytes);
}

static void publishing_less_than_reserved_gives_the_rest_back(void **state)
{
    struct pair *pair = *state;
    for (int i = 0; i < 20; i++) {
        uint8_t *place = ring_reserve(pair->a, 3000);
        assert_non_null(place);
        memcpy(place, "abc", 3);
        ring_publish(pair->a, 3);
    }
    for (int i = 0; i < 20; i++) {
        expect_record(pair->b, SLICE_LITERAL("abc"));
    }
}

static void a_sleeper_is_woken_once(void **state)
{
    struct pair *pair = *state;
    expect_none(pair->b);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(ring_send(pair->a, SLICE_LITERAL("r")), ERROR_NONE);
    }
    run_briefly(pair->loop);
    assert_int_equal(pair->b_calls, 1);
    /* Awake until it has seen the end. */
    assert_int_equal(ring_send(pair->a, SLICE_LITERAL("r")), ERROR_NONE);
    run_briefly(pair->loop);
    assert_int_equal(pair->b_calls, 1);
    for (int i = 0; i < 11; i++) {
        expect_record(pair->b, SLICE_LITERAL("r"));
    }
    expect_none(pair->b);
    assert_int_equal(ring_send(pair->a, SLICE_LITERAL("r")), ERROR_NONE);
    run_briefly(pair->loop);
    assert_int_equal(pair->b_calls, 2);
    assert_int_equal(pair->a_calls, 0);
}

static void a_producer_without_room_is_woken_when_there_is(void **state)
{
    struct pair *pair = *state;
    uint8_t bytes[1000] = {0};
    int sent = 0;
    while (ring_send(pair->a, slice_make(bytes, sizeof(bytes))) == ERROR_NONE) {
        sent++;
    }
    assert_int_equal(sent, 4);
    run_briefly(pair->loop);
    assert_int_equal(pair->a_calls, 0);
    expect_record(pair->b, slice_make(bytes, sizeof(bytes)));
    expect_record(pair->b, slice_make(bytes, sizeof(bytes)));
    run_briefly(pair->loop);
    assert_int_equal(pair->a_calls, 1);
    assert_int_equal(ring_send(pair->a, slice_make(bytes, sizeof(bytes))), ERROR_NONE);
}

static void either_side_may_go_first(void **state)
{
    (void)state;
    struct loop *loop = loop_new();
    for (int first = 0; first < 2; first++) {
        struct ring *rings[2];
        assert_int_equal(ring_pair_local(SMALL, SMALL, loop, loop, &rings[0], &rings[1]),
                         ERROR_NONE);
        ring_free(rings[first]);
        assert_int_equal(ring_send(rings[1 - first], SLICE_LITERAL("nobody")), ERROR_NONE);
        ring_free(rings[1 - first]);
    }
    loop_free(loop);
}

/* ---- a hostile peer ---------------------------------------------------------------------- */

struct hostile {
    struct loop *loop;
    struct ring *ring;
    uint8_t *memory;
    size_t size;
    unsigned seed;
};

static void hostile_open(struct hostile *hostile)
{
    struct ring_descriptors descriptors;
    assert_int_equal(ring_create(SMALL, SMALL, &descriptors), ERROR_NONE);
    struct stat status;
    assert_int_equal(fstat(descriptors.memory, &status), 0);
    hostile->size = (size_t)status.st_size;
    hostile->memory =
        mmap(NULL, hostile->size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptors.memory, 0);
    assert_ptr_not_equal(hostile->memory, MAP_FAILED);
    hostile->loop = loop_new();
    assert_int_equal(
        ring_attach(descriptors, RING_SIDE_A, hostile->loop, ignore, NULL, &hostile->ring),
        ERROR_NONE);
}

static void hostile_close(struct hostile *hostile)
{
    ring_free(hostile->ring);
    loop_free(hostile->loop);
    munmap(hostile->memory, hostile->size);
}

static uint64_t draw(struct hostile *hostile)
{
    uint64_t value = 0;
    for (int i = 0; i < 4; i++) {
        value = value << 16 | ((unsigned)rand_r(&hostile->seed) & 0xffff);
    }
    return value;
}

/* Words at random places, of the kinds that bounds are got wrong by. */
static void scribble(struct hostile *hostile)
{
    size_t within = draw(hostile) % 4 == 0 ? hostile->size : 512;
    uint64_t words[] = {draw(hostile),
                        draw(hostile) % 64 * 8,
                        UINT64_MAX,
                        draw(hostile) % SMALL,
                        SMALL,
                        SMALL + 8,
                        draw(hostile) & ~7ULL,
                        UINT32_MAX - 7,
                        0,
                        UINT64_MAX - 7};
    uint64_t word = words[draw(hostile) % (sizeof(words) / sizeof(words[0]))];
    memcpy(hostile->memory + draw(hostile) % (within / 8) * 8, &word, sizeof(word));
}

static bool use_ring(struct hostile *hostile)
{
    volatile uint8_t sum = 0;
    for (int i = 0; i < 50; i++) {
        struct slice record;
        enum error error = ring_receive(hostile->ring, &record);
        if (error == ERROR_CORRUPT) {
            return false;
        }
        if (error == ERROR_AGAIN) {
            break;
        }
        assert_true(record.length <= SMALL);
        for (size_t at = 0; at < record.length; at++) {
            sum = (uint8_t)(sum + record.data[at]);
        }
        ring_release(hostile->ring);
    }
    void *place = ring_reserve(hostile->ring, 10 + draw(hostile) % 2000);
    if (place != NULL) {
        memset(place, 1, 10);
        ring_publish(hostile->ring, 10);
    }
    return true;
}

static void a_hostile_peer_gets_corrupt_and_nothing_worse(void **state)
{
    (void)state;
    int corrupt = 0;
    for (unsigned seed = 1; seed <= 300; seed++) {
        struct hostile hostile = {.seed = seed};
        hostile_open(&hostile);
        for (int i = 0; i < 200; i++) {
            scribble(&hostile);
            if (!use_ring(&hostile)) {
                corrupt++;
                /* For good, and said to the sender too. */
                assert_int_equal(ring_send(hostile.ring, SLICE_LITERAL("x")), ERROR_CORRUPT);
                break;
            }
        }
        hostile_close(&hostile);
    }
    assert_true(corrupt > 100);
}

static void attach_refuses_what_is_no_ring(void **state)
{
    (void)state;
    struct loop *loop = loop_new();
    for (int variant = 0; variant < 4; variant++) {
        struct ring_descriptors descriptors;
        struct ring *ring;
        assert_int_equal(ring_create(SMALL, SMALL, &descriptors), ERROR_NONE);
        if (variant < 2) {
            /* Not sealed; and too short even for its first page. */
            close(descriptors.memory);
            descriptors.memory = memfd_create("not-a-ring", MFD_CLOEXEC);
            assert_int_equal(ftruncate(descriptors.memory, variant == 0 ? 3 * SMALL : 100), 0);
        } else {
            /* Sizes that do not add up to the memory; and no ring's word. */
            uint64_t word = variant == 2 ? 2 * SMALL : 7;
            assert_int_equal(pwrite(descriptors.memory, &word, sizeof(word), variant == 2 ? 8 : 0),
                             sizeof(word));
        }
        assert_int_equal(ring_attach(descriptors, RING_SIDE_B, loop, ignore, NULL, &ring),
                         ERROR_CORRUPT);
        assert_int_equal(fcntl(descriptors.wake_a, F_GETFD), -1);
    }
    loop_free(loop);
}

/* ---- two threads, as two processes would be ---------------------------------------------- */

enum { RECORDS = 60000 };

struct side {
    struct loop *loop;
    struct ring *ring;
    uint32_t sent;
    uint32_t received;
    bool failed;
};

static size_t length_of(uint32_t number)
{
    return sizeof(number) + number * 2654435761U % 700;
}

static bool send_some(struct side *side)
{
    while (side->sent < RECORDS) {
        size_t length = length_of(side->sent);
        uint8_t *place = ring_reserve(side->ring, length);
        if (place == NULL) {
            return false;
        }
        memset(place, (int)(side->sent & 0xff), length);
        memcpy(place, &side->sent, sizeof(side->sent));
        ring_publish(side->ring, length);
        side->sent++;
    }
    return true;
}

static bool record_is_right(struct slice record, uint32_t number)
{
    uint32_t said;
    if (record.length != length_of(number)) {
        return false;
    }
    memcpy(&said, record.data, sizeof(said));
    return said == number && (record.length == sizeof(said) ||
                              record.data[record.length - 1] == (uint8_t)(number & 0xff));
}

static void exchange(void *context)
{
    struct side *side = context;
    struct slice record;
    while (ring_receive(side->ring, &record) == ERROR_NONE) {
        side->failed = side->failed || !record_is_right(record, side->received);
        side->received++;
        ring_release(side->ring);
    }
    (void)send_some(side);
    if (side->received == RECORDS && side->sent == RECORDS) {
        loop_stop(side->loop);
    }
}

static void *run_side(void *context)
{
    struct side *side = context;
    exchange(side);
    loop_run(side->loop);
    return NULL;
}

static void run_both(struct side sides[2])
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_side, &sides[1]), 0);
    run_side(&sides[0]);
    pthread_join(thread, NULL);
    for (int i = 0; i < 2; i++) {
        assert_false(sides[i].failed);
        assert_int_equal(sides[i].received, RECORDS);
        ring_free(sides[i].ring);
        loop_free(sides[i].loop);
    }
}

static void two_loops_exchange_without_loss_or_sleep(void **state)
{
    (void)state;
    struct side sides[2] = {{.loop = loop_new()}, {.loop = loop_new()}};
    assert_int_equal(ring_pair_local(2 * SMALL, SMALL, sides[0].loop, sides[1].loop, &sides[0].ring,
                                     &sides[1].ring),
                     ERROR_NONE);
    for (int i = 0; i < 2; i++) {
        ring_set_handler(sides[i].ring, exchange, &sides[i]);
    }
    run_both(sides);
}

static void two_processes_descriptors_exchange(void **state)
{
    (void)state;
    struct side sides[2] = {{.loop = loop_new()}, {.loop = loop_new()}};
    struct ring_descriptors all[2];
    assert_int_equal(ring_create(SMALL, 4 * SMALL, &all[0]), ERROR_NONE);
    all[1] = (struct ring_descriptors){dup(all[0].memory), dup(all[0].wake_a), dup(all[0].wake_b)};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ring_attach(all[i], i == 0 ? RING_SIDE_A : RING_SIDE_B, sides[i].loop,
                                     exchange, &sides[i], &sides[i].ring),
                         ERROR_NONE);
    }
    run_both(sides);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(records_arrive_whole_and_in_order, pair_setup,
                                        pair_teardown),
        cmocka_unit_test_setup_teardown(the_largest_record_fits_and_no_larger, pair_setup,
                                        pair_teardown),
        cmocka_unit_test_setup_teardown(publishing_less_than_reserved_gives_the_rest_back,
                                        pair_setup, pair_teardown),
        cmocka_unit_test_setup_teardown(a_sleeper_is_woken_once, pair_setup, pair_teardown),
        cmocka_unit_test_setup_teardown(a_producer_without_room_is_woken_when_there_is, pair_setup,
                                        pair_teardown),
        cmocka_unit_test(either_side_may_go_first),
        cmocka_unit_test(a_hostile_peer_gets_corrupt_and_nothing_worse),
        cmocka_unit_test(attach_refuses_what_is_no_ring),
        cmocka_unit_test(two_loops_exchange_without_loss_or_sleep),
        cmocka_unit_test(two_processes_descriptors_exchange),
    };
    return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
