/* SPDX-License-Identifier: Apache-2.0 */
#include "service/login_desk.h"

#include "base/list.h"
#include "base/password.h"
#include "service/login_remote.h"
#include "service/login_store.h"
#include "service/login_throttle.h"
#include "sys/clock.h"
#include "sys/fdpass.h"
#include "sys/log.h"
#include "sys/net.h"
#include "sys/random.h"
#include "sys/worker.h"

#include <stdlib.h>
#include <sys/stat.h>

enum { WORKERS = 2, QUESTIONS_PER_TURN = 64 };

/* One loop of edge-in. */
struct asker {
    struct link link;
    struct login_desk *desk;
    struct loop_watch *watch;
    uint32_t references; /* its own, and one for each answer on its way */
    int fd;              /* -1: it has gone */
};

/* A password on its way through a worker, or to those who know. */
struct job {
    struct link link;
    struct asker *asker;
    uint64_t token;
    struct ip_address client;
    char listener[64];
    uint8_t name[LOGIN_NAME_MAX];
    size_t name_length;
    uint8_t password[PASSWORD_MAX];
    size_t password_length;
    char hash[PASSWORD_HASH_MAX];
    bool is_decoy;   /* nobody has the name */
    bool is_remote;  /* it waits for who knows it */
    uint32_t source; /* of the listener's, that is to be asked next */
    int64_t asked_ms;
    bool proves;
};

struct delayed {
    struct link link; /* by due_ms, more or less: delays differ little */
    struct asker *asker;
    uint64_t token;
    int64_t due_ms;
};

struct login_desk {
    struct loop *loop;
    const struct service_config *config;
    struct counters *counters;
    struct disk *disk;
    struct login_store *store;
    struct login_throttle *throttle;
    struct login_remote *directory, *pam;
    int core_fd; /* -1: it is away */
    struct worker *workers[WORKERS];
    uint32_t next_worker;
    struct link askers, jobs, delayed;
    uint32_t job_count, delayed_count;
    struct loop_timer *timer;
    struct buffer message;
    /* The file that `store` was read from. */
    uint64_t inode, bytes;
    struct timespec changed;
};

/* ---- the table ---------------------------------------------------------------------------- */

static void take_store(struct login_desk *desk, enum error error, struct login_store *store,
                       uint32_t line)
{
    if (error != ERROR_NONE) { /* the last good one serves on */
        log_event(LOG_LEVEL_ERROR, "users-unreadable",
                  LOG_TEXT("path", LOGIN_DIRECTORY "/" LOGIN_FILE), LOG_NUMBER("line", line),
                  LOG_TEXT("reason", error_text(error)));
        return;
    }
    login_store_free(desk->store);
    desk->store = store;
}

/* The tool replaces the file: another inode is another table. */
static void refresh(struct login_desk *desk)
{
    struct disk_file *file;
    struct stat status = {0};
    enum error error = desk->disk->ops->open(desk->disk, LOGIN_FILE, DISK_READ, &file);
    if (error == ERROR_NONE) {
        bool known = fstat(disk_file_descriptor(file), &status) == 0;
        desk->disk->ops->close(file);
        if (!known) {
            return;
        }
    } else if (error != ERROR_MISSING) {
        return;
    }
    if (status.st_ino == desk->inode && (uint64_t)status.st_size == desk->bytes &&
        status.st_mtim.tv_sec == desk->changed.tv_sec &&
        status.st_mtim.tv_nsec == desk->changed.tv_nsec) {
        return;
    }
    struct login_store *store = NULL;
    uint32_t line = 0;
    if (error == ERROR_MISSING) {
        store = login_store_new();
        error = store == NULL ? ERROR_MEMORY : ERROR_NONE;
    } else {
        error = login_store_read(desk->disk, &store, &line);
    }
    if (error != ERROR_MEMORY) { /* else it is read again with the next question */
        desk->inode = status.st_ino;
        desk->bytes = (uint64_t)status.st_size;
        desk->changed = status.st_mtim;
    }
    take_store(desk, error, store, line);
}

/* ---- answers ------------------------------------------------------------------------------ */

static void asker_unref(struct asker *asker)
{
    if (--asker->references == 0) {
        list_remove(&asker->link);
        free(asker);
    }
}

