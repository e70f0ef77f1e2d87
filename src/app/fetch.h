/* SPDX-License-Identifier: Apache-2.0
 *
 * HTTP for the helper, by libcurl on the loop: bounded in time and size, certificates verified, no
 * redirects, no proxies, no cookies; names are resolved by our resolver.
 *
 * libcurl brings thirty libraries along. It is opened by this process alone, when it starts, so
 * that no process that parses what strangers send has any of them (docs/decisions/0018).
 */
#ifndef HOLDFAST_APP_FETCH_H
#define HOLDFAST_APP_FETCH_H

#include "base/buffer.h"
#include "sys/dns.h"

struct fetcher;

struct fetch_answer {
    /* NULL: it went well. Else why not, in words: no answer, another status than 200 (a POST: than
     * 2xx; with an ETag 304 is good too), another media type, too large. */
    const char *problem;
    bool untrusted;    /* the problem is the certificate */
    long status;       /* of HTTP; 0: there was no answer */
    struct slice body; /* of a GET that went well; valid during the call */
    struct slice etag; /* likewise; empty: it has none */
};
typedef void fetch_ended_fn(void *context, uint64_t slot, const struct fetch_answer *answer);

struct fetch {
    fetch_ended_fn *fn;
    void *context; /* see fetch_cancel() */
    uint64_t slot; /* the caller's */
    const char *url;
    bool may_be_plain;        /* http:// is allowed too */
    const char *media_type;   /* that the answer must have, parameters aside; NULL: any */
    const char *etag;         /* If-None-Match; NULL: none */
    struct slice post;        /* of a POST, with `post_type`; its answer's body is thrown away */
    const char *post_type;    /* NULL: it is a GET */
    const char *header;       /* one more line; NULL: none */
    struct slice authorities; /* PEM: who may have signed; empty: those of this machine */
    size_t most_bytes;        /* of the body of a GET */
    uint32_t timeout_ms;      /* for all of it, without the look-up of the name */
};

/* Before the walls are raised: opens libcurl and reads the certificates of this machine. Logs
 * nothing; what is missing fails each request. NULL: memory. */
struct fetcher *fetcher_new(void);
void fetcher_start(struct fetcher *fetcher, struct loop *loop, struct dns *dns);
void fetcher_free(struct fetcher *fetcher); /* NULL is allowed; nobody is called any more */

/* The answer may come before this returns. Keeps nothing of what it is given. */
void fetch_begin(struct fetcher *fetcher, const struct fetch *what);
/* Of all that are under way with this context: nobody is called for them. */
void fetch_cancel(struct fetcher *fetcher, const void *context);

#endif
