/* SPDX-License-Identifier: Apache-2.0
 *
 * The library is opened here, so that no process has it that lives on.
 */
#include "app/pam_check.h"

#include <dlfcn.h>
#include <security/pam_appl.h>
#include <stdio.h>
#include <stdlib.h>

#define LIBRARY "libpam.so.0"

enum { SERVICE_MAX = 256 };

/* What is used of the library. */
#define CALLS(X)                                                                                   \
    X(pam_start_confdir)                                                                           \
    X(pam_set_item)                                                                                \
    X(pam_authenticate)                                                                            \
    X(pam_acct_mgmt)                                                                               \
    X(pam_strerror)                                                                                \
    X(pam_end)

struct calls {
#define CALL_MEMBER(name) __typeof__(&name) name;
    CALLS(CALL_MEMBER)
#undef CALL_MEMBER
};

struct talk {
    const char *password; /* NULL: it has been said */
};

static int answer_one(struct talk *talk, int style, char **ret_answer)
{
    switch (style) {
    case PAM_PROMPT_ECHO_OFF:
        *ret_answer = talk->password != NULL ? strdup(talk->password) : NULL;
        talk->password = NULL;
        return *ret_answer != NULL ? PAM_SUCCESS : PAM_CONV_ERR;
    case PAM_TEXT_INFO:
    case PAM_ERROR_MSG:
        return PAM_SUCCESS;
    default:
        return PAM_CONV_ERR;
    }
}

static int converse(int count, const struct pam_message **questions,
                    struct pam_response **ret_answers, void *context)
{
    struct pam_response *answers = calloc((size_t)(count > 0 ? count : 1), sizeof(*answers));
    int result = answers == NULL ? PAM_BUF_ERR : PAM_SUCCESS;
    for (int i = 0; i < count && result == PAM_SUCCESS; i++) {
        result = answer_one(context, questions[i]->msg_style, &answers[i].resp);
    }
    if (result != PAM_SUCCESS) {
        for (int i = 0; i < count && answers != NULL; i++) {
            free(answers[i].resp);
        }
        free(answers);
        return result;
    }
    *ret_answers = answers;
    return PAM_SUCCESS;
}

/* How slow a refusal is we decide. */
static void no_delay(int result, unsigned microseconds, void *context)
{
    (void)result;
    (void)microseconds;
    (void)context;
}

static enum login_verdict verdict_of(int result)
{
    switch (result) {
    case PAM_SUCCESS:
        return LOGIN_GOOD;
    case PAM_USER_UNKNOWN:
        return LOGIN_UNKNOWN;
    case PAM_AUTH_ERR:
    case PAM_PERM_DENIED:
    case PAM_MAXTRIES:
    case PAM_ACCT_EXPIRED:
    case PAM_NEW_AUTHTOK_REQD: /* a password that must be changed is none for mail */
    case PAM_AUTHTOK_EXPIRED:
    case PAM_CRED_INSUFFICIENT:
        return LOGIN_REFUSED;
    default:
        return LOGIN_AWAY;
    }
}

static const char *open_library(struct calls *calls)
{
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_GLOBAL);
    if (library == NULL) {
        return LIBRARY " is not there";
    }
#define CALL_FIND(name)                                                                            \
    *(void **)&calls->name = dlsym(library, #name);                                                \
    if (calls->name == NULL) {                                                                     \
        return LIBRARY " has no " #name;                                                           \
    }
    CALLS(CALL_FIND)
#undef CALL_FIND
    return NULL;
}

enum login_verdict pam_check(const char *service, const char *name, const char *password,
                             const char *client, char ret_reason[PAM_REASON_SIZE])
{
    struct calls calls = {0};
    struct talk talk = {password[0] != '\0' ? password : NULL};
    const struct pam_conv conversation = {converse, &talk};
    const char *slash = strrchr(service, '/'), *why = open_library(&calls);
    char directory[SERVICE_MAX];
    pam_handle_t *handle = NULL;
    snprintf(directory, sizeof(directory), "%.*s", slash != NULL ? (int)(slash - service) : 0,
             service);
    if (why != NULL) {
        snprintf(ret_reason, PAM_REASON_SIZE, "%s", why);
        return LOGIN_AWAY;
    }
    int result = calls.pam_start_confdir(slash != NULL ? slash + 1 : service, name, &conversation,
                                         slash != NULL ? directory : NULL, &handle);
    const int flags = PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK;
    if (result == PAM_SUCCESS) {
        void (*delay)(int, unsigned, void *) = no_delay;
        (void)calls.pam_set_item(handle, PAM_FAIL_DELAY, *(void **)&delay);
        (void)calls.pam_set_item(handle, PAM_RHOST, client);
        result = calls.pam_authenticate(handle, flags);
    }
    bool is_known = result == PAM_SUCCESS;
    if (is_known) {
        result = calls.pam_acct_mgmt(handle, flags);
    }
    snprintf(ret_reason, PAM_REASON_SIZE, "%s", calls.pam_strerror(handle, result));
    if (handle != NULL) {
        (void)calls.pam_end(handle, result);
    }
    enum login_verdict verdict = verdict_of(result);
    return is_known && verdict == LOGIN_UNKNOWN ? LOGIN_REFUSED : verdict;
}
