"""The guests' mode: users who may use a network and must not have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

from . import _jali
from ._arrays import as_images
from ._checks import PathLike, text, whole
from ._checks import path as _path
from ._errors import FileFailure
from ._progress import bar
from ._roles import Floats, Labels, _reach


class SealedForGuests(NamedTuple):
    """What ``Network.seal_for_guests`` wrote."""

    folder: Path
    """Holds ``owner`` (secret: tickets are dealt from it) and ``server`` (for one server)."""
    output_bits: int
    """Bits that a ticket can tell a guest."""
    weights_hidden: int
    """Number of hidden weights."""

    @property
    def owner(self) -> Path:
        """The owner's file: the network, and the key that signs."""
        return self.folder / "owner"

    @property
    def server(self) -> Path:
        """The server's file: for a server that works together with no guest."""
        return self.folder / "server"


class Batch(NamedTuple):
    """Tickets that were dealt (``Owner.deal``)."""

    server: Path
    """For the server; keep a copy to judge by."""
    wallet: Path
    """For the guest; erase it at the owner's then."""
    output_bits: int
    """Bits that all its tickets can tell the guest at most."""
    model_bits: int
    """Bits of the hidden weights, to compare with."""
    wallet_bytes: int
    """Length of the wallet."""


class Left(NamedTuple):
    """Tickets of a wallet (``GuestKey.left``)."""

    here: int
    """Those that are in it and not used."""
    fetchable: int
    """Those that the owner still deals when they are fetched."""
    valid_until: str
    """Last second in which they are valid, in UTC."""


class GuestKey:
    """A guest's key, in a file: owners lock tickets for its ``recipient``.

    >>> import jali
    >>> key = jali.GuestKey.generate("me.key")
    >>> key.recipient.startswith("age1")
    True
    """

    def __init__(self, path: PathLike) -> None:
        self.path = _path("path", path)
        #: What owners are told.
        self.recipient: str = _jali.recipient_of(self.path)

    @classmethod
    def generate(cls, path: PathLike) -> GuestKey:
        """Makes a key in a file that is not there yet."""
        _jali.generate_key(_path("path", path))
        return cls(path)

    def left(self, wallet: PathLike) -> Left:
        """How many tickets a wallet has, and until when they are valid."""
        return Left(*_jali.tickets_left(_path("wallet", wallet), self.path))

    def fetch(
        self,
        wallet: PathLike,
        url: str,
        count: int = 1,
        *,
        owner: Optional[str] = None,
        ca_cert: Optional[PathLike] = None,
        progress: Optional[bool] = None,
    ) -> int:
        """Fetches tickets into a wallet from the owner's dealing service (``jali deal --listen``).

        Returns how many came: they come in blocks. Fetch ahead, not when there is an image: the owner sees when.
        """
        count = whole("count", count, 1, 1_000_000)
        with bar(count, "fetching", progress) as at:
            server = _reach(text("url", url), ca_cert=ca_cert)
            return _jali.fetch_tickets(_path("wallet", wallet), self.path, server, count, owner, at)

    def __repr__(self) -> str:
        return f"GuestKey({self.recipient})"


class Owner:
    """An owner of a network that was sealed for guests: deals tickets, and judges servers.

    Its file is the network. Never open it on the server's machine. It cannot be pickled.
    """

    def __init__(self, path: PathLike, *, passphrase: Optional[str] = None) -> None:
        self._native = _jali.Owner(_path("path", path), passphrase)

    @property
    def key(self) -> str:
        """The key by which guests know this owner (``Guest(..., owner=...)``), 64 hexadecimal digits."""
        return self._native.key

    def deal(
        self,
        to: Union[str, GuestKey],
        count: int,
        out: PathLike = "batch",
        *,
        days: int = 90,
        on_demand: bool = False,
        progress: Optional[bool] = None,
    ) -> Batch:
        """Deals tickets to the guest of a recipient, into a new folder: ``out/server`` and ``out/wallet``.

        A ticket is one inference. Whatever the guest does, ``count`` of them tell it at most
        ``Batch.output_bits``. With ``on_demand`` the wallet holds none: ``jali deal --listen`` deals them.

        Raises ``BadInput`` for a recipient that is none, ``FileFailure`` for a folder with a batch in it.
        """
        recipient = to.recipient if isinstance(to, GuestKey) else text("to", to)
        count, days = whole("count", count, 1, 1_000_000), whole("days", days, 1, 36_500)
        with bar(count, "dealing", progress) as at:
            return Batch(*self._native.deal(recipient, count, _path("out", out), days, bool(on_demand), at))

    def judge(self, transcript: PathLike, batch: PathLike) -> bool:
        """Whether the server was honest, by a transcript that it signed (``Guest.predict(..., transcripts=...)``).

        ``batch`` is the owner's copy of the server's part. Raises ``DamagedFile`` where nobody can tell.
        """
        return self._native.judge(_path("transcript", transcript), _path("batch", batch))

    def __reduce__(self) -> Any:
        raise TypeError("an owner holds the network and cannot be pickled: open its file where it is needed")

    def __repr__(self) -> str:
        return repr(self._native)


