/* SPDX-License-Identifier: Apache-2.0
 *
 * Simulated twin of sys/fdpass.h: whole messages over a pair of the simulated net, each behind its
 * length. Descriptors are not passed here; sim_net_give() does that.
 */
#include "sys/fdpass.h"

#include <assert.h>

#include "base/buffer.h"
#include "sim/sim.h"
#include "sys/net.h"

enum { HEAD = 4 };

enum error fdpass_pair(int ret_ends[2])
{
    sim_net_pair(sim_current(), sim_current(), &ret_ends[0], &ret_ends[1]);
    return ERROR_NONE;
}

enum error fdpass_send(int socket, struct slice bytes, const int *descriptors, size_t count)
{
    static uint8_t whole[HEAD + FDPASS_BYTES_MAX];
    size_t sent = 0;
    (void)descriptors;
    assert(count == 0 && bytes.length > 0 && bytes.length <= FDPASS_BYTES_MAX);
    whole[0] = 0;
    whole[1] = (uint8_t)(bytes.length >> 16);
    whole[2] = (uint8_t)(bytes.length >> 8);
    whole[3] = (uint8_t)bytes.length;
    memcpy(whole + HEAD, bytes.data, bytes.length);
    enum error error = net_send(socket, slice_make(whole, HEAD + bytes.length), &sent);
    assert(error != ERROR_NONE || sent == HEAD + bytes.length); /* nobody is so slow here */
    return error;
}

enum error fdpass_receive_bytes(int socket, void *ret_bytes, size_t size, size_t *ret_length)
{
    static uint8_t whole[HEAD + FDPASS_BYTES_MAX];
    size_t there = sim_net_peek(socket, whole, sizeof(whole)), taken = 0;
    size_t length = there < HEAD ? 0 : (size_t)whole[1] << 16 | (size_t)whole[2] << 8 | whole[3];
    if (there < HEAD || there < HEAD + length) {
        uint8_t none;
        return there > 0 ? ERROR_AGAIN : net_receive(socket, &none, sizeof(none), &taken);
    }
    assert(length <= size);
    enum error error = net_receive(socket, whole, HEAD + length, &taken);
    assert(error == ERROR_NONE && taken == HEAD + length);
    memcpy(ret_bytes, whole + HEAD, length);
    *ret_length = length;
    return error;
}
