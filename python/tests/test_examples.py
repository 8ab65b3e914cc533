"""Every example runs, and the notebook that is committed has its outputs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "python/examples"


def run(name: str, *args: object) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_quickstart():
    lines = run("quickstart.py").splitlines()
    assert [line.split(":")[0] for line in lines[-3:]] == [
        "everything hidden",
        "80 % open",
        "all but the last layer open",
    ]
    assert all(int(line.split(":")[1].split("%")[0]) >= 90 for line in lines[-3:])


def test_two_machines():
    assert run("two_machines.py").rstrip().endswith("% right")


def test_guests():
    out = run("guests.py")
    assert "100% right, 10 tickets left" in out and out.rstrip().endswith("honest")


def test_own_model():
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    assert float(run("own_model.py").splitlines()[-1].split("%")[0]) >= 99


def test_audit_picture(tmp_path):
    pytest.importorskip("matplotlib")
    run("audit_picture.py", REPOSITORY / "docs/results/torch/vgg3/results.json", tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_notebook():
    path = EXAMPLES / "quickstart.ipynb"
    committed = json.loads(path.read_text())
    cells = [cell for cell in committed["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in cells) and "<table>" in json.dumps(cells[0]["outputs"])
    assert str(Path.home()) not in path.read_text() and "Warning" not in path.read_text()
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    code = f"""
import nbclient, nbformat
notebook = nbformat.read({str(path)!r}, 4)
nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
print(len(notebook.cells))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env={**os.environ})
    assert done.returncode == 0 and done.stdout.strip() == str(len(committed["cells"])), done.stderr
    assert nbclient and nbformat
