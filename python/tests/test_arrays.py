"""Arrays of every type, order and layout are the same images."""

import numpy as np
import pytest

import jali


def test_orders_and_layouts(client, images):
    x = images[0][:3]
    want = client.outputs(x)[0]
    wide = np.zeros((3, 1, 28, 56), np.float32)
    wide[..., ::2] = x
    for same in [
        np.asfortranarray(x),
        wide[..., ::2],
        x[::-1][::-1],
        x.astype(">f4"),
        x.astype(np.float64),
        x.tolist(),
        [image for image in x],
        x[:, 0],
        memoryview(np.ascontiguousarray(x)),
    ]:
        np.testing.assert_array_equal(client.outputs(same)[0], want)


class Wrapped:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array if dtype is None else self.array.astype(dtype)


def test_whatever_is_an_array(client, images):
    x = images[0][:2]
    np.testing.assert_array_equal(client.predict(Wrapped(x)), client.predict(x))


@pytest.mark.parametrize("kind", [np.uint8, np.int64, ">u2", np.int16])
def test_integers_are_pixels(mnist, images, kind):
    pixels = np.rint(images[0][:2] * 255).astype(kind)
    floats = (pixels.astype(np.float32) / 255).astype(np.float32)
    np.testing.assert_allclose(mnist.outputs(pixels)[0], mnist.outputs(floats)[0], rtol=1e-5, atol=1e-5)


def test_half_floats(mnist, images):
    half = images[0][:2].astype(np.float16)
    np.testing.assert_array_equal(mnist.outputs(half)[0], mnist.outputs(half.astype(np.float32))[0])


def test_one_image(client, images):
    one = client.predict(images[0][0])
    assert one.shape == (1,) and one.dtype == np.int64


def test_no_image(client):
    none = np.zeros((0, 1, 28, 28), np.float32)
    assert client.predict(none).shape == (0,)
    assert client.predict_proba(none).shape == (0, 10)
    assert client.outputs(none)[0].shape == (0, 10)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.zeros((2, 3, 28, 28), np.float32), "channel"),
        (np.zeros((2, 1, 32, 32), np.float32), "32x32 pixels"),
        (np.zeros((28,), np.float32), "shape"),
        (np.zeros((), np.float32), "shape"),
        (np.zeros((1, 1, 1, 1, 28, 28), np.float32), "shape"),
        (np.full((1, 1, 28, 28), np.nan, np.float32), "NaN"),
        (np.full((1, 1, 28, 28), 1e300), "NaN or infinity"),
        (np.full((1, 1, 28, 28), -1), "0 to 255"),
        (np.full((1, 1, 28, 28), 256), "0 to 255"),
        (np.zeros((1, 1, 28, 28), np.complex64), "complex64"),
        (np.array(["a", "b"]), "<U1"),
        ([np.zeros((28, 28)), np.zeros((27, 28))], "one shape"),
        (None, "object"),
    ],
)
def test_what_is_no_image_is_refused(client, wrong, words):
    with pytest.raises(jali.BadInput, match=words) as raised:
        client.predict(wrong)
    assert isinstance(raised.value, ValueError) and isinstance(raised.value, jali.Error)


def test_the_faulty_image_is_named(client, images):
    x = images[0][:5].copy()
    x[3, 0, 1, 2] = np.inf
    with pytest.raises(jali.BadInput, match="image 3 "):
        client.predict(x)
