/* SPDX-License-Identifier: Apache-2.0
 *
 * All hosts are tried at once. libpq would try one after the other, and would wait for a silent one
 * as long as the kernel does, for of its non-blocking calls connect_timeout is the caller's affair.
 */
#include "sys/database_internal.h"

#include "sys/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PARAMETERS_MAX = 96 };

struct parameters {
    const char *keys[PARAMETERS_MAX + 1], *values[PARAMETERS_MAX + 1];
    size_t count;
};

struct attempt {
    PGconn *connection; /* NULL: failed */
    short wants;        /* of poll(2) */
    enum database_outcome outcome;
};

/* ---- waiting -------------------------------------------------------------------------------- */

static int left_ms(int64_t deadline_ms)
{
    int64_t left = deadline_ms - clock_steady_ms();
    return left <= 0 ? 0 : left < INT32_MAX ? (int)left : INT32_MAX;
}

enum wait_result database_poll(const struct database *database, struct pollfd *ready, size_t count,
                               int64_t deadline_ms)
{
    ready[0] = (struct pollfd){.fd = database->interrupt, .events = POLLIN};
    int result;
    do {
        result = poll(ready, count, left_ms(deadline_ms));
    } while (result < 0 && errno == EINTR);
    if (ready[0].revents != 0) {
        uint64_t interrupts;
        return read(database->interrupt, &interrupts, sizeof(interrupts)) > 0 ? WAIT_INTERRUPTED
                                                                              : WAIT_READY;
    }
    return result == 0 ? WAIT_LATE : WAIT_READY;
}

/* ---- conninfo ------------------------------------------------------------------------------- */

static const char *option(const PQconninfoOption *options, const char *key)
{
    for (; options->keyword != NULL; options++) {
        if (strcmp(options->keyword, key) == 0) {
            return options->val;
        }
    }
    return NULL;
}

static void put(struct parameters *parameters, const char *key, const char *value)
{
    if (value != NULL && parameters->count < PARAMETERS_MAX) {
        parameters->keys[parameters->count] = key;
        parameters->values[parameters->count++] = value;
    }
}

static bool is_ours(const char *key)
{
    static const char *const OURS[] = {"host",
                                       "hostaddr",
                                       "port",
                                       "password",
                                       "target_session_attrs",
                                       "application_name",
                                       "options",
                                       "connect_timeout",
                                       "client_encoding"};
    for (size_t i = 0; i < sizeof(OURS) / sizeof(OURS[0]); i++) {
        if (strcmp(key, OURS[i]) == 0) {
            return true;
        }
    }
    return false;
}

static void put_default(struct parameters *parameters, const PQconninfoOption *options,
                        const char *key, const char *value)
{
    if (option(options, key) == NULL) {
        put(parameters, key, value);
    }
}

/* How soon each side notices that the other is cut off, and how long it may leave a transaction
 * open; what a setting of the operator's overrides, for it comes later. Compiling a statement takes
 * longer (a second, over many partitions) than any of ours that is well planned. */
static const char SESSION[] =
    "-c client_connection_check_interval=2000 -c idle_in_transaction_session_timeout=3000 "
    "-c tcp_keepalives_idle=2 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=3 "
    "-c tcp_user_timeout=5000 -c jit=off";

static void put_common(const struct database *database, const PQconninfoOption *options,
                       const char *session, struct parameters *parameters)
{
    for (const PQconninfoOption *o = options; o->keyword != NULL; o++) {
        if (!is_ours(o->keyword)) {
            put(parameters, o->keyword, o->val);
        }
    }
    put_default(parameters, options, "keepalives_idle", "2");
    put_default(parameters, options, "keepalives_interval", "1");
    put_default(parameters, options, "keepalives_count", "3");
    put_default(parameters, options, "tcp_user_timeout", "5000");
    put_default(parameters, options, "gssencmode", "disable");
    put(parameters, "target_session_attrs", "read-write");
    put(parameters, "client_encoding", "UTF8");
    put(parameters, "options", session);
    put(parameters, "application_name", database->name[0] != '\0' ? database->name : NULL);
    put(parameters, "password", database->password[0] != '\0' ? database->password : NULL);
}

/* Cuts a list at its commas, in place. False: more than there may be. */
static bool split(char *list, const char *ret_parts[DATABASE_HOSTS_MAX], size_t *ret_count)
{
    *ret_count = 0;
    for (char *rest = list; rest != NULL;) {
        if (*ret_count == DATABASE_HOSTS_MAX) {
            return false;
        }
        ret_parts[(*ret_count)++] = strsep(&rest, ",");
    }
    return true;
}

