/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/fake_database.h"

#include "base/arena.h"
#include "base/crc32c.h"
#include "spool/log_format.h"
#include "sys/database_internal.h"

#include <assert.h>
#include <stdlib.h>

enum { COLUMNS = 8, ROWS_MAX = 12, RESULTS_MAX = 1024, ASKED_MAX = 16 };

struct pg_result {
    size_t rows;
    struct slice cells[ROWS_MAX][COLUMNS];
    bool nulls[ROWS_MAX][COLUMNS];
};

struct fake {
    struct database database; /* nothing of it is used */
    struct arena arena;
    struct database_rows results[RESULTS_MAX];
    size_t count;
    bool connected;
};

static struct slice fed;
static struct message_id asked[ASKED_MAX]; /* the last ids that anything was asked about */
static size_t asked_count;

void fake_database_feed(struct slice octets)
{
    fed = octets;
    asked_count = 0;
}

static uint8_t draw(void)
{
    uint8_t octet = fed.length > 0 ? fed.data[0] : 0;
    fed = slice_skip(fed, 1);
    return octet;
}

struct message_id fake_database_id(uint8_t n)
{
    return (struct message_id){UINT64_C(0x019b000000007000) + ((uint64_t)n << 32), 1};
}

/* ---- values -------------------------------------------------------------------------------- */

static struct slice kept(struct fake *fake, struct buffer *bytes)
{
    struct slice copy = arena_copy(&fake->arena, buffer_slice(bytes));
    buffer_done(bytes);
    assert(copy.data != NULL || copy.length == 0);
    return copy;
}

static struct slice number(struct fake *fake, uint64_t value, size_t length)
{
    struct buffer bytes = {0};
    for (size_t i = length; i-- > 0;) {
        buffer_put_u8(&bytes, (uint8_t)(value >> (8 * i)));
    }
    return kept(fake, &bytes);
}

static struct slice uuid(struct fake *fake, struct message_id id)
{
    struct buffer bytes = {0};
    for (size_t i = 0; i < 16; i++) {
        buffer_put_u8(&bytes, (uint8_t)((i < 8 ? id.high : id.low) >> (56 - 8 * (i % 8))));
    }
    return kept(fake, &bytes);
}

static void remember(struct slice bytes)
{
    struct message_id *id = &asked[asked_count++ % ASKED_MAX];
    *id = (struct message_id){0};
    for (size_t i = 0; i < 16; i++) {
        uint64_t *half = i < 8 ? &id->high : &id->low;
        *half = *half << 8 | bytes.data[i];
    }
}

static void remember_values(const struct database_value *values, int count)
{
    for (int i = 0; i < count; i++) {
        struct slice bytes = slice_make(values[i].bytes, (size_t)values[i].length);
        if (values[i].type == DATABASE_UUID && values[i].length == 16) {
            remember(bytes);
        }
        bytes = values[i].type == DATABASE_UUID_ARRAY ? slice_skip(bytes, 20) : SLICE_EMPTY;
        for (; bytes.length >= 20; bytes = slice_skip(bytes, 20)) {
            remember(slice_take(slice_skip(bytes, 4), 16));
        }
    }
}

static struct message_id asked_for(uint8_t n)
{
    size_t known = asked_count < ASKED_MAX ? asked_count : ASKED_MAX;
    return known > 0 ? asked[n % known] : fake_database_id(n);
}

static struct slice octets(size_t length)
{
    struct slice taken = slice_take(fed, length);
    fed = slice_skip(fed, length);
    return taken;
}

/* With the checksum that it must have. */
static struct slice checked(struct fake *fake, struct slice payload)
{
    struct buffer bytes = {0};
    buffer_put_u32(&bytes, crc32c(0, payload));
    buffer_append(&bytes, payload);
    return kept(fake, &bytes);
}

