"""What must hold on a CUDA device: run where there is one (``pytest -m gpu``)."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sklgap import LBGapClassifier, sharpness
from sklgap.training import HostLoader, ResidentLoader

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]


@pytest.fixture(scope="module")
def data():
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y


def _fit(data, device, **params):
    params = {"module__width": 32, "max_epochs": 4, "tol": None, "random_state": 0, "device": device, **params}
    return LBGapClassifier(**params).fit(*data)


def test_auto_takes_the_gpu_and_learns(data):
    model = _fit(data, "auto")
    assert next(model.module_.parameters()).is_cuda
    assert model.score(*data) > 0.9


def test_a_fit_repeats_bit_for_bit_and_leaves_the_global_generators(data):
    states = torch.get_rng_state(), torch.cuda.get_rng_state()
    first, second = (_fit(data, "cuda") for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(data[0]), second.predict_proba(data[0]))
    assert torch.equal(states[0], torch.get_rng_state())
    assert torch.equal(states[1], torch.cuda.get_rng_state())


def test_starts_from_the_weights_of_the_cpu(data):
    on_cpu, on_gpu = (_fit(data, device).net_.module_start_ for device in ("cpu", "cuda"))
    for name, start in on_cpu.items():
        torch.testing.assert_close(start, on_gpu[name].cpu(), rtol=0, atol=0)


def test_both_loaders_yield_the_same_batches_on_the_device(data):
    X, y = (torch.as_tensor(part) for part in data)
    loaders = [
        kind(X, y, lambda epoch: 100, seed=0, device=torch.device("cuda")) for kind in (HostLoader, ResidentLoader)
    ]
    for (X1, y1), (X2, y2) in zip(*loaders, strict=True):
        assert X1.is_cuda
        assert X2.is_cuda
        assert torch.equal(X1, X2)
        assert torch.equal(y1, y2)


@pytest.mark.parametrize("kind", [HostLoader, ResidentLoader])
def test_weights_go_with_their_rows(data, kind):
    X, y = (torch.as_tensor(part) for part in data)
    for batch in kind(X, y, lambda epoch: 100, seed=0, device=torch.device("cuda"), weight=0.5 * y):
        assert batch.weight.is_cuda
        assert torch.equal(batch.weight, 0.5 * batch.y)


def test_weights_of_samples_and_classes_agree_with_the_cpu(data):
    options = {"class_weight": "balanced", "criterion__weight": np.arange(1, 11), "batch_size": -1, "lr": 0.1}
    options |= {"optimizer": torch.optim.SGD, "max_epochs": 2, "micro_batch_size": 500}
    fits = [_fit((*data, data[1] % 3), device, **options) for device in ("cpu", "cuda")]
    # Some thousand float32 terms, summed in another order and carried through two updates.
    np.testing.assert_allclose(fits[0].train_loss_, fits[1].train_loss_, rtol=1e-3)


def test_sharpness_agrees_with_the_cpu(data):
    model = _fit(data, "cuda")
    values = [
        sharpness(model, *data, device=device, dtype=torch.float64, max_iter=10, random_state=0).value
        for device in ("cpu", "cuda")
    ]
    # Sign ascent amplifies rounding where a partial derivative is nearly zero.
    assert values[0] == pytest.approx(values[1], rel=1e-3)


def test_a_pickle_loads_and_predicts(data):
    model = _fit(data, "cuda")
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.predict(data[0]), model.predict(data[0]))


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_every_precision_learns_and_leaves_the_settings_of_torch(data, precision):
    def settings():
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        newer = (part.fp32_precision for part in (matmul, cudnn.conv, cudnn.rnn))
        return matmul.allow_tf32, cudnn.allow_tf32, torch.get_float32_matmul_precision(), *newer

    before = settings()
    model = _fit(data, "cuda", precision=precision)
    assert model.score(*data) > 0.9
    assert settings() == before
    assert next(model.module_.parameters()).dtype == torch.float32
    # Eleven bits, or eight, in every product of four epochs.
    plain = _fit(data, "cuda", precision="float32")
    assert model.train_loss_ == pytest.approx(plain.train_loss_, rel=0.1)
