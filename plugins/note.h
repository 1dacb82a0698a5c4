/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be known of a plugin without running any of its code: the ELF note that UNROLL_PLUGIN_EXPORT writes, read from
 * the file. dlopen runs constructors before anything could be checked, so this comes first.
 */
#ifndef PLUGINS_NOTE_H
#define PLUGINS_NOTE_H
#include <stdbool.h>
#include <sys/types.h>
#include <unroll/plugin.h>

enum { PLUGIN_ID_SIZE = sizeof(((unroll_plugin_note *)0)->id) };

struct plugin_note {
  uint16_t abi_major, abi_minor;
  char id[PLUGIN_ID_SIZE];
  dev_t device; /* with inode: which file this is, whatever the path */
  ino_t inode;
};

/*
 * Reads and judges the file. On failure the message is the reason alone, without the path.
 *   UNROLL_E_IO      it can't be opened or read
 *   UNROLL_E_PLUGIN  no regular file, writable by everybody, no ELF of this machine, cut short, no note, a malformed note
 *   UNROLL_E_ABI     another ABI
 * Of a file that was opened, note->device and note->inode are set on failure too; else they are 0. [any]
 */
unroll_status plugin_note_read(const char *path, struct plugin_note *note, unroll_error *err);

/* 1 to 31 characters: a lower-case letter, then lower-case letters, digits, '.', '_' and '-'. [any] */
bool plugin_id_valid(const char id[PLUGIN_ID_SIZE]);

/* UNROLL_E_ABI unless this library can talk to a plugin of that ABI. Within 0.x that is equality. [any] */
unroll_status plugin_abi_check(uint16_t major, uint16_t minor, unroll_error *err);
#endif
