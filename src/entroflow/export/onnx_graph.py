"""From a JAX function to an ONNX graph, operation by operation.

Why not a library: jax2onnx brings Flax, Orbax, Hugging Face's hub and a viewer along, with bounds on their versions. A
policy is a few small matrix products, which the tables below express: whatever does not depend on an input is computed
while the graph is built, such as all that depends on the flow time alone, and loops of fixed length are unrolled.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import jax
import numpy as np
import onnx
from jax import export
from jax.extend.core import ClosedJaxpr, Literal
from onnx import helper

from ..checks import error

OPSET, IR_VERSION = 18, 10  # what onnxruntime reads since 1.18, of 2024
BATCH = "batch"

# JAX's primitives with an ONNX operation of the same arguments. Log1p has none: what log(1 + x) loses is 1e-7 at most.
SAME = {name.lower(): name for name in "Abs Add And Cos Div Exp Log Max Min Mul Neg Not Or Sin Sqrt Sub Tanh".split()}
SAME |= {"eq": "Equal", "ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual", "logistic": "Sigmoid"}
SAME |= {"lt": "Less"}
IDENTITIES = {"stop_gradient", "copy", "copy_p"}
CALLS = {"jit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}

Value = str | np.ndarray  # a name in the graph, or a number known while it is built


def to_onnx(
    function: Callable[..., Sequence[Any]], inputs: dict[str, tuple[int, ...]], outputs: Sequence[str]
) -> onnx.ModelProto:
    """Translate a function of one example, float32 arrays to float32 arrays, into a checked ONNX model of batches.

    Its inputs and outputs have a first axis of any length. A `ValueError` says that the function needs an operation
    that is not in the tables, such as a loop of unknown length.
    """
    (batch,) = export.symbolic_shape(BATCH)
    arguments = [jax.ShapeDtypeStruct((batch, *shape), np.float32) for shape in inputs.values()]
    traced = jax.make_jaxpr(jax.vmap(function))(*arguments)
    graph = _Graph(next(iter(inputs)))
    for name, result in zip(outputs, graph.run(traced, list(inputs)), strict=True):
        graph.nodes.append(helper.make_node("Identity", [graph.name_of(result)], [name]))
    given, found = (
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [BATCH, *aval.shape[1:]]) for name, aval in pairs]
        for pairs in (zip(inputs, arguments, strict=True), zip(outputs, traced.out_avals, strict=True))
    )
    made = helper.make_graph(graph.nodes, "policy", given, found, list(graph.constants.values()))
    versions = {"opset_imports": [helper.make_opsetid("", OPSET)], "ir_version": IR_VERSION}
    model = helper.make_model(made, producer_name="entroflow", **versions)
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Nodes and constants of a graph that is being built."""

    def __init__(self, batched: str):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[Any, onnx.TensorProto] = {}
        self.batched = batched  # an input, from which the batch's size is read

    def name_of(self, value: Value) -> str:
        """Return a value's name; equal constants have one."""
        if isinstance(value, str):
            return value
        key = value.dtype.str, value.shape, value.tobytes()
        if key not in self.constants:
            self.constants[key] = onnx.numpy_helper.from_array(value, f"c{len(self.constants)}")
        return self.constants[key].name

    def add(self, operation: str, *inputs: Value, count: int = 1, **attributes: Any) -> Any:
        """Append a node; return the name of its result, or the names of several."""
        names = [f"v{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(operation, [self.name_of(x) for x in inputs], names, **attributes))
        return names[0] if count == 1 else names

    def run(self, closed: ClosedJaxpr, arguments: Sequence[Value]) -> list[Value]:
        """Append what a traced function does; return its results."""
        values: dict[Any, Value] = dict(zip(closed.jaxpr.constvars, map(np.asarray, closed.consts), strict=True))
        values |= dict(zip(closed.jaxpr.invars, arguments, strict=True))

        def read(atom: Any) -> Value:
            return np.asarray(atom.val, cast(Any, atom.aval).dtype) if isinstance(atom, Literal) else values[atom]

        for equation in closed.jaxpr.eqns:
            results = self.step(equation, [read(atom) for atom in equation.invars])
            values |= dict(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in closed.jaxpr.outvars]

    def step(self, equation: Any, inputs: list[Value]) -> Sequence[Value]:
        """Append one operation; return its results."""
        name, params = equation.primitive.name, equation.params
        if name in CALLS:
            return self.run(params[CALLS[name]], inputs)
        if name == "scan" and len(equation.outvars) == params["num_carry"]:
            return self.unroll(params, inputs)
        if name in IDENTITIES:
            return inputs
        known = all(isinstance(value, np.ndarray) for value in inputs)
        if known and all(isinstance(size, int) for variable in equation.outvars for size in variable.aval.shape):
            found = equation.primitive.bind(*inputs, **params)
            return [np.asarray(one) for one in (found if equation.primitive.multiple_results else [found])]
        if name in SAME:
            return [self.add(SAME[name], *inputs)]
        if name == "split":
            sizes = np.asarray(params["sizes"], np.int64)
            return self.add("Split", *inputs, sizes, count=len(sizes), axis=params["axis"])
        if name not in TRANSLATIONS:
            remedy = "use a policy with a RungeKutta solver, or write .stablehlo"
            raise error("policy", f"the operation {name!r}", "what ONNX can express", remedy)
        return [TRANSLATIONS[name](self, equation, *inputs)]

    def unroll(self, params: dict[str, Any], inputs: list[Value]) -> list[Value]:
        """Append every step of a loop that carries values and stacks none."""
        body, consts, carries = params["jaxpr"], params["num_consts"], params["num_carry"]
        fixed, carry, sequences = inputs[:consts], inputs[consts : consts + carries], inputs[consts + carries :]
        steps = range(params["length"])
        for i in reversed(steps) if params["reverse"] else steps:
            rows = [x[i, ...] if isinstance(x, np.ndarray) else self.add("Gather", x, np.asarray(i)) for x in sequences]
            carry = self.run(body, [*fixed, *carry, *rows])
        return list(carry)

    def shape(self, sizes: Sequence[Any]) -> Value:
        """Return a shape, with the batch's size where it is not a number."""
        if all(isinstance(size, int) for size in sizes):
            return np.asarray(sizes, np.int64)
        batch = self.add("Shape", self.batched, start=0, end=1)
        parts = [np.asarray([size], np.int64) if isinstance(size, int) else batch for size in sizes]
        return self.add("Concat", *parts, axis=0)


def _broadcast(graph: _Graph, equation: Any, x: Value, *_: Value) -> Value:
    """Axes of length one are inserted, then repeated."""
    wanted, places = equation.params["shape"], equation.params["broadcast_dimensions"]
    have = equation.invars[0].aval.shape
    sizes = [1] * len(wanted)
    for place, size in zip(places, have, strict=True):
        sizes[place] = size
    missing = [i for i in range(len(wanted)) if i not in places]
    x = graph.add("Unsqueeze", x, np.asarray(missing, np.int64)) if missing else x
    return x if tuple(sizes) == tuple(wanted) else graph.add("Expand", x, graph.shape(wanted))


def _contract(graph: _Graph, equation: Any, x: Value, y: Value) -> Value:
    """A matrix product where it is one, which is faster; Einstein's sum otherwise."""
    (contract_x, contract_y), (batch_x, batch_y) = equation.params["dimension_numbers"]
    ranks = [len(variable.aval.shape) for variable in equation.invars]
    if ranks == [2, 2] and not batch_x and len(contract_x) == 1:
        x = x if contract_x[0] == 1 else _transposed(graph, x, [1, 0])
        return graph.add("MatMul", x, y if contract_y[0] == 0 else _transposed(graph, y, [1, 0]))
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    of_x: list[str] = [next(letters) for _ in range(ranks[0])]
    shared = dict(zip((*batch_y, *contract_y), (of_x[i] for i in (*batch_x, *contract_x)), strict=True))
    of_y = [shared[i] if i in shared else next(letters) for i in range(ranks[1])]
    first = [of_x[i] for i in batch_x]
    kept = [c for i, c in enumerate(of_x) if i not in (*batch_x, *contract_x)]
    kept += [c for i, c in enumerate(of_y) if i not in shared]
    return graph.add("Einsum", x, y, equation=f"{''.join(of_x)},{''.join(of_y)}->{''.join(first + kept)}")


def _transposed(graph: _Graph, x: Value, order: Sequence[int]) -> Value:
    is_known = isinstance(x, np.ndarray)
    return np.ascontiguousarray(x.transpose(order)) if is_known else graph.add("Transpose", x, perm=list(order))


def _slice(graph: _Graph, equation: Any, x: Value) -> Value:
    params = equation.params
    starts = np.asarray(params["start_indices"], np.int64)
    ends = [size if isinstance(size, int) else np.iinfo(np.int64).max for size in params["limit_indices"]]
    steps = np.asarray(params["strides"] or [1] * len(starts), np.int64)
    return graph.add("Slice", x, starts, np.asarray(ends, np.int64), np.arange(len(starts)), steps)


def _cast(graph: _Graph, equation: Any, x: Value) -> Value:
    return graph.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(equation.outvars[0].aval.dtype)))


