"""The command line; it imports nothing heavy before it knows what is asked."""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile

from dualgate import __version__

ROWS = 20_000
MIN_ROWS = 1000  # leaves a hundred test rows, and a score of training rows to a cell
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
        0 when finished, 1 where an extra package is missing. Wrong arguments leave through `SystemExit(2)`.
    """
    args = build_parser().parse_args(argv)
    return args.run(args)


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
        help="compare one tower with two on spectra, and say which to use",
        description="Train single towers and all fusions on simulated or given spectra, print their scores, and write "
        "results.json, report.md, report.html and figures with a verdict: continue, marginal, or fall back "
        "to one tower. Files of these names in the output directory are replaced.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    study.add_argument(
        "--rows",
        type=_rows,
        default=argparse.SUPPRESS,
        help=f"spectra per seed, at least {MIN_ROWS} (default: {ROWS:,} simulated ones, or all there are in the files)",
    )
    study.add_argument("--seeds", type=_seeds, default="42,123,456", help="comma-separated seeds, each a full run")
    study.add_argument("--out", type=Path, default=Path("dualgate-study"), help="directory for the report")
    study.add_argument(
        "--data", default="embedded", help="'embedded' to simulate spectra, or a path or pattern of HDF5 shards"
    )
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


def _study(args):
    missing = [name for name in EXTRAS if find_spec(name) is None]
    if missing:
        print(
            f"dualgate study draws figures and progress and needs {' and '.join(EXTRAS)}; missing: "
            f'{", ".join(missing)}. Install them with: pip install "dualgate[study]"',
            file=sys.stderr,
        )
        return 1
    try:
        args.out.mkdir(parents=True, exist_ok=True)  # now, not after minutes of work
        with TemporaryFile(dir=args.out):
            pass
    except OSError as error:
        args.parser.error(f"argument --out: {args.out} must be a directory that can be written: {error.strerror}.")
    rows = getattr(args, "rows", ROWS if args.data == "embedded" else None)
    if args.data != "embedded":
        _check_shards(args, rows)
    from dualgate.study.command import run

    try:
        run(rows, args.seeds, args.out, args.data)
    except KeyboardInterrupt:
        print("dualgate study was interrupted; nothing has been written.", file=sys.stderr)
        return 130
    return 0


def _check_shards(args, rows):
    """Open the shards once, so that what is wrong with them is said now and in one line."""
    from dualgate.datasets import open_spectra

    try:
        found = len(open_spectra(args.data, stop=rows).y)
    except (OSError, ValueError, ImportError) as error:
        args.parser.error(f"argument --data: {error}")
    if found < MIN_ROWS:
        args.parser.error(f"argument --data: {args.data!r} holds {found} spectra, the study needs {MIN_ROWS} or more.")
