/* SPDX-License-Identifier: Apache-2.0
 *
 * A directory that answers with bytes written here, well or badly: what the caller is told, and
 * that he is told in time. With a real one the end-to-end tests do it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sys/ldap_session.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "sys/clock.h"
#include "sys/net.h"

/* One answer to each message of the client, in order; then silence. */
struct script {
    const struct slice *answers;
    size_t count;
    bool dribbles; /* a byte at a time, the last one over and over */
    int listener;
    struct ip_endpoint at;
    pthread_t thread;
    size_t asked; /* messages that came */
    atomic_bool ends;
};

#define BYTES(...)                                                                                 \
    {                                                                                              \
        (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})                     \
    }
/* Results with code `code` to message `id`: BindResponse, SearchResultDone, ExtendedResponse. */
#define RESULT(id, type, code) BYTES(0x30, 12, 2, 1, id, type, 7, 10, 1, code, 4, 0, 4, 0)
#define BOUND(id, code) RESULT(id, 0x61, code)
#define FOUND(id, code) RESULT(id, 0x65, code)
#define STARTED(id, code) RESULT(id, 0x78, code)

static void *serve(void *context)
{
    struct script *script = context;
    struct ip_endpoint peer;
    int fd = -1;
    while (!script->ends && net_accept(script->listener, &fd, &peer) != ERROR_NONE) {
        usleep(1000);
    }
    while (!script->ends && fd >= 0) {
        uint8_t bytes[4096];
        size_t length = 0;
        if (net_receive(fd, bytes, sizeof(bytes), &length) == ERROR_AGAIN) {
            usleep(1000);
            continue;
        }
        if (length == 0) {
            break;
        }
        struct slice answer =
            script->asked < script->count ? script->answers[script->asked] : SLICE_EMPTY;
        script->asked++;
        for (size_t i = 0; script->dribbles && !script->ends; i++) {
            uint8_t byte = i < answer.length ? answer.data[i] : answer.data[answer.length - 1];
            size_t sent;
            if (net_send(fd, slice_make(&byte, 1), &sent) == ERROR_CLOSED) {
                break;
            }
            usleep(5000);
        }
        size_t sent = 0;
        (void)!net_send(fd, answer, &sent);
    }
    if (fd >= 0) {
        net_close(fd);
    }
    return NULL;
}

static void begin(struct script *script)
{
    struct ip_endpoint any = {0};
    any.address.bytes[10] = any.address.bytes[11] = 0xff;
    any.address.bytes[12] = 127;
    any.address.bytes[15] = 1;
    assert_int_equal(net_listen(&any, 4, &script->listener), ERROR_NONE);
    assert_int_equal(net_local(script->listener, &script->at), ERROR_NONE);
    assert_int_equal(pthread_create(&script->thread, NULL, serve, script), 0);
}

static void end(struct script *script)
{
    script->ends = true;
    pthread_join(script->thread, NULL);
    net_close(script->listener);
}

static struct ldap_library *library;

static struct ldap_session *open_session(const struct script *script, int64_t patience_ms)
{
    char problem[LDAP_PROBLEM_SIZE];
    struct ldap_session *session = NULL;
    const struct ldap_peer peer = {.at = script->at, .security = LDAP_SECURITY_NONE};
    assert_int_equal(
        ldap_session_open(library, &peer, clock_steady_ms() + patience_ms, &session, problem),
        ERROR_NONE);
    return session;
}

static enum error bind_to(const struct slice *answers, size_t count, bool dribbles,
                          int64_t patience_ms, const char *password, size_t *ret_asked)
{
    char problem[LDAP_PROBLEM_SIZE] = "";
    struct script script = {.answers = answers, .count = count, .dribbles = dribbles};
    begin(&script);
    struct ldap_session *session = open_session(&script, patience_ms);
    enum error error =
        ldap_session_bind(session, "uid=ann,dc=x", slice_from_text(password), problem);
    assert_true(error == ERROR_NONE || problem[0] != '\0');
    ldap_session_close(session);
    end(&script);
    *ret_asked = script.asked;
    return error;
}

