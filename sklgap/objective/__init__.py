"""The loss surface, on which training moves and which measurements examine."""

from sklgap.objective._check import check_objective
from sklgap.objective._compile import CompileWarning
from sklgap.objective._objective import Evaluation, Objective, RestrictedObjective
from sklgap.objective._subspace import Subspace, random_subspace

__all__ = [
    "CompileWarning",
    "Evaluation",
    "Objective",
    "RestrictedObjective",
    "Subspace",
    "check_objective",
    "random_subspace",
]
