"""The same passes on a Dask cluster: every worker reads its own rows, and sums travel instead of spectra."""

import pickle
from contextlib import contextmanager

from joblib import parallel_config
from threadpoolctl import threadpool_limits

from dualgate._validation import check_number, owner_name
from dualgate.passes import run_here, runner
from dualgate.rows import ArrayRows, RowSource, RowSubset, block_rows, iter_blocks
from dualgate.statistics import CellStatistics

GROUP_BYTES = 1 << 26  # of the Gram matrices that are merged, and travel, together
FAN_IN = 4  # statistics that one task merges
SOURCE_BYTES = 1 << 24  # of a pickled source, besides the row numbers of a subset


@contextmanager
def use(client, *, chunk_rows=None):
    """Let fits inside read their row sources on the workers of a cluster.

    Rows are cut into chunks, a task each. A task sums its rows as a single machine would; the sums of all tasks are
    merged in a tree, cell by cell, on the workers, always in the order of the rows. Tasks depend on nothing but their
    rows, so a worker that dies costs its work and nothing else. What is solved from the sums, and the towers, run where
    `fit` was called, and so does `predict`. The workers must be able to open the source: shards on a shared disk, a
    Zarr store, simulated rows.

    Parameters
    ----------
    client : distributed.Client
        Of a running cluster.
    chunk_rows : None or int
        Rows of a task. None makes four tasks for each thread of the cluster, of eight blocks at least.

    Raises
    ------
    ImportError
        If distributed is not installed.
    TypeError
        If `client` is none, or the source cannot be pickled.
    ValueError
        Inside, where `checkpoint` is given to `fit`: a cluster does its own recovering. Where the source holds its rows
        in memory, or is a Dask array that was persisted.

    Examples
    --------
    .. code-block:: python

        with distributed.use(Client("tcp://scheduler:8786")):
            model.fit(data.X, data.y, regimes=data.regimes)
    """
    _check_client(client)
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


def _check_client(client):
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError('distributed.use needs Dask: pip install "dualgate[dask]".') from error
    if not isinstance(client, Client) or client.asynchronous:
        raise TypeError(
            f"distributed.use: client={client!r} must be a synchronous distributed.Client. Try "
            'use(Client("tcp://scheduler:8786")).'
        )


def _run_there(client, chunk_rows, owner, passes, X):
    from dask import config

    source = _pack(owner, X)
    # what chunks carry is their share of y, however long: no reason for Dask to warn
    with config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
        rests, totals = _submit(client, chunk_rows, owner_name(owner), passes, X, source)
    rests, totals = client.gather(rests), client.gather(totals)
    before = [each.detach() for each in passes]  # sums of earlier rows, in `partial_fit`; from here on nothing fails
    for rest in rests:
        passes = [each.merge(part) for each, part in zip(passes, rest, strict=True)]
    for place, (each, earlier) in enumerate(zip(passes, before, strict=True)):
        if earlier is not None:
            found = [totals[key] for key in totals if key[0] == place]
            each.attach(earlier + CellStatistics.concatenate(found))
    return passes


def _submit(client, chunk_rows, name, passes, X, source):
    """Hand out all tasks; returns futures of what chunks found row by row, and of the sums by (pass, group)."""
    least = 8 * block_rows(X.shape[1], X.dtype)
    n_threads = sum(client.nthreads().values())
    step = chunk_rows or max(least, -(-len(X) // (4 * max(1, n_threads))))
    options = {"pure": False, "retries": 5}  # a task that was on a dying worker more than once is still innocent
    source = client.submit(bytes, source, **options)  # a task, so that it outlives the worker that holds it
    columns = {(place, group): [] for place, each in enumerate(passes) for group in _groups(each)}
    rests = []
    for start in range(0, len(X), step):
        stop = min(start + step, len(X))
        parts = [each.part(start, stop) for each in passes]
        worked = client.submit(_work, name, source, parts, start, stop, **options)
        rests.append(client.submit(_rest, worked, **options))
        for key, column in columns.items():
            column.append(client.submit(_take, worked, *key, **options))
        del worked, parts  # or the cluster would keep what nobody asks for
    return rests, {key: _merge_tree(client, columns.pop(key), options) for key in list(columns)}


def _pack(owner, X):
    """Pickle a source, which must name its rows and not hold them."""
    import cloudpickle
    from distributed import futures_of

    inner = X.source if isinstance(X, RowSubset) else X
    if isinstance(inner, ArrayRows) and hasattr(inner.array, "dask") and futures_of(inner.array):
        raise ValueError(
            f"X of {owner_name(owner)} is a Dask array that was persisted: its blocks live in workers, not in a place "
            "that every worker can read. Give the array as it was before persist(), or write it to a Zarr store."
        )
    try:
        data = cloudpickle.dumps(X, protocol=5)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise TypeError(
            f"X of {owner_name(owner)}, a {type(inner).__name__}, cannot be sent to workers ({error}): keep what opens "
            "it, such as a path, and drop handles and locks in __getstate__."
        ) from error
    if len(data) > SOURCE_BYTES + 16 * len(X):
        raise ValueError(
            f"X of {owner_name(owner)}, a {type(inner).__name__}, is {len(data) / 2**20:,.0f} MiB when pickled: it "
            "holds rows instead of naming where they lie. Write them to a memory map, HDF5 or Zarr on a shared disk."
        )
    return data


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


class _ReadHere:
    """An array of Dask whose slices are computed by the thread that asks, and wait for no other task."""

    def __init__(self, array):
        self.array = array

    def __getitem__(self, rows):
        return self.array[rows].compute(scheduler="synchronous")


def _work(owner, source, parts, start, stop):
    """Run empty parts over their rows, and take the statistics out; runs on a worker."""
    X = pickle.loads(source)
    inner = X.source if isinstance(X, RowSubset) else X
    if isinstance(inner, ArrayRows) and hasattr(inner.array, "dask"):
        inner.array = _ReadHere(inner.array)
    # a worker has a task for each of its threads: more threads within would be too many
    with parallel_config(backend="sequential"), threadpool_limits(1, user_api="blas"):
        for first, block in iter_blocks(owner, X, start=start, stop=stop):
            for part in parts:
                part.update(first, block)
    found = [part.detach() for part in parts]
    for statistics in found:
        if statistics is not None:
            _ = statistics.gram  # settles it: threads that take cells out at once must find nothing left to do
    return [part.lighten() for part in parts], found


def _rest(worked):
    return worked[0]


def _take(worked, place, group):
    return worked[1][place][slice(*group)]


def _add(run):
    total = run[0]
    for each in run[1:]:
        total = total + each
    return total
