"""Repeat the main job with other seeds: does what it shows hold?

Every seed generates other training, validation and test samples and starts from other weights. Checked are that the
interval of the gap lies above 0, that the remedies leave at most a third of the gap, and that the large batch ends
sharper and closer to its start. It fails if one of them does not hold.

    python examples/benchmarks/first_minute.py --seeds 10

Takes as many minutes as there are seeds.
"""

import argparse
import time

from _common import environment

from sklgap.cli._demo import LARGE, REMEDIED, study


def main() -> None:
    """Print a line for each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="seeds beside the one that is shipped, which is 0")
    parser.add_argument("--jobs", type=int, default=-1, help="fits at once")
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
        raise SystemExit(f"what the main job shows does not hold for {wrong} seeds")


if __name__ == "__main__":
    main()
