#!/usr/bin/env python3
"""What `semblance export` writes, opened by the programs it is for.

    python3 -m venv venv && venv/bin/pip install torch timm onnx onnxruntime numpy safetensors pillow
    cargo build --release
    venv/bin/python benches/peers/export/check.py [--semblance target/release/semblance] [--weights mobilenet_v2.safetensors]

A drawn catalogue is embedded by Semblance, and by ONNX Runtime and timm from the exported files, over the same pixels.
Every tensor of the networks is random, norms, running statistics and layer scales too, so that none can be left out
unseen. Printed: the greatest difference between any two values of the unit vectors, which may be 1e-4. Where timm has no
place for a pooling or head, that must be refused, and what is compared is the backbone alone.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

LIMIT = 1e-4
MLP = ("--head", "mlp", "--hidden", "48,24", "--embedding-dim", 32)
# Architecture, pixels, pooling, head; whether timm has a place for all of it.
CASES = [
    ("resnet10_tiny", 64, "average", ("--embedding-dim", 32), None),
    ("resnet18", 64, "average", (), True),
    ("resnet18", 64, "max", ("--head", "batch_norm"), True),
    ("resnet18", 64, "gem", ("--head", "batch_norm", "--embedding-dim", 32), False),
    ("resnet50", 64, "average", ("--embedding-dim", 32), True),
    ("mobilenet_v2", 64, "average", ("--embedding-dim", 32), True),
    ("mobilenet_v2", 64, "average", MLP, False),
    ("convnext_tiny", 64, "average", (), True),
    ("convnext_tiny", 224, "max", ("--embedding-dim", 32), True),
    ("convnext_tiny", 64, "gem", ("--head", "layer_norm", "--embedding-dim", 32), False),
    ("vit_tiny_patch16_224", 224, "class_token", (), True),
    ("vit_tiny_patch16_224", 64, "average", ("--embedding-dim", 32), True),
    ("vit_tiny_patch16_224", 64, "max", ("--head", "batch_norm", "--embedding-dim", 32), True),
    ("vit_tiny_patch16_224", 64, "class_and_mean", (*MLP, "--activation", "gelu"), False),
    ("vit_tiny_patch16_224", 64, "gem", ("--head", "layer_norm"), False),
    ("vit_small_patch14_dinov2", 224, "class_token", (), True),
    ("vit_small_patch14_dinov2", 56, "average", ("--head", "batch_norm"), True),
    ("vit_base_patch32_clip_quickgelu_224", 224, "class_token", (), True),
    ("vit_base_patch32_clip_quickgelu_224", 64, "max", ("--embedding-dim", 32), False),
    ("vit_base_patch16_clip_224", 64, "average", ("--head", "batch_norm", "--embedding-dim", 32), True),
]


def pixels(folder, paths, mean, std):
    images = [np.asarray(Image.open(folder / path).convert("RGB"), dtype=np.float32) / 255 for path in paths]
    return np.stack([((image - mean) / std).transpose(2, 0, 1) for image in images]).astype(np.float32)


def by_onnxruntime(path, paths, folder, size):
    onnx.checker.check_model(str(path), full_check=True)
    said = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    mean, std = (np.array([float(v) for v in said[key].split(",")], dtype=np.float32) for key in ("mean", "std"))
    assert int(said["size"]) == size and len(said["fingerprint"]) == 64
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = pixels(folder, paths, mean, std)
    whole = session.run(["embeddings"], {"images": x})[0]
    one = session.run(["embeddings"], {"images": x[:1]})[0]
    assert np.abs(whole[:1] - one).max() < 1e-5, "the batch changes the result"
    return whole


def by_timm(path, paths, folder, size):
    config = json.loads((path / "config.json").read_text())
    opened = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
    data = timm.data.resolve_model_data_config(opened)
    assert list(data["input_size"]) == [3, size, size], data
    # Without the configuration, from the weights and what it says of the network.
    fixed = config["pretrained_cfg"]["fixed_input_size"]
    model = timm.create_model(
        config["architecture"], num_classes=config["num_classes"], checkpoint_path=str(path / "model.safetensors"),
        **config["model_args"], **({"dynamic_img_size": True} if fixed else {}),
    ).eval()  # fmt: skip
    x = torch.tensor(pixels(folder, paths, np.array(data["mean"], np.float32), np.array(data["std"], np.float32)))
    with torch.no_grad():
        normalize = torch.nn.functional.normalize
        wanted = normalize(opened(x))
        assert (normalize(model(x)) - wanted).abs().max() < 1e-5, "checkpoint_path: gives something else"
        return wanted.numpy()


def shake(checkpoint):
    """Everything a network has, random from a seed: matrices by their width, vectors around their usual values."""
    generator = torch.Generator().manual_seed(1)
    tensors = load_file(checkpoint / "model.safetensors")
    for name, tensor in sorted(tensors.items()):
        noise = torch.randn(tensor.shape, generator=generator)
        last = name.rsplit(".", 1)[-1]
        if last == "p":
            tensor.copy_(2.5 + 0.1 * noise)
        elif last == "running_var":
            tensor.copy_(1 + 0.3 * noise.clamp(-2, 2))
        elif last == "gamma":
            tensor.copy_(0.3 + 0.1 * noise)
        elif tensor.ndim == 1 and last == "weight":
            tensor.copy_(1 + 0.1 * noise)
        elif tensor.ndim == 1 or last in ("cls_token", "pos_embed"):
            tensor.copy_(0.1 * noise)
        else:
            tensor.copy_(noise / tensor[0].numel() ** 0.5)
    save_file(tensors, checkpoint / "model.safetensors")


def without_head(checkpoint, to):
    """The same backbone with its family's own pooling and nothing behind it."""
    shutil.copytree(checkpoint, to)
    config = json.loads((to / "config.json").read_text())
    config["head"] = {"kind": "pooled"}
    config.pop("pool", None)
    (to / "config.json").write_text(json.dumps(config))
    tensors = load_file(to / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if not k.startswith("head.")}, to / "model.safetensors")
    return to


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--semblance", default="target/release/semblance")
    parser.add_argument("--weights", help="a MobileNetV2 to export as well, as it is")
    parser.add_argument("--only", default="", help="words that a line must contain, such as 'vit gem'")
    args = parser.parse_args()
    program, worst = str(Path(args.semblance).resolve()), 0
    with tempfile.TemporaryDirectory() as temporary:
        room = Path(temporary)

        def run(*words):
            return subprocess.run([program, *map(str, words), "--json", "-q"], cwd=room, capture_output=True, text=True)

        def semblance(*words):
            out = run(*words)
            if out.returncode:
                raise SystemExit(f"{words}: {out.stderr}")
            return json.loads(out.stdout)

        def catalogue(size):
            cat = room / f"cat{size}"
            if not cat.exists():
                semblance("data", "sample", "--out", f"drawn{size}", "--classes", 4, "--images-per-class", 2, "--size", size)
                # As PNG, which every decoder reads alike; decoders of JPEG differ by a level or two.
                for photo in (room / f"drawn{size}").rglob("*.jpg"):
                    to = (cat / photo.relative_to(room / f"drawn{size}")).with_suffix(".png")
                    to.parent.mkdir(parents=True, exist_ok=True)
                    Image.open(photo).convert("RGB").save(to)
            return cat

        def vectors(model, cat, *flags):
            out = room / "vectors"
            shutil.rmtree(out, ignore_errors=True)
            semblance("embed", "--data", cat, "--model", model, *flags, "--out", out)
            items = (out / "items.jsonl").read_text().splitlines()
            return np.load(out / "vectors.npy"), [json.loads(line)["key"] for line in items]

        def export(model, *flags):
            out = room / "exported"
            shutil.rmtree(out, ignore_errors=True)
            semblance("export", "--model", model, *flags, "--out", out)
            return out

        def measured(model, size, in_timm, flags=()):
            cat = catalogue(size)
            wanted, paths = vectors(model, cat, *flags)
            found = by_onnxruntime(export(model, *flags, "--format", "onnx") / "model.onnx", paths, cat, size)
            yield np.abs(found - wanted).max(), ""
            if in_timm is None:
                return
            if in_timm:
                found, what = by_timm(export(model, *flags), paths, cat, size), ""
            else:
                refused = run("export", "--model", model, "--out", "refused")
                assert refused.returncode == 2 and "--without-head" in refused.stderr, refused.stderr
                wanted, paths = vectors(without_head(model, room / "bare"), cat)
                found, what = by_timm(export(model, "--without-head"), paths, cat, size), " (backbone)"
                shutil.rmtree(room / "bare")
            yield np.abs(found - wanted).max(), what

        print("| model | pixels | pooling | head | ONNX Runtime | timm |\n|---|---|---|---|---|---|")

        def report(line, *rest):
            nonlocal worst
            found = list(measured(*rest))
            worst = max(worst, *(value for value, _ in found))
            columns = [f"{value:.1e}{what}" for value, what in found] + ["–"] * (2 - len(found))
            print(f"| {' | '.join([*line, *columns])} |", flush=True)

        for arch, size, pool, head, in_timm in CASES:
            kind = "pooled" if not head else "linear" if head[0] != "--head" else head[1]
            line = [arch, str(size), pool, kind]
            if not all(word in " ".join(line) for word in args.only.split()):
                continue
            semblance(
                "train", "--data", catalogue(size), "--arch", arch, "--pool", pool, *head, "--resize", size, "--crop", size,
                "--train-size", size, "--steps", 1, "--batch", 2, "--holdout", 0, "--lr", 1e-3, "--out", "run",
            )  # fmt: skip
            shake(room / "run" / "last")
            report(line, room / "run" / "last", size, in_timm)
            shutil.rmtree(room / "run")
        if args.weights:
            flags = ("--resize", 64, "--crop", 64)
            report(["mobilenet_v2, ImageNet", "64", "average", "pooled"], Path(args.weights).resolve(), 64, True, flags)
    print(f"\nThe greatest: {worst:.1e}")
    sys.exit(int(worst > LIMIT))


if __name__ == "__main__":
    main()
