/* SPDX-License-Identifier: Apache-2.0
 *
 * A certificate of mx2.example.net that signs itself, for a hundred years from 2026; its key, and
 * another's.
 */
#ifndef HOLDFAST_TESTS_APP_CERTIFICATES_H
#define HOLDFAST_TESTS_APP_CERTIFICATES_H

#define CERTIFICATE_PEM                                                                            \
    "-----BEGIN CERTIFICATE-----\n"                                                                \
    "MIIBqDCCAU2gAwIBAgIUYQWaeGJlSPU7+Sc68o4E+dlFn0kwCgYIKoZIzj0EAwIw\n"                           \
    "GjEYMBYGA1UEAwwPbXgyLmV4YW1wbGUubmV0MCAXDTI2MTEyMjA5NDQ0NFoYDzIx\n"                           \
    "MjYxMDI5MDk0NDQ0WjAaMRgwFgYDVQQDDA9teDIuZXhhbXBsZS5uZXQwWTATBgcq\n"                           \
    "hkjOPQIBBggqhkjOPQMBBwNCAATG9GfzjCmjvgzo2da8ePus2DZiF+BiPk/FCYg9\n"                           \
    "bKb8TL9diVn8rjucapK57L33etxwzEzK+z4KjiYSn7Ql0HNUo28wbTAdBgNVHQ4E\n"                           \
    "FgQUDDQqzy9wepCr0b3kjw6TnlGqm9owHwYDVR0jBBgwFoAUDDQqzy9wepCr0b3k\n"                           \
    "jw6TnlGqm9owDwYDVR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgg9teDIuZXhhbXBs\n"                           \
    "ZS5uZXQwCgYIKoZIzj0EAwIDSQAwRgIhANHNlk8a3oNXcqkJckfviMiPyyMW0Stu\n"                           \
    "fapEFFXBOZ1IAiEA84b0QnghCOB5yPIpC+Pk7FvLjopKtgJb5R7DypR+0Vs=\n"                               \
    "-----END CERTIFICATE-----\n"

#define KEY_PEM                                                                                    \
    "-----BEGIN PRIVATE KEY-----\n"                                                                \
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgyG6kvL4wZqBNF3Gg\n"                           \
    "C8lJCE36yfXlmpwXQ8jloZRJ9cehRANCAATG9GfzjCmjvgzo2da8ePus2DZiF+Bi\n"                           \
    "Pk/FCYg9bKb8TL9diVn8rjucapK57L33etxwzEzK+z4KjiYSn7Ql0HNU\n"                                   \
    "-----END PRIVATE KEY-----\n"

#define OTHER_KEY_PEM                                                                              \
    "-----BEGIN PRIVATE KEY-----\n"                                                                \
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgY6+IWUsGQXiQjh7f\n"                           \
    "96ea6cjDU3P9xi+VTdDCzkcG/LihRANCAAQ2m8U+S/pafaz6JNDkDTignRiMB/Eo\n"                           \
    "7UhXUOIW+A1IetLpogrHqG51zyymTbtO+VzLc8Lje6f+sbH95sInEMlD\n"                                   \
    "-----END PRIVATE KEY-----\n"

#endif
