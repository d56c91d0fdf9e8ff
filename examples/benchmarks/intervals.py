"""Level, power and coverage of the intervals of experiments, by simulation.

The script simulates these cases:

* Any components of variance: the crossed interval over seeds and samples, at the worst shares of seeds, samples and
  residual. Its critical value has Satterthwaite's degrees of freedom from four trials on, and Cochran's below. The
  table also shows the other one.
* Accuracy: the same interval, and the interval over seeds alone. The components are as measured: the standard deviation
  over seeds is 0.3 or 1 point, some 5 % of the samples are wrong, and models of different seeds and batch sizes err on
  related samples.
* Average precision: the bootstrap that resamples the same samples for all models.
* Times of which some are censored, and slopes of trajectories.

Level is how often the test calls a batch size safe that loses exactly the margin (nominal 5 %). Power is how often it
calls a batch size safe that loses nothing, at a margin of 1 point (4 points of average precision). Coverage is that of
the interval (nominal 95 %). A level of at most 6 % and a coverage of at least 93 % are accepted. The table marks a
coverage above 98 % as "wide". It also marks a value outside these limits by more than one standard error, which is half
a point over 2,000 simulations. The script takes ten minutes on one core; ``--simulations 200`` gives rough values.
"""

import argparse

import numpy as np
from scipy import stats
from sklearn.metrics import average_precision_score

from sklgap.experiments._estimate import (
    ENOUGH_TRIALS,
    Components,
    bootstrap_components,
    crossed_components,
    loss_test,
    time_ratio,
    trial_components,
    unseen_failure_rate,
)
from sklgap.inspection import fit_diffusion

MARGIN = 0.01
HEADER = f"{'':42}{'level %':>9}{'power %':>9}{'coverage %':>12}"


def halves(c: Components) -> tuple[float, float]:
    """Return half-widths of the one-sided and the two-sided 95 % interval of sklgap."""
    return c.bound() - c.value, c.estimate().high - c.value


def alternative(c: Components) -> tuple[float, float]:
    """Return half-widths with the critical value that sklgap uses for other numbers of trials."""
    if not c.shows:
        return np.inf, np.inf
    t, share = stats.t.ppf([0.95, 0.975], c.degrees), c.seeds / c.variance
    if c.n_trials >= ENOUGH_TRIALS:
        t = sum(w * stats.t.ppf([0.95, 0.975], d - 1) for w, d in ((share, c.n_trials), (1 - share, c.n_rows)))
    return tuple(t * np.sqrt(c.variance))


def lines(label: str, found: list[Components], truth: float, margin: float) -> list[str]:
    """Return a line for each interval."""
    values = np.array([c.value for c in found])
    other = "Cochran's t" if found[0].n_trials >= ENOUGH_TRIALS else "Satterthwaite's t"
    table = {
        label: [halves(c) for c in found],
        f"    by {other} instead": [alternative(c) for c in found],
        "    seeds alone": [halves(trial_components(c.trials)) for c in found],
    }
    return [line(name, values, np.array(half), truth, margin) for name, half in table.items()]


def line(name: str, values: np.ndarray, halves: np.ndarray, truth: float, margin: float) -> str:
    """Return a line of the table from values (n,) and half-widths (n, 2)."""
    level = 100 * np.mean(values + halves[:, 0] < truth)
    power = 100 * np.mean(values - truth + halves[:, 0] < margin)
    coverage = 100 * np.mean(np.abs(values - truth) <= halves[:, 1])
    error = 22 / np.sqrt(len(values))  # one standard error of a share of 5 %, in points
    accepted = level <= 6 + error and coverage >= 93 - error
    verdict = "MISSES" if not accepted else "wide" if coverage > 98 + error else "ok"
    return f"{name:42}{level:9.1f}{power:9.1f}{coverage:12.1f}  {verdict}"