static struct slice envelope(struct fake *fake)
{
    static const struct spool_recipient recipients[] = {
        {.address = {(const uint8_t *)"a@x.example", 11}},
        {.address = {(const uint8_t *)"b@x.example", 11}},
        {.address = {(const uint8_t *)"c@x.example", 11}}};
    uint8_t shape = draw();
    struct slice content = octets(draw());
    uint8_t whose = draw();
    struct spool_message message = {.id = (whose & 1) != 0 ? fake_database_id(whose >> 1)
                                                           : asked_for(whose >> 1),
                                    .received_ms = 1000,
                                    .header_length = shape & 3,
                                    .body_length = content.length,
                                    .recipients = recipients,
                                    .recipient_count = 1 + (shape >> 2) % 3};
    if ((shape & 0x40) != 0) {
        message.copy_of = fake_database_id(draw());
    }
    const struct log_piece piece = {.kind = (shape & 0x80) != 0 ? LOG_FAR : LOG_NEAR,
                                    .stored = (uint32_t)content.length,
                                    .crc = crc32c(0, content),
                                    .take = (uint32_t)content.length,
                                    .offset = draw() % 4};
    struct buffer bytes = {0};
    log_put_message(&bytes, &message, &piece, (shape & 0x20) != 0);
    struct slice payload = kept(fake, &bytes);
    return checked(fake, payload);
}

static struct slice array(struct fake *fake)
{
    struct buffer bytes = {0};
    size_t count = draw() % 5;
    database_array_begin(&bytes, DATABASE_INT4, count);
    for (size_t i = 0; i < count; i++) {
        database_put_int4(&bytes, (int8_t)draw());
    }
    return kept(fake, &bytes);
}

static struct slice value(struct fake *fake, bool *ret_null)
{
    uint8_t kind = draw();
    *ret_null = false;
    switch (kind % 16) {
    case 0:
        *ret_null = true;
        return SLICE_LITERAL("");
    case 1:
    case 2:
        return number(fake, (uint64_t)(int64_t)(int8_t)draw(), 4);
    case 3:
        return number(fake, (uint64_t)(int64_t)(int8_t)draw(), 8);
    case 4:
        return number(fake, draw(), 2);
    case 5:
        return number(fake, draw(), 1);
    case 6:
        return uuid(fake, fake_database_id(draw()));
    case 7:
    case 8:
        return uuid(fake, asked_for(draw()));
    case 9:
    case 10:
        return envelope(fake);
    case 11:
        return checked(fake, octets(draw()));
    case 12:
        return array(fake);
    case 13:
        return octets(8);
    case 14:
        return octets(16);
    default:
        return octets(draw());
    }
}

/* ---- results --------------------------------------------------------------------------------- */

static int row_count(const PGresult *result)
{
    return (int)result->rows;
}

/* Where there is no such row libpq has nothing, which is null, too. */
static const struct slice no_cell;

static const struct slice *cell(const PGresult *result, int row, int column)
{
    assert(row >= 0 && column >= 0 && column < COLUMNS);
    return (size_t)row < result->rows ? &result->cells[row][column] : &no_cell;
}

static int is_null(const PGresult *result, int row, int column)
{
    return cell(result, row, column) == &no_cell || result->nulls[row][column];
}

static char *bytes_of(const PGresult *result, int row, int column)
{
    return (char *)(uintptr_t)cell(result, row, column)->data;
}

static int length_of(const PGresult *result, int row, int column)
{
    return (int)cell(result, row, column)->length;
}

static char *touched(PGresult *result)
{
    (void)result;
    return (char *)(uintptr_t) "1";
}

static const struct database_calls calls = {.PQntuples = row_count,
                                            .PQgetisnull = is_null,
                                            .PQgetvalue = bytes_of,
                                            .PQgetlength = length_of,
                                            .PQcmdTuples = touched};

static void answer(struct fake *fake)
{
    struct pg_result *result = arena_allocate(&fake->arena, sizeof(*result));
    assert(result != NULL && fake->count < RESULTS_MAX);
    *result = (struct pg_result){.rows = fed.length > 0 ? draw() % (ROWS_MAX + 1) : 0};
    for (size_t i = 0; i < result->rows; i++) {
        for (size_t c = 0; c < COLUMNS; c++) {
            result->cells[i][c] = value(fake, &result->nulls[i][c]);
        }
    }
    fake->results[fake->count++] = (struct database_rows){&calls, result};
}

