"""Networks from files, what is said about them, and images from files."""

import json
from pathlib import Path

import numpy as np
import pytest

import jali
from conftest import run_command

REPOSITORY = Path(__file__).resolve().parents[2]
VGG3 = REPOSITORY / "crates/jali/bundled/vgg3.onnx"
PHOTOS = REPOSITORY / "assets/images/cifar10"


def test_inspect_says_what_the_command_says():
    net = jali.load(VGG3)
    inspection = net.inspect()
    by_command = json.loads(run_command("inspect", VGG3, "--json").stdout)
    assert inspection.data == by_command and inspection.supported
    text = str(inspection)
    assert "everything hidden" in text and all(layer in text for layer in net.layers)
    html = inspection._repr_html_()
    assert html.startswith("<table>") and html.count("<tr>") == len(by_command["nodes"]) + 1
    far = net.inspect(link="wan").data["everything_hidden"]
    assert far["predicted_link_ms"] > 100 and far["bytes_up"] <= by_command["everything_hidden"]["bytes_up"]
    with pytest.raises(jali.BadInput):
        net.inspect(link="pigeon")


def test_images_from_files():
    net = jali.load(VGG3)
    photos = net.read_images(PHOTOS)
    assert photos.shape[1:] == (3, 32, 32) and photos.dtype == np.float32 and 0 <= photos.min() < photos.max() <= 1
    one = sorted(PHOTOS.glob("*.png"))[0]
    np.testing.assert_array_equal(net.read_images(one), photos[:1])
    np.testing.assert_array_equal(net.read_images([one, one])[1], photos[0])
    assert net.seal(PHOTOS).in_process().predict(photos[:2]).shape == (2,)
    with pytest.raises(jali.FileFailure, match="no images"):
        Path("empty").mkdir()
        net.read_images("empty")
    with pytest.raises(jali.FileFailure):
        net.read_images("none.png")
    with pytest.raises(jali.BadInput, match="32x32"):
        jali.samples.network("mnist").read_images(one)


def test_preprocessing():
    plain = jali.load(VGG3)
    scaled = jali.load(VGG3, preprocess={"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]})
    photo = sorted(PHOTOS.glob("*.png"))[0]
    np.testing.assert_allclose(scaled.read_images(photo), plain.read_images(photo) * 2 - 1, atol=1e-6)
    for wrong in [{"meen": 1}, {"mean": [1, 2]}]:
        with pytest.raises(jali.Error, match="mean"):
            jali.load(VGG3, preprocess=wrong)


def test_what_is_no_network(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"nonsense")
    with pytest.raises(jali.UnsupportedModel, match="x.onnx"):
        jali.load("x.onnx")
    with pytest.raises(jali.FileFailure, match="cannot read"):
        jali.load("none.onnx")
    with pytest.raises(OSError):
        jali.load("none.onnx")


def test_samples():
    images, labels = jali.samples.images("vgg3", 5)
    assert images.shape == (5, 3, 32, 32) and labels.dtype == np.int64
    with pytest.raises(jali.BadInput, match="vgg3"):
        jali.samples.network("vgg4")
    with pytest.raises(jali.BadInput):
        jali.samples.images("vgg3", 0)
