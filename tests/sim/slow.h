/* SPDX-License-Identifier: Apache-2.0
 *
 * A sanitizer makes a program several times slower. What the ordinary build does in full, with
 * every seed and each point of a crash, is done there in part: some of each kind.
 */
#ifndef HOLDFAST_TESTS_SIM_SLOW_H
#define HOLDFAST_TESTS_SIM_SLOW_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SLOW 1
#elif defined(__has_feature) /* clang */
#define IS_SLOW (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define IS_SLOW 0
#endif

#endif
