/* SPDX-License-Identifier: Apache-2.0 */
#include "app/directory_desk.h"

#include "base/digest.h"
#include "base/list.h"
#include "base/password.h"
#include "service/login.h"
#include "sys/clock.h"
#include "sys/fdpass.h"
#include "sys/log.h"
#include "sys/net.h"
#include "sys/worker.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { QUESTIONS_PER_TURN = 64, ENDPOINTS_MAX = LDAP_URLS_MAX * 4 };

struct directory {
    struct generation *generation;
    const struct ldap_config *config;
    struct worker *workers[DIRECTORY_THREADS];
    struct tls_client *trust[DIRECTORY_THREADS]; /* each thread's, made when it needs it */
    uint32_t next_worker;
    _Atomic uint32_t preferred; /* URL that answered last */
    bool is_away;
};

/* One configuration: lives on while questions under it do. */
struct generation {
    struct link link;
    struct directory_desk *desk;
    struct settings *settings;
    uint32_t references; /* the desk's while it is in force, and one of each question */
    struct directory directories[LDAPS_MAX];
    uint32_t count;
};

/* One question: the servers' addresses are looked up on the loop, the rest is a thread's. */
struct question {
    struct link link;
    struct directory *directory;
    const struct ldap_library *library;
    uint32_t thread;
    uint64_t token;
    int64_t deadline_ms;
    uint8_t name[LOGIN_NAME_MAX];
    size_t name_length;
    uint8_t password[PASSWORD_MAX];
    size_t password_length;
    struct dns_query *query;
    uint32_t resolving; /* the URL whose host is looked up */
    struct {
        struct ip_endpoint at;
        uint32_t url;
    } endpoints[ENDPOINTS_MAX];
    size_t endpoint_count;
    /* The thread's answer. */
    enum login_verdict verdict;
    struct buffer texts; /* the addresses, one behind the other */
    struct {
        size_t from, length;
    } addresses[LOGIN_ADDRESSES_MAX];
    uint32_t address_count;
    uint32_t entries;
    char dn[LDAP_TEXT_MAX];
    bool is_found; /* by a search: `dn` is his, as the directory writes it */
    char problem[LDAP_PROBLEM_SIZE];
};

struct directory_desk {
    struct loop *loop;
    const struct ldap_library *library;
    struct dns *dns;
    struct generation *generation;
    struct link generations;
    struct loop_timer *sweeper;
    struct link questions;
    struct buffer message;
    struct loop_watch *watch;
    int fd; /* -1: nobody asks */
};

/* ---- a generation ------------------------------------------------------------------------- */

static void generation_free(struct generation *generation)
{
    list_remove(&generation->link);
    for (uint32_t i = 0; i < generation->count; i++) {
        for (int k = 0; k < DIRECTORY_THREADS; k++) {
            worker_free(generation->directories[i].workers[k]);
            tls_client_free(generation->directories[i].trust[k]);
        }
    }
    settings_free(generation->settings);
    free(generation);
}

static void sweep(void *context)
{
    struct directory_desk *desk = context;
    LIST_EACH(&desk->generations, at, after)
    {
        struct generation *generation = LIST_ENTRY(at, struct generation, link);
        if (generation->references == 0) {
            generation_free(generation);
        }
    }
}

/* Later, for one of its threads may be what has ended just now. */
static void generation_unref(struct generation *generation)
{
    if (--generation->references == 0) {
        loop_timer_set(generation->desk->sweeper, 0);
    }
}

static struct generation *generation_new(struct directory_desk *desk, struct settings *settings)
{
    const struct service_config *config = settings_config(settings);
    struct generation *generation = calloc(1, sizeof(*generation));
    bool good = generation != NULL;
    if (!good) {
        return NULL;
    }
    generation->desk = desk;
    generation->references = 1;
    list_append(&desk->generations, &generation->link);
    for (; generation->count < config->ldap_count; generation->count++) {
        struct directory *directory = &generation->directories[generation->count];
        directory->generation = generation;
        directory->config = &config->ldaps[generation->count];
        for (int i = 0; i < DIRECTORY_THREADS; i++) {
            directory->workers[i] = worker_new(desk->loop, "directory");
            good = good && directory->workers[i] != NULL;
        }
    }
    if (!good) {
        generation_free(generation);
        return NULL;
    }
    generation->settings = settings;
    return generation;
}

