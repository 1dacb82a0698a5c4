/* SPDX-License-Identifier: Apache-2.0 */
#include "plugins/note.h"
#include "base/base_private.h"
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__x86_64__)
#define MACHINE EM_X86_64
#elif defined(__aarch64__)
#define MACHINE EM_AARCH64
#elif defined(__riscv)
#define MACHINE EM_RISCV
#else
#define MACHINE EM_NONE /* not known here: left to dlopen */
#endif

/* A linker writes a handful of short notes; a hostile file must not keep us busy. */
enum { NOTES_MAX = 4096 };

struct elf_file {
  int fd;
  uint64_t size;
};

static const char *machine_name(unsigned machine) {
  switch (machine) {
  case EM_X86_64: return "x86-64";
  case EM_AARCH64: return "aarch64";
  case EM_386: return "i386";
  case EM_ARM: return "arm";
  case EM_RISCV: return "riscv";
  case EM_PPC64: return "ppc64";
  default: return "another machine";
  }
}

/* The file may be cut short, also while we read: no mapping, and every range is checked. */
static unroll_status read_at(const struct elf_file *file, uint64_t offset, void *to, size_t n, const char *what,
                             unroll_error *err) {
  if (offset > file->size || n > file->size - offset) {
    return fail(err, UNROLL_E_PLUGIN,
                "cut short or malformed: %s would end at byte %" PRIu64 " + %zu, the file has %" PRIu64, what, offset,
                n, file->size);
  }
  unsigned char *p = to;
  while (n > 0) {
    ssize_t got = pread(file->fd, p, n, (off_t)offset);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return fail(err, UNROLL_E_IO, "can't be read: %s", strerror(errno));
    }
    if (got == 0) {
      return fail(err, UNROLL_E_PLUGIN, "cut short while it was read: %s is missing at byte %" PRIu64, what, offset);
    }
    p += got;
    offset += (uint64_t)got;
    n -= (size_t)got;
  }
  return UNROLL_OK;
}

static unroll_status read_header(const struct elf_file *file, Elf64_Ehdr *h, unroll_error *err) {
  unsigned char magic[SELFMAG] = {0};
  if (file->size >= sizeof magic) {
    TRY(read_at(file, 0, magic, sizeof magic, "the ELF magic", err));
  }
  if (memcmp(magic, ELFMAG, SELFMAG) != 0) {
    return fail(err, UNROLL_E_PLUGIN, "not an ELF file");
  }
  TRY(read_at(file, 0, h, sizeof *h, "the ELF header", err));
  if (h->e_ident[EI_CLASS] != ELFCLASS64 || h->e_ident[EI_DATA] != ELFDATA2LSB) {
    return fail(err, UNROLL_E_PLUGIN, "ELF class %d with byte order %d, expected 64-bit little-endian",
                h->e_ident[EI_CLASS], h->e_ident[EI_DATA]);
  }
  if (MACHINE != EM_NONE && h->e_machine != MACHINE) {
    return fail(err, UNROLL_E_PLUGIN, "built for %s (ELF machine %u), this is %s (%u)", machine_name(h->e_machine),
                h->e_machine, machine_name(MACHINE), (unsigned)MACHINE);
  }
  if (h->e_type != ET_DYN) {
    return fail(err, UNROLL_E_PLUGIN, "not a shared object: ELF type %u, expected %u", h->e_type, (unsigned)ET_DYN);
  }
  if (h->e_phentsize != sizeof(Elf64_Phdr) || h->e_phnum == PN_XNUM) {
    return fail(err, UNROLL_E_PLUGIN, "malformed ELF header: %u program headers of %u bytes", h->e_phnum,
                h->e_phentsize);
  }
  return UNROLL_OK;
}

static unroll_status judge_note(const unroll_plugin_note *raw, struct plugin_note *note, unroll_error *err) {
  if (raw->magic != UNROLL_PLUGIN_MAGIC) {
    return fail(err, UNROLL_E_PLUGIN, "its note has the magic 0x%08" PRIx32 ", expected 0x%08x", raw->magic,
                UNROLL_PLUGIN_MAGIC);
  }
  TRY(plugin_abi_check(raw->abi_major, raw->abi_minor, err));
  if (!plugin_id_valid(raw->id)) {
    return fail(err, UNROLL_E_PLUGIN,
                "the id in its note is malformed: expected a lower-case letter, then up to %d "
                "lower-case letters, digits, '.', '_' and '-'",
                PLUGIN_ID_SIZE - 2);
  }
  note->abi_major = raw->abi_major;
  note->abi_minor = raw->abi_minor;
  memcpy(note->id, raw->id, sizeof note->id);
  return UNROLL_OK;
}

