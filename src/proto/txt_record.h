/* SPDX-License-Identifier: Apache-2.0
 *
 * TXT records by which a domain says something of its mail: fields "name=value" cut at semicolons,
 * the first of which names the kind and version (RFC 8461 3.1, RFC 8460 3).
 */
#ifndef HOLDFAST_PROTO_TXT_RECORD_H
#define HOLDFAST_PROTO_TXT_RECORD_H

#include <stdbool.h>

#include "base/slice.h"

/* The value of the first field of this name in a record that begins with `version`
 * ("v=STSv1"); it lies in the record. False: another kind of record, or no such field. */
bool txt_record_find(struct slice record, struct slice version, struct slice name,
                     struct slice *ret_value);

#endif
