"""Load thousands of damaged and forged files, and count wrong results, memory and time.

The script randomly changes files of saved fits and data files of every format that sklgap reads. It flips bits, cuts
or adds ends, swaps or enlarges headers, and inserts large runs of zeros. A child process loads each file and reports
memory and time. A changed file is *believed* if it loads to other content than the original although the format could
show the change. Formats without a checksum (idx, CIFAR's records, Kaldi's numbers) cannot show a changed pixel, label
or number. The script counts such files as *indistinguishable*. It does the same with forged files that are correct in
every respect, such as a file of black images.
"""

import argparse
import contextlib
import functools
import gzip
import hashlib
import io
import json
import multiprocessing
import resource
import struct
import sys
import tempfile
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sklgap import LBGapClassifier
from sklgap.datasets import fetch_cifar10, fetch_cifar100, fetch_mnist, load_timit
from sklgap.memory import _folder

MOST_MEGABYTES, MOST_SECONDS = 200, 2.0
N_DATA, N_MEMORY = 3000, 2000
HUGE = 2**31 - 1

Files = dict[str, bytes]
Read = Callable[[Path], Any]
Original = tuple[Files, str, Read]


# -- correct files -------------------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def kaldi_matrix(matrix: np.ndarray, kind: bytes = b"FM") -> bytes:
    head = b"\0B" + kind + b" \4" + struct.pack("<i", len(matrix)) + b"\4" + struct.pack("<i", matrix.shape[1])
    return head + matrix.astype("<f4" if kind == b"FM" else "<f8").tobytes()


def kaldi_compressed(n_rows: int, n_columns: int, rng: np.random.Generator) -> bytes:
    head = b"\0BCM " + struct.pack("<ffii", -1.0, 2.0, n_rows, n_columns)
    marks = np.sort(rng.integers(0, 2**16, (n_columns, 4)), axis=1).astype("<u2")
    return head + marks.tobytes() + rng.integers(0, 256, (n_columns, n_rows), dtype=np.uint8).tobytes()


def kaldi_integers(values: list[int]) -> bytes:
    return b"\0B\4" + struct.pack("<i", len(values)) + b"".join(b"\4" + struct.pack("<i", v) for v in values)


def originals(rng: np.random.Generator) -> dict[str, Original]:
    """Return, for each format, its files by name, the file to change, and the function that reads the folder."""
    images, labels = rng.integers(0, 256, (12, 28, 28), dtype=np.uint8), rng.integers(0, 10, 12, dtype=np.uint8)
    mnist = {"train-images-idx3-ubyte": idx(images), "train-labels-idx1-ubyte": idx(labels)}
    cifar = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
    ten = b"".join(bytes([i % 10]) + row.tobytes() for i, row in enumerate(cifar))
    hundred = b"".join(bytes([i % 20, i % 100]) + row.tobytes() for i, row in enumerate(cifar))
    cifar10 = {f"data_batch_{i}.bin": ten for i in range(1, 6)}
    frames = rng.normal(size=(30, 5))
    alignment = {"pdf.ark": b"one " + kaldi_integers(rng.integers(0, 9, 30).tolist())}
    found = {}
    for suffix in ("", ".gz"):
        for changed in mnist:
            read = functools.partial(fetch_mnist, download_if_missing=False, return_X_y=True)
            found[f"idx{suffix} {changed.split('-')[1]}"] = packed(mnist, suffix), changed + suffix, at_home(read)
        read = functools.partial(fetch_cifar10, download_if_missing=False, return_X_y=True)
        found[f"CIFAR-10 bin{suffix}"] = packed(cifar10, suffix), "data_batch_2.bin" + suffix, at_home(read)
        read = functools.partial(fetch_cifar100, download_if_missing=False, return_X_y=True)
        found[f"CIFAR-100 bin{suffix}"] = packed({"train.bin": hundred}, suffix), "train.bin" + suffix, at_home(read)
        kinds = {
            "FM": kaldi_matrix(frames),
            "DM": kaldi_matrix(frames, b"DM"),
            "CM": kaldi_compressed(30, 5, rng),
        }
        for kind, value in kinds.items():
            files = packed({"feats.ark": b"one " + value, **alignment}, suffix)
            found[f"Kaldi ark{suffix} {kind}"] = files, "feats.ark" + suffix, kaldi("feats.ark" + suffix, suffix)
        found[f"Kaldi ark{suffix} integers"] = files, "pdf.ark" + suffix, kaldi("feats.ark" + suffix, suffix)
    scp = {"feats.scp": b"one feats.ark:4\n", "feats.ark": b"one " + kinds["FM"], **alignment}
    found["Kaldi scp"] = scp, "feats.scp", kaldi("feats.scp", "")
    return found


