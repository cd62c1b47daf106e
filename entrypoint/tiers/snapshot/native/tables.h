/* Checked access to a snapshot file's tables: nothing of them is used before tables_check() has returned NULL. */
#ifndef WARMIMAGE_TABLES_H
#define WARMIMAGE_TABLES_H

#include "format.h"

struct tables {
  const struct header *header;
  const struct mapping *mappings;
  const struct copy *copies;
  const struct protect *protects;
  const uint32_t *paths;
  const char *names;
};

/* Fill `tables` from `length` bytes of a file's beginning; return NULL, or a sentence that says what is wrong.  Reads
 * nothing outside the given bytes, whatever they are. */
const char *tables_check(struct tables *tables, const void *data, uint64_t length);

#endif
