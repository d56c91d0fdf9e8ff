"""Models and data as people have them, with random weights: nothing is downloaded."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from sklgap.inspection import (
    gradient_noise_scale,
    hessian_eigenvalues,
    hessian_trace,
    loss_along_line,
    sharpness,
)
from sklgap.objective import Objective

transformers = pytest.importorskip("transformers")
pyhessian = pytest.importorskip("pyhessian")

CE = nn.CrossEntropyLoss()


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().double()


# -- ResNet-18 on images of 32 x 32, against PyHessian ----------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet():
    config = transformers.ResNetConfig(
        depths=[2, 2, 2, 2], layer_type="basic", embedding_size=4, hidden_sizes=[4, 4, 8, 8], num_labels=4
    )
    module = seeded(lambda: transformers.ResNetForImageClassification(config))
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(12, 3, 32, 32, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 4, (12,), generator=generator)
    module.train()
    for _ in range(30):  # running statistics like those of a trained model
        module(X)
    return module.eval(), X, y


class Logits(nn.Module):
    """PyHessian takes modules that return a tensor."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, X):
        return self.module(X).logits


@pytest.fixture(scope="module")
def reference(resnet):
    module, X, y = resnet
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using backward\\(\\) with create_graph=True")
        torch.manual_seed(0)
        found = pyhessian.hessian(Logits(module), CE, data=(X, y), cuda=False)
        (top,), _ = found.eigenvalues(maxIter=150, tol=1e-5, top_n=1)
        traces = found.trace(maxIter=15, tol=0.0)
    module.zero_grad()
    return top, np.array(traces)


def test_resnet_has_the_top_eigenvalue_that_pyhessian_finds(resnet, reference):
    module, X, y = resnet
    found = hessian_eigenvalues((module, CE), X, y, batch_norm="running", k=1, random_state=0)
    assert found.converged
    assert found.eigenvalues[0] == pytest.approx(reference[0], rel=1e-3)


def test_resnet_has_the_trace_that_pyhessian_finds(resnet, reference):
    module, X, y = resnet
    found = hessian_trace((module, CE), X, y, batch_norm="running", random_state=0)
    traces = reference[1]
    error = np.hypot(found.standard_error, traces.std(ddof=1) / len(traces) ** 0.5)
    assert abs(found.value - traces.mean()) < 4 * error


@pytest.mark.parametrize("policy", ["batch", "population", "running"])
def test_resnet_against_differences(resnet, policy):
    module, X, y = resnet
    agrees_with_differences(Objective(module, CE, (X, y), batch_norm=policy, chunk_size=6))


def agrees_with_differences(f):
    v = torch.randn(f.n_params, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = 1e-6 * float(f.theta0.norm() / v.norm())
    up, down = f.theta0 + step * v, f.theta0 - step * v
    assert float(f.gradient()[1] @ v) == pytest.approx((f.value(up) - f.value(down)) / (2 * step), rel=1e-5)
    differences = (f.gradient(up)[1] - f.gradient(down)[1]) / (2 * step)
    image = f.hvp(v)
    assert f.second_derivatives == "checked"
    assert float((image - differences).norm() / image.norm()) < 1e-4
    return image


# -- transformers on sentences of unequal length

SMALL = {"vocab_size": 30, "num_labels": 3}
TEXT_MODELS = {
    "bert": lambda: transformers.BertForSequenceClassification(
        transformers.BertConfig(
            hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, max_position_embeddings=8,
            initializer_range=0.3, **SMALL,
        )
    ),
    "distilbert": lambda: transformers.DistilBertForSequenceClassification(
        transformers.DistilBertConfig(
            dim=8, n_layers=2, n_heads=2, hidden_dim=16, max_position_embeddings=8, initializer_range=0.3, **SMALL
        )
    ),
}  # fmt: skip


def sentences(n=30):
    rng = np.random.default_rng(0)
    return [
        {"input_ids": rng.integers(1, 30, size=rng.integers(2, 8)).tolist(), "labels": int(rng.integers(3))}
        for _ in range(n)
    ]


def pad(samples):
    longest = max(len(s["input_ids"]) for s in samples)
    ids = torch.tensor([s["input_ids"] + [0] * (longest - len(s["input_ids"])) for s in samples])
    labels = torch.tensor([s["labels"] for s in samples])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}


def loader(batch_size=8):
    return DataLoader(sentences(), batch_size=batch_size, collate_fn=pad)


@pytest.fixture(params=TEXT_MODELS)
def text_model(request):
    return seeded(TEXT_MODELS[request.param])


def test_text_models_against_plain_torch_and_differences(text_model):
    batches = list(loader())
    text_model.eval()
    losses = [text_model(**batch).loss.item() for batch in batches]
    expected = np.average(losses, weights=[len(batch["labels"]) for batch in batches])
    f = Objective(text_model, CE, loader())
    assert f.value() == pytest.approx(expected, rel=1e-10)
    assert Objective(text_model, CE, loader(30)).value() == pytest.approx(expected, rel=1e-8)
    agrees_with_differences(f)


def test_a_models_own_loss(text_model):
    def loss(model, batch):
        return model(**batch).loss

    f, g = Objective(text_model, loss, loader()), Objective(text_model, CE, loader())
    assert f.value() == pytest.approx(g.value(), rel=1e-6)  # the criterion is evaluated in float64 too
    torch.testing.assert_close(f.gradient()[1], g.gradient()[1], rtol=1e-6, atol=1e-9)


def test_every_measurement_of_a_text_model(text_model):
    data, some = loader(15), {"parameters": "*classifier*", "random_state": 0}
    f = Objective(text_model, CE, data, parameters="*classifier*")
    hessian = torch.stack([f.hvp(e) for e in torch.eye(f.n_params, dtype=torch.float64)])
    torch.testing.assert_close(hessian, hessian.T, rtol=1e-6, atol=1e-9)
    top = hessian_eigenvalues((text_model, CE), data, k=1, **some)
    assert top.eigenvalues[0] == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-5)
    trace = hessian_trace((text_model, CE), data, **some)
    assert abs(trace.value - float(hessian.trace())) < 4 * trace.standard_error + 1e-9
    assert sharpness((text_model, CE), data, max_iter=3, **some).value > 0
    rows = torch.stack([f.batch_gradient([i])[1] for i in range(f.n_samples)])
    noise = gradient_noise_scale((text_model, CE), data, **some)
    assert noise.trace == pytest.approx(float(rows.var(0).sum()), rel=1e-6)
    assert noise.gradient_norm == pytest.approx(float(rows.mean(0).norm()), rel=1e-6)
    other = copy.deepcopy(text_model)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.05)
    curve = loss_along_line((text_model, CE), (other, CE), data, alphas=(0.0, 1.0))
    ends = [Objective(net, CE, data).value() for net in (text_model, other)]
    np.testing.assert_allclose(curve.loss, ends, rtol=1e-10)
