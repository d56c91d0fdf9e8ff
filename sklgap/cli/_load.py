"""Load the data of a command: a named data set, a table or an npz file, as training and test data."""

import argparse
import csv
import gzip
import io
import itertools
import os
import re
import zipfile
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

GENERATED = "mnist1d"
NAMED = (GENERATED, "digits", "mnist", "cifar10", "cifar100")
# If a column has more different words than this, the rarest words are encoded as one.
_MOST_KINDS = 50
# Estimates: a table in memory takes 3 times the bytes of its text, and text 8 times the bytes of its gzip file.
_TIMES_THE_TEXT, _TIMES_THE_GZIP = 3, 8
_SUFFIXES = {".csv": "CSV", ".csv.gz": "CSV", ".parquet": "Parquet", ".pq": "Parquet", ".npz": "npz"}
_TEST_FRACTION = 0.25
_LEAST_OF_A_CLASS = 4
# If this share of a column of words are numbers, the column is taken for numbers with mistakes in them.
_MOSTLY = 0.9
# Rows of a file in which separators are counted.
_FIRST_ROWS = 5
# From so many different values on, the numbers of a column are a quantity and not names of kinds.
_MANY_NUMBERS = 10
# Integers with more different values than this, some of them rare, are a quantity and not classes.
_MANY_CLASSES = 20
# Samples of the generated data set.
N_TRAIN, N_TEST = 4000, 10_000

_YEAR, _DAY, _TIME = r"(?:1[89]|20|21)\d\d", r"\d{1,2}", r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?"
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DATES = [
    rf"{_YEAR}[-/.]{_DAY}(?:[-/.]{_DAY})?",
    rf"{_DAY}[-/.]{_DAY}[-/.](?:{_YEAR}|\d\d)",
    rf"{_DAY}[- .]*{_MONTH}[- ,]*(?:{_YEAR}|\d\d)",
    rf"{_MONTH}[- ]{_DAY},? {_YEAR}",
]
_DATE = rf"\s*(?:(?:{'|'.join(_DATES)})(?:[T ]+{_TIME}.*)?|{_TIME}(?:\s*[ap]m)?)\s*"
# Numbers that pandas reads as words, such as 1,234 or 12 % or $3.50.
_SIGNED = r"\s*[-+]?(?:[$€£]\s*[-+]?\d[\d,.]*|\d[\d,.]*\s*[%$€£]|\d+(?:,\d+)+(?:\.\d+)?)\s*"


class Loaded(NamedTuple):
    """Data for a command.

    ``head`` is a transformer that turns the columns of a table into numbers, or None if X holds numbers already.
    ``said`` holds sentences that describe what was done with the data.
    """

    X: Any
    y: Any
    X_test: Any
    y_test: Any
    head: Any
    name: str
    said: list[str]


