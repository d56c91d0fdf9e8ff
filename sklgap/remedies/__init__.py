"""Remedies: what the papers tried, and others since, to win the accuracy of small batches back."""

from sklgap.remedies._augmentation import Augmentation, check_augmentation
from sklgap.remedies._base import Remedy, check_remedies, compose
from sklgap.remedies._proximal import Proximal

__all__ = ["Augmentation", "Proximal", "Remedy", "check_augmentation", "check_remedies", "compose"]
