"""max_samples means the same in every measurement: so many samples, a fraction of them, or all."""

import pytest
import torch
from torch import nn

from sklgap import TrainingRecorder, sharpness_score
from sklgap.inspection import (
    SpectrumDisplay,
    adaptive_sharpness,
    average_sharpness,
    ball_sharpness,
    fisher_sharpness,
    fisher_trace,
    flatness,
    gradient_noise_scale,
    gradient_standard_error,
    hessian_eigenvalues,
    hessian_spectral_density,
    hessian_trace,
    loss_along_arc,
    loss_along_line,
    loss_on_plane,
    m_sharpness,
    recorded,
    ritz_values,
    sharpness,
)
from tests.cases import seeded_module
from tests.tiny import blobs, small

X, Y = blobs(40)
PAIR = (seeded_module(lambda: nn.Linear(4, 3), 0), nn.CrossEntropyLoss())
END = (seeded_module(lambda: nn.Linear(4, 3), 1), nn.CrossEntropyLoss())
DATA = (X, torch.as_tensor(Y))
MEASUREMENTS = {
    "sharpness": lambda **o: sharpness(PAIR, *DATA, solver="power", **o),
    "adaptive_sharpness": lambda **o: adaptive_sharpness(PAIR, *DATA, solver="power", **o),
    "average_sharpness": lambda **o: average_sharpness(PAIR, *DATA, n_pairs=2, **o),
    "ball_sharpness": lambda **o: ball_sharpness(PAIR, *DATA, max_iter=1, n_products=0, **o),
    "fisher_sharpness": lambda **o: fisher_sharpness(PAIR, *DATA, max_iter=1, n_products=0, n_draws=2, **o),
    "fisher_trace": lambda **o: fisher_trace(PAIR, *DATA, n_draws=2, **o),
    "flatness": lambda **o: flatness(PAIR, *DATA, measures="m_sharpness", **o).measures["m_sharpness"],
    "m_sharpness": lambda **o: m_sharpness(PAIR, *DATA, m=5, **o),
    "hessian_eigenvalues": lambda **o: hessian_eigenvalues(PAIR, *DATA, k=1, **o),
    "hessian_trace": lambda **o: hessian_trace(PAIR, *DATA, n_products=4, **o),
    "hessian_spectral_density": lambda **o: hessian_spectral_density(PAIR, *DATA, n_vectors=1, n_steps=4, **o),
    "ritz_values": lambda **o: ritz_values(PAIR, *DATA, subspace_dim=2, **o),
    "gradient_noise_scale": lambda **o: gradient_noise_scale(PAIR, *DATA, **o),
    "gradient_standard_error": lambda **o: gradient_standard_error(PAIR, *DATA, batch_sizes=[4], n_batches=4, **o),
    "loss_along_line": lambda **o: loss_along_line(PAIR, END, *DATA, alphas=[0], **o),
    "loss_along_arc": lambda **o: loss_along_arc(PAIR, END, *DATA, alphas=[0], **o),
    "loss_on_plane": lambda **o: loss_on_plane(PAIR, *DATA, alphas=[0], betas=[0], **o),
}
BAD = r"max_samples must be None, an integer of at least 1 or a float in \(0, 1\]; got "


@pytest.mark.parametrize("name", MEASUREMENTS)
@pytest.mark.parametrize(("max_samples", "n"), [(None, 40), (10, 10), (0.5, 20), (1.0, 40), (1000, 40)])
def test_measurements(name, max_samples, n):
    assert MEASUREMENTS[name](max_samples=max_samples, random_state=0).n_samples == n


@pytest.mark.parametrize("name", MEASUREMENTS)
@pytest.mark.parametrize("max_samples", [0, 1.5, True, "half"])
def test_what_measurements_refuse(name, max_samples):
    with pytest.raises(ValueError, match=BAD):
        MEASUREMENTS[name](max_samples=max_samples, random_state=0)


@pytest.mark.parametrize("max_samples", [0, 1.5, True])
def test_what_scorers_displays_and_recorders_refuse(max_samples):
    with pytest.raises(ValueError, match=BAD):
        sharpness_score(PAIR, *DATA, max_samples=max_samples)
    with pytest.raises(ValueError, match=BAD):
        SpectrumDisplay.from_estimator(PAIR, *DATA, max_samples=max_samples)
    recorder = TrainingRecorder({"train": (X, Y)}, max_samples=max_samples)
    with pytest.raises(ValueError, match=BAD):
        small(callbacks=[("recorder", recorder)]).fit(X, Y)


def test_a_recorder_and_a_measurement_take_as_many():
    losses = []
    for max_samples in (20, 0.5, None):
        recorder = TrainingRecorder({"train": (X, Y)}, max_samples=max_samples)
        model = small(max_epochs=1, callbacks=[("recorder", recorder)]).fit(X, Y)
        losses.append(recorded(model)["train_loss"].tolist())
    assert losses[0] == losses[1] != losses[2]
