/* SPDX-License-Identifier: Apache-2.0
 *
 * Where it says who may have what: CLAIM. Why that is right, with RENEW, is argued in
 * docs/decisions/0043 and tried in tests/cluster/test_simulation.c, whose database does the same.
 * All of it is committed durably (pg_commit_durably()): a token that a crash of the database took
 * back would be given a second time, and what its first owner still decides would pass.
 */
#include "cluster/member_sql.h"

#include "base/hash.h"
#include "cluster/balance.h"
#include "spool/pg_schema.h"

#include <inttypes.h>
#include <stdio.h>

/* Of `heartbeats h`: the last one as a number to compare, in microseconds; its age; for how long
 * there was no break before it. */
#define BEAT_US                                                                                    \
    "(CASE WHEN isfinite(h.beat) THEN (extract(epoch FROM h.beat) * 1000000)::bigint ELSE 0 END)"
#define AGE_MS                                                                                     \
    "(CASE WHEN isfinite(h.beat)"                                                                  \
    " THEN (extract(epoch FROM clock_timestamp() - h.beat) * 1000)::bigint ELSE 0 END)"
#define UP_MS                                                                                      \
    "(CASE WHEN isfinite(h.since)"                                                                 \
    " THEN (extract(epoch FROM h.beat - h.since) * 1000)::bigint ELSE 0 END)"
#define NOBODY "'00000000-0000-0000-0000-000000000000'"

static enum database_outcome query(struct database *database, const char *sql,
                                   const struct database_value *values, int count,
                                   const struct database_rows **ret_rows)
{
    return database_query(database, sql, values, count, LEASE_ANSWER_MS, ret_rows);
}

/* ---- connecting ----------------------------------------------------------------------------- */

enum database_outcome member_sql_connect(struct database *database,
                                         char ret_problem[MEMBER_TEXT_SIZE])
{
    char problem[DATABASE_ERROR_SIZE];
    size_t count;
    enum database_outcome outcome = database_connect(database);
    if (outcome == DATABASE_DONE) {
        outcome = database_run(database, "SET lock_timeout = '1s'", LEASE_ANSWER_MS);
    }
    if (outcome == DATABASE_DONE) {
        outcome = pg_commit_durably(database);
    }
    if (outcome != DATABASE_DONE && outcome != DATABASE_WARNED) {
        snprintf(ret_problem, MEMBER_TEXT_SIZE, "%s", database_error(database));
        return outcome;
    }
    const struct pg_migration *migrations = pg_migrations(&count);
    enum error error = pg_schema_apply(database, migrations, count, NULL, problem);
    if (error != ERROR_NONE) {
        snprintf(ret_problem, MEMBER_TEXT_SIZE, "%s", problem);
        database_disconnect(database);
        return error == ERROR_CLOSED ? DATABASE_LOST : DATABASE_REFUSED;
    }
    return DATABASE_DONE;
}

/* ---- joining -------------------------------------------------------------------------------- */

static const char FIND[] =
    "SELECT n.number, n.instance, n.removed, h.incarnation, " BEAT_US ", " AGE_MS ","
    " coalesce(h.data->>'place', ''), coalesce(h.data->>'machine', ''),"
    " CASE WHEN isfinite(h.since) THEN (extract(epoch FROM h.since) * 1000)::int8 ELSE 0 END"
    " FROM holdfast.nodes n LEFT JOIN holdfast.heartbeats h ON h.node = n.number"
    " WHERE n.name = $1";
/* Two at once get one number: one of them is told so, and comes again. */
static const char MAKE_NODE[] =
    "INSERT INTO holdfast.nodes (number, name, instance, roles, site, version, schema)"
    " SELECT coalesce(max(number), 0) + 1, $1, $2, $3, $4, $5, 0 FROM holdfast.nodes"
    " ON CONFLICT DO NOTHING";
static const char MAKE_HEARTBEAT[] =
    "INSERT INTO holdfast.heartbeats (node, incarnation, beat, since)"
    " SELECT number, " NOBODY ", '-infinity', 'infinity' FROM holdfast.nodes WHERE name = $1"
    " ON CONFLICT DO NOTHING";
static const char MAKE_LEADER[] =
    "INSERT INTO holdfast.shares (name, family, part) VALUES ('leader', 'leader', 0)"
    " ON CONFLICT DO NOTHING";