class Guest:
    """A guest: it uses a network that it does not have. Each image uses up a ticket, whatever happens.

    Where a batch of images fails on the way, the exception's ``done`` has what came before it. Tickets that were shown to
    a server whose connection breaks are used, those of the images behind it too.

    wallet
        The folder that the owner dealt. Only one process opens it at a time.
    key
        The guest's key: a ``GuestKey`` or its file.
    url
        The server.
    owner
        The owner's key: tickets of anybody else are refused.
    ca_cert, deadline
        As for ``Client``.

    >>> import jali
    >>> net, (images, labels) = jali.samples.network("mnist"), jali.samples.images("mnist", 20)
    >>> sealed = net.seal_for_guests(images, "for-guests")          # the owner
    >>> key = jali.GuestKey.generate("mine.key")                    # the guest
    >>> batch = jali.Owner(sealed.owner).deal(key.recipient, 3, "batch", progress=False)
    >>> with jali.Server(sealed.server, tickets=batch.server) as server:
    ...     guest = jali.Guest(batch.wallet, key, server.url)
    ...     guest.predict(images[:2]).shape, guest.left
    ((2,), 1)
    """

    def __init__(
        self,
        wallet: PathLike,
        key: Any,
        url: str,
        *,
        owner: Optional[str] = None,
        ca_cert: Optional[PathLike] = None,
        deadline: float = 60.0,
        insecure: bool = False,
    ) -> None:
        file = key.path if isinstance(key, GuestKey) else _path("key", key)
        server = _reach(text("url", url), ca_cert=ca_cert, deadline=deadline, insecure=insecure)
        self._native = _jali.Guest(_path("wallet", wallet), file, server, owner)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image, without a batch."""
        return tuple(self._native.input_shape)

    @property
    def classes(self) -> Optional[int]:
        """How many classes the output names, if it names any."""
        return self._native.classes

    @property
    def left(self) -> int:
        """Tickets that are not used."""
        return self._native.left

    def predict(self, images: Any, *, transcripts: Optional[PathLike] = None) -> Labels:
        """Classes of images, (n,) int64; uses up a ticket for each.

        transcripts
            A folder for signed transcripts, ``0.transcript`` and so on, by which the owner tells whether the server
            lied.

        Raises ``BadInput`` before a ticket is used, ``OutOfTickets``, ``Refused``, ``WrongAnswer``.
        """
        return self._native.predict(as_images(images, self._native.input_shape), _folder(transcripts))

    def predict_proba(self, images: Any, *, transcripts: Optional[PathLike] = None) -> Floats:
        """Probabilities, (n, classes) float32; ``BadInput`` if guests get the class alone."""
        return self._native.predict_proba(as_images(images, self._native.input_shape), _folder(transcripts))

    def outputs(self, images: Any, *, transcripts: Optional[PathLike] = None) -> list[Floats]:
        """The network's output, (n, ...) float32, in a list as for ``Client``."""
        return self._native.run(as_images(images, self._native.input_shape), _folder(transcripts))

    def __reduce__(self) -> Any:
        raise TypeError("a guest's wallet must be open once only, and cannot be pickled")

    def __repr__(self) -> str:
        return repr(self._native)


def _folder(path: Optional[PathLike]) -> Optional[Path]:
    if path is None:
        return None
    folder = _path("transcripts", path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise FileFailure(f"transcripts: cannot make {folder}: {e.strerror}") from None
    return folder
