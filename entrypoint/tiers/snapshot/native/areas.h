/* The areas that the kernel itself puts into every process, and that stay where they are: the vdso, whose code reads
 * the clock without a system call, and its data ([vvar]; since Linux 6.13 [vvar_vclock], too). */
#ifndef WARMIMAGE_AREAS_H
#define WARMIMAGE_AREAS_H

#include <stdint.h>

enum { MOST_AREAS = 8 };

struct area {
  uint64_t start, end;
};

struct areas {
  struct area list[MOST_AREAS]; /* in order */
  int count;
  uint64_t vdso, vdso_length; /* 0 where the kernel has none */
};

/* Read them from /proc/self/maps.  Returns NULL, or what is wrong. */
const char *areas_find(struct areas *areas);

#endif