static const char JOIN[] =
    "WITH life AS (UPDATE holdfast.heartbeats h SET incarnation = $3, beat = clock_timestamp(),"
    "  since = clock_timestamp(), data = jsonb_build_object('place', $8::text, 'machine', $9::text,"
    "  'behind_ms', $12::bigint)"
    "  WHERE node = $1 AND incarnation = $2 AND " BEAT_US " = $10 RETURNING node)"
    " UPDATE holdfast.nodes SET instance = $4, roles = $5, site = $6, version = $7, schema = $11,"
    " removed = false FROM life WHERE number = life.node RETURNING number";

static void copy_text(char *ret_text, size_t size, struct slice text)
{
    snprintf(ret_text, size, "%.*s", SLICE_PRINT(text));
}

static enum database_outcome find(struct database *database, struct slice name,
                                  struct member_sql_name *ret_name)
{
    const struct database_rows *rows;
    struct database_value values[] = {database_text(name)};
    *ret_name = (struct member_sql_name){0};
    enum database_outcome outcome = query(database, FIND, values, 1, &rows);
    if (outcome != DATABASE_DONE || database_count(rows) == 0 || database_is_null(rows, 0, 3)) {
        return outcome;
    }
    ret_name->known = true;
    ret_name->number = (int)database_get_int(rows, 0, 0);
    ret_name->instance = database_get_uuid(rows, 0, 1);
    ret_name->removed = database_get_int(rows, 0, 2) != 0;
    ret_name->incarnation = database_get_uuid(rows, 0, 3);
    ret_name->beat_us = database_get_int(rows, 0, 4);
    ret_name->age_ms = database_get_int(rows, 0, 5);
    copy_text(ret_name->place, sizeof(ret_name->place), database_get_slice(rows, 0, 6));
    copy_text(ret_name->machine, sizeof(ret_name->machine), database_get_slice(rows, 0, 7));
    ret_name->since_ms = database_get_int(rows, 0, 8);
    return outcome;
}

enum database_outcome member_sql_find(struct database *database,
                                      const struct member_settings *settings,
                                      struct member_sql_name *ret_name)
{
    struct database_scalar store[2];
    struct database_value node[] = {
        database_text(settings->name), database_uuid(&store[0], settings->instance),
        database_int4(&store[1], (int)settings->roles), database_text(settings->site),
        database_text(settings->version)};
    enum database_outcome outcome = find(database, settings->name, ret_name);
    if (outcome == DATABASE_DONE && !ret_name->known) {
        outcome = query(database, MAKE_NODE, node, 5, NULL);
        if (outcome == DATABASE_DONE) {
            outcome = query(database, MAKE_HEARTBEAT, node, 1, NULL);
        }
        if (outcome == DATABASE_DONE) {
            outcome = query(database, MAKE_LEADER, NULL, 0, NULL);
        }
        if (outcome == DATABASE_DONE) {
            outcome = find(database, settings->name, ret_name);
        }
    }
    return outcome;
}

enum database_outcome member_sql_join(struct database *database,
                                      const struct member_settings *settings,
                                      const struct member_sql_name *found,
                                      struct message_id incarnation, int64_t behind_ms,
                                      bool *ret_joined)
{
    struct database_scalar store[8];
    size_t schema;
    (void)pg_migrations(&schema);
    struct database_value values[] = {database_int2(&store[0], (int16_t)found->number),
                                      database_uuid(&store[1], found->incarnation),
                                      database_uuid(&store[2], incarnation),
                                      database_uuid(&store[3], settings->instance),
                                      database_int4(&store[4], (int)settings->roles),
                                      database_text(settings->site),
                                      database_text(settings->version),
                                      database_text(settings->place),
                                      database_text(settings->machine),
                                      database_int8(&store[5], found->beat_us),
                                      database_int4(&store[6], (int)schema),
                                      database_int8(&store[7], behind_ms)};
    const struct database_rows *rows;
    enum database_outcome outcome = query(database, JOIN, values, 12, &rows);
    *ret_joined = outcome == DATABASE_DONE && database_count(rows) > 0;
    return outcome;
}

/* ---- the round ------------------------------------------------------------------------------ */

