"""The client in Ray Data, with two workers on this machine. Takes a minute; skipped without Ray."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray.data")

REPOSITORY = Path(__file__).resolve().parents[2]

COMMON = """
import logging, os, sys, warnings
warnings.simplefilter("ignore")
import numpy as np, ray
import jali, jali.ray
sealed, url = {sealed!r}, {url!r}
images, labels = jali.samples.images("mnist", 1000)
ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
"""


def run_ray(code: str, sealed, served) -> str:
    """Runs code with Ray in an interpreter of its own: Ray leaves threads and files behind."""
    done = subprocess.run(
        [sys.executable, "-c", COMMON.format(sealed=str(sealed), url=served.url) + code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "JALI_REPOSITORY": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    # Ray says things of its own, at any time.
    said = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return "\n".join(said)


def test_two_workers(sealed, served):
    out = run_ray(
        """
ds = ray.data.from_numpy(images)
done = ds.map_batches(
    jali.ray.Predictor,
    fn_constructor_kwargs=dict(client=sealed, url=url, probabilities="p"),
    batch_size=64,
    num_cpus=1,
    concurrency=2,
).take_all()
classes = {row["data"].tobytes(): row["label"] for row in done}
got = np.array([classes[image.tobytes()] for image in images])
print("RESULT", len(done), (got == labels).mean() > 0.97, done[0]["p"].shape)
""",
        sealed,
        served,
    )
    assert out == "1000 True (10,)"


def test_a_worker_that_is_killed(sealed, served, tmp_path):
    """Its block is tried again by another worker, and every image has its class in the end."""
    out = run_ray(
        f"""
flag = {str(tmp_path / "killed")!r}

class Deadly(jali.ray.Predictor):
    def __call__(self, batch):
        done = super().__call__(batch)
        try:
            os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return done
        os.kill(os.getpid(), {int(signal.SIGKILL)})

ds = ray.data.from_numpy(np.array_split(images, 8))
done = ds.map_batches(
    Deadly,
    fn_constructor_kwargs=dict(client=sealed, url=url),
    batch_size=64,
    num_cpus=1,
    concurrency=2,
).take_all()
classes = {{row["data"].tobytes(): row["label"] for row in done}}
got = np.array([classes[image.tobytes()] for image in images])
print("RESULT", os.path.exists(flag), len(done), (got == labels).mean() > 0.97)
""",
        sealed,
        served,
    )
    assert out == "True 1000 True"


def test_what_the_object_store_gets(sealed, served):
    """Paths and images go through it, keys do not: a client cannot be pickled."""
    out = run_ray(
        """
try:
    ray.put(jali.Client(sealed, url))
except TypeError as e:
    print("RESULT", "pickled" in str(e))
""",
        sealed,
        served,
    )
    assert out == "True"


def test_mistakes_are_told(sealed, served):
    out = run_ray(
        """
@ray.remote(num_cpus=1)
def work():
    predictor = jali.ray.Predictor(sealed, url, column="picture")
    try:
        predictor({"data": images[:2]})
    except jali.BadInput as e:
        return str(e), jali.threads()

print("RESULT", ray.get(work.remote()))
""",
        sealed,
        served,
    )
    assert out == "(\"there is no column 'picture', only data: column names it\", 1)"


@pytest.mark.skipif("JALI_AUDIT" not in os.environ, reason="JALI_AUDIT does not name the command jali-audit")
def test_an_audit(sealed, served):
    """Every cell is a task, and one that is done is not computed again."""
    out = run_ray(
        """
import pathlib, subprocess
command = os.environ["JALI_AUDIT"]
model = pathlib.Path(os.environ["JALI_REPOSITORY"]) / "crates/jali/bundled/mnist.onnx"
prepare = [command, "run", model, "--quick", "--budgets", "0", "--fractions", "0.5", "--seeds", "1"]
subprocess.run([*prepare, "--prepare", "--out", "audit"], check=True, capture_output=True)
done = jali.ray.audit("audit", command=command)
print("RESULT", len(done), len(list(pathlib.Path("audit/cells").glob("*.json"))), jali.ray.audit("audit", command=command))
try:
    jali.ray.audit("nothing", command=command)
except jali.Error as e:
    print("RESULT", "nothing" in str(e))
""",
        sealed,
        served,
    )
    assert out.splitlines() == ["5 5 []", "True"]