def add_data_arguments(p: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add the arguments that choose the data of a command."""
    named = ", ".join(NAMED)
    only = "" if default is None else f" (default: {default})"
    p.add_argument(
        "data",
        nargs="?",
        default=None,
        metavar="DATA",
        help=f"a named data set ({named}), or a file (.csv, .csv.gz, .parquet or .npz){only}",
    )
    p.add_argument("--dataset", metavar="DATA", help="the same as DATA")
    p.add_argument(
        "--target",
        metavar="COLUMN",
        help="column with the labels (required for a table); for an .npz file, array with the labels (default: y)",
    )
    p.add_argument("--drop", nargs="+", default=[], metavar="COLUMN", help="columns to leave out")
    p.add_argument(
        "--positive",
        metavar="LABEL",
        help="with two classes, the label of the positive class, which scores look for (default: the rarer label)",
    )
    p.add_argument(
        "--test-fraction",
        type=float,
        metavar="FRACTION",
        help=f"fraction of the samples of a file that are held out as test data (default: {_TEST_FRACTION})",
    )
    p.add_argument(
        "--train-samples", type=int, metavar="N", help="train on the first N training samples only (default: all)"
    )
    p.add_argument(
        "--data-home",
        metavar="FOLDER",
        help="folder with the files of MNIST or CIFAR (default: $SKLGAP_DATA; if that is not set, the data are "
        "downloaded from OpenML)",
    )
    p.set_defaults(default_data=default)


def load(arguments: argparse.Namespace) -> Loaded:
    """Return the data that the arguments name; raise a ValueError for data that cannot be read."""
    if arguments.data is not None and arguments.dataset is not None:
        raise ValueError(
            f"DATA and --dataset must not both be given; got {arguments.data!r} and {arguments.dataset!r}."
        )
    asked = arguments.data or arguments.dataset or arguments.default_data
    if asked is None:
        raise ValueError(f"DATA is missing: give one of {', '.join(NAMED)}, or a file .csv, .csv.gz, .parquet or .npz.")
    if not 0 <= arguments.seed < 2**32:
        raise ValueError(f"--seed must be at least 0 and below 2**32; got {arguments.seed}.")
    n = arguments.train_samples
    if n is not None and n < 1:
        raise ValueError(f"--train-samples must be at least 1; got {n}.")
    found = _named(asked, arguments) if asked in NAMED else _of_file(Path(asked), arguments)
    if n is None:
        return found
    if n > len(found.y):
        raise ValueError(
            f"--train-samples must be at most the number of training samples, {len(found.y):,}; got {n:,}."
        )
    if len(np.unique(found.y[:n])) < len(np.unique(found.y)):
        raise ValueError(f"--train-samples must be larger, because the first {n:,} training samples lack a class.")
    said = [*found.said, f"training uses only the first {n:,} training samples"]
    return found._replace(X=found.X[:n], y=found.y[:n], said=said)


# -- named data sets ---------------------------------------------------------------------------------------------------


def _named(name: str, arguments: argparse.Namespace) -> Loaded:
    of_files = {
        "--target": arguments.target,
        "--drop": arguments.drop or None,
        "--positive": arguments.positive,
        "--test-fraction": arguments.test_fraction,
    }
    for option, value in of_files.items():
        if value is not None:
            raise ValueError(f"{option} is for files only, because {name} has its own labels and test samples.")
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
        said = [f"digits of scikit-learn: {len(y):,} training and {len(y_test):,} test samples of 64 pixels"]
        return Loaded(X, y, X_test, y_test, None, "digits", said)
    import sklgap.datasets

    fetch: Callable[..., Any] = getattr(sklgap.datasets, f"fetch_{name}")
    try:
        X, y = fetch(subset="train", data_home=arguments.data_home, return_X_y=True)
        X_test, y_test = fetch(subset="test", data_home=arguments.data_home, return_X_y=True)
    except OSError as error:
        raise ValueError(_not_found(name, arguments.data_home, error)) from None
    return Loaded(X, y, X_test, y_test, None, name, [f"{name}: {len(y):,} training and {len(y_test):,} test samples"])


def _not_found(name: str, data_home: str | None, error: OSError) -> str:
    """Return the sentence for a data set that is neither in a folder nor on OpenML."""
    if data_home is not None:
        where = f"in --data-home {data_home}"
    elif os.environ.get("SKLGAP_DATA"):
        where = f"in $SKLGAP_DATA, {os.environ['SKLGAP_DATA']}"
    else:
        where = "on this machine ($SKLGAP_DATA is not set)"
    cause = error.__cause__ or error
    reason = (str(cause).splitlines() or [type(cause).__name__])[0].rstrip(".")
    return (
        f"{name} was not found {where}, and could not be downloaded from OpenML ({reason}). Put the publisher's files "
        "into a folder, and give the folder by --data-home or $SKLGAP_DATA (in Python: data_home=)."
    )


# -- files -------------------------------------------------------------------------------------------------------------


def _of_file(path: Path, arguments: argparse.Namespace) -> Loaded:
    kind = next((kind for suffix, kind in _SUFFIXES.items() if path.name.lower().endswith(suffix)), None)
    if kind is None:
        raise ValueError(
            f"DATA must be one of {', '.join(NAMED)}, or a file .csv, .csv.gz, .parquet or .npz; got {str(path)!r}."
        )
    if not path.is_file():
        raise ValueError(f"{path}: the file does not exist.")
    if not path.stat().st_size:
        raise ValueError(f"{path}: the file is empty.")
    fraction = arguments.test_fraction
    if fraction is not None and not 0 < fraction < 1:
        raise ValueError(f"--test-fraction must be above 0 and below 1; got {fraction:g}.")
    if kind == "npz":
        if arguments.drop:
            raise ValueError(f"--drop is for tables only, and {path} holds arrays.")
        _check_memory(path, _unpacked(path))
        X, y, head, said = _npz(path, arguments.target)
    else:
        text = _TIMES_THE_GZIP if path.suffix.lower() == ".gz" else 1
        _check_memory(path, _TIMES_THE_TEXT * text * path.stat().st_size)
        X, y, head, said = _columns(path, *_table(path, kind), arguments)
    y = _classes(path, y)
    X, y, X_test, y_test, split = _split(path, X, y, arguments)
    y, y_test, labels = _labels(y, y_test, arguments.positive)
    return Loaded(X, y, X_test, y_test, head, path.name, [*split, *labels, *said])


def _check_memory(path: Path, needed: int) -> None:
    """Raise a ValueError for a file that needs more memory than is free."""
    free = _free_memory()
    if free is not None and needed > free:
        raise ValueError(
            f"{path}: the data would take about {needed / 1e9:.2g} GB of memory, but only {free / 1e9:.2g} GB are "
            "free. Use a part of the data, or an .npz file of float32 numbers."
        )


def _free_memory() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None


# -- tables ------------------------------------------------------------------------------------------------------------


def _table(path: Path, kind: str) -> tuple[Any, Sequence[int]]:
    """Return a table, and for each row the line of the file in which it ends (no lines for Parquet)."""
    try:
        import pandas as pd
    except ImportError:
        raise ValueError(f"{path}: reading a table needs pandas: pip install 'sklgap[table]'.") from None
    lines: Sequence[int] = ()
    try:
        if kind == "CSV":
            lines = _check_text(path)
            table = _without_blanks(
                pd.read_csv(path, index_col=False, low_memory=False, encoding="utf-8-sig", skipinitialspace=True)
            )
        else:
            table = pd.read_parquet(path)
    except ImportError:
        raise ValueError(f"{path}: reading Parquet needs pyarrow: pip install 'sklgap[table]'.") from None
    except _Refused:
        raise
    except Exception as error:  # gzip, pandas and pyarrow raise many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ValueError(f"{path}: the file could not be read as {kind}: {reason}.") from None
    if not len(table.columns):
        raise ValueError(f"{path}: the table has no columns.")
    if not len(table):
        raise ValueError(f"{path}: the table has a header but no rows.")
    table.columns = [str(column).strip() for column in table.columns]
    _check_names(path, list(table.columns))
    return table, lines if len(lines) == len(table) else ()


def _without_blanks(table: Any) -> Any:
    """Return a table of a CSV file in which blanks around a field do not matter; they are not part of a word."""
    import pandas as pd

    for name in table.columns:
        column = table[name]
        if pd.api.types.infer_dtype(column, skipna=True) != "string":
            continue
        stripped = column.str.strip()
        if not stripped.equals(column):  # a field such as "NA " or "True " is no word
            text = stripped.to_frame().to_csv(index=False, quoting=csv.QUOTE_ALL)
            table[name] = pd.read_csv(io.StringIO(text), low_memory=False).iloc[:, 0].to_numpy()
    return table


class _Refused(ValueError):
    """An error about a file whose sentence is complete."""


def _check_text(path: Path) -> array:
    """Return for each row of a CSV file the line in which it ends; raise for a file that pandas would misread."""
    lines = array("q")
    with _opened(path) as file:
        first = [*itertools.islice(_decoded(path, file), 1 + _FIRST_ROWS)]
    with _opened(path) as file:
        reader = csv.reader(_decoded(path, file), strict=True, skipinitialspace=True)
        try:
            header = next(reader, None)
            if not header:
                raise _Refused(f"{path}: the file must begin with a line of column names, but its first line is empty.")
            other = next((mark for mark in (";", "\t", "|") if _separates(mark, header, first)), None)
            if other is not None:
                raise _Refused(f"{path}: the columns are separated by {other!r}. Save the table with commas.")
            _check_names(path, header)
            for row in reader:
                if row and len(row) != len(header):
                    raise _Refused(
                        f"{path}: line {reader.line_num} has {len(row)} fields, but the header has {len(header)} "
                        "columns. Correct the line, or put fields that contain a comma in quotation marks."
                    )
                if row:
                    lines.append(reader.line_num)
        except csv.Error as error:
            raise _Refused(
                f"{path}: line {reader.line_num} is not valid CSV ({error}). Look for a quotation mark that is not "
                "closed."
            ) from None
    return lines


def _separates(mark: str, header: Sequence[str], first: Sequence[str]) -> bool:
    """Say whether a mark separates columns. A decimal comma, also in a name, does not make a comma a separator."""
    counts = {line.count(mark) for line in first if line.strip()}
    return (len(header) == 1 and mark in header[0]) or (len(first) > 1 and len(counts) == 1 and 0 not in counts)


def _opened(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb")


def _decoded(path: Path, file: Any) -> Any:
    """Yield the lines of a file as text. A line may also end with a carriage return alone."""
    lines = itertools.chain.from_iterable(part.splitlines(keepends=True) for part in file)
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise _Refused(
                f"{path}: the file is not UTF-8 text (line {number}). Save the table again with this encoding."
            ) from None


def _check_names(path: Path, columns: Sequence[str]) -> None:
    """Raise a ValueError for a table in which two columns have the same name, or a column has no name."""
    columns = [column.strip() for column in columns]
    twice = sorted({column for column in columns if columns.count(column) > 1 and column})
    if twice:
        raise _Refused(f"{path}: the table has two columns named {twice[0]!r}. Rename one.")
    unnamed = [number for number, column in enumerate(columns, 1) if not column]
    if unnamed:
        raise _Refused(
            f"{path}: column {unnamed[0]} has no name. Give it a name, or remove it if it only numbers the rows "
            "(to_csv(..., index=False))."
        )


def _columns(
    path: Path, table: Any, lines: Sequence[int], arguments: argparse.Namespace
) -> tuple[Any, Any, Any, list[str]]:
    """Return the columns to learn from, the labels, the transformer of the columns, and sentences about them."""
    columns, target, dropped = list(table.columns), arguments.target, [name.strip() for name in arguments.drop]
    if target is None:
        raise ValueError(f"{path}: --target must name the column with the labels, one of {_few(columns)}.")
    target = target.strip()
    for option, name in [("--target", target), *(("--drop", name) for name in dropped)]:
        if name not in columns:
            raise ValueError(f"{path}: {option} must be one of the columns {_few(columns)}; got {name!r}.")
    if target in dropped:
        raise ValueError(f"{path}: --drop must not name the column of --target, {target!r}.")
    y = table[target]
    missing = np.flatnonzero(y.isna().to_numpy())
    if len(missing):
        raise ValueError(
            f"{path}: column {target!r} of --target has no value in {_rows(len(missing))}, first "
            f"{_place(missing[0], lines)}. Remove these rows. (An empty field, NA, None and nan count as no value.)"
        )
    X = table.drop(columns=[target, *dropped])
    if not len(X.columns):
        raise ValueError(f"{path}: the table has no column to learn from besides {target!r}.")
    numbers = [name for name in X.columns if _is_number(path, X, name, lines)]
    words = [name for name in X.columns if name not in numbers]
    for name in numbers:
        infinite = np.flatnonzero(np.isinf(X[name].to_numpy()))
        if len(infinite):
            raise ValueError(
                f"{path}: column {name!r} has an infinite number {_place(infinite[0], lines)}. Correct it, or leave "
                f"the column out by --drop {name}."
            )
    return X, y, _head(numbers, words), _said(table, X, numbers, words)


def _is_number(path: Path, X: Any, name: str, lines: Sequence[int]) -> bool:
    """Return whether a column holds numbers, and convert these to float64; raise for neither numbers nor words."""
    import pandas as pd

    column = X[name]
    way_out = f", or leave the column out by --drop {name}"
    if column.isna().all():
        raise ValueError(f"{path}: column {name!r} has no values. Leave it out by --drop {name}.")
    inferred = pd.api.types.infer_dtype(column, skipna=True)
    is_category = isinstance(column.dtype, pd.CategoricalDtype)
    numbers = ("decimal", "integer", "floating", "mixed-integer-float")
    if not is_category and (column.dtype.kind in "iufb" or inferred in numbers):
        X[name] = column.astype("float64")
        return True
    if column.dtype.kind in "mMc" or inferred in ("bytes", "complex"):
        what = "dates or times" if column.dtype.kind in "mM" else inferred
        raise ValueError(f"{path}: column {name!r} has {what}. Turn them into numbers{way_out}.")
    some = column.dropna()
    if some.map(lambda value: isinstance(value, list | tuple | dict | set | np.ndarray)).any():
        raise ValueError(f"{path}: column {name!r} has lists or records. Turn them into columns{way_out}.")
    text = some.astype(str)
    is_date = text.str.fullmatch(_DATE, flags=re.IGNORECASE)
    if is_date.mean() >= _MOSTLY:
        raise ValueError(
            f"{path}: column {name!r} has dates or times, such as {text[is_date].iloc[0]!r}. Turn them into numbers "
            f"(year, month, day, hour){way_out}."
        )
    is_number = pd.to_numeric(text, errors="coerce").notna()
    is_signed = text.str.fullmatch(_SIGNED) & ~is_number
    if is_signed.any() and (is_number | is_signed).mean() >= _MOSTLY:
        raise ValueError(
            f"{path}: column {name!r} has numbers with other signs in them, such as {text[is_signed].iloc[0]!r}. Write "
            f"plain numbers (1234.5){way_out}."
        )
    if len(lines):  # only for CSV: Parquet stores the type of a column
        # A single word among many different numbers, such as "?", marks the gaps, however many there are.
        is_gap = text[~is_number].nunique() == 1 and text[is_number].nunique() >= _MANY_NUMBERS
        is_number = is_number.to_numpy()
        if (is_number.mean() >= _MOSTLY or is_gap) and not is_number.all():
            row = np.flatnonzero(column.notna().to_numpy())[np.flatnonzero(~is_number)[0]]
            raise ValueError(
                f"{path}: column {name!r} has numbers, but also {text[~is_number].iloc[0]!r} {_place(row, lines)}. "
                f"Leave such fields empty (gaps are filled){way_out}."
            )
    return False


def _said(table: Any, X: Any, numbers: Sequence[str], words: Sequence[str]) -> list[str]:
    """Return sentences about the columns: how they are encoded, and which of them the user should check."""
    kinds = [f"{len(numbers)} with numbers (scaled)"] if numbers else []
    kinds += [f"{len(words)} with words (one-hot encoded)"] if words else []
    said = [f"columns: {' and '.join(kinds)}"]
    gaps = [name for name in X.columns if X[name].isna().any()]
    if gaps:
        said.append(
            "gaps are filled (numbers: by the median, with a column that marks the gaps; words: by a word that stands "
            f"for a gap) in these columns: {_few(gaps)}"
        )
    n_kinds = {name: X[name].astype(str).nunique() for name in words}
    many = [name for name in words if n_kinds[name] > _MOST_KINDS]
    if many:
        said.append(
            f"columns with more than {_MOST_KINDS} different words, whose rarest words are encoded as one: {_few(many)}"
        )
    ids = [name for name in words if n_kinds[name] == len(X)]
    ids += [name for name in numbers if table[name].dtype.kind in "iu" and table[name].nunique() == len(X)]
    if ids:
        said.append(
            f"columns with a different value in every row: {_few(ids)}. If it is an id or a row number, --drop it"
        )
    constant = [name for name in X.columns if X[name].nunique(dropna=False) == 1]
    if constant:
        said.append(f"columns with the same value in every row: {_few(constant)}")
    return said


def _head(numbers: Sequence[str], words: Sequence[str]) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

    parts = []
    if numbers:
        filled = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
        parts.append((make_pipeline(filled, StandardScaler()), list(numbers)))
    if words:
        text = FunctionTransformer(_as_text, feature_names_out="one-to-one")
        gap = SimpleImputer(strategy="constant", fill_value="(missing)")
        encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=_MOST_KINDS)
        parts.append((make_pipeline(text, gap, encoder), list(words)))
    return make_column_transformer(*parts)


def _as_text(X: Any) -> Any:
    """Return a table whose values are words; gaps remain gaps."""
    return X.astype(object).where(X.notna(), np.nan).map(lambda value: value if value is np.nan else str(value).strip())


# -- arrays ------------------------------------------------------------------------------------------------------------


def _unpacked(path: Path) -> int:
    """Return the bytes that the arrays of an npz file take."""
    try:
        with zipfile.ZipFile(path) as file:
            return sum(entry.file_size for entry in file.infolist())
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise ValueError(f"{path}: the file is not an npz file, or is incomplete ({str(error).rstrip('.')}).") from None


def _npz(path: Path, target: str | None) -> tuple[np.ndarray, np.ndarray, Any, list[str]]:
    """Return the samples, the labels, the scaler of the samples, and sentences about them."""
    label = "y" if target is None else target
    with np.load(path, allow_pickle=False) as file:
        names = list(file.files)
        if label not in names:
            raise ValueError(
                f"{path}: the file must hold an array {label!r} of labels (--target); it holds {_few(names)}."
            )
        others = [name for name in names if name != label]
        if "X" not in others and len(others) != 1:
            raise ValueError(f"{path}: the file must hold one array of samples, named X; it holds {_few(names)}.")
        samples = "X" if "X" in others else others[0]
        X, y = (_array(path, file, name) for name in (samples, label))
    if y.ndim != 1 or X.ndim < 2 or len(X) != len(y):
        raise ValueError(
            f"{path}: the file must hold one label per sample; got {samples} of shape {X.shape} and {label} of shape "
            f"{y.shape}."
        )
    if X.dtype.kind not in "iufb":
        raise ValueError(f"{path}: {samples} must hold numbers; it has dtype {X.dtype}.")
    if not len(y):
        raise ValueError(f"{path}: the file has no samples.")
    for name, values in ((samples, X), (label, y)):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            place = ", ".join(map(str, np.argwhere(~np.isfinite(values))[0]))
            raise ValueError(f"{path}: {name}[{place}] is not a finite number. Correct or remove such samples.")
    said = (
        [f"arrays of the file that are not used: {_few([name for name in others if name != samples])}"]
        if others[1:]
        else []
    )
    if X.ndim > 2:
        return X, y, None, [f"samples have shape {X.shape[1:]} and are not scaled", *said]
    from sklearn.preprocessing import StandardScaler

    # In double precision: the scaler subtracts the mean, which may be large beside the differences.
    return (
        X if X.dtype == np.float32 else X.astype(np.float64, copy=False),
        y,
        StandardScaler(),
        [f"samples have {X.shape[1]} numbers, which are scaled", *said],
    )


def _array(path: Path, file: Any, name: str) -> np.ndarray:
    """Return one array of an npz file."""
    try:
        found = file[name]
    except Exception as error:  # zip, zlib and the reader of headers raise many kinds
        if isinstance(error, ValueError) and "pickle" in str(error):
            raise ValueError(
                f"{path}: {name} holds objects, which only a pickle can load. Save plain arrays of numbers."
            ) from None
        raise ValueError(f"{path}: {name} is damaged ({str(error).rstrip('.') or type(error).__name__}).") from None
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{path}: {name} is not an array.")
    return found


# -- labels and the split ----------------------------------------------------------------------------------------------


def _classes(path: Path, y: Any) -> np.ndarray:
    """Return the labels, checked: every class has enough samples to learn from and to test on."""
    y = y.to_numpy() if hasattr(y, "to_numpy") else np.asarray(y)
    if y.dtype.kind == "O":
        try:
            y = y.astype(float) if not any(isinstance(value, str | bool) for value in y) else y.astype(str)
        except (TypeError, ValueError):
            y = y.astype(str)
    if y.dtype.kind not in "iufbUS":
        raise ValueError(f"{path}: the target must have words or whole numbers; it has dtype {y.dtype}.")
    quantity = "a classifier needs classes. Group the numbers (below 10, 10 to 20, ...), or give another --target"
    if y.dtype.kind == "f" and not np.array_equal(y, np.round(y)):
        number = y[y != np.round(y)][0]
        raise ValueError(f"{path}: the target has numbers such as {number:g}, but {quantity}.")
    y = np.char.strip(y) if y.dtype.kind in "US" else y
    y = y.astype(np.int64) if y.dtype.kind == "f" and np.abs(y).max() < 2**53 else y
    classes, counts = np.unique(y, return_counts=True)
    if len(classes) < 2:
        raise ValueError(f"{path}: the target has only one class, {classes.tolist()[0]!r}; it needs at least two.")
    if counts.min() < _LEAST_OF_A_CLASS:
        if y.dtype.kind in "iuf" and len(classes) > _MANY_CLASSES:
            raise ValueError(f"{path}: the target has {len(classes):,} different numbers, but {quantity}.")
        rare = classes.tolist()[counts.argmin()]
        n = "1 sample" if counts.min() == 1 else f"{counts.min()} samples"
        raise ValueError(
            f"{path}: class {rare!r} of the target has {n}, but needs at least {_LEAST_OF_A_CLASS}. Remove it, or "
            "merge it with another class."
        )
    return y


def _labels(y: np.ndarray, y_test: np.ndarray, asked: str | None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the labels. Two labels become 0 and 1, because some scores look for the positive class."""
    classes, counts = np.unique(np.concatenate([y, y_test]), return_counts=True)
    share = 100 * counts / counts.sum()
    if len(classes) > 2:
        if asked is not None:
            raise ValueError(f"--positive needs a target with two classes; it has {len(classes)}.")
        return y, y_test, [f"{len(classes)} classes; the largest one has {share.max():.1f} % of the samples"]
    names = [str(label) for label in classes]
    if asked is not None and asked not in names:
        raise ValueError(f"--positive must be one of {', '.join(names)}; got {asked!r}.")
    k = int(counts.argmin()) if asked is None else names.index(asked)
    positive = f"the positive class is {names[k]}, with {share[k]:.1f} % of the samples (see --positive)"
    said = f"two classes, {' and '.join(names)}; {positive}"
    return (y == classes[k]).astype(np.int64), (y_test == classes[k]).astype(np.int64), [said]


def _split(path: Path, X: Any, y: np.ndarray, arguments: argparse.Namespace) -> tuple[Any, Any, Any, Any, list[str]]:
    from sklearn.model_selection import train_test_split

    fraction = _TEST_FRACTION if arguments.test_fraction is None else arguments.test_fraction
    try:
        X, X_test, y, y_test = train_test_split(X, y, test_size=fraction, random_state=arguments.seed, stratify=y)
    except ValueError:
        raise ValueError(
            f"{path}: --test-fraction {fraction:g} of {len(y):,} samples leaves too few training or test samples for "
            f"{len(np.unique(y))} classes."
        ) from None
    n, n_test = len(y), len(y_test)
    drawn = f"drawn at random (--seed {arguments.seed}), each class in proportion"
    return X, y, X_test, y_test, [f"{path.name}: {n:,} training and {n_test:,} test samples, {drawn}"]


def _rows(n: int) -> str:
    return "1 row" if n == 1 else f"{n:,} rows"


def _place(row: int, lines: Sequence[int]) -> str:
    """Return the place of a row in its file, in words."""
    return f"in line {lines[row]}" if len(lines) else f"in row {row + 1}"


def _few(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(map(str, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
