"""Rows wherever they lie: sources, passes over them, the store of what was found, and clusters (`rows.cluster`)."""

from dualgate.rows.passes import Collect, Pass, Pieces, map_blocks, run_passes
from dualgate.rows.sources import (
    ArrayRows,
    RowSource,
    Subset,
    as_source,
    choose_spread,
    in_threads,
    iter_blocks,
    one_blas_thread,
    open_fit_rows,
    open_rows,
    spread_rows,
    take_rows,
)
from dualgate.rows.store import FitStages, Store, StoreError, whole_file

__all__ = [
    "ArrayRows",
    "Collect",
    "FitStages",
    "Pass",
    "Pieces",
    "RowSource",
    "Store",
    "StoreError",
    "Subset",
    "as_source",
    "choose_spread",
    "in_threads",
    "iter_blocks",
    "map_blocks",
    "one_blas_thread",
    "open_fit_rows",
    "open_rows",
    "run_passes",
    "spread_rows",
    "take_rows",
    "whole_file",
]
