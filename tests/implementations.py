# SPDX-License-Identifier: Apache-2.0
"""The table of implementation_matrix.py: the implementations of OpenCL, the options that are forced on each, and which
suites run there. What is slow runs on a smaller set, the patterns of cases below. To force an option, add a Row."""
import collections
import os
import re

BUILD = os.environ.get("UNROLL_BUILD_DIR", "build/release")
SOURCE = os.environ.get("UNROLL_SOURCE_DIR", ".")
ICD = "/etc/OpenCL/vendors"

# Nothing but the head of each column; the cases of `unroll conform` are told apart by the first words of their names.
SUITES = ("ops", "products", "layers", "scans", "programs", "command")
KINDS = (("layers", re.compile("^(exact )?layer ")), ("scans", re.compile("^(exact )?(scan|net|model|recurrence) ")),
         ("products", re.compile("^(exact )?(exact run-time |template [0-9]+ |run-time size [0-9]+ )?matmul ")),
         ("ops", re.compile("")))

# Every op in a shape or two, all that needs no op, and steps of templates.
OPS = (r"^(unary [a-z]+ 17 |binary [a-z]+ (column|rank 6),|reduce [a-z_]+ (105 of rank 3 axes [157]|20011 of rank 1)"
       r"|(log_)?softmax (21|3000) |argmax|cross_entropy(_grad)? 65 |embedding|dropout 51 |categorical|length_mask 595 "
       r"|reverse|pad 357 |slice 357 |concat .* 105 |transpose |select|(lstm|gru)[a-z_]* 7x65 .*absent 0"
       r"|optimizer [a-z]+ 255 |random [a-z]+ (51|693) |gather(_grad)? 5 from 119 |top_k (4 of 119|40 of 3000) "
       r"|(exact )?linear_scan(_grad)? (5x119|9x3|300x1) "
       r"|template 2 (slice|select|length_mask)|run-time size 1 (softmax|slice|reduce)).*f32$|^abi ")
# Small integers are compared bit by bit.
PRODUCTS = (r"^matmul rank 2 y (1x257|33x64|66x130) .*f32$|^exact matmul rank 2 (257x3|64x64)x.*f32$"
            r"|^template 0 matmul .*f32$")
# Every cell, one way without lengths and the other way with them and the gradient; and an exact one of more units.
LAYERS = (r"^layer [a-z_]+ (forward( tanh)?|reverse( tanh)? lengths) T5 B3 I7 H17, f32$"
          r"|^layer [a-z_]+ reverse( tanh)? lengths T5 B3 I7 H17 grad, f32$"
          r"|^exact layer rnn reverse relu lengths T3 B33 I65 H130 grad, f32$")
SCANS = (r"^(scan (add|linear|peephole|two) (forward|reverse lengths) T5 B3 I7 H17|recurrence "
         r"|net (stack|language|shared)[a-z0-9 ]* (lstm|gru) ).*f32$")
# As halves, small integers are what they are as floats: products by matrix instructions, and layers of such products.
HALVES = (r"^exact matmul rank 2 (257x3x65|64x64x64) .*f32$|^exact matmul rank 3 65x34x64.*f32$"
          r"|^exact run-time matmul rank 2 100x33x34.*f32$",
          r"^exact layer rnn reverse relu lengths T3 B33 I65 H130 grad, f32$")
MATRIX = ("kernels=gpu", "precision=half", "matrix=emulated")
# Sizes that leave edges of blocks and groups.
WIDE = r"^layer (lstm .* T2 B(583|1000) |gru .* T2 B7 I4 H257 ).*grad, f32$"
GROUPS = ("kernels=gpu", "product=tile")
# Where a kernel takes long to build, or to run.
FEW_OPS = (r"^(unary tanh 17 |binary add (column|rank 6)|reduce sum (105 of rank 3 axes 5|20011)|softmax 21 |embedding"
           r"|length_mask 595 |optimizer adam 255 |template 2 slice|transpose 210 |categorical 7x17 top 3"
           r"|random normal 51 |gather_grad 5 from 119 |top_k 4 of 119 |linear_scan(_grad)? (9x3|300x1) of rank 2 lengths"
           r"|lstm_gates(_grad)? 7x65 absent 0).*f32$")
FEW_PRODUCTS = r"^(matmul rank 2 y 33x64 k 3|exact matmul rank 2 64x64x64).*f32$"
FEW_SCANS = r"^scan peephole reverse lengths T5 .*f32$"
FEW_LAYERS = r"^layer (lstm|gru) reverse lengths T5 B3 I7 H17( grad)?, f32$"
# Likewise with weights packed as half, on any device.
PANELS = (r"^exact (matmul rank 2 (1x257x3|64x64x64)|layer rnn (forward relu T5 B3 I7 H17|reverse relu lengths T3 B33 "
          r"I65 H130 grad)).*f32$")
