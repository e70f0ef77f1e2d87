/* SPDX-License-Identifier: Apache-2.0
 *
 * Message ids: 128 bits made by the accepting process before anything is stored, never reused.
 * From the top: 48 bits Unix time in ms, 16 bits node, 32 bits drawn at random when the maker
 * started, 32 bits counter. Text form: 26 characters of base 32,
 * "0123456789abcdefghjkmnpqrstvwxyz", most significant first, so that text order is time order.
 */
#ifndef HOLDFAST_BASE_ID_H
#define HOLDFAST_BASE_ID_H

#include "base/slice.h"

#define ID_TEXT_LENGTH 26

struct message_id {
    uint64_t high;
    uint64_t low;
};

/* One per thread that makes ids; `start` is random. */
struct id_maker {
    uint16_t node;
    uint32_t start;
    uint32_t counter;
};

struct message_id id_make(struct id_maker *maker, int64_t now_unix_ms);
bool id_equal(struct message_id a, struct message_id b);
/* In the order of uuids, which is that of their times: < 0, 0 or > 0. */
int id_compare(struct message_id a, struct message_id b);
bool id_before(struct message_id a, struct message_id b);
bool id_is_null(struct message_id id);
/* Writes ID_TEXT_LENGTH characters and a NUL. */
void id_to_text(struct message_id id, char ret_text[ID_TEXT_LENGTH + 1]);
bool id_from_text(struct slice text, struct message_id *ret_id);
int64_t id_time_ms(struct message_id id);

#endif
