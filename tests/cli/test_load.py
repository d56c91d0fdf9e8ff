"""What a file may be wrong with is refused in one sentence; what is read becomes numbers as stated."""

import builtins
import gzip
import io
import sys
import zipfile

import numpy as np
import pytest

from sklgap.cli import _load
from sklgap.cli._curve import parser
from sklgap.cli._load import load
from tests.cli.tables import refused, rows, with_column, write

pd = pytest.importorskip("pandas")


def loaded(*arguments):
    """Return what a command would be given."""
    return load(parser().parse_args([str(argument) for argument in arguments]))


# -- files that are refused ------------------------------------------------------------------------------------------


def test_no_data_is_one_sentence(capsys):
    assert refused(capsys, "curve").startswith("DATA is missing: give one of mnist1d, digits")


@pytest.mark.parametrize("name", ["missing.csv", "missing.parquet", "missing.npz", "missing.csv.gz"])
def test_a_file_that_is_not_there(capsys, tmp_path, name):
    assert refused(capsys, "curve", tmp_path / name, "--target", "y") == f"{tmp_path / name}: the file does not exist."


@pytest.mark.parametrize("name", ["mnst", "data.xlsx", "data"])
def test_neither_a_data_set_nor_a_known_kind_of_file(capsys, name):
    assert refused(capsys, "curve", name).endswith(f"or a file .csv, .csv.gz, .parquet or .npz; got '{name}'.")


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.npz"])
def test_an_empty_file(capsys, tmp_path, name):
    (tmp_path / name).touch()
    assert refused(capsys, "explain", tmp_path / name, "--target", "y").endswith(f"{name}: the file is empty.")


def test_target_is_missing_unknown_or_dropped(capsys, tmp_path):
    path = write(tmp_path / "t.csv", rows())
    columns = "size, wait, colour, new, late"
    asked = f"{path}: --target must name the column with the labels, one of {columns}."
    assert refused(capsys, "curve", path) == asked
    unknown = refused(capsys, "curve", path, "--target", "lat")
    assert unknown == f"{path}: --target must be one of the columns {columns}; got 'lat'."
    assert "--drop must be one of the columns" in refused(capsys, "curve", path, "--target", "late", "--drop", "x")
    assert "--drop must not name" in refused(capsys, "curve", path, "--target", "late", "--drop", "late")
    others = columns.split(", ")[:-1]
    nothing = refused(capsys, "curve", path, "--target", "late", "--drop", *others)
    assert nothing.endswith("no column to learn from besides 'late'.")


def labels(*values):
    """Return the lines of a table with these labels."""
    return ["x,y", *(f"{i},{value}" for i, value in enumerate(values))]


WRONG_TARGETS = {
    "one class": (labels(*20 * ["a"]), "only one class, 'a'"),
    "a rare class": (labels(*20 * ["a"], *20 * ["b"], "c", "c"), "class 'c' of the target has 2 samples"),
    "a single one": (labels(*20 * ["a"], *20 * ["b"], "c"), "class 'c' of the target has 1 sample, but"),
    "continuous": (labels(*(f"{i}.5" for i in range(40))), "numbers such as 0.5, but a classifier needs classes"),
    "a quantity": (labels(*range(40)), "40 different numbers, but a classifier needs classes"),
    "gaps": (labels("a", "b", "", "a", "NA", "b"), "no value in 2 rows, first in line 4"),
    "one gap after an empty line": (["x,y", "1,a", "", "2,", "3,b"], "no value in 1 row, first in line 4"),
}


@pytest.mark.parametrize(("lines", "sentence"), WRONG_TARGETS.values(), ids=WRONG_TARGETS)
def test_targets_that_are_no_classes(capsys, tmp_path, lines, sentence):
    assert sentence in refused(capsys, "curve", write(tmp_path / "t.csv", lines), "--target", "y")


