"""Repeat the main job with other seeds and check whether its results hold.

Each seed generates other training, validation and test samples, and other initial weights. The script checks three
results: the interval of the gap lies above 0, the remedies leave at most a third of the gap, and the large batch ends
at a sharper minimum that is closer to its initial weights. The script fails if a result does not hold.

    python examples/benchmarks/first_minute.py --seeds 10

Each seed takes about a minute.
"""

import argparse
import time

from _common import environment

from sklgap.cli._demo import LARGE, REMEDIED, study


def main() -> None:
    """Print a line for each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seeds", type=int, default=10, help="number of seeds besides seed 0, which the package ships (10)"
    )
    parser.add_argument("--jobs", type=int, default=-1, help="parallel fits (-1: one per core)")
    arguments = parser.parse_args()
    print(environment())
    wrong = 0
    for seed in range(arguments.seeds + 1):
        started = time.perf_counter()
        found = study(seed, n_jobs=arguments.jobs)
        gap, rest = found.table.gap(LARGE), found.table.gap(REMEDIED)
        sharper, closer = found.sharpness_ratio(), found.distance_ratio()
        holds = gap.low > 0 and rest.value <= gap.value / 3 and sharper.value > 1 and closer.value > 1
        wrong += not holds
        print(
            f"seed {seed}: gap {gap.points('.1f')}, with remedies {rest.points('.1f')}, sharpness ratio "
            f"{sharper.text('.2f')}, distance ratio {closer.text('.2f')}, safe {int(found.safe)}, "
            f"{time.perf_counter() - started:.0f} s: {'holds' if holds else 'DOES NOT HOLD'}",
            flush=True,
        )
    if wrong:
        raise SystemExit(f"The results of the main job must hold for every seed; they fail for {wrong} seeds.")


if __name__ == "__main__":
    main()
