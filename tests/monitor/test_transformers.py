"""The callback with the Trainer of Transformers, on models built from a config: nothing is downloaded."""

import doctest

import numpy as np
import pytest
import torch
from torch import nn

from sklgap.monitor import BatchSizeMonitor
from sklgap.monitor import transformers as adapter
from sklgap.monitor.transformers import BatchSizeCallback

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator is found")


def gpt2(dropout=0.1):
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=8, vocab_size=20, n_positions=12, resid_pdrop=dropout, embd_pdrop=dropout,
        attn_pdrop=dropout, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def bert(dropout=0.1):
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=20, num_labels=3,
        hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, max_position_embeddings=12,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def texts(n=40, length=10):
    """Token sequences of which a part is padding, which the loss ignores."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 20, (n, length), generator=generator)
    lengths = torch.randint(2, length + 1, (n,), generator=generator)
    labels = tokens.masked_fill(torch.arange(length) >= lengths[:, None], -100)
    return [{"input_ids": a, "labels": b} for a, b in zip(tokens, labels, strict=True)]


def sentences(n=40):
    return [{**row, "labels": torch.tensor(i % 3)} for i, row in enumerate(texts(n))]


class Logging(transformers.TrainerCallback):
    """Sees every log, and the weights at every update."""

    def __init__(self):
        self.logs, self.weights = [], []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append(dict(logs))

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]).clone())


def trained(tmp_path, options=None, model=gpt2, data=None, kind=transformers.Trainer, kwargs=None, **arguments):
    transformers.set_seed(0)
    given = {"per_device_train_batch_size": 8, "num_train_epochs": 2, "learning_rate": 1e-2, "logging_steps": 2}
    args = transformers.TrainingArguments(
        tmp_path, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, seed=0, **{**given, **arguments}
    )
    seen = Logging()
    data = (texts() if model is gpt2 else sentences()) if data is None else data
    trainer = kind(model(), args, train_dataset=data, callbacks=[seen], **(kwargs or {}))
    callback = None
    if options is not None:
        callback = BatchSizeCallback(trainer, **options)
        trainer.add_callback(callback)
    trainer.train()
    return trainer, seen, callback


STEP = {"every": 1, "parts": 4, "verbose": False}


@pytest.mark.parametrize("model", [gpt2, bert])
@pytest.mark.parametrize(
    ("options", "arguments", "counts"),
    [
        (STEP, {}, (10, 0)),
        ({**STEP, "geometry": "adam"}, {"bf16": True}, (9, 1)),
        ({"verbose": False}, {"gradient_accumulation_steps": 2}, (4, 2)),  # the last update of an epoch has one
        ({"verbose": False}, {"gradient_accumulation_steps": 5, "max_grad_norm": 0.1, "bf16": True}, (2, 0)),
        ({**STEP, "parts": 2}, {"label_smoothing_factor": 0.1}, (10, 0)),
    ],
)
def test_training_is_bit_for_bit_the_same(tmp_path, model, options, arguments, counts):
    _, seen, callback = trained(tmp_path, options, model, **arguments)
    _, plain, _ = trained(tmp_path, None, model, **arguments)
    assert len(seen.weights) == len(plain.weights) > 1
    assert all(torch.equal(a, b) for a, b in zip(seen.weights, plain.weights, strict=True))
    assert (callback.monitor.n_measurements, callback.monitor.n_skipped) == counts
    losses = [[log["loss"] for log in run.logs if "loss" in log] for run in (seen, plain)]
    assert losses[0] == losses[1]


def in_a_loop(steps, model=gpt2, data=None):
    """The same training and measurements by hand, without dropout, one epoch of batches of eight in this order."""
    transformers.set_seed(0)
    net = model(0.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    data = texts() if data is None else data
    batches = [{k: torch.stack([row[k] for row in data[i : i + 8]]) for k in data[0]} for i in range(0, len(data), 8)]

    def terms(batch):
        return int((batch["labels"][:, 1:] != -100).sum())

    def mean(model, batch):
        logits = model(batch["input_ids"]).logits[:, :-1].flatten(0, 1)
        return nn.functional.cross_entropy(logits, batch["labels"][:, 1:].flatten()), terms(batch)

    monitor = BatchSizeMonitor(net, mean, every=1, parts=4)
    for start in range(0, len(batches), steps):
        update = batches[start : start + steps]
        # The trainer divides by all labels of GPT-2, one more in every text than its loss has terms.
        total = sum(int((batch["labels"] != -100).sum()) for batch in update)
        for batch in update:
            n = terms(batch)
            if steps == 1:
                monitor.step(batch)
                (mean(net, batch)[0] * n / total).backward()
            else:
                with monitor.accumulate(n):
                    (mean(net, batch)[0] * n / total).backward()
        if steps > 1:
            monitor.step()
        optimizer.step()
        optimizer.zero_grad()
    return monitor.state()


class InOrder(transformers.Trainer):
    def _get_train_sampler(self, *args):
        return None


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_tokens_count_as_in_a_loop(tmp_path, steps):
    options = STEP if steps == 1 else {"verbose": False}
    expected = in_a_loop(steps)
    _, _, callback = trained(
        tmp_path, options, lambda: gpt2(0.0), texts(), InOrder, gradient_accumulation_steps=steps, num_train_epochs=1,
        optim="sgd", lr_scheduler_type="constant", max_grad_norm=0.0,
    )  # fmt: skip
    assert callback.monitor.state() == pytest.approx(expected, rel=1e-4, nan_ok=True)


def test_it_logs_through_the_trainer_and_says_the_verdict(tmp_path, capsys):
    trainer, seen, callback = trained(tmp_path, {"every": 1, "parts": 4}, num_train_epochs=3)
    history = [log for log in trainer.state.log_history if "batch_size_monitor/noise_scale" in log]
    assert [log["step"] for log in history] == [2, 4, 6, 8, 10, 12, 14]
    assert history[-1]["batch_size_monitor/n_measurements"] == 14
    assert sum("batch_size_monitor/noise_scale" in log for log in seen.logs) == len(history)
    assert sum("loss" in log for log in seen.logs) == 7
    assert "This is about speed" in capsys.readouterr().out
    assert np.isfinite(callback.monitor.state()["trace"])
    assert "compute_loss" not in vars(trainer)
    assert "backward" not in vars(trainer.accelerator)


class Own(transformers.Trainer):
    n_calls = 0

    def compute_loss(self, *args, **kwargs):
        Own.n_calls += 1
        return super().compute_loss(*args, **kwargs)


def test_a_loss_of_its_own_is_called_once_a_batch(tmp_path):
    Own.n_calls = 0
    trained(tmp_path, {"verbose": False}, kind=Own, gradient_accumulation_steps=5)
    assert Own.n_calls == 10
    trained(tmp_path, {**STEP, "loss": lambda model, batch: model(**batch).loss}, kind=Own)
    assert Own.n_calls == 20
    with pytest.raises(ValueError, match=r"^loss must be given to BatchSizeCallback for Own, which overrides"):
        trained(tmp_path, STEP, kind=Own)


class Means(transformers.Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return model(**inputs).loss


def test_a_loss_of_its_own_that_counts_otherwise_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^compute_loss of Means must return the same value as that of Trainer"):
        trained(tmp_path, {"verbose": False}, kind=Means, gradient_accumulation_steps=5)


def test_what_the_user_has_put_into_the_trainer_stays_there(tmp_path):
    calls = []

    class Counting(transformers.Trainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.compute_loss = lambda *a, **k: (calls.append(1), transformers.Trainer.compute_loss(self, *a, **k))[1]

    trainer, _, callback = trained(tmp_path, {"verbose": False}, kind=Counting, gradient_accumulation_steps=5)
    first = trainer.compute_loss
    trainer.train()
    assert trainer.compute_loss is first
    assert len(calls) == 20
    assert callback.monitor.n_measurements == 2


def by_items(outputs, labels, num_items_in_batch=None):
    loss = nn.functional.cross_entropy(outputs.logits, labels, reduction="sum")
    return loss / num_items_in_batch


@pytest.mark.parametrize(("options", "steps"), [(STEP, 1), ({"verbose": False}, 2)])
def test_a_loss_function_of_the_user_is_the_one_that_is_measured(tmp_path, options, steps):
    found = [
        trained(
            tmp_path, options, lambda: bert(0.0), sentences(), kwargs=kwargs, gradient_accumulation_steps=steps,
            max_steps=1,
        )[2].monitor.state()
        for kwargs in ({}, {"compute_loss_func": by_items})
    ]  # fmt: skip
    # The model's own loss is a mean and does not divide by the number of items of the update.
    assert found[0]["noise_scale"] == pytest.approx(found[1]["noise_scale"], rel=1e-4)
    assert found[0]["trace"] == pytest.approx(found[1]["trace"] * steps**2, rel=1e-4)
    assert found[0]["n_measurements"] == 1


def test_updates_of_unequal_micro_batches(tmp_path):
    # The last update has micro-batches of eight and of four: means of sentences, of which the model takes the mean
    # though it is given their number, and sums of tokens.
    _, _, callback = trained(
        tmp_path, {"verbose": False}, bert, sentences(44), gradient_accumulation_steps=2, num_train_epochs=1
    )
    assert (callback.monitor.n_measurements, callback.monitor.n_skipped) == (2, 1)
    _, _, callback = trained(
        tmp_path, {"verbose": False}, gpt2, texts(44), gradient_accumulation_steps=2, num_train_epochs=1
    )
    assert (callback.monitor.n_measurements, callback.monitor.n_skipped) == (3, 0)


def test_refused(tmp_path):
    with pytest.raises(TypeError, match=r"^trainer must be the Trainer"):
        BatchSizeCallback(gpt2())
    with pytest.raises(ValueError, match=r"^batch must have at least 2 samples .* parts=8; got 8"):
        trained(tmp_path, {"every": 1})
    with pytest.raises(ValueError, match=r"^window must be"):
        trained(tmp_path, {"window": 2})


def test_several_devices_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(transformers.TrainingArguments, "n_gpu", 2)
    with pytest.raises(ValueError, match=r"^args must name one device for BatchSizeCallback"):
        trained(tmp_path, STEP)


def test_the_example_of_the_docstring_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failures = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(BatchSizeCallback, module=adapter):
        if test.examples:
            doctest.DocTestRunner().run(test, out=failures.append)
    assert not failures, "".join(failures)
    assert ">>> " in BatchSizeCallback.__doc__
