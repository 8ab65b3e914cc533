"""Two small trained networks with images, to try things on: ``"vgg3"`` (CIFAR-10) and ``"mnist"``."""

from __future__ import annotations

from . import _jali
from ._networks import Network
from ._roles import Floats, Labels

__all__ = ["images", "network"]


def network(name: str = "vgg3") -> Network:
    """A network: ``"vgg3"`` (550 570 parameters, CIFAR-10) or ``"mnist"``.

    >>> import jali
    >>> jali.samples.network("vgg3").input_shape
    (3, 32, 32)
    """
    return Network(_jali.Network.sample(name))


def images(name: str = "vgg3", count: int = 100) -> tuple[Floats, Labels]:
    """Test images of a network and their classes: (n, channels, height, width) float32 and (n,) int64; at most 1000.

    >>> import jali
    >>> images, labels = jali.samples.images("vgg3", 10)
    >>> images.shape, labels.shape
    ((10, 3, 32, 32), (10,))
    """
    return _jali.sample_images(name, count)
