"""The command line; it imports nothing heavy before it knows what is asked."""

import argparse
import os
import shlex
import signal
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile

from dualgate import __version__
from dualgate.study.config import MIN_ROWS, ROWS, ConfigError, StudyConfig, load_config

EXTRAS = ("matplotlib", "rich")


def main(argv: list[str] | None = None) -> int:
    """Run the command `dualgate`.

    Parameters
    ----------
    argv : list of str, default=None
        Arguments without the program's name; None reads the command line.

    Returns
    -------
    code : int
        0 when finished, 1 where an extra package is missing, a stage's file is damaged or nobody reads the output, 130
        when interrupted. Wrong arguments leave through `SystemExit(2)`.
    """
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser().parse_args(argv)
    try:
        typed = sys.argv[0] if Path(sys.argv[0]).stem == "dualgate" else "dualgate"  # its path where there is one
        code = args.run(args, shlex.join([typed, *argv]))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes what is left when it ends
        return 1
    return code


class Interrupts:
    """Context that Ctrl-C leaves as KeyboardInterrupt, whatever was made of it inside.

    Compiled code and modules that are half imported raise errors of their own when they are interrupted.
    """

    def __enter__(self):
        self._came, self._former = False, signal.getsignal(signal.SIGINT)
        self._ours = callable(self._former) and threading.current_thread() is threading.main_thread()
        if self._ours:
            signal.signal(signal.SIGINT, self._remember)
        return self

    def __exit__(self, kind, error, traceback):
        if self._ours:
            signal.signal(signal.SIGINT, self._former)
        if self._came and kind is not None:
            raise KeyboardInterrupt from error

    def _remember(self, number, frame):
        self._came = True
        raise KeyboardInterrupt


def build_parser() -> argparse.ArgumentParser:
    """Arguments of `dualgate` and of its commands."""
    parser = argparse.ArgumentParser(
        prog="dualgate",
        description="Dual-tower mixtures of experts for measurements that know their own quality.",
    )
    parser.add_argument("--version", action="version", version=f"dualgate {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    study = commands.add_parser(
        "study",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,  # only what is given overrides the file
        help="compare one tower with two on spectra, and say which to use",
        description="Train single towers and all fusions on simulated or given spectra, print their scores, and write "
        "results.json, results.csv, report.md, report.html and figures with a verdict: continue, marginal, or fall "
        "back to one tower. Files of these names in the output directory are replaced. A run that was interrupted "
        "goes on from its finished stages when it is started again.",
    )
    defaults = StudyConfig()
    study.add_argument("--config", metavar="FILE", help="TOML file; flags override what it says")
    study.add_argument(
        "--rows",
        type=_rows,
        help=f"spectra per seed, at least {MIN_ROWS} (default: {ROWS:,} simulated ones, or all there are in the files)",
    )
    study.add_argument(
        "--seeds",
        type=_seeds,
        help=f"comma-separated seeds, each a full run (default: {','.join(map(str, defaults.seeds))})",
    )
    study.add_argument("--out", help=f"directory for the report and the stages (default: {defaults.out})")
    study.add_argument(
        "--data",
        help="'embedded' to simulate spectra, a path or pattern of HDF5 shards, or a table (.npz, .npy, .csv, "
        ".parquet) whose columns --config names (default: embedded)",
    )
    study.add_argument(
        "--methods",
        type=lambda text: [name.strip() for name in text.split(",")],
        help="comma-separated methods or groups, as --list names them (default: main)",
    )
    study.add_argument("--full", action="store_true", help="run every method there is")
    study.add_argument("--list", action="store_true", help="name every method and stop")
    study.set_defaults(run=_study, parser=study)
    return parser


def _rows(text):
    try:
        rows = int(text.replace("_", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be an integer. Try 20000.") from None
    if rows < MIN_ROWS:
        raise argparse.ArgumentTypeError(
            f"{rows} must be at least {MIN_ROWS}: a tenth of the rows is for the test, in four SNR bins. Try 20000."
        )
    return rows


def _seeds(text):
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be integers with commas between. Try 42,123,456.") from None
    if min(seeds) < 0 or max(seeds) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} must lie from 0 to 2**32 - 1. Try 42,123,456.")
    if len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"{text!r} names a seed twice: it would only repeat itself.")
    return seeds


def _study(args, line):
    if "list" in args:
        from dualgate.study.listing import list_methods

        print(list_methods())
        return 0
    missing = [name for name in EXTRAS if find_spec(name) is None]
    if missing:
        print(
            f"dualgate study draws figures and progress and needs {' and '.join(EXTRAS)}; missing: "
            f'{", ".join(missing)}. Install them with: pip install "dualgate[study]"',
            file=sys.stderr,
        )
        return 1
    if "full" in args and "methods" in args:
        args.parser.error("argument --full: runs every method, it cannot be given with --methods.")
    try:
        config = load_config(getattr(args, "config", None), _flags(args))
        _make_directory(config.out, args.parser)
        return _run(config, line)
    except ConfigError as error:
        args.parser.error(str(error))


def _run(config, line):
    run = None
    try:
        with Interrupts():
            from dualgate.study.command import StudyRun

            run = StudyRun(config)
            run()
    except KeyboardInterrupt:
        print(_interrupted(run, line), file=sys.stderr)
        return 130
    except RuntimeError as error:
        from dualgate.study.stages import StageError

        if not isinstance(error, StageError):
            raise
        print(error, file=sys.stderr)
        return 1
    return 0


def _flags(args):
    """Return what was given on the command line, nested as the file."""
    flags = {name: getattr(args, name) for name in ("rows", "seeds", "out", "methods", "full") if name in args}
    if "data" in args:
        flags["data"] = {"source": args.data}
    return flags


def _make_directory(out, parser):
    """Make the output directory now, not after minutes of work."""
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        parser.error(f"argument --out: {out} must be a directory that can be written: {error.strerror}.")


def _interrupted(run, line):
    finished = 0 if run is None else run.n_finished()
    if not finished:
        return "dualgate study was interrupted before a stage was finished; nothing has been written."
    return (
        f"dualgate study was interrupted. {finished} finished stages are in {run.stages.directory}; the same command "
        f"goes on from them:\n  {line}"
    )
