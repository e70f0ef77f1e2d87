/* SPDX-License-Identifier: Apache-2.0 */
#include "base/id.h"

static const char alphabet[] = "0123456789abcdefghjkmnpqrstvwxyz";

struct message_id id_make(struct id_maker *maker, int64_t now_unix_ms)
{
    uint64_t time = now_unix_ms < 0 ? 0 : (uint64_t)now_unix_ms & 0xffffffffffff;
    struct message_id id = {
        .high = time << 16 | maker->node,
        .low = (uint64_t)maker->start << 32 | maker->counter,
    };
    maker->counter++;
    if (maker->counter == 0) {
        maker->start++;
    }
    return id;
}

bool id_equal(struct message_id a, struct message_id b)
{
    return a.high == b.high && a.low == b.low;
}

int id_compare(struct message_id a, struct message_id b)
{
    return a.high != b.high ? (a.high > b.high ? 1 : -1) : (a.low > b.low) - (a.low < b.low);
}

bool id_before(struct message_id a, struct message_id b)
{
    return id_compare(a, b) < 0;
}

bool id_is_null(struct message_id id)
{
    return id.high == 0 && id.low == 0;
}

void id_to_text(struct message_id id, char ret_text[ID_TEXT_LENGTH + 1])
{
    for (int i = ID_TEXT_LENGTH - 1; i >= 0; i--) {
        ret_text[i] = alphabet[id.low & 31];
        id.low = id.low >> 5 | id.high << 59;
        id.high >>= 5;
    }
    ret_text[ID_TEXT_LENGTH] = '\0';
}

bool id_from_text(struct slice text, struct message_id *ret_id)
{
    struct message_id id = {0, 0};
    if (text.length != ID_TEXT_LENGTH) {
        return false;
    }
    for (size_t i = 0; i < text.length; i++) {
        const char *at = text.data[i] == '\0' ? NULL : strchr(alphabet, text.data[i]);
        if (at == NULL || (i == 0 && at - alphabet > 7)) {
            return false;
        }
        id.high = id.high << 5 | id.low >> 59;
        id.low = id.low << 5 | (uint64_t)(at - alphabet);
    }
    *ret_id = id;
    return true;
}

int64_t id_time_ms(struct message_id id)
{
    return (int64_t)(id.high >> 16);
}
