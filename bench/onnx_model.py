# SPDX-License-Identifier: Apache-2.0
"""A recurrent layer as an ONNX model, of fixed shape, the weights in it: what runtimes for ONNX may optimise most."""
import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

import peer

OPSET = 17
IR_VERSION = 8
OPS = {"lstm": "LSTM", "gru_after": "GRU", "rnn": "RNN"}
# Where the gates of ONNX stand in PyTorch's order: i o f c of i f c o, z r h of r z h.
ORDER = {"lstm": [0, 3, 1, 2], "gru_after": [1, 0, 2], "rnn": [0]}


def reorder(value, cell):
    blocks = numpy.split(value, peer.GATES[cell])
    return numpy.concatenate([blocks[k] for k in ORDER[cell]])


def build(request):
    """The model's bytes, and x. Its input is "x" [T, B, I], its output "y" [T, 1, B, H]."""
    x, layers = peer.weights(request)
    cell, hidden = request["cell"], request["hidden"]
    w_x, w_h, b_x, b_h = (reorder(value, cell) for value in layers[0])
    constants = [numpy_helper.from_array(value[numpy.newaxis], name)
                 for name, value in (("w_x", w_x), ("w_h", w_h), ("b", numpy.concatenate([b_x, b_h])))]
    options = {"linear_before_reset": 1} if cell == "gru_after" else {}
    node = helper.make_node(OPS[cell], ["x", "w_x", "w_h", "b"], ["y"], hidden_size=hidden, **options)
    graph = helper.make_graph(
        [node], "layer", [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [x.shape[0], 1, x.shape[1], hidden])], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model.SerializeToString(), x