static const char RENEW[] =
    "UPDATE holdfast.heartbeats SET beat = clock_timestamp(), since = CASE"
    " WHEN clock_timestamp() - beat >= interval '3500 ms' OR clock_timestamp() < since"
    " THEN clock_timestamp() ELSE since END,"
    " data = jsonb_build_object('place', $3::text, 'machine', $4::text, 'messages', $5::bigint,"
    " 'deliveries', $6::bigint, 'journalled', $7::bigint, 'disk_free', $8::bigint,"
    " 'disk', $9::bigint, 'clock_offset_ms', $10::bigint, 'database_lag_ms', $11::bigint,"
    " 'bytes', $12::bigint, 'held', $13::bigint, 'dead_letters', $14::bigint,"
    " 'oldest_ms', $15::bigint, 'behind_ms', CASE"
    "  WHEN extract(epoch FROM clock_timestamp()) * 1000 <= $17::bigint THEN $16::bigint"
    "  ELSE least(nullif($16::bigint, -1), $18::bigint) END)"
    " WHERE node = $1 AND incarnation = $2"
    " RETURNING (extract(epoch FROM beat) * 1000000)::bigint";

enum database_outcome
member_sql_renew(struct database *database, const struct member_settings *settings, int number,
                 struct message_id incarnation, const struct node_health *health,
                 const struct member_word *word, bool *ret_ours, int64_t *ret_wall_us)
{
    struct database_scalar store[16];
    struct database_value values[] = {
        database_int2(&store[0], (int16_t)number),
        database_uuid(&store[1], incarnation),
        database_text(settings->place),
        database_text(settings->machine),
        database_int8(&store[2], health->messages),
        database_int8(&store[3], health->deliveries),
        database_int8(&store[4], health->journalled),
        database_int8(&store[5], health->disk_free_bytes),
        database_int8(&store[6], health->disk_bytes),
        database_int8(&store[7], health->clock_offset_ms),
        database_int8(&store[8], health->database_lag_ms),
        database_int8(&store[9], health->bytes),
        database_int8(&store[10], health->held),
        database_int8(&store[11], health->dead_letters),
        database_int8(&store[12], health->oldest_ms),
        database_int8(&store[13], health->behind_ms),
        database_int8(&store[14], word->good_until_ms),
        database_int8(&store[15], word->unsaid_ms),
    };
    const struct database_rows *rows;
    enum database_outcome outcome = query(database, RENEW, values, 18, &rows);
    if (outcome == DATABASE_DONE) {
        *ret_ours = database_count(rows) > 0;
        *ret_wall_us = *ret_ours ? database_get_int(rows, 0, 0) : 0;
    }
    return outcome;
}

/* What a node says of itself may be of another version: numbers that are none are not known. */
static const char READ_MEMBERS[] =
    "SELECT n.number, n.name, n.site, n.version, n.roles, n.schema, n.draining,"
    " isfinite(h.since), h.incarnation, " BEAT_US ", " AGE_MS ", " UP_MS ","
    " coalesce(h.data->>'place', ''),"
    " (SELECT string_agg(CASE WHEN jsonb_typeof(h.data->key) = 'number'"
    "   THEN h.data->>key ELSE '-1' END, ' ' ORDER BY place)"
    "  FROM unnest(ARRAY['messages', 'deliveries', 'journalled', 'disk_free', 'disk',"
    "   'clock_offset_ms', 'database_lag_ms', 'bytes', 'held', 'dead_letters', 'oldest_ms', "
    "'behind_ms'])"
    " WITH ORDINALITY AS wanted (key, place)),"
    " pg_postmaster_start_time()::text || coalesce(host(inet_server_addr()), '')"
    "  || coalesce(inet_server_port(), 0), pg_snapshot_xmax(pg_current_snapshot())"
    " FROM holdfast.nodes n JOIN holdfast.heartbeats h ON h.node = n.number"
    " WHERE NOT n.removed ORDER BY n.number LIMIT $1";
static const char READ_SHARES[] =
    "SELECT share, name, coalesce(owner, 0), token FROM holdfast.shares"
    " ORDER BY family COLLATE \"C\", \"group\" COLLATE \"C\", part LIMIT $1";

static struct node_health read_health(const struct database_rows *rows, size_t row)
{
    enum { COUNT = 12 };
    int64_t numbers[COUNT] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    struct slice text = database_get_slice(rows, row, 13);
    for (int i = 0; i < COUNT; i++) {
        size_t end = slice_find(text, ' ');
        struct slice word = slice_take(text, end);
        bool negative = word.length > 0 && word.data[0] == '-';
        uint64_t number;
        if (slice_to_u64(slice_skip(word, negative ? 1 : 0), &number) && number <= INT64_MAX) {
            numbers[i] = negative ? -(int64_t)number : (int64_t)number;
        }
        text = slice_skip(text, end + 1);
    }
    return (struct node_health){numbers[0], numbers[1], numbers[2],  numbers[3],
                                numbers[4], numbers[5], numbers[6],  numbers[7],
                                numbers[8], numbers[9], numbers[10], numbers[11]};
}