/* ---- one user, on a thread ---------------------------------------------------------------- */

static struct slice name_of(const struct question *question)
{
    return slice_make(question->name, question->name_length);
}

static bool fill(enum ldap_template kind, struct slice text, const struct question *question,
                 char ret_text[LDAP_TEXT_MAX])
{
    struct buffer buffer;
    buffer_init(&buffer, LDAP_TEXT_MAX - 1);
    bool good = ldap_template_fill(kind, text, name_of(question), &buffer) && !buffer.failed;
    if (good) {
        memcpy(ret_text, buffer.data, buffer.length);
        ret_text[buffer.length] = '\0';
    }
    buffer_done(&buffer);
    return good;
}

static void copy_text(struct slice text, char ret_text[LDAP_TEXT_MAX])
{
    text = slice_take(text, LDAP_TEXT_MAX - 1); /* no configuration has a longer one */
    memcpy(ret_text, text.data != NULL ? text.data : (const uint8_t *)"", text.length);
    ret_text[text.length] = '\0';
}

static void take_address(struct question *question, struct slice value)
{
    static const struct slice scheme = SLICE_LITERAL("smtp:");
    if (slice_starts_fold(value, scheme)) {
        value = slice_skip(value, scheme.length);
    }
    if (question->address_count < LOGIN_ADDRESSES_MAX && login_address_fault(value) == NULL &&
        slice_find(value, '*') == value.length) {
        question->addresses[question->address_count].from = question->texts.length;
        question->addresses[question->address_count++].length = value.length;
        buffer_append(&question->texts, value);
    }
}

static bool take_entry(void *context, const struct ldap_entry *entry)
{
    struct question *question = context;
    size_t length = strlen(entry->dn);
    if (question->entries++ == 0 && length < sizeof(question->dn)) {
        memcpy(question->dn, entry->dn, length + 1);
        for (size_t i = 0; i < entry->count; i++) {
            take_address(question, entry->values[i].bytes);
        }
    }
    return true;
}

static enum error search(struct question *question, struct ldap_session *session, const char *base,
                         const char *filter, enum ldap_reach reach)
{
    const struct ldap_config *config = question->directory->config;
    const struct ldap_search what = {.base = base,
                                     .reach = reach,
                                     .filter = filter,
                                     .attributes = config->attributes,
                                     .attribute_count = config->attribute_count,
                                     .limit = 2};
    question->is_found = false;
    question->entries = 0;
    question->address_count = 0;
    question->dn[0] = '\0';
    return ldap_session_search(session, &what, take_entry, question, question->problem);
}

static enum login_verdict away(struct question *question, const char *what)
{
    if (question->problem[0] == '\0') {
        snprintf(question->problem, sizeof(question->problem), "%s", what);
    }
    return LOGIN_AWAY;
}

static enum login_verdict bind_as_user(struct question *question, struct ldap_session *session,
                                       const char *dn)
{
    enum error error = ldap_session_bind(
        session, dn, slice_make(question->password, question->password_length), question->problem);
    return error == ERROR_NONE     ? LOGIN_GOOD
           : error == ERROR_DENIED ? LOGIN_REFUSED
                                   : away(question, "bind");
}

/* By a name made of what he typed; he reads his addresses himself. */
static enum login_verdict ask_by_name(struct question *question, struct ldap_session *session)
{
    char dn[LDAP_TEXT_MAX];
    if (!fill(LDAP_TEMPLATE_NAME, question->directory->config->dn, question, dn)) {
        return LOGIN_UNKNOWN;
    }
    enum login_verdict verdict = bind_as_user(question, session, dn);
    if (verdict != LOGIN_GOOD) {
        return verdict;
    }
    enum error error = search(question, session, dn, "(objectClass=*)", LDAP_REACH_ENTRY);
    return error == ERROR_NONE || error == ERROR_MISSING || error == ERROR_DENIED
               ? LOGIN_GOOD
               : away(question, "search");
}

