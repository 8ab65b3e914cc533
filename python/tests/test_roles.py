"""The owner, the server and the client of the keyed mode."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import numpy as np
import pytest

import jali
from conftest import Served, interruptible, run_command, run_python


def test_classes_are_right(mnist, client, images):
    x, labels = images
    classes = client.predict(x)
    assert classes.dtype == np.int64 and (classes == labels).mean() > 0.95
    probabilities = client.predict_proba(x)
    assert probabilities.dtype == np.float32 and probabilities.shape == (40, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), classes)
    assert (mnist.predict(x) == labels).mean() > 0.95
    assert client.classes == 10 and client.input_shape == (1, 28, 28) and client.output_shapes == [(10,)]


def test_the_command_gives_the_same_bits(client, sealed, served, images, tmp_path):
    """One bundle, one server: what Python gets is what the command gets, bit for bit."""
    x = images[0][:4]
    for i, image in enumerate(x):
        np.save(tmp_path / f"{i}.npy", image)
    files = sorted(tmp_path.glob("?.npy"))
    done = run_command(
        "infer", "--client", sealed / "client", "--server", served.url, "--outputs", tmp_path / "kept", *files
    )
    assert done.returncode == 0, done.stderr
    kept = [np.load(file) for file in sorted((tmp_path / "kept").rglob("*.npy"))]
    np.testing.assert_array_equal(np.stack(kept).reshape(4, 10), client.outputs(x)[0])


def test_sealing_by_the_command_and_here(mnist, images, tmp_path):
    done = run_command("seal", "--network", "mnist", "--out", "by-command", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    client_id = report["model_id"]
    with jali.Server("by-command") as server:
        client = jali.Client("by-command", server.url, model_id=client_id)
        assert (client.predict(images[0]) == images[1]).mean() > 0.95
        with pytest.raises(jali.DamagedFile, match="model id"):
            jali.Client("by-command", server.url, model_id="0" * 32)
    content = mnist.seal(images[0]).save("here")
    assert run_command("inspect", "here/client", "--content-hash", content).returncode == 0


def test_plans(mnist, images, tmp_path):
    assert jali.Plan.hide_all(mnist).fraction_open == 0
    assert jali.Plan.open_all(mnist).fraction_open == 1
    half = jali.Plan.random_rows(mnist, 0.5, seed=3)
    assert 0.4 < half.fraction_open < 0.6
    half.save("plan.json")
    assert jali.Plan.load("plan.json", mnist).fraction_open == half.fraction_open
    assert jali.Plan.hide_last(mnist, 4).fraction_open == 0 == jali.Plan.hide_first(mnist, 4).fraction_open
    one = jali.Plan.open_layers(mnist, [mnist.layers[-1]])
    assert abs(one.fraction_open + jali.Plan.hide_last(mnist, 1).fraction_open - 1) < 1e-9
    sealed = mnist.seal(images[0], plan=half)
    assert abs(sealed.fraction_hidden + half.fraction_open - 1) < 1e-6
    assert (sealed.in_process().predict(images[0]) == images[1]).mean() > 0.95
    with pytest.raises(jali.BadInput, match="hide_last: layers is 9"):
        jali.Plan.hide_last(mnist, 9)
    with pytest.raises(jali.BadInput):
        jali.Plan.random_rows(mnist, 1.5)
    with pytest.raises(jali.BadInput, match="plan.json"):
        jali.Plan.load("plan.json", jali.samples.network("vgg3"))
    with pytest.raises(jali.FileFailure):
        jali.Plan.load("nothing.json", mnist)


def test_passphrases(mnist, images):
    mnist.seal(images[0], passphrase="correct horse").save("locked")
    with jali.Server("locked") as server:
        for wrong in [None, "battery"]:
            with pytest.raises(jali.Locked):
                jali.Client("locked", server.url, passphrase=wrong)
        client = jali.Client("locked", server.url, passphrase="correct horse")
        assert client.predict(images[0][:1]).shape == (1,)


def test_servers_start_and_stop(sealed, images):
    server = jali.Server([sealed / "server"])
    with pytest.raises(jali.Error, match="start"):
        server.url
    with server:
        client = jali.Client(sealed, server.url, deadline=3)
        client.predict(images[0][:1])
        server.reload()
        client.predict(images[0][:1])
        assert server.url in repr(server)
    server.stop()
    with pytest.raises(jali.Refused):
        client.predict(images[0][:1])
    with server:
        assert jali.Client(sealed, server.url).predict(images[0][:1]).shape == (1,)
    for faulty, error in [
        (dict(host="0.0.0.0"), jali.Refused),
        (dict(host="no such host."), jali.BadInput),
        (dict(tls_cert="cert.pem"), jali.BadInput),
        (dict(token_file="none"), jali.FileFailure),
    ]:
        with pytest.raises(error):
            jali.Server(sealed, **faulty).start()
    with pytest.raises(jali.DamagedFile):
        jali.Server(sealed / "client").start()
    with pytest.raises(jali.FileFailure):
        jali.Server("nothing").start()


def test_requests_by_hand(sealed, served, client, images):
    x = images[0][:3]
    body, pending = client.request(x)
    paths = []
    with pytest.raises(jali.Error, match="still to come"):
        pending.predict()
    with pytest.raises(jali.Error, match="in use"):
        client.request(x)
    while body is not None:
        paths.append(pending.path)
        with urllib.request.urlopen(served.url + pending.path, data=body) as answer:
            body = pending.finish(answer.read())
    assert len(paths) == 4 and pending.path is None
    np.testing.assert_array_equal(pending.outputs()[0], client.outputs(x)[0])
    np.testing.assert_array_equal(pending.predict(), pending.predict_proba().argmax(axis=1))
    with pytest.raises(jali.Error, match="outstanding"):
        pending.finish(b"")
    # One that is given up frees its client.
    client.request(x)
    assert client.predict(x).shape == (3,)


def test_lies_are_caught(client, images):
    for answer in [b"", b"nonsense", b"JA" + bytes(10_000)]:
        _, pending = client.request(images[0][:1])
        with pytest.raises(jali.WrongAnswer):
            pending.finish(answer)
    assert client.predict(images[0][:1]).shape == (1,)


def test_a_transport_of_ones_own(sealed, served, images):
    asked = []

    def send(method, path, body):
        asked.append((method, path))
        data = body if method == "POST" else None
        with urllib.request.urlopen(served.url + path, data=data) as answer:
            return answer.read()

    client = jali.Client(sealed, send=send)
    assert client.predict(images[0][:2]).shape == (2,)
    assert ("POST" in {method for method, _ in asked}) and all(path.startswith("/v2/models/") for _, path in asked)

    def broken(method, path, body):
        raise KeyError("my own fault")

    with pytest.raises(KeyError, match="my own fault"):
        jali.Client(sealed, send=broken).predict(images[0][:1])


def test_nobody_to_ask(mnist, images):
    mnist.seal(images[0][:4]).save("fresh")
    with pytest.raises(jali.Error, match="no server"):
        jali.Client("fresh")


def test_secrets_are_neither_pickled_nor_shown(mnist, images, client):
    sealed = mnist.seal(images[0][:4])
    for secret in [client, sealed, client.request(images[0][:1])[1]]:
        with pytest.raises(TypeError, match="pickled"):
            pickle.dumps(secret)
    assert "not shown" in repr(client)


def test_threads_share_a_client(client, images):
    want = client.predict(images[0])
    got = [None] * 4

    def work(i):
        got[i] = client.predict(images[0])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for classes in got:
        np.testing.assert_array_equal(classes, want)


def test_python_goes_on_meanwhile(client, images):
    """The interpreter's lock is free while images are classified."""
    many = np.tile(images[0], (20, 1, 1, 1))
    counted = 0
    done = threading.Event()

    def work():
        client.predict(many)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        counted += 1
        time.sleep(0.001)
    thread.join()
    assert counted > 20


