"""Networks from PyTorch. Skipped without torch."""

import numpy as np
import pytest

import jali

torch = pytest.importorskip("torch")


def blocks(channels: int, classes: int) -> "torch.nn.Module":
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels, 16, 3, padding=1),
        torch.nn.BatchNorm2d(16),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(16, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(7),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(32 * 7 * 7, classes),
    )


@pytest.fixture
def trained():
    """A network that was trained for a moment on the bundled digits: its classes mean something."""
    torch.manual_seed(1)
    images, labels = jali.samples.images("mnist", 1000)
    module = blocks(1, 10)
    optimiser = torch.optim.Adam(module.parameters(), 0.002)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    for _ in range(10):
        for part in torch.randperm(1000).split(50):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(module(x[part]), y[part]).backward()
            optimiser.step()
    return module, x


def test_the_same_classes_as_torch(trained):
    """On 1 000 images: within 0.5 points, sealed and quantised."""
    module, x = trained
    net = jali.from_torch(module, x[:1], name="digits")
    assert module.training, "its mode is as before"
    module.eval()
    with torch.no_grad():
        want = module(x)
    assert net.name == "digits" and net.input_shape == (1, 28, 28)
    np.testing.assert_allclose(net.outputs(x)[0], want.numpy(), atol=1e-3)
    classes, labels = want.argmax(dim=1).numpy(), jali.samples.images("mnist", 1000)[1]
    np.testing.assert_array_equal(net.predict(x), classes)
    # torch's tensors go in as they are.
    got = net.seal(x[:200]).in_process().predict(x)
    assert (classes == labels).mean() > 0.95
    assert (got == classes).mean() >= 0.995
    assert abs((got == labels).mean() - (classes == labels).mean()) <= 0.005


def test_tensors_that_need_gradients_or_lie_elsewhere(trained):
    module, x = trained
    net = jali.from_torch(module, x[:1])
    with_gradients = x[:2].clone().requires_grad_()
    np.testing.assert_array_equal(net.predict(with_gradients), net.predict(x[:2]))
    np.testing.assert_array_equal(net.predict(x[:2].permute(0, 1, 3, 2).permute(0, 1, 3, 2)), net.predict(x[:2]))


def test_what_cannot_be_run_is_named():
    class Attention(torch.nn.Module):
        def forward(self, x):
            return torch.softmax(x @ x.transpose(-1, -2), -1)

    with pytest.raises(jali.UnsupportedModel, match="MatMul"):
        jali.from_torch(Attention(), torch.zeros(1, 4, 4))


def test_other_modules_stay_as_they_are():
    """A module that fails to export is in its mode afterwards, too."""

    class Fails(torch.nn.Module):
        def forward(self, x):
            raise RuntimeError("my own fault")

    module = Fails()
    with pytest.raises(RuntimeError, match="my own fault"):
        jali.from_torch(module, torch.zeros(1, 1, 2, 2))
    assert module.training