static void asker_gone(struct asker *asker)
{
    if (asker->fd >= 0) {
        loop_watch_free(asker->watch);
        net_close(asker->fd);
        asker->fd = -1;
        asker_unref(asker);
    }
}

static void answer(struct login_desk *desk, struct asker *asker, const struct login_answer *reply)
{
    if (asker->fd < 0) {
        return;
    }
    buffer_clear(&desk->message);
    login_put_answer(&desk->message, reply);
    if (desk->message.failed ||
        fdpass_send(asker->fd, buffer_slice(&desk->message), NULL, 0) != ERROR_NONE) {
        log_event(LOG_LEVEL_WARNING, "login-unanswered", LOG_TEXT("reason", "edge-in is slow"));
    }
}

static void answer_verdict(struct login_desk *desk, struct asker *asker, uint64_t token,
                           enum login_verdict verdict)
{
    answer(desk, asker, &(struct login_answer){.token = token, .verdict = verdict});
}

static void on_timer(void *context)
{
    struct login_desk *desk = context;
    int64_t now_ms = clock_steady_ms(), next_ms = INT64_MAX;
    LIST_EACH(&desk->delayed, at, after)
    {
        struct delayed *delayed = LIST_ENTRY(at, struct delayed, link);
        if (delayed->due_ms > now_ms) {
            next_ms = delayed->due_ms < next_ms ? delayed->due_ms : next_ms;
            continue;
        }
        answer_verdict(desk, delayed->asker, delayed->token, LOGIN_REFUSED);
        list_remove(&delayed->link);
        desk->delayed_count--;
        asker_unref(delayed->asker);
        free(delayed);
    }
    if (next_ms != INT64_MAX) {
        loop_timer_set(desk->timer, next_ms - now_ms);
    }
}

static void refuse_later(struct login_desk *desk, struct asker *asker, uint64_t token,
                         int64_t delay_ms)
{
    struct delayed *delayed =
        desk->delayed_count < LOGIN_DESK_DELAYED ? calloc(1, sizeof(*delayed)) : NULL;
    if (delayed == NULL) {
        answer_verdict(desk, asker, token, LOGIN_REFUSED);
        return;
    }
    delayed->asker = asker;
    delayed->token = token;
    delayed->due_ms = clock_steady_ms() + delay_ms;
    asker->references++;
    list_append(&desk->delayed, &delayed->link);
    desk->delayed_count++;
    on_timer(desk);
}

/* ---- who is who --------------------------------------------------------------------------- */

static const struct listener_config *find_listener(const struct login_desk *desk, struct slice name)
{
    for (uint32_t i = 0; i < desk->config->listener_count; i++) {
        if (slice_equal(desk->config->listeners[i].name, name)) {
            return &desk->config->listeners[i];
        }
    }
    return NULL;
}

static const struct login_entry *find_entry(const struct login_source *source, struct slice name)
{
    const struct login_entry *found = NULL;
    for (uint32_t i = 0; i < source->entry_count; i++) {
        if (slice_equal_fold(source->entries[i].name, name)) {
            found = &source->entries[i];
        }
    }
    return found;
}

/* NULL: nobody of that name may fetch mail there. */
static const struct odmr_user *find_site(const struct listener_config *listener, struct slice name)
{
    const struct odmr_user *found = NULL;
    for (uint32_t i = 0; i < listener->odmr_user_count; i++) {
        if (slice_equal_fold(listener->odmr_users[i].name, name)) {
            found = &listener->odmr_users[i];
        }
    }
    return found;
}

/* What the sources of a listener know of a name. */
struct known {
    struct slice name;                 /* as it is written there */
    struct slice hash;                 /* empty: nobody has it */
    struct slice decoy;                /* to be checked then */
    const struct login_source *remote; /* not NULL: it is to be asked, of the index `at` */
    uint32_t at;
    const struct login_user *user;
    const struct odmr_user *site; /* of a listener with protocol = odmr, which asks nobody else */
    const struct slice *addresses;
    uint32_t address_count;
};

static bool is_remote(const struct login_source *source)
{
    return source->kind == LOGIN_SOURCE_LDAP || source->kind == LOGIN_SOURCE_PAM;
}