def test_huge_batches(client, images):
    many = np.tile(images[0], (25, 1, 1, 1))
    np.testing.assert_array_equal(client.predict(many), np.tile(client.predict(images[0]), 25))


INTERRUPTED = """
import numpy, sys, time, jali
client = jali.Client(sys.argv[1] if len(sys.argv) > 1 else {sealed!r}, {url!r})
images = numpy.zeros((100_000, 1, 28, 28), numpy.float32)
print("ready", flush=True)
try:
    client.predict(images)
except KeyboardInterrupt:
    # It is of use afterwards.
    print("interrupted", client.predict(images[:1]).shape, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c(sealed, served):
    code = INTERRUPTED.format(sealed=str(sealed), url=served.url)
    with interruptible(code) as process:
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        assert process.stdout.readline() == "interrupted (1,)\n"
        assert time.monotonic() - begun < 10
        assert process.wait(30) == 0


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_killed_in_the_middle(sealed, served, client, images):
    """A client that is killed leaves its server and its bundle as they were."""
    code = INTERRUPTED.format(sealed=str(sealed), url=served.url)
    with interruptible(code):
        time.sleep(1)  # and it is killed
    assert jali.Client(sealed, served.url).predict(images[0][:1]).shape == (1,)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_forks_are_refused_and_spawn_works(sealed, served):
    done = run_python(
        f"""
