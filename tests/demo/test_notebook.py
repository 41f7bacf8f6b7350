"""demo/lite_detr.ipynb runs from its first cell to its last."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip('nbformat', reason='nbformat is not installed: pip install nbformat')
nbclient = pytest.importorskip('nbclient', reason='nbclient is not installed: pip install nbclient')
pytest.importorskip('ipykernel', reason='ipykernel is not installed: pip install ipykernel')

NOTEBOOK = Path(__file__).resolve().parents[2] / 'demo' / 'lite_detr.ipynb'
pytestmark = pytest.mark.process


def test_runs(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={'metadata': {'path': str(tmp_path)}})
    client.execute()  # a cell that fails raises
    assert (tmp_path / 'work_dirs' / 'notebook' / 'run' / 'epoch_2.pth').is_file()
    assert 'Accelerated for inference' in str(notebook.cells[-1].outputs)


def test_is_committed_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get('outputs') and not cell.get('execution_count') for cell in notebook.cells)