WRONG_TABLES = {
    "header only": (["a,target"], "has a header but no rows"),
    "no header": (["", "1,a"], "must begin with a line of column names"),
    "long row": (["a,target", "1,x", "2,x,7"], "line 3 has 3 fields, but the header has 2 columns"),
    "short row": (["a,b,target", "1,2,x", "", "2,x"], "line 4 has 2 fields, but the header has 3 columns"),
    "index of row names": (["a,target", "r1,1,x", "r2,2,y"], "line 2 has 3 fields"),
    "open quote": (["a,target", '"1,x', "2,y"], "Look for a quotation mark that is not closed"),
    "endless word": (["a,target", "x" * 140_000 + ",y"], "line 2 is not valid CSV (field larger than"),
    "semicolons": (["a;target", "1;x", "2;y"], "separated by ';'. Save the table with commas"),
    "semicolons and decimal commas": (["x,cm;target", "1,5;a", "2;b", "3,5;a"], "separated by ';'"),
    "tabs": (["a\ttarget", "1\tx", "2\ty"], "separated by '\\t'"),
    "same name": (["a,b,a,target", "1,2,3,x"], "two columns named 'a'. Rename one"),
    "no name": ([",a,target", "0,1,x", "1,2,y"], "column 1 has no name"),
}


@pytest.mark.parametrize(("lines", "sentence"), WRONG_TABLES.values(), ids=WRONG_TABLES)
def test_tables_that_are_not_whole(capsys, tmp_path, lines, sentence):
    assert sentence in refused(capsys, "curve", write(tmp_path / "t.csv", lines), "--target", "target")


DATES = [
    "2013-01-31",
    "31/01/2013",
    "1/31/13",
    "31.01.2013",
    "2013/01/31 10:00",
    "2013-01-31T10:00:00.5Z",
    "2013-01",
    "5 January 2013",
    "Jan 5, 2013",
    "05-Jan-13",
    "10:45",
]
WRONG_COLUMNS = {
    **{f"date {value}": ([f'"{value}"'], f"column 'x' has dates or times, such as '{value}'") for value in DATES},
    "thousands": (['"1,234"', '"5,678"'], "numbers with other signs in them, such as '1,234'"),
    "percent": (["12 %", "3.5%"], "numbers with other signs in them, such as '12 %'"),
    "money": (["$12.50", "$7"], "numbers with other signs in them, such as '$12.50'"),
    "no value": (["", "NA"], "column 'x' has no values. Leave it out by --drop x"),
    "infinite": (["1", "2", "inf", "4"], "column 'x' has an infinite number in line 4"),
    "mostly numbers": ([*map(str, range(19)), "?"], "column 'x' has numbers, but also '?' in line 21"),
    "one mark in many gaps": ([*map(str, range(12)), *"????????"], "column 'x' has numbers, but also '?' in line 14"),
    "thousands in some": (["7", '"1,234"', "650", "12"], "numbers with other signs in them, such as '1,234'"),
    "decimal commas in some": (['"1,5"', "2", '"2,5"'], "numbers with other signs in them, such as '1,5'"),
    "percent in some": (["5%", "7", "12.5 %"], "numbers with other signs in them, such as '5%'"),
    "mostly dates": ([*["2013-01-31"] * 19, "unknown"], "column 'x' has dates or times, such as '2013-01-31'"),
}


@pytest.mark.parametrize(("values", "sentence"), WRONG_COLUMNS.values(), ids=WRONG_COLUMNS)
def test_columns_that_are_neither_numbers_nor_words(capsys, tmp_path, values, sentence):
    path = write(tmp_path / "t.csv", with_column("x", values))
    found = refused(capsys, "curve", path, "--target", "target")
    assert sentence in found
    assert "--drop x" in found
    assert loaded(path, "--target", "target", "--drop", "x").X.columns.tolist() == ["other"]


