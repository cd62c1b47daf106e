/* The reader of a snapshot file's tables.  The file may be truncated, foreign or damaged: every number is checked
 * against the length of the data, and every address against the ranges that a mapping may have, before it is used. */
#include "tables.h"

static int inside(uint64_t offset, uint64_t length, uint64_t end) { return offset <= end && length <= end - offset; }

/* Whether a table of `count` entries of `size` bytes lies inside the first `end` bytes, aligned for its numbers. */
static int table_fits(uint64_t offset, uint64_t count, uint64_t size, uint64_t end) {
  return offset % 8 == 0 && count <= end / size && inside(offset, count * size, end);
}

static int whole_pages(uint64_t start, uint64_t length) {
  return start % PAGE == 0 && length % PAGE == 0 && length != 0;
}

/* Whether a range is one that the captured process may have had: user addresses outside the restorer's own range. */
static int range_allowed(uint64_t start, uint64_t length) {
  if (!whole_pages(start, length) || start < LOWEST || !inside(start, length, HIGHEST)) return 0;
  return start + length <= OWN_START || start >= OWN_END;
}

static const char *check_mapping(const struct mapping *mapping, const struct header *header) {
  if (!range_allowed(mapping->start, mapping->length)) return "a mapping has no address that may be mapped";
  if (mapping->protection > 7 || mapping->flags > 15) return "a mapping has unknown flags";
  if (mapping->offset % PAGE || mapping->offset > HIGHEST) return "a mapping has no whole page as its offset";
  if (mapping->file == NO_FILE) return 0;
  if (mapping->file != THIS_FILE && mapping->file >= header->path_count)
    return "a mapping names a file that is not listed";
  if (mapping->file == THIS_FILE && !inside(mapping->offset, mapping->length, header->file_length))
    return "a mapping lies beyond the end of the file";
  return 0;
}

static const char *check_paths(const struct tables *tables) {
  const struct header *header = tables->header;
  if (header->names_length && tables->names[header->names_length - 1]) return "the last path has no end";
  for (uint64_t i = 0; i < header->path_count; i++) {
    if (tables->paths[i] >= header->names_length) return "a path lies outside its table";
    if (tables->names[tables->paths[i]] != '/') return "a path is not absolute";
  }
  return 0;
}

const char *tables_check(struct tables *tables, const void *data, uint64_t length) {
  const struct header *header = data;
  if (length < sizeof *header) return "the file is shorter than its header";
  if (header->magic != MAGIC) return "the file is not a snapshot of this version";
  uint64_t end = header->tables_length;
  if (end > length || end % PAGE || header->file_length % PAGE || end > header->file_length)
    return "the file is truncated";
  if (!table_fits(header->mappings, header->mapping_count, sizeof(struct mapping), end) ||
      !table_fits(header->copies, header->copy_count, sizeof(struct copy), end) ||
      !table_fits(header->protects, header->protect_count, sizeof(struct protect), end) ||
      !table_fits(header->paths, header->path_count, sizeof(uint32_t), end) ||
      !inside(header->names, header->names_length, end) || !table_fits(header->auxv, header->auxv_length, 1, end))
    return "a table lies outside the file";
  const char *bytes = data;
  tables->header = header;
  tables->mappings = (const void *)(bytes + header->mappings);
  tables->copies = (const void *)(bytes + header->copies);
  tables->protects = (const void *)(bytes + header->protects);
  tables->paths = (const void *)(bytes + header->paths);
  tables->names = bytes + header->names;
  const char *problem = check_paths(tables);
  if (problem) return problem;
  for (uint64_t i = 0; i < header->mapping_count; i++) {
    problem = check_mapping(&tables->mappings[i], header);
    if (problem) return problem;
  }
  for (uint64_t i = 0; i < header->copy_count; i++) {
    const struct copy *copy = &tables->copies[i];
    if (!range_allowed(copy->start, copy->length)) return "copied pages have no address that may be mapped";
    if (!inside(copy->offset, copy->length, header->file_length)) return "copied pages lie beyond the end of the file";
  }
  for (uint64_t i = 0; i < header->protect_count; i++)
    if (!range_allowed(tables->protects[i].start, tables->protects[i].length) || tables->protects[i].protection > 7)
      return "a protection has no address that may be mapped";
  if (!range_allowed(header->vdso_start, header->vdso_length) ||
      !inside(header->vdso_offset, header->vdso_length, header->file_length))
    return "the vdso's code lies outside the file";
  return 0;
}
