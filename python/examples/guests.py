"""A vendor, a server and a clinic: the clinic uses a network that it must not have."""

import tempfile
from pathlib import Path

import jali

with tempfile.TemporaryDirectory() as folder:
    at = Path(folder)

    # The clinic makes a key and tells the vendor its recipient.
    key = jali.GuestKey.generate(at / "me.key")

    # The vendor seals the network and deals tickets: each is one inference.
    net, (images, labels) = jali.samples.network("mnist"), jali.samples.images("mnist", 50)
    sealed = net.seal_for_guests(images, at / "sealed")
    owner = jali.Owner(sealed.owner)
    batch = owner.deal(key.recipient, 20, at / "batch", progress=False)
    print(f"{batch.output_bits} bits at most for 20 tickets; the hidden weights have {batch.model_bits}")

    # The server gets sealed/server and batch/server. It must not work together with any guest.
    with jali.Server(sealed.server, tickets=batch.server) as server:
        # The clinic gets batch/wallet.
        guest = jali.Guest(batch.wallet, key, server.url, owner=owner.key)
        classes = guest.predict(images[:10], transcripts=at / "kept")
        print(f"{(classes == labels[:10]).mean():.0%} right, {guest.left} tickets left")

    # Did the server lie? The vendor tells from a transcript, and sees no image.
    print("honest" if owner.judge(at / "kept" / "0.transcript", batch.server) else "it lied")
