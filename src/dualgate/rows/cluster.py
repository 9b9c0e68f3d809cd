"""The same passes on a Dask cluster: every worker reads its own rows, and sums travel instead of rows."""

import pickle
from contextlib import contextmanager
from functools import reduce

from joblib import parallel_config

from dualgate._validation import allows_nan, check_number, owner_name
from dualgate.rows.passes import add_found, run_here, runner
from dualgate.rows.sources import ArrayRows, block_rows, iter_blocks, one_blas_thread, whole_of

FAN_IN = 4  # results that one task adds
SOURCE_BYTES = 1 << 24  # of a pickled source, not counting the row numbers of a subset


@contextmanager
def use(client, *, chunk_rows=None):
    """Let fits inside the block read their row sources on the workers of a Dask cluster.

    Rows are cut into chunks, one task each. A task sums its rows as a single machine would; the sums are added in a
    tree on the workers, always in the order of the rows. Tasks depend on their rows alone, so a worker that dies costs
    only its unfinished work. Solving for the experts, the towers and `predict` run where `fit` was called. The workers
    must be able to open the source: shards on a shared disk, a Zarr store, simulated rows. Rows in memory are read
    where they are.

    Parameters
    ----------
    client : distributed.Client
        Of a running cluster.
    chunk_rows : None or int, default=None
        Rows of a task. None makes four tasks for each thread of the cluster, of eight blocks at least.

    Raises
    ------
    ImportError
        If distributed is not installed.
    TypeError
        If `client` is not a synchronous client, or the source cannot be pickled.
    ValueError
        Inside, if `checkpoint` or `memory` is used, the source holds its rows in memory without declaring it, or X is
        a persisted Dask array.

    Examples
    --------
    .. code-block:: python

        with cluster.use(Client("tcp://scheduler:8786")):
            model.fit(data.X, data.y, regimes=data.regimes)
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError('cluster.use needs Dask: pip install "dualgate[dask]".') from error
    if not isinstance(client, Client) or client.asynchronous:
        raise TypeError(
            f"cluster.use: client={client!r} must be a synchronous distributed.Client. Try "
            'use(Client("tcp://scheduler:8786")).'
        )
    if chunk_rows is not None:
        check_number("cluster.use", "chunk_rows", chunk_rows, low=1)

    def run(owner, passes, source, n_jobs):
        if source.in_memory:
            return run_here(owner, passes, source, n_jobs)
        return _run_there(client, chunk_rows, owner, passes, source)

    token = runner.set(run)
    try:
        yield client
    finally:
        runner.reset(token)


def _run_there(client, chunk_rows, owner, passes, source):
    """Submit all tasks and wait; the passes change only if all succeed."""
    from dask import config

    packed, name, finite = _pack(owner, source), owner_name(owner), not allows_nan(owner)
    least = 8 * block_rows(source.shape[1], source.dtype)
    step = chunk_rows or max(least, -(-len(source) // (4 * max(1, sum(client.nthreads().values())))))
    options = {"pure": False, "retries": 5}  # a task that was on a dying worker more than once is not at fault
    # what chunks carry is their share of y, however long: no reason for Dask to warn
    with config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
        packed = client.submit(bytes, packed, **options)  # a task, so that it outlives the worker that holds it
        found = []
        for start in range(0, len(source), step):
            stop = min(start + step, len(source))
            parts = [each.part(start, stop) for each in passes]
            found.append(client.submit(_work, name, finite, packed, parts, start, stop, **options))
        while len(found) > 1:
            runs = [found[i : i + FAN_IN] for i in range(0, len(found), FAN_IN)]
            found = [client.submit(_add, run, **options) for run in runs]
    for each, total in zip(passes, client.gather(found[0]), strict=True):
        each.merge(total)
    return passes


def _pack(owner, source):
    """Pickle a source, which must name its rows and not hold them."""
    import cloudpickle
    from distributed import futures_of

    whole = whole_of(source)
    if _is_dask(whole) and futures_of(whole.array):
        raise ValueError(
            f"X of {owner_name(owner)} is a Dask array that was persisted: its blocks live in workers, not in a place "
            "that every worker can read. Give the array as it was before persist(), or write it to a Zarr store."
        )
    try:
        data = cloudpickle.dumps(source, protocol=5)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise TypeError(
            f"X of {owner_name(owner)}, a {type(whole).__name__}, cannot be sent to workers ({error}): keep what opens "
            "it, such as a path, and drop handles and locks in __getstate__."
        ) from error
    if len(data) > SOURCE_BYTES + 16 * len(source):
        raise ValueError(
            f"X of {owner_name(owner)}, a {type(whole).__name__}, is {len(data) / 2**20:,.0f} MiB when pickled: it "
            "holds rows instead of naming where they lie. Write them to a memory map, HDF5 or Zarr on a shared disk."
        )
    return data


def _is_dask(source):
    return isinstance(source, ArrayRows) and hasattr(source.array, "dask")


class _ReadHere:
    """An array of Dask whose slices are computed by the thread that asks, and wait for no other task."""

    def __init__(self, array):
        self.array = array

    def __getitem__(self, rows):
        return self.array[rows].compute(scheduler="synchronous")


def _work(owner, finite, packed, parts, start, stop):
    """Run parts of passes over their rows, on a worker; returns what each found."""
    source = pickle.loads(packed)
    whole = whole_of(source)
    if _is_dask(whole):
        whole.array = _ReadHere(whole.array)
    # a worker has a task for each of its threads: more threads within would be too many
    with parallel_config(backend="sequential"), one_blas_thread():
        for first, block in iter_blocks(owner, source, start=start, stop=stop, finite=finite):
            for part in parts:
                part.update(first, block)
    return [add_found(part.found, part.begin()) for part in parts]  # adding settles sums that are pending


def _add(run):
    """Add what all passes found in some chunks, in the order of the rows."""
    return [reduce(add_found, found) for found in zip(*run, strict=True)]
