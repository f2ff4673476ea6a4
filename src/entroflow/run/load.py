"""`entroflow.load`: trained policies from a folder."""

from pathlib import Path
from typing import Any

from .. import checks

POLICIES = "policies"


def policy_folder(alpha: float, seed: int) -> str:
    """Return where a run's policy lies inside of an output folder."""
    return f"{POLICIES}/alpha={str(float(alpha)).removesuffix('.0')}_seed={seed}"


def load(folder: str | Path, *, alpha: float | None = None, seed: int | None = None) -> Any:
    """Load a trained policy.

    Args:
        folder: the folder of one policy, or the output folder of `entroflow lqr`.
        alpha: temperature of the policy wanted; not needed where there is only one.
        seed: its seed, likewise. The seeds of `entroflow lqr --seed S` are S, S+1, ….

    Returns:
        An `Agent` with `.sample(obs, n, seed)`, `.log_prob(obs, action)` and `.sample_and_log_prob(obs, n, seed)`.

    Raises:
        ValueError: if there is no such policy, or not exactly one, or its files are damaged.
    """
    from .agent import Agent
    from .artifacts import HEADER, load_policy

    folder = Path(folder)
    found = [path.parent for path in sorted(folder.glob(f"{POLICIES}/*/{HEADER}"))]
    if (folder / HEADER).exists():
        found = [folder]
    if not found:
        expected = "the folder of a policy or an output folder of entroflow lqr"
        raise checks.error("folder", f"{str(folder)!r}, which holds no policy", expected, "check the path")
    headers = {path: checks.json_object(path / HEADER) for path in found}
    chosen = [
        path
        for path, header in headers.items()
        if (alpha is None or header.get("temperature") == alpha) and (seed is None or header.get("seed") == seed)
    ]
    if len(chosen) != 1:
        have = ", ".join(f"alpha={h.get('temperature')} seed={h.get('seed')}" for h in headers.values())
        given = f"alpha={alpha}, seed={seed}, which {'no policy has' if not chosen else 'several policies have'}"
        raise checks.error("policy", given, f"one of: {have}", "pass both alpha= and seed=")
    return Agent(*load_policy(chosen[0]))