def _reduce(operation: str, graph: _Graph, equation: Any, x: Value) -> Value:
    return graph.add(operation, x, np.asarray(equation.params["axes"], np.int64), keepdims=0)


def _reshape(graph: _Graph, equation: Any, x: Value) -> Value:
    sizes = [size if isinstance(size, int) else -1 for size in equation.params["new_sizes"]]
    return graph.add("Reshape", x, np.asarray(sizes, np.int64))


TRANSLATIONS: dict[str, Callable[..., Value]] = {
    "argmax": lambda graph, e, x: _cast(graph, e, graph.add("ArgMax", x, axis=e.params["axes"][0], keepdims=0)),
    "broadcast_in_dim": _broadcast,
    "clamp": lambda graph, _, low, x, high: graph.add("Min", graph.add("Max", x, low), high),
    "concatenate": lambda graph, equation, *xs: graph.add("Concat", *xs, axis=equation.params["dimension"]),
    "convert_element_type": _cast,
    "dot_general": _contract,
    "integer_pow": lambda graph, e, x: graph.add("Pow", x, np.asarray(e.params["y"], np.float32)),
    "log1p": lambda graph, _, x: graph.add("Log", graph.add("Add", x, np.ones((), np.float32))),
    "ne": lambda graph, _, x, y: graph.add("Not", graph.add("Equal", x, y)),
    "reduce_max": partial(_reduce, "ReduceMax"),
    "reduce_min": partial(_reduce, "ReduceMin"),
    "reduce_sum": partial(_reduce, "ReduceSum"),
    "reshape": _reshape,
    "rsqrt": lambda graph, _, x: graph.add("Reciprocal", graph.add("Sqrt", x)),
    "select_n": lambda graph, _, which, no, yes: graph.add("Where", which, yes, no),
    "slice": _slice,
    "square": lambda graph, _, x: graph.add("Mul", x, x),
    "squeeze": lambda graph, e, x: graph.add("Squeeze", x, np.asarray(e.params["dimensions"], np.int64)),
    "transpose": lambda graph, e, x: _transposed(graph, x, e.params["permutation"]),
}