static bool read_member(const struct database_rows *rows, size_t row, struct arena *arena,
                        struct view_member *ret_member)
{
    struct slice texts[4];
    static const int columns[] = {1, 2, 3, 12};
    for (int i = 0; i < 4; i++) {
        texts[i] = arena_copy(arena, database_get_slice(rows, row, columns[i]));
        if (texts[i].data == NULL) {
            return false;
        }
    }
    struct message_id incarnation = database_get_uuid(rows, row, 8);
    *ret_member = (struct view_member){
        .number = (int)database_get_int(rows, row, 0),
        .name = texts[0],
        .site = texts[1],
        .version = texts[2],
        .place = texts[3],
        .roles = (unsigned)database_get_int(rows, row, 4),
        .schema = (int)database_get_int(rows, row, 5),
        .draining = database_get_int(rows, row, 6) != 0,
        .has_beat = database_get_int(rows, row, 7) != 0,
        .incarnation = incarnation.high ^ incarnation.low,
        .beat_us = database_get_int(rows, row, 9),
        .age_ms = database_get_int(rows, row, 10),
        .up_ms = database_get_int(rows, row, 11),
        .health = read_health(rows, row),
    };
    return true;
}

static bool read_members(const struct database_rows *rows, struct arena *arena, struct view *view,
                         uint64_t *ret_server)
{
    size_t count = database_count(rows);
    view->members = arena_allocate(arena, (count + 1) * sizeof(*view->members));
    for (size_t i = 0; view->members != NULL && i < count; i++) {
        if (!read_member(rows, i, arena, &view->members[i])) {
            return false;
        }
        *ret_server = hash_bytes((struct hash_key){0, 0}, database_get_slice(rows, i, 14));
        view->until_xid = (uint64_t)database_get_int(rows, i, 15);
    }
    view->member_count = count;
    return view->members != NULL;
}

/* Those that a newer version names otherwise are not for us. */
static bool read_shares(const struct database_rows *rows, struct arena *arena, struct view *view)
{
    view->share_count = 0;
    view->shares = arena_allocate(arena, (database_count(rows) + 1) * sizeof(*view->shares));
    for (size_t i = 0; view->shares != NULL && i < database_count(rows); i++) {
        struct view_share *share = &view->shares[view->share_count];
        *share = (struct view_share){
            .number = (uint32_t)database_get_int(rows, i, 0),
            .name = arena_copy(arena, database_get_slice(rows, i, 1)),
            .owner = (int)database_get_int(rows, i, 2),
            .token = database_get_int(rows, i, 3),
        };
        if (share->name.data == NULL) {
            return false;
        }
        view->share_count += share_name_parse(share->name, &share->parsed);
    }
    return view->shares != NULL;
}

enum database_outcome member_sql_read(struct database *database, struct arena *arena, int own,
                                      struct view *ret_view, uint64_t *ret_server)
{
    struct database_scalar store;
    const struct database_rows *rows;
    struct database_value members[] = {database_int4(&store, NODE_MEMBERS_MAX)};
    *ret_view = (struct view){.own = own};
    enum database_outcome outcome = query(database, READ_MEMBERS, members, 1, &rows);
    if (outcome == DATABASE_DONE && !read_members(rows, arena, ret_view, ret_server)) {
        return DATABASE_MEMORY;
    }
    struct database_value shares[] = {database_int4(&store, CLUSTER_SHARES_MAX)};
    if (outcome == DATABASE_DONE) {
        outcome = query(database, READ_SHARES, shares, 1, &rows);
    }
    if (outcome == DATABASE_DONE && !read_shares(rows, arena, ret_view)) {
        return DATABASE_MEMORY;
    }
    return outcome;
}

/* ---- changes -------------------------------------------------------------------------------- */

/* `owners` waits for a renewal that is under way, and holds off the next: either it is seen here,
 * or its node reads our claim after it. What others lock just now is for the next round. */
