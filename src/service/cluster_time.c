/* SPDX-License-Identifier: Apache-2.0
 *
 * The file: by how much the database's clock was ahead of ours, and what it said last.
 */
#include "service/cluster_time.h"

#include "cluster/member.h"
#include "service/whole_file.h"
#include "sys/clock.h"

#include <stdlib.h>

enum {
    WRITTEN_MS = 60000,
    MOVED_MS = 1000, /* then at once */
};
#define CLOCK_FILE "clock"
#define CLOCK_MOST_MS INT64_C(10000000000000) /* the year 2286 */

void cluster_time_read(struct cluster_time *time, const struct member *member)
{
    struct lease_time read;
    if (member != NULL && member_database_time(member, &read) && read.steady_ms != time->read_ms) {
        shared_clock_read(&time->clock, read.steady_ms, read.wall_ms, clock_steady_ms());
        time->read_ms = read.steady_ms;
        time->ahead_ms = member_clock_ahead_ms(member);
    }
}

int64_t cluster_time_wall_ms(const struct cluster_time *time)
{
    if (time->clock.known) {
        return shared_clock_wall_ms(&time->clock, clock_steady_ms());
    }
    /* Our clock may have been set since the file was written: mail may seem too young then, but not
     * older than that file. */
    int64_t wall_ms = clock_wall_ms() + time->ahead_ms;
    return wall_ms > time->least_ms ? wall_ms : time->least_ms;
}

int64_t cluster_time_ahead_ms(const struct cluster_time *time)
{
    return time->clock.known ? time->ahead_ms : cluster_time_wall_ms(time) - clock_wall_ms();
}

void cluster_time_write(struct cluster_time *time)
{
    int64_t now_ms = clock_steady_ms();
    int64_t moved_ms = llabs(time->ahead_ms - time->written_ahead_ms);
    bool is_due =
        time->written_ms == 0 || moved_ms >= MOVED_MS || now_ms - time->written_ms >= WRITTEN_MS;
    if (time->clock.known && time->files != NULL && is_due) {
        time->written_ms = now_ms;
        time->written_ahead_ms = time->ahead_ms;
        struct buffer bytes;
        buffer_init(&bytes, 0);
        buffer_put_u64(&bytes, (uint64_t)time->ahead_ms);
        buffer_put_u64(&bytes, (uint64_t)cluster_time_wall_ms(time));
        whole_files_write(time->files, CLOCK_FILE, &bytes);
    }
}

void cluster_time_keep(struct cluster_time *time, struct whole_files *files)
{
    struct buffer bytes;
    buffer_init(&bytes, 64);
    time->files = files;
    if (whole_files_read(files, CLOCK_FILE, &bytes) == ERROR_NONE) {
        struct reader reader = reader_make(buffer_slice(&bytes));
        int64_t ahead_ms = (int64_t)reader_u64(&reader), least_ms = (int64_t)reader_u64(&reader);
        bool good = !reader.failed && least_ms > 0 && least_ms < CLOCK_MOST_MS &&
                    llabs(ahead_ms) < CLOCK_MOST_MS;
        time->ahead_ms = good ? ahead_ms : 0;
        time->least_ms = good ? least_ms : 0;
    }
    buffer_done(&bytes);
}
