/* What differs between processors: system calls, saved registers, the thread pointer, a jump.  This is arm64.
 *
 * It is built, but no image restores with it yet: where pointers are authenticated (ARMv8.3), return addresses on the
 * captured stack are signed with keys that another process does not have, and this was not tried on such a machine. */
#ifndef WARMIMAGE_MACHINE_H
#define WARMIMAGE_MACHINE_H

#include <stdint.h>

/* Numbers of include/uapi/asm-generic/unistd.h. */
enum {
  SYS_openat = 56,
  SYS_close = 57,
  SYS_read = 63,
  SYS_write = 64,
  SYS_pread64 = 67,
  SYS_exit_group = 94,
  SYS_set_tid_address = 96,
  SYS_set_robust_list = 99,
  SYS_get_robust_list = 100,
  SYS_clock_gettime = 113,
  SYS_kill = 129,
  SYS_sigaltstack = 132,
  SYS_rt_sigaction = 134,
  SYS_rt_sigprocmask = 135,
  SYS_prctl = 167,
  SYS_getpid = 172,
  SYS_gettid = 178,
  SYS_munmap = 215,
  SYS_execve = 221,
  SYS_mmap = 222,
  SYS_mprotect = 226,
  SYS_madvise = 233,
  SYS_rseq = 293,
};

static inline int64_t machine_syscall(int64_t number, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e,
                                      int64_t f) {
  register int64_t x8 __asm__("x8") = number;
  register int64_t x0 __asm__("x0") = a;
  register int64_t x1 __asm__("x1") = b;
  register int64_t x2 __asm__("x2") = c;
  register int64_t x3 __asm__("x3") = d;
  register int64_t x4 __asm__("x4") = e;
  register int64_t x5 __asm__("x5") = f;
  __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
}

/* What a C function must find unchanged when a call returns (AAPCS64, 6.1), beside the stack itself. */
struct context {
  uint64_t x19_to_x30[12], sp, d8_to_d15[8], fpcr;
};

int machine_save(struct context *context);
__attribute__((noreturn)) void machine_resume(const struct context *context);

#define MACHINE_CONTEXT_CODE                                                                                           \
  __asm__(".text\n.hidden machine_save\n.globl machine_save\n.type machine_save,%function\nmachine_save:\n"            \
          "stp x19,x20,[x0]\n stp x21,x22,[x0,16]\n stp x23,x24,[x0,32]\n stp x25,x26,[x0,48]\n stp x27,x28,[x0,64]\n" \
          "stp x29,x30,[x0,80]\n mov x9,sp\n str x9,[x0,96]\n stp d8,d9,[x0,104]\n stp d10,d11,[x0,120]\n"             \
          "stp d12,d13,[x0,136]\n stp d14,d15,[x0,152]\n mrs x9,fpcr\n str x9,[x0,168]\n mov w0,0\n ret\n"             \
          ".hidden machine_resume\n.globl machine_resume\n.type machine_resume,%function\nmachine_resume:\n"           \
          "ldp x19,x20,[x0]\n ldp x21,x22,[x0,16]\n ldp x23,x24,[x0,32]\n ldp x25,x26,[x0,48]\n ldp x27,x28,[x0,64]\n" \
          "ldp x29,x30,[x0,80]\n ldr x9,[x0,96]\n mov sp,x9\n ldp d8,d9,[x0,104]\n ldp d10,d11,[x0,120]\n"             \
          "ldp d12,d13,[x0,136]\n ldp d14,d15,[x0,152]\n ldr x9,[x0,168]\n msr fpcr,x9\n mov w0,1\n ret\n")

static inline uint64_t machine_thread_pointer(void) {
  uint64_t value;
  __asm__ volatile("mrs %0,tpidr_el0" : "=r"(value));
  return value;
}

static inline int64_t machine_set_thread_pointer(uint64_t value) {
  __asm__ volatile("msr tpidr_el0,%0" ::"r"(value) : "memory");
  return 0;
}

static inline void machine_disable_shadow_stack(void) {}

__attribute__((noreturn)) static inline void machine_switch_stack(void *stack_top, void *code, void *a, void *b) {
  register void *x0 __asm__("x0") = a;
  register void *x1 __asm__("x1") = b;
  __asm__ volatile("mov sp,%0\n mov x29,xzr\n blr %1\n brk #1" ::"r"(stack_top), "r"(code), "r"(x0), "r"(x1)
                   : "memory", "x30");
  __builtin_unreachable();
}

#define MACHINE_JUMP 16

/* ldr x16,#8; br x16; .quad target: x16 is free between functions (AAPCS64, 6.1.1). */
static inline void machine_write_jump(unsigned char *at, uint64_t target) {
  static const unsigned char code[8] = {0x50, 0x00, 0x00, 0x58, 0x00, 0x02, 0x1f, 0xd6};
  for (int i = 0; i < 8; i++) at[i] = code[i], at[8 + i] = (unsigned char)(target >> 8 * i);
}

#define MACHINE_CALL 12

/* movz w8,#number; svc #0; ret. */
static inline void machine_write_call(unsigned char *at, uint32_t number) {
  uint32_t code[3] = {0x52800008u | (number & 0xffff) << 5, 0xd4000001u, 0xd65f03c0u};
  for (int i = 0; i < 12; i++) at[i] = (unsigned char)(code[i / 4] >> 8 * (i % 4));
}

/* clang-format off */
#define MACHINE_VDSO_CALLS(X)                                                                                          \
  X("__kernel_clock_gettime", 113) X("__kernel_gettimeofday", 169) X("__kernel_clock_getres", 114)                     \
  X("__kernel_getrandom", 278) X("__kernel_rt_sigreturn", 139)
/* clang-format on */

/* Instructions that were written as data are seen by the processor only after its caches were told (ARM ARM, B2.4.4).
 */
static inline void machine_flush_code(void *start, uint64_t length) {
  for (uint64_t at = (uint64_t)start & ~15ull; at < (uint64_t)start + length; at += 16)
    __asm__ volatile("dc cvau,%0\n ic ivau,%0" ::"r"(at) : "memory");
  __asm__ volatile("dsb ish\n isb" ::: "memory");
}

#endif
