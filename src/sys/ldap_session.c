/* SPDX-License-Identifier: Apache-2.0
 *
 * The library's own transport is left out: it calls the functions below for bytes, which wait with
 * poll(2) until the deadline. So no read, however the directory cuts its messages, lasts longer.
 */
#include "sys/ldap_session.h"

#include "sys/clock.h"
#include "sys/loop.h"
#include "sys/net.h"

#include <dlfcn.h>
#include <errno.h>
#include <ldap.h>
#include <openldap.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

enum { INPUT_BYTES = 16384, WAIT_MS = 250 };

/* What is used of the library. */
#define CALLS(X)                                                                                   \
    X(ldap_init_fd)                                                                                \
    X(ldap_set_option)                                                                             \
    X(ldap_get_option)                                                                             \
    X(ldap_sasl_bind)                                                                              \
    X(ldap_search_ext)                                                                             \
    X(ldap_extended_operation)                                                                     \
    X(ldap_result)                                                                                 \
    X(ldap_parse_result)                                                                           \
    X(ldap_msgtype)                                                                                \
    X(ldap_msgfree)                                                                                \
    X(ldap_get_dn)                                                                                 \
    X(ldap_first_attribute)                                                                        \
    X(ldap_next_attribute)                                                                         \
    X(ldap_get_values_len)                                                                         \
    X(ldap_value_free_len)                                                                         \
    X(ldap_memfree)                                                                                \
    X(ldap_abandon_ext)                                                                            \
    X(ldap_unbind_ext)                                                                             \
    X(ldap_err2string)                                                                             \
    X(ldap_create_page_control)                                                                    \
    X(ldap_parse_pageresponse_control)                                                             \
    X(ldap_control_find)                                                                           \
    X(ldap_control_free)                                                                           \
    X(ldap_controls_free)                                                                          \
    X(ber_sockbuf_add_io)                                                                          \
    X(ber_sockbuf_ctrl)                                                                            \
    X(ber_free)                                                                                    \
    X(ber_memfree)

struct calls {
#define CALL_MEMBER(name) __typeof__(&name) name;
    CALLS(CALL_MEMBER)
#undef CALL_MEMBER
};

struct ldap_library {
    const char *trouble; /* why no session can be had, or NULL */
    struct calls calls;
};

struct ldap_session {
    const struct calls *calls;
    LDAP *ld;
    struct tls *tls;
    int64_t deadline_ms;
    int fd;
    int interrupt; /* -1: none */
    bool is_over;  /* nothing more can be asked */
    bool is_late;
    size_t from, to; /* of the input: received, and not yet given to the library */
    uint8_t input[INPUT_BYTES];
};

/* ---- the library -------------------------------------------------------------------------- */

/* Under 2.5 and 2.6 the same calls. */
static void *open_handle(void)
{
    void *handle = dlopen("libldap.so.2", RTLD_NOW | RTLD_LOCAL);
    return handle != NULL ? handle : dlopen("libldap-2.5.so.0", RTLD_NOW | RTLD_LOCAL);
}

