/* The restorer: a shared library that the dynamic loader runs in the engine's interpreter before the interpreter itself
 * begins, and that turns this process into the captured one.
 *
 *   LD_PRELOAD=restore.so PYTHON -I -S -c FALLBACK restore.so SNAPSHOT REPORT ...
 *
 * PYTHON is executed, not a program of ours, so that /proc/PID/exe names the interpreter, as debuggers and profilers
 * want.  Nothing of that start is kept: its memory is unmapped before Python has run an instruction.  FALLBACK is what
 * Python executes where the loader ignores LD_PRELOAD.  Standard streams, environment, working directory, user, limits,
 * control group and every other property of this process stay: they are what PID 1 started it with.
 *
 * No privilege is needed: munmap, mmap, pread, mprotect, prctl(PR_SET_MM_MAP) without an executable's descriptor.
 *
 * No libc: the code is copied to an address of its own, where no relocation would be done again, so it has no writable
 * data and no table of pointers.
 */
#include "areas.h"
#include "elf64.h"
#include "format.h"
#include "kernel.h"
#include "rseq.h"
#include "tables.h"
#include "vdso.h"

enum { TABLES_AT = 0x1000000, STACK_AT = 0x800000, STACK_LENGTH = 0x40000, HANDOVER_AT = 0x10000000 };
enum { PREFIX_ARGUMENTS = 5, ARGUMENT_LIBRARY = 5, ARGUMENT_SNAPSHOT, ARGUMENT_REPORT, ARGUMENTS };
enum { EXIT_DECLINED = 75, MOST_TRIES = 8 };
enum { PR_SET_MM_ = 35, PR_SET_MM_MAP_ = 14, PR_SET_MM_MAP_SIZE_ = 15 };
enum { AT_NULL_ = 0, AT_SYSINFO_EHDR_ = 33 };

extern const unsigned char image_start[] __asm__("__ehdr_start") __attribute__((visibility("hidden")));

/* Where glibc 2.35 and later have registered this thread's rseq area, from the thread pointer; absent in others. */
extern const int64_t __rseq_offset __attribute__((weak));

/* What the restored process is handed over, at OWN_START + HANDOVER_AT: this, then the texts.  captured_process.py
 * reads it and unmaps the whole range. */
struct handover {
  uint64_t began, mapped; /* monotonic clock, in nanoseconds: this code's first instruction, the last mapping */
  uint64_t argument_count, variable_count, texts_length;
};

struct start {
  int argument_count;
  char **arguments, **variables;
  uint64_t began;
};

/* Everything that the restore knows; it lies on the restorer's own stack. */
struct restore {
  struct start start;
  const char *snapshot;
  int report, file;
  struct areas areas; /* what the kernel put here and that stays */
  struct tables tables;
};

static void say(int fd, const char *text) { CALL(SYS_write, fd, text, text_length(text)); }

static void say_number(int fd, int64_t number) {
  char digits[24];
  int at = 24;
  uint64_t value = number < 0 ? (uint64_t)-number : (uint64_t)number;
  do digits[--at] = (char)('0' + value % 10);
  while (value /= 10);
  CALL(SYS_write, fd, digits + at, 24 - at);
}

/* End this process: it is not the captured one, and no longer an interpreter either.  PID 1 reads the reason from the
 * report, says it and takes the next tier. */
__attribute__((noreturn)) static void decline(int report, const char *reason, const char *subject, int64_t error) {
  say(report, reason);
  if (subject) say(report, " "), say(report, subject);
  if (error < 0) say(report, ": errno "), say_number(report, -error);
  for (;;) CALL(SYS_exit_group, EXIT_DECLINED);
}

/* --- Before the point of no return -------------------------------------------------------------------------------- */

static int overlaps(uint64_t start, uint64_t length, const struct area *area) {
  return start < area->end && area->start < start + length;
}

static int collides(const struct restore *restore) {
  const struct header *header = restore->tables.header;
  for (int k = 0; k < restore->areas.count; k++) {
    const struct area *area = &restore->areas.list[k];
    if (overlaps(header->vdso_start, header->vdso_length, area)) return 1;
    for (uint64_t i = 0; i < header->mapping_count; i++)
      if (overlaps(restore->tables.mappings[i].start, restore->tables.mappings[i].length, area)) return 1;
  }
  return 0;
}

/* The kernel chose a place for the vdso where the captured process has something.  It chooses again at each exec (ASLR,
 * which a container cannot switch off): execute the same again.  The count of tries is a digit after the report's
 * number. */
static void execute_again(struct restore *restore) {
  char *report = restore->start.arguments[ARGUMENT_REPORT];
  char *tries = report + text_length(report) - 1;
  if (*tries - '0' >= MOST_TRIES)
    decline(restore->report, "the kernel's vdso lies where the captured process has memory", 0, 0);
  ++*tries;
  int64_t error = CALL(SYS_execve, "/proc/self/exe", restore->start.arguments, restore->start.variables);
  decline(restore->report, "it cannot be executed again", 0, error);
}

