/* SPDX-License-Identifier: Apache-2.0
 *
 * The Received field that is put in front of every message taken (RFC 5321 section 4.4), and behind
 * it, of who has logged in, an Authentication-Results field (RFC 8601 section 2.7.4).
 */
#ifndef HOLDFAST_SERVICE_SMTP_IN_TRACE_H
#define HOLDFAST_SERVICE_SMTP_IN_TRACE_H

#include "base/buffer.h"
#include "base/id.h"
#include "base/network.h"

struct smtp_in_trace {
    struct slice helo; /* as the client said it: made harmless here */
    const struct ip_address *client;
    struct slice hostname;
    struct slice protocol; /* RFC 3848, RFC 6531 section 4.3 */
    struct slice tls;      /* protocol first, cipher; empty: in the clear */
    struct slice suite;    /* of ciphers, RFC 8314 section 4.3; empty: not known */
    struct message_id id;
    struct slice recipient; /* when there is exactly one; else empty, for others must not see it */
    int64_t received_ms;
    int8_t priority; /* RFC 6710 section 7, if it was given */
    bool has_priority;
    struct slice authserv_id; /* who says who has logged in */
    struct slice login;       /* empty: nobody has, or nobody shall be told */
};

/* The whole fields with their last CRLF, folded before 78 columns where words allow it. */
void smtp_in_trace_write(const struct smtp_in_trace *trace, struct buffer *ret_field);

#endif
