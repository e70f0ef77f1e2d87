/* SPDX-License-Identifier: Apache-2.0
 *
 * Lists of recipients, read by the helper and handed to core in pieces (`recipients load`): files,
 * looked at every two seconds and read when they have changed, and pages of the web and
 * directories, asked every `recipients-interval`. One list at a time. One that cannot be read to
 * its end, or names nobody, changes nothing: core keeps the last good one, also over a restart, and
 * is told why.
 */
#ifndef HOLDFAST_APP_LIST_DESK_H
#define HOLDFAST_APP_LIST_DESK_H

#include "app/fetch.h"
#include "service/config.h"

struct list_desk;

/* `fetcher` must outlive it. NULL: memory. */
struct list_desk *list_desk_new(struct loop *loop, const struct service_config *config,
                                struct fetcher *fetcher);
void list_desk_free(struct list_desk *desk); /* NULL is allowed */
/* A new stream to core, taken over: it is given all lists anew. */
void list_desk_set_core(struct list_desk *desk, int fd);
/* The link to ask for files (app/dial.h), taken over; once. False: memory. */
bool list_desk_set_files(struct list_desk *desk, int fd);
/* The link to ask for lists of directories, taken over, or -1: nobody is there to ask. */
void list_desk_set_directories(struct list_desk *desk, int fd);
/* On success nothing points into the old configuration. ERROR_MEMORY: it stays in force. */
enum error list_desk_reconfigure(struct list_desk *desk,
                                 const struct service_config *config) MUST_CHECK;

#endif