/* What libpq says of a conninfo. What it quotes may be a password, or a piece of one. */
static void describe(const char *why, bool names, char ret_problem[DATABASE_ERROR_SIZE])
{
    static const char *const naming[] = {"invalid connection option \"",
                                         "invalid URI query parameter: \""};
    const char *first = strchr(why, '"'), *last = strrchr(why, '"');
    bool is_name = false;
    for (size_t i = 0; i < 2 && first != NULL; i++) {
        size_t length = strlen(naming[i]);
        is_name |= strncmp(why, naming[i], length) == 0 &&
                   why + length + strspn(why + length, "abcdefghijklmnopqrstuvwxyz_") == last;
    }
    size_t end = strcspn(why, "\n");
    if (first == NULL || last >= why + end || (is_name && names)) {
        snprintf(ret_problem, DATABASE_ERROR_SIZE, "%.*s", (int)end, why);
    } else {
        snprintf(ret_problem, DATABASE_ERROR_SIZE, "%.*s...%.*s", (int)(first - why), why,
                 (int)(why + end - last - 1), last + 1);
    }
}

struct hosts {
    char *texts[3]; /* names, addresses, ports: owned */
    const char *parts[3][DATABASE_HOSTS_MAX];
    size_t counts[3];
    size_t count;
};
enum { HOST_NAME, HOST_ADDRESS, HOST_PORT };

static void hosts_done(struct hosts *hosts)
{
    for (size_t i = 0; i < 3; i++) {
        free(hosts->texts[i]);
    }
}

/* False: they don't fit together, or there is no memory. */
static bool hosts_make(const PQconninfoOption *options, struct hosts *ret_hosts)
{
    static const char *const KEYS[] = {"host", "hostaddr", "port"};
    *ret_hosts = (struct hosts){.count = 1};
    for (size_t i = 0; i < 3; i++) {
        const char *list = option(options, KEYS[i]);
        if (list != NULL && list[0] != '\0') {
            ret_hosts->texts[i] = strdup(list);
            if (ret_hosts->texts[i] == NULL ||
                !split(ret_hosts->texts[i], ret_hosts->parts[i], &ret_hosts->counts[i])) {
                return false;
            }
        }
    }
    const size_t *counts = ret_hosts->counts;
    size_t most = counts[HOST_NAME] > 0 ? counts[HOST_NAME] : counts[HOST_ADDRESS];
    ret_hosts->count = most > 0 ? most : 1;
    return (counts[HOST_NAME] == 0 || counts[HOST_ADDRESS] == 0 ||
            counts[HOST_NAME] == counts[HOST_ADDRESS]) &&
           (counts[HOST_PORT] <= 1 || counts[HOST_PORT] == ret_hosts->count);
}

static const char *host_part(const struct hosts *hosts, size_t kind, size_t index)
{
    size_t count = hosts->counts[kind];
    const char *part = count == 0 ? NULL : hosts->parts[kind][count == 1 ? 0 : index];
    return part != NULL && part[0] != '\0' ? part : NULL;
}

/* ---- attempts ------------------------------------------------------------------------------- */

/* libpq's `connection to server at "HOST", port N failed: WHY` as `HOST, port N: WHY`, so that the
 * texts of several hosts fit; what it words otherwise stays. */
static void put_short(char *ret_line, size_t size, const char *text)
{
    static const char beginning[] = "connection to server ", middle[] = " failed: ";
    int length = (int)strcspn(text, "\n");
    const char *host = strchr(text, '"');
    const char *end = host != NULL ? strchr(host + 1, '"') : NULL;
    const char *why = end != NULL ? strstr(end, middle) : NULL;
    if (strncmp(text, beginning, sizeof(beginning) - 1) != 0 || why == NULL ||
        why >= text + length) {
        snprintf(ret_line, size, "%.*s", length, text);
        return;
    }
    const char *rest = why + sizeof(middle) - 1;
    snprintf(ret_line, size, "%.*s%.*s: %.*s", (int)(end - host - 1), host + 1,
             (int)(why - end - 1), end + 1, (int)(text + length - rest), rest);
}

