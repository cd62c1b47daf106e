/* The few system calls that the native part makes, and the memory functions that a compiler may call by itself. */
#ifndef WARMIMAGE_KERNEL_H
#define WARMIMAGE_KERNEL_H

#if defined(__x86_64__)
#include "machine_x86_64.h"
#elif defined(__aarch64__)
#include "machine_aarch64.h"
#else
#error "no such machine"
#endif

#define CALL(number, ...) CALL_(number, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define CALL_(number, a, b, c, d, e, f, ...)                                                                           \
  machine_syscall(number, (int64_t)(a), (int64_t)(b), (int64_t)(c), (int64_t)(d), (int64_t)(e), (int64_t)(f))

enum { ENOMEM_ = 12, EEXIST_ = 17, EINVAL_ = 22 };
enum { READ_ = 1, WRITE_ = 2, EXECUTE_ = 4 };
enum {
  SHARED_ = 1,
  PRIVATE_ = 2,
  FIXED_ = 0x10,
  ANONYMOUS_ = 0x20,
  GROWS_DOWN_ = 0x100,
  NO_RESERVE_ = 0x4000,
  FIXED_NO_REPLACE_ = 0x100000
};
enum { AT_FDCWD_ = -100, CLOSE_ON_EXEC_ = 0x80000 };
enum { WIPE_ON_FORK_ = 18 };
enum { CLOCK_MONOTONIC_ = 1 };

static inline uint64_t text_length(const char *text) {
  uint64_t length = 0;
  while (text[length]) length++;
  return length;
}

static inline int text_equal(const char *a, const char *b) {
  while (*a && *a == *b) a++, b++;
  return *a == *b;
}

static inline uint64_t monotonic_nanoseconds(void) {
  uint64_t now[2] = {0, 0};
  CALL(SYS_clock_gettime, CLOCK_MONOTONIC_, now);
  return now[0] * 1000000000ull + now[1];
}

#endif
