import json

import numpy as np
import pytest
from scipy import stats

from tests.experiments.records import curve

VALID = {100: (0.96, 0.95, 0.955), 200: (0.96, 0.951, 0.954), 400: (0.90, 0.91, 0.92)}
TEST = {100: (0.95, 0.94, 0.945), 200: (0.951, 0.939, 0.945), 400: (0.90, 0.91, 0.90)}
SHARPNESS = {size: {"sharpness_0.001": size / 50} for size in VALID}


def _warned(c, *words):
    sentences = [s for s in c.warnings() if all(word in s for word in words)]
    assert len(sentences) == 1, c.warnings()
    assert sentences[0] in str(c)
    assert sentences[0] in json.loads(c.to_json(), parse_constant=pytest.fail)["warnings"]


def test_quantities():
    c = curve(VALID, TEST, values=SHARPNESS)
    assert c.batch_sizes == [100, 200, 400]
    assert c.reference == 100
    np.testing.assert_array_equal(c.quantity("test_accuracy"), list(TEST.values()))
    np.testing.assert_array_equal(c.values(200, "valid_accuracy"), VALID[200])
    np.testing.assert_array_equal(c.values("200", "valid_accuracy"), VALID[200])
    partly = curve(VALID, skip=[(200, 1)], interrupted=True)
    np.testing.assert_array_equal(np.isnan(partly.quantity("n_updates")), [[0, 0, 0], [0, 1, 0], [0, 0, 0]])


def test_gaps_are_those_of_test_accuracy():
    first, second = curve(VALID, TEST).gaps()
    interval = stats.ttest_rel(TEST[100], TEST[400]).confidence_interval(0.95)
    assert (first.regime, second.regime) == ("200", "400")
    assert (second.low, second.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_the_table():
    text = str(curve(VALID, TEST, values=SHARPNESS))
    rows = {
        line.split("   ")[0]: [cell.strip() for cell in line.split("   ") if cell.strip()] for line in text.split("\n")
    }
    assert rows["batch size"][1:6] == ["lr", "updates", "train loss", "train (%)", "valid. (%)"]
    assert rows["100"][1:3] == ["0.001", "80"]
    assert rows["100"][5:9] == ["95.50 ± 0.50", "94.50 ± 0.50", "2 ± 0", "1.5"]
    assert rows["100"][-1] == "reference"
    (gap,) = [gap for gap in curve(VALID, TEST).gaps() if gap.regime == "400"]
    assert rows["400"][-1] == f"+4.17 [{100 * gap.low:+.2f}, {100 * gap.high:+.2f}]"
    assert "1,000 training, 1,000 validation and 200 test samples, 3 paired trials, mean ± std" in text
    assert "batch_norm='batch'" in text


def test_the_reading():
    text = str(curve(VALID, TEST, values=SHARPNESS))
    assert (
        "Test accuracy with batches of 400 is 4.17 points below that with batches of 100, over 3 trials; "
        "sharpness 0.001 is 8 % instead of 2 %."
    ) in text
    assert "covers seeds, not the draw of the test set" in text
    doubtful = str(curve({100: TEST[100], 200: TEST[200]}))
    assert "with batches of 200 is 0.00 points" in doubtful
    assert "(its interval contains 0)" in doubtful


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "learning rate (lr='fixed'): the same for all sizes"),
        ({"lr": "sqrt"}, "square root of the batch size"),
        ({"lr": "linear"}, "in proportion to the batch size"),
        ({"lr": "tuned"}, "on the validation data, by seeds that the trials below do not use"),
        ({}, "(budget='epochs'): 20 epochs for every size"),
        ({"budget": "updates"}, "as many updates for every size as the reference makes in 20 epochs"),
        ({"budget": "loss", "target_loss": 0.05}, "to a training loss of 0.05, within 20 epochs"),
    ],
)
def test_the_question_is_printed(settings, words):
    assert words in str(curve(VALID, **settings))


# -- warnings ----------------------------------------------------------------------------------------------------------


def test_no_warning_without_a_reason():
    assert curve(VALID, TEST).warnings() == []
    assert "Please note" not in str(curve(VALID, TEST))


def test_not_converged():
    c = curve(VALID, values={400: {"converged": False}})
    _warned(c, "Not converged under the stopping rule: batches of 400 (3 of 3 trials).")
    c = curve(VALID, values={400: {"converged": False}}, budget="loss", target_loss=0.1)
    _warned(c, "Not reached target_loss: batches of 400 (3 of 3 trials).")
    _warned(curve(VALID, values={size: {"converged": None} for size in VALID}), "whole budget")


def test_unequal_losses_in_one_sentence():
    c = curve(VALID, values={200: {"train_loss": 0.03}, 400: {"train_loss": 0.5}})
    _warned(c, "Training losses of batches of 200, 400 differ from that of 100 by more than a factor of 2")
    _warned(curve(VALID, values={400: {"train_loss": np.nan}}), "not finite for batches of 400")


def test_rates_at_the_edge():
    c = curve(VALID, lr="tuned", lrs=[1e-4, 1e-3, 1e-2], values={200: {"lr": 1e-2}, 400: {"lr": 1e-4}})
    _warned(c, "At the edge of lrs is the rate for batches of 200 (0.01), 400 (0.0001): try further ones.")
    assert curve(VALID, lr="tuned", lrs=[1e-4, 1e-3, 1e-2]).warnings() == []
    assert curve(VALID, lr="tuned", lrs=[1e-3]).warnings() == []


def test_one_trial():
    c = curve({size: accuracies[:1] for size, accuracies in VALID.items()})
    _warned(c, "One trial has no interval")
    assert "nan" not in str(c)
    assert "largest_safe_batch_size" not in str(c)  # it takes two
    assert str(curve(VALID)).count("largest_safe_batch_size(curve)") == 1


def test_interrupted():
    c = curve(VALID, skip=[(200, 1), (400, 1), (200, 2), (400, 2)], interrupted=True)
    _warned(c, "Interrupted: 5 of 9 fits had finished")
    only = curve(VALID, skip=[(size, t) for size in VALID for t in range(3) if (size, t) != (200, 0)], interrupted=True)
    assert "nothing can be compared" in str(only)
    assert "nan" not in str(only)


# -- leaving -----------------------------------------------------------------------------------------------------------


def test_to_json_and_to_frame(tmp_path):
    tuning = [{"batch_size": 100, "lr": 1e-3, "valid_accuracy": 0.9}]
    c = curve(VALID, TEST, tuning=tuning)
    text = c.to_json(tmp_path / "curve.json")
    assert (tmp_path / "curve.json").read_text(encoding="utf-8") == text + "\n"
    content = json.loads(text, parse_constant=pytest.fail)
    assert content["records"] == c.records
    assert content["tuning"] == c.tuning == tuning
    assert content["settings"]["batch_sizes"] == [100, 200, 400]
    pytest.importorskip("pandas")
    assert c.to_frame()["valid_accuracy"].tolist() == [record["valid_accuracy"] for record in c.records]


def test_estimators_by_size():
    assert curve(VALID).estimators_["200"] == [f"model 200 {trial}" for trial in range(3)]