WORDS = {
    "kinds, some of them numbers": ["1", "2", "3", "other"],
    "two marks among numbers": [*map(str, range(10)), *["low"] * 5, *["high"] * 5],
    "codes": ["1.2.3", "a-1", "12-34"],
    "letters and numbers": ["7", "8b", "9"],
    "years and words": ["2013", "spring 2013"],
    "clock in a sentence": ["at 10:45", "never"],
}


@pytest.mark.parametrize("values", WORDS.values(), ids=WORDS)
def test_words_that_look_a_little_like_dates_or_numbers_are_words(tmp_path, values):
    found = loaded(write(tmp_path / "t.csv", with_column("x", values)), "--target", "target")
    assert "columns: 1 with numbers (scaled) and 1 with words (one-hot encoded)" in found.said
    assert found.head.fit_transform(found.X).shape[1] == 1 + len(set(values))


# -- blanks and line ends ---------------------------------------------------------------------------------------------


def same(found, plain):
    """Check that two tables were read alike."""
    for one, other in zip(found[:4], plain[:4], strict=True):
        assert one.equals(other) if hasattr(one, "equals") else np.array_equal(one, other)
    assert [*found.said[1:]] == [*plain.said[1:]]


BLANKS = {
    "before": lambda value, i: " " + value if i % 2 else value,
    "after": lambda value, i: value + " " if i % 3 else value,
    "around": lambda value, i: f"  {value} " if i % 5 else value,
    "tab after": lambda value, i: value + "\t" if i % 2 else value,
    "quoted": lambda value, i: f'" {value} "' if i % 2 else value,
    "before a quotation mark": lambda value, i: f' "{value}"' if i % 2 else value,
    "everywhere": lambda value, i: f" {value} ",
}


@pytest.mark.parametrize("blank", BLANKS.values(), ids=BLANKS)
def test_blanks_around_a_field_do_not_matter(tmp_path, blank):
    """Words, labels, numbers, True and False, gaps and names of columns are those without the blanks."""
    plain = rows()
    for i, row in enumerate(plain[1:]):
        row[2] = "NA" if i % 9 == 0 else row[2]
    others = [[blank(value, i + j) for j, value in enumerate(row)] for i, row in enumerate(plain)]
    found = loaded(write(tmp_path / "b.csv", others), "--target", "late")
    same(found, loaded(write(tmp_path / "p.csv", plain), "--target", "late"))
    assert np.unique(found.y).tolist() == [0, 1]
    assert list(found.X.columns) == ["size", "wait", "colour", "new"]
    asked = loaded(tmp_path / "b.csv", "--target", " late", "--drop", "colour ", "--positive", "ok")
    assert list(asked.X.columns) == ["size", "wait", "new"]


@pytest.mark.parametrize("value", [" ", " NA", "NA ", "\t"])
def test_a_label_of_blanks_is_no_label(capsys, tmp_path, value):
    path = write(tmp_path / "t.csv", labels("a", "b", value, "a", "b"))
    assert "no value in 1 row, first in line 4" in refused(capsys, "curve", path, "--target", "y")


def test_names_that_differ_by_blanks_are_the_same(capsys, tmp_path):
    path = write(tmp_path / "t.csv", ["a, a,target", "1,2,x"])
    assert "two columns named 'a'. Rename one" in refused(capsys, "curve", path, "--target", "target")
    path = write(tmp_path / "t.csv", ["a, ,target", "1,2,x"])
    assert "column 2 has no name" in refused(capsys, "curve", path, "--target", "target")


