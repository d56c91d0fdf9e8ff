"""Coverage of the intervals of `rank_measures`, by simulation.

The script compares intervals by Student's t with intervals by percentiles of the resamples. Each study has nine
settings (three values on each of two axes) and 3 to 20 trials. Measure and error depend on the setting, on the trial
(shared by its nine models) and on each model. Their correlation within a setting is 0, 0.3 or 0.7. In one case the
errors are whole numbers, so that many are equal. The true values are means over studies of 60 trials. The nominal
coverage is 95 %. The script takes four minutes on one core; ``--repeats 100`` gives rough values.
"""

import argparse

import numpy as np

from sklgap.experiments import _granulated_tau as taus

AXES = np.array([(i, j) for i in range(3) for j in range(3)])
KINDS = ("plain", "granulated", "within")
# Correlation within settings, scale of the effect of the settings, and whether errors are whole numbers.
CASES = {
    "correlation 0.3": (0.3, 1.0, False),
    "correlation 0": (0.0, 0.5, False),
    "correlation 0.7": (0.7, 2.0, False),
    "correlation 0.3, ties": (0.3, 1.0, True),
}


def study(n_trials: int, n_resamples: int, case: tuple[float, float, bool], rng: np.random.RandomState) -> list:
    """Return tau with its interval and tau in the resamples, for each kind of pairs."""
    correlation, scale, ties = case
    measure_of_trial, error_of_trial = 0.5 * rng.normal(size=(2, n_trials, 1))
    own, rest = rng.normal(size=(2, n_trials, len(AXES)))
    measure = 0.5 * scale * (AXES[:, 0] - AXES[:, 1]) + measure_of_trial + own
    error = scale * (0.5 * AXES[:, 0] + 0.2 * AXES[:, 1]) + 0.5 * error_of_trial + 0.5 * measure_of_trial
    error = error + correlation * own + np.sqrt(1 - correlation**2) * rest
    first, second = measure.ravel(), (np.round(error) if ties else error).ravel()
    trials, settings = np.repeat(np.arange(n_trials), len(AXES)), np.tile(AXES, (n_trials, 1))
    resamples = taus.draw_resamples(n_trials, n_resamples, rng)
    drawn = []

    def remembered(values: np.ndarray, *trials: int) -> taus.Estimate:
        drawn.append(values[1:])
        return estimate(values, *trials)

    estimate, taus._estimate = taus._estimate, remembered
    try:
        found = taus.granulated_taus(first, second, trials, settings, resamples)
    finally:
        taus._estimate = estimate
    return list(zip([getattr(found, kind) for kind in KINDS], [drawn[0], drawn[1], drawn[-1]], strict=True))


def main() -> None:
    """Print the coverage of both intervals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=400, help="studies of each case (400)")
    arguments = parser.parse_args()
    rng = np.random.RandomState(0)
    print(
        f"{'':24}{'trials':>7}" + "".join(f"{f'{kind}, {how}':>24}" for how in ("t", "percentiles") for kind in KINDS)
    )
    for name, case in CASES.items():
        truth = np.mean([[tau.value for tau, _ in study(60, 1, case, rng)] for _ in range(60)], axis=0)
        for n_trials in (3, 5, 10, 20):
            held = np.zeros((2, len(KINDS)))
            for _ in range(arguments.repeats):
                for kind, (tau, drawn) in enumerate(study(n_trials, 400, case, rng)):
                    low, high = np.nanpercentile(drawn, [2.5, 97.5])
                    held[:, kind] += not tau.excludes(truth[kind]), low <= truth[kind] <= high
            shares = 100 * held.ravel() / arguments.repeats
            print(f"{name:24}{n_trials:>7}" + "".join(f"{share:>24.1f}" for share in shares), flush=True)


if __name__ == "__main__":
    main()
