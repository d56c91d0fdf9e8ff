"""The page on the design of a study: its numbers are those of the record, and the simulation does what it says."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from sklgap.experiments._estimate import unseen_failure_rate

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "guide" / "study_design.md").read_text(encoding="utf-8")
RECORD = json.loads((ROOT / "docs" / "results" / "power.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def power():
    folder = str(ROOT / "examples" / "benchmarks")
    before = set(sys.modules)
    sys.path.insert(0, folder)
    try:
        import power

        yield power
    finally:
        sys.path.remove(folder)
        for name in {"power", "intervals", "_common"} & (set(sys.modules) - before):
            del sys.modules[name]


def recorded(margin, samples, sd, trials):
    wanted = {"margin": margin, "samples": samples, "sd": sd, "trials": trials}
    (cell,) = (cell for cell in RECORD["power"] if wanted.items() <= cell.items())
    return f"{100 * cell['shown']:.0f}"


def test_the_table_is_the_record(power):
    assert power.table(RECORD["power"]) in PAGE
    assert RECORD["command"] in PAGE
    assert f"{RECORD['settings']['n_simulations']:,} studies for each cell" in PAGE


def test_the_sentences_are_of_the_record():
    text = " ".join(PAGE.split())
    assert f"in {recorded(2, 1000, 1, 5)} to {recorded(2, 1000, 0.3, 5)} % of studies" in text
    few, many, more = recorded(1, 1000, 1, 3), recorded(1, 10_000, 1, 3), recorded(1, 10_000, 1, 10)
    assert f"{few} % with 1,000 samples and {many} % with 10,000. Ten trials raise it to {more} %." in text
    assert f"10,000 samples give {recorded(0.5, 10_000, 0.3, 10)} %" in text
    assert max(cell["shown"] for cell in RECORD["power"] if (cell["margin"], cell["sd"]) == (0.5, 1)) < 0.4


def test_rates_of_failures_that_do_not_show():
    rates = [f"{100 * unseen_failure_rate(n):.0f}" for n in (3, 5, 10)]
    assert re.findall(r"(\d+) %", PAGE[PAGE.index("### Batch sizes that fail") :])[:4] == [rates[0], "5", *rates[1:]]


def test_a_wide_margin_is_shown_and_a_real_loss_is_not(power):
    rng = np.random.default_rng(0)
    wide, narrow = power.shares_shown(rng, 5, 500, 0.1, [20.0, 0.01], n_simulations=20)
    assert wide == 1
    assert narrow <= 0.2  # nominally 5 %
    (losing,) = power.shares_shown(rng, 5, 500, 0.1, [2.0], lost=4.0, n_simulations=20)
    assert losing == 0


def test_a_margin_that_is_too_small_for_the_samples_is_refused(power):
    cells = [{"margin": 0.5, "samples": 100, "sd": 1.0, "trials": 3, "shown": None}]
    assert power.table(cells).endswith("| 0.5 | 100 | refused |")
