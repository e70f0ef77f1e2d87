/* SPDX-License-Identifier: Apache-2.0
 *
 * A page with recipients as the text that lists are (app/recipient_list.h). It is that text
 * already, or JSON: an array of addresses, or an object with such an array as "recipients". Pure.
 */
#ifndef HOLDFAST_APP_LIST_TEXT_H
#define HOLDFAST_APP_LIST_TEXT_H

#include "base/buffer.h"

/* Appends an address a line. NULL, or what is wrong, static. */
const char *list_text_from_page(struct slice page, struct buffer *text);

#endif
