"""The owner seals, a server in another process serves, the client asks. On two machines: the same, with TLS."""

import subprocess
import sys
import tempfile
from pathlib import Path

import jali

with tempfile.TemporaryDirectory() as folder:
    # The owner. `sealed/server` goes to the server, `sealed/client` to the client: whoever has it has the network.
    net, (images, labels) = jali.samples.network("mnist"), jali.samples.images("mnist", 50)
    sealed = Path(folder) / "sealed"
    net.seal(images, progress=False).save(sealed)

    # The server. `jali.Server(...)` would run it in this process.
    command = [sys.executable, "-m", "jali._cli", "serve", str(sealed / "server"), "--listen", "127.0.0.1:0"]
    server = subprocess.Popen([*command, "--log", "none"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().split()[-1]

    # The client. Between machines: https://, and token_file="token.txt".
    client = jali.Client(sealed / "client", url)
    print(f"{url}: {(client.predict(images) == labels).mean():.0%} right")

    server.terminate()
    server.wait()
    server.stdout.close()