/* Of those that are elsewhere the ones before `first` do not know it. */
static struct known look_up(const struct login_desk *desk, const struct listener_config *listener,
                            struct slice name, uint32_t first)
{
    struct known known = {.name = name, .decoy = password_nobody()};
    known.site = listener != NULL ? find_site(listener, name) : NULL;
    if (known.site != NULL) {
        known.name = known.site->name;
        known.addresses = known.site->domains;
        known.address_count = known.site->domain_count;
    }
    for (uint32_t i = 0; listener != NULL && i < listener->login_source_count; i++) {
        const struct login_source *source = &listener->login_sources[i];
        const struct login_user *user = NULL;
        const struct login_entry *entry = NULL;
        if (is_remote(source) && i >= first) {
            known.remote = source;
            known.at = i;
            return known;
        }
        if (source->kind == LOGIN_SOURCE_USERS) {
            user = login_store_find(desk->store, name);
        } else {
            entry = find_entry(source, name);
            if (i == 0 && source->entry_count > 0) {
                known.decoy = source->entries[0].hash;
            }
        }
        if (user != NULL && known.address_count == 0) {
            known.name = user->name;
            known.addresses = user->addresses;
            known.address_count = user->address_count;
        }
        if (user != NULL && (user->password.length > 0 || user->has_keys)) {
            known.user = user;
            known.hash = user->password;
            return known;
        }
        if (entry != NULL) {
            known.hash = entry->hash;
            if (known.address_count == 0) {
                known.name = entry->name;
                known.addresses = entry->addresses;
                known.address_count = entry->address_count;
            }
            return known;
        }
    }
    return known;
}

static void tell_core(struct login_desk *desk, const struct login_news *news)
{
    if (desk->core_fd < 0) {
        return;
    }
    buffer_clear(&desk->message);
    login_put_news(&desk->message, news);
    if (desk->message.failed ||
        fdpass_send(desk->core_fd, buffer_slice(&desk->message), NULL, 0) != ERROR_NONE) {
        counter_add(desk->counters, COUNTER_LOGINS_LEFT_OUT, 1);
    }
}

static int64_t longest_wait(const struct login_news *news)
{
    uint32_t longest = news->wait_ms;
    longest = news->client_wait_ms > longest ? news->client_wait_ms : longest;
    return news->account_wait_ms > longest ? news->account_wait_ms : longest;
}

/* In the log, and for core. */
static void tell(struct login_desk *desk, const char *outcome, const struct login_news *news)
{
    bool is_grave = news->client_wait_ms > 0 || news->account_wait_ms > 0 ||
                    news->verdict == LOGIN_BUSY || news->verdict == LOGIN_AWAY;
    char address[IP_TEXT_SIZE];
    ip_to_text(&news->client, address);
    log_event(is_grave ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, "login",
              LOG_SLICE("listener", news->listener), LOG_SLICE("user", news->name),
              LOG_TEXT("client", address), LOG_TEXT("outcome", outcome), LOG_SLICE("by", news->how),
              LOG_NUMBER("wait_s", longest_wait(news) / 1000));
    tell_core(desk, news);
}

static void passed(struct login_desk *desk, struct asker *asker, const struct known *known,
                   struct slice listener, const struct ip_address *client, const char *how,
                   struct login_answer *reply)
{
    login_throttle_passed(desk->throttle, client, known->name, clock_steady_ms());
    counter_add(desk->counters, COUNTER_LOGINS, 1);
    tell(desk, "good",
         &(struct login_news){.verdict = LOGIN_GOOD,
                              .client = *client,
                              .listener = listener,
                              .name = known->name,
                              .how = slice_from_text(how),
                              .is_known = true});
    reply->verdict = LOGIN_GOOD;
    reply->account = known->name;
    reply->address_count = known->address_count;
    for (uint32_t i = 0; i < known->address_count; i++) {
        reply->addresses[i] = known->addresses[i];
    }
    answer(desk, asker, reply);
}

static bool asks_others(const struct listener_config *listener)
{
    bool asks = false;
    for (uint32_t i = 0; listener != NULL && i < listener->login_source_count; i++) {
        asks = asks || is_remote(&listener->login_sources[i]);
    }
    return asks;
}

