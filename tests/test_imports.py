"""What is imported, and when: nothing heavy before it is needed. One process goes through all steps and says so."""

import json
import subprocess
import sys

import pytest

# torch's compiler and what it brings, and what only some users have.
HEAVY = ("torch._dynamo", "torch._inductor", "sympy", "pandas", "matplotlib", "lightning", "transformers")
SCRIPT = """
import json, sys, warnings
warnings.simplefilter("ignore")
HEAVY = {heavy!r}
found, before = {{}}, set()

def step(name):
    global before
    now = {{module for module in HEAVY if module in sys.modules}}
    found[name] = sorted(now - before)
    before = now

import sklgap
found["import sklgap"] = [module for module in ("torch", "sklearn", "skorch", *HEAVY) if module in sys.modules]
import torch, sklearn.base, skorch
from torch import nn
step("torch, scikit-learn and skorch")  # what these bring is not ours
from sklgap import LBGapClassifier, compare_regimes, sharpness
from sklgap import inspection as i
from sklgap.objective import Objective
step("our names")

X, y = torch.randn(40, 4), torch.arange(40) % 3
net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.BatchNorm1d(5), nn.Linear(5, 3))
options = {{"chunk_size": 20}}
objectives = [Objective(net, nn.CrossEntropyLoss(), (X, y), batch_norm=p, **options) for p in ("batch", "population")]
for objective in objectives:
    objective.evaluate()
    sharpness(objective, random_state=0)
step("sharpness")
i.adaptive_sharpness(objectives[0], random_state=0)
step("adaptive_sharpness")
i.flatness(objectives[0], random_state=0)
step("flatness")
for objective in objectives:
    i.hessian_eigenvalues(objective, random_state=0)
step("hessian_eigenvalues")
i.hessian_trace(objectives[0], random_state=0)
i.hessian_spectral_density(objectives[0], random_state=0)
i.ritz_values(objectives[0])
step("other spectra")
i.gradient_noise_scale(objectives[0], random_state=0)
step("gradient_noise_scale")
from sklgap.monitor import BatchSizeMonitor
step("BatchSizeMonitor")

torch.optim.Adam(net.parameters())
step("an optimiser of torch")
plain = Objective(nn.Linear(4, 3), nn.CrossEntropyLoss(), (X, y))
i.gradient_noise_scale(plain, method="per_sample", random_state=0)
step("gradients of rows")
model = LBGapClassifier(module__width=4, max_epochs=1, tol=None, random_state=0).fit(X.numpy(), y.numpy())
step("fit")
model.predict(X.numpy())
step("predict")
report = compare_regimes(model, X.numpy(), y.numpy(), X.numpy(), y.numpy(), n_trials=1, random_state=0, verbose=0)
step("compare_regimes")
str(report), report._repr_html_(), report.to_json(), report.to_latex()
step("a report")
print(json.dumps(found))
"""
STEPS = (
    "import sklgap",
    "our names",
    "sharpness",
    "adaptive_sharpness",
    "flatness",
    "hessian_eigenvalues",
    "other spectra",
    "gradient_noise_scale",
    "BatchSizeMonitor",
    "gradients of rows",
    "fit",
    "predict",
    "compare_regimes",
    "a report",
)


@pytest.fixture(scope="module")
def found():
    script = SCRIPT.format(heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("step", STEPS)
def test_nothing_heavy_is_imported(found, step):
    assert found[step] == []


def test_the_steps_would_show_what_is_imported(found):
    """torch's own optimisers import its compiler: were it not seen, the tests above could not fail."""
    assert "torch._dynamo" in found["an optimiser of torch"]
