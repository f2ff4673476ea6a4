"""System files as people write them and as nobody should: what the reader says of each.

python -m experiments.hostile.system_files            # 300 files; writes system_files.csv and system_files.md here
"""

import csv
import functools
import io
import json
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from entroflow import cli
from entroflow.lqr import LQR

from .. import frame

EACH = 10  # files of a kind
SLOW = 30.0  # seconds; the first file waits for JAX
HERE = Path(__file__).parent
Draw = np.random.Generator
System = dict[str, Any]


class Case(NamedTuple):
    """A file, and what is to be said of it: a word of the refusal, or "accepted"."""

    kind: str
    content: bytes
    verdict: str


def system(rng: Draw, n: int = 0, d: int = 0) -> System:
    """Return a system of an engineer: sampled, coupled, perhaps unstable, every state reached and of some cost."""
    n, d = n or int(rng.integers(1, 5)), d or int(rng.integers(1, 3))
    A = rng.normal(size=(n, n))
    A *= rng.uniform(0.3, 1.2) / np.abs(np.linalg.eigvals(A)).max()
    Q, R, W, X = (root @ root.T + 0.1 * np.eye(len(root)) for root in (rng.normal(size=(k, k)) for k in (n, d, n, n)))
    matrices = dict(A=A, B=rng.normal(size=(n, d)), Q=Q, R=R, noise_cov=W, initial_cov=X)
    return {key: matrix.tolist() for key, matrix in matrices.items()} | {"discount": float(rng.uniform(0.5, 0.99))}


def in_units(rng: Draw, given: System, decades: float = 8.0) -> System:
    """Count every state, action and the reward in a unit of its own."""
    A, B, Q, R, W, X = (np.array(given[key]) for key in ("A", "B", "Q", "R", "noise_cov", "initial_cov"))
    x, u = (10 ** rng.uniform(-decades, decades, size) for size in B.shape)
    c, states = 10 ** rng.uniform(-decades, decades), np.outer(x, x)
    matrices = dict(A=A * x / x[:, None], B=B * u / x[:, None], Q=Q * states / c, R=R * np.outer(u, u) / c)
    matrices |= dict(noise_cov=W / states, initial_cov=X / states)
    return given | {key: matrix.tolist() for key, matrix in matrices.items()}


def hidden(rng: Draw, what: str) -> System:
    """Return a system with a growing mode that no action reaches ("B"), or that costs nothing ("Q")."""
    given = system(rng, n=3)
    A, B, Q = np.array(given["A"]), np.array(given["B"]), np.array(given["Q"])
    A[2] = [0.0, 0.0, 1.3] if what == "B" else A[2]
    A[:, 2] = [0.0, 0.0, 1.3] if what == "Q" else A[:, 2]
    if what == "B":
        B[2] = 0.0
    else:
        Q[2] = Q[:, 2] = 0.0
    return given | {"A": A.tolist(), "B": B.tolist(), "Q": Q.tolist(), "discount": 0.9}


def change(rng: Draw, value: Callable[[Draw], Any], keys: str = "A B Q R noise_cov initial_cov discount") -> System:
    """Put a value in place of a field."""
    return system(rng) | {str(rng.choice(keys.split())): value(rng)}


def entry(rng: Draw, value: Any, keys: str = "A B Q R noise_cov initial_cov") -> System:
    """Put a value in place of a number of a matrix."""
    given = system(rng)
    key = str(rng.choice(keys.split()))
    rows = [list(row) for row in given[key]]
    rows[int(rng.integers(len(rows)))][-1] = value
    return given | {key: rows}


def without(rng: Draw) -> System:
    """Leave a key out."""
    given = system(rng)
    del given[str(rng.choice(list(given)))]
    return given


def named(matrix: str, sign: float) -> Callable[[Draw], System]:
    """Return systems with a matrix of a wrong sign, in any units."""
    return lambda rng: in_units(rng, (given := system(rng)) | {matrix: (sign * np.array(given[matrix])).tolist()})


def asymmetric(rng: Draw) -> System:
    """Spoil the symmetry of a cost or covariance."""
    given, key = system(rng, n=3, d=2), str(rng.choice(["Q", "R", "noise_cov", "initial_cov"]))
    given[key][0][1] += 1.0
    return in_units(rng, given)


