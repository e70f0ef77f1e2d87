/* SPDX-License-Identifier: Apache-2.0
 *
 * The configuration file: one table names every key with its type, default, range, unit, prose; the
 * parser, the checks, the man page and `holdfast check` come from it.
 */
#ifndef HOLDFAST_APP_SETTINGS_H
#define HOLDFAST_APP_SETTINGS_H

#include "base/buffer.h"
#include "cluster/settings_version.h"
#include "service/config.h"

struct settings; /* owns the memory of a struct service_config */

enum { SETTINGS_SECRET_MAX = 255 }; /* octets of a secret in a file; as proto/sasl.h takes */

/* Reads FILE and what it includes. All errors found go to `errors`, one line each:
 * "FILE:LINE: message". NULL if there is any; warnings (in `errors` too, with "warning: ") alone do
 * not fail. */
struct settings *settings_read(const char *path, struct buffer *errors);
/* The same with `version` for the cluster's settings, whether the file says that there is a cluster
 * or not; what is wrong in them is "settings:LINE: message". settings_read() takes the last good
 * copy of them, if there is a cluster: SETTINGS_COPY in the state directory. */
struct settings *settings_read_with(const char *path, const struct settings_version *version,
                                    struct buffer *errors);
/* The same with the copy of that name in the directory of SETTINGS_COPY: it must be there. */
struct settings *settings_read_copy(const char *path, const char *name, struct buffer *errors);
/* For a start, which must not fail of what others have set. If the file and the copy do not go
 * together, what stands in both is that of the file; if that does not do, the file alone: the
 * member is joining, as without a copy. *ret_conflict has what does not go together then, a line
 * each, as do `errors`, as warnings; else it is empty. */
struct settings *settings_read_to_start(const char *path, struct buffer *errors,
                                        struct buffer *ret_conflict);
#define SETTINGS_COPY_DIRECTORY "cluster" /* in the state directory */
#define SETTINGS_COPY "settings"
/* The file of a cluster's settings that is its table of users (service/login_store.h). */
#define SETTINGS_USERS_FILE "users"
#define SETTINGS_USERS "cluster:" SETTINGS_USERS_FILE
/* The same from text that settings_expand() made: no file is touched. Cannot fail on text that was
 * read before by this program. */
struct settings *settings_parse(struct slice text, struct buffer *errors);
/* The whole configuration as one text: included files and "file:" lists taken in. Secrets
 * (passwords in files) are in it only for their readers; the others parse the same configuration
 * without them. */
enum {
    SETTINGS_FOR_ALL = 0,
    SETTINGS_FOR_EDGE_OUT = 1, /* credentials at next hops */
    SETTINGS_FOR_EDGE_IN = 2,
    SETTINGS_FOR_HELPER = 4,
    SETTINGS_FOR_LOGIN = 8, /* hashes of passwords, and passwords of sites that fetch their mail */
    SETTINGS_FOR_DIRECTORY = 16,
    SETTINGS_FOR_CORE = 32,
};
void settings_expand(const struct settings *settings, unsigned readers, struct buffer *ret_text);
/* False: the text for these readers is that for all. */
bool settings_has_secrets(const struct settings *settings, unsigned readers);
/* Of the cluster's settings, with which these were read: a secret, a certificate, or named nowhere
 * here, but perhaps in another member's own file. */
bool settings_is_guarded_file(const struct settings *settings, struct slice name);
const struct service_config *settings_config(const struct settings *settings);
void settings_free(struct settings *settings); /* NULL is allowed */

/* The state directory that FILE names, even if other parts of it are wrong: for asking a daemon
 * that runs while its file is being edited. False, with a message, if the file cannot be read. */
bool settings_find_state(const char *path, struct buffer *ret_state, struct buffer *errors);

/* The database of the cluster that FILE names, with its password (empty: none), and this member's
 * name, NUL-terminated beyond its length; even if other parts of FILE are wrong: for mending the
 * cluster's settings. False, with a message: it names none. */
bool settings_find_cluster(const char *path, struct buffer *ret_database,
                           struct buffer *ret_password, struct buffer *ret_name,
                           struct buffer *errors);

/* A setting that takes a restart to change (the table says which), and its value in a form to
 * compare: equal values have equal digests. */
enum { SETTINGS_RESTART_MAX = 32 };
struct restart_setting {
    const char *key;
    uint64_t digest;
};
/* All of them, always in the same order; returns how many. */
uint32_t settings_restart(const struct service_config *config,
                          struct restart_setting ret_settings[SETTINGS_RESTART_MAX]);

/* mdoc source of the table's part of holdfast.conf(5). */
void settings_manual(struct buffer *ret_mdoc);

#endif
