/* SPDX-License-Identifier: Apache-2.0
 *
 * Paths and parameters: what is taken lies within the input, keeps its bounds, and is taken again
 * when it stands alone.
 */
#include "proto/smtp_address.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_mailbox(const struct smtp_mailbox *box, struct slice input)
{
    struct smtp_mailbox again;
    if (box->text.length == 0) {
        return;
    }
    assert(box->text.data >= input.data &&
           box->text.data + box->text.length <= input.data + input.length);
    assert(box->local.length > 0 && box->local.length <= SMTP_LOCAL_PART_MAX);
    assert(box->domain.length <= SMTP_DOMAIN_MAX);
    for (size_t i = 0; i < box->text.length; i++) {
        assert(box->text.data[i] >= ' ' && box->text.data[i] != 0x7f);
    }
    if (box->domain.length > 0) {
        assert(smtp_mailbox_parse(box->text, &again));
        assert(slice_equal(again.local, box->local) && slice_equal(again.domain, box->domain));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = slice_make(data, size), rest = input;
    struct smtp_mailbox box;
    struct smtp_parameter parameter;
    if (smtp_path_read(&rest, SMTP_REVERSE_PATH, &box)) {
        check_mailbox(&box, input);
    }
    rest = input;
    if (smtp_path_read(&rest, SMTP_FORWARD_PATH, &box)) {
        check_mailbox(&box, input);
        assert(box.text.length > 0);
        while (smtp_parameter_next(&rest, &parameter) == SMTP_PARAMETER_FOUND) {
            assert(parameter.keyword.length > 0);
            assert(parameter.has_value == (parameter.value.length > 0));
            (void)smtp_xtext_is_valid(parameter.value);
            (void)smtp_orcpt_is_valid(parameter.value);
        }
    }
    if (smtp_mailbox_parse(input, &box)) {
        check_mailbox(&box, input);
        assert(box.text.length == input.length);
        (void)smtp_local_part_routes(box.local);
    }
    (void)smtp_domain_is_valid(input);
    return 0;
}
