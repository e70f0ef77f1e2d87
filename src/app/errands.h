/* SPDX-License-Identifier: Apache-2.0
 *
 * What core has fetched or posted over HTTPS (service/core_errands.h), run by the helper: asks core
 * now and then while there may be something to do, does it, and says what came of it.
 */
#ifndef HOLDFAST_APP_ERRANDS_H
#define HOLDFAST_APP_ERRANDS_H

#include "app/fetch.h"
#include "service/config.h"

struct errands;

/* `fetcher` must outlive it. NULL: memory. */
struct errands *errands_new(struct loop *loop, struct fetcher *fetcher);
void errands_free(struct errands *errands); /* NULL is allowed */
/* Nothing of it is kept. */
void errands_configure(struct errands *errands, const struct service_config *config);
/* A new stream, taken over. */
void errands_set_core(struct errands *errands, int fd);

#endif
