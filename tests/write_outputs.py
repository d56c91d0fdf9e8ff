"""Write below the code of pages what it prints: ``python -m tests.write_outputs docs/guide/why.md``, from the top.

Only outputs whose words have changed are written. One that ends in "..." has as many lines as before, and one with
"..." elsewhere is left for you. The output ``@@`` stands for all that is printed, and ``@@/words`` for all above the
line with these words.
"""

import contextlib
import io
import os
import sys
import tempfile
import textwrap
import warnings
from pathlib import Path


def broken(line):
    """Return a long line of words as several; the lines of tables have wide gaps."""
    return textwrap.wrap(line, 88) if len(line) > 88 and "   " not in line.strip() else [line]


def written(old, printed):
    """Return the lines of an output that take the place of the old ones."""
    old, new = old.splitlines(), [part for line in printed.rstrip("\n").split("\n") for part in broken(line.rstrip())]
    if old[0].startswith("@@/"):
        end = next((i for i, line in enumerate(new) if old[0][3:] in line), len(new))
        return new[:end] + ["..."] * (end < len(new))
    if "..." in old[:-1]:
        return old
    return [*new[: len(old) - 1], "..."] if old[-1] == "..." else new


def write_outputs(page):
    """Run the blocks of a page in a folder that is removed afterwards, and write the page with their outputs."""
    import matplotlib

    from tests.test_docs import BLOCK, ONLY_COMPILED, says_the_same  # which imports this file

    matplotlib.use("Agg")
    text = page.read_text(encoding="utf-8")
    namespace, changes, here = {"__name__": "page"}, [], Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for match in BLOCK.finditer(text):
            if ONLY_COMPILED.search(match["code"]):
                continue
            out = io.StringIO()
            with contextlib.redirect_stdout(out), warnings.catch_warnings():
                exec(compile(match["code"], page.name, "exec"), namespace)
            if match["output"] is not None and not says_the_same(match["output"], out.getvalue()):
                changes.append((match.span("output"), "\n".join(written(match["output"], out.getvalue())) + "\n"))
        os.chdir(here)
    for (start, end), output in reversed(changes):
        text = text[:start] + output + text[end:]
    page.write_text(text, encoding="utf-8")
    print(f"{page.name}: {len(changes)} outputs written")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write_outputs(Path(name).resolve())
