/* SPDX-License-Identifier: Apache-2.0 */
/* The steps from a plugin's file to an open backend, each checked; messages are the reason alone, without the plugin's name. */
#ifndef PLUGINS_LOAD_H
#define PLUGINS_LOAD_H
#include <unroll/base.h>

/*
 * Reads the note, loads the file and checks its symbol. *library: NULL, or what an earlier call left there; it is kept when a
 * check fails, since unloading is the plugin's to allow. UNROLL_E_IO, UNROLL_E_PLUGIN, UNROLL_E_ABI. [obj]
 */
unroll_status plugin_file_load(const char *path, const char *id, void **library, const unroll_plugin **out,
                               unroll_error *err);
/* The symbol of a plugin whose note has that id. UNROLL_E_PLUGIN, UNROLL_E_ABI. [any] */
unroll_status plugin_check(const unroll_plugin *plugin, const char *id, unroll_error *err);
/* What a successful open gave: UNROLL_E_PLUGIN where a required function is missing. [any] */
unroll_status plugin_check_backend(const unroll_backend *backend, const unroll_backend_ops *ops, unroll_error *err);
/* The failure of one of its functions in words; returns a status that plugins may return. [any] */
unroll_status plugin_said(const char *function, unroll_status status, const unroll_error *said, unroll_error *err);
#endif
