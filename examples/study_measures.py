"""
Does any measure of flatness predict generalisation?
====================================================

The script trains dense nets (F1) with three batch sizes, three learning rates of ADAM
and five seeds. Each training stops when the mean training loss of an epoch reaches a
common target. The script then measures every minimum in all ways that sklgap knows.

Which measure orders the minima as their test accuracy does? The script answers this
over all minima, over minima that differ only in batch size or only in learning rate,
and over minima that differ only in the seed. It also ranks the training loss and the
distance from the initial weights. A measure of flatness is useful only if it predicts
better than these two.

``--data mnist1d`` (the default) generates its data. ``--data mnist`` uses 5,000
training images of MNIST. Each takes some fifteen minutes on one core. A second run with
the same ``--memory`` continues after the last finished fit. ``--quick`` takes less than
a minute with fewer samples, seeds and measures, and its figures mean nothing.
"""

# %%
# The data, and the sizes of the experiment.
import argparse
import json
from pathlib import Path

from _options import save_figure, saved_estimate

from sklgap import LBGapClassifier, minima_census, rank_measures
from sklgap.datasets import fetch_mnist, make_mnist1d
from sklgap.experiments import MeasureRankingDisplay

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument(
    "--quick", action="store_true", help="use small sizes, whose figures mean nothing"
)
parser.add_argument("--data", choices=["mnist1d", "mnist"], default="mnist1d")
parser.add_argument("--trials", type=int, help="seeds (default: 5; 2 with --quick)")
parser.add_argument("--memory", help="folder of finished fits")
parser.add_argument(
    "--output",
    help="JSON file for the census, with rankings and figure in the same folder",
)
parser.add_argument(
    "--draw",
    type=Path,
    help="draw the figure of this ranking (JSON) beside it again, and train nothing",
)
arguments = parser.parse_args()

if arguments.draw:
    kinds = {
        "all minima": "plain",
        "one setting differs": "granulated",
        "only the seed differs": "within",
    }
    taus = {
        measure["name"]: {
            kind: saved_estimate(measure[key]) for kind, key in kinds.items()
        }
        for measure in json.loads(arguments.draw.read_text())["measures"]
    }
    # NAME.test.json has the figure NAME.png.
    figure = MeasureRankingDisplay(taus).plot().figure_
    save_figure(figure, arguments.draw.with_suffix("").with_suffix(".png"))
    raise SystemExit

measures = [
    "adaptive_sharpness",
    "average_sharpness",
    "adaptive_average_sharpness",
    "normalized_average_sharpness",
]
measures += [
    "ball_sharpness",
    "adaptive_ball_sharpness",
    "normalized_ball_sharpness",
    "m_sharpness",
]
measures += ["fisher_sharpness", "fisher_trace", "hessian_trace", "largest_eigenvalue"]
if arguments.data == "mnist1d" or arguments.quick:
    X, y = make_mnist1d(500 if arguments.quick else 4000, random_state=0)
    X_test, y_test = make_mnist1d(500 if arguments.quick else 10_000, random_state=1)
    estimator = LBGapClassifier(
        module__width=100, module__n_layers=3, max_epochs=100, n_threads=1
    )
    batch_sizes, learning_rates, target_loss = [40, 100, 400], [1e-3, 2e-3, 4e-3], 0.3
else:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    X, y = X[:5000], y[:5000]
    X_test, y_test = fetch_mnist(subset="test", return_X_y=True, flat=True)
    estimator = LBGapClassifier(module__width=64, max_epochs=100, n_threads=1)
    batch_sizes, learning_rates, target_loss = [64, 256, 1000], [1e-3, 2e-3, 4e-3], 0.05
if arguments.quick:
    estimator.set_params(module__width=16, max_epochs=3)
    batch_sizes, learning_rates, measures = (
        [40, 100],
        [1e-3, 4e-3],
        ["average_sharpness", "fisher_trace"],
    )

# %%
# In a trial, all nine settings start from the same seed.
census = minima_census(
    estimator,
    X,
    y,
    X_test,
    y_test,
    regimes=batch_sizes,
    inits=["glorot_uniform"],
    learning_rates=learning_rates,
    measures=measures,
    n_trials=arguments.trials or (2 if arguments.quick else 5),
    target_loss=target_loss,
    max_samples=200 if arguments.quick else 500 if arguments.data == "mnist" else 1000,
    random_state=0,
    memory=arguments.memory,
)
print(census)

# %%
# The rankings by test accuracy and by the train-test gap.
ranked = [census.sharpness_name, *census.measures, "train_loss", "weight_distance"]
rankings = {
    target: rank_measures(census, measures=ranked, target=target)
    for target in ("test", "gap")
}
for ranking in rankings.values():
    print(f"\n{ranking}")
if arguments.output:
    census.to_json(arguments.output)
    for target, ranking in rankings.items():
        ranking.to_json(Path(arguments.output).with_suffix(f".{target}.json"))
    figure = rankings["test"].plot().figure_
    save_figure(figure, Path(arguments.output).with_suffix(".png"))
