/* What differs between processors: system calls, saved registers, the thread pointer, a jump.  This is x86-64. */
#ifndef WARMIMAGE_MACHINE_H
#define WARMIMAGE_MACHINE_H

#include <stdint.h>

/* Numbers of arch/x86/entry/syscalls/syscall_64.tbl. */
enum {
  SYS_read = 0,
  SYS_write = 1,
  SYS_close = 3,
  SYS_mmap = 9,
  SYS_mprotect = 10,
  SYS_munmap = 11,
  SYS_rt_sigaction = 13,
  SYS_rt_sigprocmask = 14,
  SYS_pread64 = 17,
  SYS_madvise = 28,
  SYS_getpid = 39,
  SYS_kill = 62,
  SYS_execve = 59,
  SYS_sigaltstack = 131,
  SYS_prctl = 157,
  SYS_arch_prctl = 158,
  SYS_gettid = 186,
  SYS_set_tid_address = 218,
  SYS_clock_gettime = 228,
  SYS_exit_group = 231,
  SYS_openat = 257,
  SYS_set_robust_list = 273,
  SYS_get_robust_list = 274,
  SYS_rseq = 334,
};

#define ARCH_SET_FS 0x1002
#define ARCH_GET_FS 0x1003
#define ARCH_SHSTK_DISABLE 0x5002
#define ARCH_SHSTK_SHSTK 1

static inline int64_t machine_syscall(int64_t number, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e,
                                      int64_t f) {
  int64_t result;
  register int64_t r10 __asm__("r10") = d;
  register int64_t r8 __asm__("r8") = e;
  register int64_t r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

/* What a C function must find unchanged when a call returns (System V ABI, 3.2.1), beside the stack itself. */
struct context {
  uint64_t rbx, rbp, r12, r13, r14, r15, rsp, rip;
  uint32_t mxcsr;
  uint16_t x87_control, padding;
};

/* Like setjmp: 0 when it saves, 1 when machine_resume() returns through it. */
int machine_save(struct context *context);
__attribute__((noreturn)) void machine_resume(const struct context *context);

#define MACHINE_CONTEXT_CODE                                                                                           \
  __asm__(".text\n.hidden machine_save\n.globl machine_save\n.type machine_save,@function\nmachine_save:\n"            \
          "mov %rbx,0(%rdi)\n mov %rbp,8(%rdi)\n mov %r12,16(%rdi)\n mov %r13,24(%rdi)\n mov %r14,32(%rdi)\n"          \
          "mov %r15,40(%rdi)\n lea 8(%rsp),%rax\n mov %rax,48(%rdi)\n mov (%rsp),%rax\n mov %rax,56(%rdi)\n"           \
          "stmxcsr 64(%rdi)\n fnstcw 68(%rdi)\n xor %eax,%eax\n ret\n.size machine_save,.-machine_save\n"              \
          ".hidden machine_resume\n.globl machine_resume\n.type machine_resume,@function\nmachine_resume:\n"           \
          "cld\n ldmxcsr 64(%rdi)\n fldcw 68(%rdi)\n mov 0(%rdi),%rbx\n mov 8(%rdi),%rbp\n mov 16(%rdi),%r12\n"        \
          "mov 24(%rdi),%r13\n mov 32(%rdi),%r14\n mov 40(%rdi),%r15\n mov 48(%rdi),%rsp\n mov $1,%eax\n"              \
          "jmp *56(%rdi)\n.size machine_resume,.-machine_resume\n")

static inline uint64_t machine_thread_pointer(void) {
  uint64_t value = 0;
  machine_syscall(SYS_arch_prctl, ARCH_GET_FS, (int64_t)&value, 0, 0, 0, 0);
  return value;
}

static inline int64_t machine_set_thread_pointer(uint64_t value) {
  return machine_syscall(SYS_arch_prctl, ARCH_SET_FS, (int64_t)value, 0, 0, 0, 0);
}

/* A program that the kernel started with a shadow stack cannot go on with another stack: switch it off.  Kernels and
 * processors without one refuse, which is as good. */
static inline void machine_disable_shadow_stack(void) {
  machine_syscall(SYS_arch_prctl, ARCH_SHSTK_DISABLE, ARCH_SHSTK_SHSTK, 0, 0, 0, 0);
}

/* Go on at `code(a, b)` on another stack. */
__attribute__((noreturn)) static inline void machine_switch_stack(void *stack_top, void *code, void *a, void *b) {
  __asm__ volatile("mov %0,%%rsp\n xor %%ebp,%%ebp\n call *%1\n ud2" ::"r"(stack_top), "r"(code), "D"(a), "S"(b)
                   : "memory");
  __builtin_unreachable();
}

/* Bytes of a jump to any address. */
#define MACHINE_JUMP 12

/* mov $target,%rax; jmp *%rax: at a function's entry rax holds no argument. */
static inline void machine_write_jump(unsigned char *at, uint64_t target) {
  at[0] = 0x48, at[1] = 0xb8;
  for (int i = 0; i < 8; i++) at[2 + i] = (unsigned char)(target >> 8 * i);
  at[10] = 0xff, at[11] = 0xe0;
}

/* mov $number,%eax; syscall; ret: a function of the vdso has the arguments of its system call. */
#define MACHINE_CALL 8
static inline void machine_write_call(unsigned char *at, uint32_t number) {
  at[0] = 0xb8;
  for (int i = 0; i < 4; i++) at[1 + i] = (unsigned char)(number >> 8 * i);
  at[5] = 0x0f, at[6] = 0x05, at[7] = 0xc3;
}

/* The vdso's functions and the system call that each one stands for. */
/* clang-format off */
#define MACHINE_VDSO_CALLS(X)                                                                                          \
  X("__vdso_clock_gettime", 228) X("__vdso_gettimeofday", 96) X("__vdso_time", 201) X("__vdso_getcpu", 309)            \
  X("__vdso_clock_getres", 229) X("__vdso_getrandom", 318) X("clock_gettime", 228) X("gettimeofday", 96)               \
  X("time", 201) X("getcpu", 309) X("clock_getres", 229) X("getrandom", 318)
/* clang-format on */

static inline void machine_flush_code(void *start, uint64_t length) { (void)start, (void)length; }

#endif