static enum login_verdict ask_by_search(struct question *question, struct ldap_session *session)
{
    const struct ldap_config *config = question->directory->config;
    char base[LDAP_TEXT_MAX], filter[LDAP_TEXT_MAX], dn[LDAP_TEXT_MAX];
    if (!fill(LDAP_TEMPLATE_FILTER, config->filter, question, filter)) {
        return LOGIN_UNKNOWN;
    }
    if (config->bind_dn.length > 0) {
        copy_text(config->bind_dn, dn);
        enum error error = ldap_session_bind(session, dn, config->bind_password, question->problem);
        if (error != ERROR_NONE) {
            return away(question, "bind-dn");
        }
    }
    copy_text(config->base, base);
    enum error error = search(question, session, base, filter, LDAP_REACH_TREE);
    if (error == ERROR_LIMIT || question->entries > 1) {
        snprintf(question->problem, sizeof(question->problem), "several entries match one name");
        return LOGIN_REFUSED;
    }
    if (error != ERROR_NONE) {
        return away(question, "search");
    }
    if (question->entries == 0 || question->dn[0] == '\0') {
        return LOGIN_UNKNOWN;
    }
    question->is_found = true;
    return bind_as_user(question, session, question->dn);
}

static bool prepare_trust(struct question *question)
{
    struct directory *directory = question->directory;
    char problem[TLS_PROBLEM_SIZE] = "";
    if (directory->config->has_tls && directory->trust[question->thread] == NULL) {
        directory->trust[question->thread] = tls_client_new(directory->config->tls_ca, problem);
        if (directory->trust[question->thread] == NULL) {
            snprintf(question->problem, sizeof(question->problem), "tls-ca: %s", problem);
            return false;
        }
    }
    return true;
}

static enum login_verdict ask_endpoint(struct question *question, size_t index)
{
    struct directory *directory = question->directory;
    const struct ldap_config *config = directory->config;
    const struct ldap_url *url = &config->urls[question->endpoints[index].url];
    const struct ldap_peer peer = {
        .at = question->endpoints[index].at,
        .security = url->has_tls      ? LDAP_SECURITY_TLS
                    : config->has_tls ? LDAP_SECURITY_STARTTLS
                                      : LDAP_SECURITY_NONE,
        .name = config->tls_name.length > 0 ? config->tls_name : url->host,
        .tls = directory->trust[question->thread],
    };
    int64_t deadline_ms = clock_steady_ms() + config->timeout_ms;
    struct ldap_session *session = NULL;
    if (deadline_ms > question->deadline_ms) {
        deadline_ms = question->deadline_ms;
    }
    question->problem[0] = '\0';
    if (ldap_session_open(question->library, &peer, deadline_ms, &session, question->problem) !=
        ERROR_NONE) {
        return LOGIN_AWAY;
    }
    enum login_verdict verdict =
        config->dn.length > 0 ? ask_by_name(question, session) : ask_by_search(question, session);
    ldap_session_close(session);
    return verdict;
}

static void ask(void *context)
{
    struct question *question = context;
    struct directory *directory = question->directory;
    uint32_t preferred = atomic_load(&directory->preferred);
    question->verdict = LOGIN_AWAY;
    if (question->endpoint_count == 0) {
        snprintf(question->problem, sizeof(question->problem), "no address of it is known");
    }
    /* First those of the URL that answered last, then the others. */
    for (int round = 0; round < 2 && prepare_trust(question); round++) {
        for (size_t i = 0; i < question->endpoint_count; i++) {
            uint32_t url = question->endpoints[i].url;
            if ((url == preferred) != (round == 0) || clock_steady_ms() >= question->deadline_ms) {
                continue;
            }
            question->verdict = ask_endpoint(question, i);
            if (question->verdict != LOGIN_AWAY) {
                atomic_store(&directory->preferred, url);
                return;
            }
        }
    }
}

/* ---- its answer --------------------------------------------------------------------------- */

static void question_free(struct question *question)
{
    struct generation *generation = question->directory->generation;
    if (question->query != NULL) {
        dns_cancel(question->query);
    }
    list_remove(&question->link);
    buffer_done(&question->texts);
    digest_forget(question, sizeof(*question));
    free(question);
    generation_unref(generation);
}

static void send_answer(struct directory_desk *desk, const struct login_answer *answer)
{
    buffer_clear(&desk->message);
    login_put_answer(&desk->message, answer);
    if (desk->fd >= 0 &&
        (desk->message.failed ||
         fdpass_send(desk->fd, buffer_slice(&desk->message), NULL, 0) != ERROR_NONE)) {
        log_event(LOG_LEVEL_WARNING, "login-unanswered", LOG_TEXT("reason", "login is slow"));
    }
}