/* `since_ms`: when it was asked. Somebody has the name if `is_known`. */
static void failed(struct login_desk *desk, struct asker *asker, uint64_t token,
                   struct slice listener, struct slice name, bool is_known, struct slice identity,
                   const struct ip_address *client, const char *how, int64_t since_ms)
{
    int64_t least_ms = 0;
    if (asks_others(find_listener(desk, listener))) {
        least_ms = since_ms + LOGIN_DESK_REMOTE_MS - clock_steady_ms();
    }
    struct login_failure failure =
        login_throttle_failed(desk->throttle, client, name, identity, clock_steady_ms());
    counter_add(desk->counters, COUNTER_LOGINS_FAILED, 1);
    counter_add(desk->counters, COUNTER_LOGIN_LOCKOUTS,
                failure.client_wait_ms > 0 || failure.account_wait_ms > 0);
    tell(desk,
         failure.account_wait_ms > 0  ? "refused, and strangers must wait"
         : failure.client_wait_ms > 0 ? "refused, and the client must wait"
                                      : "refused",
         &(struct login_news){.verdict = LOGIN_REFUSED,
                              .client = *client,
                              .listener = listener,
                              .name = name,
                              .how = slice_from_text(how),
                              .is_known = is_known,
                              .client_wait_ms = (uint32_t)failure.client_wait_ms,
                              .account_wait_ms = (uint32_t)failure.account_wait_ms});
    refuse_later(desk, asker, token, failure.delay_ms > least_ms ? failure.delay_ms : least_ms);
}

/* Too many have failed. */
static void not_now(struct login_desk *desk, struct asker *asker, uint64_t token,
                    struct slice listener, struct slice name, const struct ip_address *client,
                    const char *how, int64_t wait_ms)
{
    counter_add(desk->counters, COUNTER_LOGINS_REFUSED, 1);
    tell(desk, "not tried",
         &(struct login_news){.verdict = LOGIN_LATER,
                              .client = *client,
                              .listener = listener,
                              .name = name,
                              .how = slice_from_text(how),
                              .wait_ms = (uint32_t)wait_ms});
    answer_verdict(desk, asker, token, LOGIN_LATER);
}

static const char *const how_texts[] = {[LOGIN_PASSWORD] = "password",
                                        [LOGIN_SALT] = "scram",
                                        [LOGIN_PROOF] = "scram",
                                        [LOGIN_CRAM] = "cram"};

/* ---- passwords ---------------------------------------------------------------------------- */

static void check_password(void *context)
{
    struct job *job = context;
    job->proves = password_proves(slice_from_text(job->hash),
                                  slice_make(job->password, job->password_length));
}

static void job_free(struct job *job)
{
    struct asker *asker = job->asker;
    list_remove(&job->link);
    asker->desk->job_count--;
    digest_forget(job, sizeof(*job));
    free(job);
    asker_unref(asker);
}

static void job_failed(struct job *job, struct slice identity)
{
    failed(job->asker->desk, job->asker, job->token, slice_from_text(job->listener),
           slice_make(job->name, job->name_length), !job->is_decoy, identity, &job->client,
           "password", job->asked_ms);
    job_free(job);
}

static void password_checked(void *context)
{
    struct job *job = context;
    struct login_desk *desk = job->asker->desk;
    struct slice name = slice_make(job->name, job->name_length);
    struct slice listener = slice_from_text(job->listener);
    struct login_answer reply = {.token = job->token};
    /* It may have been removed meanwhile, or have another password. */
    struct known known = look_up(desk, find_listener(desk, listener), name, job->source);
    bool is_same = slice_equal(known.hash, slice_from_text(job->hash));
    if (job->proves && !job->is_decoy && is_same) {
        passed(desk, job->asker, &known, listener, &job->client, "password", &reply);
        job_free(job);
    } else {
        job_failed(job, SLICE_EMPTY);
    }
}

/* ---- those who know ----------------------------------------------------------------------- */

static void give_up(struct job *job, enum login_verdict verdict)
{
    tell(job->asker->desk,
         verdict == LOGIN_AWAY ? "not tried: no answer from those who know"
                               : "not tried: too many at once",
         &(struct login_news){.verdict = verdict,
                              .client = job->client,
                              .listener = slice_from_text(job->listener),
                              .name = slice_make(job->name, job->name_length),
                              .how = SLICE_LITERAL("password")});
    counter_add(job->asker->desk->counters, COUNTER_LOGINS_AWAY, 1);
    answer_verdict(job->asker->desk, job->asker, job->token, verdict);
    job_free(job);
}

static void check(struct job *job, const struct known *known);

