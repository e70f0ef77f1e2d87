/* SPDX-License-Identifier: Apache-2.0
 *
 * What the table of a domain's recipients costs: time per look-up, bytes each, time to read it from
 * its file. Not a test: bench_mailboxes [NAMES].
 */
#include "relay/mailboxes.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { LOOKUPS = 5000000 };

static const struct hash_key key = {5, 6};

/* Of the processor: others may have it meanwhile. */
static double now_s(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static struct slice name_of(uint32_t number, char text[32])
{
    int length = snprintf(text, 32, "firstname.name%u", number);
    return slice_make(text, (size_t)length);
}

static void fill(struct mailboxes *mailboxes, uint32_t names)
{
    char text[32];
    for (uint32_t i = 0; i < names; i++) {
        if (mailboxes_accepted(mailboxes, name_of(i, text), true, MAILBOX_FROM_CALLOUT,
                               1700000000000) != ERROR_NONE) {
            exit(1);
        }
    }
}

/* Every second one is not there. */
static double look_up(const struct mailboxes *mailboxes, uint32_t names)
{
    char text[32];
    struct mailbox found;
    uint64_t seed = 1;
    uint32_t hits = 0;
    double began = now_s();
    for (uint32_t i = 0; i < LOOKUPS; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407U;
        hits +=
            mailboxes_find(mailboxes, name_of((uint32_t)(seed >> 33) % (2 * names), text), &found);
    }
    double each = (now_s() - began) / LOOKUPS;
    if (hits < LOOKUPS / 3) {
        exit(1);
    }
    return each;
}

static double read_again(const struct mailboxes *mailboxes)
{
    struct buffer file;
    struct mailboxes *again = mailboxes_new(key);
    size_t used;
    bool end;
    buffer_init(&file, 0);
    for (uint64_t at = 0; mailboxes_write(mailboxes, &at, &file);) {
    }
    double began = now_s();
    if (again == NULL ||
        mailboxes_read(again, buffer_slice(&file), file.length, &used, &end) != ERROR_NONE ||
        !end) {
        exit(1);
    }
    double took = now_s() - began;
    mailboxes_free(again);
    buffer_done(&file);
    return took;
}

int main(int argc, char **argv)
{
    uint32_t names = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1000000;
    struct mailboxes *mailboxes = mailboxes_new(key);
    if (mailboxes == NULL || names == 0) {
        return 1;
    }
    fill(mailboxes, names);
    printf(
        "%u names: %.0f ns a look-up (its name made included), %.1f bytes each, read in %.3f s\n",
        names, look_up(mailboxes, names) * 1e9, (double)mailboxes_bytes(mailboxes) / names,
        read_again(mailboxes));
    mailboxes_free(mailboxes);
    return 0;
}
