"""From a JAX function to C99 for one example: a header that needs math.h and nothing else, and allocates nothing.

Every array has a fixed size, the loops of solvers stay loops, and what depends on nothing but a loop's counter, such as
all that a flow's network makes of the time, is a table. Moving numbers about costs nothing where they lie side by side.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from ..checks import error

LARGEST = 2**20  # numbers in a header
# Formulas of elementwise operations: {0}, {1} and {2} are the arguments, M(f) the function of math.h.
FORMULAS = {"add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}", "neg": "-{0}"}
FORMULAS |= {"max": "{0} > {1} ? {0} : {1}", "min": "{0} < {1} ? {0} : {1}", "square": "{0} * {0}"}
FORMULAS |= {name: f"M({name})({{0}})" for name in "exp log log1p expm1 sin cos tanh sqrt".split()}
FORMULAS |= {"abs": "M(fabs)({0})", "pow": "M(pow)({0}, {1})", "rsqrt": "1 / M(sqrt)({0})"}
FORMULAS |= {"logistic": "1 / (1 + M(exp)(-{0}))", "select_n": "{0} ? {2} : {1}"}
FORMULAS |= {"clamp": "{1} < {0} ? {0} : {1} > {2} ? {2} : {1}"}
FORMULAS |= {"not": "!{0}", "and": "{0} && {1}", "or": "{0} || {1}"}
FORMULAS |= dict(eq="{0} == {1}", ne="{0} != {1}", lt="{0} < {1}", le="{0} <= {1}", gt="{0} > {1}", ge="{0} >= {1}")
FORMULAS |= {name: "{0}" for name in ("convert_element_type", "stop_gradient", "copy", "copy_p")}
MOVES = {"broadcast_in_dim", "concatenate", "reshape", "rev", "slice", "split", "squeeze", "stack", "transpose"}
REDUCTIONS = {"reduce_sum": "{0} + {1}", "reduce_max": FORMULAS["max"], "reduce_min": FORMULAS["min"]}
CALLS = {"jit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


class Known(NamedTuple):
    """Numbers known before the program runs."""

    array: np.ndarray
    """The numbers; a row for every turn of the loop, if they change with it."""
    turns: int = 0
    """How many turns; zero: they do not change."""


Value = str | Known  # a pointer in C, or numbers


def identifier(text: str) -> str:
    """Return what of a text can begin the names of C, `policy` if there is nothing."""
    name = re.sub(r"[^0-9A-Za-z]+", "_", text).strip("_")[:40]
    return name if name[:1].isalpha() else f"policy_{name}".rstrip("_")


def to_c(
    function: Callable[..., Sequence[Any]], inputs: dict[str, tuple[int, ...]], outputs: Sequence[str], name: str
) -> str:
    """Translate a function of one example, float32 arrays to float32 arrays, into a C99 header.

    It has a function NAME_act and a type NAME_real. A `ValueError` says that the function needs an operation that is
    not in the tables, or holds too many numbers.
    """
    name = identifier(name)
    traced = jax.make_jaxpr(function)(*[jax.ShapeDtypeStruct(shape, np.float32) for shape in inputs.values()])
    code = _Code(name)
    results = code.run(traced, list(inputs))
    for result, (output, aval) in zip(results, zip(outputs, traced.out_avals, strict=True), strict=True):
        code.loops([(math.prod(aval.shape), "k")], [f"{output}[k] = {code.pointer(result)}[k];"])
    sizes = {key: math.prod(shape) for key, shape in inputs.items()}
    sizes |= {key: math.prod(aval.shape) for key, aval in zip(outputs, traced.out_avals, strict=True)}
    count = sum(array.size for array in code.constants.values())
    if count > LARGEST:
        given, remedy = f"one of {count} numbers", "write .onnx, or train a narrower network"
        raise error("policy", given, f"one of at most {LARGEST} for a C header", remedy)
    upper = name.upper()
    arguments = [f"const {name}_real *{key}" for key in inputs] + [f"{name}_real *{key}" for key in outputs]
    told = [f"{key}[{sizes[key]}]" for key in (*inputs, *outputs)]
    head = [
        f"/* A policy, written by entroflow: from {' and '.join(told[: len(inputs)])} to"
        f" {' and '.join(told[len(inputs) :])}.",
        "   noise is standard normal, drawn by the caller. C99, no allocation, no state; at most"
        f" {4 * code.stack} bytes of stack and",
        f"   {4 * count} of constants as float. Define {upper}_DOUBLE before including it to calculate in double. */",
        f"#ifndef ENTROFLOW_{upper}_H",
        f"#define ENTROFLOW_{upper}_H",
        "#include <math.h>",
        f"#ifdef {upper}_DOUBLE",
        f"typedef double {name}_real;",
        f"#define {upper}_M(name) name",
        "#else",
        f"typedef float {name}_real;",
        f"#define {upper}_M(name) name##f",
        "#endif",
        f"enum {{ {', '.join(f'{name}_{key}_size = {size}' for key, size in sizes.items())} }};",
    ]
    body = [f"static inline void {name}_act({', '.join(arguments)}) {{", *code.lines, "}", "#endif", ""]
    return "\n".join([*head, *code.definitions(), *body])


class _Code:
    """A function's body and constants, as they are being written."""

    def __init__(self, name: str):
        self.name, self.lines, self.constants, self.stack = name, [], cast(dict[Any, np.ndarray], {}), 0
        self.fresh = 0  # names given
        self.turn = ""  # the counter of the loop that is being written

    def definitions(self) -> list[str]:
        """Return the constants, as C has them."""
        found = []
        for i, array in enumerate(self.constants.values()):
            kind = f"{self.name}_real" if array.dtype.kind == "f" else "int"
            text = [_number(entry) for entry in array.ravel()]
            rows = [", ".join(text[at : at + 8]) for at in range(0, len(text), 8)]
            found.append(f"static const {kind} {self.name}_c{i}[{array.size}] = {{\n  " + ",\n  ".join(rows) + "\n};")
        return found

    def pointer(self, value: Value) -> str:
        """Return a pointer to numbers; those that are known become a constant, equal ones the same."""
        if isinstance(value, str):
            return value
        array = np.asarray(value.array)
        array = array if array.dtype.kind == "f" else array.astype(np.int32)
        key = array.dtype.kind, array.shape, array.tobytes()
        self.constants.setdefault(key, array)
        name = f"{self.name}_c{list(self.constants).index(key)}"
        return f"({name} + {self.turn} * {array.size // value.turns})" if value.turns else name

    def array(self, aval: Any) -> str:
        """Declare an array and return its name."""
        self.fresh += 1
        size = math.prod(aval.shape)
        self.stack += size
        kind = f"{self.name}_real" if np.dtype(aval.dtype).kind == "f" else "int"
        self.lines.append(f"  {kind} v{self.fresh}[{size}];")
        return f"v{self.fresh}"

    def loops(self, counters: Sequence[tuple[int, str]], inner: Sequence[str]) -> None:
        """Write lines inside of loops of these lengths over these counters."""
        opened = [f"for (int {counter} = 0; {counter} < {size}; {counter}++) {{" for size, counter in counters] or ["{"]
        self.lines += [f"  {line}" for line in (*opened, *inner, "}" * len(opened))]

    def run(self, closed: ClosedJaxpr, arguments: Sequence[Value]) -> list[Value]:
        """Write what a traced function does; return its results."""
        values: dict[Any, Value] = {
            variable: Known(np.asarray(value))
            for variable, value in zip(closed.jaxpr.constvars, closed.consts, strict=True)
        }
        values |= dict(zip(closed.jaxpr.invars, arguments, strict=True))

        def read(atom: Any) -> Value:
            is_literal = isinstance(atom, Literal)
            return Known(np.asarray(atom.val, cast(Any, atom.aval).dtype)) if is_literal else values[atom]

        used, live = {atom for atom in closed.jaxpr.outvars if not isinstance(atom, Literal)}, []
        for equation in reversed(closed.jaxpr.eqns):  # compilers warn of what is computed for nothing
            if not used.isdisjoint(equation.outvars):
                live.append(equation)
                used |= {atom for atom in equation.invars if not isinstance(atom, Literal)}
        for equation in reversed(live):
            results = self.step(equation, [read(atom) for atom in equation.invars])
            values |= dict(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in closed.jaxpr.outvars]

    def step(self, equation: Any, inputs: list[Value]) -> Sequence[Value]:
        """Write one operation; return its results."""
        name, params = equation.primitive.name, equation.params
        if name in CALLS:
            return self.run(params[CALLS[name]], inputs)
        known = [value for value in inputs if isinstance(value, Known)]
        if len(known) == len(inputs):
            return _computed(equation, known)
        if name == "scan" and len(equation.outvars) == params["num_carry"] and not self.turn:
            return self.scan(params, inputs)
        shapes = [atom.aval.shape for atom in equation.invars]
        if name in MOVES:
            return self.move(equation, inputs, shapes)
        pointers = [self.pointer(value) for value in inputs]
        out, aval = self.array(equation.outvars[0].aval), equation.outvars[0].aval
        if name == "integer_pow":
            formula = " * ".join(["{0}"] * params["y"]) if 1 <= params["y"] <= 3 else f"M(pow)({{0}}, {params['y']})"
            self.elementwise(out, aval, formula, pointers, shapes)
        elif name in FORMULAS:
            self.elementwise(out, aval, FORMULAS[name], pointers, shapes)
        elif name == "dot_general":
            self.contract(out, params["dimension_numbers"], pointers, shapes)
        elif name in REDUCTIONS or name == "argmax":
            self.reduce(out, name, [int(axis) for axis in params["axes"]], pointers[0], shapes[0])
        else:
            expected, remedy = "what the C writer can express", "use a policy with a RungeKutta solver, or write .onnx"
            raise error("policy", f"the operation {name!r}", expected, remedy)
        return [out]

    def elementwise(self, out: str, aval: Any, formula: str, pointers: list[str], shapes: list[Any]) -> None:
        """Write one formula for every entry; axes of length one are repeated."""
        places = [np.arange(math.prod(shape)).reshape(shape) for shape in shapes]
        entries = [
            f"{pointer}[{self.place(np.broadcast_to(place, aval.shape))}]"
            for pointer, place in zip(pointers, places, strict=True)
        ]
        text = formula.replace("M(", f"{self.name.upper()}_M(").format(*entries)
        self.loops([(math.prod(aval.shape), "k")], [f"{out}[k] = {text};"])

    def place(self, places: np.ndarray) -> str:
        """Return the k-th of given places: as simple a text as there is, a table of places otherwise."""
        flat, count = places.ravel(), np.arange(places.size)
        period = flat.max(initial=0) + 1
        for text, values in (("0", 0 * count), ("k", count), (f"k % {period}", count % period)):
            if np.array_equal(flat, values):
                return text
        if np.array_equal(flat, count + flat[0]):
            return f"k + {flat[0]}"
        return f"{self.pointer(Known(flat))}[k]"

    def move(self, equation: Any, inputs: list[Value], shapes: list[Any]) -> list[Value]:
        """Take entries by their places: as they lie where they lie side by side, by a table of places otherwise."""
        ends = np.cumsum([0, *(math.prod(shape) for shape in shapes)])
        places = [np.arange(a, b).reshape(s) for a, b, s in zip(ends, ends[1:], shapes, strict=False)]
        results = []
        for found, variable in zip(_bind(equation, places), equation.outvars, strict=True):
            flat = np.asarray(found).ravel()
            if len(inputs) == 1 and np.array_equal(flat, np.arange(flat[0], flat[0] + flat.size)):
                results.append(f"({inputs[0]} + {flat[0]})" if flat[0] else inputs[0])
                continue
            out = self.array(variable.aval)
            for i, value in enumerate(inputs):
                to = np.flatnonzero((ends[i] <= flat) & (flat < ends[i + 1]))
                source, target = self.place(flat[to] - ends[i]), self.place(to)
                self.loops([(to.size, "k")], [f"{out}[{target}] = {self.pointer(value)}[{source}];"])
            results.append(out)
        return results

    def contract(self, out: str, numbers: Any, pointers: list[str], shapes: list[Any]) -> None:
        """Write sums of products over the contracted axes."""
        (over_x, over_y), (batch_x, batch_y) = numbers
        of_x = dict(zip((*batch_y, *over_y), (*batch_x, *over_x), strict=True))
        x = [f"i{axis}" for axis in range(len(shapes[0]))]
        y = [x[of_x[axis]] if axis in of_x else f"j{axis}" for axis in range(len(shapes[1]))]
        inner = [x[axis] for axis in over_x]
        order = dict.fromkeys([*(x[axis] for axis in batch_x), *x, *y])
        factors = [f"{p}[{_place(shape, names)}]" for p, shape, names in zip(pointers, shapes, (x, y), strict=True)]
        lengths = dict(zip((*x, *y), (*shapes[0], *shapes[1]), strict=True))
        self.fold(out, lengths, [name for name in order if name not in inner], inner, f"total + {' * '.join(factors)}")

    def reduce(self, out: str, name: str, axes: Sequence[int], pointer: str, shape: Sequence[int]) -> None:
        """Write sums, extremes or the place of the largest along axes."""
        names = [f"i{axis}" for axis in range(len(shape))]
        inner, outer = [names[axis] for axis in axes], [names[i] for i in range(len(shape)) if i not in axes]
        at = lambda place: f"{pointer}[{_place(shape, [place if n in inner else n for n in names])}]"  # noqa: E731
        entry, lengths = f"{pointer}[{_place(shape, names)}]", dict(zip(names, shape, strict=True))
        if name == "argmax":
            self.fold(out, lengths, outer, inner, f"{entry} > {at('total')} ? {inner[0]} : total", kind="int")
        else:
            begin = "0" if name == "reduce_sum" else at("0")
            self.fold(out, lengths, outer, inner, REDUCTIONS[name].format(entry, "total"), begin)

    def fold(
        self,
        out: str,
        lengths: dict[str, int],
        outer: Sequence[str],
        inner: Sequence[str],
        step: str,
        begin: str = "0",
        kind: str | None = None,
    ) -> None:
        """Write for every turn of the outer counters a total that every turn of the inner ones makes anew."""
        loops = " ".join(f"for (int {name} = 0; {name} < {lengths[name]}; {name}++)" for name in inner)
        target = _place([lengths[name] for name in outer], outer)
        lines = [
            f"{kind or f'{self.name}_real'} total = {begin};",
            f"{loops} total = {step};",
            f"{out}[{target}] = total;",
        ]
        self.loops([(lengths[name], name) for name in outer], lines)

    def scan(self, params: dict[str, Any], inputs: list[Value]) -> list[Value]:
        """Write a loop that carries values and stacks none."""
        body, consts, carries, length = (params[key] for key in ("jaxpr", "num_consts", "num_carry", "length"))
        avals = body.in_avals[consts : consts + carries]
        carried = [self.array(aval) for aval in avals]
        for name, aval, value in zip(carried, avals, inputs[consts : consts + carries], strict=True):
            self.loops([(math.prod(aval.shape), "k")], [f"{name}[k] = {self.pointer(value)}[k];"])
        self.fresh += 1
        outer, self.turn = self.turn, f"t{self.fresh}"
        self.lines.append(f"  for (int {self.turn} = 0; {self.turn} < {length}; {self.turn}++) {{")
        rows: list[Value] = []
        for value, aval in zip(inputs[consts + carries :], body.in_avals[consts + carries :], strict=True):
            at = f"({length - 1} - {self.turn})" if params["reverse"] else self.turn
            if isinstance(value, Known):
                rows.append(Known(value.array[::-1] if params["reverse"] else value.array, length))
            else:
                rows.append(f"({value} + {at} * {math.prod(aval.shape)})")
        results = self.run(body, [*inputs[:consts], *carried, *rows])
        new = [self.array(aval) for aval in avals]  # all before any is overwritten
        for out, value in ((new, results), (carried, new)):
            for name, aval, one in zip(out, avals, value, strict=True):
                self.loops([(math.prod(aval.shape), "k")], [f"{name}[k] = {self.pointer(one)}[k];"])
        self.lines.append("  }")
        self.turn = outer
        return list(carried)


