/* SPDX-License-Identifier: Apache-2.0
 *
 * In place of a connection to PostgreSQL: one whose answers are made of a fuzzer's octets, whatever
 * was asked. Rows and values come from there as they come; numbers, ids and envelopes that fit
 * together are made of few octets, so that it gets beyond the first check.
 */
#ifndef HOLDFAST_TESTS_FUZZ_FAKE_DATABASE_H
#define HOLDFAST_TESTS_FUZZ_FAKE_DATABASE_H

#include "base/id.h"
#include "base/slice.h"

/* What all answers are made of from now on, of all connections; then there are no rows. Borrowed.
 */
void fake_database_feed(struct slice octets);
/* One of 256. */
struct message_id fake_database_id(uint8_t n);

#endif