import multiprocessing, os, warnings, jali
images = jali.samples.images("mnist", 2)[0]
client = jali.Client({str(sealed)!r}, {served.url!r})
client.predict(images)
warnings.simplefilter("ignore")
child = os.fork()
if child == 0:
    try:
        client.predict(images)
    except jali.Error as e:
        os._exit(7 if "spawn" in str(e) else 8)
    os._exit(9)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    )
    assert done.stdout == "7\n", done.stdout + done.stderr


SPAWNED = """
import multiprocessing, sys, jali

def work(start):
    images = jali.samples.images("mnist", 4)[0]
    return jali.Client(sys.argv[1], sys.argv[2]).predict(images[start : start + 2]).tolist()

if __name__ == "__main__":
    jali.threads()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print(pool.map(work, [0, 2]))
"""


def test_spawned_processes(sealed, served, tmp_path, client, images):
    (tmp_path / "spawned.py").write_text(SPAWNED)
    done = subprocess.run(
        [sys.executable, "spawned.py", str(sealed), served.url], capture_output=True, text=True, timeout=300
    )
    want = client.predict(images[0][:4]).tolist()
    assert done.stdout == f"[{want[:2]}, {want[2:]}]\n", done.stderr


def test_threads_are_set_before_the_first_work():
    done = run_python(
        """
import jali
jali.set_threads(1)
assert jali.threads() == 1
jali.set_threads(1)
try:
    jali.set_threads(2)
except jali.Error as e:
    print(e)
"""
    )
    assert "before anything is computed" in done.stdout, done.stderr


def test_logs_reach_logging(sealed):
    done = run_python(
        f"""
import logging, jali
logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
with jali.Server({str(sealed)!r}):
    pass
"""
    )
    assert done.returncode == 0 and "jali INFO" in done.stderr and "loaded" in done.stderr, done.stderr


