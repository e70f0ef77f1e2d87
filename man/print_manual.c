/* SPDX-License-Identifier: Apache-2.0
 *
 * Prints a manual page: the one given, with what the program has of it in place of such lines:
 *   @SETTINGS@   the table of settings
 *   @METRICS@    the metrics that /metrics tells of
 *   @ROWS@       the rows of the control protocol, out of the header that is given, too
 */
#include "app/settings.h"
#include "service/web_internal.h"

#include <stdio.h>

enum { LINE_SIZE = 1024 };

/* As it stands, in a literal display. */
static void put_literal(const char *line)
{
    if (line[0] == '.' || line[0] == '\'') {
        fputs("\\&", stdout);
    }
    for (const char *c = line; *c != '\0'; c++) {
        fputs(*c == '\\' ? "\\e" : (char[]){*c, '\0'}, stdout);
    }
}

static void put_settings(void)
{
    struct buffer keys;
    buffer_init(&keys, 0);
    settings_manual(&keys);
    fwrite(keys.data, 1, keys.length, stdout);
    buffer_done(&keys);
}

/* "HELP name text" and "TYPE name type" as an item. */
static void put_metric(const char *help, const char *type)
{
    int name = (int)strcspn(help, " ");
    printf(".It Cm %.*s\n%s; a %s\n", name, help, help + name + 1, type);
}

/* What a scrape of a member of a cluster has, each once. */
static void put_metrics(void)
{
    static struct counter_page page;
    struct buffer out;
    buffer_init(&out, 0);
    json_t *status = json_pack("{s{}}", "cluster");
    web_metrics(&out, &page, status);
    buffer_append(&out, slice_make("", 1));
    char help[LINE_SIZE] = "", type[LINE_SIZE];
    for (const char *at = (const char *)out.data; at != NULL && *at != '\0';) {
        if (sscanf(at, "# HELP %1023[^\n]", help) != 1 &&
            sscanf(at, "# TYPE %*s %1023s", type) == 1) {
            put_metric(help, type);
        }
        at = strchr(at, '\n');
        at = at != NULL ? at + 1 : NULL;
    }
    json_decref(status);
    buffer_done(&out);
}

/* The sections of the header's comment that tell of commands; not those of the program's own
 * processes. */
static bool put_rows(const char *header)
{
    FILE *file = header != NULL ? fopen(header, "r") : NULL;
    char line[LINE_SIZE];
    bool shown = false;
    if (file == NULL) {
        return false;
    }
    while (fgets(line, sizeof(line), file) != NULL && strncmp(line, " */", 3) != 0) {
        if (strncmp(line, " * ---- ", 8) == 0) {
            static const char *const ours[] = {"recipients load", "alert news", "guard work",
                                               "errands", "selection"};
            shown = true;
            for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
                shown = shown && strstr(line, ours[i]) == NULL;
            }
        }
        if (shown) {
            put_literal(line[2] == ' ' ? line + 3 : line + 2);
        }
    }
    fclose(file);
    return true;
}

int main(int argc, char **argv)
{
    FILE *page = argc >= 2 ? fopen(argv[1], "r") : NULL;
    if (page == NULL) {
        fprintf(stderr, "usage: print_manual PAGE [HEADER]\n");
        return 1;
    }
    char line[LINE_SIZE];
    bool good = true;
    while (fgets(line, sizeof(line), page) != NULL) {
        if (strcmp(line, "@SETTINGS@\n") == 0) {
            put_settings();
        } else if (strcmp(line, "@METRICS@\n") == 0) {
            put_metrics();
        } else if (strcmp(line, "@ROWS@\n") == 0) {
            good = put_rows(argc > 2 ? argv[2] : NULL) && good;
        } else {
            fputs(line, stdout);
        }
    }
    fclose(page);
    return fflush(stdout) == 0 && good ? 0 : 1;
}