static void give_up(struct database *database, struct attempt *attempt, const char *text)
{
    char state[6], why[DATABASE_ERROR_SIZE];
    database_state_in(text, state);
    attempt->outcome = state[0] != '\0' ? database_outcome_of(state) : DATABASE_LOST;
    /* The errors of several hosts stand in one line. */
    char line[2 * DATABASE_ERROR_SIZE + 2];
    put_short(why, sizeof(why), text);
    snprintf(line, sizeof(line), "%s%s%s", database->error, database->error[0] != '\0' ? "; " : "",
             why);
    database_keep_error(database, state[0] != '\0' ? state : database->state, line);
    database->calls.PQfinish(attempt->connection);
    attempt->connection = NULL;
}

static void start(struct database *database, const struct parameters *parameters,
                  struct attempt *attempt)
{
    const struct database_calls *calls = &database->calls;
    attempt->connection = calls->PQconnectStartParams(parameters->keys, parameters->values, 0);
    attempt->wants = POLLOUT;
    if (attempt->connection == NULL) {
        attempt->outcome = DATABASE_MEMORY;
        return;
    }
    /* Only so the text has the SQLSTATE, which libpq keeps to itself here. */
    calls->PQsetErrorVerbosity(attempt->connection, PQERRORS_VERBOSE);
    if (calls->PQstatus(attempt->connection) == CONNECTION_BAD) {
        give_up(database, attempt, calls->PQerrorMessage(attempt->connection));
    }
}

/* True: it is connected. */
static bool go_on(struct database *database, struct attempt *attempt)
{
    switch (database->calls.PQconnectPoll(attempt->connection)) {
    case PGRES_POLLING_OK:
        return true;
    case PGRES_POLLING_READING:
        attempt->wants = POLLIN;
        return false;
    case PGRES_POLLING_WRITING:
        attempt->wants = POLLOUT;
        return false;
    default:
        give_up(database, attempt, database->calls.PQerrorMessage(attempt->connection));
        return false;
    }
}

/* The connection of the first host that can be written to, or NULL: ret_text says why, if no
 * attempt does. */
static PGconn *race(struct database *database, struct attempt *attempts, size_t count,
                    int64_t deadline_ms, const char **ret_text)
{
    struct pollfd ready[DATABASE_HOSTS_MAX + 1];
    for (;;) {
        size_t running = 0;
        for (size_t i = 0; i < count; i++) {
            PGconn *connection = attempts[i].connection;
            /* poll(2) passes over -1. */
            ready[i + 1] = (struct pollfd){
                .fd = connection != NULL ? database->calls.PQsocket(connection) : -1,
                .events = attempts[i].wants};
            running += connection != NULL;
        }
        if (running == 0) {
            return NULL;
        }
        enum wait_result result = database_poll(database, ready, count + 1, deadline_ms);
        if (result != WAIT_READY) {
            *ret_text = result == WAIT_LATE ? "no answer in time" : "interrupted";
            return NULL;
        }
        for (size_t i = 0; i < count; i++) {
            if (ready[i + 1].revents != 0 && go_on(database, &attempts[i])) {
                PGconn *connection = attempts[i].connection;
                attempts[i].connection = NULL;
                return connection;
            }
        }
    }
}

static enum database_outcome verdict(const struct attempt *attempts, size_t count)
{
    bool full = false, memory = false, refused = true;
    for (size_t i = 0; i < count; i++) {
        full |= attempts[i].outcome == DATABASE_FULL;
        memory |= attempts[i].outcome == DATABASE_MEMORY;
        refused &= attempts[i].outcome == DATABASE_REFUSED;
    }
    return memory    ? DATABASE_MEMORY
           : full    ? DATABASE_FULL
           : refused ? DATABASE_REFUSED
                     : DATABASE_LOST;
}

/* Also hears why the server ends a session that asks nothing just then. */
static void note(void *context, const PGresult *result)
{
    struct database *database = context;
    const struct database_calls *calls = &database->calls;
    const char *state = calls->PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = calls->PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *severity = calls->PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    bool is_end = severity != NULL && strcmp(severity, "FATAL") == 0;
    bool is_warning = state != NULL && strncmp(state, "01", 2) == 0;
    if (is_end || is_warning) {
        database->warned = is_warning;
        database_keep_error(database, state != NULL ? state : "", text != NULL ? text : "");
    }
}

