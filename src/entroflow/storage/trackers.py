"""Where the rows of a run go besides its tables: TensorBoard if installed, Weights & Biases if asked for."""

import math
import secrets
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .. import checks

POSITION = ("seed", "step", "seconds")  # where a value belongs, not a value


class _TensorBoard:
    """One event file per seed, so that TensorBoard draws a line for each; groups are "train" and "evaluation"."""

    def __init__(self, folder: Path, seeds: Sequence[int], after: int | None):
        from tensorboardX import SummaryWriter

        resumed: dict[str, Any] = {}
        if after is not None:
            resumed = {"purge_step": after + 1, "filename_suffix": f".{after}-{secrets.token_hex(8)}"}
        self._writers = {seed: SummaryWriter(str(folder / f"seed={seed}"), **resumed) for seed in seeds}

    def write(self, group: str, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            for name, value in _values(row).items():
                self._writers[row["seed"]].add_scalar(f"{group}/{name}", value, row["step"])
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


class _WeightsAndBiases:
    """One run with a group of curves per seed; continued where it stopped, if Weights & Biases finds it."""

    def __init__(self, folder: Path, config: Mapping[str, Any]):
        wandb = import_module("wandb")
        name = f"{config['algorithm']} {config['env']}"
        self._run = wandb.init(project="entroflow", name=name, config=dict(config), dir=str(folder), resume="auto")
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self.close = self._run.finish

    def write(self, group: str, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            values = {f"seed={row['seed']}/{group}/{name}": value for name, value in _values(row).items()}
            self._run.log(values | {"step": row["step"]})


Sink = _TensorBoard | _WeightsAndBiases


def open_sinks(folder: Path, config: Mapping[str, Any], *, wandb: bool = False, after: int | None = None) -> list[Sink]:
    """Open what is installed; of a run that goes on, TensorBoard hides older values of steps beyond `after`."""
    if wandb and find_spec("wandb") is None:
        remedy = f"{checks.install('wandb')}, or go without"
        raise checks.error("wandb", "True without the package wandb", "the package", remedy)
    sinks: list[Sink] = [_WeightsAndBiases(folder, config)] if wandb else []
    if find_spec("tensorboardX") is not None:
        sinks.insert(0, _TensorBoard(folder / "tensorboard", config["seeds"], after))
    return sinks


def _values(row: Mapping[str, Any]) -> dict[str, float]:
    """Return what is to be drawn: empty fields and NaN are left out."""
    given = {name: float(value) for name, value in row.items() if name not in POSITION and value is not None}
    return {name: value for name, value in given.items() if not math.isnan(value)}
