/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading at either end of a link between those who ask about logins and those who know.
 */
#include "base/digest.h"
#include "service/login.h"
#include "sys/fdpass.h"

enum { HEARD_PER_TURN = 64 }; /* the loop has other things to do */

bool login_hear(const int *fd, login_heard_fn *heard, void *context)
{
    uint8_t bytes[LOGIN_MESSAGE_MAX];
    enum error error = ERROR_NONE;
    bool good = true;
    for (int i = 0; i < HEARD_PER_TURN && *fd >= 0 && error == ERROR_NONE && good; i++) {
        size_t length = 0;
        error = fdpass_receive_bytes(*fd, bytes, sizeof(bytes), &length);
        if (error == ERROR_NONE) {
            good = heard(context, slice_make(bytes, length));
        }
    }
    digest_forget(bytes, sizeof(bytes));
    return good && (error == ERROR_NONE || error == ERROR_AGAIN);
}
