/* SPDX-License-Identifier: Apache-2.0
 *
 * A session's connection, which may come to speak TLS: `tls` is NULL until it does.
 */
#ifndef HOLDFAST_SERVICE_STREAM_H
#define HOLDFAST_SERVICE_STREAM_H

#include "sys/net.h"
#include "sys/tls.h"

static inline enum error MUST_CHECK stream_receive(struct tls *tls, int fd, void *ret_bytes,
                                                   size_t size, size_t *ret_length)
{
    return tls != NULL ? tls_receive(tls, ret_bytes, size, ret_length)
                       : net_receive(fd, ret_bytes, size, ret_length);
}

static inline enum error MUST_CHECK stream_send(struct tls *tls, int fd, struct slice bytes,
                                                size_t *ret_sent)
{
    return tls != NULL ? tls_send(tls, bytes, ret_sent) : net_send(fd, bytes, ret_sent);
}

#endif
