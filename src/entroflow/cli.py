"""The command line: a table from commands to functions. Nothing heavy is imported before a command runs."""

import gc
import os
import sys
from importlib import import_module
from importlib.metadata import version

import tyro

from . import options

# Each command with its options and with the function, module:name, that does what they say and returns the exit code.
COMMANDS = {
    "lqr": (options.LQROptions, "entroflow.commands.lqr.start:run"),
    "train": (options.TrainOptions, "entroflow.commands.train:train"),
    "resume": (options.ResumeOptions, "entroflow.commands.resume:resume"),
    "eval": (options.EvalOptions, "entroflow.commands.play:evaluate"),
    "watch": (options.WatchOptions, "entroflow.commands.play:watch"),
    "export": (options.ExportOptions, "entroflow.commands.play:export"),
    "compare": (options.CompareOptions, "entroflow.commands.compare:run"),
    "sweep": (options.SweepOptions, "entroflow.commands.sweep:sweep"),
    "settings": (options.SettingsOptions, "entroflow.commands.settings:show"),
    "version": (options.VersionOptions, "entroflow.cli:print_version"),
}


def print_version(_: options.VersionOptions) -> int:
    """Print the version; return the exit code."""
    print(version("entroflow"))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command line, with the arguments of the process if none are given, without the program's name.

    The exit code is 0 for success, 1 if training broke down, 2 for bad input, 130 after Ctrl-C, 141 if nobody reads the
    output, 143 after SIGTERM.
    """
    options.readable()
    gc.set_threshold(50_000)  # modules stay: looking through what they make takes a tenth of the time to import them
    try:
        options.refuse_repeats(sys.argv[1:] if argv is None else argv)
        chosen = tyro.extras.subcommand_cli_from_dict(
            {name: kind for name, (kind, _) in COMMANDS.items()},
            prog="entroflow",
            description="Maximum-entropy reinforcement learning with flow policies.",
            args=argv,
        )
        options.check(chosen)
        if sys.stderr.isatty() and not isinstance(chosen, options.VersionOptions):
            print("entroflow: starting", file=sys.stderr, flush=True)  # what follows takes seconds to import
        module, function = next(place for kind, place in COMMANDS.values() if kind is type(chosen)).split(":")
        return getattr(import_module(module), function)(chosen)
    except (ValueError, FloatingPointError) as problem:
        print(f"entroflow: {problem}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would complain once more at its end
        return 141
    except OSError as problem:  # a name that is too long, a folder of somebody else's
        from . import checks

        given, expected = f"'{problem.strerror or problem}' from the system", "a file or folder to work with"
        place, remedy = f"{problem.filename}", "pass another one"
        if problem.filename is None:
            place, expected, remedy = "output", "a place to write to", "look where it goes, and for room there"
        print(f"entroflow: {checks.error(place, given, expected, remedy)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("entroflow: stopped", file=sys.stderr)
        return 130
