"""TIMIT: frames of speech with the states of an alignment, from Kaldi files, for the net F2."""

import os
from collections.abc import Sequence
from typing import Any, Literal, get_args, overload

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from sklgap._checks import is_integer
from sklgap._typing import MissingUtterances
from sklgap.datasets._base import XY, check_bool, check_choice
from sklgap.datasets._kaldi import read_integers, read_matrices

# Ten seconds at the usual 100 frames per second. No net for frames takes a longer input.
_MOST_CONTEXT = 1000

_DESCR = """Frames of speech with the labels of an alignment, from files in Kaldi's formats

Each sample is a frame with its neighbours: its features, and those of the frames before and after it. Samples follow
each other as the frames of an utterance do, utterance by utterance.

Keskar et al. (2017) use 721,329 training and 310,621 test samples of 360 features and 1,973 classes from TIMIT.
TIMIT: Garofolo et al., "TIMIT Acoustic-Phonetic Continuous Speech Corpus", LDC93S1; licensed by the LDC.
"""


@overload
def load_timit(
    features: str | os.PathLike[str],
    alignments: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    context: int | tuple[int, int] = 4,
    missing: MissingUtterances = "error",
    return_X_y: Literal[False] = False,
) -> Bunch: ...
@overload
def load_timit(
    features: str | os.PathLike[str],
    alignments: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    context: int | tuple[int, int] = 4,
    missing: MissingUtterances = "error",
    return_X_y: Literal[True],
) -> XY: ...
@overload
def load_timit(
    features: str | os.PathLike[str],
    alignments: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    context: int | tuple[int, int] = 4,
    missing: MissingUtterances = "error",
    return_X_y: bool = False,
) -> Bunch | XY: ...
def load_timit(
    features: str | os.PathLike[str],
    alignments: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    context: int | tuple[int, int] = 4,
    missing: MissingUtterances = "error",
    return_X_y: bool = False,
) -> Bunch | XY:
    r"""Load frames and their labels from Kaldi files, of TIMIT or of any other corpus.

    TIMIT is licensed. You make the features and the alignment yourself, with Kaldi.

    Parameters
    ----------
    features : str or path-like
        ``feats.scp``, or an archive (``.ark``, ``.ark.gz``). It holds a matrix of shape (n_frames, n_features) for each
        utterance, compressed by Kaldi or not. Features should be normalised, or go through a `StandardScaler`.
    alignments : str, path-like or sequence of them
        The scp or ark files that together hold an integer per frame for each utterance, such as the pdf-ids (states)
        that Kaldi writes with ``ali-to-pdf final.mdl "ark:gunzip -c ali.*.gz|" ark:pdfs.ark``. The numbers in
        ``ali.*.gz`` itself are transitions, of which there are more than states.
    context : int or tuple of two ints, default=4
        Number of frames before and after each frame that are joined to it, at most 1000. With 4, a sample has 9 frames,
        so 40 features become the 360 inputs of F2 in the paper. At the ends of an utterance its first and last frame
        are repeated, as in ``splice-feats``.
    missing : {"error", "skip"}, default="error"
        What to do about an utterance without an alignment (Kaldi fails to align a few): raise an error, or leave it
        out.
    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : ndarray of float32, shape (n_frames, n_features * frames joined)
            The frames of the utterances one after the other, in the order of ``features``. A row holds its joined
            frames from the earliest to the latest.
        target : ndarray of int64, shape (n_frames,)
            The numbers of the alignment, unchanged.
        groups : ndarray of int64, shape (n_frames,)
            The position in ``utterances`` of the utterance of each sample, for `GroupKFold` and similar splitters.
            Samples of one utterance overlap, so they must not be split over training and test data.
        utterances : ndarray of str
            The names of the loaded utterances.
        DESCR : str
            Description of the data.

    (data, target) : tuple if ``return_X_y`` is True
        The two arrays above.

    Raises
    ------
    ValueError
        If a parameter is not allowed, if an utterance has no alignment or one of another length, if a file is damaged,
        or if a line of an scp file is not ``utterance path:offset``. Commands (``gunzip -c ... |``) are not run.
    OSError
        If a file is missing.

    Notes
    -----
    Relative paths in an scp file start from the working folder, as in Kaldi, or from the folder of the scp file.
    Archives are read as data, and only as binary matrices and vectors of numbers. Text archives and pickles are
    refused. A compressed archive may unpack to 32 times its size, or 16 MB if that is more. The training set of the
    paper takes 1 GB.

    References
    ----------
    Keskar et al., ICLR 2017, Appendix A and B (F2). Povey et al., "The Kaldi Speech Recognition Toolkit", ASRU 2011.

    Examples
    --------
    Two frames of two features, with a frame of context on either side:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from struct import pack
    >>> from sklgap.datasets import load_timit
    >>> with tempfile.TemporaryDirectory() as home:
    ...     feats, pdfs = str(Path(home, "feats.ark")), str(Path(home, "pdfs.ark"))
    ...     matrix = b"\0BFM " + pack("<bibi4f", 4, 2, 4, 2, 1, 2, 3, 4)
    ...     _ = Path(feats).write_bytes(b"utterance " + matrix)
    ...     _ = Path(pdfs).write_bytes(b"utterance \0B" + pack("<bibibi", 4, 2, 4, 7, 4, 5))
    ...     X, y = load_timit(feats, pdfs, context=1, return_X_y=True)
    >>> X
    array([[1., 2., 1., 2., 3., 4.],
           [1., 2., 3., 4., 3., 4.]], dtype=float32)
    >>> y
    array([7, 5])
    """
    check_choice("missing", missing, get_args(MissingUtterances))
    check_bool("return_X_y", return_X_y)
    left, right = _check_context(context)
    paths = _check_paths(features, alignments)
    labels = _read_alignments(paths)
    frames: list[NDArray[np.float32]] = []
    targets: list[NDArray[np.int64]] = []
    names: list[str] = []
    for utterance, matrix in read_matrices(features):
        if utterance not in labels:
            if missing == "skip":
                continue
            raise ValueError(
                f"{_quoted(paths)} must have an alignment for each utterance of '{features}'; utterance {utterance!r} "
                "has no alignment; missing='skip' leaves such utterances out."
            )
        if len(labels[utterance]) != len(matrix):
            raise ValueError(
                f"{_quoted(paths)} must have a label for each of the {len(matrix)} frames that utterance {utterance!r} "
                f"has in '{features}', found {len(labels[utterance])}."
            )
        if frames and matrix.shape[1] != frames[0].shape[1]:
            raise ValueError(
                f"'{features}' must have {frames[0].shape[1]} features in every frame, as in utterance {names[0]!r}; "
                f"utterance {utterance!r} has {matrix.shape[1]}."
            )
        frames.append(matrix)
        targets.append(labels[utterance])
        names.append(utterance)
    if not frames:
        raise ValueError(f"'{features}' must have at least one utterance that {_quoted(paths)} aligns; found 0.")
    X, y = splice(frames, left, right), np.concatenate(targets)
    if return_X_y:
        return X, y
    groups = np.repeat(np.arange(len(frames)), [len(matrix) for matrix in frames])
    return Bunch(data=X, target=y, groups=groups, utterances=np.array(names), DESCR=_DESCR)


