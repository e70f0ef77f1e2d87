/* SPDX-License-Identifier: Apache-2.0 */
#include "service/login_desk.h"

#include "base/list.h"
#include "base/password.h"
#include "service/login_known.h"
#include "service/login_remote.h"
#include "service/login_table.h"
#include "service/login_throttle.h"
#include "sys/clock.h"
#include "sys/fdpass.h"
#include "sys/log.h"
#include "sys/net.h"
#include "sys/random.h"
#include "sys/worker.h"

#include <stdlib.h>

enum { WORKERS = 2 };

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
    struct login_table *table;
    struct login_throttle *throttle;
    struct login_remote *directory, *pam;
    int core_fd; /* -1: it is away */
    struct worker *workers[WORKERS];
    uint32_t next_worker;
    struct link askers, jobs, delayed;
    uint32_t job_count, delayed_count;
    struct loop_timer *timer;
    struct buffer message;
};

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

/* ---- who tries ---------------------------------------------------------------------------- */

static const struct listener_config *find_listener(const struct login_desk *desk, struct slice name)
{
    for (uint32_t i = 0; i < desk->config->listener_count; i++) {
        if (slice_equal(desk->config->listeners[i].name, name)) {
            return &desk->config->listeners[i];
        }
    }
    return NULL;
}

/* One that logs in, as far as others are to be told. */
struct attempt {
    struct asker *asker;
    uint64_t token;
    struct ip_address client;
    struct slice listener, name;
    const char *how;
    int64_t asked_ms;
    bool is_site;          /* of a listener with protocol = odmr: no user, though of his name */
    bool is_known;         /* somebody has the name */
    struct slice identity; /* whose account it is, however its name was written; empty: not known */
};

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

static struct login_news news_of(const struct attempt *attempt, enum login_verdict verdict)
{
    return (struct login_news){.verdict = verdict,
                               .client = attempt->client,
                               .listener = attempt->listener,
                               .name = attempt->name,
                               .how = slice_from_text(attempt->how)};
}

struct account {
    uint8_t bytes[1 + LOGIN_NAME_MAX];
};

/* What the throttle counts by: a site and a user of one name are two. */
static struct slice account_of(const struct attempt *attempt, struct slice name,
                               struct account *account)
{
    name = slice_take(name, LOGIN_NAME_MAX);
    account->bytes[0] = attempt->is_site ? 's' : 'u';
    memcpy(account->bytes + 1, name.data, name.length);
    return slice_make(account->bytes, 1 + name.length);
}

static void passed(const struct attempt *attempt, const struct login_known *known,
                   struct login_answer *reply)
{
    struct login_desk *desk = attempt->asker->desk;
    struct login_news news = news_of(attempt, LOGIN_GOOD);
    news.name = known->name;
    news.is_known = true;
    news.identity = attempt->identity;
    struct account account;
    login_throttle_passed(desk->throttle, &attempt->client,
                          account_of(attempt, known->name, &account), clock_steady_ms());
    if (attempt->identity.length > 0) {
        login_throttle_passed(desk->throttle, &attempt->client, attempt->identity,
                              clock_steady_ms());
    }
    counter_add(desk->counters, COUNTER_LOGINS, 1);
    tell(desk, "good", &news);
    reply->token = attempt->token;
    reply->verdict = LOGIN_GOOD;
    reply->account = known->name;
    reply->identity = attempt->identity;
    reply->address_count = known->address_count;
    for (uint32_t i = 0; i < known->address_count; i++) {
        reply->addresses[i] = known->addresses[i];
    }
    answer(desk, attempt->asker, reply);
}

/* Nobody here has the name; but a cluster has its users in its settings, which are not here yet. */
static void put_off(const struct attempt *attempt)
{
    struct login_desk *desk = attempt->asker->desk;
    const struct login_news news = news_of(attempt, LOGIN_AWAY);
    tell(desk, "not tried: the cluster's users are not known yet", &news);
    counter_add(desk->counters, COUNTER_LOGINS_AWAY, 1);
    answer_verdict(desk, attempt->asker, attempt->token, LOGIN_AWAY);
}

static void failed(const struct attempt *attempt)
{
    struct login_desk *desk = attempt->asker->desk;
    if (desk->config->joining && !attempt->is_known) {
        put_off(attempt);
        return;
    }
    struct login_news news = news_of(attempt, LOGIN_REFUSED);
    int64_t now_ms = clock_steady_ms(), least_ms = 0;
    if (login_asks_others(find_listener(desk, attempt->listener))) {
        least_ms = attempt->asked_ms + LOGIN_DESK_REMOTE_MS - now_ms;
    }
    struct account account;
    struct login_failure failure = login_throttle_failed(
        desk->throttle, &attempt->client, account_of(attempt, attempt->name, &account),
        attempt->identity, now_ms);
    counter_add(desk->counters, COUNTER_LOGINS_FAILED, 1);
    counter_add(desk->counters, COUNTER_LOGIN_LOCKOUTS,
                failure.client_wait_ms > 0 || failure.account_wait_ms > 0);
    news.is_known = attempt->is_known;
    news.client_wait_ms = (uint32_t)failure.client_wait_ms;
    news.account_wait_ms = (uint32_t)failure.account_wait_ms;
    tell(desk,
         failure.account_wait_ms > 0  ? "refused, and strangers must wait"
         : failure.client_wait_ms > 0 ? "refused, and the client must wait"
                                      : "refused",
         &news);
    refuse_later(desk, attempt->asker, attempt->token,
                 failure.delay_ms > least_ms ? failure.delay_ms : least_ms);
}

