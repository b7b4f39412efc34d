#!/usr/bin/env python3
"""What Semblance makes of an image beside what the Python implementations make of it, from the same random weights.

    python3 -m venv venv && venv/bin/pip install torch torchvision timm transformers open_clip_torch safetensors
    cargo build --release --workspace --example features
    venv/bin/python benches/peers/agreement/check.py [--only WORDS]

Each line: the model, the project whose names the weight file has and whose code computed the other side, pixels, and the
greatest difference as a share of the greatest value: of the features as training computes them, and of the unit vectors
that searches get. Norms, biases and running statistics are random too, so that none of them can be forgotten unseen.
"""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

RESNETS = {
    18: ("basic", [2, 2, 2, 2], [64, 128, 256, 512]),
    34: ("basic", [3, 4, 6, 3], [64, 128, 256, 512]),
    50: ("bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048]),
    101: ("bottleneck", [3, 4, 23, 3], [256, 512, 1024, 2048]),
    152: ("bottleneck", [3, 8, 36, 3], [256, 512, 1024, 2048]),
}
CONVNEXTS = {"tiny": (9, 96), "small": (27, 96), "base": (27, 128)}
SIZES = {"tiny": (192, 12), "small": (384, 12), "base": (768, 12), "large": (1024, 24)}
CLIPS = {("base", 32): 512, ("base", 16): 512, ("large", 14): 768}


def shake(model):
    """Everything a network has, random from a seed: matrices as they came, vectors around their usual values."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict().items()):
            if not tensor.is_floating_point() or tensor.ndim == 0:
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            last = name.rsplit(".", 1)[-1]
            if last == "running_var":
                tensor.copy_(1 + 0.3 * noise.clamp(-2, 2))
            elif any(word in name for word in ("gamma", "lambda1", "layer_scale")):
                tensor.copy_(0.3 + 0.1 * noise)
            elif tensor.ndim == 1 and last == "weight":
                tensor.copy_(1 + 0.1 * noise)
            elif tensor.ndim == 1 or any(word in name for word in ("cls_token", "class_", "pos")):
                tensor.copy_(0.1 * noise)
            else:
                fan_in = tensor[0].numel()
                tensor.copy_(noise / fan_in**0.5)
    return model.eval()


def torchvision_case(name):
    import torchvision

    def build():
        model = shake(torchvision.models.get_model(name, weights=None))
        state = dict(model.state_dict())
        for head in ("fc", "heads"):
            if hasattr(model, head):
                setattr(model, head, torch.nn.Identity())
        if hasattr(model, "classifier"):
            model.classifier[-1] = torch.nn.Identity()
        return state, model

    return build


def timm_case(name, projection=0, **options):
    import timm

    def build():
        model = shake(timm.create_model(name, num_classes=projection, **options))
        if projection:
            with torch.no_grad():
                model.head.bias.zero_()
        return model.state_dict(), model

    return build


def transformers_case(make, output):
    def build():
        model = shake(make())
        return model.state_dict(), lambda x: output(model(pixel_values=x))

    return build


def open_clip_case(name):
    import open_clip

    def build():
        model = shake(open_clip.create_model(name, pretrained=None))
        return model.state_dict(), model.visual

    return build


def cases():
    """Our name, the project, how to make it, pixels."""
    import transformers as hf

    for depth, (kind, depths, widths) in RESNETS.items():
        name = f"resnet{depth}"
        config = hf.ResNetConfig(layer_type=kind, depths=depths, hidden_sizes=widths)
        yield name, "torchvision", torchvision_case(name), 224
        yield name, "timm", timm_case(name), 224
        build = transformers_case(lambda c=config: hf.ResNetModel(c), lambda y: y.pooler_output.flatten(1))
        yield name, "transformers", build, 224
    yield "mobilenet_v2", "torchvision", torchvision_case("mobilenet_v2"), 224
    yield "mobilenet_v2", "timm", timm_case("mobilenetv2_100"), 224
    for size, (third, width) in CONVNEXTS.items():
        name = f"convnext_{size}"
        config = hf.ConvNextConfig(depths=[3, 3, third, 3], hidden_sizes=[width << i for i in range(4)])
        yield name, "torchvision", torchvision_case(name), 224
        yield name, "timm", timm_case(name), 224
        build = transformers_case(lambda c=config: hf.ConvNextModel(c), lambda y: y.pooler_output)
        yield name, "transformers", build, 224
    for size, (dim, depth) in SIZES.items():
        sizes = dict(hidden_size=dim, num_hidden_layers=depth, num_attention_heads=dim // 64)
        name = f"vit_{size}_patch16_224"
        if size in ("base", "large"):
            yield name, "torchvision", torchvision_case(f"vit_{size[0]}_16"), 224
        yield name, "timm", timm_case(name), 224
        if size != "large":
            yield name, "timm", timm_case(name, dynamic_img_size=True), 288
        config = hf.ViTConfig(**sizes, intermediate_size=4 * dim, layer_norm_eps=1e-6)
        make = lambda c=config: hf.ViTModel(c, add_pooling_layer=False)
        yield name, "transformers", transformers_case(make, lambda y: y.last_hidden_state[:, 0]), 224
        if size == "tiny":
            continue
        name = f"vit_{size}_patch14_dinov2"
        for side in (224, 518):
            yield name, "timm", timm_case(name, dynamic_img_size=True), side
        config = hf.Dinov2Config(**sizes, image_size=518, patch_size=14)
        make = lambda c=config: hf.Dinov2Model(c)
        yield name, "transformers", transformers_case(make, lambda y: y.pooler_output), 518
    for (size, patch), projection in CLIPS.items():
        dim, depth = SIZES[size]
        for act, middle in (("quick_gelu", "_quickgelu"), ("gelu", "")):
            name = f"vit_{size}_patch{patch}_clip{middle}_224"
            yield name, "timm", timm_case(name, projection), 224
            sizes = dict(hidden_size=dim, num_hidden_layers=depth, num_attention_heads=dim // 64, hidden_act=act)
            config = hf.CLIPVisionConfig(
                **sizes, intermediate_size=4 * dim, patch_size=patch, projection_dim=projection, image_size=224
            )
            make = lambda c=config: hf.CLIPVisionModelWithProjection(c)
            yield name, "transformers", transformers_case(make, lambda y: y.image_embeds), 224
            open_clip = f"ViT-{size[0].upper()}-{patch}" + ("-quickgelu" if act == "quick_gelu" else "")
            yield name, "open_clip", open_clip_case(open_clip), 224


def difference(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="words that a line must contain, such as 'dinov2 timm'")
    parser.add_argument("--without", default="", help="words of which a line may contain none, such as 'large'")
    folder = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).parents[3] / "target"))
    parser.add_argument("--binary", default=str(folder / "release/examples/features"))
    options = parser.parse_args()
    process = subprocess.Popen([options.binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    print("| model | weights and code of | pixels | features | unit vectors |\n|---|---|---|---|---|")
    worst = 0
    with tempfile.TemporaryDirectory() as place:
        weights, given, made = (str(Path(place, n + ".safetensors")) for n in ("weights", "given", "made"))
        for name, project, build, side in cases():
            line = f"{name} {project} {side}"
            if not all(word in line for word in options.only.split()) or any(w in line for w in options.without.split()):
                continue
            torch.manual_seed(0)
            x = torch.randn(2, 3, side, side)
            state, model = build()
            save_file({k: v.clone().contiguous() for k, v in state.items()}, weights)
            save_file({"x": x}, given)
            with torch.inference_mode():
                theirs = model(x)
            process.stdin.write(f"{weights} {name} {given} {made}\n")
            process.stdin.flush()
            answer = process.stdout.readline().strip()
            if answer != "ok":
                raise SystemExit(f"{line}: {answer}")
            ours = load_file(made)
            features = difference(ours["features"], theirs)
            unit = difference(ours["unit"], torch.nn.functional.normalize(theirs))
            worst = max(worst, features, unit)
            print(f"| `{name}` | {project} | {side} | {features:.1e} | {unit:.1e} |", flush=True)
    print(f"\nThe greatest: {worst:.1e}")
    raise SystemExit(0 if worst <= 1e-4 else 1)


if __name__ == "__main__":
    main()
