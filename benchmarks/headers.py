"""Latency of policies as C headers: processor time of one action, compiled by gcc -O2, in float and in double.

    python -m benchmarks.headers --out benchmarks

It writes headers.json and headers.md. onnxruntime's and the library's own calls are in the part `export`.
"""

import functools
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp

from entroflow import checks
from entroflow.commands.lqr.plan import settings as lqr_settings
from entroflow.export import programs as export
from entroflow.flow import RungeKutta, Unbounded
from entroflow.rl import sac
from entroflow.storage.tables import replace
from experiments import frame

from .exported import program

COMPILER = ["gcc", "-std=c99", "-O2"]
# What is measured: the fastest of many groups of calls, since other processes cost cache.
SOURCE = """
#include <stdio.h>
#include <time.h>
#include "policy.h"
int main(void) {
  static policy_real obs[policy_obs_size], noise[policy_noise_size], action[policy_action_size], log_prob[1];
  double best = 1e9, sum = 0;
  for (int i = 0; i < policy_obs_size; i++) obs[i] = (policy_real)(0.1 * i);
  for (int group = 0; group < GROUPS; group++) {
    const clock_t begun = clock();
    for (int call = 0; call < CALLS; call++) {
      noise[0] = (policy_real)(0.001 * call);
      policy_act(obs, noise, action, log_prob);
      sum += (double)action[0];
    }
    const double seconds = (double)(clock() - begun) / CLOCKS_PER_SEC / CALLS;
    best = seconds < best ? seconds : best;
  }
  printf("%.9g %g\\n", best, sum);
  return 0;
}
"""


@dataclass(frozen=True)
class Options:
    """What can be chosen."""

    out: Path = Path("out/headers")
    """Output folder."""
    groups: int = 50
    """Groups of calls, of which the fastest counts."""
    calls: int = 200
    """Calls of a group."""


def of_lqr(algorithm: str, states: int, inputs: int) -> export.Program:
    """Return the policy that `entroflow lqr` trains, untrained."""
    config = lqr_settings(1, algorithm=algorithm)
    numbers = {"temperature": jnp.float32(0.2), "discount": jnp.float32(0.9)}
    state = sac.init(config, jax.random.key(0), obs_size=states, action_space=Unbounded(inputs), **numbers)
    policy = sac.policy(config, state)
    return export.sampling(policy if algorithm == "gaussian_sac" else policy.with_solver(RungeKutta("rk4", 4)))


PROGRAMS = {
    "LQR, 2 states, 1 input": functools.partial(of_lqr, "sac_isfm", 2, 1),
    "LQR, 12 states, 4 inputs": functools.partial(of_lqr, "sac_isfm", 12, 4),
    "LQR, 12 states, 4 inputs, Gaussian": functools.partial(of_lqr, "gaussian_sac", 12, 4),
    "HalfCheetah-v5": functools.partial(program, "sac_isfm"),
}


def measure(made: export.Program, options: Options) -> frame.Row:
    """Compile and time one policy; return microseconds in float and double, and the bytes of its code and constants."""
    row: frame.Row = {}
    with tempfile.TemporaryDirectory() as folder:
        export.write(Path(folder) / "policy.h", made)
        source, program = Path(folder) / "time.c", Path(folder) / "time"
        source.write_text(SOURCE)
        numbers = [f"-DGROUPS={options.groups}", f"-DCALLS={options.calls}"]
        for kind, flags in ("float", []), ("double", ["-DPOLICY_DOUBLE"]):
            subprocess.run([*COMPILER, *numbers, *flags, str(source), "-o", str(program), "-lm"], check=True)
            told = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
            row[kind] = 1e6 * float(told.split()[0])
            row[f"{kind}_bytes"] = int(
                subprocess.run(["size", str(program)], check=True, capture_output=True, text=True).stdout.split()[6]
            )
    return row


def table(found: frame.Row) -> str:
    """Return the times and sizes."""
    heads = ["policy", "float", "double", "program in float", "in double"]
    lines = [
        [
            name,
            *(f"{row[key]:.1f} µs" for key in heads[1:3]),
            *(f"{row[f'{key}_bytes'] / 1024:.0f} kB" for key in heads[1:3]),
        ]
        for name, row in found.items()
    ]
    return frame.markdown(heads, lines)


def run(options: Options) -> int:
    """Do what the options say; return the exit code."""
    for name in ("groups", "calls"):
        checks.positive_int(f"--{name}", getattr(options, name))
    found = {name: measure(make(), options) for name, make in PROGRAMS.items()}
    told = {
        "compiler": subprocess.run(["gcc", "--version"], check=True, capture_output=True, text=True).stdout.split("\n")[
            0
        ]
    }
    replace(options.out / "headers.json", json.dumps(told | {"policies": found}, indent=1) + "\n")
    replace(options.out / "headers.md", table(found))
    print(table(found))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    return frame.read("benchmarks.headers", run, Options, argv)


if __name__ == "__main__":
    sys.exit(main())
