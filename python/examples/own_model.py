"""A network of PyTorch's, trained for a moment, sealed and used. Needs `pip install 'jali[torch]'`."""

import torch

import jali

torch.manual_seed(0)
images, labels = jali.samples.images("mnist", 1000)
x, y = torch.from_numpy(images), torch.from_numpy(labels)

module = torch.nn.Sequential(
    torch.nn.Conv2d(1, 16, 3, padding=1),
    torch.nn.BatchNorm2d(16),
    torch.nn.ReLU(),
    torch.nn.MaxPool2d(2),
    torch.nn.Conv2d(16, 32, 3, padding=1),
    torch.nn.ReLU(),
    torch.nn.MaxPool2d(2),
    torch.nn.Flatten(),
    torch.nn.Linear(32 * 7 * 7, 10),
)
optimiser = torch.optim.Adam(module.parameters(), 0.002)
for _ in range(5):
    for part in torch.randperm(len(x)).split(50):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(module(x[part]), y[part]).backward()
        optimiser.step()

net = jali.from_torch(module, x[:1], name="digits")
print(net.inspect())
client = net.seal(x[:100], progress=False).in_process()

module.eval()
with torch.no_grad():
    expected = module(x).argmax(dim=1)
got = client.predict(x)  # torch's tensors go in as they are
print(f"{(got == expected.numpy()).mean():.1%} of the classes are those of torch")
