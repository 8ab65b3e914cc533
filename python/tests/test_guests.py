"""Guests: users who may use a network and must not have it."""

import os
import pickle
import signal
import time

import numpy as np
import pytest

import jali
from conftest import Served, interruptible, run_command


@pytest.fixture
def dealt(mnist, images):
    sealed = mnist.seal_for_guests(images[0], "sealed")
    key = jali.GuestKey.generate("me.key")
    owner = jali.Owner(sealed.owner)
    return sealed, key, owner, owner.deal(key.recipient, 6, "batch", progress=False)


def test_an_afternoon(dealt, images):
    sealed, key, owner, batch = dealt
    assert sealed.output_bits == 160 and batch.output_bits == 960 and batch.model_bits == 8 * sealed.weights_hidden
    server = Served(sealed.server, "--tickets", batch.server)
    try:
        guest = jali.Guest(batch.wallet, key, server.url, owner=owner.key)
        assert guest.left == 6 and guest.input_shape == (1, 28, 28) and guest.classes == 10
        with pytest.raises(jali.BadInput):
            guest.predict(np.zeros((1, 3, 28, 28), np.float32))
        assert guest.left == 6, "a mistake costs no ticket"
        np.testing.assert_array_equal(guest.predict(images[0][:3], transcripts="kept"), images[1][:3])
        probabilities = guest.predict_proba(images[0][3:5])
        np.testing.assert_array_equal(probabilities.argmax(axis=1), images[1][3:5])
        assert guest.outputs(images[0][:1])[0].shape == (1, 10)
        with pytest.raises(jali.OutOfTickets):
            guest.predict(images[0][:1])
        del guest
        assert key.left(batch.wallet)[:2] == (0, 0)
    finally:
        server.stop()
    assert owner.judge("kept/0.transcript", batch.server)


def test_guests_get_what_the_command_gets(dealt, images, tmp_path):
    sealed, key, owner, batch = dealt
    np.save(tmp_path / "0.npy", images[0][0])
    server = Served(sealed.server, "--tickets", batch.server)
    try:
        infer = ["infer", "--guest", batch.wallet, "--key", "me.key", "--server", server.url]
        done = run_command(*infer, "--outputs", "kept", "0.npy")
        assert done.returncode == 0, done.stderr
        by_command = np.load(next((tmp_path / "kept").rglob("*.npy")))
        here = jali.Guest(batch.wallet, key, server.url).outputs(images[0][:1])[0]
        # Tickets round at random, by one in the last of sixteen bits or so.
        np.testing.assert_allclose(here.reshape(-1), by_command.reshape(-1), atol=0.3)
    finally:
        server.stop()


def test_the_class_alone(mnist, images):
    sealed = mnist.seal_for_guests(images[0], "sealed", output="top1", plan=jali.Plan.hide_last(mnist, 1))
    assert sealed.output_bits == 4
    key = jali.GuestKey.generate("me.key")
    batch = jali.Owner(sealed.owner).deal(key.recipient, 2, "batch", progress=False)
    with jali.Server(sealed.server, tickets=batch.server) as server:
        guest = jali.Guest(batch.wallet, key, server.url)
        np.testing.assert_array_equal(guest.predict(images[0][:1]), images[1][:1])
        with pytest.raises(jali.BadInput, match="class alone"):
            guest.predict_proba(images[0][:1])
    with pytest.raises(jali.BadInput, match="logits"):
        mnist.seal_for_guests(images[0], "sealed", output="top5")


