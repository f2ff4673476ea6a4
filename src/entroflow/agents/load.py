"""`entroflow.load`: trained policies from a folder."""

from pathlib import Path
from typing import Any

from .. import checks
from ..storage.checkpoint import CHECKPOINTS

POLICIES = "policies"
AGENT = "agent.json"
BEST, LAST = Path(CHECKPOINTS, "best"), Path(CHECKPOINTS, "last")


def policy_folder(alpha: float, seed: int) -> str:
    """Return where a run's policy lies inside of an output folder."""
    return f"{POLICIES}/alpha={str(float(alpha)).removesuffix('.0')}_seed={seed}"


def load(folder: str | Path, *, alpha: float | None = None, seed: int | None = None) -> Any:
    """Load a trained policy, or an agent.

    Args:
        folder: the folder of one policy, or the output folder of `entroflow lqr`; or the folder of an agent that
            `.save` wrote, or of `entroflow train`, whose last checkpoint is taken.
        alpha: temperature of the policy wanted; not needed where there is only one.
        seed: its seed, likewise. The seeds of `entroflow lqr --seed S` are S, S+1, ….

    Returns:
        Of LQR, an `Agent` with `.sample(obs, n, seed)`, `.log_prob(obs, action)` and
        `.sample_and_log_prob(obs, n, seed)`; otherwise a `SACISFM`, `GaussianSAC` or `DenoisingSAC`.

    Raises:
        ValueError: if there is no such policy, or not exactly one, or its files are damaged.
    """
    from ..storage.policies import HEADER, load_policy
    from .policy_agent import Agent

    folder = Path(folder)
    if (folder / AGENT).exists() or (folder / LAST).exists():
        return _load_agent(folder, seed)
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


def _load_agent(folder: Path, seed: int | None) -> Any:
    """Load an agent from its folder or from that of its training."""
    from .learner import load_agent

    if (folder / AGENT).exists():
        return load_agent(folder)
    agents = {path.name: path for path in sorted((folder / LAST).glob("seed=*"))}
    chosen = list(agents) if seed is None else [f"seed={seed}"]
    if len(chosen) != 1 or chosen[0] not in agents:
        given = f"seed={seed}" + (", where there are several" if seed is None else ", which is not there")
        raise checks.error("agent", given, f"one of: {', '.join(agents)}", "pass its seed=")
    return load_agent(agents[chosen[0]])
