"""The search of settings: Optuna suggests them, ASHA stops those that do worse than others."""

import math
from typing import Any, get_args, get_type_hints

import optuna
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from .study import Search, Study


def space(study: Study) -> dict[str, Any]:
    """Return the ranges as Ray has them; whole numbers where both ends are, and the setting is."""
    from ..agents.settings import single
    from .trial import settings_of

    fields = single(settings_of(study.trials[0]))
    found: dict[str, Any] = {}
    for name, given in study.ranges.items():
        if isinstance(given, list):
            found[name] = tune.choice(given)
            continue
        low, high, log = given["from"], given["to"], given.get("log", False)
        _, level, field = fields[name]
        hint = get_type_hints(type(level))[field.name]
        if isinstance(low, int) and isinstance(high, int) and float not in (hint, *get_args(hint)):
            found[name] = tune.lograndint(low, high + 1) if log else tune.randint(low, high + 1)
        else:
            found[name] = tune.loguniform(low, high) if log else tune.uniform(low, high)
    return found


def searched(search: Search, steps: int, every: int) -> dict[str, Any]:
    """Return the options of a tuner that searches, by trials of so many steps, evaluated `every` so many."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    high: dict[str, Any] = {"metric": "score", "mode": "max"}
    how: dict[str, Any] = {"search_alg": OptunaSearch(seed=search.seed, **high), "num_samples": search.trials}
    if search.hours is not None:
        how["time_budget_s"] = math.ceil(3600 * search.hours)
    if search.early_stopping:
        first = min(steps, max(every, steps // 16))  # no trial is stopped before
        how["scheduler"] = ASHAScheduler(time_attr="step", max_t=steps, grace_period=first, reduction_factor=4, **high)
    return how
