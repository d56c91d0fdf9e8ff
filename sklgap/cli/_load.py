"""What a command is given: a named data set, a table of your own, or an npz file, as training and test data."""

import argparse
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

GENERATED = "mnist1d"
NAMED = (GENERATED, "digits", "mnist", "cifar10", "cifar100")
# Words that stand in more kinds than this in a column: the rarest share one.
_MOST_KINDS = 50
# A table in memory takes some times the size of its file.
_TIMES_THE_FILE = 3
_SUFFIXES = {".csv": "CSV", ".parquet": "Parquet", ".pq": "Parquet", ".npz": "npz"}
# Rows of the generated data set.
N_TRAIN, N_TEST = 4000, 10_000


class Loaded(NamedTuple):
    """Data for a command.

    ``head`` is a transformer that makes numbers of the columns of a table, or None where X is numbers already;
    ``said`` tells what was done with the data, in sentences.
    """

    X: Any
    y: Any
    X_test: Any
    y_test: Any
    head: Any
    name: str
    said: list[str]


def add_data_arguments(p: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add the arguments that say which data a command is about."""
    named = ", ".join(NAMED)
    only = "" if default is None else f" (default: {default})"
    p.add_argument(
        "data", nargs="?", default=None, metavar="DATA", help=f"{named}, or a file: .csv, .parquet or .npz{only}"
    )
    p.add_argument("--dataset", metavar="DATA", help="another way to say DATA")
    p.add_argument("--target", metavar="COLUMN", help="the column (or array of an npz file) with the labels")
    p.add_argument("--drop", nargs="+", default=[], metavar="COLUMN", help="columns to leave out")
    p.add_argument("--positive", metavar="LABEL", help="of two labels, the one that scores look for (the rarer one)")
    p.add_argument("--test-fraction", type=float, default=0.25, help="part of a file that is held out for tests (0.25)")
    p.add_argument("--train-samples", type=int, help="train on the first so many samples only")
    p.add_argument("--data-home", help="folder of the data files of mnist and cifar; else $SKLGAP_DATA, else OpenML")
    p.set_defaults(default_data=default)


def load(arguments: argparse.Namespace) -> Loaded:
    """Return the data that the arguments name; a ValueError in one sentence for what cannot be read."""
    if arguments.data is not None and arguments.dataset is not None:
        raise ValueError(f"DATA and --dataset are the same thing; got {arguments.data!r} and {arguments.dataset!r}.")
    asked = arguments.data or arguments.dataset or arguments.default_data
    if asked is None:
        raise ValueError(f"DATA must be one of {', '.join(NAMED)}, or a file; got none.")
    if arguments.train_samples is not None and arguments.train_samples < 1:
        raise ValueError(f"--train-samples must be at least 1; got {arguments.train_samples}.")
    if asked in NAMED:
        found = _named(asked, arguments)
    else:
        found = _of_file(Path(asked), arguments)
    n = arguments.train_samples
    return found if n is None else found._replace(X=found.X[:n], y=found.y[:n])


# -- named data sets ---------------------------------------------------------------------------------------------------


def _named(name: str, arguments: argparse.Namespace) -> Loaded:
    if arguments.target is not None:
        raise ValueError(f"--target is for files; {name} has its labels.")
    if name == GENERATED:
        from sklgap.datasets import make_mnist1d

        X, y = make_mnist1d(N_TRAIN, random_state=arguments.seed)
        X_test, y_test = make_mnist1d(N_TEST, random_state=arguments.seed + 1)
        said = [f"MNIST-1D, generated: {N_TRAIN:,} training and {N_TEST:,} test samples of 40 numbers, 10 classes"]
        return Loaded(X, y, X_test, y_test, None, "MNIST-1D", said)
    if name == "digits":
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        X, y = load_digits(return_X_y=True)
        X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.25, random_state=0, stratify=y)
        said = ["the digits of scikit-learn, a quarter held out for tests"]
        return Loaded(X, y, X_test, y_test, None, "digits", said)
    from sklgap.datasets import fetch_cifar10, fetch_cifar100, fetch_mnist

    fetchers: dict[str, Callable[..., Any]] = {
        "mnist": fetch_mnist,
        "cifar10": fetch_cifar10,
        "cifar100": fetch_cifar100,
    }
    fetch = fetchers[name]
    try:
        X, y = fetch(subset="train", data_home=arguments.data_home, return_X_y=True)
        X_test, y_test = fetch(subset="test", data_home=arguments.data_home, return_X_y=True)
    except OSError as error:
        where = arguments.data_home or os.environ.get("SKLGAP_DATA") or "no folder given"
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{name} was not found ({where}), and OpenML could not be asked ({first}): put the publisher's files into "
            "a folder, and name it by --data-home or $SKLGAP_DATA."
        ) from error
    return Loaded(X, y, X_test, y_test, None, name, [f"{name}: {len(y):,} training and {len(y_test):,} test samples"])


# -- files -------------------------------------------------------------------------------------------------------------


def _of_file(path: Path, arguments: argparse.Namespace) -> Loaded:
    kind = _SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise ValueError(
            f"DATA must be one of {', '.join(NAMED)}, or a file .csv, .parquet or .npz; got {str(path)!r}."
        )
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file.")
    if not path.stat().st_size:
        raise ValueError(f"{path}: the file is empty.")
    _check_memory(path)
    if kind == "npz":
        X, y = _npz(path, arguments.target)
        head: Any = None
        said: list[str] = []
    else:
        table = _table(path, kind)
        X, y, head, said = _columns(path, table, arguments)
    y, labels = _labels(path, y, arguments)
    X, y, X_test, y_test, split = _split(path, X, y, arguments)
    return Loaded(X, y, X_test, y_test, head, path.name, [*split, *labels, *said])


def _check_memory(path: Path) -> None:
    """Refuse a file that would take more memory than there is."""
    needed = _TIMES_THE_FILE * path.stat().st_size
    free = _free_memory()
    if free is not None and needed > free:
        raise ValueError(
            f"{path}: a file of {path.stat().st_size / 1e9:.1f} GB would take about {needed / 1e9:.1f} GB of memory, "
            f"and {free / 1e9:.1f} GB are free: use a part of it, or write it as an .npz of float32 numbers."
        )


def _free_memory() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None


def _table(path: Path, kind: str) -> Any:
    try:
        import pandas as pd
    except ImportError:
        raise ValueError(f"{path}: tables need pandas: pip install 'sklgap[table]'.") from None
    try:
        table = pd.read_csv(path) if kind == "CSV" else pd.read_parquet(path)
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}: is not text in UTF-8 (near line {line}): save it again with this encoding."
        ) from None
    except ImportError:
        raise ValueError(f"{path}: Parquet needs pyarrow: pip install 'sklgap[table]'.") from None
    except Exception as error:  # parsers of pandas and pyarrow raise many kinds
        raise ValueError(f"{path}: could not be read as {kind}: {str(error).splitlines()[0].rstrip('.')}.") from error
    if not len(table) or not len(table.columns):
        raise ValueError(f"{path}: has a header and no rows.")
    table.columns = [str(column) for column in table.columns]
    twice = sorted({column for column in table.columns if (table.columns == column).sum() > 1})
    if twice:
        raise ValueError(f"{path}: has two columns named {twice[0]!r}: rename one.")
    return table


def _columns(path: Path, table: Any, arguments: argparse.Namespace) -> tuple[Any, Any, Any, list[str]]:
    """Return the columns to learn from, the labels, what makes numbers of them, and sentences."""
    columns = list(table.columns)
    if arguments.target is None:
        raise ValueError(f"{path}: --target must name the column of the labels, one of {_few(columns)}.")
    for name in [arguments.target, *arguments.drop]:
        if name not in columns:
            raise ValueError(f"{path}: has no column {name!r}; it has {_few(columns)}.")
    y = table[arguments.target]
    missing = np.flatnonzero(y.isna().to_numpy())
    if len(missing):
        raise ValueError(
            f"{path}: {len(missing)} rows have no {arguments.target}, the first in line {missing[0] + 2}: remove them."
        )
    X = table.drop(columns=[arguments.target, *arguments.drop])
    if not len(X.columns):
        raise ValueError(f"{path}: has no column beside {arguments.target}.")
    numbers: list[str] = []
    words: list[str] = []
    for name in X.columns:
        kind = X[name].dtype
        if kind.kind == "b":
            X[name] = X[name].astype("float32")
        if kind.kind in "Mm" or _looks_like_dates(X[name]):
            raise ValueError(
                f"{path}: column {name!r} has dates: make numbers of them (year, month, day), or --drop {name}."
            )
        if X[name].isna().all():
            raise ValueError(f"{path}: column {name!r} has no value at all: --drop {name}.")
        (numbers if kind.kind in "iufb" else words).append(name)
    infinite = [name for name in numbers if np.isinf(X[name].to_numpy(dtype=float, na_value=np.nan)).any()]
    if infinite:
        raise ValueError(f"{path}: column {infinite[0]!r} has infinite numbers: correct them, or --drop {infinite[0]}.")
    gaps = [name for name in X.columns if X[name].isna().any()]
    said = [f"{len(numbers)} columns of numbers (scaled), {len(words)} of words (one-hot encoded)"]
    if gaps:
        said.append(f"gaps are filled with the median or a word of their own, and marked: {_few(gaps)}")
    many = [name for name in words if X[name].nunique() > _MOST_KINDS]
    if many:
        said.append(f"the rarest words share one column beyond {_MOST_KINDS} kinds: {_few(many)}")
    return X, y, _head(numbers, words), said


def _looks_like_dates(column: Any) -> bool:
    """Say whether words are dates such as 2013-01-31 or 31/01/2013 10:00."""
    if column.dtype.kind in "iufb":
        return False
    some = column.dropna().astype(str).head(50)
    pattern = r"\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ]\d{1,2}:\d{2}.*)?\s*"
    return bool(len(some)) and bool(some.str.fullmatch(pattern).all())


def _head(numbers: Sequence[str], words: Sequence[str]) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    parts = []
    if numbers:
        filled = SimpleImputer(strategy="median", add_indicator=True)
        parts.append((make_pipeline(filled, StandardScaler()), list(numbers)))
    if words:
        encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=_MOST_KINDS)
        gap = SimpleImputer(strategy="constant", fill_value="(missing)")
        parts.append((make_pipeline(_AsText(), gap, encoder), list(words)))
    return make_column_transformer(*parts)


def _AsText() -> Any:
    from sklearn.preprocessing import FunctionTransformer

    return FunctionTransformer(_as_text, feature_names_out="one-to-one")


def _as_text(X: Any) -> Any:
    """Return a table of words in which gaps stay gaps."""
    return X.astype(object).where(X.notna(), np.nan).map(lambda value: value if value is np.nan else str(value))


def _npz(path: Path, target: str | None) -> tuple[np.ndarray, np.ndarray]:
    name = "y" if target is None else target
    try:
        with np.load(path, allow_pickle=False) as file:
            names = list(file.files)
            if name not in names or len(names) < 2:
                raise ValueError(
                    f"{path}: must hold an array {name!r} of labels and one of samples; it has {_few(names)}."
                )
            others = ["X"] if "X" in names else [other for other in names if other != name]
            if len(others) > 1:
                raise ValueError(f"{path}: must hold one array of samples, named X; it has {_few(names)}.")
            X, y = file[others[0]], file[name]
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise ValueError(f"{path}: could not be read as npz: {error}.") from error
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: holds objects, which only a pickle could load: save plain arrays.") from error
    if y.ndim != 1 or len(X) != len(y):
        raise ValueError(f"{path}: must hold one label per sample; got shapes {X.shape} and {y.shape}.")
    return X, y


def _labels(path: Path, y: Any, arguments: argparse.Namespace) -> tuple[np.ndarray, list[str]]:
    """Return the labels; two labels as 0 and 1, for scores that look for one of them."""
    y = np.asarray(y)
    y = np.array([str(value) for value in y]) if y.dtype.kind == "O" else y
    classes, counts = np.unique(y, return_counts=True)
    if len(classes) < 2:
        raise ValueError(f"{path}: the target has only one class, {classes.tolist()[0]!r}.")
    if y.dtype.kind == "f" and not np.array_equal(y, np.round(y)):
        raise ValueError(f"{path}: the target has numbers that are no classes, such as {y[y != np.round(y)][0]:g}.")
    if counts.min() < 4:
        rare = classes[counts.argmin()]
        raise ValueError(f"{path}: the class {rare} has {counts.min()} samples; each needs at least 4.")
    if len(classes) > 2:
        if arguments.positive is not None:
            raise ValueError(f"--positive is for two labels; the target has {len(classes)}.")
        return y, [f"{len(classes)} classes, the largest has {100 * counts.max() / len(y):.1f} %"]
    names = [str(label) for label in classes]
    if arguments.positive is not None and arguments.positive not in names:
        raise ValueError(f"--positive must be one of {', '.join(names)}; got {arguments.positive!r}.")
    positive = names.index(arguments.positive) if arguments.positive else int(counts.argmin())
    said = f"two classes; scores look for {names[positive]} ({100 * counts[positive] / len(y):.1f} %)"
    return (y == classes[positive]).astype(np.int64), [said]


def _split(path: Path, X: Any, y: np.ndarray, arguments: argparse.Namespace) -> tuple[Any, Any, Any, Any, list[str]]:
    from sklearn.model_selection import train_test_split

    fraction = arguments.test_fraction
    if not 0 < fraction < 1:
        raise ValueError(f"--test-fraction must be above 0 and below 1; got {fraction:g}.")
    try:
        X, X_test, y, y_test = train_test_split(X, y, test_size=fraction, random_state=arguments.seed, stratify=y)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be split: {error}") from error
    n, n_test = len(y), len(y_test)
    return X, y, X_test, y_test, [f"{path.name}: {n:,} training and {n_test:,} test samples, split by class at random"]


def _few(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(map(str, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