static const char CLAIM[] =
    "WITH owners AS (SELECT h.node FROM holdfast.heartbeats h"
    "  JOIN unnest($5::int[], $6::bigint[]) AS judged (node, beat)"
    "  ON h.node = judged.node AND " BEAT_US " = judged.beat FOR SHARE OF h),"
    " free AS (SELECT s.share FROM holdfast.shares s"
    "  JOIN unnest($3::int[], $4::bigint[]) AS wanted (share, token)"
    "  ON s.share = wanted.share AND s.token = wanted.token"
    "  WHERE s.owner IS NULL OR s.owner = $1 OR s.owner IN (SELECT node FROM owners)"
    "  FOR UPDATE OF s SKIP LOCKED)"
    " UPDATE holdfast.shares s SET owner = $1, token = s.token + 1 FROM free"
    " WHERE s.share = free.share AND EXISTS (SELECT FROM holdfast.heartbeats"
    "  WHERE node = $1 AND incarnation = $2) RETURNING s.share, s.token";
static const char RELEASE[] =
    "UPDATE holdfast.shares s SET owner = NULL"
    " FROM unnest($2::int[], $3::bigint[]) AS left_ (share, token)"
    " WHERE s.share = left_.share AND s.token = left_.token AND s.owner = $1";
static const char LEAVE[] =
    "WITH life AS (UPDATE holdfast.heartbeats SET incarnation = " NOBODY ", since = 'infinity'"
    "  WHERE node = $1 AND incarnation = $2 RETURNING node)"
    " UPDATE holdfast.shares SET owner = NULL FROM life WHERE owner = life.node";

static bool is_first_of_owner(const struct member_sql_claim *claims, size_t index)
{
    for (size_t i = 0; i < index; i++) {
        if (claims[i].step.owner == claims[index].step.owner) {
            return false;
        }
    }
    return claims[index].step.owner != 0;
}

struct claim_arrays {
    struct buffer shares, tokens, owners, beats;
};

static void fill_arrays(struct claim_arrays *arrays, const struct member_sql_claim *claims,
                        size_t count)
{
    size_t owners = 0;
    for (size_t i = 0; i < count; i++) {
        owners += is_first_of_owner(claims, i);
    }
    database_array_begin(&arrays->shares, DATABASE_INT4, count);
    database_array_begin(&arrays->tokens, DATABASE_INT8, count);
    database_array_begin(&arrays->owners, DATABASE_INT4, owners);
    database_array_begin(&arrays->beats, DATABASE_INT8, owners);
    for (size_t i = 0; i < count; i++) {
        database_put_int4(&arrays->shares, (int32_t)claims[i].step.share);
        database_put_int8(&arrays->tokens, claims[i].step.token);
        if (is_first_of_owner(claims, i)) {
            database_put_int4(&arrays->owners, claims[i].step.owner);
            database_put_int8(&arrays->beats, claims[i].step.beat_us);
        }
    }
}

static void take_claimed(const struct database_rows *rows, struct member_sql_claim *claims,
                         size_t count)
{
    for (size_t row = 0; row < database_count(rows); row++) {
        for (size_t i = 0; i < count; i++) {
            if (claims[i].step.share == (uint32_t)database_get_int(rows, row, 0)) {
                claims[i].done = true;
                claims[i].token = database_get_int(rows, row, 1);
            }
        }
    }
}

enum database_outcome member_sql_claim(struct database *database, int own,
                                       struct message_id incarnation,
                                       struct member_sql_claim *claims, size_t count)
{
    struct claim_arrays arrays;
    struct buffer *all[] = {&arrays.shares, &arrays.tokens, &arrays.owners, &arrays.beats};
    struct database_scalar store[2];
    const struct database_rows *rows;
    for (int i = 0; i < 4; i++) {
        buffer_init(all[i], 0);
    }
    fill_arrays(&arrays, claims, count);
    bool failed = false;
    for (int i = 0; i < 4; i++) {
        failed = failed || all[i]->failed;
    }
    enum database_outcome outcome = DATABASE_MEMORY;
    if (!failed) {
        struct database_value values[] = {database_int2(&store[0], (int16_t)own),
                                          database_uuid(&store[1], incarnation),
                                          database_array(&arrays.shares, DATABASE_INT4_ARRAY),
                                          database_array(&arrays.tokens, DATABASE_INT8_ARRAY),
                                          database_array(&arrays.owners, DATABASE_INT4_ARRAY),
                                          database_array(&arrays.beats, DATABASE_INT8_ARRAY)};
        outcome = query(database, CLAIM, values, 6, &rows);
        if (outcome == DATABASE_DONE) {
            take_claimed(rows, claims, count);
        }
    }
    for (int i = 0; i < 4; i++) {
        buffer_done(all[i]);
    }
    return outcome;
}

