"""The command line. Nothing heavy is imported before a command runs, so that `--help` answers at once."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class LQRCommand:
    """Train SAC-ISFM on max-entropy LQR, all temperatures and seeds at once, and compare with the exact optimum.

    Writes figures, results.json, metrics.csv and the trained policies into a folder.
    """

    system: str = "coupled"
    """A named system (double_integrator, coupled, unstable, cartpole, mass_spring) or a JSON file."""
    alpha: tuple[float, ...] = (0.1, 0.5, 1.0, 2.0)
    """Temperatures α > 0, the weights of the entropy."""
    seeds: int = 3
    """Number of seeds for every temperature."""
    steps: int = 2500
    """Training steps: in each, every environment makes one step and every run one update."""
    seed: int = 0
    """First seed S; the seeds are S, S+1, …."""
    out: Path = Path("out/lqr")
    """Output folder, new or empty."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; those of the process if not given.

    Returns:
        The exit code: 0 for success, 1 if training broke down, 2 for bad input, 130 after Ctrl-C.
    """
    app = tyro.extras.SubcommandApp()

    @app.command(name="lqr")
    def lqr(command: tyro.conf.OmitArgPrefixes[LQRCommand]) -> int:
        """Train on max-entropy LQR and compare with the exact optimum."""
        from .lqr_study import run

        return run(command)

    @app.command(name="version")
    def version() -> int:
        """Print the version."""
        from importlib.metadata import version

        print(version("entroflow"))
        return 0

    try:
        return app.cli(
            prog="entroflow", description="Maximum-entropy reinforcement learning with flow policies.", args=argv
        )
    except ValueError as problem:
        print(f"entroflow: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("entroflow: stopped", file=sys.stderr)
        return 130