def packed(files: Files, suffix: str) -> Files:
    return {name + suffix: gzip.compress(content, mtime=0) if suffix else content for name, content in files.items()}


def at_home(read: Callable[..., Any]) -> Read:
    return lambda folder: read(data_home=folder)


def kaldi(features: str, suffix: str) -> Read:
    return lambda folder: load_timit(folder / features, folder / f"pdf.ark{suffix}", context=1, return_X_y=True)


# -- changes -----------------------------------------------------------------------------------------------------------


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(len(changed), size=rng.integers(1, 4)):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(len(content)))]


def extend(content: bytes, rng: np.random.Generator) -> bytes:
    return content + rng.bytes(int(rng.integers(1, 5000)))


def repeat(content: bytes, rng: np.random.Generator) -> bytes:
    return content * int(rng.integers(2, 5))


def huge_number(content: bytes, rng: np.random.Generator) -> bytes:
    """Write a huge number near the beginning."""
    changed = bytearray(content)
    place = int(rng.integers(min(len(content), 40)))
    number = int(rng.choice([HUGE, 2**31, 2**32 - 1, 10**9, 10**6]))
    changed[place : place + 4] = struct.pack(rng.choice(["<I", ">I"]), number)
    return bytes(changed)


def swap(content: bytes, rng: np.random.Generator) -> bytes:
    """Replace the beginning by that of another format."""
    heads = [
        b"\x1f\x8b\x08\0",
        b"PK\3\4",
        b"\0\0\x08\1",
        b"\0\0\x0d\3",
        b"one \0BFM \4",
        b"one \0B\4",
        b"\x80\4",
        b"BZh9",
    ]
    head = heads[int(rng.integers(len(heads)))]
    return head + content[len(head) :]


def garble(content: bytes, rng: np.random.Generator) -> bytes:
    return rng.bytes(int(rng.integers(3000)))


def bomb(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the beginning and many zeros, which are small in a compressed file."""
    return content[: int(rng.integers(1, 60))] + bytes(int(rng.choice([10**6, 10**7, 10**8, 4 * 10**8])))


PLAIN_CHANGES = [flip, flip, cut, extend, repeat, huge_number, swap, garble]


def changed_data(content: bytes, compressed: bool, rng: np.random.Generator) -> tuple[bytes, str]:
    """Change the bytes of a file, or its content before compression."""
    if compressed and rng.random() < 0.6:
        inside = gzip.decompress(content)
        change = [*PLAIN_CHANGES, bomb][int(rng.integers(len(PLAIN_CHANGES) + 1))]
        return gzip.compress(change(inside, rng), compresslevel=1 + 5 * (change is not bomb), mtime=0), change.__name__
    change = PLAIN_CHANGES[int(rng.integers(len(PLAIN_CHANGES)))]
    return change(content, rng), change.__name__


def signed(body: bytes) -> bytes:
    """Return a file of saved work with the right size and checksum of its content."""
    line = json.dumps({"about": "", "sklgap": "", "torch": "", "bytes": len(body)}).encode() + b"\n"
    return _folder.MAGIC + hashlib.sha256(line + body).hexdigest().encode() + b"\n" + line + body


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def deflated(body: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(body)) as archive, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as small:
        for part in archive.infolist():
            small.writestr(part.filename, archive.read(part))
    return buffer.getvalue()


def other_value(rng: np.random.Generator) -> Any:
    values: list[Callable[[], Any]] = [
        lambda: None,
        lambda: 1e308,
        lambda: "text",
        lambda: [],
        lambda: {},
        lambda: torch.zeros(3),
        lambda: torch.zeros(1).expand(10**9),
        lambda: [torch.zeros(10**4)] * 100,
        lambda: -1,
        lambda: 10**30,
        lambda: {"node": 10**9},
    ]
    return values[int(rng.integers(len(values)))]()


def forge(value: Any, rng: np.random.Generator) -> Any:
    """Change one name, type, shape or number somewhere in an entry."""
    if isinstance(value, dict) and value:
        names = list(value)
        name = names[int(rng.integers(len(names)))]
        how = rng.random()
        if how < 0.15:
            return {key: value[key] for key in names if key != name}
        if how < 0.25:
            return {**value, "more": 1}
        if how < 0.35:
            return {("renamed" if key == name else key): value[key] for key in names}
        return {**value, name: forge(value[name], rng)}
    if isinstance(value, list | tuple) and len(value) and rng.random() < 0.8:
        place = int(rng.integers(len(value)))
        if rng.random() < 0.2:
            return type(value)([*value[:place], *value[place + 1 :]])
        return type(value)([*value[:place], forge(value[place], rng), *value[place + 1 :]])
    if isinstance(value, torch.Tensor) and value.numel() and rng.random() < 0.7:
        changes = [lambda: value[None], lambda: value.flatten()[:-1], lambda: value.double(), lambda: value.bool()]
        return changes[int(rng.integers(len(changes)))]()
    return other_value(rng)


def changed_memory(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Change the bytes of a file of saved work, or its content with a correct checksum."""
    how = rng.random()
    if how < 0.4:
        change = PLAIN_CHANGES[int(rng.integers(len(PLAIN_CHANGES)))]
        return change(content, rng), change.__name__
    body = content.split(b"\n", 3)[3]
    if how < 0.5:
        change = PLAIN_CHANGES[int(rng.integers(len(PLAIN_CHANGES)))]
        return signed(change(body, rng)), f"signed {change.__name__}"
    entry = torch.load(io.BytesIO(body), weights_only=True)
    if how < 0.55:
        return signed(deflated(saved({**entry, "value": torch.zeros(2 * 10**7)}))), "signed bomb"
    return signed(saved(forge(entry, rng))), "forged"


# -- counting ----------------------------------------------------------------------------------------------------------


def same(one: Iterable[np.ndarray], other: Iterable[np.ndarray]) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))


