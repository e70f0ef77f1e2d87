/* SPDX-License-Identifier: Apache-2.0
 *
 * Makes the schema of a cluster with ranges that are a minute wide, from ten minutes ago to so many
 * minutes ahead, before the first node starts (bench/member.py): what is made by the node itself
 * before it knows any traffic is an hour wide, and goes no earlier.
 *
 *   ranges_pg CONNINFO MINUTES
 */
#include "spool/pg_partition.h"
#include "spool/pg_schema.h"
#include "sys/clock.h"

#include <stdio.h>
#include <stdlib.h>

enum { MINUTE_MS = 60000, BEFORE = 10 };

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "ranges_pg CONNINFO MINUTES\n");
        return 2;
    }
    char problem[DATABASE_ERROR_SIZE];
    size_t count;
    const struct pg_migration *migrations = pg_migrations(&count);
    struct database_settings settings = {.conninfo = slice_from_text(argv[1]),
                                         .connect_timeout_ms = 10000};
    struct database *database = database_new(&settings);
    if (database == NULL || database_connect(database) != DATABASE_DONE ||
        pg_schema_apply(database, migrations, count, NULL, problem) != ERROR_NONE) {
        fprintf(stderr, "the schema: %s\n", database != NULL ? database_error(database) : "");
        return 1;
    }
    int64_t first_ms = (clock_wall_ms() / MINUTE_MS - BEFORE) * MINUTE_MS;
    for (int64_t i = 0; i < BEFORE + strtol(argv[2], NULL, 10); i++) {
        int64_t low_ms = first_ms + i * MINUTE_MS;
        if (pg_partition_add(database, low_ms, low_ms + MINUTE_MS) != DATABASE_DONE) {
            fprintf(stderr, "a range: %s\n", database_error(database));
            return 1;
        }
    }
    database_free(database);
    return 0;
}
