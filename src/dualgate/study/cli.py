"""The command `dualgate study`, from its arguments to its files. Nothing heavy is imported before there is work."""

import argparse
import os
import platform
import shlex
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile

from dualgate import __version__
from dualgate.study.config import MIN_ROWS, ROWS, ConfigError, StudyConfig, load_config

EXTRAS = ("jinja2", "matplotlib", "rich")
PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "skorch", "matplotlib")
AUDIT_ROWS = {False: 1500, True: 5000}  # test rows of the first seed that are audited, at most; whether all is run
TABLE_WIDTH = 140  # where the output is no terminal
FULL_WIDTH, NARROW_COLUMNS = 125, 3  # letters that the whole table takes; columns that are shown where there are fewer
HASH_SHOWN = 16  # digits of a hash that name the directory of stages
SCORES, REPORT = "scores and intervals", "report"  # the stages after those of the seeds
WEIGHTS = defaultdict(lambda: 1, {"rows": 0.05, "reduction": 8, "reduced rows": 3, "limit": 8, "audit": 3, REPORT: 2})


def main(argv: list[str] | None = None) -> int:
    """Run the command `dualgate` with `argv`, or the command line, and return its exit code.

    It is 1 where an extra package is missing, a file cannot be read or written or the output is closed, 130 when
    interrupted.
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


def build_parser() -> argparse.ArgumentParser:
    """Arguments of `dualgate` and of its commands."""
    parser = argparse.ArgumentParser(
        prog="dualgate", description="Dual-tower mixtures of experts for measurements with known errors."
    )
    parser.add_argument("--version", action="version", version=f"dualgate {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    study = commands.add_parser(
        "study",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,  # only what is given overrides the file
        help="compare one tower with two on spectra, and recommend a model",
        description="Train single towers and all fusions on simulated or given spectra, print their scores, and write "
        "results.json, results.csv, report.md, report.html and figures with a verdict: continue, marginal, or fall "
        "back to one tower. Files of these names in the output directory are replaced. A run that was interrupted "
        "continues from its finished stages when it is started again. Stages are pickles, which can run any code when "
        "they are read: use an output directory that you alone write.",
    )
    defaults = StudyConfig()
    study.add_argument("--config", metavar="FILE", help="TOML file; flags override it")
    rows = f"spectra per seed, at least {MIN_ROWS} (default: {ROWS:,} simulated ones, or all there are in the files)"
    study.add_argument("--rows", type=int, help=rows)
    seeds = f"comma-separated seeds, each a full run (default: {','.join(map(str, defaults.seeds))})"
    study.add_argument("--seeds", type=integers, help=seeds)
    study.add_argument("--out", help=f"directory for the report and the stages (default: {defaults.out})")
    data = "'embedded' to simulate spectra, a path or pattern of HDF5 shards, or a table (.npz, .npy, .csv, .parquet) "
    study.add_argument("--data", help=f"{data}whose columns --config names (default: embedded)")
    methods = "comma-separated methods or groups, as --list names them (default: main)"
    study.add_argument("--methods", type=lambda text: [name.strip() for name in text.split(",")], help=methods)
    study.add_argument("--full", action="store_true", help="run every method there is")
    study.add_argument("--list", action="store_true", help="name every method and stop")
    study.set_defaults(run=_study, parser=study)
    return parser


def integers(text):
    """Read integers with commas between; argparse names the function in its message."""
    return [int(part) for part in text.split(",")]


def _study(args, line):
    if "list" in args:
        from dualgate.study.methods import list_methods

        print(list_methods())
        return 0
    missing = [name for name in EXTRAS if find_spec(name) is None]
    if missing:
        words = f"needs {', '.join(EXTRAS)}; missing: {', '.join(missing)}. Install them with"
        print(f'dualgate study draws figures and progress and {words}: pip install "dualgate[study]"', file=sys.stderr)
        return 1
    if "full" in args and "methods" in args:
        args.parser.error("argument --full: runs every method, it cannot be given with --methods.")
    flags = {name: getattr(args, name) for name in ("rows", "seeds", "out", "methods", "full") if name in args}
    flags |= {"data": {"source": args.data}} if "data" in args else {}
    run = None
    try:
        config = load_config(getattr(args, "config", None), flags)
        _make_directory(config.out)
        with interrupts():
            run = StudyRun(config)
            run()
    except ConfigError as error:
        args.parser.error(str(error))
    except KeyboardInterrupt:
        print(f"dualgate study was interrupted. {_what_is_left(run, line)}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except OSError as error:  # a disk that is full, a file that vanished, a directory that may not be written
        print(f"dualgate study was stopped: {error}\n{_what_is_left(run, line)}", file=sys.stderr)
        return 1
    except import_module("dualgate.rows.store").StoreError as error:  # imported only where something was raised
        print(error, file=sys.stderr)
        return 1
    return 0


def _what_is_left(run, line):
    """Say which stages of a run that ended early are finished, and how to continue."""
    finished = 0 if run is None else run.n_finished()
    if not finished:
        return "No stage was finished, nothing has been written."
    return f"{finished} finished stages are in {run.store.directory}; the same command continues from them:\n  {line}"


def _make_directory(out):
    """Make the output directory now, not after minutes of work."""
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ConfigError(f"out = {out!r}: must be a directory that can be written: {error.strerror}") from None


@contextmanager
def interrupts():
    """Leave the block as KeyboardInterrupt on Ctrl-C, also where compiled code or an import raised something else."""
    came, former = [], signal.getsignal(signal.SIGINT)
    ours = callable(former) and threading.current_thread() is threading.main_thread()

    def remember(number, frame):
        came.append(number)
        raise KeyboardInterrupt

    if ours:
        signal.signal(signal.SIGINT, remember)
    try:
        yield
    except BaseException as error:
        if came:
            raise KeyboardInterrupt from error
        raise
    finally:
        if ours:
            signal.signal(signal.SIGINT, former)


# ---- a run of the study ------------------------------------------------------------------------------------


class StudyRun:
    """One run of the study: its rows and methods are chosen and checked, nothing is computed yet."""

    def __init__(self, config: StudyConfig):
        from dualgate.rows.store import Store
        from dualgate.study.inputs import ERRORS, StudyRows
        from dualgate.study.methods import choose_methods
        from dualgate.study.run import plan_stages

        self.config, self.rows = config, StudyRows(config)
        self.rows.check()
        self.methods, self.left_out = choose_methods(("all",) if config.full else config.methods, self.rows.offers)
        audited = ERRORS in self.rows.offers and any(method.gated for method in self.methods)
        self.extras = {"limit_rows": config.limit.rows, "audit_rows": AUDIT_ROWS[config.full] if audited else 0}
        self.plan = plan_stages(self.methods, config.seeds, **self.extras)
        self.hash = stages_hash(config, self.rows.fingerprint())
        self.store = Store(Path(config.out, "stages", self.hash[:HASH_SHOWN]))

    def n_finished(self) -> int:
        """Stages that are finished, in this run or in earlier ones that it continues."""
        return sum(stage.name in self.store for stage in self.plan)

    def __call__(self):
        """Run what is not finished, write the files, print the table, and return the `StudyResults`."""
        from dualgate.study.analysis import StudyScores, analyse
        from dualgate.study.report import write_report
        from dualgate.study.results import StudyResults
        from dualgate.study.run import Stage, pending_stages, run_study

        config, start, n_kept = self.config, time.perf_counter(), self.n_finished()
        last = [Stage(None, kind, kind, kind) for kind in (SCORES, REPORT)]
        with show_progress([*pending_stages(self.plan, self.store), *last], n_kept) as watch:
            records = run_study(
                self.rows.make, config.seeds, self.methods, make_model=self.rows.make_model, store=self.store,
                watch=watch, **self.extras,
            )  # fmt: skip
            with watch(last[0]):
                scores = StudyScores(records, self.methods, config.bootstrap.resamples, config.thresholds)
                analysis = analyse(scores)
            with watch(last[1]):
                results = StudyResults(self._facts(records[0].n_rows, time.perf_counter() - start, n_kept), analysis)
                paths = write_report(results, Path(config.out), scores.by_seed(analysis.best_single))
        _print(results, paths)
        return results

    def _facts(self, n_rows, seconds, n_kept):
        """Describe what was run, on what, and what it took."""
        from dualgate.rows.store import digest
        from dualgate.study.results import RunFacts

        data, surroundings = self.config.data, environment()
        about = {"target": data.target, "unit": None} if data.kind == "table" else {}
        return RunFacts(
            source=data.source, kind=data.kind, rows=n_rows, seeds=self.config.seeds, **about,
            **self.rows.model_sources(), config=self.config.as_dict(), environment=surroundings,
            hash=digest(self.config.as_dict(), surroundings), stages_hash=self.hash, left_out=self.left_out,
            created=datetime.now(UTC).isoformat(timespec="seconds"), total_seconds=seconds, stages_kept=n_kept,
            peak_memory_gib=peak_memory_gib(),
        )  # fmt: skip


def _print(results, paths):
    """Print the table, the verdicts and where the files are."""
    from rich.console import Console
    from rich.table import Table

    from dualgate.study.report import method_table, summary

    console = Console()
    if not console.is_terminal:
        console = Console(width=TABLE_WIDTH)
    narrow, frame = console.width < FULL_WIDTH, method_table(results)
    table = Table(header_style="bold")
    for place, name in enumerate(frame.columns[: NARROW_COLUMNS if narrow else None]):
        table.add_column(name, justify="right" if place else "left", no_wrap=place > 0)
    for row in frame.itertuples(index=False):
        table.add_row(*row[: len(table.columns)])
    console.print(table)
    hint = f"ρ and R² by SNR bin are in report.md, and here in a terminal of {FULL_WIDTH} columns."
    key = "ρ: share of the gain from global ridge to true-regime experts. SNR bins: X ≤ 2, L 2 to 4, M 4 to 7, H > 7."
    lines = [hint if narrow else key]
    lines += [summary(results), *(f"left out: {name}: {reason}" for name, reason in results.run.left_out.items())]
    for line in (*lines, *map(str, paths)):
        console.print(line, highlight=False, markup=False, soft_wrap=line not in lines)


@contextmanager
def show_progress(stages, n_kept=0, console=None):
    """Show stages on stderr: live on a terminal, a line for every stage elsewhere; `n_kept` were finished before.

    Yields a function from a stage to the context to run it in.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = console or Console(stderr=True)
    columns = [BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")]
    bar = Progress(*columns, console=console, disable=not console.is_terminal)
    left, took, n_stages = Counter(stage.kind for stage in stages), defaultdict(list), n_kept + len(stages)
    task = bar.add_task("", total=n_stages, completed=n_kept)

    def write(line):
        if not console.is_terminal:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    def remaining():
        seconds = seconds_left(left, took)
        return f"; about {timedelta(seconds=round(seconds))} left" if seconds else ""

    @contextmanager
    def watch(stage):
        bar.update(task, description=f"{stage.label}{remaining()}")
        start = time.perf_counter()
        yield
        took[stage.kind].append(time.perf_counter() - start)
        left[stage.kind] -= 1
        bar.advance(task)
        n_done = n_stages - left.total()
        write(f"[{n_done}/{n_stages}] {stage.label}, {took[stage.kind][-1]:.1f} s{remaining()}")

    bar.start()
    try:
        yield watch
        bar.update(task, description="done")
        write("done")
    finally:
        bar.live.stop()  # `Progress.stop` writes an empty line where there is no terminal


def seconds_left(left: Counter, took: dict[str, list[float]]) -> float:
    """How long stages take that are left, counted by kind, after others took so many seconds; 0 after none.

    A stage takes what those of its kind took; of a kind that has none, its weight times the seconds a unit took.
    """
    weighed = sum(len(each) * WEIGHTS[kind] for kind, each in took.items())
    unit = sum(map(sum, took.values())) / weighed if weighed else 0.0
    typical = {kind: sum(each) / len(each) for kind, each in took.items()}
    return sum(n_left * typical.get(kind, unit * WEIGHTS[kind]) for kind, n_left in left.items())


# ---- what a result depends on ------------------------------------------------------------------------------


def stages_hash(config: StudyConfig, fingerprint: list) -> str:
    """SHA-256 of what the stages' numbers depend on: rows and what they hold, training, code and versions.

    Where results go, methods and seeds (each has its own stages) and how gains are judged are no part of it.
    """
    from dualgate.rows.store import code_hash, digest

    settings = config.as_dict()
    columns = {name: value for name, value in settings["data"].items() if name != "source"}
    relevant = [columns, *(settings[name] for name in ("rows", "training", "scores"))]
    return digest(relevant, config.data.kind, fingerprint, code_hash("dualgate.study.run"))


def environment() -> dict:
    """Versions of what may change the numbers, cores, and memory [GiB]; nothing that names the host."""
    import joblib

    found = {"dualgate": __version__, "python": platform.python_version()}
    found |= {package: version(package) for package in PACKAGES}
    try:
        memory = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, ValueError):  # Windows
        memory = float("nan")
    return found | {"cores": joblib.cpu_count(), "memory_gib": memory}


def peak_memory_gib() -> float:
    """Largest resident memory of this process so far [GiB]; NaN where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
