"""Linear experts: ridges for every cell of regime x quality bin, or factor analysers that know their evidence."""

from dualgate.experts.factor_experts import FactorExperts
from dualgate.experts.hierarchical import HierarchicalExperts
from dualgate.experts.novelty import ExtrapolationWarning
from dualgate.experts.regimes import EmptyCellWarning
from dualgate.experts.sharing import SHARING

__all__ = ["SHARING", "EmptyCellWarning", "ExtrapolationWarning", "FactorExperts", "HierarchicalExperts"]
