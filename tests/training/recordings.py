"""What is recorded in the tests of `TrainingRecorder`, and how."""

import numpy as np

from sklgap import TrainingRecorder
from tests.tiny import blobs, images

X, Y = blobs()
LABELS = np.array(["no", "perhaps", "yes"])[Y]
IMAGES, IMAGE_LABELS = images()


def recording(*args, **kwargs):
    """Return the callbacks of a fit with one recorder."""
    return [("recorder", TrainingRecorder(*args, **kwargs))]
