/* As much of the ELF format (gABI, chapters 4 and 5) as the native part reads: a freestanding build has no <elf.h>. */
#ifndef WARMIMAGE_ELF64_H
#define WARMIMAGE_ELF64_H

#include <stdint.h>

struct elf_header {
  unsigned char identity[16];
  uint16_t type, machine;
  uint32_t version;
  uint64_t entry, segments, sections;
  uint32_t flags;
  uint16_t header_size, segment_size, segment_count, section_size, section_count, section_names;
};

struct elf_segment {
  uint32_t type, flags;
  uint64_t offset, address, physical, file_size, memory_size, alignment;
};

struct elf_dynamic {
  int64_t tag;
  uint64_t value;
};

struct elf_symbol {
  uint32_t name;
  unsigned char info, other;
  uint16_t section;
  uint64_t value, size;
};

enum { SEGMENT_LOAD = 1, SEGMENT_DYNAMIC = 2 };
enum { SEGMENT_EXECUTABLE = 1, SEGMENT_WRITABLE = 2 };
enum { DYNAMIC_END = 0, DYNAMIC_HASH = 4, DYNAMIC_NAMES = 5, DYNAMIC_SYMBOLS = 6, DYNAMIC_NAMES_SIZE = 10 };
enum { SYMBOL_NO_TYPE = 0, SYMBOL_FUNCTION = 2, SECTION_UNDEFINED = 0 };

#endif
