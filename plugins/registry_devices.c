/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend's devices as bytes and back. Both ends are this very library in one build, so structs cross as they are; but
 * between them a stranger's driver had the writer's memory to itself, so the reader believes nothing.
 */
#include "base/base_private.h"
#include "plugins/registry_private.h"
#include <string.h>

enum { STRINGS = 4, STRING_MAX = 1024 };

struct wire_device {
  uint64_t mem_total, max_buffer, alignment, caps, dtypes;
  int32_t kind;
  uint32_t length[STRINGS]; /* of id, name, vendor, driver, which follow without zeros */
  uint32_t padding;
};

void text_clean(char *s) {
  for (; *s; s++) {
    if ((unsigned char)*s < 0x20 || *s == 0x7F) {
      *s = ' ';
    }
  }
}

unroll_status devices_write(unroll_backend *backend, const unroll_backend_ops *ops, struct text *out, uint32_t *n,
                            unroll_error *err) {
  *n = 0;
  uint32_t count = 0;
  TRY(ops->device_count(backend, &count, err));
  if (count > DEVICES_MAX) {
    return fail(err, UNROLL_E_PLUGIN, "it claims %u devices, expected up to %d", count, DEVICES_MAX);
  }
  for (uint32_t i = 0; i < count; i++) {
    unroll_device_info info = {.struct_size = sizeof info};
    TRY(ops->device_info(backend, i, &info, err));
    if (!info.id || !info.id[0]) {
      return fail(err, UNROLL_E_PLUGIN, "its device %u of %u has no id", i, count);
    }
    const char *strings[STRINGS] = {info.id, info.name, info.vendor, info.driver};
    struct wire_device wire = {.mem_total = info.mem_total,
                               .max_buffer = info.max_buffer,
                               .alignment = info.alignment,
                               .caps = info.caps,
                               .dtypes = info.dtypes,
                               .kind = info.kind};
    for (uint32_t k = 0; k < STRINGS; k++) {
      wire.length[k] = strings[k] ? (uint32_t)strnlen(strings[k], STRING_MAX) : 0;
    }
    text_add_bytes(out, (const char *)&wire, sizeof wire);
    for (uint32_t k = 0; k < STRINGS; k++) {
      if (wire.length[k] > 0) {
        text_add_bytes(out, strings[k], wire.length[k]);
      }
    }
  }
  if (out->failed) {
    return fail(err, UNROLL_E_MEMORY, "out of memory for a list of %u devices", count);
  }
  if (out->size > DEVICES_BYTES_MAX) {
    return fail(err, UNROLL_E_PLUGIN, "its %u devices take more than %d bytes to describe", count, DEVICES_BYTES_MAX);
  }
  *n = count;
  return UNROLL_OK;
}

/* The next device at *at; false where the bytes don't hold one. */
static bool next_device(const char *bytes, size_t size, size_t *at, struct wire_device *wire, const char **strings) {
  if (size - *at < sizeof *wire) {
    return false;
  }
  memcpy(wire, bytes + *at, sizeof *wire);
  *at += sizeof *wire;
  for (uint32_t k = 0; k < STRINGS; k++) {
    if (wire->length[k] > STRING_MAX || wire->length[k] > size - *at) {
      return false;
    }
    strings[k] = bytes + *at;
    *at += wire->length[k];
  }
  return true;
}

static const char *put_string(char **to, const char *prefix, const char *s, uint32_t n) {
  char *start = *to;
  const size_t p = strlen(prefix);
  memcpy(start, prefix, p);
  memcpy(start + p, s, n);
  start[p + n] = 0;
  text_clean(start);
  *to = start + p + n + 1;
  return start;
}

unroll_status devices_read(const unroll_allocator *a, const char *plugin_id, const char *bytes, size_t size, uint32_t n,
                           struct plugin_device **out, unroll_error *err) {
  *out = NULL;
  struct wire_device wire;
  const char *strings[STRINGS];
  /* Every string but the first has its zero, the first also the plugin's id and a colon before it. */
  size_t at = 0, text_size = 0;
  bool whole = n <= DEVICES_MAX;
  for (uint32_t i = 0; i < n && whole; i++) {
    const size_t start = at;
    whole = next_device(bytes, size, &at, &wire, strings);
    text_size += at - start + STRINGS + strlen(plugin_id) + 1;
  }
  if (!whole || at != size) {
    return fail(err, UNROLL_E_PLUGIN, "the list of its devices came back damaged");
  }
  if (n == 0) {
    return UNROLL_OK;
  }
  struct plugin_device *devices = mem_zalloc(a, n * sizeof *devices + text_size);
  char *prefix = mem_printf(a, "%s:", plugin_id);
  if (!devices || !prefix) {
    mem_free(a, devices);
    mem_free(a, prefix);
    return fail(err, UNROLL_E_MEMORY, "out of memory for a list of %u devices", n);
  }
  char *text = (char *)(devices + n);
  at = 0;
  for (uint32_t i = 0; i < n; i++) {
    (void)next_device(bytes, size, &at, &wire, strings);
    devices[i] = (struct plugin_device){.id = put_string(&text, prefix, strings[0], wire.length[0]),
                                        .name = put_string(&text, "", strings[1], wire.length[1]),
                                        .vendor = put_string(&text, "", strings[2], wire.length[2]),
                                        .driver = put_string(&text, "", strings[3], wire.length[3]),
                                        .kind = wire.kind,
                                        .mem_total = wire.mem_total,
                                        .max_buffer = wire.max_buffer,
                                        .alignment = wire.alignment,
                                        .caps = wire.caps,
                                        .dtypes = wire.dtypes};
  }
  mem_free(a, prefix);
  *out = devices;
  return UNROLL_OK;
}
