"""Print the table of wide critics in history.md: python -m experiments.mujoco.wide."""

from pathlib import Path

from .. import frame
from .long import TASKS

STEP = 9_000
RUNS = {
    "1024": "SAC-ISFM, 1024 wide",
    "1024-tame": "the same, the last layer's steps a fortieth as long",
    "2048": "SAC-ISFM, 2048 wide",
    "2048-highest": "the same, products of matrices at the highest precision",
    "2048-epsilon": "the same as 2048, `critic_epsilon=1e-3`",
    "2048-rate": "the same as 2048, `critic_rate=3e-4`",
    "2048-gaussian": "Gaussian SAC, 2048 wide",
}


def table(folder: Path = Path(__file__).parent / "wide") -> str:
    """Return in Markdown what critics say after 4,000 updates and at the end: means over seeds [lowest, highest]."""
    lines = []
    for short, task in TASKS.items():
        for name, told in RUNS.items():
            path = folder / f"{short}-{name}" / "metrics.csv"
            if path.exists():
                rows = frame.read_rows(path)
                end = max(int(row["step"]) for row in rows)
                found = {step: [row for row in rows if int(row["step"]) == step] for step in (STEP, end)}
                cells = [
                    frame.told([float(row[key]) for row in found[step]], "{:.3g}").removesuffix(" (one seed)")
                    for step, key in ((STEP, "q"), (STEP, "critic_error"), (end, "q"))
                ]
                lines.append([task, told, str(len(found[STEP])), *cells, f"{end:,}"])
    head = ["task", "critics", "seeds", f"mean target after {STEP:,} steps", "error", "mean target at the end", "step"]
    return frame.markdown(head, lines)


if __name__ == "__main__":
    print(table(), end="")
