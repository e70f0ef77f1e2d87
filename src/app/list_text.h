/* SPDX-License-Identifier: Apache-2.0
 *
 * A page with recipients as the text that lists are (app/recipient_list.h). It is that text
 * already, or JSON: an array of addresses, or an object with such an array as "recipients".
 * Likewise values of a directory's attributes. Pure.
 */
#ifndef HOLDFAST_APP_LIST_TEXT_H
#define HOLDFAST_APP_LIST_TEXT_H

#include "base/buffer.h"

/* Appends an address a line. NULL, or what is wrong, static. */
const char *list_text_from_page(struct slice page, struct buffer *text);

/* The address that a value is, a line of a list: without "smtp:", which Active Directory writes in
 * front. False: it is none. A pattern is none either: who may change his own entry would be
 * everybody. */
bool list_text_from_value(struct slice value, struct slice *ret_address);
/* Whether it is an address of another kind, as Active Directory writes them: "x500:/o=...". */
bool list_text_is_of_other_kind(struct slice value);

#endif
