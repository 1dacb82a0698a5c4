# SPDX-License-Identifier: Apache-2.0
"""OpenVINO on the processor as the other side of a measurement; bench/peer.py says what it is asked and answers."""
import openvino

import onnx_model
import peer

CORE = openvino.Core()


def layer(request):
    model, x = onnx_model.build(request)
    # f32 said aloud: on processors that have bfloat16 it would be taken.
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": peer.threads(),
               "INFERENCE_PRECISION_HINT": "f32"}
    compiled = CORE.compile_model(CORE.read_model(model), "CPU", options)
    run = compiled.create_infer_request()
    run.set_input_tensor(openvino.Tensor(x, shared_memory=True))
    times = peer.measure(run.infer, request["seconds"])
    return peer.answer_of(times, run.get_output_tensor(0).data[:, 0])


def about(_):
    return {"version": openvino.__version__.split("-")[0], "threads": peer.threads()}


if __name__ == "__main__":
    peer.serve({"layer": layer, "about": about})
