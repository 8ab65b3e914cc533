"""What can go wrong: every exception of jali is an ``Error``."""


class Error(Exception):
    """Everything that can go wrong in jali."""


class BadInput(Error, ValueError):
    """Images, labels, plans or options that make no sense: shape, type, NaN, a wrong number of digits."""


class UnsupportedModel(BadInput):
    """A network that cannot be run; the message names the nodes and what to do about them."""


class WrongAnswer(Error):
    """The server sent something else than it had to. Nothing was computed from it."""


class Refused(Error, ConnectionError):
    """The server cannot be reached, is not trusted, or refuses."""


class OutOfTickets(Error):
    """A guest's tickets are used up, or their time is over."""


class DamagedFile(Error):
    """A file that is damaged, of another kind, or another one than it should be."""


class Locked(Error):
    """A passphrase or key is missing or wrong."""


class FileFailure(Error, OSError):
    """A file that cannot be read or written."""


class OutOfMemory(Error, MemoryError):
    """Memory does not suffice, or would not."""
