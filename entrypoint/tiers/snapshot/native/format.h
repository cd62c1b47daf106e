/* The snapshot file: what the capture (memory_file.py) writes and the restorer (restore.c) reads.
 *
 * One file of whole pages: a header, the tables that it names, then page data.  Every number is little-endian, every
 * address and length that maps memory is a multiple of the page size.  memory_file.py has the same layout; MAGIC
 * changes whenever it does.
 */
#ifndef WARMIMAGE_FORMAT_H
#define WARMIMAGE_FORMAT_H

#include <stdint.h>

#define MAGIC 0x31304547414d4957ull /* "WIMAGE01" */
#define PAGE 4096ull

/* The address range that belongs to the restorer while it works: far from where Linux places programs (0x55...),
 * libraries and stacks (0x7f...), and from the range of Python's arenas (point.c).  The captured process has nothing
 * there. */
#define OWN_START 0x100000000000ull
#define OWN_END 0x100100000000ull

/* Where Python's arenas are placed in a process that will be captured. */
#define ARENAS_START 0x110000000000ull
#define ARENAS_END 0x120000000000ull

/* User addresses: above the lowest that any kernel lets a program map, below 2^47 (x86-64 with four levels of page
 * tables, arm64 with 48 bits). */
#define LOWEST 0x10000ull
#define HIGHEST 0x7ffffffff000ull

/* The file itself, as a mapping's source. */
#define THIS_FILE 0xfffffffeu
#define NO_FILE 0xffffffffu

/* Protections are the kernel's (PROT_READ 1, PROT_WRITE 2, PROT_EXEC 4). */
enum mapping_flags {
  MAPPING_SHARED = 1,       /* a shared mapping of a file that is only read */
  MAPPING_GROWS_DOWN = 2,   /* a stack */
  MAPPING_NO_RESERVE = 4,   /* as it was mapped: no memory is set aside for it */
  MAPPING_WIPE_ON_FORK = 8, /* glibc's random number state (MAP_DROPPABLE or MADV_WIPEONFORK) */
};

/* One mmap call. */
struct mapping {
  uint64_t start, length;
  uint64_t offset;     /* into the file, in bytes */
  uint32_t file;       /* index of a path, THIS_FILE or NO_FILE */
  uint32_t protection; /* while pages are copied; `protect` entries set the final one where it differs */
  uint32_t flags;
  uint32_t reserved;
};

/* Pages of this file that are copied into a mapping: the owner may treat them as anonymous memory. */
struct copy {
  uint64_t start, length;
  uint64_t offset;
};

/* One mprotect call, after all copies. */
struct protect {
  uint64_t start, length;
  uint32_t protection, reserved;
};

/* The order of the first eleven is that of struct prctl_mm_map (include/uapi/linux/prctl.h). */
struct memory_map {
  uint64_t start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start,
      env_end;
};

struct header {
  uint64_t magic;
  uint64_t file_length;             /* of this whole file, in bytes */
  uint64_t mappings, mapping_count; /* offset in bytes, number of entries */
  uint64_t copies, copy_count;
  uint64_t protects, protect_count;
  uint64_t paths, path_count;                    /* offset of uint32_t offsets into `names` */
  uint64_t names, names_length;                  /* zero-terminated */
  uint64_t auxv, auxv_length;                    /* bytes of /proc/self/auxv */
  uint64_t vdso_start, vdso_length, vdso_offset; /* where the captured vdso was, and its code in this file */
  uint64_t tables_length;                        /* the header and all tables: the file up to its page data */
  uint64_t resume, point;                        /* address of the code to go on with, and its argument */
  struct memory_map memory;
};

#endif
