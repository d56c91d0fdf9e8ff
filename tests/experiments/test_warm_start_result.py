import json

import numpy as np
import pytest
from scipy import stats

from tests.experiments.experiments import WARM, warm_record, warm_start

ALL = [(trial, epochs) for trial in (0, 1) for epochs in (0, 5, 10)]


def _strictly(text):
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"JSON has {name}"))


def test_statistics():
    curve = warm_start()
    assert [(r["trial"], r["small_epochs"]) for r in curve.records] == ALL
    large, small = (np.array(WARM[key]) for key in ("test_accuracy", "small_test_accuracy"))
    np.testing.assert_array_equal(curve.by_trial("test_accuracy"), large)
    gains = large - large[:, :1]
    for i, (gain, cost) in enumerate(zip(curve.gain(), curve.cost(), strict=True)):
        assert gain.value == pytest.approx(gains[:, i].mean())
        assert cost.value == pytest.approx((small - large)[:, i].mean())
    last = curve.gain()[2]
    assert (last.low, last.high) == pytest.approx(stats.ttest_1samp(gains[:, 2], 0).confidence_interval(0.95))
    ratio = curve.sharpness_ratio(1e-3)[2]
    assert ratio.value == pytest.approx(np.sqrt(10 / 100 * 5 / 200))


def test_printed():
    text = str(warm_start())
    lines = text.splitlines()
    assert lines[0] == (
        "LB started from the weights of SB (the optimiser's state anew): 1,000 training and 200 test samples, "
        "2 paired trials, mean ± std"
    )
    (row,) = [line for line in lines if line.startswith("10 ")]
    for cell in ("96.50 ± 0.71", "95.50 ± 0.71", "7.5 ± 3.54", "+4.50 [-1.85, +10.85]"):
        assert cell in row
    assert "after 10 SB epochs: LB gains +4.50 points, 95 % interval [-1.85, +10.85], over 2 paired trials" in text
    assert "test accuracy of SB itself minus that of the LB from it: +1.00 points" in text
    assert "sharpness 0.001 of LB, relative to from scratch: 0.05 times" in text
    assert "nan" not in text


def test_a_gain_that_is_not_shown():
    assert any("contains 0: these trials do not show" in sentence for sentence in warm_start().warnings())
    clear = [warm_record(t, e, test_accuracy=0.9 + 0.01 * e + 0.0001 * t * e) for t, e in ALL]
    assert not any("contains 0" in sentence for sentence in warm_start(clear).warnings())


def test_what_is_always_said():
    sentences = warm_start().warnings()
    assert any(sentence.startswith("A warm-started LB has made the updates of SB besides") for sentence in sentences)
    assert any("of 2 intervals some may miss the truth" in sentence for sentence in sentences)


def test_unequal_losses():
    records = [warm_record(t, e, train_loss=0.01 if e < 10 else 0.001) for t, e in ALL]
    (sentence,) = [s for s in warm_start(records).warnings() if "Training losses" in s]
    assert "from scratch (1.0e-02) and after 10 SB epochs (1.0e-03)" in sentence
    assert not [s for s in warm_start().warnings() if "Training losses" in s]


def test_convergence():
    records = [warm_record(t, e, converged=e > 0) for t, e in ALL]
    assert "LB had not converged under its stopping rule in 2 of 6 fits." in warm_start(records).warnings()
    records = [warm_record(t, e, converged=None) for t, e in ALL]
    assert "LB was trained for max_epochs, without a stopping rule." in warm_start(records).warnings()


def test_missing_fits():
    records = [warm_record(0, 0), warm_record(0, 5), warm_record(1, 0)]
    curve = warm_start(records, interrupted=True)
    assert "Interrupted: 3 of 6 large-batch fits had finished and are reported." in curve.warnings()
    assert [gain.n for gain in curve.gain()] == [2, 1, 0]
    text = str(curve)
    assert "after 5 SB epochs: LB gains +1.00 points, over 1 paired trial" in text
    assert "nan" not in text
    assert _strictly(curve.to_json())["interrupted"] is True
    curve = warm_start(records)
    assert any(sentence.startswith("3 of 6 starting points are missing") for sentence in curve.warnings())


def test_nothing_to_compare():
    curve = warm_start([warm_record(0, 0)], interrupted=True)
    assert "No large-batch training after small-batch epochs can be compared with one from scratch." in curve.warnings()
    assert "nan" not in str(curve)


def test_a_training_that_diverged():
    records = [
        warm_record(t, e, **({"train_loss": np.nan, "sharpness_0.001": np.nan} if e == 5 else {})) for t, e in ALL
    ]
    curve = warm_start(records)
    assert any("not finite" in sentence for sentence in curve.warnings())
    _strictly(curve.to_json())


def test_trainings_that_all_diverged_at_the_end():
    records = [warm_record(t, e, **({"train_loss": np.nan} if e == 10 else {})) for t, e in ALL]
    sentences = warm_start(records).warnings()
    assert any("not finite" in sentence for sentence in sentences)
    assert not any("Training losses" in sentence for sentence in sentences)


def test_no_sharpness():
    text = str(warm_start(epsilons=[]))
    assert "sharpness" not in text.lower()


def test_files(tmp_path):
    curve = warm_start()
    content = _strictly(curve.to_json(tmp_path / "curve.json"))
    assert json.loads((tmp_path / "curve.json").read_text(encoding="utf-8")) == content
    assert content["records"] == curve.records
    assert content["points"][2]["gain"]["value"] == pytest.approx(0.045)
    pytest.importorskip("pandas")
    assert curve.to_frame()["small_epochs"].tolist() == [0, 5, 10, 0, 5, 10]
