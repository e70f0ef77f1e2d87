/* SPDX-License-Identifier: Apache-2.0 */
#include "app/directory_internal.h"

#include "base/digest.h"
#include "base/password.h"
#include "service/login.h"
#include "sys/fdpass.h"
#include "sys/log.h"
#include "sys/net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct question {
    struct visit visit; /* the first */
    uint64_t token;
    uint8_t name[LOGIN_NAME_MAX];
    size_t name_length;
    uint8_t password[PASSWORD_MAX];
    size_t password_length;
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
};

/* ---- a generation ------------------------------------------------------------------------- */

static void generation_free(struct generation *generation)
{
    list_remove(&generation->link);
    for (uint32_t i = 0; i < generation->count; i++) {
        for (int k = 0; k < DIRECTORY_WORKERS; k++) {
            worker_free(generation->directories[i].workers[k]);
            tls_client_free(generation->directories[i].trust[k]);
        }
    }
    if (generation->over >= 0) {
        close(generation->over);
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

void directory_unref(struct generation *generation)
{
    if (--generation->references == 0) {
        loop_timer_set(generation->desk->sweeper, 0);
    }
}

/* The desk's reference; lists are read no further. */
static void generation_end(struct generation *generation)
{
    (void)!write(generation->over, &(uint64_t){1}, sizeof(uint64_t));
    directory_unref(generation);
}

/* Whether a domain has its recipients from it. */
static bool gives_lists(const struct service_config *config, const struct ldap_config *ldap)
{
    for (uint32_t i = 0; i < config->relay.route_count; i++) {
        const struct route_config *route = &config->relay.routes[i];
        struct slice name;
        if (route_list_is_directory(route, &name) && slice_equal(name, ldap->name)) {
            return true;
        }
    }
    return false;
}

static bool make_threads(struct directory *directory, struct loop *loop, bool gives_lists)
{
    bool good = true;
    for (int i = 0; i < DIRECTORY_THREADS + gives_lists; i++) {
        directory->workers[i] = worker_new(loop, "directory");
        good = good && directory->workers[i] != NULL;
    }
    return good;
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
    generation->over = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    good = generation->over >= 0;
    list_append(&desk->generations, &generation->link);
    for (; generation->count < config->ldap_count; generation->count++) {
        struct directory *directory = &generation->directories[generation->count];
        directory->generation = generation;
        directory->config = &config->ldaps[generation->count];
        good = make_threads(directory, desk->loop, gives_lists(config, directory->config)) && good;
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
    const struct ldap_config *config = question->visit.directory->config;
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
    return ldap_session_search(session, &what, take_entry, question, question->visit.problem);
}

static enum login_verdict away(struct question *question, const char *what)
{
    (void)visit_fails(&question->visit, what);
    return LOGIN_AWAY;
}

static enum login_verdict bind_as_user(struct question *question, struct ldap_session *session,
                                       const char *dn)
{
    enum error error =
        ldap_session_bind(session, dn, slice_make(question->password, question->password_length),
                          question->visit.problem);
    return error == ERROR_NONE     ? LOGIN_GOOD
           : error == ERROR_DENIED ? LOGIN_REFUSED
                                   : away(question, "bind");
}

/* By a name made of what he typed; he reads his addresses himself. */
static enum login_verdict ask_by_name(struct question *question, struct ldap_session *session)
{
    char dn[LDAP_TEXT_MAX];
    if (!fill(LDAP_TEMPLATE_NAME, question->visit.directory->config->dn, question, dn)) {
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
    const struct ldap_config *config = question->visit.directory->config;
    char base[LDAP_TEXT_MAX], filter[LDAP_TEXT_MAX];
    if (!fill(LDAP_TEMPLATE_FILTER, config->filter, question, filter)) {
        return LOGIN_UNKNOWN;
    }
    if (!visit_bind(&question->visit, session)) {
        return LOGIN_AWAY;
    }
    visit_text(config->base, base);
    enum error error = search(question, session, base, filter, LDAP_REACH_TREE);
    if (error == ERROR_LIMIT || question->entries > 1) {
        snprintf(question->visit.problem, sizeof(question->visit.problem),
                 "several entries match one name");
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

static bool ask(struct visit *visit, struct ldap_session *session)
{
    struct question *question = (struct question *)visit;
    question->verdict = visit->directory->config->dn.length > 0 ? ask_by_name(question, session)
                                                                : ask_by_search(question, session);
    return question->verdict != LOGIN_AWAY;
}

/* ---- its answer --------------------------------------------------------------------------- */

static void question_free(struct visit *visit)
{
    struct question *question = (struct question *)visit;
    visit_done(visit);
    buffer_done(&question->texts);
    digest_forget(question, sizeof(*question));
    free(question);
}

static void send_answer(struct directory_desk *desk, const struct login_answer *answer)
{
    buffer_clear(&desk->message);
    login_put_answer(&desk->message, answer);
    if (desk->logins.fd >= 0 &&
        (desk->message.failed ||
         fdpass_send(desk->logins.fd, buffer_slice(&desk->message), NULL, 0) != ERROR_NONE)) {
        log_event(LOG_LEVEL_WARNING, "login-unanswered", LOG_TEXT("reason", "login is slow"));
    }
}

/* Said when it changes, not at each login. */
static void log_state(struct directory *directory, const struct question *question)
{
    bool is_away = !question->visit.is_answered;
    if (is_away && !directory->is_away) {
        log_event(LOG_LEVEL_ERROR, "directory-away", LOG_SLICE("ldap", directory->config->name),
                  LOG_TEXT("reason", question->visit.problem));
    } else if (!is_away && directory->is_away) {
        log_event(LOG_LEVEL_INFO, "directory-back", LOG_SLICE("ldap", directory->config->name));
    } else if (question->visit.problem[0] != '\0') {
        log_event(LOG_LEVEL_DEBUG, "directory", LOG_SLICE("ldap", directory->config->name),
                  LOG_TEXT("reason", question->visit.problem));
    }
    directory->is_away = is_away;
}

/* A directory takes several spellings for one name, and a filter may look in several attributes. */
static struct slice identity_of(const struct question *question, uint8_t digest[DIGEST_MAX_BYTES])
{
    struct buffer whose;
    buffer_init(&whose, 0);
    buffer_put_bytes(&whose, question->visit.directory->config->name);
    buffer_append_text(&whose, question->dn);
    bool good = question->is_found && !whose.failed &&
                digest_make(DIGEST_SHA256, buffer_slice(&whose), digest) == ERROR_NONE;
    buffer_done(&whose);
    return good ? slice_make(digest, DIGEST_SHA256_BYTES) : SLICE_EMPTY;
}

static void asked(struct visit *visit)
{
    struct question *question = (struct question *)visit;
    struct login_answer answer = {.token = question->token,
                                  .verdict = visit->is_answered ? question->verdict : LOGIN_AWAY};
    uint8_t digest[DIGEST_MAX_BYTES];
    log_state(visit->directory, question);
    answer.identity = identity_of(question, digest);
    if (answer.verdict == LOGIN_GOOD) {
        answer.account = name_of(question);
        for (uint32_t i = 0; !question->texts.failed && i < question->address_count; i++) {
            answer.addresses[answer.address_count++] = slice_make(
                question->texts.data + question->addresses[i].from, question->addresses[i].length);
        }
    }
    send_answer(visit->directory->generation->desk, &answer);
    question_free(visit);
}

static const struct visit_kind login_visit = {.ask = ask, .end = asked, .free = question_free};

/* ---- questions ---------------------------------------------------------------------------- */

struct directory *directory_named(struct generation *generation, struct slice name)
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
    struct directory *directory = directory_named(desk->generation, request->listener);
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
    question->token = request->token;
    memcpy(question->name, request->name.data, request->name.length);
    question->name_length = request->name.length;
    if (request->secret.length > 0) {
        memcpy(question->password, request->secret.data, request->secret.length);
    }
    question->password_length = request->secret.length;
    buffer_init(&question->texts, LOGIN_MESSAGE_MAX);
    visit_begin(&question->visit, &login_visit, directory,
                directory->next_worker++ % DIRECTORY_THREADS, DIRECTORY_PATIENCE_MS);
}

static bool question_heard(void *context, struct slice message)
{
    struct directory_desk *desk = context;
    struct login_request request;
    bool good = login_get_request(message, &request) && request.question == LOGIN_PASSWORD;
    if (good) {
        take_request(desk, &request);
    }
    return good;
}

static void on_question(void *context, unsigned ready)
{
    struct directory_desk *desk = context;
    (void)ready;
    if (!login_hear(&desk->logins.fd, question_heard, desk)) {
        directory_desk_set_logins(desk, -1); /* the keeper gives another */
    }
}

void directory_link_set(struct directory_desk *desk, struct directory_link *link, int fd,
                        loop_watch_fn *heard)
{
    if (link->fd >= 0) {
        loop_watch_free(link->watch);
        net_close(link->fd);
    }
    link->watch = fd >= 0 ? loop_watch_new(desk->loop, fd, heard, desk) : NULL;
    link->fd = link->watch != NULL ? fd : -1;
    if (link->watch != NULL) {
        loop_watch_set(link->watch, LOOP_READ);
    } else if (fd >= 0) {
        net_close(fd);
    }
}

void directory_desk_set_logins(struct directory_desk *desk, int fd)
{
    directory_link_set(desk, &desk->logins, fd, on_question);
}

void directory_desk_set_lists(struct directory_desk *desk, int fd)
{
    directory_link_set(desk, &desk->lists, fd, directory_list_heard);
}

/* ---- begin and end ------------------------------------------------------------------------ */

enum error directory_desk_reconfigure(struct directory_desk *desk, struct settings *settings)
{
    struct generation *generation = generation_new(desk, settings);
    if (generation == NULL) {
        return ERROR_MEMORY;
    }
    if (desk->generation != NULL) {
        generation_end(desk->generation);
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
    *desk = (struct directory_desk){
        .loop = loop, .library = library, .dns = dns, .logins = {.fd = -1}, .lists = {.fd = -1}};
    list_init(&desk->visits);
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
    directory_desk_set_logins(desk, -1);
    directory_desk_set_lists(desk, -1);
    if (desk->generation != NULL) {
        generation_end(desk->generation);
    }
    /* Those that a thread has end with it; the others have not begun. */
    LIST_EACH(&desk->visits, at, after)
    {
        struct visit *visit = LIST_ENTRY(at, struct visit, link);
        if (visit->query != NULL) {
            visit->kind->free(visit);
        }
    }
    while (!list_is_empty(&desk->visits)) {
        struct visit *visit = LIST_ENTRY(desk->visits.next, struct visit, link);
        worker_drain(visit->directory->workers[visit->thread]);
    }
    while (!list_is_empty(&desk->generations)) {
        generation_free(LIST_ENTRY(desk->generations.next, struct generation, link));
    }
    loop_timer_free(desk->sweeper);
    buffer_done(&desk->message);
    free(desk);
}
