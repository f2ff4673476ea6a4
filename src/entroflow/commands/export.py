"""The command export: a trained policy as one file that runs without this library."""

from .. import checks
from ..agents.load import load
from ..agents.policy_agent import Agent
from ..export import acting, sampling, write
from ..options import ExportOptions


def run(options: ExportOptions) -> int:
    """Do what `entroflow export` says; return the exit code.

    Raises:
        ValueError: for bad input.
    """
    agent = load(options.folder, alpha=options.alpha, seed=options.seed)
    if not isinstance(agent, Agent):
        program = acting(agent.config, agent.state, options.best_of)
    elif options.best_of == 1:
        program = sampling(agent.policy)
    else:
        given = f"{options.best_of} for a policy of entroflow lqr"
        raise checks.error("--best-of", given, "1", "its critic is not saved: draw from the policy")
    path = write(options.out, program)
    inputs = f"obs (batch, {program.obs_size}), noise (batch, {', '.join(map(str, program.noise_shape))})"
    print(f"{path}: {inputs} -> {', '.join(program.outputs)}")
    return 0
