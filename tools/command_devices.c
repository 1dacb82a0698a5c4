/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "commands.h"
#include "console.h"

typedef struct devices_values {
  option_marks marks;
  common_values common;
  bool json;
} devices_values;

static const option_spec options[] = {
    {.type = OPTION_FLAG, .name = "json", .offset = offsetof(devices_values, json), .help = "as JSON, for programs"},
    OPTIONS_LOG(devices_values),
};

/* A JSON string; what is not UTF-8 in a driver's name becomes '?'. */
static json_t *text_or_null(const char *text) {
  if (!text)
    return json_null();
  json_t *value = json_string(text);
  if (value)
    return value;
  char clean[256];
  size_t n = 0;
  for (; text[n] && n + 1 < sizeof clean; n++)
    clean[n] = (unsigned char)text[n] < 0x80 ? text[n] : '?';
  clean[n] = '\0';
  return json_string(clean);
}

static json_t *device_json(const unroll_device_entry *device) {
  return json_pack("{s:o, s:o, s:s, s:o, s:o, s:I}", "id", text_or_null(device->id), "name", text_or_null(device->name),
                   "kind", device_kind_name(device->kind), "driver", text_or_null(device->driver), "vendor",
                   text_or_null(device->vendor), "memory_bytes", (json_int_t)device->mem_total);
}

static json_t *list_json(const unroll_plugin_list *list) {
  json_t *plugins = json_array(), *rejected = json_array();
  for (uint32_t i = 0; i < list->n_plugins; i++) {
    const unroll_plugin_entry *plugin = &list->plugins[i];
    json_t *devices = json_array();
    for (uint32_t j = 0; j < plugin->n_devices; j++)
      json_array_append_new(devices, device_json(&plugin->devices[j]));
    json_array_append_new(plugins, json_pack("{s:o, s:o, s:o, s:o, s:o}", "id", text_or_null(plugin->id), "version",
                                             text_or_null(plugin->version), "vendor", text_or_null(plugin->vendor),
                                             "path", text_or_null(plugin->path), "devices", devices));
  }
  for (uint32_t i = 0; i < list->n_rejected; i++)
    json_array_append_new(rejected, json_pack("{s:o, s:o}", "path", text_or_null(list->rejected[i].path), "reason",
                                              text_or_null(list->rejected[i].reason)));
  return json_pack("{s:o, s:o}", "plugins", plugins, "rejected", rejected);
}

static int print_json(const unroll_plugin_list *list) {
  json_t *root = list_json(list);
  char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
  json_decref(root);
  if (!text) {
    complain("out of memory");
    return EXIT_FAILED;
  }
  puts(text);
  free(text);
  return EXIT_OK;
}

/* ---- for people ---- */

static void memory_text(uint64_t bytes, char *text, size_t size) {
  static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = (double)bytes;
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < COUNT(units); unit++)
    value /= 1024;
  if (bytes == 0)
    snprintf(text, size, "-");
  else
    snprintf(text, size, "%.*f %s", value < 10 && unit > 0 ? 1 : 0, value, units[unit]);
}

static const char *or_dash(const char *text) { return text && text[0] ? text : "-"; }

#define COLUMNS 5
typedef struct row {
  const char *cells[COLUMNS];
  char memory[32];
} row;
typedef struct table {
  int width[COLUMNS];
} table;

static void row_of(const unroll_device_entry *device, row *r) {
  memory_text(device->mem_total, r->memory, sizeof r->memory);
  r->cells[0] = or_dash(device->id);
  r->cells[1] = device_kind_text(device->kind);
  r->cells[2] = r->memory;
  r->cells[3] = or_dash(device->name);
  r->cells[4] = or_dash(device->driver);
}

static void widen(table *t, const row *r) {
  for (size_t k = 0; k < COLUMNS; k++) {
    const int n = (int)strlen(r->cells[k]);
    t->width[k] = n > t->width[k] ? n : t->width[k];
  }
}

static void print_row(const table *t, const row *r) {
  printf("  %-*s  %-*s  %*s  %-*s  %s\n", t->width[0], r->cells[0], t->width[1], r->cells[1], t->width[2], r->cells[2],
         t->width[3], r->cells[3], r->cells[4]);
}

