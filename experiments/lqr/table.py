"""Print the README's table from the results.json files beside this script: python experiments/lqr/table.py."""

import json
from pathlib import Path

import numpy as np

COLUMNS = ("system", "α", "mean error", "covariance error", "return", "optimal", "worst gap", "entropy", "optimal")

print("| " + " | ".join(COLUMNS) + " |")
print("|" + "---|" * len(COLUMNS))
for path in sorted(Path(__file__).parent.glob("*/results.json")):
    document = json.loads(path.read_text(encoding="utf-8"))
    for alpha in dict.fromkeys(run["alpha"] for run in document["runs"]):
        runs = [run for run in document["runs"] if run["alpha"] == alpha]
        values = {name: np.array([run[name] for run in runs]) for name in runs[0] if name != "policy"}
        errors = [values[name] for name in ("mean_error_relative", "covariance_error_relative")]
        gaps = 1 - values["standard_return"] / values["optimal_standard_return"]
        numbers = [
            *[f"{error.mean():.1%} ({error.max():.1%})" for error in errors],
            f"{values['standard_return'].mean():.3f}",
            f"{values['optimal_standard_return'].mean():.3f}",
            f"{gaps[np.abs(gaps).argmax()]:+.2%}",
            f"{values['entropy'].mean():.3f}",
            f"{values['optimal_entropy'].mean():.3f}",
        ]
        print(f"| `{document['system']['name']}` | {alpha:g} | " + " | ".join(numbers) + " |")
