"""``LBGapClassifier``: the scikit-learn estimator around the training net."""

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

# How X is converted: to float32; a sparse X to a CSR matrix.
TAKEN: dict[str, Any] = {"accept_sparse": "csr", "dtype": np.float32, "order": "C", "allow_nd": True}


@hide_kwargs
class LBGapClassifier(CallbackSupportMixin, ClassifierMixin, NestedParametersMixin, BaseEstimator):
    """A neural-network classifier for studies of the batch size.

    It is a scikit-learn estimator around a skorch net. It has the networks, the small-batch and large-batch regimes and
    the remedies of Keskar et al. (2017) and Hoffer et al. (2017). A batch regime says how large the batches are; a
    remedy changes the training so that a large batch loses less accuracy.

    Parameters
    ----------
    net : str, type, callable or torch.nn.Module, default="F1"
        The network.

        * A name: ``"F1"``, ``"F2"`` (dense), ``"C1"``, ``"C2"``, ``"C3"``, ``"C4"`` (convolutional) are the nets of
          Keskar et al.; ``"ResNet44"`` and ``"WRN16-4"`` are the residual nets of Hoffer et al. Their numbers of inputs
          and outputs come from X and the classes.
        * A module class, whose arguments are given by ``module__...``. It must return logits, a tuple that starts with
          them, or a dict or an object with ``logits``.
        * A module instance, which is copied and trained from its weights. A compiled module is trained as its original
          module; ``compile`` says whether to compile it again. Its parameters must not have gradient hooks, which the
          copy would lack; a class may register them in its ``__init__``.
    input_shape : tuple (channels, height, width), default=None
        Shape of an image, for convolutional nets and augmentation. None means the shape of a 4-D X; 784 columns mean
        1x28x28, and 3,072 columns mean 3x32x32.
    init : {"glorot_uniform", "torch"} or callable, default="glorot_uniform"
        Starting weights of dense and convolutional layers. ``"glorot_uniform"``: Glorot-uniform weights with zero
        biases, as in the released code of Keskar et al. ``"torch"``: the default of each layer. Or a function of the
        module. A module instance starts from its own weights. A warning names a layer that computes its weights from
        other parameters (such as spectral norm), because its starting weights then differ.
    batch_regime : {"SB", "LB"}, int, float or BatchRegime, default="SB"
        How large the batches are. ``"SB"`` is the small batch: 256 samples, or n // 40 (at least 8) for fewer than
        10,240 training samples. ``"LB"`` is the large batch: 10 % of the training samples. An int is a number of
        samples, and a float in (0, 1] a fraction of the training samples. Or a regime: `ConstantBatch`, `SwitchBatch`,
        `GrowingBatch` or `DynamicSampling`, whose parameters are set as ``batch_regime__...``.
    batch_size : int or float, default=None
        Number of samples in a batch, a fraction in (0, 1] of the training samples, or -1 for all training samples. It
        overrides a constant regime, and is an error with a regime that varies. A batch size larger than the data means
        all training samples, with a warning. Training uses a partial last batch, too. If it would have fewer than 8
        samples (or 1 sample, for batch sizes below 16), its samples join the batch before it, because batch-norm
        statistics of a few samples spoil a fit.
    max_epochs : int, default=100
        Largest number of passes over the data (100 in Keskar et al., Figure 4).
    tol : float, default=1e-4
        Training stops when the training loss has not fallen by this fraction within ``n_iter_no_change`` epochs (in the
        paper: "until the loss ceases to improve"). With a number, reaching ``max_epochs`` gives a
        ``ConvergenceWarning``. None means that training makes all epochs, without a warning.
    n_iter_no_change : int, default=10
        Number of epochs for the stopping rule of ``tol``.
    target_loss : float, default=None
        Training stops when the training loss of an epoch is at most this value. Use it for comparisons at equal loss.
    optimizer : type, default=torch.optim.Adam
        Any torch optimiser class (ADAM in Keskar et al.). Its arguments are given by ``optimizer__...``, and those for
        some parameters by ``optimizer__param_groups=[("*.bias", {"lr": 0.1}), ...]``. A schedule-free optimiser (with
        ``train()`` and ``eval()``) is evaluated, measured and saved at its average. ``pip install sklgap[optimizers]``
        adds ``pytorch_optimizer.LARS`` and ``pytorch_optimizer.Lamb``. The latter needs ``optimizer__adam_debias=True``
        and ``optimizer__weight_decouple=False`` to be the LAMB of its paper.
    lr : float, default=1e-3
        Learning rate (the default of ADAM).
    criterion : type, default=torch.nn.CrossEntropyLoss
        Loss of (logits, class numbers), a mean over the samples. Its arguments are given by ``criterion__...``. As in
        skorch, ``NLLLoss`` is a loss of (probabilities, class numbers). ``criterion__weight`` may be a list, a tuple,
        an array or a tensor with one number for each class, in the order of ``classes_``.
    class_weight : None, "balanced" or dict, default=None
        Weights of the classes, as in scikit-learn: a dict from label to weight. They multiply the sample weights.
        ``"balanced"`` means n_samples / (n_classes * number of samples of the class) on the data of ``fit``, where
        ``sample_weight`` counts the samples. Measurements such as `sklgap.sharpness` use the same weights.
        ``train_score_``, ``train_accuracy`` and ``score`` count all samples equally.
    lr_scaling : {None, "sqrt", "linear", "sde"}, default=None
        Scaling of the learning rate with the batch size B, epoch by epoch. ``"sqrt"`` multiplies ``lr`` by sqrt(B /
        B_base) (Hoffer et al., Section 4), and ``"linear"`` by B / B_base. ``"sde"`` is for Adam and AdamW with a
        constant batch size (Malladi et al. 2022): with k = B / B_base, the rate is ``lr`` * sqrt(k), each beta is 1 - k
        (1 - beta), and eps is eps / sqrt(k). A beta below 0 is an error. None means no scaling.
    lr_warmup_epochs : float, default=0
        Number of epochs in which the learning rate goes linearly, update by update, from ``lr`` to the scaled rate (5
        in Goyal et al., Section 2.2). It needs ``lr_scaling``.
    lr_milestones : sequence of float, default=()
        Epochs after which the learning rate is multiplied by ``lr_decay`` for the rest of the training.
    lr_decay : float, default=0.1
        Factor of ``lr_milestones``, in (0, 1].
    base_batch_size : int, default=None
        The base batch size B_base. None means the batch size of ``"SB"`` for these data.
    regime_adaptation : bool, default=False
        Whether to train longer with large batches (Hoffer et al., Section 5): training makes as many updates as
        ``max_epochs`` epochs with the base batch size. ``n_iter_no_change``, ``lr_warmup_epochs`` and ``lr_milestones``
        then count epochs of the base batch size.
    ghost_batch_size : int, default=None
        Replace batch norm by ghost batch norm, which computes its statistics over this number of samples (128 in Hoffer
        et al.), at least 2 and at most the largest batch size. None means plain batch norm.
    micro_batch_size : int, default=None
        Process a batch in parts of this number of samples and add up the gradients, for batches that do not fit in
        memory. A small last part joins the part before it. The gradient is exact without batch norm; with batch norm,
        the statistics are those of the parts. A criterion that is not a mean over samples is an error.
    augmentation : None, str, callable or Remedy, default=None
        Random changes of the training images. ``"paper"``: flips, rotations up to 10 degrees, translations up to 0.2 of
        the side (Keskar et al.). ``"crop-flip"``: flips and shifts by up to 4 pixels, the usual recipe for CIFAR.
        ``"crop-flip-cutout"``: the same, with a square of 16 x 16 pixels set to 0. Or an `Augmentation` with other
        settings, or a function of a batch tensor. A warning is given if images of one channel, such as digits, are
        mirrored.
    proximal_lambda : float, default=None
        Conservative training: penalty on the distance from the weights at the start of the batch (1e-3 in Keskar et
        al.). None turns it off. 0.0 is the control, which uses each batch ``proximal_steps`` times without a penalty.
    proximal_steps : int, default=3
        Number of optimiser steps per batch with ``proximal_lambda`` (3 in Keskar et al.).
    remedies : sequence of Remedy, (name, Remedy) or str, default=()
        Further remedies. They are applied after the augmentation and before the proximal penalty; the last one is
        outermost. A str means a remedy with its defaults: ``"adversarial"``, ``"asam"``, ``"augmentation"``,
        ``"batchaugmentation"``, ``"entropysgd"``, ``"gradientpenalty"``, ``"labelsmoothing"``, ``"mixup"``,
        ``"proximal"``, ``"sam"``, ``"samplenoise"`` or ``"stability"``. Their parameters are set as
        ``remedies__name__...``, for example ``remedies__sam__rho``.
    recompute_batch_norm : bool, default=True
        Whether ``fit`` ends by setting the batch-norm buffers to population statistics of the training data. The
        running averages lag behind the weights, which can cost accuracy and adds scatter over seeds.
        `WeightAveraging` always does this.
    random_state : int, RandomState or None, default=None
        Source of all random numbers. An int makes ``fit`` repeatable bit for bit on the same device, with the same
        torch version and number of threads.
    device : str, default="auto"
        Any torch device, or ``"auto"``: cuda if available, otherwise mps, otherwise cpu. With several cuda devices,
        parallel workers use them in turn.
    precision : {"float32", "tf32", "bfloat16"}, default="float32"
        Arithmetic of the training. Predictions, validation and measurements always use float32 or float64.

        * ``"float32"``: torch's own settings hold. By default they let CUDA round in convolutions, as ``"tf32"`` does.
        * ``"tf32"``: CUDA rounds the inputs of all matrix products and convolutions to 11 bits (TensorFloat-32). Other
          devices are refused, and so are threads other than the main one, because torch has one setting for the
          process.
        * ``"bfloat16"``: forward passes run in ``torch.autocast``, where matrix products and convolutions have 8 bits.
          The outputs are cast to float32 before the loss. Weights and optimiser stay in float32. It is slower on a CPU
          without instructions for bfloat16.
    data_parallel : bool, default=False
        Whether the processes of a ``torchrun`` share the samples of every batch. All of them call ``fit`` with the same
        arguments, and make the same updates as one process with the whole batch. See ``docs/parallel.md``.
    train_split : callable, default=None
        Split into training and validation samples as in skorch, for example ``skorch.dataset.ValidSplit(5)``.
        Validation samples are scored in every epoch and are not trained on. The split, and ``predefined_split`` of your
        own validation set, receive samples and labels in the form that ``fit`` receives them.
    callbacks : list, default=None
        Callbacks of skorch, which are copied and never changed. They receive class numbers, not labels. If a callback
        fails at the end of the training, the estimator is fitted and the error is raised. Examples are
        `WeightAveraging`, `LatestAveraging` and `ExponentialAveraging`, and
        ``skorch.callbacks.GradientNormClipping(5.0)``, which clips the gradient of the whole batch after all remedies.
    verbose : int, default=0
        1 shows a progress bar.
    warm_start : bool, default=False
        Whether ``fit`` continues from the last fit instead of starting again. In between you may change ``lr`` and its
        schedule, batch size and regime, remedies, ``precision``, ``max_epochs`` and the stopping rule. Net, criterion,
        class weights, optimiser, callbacks and ``random_state`` remain those of the first fit.
    memory : str or Path, default=None
        Folder in which fits are saved. A fit with the same parameters, data, seed, versions, device and number of
        threads is loaded instead of repeated. Any number of processes may share the folder. A fit that was killed
        continues from its last saved epoch, and ends with the same weights and records as an undisturbed fit, bit for
        bit.

        Parameters are compared with everything that they hold and read, including your own code and the globals that it
        uses. Files, the environment and the clock are not compared. A fit is not saved if a parameter cannot be
        compared completely. A fit whose state has more than plain values starts again after a kill. A UserWarning names
        the reason in both cases. Nothing is saved if ``random_state`` is None. Side effects of callbacks are not
        repeated. No pickle is ever loaded.
    n_threads : int, "auto" or None, default="auto"
        Number of CPU threads for ``fit`` and predictions. Afterwards torch's setting is restored, and the setting of
        other threads never changes. ``"auto"`` means one thread if the forward pass of a batch (the largest one known
        before the training) takes at most 100 million multiply-adds, and torch's setting otherwise. A small net then
        never waits for the cores of a busy machine. None means torch's setting. The last digits of a fit depend on the
        number of threads. A forked process always has one thread.
    compile : bool, default=False
        Whether to compile the forward and backward pass by ``torch.compile``, in training and in measurements of the
        estimator. Options are given by ``compile__backend``, ``compile__mode`` and so on; they need ``compile=True``.
        Compiling takes seconds, and pays off for large nets and long trainings. Only batches of the regime's batch size
        are compiled; a partial last batch, validation and predictions are not.

        A `sklgap.objective.CompileWarning` gives the reason if a net is trained without compilation: no compiler is
        found, the net cannot be compiled as a whole, it has hooks, or the regime has many batch sizes. The results are
        then those of ``compile=False``. Compiled results may differ in their last digits. ``memory`` does not
        distinguish compiled fits from others.
    **kwargs
        Nested parameters of skorch: ``module__``, ``criterion__``, ``optimizer__``, ``iterator_train__``,
        ``iterator_valid__``, ``callbacks__``, ``dataset__`` and ``compile__``. Also ``iterator_train``,
        ``iterator_valid`` and ``dataset`` themselves. With one of these, training uses skorch's data path, shuffled by
        default, and needs a constant regime. A ``dataset`` must not change X, because predictions and measurements use
        X as it is given.

    Attributes
    ----------
    net_ : TrainingNet
        The skorch net, with ``net_.save_params``, callbacks, and everything else that skorch offers.
    module_ : torch.nn.Module
        The trained module.
    history_ : skorch.history.History
        For each epoch: ``train_loss`` (without penalties), ``train_loss_best`` (whether it is the smallest so far),
        ``train_accuracy``, ``batch_size``, ``lr`` (of the last update), ``n_updates``, ``weight_distance`` (Euclidean
        distance from the initial weights), ``dur`` (seconds).
    classes_ : ndarray of shape (n_classes,)
        The labels.
    n_features_in_ : int
        Size of axis 1 of X.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns of X, if it has them.
    n_iter_ : int
        Number of epochs trained.
    n_updates_ : int
        Number of optimiser steps made.
    n_threads_ : int
        Number of threads that the last fit used.
    train_loss_ : float
        Training loss of the last epoch, in training mode: the mean over the batches of the epoch, with samples weighted
        by their sample weights.
    train_score_ : float
        Accuracy of the final weights on the training samples, in evaluation mode; all samples count equally.
    converged_ : bool
        Whether the stopping rule ended the training, rather than ``max_epochs``.

    See Also
    --------
    sklgap.compare_regimes : Compares SB and LB over paired trials.
    sklgap.sharpness_score : Metric 2.1 as a scorer.

    Notes
    -----
    Inputs are cast to float32 for training; a module in double precision trains in float64. Predictions are evaluated
    in float64 if the module supports it, so that the prediction for a sample does not depend on the other samples of
    the call. Ctrl-C during ``fit`` leaves the estimator fitted with the weights reached, and raises KeyboardInterrupt.
    With ``warm_start=True``, another ``fit`` continues from these weights.

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
            Training inputs, which must be finite numbers. A sparse X becomes dense batch by batch, never as a whole.
        y : array-like of shape (n_samples,)
            Labels of at least two classes: numbers, strings or booleans.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each sample counts, at least 0: a weight of 2 counts like a sample given twice, and a weight of 0
            removes the sample from the loss. None means that all samples count equally. The loss of a batch is the sum
            of weight times loss, divided by the sum of the weights. Weights change neither which samples form a batch
            nor their number. Batch normalisation ignores the weights. ``valid_loss`` uses the weights of the samples
            that ``train_split`` holds out.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If a parameter is outside its allowed values, or if the data are not usable. The error is raised before
            training starts.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If ``max_epochs`` ended the training although ``tol`` is set, or if the loss was no longer a finite number.
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
            if not (isinstance(error, KeyboardInterrupt) and usable):  # after Ctrl-C, the finished epochs count
                self.__dict__ = before  # the estimator is as before, never half fitted
            raise
        failed, self.net_.ending_error_ = self.net_.ending_error_, None
        if failed is not None:
            raise failed  # a callback failed after the training: the estimator is fitted
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
        # One thread is used, so that the starting weights do not depend on the number of threads of the net.
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
                except BaseException as error:  # an error of a callback after the training is raised by `fit` later
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
                "y must be dense, with one label per sample; got a sparse matrix. Use y.toarray().ravel(), or "
                "sparse_output=False in the step that made y."
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
            Probabilities in the order of ``classes_``, as float64.

        Raises
        ------
        ValueError
            If the module's largest output for a sample is not finite, as after a training that diverged.
        """
        outputs = self._outputs(X)
        if isinstance(self.net_.criterion_, nn.NLLLoss):  # skorch's convention: the module returns probabilities
            return outputs
        shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each sample, an ndarray of shape (n_samples,).

        Samples whose largest output is not finite, as after a training that diverged, raise a ValueError.
        ``GridSearchCV`` warns and gives such a fit its ``error_score``.
        """
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
            The share of the samples that `predict` labels correctly, weighted by ``sample_weight``.
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
        """Return the parts for `sklgap.objective.check_objective`: module, loss, inputs and class numbers."""
        if is_stream(X):
            return self.net_.objective_parts(X, y)
        X = self._check_X(X)
        return self.net_.objective_parts(X, y, checked=True)

    @property
    def torch_compile_options(self) -> dict[str, Any] | None:
        """The options of ``torch.compile`` for measurements of the estimator; None if they do not compile."""
        return resolve.compile_options(self)

    @property
    def module_(self) -> nn.Module:
        """The trained module of ``net_``. A pickle holds it once, and can move it between devices."""
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
        """Return an unfitted copy. A module instance is copied in the same way as in ``fit``."""
        if not isinstance(self.net, nn.Module):
            return super().__sklearn_clone__()
        shell = copy.copy(self)
        shell.net = None
        cloned = super(LBGapClassifier, shell).__sklearn_clone__()
        cloned.net = resolve.copy_of_instance(self.net)
        return cloned

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "train_loss_")
