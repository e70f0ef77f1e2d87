/* SPDX-License-Identifier: Apache-2.0
 *
 * The grammar of RFC 5321 section 4.1.2 that server and client share: paths, mailboxes, domains,
 * and the parameters of MAIL and RCPT. Pure functions over slices; results point into the input.
 *
 * Bounds are kinder than RFC 5321 section 4.5.3.1 asks (real local parts grow beyond 64 octets by
 * VERP and SRS) but they are bounds.
 */
#ifndef HOLDFAST_PROTO_SMTP_ADDRESS_H
#define HOLDFAST_PROTO_SMTP_ADDRESS_H

#include "base/slice.h"

enum {
    SMTP_LOCAL_PART_MAX = 255,
    SMTP_DOMAIN_MAX = 255,
    SMTP_LABEL_MAX = 63,
    SMTP_ENVID_MAX = 100, /* RFC 3461 section 4.4 */
    SMTP_ORCPT_MAX = 500, /* RFC 3461 section 4.2 */
    SMTP_AUTH_MAX = 500,  /* RFC 4954 section 3 */
};

struct smtp_mailbox {
    struct slice text;   /* local part, "@" and domain as given; without <> and source route */
    struct slice local;  /* as given, with its quotes */
    struct slice domain; /* name or [literal]; empty for "postmaster" alone */
    bool is_utf8;        /* has bytes above 127 (valid UTF-8; RFC 6531) */
};

enum smtp_path_kind {
    SMTP_REVERSE_PATH, /* "<>" is allowed and gives an empty text */
    SMTP_FORWARD_PATH, /* "<postmaster>" is allowed */
};

/* Reads a path with its <> from the front of *rest and moves on behind it. A source route is
 * skipped (RFC 5321 appendix C). False: no path; *rest is then undefined. */
bool smtp_path_read(struct slice *rest, enum smtp_path_kind kind, struct smtp_mailbox *ret_mailbox);
/* The whole slice is a mailbox: no <>, no route. */
bool smtp_mailbox_parse(struct slice text, struct smtp_mailbox *ret_mailbox);
/* A domain name (underscores and UTF-8 labels allowed) or an address literal in brackets. */
bool smtp_domain_is_valid(struct slice domain);
/* True if the local part asks another system to route on: "a%b", "b!a", "\"a@b\"". */
bool smtp_local_part_routes(struct slice local);

struct smtp_parameter {
    struct slice keyword;
    struct slice value; /* empty when there is none */
    bool has_value;
};

enum smtp_parameter_result { SMTP_PARAMETER_NONE, SMTP_PARAMETER_FOUND, SMTP_PARAMETER_BAD };

/* The next " KEYWORD[=value]" at the front of *rest. */
enum smtp_parameter_result smtp_parameter_next(struct slice *rest,
                                               struct smtp_parameter *ret_parameter);
/* RFC 3461 section 4: printable ASCII without "+" and "=", or "+" and two upper case hex digits. */
bool smtp_xtext_is_valid(struct slice text);
/* addr-type ";" xtext (or UTF-8, RFC 6533). */
bool smtp_orcpt_is_valid(struct slice value);

#endif
