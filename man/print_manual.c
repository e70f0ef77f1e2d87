/* SPDX-License-Identifier: Apache-2.0
 *
 * Prints holdfast.conf(5): the page given, with the table of settings in place of its line
 * "@SETTINGS@".
 */
#include "app/settings.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    FILE *page = argc == 2 ? fopen(argv[1], "r") : NULL;
    if (page == NULL) {
        fprintf(stderr, "usage: print_manual PAGE\n");
        return 1;
    }
    char line[1024];
    while (fgets(line, sizeof(line), page) != NULL) {
        if (strcmp(line, "@SETTINGS@\n") == 0) {
            struct buffer keys;
            buffer_init(&keys, 0);
            settings_manual(&keys);
            fwrite(keys.data, 1, keys.length, stdout);
            buffer_done(&keys);
        } else {
            fputs(line, stdout);
        }
    }
    fclose(page);
    return fflush(stdout) == 0 ? 0 : 1;
}
