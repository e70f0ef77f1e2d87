/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of sys/tls share; nobody else includes it.
 *
 *   tls.c          certificates, authorities, server and client
 *   tls_tickets.c  keys of session tickets
 *   tls_stream.c   a connection
 */
#ifndef HOLDFAST_SYS_TLS_INTERNAL_H
#define HOLDFAST_SYS_TLS_INTERNAL_H

#include <openssl/ssl.h>

#include "sys/tls.h"

struct tls_server {
    SSL_CTX **contexts; /* one per certificate */
    size_t count;
};

struct tls_client {
    SSL_CTX *context;
};

/* What the library has to say, or `otherwise`; its queue is empty then. */
void tls_say(char ret_problem[TLS_PROBLEM_SIZE], const char *otherwise);
/* A context of that method with all that holds for both sides. NULL: memory. */
SSL_CTX *tls_context(const SSL_METHOD *method);
/* False: memory. */
bool tls_use_tickets(SSL_CTX *context, const struct tls_tickets *tickets);

#endif