static enum database_outcome outcome(void)
{
    static const enum database_outcome trouble[] = {DATABASE_AGAIN, DATABASE_REFUSED, DATABASE_FULL,
                                                    DATABASE_LOST, DATABASE_WARNED};
    uint8_t octet = draw();
    return octet < 251 ? DATABASE_DONE : trouble[octet - 251];
}

/* ---- sys/database.h -------------------------------------------------------------------------- */

static struct fake *fake_of(const struct database *database)
{
    return (struct fake *)(uintptr_t)database;
}

struct database *database_new(const struct database_settings *settings)
{
    (void)settings;
    struct fake *fake = calloc(1, sizeof(*fake));
    assert(fake != NULL);
    arena_init(&fake->arena);
    return &fake->database;
}

void database_free(struct database *database)
{
    if (database != NULL) {
        arena_done(&fake_of(database)->arena);
        free(fake_of(database));
    }
}

static void begin(struct fake *fake)
{
    fake->count = 0;
    arena_reset(&fake->arena);
}

enum database_outcome database_ensure(struct database *database, const char *session,
                                      int timeout_ms)
{
    (void)session;
    (void)timeout_ms;
    fake_of(database)->connected = true;
    return DATABASE_DONE;
}

enum database_outcome database_connect(struct database *database)
{
    return database_ensure(database, NULL, 0);
}

bool database_is_connected(const struct database *database)
{
    return fake_of(database)->connected;
}

void database_disconnect(struct database *database)
{
    fake_of(database)->connected = false;
}

void database_interrupt(struct database *database)
{
    (void)database;
}

const char *database_error(const struct database *database)
{
    (void)database;
    return "fed so";
}

const char *database_state_code(const struct database *database)
{
    (void)database;
    return "";
}

static enum database_outcome ended(struct fake *fake)
{
    enum database_outcome how = outcome();
    fake->connected = fake->connected && how != DATABASE_LOST;
    return how;
}

enum database_outcome database_run(struct database *database, const char *sql, int timeout_ms)
{
    (void)sql;
    (void)timeout_ms;
    begin(fake_of(database));
    return ended(fake_of(database));
}

enum database_outcome database_query(struct database *database, const char *sql,
                                     const struct database_value *values, int count, int timeout_ms,
                                     const struct database_rows **ret_rows)
{
    (void)sql;
    (void)timeout_ms;
    struct fake *fake = fake_of(database);
    remember_values(values, count);
    begin(fake);
    answer(fake);
    if (ret_rows != NULL) {
        *ret_rows = &fake->results[0];
    }
    return ended(fake);
}

enum database_outcome database_queue(struct database *database, const char *sql,
                                     const struct database_value *values, int count)
{
    (void)sql;
    struct fake *fake = fake_of(database);
    remember_values(values, count);
    if (!fake->database.queueing) {
        begin(fake);
        fake->database.queueing = true;
    }
    if (fake->count == RESULTS_MAX) {
        return DATABASE_MEMORY;
    }
    answer(fake);
    return DATABASE_DONE;
}

enum database_outcome database_flush(struct database *database, int timeout_ms, size_t *ret_failed)
{
    (void)timeout_ms;
    fake_of(database)->database.queueing = false;
    if (ret_failed != NULL) {
        *ret_failed = draw();
    }
    return ended(fake_of(database));
}

const struct database_rows *database_result(const struct database *database, size_t index)
{
    return index < fake_of(database)->count ? &fake_of(database)->results[index] : NULL;
}

enum database_outcome database_wait(struct database *database, int timeout_ms, bool *ret_notified)
{
    (void)timeout_ms;
    *ret_notified = false;
    fake_of(database)->connected = false;
    return DATABASE_LOST;
}
