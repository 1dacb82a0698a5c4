/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vendors_lanes.c: preloaded, it makes a device say that its vectors hold UNROLL_VENDORS_LANES floats, so that
 * script/vendors finds what is built for processors other than this one. 0: as it is.
 */
#include <CL/cl.h>
#include <dlfcn.h>
#include <stdlib.h>

typedef cl_int(CL_API_CALL *get_device_info)(cl_device_id, cl_device_info, size_t, void *, size_t *);

cl_int CL_API_CALL clGetDeviceInfo(cl_device_id device, cl_device_info what, size_t size, void *value, size_t *needed) {
  void *library = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL); /* a plugin has it, so RTLD_NEXT finds none */
  const get_device_info next = library ? (get_device_info)dlsym(library, "clGetDeviceInfo") : NULL;
  const char *text = getenv("UNROLL_VENDORS_LANES");
  const cl_uint lanes = text ? (cl_uint)atoi(text) : 0;
  const cl_int code = next ? next(device, what, size, value, needed) : CL_INVALID_DEVICE;
  if (library)
    dlclose(library);
  if (code == CL_SUCCESS && lanes && value && size >= sizeof lanes) {
    if (what == CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT)
      *(cl_uint *)value = lanes;
    if (what == CL_DEVICE_NATIVE_VECTOR_WIDTH_DOUBLE)
      *(cl_uint *)value = lanes / 2;
  }
  return code;
}
