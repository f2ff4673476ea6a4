"""The command resume: a training, or a job of lqr, from its last checkpoint."""

from .. import checks
from ..options import LQROptions, ResumeOptions
from ..storage.keeping import options_of, read_plan
from ..storage.records import CONFIG
from . import train


def resume(options: ResumeOptions) -> int:
    """Go on with what stands in a folder; return the exit code."""
    plan = read_plan(options.folder)
    if plan is None:
        return train.resume(options)
    if options.steps is not None:
        remedy = "leave it out, or begin anew in another folder"
        raise checks.error("--steps", f"{options.steps}", "none: a study's length is part of its plan", remedy)
    if plan["command"] != "lqr" or not isinstance(facts := plan.get("facts"), dict):
        given, expected = f"a study of {plan['command']!r}", "a training or a study of lqr"
        remedy = "go on with the command that began it"
        raise checks.error(str(options.folder / CONFIG), given, expected, remedy)
    from .lqr import job

    given = dict(plan["options"])
    if "alpha" in given:  # as earlier versions called it
        given["temperature"] = given.pop("alpha")
    return job.run(options_of(LQROptions, options.folder, plan | {"options": given}), facts)