def right(rng: np.random.Generator, accuracy: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return which samples are right, of shape (n_trials, n_rows), for the accuracies of the trials.

    A sample is right if the sum of three parts stays below a threshold. All models share the first part, which is u.
    The models of one condition share the second part. The third part belongs to a single model. The parts have 70, 10
    and 20 % of the variance.
    """
    shape = len(accuracy), len(u)
    condition = rng.standard_normal(len(u), dtype=np.float32)
    latent = np.sqrt(0.7) * u + np.sqrt(0.1) * condition + np.sqrt(0.2) * rng.standard_normal(shape, dtype=np.float32)
    return latent < stats.norm.ppf(accuracy)[:, None]


def worst(rng: np.random.Generator, n_trials: int, n: int, n_rows: int = 2000) -> str:
    """Draw mean squares of normal data for a grid of shares, and return the extremes over the grid."""
    shares = {"Satterthwaite's": [], "Cochran's": []}
    df = np.array([n_trials - 1, n_rows - 1, (n_trials - 1) * (n_rows - 1)])
    for seeds in (0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1):
        for residual in (0, 0.03, 0.1, 0.3, 1, 3):
            squares = np.array([seeds + residual, 1 - seeds + residual, residual])
            A, B, C = (squares * rng.chisquare(df, (n, 3)) / df).T
            v = np.maximum(A + B - C, np.maximum(A, B))
            errors = np.sqrt(1 + residual) * rng.standard_normal(n) / np.sqrt(v)
            degrees = np.maximum(v**2 / (A**2 / df[0] + B**2 / df[1] + C**2 / df[2]), 1)
            one, two = (stats.t.ppf(p, degrees) for p in (0.95, 0.975))
            shares["Satterthwaite's"].append((np.mean(errors < -one), np.mean(np.abs(errors) <= two)))
            one, two = ((A * stats.t.ppf(p, df[0]) + (v - A) * stats.t.ppf(p, df[1])) / v for p in (0.95, 0.975))
            shares["Cochran's"].append((np.mean(errors < -one), np.mean(np.abs(errors) <= two)))
    found = []
    for name, pairs in shares.items():
        level, coverage = 100 * np.array(pairs).T
        found.append(
            f"{name} level up to {level.max():4.1f} %, coverage {coverage.min():.1f} to {coverage.max():.1f} %"
        )
    return f"J {n_trials:2}: " + "; ".join(found)


def accuracies(rng: np.random.Generator, n_trials: int, n_rows: int, sd: float, n: int) -> list[str]:
    """Simulate a batch size that loses exactly the margin, and return a line for each interval."""
    found = []
    for _ in range(n):
        u = rng.standard_normal(n_rows, dtype=np.float32)
        lost = rng.normal(MARGIN, sd, n_trials)
        reference = right(rng, np.full(n_trials, 0.95), u)
        other = right(rng, np.minimum(0.95 - lost, 0.9999), u)
        found.append(crossed_components(reference.astype(np.int8) - other))
    return lines(f"J {n_trials:2}, n {n_rows:6,}, sd {100 * sd:g} points: crossed", found, MARGIN, MARGIN)


def precisions(rng: np.random.Generator, n_trials: int, n_rows: int, n: int, n_resamples: int = 200) -> list[str]:
    """Simulate scores with 9 % positive samples, and return a line for each interval of average precision."""
    found = []
    for _ in range(n):
        y = (rng.random(n_rows) < 0.09).astype(int)
        u = rng.standard_normal(n_rows)
        reference, other = (
            [
                rng.normal(shift, 0.08) * y + 0.8 * u + 0.3 * own + 0.5 * rng.standard_normal(n_rows)
                for _ in range(n_trials)
            ]
            for shift, own in ((2.0, rng.standard_normal(n_rows)), (1.8, rng.standard_normal(n_rows)))
        )
        options = {"n_resamples": n_resamples, "random_state": int(rng.integers(2**31))}
        found.append(bootstrap_components(average_precision_score, y, reference, other, **options))
    truth = float(np.mean([c.value for c in found]))  # the mean over new seeds and new samples
    label = f"J {n_trials:2}, n {n_rows:6,}, {0.09 * n_rows:.0f} positives: bootstrap"
    return lines(label, found, truth, 4 * MARGIN)


def times(rng: np.random.Generator, n_trials: int, budget: float, n: int) -> str:
    """Simulate paired log-normal times with a median ratio of 2, and censor both at a budget."""
    hits, levels, dropped, censored = 0, [], 0, 0
    for _ in range(n):
        common = rng.normal(0, 0.3, n_trials)
        one, two = np.exp(common + rng.normal(0, 0.3, n_trials)), 2 * np.exp(common + rng.normal(0, 0.3, n_trials))
        reached = one <= budget, two <= budget
        found = time_ratio(np.minimum(one, budget), np.minimum(two, budget), *reached)
        hits += not found.excludes(2.0)
        levels.append(found.level)
        censored += (~reached[1]).mean()
        both = trial_components(np.log(two / one)[reached[0] & reached[1]])
        dropped += not both.estimate().excludes(np.log(2)) if both.n_trials > 1 else 0
    return (
        f"J {n_trials:2}, {100 * censored / n:3.0f} % of the other censored:".ljust(42)
        + f"nominal {100 * np.mean(levels):5.2f} %, coverage {100 * hits / n:5.1f} %; pairs that both reached, "
        f"by t: {100 * dropped / n:5.1f} %"
    )


def diffusion(rng: np.random.Generator, n_trials: int, n: int) -> str:
    """Simulate trajectories a + b log t with random walks and with slopes that vary over seeds."""
    t = np.unique(np.geomspace(1, 1024, 30).astype(int))
    x = np.log(t)
    hits, single = 0, 0
    for _ in range(n):
        slopes = rng.normal(2, 0.2, n_trials)
        walks = 0.05 * np.cumsum(rng.standard_normal((n_trials, len(t))), axis=1)
        distances = 10 + slopes[:, None] * x + walks
        low, high = fit_diffusion(t, distances).b_interval
        hits += low <= 2 <= high
        fit = stats.linregress(x, distances[0])
        single += abs(fit.slope - 2) <= stats.t.ppf(0.975, len(t) - 2) * fit.stderr
    shares = f"coverage {100 * hits / n:5.1f} %; about the line of one run {100 * single / n:.1f} %"
    return f"J {n_trials:2}:".ljust(42) + shares


def failures(rng: np.random.Generator, n_trials: int, n_rows: int, n: int) -> str:
    """Return how often the test calls a batch size safe that loses 20 points in one seed of ten and nothing else."""
    safe = by_mean = 0
    for _ in range(n):
        u = rng.standard_normal(n_rows, dtype=np.float32)
        lost = np.where(rng.random(n_trials) < 0.1, 0.2, 0.0) + rng.normal(0, 0.003, n_trials)
        other = right(rng, 0.95 - lost, u)
        test = loss_test(crossed_components(right(rng, np.full(n_trials, 0.95), u).astype(np.int8) - other), 0.02)
        safe += test.shown
        by_mean += test.bound < 0.02
    shares = f"called safe {100 * safe / n:5.1f} % (by the bound alone {100 * by_mean / n:.1f} %)"
    rate = f"highest failure rate that can stay unseen: {100 * unseen_failure_rate(n_trials):.0f} %"
    return f"J {n_trials:2}, one seed of ten fails:".ljust(42) + f"{shares}; {rate}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000, help="simulations of each case (2000)")
    n = parser.parse_args().simulations
    rng = np.random.default_rng(0)
    print(f"worst shares of normal components, {10 * n:,} simulations of each")
    for n_trials in (2, 3, 4, 5, 7, 10):
        print(worst(rng, n_trials, 10 * n), flush=True)
    print(f"\naccuracy, {n:,} simulations\n{HEADER}")
    for n_trials in (2, 3, 4, 5, 7, 10):
        for n_rows in (200, 1000, 10_000):
            for sd in (0.003, 0.01):
                print(*accuracies(rng, n_trials, n_rows, sd, n), sep="\n", flush=True)
    print(f"\naverage precision\n{HEADER}")
    for n_trials, n_rows in ((2, 500), (2, 2000), (3, 1000), (5, 500), (5, 2000), (10, 1000)):
        print(*precisions(rng, n_trials, n_rows, n), sep="\n", flush=True)
    print("\nmedian ratio of times, at 95 % or at the highest level that the trials allow")
    for n_trials in (3, 5, 10):
        for budget in (np.inf, 2.5, 1.8):
            print(times(rng, n_trials, budget, n), flush=True)
    print("\nslope of the diffusion")
    for n_trials in (2, 3, 5, 10):
        print(diffusion(rng, n_trials, n), flush=True)
    print("\nfailing trials, margin 2 points, 2,000 samples")
    for n_trials in (3, 5, 10):
        print(failures(rng, n_trials, 2000, n), flush=True)


if __name__ == "__main__":
    main()
