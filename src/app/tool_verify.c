/* SPDX-License-Identifier: Apache-2.0
 *
 * `holdfast spool verify`: reads the journal from the disk, without the daemon, changing nothing.
 */
#include "app/settings.h"
#include "app/tool.h"
#include "spool/verify.h"

#include <stdlib.h>
#include <sys/stat.h>

struct verifying {
    const struct tool *tool;
    struct tool_progress progress;
};

static void finding(void *context, const char *text)
{
    struct verifying *verifying = context;
    char clean[1024];
    tool_clean(text, clean, sizeof(clean));
    if (verifying->tool->json) {
        json_t *row = json_pack("{ss}", "finding", clean);
        tool_print_json(row);
        json_decref(row);
    } else {
        tool_progress_end(&verifying->progress);
        printf("%s\n", clean);
    }
}

static void step(void *context, uint64_t done, uint64_t all)
{
    struct verifying *verifying = context;
    tool_progress_step(&verifying->progress, done, all);
}

static void print_report(const struct tool *tool, const struct spool_verify_report *report)
{
    const struct {
        const char *key;
        const char *text;
        uint64_t value;
    } lines[] = {
        {"segments", "segments", report->segments},
        {"sealed_segments", "of them sealed", report->sealed_segments},
        {"recovered_tails", "with an unfinished end, as after a crash", report->recovered_tails},
        {"groups", "groups", report->groups},
        {"records", "records", report->records},
        {"bytes", "bytes", report->bytes},
        {"messages", "messages", report->messages},
        {"unfinished_messages", "of them not finished", report->unfinished_messages},
        {"fates", "fates", report->fates},
        {"notes", "notes", report->notes},
        {"content_files", "files of large contents", report->content_files},
        {"orphan_content_files", "of them left over", report->orphan_content_files},
        {"copies", "segments kept of mail that was handed over", report->copies},
        {"copy_bytes", "bytes of those, with large contents", report->copy_bytes},
        {"damaged_records", "damaged records", report->damaged_records},
        {"missing_contents", "missing contents", report->missing_contents},
    };
    json_t *object = json_object();
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        if (tool->json) {
            json_object_set_new(object, lines[i].key, json_integer((json_int_t)lines[i].value));
        } else {
            printf("%14llu %s\n", (unsigned long long)lines[i].value, lines[i].text);
        }
    }
    if (tool->json) {
        tool_print_json(object);
    } else if (report->damaged_records + report->missing_contents == 0) {
        printf("The journal is good.\n");
    } else {
        printf("%sThe journal is damaged.%s\n", tool_colour_text(tool, COLOUR_BAD),
               tool_colour_text(tool, COLOUR_PLAIN));
    }
    json_decref(object);
}

/* The journal's directory within the state directory, or the state directory given if it is the
 * journal's own. Otherwise than CONTROL_DONE with a message. */
static enum control_exit find_journal(const struct tool *tool, struct buffer *ret_path)
{
    struct buffer errors;
    buffer_init(&errors, 0);
    bool known = true;
    if (tool->operand_count > 0) {
        buffer_append_text(ret_path, tool->operands[0]);
    } else {
        known = settings_find_state(tool->configuration, ret_path, &errors);
        fprintf(stderr, "%.*s", SLICE_PRINT(buffer_slice(&errors)));
    }
    buffer_done(&errors);
    size_t length = ret_path->length;
    struct stat status;
    buffer_append(ret_path, slice_make("/spool", sizeof("/spool")));
    if (!known) {
        return CONTROL_USAGE;
    }
    if (ret_path->failed) {
        tool_error("out of memory");
        return CONTROL_FAILED;
    }
    if (stat((const char *)ret_path->data, &status) != 0) {
        ret_path->data[length] = '\0';
        if (stat((const char *)ret_path->data, &status) != 0) {
            tool_error("%s: there is no journal", (const char *)ret_path->data);
            return CONTROL_FAILED;
        }
    }
    return CONTROL_DONE;
}

enum control_exit tool_spool_verify(struct tool *tool)
{
    struct buffer path;
    struct disk *disk;
    buffer_init(&path, 0);
    enum control_exit code = find_journal(tool, &path);
    if (code == CONTROL_DONE) {
        code = CONTROL_FAILED;
        enum error error = disk_open_directory((const char *)path.data, &disk);
        if (error == ERROR_NONE) {
            struct verifying verifying = {.tool = tool};
            struct spool_verify_report report = {0};
            tool_progress_begin(&verifying.progress, tool, "bytes");
            error = spool_verify(disk, finding, step, &verifying, &report);
            tool_progress_end(&verifying.progress);
            disk_free(disk);
            if (error == ERROR_NONE) {
                print_report(tool, &report);
                code = report.damaged_records + report.missing_contents == 0
                           ? CONTROL_DONE
                           : CONTROL_NOTHING_MATCHED;
            }
        }
        if (error != ERROR_NONE) {
            tool_error("%s: %s", (const char *)path.data, error_text(error));
        }
    }
    buffer_done(&path);
    return code;
}
