"""Jali: a server that nobody trusts runs a neural network, and sees neither image nor weights.

Who may hold the keys decides between two modes:

* The owner's own devices: ``Client``. It holds keys from which the network can be recovered.
* Users who may use the network and must not have it: ``Guest``. The owner deals tickets ahead of time.

The owner chooses which weights to hide and which to leave open (``Plan``). Three lines seal a network and use it:

>>> import jali
>>> net, (images, labels) = jali.samples.network("mnist"), jali.samples.images("mnist", 20)
>>> client = net.seal(images).in_process()
>>> client.predict(images[:5])
array([7, 2, 1, 0, 4])

On two machines:

* the owner: ``jali.load("net.onnx").seal(images).save("sealed")``
* the server: ``jali.Server("sealed/server", port=8433).start()``
* the client: ``jali.Client("sealed/client", "http://127.0.0.1:8433").predict(images)``

==================  ===================================================================
``load``            a network from an ONNX file
``from_torch``      a network from PyTorch
``Network``         inspect, predict in the clear, seal
``Plan``            what may be open
``Sealed``          both bundles of a sealed network
``Server``          serves bundles
``Client``          masks, asks, checks, unmasks
``Owner``           deals tickets, judges servers
``Guest``           uses a network that it does not have
``GuestKey``        for which tickets are locked
``samples``         two small networks with images
``ray``             the client in Ray Data (needs Ray)
``Error``           what all exceptions of jali are
==================  ===================================================================

Arrays: images are (n, *input_shape); floats are inputs of the network, integers are pixels from 0 to 255. Work is done
on all cores (``set_threads``), outside of Python's lock; Ctrl-C ends it. A process that was forked after jali had been
used is refused: use the start method "spawn". Messages go to the logger ``jali``.

SECURITY.md in the repository says who learns what.
"""

import logging

from ._errors import (
    BadInput,
    DamagedFile,
    Error,
    FileFailure,
    Locked,
    OutOfMemory,
    OutOfTickets,
    Refused,
    UnsupportedModel,
    WrongAnswer,
)
from ._guests import Batch, Guest, GuestKey, Left, Owner, SealedForGuests
from ._jali import __version__, set_threads, threads
from ._networks import Inspection, Network, Plan, Sealed, from_torch, load
from ._roles import Client, Pending, Server
from . import samples

# Whoever wants to hear of it says so; nothing is printed unasked.
logging.getLogger("jali").addHandler(logging.NullHandler())

__all__ = [
    "BadInput",
    "Batch",
    "Client",
    "DamagedFile",
    "Error",
    "FileFailure",
    "Guest",
    "GuestKey",
    "Inspection",
    "Left",
    "Locked",
    "Network",
    "OutOfMemory",
    "OutOfTickets",
    "Owner",
    "Pending",
    "Plan",
    "Refused",
    "Sealed",
    "SealedForGuests",
    "Server",
    "UnsupportedModel",
    "WrongAnswer",
    "__version__",
    "from_torch",
    "load",
    "samples",
    "set_threads",
    "threads",
]

# Pages and messages call everything by the name under which people have it.
for _name in __all__:
    _thing = globals()[_name]
    if isinstance(_thing, type):
        _thing.__module__ = __name__
del _name, _thing
