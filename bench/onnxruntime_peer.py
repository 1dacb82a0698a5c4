# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime on the processor as the other side of a measurement; bench/peer.py says what it is asked and answers."""
import onnxruntime

import onnx_model
import peer


def layer(request):
    model, x = onnx_model.build(request)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = peer.threads()
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    # Bound once: a run neither looks up names nor copies.
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
    y = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
        [request["steps"], 1, request["batch"], request["hidden"]], "float32")
    binding.bind_ortvalue_output("y", y)
    times = peer.measure(lambda: session.run_with_iobinding(binding), request["seconds"])
    return peer.answer_of(times, y.numpy()[:, 0])


def about(_):
    return {"version": onnxruntime.__version__, "threads": peer.threads()}


if __name__ == "__main__":
    peer.serve({"layer": layer, "about": about})