static const char *open_library(struct ldap_library *library)
{
    int version = LDAP_VERSION3;
    void *handle = open_handle();
    if (handle == NULL) {
        return "OpenLDAP's library is not there";
    }
#define CALL_FIND(name)                                                                            \
    *(void **)&library->calls.name = dlsym(handle, #name);                                         \
    if (library->calls.name == NULL) {                                                             \
        return "OpenLDAP's library has no " #name;                                                 \
    }
    CALLS(CALL_FIND)
#undef CALL_FIND
    /* Its first call reads files and looks up our own name, for which it would wait long. */
    setenv("LDAPNOINIT", "1", 1);
    setenv("RES_OPTIONS", "timeout:1 attempts:1", 1);
    int result = library->calls.ldap_set_option(NULL, LDAP_OPT_PROTOCOL_VERSION, &version);
    unsetenv("RES_OPTIONS");
    return result == LDAP_OPT_SUCCESS ? NULL : "OpenLDAP's library fails";
}

struct ldap_library *ldap_library_open(void)
{
    struct ldap_library *library = calloc(1, sizeof(*library));
    if (library != NULL) {
        library->trouble = open_library(library);
    }
    return library;
}

void ldap_library_free(struct ldap_library *library)
{
    free(library);
}

/* ---- bytes -------------------------------------------------------------------------------- */

static int left_ms(const struct ldap_session *session)
{
    int64_t left = session->deadline_ms - clock_steady_ms();
    return left <= 0 ? 0 : left < INT32_MAX ? (int)left : INT32_MAX;
}

/* For LOOP_READ or LOOP_WRITE. */
static enum error wait_for(struct ldap_session *session, unsigned wanted)
{
    struct pollfd ready[] = {
        {.fd = session->fd,
         .events =
             (short)((wanted & LOOP_READ ? POLLIN : 0) | (wanted & LOOP_WRITE ? POLLOUT : 0))},
        {.fd = session->interrupt, .events = POLLIN}}; /* poll(2) passes over -1 */
    int result;
    do {
        result = poll(ready, 2, left_ms(session));
    } while (result < 0 && errno == EINTR);
    session->is_late = session->is_late || result == 0;
    return result > 0 && ready[1].revents != 0 ? ERROR_CLOSED
           : result > 0                        ? ERROR_NONE
           : result == 0                       ? ERROR_TIMEOUT
                                               : ERROR_IO;
}

static enum error receive(struct ldap_session *session)
{
    for (;;) {
        size_t length = 0;
        enum error error =
            session->tls != NULL
                ? tls_receive(session->tls, session->input, sizeof(session->input), &length)
                : net_receive(session->fd, session->input, sizeof(session->input), &length);
        if (error == ERROR_NONE) {
            session->from = 0;
            session->to = length;
            return ERROR_NONE;
        }
        if (error == ERROR_AGAIN) {
            error = wait_for(session, tls_interest(session->tls, LOOP_READ));
        }
        if (error != ERROR_NONE) {
            return error;
        }
    }
}

static ber_slen_t io_fail(struct ldap_session *session, enum error error)
{
    session->is_over = true;
    errno = error == ERROR_TIMEOUT ? ETIMEDOUT : ECONNRESET;
    return -1;
}

static ber_slen_t io_read(Sockbuf_IO_Desc *io, void *bytes, ber_len_t size)
{
    struct ldap_session *session = io->sbiod_pvt;
    enum error error = session->from == session->to ? receive(session) : ERROR_NONE;
    if (error == ERROR_CLOSED) {
        session->is_over = true;
        return 0;
    }
    if (error != ERROR_NONE) {
        return io_fail(session, error);
    }
    size_t length = session->to - session->from;
    length = length < size ? length : size;
    memcpy(bytes, session->input + session->from, length);
    session->from += length;
    return (ber_slen_t)length;
}

static ber_slen_t io_write(Sockbuf_IO_Desc *io, void *bytes, ber_len_t size)
{
    struct ldap_session *session = io->sbiod_pvt;
    struct slice rest = slice_make(bytes, size);
    while (rest.length > 0) {
        size_t sent = 0;
        enum error error = session->tls != NULL ? tls_send(session->tls, rest, &sent)
                                                : net_send(session->fd, rest, &sent);
        if (error == ERROR_AGAIN) {
            error = wait_for(session, tls_interest(session->tls, LOOP_WRITE));
        }
        if (error != ERROR_NONE) {
            return io_fail(session, error);
        }
        rest = slice_skip(rest, sent);
    }
    return (ber_slen_t)size;
}

static int io_setup(Sockbuf_IO_Desc *io, void *session)
{
    io->sbiod_pvt = session;
    return 0;
}

static int io_remove(Sockbuf_IO_Desc *io)
{
    io->sbiod_pvt = NULL;
    return 0;
}

static int io_control(Sockbuf_IO_Desc *io, int option, void *argument)
{
    const struct ldap_session *session = io->sbiod_pvt;
    (void)argument;
    return option == LBER_SB_OPT_DATA_READY &&
           (session->from < session->to || (session->tls != NULL && tls_has_unread(session->tls)));
}

/* The descriptor is closed with the session. */
static int io_close(Sockbuf_IO_Desc *io)
{
    (void)io;
    return 0;
}

static const Sockbuf_IO our_io = {.sbi_setup = io_setup,
                                  .sbi_remove = io_remove,
                                  .sbi_ctrl = io_control,
                                  .sbi_read = io_read,
                                  .sbi_write = io_write,
                                  .sbi_close = io_close};

/* ---- answers ------------------------------------------------------------------------------ */

static enum error error_of(int code)
{
    switch (code) {
    case LDAP_SUCCESS:
        return ERROR_NONE;
    case LDAP_INVALID_CREDENTIALS:
    case LDAP_INAPPROPRIATE_AUTH:
    case LDAP_INVALID_DN_SYNTAX:
    case LDAP_INSUFFICIENT_ACCESS:
    case LDAP_STRONG_AUTH_REQUIRED:
    case LDAP_UNWILLING_TO_PERFORM: /* of a locked account, too */
        return ERROR_DENIED;
    case LDAP_NO_SUCH_OBJECT:
        return ERROR_MISSING;
    case LDAP_SIZELIMIT_EXCEEDED:
    case LDAP_ADMINLIMIT_EXCEEDED:
        return ERROR_LIMIT;
    case LDAP_TIMELIMIT_EXCEEDED:
    case LDAP_TIMEOUT:
        return ERROR_TIMEOUT;
    case LDAP_FILTER_ERROR:
        return ERROR_INVALID;
    case LDAP_NO_MEMORY:
        return ERROR_MEMORY;
    case LDAP_SERVER_DOWN:
    case LDAP_UNAVAILABLE:
        return ERROR_CLOSED;
    default:
        return ERROR_IO;
    }
}

/* `text` is the directory's: shown as far as it is printable. */
static enum error fail(struct ldap_session *session, int code, const char *text, char *ret_problem)
{
    char quoted[LDAP_NO_TEXT_MAX + 1];
    size_t length = 0;
    for (; text != NULL && text[length] != '\0' && length < LDAP_NO_TEXT_MAX; length++) {
        quoted[length] = (char)(text[length] < ' ' || text[length] > '~' ? '?' : text[length]);
    }
    quoted[length] = '\0';
    if (session->is_late) {
        snprintf(ret_problem, LDAP_PROBLEM_SIZE, "no answer in time");
        return ERROR_TIMEOUT;
    }
    snprintf(ret_problem, LDAP_PROBLEM_SIZE, "%s%s%s", session->calls->ldap_err2string(code),
             length > 0 ? ": " : "", quoted);
    return error_of(code);
}

static enum error fail_locally(struct ldap_session *session, char *ret_problem)
{
    int code = LDAP_OTHER;
    (void)session->calls->ldap_get_option(session->ld, LDAP_OPT_RESULT_CODE, &code);
    session->is_over = true;
    return fail(session, code == LDAP_SUCCESS ? LDAP_SERVER_DOWN : code, NULL, ret_problem);
}

static bool is_interrupted(const struct ldap_session *session)
{
    struct pollfd ready = {.fd = session->interrupt, .events = POLLIN};
    return session->interrupt >= 0 && poll(&ready, 1, 0) > 0;
}

/* The next message to `id`; NULL with an error. Between messages the library waits by itself, and
 * knows nothing of an interrupt. */
static LDAPMessage *await(struct ldap_session *session, int id, enum error *ret_error,
                          char *ret_problem)
{
    LDAPMessage *message = NULL;
    int type = session->is_over ? -1 : 0, left = 1;
    while (type == 0 && left > 0 && !is_interrupted(session)) {
        left = left_ms(session);
        int patience_ms = left < WAIT_MS ? left : WAIT_MS;
        struct timeval patience = {0, patience_ms * 1000};
        type = session->calls->ldap_result(session->ld, id, LDAP_MSG_ONE, &patience, &message);
    }
    if (type > 0) {
        *ret_error = ERROR_NONE;
        return message;
    }
    session->is_late = session->is_late || (type == 0 && left <= 0);
    *ret_error = fail_locally(session, ret_problem);
    return NULL;
}

/* The end of an operation; frees the message. */
static enum error judge(struct ldap_session *session, LDAPMessage *message,
                        LDAPControl ***ret_controls, char *ret_problem)
{
    int code = LDAP_OTHER;
    char *text = NULL;
    int parsed = session->calls->ldap_parse_result(session->ld, message, &code, NULL, &text, NULL,
                                                   ret_controls, 1);
    code = parsed == LDAP_SUCCESS ? code : parsed;
    enum error error = code == LDAP_SUCCESS ? ERROR_NONE : fail(session, code, text, ret_problem);
    session->calls->ldap_memfree(text);
    return error;
}

/* The library takes the end of any operation for that of this one. */
static enum error end_of(struct ldap_session *session, int id, int type, char *ret_problem)
{
    enum error error;
    LDAPMessage *message = await(session, id, &error, ret_problem);
    if (message == NULL) {
        return error;
    }
    if (session->calls->ldap_msgtype(message) != type) {
        session->calls->ldap_msgfree(message);
        session->is_over = true;
        return fail(session, LDAP_PROTOCOL_ERROR, NULL, ret_problem);
    }
    return judge(session, message, NULL, ret_problem);
}

/* ---- a session ---------------------------------------------------------------------------- */

static enum error say(char *ret_problem, enum error error, const char *what)
{
    snprintf(ret_problem, LDAP_PROBLEM_SIZE, "%s: %s", what, error_text(error));
    return error;
}

static enum error shake_hands(struct ldap_session *session, const struct ldap_peer *peer,
                              char *ret_problem)
{
    char problem[TLS_PROBLEM_SIZE] = "";
    const struct tls_peer who = {.trust = TLS_TRUST_AUTHORITIES, .name = peer->name};
    if (session->from < session->to) {
        return say(ret_problem, ERROR_INVALID, "more than an answer to StartTLS");
    }
    session->tls = tls_connect(peer->tls, &who, session->fd);
    enum error error = session->tls != NULL ? ERROR_NONE : ERROR_MEMORY;
    while (error == ERROR_NONE) {
        error = tls_shake_hands(session->tls, problem);
        if (error != ERROR_AGAIN) {
            break;
        }
        error = wait_for(session, tls_wants(session->tls));
    }
    return error == ERROR_NONE ? error : say(ret_problem, error, problem[0] ? problem : "TLS");
}

static enum error connect_to(struct ldap_session *session, const struct ip_endpoint *at,
                             char *ret_problem)
{
    enum error error = net_connect(at, NULL, &session->fd);
    if (error == ERROR_NONE) {
        error = wait_for(session, LOOP_WRITE);
    }
    if (error == ERROR_NONE) {
        error = net_connected(session->fd);
    }
    return error == ERROR_NONE ? error : say(ret_problem, error, "cannot be reached");
}

static enum error begin_protocol(struct ldap_session *session, char *ret_problem)
{
    const struct calls *calls = session->calls;
    int version = LDAP_VERSION3, never = LDAP_DEREF_NEVER;
    ber_len_t most = LDAP_MESSAGE_MAX;
    Sockbuf *bytes = NULL;
    bool good =
        calls->ldap_init_fd(session->fd, LDAP_PROTO_EXT, NULL, &session->ld) == LDAP_SUCCESS &&
        calls->ldap_set_option(session->ld, LDAP_OPT_PROTOCOL_VERSION, &version) == 0 &&
        calls->ldap_set_option(session->ld, LDAP_OPT_REFERRALS, LDAP_OPT_OFF) == 0 &&
        calls->ldap_set_option(session->ld, LDAP_OPT_RESTART, LDAP_OPT_OFF) == 0 &&
        calls->ldap_set_option(session->ld, LDAP_OPT_DEREF, &never) == 0 &&
        calls->ldap_get_option(session->ld, LDAP_OPT_SOCKBUF, &bytes) == 0 && bytes != NULL &&
        calls->ber_sockbuf_add_io(bytes, (Sockbuf_IO *)&our_io, LBER_SBIOD_LEVEL_PROVIDER,
                                  session) == 0 &&
        calls->ber_sockbuf_ctrl(bytes, LBER_SB_OPT_SET_MAX_INCOMING, &most) > 0;
    return good ? ERROR_NONE : say(ret_problem, ERROR_MEMORY, "OpenLDAP's library");
}

static enum error start_tls(struct ldap_session *session, char *ret_problem)
{
    int id;
    int code = session->calls->ldap_extended_operation(session->ld, LDAP_EXOP_START_TLS, NULL, NULL,
                                                       NULL, &id);
    return code == LDAP_SUCCESS ? end_of(session, id, LDAP_RES_EXTENDED, ret_problem)
                                : fail_locally(session, ret_problem);
}

static enum error begin(struct ldap_session *session, const struct ldap_peer *peer,
                        char *ret_problem)
{
    enum error error = connect_to(session, &peer->at, ret_problem);
    if (error == ERROR_NONE && peer->security == LDAP_SECURITY_TLS) {
        error = shake_hands(session, peer, ret_problem);
    }
    if (error == ERROR_NONE) {
        error = begin_protocol(session, ret_problem);
    }
    if (error == ERROR_NONE && peer->security == LDAP_SECURITY_STARTTLS) {
        error = start_tls(session, ret_problem);
        if (error == ERROR_NONE) {
            error = shake_hands(session, peer, ret_problem);
        }
    }
    return error;
}

enum error ldap_session_open(const struct ldap_library *library, const struct ldap_peer *peer,
                             int64_t deadline_ms, struct ldap_session **ret_session,
                             char ret_problem[LDAP_PROBLEM_SIZE])
{
    ret_problem[0] = '\0';
    if (library->trouble != NULL) {
        snprintf(ret_problem, LDAP_PROBLEM_SIZE, "%s", library->trouble);
        return ERROR_MISSING;
    }
    struct ldap_session *session = calloc(1, sizeof(*session));
    if (session == NULL) {
        return say(ret_problem, ERROR_MEMORY, "session");
    }
    session->calls = &library->calls;
    session->fd = -1;
    session->interrupt = peer->has_interrupt ? peer->interrupt : -1;
    session->deadline_ms = deadline_ms;
    enum error error = begin(session, peer, ret_problem);
    if (error != ERROR_NONE) {
        ldap_session_close(session);
        return error;
    }
    *ret_session = session;
    return ERROR_NONE;
}

void ldap_session_close(struct ldap_session *session)
{
    if (session == NULL) {
        return;
    }
    session->deadline_ms = 0; /* saying goodbye waits for nothing */
    if (session->ld != NULL) {
        session->calls->ldap_unbind_ext(session->ld, NULL, NULL);
    }
    tls_free(session->tls);
    if (session->fd >= 0) {
        net_close(session->fd);
    }
    free(session);
}

void ldap_session_allow(struct ldap_session *session, int64_t deadline_ms)
{
    session->deadline_ms = deadline_ms;
}

enum error ldap_session_bind(struct ldap_session *session, const char *dn, struct slice password,
                             char ret_problem[LDAP_PROBLEM_SIZE])
{
    int id;
    struct berval secret = {.bv_len = password.length, .bv_val = (char *)password.data};
    if (dn[0] == '\0' || password.length == 0) {
        return say(ret_problem, ERROR_DENIED, "without a name or a password nobody is anybody");
    }
    if (session->is_over) {
        return say(ret_problem, ERROR_CLOSED, "directory");
    }
    int code =
        session->calls->ldap_sasl_bind(session->ld, dn, LDAP_SASL_SIMPLE, &secret, NULL, NULL, &id);
    enum error error = code == LDAP_SUCCESS ? end_of(session, id, LDAP_RES_BIND, ret_problem)
                                            : fail_locally(session, ret_problem);
    return error == ERROR_MISSING ? ERROR_DENIED : error;
}

/* ---- searching ---------------------------------------------------------------------------- */

/* One attribute's values behind those that are there. */
static void show_values(struct ldap_value *values, struct ldap_entry *entry, struct berval **found,
                        size_t attribute)
{
    for (size_t i = 0; found != NULL && found[i] != NULL; i++) {
        if (entry->count == LDAP_VALUES_MAX) {
            entry->is_cut = true;
            return;
        }
        values[entry->count++] =
            (struct ldap_value){attribute, slice_make(found[i]->bv_val, found[i]->bv_len)};
    }
}

/* Active Directory gives 1500 values of an attribute and names it "proxyAddresses;range=0-1499". */
static bool has_ranges(struct ldap_session *session, LDAPMessage *message)
{
    static const struct slice range = SLICE_LITERAL(";range=");
    const struct calls *calls = session->calls;
    BerElement *place = NULL;
    bool found = false;
    for (char *name = calls->ldap_first_attribute(session->ld, message, &place); name != NULL;
         name = calls->ldap_next_attribute(session->ld, message, place)) {
        struct slice rest = slice_from_text(name);
        rest = slice_skip(rest, slice_find(rest, ';'));
        found = found || slice_starts_fold(rest, range);
        calls->ldap_memfree(name);
    }
    calls->ber_free(place, 0);
    return found;
}

static bool tell_entry(struct ldap_session *session, LDAPMessage *message,
                       const struct ldap_search *search, ldap_entry_fn *fn, void *context,
                       enum error *ret_error)
{
    const struct calls *calls = session->calls;
    struct ldap_value *values = calloc(LDAP_VALUES_MAX, sizeof(*values));
    struct berval ***found = calloc(search->attribute_count + 1, sizeof(*found));
    char *dn = calls->ldap_get_dn(session->ld, message);
    bool good = values != NULL && found != NULL && dn != NULL, more = false;
    *ret_error = good ? ERROR_NONE : ERROR_MEMORY;
    if (good) {
        struct ldap_entry entry = {
            .dn = dn, .values = values, .is_cut = has_ranges(session, message)};
        for (size_t i = 0; i < search->attribute_count; i++) {
            found[i] = calls->ldap_get_values_len(session->ld, message, search->attributes[i]);
            show_values(values, &entry, found[i], i);
        }
        more = fn(context, &entry);
        for (size_t i = 0; i < search->attribute_count; i++) {
            calls->ldap_value_free_len(found[i]);
        }
    }
    calls->ldap_memfree(dn);
    free(found);
    free(values);
    return good && more;
}

struct page {
    struct berval cookie; /* the library's; with bv_len 0 there is none */
    uint32_t told;        /* entries, of all pages */
    bool is_enough;
};

/* One that knows no pages gives all at once, without a word of them; but who has begun with pages
 * says with each whether it is the last. */
static enum error take_cookie(struct ldap_session *session, LDAPControl **controls,
                              struct page *page, char *ret_problem)
{
    ber_int_t estimate;
    bool was_first = page->cookie.bv_len == 0;
    LDAPControl *control =
        session->calls->ldap_control_find(LDAP_CONTROL_PAGEDRESULTS, controls, NULL);
    session->calls->ber_memfree(page->cookie.bv_val);
    page->cookie = (struct berval){0};
    bool is_good = control == NULL
                       ? was_first
                       : session->calls->ldap_parse_pageresponse_control(
                             session->ld, control, &estimate, &page->cookie) == LDAP_SUCCESS;
    if (!is_good) {
        page->cookie = (struct berval){0};
        session->is_over = true;
        return say(ret_problem, ERROR_INVALID, "whether there are more pages");
    }
    return ERROR_NONE;
}

static enum error take_page(struct ldap_session *session, int id, const struct ldap_search *search,
                            struct page *page, ldap_entry_fn *fn, void *context, char *ret_problem)
{
    for (;;) {
        enum error error;
        LDAPMessage *message = await(session, id, &error, ret_problem);
        if (message == NULL) {
            return error;
        }
        int type = session->calls->ldap_msgtype(message);
        if (type == LDAP_RES_SEARCH_RESULT) {
            LDAPControl **controls = NULL;
            error = judge(session, message, &controls, ret_problem);
            if (error == ERROR_NONE && search->page > 0) {
                error = take_cookie(session, controls, page, ret_problem);
            }
            session->calls->ldap_controls_free(controls);
            return error;
        }
        bool more = true;
        if (type != LDAP_RES_SEARCH_ENTRY && type != LDAP_RES_SEARCH_REFERENCE) {
            error = fail(session, LDAP_PROTOCOL_ERROR, NULL, ret_problem);
        } else if (type == LDAP_RES_SEARCH_ENTRY && search->limit > 0 &&
                   page->told >= search->limit) {
            error = say(ret_problem, ERROR_LIMIT, "too many entries");
        } else if (type == LDAP_RES_SEARCH_ENTRY) {
            page->told++;
            more = tell_entry(session, message, search, fn, context, &error);
        }
        session->calls->ldap_msgfree(message);
        if (error != ERROR_NONE || !more) {
            (void)session->calls->ldap_abandon_ext(session->ld, id, NULL, NULL);
            session->is_over = page->is_enough = true;
            return error;
        }
    }
}

static enum error ask_page(struct ldap_session *session, const struct ldap_search *search,
                           struct page *page, int *ret_id, char *ret_problem)
{
    const struct calls *calls = session->calls;
    LDAPControl *control = NULL;
    int code = search->page == 0
                   ? LDAP_SUCCESS
                   : calls->ldap_create_page_control(
                         session->ld, (ber_int_t)search->page,
                         page->cookie.bv_val != NULL ? &page->cookie : NULL, 0, &control);
    if (code == LDAP_SUCCESS) {
        static const int scopes[] = {[LDAP_REACH_ENTRY] = LDAP_SCOPE_BASE,
                                     [LDAP_REACH_CHILDREN] = LDAP_SCOPE_ONELEVEL,
                                     [LDAP_REACH_TREE] = LDAP_SCOPE_SUBTREE};
        LDAPControl *controls[] = {control, NULL};
        code = calls->ldap_search_ext(session->ld, search->base, scopes[search->reach],
                                      search->filter, (char **)search->attributes, 0,
                                      control != NULL ? controls : NULL, NULL, NULL,
                                      search->page == 0 ? (int)search->limit : 0, ret_id);
    }
    if (control != NULL) {
        calls->ldap_control_free(control);
    }
    if (code == LDAP_FILTER_ERROR) { /* nothing has been said */
        return fail(session, code, NULL, ret_problem);
    }
    return code == LDAP_SUCCESS ? ERROR_NONE : fail_locally(session, ret_problem);
}

enum error ldap_session_search(struct ldap_session *session, const struct ldap_search *search,
                               ldap_entry_fn *fn, void *context,
                               char ret_problem[LDAP_PROBLEM_SIZE])
{
    struct page page = {0};
    enum error error;
    if (session->is_over) {
        return say(ret_problem, ERROR_CLOSED, "directory");
    }
    do {
        int id = 0;
        error = ask_page(session, search, &page, &id, ret_problem);
        if (error == ERROR_NONE) {
            error = take_page(session, id, search, &page, fn, context, ret_problem);
        }
    } while (error == ERROR_NONE && !page.is_enough && page.cookie.bv_len > 0);
    session->calls->ber_memfree(page.cookie.bv_val);
    return error;
}