def test_blanks_around_words_of_other_files(tmp_path):
    """Of npz and Parquet files, too."""
    X, y = np.random.default_rng(0).normal(size=(40, 2)), np.array(["a", " a", "b", "b "] * 10)
    np.savez(tmp_path / "t.npz", X=X, y=y)
    assert loaded(tmp_path / "t.npz").said[1].startswith("two classes, a and b;")
    pytest.importorskip("pyarrow")
    words = pd.Series(["x", "x ", " y", "y"] * 10)
    for kind in ("object", "category"):
        table = pd.DataFrame({" number": X[:, 0], "word": words.astype(kind), "label ": pd.Series(y).astype(kind)})
        table.to_parquet(tmp_path / "t.parquet")
        found = loaded(tmp_path / "t.parquet", "--target", "label")
        assert found.head.fit_transform(found.X, found.y).shape[1] == 3
        assert np.unique(found.y).tolist() == [0, 1]


ENDS = {"carriage returns": "\r", "both": "\r\n"}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_line_ends_of_other_systems(tmp_path, capsys, end, name):
    plain = write(tmp_path / "p.csv", rows())
    text = plain.read_text(encoding="utf-8").replace("\n", end).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    same(loaded(tmp_path / name, "--target", "late"), loaded(plain, "--target", "late"))


def test_lines_that_end_with_carriage_returns_have_numbers(tmp_path, capsys):
    (tmp_path / "t.csv").write_bytes(b"a,target\r1,x\r2,x,7\r")
    said = refused(capsys, "curve", tmp_path / "t.csv", "--target", "target")
    assert "line 3 has 3 fields, but the header has 2 columns" in said
    (tmp_path / "t.csv").write_bytes(b"a,target\r1,x\r2,\xff\r")
    assert "not UTF-8 text (line 3)" in refused(capsys, "curve", tmp_path / "t.csv", "--target", "target")


