/* SPDX-License-Identifier: Apache-2.0
 *
 * Asking an LDAP directory (RFC 4511), by OpenLDAP's library (docs/decisions/0034). Blocking, so
 * only for threads made for that (sys/worker.h); each call ends at a deadline whatever the other
 * side does, also in the middle of a message. A session is used by one thread at a time.
 *
 * The connection, TLS and its proof are ours (sys/net.h, sys/tls.h); the library sees neither a
 * name to look up nor a file. Referrals are never followed. Nothing is logged: ret_problem says for
 * people what went wrong, and has no password in it.
 */
#ifndef HOLDFAST_SYS_LDAP_SESSION_H
#define HOLDFAST_SYS_LDAP_SESSION_H

#include "base/error.h"
#include "base/network.h"
#include "base/slice.h"
#include "sys/tls.h"

enum {
    LDAP_PROBLEM_SIZE = 240,
    LDAP_MESSAGE_MAX = 4 << 20, /* bytes of one message from the directory */
    LDAP_VALUES_MAX = 1024,     /* of one entry that are told */
    LDAP_NO_TEXT_MAX = 100,     /* of what the directory says, that a problem quotes */
};

struct ldap_library;
/* Opens OpenLDAP's library; once in a process, before it confines itself or has threads. Where the
 * library is missing each session says so. NULL: memory. */
struct ldap_library *ldap_library_open(void);
/* NULL is allowed. The library itself stays open: it frees nothing of its own when closed. */
void ldap_library_free(struct ldap_library *library);

enum ldap_security {
    LDAP_SECURITY_TLS,      /* ldaps:// */
    LDAP_SECURITY_STARTTLS, /* RFC 4511 4.14; refused if the directory does not offer it */
    LDAP_SECURITY_NONE,
};

struct ldap_peer {
    struct ip_endpoint at;
    enum ldap_security security;
    struct slice name;      /* that its certificate must have (RFC 6125) */
    struct tls_client *tls; /* its authorities; this thread's; NULL only for LDAP_SECURITY_NONE */
    bool has_interrupt;     /* what waits ends with ERROR_CLOSED when */
    int interrupt;          /* this descriptor can be read; it stays the caller's */
};

struct ldap_session;

/* ERROR_TIMEOUT, ERROR_CLOSED, ERROR_IO: the directory is away. ERROR_DENIED: it did not prove who
 * it is. `deadline_ms` is of clock_steady_ms(). */
enum error ldap_session_open(const struct ldap_library *library, const struct ldap_peer *peer,
                             int64_t deadline_ms, struct ldap_session **ret_session,
                             char ret_problem[LDAP_PROBLEM_SIZE]) MUST_CHECK;
void ldap_session_close(struct ldap_session *session); /* NULL is allowed */
/* Another deadline for what follows; also from within an ldap_entry_fn. */
void ldap_session_allow(struct ldap_session *session, int64_t deadline_ms);

/* A simple bind (RFC 4513 5.1.3). ERROR_DENIED: not with this password, or nobody has the name.
 * ERROR_DENIED too, and nothing is asked, for an empty name or password: a directory would take
 * that for an anonymous bind and say yes (RFC 4513 5.1.2). Any other error: it could not be found
 * out. Before a bind, a session is anonymous. */
enum error ldap_session_bind(struct ldap_session *session, const char *dn, struct slice password,
                             char ret_problem[LDAP_PROBLEM_SIZE]) MUST_CHECK;

enum ldap_reach {
    LDAP_REACH_ENTRY,
    LDAP_REACH_CHILDREN,
    LDAP_REACH_TREE
}; /* the base itself, what is right
below it, all of it */

struct ldap_search {
    const char *base;
    enum ldap_reach reach;
    const char *filter;            /* RFC 4515 */
    const char *const *attributes; /* attribute_count names, and a NULL */
    size_t attribute_count;
    uint32_t limit; /* entries; 0: any */
    uint32_t page;  /* entries asked for at a time (RFC 2696), of who can; 0: all at once */
};

struct ldap_value {
    size_t attribute; /* index */
    struct slice bytes;
};

struct ldap_entry {
    const char *dn;
    const struct ldap_value *values; /* by attribute; at most LDAP_VALUES_MAX */
    size_t count;
    bool is_cut; /* it has more, which the directory or we leave out */
};

/* False: enough; the search ends well, the session can do nothing more. All is valid during the
 * call only. */
typedef bool ldap_entry_fn(void *context, const struct ldap_entry *entry);

/* ERROR_NONE: all have been told, but those behind referrals. ERROR_MISSING: there is no such base.
 * ERROR_LIMIT: there are more than `limit`, or than the directory gives; so many have been told.
 * ERROR_DENIED: we may not. */
enum error ldap_session_search(struct ldap_session *session, const struct ldap_search *search,
                               ldap_entry_fn *fn, void *context,
                               char ret_problem[LDAP_PROBLEM_SIZE]) MUST_CHECK;

#endif
