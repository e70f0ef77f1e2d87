/* SPDX-License-Identifier: Apache-2.0
 *
 * The desk's parts: directory_desk.c configurations, and passwords that login asks for;
 * directory_list.c lists of recipients that helper asks for; directory_visit.c what both do, a
 * visit to one of a directory's servers.
 */
#ifndef HOLDFAST_APP_DIRECTORY_INTERNAL_H
#define HOLDFAST_APP_DIRECTORY_INTERNAL_H

#include "app/directory_desk.h"
#include "base/list.h"
#include "sys/worker.h"

#include <stdatomic.h>

enum {
    DIRECTORY_ENDPOINTS_MAX = LDAP_URLS_MAX * 4,
    DIRECTORY_LIST_THREAD = DIRECTORY_THREADS,
    DIRECTORY_WORKERS = DIRECTORY_THREADS + 1,
};

struct directory {
    struct generation *generation;
    const struct ldap_config *config;
    struct worker *workers[DIRECTORY_WORKERS];   /* of lists NULL, where nobody wants one */
    struct tls_client *trust[DIRECTORY_WORKERS]; /* each thread's, made when it needs it */
    uint32_t next_worker;
    _Atomic uint32_t preferred; /* URL that answered last */
    bool is_away;
    uint32_t lists;       /* that are read, or wait for it */
    uint64_t passed_over; /* values of the last one that were no addresses */
};

/* One configuration: lives on while visits under it do. */
struct generation {
    struct link link;
    struct directory_desk *desk;
    struct settings *settings;
    uint32_t references; /* the desk's while it is in force, and one of each visit */
    int over;            /* can be read when it is in force no more */
    struct directory directories[LDAPS_MAX];
    uint32_t count;
};

struct directory_desk {
    struct loop *loop;
    const struct ldap_library *library;
    struct dns *dns;
    struct generation *generation;
    struct link generations;
    struct loop_timer *sweeper;
    struct link visits;
    struct buffer message;
    struct directory_link {
        struct loop_watch *watch;
        int fd; /* -1: nobody asks */
    } logins, lists;
};

/* NULL: there is none. */
struct directory *directory_named(struct generation *generation, struct slice name);
/* It goes later, for one of its threads may be what has ended just now. */
void directory_unref(struct generation *generation);
/* Takes the descriptor over, or -1. */
void directory_link_set(struct directory_desk *desk, struct directory_link *link, int fd,
                        loop_watch_fn *heard);

/* ---- directory_visit.c -------------------------------------------------------------------- */

struct visit;

struct visit_kind {
    bool is_interrupted; /* when its configuration is in force no more */
    /* On its thread, with a session that nobody has bound. False: this server does not answer, as
     * `problem` says, and the next is asked. */
    bool (*ask)(struct visit *visit, struct ldap_session *session);
    void (*end)(struct visit *visit);  /* on the loop; frees it */
    void (*free)(struct visit *visit); /* calls visit_done() */
};

/* Servers' addresses are looked up on the loop, the rest is a thread's. */
struct visit {
    struct link link; /* desk->visits */
    const struct visit_kind *kind;
    struct directory *directory;
    uint32_t thread;
    int64_t deadline_ms;
    struct dns_query *query;
    uint32_t resolving; /* the URL whose host is looked up */
    struct {
        struct ip_endpoint at;
        uint32_t url;
    } endpoints[DIRECTORY_ENDPOINTS_MAX];
    size_t endpoint_count;
    bool is_answered;
    char problem[LDAP_PROBLEM_SIZE];
};

/* It may have ended when this returns. */
void visit_begin(struct visit *visit, const struct visit_kind *kind, struct directory *directory,
                 uint32_t thread, int64_t patience_ms);
void visit_done(struct visit *visit);
/* Binds as who searches, if the configuration names one. */
bool visit_bind(struct visit *visit, struct ldap_session *session);
/* False, always; where there is no problem yet it is `what`. */
bool visit_fails(struct visit *visit, const char *what);
/* A text of the configuration with a NUL behind it. */
void visit_text(struct slice text, char ret_text[LDAP_TEXT_MAX]);

/* ---- directory_list.c --------------------------------------------------------------------- */

void directory_list_heard(void *desk, unsigned ready);

#endif
