"""``LBGapClassifier``: scikit-learn's manners around the training net."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from sklgap._checks import check_flag, naming_data
from sklgap._threads import using_threads
from sklgap._typing import Precision
from sklgap.estimator import _evaluation as evaluation
from sklgap.estimator import _parameters as resolve
from sklgap.estimator._callback_support import CallbackSupportMixin, described_fit, epoch_tasks, fit_with_callbacks
from sklgap.estimator._fit_ending import finish_fit
from sklgap.estimator._fit_memory import fit_checkpoint
from sklgap.estimator._nested_parameters import NestedParametersMixin, hide_kwargs
from sklgap.estimator._sample_weights import check_data_path, check_sample_weight, check_terms, class_weights
from sklgap.estimator._threads import resolved_threads
from sklgap.objective._copy import deepcopy
from sklgap.objective._row_loss import RowLoss
from sklgap.objective._stream import is_stream
from sklgap.objective._tensors import as_tensor
from sklgap.training._encoding import CheckedRows, DataEncoding, class_numbers, to_numpy, with_classes
from sklgap.training._loaders import dense

# What is made of X: float32, sparse rows as a CSR matrix.
TAKEN: dict[str, Any] = {"accept_sparse": "csr", "dtype": np.float32, "order": "C", "allow_nd": True}


@hide_kwargs
class LBGapClassifier(CallbackSupportMixin, ClassifierMixin, NestedParametersMixin, BaseEstimator):
    """A neural-network classifier whose batch size is the object of study.

    A scikit-learn estimator around a skorch net, with the networks, the small- and large-batch regimes and the remedies
    of Keskar et al. (2017) and Hoffer et al. (2017).

    Parameters
    ----------
    net : str, type, callable or torch.nn.Module, default="F1"
        ``"F1"``, ``"F2"`` (dense), ``"C1"``, ``"C2"``, ``"C3"``, ``"C4"`` (convolutional): the nets of Keskar et al.;
        ``"ResNet44"``, ``"WRN16-4"``: the residual nets of Hoffer et al.; all with inputs from X and outputs from the
        classes; or a module class (arguments by ``module__...``; it must return logits, or a tuple that starts with
        them, or a dict or an object with ``logits``); or a module instance, copied and trained from its weights. A
        compiled module is trained as the module that it was made from; ``compile`` says whether to compile that.
    input_shape : tuple (channels, height, width), default=None
        Shape of an image for convolutional nets and augmentation. None: from a 4-D X, or from 784 = 1x28x28 and
        3,072 = 3x32x32 columns.
    init : {"glorot_uniform", "torch"} or callable, default="glorot_uniform"
        Starting weights of dense and convolutional layers: Glorot-uniform with zero biases (the released code of
        Keskar et al.), each layer's own default, or a function of the module. A module instance keeps its weights.
        A warning names a layer that computes its weights from other parameters (spectral norm) and then has others.
    batch_regime : {"SB", "LB"}, int, float or BatchRegime, default="SB"
        ``"SB"``: 256 rows, or n // 40 (at least 8) for fewer than 10,240 training samples. ``"LB"``: 10 % of the
        training samples. An int is a number of rows, a float in (0, 1] a fraction; or `ConstantBatch`,
        `SwitchBatch`, `GrowingBatch`, `DynamicSampling`, whose parameters are reached as ``batch_regime__...``.
    batch_size : int or float, default=None
        Rows, a fraction in (0, 1] of the training samples, or -1 for all of them; overrides a constant regime, and is
        an error beside one that varies. Larger than the data: all of them, with a warning. A partial last batch is
        kept, but a rest of fewer than 8 rows (of 1, where batches have fewer than 16) joins the batch before it: the
        statistics of a few rows spoil a fit under batch norm.
    max_epochs : int, default=100
        Largest number of passes over the data (100: Keskar et al., Figure 4).
    tol : float, default=1e-4
        Training stops when the training loss has not fallen by this fraction within ``n_iter_no_change`` epochs (the
        paper: "until the loss ceases to improve"). None: all epochs, silently; otherwise reaching ``max_epochs`` is a
        ``ConvergenceWarning``.
    n_iter_no_change : int, default=10
        See ``tol``.
    target_loss : float, default=None
        Stop once the training loss of an epoch is at most this: for comparisons at equal loss.
    optimizer : type, default=torch.optim.Adam
        Any torch optimiser class (ADAM: Keskar et al.); its arguments by ``optimizer__...``, those of parameters by
        name by ``optimizer__param_groups=[("*.bias", {"lr": 0.1}), ...]``. A schedule-free one (with ``train()`` and
        ``eval()``) is evaluated, measured and saved at its average. With
        ``pip install sklgap[optimizers]`` also ``pytorch_optimizer.LARS``, and ``pytorch_optimizer.Lamb``, which needs
        ``optimizer__adam_debias=True`` and ``optimizer__weight_decouple=False`` to be the LAMB of its paper.
    lr : float, default=1e-3
        Learning rate (the default of ADAM).
    criterion : type, default=torch.nn.CrossEntropyLoss
        Loss of (logits, class numbers), a mean over the rows; its arguments by ``criterion__...``. ``NLLLoss`` is, as
        in skorch, one of (probabilities, class numbers). ``criterion__weight`` may be a list, a tuple, an array or a
        tensor with one number for each class, in the order of ``classes_``.
    class_weight : None, "balanced" or dict, default=None
        Weight of each class, label to weight, as in scikit-learn; it multiplies the weights of the samples.
        ``"balanced"``: n_samples / (n_classes * number of samples of the class), on the data of ``fit``, the samples
        counted by ``sample_weight``. The model is measured with the same weights (`sklgap.sharpness` and the like).
        ``train_score_``, ``train_accuracy`` and ``score`` count all samples alike.
    lr_scaling : {None, "sqrt", "linear", "sde"}, default=None
        Multiply ``lr`` by sqrt(B / B_base) (Hoffer et al., Section 4) or B / B_base, epoch by epoch. ``"sde"`` is for
        Adam and AdamW with a constant batch size (Malladi et al. 2022): with k = B / B_base the rate is ``lr`` *
        sqrt(k), each beta is 1 - k (1 - beta), and eps is eps / sqrt(k); a beta below 0 is an error.
    lr_warmup_epochs : float, default=0
        Epochs over which the rate goes from ``lr`` to the scaled one, update by update along a straight line (5: Goyal
        et al., Section 2.2). Needs ``lr_scaling``.
    lr_milestones : sequence of float, default=()
        Epochs after which the rate is multiplied by ``lr_decay``, for good.
    lr_decay : float, default=0.1
        In (0, 1].
    base_batch_size : int, default=None
        B_base; None: what ``"SB"`` is for the data.
    regime_adaptation : bool, default=False
        Train longer (Hoffer et al., Section 5): make as many updates as ``max_epochs`` epochs at the base batch size
        have. ``n_iter_no_change``, ``lr_warmup_epochs`` and ``lr_milestones`` count the same epochs of the base batch.
    ghost_batch_size : int, default=None
        Replace batch norm by ghost batch norm over so many rows (128 in Hoffer et al.), at least 2 and at most the
        largest batch. None: plain batch norm.
    micro_batch_size : int, default=None
        Evaluate so many rows at once (a rest of a few joins them) and add up the gradients, for batches that do not
        fit in memory: the exact gradient without batch norm; with it, batch norm sees micro-batches.
    augmentation : None, str, callable or Remedy, default=None
        ``"paper"``: random flips, rotations up to 10 degrees, translations up to 0.2 of the side (Keskar et al.);
        ``"crop-flip"``: flips and shifts by up to 4 pixels, the usual recipe for CIFAR; ``"crop-flip-cutout"``: with a
        square of 16 x 16 pixels set to 0 besides; an `Augmentation` with other settings; or a function of a batch
        tensor. A warning where it mirrors images of one channel, such as digits.
    proximal_lambda : float, default=None
        Conservative training: penalty on the distance from where the batch found the weights (1e-3 in Keskar et al.).
        None: off. 0.0: the control, each batch used ``proximal_steps`` times without a penalty.
    proximal_steps : int, default=3
        Optimiser steps per batch with ``proximal_lambda`` (3: Keskar et al.).
    remedies : sequence of Remedy, (name, Remedy) or str, default=()
        Further remedies, applied after augmentation and before the proximal penalty, the last outermost. A str is one
        with its defaults: ``"adversarial"``, ``"asam"``, ``"augmentation"``, ``"batchaugmentation"``,
        ``"entropysgd"``, ``"gradientpenalty"``, ``"labelsmoothing"``, ``"mixup"``, ``"proximal"``, ``"sam"``,
        ``"samplenoise"``, ``"stability"``. Parameters are reached as ``remedies__name__...``
        (``remedies__sam__rho``).
    recompute_batch_norm : bool, default=True
        End ``fit`` by setting the batch-norm buffers to population statistics of the training data. The running
        averages lag behind the weights, by enough to reverse the order of small and large batch. `WeightAveraging`
        does so in any case.
    random_state : int, RandomState or None, default=None
        An int makes ``fit`` repeatable bit for bit at equal device, torch version and thread count.
    device : str, default="auto"
        ``"auto"``: cuda, else mps, else cpu, parallel workers taking several cuda devices in turn; or any torch device.
    precision : {"float32", "tf32", "bfloat16"}, default="float32"
        The arithmetic that ``fit`` trains in. Predictions, validation and measurements stay in float32 or float64.
        ``"float32"``: torch's own settings hold. By default they let CUDA round in convolutions, as ``"tf32"`` does.
        ``"tf32"``: CUDA rounds the inputs of all matrix products and convolutions to 11 bits (TensorFloat-32). Other
        devices are refused. So are threads other than the main one, because torch has one setting for the process.
        ``"bfloat16"``: forward passes run in ``torch.autocast``, where matrix products and convolutions have 8 bits.
        The outputs are cast to float32 before the loss. Weights and optimiser stay in float32. On a CPU without
        instructions for bfloat16 it is slower.
    data_parallel : bool, default=False
        Share the rows of every batch out between the processes of a ``torchrun``, all of which call ``fit`` with the
        same arguments: they make the updates of one process with the whole batch. See ``docs/parallel.md``.
    train_split : callable, default=None
        As in skorch, for example ``skorch.dataset.ValidSplit(5)``: held out, scored every epoch, not trained on. It
        sees rows and labels as ``fit`` does, and so does ``predefined_split`` of your validation set.
    callbacks : list, default=None
        skorch callbacks; copied, never changed. They see class numbers, not labels. One that fails at the end of the
        training leaves the estimator fitted, and its error is raised then. `WeightAveraging`, `LatestAveraging` and
        `ExponentialAveraging` are some;
        ``skorch.callbacks.GradientNormClipping(5.0)`` clips the gradient of the whole batch, after all remedies.
    verbose : int, default=0
        1: a progress bar.
    warm_start : bool, default=False
        Continue from the last fit instead of starting again. ``lr`` and its schedule, batch sizes and regime, remedies,
        ``precision``, ``max_epochs`` and the stopping rule may have changed in between; net, criterion, class weights,
        optimiser, callbacks and ``random_state`` remain those of the first fit.
    memory : str or Path, default=None
        A fit of equal parameters, data, seed, versions, device and number of threads is loaded from this folder, which
        any number of processes may share, instead of repeated. A fit that was killed goes on from its last saved epoch
        and ends with the weights and records of an undisturbed one, bit for bit. Parameters count with all that they
        hold and read, down to your own code and the globals it uses; files, the environment and the clock do not count.
        What cannot be followed to its end is not saved, and a fit with a state that is not plain values starts again
        after a kill: a UserWarning names the reason. Nothing is saved while ``random_state`` is None, side effects of
        callbacks are not repeated, and no pickle is ever loaded.
    n_threads : int, "auto" or None, default="auto"
        Threads of the CPU that ``fit`` and predictions compute with; afterwards torch's setting is as before, and that
        of other threads never changes. ``"auto"``: one where the forward pass of a batch (the largest that is known
        before the training) takes at most 100 million multiply-adds, so that a small net never waits for the cores of
        a busy machine; else torch's setting. None: torch's setting. The last digits of a fit depend on the number.
        A forked process has one thread in any case.
    compile : bool, default=False
        Compile the forward and backward pass by ``torch.compile``, in training and in measurements of the estimator.
        Options are given by ``compile__backend``, ``compile__mode`` and so on, and count only with ``compile=True``.
        Compiling takes seconds, and pays for large nets and long trainings. Only batches of the regime's batch size are
        compiled: a partial last batch, validation and predictions are not. A `sklgap.objective.CompileWarning` says why
        a net is trained without it: no compiler is found, the net cannot be compiled as a whole, it has hooks, or the
        regime has many batch sizes. The results are then those of ``compile=False``. Compiled results may differ in
        their last digits. ``memory`` does not distinguish the two: a saved fit may be compiled or not.
    **kwargs
        skorch's nested parameters: ``module__``, ``criterion__``, ``optimizer__``, ``iterator_train__``,
        ``iterator_valid__``, ``callbacks__``, ``dataset__``, ``compile__``; and ``iterator_train``,
        ``iterator_valid``, ``dataset`` themselves: with one of these, training takes skorch's data path, shuffled by
        default, and needs a constant regime; a ``dataset`` must not change X, which predictions and measurements see as
        it is given to them.

    Attributes
    ----------
    net_ : TrainingNet
        The skorch net: ``net_.save_params``, callbacks, and all else skorch offers.
    module_ : torch.nn.Module
        The trained module.
    history_ : skorch.history.History
        Per epoch: ``train_loss`` (clean: without penalties), ``train_loss_best`` (whether it is the least so far),
        ``train_accuracy``, ``batch_size``, ``lr`` (of the last update), ``n_updates``, ``weight_distance`` (Euclidean,
        from the initial weights), ``dur`` (seconds).
    classes_ : ndarray of shape (n_classes,)
        The labels.
    n_features_in_ : int
        Size of axis 1 of X.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, where X had them.
    n_iter_ : int
        Epochs trained.
    n_updates_ : int
        Optimiser steps made.
    n_threads_ : int
        Threads that the last fit computed with.
    train_loss_ : float
        Training loss of the last epoch, in training mode: the mean over the epoch's batches, in which samples count by
        their weights.
    train_score_ : float
        Accuracy of the final weights on the rows trained on, in evaluation mode; all samples count alike.
    converged_ : bool
        Whether the stopping rule ended the training, rather than ``max_epochs``.

    See Also
    --------
    sklgap.compare_regimes : SB against LB over paired trials.
    sklgap.sharpness_score : Metric 2.1 as a scorer.

    Notes
    -----
    Inputs are cast to float32 and trained on as such, in float64 by a module in double precision; predictions are
    evaluated in float64 (where the module can), so that the prediction for a row does not depend on the rows beside
    it. Ctrl-C during ``fit`` leaves the estimator fitted with the weights reached and raises KeyboardInterrupt; with
    ``warm_start=True`` a further ``fit`` goes on from there.

    References
    ----------
    .. [1] Keskar et al., On Large-Batch Training for Deep Learning: Generalization Gap and Sharp Minima, ICLR 2017.
    .. [2] Hoffer et al., Train longer, generalize better, NeurIPS 2017.
    .. [3] Goyal et al., Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour, arXiv:1706.02677.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LBGapClassifier(module__width=32, max_epochs=8, tol=None, random_state=0).fit(X / 16, y)
    >>> bool(model.score(X / 16, y) > 0.9)
    True
    """

    def __init__(
        self,
        net: Any = "F1",
        *,
        input_shape: tuple[int, int, int] | None = None,
        init: Any = "glorot_uniform",
        batch_regime: Any = "SB",
        batch_size: int | float | None = None,
        max_epochs: int = 100,
        tol: float | None = 1e-4,
        n_iter_no_change: int = 10,
        target_loss: float | None = None,
        optimizer: Any = torch.optim.Adam,
        lr: float = 1e-3,
        criterion: Any = nn.CrossEntropyLoss,
        class_weight: Any = None,
        lr_scaling: str | None = None,
        lr_warmup_epochs: float = 0,
        lr_milestones: Sequence[float] = (),
        lr_decay: float = 0.1,
        base_batch_size: int | None = None,
        regime_adaptation: bool = False,
        ghost_batch_size: int | None = None,
        micro_batch_size: int | None = None,
        augmentation: Any = None,
        proximal_lambda: float | None = None,
        proximal_steps: int = 3,
        remedies: Any = (),
        recompute_batch_norm: bool = True,
        random_state: int | np.random.RandomState | None = None,
        device: str = "auto",
        precision: Precision = "float32",
        data_parallel: bool = False,
        train_split: Any = None,
        callbacks: Any = None,
        verbose: int = 0,
        warm_start: bool = False,
        memory: str | Path | None = None,
        n_threads: int | str | None = "auto",
        compile: bool = False,
        **kwargs: Any,
    ) -> None:
        self.net = net
        self.input_shape = input_shape
        self.init = init
        self.batch_regime = batch_regime
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.target_loss = target_loss
        self.optimizer = optimizer
        self.lr = lr
        self.criterion = criterion
        self.class_weight = class_weight
        self.lr_scaling = lr_scaling
        self.lr_warmup_epochs = lr_warmup_epochs
        self.lr_milestones = lr_milestones
        self.lr_decay = lr_decay
        self.base_batch_size = base_batch_size
        self.regime_adaptation = regime_adaptation
        self.ghost_batch_size = ghost_batch_size
        self.micro_batch_size = micro_batch_size
        self.augmentation = augmentation
        self.proximal_lambda = proximal_lambda
        self.proximal_steps = proximal_steps
        self.remedies = remedies
        self.recompute_batch_norm = recompute_batch_norm
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.data_parallel = data_parallel
        self.train_split = train_split
        self.callbacks = callbacks
        self.verbose = verbose
        self.warm_start = warm_start
        self.memory = memory
        self.n_threads = n_threads
        self.compile = compile
        self._set_nested(kwargs)

    # -- fitting ---------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the net.

        Parameters
        ----------
        X : array-like, sparse matrix or tensor of shape (n_samples, n_features) or (n_samples, channels, height, width)
            Training inputs, finite numbers. What is sparse is made dense by batch, never as a whole.
        y : array-like of shape (n_samples,)
            Labels: numbers, strings or booleans of at least two classes.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each sample counts, at least 0: a weight of 2 is a sample given twice, a sample of weight 0 counts
            for nothing. None: all count alike. The loss of a batch is the sum of weight times loss over the sum of the
            weights. Weights do not change which samples make a batch, nor how many. Batch normalisation counts
            samples, not weights. Samples that ``train_split`` holds out keep their weights in ``valid_loss``.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For a parameter outside its allowed values or bad data, in one sentence, before training starts.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            When ``max_epochs`` ended the training though ``tol`` is set, or the loss was no longer a finite number.
        """
        check_flag("warm_start", self.warm_start)
        before = self.__dict__.copy()
        if self.warm_start and "net_" in before:
            before["net_"] = deepcopy(self.net_)
        try:
            with using_threads():
                if getattr(self, "_skl_callbacks", None):
                    fit_with_callbacks(self, X, y, sample_weight)
                else:
                    self._fit(X, y, sample_weight)
        except BaseException as error:
            net = self.__dict__.get("net_")
            usable = net is not None and net.interrupted_ and len(net.history) > 0
            if not (isinstance(error, KeyboardInterrupt) and usable):  # Ctrl-C leaves what finished epochs made
                self.__dict__ = before  # as it was: neither half fitted nor half refitted
            raise
        failed, self.net_.ending_error_ = self.net_.ending_error_, None
        if failed is not None:
            raise failed  # by a callback, after the training: the estimator is fitted
        return self

    def _fit(self, X: Any, y: Any, sample_weight: Any, task: Any = None) -> None:
        first = not (self.warm_start and hasattr(self, "net_"))
        fingerprint = None
        if isinstance(X, CheckedRows):
            X, names, fingerprint = np.asarray(X.values), X.names, X.fingerprint
            validate_data(self, X, skip_check_array=True, reset=first)
            if names is not None:
                self.feature_names_in_ = names
        else:
            X, y = self._check_X_and_y(X, y, first)
        classes, encoded = class_numbers(y)
        with naming_data("y"):
            check_classification_targets(with_classes(y, classes))
        weight = check_sample_weight(sample_weight, X)
        if weight is not None:
            check_data_path(self._nested)
        if len(classes) < 2:
            raise ValueError(f"y must have at least 2 classes; got only one class, {classes.tolist()[0]!r}.")
        # With one thread, so that the starting weights do not depend on the number that is chosen for the net.
        with using_threads(1):
            if first:
                net = resolve.make_net(self, X, len(classes), class_weights(self.class_weight, classes, y, weight))
                checkpoint = fit_checkpoint(self, net, X, encoded, classes, weight, fingerprint)
                names = getattr(self, "feature_names_in_", None)
                net.encoding_ = DataEncoding(classes, X.shape[1:], resolve.net_shape(self, X), names)
                net.example_ = example = as_tensor(dense(net.encoding_.rows(X[:2])))
                net.initialize()
                self.classes_ = classes
                self._inference_dtype, self._row_work = resolve.check_fit(net, example, len(classes))
                self.net_ = net
                net.checkpoint_ = checkpoint
            else:
                if not np.isin(classes, self.classes_).all():
                    raise ValueError(f"y must have the classes of the first fit, {self.classes_}; got {classes}.")
                encoded = np.searchsorted(self.classes_, y)
                self.net_.adopt(resolve.make_net(self, X, n_classes=len(self.classes_)))
        self.n_threads_ = self._resolved_threads(self.net_.rows_at_once(X.shape[0]))
        if self.net_.checkpoint_:
            self.net_.checkpoint_.add_to_key(self.n_threads_)
        with using_threads(self.n_threads_):
            if weight is not None or self.net_.class_weight is not None:
                check_terms(self.net_.criterion_loss(), len(self.classes_), next(self.module_.parameters()))
            rows = self.net_.encoding_.rows(X)
            if not (self.net_.checkpoint_ and self.net_.checkpoint_.load(self.net_)):
                try:
                    tasks = epoch_tasks(self, task, described_fit(self, X, y, sample_weight), rows, encoded)
                    with resolve.deterministic(self.random_state is not None), tasks:
                        self.net_.partial_fit(
                            *self.net_.training_data(rows, encoded.astype(np.int64, copy=False), weight)
                        )
                except BaseException as error:  # of a callback after the training: `fit` raises it when all is done
                    if error is not self.net_.ending_error_:
                        checkpoint = self.net_.checkpoint_
                        if checkpoint and isinstance(error, Exception) and checkpoint.is_to_blame(self.net_, error):
                            return self._fit(X, y, sample_weight, task)
                        raise
            finish_fit(self, rows, encoded)

    def _check_X_and_y(self, X: Any, y: Any, first: bool) -> tuple[Any, np.ndarray]:
        X, y = to_numpy(X), to_numpy(y)
        if issparse(y):
            raise TypeError(
                "y must be dense, one label per row; got a sparse matrix: use y.toarray().ravel(), or "
                "sparse_output=False in the step that made it."
            )
        with naming_data("X", "y"):
            X, y = validate_data(self, X, y, **TAKEN, ensure_min_samples=2, reset=first)
        return X, y

    def _resolved_threads(self, n_rows: int) -> int:
        return resolved_threads(self.n_threads, self._row_work, n_rows, self.net_.device)

    # -- predicting ------------------------------------------------------------------------------------------------

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities.

        Parameters
        ----------
        X : array-like or tensor of the shape seen in fit
            Inputs.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``, float64.
        """
        outputs = self._outputs(X)
        if isinstance(self.net_.criterion_, nn.NLLLoss):  # skorch's convention: the module returns probabilities
            return outputs
        shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each row, an ndarray of shape (n_samples,)."""
        outputs = self._outputs(X)
        return self.classes_[outputs.argmax(axis=1)]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy on X, y.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of the shape seen in fit
            Inputs.
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each sample counts.

        Returns
        -------
        float
            The share of the samples that `predict` labels right, by their weights.
        """
        with naming_data("X", "y"):
            return float(super().score(X, y, sample_weight))

    def _outputs(self, X: Any) -> np.ndarray:
        X = self._check_X(X)
        with using_threads(self._resolved_threads(evaluation.ROWS)):
            return evaluation.outputs(self.net_.module_, self.net_.encoding_.rows(X), self._inference_dtype)

    def _check_X(self, X: Any) -> Any:
        check_is_fitted(self)
        with naming_data("X"):
            return validate_data(self, to_numpy(X), **TAKEN, reset=False)

    # -- measuring -------------------------------------------------------------------------------------------------

    def objective_parts(self, X: Any, y: Any) -> tuple[nn.Module, RowLoss, Any, Any]:
        """Return what `sklgap.objective.check_objective` measures: module, own loss, inputs and class numbers."""
        if is_stream(X):
            return self.net_.objective_parts(X, y)
        X = self._check_X(X)
        return self.net_.objective_parts(X, y, checked=True)

    @property
    def torch_compile_options(self) -> dict[str, Any] | None:
        """The options of ``torch.compile`` that measurements of the estimator use; None: they do not compile."""
        return resolve.compile_options(self)

    @property
    def module_(self) -> nn.Module:
        """The trained module; read from ``net_``, so that a pickle holds it once and moves it between devices."""
        return self.net_.module_

    @property
    def history_(self) -> Any:
        """The history of ``net_``."""
        return self.net_.history

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __sklearn_clone__(self) -> Self:
        """Return an unfitted copy; a module that is not a plain deep copy is copied as ``fit`` copies it."""
        if not isinstance(self.net, nn.Module):
            return super().__sklearn_clone__()
        shell = copy.copy(self)
        shell.net = None
        cloned = super(LBGapClassifier, shell).__sklearn_clone__()
        cloned.net = deepcopy(self.net)
        return cloned

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "train_loss_")