static void open_snapshot(struct restore *restore) {
  restore->file = (int)CALL(SYS_openat, AT_FDCWD_, restore->snapshot, CLOSE_ON_EXEC_);
  if (restore->file < 0) decline(restore->report, "cannot open", restore->snapshot, restore->file);
  struct header header = {0};
  int64_t count = CALL(SYS_pread64, restore->file, &header, sizeof header, 0);
  if (count != sizeof header || header.magic != MAGIC || header.tables_length > HANDOVER_AT - TABLES_AT)
    decline(restore->report, "not a snapshot of this version:", restore->snapshot, 0);
  /* Read, not mapped: a file that shrinks meanwhile must not end this process by a signal. */
  char *data = (char *)(OWN_START + TABLES_AT);
  int64_t address =
      CALL(SYS_mmap, data, header.tables_length, READ_ | WRITE_, PRIVATE_ | ANONYMOUS_ | FIXED_NO_REPLACE_, -1, 0);
  if (address != (int64_t)data) decline(restore->report, "no memory for the tables", 0, address);
  for (uint64_t have = 0; have < header.tables_length; have += (uint64_t)count) {
    count = CALL(SYS_pread64, restore->file, data + have, header.tables_length - have, have);
    if (count <= 0) decline(restore->report, "truncated:", restore->snapshot, count);
  }
  const char *problem = tables_check(&restore->tables, data, header.tables_length);
  if (problem) decline(restore->report, problem, 0, 0);
}

static char *copy_text(char *to, const char *text) {
  do *to++ = *text;
  while (*text++);
  return to;
}

/* Arguments and environment lie on the stack that the kernel made: copy them out of the way. */
static void hand_over(struct restore *restore) {
  const struct start *start = &restore->start;
  struct handover *handover = (void *)(OWN_START + HANDOVER_AT);
  uint64_t length = sizeof *handover, variables = 0;
  for (int i = ARGUMENTS; i < start->argument_count; i++) length += text_length(start->arguments[i]) + 1;
  for (char **variable = start->variables; *variable; variable++, variables++) length += text_length(*variable) + 1;
  length = (length + PAGE - 1) & ~(PAGE - 1);
  if (length > OWN_END - OWN_START - HANDOVER_AT)
    decline(restore->report, "arguments and environment are too long", 0, 0);
  int64_t address = CALL(SYS_mmap, handover, length, READ_ | WRITE_, PRIVATE_ | ANONYMOUS_ | FIXED_NO_REPLACE_, -1, 0);
  if (address != (int64_t)handover) decline(restore->report, "no memory for arguments and environment", 0, address);
  char *to = (char *)(handover + 1);
  for (int i = ARGUMENTS; i < start->argument_count; i++) to = copy_text(to, start->arguments[i]);
  for (char **variable = start->variables; *variable; variable++) to = copy_text(to, *variable);
  handover->began = start->began;
  handover->argument_count = (uint64_t)(start->argument_count - ARGUMENTS);
  handover->variable_count = variables;
  handover->texts_length = (uint64_t)(to - (char *)(handover + 1));
}

/* Whether PR_SET_MM_MAP is there (CONFIG_CHECKPOINT_RESTORE) and allowed (a seccomp filter sees no argument): its size
 * can be asked for without changing anything.  Without it brk() would go on at this process's heap. */
static void check_memory_map(struct restore *restore) {
  uint32_t size = 0;
  int64_t error = CALL(SYS_prctl, PR_SET_MM_, PR_SET_MM_MAP_SIZE_, &size);
  if (error < 0) decline(restore->report, "this kernel or its seccomp profile has no prctl(PR_SET_MM_MAP)", 0, error);
}

/* --- The point of no return ----------------------------------------------------------------------------------------
 */

static void unmap(struct restore *restore, uint64_t start, uint64_t end) {
  if (start >= end) return;
  int64_t error = CALL(SYS_munmap, start, end - start);
  if (error < 0) decline(restore->report, "memory cannot be unmapped", 0, error);
}

/* Unmap all that this process has, but for what is kept and the restorer's own range; /proc/self/maps is in order. */
static void unmap_all(struct restore *restore) {
  uint64_t from = LOWEST;
  int own_done = 0;
  for (int k = 0; k <= restore->areas.count; k++) {
    uint64_t until = k < restore->areas.count ? restore->areas.list[k].start : HIGHEST;
    if (!own_done && OWN_START < until) {
      unmap(restore, from, OWN_START);
      from = OWN_END;
      own_done = 1;
    }
    unmap(restore, from, until);
    if (k < restore->areas.count) from = restore->areas.list[k].end;
  }
}

