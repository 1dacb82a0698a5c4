# SPDX-License-Identifier: Apache-2.0
# cmake -DOUTPUT=kernel_sources.c -DINPUTS=a.cl|b.cl -P embed.cmake
# Writes the files' bytes as one C table, in the order given. A zero byte follows each, not counted in its size.
string(REPLACE "|" ";" inputs "${INPUTS}")
set(arrays "")
set(entries "")
set(count 0)
foreach(input IN LISTS inputs)
  file(READ ${input} hex HEX)
  string(LENGTH "${hex}" digits)
  math(EXPR size "${digits} / 2")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(REPEAT "....." 22 line)
  string(REGEX REPLACE "(${line})" "\\1\n  " bytes "${bytes}")
  cmake_path(GET input FILENAME name)
  string(APPEND arrays "static const unsigned char source_${count}[] = { /* ${name} */\n  ${bytes}0x00\n};\n\n")
  string(APPEND entries "  {\"${name}\", source_${count}, ${size}},\n")
  math(EXPR count "${count} + 1")
endforeach()
file(WRITE ${OUTPUT} "/* SPDX-License-Identifier: Apache-2.0 */
#include \"kernel_sources.h\"

${arrays}const struct kernel_source kernel_sources[] = {
${entries}};
const size_t kernel_sources_count = ${count};
")