static enum database_outcome
connect_hosts(struct database *database, const PQconninfoOption *options, const struct hosts *hosts)
{
    int64_t deadline_ms = clock_steady_ms() + database->connect_timeout_ms;
    struct attempt attempts[DATABASE_HOSTS_MAX] = {0};
    char session[1024];
    const char *extra = option(options, "options");
    if (snprintf(session, sizeof(session), "%s %s", SESSION, extra != NULL ? extra : "") >=
        (int)sizeof(session)) {
        database_keep_error(database, "", "conninfo: options are too long");
        return DATABASE_REFUSED;
    }
    struct parameters common = {0};
    put_common(database, options, session, &common);
    for (size_t i = 0; i < hosts->count; i++) {
        struct parameters parameters = common;
        put(&parameters, "host", host_part(hosts, HOST_NAME, i));
        put(&parameters, "hostaddr", host_part(hosts, HOST_ADDRESS, i));
        put(&parameters, "port", host_part(hosts, HOST_PORT, i));
        start(database, &parameters, &attempts[i]);
    }
    const char *text = NULL;
    PGconn *won = race(database, attempts, hosts->count, deadline_ms, &text);
    for (size_t i = 0; i < hosts->count; i++) {
        if (attempts[i].connection != NULL) {
            database->calls.PQfinish(attempts[i].connection);
            attempts[i].outcome = DATABASE_LOST;
        }
    }
    if (won == NULL) {
        if (text != NULL) {
            char line[2 * DATABASE_ERROR_SIZE];
            snprintf(line, sizeof(line), "%s%s%s", text, database->error[0] != '\0' ? "; " : "",
                     database->error);
            database_keep_error(database, database->state, line);
        }
        return verdict(attempts, hosts->count);
    }
    database_keep_error(database, "", "");
    database->connection = won;
    database->calls.PQsetNoticeReceiver(won, note, database);
    return database->calls.PQsetnonblocking(won, 1) == 0 ? DATABASE_DONE : database_lack(database);
}

static const char hosts_problem[] = "hosts, addresses and ports don't match, or are more than 16";
_Static_assert(DATABASE_HOSTS_MAX == 16, "as they are told");

static enum database_outcome connect_by(struct database *database, const PQconninfoOption *options)
{
    const char *password = option(options, "password");
    if (password != NULL && password[0] != '\0') {
        database_keep_error(database, "", "a password does not belong into conninfo");
        return DATABASE_REFUSED;
    }
    struct hosts hosts;
    enum database_outcome outcome = DATABASE_REFUSED;
    if (hosts_make(options, &hosts)) {
        outcome = connect_hosts(database, options, &hosts);
    } else {
        database_keep_error(database, "", hosts_problem);
    }
    hosts_done(&hosts);
    return outcome;
}

enum database_outcome database_connect(struct database *database)
{
    database_disconnect(database);
    (void)database_enter(database);
    if (database->trouble != NULL) {
        database_keep_error(database, "", database->trouble);
        return DATABASE_REFUSED;
    }
    database_keep_error(database, "", "");
    char *why = NULL;
    PQconninfoOption *options = database->calls.PQconninfoParse(database->conninfo, &why);
    if (options == NULL) {
        char problem[DATABASE_ERROR_SIZE] = "";
        if (why != NULL) {
            describe(why, false, problem);
        }
        database_keep_error(database, "", problem);
        database->calls.PQfreemem(why);
        return why != NULL ? DATABASE_REFUSED : DATABASE_MEMORY;
    }
    enum database_outcome outcome = connect_by(database, options);
    database->calls.PQconninfoFree(options);
    return outcome;
}

bool database_check_conninfo(const char *conninfo, const char *const *options, unsigned *ret_set,
                             char ret_problem[DATABASE_ERROR_SIZE])
{
    struct database_calls calls;
    char *why = NULL;
    *ret_set = 0;
    if (database_open_library(&calls) != NULL) {
        return true; /* who connects will say so */
    }
    PQconninfoOption *parsed = calls.PQconninfoParse(conninfo, &why);
    if (parsed == NULL) {
        /* Who wrote it reads this; and where no word of a password stands, an option is none. */
        describe(why != NULL ? why : "out of memory", strstr(conninfo, "password") == NULL,
                 ret_problem);
        calls.PQfreemem(why);
        return false;
    }
    for (size_t i = 0; options[i] != NULL; i++) {
        const char *value = option(parsed, options[i]);
        *ret_set |= value != NULL && value[0] != '\0' ? 1u << i : 0;
    }
    struct hosts hosts;
    bool good = hosts_make(parsed, &hosts);
    if (!good) {
        snprintf(ret_problem, DATABASE_ERROR_SIZE, "%s", hosts_problem);
    }
    hosts_done(&hosts);
    calls.PQconninfoFree(parsed);
    return good;
}