/* "opencl 0.1.0 (/usr/lib/unroll/unroll-opencl.so)"; the path of one that is linked in has its brackets already. */
static void print_plugin(const unroll_plugin_entry *plugin) {
  const bool bracketed = plugin->path[0] == '(';
  printf("%s%s%s %s%s%s", plugin->id, plugin->version[0] ? " " : "", plugin->version, bracketed ? "" : "(",
         plugin->path, bracketed ? "" : ")");
}

static void print_table(const unroll_plugin_list *list) {
  table t = {.width = {0}};
  const row head = {.cells = {"DEVICE", "KIND", "MEMORY", "NAME", "DRIVER"}};
  row r;
  widen(&t, &head);
  for (uint32_t i = 0; i < list->n_plugins; i++)
    for (uint32_t j = 0; j < list->plugins[i].n_devices; j++) {
      row_of(&list->plugins[i].devices[j], &r);
      widen(&t, &r);
    }
  print_row(&t, &head);
  for (uint32_t i = 0; i < list->n_plugins; i++) {
    const unroll_plugin_entry *plugin = &list->plugins[i];
    print_plugin(plugin);
    puts(plugin->n_devices ? "" : ": no device");
    for (uint32_t j = 0; j < plugin->n_devices; j++) {
      row_of(&plugin->devices[j], &r);
      print_row(&t, &r);
    }
  }
  if (list->n_rejected)
    printf("\nrejected\n");
  for (uint32_t i = 0; i < list->n_rejected; i++)
    printf("  %s\n    %s\n", list->rejected[i].path, list->rejected[i].reason);
}

/* What is missing for OpenCL, if anything is. */
static void explain_opencl(const unroll_plugin_list *list) {
  for (uint32_t i = 0; i < list->n_plugins; i++)
    if (strcmp(list->plugins[i].id, "opencl") == 0) {
      if (list->plugins[i].n_devices == 0)
        printf("\nThe opencl plugin found no device. It needs an OpenCL driver (ICD) of the hardware's vendor, or "
               "PoCL, which\n"
               "runs OpenCL on the CPU: on Debian the package pocl-opencl-icd.\n");
      return;
    }
  for (uint32_t i = 0; i < list->n_rejected; i++)
    if (strstr(list->rejected[i].path, "unroll-opencl"))
      return;
  printf("\nNo opencl plugin: there is no unroll-opencl.so in the folder unroll/ beside libunroll.so, nor in one of\n"
         "UNROLL_PLUGIN_PATH. It is built where the OpenCL loader and headers and CLBlast are found: on Debian the "
         "packages\n"
         "ocl-icd-opencl-dev, opencl-c-headers and libclblast-dev.\n");
}

static int with_list(const common_values *common, int (*use)(const unroll_plugin_list *list)) {
  unroll_context *ctx = open_context(common);
  if (!ctx)
    return EXIT_FAILED;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_plugin_list *list;
  int code;
  if (unroll_context_list(ctx, &list, &err) == UNROLL_OK) {
    code = use(list);
    unroll_plugin_list_free(ctx, list);
  } else {
    code = complain_of(&err);
  }
  unroll_context_destroy(ctx);
  return code;
}

static int print_for_people(const unroll_plugin_list *list) {
  print_table(list);
  explain_opencl(list);
  return EXIT_OK;
}

static int run(const command_spec *command, const void *p) {
  (void)command;
  const devices_values *values = p;
  return with_list(&values->common, values->json ? print_json : print_for_people);
}

static int print_names(const unroll_plugin_list *list) {
  for (uint32_t i = 0; i < list->n_plugins; i++) {
    fputs(i ? "          " : "plugins   ", stdout);
    print_plugin(&list->plugins[i]);
    putchar('\n');
  }
  return EXIT_OK;
}

int print_plugins(void) { return with_list(NULL, print_names); }

const command_spec command_devices = {
    .name = "devices",
    .purpose = "list plugins, their devices, and what was rejected and why",
    .usage = "[--json]",
    .options = options,
    .n_options = COUNT(options),
    .values_size = sizeof(devices_values),
    .notes = "Drivers are asked in a child process, so that one that crashes is only reported. UNROLL_PLUGIN_PATH "
             "names more\n"
             "folders with plugins, separated by colons. An id of the table is what --device takes elsewhere.\n",
    .example = "  unroll devices\n",
    .run = run,
};