def test_line_ends_within_quotation_marks_are_no_line_ends(tmp_path):
    lines = [["word", "number", "target"]]
    lines += [[('"p\rq "', '"r\ns"', '" t"')[i % 3], str(i % 5 / 2), "ab"[i % 2]] for i in range(40)]
    found = loaded(write(tmp_path / "t.csv", lines), "--target", "target")
    assert sorted(set(found.X["word"]) | set(found.X_test["word"])) == ["p\rq", "r\ns", "t"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_text_in_another_encoding_names_the_line(capsys, tmp_path, encoding):
    path = tmp_path / "t.csv"
    path.write_bytes("a,target\n1,x\n2,größer\n".encode(encoding))
    line = 1 if encoding == "utf-16" else 3
    assert f"the file is not UTF-8 text (line {line})" in refused(capsys, "curve", path, "--target", "target")


def test_damaged_gzip(capsys, tmp_path):
    whole = gzip.compress("\n".join(",".join(row) for row in rows(2000)).encode())
    for name, content in (("none", b"a,b\n1,2\n"), ("cut", whole[: len(whole) // 2])):
        path = tmp_path / f"{name}.csv.gz"
        path.write_bytes(content)
        assert f"{path}: the file could not be read as CSV: " in refused(capsys, "curve", path, "--target", "late")


@pytest.mark.parametrize(("name", "gigabytes"), [("t.csv", "0.3"), ("t.parquet", "0.3"), ("t.csv.gz", "2.4")])
def test_a_file_that_memory_cannot_hold(capsys, tmp_path, monkeypatch, name, gigabytes):
    monkeypatch.setattr(_load, "_free_memory", lambda: 200_000_000)
    path = tmp_path / name
    with open(path, "wb") as file:
        file.truncate(100_000_000)
    said = f"{path}: the data would take about {gigabytes} GB of memory, but only 0.2 GB are free. Use a part"
    assert said in refused(capsys, "curve", path, "--target", "y")


@pytest.mark.parametrize("missing", ["pandas", "pyarrow"])
def test_tables_need_an_extra(capsys, tmp_path, monkeypatch, missing):
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1")
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == missing:
            raise ImportError(f"no {name}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    for module in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, module)
    if missing == "pyarrow":
        monkeypatch.setattr(pd, "read_parquet", lambda path: without("pyarrow"))
    assert "pip install 'sklgap[table]'" in refused(capsys, "curve", path, "--target", "y")


# -- options that do not fit -----------------------------------------------------------------------------------------


WRONG_OPTIONS = {
    "test fraction": (("--test-fraction", "1.5"), "--test-fraction must be above 0 and below 1; got 1.5."),
    "small fraction": (("--test-fraction", "0.001"), "--test-fraction 0.001 of 120 samples leaves too few"),
    "none to train": (("--train-samples", "0"), "--train-samples must be at least 1; got 0."),
    "too many": (
        ("--train-samples", "91"),
        "--train-samples must be at most the number of training samples, 90;",
    ),
    "without a class": (("--train-samples", "1"), "--train-samples must be larger"),
    "positive": (("--positive", "no"), "--positive must be one of late, ok; got 'no'."),
    "data twice": (("--dataset", "digits"), "DATA and --dataset must not both be given"),
}


@pytest.mark.parametrize(("options", "sentence"), WRONG_OPTIONS.values(), ids=WRONG_OPTIONS)
def test_options_of_files(capsys, tmp_path, options, sentence):
    path = write(tmp_path / "t.csv", rows())
    assert sentence in refused(capsys, "curve", path, "--target", "late", *options)


@pytest.mark.parametrize("option", ["--target", "--drop", "--positive", "--test-fraction"])
def test_named_data_sets_have_no_options_of_files(capsys, option):
    assert refused(capsys, "curve", "digits", option, "0.5").startswith(
        f"{option} is for files only, because digits has"
    )


# -- what is read ----------------------------------------------------------------------------------------------------


def test_a_table_becomes_numbers_as_stated(tmp_path):
    found = loaded(write(tmp_path / "tölle.csv", rows()), "--target", "late")
    assert found.said == [
        "tölle.csv: 90 training and 30 test samples, drawn at random (--seed 0), each class in proportion",
        "two classes, late and ok; the positive class is late, with 27.5 % of the samples (see --positive)",
        "columns: 3 with numbers (scaled) and 1 with words (one-hot encoded)",
        "gaps are filled (numbers: by the median, with a column that marks the gaps; words: by a word that stands "
        "for a gap) in these columns: "
        "wait, colour",
    ]
    Z = found.head.fit_transform(found.X)
    assert Z.shape == (90, 3 + 1 + 4)  # size, wait, new; the mark of wait; three colours and gaps
    assert np.isfinite(Z).all()
    np.testing.assert_allclose(Z[:, :4].mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(Z[:, :4].std(axis=0), 1)
    assert (Z[:, 4:].sum(axis=1) == 1).all()
    assert found.head.transform(found.X_test).shape == (30, 8)
    assert set(found.y) == {0, 1}
    assert found.y.mean() == pytest.approx(0.275, abs=0.01)


def test_compressed_and_marked_files_read_like_plain_ones(tmp_path):
    plain = write(tmp_path / "t.csv", rows())
    zipped, marked = tmp_path / "t.csv.gz", tmp_path / "BOM.CSV"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n"))
    first = loaded(plain, "--target", "late").X
    for other in (zipped, marked):
        pd.testing.assert_frame_equal(loaded(other, "--target", "late").X, first)


def test_positive_chooses_the_label_that_scores_look_for(tmp_path):
    path = write(tmp_path / "t.csv", rows())
    rarer, other = loaded(path, "--target", "late"), loaded(path, "--target", "late", "--positive", "ok")
    np.testing.assert_array_equal(rarer.y, 1 - other.y)
    assert "the positive class is ok, with 72.5 %" in other.said[1]


def test_several_classes_stay_as_they_are(tmp_path):
    found = loaded(write(tmp_path / "t.csv", labels(*40 * [3, 7, 9])), "--target", "y")
    assert set(found.y) == {3, 7, 9}
    assert found.said[1] == "3 classes; the largest one has 33.3 % of the samples"


@pytest.mark.parametrize("values", [["1.0", "0.0"], ["True", "False"], ["no", "yes"]], ids=["floats", "bools", "words"])
def test_two_labels_of_any_kind(tmp_path, values):
    found = loaded(write(tmp_path / "t.csv", labels(*10 * [values[0]], *20 * [values[1]])), "--target", "y")
    assert found.y.dtype == np.int64
    assert found.y.mean() == pytest.approx(1 / 3, abs=0.05)


def test_hundreds_of_kinds_share_columns_and_ids_are_named(tmp_path):
    lines = ["number,code,town,always,y"]
    lines += [f"{i},id{i},{'very' * 500 if i % 2 else ''}{i % 200},1,{'ab'[i % 2]}" for i in range(400)]
    found = loaded(write(tmp_path / "t.csv", lines), "--target", "y")
    assert "columns with more than 50 different words, whose rarest words are encoded as one: code, town" in found.said
    assert (
        "columns with a different value in every row: code, number. If it is an id or a row number, --drop it"
        in found.said
    )
    assert "columns with the same value in every row: always" in found.said
    assert found.head.fit_transform(found.X).shape[1] == 2 + 2 * 50
    assert np.isfinite(found.head.transform(found.X_test).sum())


def test_gaps_that_only_one_part_has(tmp_path):
    lines = ["x,word,y", *(f"{'' if i else 1.5},{'' if i else 'w'},{'ab'[i % 2]}" for i in range(40))]
    found = loaded(write(tmp_path / "t.csv", lines), "--target", "y")
    found.head.fit(found.X)
    for X in (found.X, found.X_test):
        assert np.isfinite(found.head.transform(X)).all()


def test_train_samples_are_the_first_and_said(tmp_path):
    path = write(tmp_path / "t.csv", rows())
    some, every = loaded(path, "--target", "late", "--train-samples", "50"), loaded(path, "--target", "late")
    pd.testing.assert_frame_equal(some.X, every.X[:50])
    assert len(some.y_test) == len(every.y_test)
    assert some.said[-1] == "training uses only the first 50 training samples"


@pytest.mark.parametrize("column", ["Int64", "boolean", "category", "string", "decimal", "datetime", "lists"])
def test_types_that_csv_does_not_have(tmp_path, monkeypatch, column):
    from decimal import Decimal

    values = {
        "Int64": pd.array([1, None, 3, 4] * 10, dtype="Int64"),
        "boolean": pd.array([True, None, False, True] * 10, dtype="boolean"),
        "category": pd.Categorical([1, 2, None, 4] * 10),
        "string": pd.array(["01", None, "02", "03"] * 10, dtype="string"),
        "decimal": [Decimal("1.5"), Decimal("2"), None, Decimal("3")] * 10,
        "datetime": pd.to_datetime(["2013-01-01"] * 40),
        "lists": [[1], [2], [3], [4]] * 10,
    }[column]
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1")
    table = pd.DataFrame({"x": values, "target": ["a", "b"] * 20})
    monkeypatch.setattr(pd, "read_parquet", lambda path: table)
    if column in ("datetime", "lists"):
        what = {"datetime": "dates or times", "lists": "lists or records"}[column]
        with pytest.raises(ValueError, match=f"column 'x' has {what}"):
            loaded(path, "--target", "target")
        return
    found = loaded(path, "--target", "target")
    words = column in ("category", "string")
    assert found.said[2] == f"columns: 1 with {'words (one-hot encoded)' if words else 'numbers (scaled)'}"
    Z = found.head.fit_transform(found.X)
    assert np.isfinite(Z.toarray() if hasattr(Z, "toarray") else Z).all()
    assert Z.shape == (30, 4 if words else 2)


def test_parquet_reads_like_csv(tmp_path):
    pytest.importorskip("pyarrow")
    path = write(tmp_path / "t.csv", rows())
    pd.read_csv(path).to_parquet(tmp_path / "t.parquet")
    one, other = loaded(path, "--target", "late"), loaded(tmp_path / "t.parquet", "--target", "late")
    np.testing.assert_allclose(one.head.fit_transform(one.X), other.head.fit_transform(other.X))
    assert one.said[1:] == other.said[1:]


@pytest.mark.parametrize("content", [b"PAR1", b"a,b\n1,2\n", b"PAR1" + 60 * b"x" + b"PAR1"])
def test_a_parquet_file_that_is_none(capsys, tmp_path, content):
    path = tmp_path / "t.parquet"
    path.write_bytes(content)
    found = refused(capsys, "curve", path, "--target", "y")
    assert f"{path}: the file could not be read as Parquet: " in found or "pip install 'sklgap[table]'" in found


# -- arrays ----------------------------------------------------------------------------------------------------------


def arrays(n=40, **others):
    """Return the arrays of an npz file."""
    rng = np.random.default_rng(0)
    return {"X": rng.normal(3, 2, (n, 4)), "y": np.arange(n) % 2, **others}


WRONG_ARRAYS = {
    "no labels": ({"y": None}, "must hold an array 'y' of labels (--target); it holds X."),
    "which samples": ({"X": None, "a": np.ones(3), "b": np.ones(3)}, "must hold one array of samples, named X"),
    "lengths": ({"y": np.arange(39) % 2}, "one label per sample; got X of shape (40, 4) and y of shape (39,)"),
    "one-hot labels": ({"y": np.eye(40)}, "one label per sample; got X of shape (40, 4) and y of shape (40, 40)"),
    "one column": ({"X": np.ones(40)}, "one label per sample; got X of shape (40,)"),
    "objects": ({"X": np.array([[None]] * 40)}, "X holds objects, which only a pickle can load"),
    "labels of objects": ({"y": np.array(["a", None] * 20)}, "y holds objects, which only a pickle can load"),
    "words": ({"X": np.array([["a"]] * 40)}, "X must hold numbers; it has dtype <U1"),
    "infinite": ({"X": np.where(np.eye(40) > 0, np.inf, 0)}, "X[0, 0] is not a finite number"),
    "gap in labels": ({"y": np.where(np.arange(40) == 7, np.nan, 0)}, "y[7] is not a finite number"),
    "nothing": ({"X": np.ones((0, 3)), "y": np.ones(0)}, "has no samples"),
    "continuous": ({"y": np.arange(40) / 7}, "a classifier needs classes"),
}


@pytest.mark.parametrize(("changed", "sentence"), WRONG_ARRAYS.values(), ids=WRONG_ARRAYS)
def test_arrays_that_are_wrong(capsys, tmp_path, changed, sentence):
    path = tmp_path / "a.npz"
    np.savez(path, **{name: value for name, value in arrays(**changed).items() if value is not None})
    assert sentence in refused(capsys, "curve", path)


def test_npz_files_that_are_none(capsys, tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **arrays(400))
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[200:1000] = bytes(800)
    single, text = io.BytesIO(), io.BytesIO()
    np.save(single, np.ones(3))
    with zipfile.ZipFile(text, "w") as file:
        file.writestr("X", "no array")
        file.writestr("y.npy", "no array")
    wrong = {
        "is not an npz file, or is incomplete": [whole[: len(whole) // 2], whole[:-30], b"text", single.getvalue()],
        "is damaged": [bytes(damaged)],
        "X is not an array": [text.getvalue()],
    }
    for sentence, contents in wrong.items():
        for content in contents:
            path.write_bytes(content)
            assert sentence in refused(capsys, "curve", path)


def test_memory_for_arrays_is_that_of_their_numbers(capsys, tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=np.zeros((100_000, 10)), y=np.zeros(100_000))
    monkeypatch.setattr(_load, "_free_memory", lambda: 5_000_000)
    assert path.stat().st_size < 100_000
    assert "the data would take about 0.0088 GB of memory" in refused(capsys, "curve", path)
    assert "--drop is for tables" in refused(capsys, "curve", path, "--drop", "x")


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_small_differences_of_large_numbers_are_not_lost(tmp_path, dtype):
    """Seconds since 1970 within a minute are one number in single precision."""
    X = (1_700_000_000 + np.arange(40)[:, None]).astype(dtype)
    np.savez(tmp_path / "a.npz", X=X, y=np.array(["a", "b"] * 20))
    table = loaded(tmp_path / "a.npz")
    scaled = table.head.fit_transform(table.X)
    assert len(np.unique(scaled)) == len(scaled)
    np.testing.assert_allclose(scaled.std(), 1)


def test_names_of_columns_may_have_other_separators(tmp_path):
    lines = ["a;b,target", *[f"{i},{'xy'[i % 2]}" for i in range(40)]]
    assert loaded(write(tmp_path / "t.csv", lines), "--target", "target").X.columns.tolist() == ["a;b"]


def test_arrays_are_scaled_and_images_are_not(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays(X_test=np.ones(3)))
    table = loaded(path)
    np.testing.assert_allclose(table.head.fit_transform(table.X).mean(axis=0), 0, atol=1e-6)
    scaled, unused = "samples have 4 numbers, which are scaled", "arrays of the file that are not used: X_test"
    assert table.said[-2:] == [scaled, unused]
    np.savez(path, pixels=np.ones((40, 1, 8, 8), dtype=np.float32), kind=np.array(["cat", "dog"] * 20))
    images = loaded(path, "--target", "kind")
    assert images.head is None
    assert images.X.shape == (30, 1, 8, 8)
    assert images.said[-1] == "samples have shape (1, 8, 8) and are not scaled"


# -- named data sets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
@pytest.mark.parametrize("where", ["option", "variable", "nowhere"])
def test_a_named_data_set_that_is_not_found(capsys, tmp_path, monkeypatch, name, where):
    import sklgap.datasets

    def fetch(subset, data_home, return_X_y):
        try:
            raise OSError("no network.\nTry again")
        except OSError as error:
            raise OSError("a longer sentence") from error

    monkeypatch.setattr(sklgap.datasets, f"fetch_{name}", fetch)
    monkeypatch.delenv("SKLGAP_DATA", raising=False)
    options, said = (), "on this machine ($SKLGAP_DATA is not set)"
    if where == "option":
        options, said = ("--data-home", tmp_path), f"in --data-home {tmp_path}"
    if where == "variable":
        monkeypatch.setenv("SKLGAP_DATA", str(tmp_path))
        said = f"in $SKLGAP_DATA, {tmp_path}"
    found = refused(capsys, "curve", name, *options)
    assert found.startswith(f"{name} was not found {said}, and could not be downloaded from OpenML (no network). Put")
    assert found.endswith("give the folder by --data-home or $SKLGAP_DATA (in Python: data_home=).")


def test_a_named_data_set_that_is_found(monkeypatch):
    import sklgap.datasets

    def fetch(subset, data_home, return_X_y):
        n = {"train": 8, "test": 4}[subset]
        return np.ones((n, 1, 28, 28), dtype=np.float32), np.arange(n) % 2

    monkeypatch.setattr(sklgap.datasets, "fetch_mnist", fetch)
    found = loaded("mnist")
    assert found.said == ["mnist: 8 training and 4 test samples"]
    assert (len(found.X), len(found.X_test), found.head) == (8, 4, None)


@pytest.mark.parametrize(
    ("name", "shapes"), [("mnist1d", ((4000, 40), (10_000, 40))), ("digits", ((1347, 64), (450, 64)))]
)
def test_data_sets_that_need_no_file(name, shapes):
    found = loaded(name)
    assert (found.X.shape, found.X_test.shape) == shapes
    assert found.said[0].endswith(("10 classes", "64 pixels"))
