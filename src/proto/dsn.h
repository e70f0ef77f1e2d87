/* SPDX-License-Identifier: Apache-2.0
 *
 * Delivery status notifications as messages: multipart/report (RFC 6522) of a text for people, the
 * fields of RFC 3464, and the header block of the message that it is about. Lines end in CRLF. The
 * envelope is the caller's: null reverse-path, to `sender`.
 *
 * All of it is 7-bit whatever was quoted from strangers, except the To field of an
 * internationalised sender (RFC 6533); nothing that comes from outside can start a line, a field or
 * a part of its own.
 */
#ifndef HOLDFAST_PROTO_DSN_H
#define HOLDFAST_PROTO_DSN_H

#include "base/buffer.h"

enum {
    DSN_HEADER_MAX = 64 << 10, /* most bytes of the original header block that are quoted */
};

enum dsn_action {
    DSN_FAILED,
    DSN_DELAYED,
    DSN_DELIVERED, /* to the mailbox */
    DSN_RELAYED,   /* to a server that gives no notices (RFC 3461 5.2.2) */
};

struct dsn_recipient {
    struct slice address;    /* forward-path without <> */
    struct slice orcpt;      /* RFC 3461 "type;xtext" as received, or empty */
    uint16_t code;           /* of the server's reply; 0: there was none */
    uint8_t enhanced[3];     /* class 0: derived from the code */
    struct slice diagnostic; /* reply text, or our reason when code is 0 */
    struct slice remote; /* the server that said it: a host name or a configured name, or empty */
    int64_t last_attempt_ms; /* Unix time; 0: never tried */
};

struct dsn_report {
    enum dsn_action action;
    struct slice hostname;    /* who reports */
    const char *id;           /* of the notification itself; makes Message-ID and boundary */
    int64_t now_ms;           /* Unix time */
    struct slice sender;      /* reverse-path of the original message, never empty */
    struct slice envelope_id; /* RFC 3461 ENVID as received (xtext), or empty */
    const char *original_id;  /* our id of the original message, for people */
    int64_t arrival_ms;       /* when we took it, Unix time */
    int64_t retry_until_ms;   /* DSN_DELAYED: until when it is tried, Unix time; 0: not said */
    int64_t deliver_by_ms;    /* RFC 2852 section 5, Unix time; 0: not given */
    bool tls_optional;        /* it says "TLS-Required: No", as the original did (RFC 8689) */
    struct slice message_id;  /* the original's Message-ID field value, or empty */
    struct slice header;      /* the original's header block, or its beginning */
    const struct dsn_recipient *recipients;
    uint32_t recipient_count; /* at least 1 */
};

/* Appends the notification to *ret_content. False: memory (or its limit) is out; what has been
 * appended is of no use. */
bool dsn_write(const struct dsn_report *report, struct buffer *ret_content,
               uint64_t *ret_header_length, bool *ret_utf8) MUST_CHECK;

#endif