def splice(utterances: Sequence[NDArray[np.float32]], left: int, right: int) -> NDArray[np.float32]:
    """Join to each frame those before and after it, and repeat the frames at the ends of an utterance."""
    n_features, n_joined = utterances[0].shape[1], left + 1 + right
    X = np.empty((sum(map(len, utterances)), n_joined * n_features), dtype=np.float32)
    start = 0
    for matrix in utterances:
        rows = X[start : start + len(matrix)]
        for i in range(n_joined):
            joined = np.clip(np.arange(len(matrix)) + i - left, 0, len(matrix) - 1)
            rows[:, i * n_features : (i + 1) * n_features] = matrix[joined]
        start += len(matrix)
    return X


def _read_alignments(paths: Sequence[str | os.PathLike[str]]) -> dict[str, NDArray[np.int64]]:
    labels: dict[str, NDArray[np.int64]] = {}
    for path in paths:
        for utterance, integers in read_integers(path):
            if utterance in labels:
                raise ValueError(f"'{path}' aligns utterance {utterance!r}, but another file aligns it, too.")
            labels[utterance] = integers
    return labels


def _check_paths(features: Any, alignments: Any) -> list[str | os.PathLike[str]]:
    """Return the files of the alignment as a list."""
    if not isinstance(features, str | os.PathLike):
        raise TypeError(f"features must be a path; got {features!r}.")
    paths = [alignments] if isinstance(alignments, str | os.PathLike) else alignments
    if not isinstance(paths, list | tuple) or not paths or not all(isinstance(p, str | os.PathLike) for p in paths):
        raise TypeError(f"alignments must be a path or a list of paths; got {alignments!r}.")
    return list(paths)


def _check_context(context: Any) -> tuple[int, int]:
    both = (context, context) if is_integer(context, 0) else context
    if not isinstance(both, tuple | list) or len(both) != 2 or not all(is_integer(n, 0) for n in both):
        raise ValueError(f"context must be an integer of at least 0, or two such integers; got {context!r}.")
    if max(both) > _MOST_CONTEXT:
        raise ValueError(f"context must be at most {_MOST_CONTEXT} frames on a side; got {context!r}.")
    return int(both[0]), int(both[1])


def _quoted(paths: Sequence[str | os.PathLike[str]]) -> str:
    return ", ".join(f"'{path}'" for path in paths)
