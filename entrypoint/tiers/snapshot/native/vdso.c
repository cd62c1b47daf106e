#include "vdso.h"

#include "elf64.h"
#include "kernel.h"

struct image {
  const unsigned char *base;
  uint64_t length, bias;
  const struct elf_symbol *symbols;
  const char *names;
  uint64_t count, names_length;
};

/* The offset of a virtual address of the image in it; its length where it lies outside. */
static uint64_t offset_of(const struct image *image, uint64_t address) {
  uint64_t offset = address - image->bias;
  return offset < image->length ? offset : image->length;
}

/* Find the dynamic symbols.  The dynamic section of a vdso holds link-time addresses: it is never relocated. */
static const char *open_image(struct image *image, const void *base, uint64_t length) {
  image->base = base;
  image->length = length;
  const struct elf_header *elf = base;
  if (length < sizeof *elf || elf->identity[0] != 0x7f || elf->segment_size != sizeof(struct elf_segment) ||
      elf->segments % 8 || elf->segments > length ||
      elf->segment_count * sizeof(struct elf_segment) > length - elf->segments)
    return "the vdso is no ELF image";
  const struct elf_segment *program = (const void *)(image->base + elf->segments);
  uint64_t dynamic_at = 0, dynamic_length = 0;
  for (int i = 0; i < elf->segment_count; i++) {
    if (program[i].type == SEGMENT_LOAD) image->bias = program[i].address - program[i].offset;
    if (program[i].type == SEGMENT_DYNAMIC) dynamic_at = program[i].offset, dynamic_length = program[i].file_size;
  }
  if (!dynamic_at || dynamic_at % 8 || dynamic_at > length || dynamic_length > length - dynamic_at)
    return "the vdso has no symbols";
  const struct elf_dynamic *dynamic = (const void *)(image->base + dynamic_at);
  uint64_t symbols = length, names = length, hash = length, entries = dynamic_length / sizeof *dynamic;
  for (uint64_t i = 0; i < entries && dynamic[i].tag != DYNAMIC_END; i++) {
    if (dynamic[i].tag == DYNAMIC_SYMBOLS) symbols = offset_of(image, dynamic[i].value);
    if (dynamic[i].tag == DYNAMIC_NAMES) names = offset_of(image, dynamic[i].value);
    if (dynamic[i].tag == DYNAMIC_HASH) hash = offset_of(image, dynamic[i].value);
    if (dynamic[i].tag == DYNAMIC_NAMES_SIZE) image->names_length = dynamic[i].value;
  }
  if (symbols >= length || symbols % 8 || hash % 4 || names >= length || image->names_length > length - names)
    return "the vdso has no symbols";
  /* A name is read up to its zero. */
  if (image->names_length && image->base[names + image->names_length - 1]) return "the vdso's last name has no end";
  /* DT_HASH (the older table) counts the symbols; a vdso without one has its names right behind them. */
  image->count = hash + 8 <= length ? ((const uint32_t *)(image->base + hash))[1]
                                    : (names > symbols ? (names - symbols) / sizeof(struct elf_symbol) : 0);
  if (image->count > (length - symbols) / sizeof(struct elf_symbol)) return "the vdso has no symbols";
  image->symbols = (const void *)(image->base + symbols);
  image->names = (const char *)(image->base + names);
  return 0;
}

/* The name of a function that the image defines, else NULL. */
static const char *function_name(const struct image *image, const struct elf_symbol *symbol) {
  unsigned type = symbol->info & 15u;
  if (!symbol->value || (type != SYMBOL_FUNCTION && type != SYMBOL_NO_TYPE) || symbol->section == SECTION_UNDEFINED)
    return 0;
  return image->names && symbol->name < image->names_length ? image->names + symbol->name : 0;
}

static uint64_t address_of(const struct image *image, const char *name) {
  for (uint64_t i = 0; i < image->count; i++) {
    const char *other = function_name(image, &image->symbols[i]);
    if (other && text_equal(other, name)) return (uint64_t)image->base + offset_of(image, image->symbols[i].value);
  }
  return 0;
}

static int64_t call_number(const char *name) {
#define NUMBER(text, number)                                                                                           \
  if (text_equal(name, text)) return number;
  MACHINE_VDSO_CALLS(NUMBER)
  return -1;
}

const char *vdso_redirect(unsigned char *old, uint64_t old_length, uint64_t today, uint64_t today_length) {
  struct image before = {0}, now = {0};
  const char *problem = open_image(&before, old, old_length);
  if (problem) return problem;
  if (today) problem = open_image(&now, (const void *)today, today_length);
  if (problem) return problem;
  for (uint64_t i = 0; i < before.count; i++) {
    const char *name = function_name(&before, &before.symbols[i]);
    int64_t number = name ? call_number(name) : -1;
    if (number < 0) continue;
    uint64_t at = offset_of(&before, before.symbols[i].value);
    if (at > old_length - MACHINE_JUMP) return "a function of the vdso lies outside it";
    uint64_t target = today ? address_of(&now, name) : 0;
    if (target)
      machine_write_jump(old + at, target);
    else
      machine_write_call(old + at, (uint32_t)number);
  }
  machine_flush_code(old, old_length);
  return 0;
}
