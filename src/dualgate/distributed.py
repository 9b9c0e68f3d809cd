"""The same passes on a Dask cluster: every worker reads its own rows, and sums travel instead of spectra."""

from contextlib import contextmanager

from threadpoolctl import threadpool_limits

from dualgate._validation import check_number
from dualgate.passes import run_here, runner
from dualgate.rows import RowSource, block_rows, iter_blocks
from dualgate.statistics import CellStatistics

GROUP_BYTES = 1 << 26  # of the Gram matrices that are merged, and travel, together
FAN_IN = 4  # statistics that one task merges


@contextmanager
def use(client, *, chunk_rows=None):
    """Let fits inside read their row sources on the workers of a cluster.

    Rows are cut into chunks, a task each. A task sums its rows as a single machine would; the sums of all tasks are
    merged in a tree, cell by cell, on the workers, always in the order of the rows. Tasks depend on nothing but their
    rows, so a worker that dies costs its work and nothing else. What is solved from the sums, and the towers, run where
    `fit` was called. The workers must be able to open the source: shards on a shared disk, a Zarr store, simulated
    rows.

    Parameters
    ----------
    client : distributed.Client
        Of a running cluster.
    chunk_rows : None or int
        Rows of a task. None makes four tasks for each thread of the cluster, of eight blocks at least.

    Raises
    ------
    ValueError
        Inside, where `checkpoint` is given to `fit`: a cluster does its own recovering.

    Examples
    --------
    .. code-block:: python

        with distributed.use(Client("tcp://scheduler:8786")):
            model.fit(data.X, data.y, regimes=data.regimes)
    """
    if chunk_rows is not None:
        check_number("distributed.use", "chunk_rows", chunk_rows, low=1)

    def run(owner, passes, X, n_jobs, checkpoint):
        if not isinstance(X, RowSource):
            return run_here(owner, passes, X, n_jobs, checkpoint)
        if checkpoint is not None and checkpoint.path is not None:
            raise ValueError(
                f"checkpoint={str(checkpoint.path)!r} is for one machine: leave it None on a cluster, where work that "
                "is lost is done again."
            )
        return _run_there(client, chunk_rows, owner, passes, X)

    token = runner.set(run)
    try:
        yield client
    finally:
        runner.reset(token)


def _run_there(client, chunk_rows, owner, passes, X):
    least = 8 * block_rows(X.shape[1], X.dtype)
    n_threads = sum(client.nthreads().values())
    step = chunk_rows or max(least, -(-len(X) // (4 * max(1, n_threads))))
    name = type(owner).__name__
    options = {"pure": False, "retries": 5}  # a task that was on a dying worker more than once is still innocent
    groups = [_groups(each) for each in passes]
    columns = {(place, group): [] for place, these in enumerate(groups) for group in these}
    rests = []
    for start in range(0, len(X), step):
        stop = min(start + step, len(X))
        parts = [each.part(start, stop) for each in passes]
        worked = client.submit(_work, name, X, parts, start, stop, **options)
        rests.append(client.submit(_rest, worked, **options))
        for key, column in columns.items():
            column.append(client.submit(_take, worked, *key, **options))
        del worked, parts  # or the cluster would keep what nobody asks for
    merged = {key: _merge_tree(client, columns.pop(key), options) for key in list(columns)}
    before = [each.detach() for each in passes]  # sums of earlier rows, in `partial_fit`
    for rest in client.gather(rests):
        passes = [each.merge(part) for each, part in zip(passes, rest, strict=True)]
    totals = client.gather(merged)
    for place, these in enumerate(groups):
        if these:
            total = CellStatistics.concatenate([totals[place, group] for group in these])
            passes[place].attach(before[place] + total)
    return passes


def _groups(each):
    """Cut the cells of a pass into runs (first, stop) whose Gram matrices stay below `GROUP_BYTES`, or single ones."""
    statistics = each.detach()
    if statistics is None:
        return []
    each.attach(statistics)
    n_cells, n_features = len(statistics.count), len(statistics.origin)
    step = max(1, GROUP_BYTES // (8 * n_features**2))
    return [(first, min(first + step, n_cells)) for first in range(0, n_cells, step)]


def _merge_tree(client, futures, options):
    while len(futures) > 1:
        runs = [futures[i : i + FAN_IN] for i in range(0, len(futures), FAN_IN)]
        futures = [run[0] if len(run) == 1 else client.submit(_add, run, **options) for run in runs]
    return futures[0]


def _work(owner, X, parts, start, stop):
    """Run empty parts over their rows, and take the statistics out; runs on a worker."""
    from dask import config
    from distributed import get_worker

    # an array of Dask is read here, by this thread: it must not wait for the tasks of other workers
    with config.set(scheduler="synchronous"), threadpool_limits(get_worker().state.nthreads, user_api="blas"):
        for first, block in iter_blocks(owner, X, start=start, stop=stop):
            for part in parts:
                part.update(first, block)
    return parts, [part.detach() for part in parts]


def _rest(worked):
    return worked[0]


def _take(worked, place, group):
    return worked[1][place][slice(*group)]


def _add(run):
    total = run[0]
    for each in run[1:]:
        total = total + each
    return total