def test_mistakes(dealt, images):
    sealed, key, owner, batch = dealt
    with pytest.raises(jali.FileFailure, match="not overwritten"):
        jali.GuestKey.generate("me.key")
    with pytest.raises(jali.BadInput, match="age1"):
        owner.deal("nobody", 1, "other")
    with pytest.raises(jali.FileFailure, match="another folder"):
        owner.deal(key.recipient, 1, "batch", progress=False)
    with pytest.raises(jali.DamagedFile):
        jali.Owner(sealed.server)
    with pytest.raises(jali.Locked):
        jali.Guest(batch.wallet, jali.GuestKey.generate("other.key"), "http://127.0.0.1:1")
    with pytest.raises(jali.DamagedFile, match="owner's key"):
        jali.Guest(batch.wallet, key, "http://127.0.0.1:1", owner="00" * 32)
    with pytest.raises(jali.BadInput, match="64 hexadecimal"):
        jali.Guest(batch.wallet, key, "http://127.0.0.1:1", owner="00")
    guest = jali.Guest(batch.wallet, key, "http://127.0.0.1:1", deadline=2)
    with pytest.raises(jali.FileFailure, match="another process"):
        jali.Guest(batch.wallet, key, "http://127.0.0.1:1")
    with pytest.raises(jali.Refused):
        guest.predict(images[0][:1])
    for secret in [guest, owner]:
        with pytest.raises(TypeError, match="pickled"):
            pickle.dumps(secret)
        assert "not shown" in repr(secret)


def test_a_locked_owner(mnist, images):
    sealed = mnist.seal_for_guests(images[0][:4], "sealed", passphrase="correct horse")
    with pytest.raises(jali.Locked):
        jali.Owner(sealed.owner)
    assert len(jali.Owner(sealed.owner, passphrase="correct horse").key) == 64


def test_networks_that_guests_cannot_run_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    net = jali.from_torch(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Sigmoid(), torch.nn.Linear(4, 2)), torch.zeros(1, 4))
    with pytest.raises(jali.UnsupportedModel, match="Sigmoid"):
        net.seal_for_guests(np.zeros((2, 4), np.float32), "sealed")


def test_tickets_are_not_wasted(dealt, images, tmp_path):
    """Too many images use none; a server that is not there uses one, and no more of those read ahead."""
    sealed, key, owner, batch = dealt
    with pytest.raises(jali.Refused, match="https"):
        jali.Guest(batch.wallet, key, "http://192.0.2.1:8433")
    with pytest.raises(jali.Refused):
        jali.Guest(batch.wallet, key, "")
    guest = jali.Guest(batch.wallet, key, "http://127.0.0.1:1", deadline=2)
    with pytest.raises(jali.OutOfTickets, match="7 ticket"):
        guest.predict(images[0][:7])
    assert guest.left == 6
    with pytest.raises(jali.Refused) as raised:
        guest.predict(images[0][:4])
    assert guest.left == 5 and not hasattr(raised.value, "done")


def test_what_came_before_a_failure(dealt, images, tmp_path):
    """A transcript that cannot be written ends a call; what came before it is in the exception."""
    sealed, key, owner, batch = dealt
    (tmp_path / "kept" / "2.transcript").mkdir(parents=True)
    with jali.Server(sealed.server, tickets=batch.server) as server:
        guest = jali.Guest(batch.wallet, key, server.url)
        with pytest.raises(jali.FileFailure) as raised:
            guest.predict(images[0][:5], transcripts="kept")
        np.testing.assert_array_equal(raised.value.done, images[1][:3])


def test_an_owner_is_not_overwritten(dealt, mnist, images):
    with pytest.raises(jali.FileFailure, match="already"):
        mnist.seal_for_guests(images[0], "sealed")


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_leaves_no_batch(dealt, tmp_path):
    code = """
import jali
owner = jali.Owner("sealed/owner")
print("ready", flush=True)
try:
    owner.deal(jali.GuestKey("me.key"), 5_000, "large", progress=False)
except KeyboardInterrupt:
    import os, time
    for _ in range(100):
        if not os.path.exists("large"):
            break
        time.sleep(0.1)
    print(os.path.exists("large"), flush=True)
"""
    with interruptible(code) as process:
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "False\n"
        assert process.wait(30) == 0
