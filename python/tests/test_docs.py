"""What the documentation says is true, and the stubs are those of the extension."""

import doctest
import os
import subprocess
import sys
from pathlib import Path

import pytest

import jali

PACKAGE = Path(jali.__file__).parent
THINGS = [thing for name in jali.__all__ if callable(thing := getattr(jali, name))]


def test_examples_run():
    finder = doctest.DocTestFinder()
    found = finder.find(jali, "jali", module=False, globs={}) + finder.find(jali.samples, "jali.samples", globs={})
    found += [test for thing in THINGS for test in finder.find(thing, thing.__name__, module=False, globs={})]
    tests = {test.name: test for test in found if test.examples}.values()
    assert len(tests) >= 10
    for test in tests:
        # Each in a state of its own: examples write into the current folder.
        runner = doctest.DocTestRunner()
        folder = Path(test.name.replace(".", "-"))
        folder.mkdir()
        os.chdir(folder)
        try:
            runner.run(test)
        finally:
            os.chdir("..")
        assert runner.summarize().failed == 0


def test_everything_has_a_page():
    for name in jali.__all__:
        thing = getattr(jali, name)
        if name.startswith("__"):
            continue
        assert (thing.__doc__ or "").strip(), name
        public = [n for n in vars(thing) if not n.startswith("_")] if isinstance(thing, type) else []
        for member in public:
            if isinstance(thing, type) and issubclass(thing, tuple):
                continue
            documented = getattr(thing, member)
            assert (getattr(documented, "__doc__", "") or "").strip(), f"{name}.{member}"


def test_stubs():
    pytest.importorskip("mypy")
    if not (PACKAGE / "_jali.pyi").exists():
        pytest.skip("the stubs are not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "jali._jali"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