/* Said when it changes, not at each login. */
static void log_state(struct directory *directory, const struct question *question)
{
    bool is_away = question->verdict == LOGIN_AWAY;
    if (is_away && !directory->is_away) {
        log_event(LOG_LEVEL_ERROR, "directory-away", LOG_SLICE("ldap", directory->config->name),
                  LOG_TEXT("reason", question->problem));
    } else if (!is_away && directory->is_away) {
        log_event(LOG_LEVEL_INFO, "directory-back", LOG_SLICE("ldap", directory->config->name));
    } else if (question->problem[0] != '\0') {
        log_event(LOG_LEVEL_DEBUG, "directory", LOG_SLICE("ldap", directory->config->name),
                  LOG_TEXT("reason", question->problem));
    }
    directory->is_away = is_away;
}

/* A directory takes several spellings for one name, and a filter may look in several attributes. */
static struct slice identity_of(const struct question *question, uint8_t digest[DIGEST_MAX_BYTES])
{
    struct buffer whose;
    buffer_init(&whose, 0);
    buffer_put_bytes(&whose, question->directory->config->name);
    buffer_append_text(&whose, question->dn);
    bool good = question->is_found && !whose.failed &&
                digest_make(DIGEST_SHA256, buffer_slice(&whose), digest) == ERROR_NONE;
    buffer_done(&whose);
    return good ? slice_make(digest, DIGEST_SHA256_BYTES) : SLICE_EMPTY;
}

static void asked(void *context)
{
    struct question *question = context;
    struct login_answer answer = {.token = question->token, .verdict = question->verdict};
    uint8_t digest[DIGEST_MAX_BYTES];
    log_state(question->directory, question);
    answer.identity = identity_of(question, digest);
    if (question->verdict == LOGIN_GOOD) {
        answer.account = name_of(question);
        for (uint32_t i = 0; !question->texts.failed && i < question->address_count; i++) {
            answer.addresses[answer.address_count++] = slice_make(
                question->texts.data + question->addresses[i].from, question->addresses[i].length);
        }
    }
    send_answer(question->directory->generation->desk, &answer);
    question_free(question);
}

/* ---- its servers' addresses --------------------------------------------------------------- */

static void look_up_next(struct question *question);

static void add_endpoint(struct question *question, const struct ip_address *address)
{
    if (question->endpoint_count < ENDPOINTS_MAX) {
        const struct ldap_url *url = &question->directory->config->urls[question->resolving];
        question->endpoints[question->endpoint_count].at =
            (struct ip_endpoint){*address, url->port};
        question->endpoints[question->endpoint_count++].url = question->resolving;
    }
}

static void on_addresses(void *context, const struct dns_answer *answer)
{
    struct question *question = context;
    question->query = NULL;
    for (size_t i = 0; answer->error == ERROR_NONE && i < answer->count; i++) {
        add_endpoint(question, &answer->addresses[i]);
    }
    question->resolving++;
    look_up_next(question);
}

static void look_up_next(struct question *question)
{
    struct directory *directory = question->directory;
    for (; question->resolving < directory->config->url_count; question->resolving++) {
        struct slice host = directory->config->urls[question->resolving].host;
        struct ip_address literal;
        if (ip_from_text(host, &literal)) {
            add_endpoint(question, &literal);
            continue;
        }
        question->query =
            dns_resolve(directory->generation->desk->dns, host, on_addresses, question);
        if (question->query != NULL) {
            return;
        }
    }
    question->thread = directory->next_worker++ % DIRECTORY_THREADS;
    if (worker_submit(directory->workers[question->thread], ask, asked, question) != ERROR_NONE) {
        question->verdict = LOGIN_AWAY;
        asked(question);
    }
}

/* ---- questions ---------------------------------------------------------------------------- */

static struct directory *find_directory(struct generation *generation, struct slice name)
{
    for (uint32_t i = 0; i < generation->count; i++) {
        if (slice_equal_fold(generation->directories[i].config->name, name)) {
            return &generation->directories[i];
        }
    }
    return NULL;
}

