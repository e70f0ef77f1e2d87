/* SPDX-License-Identifier: Apache-2.0
 *
 * The binary forms of values: numbers most significant byte first; a field, of a row of COPY as of
 * an array, is its length (int4, -1: null) and its bytes.
 */
#include "sys/database_internal.h"

#include <stdlib.h>

static void put_number(uint8_t *bytes, uint64_t value, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        bytes[i] = (uint8_t)(value >> (8 * (length - 1 - i)));
    }
}

static uint64_t get_number(const uint8_t *bytes, size_t length)
{
    uint64_t value = 0;
    for (size_t i = 0; i < length; i++) {
        value = value << 8 | bytes[i];
    }
    return value;
}

/* ---- parameters ----------------------------------------------------------------------------- */

static struct database_value number(struct database_scalar *store, uint64_t value, int length,
                                    enum database_type type)
{
    put_number(store->bytes, value, (size_t)length);
    return (struct database_value){store->bytes, length, type};
}

struct database_value database_bool(struct database_scalar *store, bool value)
{
    return number(store, value, 1, DATABASE_BOOL);
}

struct database_value database_int2(struct database_scalar *store, int16_t value)
{
    return number(store, (uint16_t)value, 2, DATABASE_INT2);
}

struct database_value database_int4(struct database_scalar *store, int32_t value)
{
    return number(store, (uint32_t)value, 4, DATABASE_INT4);
}

struct database_value database_int8(struct database_scalar *store, int64_t value)
{
    return number(store, (uint64_t)value, 8, DATABASE_INT8);
}

struct database_value database_xid8(struct database_scalar *store, uint64_t value)
{
    return number(store, value, 8, DATABASE_XID8);
}

static void put_uuid(uint8_t bytes[16], struct message_id id)
{
    put_number(bytes, id.high, 8);
    put_number(bytes + 8, id.low, 8);
}

struct database_value database_uuid(struct database_scalar *store, struct message_id id)
{
    put_uuid(store->bytes, id);
    return (struct database_value){store->bytes, 16, DATABASE_UUID};
}

struct database_value database_bytea(struct slice bytes)
{
    return (struct database_value){bytes.data, (int)bytes.length, DATABASE_BYTEA};
}

struct database_value database_text(struct slice text)
{
    return (struct database_value){text.data, (int)text.length, DATABASE_TEXT};
}

struct database_value database_null(enum database_type type)
{
    return (struct database_value){NULL, -1, type};
}

struct database_value database_array(const struct buffer *out, enum database_type type)
{
    return (struct database_value){out->data, (int)out->length, type};
}

/* ---- fields --------------------------------------------------------------------------------- */

static void append_number(struct buffer *out, uint64_t value, size_t length)
{
    uint8_t bytes[8];
    put_number(bytes, value, length);
    buffer_append(out, slice_make(bytes, length));
}

static void put_field(struct buffer *out, uint64_t value, size_t length)
{
    uint8_t bytes[12];
    put_number(bytes, length, 4);
    put_number(bytes + 4, value, length);
    buffer_append(out, slice_make(bytes, 4 + length));
}

void database_copy_header(struct buffer *out)
{
    static const uint8_t HEADER[19] = "PGCOPY\n\377\r\n"; /* then flags and extension: 0 */
    buffer_append(out, slice_make(HEADER, sizeof(HEADER)));
}

void database_copy_row(struct buffer *out, int fields)
{
    append_number(out, (uint64_t)fields, 2);
}

void database_copy_trailer(struct buffer *out)
{
    append_number(out, UINT16_MAX, 2);
}

void database_array_begin(struct buffer *out, enum database_type element, size_t count)
{
    append_number(out, count > 0 ? 1 : 0, 4); /* dimensions */
    append_number(out, 0, 4);                 /* this would say that there are nulls; nobody asks */
    append_number(out, (uint64_t)element, 4);
    if (count > 0) {
        append_number(out, count, 4);
        append_number(out, 1, 4); /* the lowest index */
    }
}

