"""The data of an experiment, prepared once for all its fits: checked, converted, and hashed for saved work.

Prepared arrays are read-only. If work is saved, they also share no memory with the user's arrays, so that a callback or
a scorer that changes these arrays cannot change the data of a saved result. Some data cannot be prepared: data of a
pipeline, which transforms X in every fit, sparse matrices, and data of the user's own data path. They are checked,
converted and hashed in every fit.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.utils.validation import validate_data

from sklgap.estimator import LBGapClassifier
from sklgap.estimator._classifier import TAKEN
from sklgap.experiments._protocol import take
from sklgap.memory import Fingerprint, Unfollowable, fingerprint
from sklgap.objective import Objective, check_objective
from sklgap.objective._check import own_loss
from sklgap.objective._data import CHUNK_SIZE, ArrayData
from sklgap.training._dtypes import floating_dtype
from sklgap.training._encoding import CheckedRows, to_numpy

Data = tuple[Any, Any]
# The training data and further parts, by their names in the records.
Parts = Mapping[str, Data]
# Parameters that set the user's own data path, whose code may do anything with arrays.
_OWN_PATH = ("iterator_train", "iterator_valid", "dataset")


class TrialData(Mapping[str, Data]):
    """The parts of an experiment by name, in the user's form and in the prepared form.

    joblib passes the arrays to other processes. Arrays above 1 MB are shared as a memory-mapped file.

    Parameters
    ----------
    parts : dict of str to (X, y)
        The parts in the user's form.
    """

    def __init__(self, parts: Parts) -> None:
        self._given = dict(parts)
        self._checked: dict[str, tuple[CheckedRows, np.ndarray]] = {}
        self._on_device: dict[Any, ArrayData] = {}
        self._fingerprints: dict[tuple[str, ...], Fingerprint] = {}  # of parts together, as the user gave them

    def __getitem__(self, part: str) -> Data:
        return self._given[part]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)

    @property
    def fingerprint(self) -> Fingerprint | None:
        """Fingerprint of the parts in the user's form; None if it was not computed once for all fits."""
        return self._fingerprints.get(tuple(self))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the data on devices, which every process creates itself."""
        return {**vars(self), "_on_device": {}}

    # -- preparing -----------------------------------------------------------------------------------------------------

    @classmethod
    def prepared(
        cls,
        parts: Parts,
        estimator: Any,
        parameters: Iterable[str] = (),
        *,
        hashed: bool = False,
        scored: bool = False,
        left_out: str | None = None,
    ) -> "TrialData":
        """Return the data of an experiment, checked and converted if that can be done once for all fits.

        Parameters
        ----------
        parts : dict of str to (X, y)
            The parts in the user's form. `TrialData` are returned unchanged.
        estimator : estimator
            The estimator that will be fitted.
        parameters : iterable of str
            Names of the parameters that its fits change.
        hashed : bool, default=False
            Whether work will be saved.
        scored : bool, default=False
            Whether scorers receive the data in the user's form.
        left_out : str, default=None
            A part that some of the fits do not use (`without`).
        """
        if isinstance(parts, TrialData):
            return parts
        found = cls(parts)
        if type(estimator) is not LBGapClassifier or any(issparse(X) for X, _ in parts.values()):
            return found
        if any(name.startswith(_OWN_PATH) for name in (*estimator.get_params(deep=False), *parameters)):
            return found
        hashed = hashed or estimator.memory is not None
        if hashed and scored and not all(_is_array(given) for pair in parts.values() for given in pair):
            return found
        try:
            found._prepare(estimator, hashed, scored, left_out)
        except (ValueError, TypeError, Unfollowable):
            return cls(parts)  # a fit, or its key, then raises the error
        return found

    def _prepare(self, estimator: Any, hashed: bool, scored: bool, left_out: str | None) -> None:
        fingerprints = {}
        if hashed:
            for seen in {tuple(self), tuple(part for part in self if part != left_out)}:
                fingerprints[seen] = Fingerprint(fingerprint({part: self[part] for part in seen}))
        if hashed and scored:
            self._given = {part: (_private(X), _private(y)) for part, (X, y) in self._given.items()}
        classifier = clone(estimator)
        for part, (X, y) in self._given.items():
            train = part == "train"
            X, y = to_numpy(X), to_numpy(y)
            values, labels = validate_data(
                classifier, X, y, **TAKEN, ensure_min_samples=2 if train else 1, reset=not self._checked
            )
            if hashed:
                values, labels = (_private(new, unless=old) for new, old in ((values, X), (labels, y)))
            values, labels = _read_only(values), _read_only(labels)
            names = getattr(classifier, "feature_names_in_", None)
            own = Fingerprint(fingerprint(values)) if hashed and train else None
            self._checked[part] = CheckedRows(values, names, own), labels
        self._fingerprints = fingerprints
        if not scored:  # the data in the user's form are no longer needed
            self._given = {part: (checked.values, labels) for part, (checked, labels) in self._checked.items()}

    def without(self, part: str) -> "TrialData":
        """Return the data without this part."""
        fewer = TrialData({name: data for name, data in self.items() if name != part})
        fewer._checked = {name: data for name, data in self._checked.items() if name != part}
        fewer._on_device, fewer._fingerprints = self._on_device, self._fingerprints
        return fewer

    # -- using ---------------------------------------------------------------------------------------------------------

    def fit(self, model: Any) -> None:
        """Fit a model to the training data."""
        model.fit(*(self._checked or self._given)["train"])

    def encoded(self, model: Any, part: str) -> tuple[Any, np.ndarray]:
        """Return samples and class numbers of a part in the form that the net of a fitted classifier takes."""
        if part not in self._checked:
            rows, numbers = model.net_.encoding_.encode(*self[part])
        else:
            checked, y = self._checked[part]
            rows, numbers = model.net_.encoding_.encode_checked(np.asarray(checked.values), y)
        return rows, numbers

    def objective(
        self,
        model: Any,
        part: str,
        batch_norm: Any,
        rows: np.ndarray | None = None,
        passes: Literal["many", "few"] = "few",
    ) -> Objective:
        """Return the objective of a fitted model on a part, or on some of its samples; ``passes`` as in `ArrayData`."""
        X, y = self[part]
        if part not in self._checked:
            if rows is not None:
                X, y = take(X, rows), take(y, rows)
            return check_objective(model, X, y, batch_norm=batch_norm)
        net = model.net_
        device, dtype = next(net.module_.parameters()).device, floating_dtype(net.module_)
        chosen = None if rows is None else rows.tobytes()
        key = (part, chosen, passes, device, dtype, net.encoding_.net_shape)
        if key not in self._on_device:
            checked, y = self._checked[part]
            X = np.asarray(checked.values)
            data = net.encoding_.encode_checked(*((X, y) if rows is None else (X[rows], y[rows])))
            self._on_device[key] = ArrayData(data, CHUNK_SIZE, dtype, device, passes=passes)
        return Objective(net.module_, own_loss(net), self._on_device[key], batch_norm=batch_norm)


def _is_array(given: Any) -> bool:
    return type(given) is np.ndarray and not given.dtype.hasobject


def _private(new: np.ndarray, unless: Any = None) -> np.ndarray:
    """Return a copy, or the array itself if it shares no memory with ``unless``, from which it was made."""
    if unless is None or not isinstance(unless, np.ndarray | list) or np.may_share_memory(new, np.asarray(unless)):
        return _read_only(new.copy())
    return new


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view