static void take_request(struct directory_desk *desk, const struct login_request *request)
{
    struct directory *directory = find_directory(desk->generation, request->listener);
    struct login_answer answer = {.token = request->token, .verdict = LOGIN_AWAY};
    if (login_name_fault(request->name) != NULL) {
        answer.verdict = LOGIN_UNKNOWN;
        directory = NULL;
    }
    struct question *question = directory != NULL && request->secret.length <= PASSWORD_MAX
                                    ? calloc(1, sizeof(*question))
                                    : NULL;
    if (question == NULL) {
        send_answer(desk, &answer);
        return;
    }
    question->directory = directory;
    question->library = desk->library;
    question->token = request->token;
    question->deadline_ms = clock_steady_ms() + DIRECTORY_PATIENCE_MS;
    memcpy(question->name, request->name.data, request->name.length);
    question->name_length = request->name.length;
    if (request->secret.length > 0) {
        memcpy(question->password, request->secret.data, request->secret.length);
    }
    question->password_length = request->secret.length;
    buffer_init(&question->texts, LOGIN_MESSAGE_MAX);
    directory->generation->references++;
    list_append(&desk->questions, &question->link);
    look_up_next(question);
}

static void on_question(void *context, unsigned ready)
{
    struct directory_desk *desk = context;
    uint8_t bytes[LOGIN_MESSAGE_MAX];
    (void)ready;
    for (int i = 0; i < QUESTIONS_PER_TURN && desk->fd >= 0; i++) {
        struct login_request request;
        size_t length = 0;
        enum error error = fdpass_receive_bytes(desk->fd, bytes, sizeof(bytes), &length);
        if (error == ERROR_AGAIN) {
            break;
        }
        if (error != ERROR_NONE || !login_get_request(slice_make(bytes, length), &request) ||
            request.question != LOGIN_PASSWORD) {
            directory_desk_set_link(desk, -1); /* the keeper gives another */
            break;
        }
        take_request(desk, &request);
    }
    digest_forget(bytes, sizeof(bytes));
}

void directory_desk_set_link(struct directory_desk *desk, int fd)
{
    if (desk->fd >= 0) {
        loop_watch_free(desk->watch);
        net_close(desk->fd);
    }
    desk->watch = fd >= 0 ? loop_watch_new(desk->loop, fd, on_question, desk) : NULL;
    desk->fd = desk->watch != NULL ? fd : -1;
    if (desk->watch != NULL) {
        loop_watch_set(desk->watch, LOOP_READ);
    } else if (fd >= 0) {
        net_close(fd);
    }
}

/* ---- begin and end ------------------------------------------------------------------------ */

enum error directory_desk_reconfigure(struct directory_desk *desk, struct settings *settings)
{
    struct generation *generation = generation_new(desk, settings);
    if (generation == NULL) {
        return ERROR_MEMORY;
    }
    if (desk->generation != NULL) {
        generation_unref(desk->generation);
    }
    desk->generation = generation;
    return ERROR_NONE;
}

struct directory_desk *directory_desk_new(struct loop *loop, struct settings *settings,
                                          const struct ldap_library *library, struct dns *dns)
{
    struct directory_desk *desk = calloc(1, sizeof(*desk));
    if (desk == NULL) {
        return NULL;
    }
    *desk = (struct directory_desk){.loop = loop, .library = library, .dns = dns, .fd = -1};
    list_init(&desk->questions);
    list_init(&desk->generations);
    buffer_init(&desk->message, LOGIN_MESSAGE_MAX);
    desk->sweeper = loop_timer_new(loop, sweep, desk);
    if (desk->sweeper == NULL || directory_desk_reconfigure(desk, settings) != ERROR_NONE) {
        directory_desk_free(desk);
        return NULL;
    }
    return desk;
}

void directory_desk_free(struct directory_desk *desk)
{
    if (desk == NULL) {
        return;
    }
    directory_desk_set_link(desk, -1);
    /* Those that a thread has end with it; the others have not begun. */
    LIST_EACH(&desk->questions, at, after)
    {
        struct question *question = LIST_ENTRY(at, struct question, link);
        if (question->query != NULL) {
            question_free(question);
        }
    }
    while (!list_is_empty(&desk->questions)) {
        struct question *question = LIST_ENTRY(desk->questions.next, struct question, link);
        worker_drain(question->directory->workers[question->thread]);
    }
    while (!list_is_empty(&desk->generations)) {
        generation_free(LIST_ENTRY(desk->generations.next, struct generation, link));
    }
    loop_timer_free(desk->sweeper);
    buffer_done(&desk->message);
    free(desk);
}
