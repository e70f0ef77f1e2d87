/* SPDX-License-Identifier: Apache-2.0
 *
 * A message on its way in by `queue import`: what its record says, and what its deliveries have
 * behind them.
 */
#ifndef HOLDFAST_SERVICE_CORE_CONTROL_RECORD_H
#define HOLDFAST_SERVICE_CORE_CONTROL_RECORD_H

#include "relay/notes.h"
#include "service/core_control.h"

struct imported_state {
    enum delivery_state state; /* WAITING, DEFERRED, IN_DOUBT, HELD, DEAD */
    unsigned fate;
    struct delivery_note note; /* of that state; its text is the last reason */
    struct slice redirect_to;
};

struct control_import {
    struct core *core;
    struct arena arena;
    struct spool_message message;
    uint32_t uncounted_s;
    struct spool_recipient *recipients;
    struct imported_state *states;
    uint32_t count, capacity;
    uint64_t bytes;
    struct spool_content *content;
    uint64_t stored_bytes;
    struct control_request *request; /* who waits for the batch */
};

/* The head row, with the recipients in it. False: malformed. */
bool control_import_record(struct control_import *import, const json_t *record);
/* An array of them, appended; NULL is none. False: malformed. */
bool control_import_recipients(struct control_import *import, const json_t *array);

#endif
