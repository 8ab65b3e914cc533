"""The server and the client of the keyed mode."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt

from . import _jali
from ._arrays import as_images
from ._checks import PathLike, maybe_path, path, seconds, text, whole
from ._errors import Error

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
#: Carries a request: method, path and body, to the answer's body.
Send = Callable[[str, str, bytes], bytes]


def _reach(
    url: Optional[str],
    send: Optional[Send] = None,
    ca_cert: Optional[PathLike] = None,
    token_file: Optional[PathLike] = None,
    deadline: float = 60.0,
    insecure: bool = False,
) -> dict[str, Any]:
    if send is not None and not callable(send):
        raise TypeError("send must be a function: send(method, path, body) -> answer")
    return {
        "url": None if url is None else text("url", url),
        "send": send,
        "ca_cert": maybe_path("ca_cert", ca_cert),
        "token_file": maybe_path("token_file", token_file),
        "deadline": seconds("deadline", deadline),
        "insecure": bool(insecure),
    }


class Server:
    """The untrusted server: it holds no key, sees masked inputs, and multiplies.

    bundles
        A server's bundle, a folder that holds one named ``server``, or a list of them; networks sealed for guests, too.
    tickets
        Batches of tickets for networks sealed for guests, or folders of them.
    host, port
        Where it listens; port 0 takes a free one. Another host than this machine needs ``tls_cert`` and ``tls_key``
        (PEM), or ``insecure=True``.
    token_file
        Only requests with a bearer token of this file are answered.

    It computes on threads of this process, until ``stop`` or the end of the ``with``:

    >>> import jali
    >>> net, (images, labels) = jali.samples.network("mnist"), jali.samples.images("mnist", 4)
    >>> _ = net.seal(images).save("sealed")
    >>> with jali.Server("sealed/server") as server:
    ...     client = jali.Client("sealed/client", server.url)
    ...     client.predict(images).shape
    (4,)
    """

    def __init__(
        self,
        bundles: Union[PathLike, list[PathLike]],
        *,
        tickets: Union[PathLike, list[PathLike], None] = None,
        host: str = "127.0.0.1",
        port: int = 0,
        tls_cert: Optional[PathLike] = None,
        tls_key: Optional[PathLike] = None,
        token_file: Optional[PathLike] = None,
        insecure: bool = False,
    ) -> None:
        self._start = functools.partial(
            _jali.Server.start,
            _paths("bundles", bundles),
            _paths("tickets", [] if tickets is None else tickets),
            text("host", host),
            whole("port", port, 0, 65535),
            maybe_path("tls_cert", tls_cert),
            maybe_path("tls_key", tls_key),
            maybe_path("token_file", token_file),
            bool(insecure),
        )
        self._starting = threading.Lock()
        self._native: Optional[_jali.Server] = None

    def start(self) -> Server:
        """Starts it, and returns it once it serves.

        Raises ``DamagedFile``, ``FileFailure``, ``Refused`` if it cannot listen.
        """
        with self._starting:
            if self._native is None:
                self._native = self._start()
        return self

    @property
    def url(self) -> str:
        """Where clients reach it."""
        if self._native is None:
            raise Error("this server does not run: start() starts it")
        return self._native.url

    def reload(self) -> None:
        """Reads all files again, without dropping a request: new batches of tickets, say."""
        if self._native is None:
            raise Error("this server does not run: start() starts it")
        self._native.reload()

    def stop(self) -> None:
        """Finishes what runs and ends it. Nothing happens if it does not run."""
        if self._native is not None:
            self._native.stop()
            self._native = None

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return "Server(not started)" if self._native is None else repr(self._native)


def _paths(name: str, paths: Union[PathLike, list[PathLike]]) -> list[Path]:
    return [path(name, one) for one in paths] if isinstance(paths, (list, tuple)) else [path(name, paths)]


class Client:
    """The client of the keyed mode: it holds keys, masks images, and checks what the server answers.

    Whoever has its bundle can recover the network: users who must not have it are guests (``jali.Guest``).

    bundle
        The client's bundle, or a folder that holds one named ``client``.
    url
        The server, ``https://host:port``, or ``http://`` on this machine.
    send
        Instead of ``url``: a function that carries a request, ``send(method, path, body) -> answer``.
    passphrase
        Unlocks the bundle.
    model_id, content_hash
        Which bundle it must be, as ``Sealed.model_id`` and ``Sealed.save`` say.
    ca_cert
        Certificate authorities to trust instead of the public ones, PEM.
    token_file
        A file with the bearer token that the server asks for.
    deadline
        Longest time for a batch, in seconds; a server that is gone is tried again until then. ``send`` has its own.

    Raises ``Locked``, ``DamagedFile``, ``FileFailure``, ``Refused``; ``WrongAnswer`` if the server lies.
    One client serves one thread at a time: others wait. It cannot be pickled.
    """

    def __init__(
        self,
        bundle: PathLike,
        url: Optional[str] = None,
        *,
        send: Optional[Send] = None,
        passphrase: Optional[str] = None,
        model_id: Optional[str] = None,
        content_hash: Optional[str] = None,
        ca_cert: Optional[PathLike] = None,
        token_file: Optional[PathLike] = None,
        deadline: float = 60.0,
        insecure: bool = False,
    ) -> None:
        server = _reach(url, send, ca_cert, token_file, deadline, insecure)
        self._native = _jali.Client(path("bundle", bundle), server, passphrase, model_id, content_hash)

    @classmethod
    def _of(cls, native: _jali.Client) -> Client:
        client = cls.__new__(cls)
        client._native = native
        return client

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image, without a batch."""
        return tuple(self._native.input_shape)

    @property
    def output_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the outputs, without a batch."""
        return [tuple(shape) for shape in self._native.output_shapes]

    @property
    def classes(self) -> Optional[int]:
        """How many classes the output names, if it names any."""
        return self._native.classes

    @property
    def latency_ms(self) -> float:
        """Time that the library and the server took for the last images, in ms; 0 before."""
        return self._native.latency_ms

    def predict(self, images: Any) -> Labels:
        """Classes of images, (n,) int64.

        images
            (n, *input_shape) or one image: floats are inputs, integers are pixels from 0 to 255. Arrays of any
            order, torch tensors, lists. Any number: they go through in batches of 64.

        Raises ``BadInput``, ``WrongAnswer``, ``Refused``. Ctrl-C ends it.
        """
        return self._native.predict(as_images(images, self._native.input_shape))

    def predict_proba(self, images: Any) -> Floats:
        """Probabilities of the classes, (n, classes) float32. ``images`` are those of ``predict``."""
        return self._native.predict_proba(as_images(images, self._native.input_shape))

    def outputs(self, images: Any) -> list[Floats]:
        """All outputs of the network, each (n, ...) float32. ``images`` are those of ``predict``."""
        return self._native.run(as_images(images, self._native.input_shape))

    def request(self, images: Any) -> tuple[Optional[bytes], Pending]:
        """Masks images, for a transport of your own; returns the first request and what takes its answer.

        At least one image, and at most 4096. A network has a request for every linear layer:

        >>> import jali, urllib.request
        >>> net, (images, labels) = jali.samples.network("mnist"), jali.samples.images("mnist", 4)
        >>> _ = net.seal(images).save("sealed")
        >>> with jali.Server("sealed/server") as server:
        ...     client = jali.Client("sealed/client", server.url)
        ...     body, pending = client.request(images)
        ...     while body is not None:
        ...         with urllib.request.urlopen(server.url + pending.path, data=body) as answer:
        ...             body = pending.finish(answer.read())
        >>> pending.predict().shape
        (4,)
        """
        body, native = self._native.request(as_images(images, self._native.input_shape))
        return body, Pending(native)

    def __reduce__(self) -> Any:
        raise TypeError("a client holds keys and cannot be pickled: open it from its bundle where it is needed")

    def __repr__(self) -> str:
        return repr(self._native)


class Pending:
    """A request that somebody else carries (``Client.request``). Its client serves nothing else meanwhile."""

    def __init__(self, native: _jali.Pending) -> None:
        self._native = native

    @property
    def path(self) -> Optional[str]:
        """Path of the server to which the request is posted; ``None`` at the end."""
        return self._native.path

    def finish(self, answer: bytes) -> Optional[bytes]:
        """Takes the answer; returns the next request, or ``None`` at the end.

        Raises ``WrongAnswer`` if it is not what the server had to send: then nothing follows.
        """
        try:
            whole_answer = bytes(memoryview(answer))
        except TypeError:
            raise TypeError(f"an answer is bytes, not {type(answer).__name__}") from None
        return self._native.finish(whole_answer)

    def predict(self) -> Labels:
        """Classes, (n,) int64, once there is no further request."""
        return self._native.predict()

    def predict_proba(self) -> Floats:
        """Probabilities, (n, classes) float32, once there is no further request."""
        return self._native.predict_proba()

    def outputs(self) -> list[Floats]:
        """All outputs, each (n, ...) float32, once there is no further request."""
        return self._native.run()

    def __reduce__(self) -> Any:
        raise TypeError("a request under way holds secrets and cannot be pickled")
