# SPDX-License-Identifier: Apache-2.0
# cmake -DOUTPUT=report_assets.c -DCSS=report.css -DJS=report.js -P embed_page.cmake
# Writes the style and the script of a report's page as two C strings.
set(text "/* SPDX-License-Identifier: Apache-2.0 */\n#include \"report_assets.h\"\n")
foreach(kind CSS JS)
  file(READ ${${kind}} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(REPEAT "....." 22 line)
  string(REGEX REPLACE "(${line})" "\\1\n  " bytes "${bytes}")
  string(TOLOWER ${kind} name)
  string(APPEND text "\nstatic const unsigned char ${name}[] = {\n  ${bytes}0x00\n};\n"
                     "const char *const report_${name} = (const char *)${name};\n")
endforeach()
file(WRITE ${OUTPUT} "${text}")
