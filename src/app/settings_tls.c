/* SPDX-License-Identifier: Apache-2.0
 *
 * Certificates, keys and authorities: files that are read with the configuration, checked there,
 * and given to the one process that uses them. What is wrong is said in the line that names the
 * file.
 */
#include "app/settings_internal.h"

#include <time.h>

void settings_authorities(struct settings *settings, const char *key, const struct place *at,
                          struct slice path, unsigned readers, struct slice *ret_pem)
{
    char problem[TLS_PROBLEM_SIZE];
    uint32_t source;
    if (!settings_withheld_file(settings, at, path, readers, &source)) {
        return;
    }
    *ret_pem = settings->sources[source].content;
    if (!settings->sealed && tls_authorities_check(*ret_pem, problem) != ERROR_NONE) {
        settings_complain(settings, *at, "%s: %.*s: %s", key, SHOWN(path), problem);
    }
}

static bool are_authorities(struct slice pem)
{
    char problem[TLS_PROBLEM_SIZE];
    return tls_authorities_check(pem, problem) == ERROR_NONE;
}

struct slice settings_machine_authorities(struct settings *settings, unsigned readers)
{
    uint32_t source;
    return settings_found_file(settings, SLICE_LITERAL(SETTINGS_MACHINE_AUTHORITIES), readers,
                               are_authorities, &source)
               ? settings->sources[source].content
               : SLICE_EMPTY;
}

static void warn_of_end(struct settings *settings, const struct value *file, int64_t end_s)
{
    int64_t left_s = end_s - (int64_t)time(NULL);
    if (left_s <= 0) {
        settings_warn(settings, file->at, "certificate: %.*s has expired", SHOWN(file->text));
    }
}

/* The file of the key may be that of the certificate. */
static void check_pair(struct settings *settings, const struct value *certificate,
                       const struct value *key, struct tls_certificate *ret_certificate)
{
    char problem[TLS_PROBLEM_SIZE];
    uint32_t chain, secret;
    int64_t end_s = 0;
    if (!settings_withheld_file(settings, &certificate->at, certificate->text, SETTINGS_FOR_EDGE_IN,
                                &chain) ||
        !settings_secret_file(settings, &key->at, key->text, SETTINGS_FOR_EDGE_IN, &secret)) {
        return;
    }
    settings->sources[chain].secret = true; /* as its key is */
    *ret_certificate = (struct tls_certificate){settings->sources[chain].content,
                                                settings->sources[secret].content};
    if (settings->sealed) {
        return;
    }
    if (tls_certificate_check(ret_certificate, &end_s, problem) != ERROR_NONE) {
        settings_complain(settings, key->at, "certificate %.*s, key %.*s: %s",
                          SHOWN(certificate->text), SHOWN(key->text), problem);
    } else {
        warn_of_end(settings, certificate, end_s);
    }
}

static void fill_certificates(struct settings *settings, const struct entry *certificates,
                              const struct entry *keys, struct listener_config *listener)
{
    if (keys != NULL && keys->count != certificates->count) {
        settings_complain(settings, keys->at, "key: %u for %u certificates", keys->count,
                          certificates->count);
        return;
    }
    struct tls_certificate *all =
        settings_allocate(settings, certificates->count, sizeof(struct tls_certificate));
    for (uint32_t i = 0; all != NULL && i < certificates->count; i++) {
        const struct value *certificate = &certificates->values[i];
        check_pair(settings, certificate, keys != NULL ? &keys->values[i] : certificate, &all[i]);
    }
    listener->certificates = all;
    listener->certificate_count = all != NULL ? certificates->count : 0;
}

void settings_listener_tls(struct settings *settings, const struct block *block,
                           const struct entry *const *entries, struct listener_config *listener)
{
    const struct entry *tls = settings_entry(entries, BLOCK_LISTEN, "tls");
    const struct entry *certificates = settings_entry(entries, BLOCK_LISTEN, "certificate");
    const struct entry *keys = settings_entry(entries, BLOCK_LISTEN, "key");
    const struct entry *authorities = settings_entry(entries, BLOCK_LISTEN, "client-ca");
    if (listener->tls == LISTENER_TLS_NONE) {
        const struct entry *odd = certificates != NULL ? certificates
                                  : keys != NULL       ? keys
                                                       : authorities;
        if (odd != NULL) {
            settings_warn(settings, odd->at, "%.*s: without tls nobody sees it", SHOWN(odd->key));
        }
        return;
    }
    if (listener->protocol == LISTENER_HTTP) {
        settings_complain(settings, tls->at, "tls: is not there for protocol = http");
        return;
    }
    if (certificates == NULL) {
        if (!block->broken) {
            settings_complain(settings, tls->at, "tls: needs certificate = FILE");
        }
        return;
    }
    fill_certificates(settings, certificates, keys, listener);
    if (authorities != NULL && authorities->count == 1 && !authorities->list) {
        settings_authorities(settings, "client-ca", &authorities->values[0].at,
                             authorities->values[0].text, SETTINGS_FOR_EDGE_IN,
                             &listener->client_ca);
    }
}
