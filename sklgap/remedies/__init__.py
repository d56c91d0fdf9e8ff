"""Remedies: changes of the training that aim to regain the accuracy of small batches, from the papers and later."""

from sklgap.remedies._accumulation import accumulate
from sklgap.remedies._adversarial import Adversarial
from sklgap.remedies._augmentation import Augmentation, check_augmentation
from sklgap.remedies._base import Remedy, compose
from sklgap.remedies._batch_augmentation import BatchAugmentation
from sklgap.remedies._check import check_remedies, check_together
from sklgap.remedies._entropy_sgd import EntropySGD
from sklgap.remedies._gradient_penalty import GradientPenalty
from sklgap.remedies._label_smoothing import LabelSmoothing
from sklgap.remedies._mixup import Mixup
from sklgap.remedies._proximal import Proximal
from sklgap.remedies._robust import SAM
from sklgap.remedies._sample_noise import SampleNoise
from sklgap.remedies._stability import Stability

__all__ = [
    "Adversarial",
    "Augmentation",
    "BatchAugmentation",
    "EntropySGD",
    "GradientPenalty",
    "LabelSmoothing",
    "Mixup",
    "Proximal",
    "Remedy",
    "SAM",
    "SampleNoise",
    "Stability",
    "accumulate",
    "check_augmentation",
    "check_remedies",
    "check_together",
    "compose",
]