void database_put_bool(struct buffer *out, bool value)
{
    put_field(out, value, 1);
}

void database_put_int2(struct buffer *out, int16_t value)
{
    put_field(out, (uint16_t)value, 2);
}

void database_put_int4(struct buffer *out, int32_t value)
{
    put_field(out, (uint32_t)value, 4);
}

void database_put_int8(struct buffer *out, int64_t value)
{
    put_field(out, (uint64_t)value, 8);
}

void database_put_xid8(struct buffer *out, uint64_t value)
{
    put_field(out, value, 8);
}

void database_put_uuid(struct buffer *out, struct message_id id)
{
    uint8_t bytes[20];
    put_number(bytes, 16, 4);
    put_uuid(bytes + 4, id);
    buffer_append(out, slice_make(bytes, sizeof(bytes)));
}

void database_put_bytes(struct buffer *out, struct slice bytes)
{
    append_number(out, bytes.length, 4);
    buffer_append(out, bytes);
}

void database_put_null(struct buffer *out)
{
    append_number(out, UINT32_MAX, 4);
}

void database_put_int4_array(struct buffer *out, const int32_t *values, size_t count)
{
    append_number(out, count > 0 ? 20 + 8 * count : 12, 4);
    database_array_begin(out, DATABASE_INT4, count);
    for (size_t i = 0; i < count; i++) {
        database_put_int4(out, values[i]);
    }
}

/* ---- results -------------------------------------------------------------------------------- */

size_t database_count(const struct database_rows *rows)
{
    return (size_t)rows->calls->PQntuples(rows->result);
}

uint64_t database_affected(const struct database_rows *rows)
{
    uint64_t count;
    return slice_to_u64(slice_from_text(rows->calls->PQcmdTuples(rows->result)), &count) ? count
                                                                                         : 0;
}

bool database_is_null(const struct database_rows *rows, size_t row, int column)
{
    return rows->calls->PQgetisnull(rows->result, (int)row, column) != 0;
}

struct slice database_get_slice(const struct database_rows *rows, size_t row, int column)
{
    return slice_make(rows->calls->PQgetvalue(rows->result, (int)row, column),
                      (size_t)rows->calls->PQgetlength(rows->result, (int)row, column));
}

int64_t database_get_int(const struct database_rows *rows, size_t row, int column)
{
    struct slice bytes = database_get_slice(rows, row, column);
    switch (bytes.length) {
    case 1:
        return bytes.data[0];
    case 2:
        return (int16_t)get_number(bytes.data, 2);
    case 4:
        return (int32_t)get_number(bytes.data, 4);
    case 8:
        return (int64_t)get_number(bytes.data, 8);
    default:
        return 0;
    }
}

struct message_id database_get_uuid(const struct database_rows *rows, size_t row, int column)
{
    struct slice bytes = database_get_slice(rows, row, column);
    if (bytes.length != 16) {
        return (struct message_id){0};
    }
    return (struct message_id){get_number(bytes.data, 8), get_number(bytes.data + 8, 8)};
}

bool database_get_int4_array(const struct database_rows *rows, size_t row, int column,
                             struct slice *ret_elements, size_t *ret_count)
{
    struct slice bytes = database_get_slice(rows, row, column);
    *ret_elements = SLICE_EMPTY;
    *ret_count = 0;
    if (bytes.length < 12 || get_number(bytes.data + 8, 4) != DATABASE_INT4) {
        return false;
    }
    if (get_number(bytes.data, 4) == 0) {
        return true;
    }
    size_t count = bytes.length < 20 ? 0 : (size_t)get_number(bytes.data + 12, 4);
    if (get_number(bytes.data, 4) != 1 || get_number(bytes.data + 4, 4) != 0 ||
        bytes.length != 20 + 8 * count) {
        return false;
    }
    *ret_elements = slice_skip(bytes, 20);
    *ret_count = count;
    return true;
}

int32_t database_element_int4(struct slice elements, size_t index)
{
    return (int32_t)get_number(elements.data + index * 8 + 4, 4);
}
