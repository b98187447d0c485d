"""Makes the hostile models beside it again. Needs onnx and numpy from PyPI, which no test does: the models are in the tree.

loop         its inference never ends
loop_later   the same, but not on a black picture, which is what a first inference sees
loop_grow    doubles a tensor until memory ends
out_1g       an output of a gigabyte, which as numbers of a hook is four
"""
import pathlib

import numpy
from onnx import TensorProto as T, helper as h, numpy_helper

HERE = pathlib.Path(__file__).parent
IMAGES = h.make_tensor_value_info("images", T.FLOAT, [1, 3, 192, 320])


def constant(name, value, kind=numpy.int64):
    return numpy_helper.from_array(numpy.asarray(value, dtype=kind), name)


def save(name, nodes, constants, output=T.FLOAT):
    graph = h.make_graph(nodes, "g", [IMAGES], [h.make_tensor_value_info("y", output, None)], initializer=constants)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 18)])
    model.ir_version = 10
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())


def body(step):
    """Of a loop: `a_out` from `a_in`, and on it goes."""
    kinds = [("i", T.INT64, []), ("cond_in", T.BOOL, []), ("a_in", T.FLOAT, None)]
    results = [("cond_out", T.BOOL, []), ("a_out", T.FLOAT, None)]
    on = h.make_node("Identity", ["cond_in"], ["cond_out"])
    values = [[h.make_tensor_value_info(*value) for value in side] for side in (kinds, results)]
    return h.make_graph([on, step], "body", *values)


ADD = body(h.make_node("Add", ["a_in", "a_in"], ["a_out"]))
TWICE = body(h.make_node("Concat", ["a_in", "a_in"], ["a_out"], axis=0))
BRIGHTEST = h.make_node("ReduceMax", ["images"], ["m"], keepdims=0)

save("loop", [BRIGHTEST, h.make_node("Loop", ["n", "t", "m"], ["y"], body=ADD)],
     [constant("n", 2**62), constant("t", True, bool)])
save("loop_later",
     [BRIGHTEST, h.make_node("Mul", ["m", "many"], ["f"]), h.make_node("Cast", ["f"], ["n"], to=T.INT64),
      h.make_node("Loop", ["n", "t", "m"], ["y"], body=ADD)],
     [constant("many", 2.0**60, numpy.float32), constant("t", True, bool)])
save("loop_grow",
     [h.make_node("Reshape", ["images", "flat"], ["v"]), h.make_node("Loop", ["n", "t", "v"], ["y"], body=TWICE)],
     [constant("flat", [-1]), constant("n", 14), constant("t", True, bool)])
save("out_1g",
     [h.make_node("Cast", ["images"], ["whole"], to=T.INT64), h.make_node("ReduceMax", ["whole"], ["m"], keepdims=0),
      h.make_node("Reshape", ["m", "one"], ["v"]), h.make_node("Add", ["v", "gib"], ["s"]),
      h.make_node("ConstantOfShape", ["s"], ["y"], value=h.make_tensor("v", T.UINT8, [1], [1]))],
     [constant("one", [1]), constant("gib", [2**30])], T.UINT8)
