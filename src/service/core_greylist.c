/* SPDX-License-Identifier: Apache-2.0
 *
 * What greylisting knows, kept in a file: edge-in, which writes it, has no files. Read once, by the
 * first core that looks after it; written at most once a minute, and at the end.
 */
#include "service/core_internal.h"

#include "service/greylist.h"
#include "service/whole_file.h"
#include "sys/clock.h"
#include "sys/log.h"

enum { WRITE_BETWEEN_MS = 60000 };
#define FILE_NAME "greylist"

static struct greylist_time now(void)
{
    return (struct greylist_time){clock_steady_ms(), clock_wall_ms()};
}

static void read_file(struct core *core)
{
    struct buffer bytes;
    buffer_init(&bytes, GREYLIST_FILE_MAX);
    enum error error = whole_files_read(core->files, FILE_NAME, &bytes);
    if (error == ERROR_NONE) {
        error = greylist_read(core->greylist, buffer_slice(&bytes), now());
    }
    if (error != ERROR_NONE && error != ERROR_MISSING) {
        log_event(LOG_LEVEL_WARNING, "state-file", LOG_TEXT("name", FILE_NAME),
                  LOG_TEXT("error", error_text(error)));
    }
    buffer_done(&bytes);
}

void core_keep_greylist(struct core *core, struct greylist *greylist)
{
    core->greylist = greylist;
    core->greylist_written_ms = clock_steady_ms() - WRITE_BETWEEN_MS;
    if (!greylist_has_begun(greylist)) {
        read_file(core);
        greylist_begin(greylist);
    }
}

static void make_file(void *context, struct buffer *bytes)
{
    greylist_write(context, now(), bytes);
}

static void write_changed(struct core *core)
{
    uint64_t serial = core->greylist != NULL ? greylist_serial(core->greylist) : 0;
    if (serial != core->greylist_serial) {
        core->greylist_serial = serial;
        core->greylist_written_ms = clock_steady_ms();
        whole_files_make(core->files, FILE_NAME, make_file, core->greylist);
    }
}

void core_greylist_tick(struct core *core)
{
    if (clock_steady_ms() - core->greylist_written_ms >= WRITE_BETWEEN_MS) {
        write_changed(core);
    }
}

void core_greylist_stop(struct core *core)
{
    write_changed(core);
}
