/* SPDX-License-Identifier: Apache-2.0
 *
 * Asks LDAP directories (sys/ldap_session.h) whether a password is right, for the process that
 * decides who may log in, over a pair of sockets with messages (service/login_remote.h); and who is
 * there, for the process that reads lists of recipients, over another (app/dial.h).
 *
 * Each directory has threads of its own, so one that is slow holds up nobody else's. A question
 * opens a connection, finds the user's entry by a name or a search that was made of what he typed,
 * and binds as he. His addresses are the values of attributes; a pattern is none of them, for who
 * may change his own entry would be everybody.
 *
 * A list is all addresses of all entries that a filter matches, a line each. It is read to its end,
 * page by page, or it is none; the answer is a sealed file in memory. A reload ends it with
 * ERROR_AGAIN, as does a directory that nobody knows yet.
 */
#ifndef HOLDFAST_APP_DIRECTORY_DESK_H
#define HOLDFAST_APP_DIRECTORY_DESK_H

#include "app/settings.h"
#include "sys/dns.h"
#include "sys/ldap_session.h"

enum {
    DIRECTORY_THREADS = 4,               /* of each directory */
    DIRECTORY_PATIENCE_MS = 20000,       /* for one question, waiting and all servers included */
    DIRECTORY_LIST_PATIENCE_MS = 600000, /* likewise for a list */
    DIRECTORY_LIST_BYTES_MAX = 64 << 20,
};

struct directory_desk;

/* Takes the settings over when it succeeds. NULL: memory. */
struct directory_desk *directory_desk_new(struct loop *loop, struct settings *settings,
                                          const struct ldap_library *library, struct dns *dns);
void directory_desk_free(struct directory_desk *desk); /* NULL is allowed; waits for questions */
/* Takes the settings over when it succeeds; questions that are under way end with the old ones. */
enum error directory_desk_reconfigure(struct directory_desk *desk,
                                      struct settings *settings) MUST_CHECK;
/* Take the descriptor over, or -1: nobody asks. */
void directory_desk_set_logins(struct directory_desk *desk, int fd);
void directory_desk_set_lists(struct directory_desk *desk, int fd);

#endif