static void a_bind_is_good_or_refused_or_unknown(void **state)
{
    (void)state;
    const struct {
        struct slice answer;
        enum error error;
    } cases[] = {
        {BOUND(1, 0), ERROR_NONE},    {BOUND(1, 49), ERROR_DENIED}, {BOUND(1, 48), ERROR_DENIED},
        {BOUND(1, 32), ERROR_DENIED}, {BOUND(1, 34), ERROR_DENIED}, {BOUND(1, 53), ERROR_DENIED},
        {BOUND(1, 51), ERROR_IO},     {BOUND(1, 52), ERROR_CLOSED}, {BOUND(1, 80), ERROR_IO},
        {BOUND(1, 10), ERROR_IO}, /* a referral is no yes */
        {BOUND(1, 14), ERROR_IO}, /* nor is a step of SASL */
        {FOUND(1, 0), ERROR_IO},  /* nor the end of a search */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        size_t asked;
        assert_int_equal(bind_to(&cases[i].answer, 1, false, 60000, "secret", &asked),
                         cases[i].error);
        assert_true(asked >= 1);
    }
}

/* It would be an anonymous bind, to which directories say yes. */
static void an_empty_password_is_not_even_asked_for(void **state)
{
    (void)state;
    const struct slice yes = BOUND(1, 0);
    char problem[LDAP_PROBLEM_SIZE];
    struct script script = {.answers = &yes, .count = 1};
    begin(&script);
    struct ldap_session *session = open_session(&script, 60000);
    assert_int_equal(ldap_session_bind(session, "uid=ann,dc=x", SLICE_EMPTY, problem),
                     ERROR_DENIED);
    assert_int_equal(ldap_session_bind(session, "", SLICE_LITERAL("secret"), problem),
                     ERROR_DENIED);
    assert_int_equal(script.asked, 0);
    ldap_session_close(session);
    end(&script);
}

static void silence_and_dribble_end_at_the_deadline(void **state)
{
    (void)state;
    /* The head of a message of 64 KB that never gets full. */
    const struct slice slow = BYTES(0x30, 0x83, 1, 0, 0, 2, 1, 1, 0x61, 0x82, 0xff, 0, 0);
    size_t asked;
    assert_int_equal(bind_to(NULL, 0, false, 200, "secret", &asked), ERROR_TIMEOUT);
    assert_int_equal(bind_to(&slow, 1, true, 300, "secret", &asked), ERROR_TIMEOUT);
    assert_int_equal(asked, 1);
}

/* Of the leak sanitizer, where there is one. */
void __lsan_disable(void) __attribute__((weak));
void __lsan_enable(void) __attribute__((weak));

