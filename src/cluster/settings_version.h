/* SPDX-License-Identifier: Apache-2.0
 *
 * A version of the cluster's settings: one whole text in the language of the configuration file,
 * and the files that it names as cluster:NAME (certificates, secrets, lists), which are no files of
 * any one machine. Each member keeps the last good one on its disk in the form below.
 *
 * The form:  8 bytes "hfset\0\0\1", u64 number, u32-counted text, u32 count of files, for each
 * u32-counted name and content; last the u32 CRC32C of all before it. Integers are little-endian.
 * It is good if and only if all of this is there, nothing follows, and the bounds below hold.
 */
#ifndef HOLDFAST_CLUSTER_SETTINGS_VERSION_H
#define HOLDFAST_CLUSTER_SETTINGS_VERSION_H

#include "base/buffer.h"

/* They keep one `settings set` from filling the disks and the memory of every member. */
enum {
    SETTINGS_TEXT_MAX = 16 << 20,
    SETTINGS_FILES_MAX = 256,
    SETTINGS_FILES_BYTES_MAX = 64 << 20, /* of all files of a version */
    SETTINGS_FILE_NAME_MAX = 64,
    SETTINGS_VERSION_BYTES_MAX = SETTINGS_TEXT_MAX + SETTINGS_FILES_BYTES_MAX + (64 << 10),
};

struct settings_file {
    struct slice name; /* without "cluster:" */
    struct slice content;
};

struct settings_version {
    uint64_t number; /* 1 for the first; 0: there is none yet, and so nothing in it */
    struct slice text;
    const struct settings_file *files;
    uint32_t file_count;
};

/* NULL, or what is wrong with it, as a phrase: not 1 to SETTINGS_FILE_NAME_MAX of letters, digits,
 * '-', '.' and '_', of which the first is a letter or digit. */
const char *settings_file_name_fault(struct slice name);
/* NULL, or which bound it is beyond, or that two files have one name. */
const char *settings_version_fault(const struct settings_version *version);

/* The version is within its bounds. */
void settings_version_put(struct buffer *buffer, const struct settings_version *version);
/* All points into `bytes` and `ret_files`. ERROR_CORRUPT: it is none, or torn. */
enum error settings_version_get(struct slice bytes, struct settings_version *ret_version,
                                struct settings_file ret_files[SETTINGS_FILES_MAX]) MUST_CHECK;

#endif