FEW_PANELS = r"^exact (matmul rank 2 33x17x34 trans_b|layer rnn forward relu lengths T5 B3 I7 H17 grad), f32$"
FEW = (FEW_OPS, FEW_PRODUCTS, FEW_SCANS, FEW_LAYERS)
# Where kernels are interpreted.
LEAST = (FEW_OPS, r"^matmul rank 2 y 33x64 k 3( trans_b)?, f32$",
         r"^layer lstm reverse lengths T5 B3 I7 H17 grad, f32$")

# Those with a part for OpenCL.
PROGRAMS = ("opencl_backend_test", "dense_golden_test", "layers_golden_test", "gradcheck_test", "partition_test",
            "long_run_test")
FEW_PROGRAMS = ("opencl_backend_test", "dense_golden_test", "partition_test", "long_run_test")

Row = collections.namedtuple("Row", "options cases programs command")
Row.__new__.__defaults__ = ((), (), (), False)
SMALL = (OPS, PRODUCTS, LAYERS, SCANS)
FORCED = (Row(("product=own",), (PRODUCTS,)), Row(("product=tile",), (PRODUCTS,)),
          Row(("product=clblast",), (PRODUCTS,)), Row(("recurrence=scan",), (LAYERS,)),
          Row(("recurrence=step",), (LAYERS,)), Row(("recurrence=sequence",), (LAYERS,)),
          Row(("concurrent=on",), (r"^net bidirectional .*f32$",)),
          Row(("recurrence=scan", "product=own", "command_buffer=on"), (SCANS,)),
          Row(("precision=half",), (PANELS,)), Row(("precision=half", "kernels=gpu"), (FEW_PANELS,)))

# vendor: what OCL_ICD_VENDORS is set to, so that no other is found. prints: what the driver says for nothing.
Implementation = collections.namedtuple("Implementation", "title vendor environment rows prints")
Implementation.__new__.__defaults__ = ((),)


def pocl(method, cases_as_gpu=FEW):
    """Work-groups of many items, and barriers, come with the kernels of a GPU alone."""
    return Implementation(f"PoCL, {method}", f"{ICD}/pocl.icd", {"POCL_WORK_GROUP_METHOD": method},
                          (Row((), FEW, (), True), Row(("kernels=gpu",), cases_as_gpu)))


INTEL = os.path.join(SOURCE, "build", "intel-opencl")
IMPLEMENTATIONS = {
    # All cases, as a CPU and as a GPU, and all programs run on PoCL as tests of their own: the matrix counts those too.
    "pocl": Implementation("PoCL", f"{ICD}/pocl.icd", {}, (*FORCED, Row(("kernels=gpu", "product=tile"), (LAYERS,)),
                                                               Row((*GROUPS, "recurrence=step"), (LAYERS, WIDE)),
                                                               Row((*GROUPS, "recurrence=sequence"), (LAYERS, WIDE)),
                                                               Row((*MATRIX, "recurrence=step"), HALVES))),
    "loopvec": pocl("loopvec"),
    "workitemloops": pocl("workitemloops"),
    # It writes out every work-item: kernels with barriers take minutes to build.
    "workitemrepl": pocl("workitemrepl", (r"^(reduce sum 20011|softmax 21 |embedding_grad|lstm_gates_grad 7x65 absent)"
                                          r".*f32$",)),
    "intel": Implementation("Intel's CPU runtime", f"{INTEL}/vendors", {"LD_LIBRARY_PATH": f"{INTEL}/lib"},
                            (Row((), SMALL, FEW_PROGRAMS, True),
                             Row(("kernels=gpu",), FEW), Row(("product=tile",), (PRODUCTS,)),
                             Row((*MATRIX, "recurrence=scan"), HALVES),
                             Row(("recurrence=scan",), (LAYERS,)), Row(("recurrence=step",), (FEW_LAYERS,)),
                             Row(("precision=half",), (PANELS,)))),
    "rusticl": Implementation("rusticl, llvmpipe", f"{ICD}/rusticl.icd", {"RUSTICL_ENABLE": "llvmpipe"},
                              (Row((), FEW, (), True), Row(("recurrence=scan",), (LAYERS,)),
                               Row(("precision=half",), (FEW_PANELS,))),
                              ("MESA: warning: Treating load_kernel_arg in control flow as uniform, "
                               "results may be incorrect.",)),
    "oclgrind": Implementation("Oclgrind, with its checks", "", {}, (Row((), FEW, (), True),
                               Row(("kernels=gpu",), LEAST),
                               Row(("precision=half",), (FEW_PANELS,)),
                               Row(MATRIX, (r"^exact matmul rank 2 64x64x64 trans_b, f32$",)))),
}