static int64_t map_one(const struct mapping *mapping, int fd) {
  int64_t flags = FIXED_ | (mapping->flags & MAPPING_SHARED ? SHARED_ : PRIVATE_);
  if (mapping->file == NO_FILE) flags |= ANONYMOUS_;
  if (mapping->flags & MAPPING_GROWS_DOWN) flags |= GROWS_DOWN_;
  if (mapping->flags & MAPPING_NO_RESERVE) flags |= NO_RESERVE_;
  int64_t address = CALL(SYS_mmap, mapping->start, mapping->length, mapping->protection, flags, fd, mapping->offset);
  if (address >= 0 && mapping->flags & MAPPING_WIPE_ON_FORK)
    CALL(SYS_madvise, mapping->start, mapping->length, WIPE_ON_FORK_);
  return address;
}

static void map_all(struct restore *restore) {
  const struct tables *tables = &restore->tables;
  uint32_t opened = NO_FILE;
  int opened_fd = -1;
  for (uint64_t i = 0; i < tables->header->mapping_count; i++) {
    const struct mapping *mapping = &tables->mappings[i];
    const char *path = restore->snapshot;
    int fd = mapping->file == THIS_FILE ? restore->file : -1;
    if (mapping->file != THIS_FILE && mapping->file != NO_FILE) {
      path = tables->names + tables->paths[mapping->file];
      if (mapping->file != opened) { /* a library's mappings follow each other */
        if (opened_fd >= 0) CALL(SYS_close, opened_fd);
        opened = mapping->file;
        opened_fd = (int)CALL(SYS_openat, AT_FDCWD_, path, CLOSE_ON_EXEC_);
        if (opened_fd < 0) decline(restore->report, "cannot open", path, opened_fd);
      }
      fd = opened_fd;
    }
    int64_t address = map_one(mapping, fd);
    if (address == (int64_t)mapping->start) continue;
    if (address == -ENOMEM_)
      decline(restore->report, "no memory (cgroup limit, RLIMIT_AS, vm.overcommit_memory or vm.max_map_count) to map",
              mapping->file == NO_FILE ? 0 : path, address);
    decline(restore->report, "cannot map", mapping->file == NO_FILE ? "memory" : path, address);
  }
  if (opened_fd >= 0) CALL(SYS_close, opened_fd);
}

static void copy_all(struct restore *restore) {
  for (uint64_t i = 0; i < restore->tables.header->copy_count; i++) {
    const struct copy *copy = &restore->tables.copies[i];
    for (uint64_t have = 0; have < copy->length;) {
      int64_t count = CALL(SYS_pread64, restore->file, copy->start + have, copy->length - have, copy->offset + have);
      if (count <= 0) decline(restore->report, "cannot read", restore->snapshot, count);
      have += (uint64_t)count;
    }
  }
}

static void protect_all(struct restore *restore) {
  for (uint64_t i = 0; i < restore->tables.header->protect_count; i++) {
    const struct protect *protect = &restore->tables.protects[i];
    int64_t error = CALL(SYS_mprotect, protect->start, protect->length, protect->protection);
    if (error < 0) decline(restore->report, "memory cannot be protected", 0, error);
  }
}

/* glibc calls the vdso where it was at the capture. */
static void place_vdso(struct restore *restore) {
  const struct header *header = restore->tables.header;
  unsigned char *old = (unsigned char *)header->vdso_start;
  int64_t address =
      CALL(SYS_mmap, old, header->vdso_length, READ_ | WRITE_, PRIVATE_ | ANONYMOUS_ | FIXED_NO_REPLACE_, -1, 0);
  if (address != (int64_t)old) decline(restore->report, "the captured vdso's place is taken", 0, address);
  int64_t count = CALL(SYS_pread64, restore->file, old, header->vdso_length, header->vdso_offset);
  if (count != (int64_t)header->vdso_length) decline(restore->report, "cannot read", restore->snapshot, count);
  const char *problem = vdso_redirect(old, header->vdso_length, restore->areas.vdso, restore->areas.vdso_length);
  if (problem) decline(restore->report, problem, 0, 0);
  int64_t error = CALL(SYS_mprotect, old, header->vdso_length, READ_ | EXECUTE_);
  if (error < 0) decline(restore->report, "the vdso's code cannot be made executable", 0, error);
}

/* brk, and where /proc and debuggers find arguments, environment and auxv.  No capability is needed as long as the
 * executable stays (exe_fd is -1): validate_prctl_map_addr() and prctl_set_mm_map() in kernel/sys.c. */
