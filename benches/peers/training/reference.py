"""Training with PyTorch and pytorch-metric-learning, on the batches and from the weights that Semblance had."""

import copy
import math

import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import mobilenet_v2

SQUARED = distances.LpDistance(power=2)
# The library's loss for (classes, dim), its miner, and Semblance's flags where its own default differs.
LOSSES = {
    "softmax": (lambda c, d: losses.NormalizedSoftmaxLoss(c, d, temperature=1 / 20), None, None),
    "arcmargin": (lambda c, d: losses.ArcFaceLoss(c, d, margin=math.degrees(0.15), scale=80), None, None),
    "proxy_anchor": (lambda c, d: losses.ProxyAnchorLoss(c, d, margin=0.1, alpha=32), None, None),
    "contrastive": (lambda c, d: losses.ContrastiveLoss(), None, None),
    # Every triplet of the batch; the library's own reduction is over those that cost anything.
    "triplet": (
        lambda c, d: losses.TripletMarginLoss(0.1, distance=SQUARED, reducer=reducers.MeanReducer()),
        None,
        ["--per-class", "4", "--miner", "batch-all", "--margin", "0.1"],
    ),
    "multi_similarity": (lambda c, d: losses.MultiSimilarityLoss(), miners.MultiSimilarityMiner(0.1), None),
    "circle": (lambda c, d: losses.CircleLoss(), None, None),
    "supcon": (lambda c, d: losses.SupConLoss(), None, None),
}


class Block(nn.Module):
    def __init__(self, inp, out, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inp, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample = None
        if stride > 1 or inp != out:
            self.downsample = nn.Sequential(nn.Conv2d(inp, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Tiny(nn.Module):
    """Semblance's resnet10_tiny: a 3 × 3 stem of stride 2, one block a stage, 32 to 256 channels, mean pooling."""

    dim = 256

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32)
        inp = 32
        for stage in range(4):
            out = 32 << stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(Block(inp, out, 1 + (stage > 0))))
            inp = out

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        for stage in range(4):
            x = getattr(self, f"layer{stage + 1}")(x)
        return x.mean((2, 3))


class MobileNet(nn.Module):
    """torchvision's MobileNetV2 without its classifier, mean pooling."""

    dim = 1280

    def __init__(self):
        super().__init__()
        self.features = mobilenet_v2().features

    def forward(self, x):
        return self.features(x).mean((2, 3))


NETWORKS = {"resnet10_tiny": Tiny, "mobilenet_v2": MobileNet}


def save(model, path, arch):
    state = {name: t.contiguous() for name, t in model.state_dict().items() if "num_batches" not in name}
    save_file(state, path, metadata={"arch": arch})


def load(path, arch):
    model = NETWORKS[arch]()
    left, extra = model.load_state_dict(load_file(path), strict=False)
    if extra or any("num_batches" not in name for name in left):
        raise SystemExit(f"{path} does not fit {arch}: missing {left}, left over {extra}")
    return model


def nudged(model):
    """A copy with every weight about one rounding away: how far apart two runs of the same program may end up."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.mul_(1 + 1e-7 * torch.sign(torch.randn_like(weight)))
    return twin


def train(model, name, batches, rates, classes):
    """Steps with these learning rates over the files in `batches`; the loss of each step. Batch norms are frozen where the
    model is in evaluation mode, which changes nothing else: neither network has dropout."""
    make, miner, _ = LOSSES[name]
    loss = make(classes, model.dim)
    own = list(loss.parameters())
    if own:
        (start,) = load_file(batches / "loss.safetensors").values()
        own[0].data = (start if start.shape == own[0].shape else start.t()).contiguous()
    groups = [{"params": list(model.parameters()), "factor": 1}, {"params": own, "factor": 10}]
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True, weight_decay=1e-4)
    curve = []
    for number, rate in enumerate(rates):
        batch = load_file(batches / f"{number:06}.safetensors")
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        features = model(batch["x"])
        value = loss(features, batch["labels"], miner(features, batch["labels"]) if miner else None)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        curve.append(value.item())
    return curve
