"""Functions in two stages: what depends on their first argument alone, computed once, and the rest, in every call.

Of a network that is asked again and again it is the layout of its weights, and all that it makes of constants.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.api_util import debug_info
from jax.extend import linear_util
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun
from jax.interpreters import partial_eval
from jaxtyping import Array


@functools.partial(jax.tree_util.register_dataclass, data_fields=["leaves"], meta_fields=["rest"])
@dataclass(frozen=True)
class Ready:
    """A function whose first stage is done; call it with the arguments that were left open.

    As an argument of a compiled function it is quick to take apart: modules take a tenth of a millisecond.

    Attributes:
        leaves: results of the first stage.
        rest: the second stage, a program that reads them, then the open arguments.
    """

    leaves: list[Array]
    rest: Jaxpr

    def __call__(self, *arguments: Array) -> Array:
        """Return the function's value; arguments are brought to the examples' types."""
        constants = len(self.rest.constvars)  # JAX 0.10 reads all leaves as constants, 0.11 as first arguments
        first, bound = self.leaves[constants:], self.leaves[:constants]
        types: list[Any] = [variable.aval for variable in self.rest.invars[len(first) :]]
        typed = [jax.lax.convert_element_type(part, kind.dtype) for part, kind in zip(arguments, types, strict=True)]
        return jaxpr_as_fun(ClosedJaxpr(self.rest, bound))(*first, *typed)[0]


def in_advance(function: Callable[..., Array], known: Any, *examples: Array) -> Ready:
    """Do the first stage of `function(known, *arguments)`.

    Args:
        function: what returns one array.
        known: its first argument, a tree of arrays.
        examples: arrays of the shapes and types of the others, whose values are not read.

    Returns:
        The function of the others.
    """
    leaves, structure = jax.tree.flatten(known)

    def flat(*arguments: Array) -> list[Array]:
        return [function(jax.tree.unflatten(structure, arguments[: len(leaves)]), *arguments[len(leaves) :])]

    given = [partial_eval.PartialVal.known(leaf) for leaf in leaves]
    given += [partial_eval.PartialVal.unknown(jax.typeof(example)) for example in examples]
    wrapped = linear_util.wrap_init(flat, debug_info=debug_info("in_advance", function, (known, *examples), {}))
    rest, _, found = partial_eval.trace_to_jaxpr_nounits(wrapped, given, instantiate=True)
    return Ready(list(found), rest)