def _bind(equation: Any, arrays: Sequence[Any]) -> list[Any]:
    """Return an operation's results on numbers."""
    found = equation.primitive.bind(*arrays, **equation.params)
    return list(found) if equation.primitive.multiple_results else [found]


def _computed(equation: Any, known: Sequence[Known]) -> list[Known]:
    """Return what is known because all arguments are, for every turn of the loop if one of them changes with it."""
    turns = max(value.turns for value in known) if known else 0
    if not turns:
        return [Known(np.asarray(part)) for part in _bind(equation, [value.array for value in known])]
    rows = [_bind(equation, [v.array[i] if v.turns else v.array for v in known]) for i in range(turns)]
    return [Known(np.stack([np.asarray(part) for part in parts]), turns) for parts in zip(*rows, strict=True)]


def _place(shape: Sequence[int], counters: Sequence[str]) -> str:
    """Return the place of an entry in an array that is laid out row by row."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    terms = [
        counter if stride == 1 else f"{stride} * {counter}" for counter, stride in zip(counters, strides, strict=True)
    ]
    return " + ".join(terms) or "0"


def _number(entry: Any) -> str:
    """Write a number as C reads it."""
    if entry.dtype.kind != "f":
        return str(int(entry))
    if not np.isfinite(entry):
        return "NAN" if np.isnan(entry) else "INFINITY" if entry > 0 else "-INFINITY"
    return f"{float(entry):.9g}"
