/* SPDX-License-Identifier: Apache-2.0 */
/* A plugin with the note but without the symbol. */
#include "stub.h"

UNROLL_PLUGIN_NOTE("no-symbol");
