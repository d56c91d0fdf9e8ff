"""The content of a folder of saved work, and ways to make it smaller."""

import contextlib
import os
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sklgap._checks import check_flag, is_number, shown
from sklgap._version import __version__
from sklgap.memory._folder import STALE_SECONDS, Refused, check_format, read_head

# The kinds of files that sklgap writes. Other files in the folder are never touched.
KINDS = {"fit": "finished fit", "part": "unfinished fit", "trial": "measurements"}
_OURS = b"sklgap memory "  # for any version
_ENTRY = re.compile(r"(?P<key>[0-9a-f]{32})\.(?P<kind>" + "|".join(KINDS) + r")")
_LEFT_OVER = re.compile(
    r"(?:" + _ENTRY.pattern.replace("?P<key>", "").replace("?P<kind>", "") + r"|FORMAT)"
    r"\.(?P<process>\d+)\.[0-9a-f]{8}\.tmp"
)


class SavedWork(NamedTuple):
    """One file of a folder of saved work.

    Attributes
    ----------
    path : Path
        The file.
    kind : str
        "fit" (a finished fit), "part" (an unfinished fit), "trial" (the measurements of a trial) or "temporary" (the
        unfinished file of a process that no longer runs).
    about : str
        Description of the work, if the file has one.
    n_bytes : int
        Size of the file.
    saved : float
        Time at which the file was written, in seconds since 1970.
    sklgap, torch : str
        The versions that made the file; empty for a damaged file.
    damaged : str
        A description of the damage; empty for a file that can be used.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier
    >>> from sklgap.memory import SavedWork, saved_work
    >>> X, y = load_digits(return_X_y=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model = LBGapClassifier(module__width=8, max_epochs=1, tol=None, random_state=0, memory=folder)
    ...     _ = model.fit(X / 16, y)
    ...     (work,) = saved_work(folder)
    >>> isinstance(work, SavedWork), work.damaged
    (True, '')
    """

    path: Path
    kind: str
    about: str
    n_bytes: int
    saved: float
    sklgap: str
    torch: str
    damaged: str

    @property
    def finished(self) -> bool:
        """Whether the file is the result of finished work."""
        return self.kind in ("fit", "trial")


def saved_work(folder: str | os.PathLike[str]) -> list[SavedWork]:
    """Return the saved work in a folder, the oldest first.

    Parameters
    ----------
    folder : str or path-like
        The folder that was given as ``memory=``.

    Returns
    -------
    list of SavedWork
        The files of sklgap, without those that a process is writing.

    Raises
    ------
    ValueError
        If the path is not a folder, or if the folder has another version of the format.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_digits
    >>> from sklgap import LBGapClassifier
    >>> from sklgap.memory import saved_work
    >>> X, y = load_digits(return_X_y=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model = LBGapClassifier(module__width=8, max_epochs=1, tol=None, random_state=0, memory=folder)
    ...     _ = model.fit(X / 16, y)
    ...     [(work.kind, work.finished) for work in saved_work(folder)]
    [('fit', True)]
    """
    found = []
    for path in _check_folder(folder).iterdir():
        with contextlib.suppress(OSError):  # another process may remove it
            work = _read(path)
            if work is not None:
                found.append(work)
    return sorted(found, key=lambda work: (work.saved, work.path.name))


def prune(
    folder: str | os.PathLike[str],
    *,
    older_than: float | None = None,
    other_versions: bool = False,
    max_size: float | None = None,
    dry_run: bool = False,
) -> list[SavedWork]:
    """Remove saved work by age, version or size.

    Unfinished files of dead processes and damaged files are always removed.

    Parameters
    ----------
    folder : str or path-like
        The folder that was given as ``memory=``.
    older_than : float, default=None
        Remove work that was saved more than this number of seconds ago. None removes nothing by age.
    other_versions : bool, default=False
        Whether to remove work of other versions of sklgap or torch, which this version never uses.
    max_size : float, default=None
        Remove the oldest files until the rest has at most this number of bytes. None removes nothing by size.
    dry_run : bool, default=False
        Whether to remove nothing, and only return what would be removed.

    Returns
    -------
    list of SavedWork
        The removed work. Files of others are never touched.

    Raises
    ------
    ValueError, TypeError
        If the path is not a folder, if the folder has another version of the format, or if an argument is wrong.

    Examples
    --------
    >>> import tempfile
    >>> from sklgap.memory import prune
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     prune(folder, older_than=30 * 24 * 3600, dry_run=True)
    []
    """
    for name, value in (("older_than", older_than), ("max_size", max_size)):
        if value is not None and (not is_number(value) or value < 0):
            raise ValueError(f"{name} must be None or a number of at least 0; got {shown(value)}.")
    check_flag("other_versions", other_versions)
    check_flag("dry_run", dry_run)
    works = saved_work(folder)
    now = time.time()
    here = __version__, torch.__version__

    def goes(work: SavedWork) -> bool:
        old = older_than is not None and now - work.saved > older_than
        foreign = other_versions and (work.sklgap, work.torch) != here
        return work.kind == "temporary" or bool(work.damaged) or old or foreign

    chosen = [work for work in works if goes(work)]
    rest = [work for work in works if not goes(work)]
    size = sum(work.n_bytes for work in rest)
    while max_size is not None and size > max_size:
        size -= rest[0].n_bytes
        chosen.append(rest.pop(0))
    return chosen if dry_run else [work for work in chosen if _remove(work)]


def _check_folder(folder: Any) -> Path:
    if not isinstance(folder, str | os.PathLike) or not str(folder):
        raise ValueError(f"folder must be the path of a folder; got {shown(folder)}.")
    try:
        path = Path(folder).expanduser()
        there = path.is_dir()
    except (OSError, ValueError, RuntimeError, TypeError):
        there = False
    if not there:
        raise ValueError(f"folder must be the path of a folder that exists; got {shown(folder)}.")
    check_format(path)
    return path


def _read(path: Path) -> SavedWork | None:
    """Return the record of a file; None if the file is not one of sklgap or is being written."""
    entry, left = _ENTRY.fullmatch(path.name), _LEFT_OVER.fullmatch(path.name)
    if (entry is None and left is None) or path.is_symlink() or not path.is_file():
        return None
    state = path.stat()
    known: dict[str, Any] = {"path": path, "n_bytes": state.st_size, "saved": state.st_mtime}
    if entry is None:
        assert left is not None
        dead = time.time() - state.st_mtime > STALE_SECONDS
        return SavedWork(kind="temporary", about="", sklgap="", torch="", damaged="", **known) if dead else None
    kind = entry["kind"]
    try:
        with open(path, "rb") as file:
            if file.read(len(_OURS)) != _OURS:
                return None
            file.seek(0)
            head = read_head(file)
    except Refused as error:
        return SavedWork(kind=kind, about="", sklgap="", torch="", damaged=str(error), **known)
    said: dict[str, Any] = {name: str(head.get(name, ""))[:200] for name in ("about", "sklgap", "torch")}
    return SavedWork(kind=kind, damaged="", **said, **known)


def _remove(work: SavedWork) -> bool:
    """Remove a file, unless another process has written it again in the meantime."""
    try:
        if work.path.stat().st_mtime != work.saved:
            return False
        work.path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ValueError(
            f"folder must be one whose files can be removed; '{work.path}' cannot be removed ({error.strerror})."
        ) from error
    return True