enum database_outcome member_sql_release(struct database *database, int own,
                                         const struct member_sql_release *releases, size_t count)
{
    struct buffer shares, tokens;
    struct database_scalar store;
    enum database_outcome outcome = DATABASE_MEMORY;
    buffer_init(&shares, 0);
    buffer_init(&tokens, 0);
    database_array_begin(&shares, DATABASE_INT4, count);
    database_array_begin(&tokens, DATABASE_INT8, count);
    for (size_t i = 0; i < count; i++) {
        database_put_int4(&shares, (int32_t)releases[i].share);
        database_put_int8(&tokens, releases[i].token);
    }
    if (!shares.failed && !tokens.failed) {
        struct database_value values[] = {database_int2(&store, (int16_t)own),
                                          database_array(&shares, DATABASE_INT4_ARRAY),
                                          database_array(&tokens, DATABASE_INT8_ARRAY)};
        outcome = query(database, RELEASE, values, 3, NULL);
    }
    buffer_done(&shares);
    buffer_done(&tokens);
    return outcome;
}

enum database_outcome member_sql_leave(struct database *database, int own,
                                       struct message_id incarnation)
{
    struct database_scalar store[2];
    struct database_value values[] = {database_int2(&store[0], (int16_t)own),
                                      database_uuid(&store[1], incarnation)};
    return query(database, LEAVE, values, 2, NULL);
}

/* ---- commands ------------------------------------------------------------------------------- */

static const char FIND_SHARE[] = "SELECT share FROM holdfast.shares WHERE name = $1";
static const char MAKE_SHARE[] =
    "INSERT INTO holdfast.shares (name, family, \"group\", part) VALUES ($1, $2, $3, $4)"
    " ON CONFLICT DO NOTHING";
static const char DRAIN[] = "UPDATE holdfast.nodes SET draining = true"
                            " WHERE name = $1 AND NOT removed RETURNING number";
static const char UNDRAIN[] = "UPDATE holdfast.nodes SET draining = false, removed = false"
                              " WHERE name = $1 RETURNING number";
/* Another incarnation, so that a renewal from beyond the grave finds none of its own. */
static const char REMOVE[] =
    "WITH dead AS (UPDATE holdfast.heartbeats h SET incarnation = " NOBODY ", since = 'infinity'"
    "  WHERE node = $1 AND " BEAT_US " = $2 RETURNING node),"
    " freed AS (UPDATE holdfast.shares SET owner = NULL FROM dead WHERE owner = dead.node)"
    " UPDATE holdfast.nodes SET removed = true, draining = false FROM dead"
    " WHERE number = dead.node RETURNING number";

static enum database_outcome query_number(struct database *database, const char *sql,
                                          const struct database_value *values, int count,
                                          int64_t *ret_number)
{
    const struct database_rows *rows;
    enum database_outcome outcome = query(database, sql, values, count, &rows);
    bool found = outcome == DATABASE_DONE && database_count(rows) > 0;
    *ret_number = found ? database_get_int(rows, 0, 0) : 0;
    return outcome;
}

enum database_outcome member_sql_name_share(struct database *database, struct slice name,
                                            int64_t *ret_number)
{
    static const char *const families[] = {
        [SHARE_IN] = "in", [SHARE_OUT] = "out", [SHARE_LEADER] = "leader"};
    struct share_name parsed;
    struct database_scalar store;
    *ret_number = 0;
    if (!share_name_parse(name, &parsed)) {
        return DATABASE_DONE;
    }
    struct database_value values[] = {
        database_text(name), database_text(slice_from_text(families[parsed.family])),
        database_text(parsed.group), database_int4(&store, (int)parsed.part)};
    enum database_outcome outcome = query_number(database, FIND_SHARE, values, 1, ret_number);
    if (outcome == DATABASE_DONE && *ret_number == 0) {
        outcome = query(database, MAKE_SHARE, values, 4, NULL);
        if (outcome == DATABASE_DONE) {
            outcome = query_number(database, FIND_SHARE, values, 1, ret_number);
        }
    }
    return outcome;
}

enum database_outcome member_sql_drain(struct database *database, struct slice node, bool drains,
                                       int64_t *ret_number)
{
    struct database_value values[] = {database_text(node)};
    return query_number(database, drains ? DRAIN : UNDRAIN, values, 1, ret_number);
}

enum database_outcome member_sql_remove(struct database *database, int number, int64_t beat_us,
                                        int64_t *ret_number)
{
    struct database_scalar store[2];
    struct database_value values[] = {database_int2(&store[0], (int16_t)number),
                                      database_int8(&store[1], beat_us)};
    return query_number(database, REMOVE, values, 2, ret_number);
}