static void set_memory_map(struct restore *restore) {
  const struct header *header = restore->tables.header;
  struct {
    struct memory_map memory;
    uint64_t *auxv;
    uint32_t auxv_length, executable;
  } map = {header->memory, (uint64_t *)((char *)header + header->auxv), (uint32_t)header->auxv_length, ~0u};
  /* Debuggers find the vdso's symbols by this entry: it is today's. */
  for (uint64_t i = 0; i + 1 < header->auxv_length / 8 && map.auxv[i] != AT_NULL_; i += 2)
    if (map.auxv[i] == AT_SYSINFO_EHDR_) map.auxv[i + 1] = restore->areas.vdso;
  int64_t error = CALL(SYS_prctl, PR_SET_MM_, PR_SET_MM_MAP_, &map, sizeof map);
  if (error < 0) decline(restore->report, "prctl(PR_SET_MM_MAP) is refused", 0, error);
}

/* Runs at its own address, on its own stack. */
__attribute__((noreturn)) static void restore_process(const struct start *start) {
  struct restore restore = {.start = *start, .snapshot = start->arguments[ARGUMENT_SNAPSHOT]};
  for (const char *digit = start->arguments[ARGUMENT_REPORT]; *digit >= '0' && *digit <= '9'; digit++)
    restore.report = restore.report * 10 + (*digit - '0');
  machine_disable_shadow_stack();
  open_snapshot(&restore);
  const char *problem = areas_find(&restore.areas);
  if (problem) decline(restore.report, problem, 0, 0);
  if (collides(&restore)) execute_again(&restore);
  check_memory_map(&restore);
  hand_over(&restore);
  char snapshot[4096]; /* its text is on the stack that goes */
  if (text_length(restore.snapshot) >= sizeof snapshot)
    decline(restore.report, "the snapshot's path is too long", 0, 0);
  copy_text(snapshot, restore.snapshot);
  restore.snapshot = snapshot;
  unmap_all(&restore);
  map_all(&restore);
  copy_all(&restore);
  protect_all(&restore);
  place_vdso(&restore);
  set_memory_map(&restore);
  CALL(SYS_close, restore.file);
  struct handover *handover = (void *)(OWN_START + HANDOVER_AT);
  handover->mapped = monotonic_nanoseconds();
  ((void (*)(uint64_t, uint64_t))restore.tables.header->resume)(restore.tables.header->point, (uint64_t)handover);
  for (;;) CALL(SYS_exit_group, EXIT_DECLINED);
}

/* Map this library once more, at the restorer's own address: code and constants, for there is no writable data. */
static int map_own_code(const char *path) {
  int fd = (int)CALL(SYS_openat, AT_FDCWD_, path, CLOSE_ON_EXEC_);
  if (fd < 0) return 0;
  const struct elf_header *elf = (const void *)image_start;
  const struct elf_segment *segments = (const void *)(image_start + elf->segments);
  int64_t address = 0;
  for (int i = 0; i < elf->segment_count && address >= 0; i++) {
    const struct elf_segment *segment = &segments[i];
    if (segment->type != SEGMENT_LOAD || segment->flags & SEGMENT_WRITABLE) continue;
    uint64_t before = segment->address % PAGE;
    int64_t protection = READ_ | (segment->flags & SEGMENT_EXECUTABLE ? EXECUTE_ : 0);
    address = CALL(SYS_mmap, OWN_START + segment->address - before, segment->file_size + before, protection,
                   PRIVATE_ | FIXED_NO_REPLACE_, fd, segment->offset - before);
  }
  CALL(SYS_close, fd);
  return address > 0;
}

/* Called by the dynamic loader (DT_INIT_ARRAY) with what main() would get.  Only the start that PID 1 makes has these
 * arguments; anything else that inherits the variable goes on as it would have. */
__attribute__((constructor)) static void begin(int argument_count, char **arguments, char **variables) {
  struct start start = {argument_count, arguments, variables, monotonic_nanoseconds()};
  if (argument_count <= ARGUMENTS || !arguments || !text_equal(arguments[1], "-I") || !text_equal(arguments[2], "-S"))
    return;
  char *stack = (char *)(OWN_START + STACK_AT);
  int64_t memory =
      CALL(SYS_mmap, stack, STACK_LENGTH, READ_ | WRITE_, PRIVATE_ | ANONYMOUS_ | FIXED_NO_REPLACE_, -1, 0);
  /* Else Python runs the fallback, which says that nothing was restored. */
  if (memory != (int64_t)stack || !map_own_code(arguments[ARGUMENT_LIBRARY])) return;
  if (&__rseq_offset) rseq_unregister(machine_thread_pointer() + (uint64_t)__rseq_offset);
  struct start *own = (struct start *)(stack + STACK_LENGTH - 256);
  *own = start;
  machine_switch_stack(stack + STACK_LENGTH - 512,
                       (void *)((uint64_t)restore_process - (uint64_t)image_start + OWN_START), own, 0);
}
