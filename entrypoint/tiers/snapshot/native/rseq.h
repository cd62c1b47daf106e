/* Restartable sequences (rseq(2)): glibc 2.35 and later register an area of each thread, into which the kernel writes
 * whenever the thread is moved to another processor.  An area that is unmapped while it is registered ends the process
 * by SIGSEGV. */
#ifndef WARMIMAGE_RSEQ_H
#define WARMIMAGE_RSEQ_H

#include "kernel.h"

enum { RSEQ_UNREGISTER = 1 };

#if defined(__aarch64__)
enum { RSEQ_SIGNATURE = (int)0xd428bc00 }; /* RSEQ_SIG of glibc's sys/rseq.h, one for each machine */
#else
enum { RSEQ_SIGNATURE = 0x53053053 };
#endif

/* Unregister an area of this thread, and return the length that it was registered with; 0 where it was not.  The first
 * kernels take 32 bytes, glibc 2.41 and later what the kernel announces (AT_RSEQ_FEATURE_SIZE). */
static inline uint64_t rseq_unregister(uint64_t area) {
  for (uint64_t length = 32; area && length <= 256; length += 32)
    if (CALL(SYS_rseq, area, length, RSEQ_UNREGISTER, RSEQ_SIGNATURE) == 0) return length;
  return 0;
}

#endif
