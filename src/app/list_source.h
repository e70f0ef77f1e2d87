/* SPDX-License-Identifier: Apache-2.0
 *
 * Where lists of recipients come from (app/list_desk.h): one for each file, page and directory that
 * domain blocks name, and what is known of it. Reads nothing itself.
 */
#ifndef HOLDFAST_APP_LIST_SOURCE_H
#define HOLDFAST_APP_LIST_SOURCE_H

#include "app/dial.h"
#include "base/digest.h"
#include "relay/config.h"

#include <sys/stat.h>

enum { LIST_FILE_EVERY_MS = 2000, LIST_SHARED_EVERY_MS = 60000, LIST_ETAG_SIZE = 256 };

/* By which it is seen that a file has changed. */
struct list_stamp {
    uint64_t device, inode;
    int64_t size, changed_ns, modified_ns;
};

struct list_stamp list_stamp_of(const struct stat *status);
bool list_stamp_is(const struct list_stamp *a, const struct list_stamp *b);

enum source_kind { SOURCE_FILE, SOURCE_PAGE, SOURCE_DIRECTORY, SOURCE_SHARED };

struct list_source {
    struct list_source *next;
    enum source_kind kind;
    uint64_t every_ms;
    int64_t due_ms;
    bool is_taken; /* this core has it as `stamp`, `etag` or `digest` says, or knows why not */
    bool is_failing;
    int64_t told_ms;
    struct list_stamp stamp;
    char etag[LIST_ETAG_SIZE]; /* empty: none */
    uint8_t digest[DIGEST_MAX_BYTES];
    uint64_t token;   /* of a directory that is asked; 0: none */
    bool is_answered; /* by one, with */
    struct dial_answer answer;
    char name[]; /* a path, a URL, ldap:NAME or cluster:NAME, as the configuration has it */
};

/* Those of a configuration, all of them due; what is known of `old` ones stays. */
enum error list_sources_make(const struct relay_config *config, struct list_source *old,
                             struct list_source **ret_sources) MUST_CHECK;
void list_sources_free(struct list_source *sources); /* NULL is allowed */

/* What a directory has said: it lies here until its turn comes, which is now. Takes the descriptor
 * over. */
void list_source_answer(struct list_source *source, const struct dial_answer *answer);
/* That, and the question, are of no use. */
void list_source_forget(struct list_source *source);

#endif
