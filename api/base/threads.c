/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base_private.h"

#define PATH_SIZE 4096

/* 0 where the variable is not set or is no positive number. */
static uint32_t count_asked_for(void) {
  const char *value = getenv("UNROLL_NUM_THREADS");
  if (!value)
    return 0;
  char *end;
  errno = 0;
  const long n = strtol(value, &end, 10);
  const bool valid = errno == 0 && end != value && *end == '\0' && n > 0 && n <= INT32_MAX;
  return valid ? (uint32_t)n : 0;
}

static uint32_t count_allowed(void) {
  /* The kernel refuses a set that is smaller than its own, 8192 CPUs at most on the machines that are supported. */
  cpu_set_t sets[16 * 1024 / CPU_SETSIZE];
  const int n = sched_getaffinity(0, sizeof sets, sets) == 0 ? CPU_COUNT_S(sizeof sets, sets) : 0;
  if (n > 0)
    return (uint32_t)n;
  const long online = sysconf(_SC_NPROCESSORS_ONLN);
  return online > 0 ? (uint32_t)online : 1;
}

/* The first line of a small file, without its newline. */
static bool read_line(const char *directory, const char *name, char *line, size_t size) {
  char path[PATH_SIZE];
  const int n = snprintf(path, sizeof path, "%s/%s", directory, name);
  if (n < 0 || (size_t)n >= sizeof path)
    return false;
  FILE *file = fopen(path, "re");
  if (!file)
    return false;
  const bool read = fgets(line, (int)size, file) != NULL;
  fclose(file);
  if (read)
    line[strcspn(line, "\n")] = '\0';
  return read;
}

/* Of one directory, in whole CPUs; 0 for none. No quota is written "max" or -1; strtoll makes 0 of what is no number. */
static uint32_t directory_quota(const char *directory) {
  char line[128];
  long long quota = 0, period = 0;
  if (read_line(directory, "cpu.max", line, sizeof line)) {
    char *end;
    quota = strtoll(line, &end, 10);
    period = strtoll(end, NULL, 10);
  } else if (read_line(directory, "cpu.cfs_quota_us", line, sizeof line)) {
    quota = strtoll(line, NULL, 10);
    if (read_line(directory, "cpu.cfs_period_us", line, sizeof line))
      period = strtoll(line, NULL, 10);
  }
  if (quota <= 0 || period <= 0)
    return 0;
  const long long cpus = quota / period + (quota % period != 0);
  return cpus > INT32_MAX ? 0 : (uint32_t)cpus;
}

static uint32_t tighter(uint32_t x, uint32_t y) {
  if (x == 0 || y == 0)
    return x + y;
  return x < y ? x : y;
}

/*
 * Of a group and all those above it. In a container the path may be the host's and lead nowhere below the mount; then it is
 * the mount's own directory, the last one looked at, that is the container's group.
 */
static uint32_t group_quota(const char *mount, const char *hierarchy, const char *group) {
  char directory[PATH_SIZE];
  const int n = snprintf(directory, sizeof directory, "%s%s%s", mount, hierarchy, group);
  if (n < 0 || (size_t)n >= sizeof directory)
    return 0;
  const size_t top = strlen(mount) + strlen(hierarchy);
  uint32_t quota = directory_quota(directory);
  for (size_t end = (size_t)n; end > top; end--)
    if (directory[end - 1] == '/') {
      directory[end - 1] = '\0';
      quota = tighter(quota, directory_quota(directory));
    }
  return quota;
}

static bool lists_cpu(const char *controllers) {
  for (const char *name = controllers; *name;) {
    const size_t n = strcspn(name, ",");
    if (n == 3 && memcmp(name, "cpu", 3) == 0)
      return true;
    name += n + (name[n] == ',');
  }
  return false;
}

uint32_t threads_quota(const char *cgroup_file, const char *mount) {
  FILE *file = fopen(cgroup_file, "re");
  if (!file)
    return 0;
  uint32_t quota = 0;
  char line[PATH_SIZE];
  while (fgets(line, sizeof line, file)) { /* HIERARCHY:CONTROLLERS:GROUP */
    line[strcspn(line, "\n")] = '\0';
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group)
      continue;
    *controllers++ = '\0';
    *group++ = '\0';
    if (*controllers == '\0') /* version 2 */
      quota = tighter(quota, group_quota(mount, "", group));
    else if (lists_cpu(controllers))
      quota =
          tighter(quota, group_quota(mount, "/cpu", group)); /* a link to "cpu,cpuacct" where they are mounted as one */
  }
  fclose(file);
  return quota;
}

uint32_t unroll_thread_count(void) {
  const uint32_t asked_for = count_asked_for();
  if (asked_for)
    return asked_for;
  return tighter(count_allowed(), threads_quota("/proc/self/cgroup", "/sys/fs/cgroup"));
}
