/* The snapshot point: a shared library in the process that is captured.
 *
 * snapshot_point() notes what the kernel keeps for this thread and process beside its memory, and stops.  The capture
 * writes the stopped process's memory to a file.  The restorer (restore.c) maps that memory into another process and
 * enters snapshot_resume(), which gives the kernel these things back and returns from snapshot_point() a second time.
 *
 * Only one thread is here, in a call of its own, so no more registers than a call preserves need to be kept, and no
 * system call is interrupted.
 */
#include "format.h"
#include "kernel.h"
#include "rseq.h"

enum { PR_GET_TID_ADDRESS_ = 40, SIG_BLOCK_ = 0, SIG_SETMASK_ = 2, SIGKILL_ = 9, SIGSTOP_ = 19, MOST_SIGNALS = 64 };
/* glibc's own (sysdeps/unix/sysv/linux/internal-signals.h): no program can change what it inherits of them. */
enum { SIGCANCEL_ = 32, SIGSETXID_ = 33, SIG_IGN_ = 1 };
/* The kernel's struct sigaction, which is not libc's (include/linux/signal_types.h). */
struct kernel_action {
  uint64_t handler, flags, restorer, mask;
};

struct kernel_stack {
  uint64_t start;
  int32_t flags, padding;
  uint64_t length;
};

static struct point {
  struct context context;
  uint64_t thread_pointer;
  uint64_t tid_address; /* glibc's pthread.tid: the kernel clears it at the thread's end */
  uint64_t robust_list, robust_length;
  uint64_t rseq, rseq_length; /* rseq.h; length 0 where there is none */
  uint64_t signal_mask;
  struct kernel_stack signal_stack;
  struct kernel_action actions[MOST_SIGNALS + 1];
  uint64_t handover;
} point;

static uint64_t arena_next = ARENAS_START;

MACHINE_CONTEXT_CODE;

/* Stop here to be captured.
 *
 * rseq_offset: of this thread's rseq area from the thread pointer (glibc's __rseq_offset), 0 where there is none.
 * Returns the address of what the restorer hands over; never 0.  It returns only in a restored process. */
__attribute__((visibility("default"))) uint64_t snapshot_point(int64_t rseq_offset) {
  point.thread_pointer = machine_thread_pointer();
  /* Where the kernel writes 0 at the thread's end (CONFIG_CHECKPOINT_RESTORE, as PR_SET_MM_MAP). */
  CALL(SYS_prctl, PR_GET_TID_ADDRESS_, &point.tid_address);
  CALL(SYS_get_robust_list, 0, &point.robust_list, &point.robust_length);
  CALL(SYS_sigaltstack, 0, &point.signal_stack);
  CALL(SYS_rt_sigprocmask, SIG_BLOCK_, 0, &point.signal_mask, 8);
  for (int number = 1; number <= MOST_SIGNALS; number++) CALL(SYS_rt_sigaction, number, 0, &point.actions[number], 8);
  /* It is registered again when the process goes on. */
  point.rseq = rseq_offset ? point.thread_pointer + (uint64_t)rseq_offset : 0;
  point.rseq_length = rseq_unregister(point.rseq);
  if (machine_save(&point.context)) return point.handover;
  int64_t self = CALL(SYS_getpid);
  for (;;) CALL(SYS_kill, self, SIGSTOP_);
}

/* Whether this process keeps the disposition that it was started with, as every started program does. */
static int is_inherited(int number, uint64_t handler) {
  if (number == SIGKILL_ || number == SIGSTOP_) return 1;
  return (number == SIGCANCEL_ || number == SIGSETXID_) && handler <= SIG_IGN_;
}

/* Entered by the restorer, on its stack, when all memory is in place.  Nothing of libc works before the thread pointer
 * is set. */
__attribute__((noreturn, visibility("default"))) void snapshot_resume(struct point *captured, uint64_t handover) {
  machine_set_thread_pointer(captured->thread_pointer);
  captured->handover = handover;
  if (captured->tid_address) {
    *(int32_t *)captured->tid_address =
        (int32_t)CALL(SYS_gettid); /* what glibc's mutexes and raise() take for this thread */
    CALL(SYS_set_tid_address, captured->tid_address);
  }
  if (captured->robust_list) CALL(SYS_set_robust_list, captured->robust_list, captured->robust_length);
  if (captured->rseq_length) CALL(SYS_rseq, captured->rseq, captured->rseq_length, 0, RSEQ_SIGNATURE);
  if (!(captured->signal_stack.flags & 2)) CALL(SYS_sigaltstack, &captured->signal_stack, 0); /* 2: SS_DISABLE */
  for (int number = 1; number <= MOST_SIGNALS; number++)
    if (!is_inherited(number, captured->actions[number].handler))
      CALL(SYS_rt_sigaction, number, &captured->actions[number], 0, 8);
  CALL(SYS_rt_sigprocmask, SIG_SETMASK_, &captured->signal_mask, 0, 8);
  machine_resume(&captured->context);
}

/* The address of what snapshot_resume() takes. */
__attribute__((visibility("default"))) struct point *snapshot_state(void) { return &point; }

/* --- Python's arenas ------------------------------------------------------------------------------------------------
 */

/* PyObject_SetArenaAllocator: arenas in a range of their own, one behind the other.  Python maps and unmaps an arena as
 * a whole (_PyObject_ArenaMmap, _PyObject_ArenaMunmap) and never relies on it being zero or growing, so a capture may
 * map this range from the file; memory that malloc() takes from the kernel it may not. */
__attribute__((visibility("default"))) void *arena_allocate(void *unused, uint64_t size) {
  (void)unused;
  int64_t address = -ENOMEM_;
  if (arena_next + size <= ARENAS_END)
    address = CALL(SYS_mmap, arena_next, size, READ_ | WRITE_, PRIVATE_ | ANONYMOUS_ | FIXED_NO_REPLACE_, -1, 0);
  if (address >= 0) arena_next = (uint64_t)address + size;
  /* Another mapping lies there, or a kernel before 4.17 took the address for a wish: any place will do. */
  if (address < 0) address = CALL(SYS_mmap, 0, size, READ_ | WRITE_, PRIVATE_ | ANONYMOUS_, -1, 0);
  return address < 0 ? (void *)0 : (void *)address;
}

__attribute__((visibility("default"))) void arena_free(void *unused, void *address, uint64_t size) {
  (void)unused;
  CALL(SYS_munmap, address, size);
}
