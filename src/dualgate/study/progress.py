"""How far a study is and how long it will take: live on a terminal, a line for every stage elsewhere."""

import time
from collections import defaultdict
from collections.abc import Iterable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dualgate.study.runner import Observer
from dualgate.study.stages import Stage

SCORES, REPORT = "scores", "report"  # the stages after those of the seeds
WEIGHTS = {
    "rows": 0.05,
    "survey": 8,
    "reading": 3,
    "limit": 8,
    "audit": 3,
    SCORES: 1,
    REPORT: 2,
}  # before any of a kind is finished
FIT_WEIGHT = 1


class TimeLeft:
    """How long the rest takes, from what finished stages of the same kind took.

    A kind of which none is finished is guessed: its weight, times the seconds that a unit of weight took so far.

    Parameters
    ----------
    kinds : iterable of str
        Kind of every stage.

    Examples
    --------
    >>> left = TimeLeft(["reading", "fit 9", "fit 9"])
    >>> left.finish("fit 9", 10.0)
    >>> left.seconds()  # 10 for the other fit; a reading weighs three times as much
    40.0
    """

    def __init__(self, kinds: Iterable[str]):
        self.left, self.took = defaultdict(int), defaultdict(list)
        for kind in kinds:
            self.left[kind] += 1

    def finish(self, kind: str, seconds: float | None):
        """Count a stage as finished; None where it was not needed."""
        self.left[kind] -= 1
        if seconds is not None:
            self.took[kind].append(seconds)

    def seconds(self) -> float | None:
        """Return the seconds left; None before anything is finished."""
        weighed = sum(len(each) * _weight(kind) for kind, each in self.took.items())
        if not weighed:
            return None
        unit = sum(map(sum, self.took.values())) / weighed

        def typical(kind):
            return sum(self.took[kind]) / len(self.took[kind]) if self.took[kind] else unit * _weight(kind)

        return sum(n_left * typical(kind) for kind, n_left in list(self.left.items()))


class StudyProgress(Observer):
    """Shows the stages of a study on stderr; a context manager.

    Parameters
    ----------
    stages : sequence of Stage
        All there are.
    console : rich.console.Console, default=None
        None is one on stderr.
    """

    def __init__(self, stages, console=None):
        kinds = [stage.kind for stage in stages]
        self.console = console or Console(stderr=True)
        self.n_stages, self.n_done, self.kept = len(kinds), 0, 0
        self.time_left, self._since, self._running = TimeLeft(kinds), {}, None
        self._live = None
        if self.console.is_terminal:
            columns = [BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")]
            self._live = Progress(*columns, console=self.console)
            self._task = self._live.add_task("", total=self.n_stages)

    def __enter__(self):
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *reason):
        if self._live is not None:
            self._live.stop()

    def begin(self, stage: Stage):
        """Show what runs."""
        self._since[stage] = time.perf_counter()
        if self._live is not None:
            self._live.update(self._task, description=f"{stage.label}{self._words()}")

    def end(self, stage: Stage, seconds: float | None):
        """Count what is finished; elsewhere than on a terminal, write a line for what ran now."""
        ran = self._since.pop(stage, None) is not None
        self.n_done += 1
        self.kept += not ran and seconds is not None
        self.time_left.finish(stage.kind, seconds)
        if self._live is not None:
            self._live.update(self._task, completed=self.n_done)
        elif ran:
            self._write(f"[{self.n_done}/{self.n_stages}] {stage.label}, {seconds:.1f} s{self._words()}")

    def done(self):
        """Say that all is finished."""
        if self._live is not None:
            self._live.update(self._task, description="done")
        else:
            self._write("done")

    def _write(self, line):
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _words(self):
        left = self.time_left.seconds()
        return "" if left is None or self.n_done == self.n_stages else f"; about {duration(left)} left"


def duration(seconds: float) -> str:
    """Return a duration in the two units that matter.

    Examples
    --------
    >>> duration(8.4), duration(95), duration(7320)
    ('8 s', '1 min 35 s', '2 h 2 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _weight(kind):
    return WEIGHTS.get(kind, FIT_WEIGHT)