def test_nothing_is_said_unasked(sealed, served):
    done = run_python(
        f"""
import jali
images = jali.samples.images("mnist", 2)[0]
net = jali.samples.network("mnist")
net.seal(images).in_process().predict(images)
jali.Client({str(sealed)!r}, {served.url!r}).predict(images)
with jali.Server({str(sealed)!r}):
    pass
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_command_is_there():
    done = run_command("--version")
    assert done.stdout == f"jali {jali.__version__}\n"
    assert run_command("no-such-command").returncode == 2


def test_a_server_for_guests_and_keys_from_the_command(sealed, images):
    """A server in a process of its own that serves two bundles."""
    run_command("seal", "--network", "vgg3", "--out", "vgg3")
    server = Served(sealed / "server", "vgg3/server")
    try:
        assert jali.Client("vgg3", server.url).classes == 10
        assert jali.Client(sealed, server.url).predict(images[0][:1]).shape == (1,)
    finally:
        server.stop()


def test_wrong_types_are_named(mnist, client, sealed):
    for call, words in [
        (lambda: jali.load(3), "path must be a path"),
        (lambda: jali.Plan.hide_all("net.onnx"), "net must be a jali.Network"),
        (lambda: mnist.seal(np.zeros((1, 1, 28, 28), np.float32), plan="plan.json"), "plan must be a jali.Plan"),
        (lambda: jali.Client(sealed, 3), "url must be text"),
        (lambda: jali.Client(sealed, send=3), "send must be a function"),
        (lambda: jali.Client(sealed, "http://127.0.0.1:1", deadline="soon"), "deadline must be a number"),
        (lambda: jali.Server(sealed, port="8433"), "port must be a whole number"),
        (lambda: jali.Plan.random_rows(mnist, 0.5, seed=0.5), "seed must be a whole number"),
        (lambda: client.request(np.zeros((1, 1, 28, 28), np.float32))[1].finish(3), "an answer is bytes"),
    ]:
        with pytest.raises(TypeError, match=words):
            call()


@pytest.mark.parametrize(
    "call",
    [
        lambda net, sealed: jali.Client(sealed, "http://127.0.0.1:1", deadline=float("nan")),
        lambda net, sealed: jali.Client(sealed, "http://127.0.0.1:1", deadline=-1),
        lambda net, sealed: jali.Client(sealed, "http://127.0.0.1:1", model_id="+f" * 16),
        lambda net, sealed: jali.Server(sealed, port=65536),
        lambda net, sealed: jali.Plan.random_rows(net, 0.5, seed=-1),
        lambda net, sealed: net.read_images(sealed, limit=-1),
        lambda net, sealed: jali.set_threads(10**9),
        lambda net, sealed: jali.set_threads(0),
        lambda net, sealed: jali.load(""),
        lambda net, sealed: net.seal([]),
        lambda net, sealed: net.seal(np.zeros((1, 1, 28, 28), np.float32), plan=jali.Plan.hide_all(jali.samples.network("vgg3"))),
        lambda net, sealed: net.seal_for_guests(
            np.zeros((1, 1, 28, 28), np.float32), "x", plan=jali.Plan.hide_all(jali.samples.network("vgg3"))
        ),
        lambda net, sealed: jali.load(sealed, preprocess={"mean": b"0"}),
    ],
)
def test_values_that_make_no_sense(mnist, sealed, call):
    with pytest.raises(jali.BadInput):
        call(mnist, sealed)


def test_who_carries_a_request_cannot_ask_its_client(sealed, served, images):
    inside = []

    def send(method, path, body):
        if method == "POST" and not inside:
            with pytest.raises(jali.Error, match="in use") as raised:
                client.predict(images[0][:1])
            inside.append(raised.value)
        with urllib.request.urlopen(served.url + path, data=body if method == "POST" else None) as answer:
            return answer.read()

    client = jali.Client(sealed, send=send)
    assert client.predict(images[0][:1]).shape == (1,) and inside


CARRIED = """
import signal, threading, time, urllib.request, jali
images = jali.samples.images("mnist", 1)[0]

def send(method, path, body):
    if method == "POST":
        while True:
            time.sleep(0.01)
    with urllib.request.urlopen({url!r} + path) as answer:
        return answer.read()

client = jali.Client({sealed!r}, send=send)
threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
try:
    client.predict(images)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_in_ones_own_transport(sealed, served):
    """The interpreter ends in order although a request was under way."""
    for _ in range(3):
        done = run_python(CARRIED.format(sealed=str(sealed), url=served.url))
        assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


def test_ctrl_c_ends_one_call_only(sealed, served):
    """Who waits for a client and is interrupted asks nothing afterwards, and ends nobody else."""
    done = run_python(
        f"""
import signal, threading, numpy, jali
images = numpy.zeros((2000, 1, 28, 28), numpy.float32)
client = jali.Client({str(sealed)!r}, {served.url!r})
got = []
first = threading.Thread(target=lambda: got.append(client.predict(images).shape))
first.start()
threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
try:
    while True:
        client.predict(images)
except KeyboardInterrupt:
    print("interrupted")
first.join()
print(got)
"""
    )
    assert done.stdout == "interrupted\n[(2000,)]\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_forks_with_a_server_end_in_order(sealed):
    done = run_python(
        f"""
import os, sys, warnings, jali
server = jali.Server({str(sealed)!r}).start()
warnings.simplefilter("ignore")
for how in range(2):
    child = os.fork()
    if child == 0:
        if how == 0:
            try:
                server.stop()
            except jali.Error as e:
                os._exit(0 if "spawn" in str(e) else 1)
            os._exit(2)
        sys.exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
server.stop()
"""
    )
    assert (done.stdout, done.stderr) == ("0\n0\n", ""), done.stdout + done.stderr
