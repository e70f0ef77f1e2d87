/* SPDX-License-Identifier: Apache-2.0
 *
 * Any octets as the mark of a shared state, and as what a machine remembers of one: what is taken
 * for either is within its bounds, and the same when it has been written again.
 */
#include "app/shared_state.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct shared_identity mark, memory, again;
    struct slice text = slice_make(data, size);
    bool marked = shared_identity_read(text, false, &mark);
    bool remembered = shared_identity_read(text, true, &memory);
    assert(marked || !remembered);
    assert(strlen(mark.id) == (marked ? SHARED_ID : 0) && mark.place[0] == '\0');
    assert(strspn(memory.id, "0123456789abcdef") == (remembered ? SHARED_ID : 0));
    assert(memchr(memory.place, '\0', sizeof(memory.place)) != NULL);
    if (remembered) {
        char written[SHARED_ID + SHARED_PLACE + 4];
        snprintf(written, sizeof(written), "%s\n%s\n", memory.id, memory.place);
        assert(shared_identity_read(slice_from_text(written), true, &again));
        assert(strcmp(memory.id, again.id) == 0 && strcmp(memory.place, again.place) == 0);
        assert(shared_state_judge(true, true, &memory, &memory) == SHARED_OURS);
    }
    for (unsigned how = 0; how < 4; how++) {
        const char *why =
            shared_verdict_text(shared_state_judge((how & 1) != 0, (how & 2) != 0, &mark, &memory));
        assert(why != NULL);
    }
    return 0;
}
