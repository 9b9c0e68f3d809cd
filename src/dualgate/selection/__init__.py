"""Which configuration pays for itself: the simplest within one standard error of the best."""

from dualgate.selection.rule import OneStandardError
from dualgate.selection.towers import TowerSelection, select_towers, tower_candidates

__all__ = ["OneStandardError", "TowerSelection", "select_towers", "tower_candidates"]
