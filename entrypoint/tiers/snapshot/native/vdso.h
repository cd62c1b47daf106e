/* The captured process knows the functions of its own kernel's vdso by address (glibc keeps them in variables).  In
 * another process the vdso is elsewhere, and in another kernel it has another size and other functions.  So at the old
 * place the old code is put back as data, and the first instructions of each function become a jump to today's function
 * of the same name, or, where this kernel's vdso has none, the system call itself. */
#ifndef WARMIMAGE_VDSO_H
#define WARMIMAGE_VDSO_H

#include <stdint.h>

/* Rewrite the functions of the vdso image at `old` (writable, `old_length` bytes) to lead to the one at `today`, or to
 * system calls where `today` is 0.  Returns NULL, or what is wrong. */
const char *vdso_redirect(unsigned char *old, uint64_t old_length, uint64_t today, uint64_t today_length);

#endif
