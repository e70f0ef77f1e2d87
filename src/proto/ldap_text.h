/* SPDX-License-Identifier: Apache-2.0
 *
 * The texts of LDAP that are made of what strangers say: filters (RFC 4515) and names of entries
 * (RFC 4514) from templates, and the URLs of directories (RFC 4516, as far as a host).
 */
#ifndef HOLDFAST_PROTO_LDAP_TEXT_H
#define HOLDFAST_PROTO_LDAP_TEXT_H

#include "base/buffer.h"

enum { LDAP_TEXT_MAX = 4096 };

/* Appends the value so that it means itself and nothing else. */
void ldap_escape_filter(struct buffer *text, struct slice value); /* RFC 4515 3 */
void ldap_escape_name(struct buffer *text, struct slice value);   /* RFC 4514 2.4 */

/* NULL, or what is wrong with a filter: its parentheses must pair, and hold all of it. Whether it
 * means something the directory says. */
const char *ldap_filter_fault(struct slice text);

enum ldap_template { LDAP_TEMPLATE_FILTER, LDAP_TEMPLATE_NAME };

/* NULL, or what is wrong with a template: %u is the whole value, %l what stands before its last
 * "@" (all of it without one), %d what stands behind, %% a percent sign. */
const char *ldap_template_fault(enum ldap_template kind, struct slice text);
/* Appends the template, the value escaped wherever it comes. The template must be faultless. False:
 * it asks for %d, and the value has none. */
bool ldap_template_fill(enum ldap_template kind, struct slice text, struct slice value,
                        struct buffer *ret_text);

struct ldap_url {
    bool has_tls;      /* ldaps: */
    struct slice host; /* a name or an address, without brackets */
    uint16_t port;     /* 636 or 389 if none is given */
};
/* ldap://HOST[:PORT] or ldaps://HOST[:PORT], with nothing behind but a slash. False: it is none. */
bool ldap_url_read(struct slice text, struct ldap_url *ret_url);

#endif
