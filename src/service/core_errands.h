/* SPDX-License-Identifier: Apache-2.0
 *
 * What core has fetched, or posted, over HTTPS: it has no network, so the helper runs these errands
 * for it. They are asked for over the control protocol ("errands", "errand done"), by a process
 * that sees no mail. Bounded: so many wait at once, each for so long.
 */
#ifndef HOLDFAST_SERVICE_CORE_ERRANDS_H
#define HOLDFAST_SERVICE_CORE_ERRANDS_H

#include "service/core_internal.h"

enum {
    ERRANDS_MAX = 256,
    ERRAND_BODY_MAX = 512 << 10, /* bytes, either way */
    ERRAND_URL_MAX = 1024,
};

struct errand_answer {
    const char *problem; /* NULL: it went well; else why not, for people */
    bool untrusted;      /* the problem is the other side's certificate */
    struct slice body;   /* of what was fetched; valid during the call */
};
typedef void errand_fn(void *context, const struct errand_answer *answer);

struct errand {
    errand_fn *fn;
    void *context; /* see core_errands_forget() */
    const char *url;
    const char *media_type; /* that the answer must have; NULL: any */
    size_t most_bytes;      /* of it */
    struct slice post;      /* of a POST, with `post_type` */
    const char *post_type;  /* NULL: it is a GET */
    uint32_t timeout_ms;
};

void core_errands_init(struct core *core);
void core_errands_done(struct core *core);
void core_errands_tick(struct core *core);
/* Copies what it is given. False, and nobody is called: there are too many, or memory is out. */
bool core_errands_send(struct core *core, const struct errand *what);
/* Nobody is called for these any more. */
void core_errands_forget(struct core *core, const void *context);

#endif