/* How long strangers must wait for an account of which not only the typed name is known. */
static int64_t wait_of(const struct job *job, struct slice identity)
{
    return identity.length > 0 ? login_throttle_wait(job->asker->desk->throttle, &job->client,
                                                     identity, clock_steady_ms())
                               : 0;
}

static void remote_answered(void *context, const struct login_answer *answer)
{
    struct job *job = context;
    struct login_desk *desk = job->asker->desk;
    struct slice name = slice_make(job->name, job->name_length);
    struct slice listener = slice_from_text(job->listener);
    struct login_answer reply = {.token = job->token};
    struct known known = look_up(desk, find_listener(desk, listener), name, job->source);
    int64_t wait_ms = wait_of(job, answer->identity);
    if (wait_ms > 0) { /* whether the password is right or not: else this would tell */
        not_now(desk, job->asker, job->token, listener, name, &job->client, "password", wait_ms);
        job_free(job);
        return;
    }
    switch (answer->verdict) {
    case LOGIN_GOOD:
        if (answer->identity.length > 0) {
            login_throttle_passed(desk->throttle, &job->client, answer->identity,
                                  clock_steady_ms());
            reply.identity = answer->identity;
        }
        if (known.address_count == 0) { /* else the table of users says them */
            known.name = name;
            known.addresses = answer->addresses;
            known.address_count = answer->address_count;
        }
        passed(desk, job->asker, &known, listener, &job->client, "password", &reply);
        job_free(job);
        break;
    case LOGIN_UNKNOWN:
        job->source = known.remote != NULL ? known.at + 1 : UINT32_MAX;
        known = look_up(desk, find_listener(desk, listener), name, job->source);
        check(job, &known);
        break;
    case LOGIN_REFUSED:
        job_failed(job, answer->identity);
        break;
    case LOGIN_LATER:
    case LOGIN_BUSY:
    case LOGIN_AWAY:
    case LOGIN_VERDICTS:
        give_up(job, LOGIN_AWAY);
        break;
    }
}

/* Those that wait for one directory take no room from others. */
static bool is_crowded(const struct login_desk *desk, const struct job *asking)
{
    uint32_t all = 0, same = 0;
    LIST_EACH(&desk->jobs, at, after)
    {
        const struct job *job = LIST_ENTRY(at, struct job, link);
        bool is_beside = job != asking && job->is_remote == asking->is_remote &&
                         (!job->is_remote || job->source == asking->source);
        all += is_beside && !job->is_remote;
        same += is_beside && ip_equal(&job->client, &asking->client);
    }
    return all >= LOGIN_DESK_JOBS || same >= LOGIN_DESK_CLIENT_JOBS;
}

/* The job is free or on its way when it returns. */
static void check(struct job *job, const struct known *known)
{
    struct login_desk *desk = job->asker->desk;
    struct slice hash = known->hash.length > 0 ? known->hash : known->decoy;
    bool goes = false;
    job->is_remote = known->remote != NULL;
    job->source = job->is_remote ? known->at : job->source;
    if (is_crowded(desk, job)) {
        give_up(job, LOGIN_BUSY);
        return;
    }
    if (job->is_remote) {
        goes = login_remote_ask(
            known->remote->kind == LOGIN_SOURCE_PAM ? desk->pam : desk->directory,
            known->remote->name, &job->client, slice_make(job->name, job->name_length),
            slice_make(job->password, job->password_length), remote_answered, job);
    } else if (hash.length < sizeof(job->hash)) {
        job->is_decoy = known->hash.length == 0;
        memcpy(job->hash, hash.data, hash.length);
        job->hash[hash.length] = '\0';
        goes = worker_submit(desk->workers[desk->next_worker++ % WORKERS], check_password,
                             password_checked, job) == ERROR_NONE;
    }
    if (!goes) {
        give_up(job, LOGIN_BUSY);
    }
}

static struct job *job_new(struct asker *asker, const struct login_request *request)
{
    struct job *job = calloc(1, sizeof(*job));
    if (job == NULL || request->secret.length > sizeof(job->password) ||
        request->listener.length >= sizeof(job->listener)) {
        free(job);
        return NULL;
    }
    job->asker = asker;
    job->token = request->token;
    job->client = request->client;
    job->asked_ms = clock_steady_ms();
    memcpy(job->listener, request->listener.data, request->listener.length);
    memcpy(job->name, request->name.data, request->name.length);
    job->name_length = request->name.length;
    memcpy(job->password, request->secret.data, request->secret.length);
    job->password_length = request->secret.length;
    asker->references++;
    list_append(&asker->desk->jobs, &job->link);
    asker->desk->job_count++;
    return job;
}

