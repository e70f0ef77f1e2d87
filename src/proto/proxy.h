/* SPDX-License-Identifier: Apache-2.0
 *
 * The PROXY protocol, versions 1 and 2 (haproxy.org, doc/proxy-protocol.txt): the header that a
 * load balancer sends in front of a connection's bytes, to say whose they are. It proves nothing:
 * the caller reads it only from peers that must send one, and takes it from nobody else.
 */
#ifndef HOLDFAST_PROTO_PROXY_H
#define HOLDFAST_PROTO_PROXY_H

#include "base/network.h"

enum {
    PROXY_HEADER_MAX = 4096, /* longer ones are refused; 232 bytes is what addresses need */
    PROXY_V2_MAX = 52,       /* what proxy_write() and proxy_write_local() need */
};

enum proxy_verdict {
    PROXY_MORE,   /* it may become one: wait for more bytes */
    PROXY_DONE,   /* `length` bytes are the header */
    PROXY_BROKEN, /* it is none: nothing that follows can be trusted */
};

struct proxy_header {
    size_t length;
    bool is_known; /* else: the proxy speaks for itself (LOCAL), or cannot say (UNKNOWN) */
    struct ip_endpoint source;
    struct ip_endpoint destination;
    bool is_tls;              /* the client spoke TLS with the proxy */
    struct slice tls_version; /* "TLSv1.3", or empty; part of the bytes */
};

/* How many bytes behind these belong to the header for certain; at least 1 where proxy_read() says
 * PROXY_MORE. So that nothing is read that is not the header's. */
size_t proxy_wanted(struct slice bytes);
/* Looks at all that has come. Never more than PROXY_HEADER_MAX bytes are asked for. */
enum proxy_verdict proxy_read(struct slice bytes, struct proxy_header *ret_header);
/* A version 2 header that speaks for a TCP client. Returns its length. */
size_t proxy_write(const struct ip_endpoint *source, const struct ip_endpoint *destination,
                   uint8_t ret_bytes[PROXY_V2_MAX]);

/* Likewise, of a connection that is the sender's own (LOCAL). */
size_t proxy_write_local(uint8_t ret_bytes[PROXY_V2_MAX]);

#endif
