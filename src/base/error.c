/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <errno.h>

const char *error_text(enum error error)
{
    switch (error) {
    case ERROR_NONE:
        return "no error";
    case ERROR_MEMORY:
        return "out of memory";
    case ERROR_SPACE:
        return "no space";
    case ERROR_IO:
        return "input/output error";
    case ERROR_INVALID:
        return "invalid";
    case ERROR_LIMIT:
        return "over a limit";
    case ERROR_MISSING:
        return "not found";
    case ERROR_EXISTS:
        return "exists";
    case ERROR_AGAIN:
        return "try again";
    case ERROR_CLOSED:
        return "closed";
    case ERROR_TIMEOUT:
        return "timed out";
    case ERROR_CORRUPT:
        return "corrupt";
    case ERROR_LOOP:
        return "comes back in a circle";
    case ERROR_NEWER:
        return "written by a newer version of holdfast";
    case ERROR_DENIED:
        return "permission denied";
    }
    return "unknown error";
}

enum error error_from_errno(int number)
{
    switch (number) {
    case 0:
        return ERROR_NONE;
    case ENOMEM:
    case ENOBUFS:
        return ERROR_MEMORY;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EMFILE:
    case ENFILE:
        return ERROR_SPACE;
    case ENOENT:
    case ESRCH:
        return ERROR_MISSING;
    case EEXIST:
    case ENOTEMPTY:
    case EADDRINUSE:
        return ERROR_EXISTS;
    case EAGAIN:
    case EINTR:
    case EINPROGRESS:
        return ERROR_AGAIN;
    case EPIPE:
    case ECONNRESET:
    case ECONNREFUSED:
    case ECONNABORTED:
    case ENOTCONN:
        return ERROR_CLOSED;
    case ETIMEDOUT:
        return ERROR_TIMEOUT;
    case EACCES:
    case EPERM:
        return ERROR_DENIED;
    case EINVAL:
    case ENAMETOOLONG:
        return ERROR_INVALID;
    default:
        return ERROR_IO;
    }
}