static void ask_password(struct login_desk *desk, struct asker *asker,
                         const struct login_request *request, const struct known *known)
{
    struct job *job = job_new(asker, request);
    if (job == NULL) {
        answer_verdict(desk, asker, request->token, LOGIN_BUSY);
        return;
    }
    check(job, known);
}

/* ---- SCRAM -------------------------------------------------------------------------------- */

static void ask_salt(struct login_desk *desk, struct asker *asker,
                     const struct login_request *request, const struct known *known)
{
    uint8_t salt[LOGIN_SALT_BYTES];
    struct login_answer reply = {.token = request->token, .iterations = LOGIN_ITERATIONS};
    login_store_nobodys_salt(desk->store, request->name, salt);
    if (known->user != NULL && known->user->has_keys) {
        memcpy(salt, known->user->salt, sizeof(salt));
        reply.iterations = known->user->iterations;
    }
    reply.salt = slice_make(salt, sizeof(salt));
    answer(desk, asker, &reply);
}

static void ask_proof(struct login_desk *desk, struct asker *asker,
                      const struct login_request *request, const struct known *known)
{
    struct sasl_scram_keys keys;
    struct login_answer reply = {.token = request->token};
    bool has_keys = known->user != NULL && known->user->has_keys;
    random_bytes(&keys, sizeof(keys));
    if (has_keys) {
        keys = known->user->keys;
    }
    bool proves = sasl_scram_proves(&keys, request->auth_message, request->secret, reply.signature);
    digest_forget(&keys, sizeof(keys));
    if (proves && has_keys) {
        passed(desk, asker, known, request->listener, &request->client, "scram", &reply);
    } else {
        failed(desk, asker, request->token, request->listener, request->name, has_keys, SLICE_EMPTY,
               &request->client, "scram", clock_steady_ms());
    }
}

/* ---- sites that fetch their mail ----------------------------------------------------------- */

/* Their passwords are there in clear, as CRAM-MD5 asks for: nothing is to be computed for long. */
static void ask_site(struct login_desk *desk, struct asker *asker,
                     const struct login_request *request, const struct known *known)
{
    struct login_answer reply = {.token = request->token};
    bool is_cram = request->question == LOGIN_CRAM;
    struct slice password =
        known->site != NULL ? known->site->password : SLICE_LITERAL("nobody has this");
    bool proves = is_cram ? sasl_cram_proves(request->auth_message, password, request->secret)
                          : digest_equal(password, request->secret);
    if (proves && known->site != NULL) {
        passed(desk, asker, known, request->listener, &request->client,
               how_texts[request->question], &reply);
    } else {
        failed(desk, asker, request->token, request->listener, request->name, known->site != NULL,
               SLICE_EMPTY, &request->client, how_texts[request->question], clock_steady_ms());
    }
}

/* ---- questions ---------------------------------------------------------------------------- */

static void take_request(struct login_desk *desk, struct asker *asker,
                         const struct login_request *request)
{
    int64_t wait_ms =
        login_throttle_wait(desk->throttle, &request->client, request->name, clock_steady_ms());
    if (wait_ms > 0) {
        not_now(desk, asker, request->token, request->listener, request->name, &request->client,
                how_texts[request->question], wait_ms);
        return;
    }
    refresh(desk);
    const struct listener_config *listener = find_listener(desk, request->listener);
    struct known known = look_up(desk, listener, request->name, 0);
    bool is_for_sites = listener != NULL && listener->protocol == LISTENER_ODMR;
    switch (request->question) {
    case LOGIN_PASSWORD:
        if (is_for_sites) {
            ask_site(desk, asker, request, &known);
            break;
        }
        ask_password(desk, asker, request, &known);
        break;
    case LOGIN_SALT:
        ask_salt(desk, asker, request, &known);
        break;
    case LOGIN_PROOF:
        ask_proof(desk, asker, request, &known);
        break;
    case LOGIN_CRAM:
        ask_site(desk, asker, request, &known);
        break;
    }
}

