/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests of the control protocol from one member to another (docs/decisions/0050): the other one
 * carries them out as if they had come over its own socket.
 */
#ifndef HOLDFAST_SERVICE_CORE_POST_H
#define HOLDFAST_SERVICE_CORE_POST_H

#include "cluster/post.h"
#include "service/core_control.h"

struct core_post;

struct core_post *core_post_new(struct loop *loop, const struct database_settings *database);
void core_post_begin(struct core_post *post, struct core *core, int node);
void core_post_free(struct core_post *post); /* NULL is allowed */

/* Hands the request on to a node; its step then brings the answer. */
enum control_step control_forward_begin(struct control_request *request, struct slice node,
                                        const char *command);
enum control_step control_forward_step(struct control_request *request);

#endif
