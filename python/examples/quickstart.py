"""Seal a network, classify images with it, and see what hiding costs. Runs in seconds, needs nothing but jali."""

import jali

net = jali.samples.network("vgg3")  # your own: jali.load("net.onnx") or jali.from_torch(module, example)
images, labels = jali.samples.images("vgg3", 100)

print(net.inspect())

for name, plan in [
    ("everything hidden", jali.Plan.hide_all(net)),
    ("80 % open", jali.Plan.random_rows(net, 0.8)),
    ("all but the last layer open", jali.Plan.hide_last(net, 1)),
]:
    client = net.seal(images, plan=plan, progress=False).in_process()
    classes = client.predict(images)
    print(f"{name}: {(classes == labels).mean():.0%} right, {client.latency_ms / len(images):.1f} ms an image")