static void on_question(void *context, unsigned ready)
{
    struct asker *asker = context;
    struct login_desk *desk = asker->desk;
    uint8_t bytes[LOGIN_MESSAGE_MAX];
    (void)ready;
    for (int i = 0; i < QUESTIONS_PER_TURN && asker->fd >= 0; i++) {
        struct login_request request;
        size_t length = 0;
        enum error error = fdpass_receive_bytes(asker->fd, bytes, sizeof(bytes), &length);
        if (error == ERROR_AGAIN) {
            break;
        }
        if (error != ERROR_NONE || !login_get_request(slice_make(bytes, length), &request)) {
            asker_gone(asker);
            break;
        }
        take_request(desk, asker, &request);
    }
    digest_forget(bytes, sizeof(bytes));
}

void login_desk_set_directory(struct login_desk *desk, int fd)
{
    login_remote_set_link(desk->directory, fd);
}

void login_desk_set_pam(struct login_desk *desk, int fd)
{
    login_remote_set_link(desk->pam, fd);
}

void login_desk_set_core(struct login_desk *desk, int fd)
{
    if (desk->core_fd >= 0) {
        net_close(desk->core_fd);
    }
    desk->core_fd = fd;
}

void login_desk_serve(struct login_desk *desk, int fd)
{
    struct asker *asker = calloc(1, sizeof(*asker));
    struct loop_watch *watch =
        asker != NULL ? loop_watch_new(desk->loop, fd, on_question, asker) : NULL;
    if (watch == NULL) {
        free(asker);
        net_close(fd);
        return;
    }
    *asker = (struct asker){.desk = desk, .watch = watch, .references = 1, .fd = fd};
    list_append(&desk->askers, &asker->link);
    loop_watch_set(watch, LOOP_READ);
}

/* ---- begin and end ------------------------------------------------------------------------ */

void login_desk_reconfigure(struct login_desk *desk, const struct service_config *config)
{
    desk->config = config;
}

struct login_desk *login_desk_new(struct loop *loop, const struct service_config *config,
                                  struct disk *disk, struct counters *counters)
{
    struct login_desk *desk = calloc(1, sizeof(*desk));
    struct hash_key key;
    if (desk == NULL) {
        disk_free(disk);
        return NULL;
    }
    random_bytes(&key, sizeof(key));
    *desk = (struct login_desk){
        .loop = loop, .config = config, .counters = counters, .disk = disk, .core_fd = -1};
    list_init(&desk->askers);
    list_init(&desk->jobs);
    list_init(&desk->delayed);
    buffer_init(&desk->message, LOGIN_MESSAGE_MAX);
    desk->store = login_store_new();
    desk->throttle = login_throttle_new(key);
    desk->timer = loop_timer_new(loop, on_timer, desk);
    desk->directory = login_remote_new(loop);
    desk->pam = login_remote_new(loop);
    bool good = desk->store != NULL && desk->throttle != NULL && desk->timer != NULL &&
                desk->directory != NULL && desk->pam != NULL;
    for (int i = 0; i < WORKERS; i++) {
        desk->workers[i] = worker_new(loop, "login");
        good = good && desk->workers[i] != NULL;
    }
    if (!good) {
        login_desk_free(desk);
        return NULL;
    }
    refresh(desk);
    return desk;
}

void login_desk_free(struct login_desk *desk)
{
    if (desk == NULL) {
        return;
    }
    for (int i = 0; i < WORKERS; i++) {
        worker_free(desk->workers[i]);
    }
    login_remote_free(desk->directory);
    login_remote_free(desk->pam);
    login_desk_set_core(desk, -1);
    while (!list_is_empty(&desk->jobs)) {
        job_free(LIST_ENTRY(desk->jobs.next, struct job, link));
    }
    while (!list_is_empty(&desk->delayed)) {
        struct delayed *delayed = LIST_ENTRY(desk->delayed.next, struct delayed, link);
        list_remove(&delayed->link);
        asker_unref(delayed->asker);
        free(delayed);
    }
    while (!list_is_empty(&desk->askers)) {
        asker_gone(LIST_ENTRY(desk->askers.next, struct asker, link));
    }
    login_store_free(desk->store);
    login_throttle_free(desk->throttle);
    loop_timer_free(desk->timer);
    disk_free(desk->disk);
    buffer_done(&desk->message);
    free(desk);
}
