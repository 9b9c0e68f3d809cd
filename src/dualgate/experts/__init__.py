"""Linear experts for every cell of regime x quality bin, and what they share."""

from dualgate.experts.hierarchical import HierarchicalExperts
from dualgate.experts.regimes import EmptyCellWarning
from dualgate.experts.sharing import SHARING

__all__ = ["SHARING", "EmptyCellWarning", "HierarchicalExperts"]
