"""The attackers in PyTorch. Skipped without torch and onnx2torch, or without `jali-audit` in JALI_AUDIT."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx2torch")

REPOSITORY = Path(__file__).resolve().parents[2]
# Long enough to learn something, and no longer.
COMMAND = f"JALI_ATTACK_EFFORT=0.05 {sys.executable} -m jali.attack"


MNIST = REPOSITORY / "crates/jali/bundled/mnist.onnx"


def audit(folder: Path, *options: str, network: Path = MNIST, command: str = COMMAND) -> dict[tuple[str, str], float]:
    program = os.environ.get("JALI_AUDIT")
    if not program or not Path(program).exists():
        pytest.skip("JALI_AUDIT names no jali-audit")
    usual = ["run", network, "--seeds", "1", "--scoring", "200", "--attacker", command, "--out", folder, "--json"]
    done = subprocess.run([program, *map(str, usual), *options], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert not [c for c in results["cells"] if "failure" in c], results["verdict"]
    return {(c["policy"], c["attacker"]): c["accuracy"] for c in results["cells"] if c["budget"]}


def test_open_weights_help_every_procedure(tmp_path):
    names = "tune-hidden,tune-all,distil,span,command"
    got = audit(tmp_path, "--policies", "random-rows@0.9", "--budgets", "100", "--attackers", names + ",own,best-of")
    for name in names.split(","):
        assert got["random-rows", name] > 0.8 and got["random-rows", name] > got["nothing", name] - 0.05, got
    assert got["nothing", "own"] > 0.5


def test_trainings_together_are_one_copy(tmp_path):
    options = ["--policies", "last-1-layers", "--budgets", "30", "--attackers", "distil"]
    got = audit(tmp_path, *options, command=COMMAND.replace("-m jali.attack", str(REPOSITORY / "python/examples/together.py")))
    assert got["last-layers", "distil"] > 0.9 and got["nothing", "distil"] > 0.3, got


def test_a_hidden_last_layer_falls_to_chosen_questions(tmp_path):
    got = audit(tmp_path, "--policies", "last-1-layers", "--budgets", "101", "--guests", "logits")
    # Each class has 100 weights: more equations than unknowns.
    assert got["last-layers", "command"] > 0.95, got


def test_a_last_softmax_does_not_hide_a_last_layer(tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(MNIST)
    (output,) = model.graph.output
    model.graph.node.append(onnx.helper.make_node("Softmax", [output.name], ["probabilities"], axis=-1))
    output.name = "probabilities"
    onnx.save(model, tmp_path / "softmax.onnx")
    options = ["--policies", "last-1-layers", "--budgets", "120", "--attackers", "distil"]
    got = audit(tmp_path / "out", *options, network=tmp_path / "softmax.onnx")
    assert got["last-layers", "distil"] > 0.97, got


@pytest.mark.parametrize("text", ["much", "0", "-1", "nan", "inf", ""])
def test_an_effort_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "task.json").write_text("{}")
    environment = {**os.environ, "JALI_ATTACK_EFFORT": text}
    done = subprocess.run([sys.executable, "-m", "jali.attack"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and f'above 0 (0.1: a tenth of the time), not "{text}"' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_a_view_is_said(tmp_path):
    done = subprocess.run([sys.executable, "-m", "jali.attack"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "no view of an attacker here" in done.stderr


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_guest_asks_behind_a_prefix_without_weights(tmp_path):
    """A network that begins with Flatten: what is asked has the shape behind it, and a copy takes images."""
    nn, numpy = torch.nn, pytest.importorskip("numpy")
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))
    torch.onnx.export(net, torch.zeros(1, 1, 28, 28), tmp_path / "flat.onnx", dynamo=False)
    data = tmp_path / "data"
    data.mkdir()
    for part in ("train", "t10k"):
        pixels = numpy.random.default_rng(1).integers(0, 256, 300 * 784, dtype=numpy.uint8)
        (data / f"{part}-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3, 0, 0, 1, 44, 0, 0, 0, 28, 0, 0, 0, 28]) + pixels.tobytes())
        (data / f"{part}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 1, 44]) + bytes(300))
    options = ["--data", data, "--policies", "last-1-layers", "--budgets", "20", "--guests", "logits"]
    got = audit(tmp_path / "out", *map(str, options), "--attackers", "own,distil", network=tmp_path / "flat.onnx")
    assert set(got) == {("nothing", "own"), ("nothing", "distil"), ("last-layers", "distil")}
    # Who has three tickets alone chooses one question less, and trains on two images.
    few = [str(option) for option in options[:-4]] + ["--budgets", "3", "--guests"]
    for told in ("logits", "top1"):
        assert audit(tmp_path / told, *few, told, "--attackers", "command", network=tmp_path / "flat.onnx")
