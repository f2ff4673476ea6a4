"""The command sweep: a study on Ray, from its file to its figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from .. import checks
from ..options import SweepOptions
from ..studies.report import STUDY
from ..studies.sweep import FILE
from ..studies.sweep import sweep as run


def sweep(command: SweepOptions) -> int:
    """Run a study or go on with it; return the exit code, 1 if a trial failed. Bad input is a `ValueError`."""
    source: Path | Mapping[str, Any] = command.study
    out = command.out or (command.study if command.study.is_dir() else Path("out") / command.study.stem)
    if command.study.is_dir():
        if not command.resume or command.out not in (None, command.study):
            given = f"the folder {str(command.study)!r}"
            raise checks.error("study", given, "a file, or a study's folder with --resume", "pass the study's file")
        source = command.study / FILE
        if not source.exists():  # begun in Python
            source = checks.json_object(place := command.study / STUDY).get("study", "")
            if not isinstance(source, dict):  # a name would have another file read
                raise checks.error(str(place), "no study", "a study as entroflow wrote it", "pass the study's file")
    found = run(source, out, resume=command.resume, address=command.address, console=Console())
    return int(any(one.state == "failed" for one in found))
