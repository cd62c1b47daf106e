/* The functions that a compiler calls by itself, for structures that it sets or copies. */
#include <stdint.h>

typedef uint64_t size_type;

__attribute__((visibility("hidden"))) void *memset(void *to, int value, size_type length) {
  unsigned char *bytes = to;
  while (length--) *bytes++ = (unsigned char)value;
  return to;
}

__attribute__((visibility("hidden"))) void *memcpy(void *to, const void *from, size_type length) {
  unsigned char *bytes = to;
  const unsigned char *source = from;
  while (length--) *bytes++ = *source++;
  return to;
}
