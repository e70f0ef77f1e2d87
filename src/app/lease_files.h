/* SPDX-License-Identifier: Apache-2.0
 *
 * Leases as files of one directory, which two machines may have open: state/standby.
 *
 *   lease-TOKEN   made by who takes that token, exclusively; written by him alone
 *   ended-TOKEN   made once that token's writer is known to write no more; one octet says how
 *   watch-NAME    written by NAME while it stands by
 *   want-NAME     made by NAME, which stands by and is to take over; removed when it has
 *
 * TOKEN is six hexadecimal digits. Calls block: for a worker.
 */
#ifndef HOLDFAST_APP_LEASE_FILES_H
#define HOLDFAST_APP_LEASE_FILES_H

#include "app/lease.h"
#include "sys/disk.h"

struct lease_look {
    struct lease_view view;
    uint32_t open_token;       /* the lowest that is not known to have ended; 0: none */
    bool other_known;          /* `other` says how far it is */
    struct lease_record other; /* who stands by, of the name asked for */
    bool wanted;               /* he has been told to take over */
};

/* `other`: whose watch and want are looked at. Files are opened anew, so that storage which keeps
 * copies asks for what is new. */
enum error lease_files_look(struct disk *disk, struct slice other,
                            struct lease_look *ret_look) MUST_CHECK;
/* Durable when it returns. ERROR_EXISTS: somebody else has that token. */
enum error lease_files_claim(struct disk *disk, const struct lease_record *record,
                             struct disk_file **ret_file) MUST_CHECK;
/* The same, while `newest` still is the newest one there: ERROR_EXISTS if it is not, or the name
 * was one that has been removed again. With `fenced` all writers before it have ended, which is
 * said first; of one that has come since nobody knows that. The look, for `other`, is of
 * afterwards. */
enum error lease_files_take(struct disk *disk, struct slice other, bool fenced, uint32_t newest,
                            const struct lease_record *record, struct lease_look *ret_look,
                            struct disk_file **ret_file) MUST_CHECK;
enum error lease_files_renew(struct disk_file *file, const struct lease_record *record) MUST_CHECK;
/* Good also if it was said before. */
enum error lease_files_end(struct disk *disk, uint32_t token, enum lease_end how) MUST_CHECK;
/* The same for each token below `below` that has not ended: of the leases of `name` on `machine`;
 * of all if `machine` is NULL. */
enum error lease_files_settle(struct disk *disk, struct slice name, const uint8_t *machine,
                              uint32_t below, enum lease_end how) MUST_CHECK;
/* Not synced: it is worth nothing after a crash. */
enum error lease_files_watch(struct disk *disk, const struct lease_record *record) MUST_CHECK;
enum error lease_files_want(struct disk *disk, struct slice name, bool want) MUST_CHECK;
/* Removes what is said of tokens below, all of which have ended. */
void lease_files_clean(struct disk *disk, uint32_t below);

#endif
