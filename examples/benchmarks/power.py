"""Power of `largest_safe_batch_size`, by simulation.

How often does the test show that a batch size is safe if it loses nothing? The loss of a trial is normal with mean
``--lost`` and standard deviation ``--sd``. All models err on related samples, as in ``intervals.py``. The reference is
right on ``--accuracy`` of the samples. The test is the one of sklgap. The rows of the table are margins and numbers of
validation samples. Its columns are standard deviations and numbers of trials.

The default gives the table of ``docs/guide/study_design.md``, with 2,000 simulations of each setting. One standard
error is then at most 1.1 points. The script takes some minutes on one core. Give your own numbers to plan a study::

    python examples/benchmarks/power.py --accuracy 0.8 --sd 0.5 --trials 5 10 --samples 2000 --margins 2
"""

import argparse
from pathlib import Path

import numpy as np
from _common import write_record
from intervals import right

from sklgap.experiments._estimate import crossed_components, loss_test, needed_rows


def shares_shown(
    rng: np.random.Generator,
    n_trials: int,
    n_samples: int,
    sd: float,
    margins: list[float],
    *,
    lost: float = 0.0,
    accuracy: float = 0.95,
    n_simulations: int = 2000,
) -> list[float]:
    """Return, for each margin, the share of simulations that show a smaller loss.

    Losses, deviations and margins are in points of accuracy.
    """
    shown = np.zeros(len(margins))
    for _ in range(n_simulations):
        easiness = rng.standard_normal(n_samples, dtype=np.float32)
        losses = rng.normal(lost, sd, n_trials) / 100
        reference = right(rng, np.full(n_trials, accuracy), easiness)
        other = right(rng, np.clip(accuracy - losses, 1e-4, 1 - 1e-4), easiness)
        differences = crossed_components(reference.astype(np.int8) - other)
        shown += [loss_test(differences, margin / 100).shown for margin in margins]
    return (shown / n_simulations).tolist()


def table(cells: list[dict]) -> str:
    """Return a Markdown table of the shares in percent, with "refused" for too few samples."""
    columns = sorted({(cell["sd"], cell["trials"]) for cell in cells})
    rows = sorted({(cell["margin"], cell["samples"]) for cell in cells})
    share = {(c["margin"], c["samples"], c["sd"], c["trials"]): c["shown"] for c in cells}
    head = ["margin (points)", "validation samples", *(f"sd {sd:g}, {n} trials" for sd, n in columns)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for margin, samples in rows:
        found = (share[margin, samples, *column] for column in columns)
        values = ["refused" if value is None else f"{100 * value:.0f}" for value in found]
        lines.append(f"| {margin:g} | {samples:,} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[3, 5, 10])
    parser.add_argument("--samples", type=int, nargs="+", default=[1000, 3000, 10_000])
    parser.add_argument(
        "--sd", type=float, nargs="+", default=[0.3, 1.0], help="standard deviations of the trials' losses, in points"
    )
    parser.add_argument("--margins", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="margins, in points")
    parser.add_argument("--lost", type=float, default=0.0, help="true loss of the batch size, in points")
    parser.add_argument("--accuracy", type=float, default=0.95, help="accuracy of the reference, as a fraction")
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--json", type=Path, help="file to write a record to")
    arguments = parser.parse_args()
    rng, cells = np.random.default_rng(0), []
    settings = {"lost": arguments.lost, "accuracy": arguments.accuracy, "n_simulations": arguments.simulations}
    for sd in arguments.sd:
        for n_trials in arguments.trials:
            for n_samples in arguments.samples:
                shown = shares_shown(rng, n_trials, n_samples, sd, arguments.margins, **settings)
                for margin, share in zip(arguments.margins, shown, strict=True):
                    refused = n_samples < needed_rows(margin / 100)
                    cell = {"margin": margin, "samples": n_samples, "sd": sd, "trials": n_trials}
                    cells.append({**cell, "shown": None if refused else share})
    print(table(cells))
    if arguments.json:
        write_record(arguments.json, settings=settings, power=cells)


if __name__ == "__main__":
    main()
