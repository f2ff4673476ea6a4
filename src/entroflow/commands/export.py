"""The command export: a trained policy as one file that runs without this library."""

from ..agents import load
from ..export import acting, write
from ..options import ExportOptions


def run(options: ExportOptions) -> int:
    """Do what `entroflow export` says; return the exit code."""
    agent = load(options.folder, temperature=options.temperature, seed=options.seed)
    program = acting(agent.config, agent.state, options.best_of)
    path = write(options.out, program)
    inputs = f"obs (batch, {program.obs_size}), noise (batch, {', '.join(map(str, program.noise_shape))})"
    print(f"{path}: {inputs} -> {', '.join(program.outputs)}")
    return 0
