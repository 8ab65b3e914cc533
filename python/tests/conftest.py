"""What the tests share: sealed networks, servers in processes of their own, and the command."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jali

#: The command that the wheel brings, in this environment.
COMMAND = [sys.executable, "-m", "jali._cli"]


@pytest.fixture(scope="session", autouse=True)
def interrupts_are_heard() -> None:
    """A shell's background jobs ignore SIGINT, and what they start inherits that: tests of Ctrl-C would wait for ever."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs in a folder of its own, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def mnist() -> jali.Network:
    return jali.samples.network("mnist")


@pytest.fixture(scope="session")
def images():
    return jali.samples.images("mnist", 40)


@pytest.fixture(scope="session")
def sealed(tmp_path_factory: pytest.TempPathFactory, mnist, images) -> Path:
    """A folder with both bundles of mnist."""
    folder = tmp_path_factory.mktemp("sealed")
    mnist.seal(images[0]).save(folder)
    return folder


class Served:
    """The command ``jali serve`` in a process of its own."""

    def __init__(self, *args: object) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "serve", *map(str, args), "--listen", "127.0.0.1:0", "--log", "none"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("serving on "), line
        self.url = line.split()[-1]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture(scope="session")
def served(sealed: Path) -> Iterator[Served]:
    """A server of mnist in a process of its own."""
    server = Served(sealed / "server")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def client(sealed: Path, served: Served) -> jali.Client:
    return jali.Client(sealed, served.url)


def run_command(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, args)], capture_output=True, text=True, timeout=300)


@contextlib.contextmanager
def interruptible(code: str) -> Iterator[subprocess.Popen[str]]:
    """Runs Python code that prints "ready", to be interrupted, and ends it whatever happens."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


def run_python(code: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs Python code in an interpreter of its own, warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **more},
    )
