"""`dualgate study` from its configuration to its files: progress on stderr, the table on stdout."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dualgate.study.analysis import analyse
from dualgate.study.config import StudyConfig
from dualgate.study.data import ERRORS, StudyRows
from dualgate.study.identity import environment, peak_memory_gib, result_hash, stages_hash
from dualgate.study.progress import REPORT, SCORES, StudyProgress
from dualgate.study.report import write_report
from dualgate.study.report_tables import method_rows
from dualgate.study.roster import choose_methods
from dualgate.study.runner import Extras, extras_of, plan_stages, run_study
from dualgate.study.stages import Stage, Stages
from dualgate.study.summary import summary
from dualgate.study.tidy import tidy_rows

SCHEMA_VERSION = 2
AUDIT_ROWS = {False: 1500, True: 5000}  # test rows of the first seed that are audited, at most; whether all is run
TABLE_WIDTH = 140  # where the output is no terminal
FULL_WIDTH, NARROW_COLUMNS = 125, 3  # letters that the whole table takes; columns that are shown where there are fewer
HASH_SHOWN = 16  # digits of a hash that name the directory of stages


class StudyRun:
    """One run of the study: its rows and methods are chosen and checked, nothing is computed yet.

    Parameters
    ----------
    config : StudyConfig

    Raises
    ------
    ConfigError
        If rows cannot be read, or a method is unknown or cannot run on them.
    """

    def __init__(self, config: StudyConfig):
        self.config, self.rows = config, StudyRows(config)
        self.rows.check()
        names = ("all",) if config.full else config.methods
        self.methods, self.left_out = choose_methods(names, self.rows.offers)
        audited = ERRORS in self.rows.offers and any(method.gated for method in self.methods)
        self.extras = Extras(config.limit.rows, AUDIT_ROWS[config.full] if audited else 0)
        self.hash = stages_hash(config, self.rows.fingerprint())
        self.stages = Stages(Path(config.out, "stages", self.hash[:HASH_SHOWN]))

    def plan(self) -> list[Stage]:
        """Every stage of every seed."""
        seeds = self.config.seeds
        parts = [plan_stages(self.methods, seed, extras_of(self.extras, seed, seeds)) for seed in seeds]
        return [stage for part in parts for stage, _ in part]

    def n_finished(self) -> int:
        """Stages that are finished, of this run or of earlier ones that this one goes on from."""
        return sum(stage in self.stages for stage in self.plan())

    def __call__(self) -> dict:
        """Run what is not finished, print the table, write the files, and return what `results.json` holds."""
        start = time.perf_counter()
        last = [Stage(-1, kind, kind, label) for kind, label in [(SCORES, "scores and intervals"), (REPORT, "report")]]
        with StudyProgress([*self.plan(), *last]) as progress:
            records = run_study(
                self.rows.make,
                self.config.seeds,
                methods=self.methods,
                make_model=self.rows.make_model,
                stages=self.stages,
                observer=progress,
                extras=self.extras,
            )
            results = self._measured(progress, last[0], lambda: self._results(records))
            results["total_seconds"] = time.perf_counter() - start
            results["stages_kept"] = progress.kept
            results["peak_memory_gib"] = peak_memory_gib()
            results["summary"] = summary(results)
            lines = tidy_rows(records, self.methods, results["best_single"], self.config.thresholds)
            paths = self._measured(progress, last[1], lambda: write_report(results, Path(self.config.out), lines))
            progress.done()
        _print(results, paths)
        return results

    def _results(self, records):
        surroundings = environment()
        return {
            "schema_version": SCHEMA_VERSION,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "config": self.config.as_dict(),
            "hash": result_hash(self.config, surroundings),
            "stages_hash": self.hash,
            "settings": {
                "data": self.config.data.source,
                "rows": records[0].n_rows,
                "seeds": list(self.config.seeds),
            },
            "target": self.config.data.target,
            "environment": surroundings,
            "left_out": self.left_out,
            **analyse(
                records,
                methods=self.methods,
                n_resamples=self.config.bootstrap.resamples,
                thresholds=self.config.thresholds,
            ),
        }

    def _measured(self, progress, stage, compute):
        since = time.perf_counter()
        progress.begin(stage)
        found = compute()
        progress.end(stage, time.perf_counter() - since)
        return found


def _print(results: dict, paths: Sequence[Path]):
    """Table, verdicts and where the files are."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=TABLE_WIDTH)
    narrow = console.width < FULL_WIDTH
    head, *body = (row[:NARROW_COLUMNS] if narrow else row for row in method_rows(results))
    table = Table(header_style="bold")
    for place, name in enumerate(head):
        table.add_column(name, justify="right" if place else "left", no_wrap=place > 0 or not narrow)
    for row in body:
        table.add_row(*row)
    console.print(table)
    if narrow:
        console.print(f"ρ and R² by SNR bin are in report.md, and here in a terminal of {FULL_WIDTH} columns.")
    else:
        console.print("ρ: share of the gain from global ridge to oracle. SNR bins: X ≤ 2, L 2 to 4, M 4 to 7, H > 7.")
    console.print(summary(results), highlight=False, markup=False)
    for name, reason in results["left_out"].items():
        console.print(f"left out: {name}: {reason}", highlight=False, markup=False)
    for path in paths:
        console.print(str(path), highlight=False, markup=False, soft_wrap=True)
