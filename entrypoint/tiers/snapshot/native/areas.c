#include "areas.h"

#include "kernel.h"

struct reader {
  int fd;
  uint64_t at, length;
  char buffer[4096];
};

static int next_character(struct reader *reader) {
  if (reader->at == reader->length) {
    int64_t count = CALL(SYS_read, reader->fd, reader->buffer, sizeof reader->buffer);
    if (count <= 0) return -1;
    reader->at = 0;
    reader->length = (uint64_t)count;
  }
  return (unsigned char)reader->buffer[reader->at++];
}

static uint64_t read_hexadecimal(struct reader *reader, int *end) {
  uint64_t value = 0;
  int c;
  while ((c = next_character(reader)) >= 0) {
    if (c >= '0' && c <= '9')
      value = value << 4 | (uint64_t)(c - '0');
    else if (c >= 'a' && c <= 'f')
      value = value << 4 | (uint64_t)(c - 'a' + 10);
    else
      break;
  }
  *end = c;
  return value;
}

const char *areas_find(struct areas *areas) {
  struct reader reader = {.fd = (int)CALL(SYS_openat, AT_FDCWD_, "/proc/self/maps", CLOSE_ON_EXEC_)};
  if (reader.fd < 0) return "/proc/self/maps cannot be read";
  int c;
  for (;;) {
    uint64_t start = read_hexadecimal(&reader, &c);
    if (c != '-') break;
    uint64_t end = read_hexadecimal(&reader, &c);
    char name[8] = {0};
    int length = -1; /* characters of the name, which begins with the line's first bracket */
    while ((c = next_character(&reader)) >= 0 && c != '\n') {
      if (length < 0 && c == '[') length = 0;
      if (length >= 0 && length < 5) name[length++] = (char)c;
    }
    int is_vdso = text_equal(name, "[vdso"), is_data = text_equal(name, "[vvar");
    if (!is_vdso && !is_data) continue;
    if (areas->count == MOST_AREAS) return "this kernel has more vdso areas than are known";
    areas->list[areas->count++] = (struct area){start, end};
    if (is_vdso) areas->vdso = start, areas->vdso_length = end - start;
  }
  CALL(SYS_close, reader.fd);
  return 0;
}