/* Walks one PT_NOTE segment. *found: our note was there, and the status is its verdict. */
static unroll_status search_segment(const struct elf_file *file, const Elf64_Phdr *segment, unsigned *notes,
                                    bool *found, struct plugin_note *note, unroll_error *err) {
  const uint64_t align = segment->p_align == 8 ? 8 : 4;
  uint64_t at = 0;
  while (segment->p_filesz - at >= sizeof(Elf64_Nhdr)) {
    if (++*notes > NOTES_MAX) {
      return fail(err, UNROLL_E_PLUGIN, "malformed: more than %d ELF notes", NOTES_MAX);
    }
    Elf64_Nhdr header = {0};
    TRY(read_at(file, segment->p_offset + at, &header, sizeof header, "an ELF note", err));
    const uint64_t description = (sizeof header + header.n_namesz + align - 1) / align * align;
    const uint64_t size = (description + header.n_descsz + align - 1) / align * align;
    if (description + header.n_descsz > segment->p_filesz - at) {
      return fail(err, UNROLL_E_PLUGIN, "malformed: an ELF note at byte %" PRIu64 " is longer than its segment",
                  segment->p_offset + at);
    }
    unroll_plugin_note raw = {0};
    const size_t raw_size = sizeof raw - offsetof(unroll_plugin_note, magic);
    if (header.n_namesz == sizeof UNROLL_NOTE_OWNER && header.n_type == UNROLL_NOTE_TYPE) {
      TRY(read_at(file, segment->p_offset + at + sizeof header, raw.owner, header.n_namesz, "an ELF note", err));
    }
    if (memcmp(raw.owner, UNROLL_NOTE_OWNER, sizeof UNROLL_NOTE_OWNER) == 0) {
      *found = true;
      if (header.n_descsz < raw_size) {
        return fail(err, UNROLL_E_PLUGIN, "its note has %u bytes, expected %zu or more", header.n_descsz, raw_size);
      }
      TRY(read_at(file, segment->p_offset + at + description, &raw.magic, raw_size, "its note", err));
      return judge_note(&raw, note, err);
    }
    if (size > segment->p_filesz - at) {
      break;
    }
    at += size;
  }
  return UNROLL_OK;
}

static unroll_status read_elf(const struct elf_file *file, struct plugin_note *note, unroll_error *err) {
  Elf64_Ehdr h = {0};
  TRY(read_header(file, &h, err));
  bool found = false;
  unsigned notes = 0;
  for (uint64_t i = 0; i < h.e_phnum; i++) {
    Elf64_Phdr segment = {0};
    if (h.e_phoff > file->size) {
      return fail(err, UNROLL_E_PLUGIN,
                  "cut short: its program headers start at byte %" PRIu64 ", the file has %" PRIu64, h.e_phoff,
                  file->size);
    }
    TRY(read_at(file, h.e_phoff + i * sizeof segment, &segment, sizeof segment, "a program header", err));
    if (segment.p_type != PT_LOAD && segment.p_type != PT_NOTE && segment.p_type != PT_DYNAMIC) {
      continue;
    }
    /* dlopen maps segments without looking at the file's size; touching a page past its end kills the process. */
    if (segment.p_offset > file->size || segment.p_filesz > file->size - segment.p_offset) {
      return fail(err, UNROLL_E_PLUGIN,
                  "cut short: a segment at byte %" PRIu64 " has %" PRIu64 " bytes, the file %" PRIu64, segment.p_offset,
                  segment.p_filesz, file->size);
    }
    if (segment.p_type == PT_NOTE && !found) {
      TRY(search_segment(file, &segment, &notes, &found, note, err));
    }
  }
  if (!found) {
    return fail(err, UNROLL_E_PLUGIN, "not a plugin of unroll: it has no ELF note of the owner \"%s\"",
                UNROLL_NOTE_OWNER);
  }
  return UNROLL_OK;
}

static const char *file_type(mode_t mode) {
  return S_ISDIR(mode) ? "a directory" : S_ISFIFO(mode) ? "a pipe" : S_ISSOCK(mode) ? "a socket" : "a device";
}

unroll_status plugin_note_read(const char *path, struct plugin_note *note, unroll_error *err) {
  *note = (struct plugin_note){0};
  /* O_NONBLOCK: a pipe of that name must not block us. */
  struct elf_file file = {.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)};
  struct stat st;
  if (file.fd < 0 || fstat(file.fd, &st) != 0) {
    const int code = errno;
    if (file.fd >= 0) {
      close(file.fd);
    }
    return fail(err, UNROLL_E_IO, "can't be opened: %s", strerror(code));
  }
  note->device = st.st_dev;
  note->inode = st.st_ino;
  file.size = st.st_size > 0 ? (uint64_t)st.st_size : 0;
  unroll_status status;
  if (!S_ISREG(st.st_mode)) {
    status = fail(err, UNROLL_E_PLUGIN, "%s, not a regular file", file_type(st.st_mode));
  } else if (st.st_mode & S_IWOTH) {
    status = fail(err, UNROLL_E_PLUGIN, "everybody may write to it (mode %03o): remove that right (chmod o-w)",
                  st.st_mode & 07777u);
  } else {
    status = read_elf(&file, note, err);
  }
  close(file.fd);
  return status;
}

bool plugin_id_valid(const char id[PLUGIN_ID_SIZE]) {
  const size_t n = strnlen(id, PLUGIN_ID_SIZE);
  if (n == 0 || n == PLUGIN_ID_SIZE || id[0] < 'a' || id[0] > 'z') {
    return false;
  }
  return strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

unroll_status plugin_abi_check(uint16_t major, uint16_t minor, unroll_error *err) {
  if (major == UNROLL_ABI_MAJOR && minor == UNROLL_ABI_MINOR) {
    return UNROLL_OK;
  }
  return fail(err, UNROLL_E_ABI, "built for plugin ABI %u.%u, this library has %u.%u%s", major, minor, UNROLL_ABI_MAJOR,
              UNROLL_ABI_MINOR, major > UNROLL_ABI_MAJOR ? ": it needs a newer libunroll" : "");
}
