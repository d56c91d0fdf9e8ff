"""One notebook of each kind that the gallery offers runs from top to bottom, in a folder that holds nothing else."""

import ast
import copy
import json
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
pytest.importorskip("sphinx_gallery")

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
KINDS = {
    "plot_keskar_fig2": "curves of two trainings",
    "plot_keskar_tables_2_3_4": "an experiment with paired trials",
    "plot_rescaling": "measurements of trained models",
    "plot_own_loop": "a training loop in PyTorch",
    "plot_imbalanced_table": "a table in a pipeline",
}

pytestmark = [
    pytest.mark.slow,
    # Libraries of Jupyter, not ours.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def notebook(script):
    """Return the notebook that sphinx-gallery makes of a script."""
    from sphinx_gallery.gen_gallery import DEFAULT_GALLERY_CONF
    from sphinx_gallery.notebook import jupyter_notebook
    from sphinx_gallery.py_source_parser import Block, remove_ignore_blocks, split_code_and_text_blocks

    _, blocks = split_code_and_text_blocks(str(script))
    blocks = [Block(label, remove_ignore_blocks(content), line) for label, content, line in blocks]
    return jupyter_notebook(blocks, copy.deepcopy(DEFAULT_GALLERY_CONF), str(script.parent))


@pytest.mark.parametrize("name", KINDS)
def test_a_notebook_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # Jupyter shows figures by a backend of its own
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # tests run beside each other
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    # As it is read from a file.
    found = nbformat.reads(json.dumps(notebook(EXAMPLES / f"{name}.py")), as_version=4)
    code = [cell for cell in found.cells if cell.cell_type == "code"]
    assert len(code) >= 3
    for cell in code:
        ast.parse(cell.source)
    nbclient.NotebookClient(found, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output.output_type == "error" for output in outputs)