KINDS: dict[str, tuple[Callable[[Draw], System | bytes], str]] = {
    "everyday": (system, "accepted"),
    "units 1e±8": (lambda rng: in_units(rng, system(rng)), "accepted"),
    "eight states": (lambda rng: system(rng, n=8, d=3), "accepted"),
    "whole numbers": (lambda rng: {**system(rng, 1, 1), "A": [[1]], "Q": [[1]], "R": [[2]], "discount": 0}, "accepted"),
    "costs 1e±12 apart": (lambda rng: entry_cost(rng), "accepted"),
    "no noise": (lambda rng: nothing(rng, "noise_cov", "initial_cov"), "accepted"),
    "a name": (lambda rng: system(rng) | {"name": "мост [bold] 🌉\n"}, "accepted"),
    "out of reach": (lambda rng: in_units(rng, hidden(rng, "B")), "not stabilisable"),
    "without cost": (lambda rng: in_units(rng, hidden(rng, "Q")), "not detectable"),
    "no inputs at all": (lambda rng: nothing(rng, "B", A=1.5), "not stabilisable"),
    "indefinite Q": (named("Q", -1.0), "a positive semidefinite matrix"),
    "indefinite R": (named("R", -1.0), "a positive definite matrix"),
    "free action": (lambda rng: nothing(rng, "R"), "a positive definite matrix"),
    "asymmetric": (asymmetric, "a symmetric matrix"),
    "a key too few": (without, "system: got no"),
    "a key too many": (lambda rng: system(rng) | {"gamma": 0.9}, "unknown key"),
    "wrong shapes": (lambda rng: change(rng, lambda rng: rng.normal(size=(5, 6)).tolist(), "A Q R noise_cov"), "shape"),
    "ragged rows": (lambda rng: change(rng, lambda _: [[1.0, 2.0], [3.0]], "A B Q R noise_cov"), "unequal length"),
    "a vector": (lambda rng: change(rng, lambda _: [1.0, 2.0], "A B Q R initial_cov"), "shape"),
    "nested": (lambda rng: change(rng, lambda _: [[[[1.0]]]], "A B Q R"), "shape"),
    "empty": (lambda rng: change(rng, lambda rng: [[], [[]], {}, "", None][rng.integers(5)], "A B Q R"), "expected"),
    "text for a number": (lambda rng: entry(rng, "1.0"), "an entry of"),
    "null or true": (lambda rng: entry(rng, [None, True][rng.integers(2)]), "an entry of"),
    "NaN": (lambda rng: entry(rng, [np.nan, np.inf, -np.inf][rng.integers(3)]), "finite numbers"),
    "huge": (lambda rng: entry(rng, float(f"{'-' * int(rng.integers(2))}1e{rng.integers(160, 308)}"), "A B"), ""),
    "more digits than a number has": (lambda rng: entry(rng, 10**400), "expected"),
    "discount": (lambda rng: change(rng, lambda rng: [1, "0.9", None, [0.9]][rng.integers(4)], "discount"), "discount"),
    "cut short": (lambda rng: (text := json.dumps(system(rng)).encode())[: rng.integers(len(text))], "malformed JSON"),
    "no object": (lambda rng: [b"", b"[]", b"3", b"null", b'"A"', b"\xff\xfe\x00"][rng.integers(6)], "expected"),
    "deep": (lambda rng: b"[" * int(rng.integers(1000, 200_000)), "expected"),
}  # fmt: skip


def entry_cost(rng: Draw) -> System:
    """Return costs that are far apart."""
    given = system(rng, n=2, d=2)
    Q, R = (np.diag([1.0, 10 ** rng.uniform(-12, 12)]).tolist() for _ in range(2))
    return given | {"Q": Q, "R": R, "B": np.eye(2).tolist()}


def nothing(rng: Draw, *keys: str, A: float | None = None) -> System:
    """Return a system with some matrices zero."""
    given = system(rng, n=2) if A is None else system(rng, n=1) | {"A": [[A]], "discount": 0.9}
    return given | {key: np.zeros_like(given[key]).tolist() for key in keys}


def cases(each: int = EACH) -> Iterator[Case]:
    """Draw the files."""
    for place, (kind, (make, verdict)) in enumerate(KINDS.items()):
        for number in range(each):
            made = make(np.random.default_rng([place, number]))
            yield Case(kind, made if isinstance(made, bytes) else json.dumps(made).encode(), verdict)


def read(path: Path) -> str:
    """Return what the reader and, of a bad file, the command say."""
    try:
        optimum = LQR.from_json(path).optimal(0.5)
    except ValueError as refusal:
        said, stderr = f"{path}: {str(refusal).removeprefix(f'{path}: ')}", sys.stderr
        sys.stderr = io.StringIO()
        try:
            code = cli.main(["lqr", "--system", str(path), "--steps", "1", "--out", str(path.parent / "out")])
            heard = sys.stderr.getvalue()
        finally:
            sys.stderr = stderr
        return said if code == 2 and "Traceback" not in heard else f"the command: {code}, {heard}"
    finite = np.isfinite(optimum.K).all() and np.isfinite(optimum.covariance).all()
    return "accepted" if finite and np.isfinite(optimum.standard_return) else "numbers that are not finite"


def judge(case: Case, path: Path) -> dict[str, Any]:
    """Read one file; "" as verdict accepts any sentence."""
    path.write_bytes(case.content)
    begun = time.perf_counter()
    try:
        said = read(path)
    except Exception:
        said = f"TRACEBACK {traceback.format_exc().splitlines()[-1]}"
    slow = time.perf_counter() - begun > SLOW
    one_sentence = said == "accepted" or (said.startswith(f"{path}: ") and "\n" not in said)
    fault = "traceback" if "TRACEBACK" in said else "slow" if slow else ""
    if not fault and not (one_sentence and case.verdict in said):
        fault = "verdict"
    return {"kind": case.kind, "expected": case.verdict, "said": said.replace(str(path), "FILE")[:160], "fault": fault}


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table: files and faults of each kind."""
    files, faults = (Counter(row["kind"] for row in part) for part in (rows, [row for row in rows if row["fault"]]))
    words = {row["kind"]: row["expected"] or "one sentence, or accepted" for row in rows}
    lines = [[kind, words[kind], str(files[kind]), str(faults[kind])] for kind in files]
    total = ["all", "", str(sum(files.values())), str(sum(faults.values()))]
    return frame.markdown(["kind", "what is to be said", "files", "faults"], [*lines, total])


def main() -> int:
    """Read all files; write what was said."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [*map(functools.partial(judge, path=Path(folder) / "system.json"), cases())]
    with (HERE / "system_files.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    head = (
        "# System files\n\n300 files of `python -m experiments.hostile.system_files`, read by the reader; those that\n"
    )
    head += (
        "it refuses also by `entroflow lqr --system FILE`, which exits with 2. `system_files.csv`: what was said.\n\n"
    )
    (HERE / "system_files.md").write_text(head + table(rows))
    print(table(rows))
    return int(any(row["fault"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
