"""The command resume: a training, or a job of lqr, from its last checkpoint."""

from typing import Any

from .. import checks
from ..options import LQROptions, ResumeOptions
from ..storage import records
from ..storage.keeping import read_plan
from . import train


def resume(options: ResumeOptions) -> int:
    """Go on with what stands in a folder; return the exit code. A `ValueError` says why that cannot be."""
    plan = read_plan(options.folder)
    if plan is None:
        config = records.read_config(options.folder)
        if options.task is None:
            return train.go_on(options.folder, config, options.steps)
        records.begun(options.folder, {"env": options.task}, True, ("folder", "--task", ""), "")
        from ..agents.tasks import task

        return train.go_on(options.folder, config, options.steps, task(options.task))
    place = str(options.folder / records.CONFIG)
    if given := [name for name in ("steps", "task") if getattr(options, name) is not None]:
        told, remedy = f"{getattr(options, given[0])}", "leave it out, or begin anew in another folder"
        raise checks.error(f"--{given[0]}", told, "none: a study has a plan, which tells all", remedy)
    if plan["command"] != "lqr" or not isinstance(facts := plan.get("facts"), dict):
        expected, remedy = "a training or a study of lqr", "go on with the command that began it"
        raise checks.error(place, f"a study of {plan['command']!r}", expected, remedy)
    from .lqr.start import run

    try:
        known: dict[str, Any] = dict(plan["options"])
        known["temperature"] = tuple(known.pop("alpha", None) or known["temperature"])  # alpha: in earlier versions
        begun = LQROptions(**known, out=options.folder)
    except (KeyError, TypeError, ValueError) as problem:
        given, remedy = f"fields that do not fit ({problem})", "restore the file, or begin anew"
        raise checks.error(place, given, "the options of a study", remedy) from None
    return run(begun, facts)
