/* SPDX-License-Identifier: Apache-2.0
 *
 * The file: by how much the database's clock was ahead of our wall clock, what it said last, by how
 * much it was ahead of the steady clock, and in which boot of the machine: in the same one the
 * steady clock alone is asked, for the other may have been set since. Last the CRC-32C of it all: a
 * wrong time would be believed until the database is heard.
 */
#include "service/cluster_time.h"

#include "base/crc32c.h"
#include "cluster/member.h"
#include "service/whole_file.h"
#include "sys/clock.h"
#include "sys/log.h"

#include <stdlib.h>

enum {
    WRITTEN_MS = 60000,
    MOVED_MS = 1000, /* then at once */
    STEADY_MOVED_MS = 100,
    SUM_BYTES = 4,
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
    /* In another boot our clock may have been set since the file was written: mail may seem too
     * young then, but not older than that file. */
    int64_t wall_ms = time->same_boot ? clock_steady_ms() + time->steady_ahead_ms
                                      : clock_wall_ms() + time->ahead_ms;
    return wall_ms > time->least_ms ? wall_ms : time->least_ms;
}

void cluster_time_write(struct cluster_time *time)
{
    int64_t now_ms = clock_steady_ms();
    int64_t wall_ms = cluster_time_wall_ms(time);
    bool moved = llabs(time->ahead_ms - time->written_ahead_ms) >= MOVED_MS ||
                 llabs(wall_ms - now_ms - time->steady_ahead_ms) >= STEADY_MOVED_MS;
    bool is_due = time->written_ms == 0 || moved || now_ms - time->written_ms >= WRITTEN_MS;
    if (time->clock.known && time->files != NULL && is_due) {
        time->written_ms = now_ms;
        time->written_ahead_ms = time->ahead_ms;
        time->steady_ahead_ms = wall_ms - now_ms;
        struct buffer bytes;
        buffer_init(&bytes, 0);
        cluster_time_encode(time, wall_ms, &bytes);
        whole_files_write(time->files, CLOCK_FILE, &bytes);
    }
}

void cluster_time_encode(const struct cluster_time *time, int64_t wall_ms, struct buffer *out)
{
    size_t begin = out->length;
    buffer_put_u64(out, (uint64_t)time->ahead_ms);
    buffer_put_u64(out, (uint64_t)wall_ms);
    buffer_put_u64(out, (uint64_t)time->steady_ahead_ms);
    buffer_put_bytes(out, slice_from_text(time->boot));
    buffer_put_u32(out, crc32c(0, slice_skip(buffer_slice(out), begin)));
}

/* Of what a file says: the least number has no absolute value. */
static bool is_sane(int64_t ms)
{
    return ms > -CLOCK_MOST_MS && ms < CLOCK_MOST_MS;
}

bool cluster_time_decode(struct cluster_time *time, struct slice bytes)
{
    size_t summed = bytes.length < SUM_BYTES ? 0 : bytes.length - SUM_BYTES;
    struct reader reader = reader_make(slice_take(bytes, summed));
    struct reader sum = reader_make(slice_skip(bytes, summed));
    uint32_t crc = reader_u32(&sum);
    bool is_whole = !sum.failed && crc == crc32c(0, reader.rest);
    int64_t ahead_ms = (int64_t)reader_u64(&reader), least_ms = (int64_t)reader_u64(&reader);
    bool good =
        is_whole && !reader.failed && least_ms > 0 && is_sane(least_ms) && is_sane(ahead_ms);
    time->ahead_ms = good ? ahead_ms : 0;
    time->least_ms = good ? least_ms : 0;
    int64_t steady_ahead_ms = (int64_t)reader_u64(&reader);
    struct slice boot = slice_from_text(time->boot), written_in = reader_bytes(&reader);
    time->same_boot = good && !reader.failed && is_sane(steady_ahead_ms) && boot.length > 0 &&
                      slice_equal(written_in, boot);
    time->steady_ahead_ms = time->same_boot ? steady_ahead_ms : 0;
    return good;
}

void cluster_time_keep(struct cluster_time *time, struct whole_files *files, struct slice boot)
{
    struct buffer bytes;
    buffer_init(&bytes, 128);
    time->files = files;
    boot = slice_take(boot, sizeof(time->boot) - 1);
    memcpy(time->boot, boot.data, boot.length);
    if (whole_files_read(files, CLOCK_FILE, &bytes) == ERROR_NONE) {
        if (!cluster_time_decode(time, buffer_slice(&bytes))) {
            log_event(LOG_LEVEL_WARNING, "state-file", LOG_TEXT("name", CLOCK_FILE),
                      LOG_TEXT("error", error_text(ERROR_CORRUPT)));
        }
    }
    buffer_done(&bytes);
}