static void garbage_is_an_error(void **state)
{
    (void)state;
    /* The library itself forgets to free a request whose answer cannot be read. */
    if (__lsan_disable != NULL) {
        __lsan_disable();
    }
    const struct slice answers[] = {
        BYTES('H', 'T', 'T', 'P', '/', '1', '.', '1', ' ', '4', '0', '0', '\r', '\n', '\r', '\n'),
        BYTES(0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 2, 1, 1, 0x61), /* 2 GB */
        BYTES(0x30, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
        BYTES(0x30, 4, 2, 1, 1, 0x61),
        BYTES(0x30, 3, 2, 1, 1),
        BYTES(0x30, 0),
    };
    for (size_t i = 0; i < sizeof(answers) / sizeof(*answers); i++) {
        size_t asked;
        enum error error = bind_to(&answers[i], 1, false, 1000, "secret", &asked);
        assert_true(error != ERROR_NONE && error != ERROR_DENIED);
    }
    if (__lsan_enable != NULL) {
        __lsan_enable();
    }
}

/* ---- searches ----------------------------------------------------------------------------- */

/* uid=ann with mail=a and mail=b. */
#define ENTRY(id)                                                                                  \
    BYTES(0x30, 31, 2, 1, id, 0x64, 26, 4, 7, 'u', 'i', 'd', '=', 'a', 'n', 'n', 0x30, 15, 0x30,   \
          13, 4, 4, 'm', 'a', 'i', 'l', 0x31, 5, 4, 1, 'a', 4, 0)

struct seen {
    uint32_t entries;
    size_t count;
    bool is_cut;
    char values[64];
};

static bool see(void *context, const struct ldap_entry *entry)
{
    struct seen *seen = context;
    seen->entries++;
    seen->count += entry->count;
    seen->is_cut = seen->is_cut || entry->is_cut;
    assert_string_equal(entry->dn, "uid=ann");
    for (size_t i = 0; i < entry->count && strlen(seen->values) < 32; i++) {
        strncat(seen->values, (const char *)entry->values[i].bytes.data,
                entry->values[i].bytes.length);
        strcat(seen->values, ";");
    }
    return true;
}

static enum error search_pages(const struct slice *answers, size_t count, uint32_t page,
                               uint32_t limit, struct seen *seen)
{
    char problem[LDAP_PROBLEM_SIZE];
    static const char *const attributes[] = {"mail", NULL};
    const struct ldap_search search = {.base = "dc=x",
                                       .reach = LDAP_REACH_TREE,
                                       .filter = "(uid=ann)",
                                       .attributes = attributes,
                                       .attribute_count = 1,
                                       .limit = limit,
                                       .page = page};
    struct script script = {.answers = answers, .count = count};
    *seen = (struct seen){0};
    begin(&script);
    struct ldap_session *session = open_session(&script, 60000);
    enum error error = ldap_session_search(session, &search, see, seen, problem);
    ldap_session_close(session);
    end(&script);
    assert_true(script.asked >=
                count); /* one more than there is would wait in vain; an unbind not */
    return error;
}

static enum error search_in(const struct slice *answer, uint32_t limit, struct seen *seen)
{
    return search_pages(answer, 1, 0, limit, seen);
}

static struct slice joined_in(uint8_t *bytes, const struct slice *parts, size_t count)
{
    size_t length = 0;
    for (size_t i = 0; i < count; i++) {
        memcpy(bytes + length, parts[i].data, parts[i].length);
        length += parts[i].length;
    }
    return slice_make(bytes, length);
}

static struct slice joined(const struct slice *parts, size_t count)
{
    static uint8_t bytes[16384];
    return joined_in(bytes, parts, count);
}

static void entries_are_told_and_counted(void **state)
{
    (void)state;
    const struct slice entry = ENTRY(1), good = FOUND(1, 0), none = FOUND(1, 32),
                       more = FOUND(1, 4);
    /* SearchResultReference: ldap://x */
    const struct slice reference =
        BYTES(0x30, 15, 2, 1, 1, 0x73, 10, 4, 8, 'l', 'd', 'a', 'p', ':', '/', '/', 'x');
    struct seen seen;
    struct slice answer = joined((struct slice[]){entry, reference, entry, good}, 4);
    assert_int_equal(search_in(&answer, 2, &seen), ERROR_NONE);
    assert_int_equal(seen.entries, 2);
    assert_string_equal(seen.values, "a;;a;;");
    assert_int_equal(search_in(&answer, 1, &seen), ERROR_LIMIT);
    assert_int_equal(seen.entries, 1);
    assert_int_equal(search_in(&none, 1, &seen), ERROR_MISSING);
    answer = joined((struct slice[]){entry, more}, 2);
    assert_int_equal(search_in(&answer, 9, &seen), ERROR_LIMIT);
}

#define PAGES_OID                                                                                  \
    '1', '.', '2', '.', '8', '4', '0', '.', '1', '1', '3', '5', '5', '6', '.', '1', '.', '4', '.', \
        '3', '1', '9'
/* SearchResultDone, with a cookie for the next page; with none; with what is no answer to that. */
#define NEXT_PAGE(id)                                                                              \
    BYTES(0x30, 50, 2, 1, id, 0x65, 7, 10, 1, 0, 4, 0, 4, 0, 0xa0, 36, 0x30, 34, 4, 22, PAGES_OID, \
          4, 8, 0x30, 6, 2, 1, 0, 4, 1, 'c')
#define LAST_PAGE(id)                                                                              \
    BYTES(0x30, 49, 2, 1, id, 0x65, 7, 10, 1, 0, 4, 0, 4, 0, 0xa0, 35, 0x30, 33, 4, 22, PAGES_OID, \
          4, 7, 0x30, 5, 2, 1, 0, 4, 0)
#define ODD_PAGE(id)                                                                               \
    BYTES(0x30, 49, 2, 1, id, 0x65, 7, 10, 1, 0, 4, 0, 4, 0, 0xa0, 35, 0x30, 33, 4, 22, PAGES_OID, \
          4, 7, 0x30, 5, 2, 4, 0, 4, 0)

/* A list that ends before its end would be a shorter one. */
static void a_page_that_is_not_the_last_is_followed_by_another(void **state)
{
    (void)state;
    const struct slice first[] = {ENTRY(1), NEXT_PAGE(1)}, second[] = {ENTRY(2), LAST_PAGE(2)},
                       alone[] = {ENTRY(1), FOUND(1, 0)}, silent[] = {ENTRY(2), FOUND(2, 0)},
                       odd[] = {ENTRY(1), ODD_PAGE(1)}, cut[] = {ENTRY(2), FOUND(2, 4)};
    uint8_t bytes[6][256];
    const struct slice whole = joined_in(bytes[0], first, 2);
    const struct slice pages[] = {whole, joined_in(bytes[1], second, 2)},
                       broken[] = {whole, joined_in(bytes[2], silent, 2)},
                       limited[] = {whole, joined_in(bytes[3], cut, 2)},
                       unpaged = joined_in(bytes[4], alone, 2),
                       strange = joined_in(bytes[5], odd, 2);
    struct seen seen;
    assert_int_equal(search_pages(pages, 2, 1, 0, &seen), ERROR_NONE);
    assert_int_equal(seen.entries, 2);
    assert_int_equal(search_pages(&unpaged, 1, 1, 0, &seen), ERROR_NONE);
    assert_int_equal(seen.entries, 1);
    assert_int_equal(search_pages(broken, 2, 1, 0, &seen), ERROR_INVALID);
    assert_int_equal(search_pages(&strange, 1, 1, 0, &seen), ERROR_INVALID);
    assert_int_equal(search_pages(limited, 2, 1, 0, &seen), ERROR_LIMIT);
    assert_int_equal(search_pages(pages, 2, 1, 1, &seen), ERROR_LIMIT);
}

/* SEQUENCE or such with a length of two bytes. */
static size_t put_head(uint8_t *bytes, uint8_t tag, size_t length)
{
    const uint8_t head[] = {tag, 0x82, (uint8_t)(length >> 8), (uint8_t)length};
    memcpy(bytes, head, sizeof(head));
    return sizeof(head);
}

/* uid=ann with so many times mail=a. */
static struct slice long_entry(uint8_t *bytes, size_t values)
{
    static const uint8_t name[] = {4, 7, 'u', 'i', 'd', '=', 'a', 'n', 'n'};
    static const uint8_t type[] = {4, 4, 'm', 'a', 'i', 'l'};
    size_t at = put_head(bytes, 0x30, 3 + 4 + sizeof(name) + 8 + sizeof(type) + 4 + 3 * values);
    memcpy(bytes + at, (const uint8_t[]){2, 1, 1}, 3);
    at += 3;
    at += put_head(bytes + at, 0x64, sizeof(name) + 8 + sizeof(type) + 4 + 3 * values);
    memcpy(bytes + at, name, sizeof(name));
    at += sizeof(name);
    at += put_head(bytes + at, 0x30, 4 + sizeof(type) + 4 + 3 * values);
    at += put_head(bytes + at, 0x30, sizeof(type) + 4 + 3 * values);
    memcpy(bytes + at, type, sizeof(type));
    at += sizeof(type);
    at += put_head(bytes + at, 0x31, 3 * values);
    for (size_t i = 0; i < values; i++, at += 3) {
        memcpy(bytes + at, (const uint8_t[]){4, 1, 'a'}, 3);
    }
    return slice_make(bytes, at);
}

static void an_entry_that_is_not_told_whole_says_so(void **state)
{
    (void)state;
    /* mail;range=0-0 beside an empty mail */
    const struct slice good = FOUND(1, 0),
                       ranged = BYTES(0x30, 47, 2, 1, 1, 0x64, 42, 4, 7, 'u', 'i', 'd', '=', 'a',
                                      'n', 'n', 0x30, 31, 0x30, 8, 4, 4, 'm', 'a', 'i', 'l', 0x31,
                                      0, 0x30, 19, 4, 13, 'M', 'a', 'i', 'l', ';', 'R', 'a', 'n',
                                      'g', 'e', '=', '0', '-', 0x31, 2, 4, 0);
    uint8_t bytes[8192];
    struct seen seen;
    struct slice answer = joined((struct slice[]){ranged, good}, 2);
    assert_int_equal(search_in(&answer, 0, &seen), ERROR_NONE);
    assert_true(seen.is_cut);
    answer = joined((struct slice[]){long_entry(bytes, LDAP_VALUES_MAX), good}, 2);
    assert_int_equal(search_in(&answer, 0, &seen), ERROR_NONE);
    assert_false(seen.is_cut);
    assert_int_equal(seen.count, LDAP_VALUES_MAX);
    answer = joined((struct slice[]){long_entry(bytes, LDAP_VALUES_MAX + 1), good}, 2);
    assert_int_equal(search_in(&answer, 0, &seen), ERROR_NONE);
    assert_true(seen.is_cut);
    assert_int_equal(seen.count, LDAP_VALUES_MAX);
}

static void who_waits_can_be_interrupted(void **state)
{
    (void)state;
    char problem[LDAP_PROBLEM_SIZE];
    struct ldap_session *session = NULL;
    struct script script = {0};
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    begin(&script);
    const struct ldap_peer peer = {.at = script.at,
                                   .security = LDAP_SECURITY_NONE,
                                   .has_interrupt = true,
                                   .interrupt = ends[0]};
    int64_t far_ms = clock_steady_ms() + 3600 * 1000;
    assert_int_equal(ldap_session_open(library, &peer, far_ms, &session, problem), ERROR_NONE);
    assert_int_equal(write(ends[1], "", 1), 1);
    assert_int_not_equal(
        ldap_session_bind(session, "uid=ann,dc=x", SLICE_LITERAL("secret"), problem), ERROR_NONE);
    ldap_session_close(session);
    end(&script);
    close(ends[0]);
    close(ends[1]);
}

/* ---- TLS ---------------------------------------------------------------------------------- */

static enum error start_tls(struct slice answer)
{
    char problem[LDAP_PROBLEM_SIZE], ignored[TLS_PROBLEM_SIZE];
    struct ldap_session *session = NULL;
    struct script script = {.answers = &answer, .count = 1};
    begin(&script);
    struct tls_client *client = tls_client_new(SLICE_EMPTY, ignored);
    const struct ldap_peer peer = {.at = script.at,
                                   .security = LDAP_SECURITY_STARTTLS,
                                   .name = SLICE_LITERAL("dir.example.net"),
                                   .tls = client};
    enum error error =
        ldap_session_open(library, &peer, clock_steady_ms() + 500, &session, problem);
    assert_null(session);
    tls_client_free(client);
    end(&script);
    return error;
}

static void what_comes_with_the_answer_to_starttls_is_an_error(void **state)
{
    (void)state;
    const struct slice yes = STARTED(1, 0), no = STARTED(1, 2);
    struct slice both = joined((struct slice[]){yes, BOUND(2, 0)}, 2);
    assert_int_equal(start_tls(both), ERROR_INVALID);
    assert_int_equal(start_tls(no), ERROR_IO);
    assert_int_equal(start_tls(yes), ERROR_TIMEOUT); /* no handshake follows */
}

static void nobody_there_is_an_error(void **state)
{
    (void)state;
    char problem[LDAP_PROBLEM_SIZE];
    struct ldap_session *session = NULL;
    struct script script = {0};
    begin(&script);
    end(&script);
    const struct ldap_peer peer = {.at = script.at, .security = LDAP_SECURITY_NONE};
    assert_int_not_equal(
        ldap_session_open(library, &peer, clock_steady_ms() + 60000, &session, problem),
        ERROR_NONE);
    assert_null(session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bind_is_good_or_refused_or_unknown),
        cmocka_unit_test(an_empty_password_is_not_even_asked_for),
        cmocka_unit_test(silence_and_dribble_end_at_the_deadline),
        cmocka_unit_test(garbage_is_an_error),
        cmocka_unit_test(entries_are_told_and_counted),
        cmocka_unit_test(a_page_that_is_not_the_last_is_followed_by_another),
        cmocka_unit_test(an_entry_that_is_not_told_whole_says_so),
        cmocka_unit_test(who_waits_can_be_interrupted),
        cmocka_unit_test(what_comes_with_the_answer_to_starttls_is_an_error),
        cmocka_unit_test(nobody_there_is_an_error),
    };
    if (tls_prepare() != ERROR_NONE) {
        return 1;
    }
    library = ldap_library_open();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ldap_library_free(library);
    return failed;
}
