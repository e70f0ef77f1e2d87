/* SPDX-License-Identifier: Apache-2.0
 *
 * What the receiving process and that of the secrets say to each other, what core is told of it,
 * and the table of users: any bytes are refused, or within bounds and the same when written again.
 */
#include "service/login_store.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_same(struct slice input, struct buffer *again)
{
    assert(again->failed || slice_equal(buffer_slice(again), input));
    buffer_done(again);
}

static void try_request(struct slice input)
{
    struct login_request request;
    struct buffer again;
    if (login_get_request(input, &request)) {
        assert(request.name.length > 0 && request.name.length <= LOGIN_NAME_MAX);
        buffer_init(&again, 0);
        login_put_request(&again, &request);
        check_same(input, &again);
    }
}

static void try_answer(struct slice input)
{
    struct login_answer answer;
    struct buffer again;
    if (login_get_answer(input, &answer)) {
        assert(answer.address_count <= LOGIN_ADDRESSES_MAX && answer.salt.length <= SASL_SALT_MAX);
        buffer_init(&again, 0);
        login_put_answer(&again, &answer);
        check_same(input, &again);
    }
}

static void try_news(struct slice input)
{
    struct login_news news;
    struct buffer again;
    if (login_get_news(input, &news)) {
        assert(news.name.length > 0 && news.name.length <= LOGIN_NAME_MAX);
        assert(news.how.length <= LOGIN_HOW_MAX && news.listener.length <= LOGIN_LISTENER_MAX);
        assert(news.identity.length <= LOGIN_IDENTITY_MAX);
        buffer_init(&again, 0);
        login_put_news(&again, &news);
        check_same(input, &again);
    }
}

static void try_table(struct slice input)
{
    struct login_store *store;
    uint32_t line;
    if (login_store_parse(input, &store, &line) != ERROR_NONE) {
        return;
    }
    for (uint32_t i = 0; i < login_store_count(store); i++) {
        const struct login_user *user = login_store_at(store, i);
        assert(login_name_fault(user->name) == NULL);
        assert(login_store_find(store, user->name) == user);
        assert(user->address_count <= LOGIN_ADDRESSES_MAX);
    }
    login_store_free(store);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = slice_make(data, size);
    try_request(input);
    try_answer(input);
    try_news(input);
    try_table(input);
    return 0;
}
