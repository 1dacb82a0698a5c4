/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cl_faults.h: a layer of the OpenCL loader (OPENCL_LAYERS) that counts every call and every object, makes calls fail,
 * and answers for a driver that lies. It stands between the loader and the drivers, so whatever calls OpenCL in the
 * process is seen, CLBlast too, and nothing that a driver does by itself.
 *
 *     setenv("OPENCL_LAYERS", path, 1);                       before the first call of OpenCL
 *     cl_faults *f = dlsym(dlopen(path, RTLD_NOW), "cl_faults_state");
 *     f->fail_at = 7;                                         the seventh call from now on fails
 */
#ifndef CL_FAULTS_H
#define CL_FAULTS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CL_FAULTS_CONTEXT, CL_FAULTS_QUEUE, CL_FAULTS_MEM, CL_FAULTS_PROGRAM, CL_FAULTS_KERNEL, CL_FAULTS_EVENT };
enum { CL_FAULTS_KINDS = 6, CL_FAULTS_LIES = 8, CL_FAULTS_TRACE = 1 << 16 };

typedef struct cl_faults {
  /* Which call fails. What a call can fail with depends on the function: variant chooses. */
  const char *only; /* NULL: calls of all functions count; else of this one */
  long fail_at;     /* the call that fails, counted from 1; 0: none */
  uint32_t variant;
  bool forever; /* and all calls after it, but those that release: a device that is lost */
  bool late;    /* a call that only queues says nothing and does nothing; the next one that waits fails */

  /* Lies. */
  const char *more_extensions; /* added to what a device has */
  struct {
    const char *what; /* "CL_DEVICE_LOCAL_MEM_SIZE" */
    uint64_t value;   /* of a text, its length */
  } lies[CL_FAULTS_LIES];
  const char *build_fails_with; /* programs whose options or source have this text don't build, */
  uint64_t build_log;           /* and leave a log of so many bytes */
  const char *hurried;          /* arguments of 4 bytes of programs built with this text among their options are 0 */
  const char *miscompiled;      /* in a program's source, the first time that this text stands there, */
  const char *as;               /* it is taken for this one, which is no longer; NULL: nothing is */

  /* What was seen. Anyone may set the numbers to 0. */
  uint32_t phase;     /* the caller's, for the trace */
  long calls;         /* that counted */
  const char *failed; /* the function that was made to fail, NULL: none */
  int32_t code;       /* what it said */
  uint32_t failed_phase;
  long references[CL_FAULTS_KINDS]; /* created and retained minus released */
  long launches, events;            /* clEnqueueNDRangeKernel; events given out */
  struct {
    uint8_t function, phase;
  } trace[CL_FAULTS_TRACE]; /* of the calls that counted, the first ones */

  const char *(*name)(uint32_t function); /* NULL past the last */
} cl_faults;

#endif