def indistinguishable(
    label: str,
    compressed: bool,
    content: bytes,
    original: bytes,
    loaded: Iterable[np.ndarray],
    truth: Iterable[np.ndarray],
) -> bool:
    """Return whether the format cannot show the change, because it has no checksum and all values are legal."""
    if compressed:  # its checksum is right, because the change came before compression
        try:
            content, original = gzip.decompress(content), gzip.decompress(original)
        except Exception:  # the checksum shows any change
            return False
    if label.startswith("CIFAR"):  # a file with more or fewer whole records is also correct
        return len(content) % (len(original) // 4) == 0
    return len(content) == len(original) and all(a.shape == b.shape for a, b in zip(loaded, truth, strict=True))


def watch(call: Callable[[], Any], *, trace: bool = True) -> tuple[Any, Exception | None, float, float]:
    """Return result or None, error or None, megabytes, and seconds. Tracing slows down Python code."""
    if trace:
        tracemalloc.start()
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    result: Any = None
    error: Exception | None = None
    try:
        result = call()
    except (ValueError, OSError) as found:
        error = found
    except BaseException as found:  # every exception except a refusal counts as a crash
        error = RuntimeError(f"crash: {type(found).__name__}: {found}")
    seconds = time.perf_counter() - started
    traced = tracemalloc.get_traced_memory()[1] / 2**20
    if trace:
        tracemalloc.stop()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return result, error, max(traced, grown), seconds


class Counts(dict):
    """Numbers of files by outcome, the worst memory and time, and examples of failures."""

    def __init__(self) -> None:
        super().__init__(refused=0, unchanged=0, indistinguishable=0, believed=0, crashed=0, memory=0.0, seconds=0.0)
        self.examples: list[str] = []

    def add(self, outcome: str, label: str, memory: float, seconds: float) -> None:
        """Count a file."""
        self[outcome] += 1
        self["memory"], self["seconds"] = max(self["memory"], memory), max(self["seconds"], seconds)
        if outcome in ("believed", "crashed") or memory > MOST_MEGABYTES or seconds > MOST_SECONDS:
            self.examples.append(f"{outcome}: {label}, {memory:.0f} MB, {seconds:.1f} s")

    @property
    def good(self) -> bool:
        """Whether no file was believed, crashed, or took too much memory or time."""
        return not self.examples


def check_data(n: int, seed: int = 0) -> Counts:
    """Load n changed data files of all formats in turn."""
    rng, counts = np.random.default_rng(seed), Counts()
    sources = list(originals(rng).items())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(n):
            label, (files, changed, read) = sources[i % len(sources)]
            here = folder / str(i % len(sources))
            here.mkdir(exist_ok=True)
            for file, content in files.items():
                if not (here / file).exists():
                    (here / file).write_bytes(content)
            truth = read(here)
            compressed = changed.endswith(".gz")
            content, change = changed_data(files[changed], compressed, rng)
            (here / changed).write_bytes(content)
            result, error, memory, seconds = watch(functools.partial(read, here))
            (here / changed).write_bytes(files[changed])
            if error is not None:
                right = isinstance(error, ValueError | OSError) and str(here) in str(error) and "\n" not in str(error)
                outcome = "refused" if right else "crashed"
            elif same(result, truth):
                outcome = "unchanged"
            elif indistinguishable(label, compressed, content, files[changed], result, truth):
                outcome = "indistinguishable"
            else:
                outcome = "believed"
            counts.add(outcome, f"{label} {change} ({error})", memory, seconds)
    return counts


def make_fit(folder: Path) -> tuple[LBGapClassifier, list[warnings.WarningMessage]]:
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = rng.normal(size=(40, 3)) + y[:, None]
    model = LBGapClassifier(module__width=3, module__n_layers=1, max_epochs=2, tol=None, random_state=0, memory=folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, y)
    return model, caught


def results(model: LBGapClassifier) -> list[np.ndarray]:
    figures = [model.train_score_, model.train_loss_, model.n_iter_, model.n_updates_]
    return [*(value.numpy() for value in model.module_.state_dict().values()), *map(np.array, figures)]


def check_memory(n: int, seed: int = 0) -> Counts:
    """Fit with n changed files of saved work and compare each result with that of the undisturbed fit."""
    rng, counts = np.random.default_rng(seed), Counts()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = results(make_fit(folder)[0])
        (path,) = folder.glob("*.fit")
        whole = {path: path.read_bytes()}
        entry = torch.load(io.BytesIO(whole[path].split(b"\n", 3)[3]), weights_only=True)
        part = path.with_suffix(".part")
        whole[part] = signed(saved({**entry, "kind": "part", "value": {"state": entry["value"]["state"], "epochs": 2}}))
        for i in range(n):
            target = path if i % 3 else part
            path.unlink(missing_ok=True)
            part.unlink(missing_ok=True)
            content, change = changed_memory(whole[target], rng)
            target.write_bytes(content)
            result, error, memory, seconds = watch(functools.partial(make_fit, folder), trace=False)
            label = f"{target.suffix} {change} ({error})"
            if error is not None:
                counts.add("crashed", label, memory, seconds)
            elif not same(results(result[0]), truth):
                counts.add("believed", label, memory, seconds)
            else:
                refused = any(str(warning.message).startswith("memory: ") for warning in result[1])
                counts.add("refused" if refused else "unchanged", label, memory, seconds)
    return counts


CHECKS = {"data files": check_data, "memory entries": check_memory}


def in_child(name: str, n: int, seed: int, connection: Connection) -> None:
    torch.set_num_threads(1)
    counts = CHECKS[name](n, seed)
    connection.send((dict(counts), counts.examples))


def run(name: str, n: int, seed: int = 0) -> Counts:
    """Run a check in a separate process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=in_child, args=(name, n, seed, theirs))
    child.start()
    theirs.close()
    counts = Counts()
    with contextlib.suppress(EOFError):
        found, counts.examples = ours.recv()
        counts.update(found)
    child.join()
    if child.exitcode:
        counts.examples.append(f"the process ended with exit code {child.exitcode}")
    return counts


def main() -> int:
    """Print the counts, and return 1 if a file was believed, crashed, or took too much memory or time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use a twentieth of the files")
    parser.add_argument("--seed", type=int, default=0, help="seed of the changes (0)")
    arguments = parser.parse_args()
    good = True
    for name, n in (("data files", N_DATA), ("memory entries", N_MEMORY)):
        counts = run(name, n // 20 if arguments.quick else n, arguments.seed)
        print(f"{name}: {', '.join(f'{value:.4g} {what}' for what, value in counts.items())}")
        for example in counts.examples[:20]:
            print("  ", example)
        good = good and counts.good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