/* True: too many have failed by this name, or at this account; and it is answered. */
static bool must_wait(const struct attempt *attempt, struct slice account)
{
    struct login_desk *desk = attempt->asker->desk;
    int64_t wait_ms =
        login_throttle_wait(desk->throttle, &attempt->client, account, clock_steady_ms());
    if (wait_ms > 0) {
        struct login_news news = news_of(attempt, LOGIN_LATER);
        news.wait_ms = (uint32_t)wait_ms;
        counter_add(desk->counters, COUNTER_LOGINS_REFUSED, 1);
        tell(desk, "not tried", &news);
        answer_verdict(desk, attempt->asker, attempt->token, LOGIN_LATER);
    }
    return wait_ms > 0;
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

static struct attempt attempt_of(const struct job *job)
{
    return (struct attempt){.asker = job->asker,
                            .token = job->token,
                            .client = job->client,
                            .listener = slice_from_text(job->listener),
                            .name = slice_make(job->name, job->name_length),
                            .how = how_texts[LOGIN_PASSWORD],
                            .asked_ms = job->asked_ms,
                            .is_known = !job->is_decoy};
}

/* It may be known otherwise than when the job began. */
static struct login_known look_up(const struct job *job)
{
    const struct login_desk *desk = job->asker->desk;
    return login_look_up(login_table_store(desk->table),
                         find_listener(desk, slice_from_text(job->listener)),
                         slice_make(job->name, job->name_length), job->source);
}

static void password_checked(void *context)
{
    struct job *job = context;
    struct attempt attempt = attempt_of(job);
    struct login_answer reply = {0};
    struct login_known known = look_up(job);
    bool is_same = slice_equal(known.hash, slice_from_text(job->hash));
    if (job->proves && !job->is_decoy && is_same) {
        passed(&attempt, &known, &reply);
    } else {
        failed(&attempt);
    }
    job_free(job);
}

/* ---- those who know ----------------------------------------------------------------------- */

static void give_up(struct job *job, enum login_verdict verdict)
{
    struct login_desk *desk = job->asker->desk;
    struct attempt attempt = attempt_of(job);
    struct login_news news = news_of(&attempt, verdict);
    tell(desk,
         verdict == LOGIN_AWAY ? "not tried: no answer from those who know"
                               : "not tried: too many at once",
         &news);
    counter_add(desk->counters, COUNTER_LOGINS_AWAY, 1);
    answer_verdict(desk, job->asker, job->token, verdict);
    job_free(job);
}

static void check(struct job *job, const struct login_known *known);

/* That somebody has the name which was refused. A directory that is not searched but bound to, with
 * a name made of what he typed, says the same of names that nobody has. */
static bool knows(const struct login_known *known, const struct login_answer *answer)
{
    return answer->identity.length > 0 || known->address_count > 0 ||
           (known->remote != NULL && known->remote->kind == LOGIN_SOURCE_PAM);
}

static void remote_answered(void *context, const struct login_answer *answer)
{
    struct job *job = context;
    struct attempt attempt = attempt_of(job);
    struct login_answer reply = {0};
    struct login_known known = look_up(job);
    attempt.identity = answer->identity;
    /* Whether the password is right or not: else this would tell. */
    if (answer->identity.length > 0 && must_wait(&attempt, answer->identity)) {
        job_free(job);
        return;
    }
    switch (answer->verdict) {
    case LOGIN_GOOD:
        if (known.address_count == 0) { /* else the table of users says them */
            known.name = attempt.name;
            known.addresses = answer->addresses;
            known.address_count = answer->address_count;
        }
        passed(&attempt, &known, &reply);
        job_free(job);
        break;
    case LOGIN_UNKNOWN:
        job->source = known.remote != NULL ? known.at + 1 : UINT32_MAX;
        known = look_up(job);
        check(job, &known);
        break;
    case LOGIN_REFUSED:
        attempt.is_known = knows(&known, answer);
        failed(&attempt);
        job_free(job);
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
static void check(struct job *job, const struct login_known *known)
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
                         const struct login_request *request, const struct login_known *known)
{
    struct job *job = job_new(asker, request);
    if (job == NULL) {
        answer_verdict(desk, asker, request->token, LOGIN_BUSY);
        return;
    }
    check(job, known);
}

/* What has been found out at once. */
static void judge(struct attempt *attempt, const struct login_known *known, bool is_known,
                  bool proves, struct login_answer *reply)
{
    attempt->is_known = is_known;
    if (is_known && proves) {
        passed(attempt, known, reply);
    } else {
        failed(attempt);
    }
}

/* ---- SCRAM -------------------------------------------------------------------------------- */

static void ask_salt(struct login_desk *desk, struct asker *asker,
                     const struct login_request *request, const struct login_known *known)
{
    uint8_t salt[LOGIN_SALT_BYTES];
    struct login_answer reply = {.token = request->token, .iterations = LOGIN_ITERATIONS};
    login_store_nobodys_salt(login_table_store(desk->table), request->name, salt);
    if (known->user != NULL && known->user->has_keys) {
        memcpy(salt, known->user->salt, sizeof(salt));
        reply.iterations = known->user->iterations;
    }
    reply.salt = slice_make(salt, sizeof(salt));
    answer(desk, asker, &reply);
}

static void ask_proof(struct attempt *attempt, const struct login_request *request,
                      const struct login_known *known)
{
    struct sasl_scram_keys keys;
    struct login_answer reply = {0};
    bool has_keys = known->user != NULL && known->user->has_keys;
    random_bytes(&keys, sizeof(keys));
    if (has_keys) {
        keys = known->user->keys;
    }
    bool proves = sasl_scram_proves(&keys, request->auth_message, request->secret, reply.signature);
    digest_forget(&keys, sizeof(keys));
    judge(attempt, known, has_keys, proves, &reply);
}

/* ---- sites that fetch their mail ----------------------------------------------------------- */

/* Their passwords are there in clear, as CRAM-MD5 asks for: nothing is to be computed for long. */
static void ask_site(struct attempt *attempt, const struct login_request *request,
                     const struct login_known *known)
{
    struct login_answer reply = {0};
    bool is_site = known->site != NULL;
    struct slice password = is_site ? known->site->password : SLICE_LITERAL("nobody has this");
    bool proves = request->question == LOGIN_CRAM
                      ? sasl_cram_proves(request->auth_message, password, request->secret)
                      : digest_equal(password, request->secret);
    judge(attempt, known, is_site, proves, &reply);
}

/* ---- questions ---------------------------------------------------------------------------- */

static void take_request(struct login_desk *desk, struct asker *asker,
                         const struct login_request *request)
{
    struct attempt attempt = {.asker = asker,
                              .token = request->token,
                              .client = request->client,
                              .listener = request->listener,
                              .name = request->name,
                              .how = how_texts[request->question],
                              .asked_ms = clock_steady_ms()};
    const struct listener_config *listener = find_listener(desk, request->listener);
    struct account account;
    attempt.is_site = listener != NULL && listener->protocol == LISTENER_ODMR;
    if (must_wait(&attempt, account_of(&attempt, request->name, &account))) {
        return;
    }
    login_table_refresh(desk->table);
    struct login_known known =
        login_look_up(login_table_store(desk->table), listener, request->name, 0);
    switch (request->question) {
    case LOGIN_PASSWORD:
        if (attempt.is_site) {
            ask_site(&attempt, request, &known);
            break;
        }
        ask_password(desk, asker, request, &known);
        break;
    case LOGIN_SALT:
        ask_salt(desk, asker, request, &known);
        break;
    case LOGIN_PROOF:
        ask_proof(&attempt, request, &known);
        break;
    case LOGIN_CRAM:
        ask_site(&attempt, request, &known);
        break;
    }
}

static bool question_heard(void *context, struct slice message)
{
    struct asker *asker = context;
    struct login_request request;
    bool good = login_get_request(message, &request);
    if (good) {
        take_request(asker->desk, asker, &request);
    }
    return good;
}

static void on_question(void *context, unsigned ready)
{
    struct asker *asker = context;
    (void)ready;
    if (!login_hear(&asker->fd, question_heard, asker)) {
        asker_gone(asker);
    }
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
    login_table_share(desk->table, config->users_text);
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
    *desk =
        (struct login_desk){.loop = loop, .config = config, .counters = counters, .core_fd = -1};
    list_init(&desk->askers);
    list_init(&desk->jobs);
    list_init(&desk->delayed);
    buffer_init(&desk->message, LOGIN_MESSAGE_MAX);
    desk->table = login_table_new(disk);
    desk->throttle = login_throttle_new(key);
    desk->timer = loop_timer_new(loop, on_timer, desk);
    desk->directory = login_remote_new(loop);
    desk->pam = login_remote_new(loop);
    bool good = desk->table != NULL && desk->throttle != NULL && desk->timer != NULL &&
                desk->directory != NULL && desk->pam != NULL;
    for (int i = 0; i < WORKERS; i++) {
        desk->workers[i] = worker_new(loop, "login");
        good = good && desk->workers[i] != NULL;
    }
    if (!good) {
        login_desk_free(desk);
        return NULL;
    }
    login_table_share(desk->table, config->users_text);
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
    login_table_free(desk->table);
    login_throttle_free(desk->throttle);
    loop_timer_free(desk->timer);
    buffer_done(&desk->message);
    free(desk);
}
