#!/usr/bin/env python3
"""What `semblance export` writes, opened by the programs it is for.

    python3 -m venv venv && venv/bin/pip install torch timm onnx onnxruntime numpy safetensors
    cargo build --release
    venv/bin/python benches/peers/export/check.py [--semblance target/release/semblance] [--weights mobilenet_v2.safetensors]

A drawn catalogue is embedded by Semblance, and by ONNX Runtime and timm from the exported files, over the same pixels. The
untrained networks are trained for a few steps first, so that their running statistics are not those they begin with.
Printed: the greatest difference between any two values of the unit vectors, which may be 1e-4.
"""

import argparse
import json
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
from safetensors.torch import load_file

SIZE, LIMIT = 64, 1e-4


def pixels(folder, paths, mean, std):
    images = [np.asarray(Image.open(folder / path).convert("RGB"), dtype=np.float32) / 255 for path in paths]
    return np.stack([((image - mean) / std).transpose(2, 0, 1) for image in images]).astype(np.float32)


def by_onnxruntime(path, paths, folder):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    said = {entry.key: entry.value for entry in model.metadata_props}
    mean, std = (np.array([float(v) for v in said[key].split(",")], dtype=np.float32) for key in ("mean", "std"))
    assert int(said["size"]) == SIZE and len(said["fingerprint"]) == 64
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = pixels(folder, paths, mean, std)
    whole = session.run(["embeddings"], {"images": x})[0]
    one = session.run(["embeddings"], {"images": x[:1]})[0]
    assert np.abs(whole[:1] - one).max() < 1e-5, "the batch changes the result"
    return whole


def by_timm(path, paths, folder):
    config = json.loads((path / "config.json").read_text())
    model = timm.create_model(config["architecture"], num_classes=config["num_classes"]).eval()
    model.load_state_dict(load_file(path / "model.safetensors"), strict=True)
    data = timm.data.resolve_data_config(pretrained_cfg=config["pretrained_cfg"])
    assert list(data["input_size"]) == [3, SIZE, SIZE], data
    x = torch.tensor(pixels(folder, paths, np.array(data["mean"], np.float32), np.array(data["std"], np.float32)))
    opened = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
    with torch.no_grad():
        wanted = model(x)
        assert torch.equal(opened(x), wanted), "local-dir: opens something else"
        return torch.nn.functional.normalize(wanted).numpy()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--semblance", default="target/release/semblance")
    parser.add_argument("--weights", help="a MobileNetV2 to export as well, as it is")
    args = parser.parse_args()
    program, failed = str(Path(args.semblance).resolve()), False
    with tempfile.TemporaryDirectory() as temporary:
        room = Path(temporary)

        def semblance(*words):
            out = subprocess.run([program, *map(str, words), "--json", "-q"], cwd=room, capture_output=True, text=True)
            if out.returncode:
                raise SystemExit(out.stderr)
            return json.loads(out.stdout)

        semblance("data", "sample", "--out", "drawn", "--classes", 8, "--images-per-class", 4, "--size", SIZE)
        # As PNG, which every decoder reads alike; decoders of JPEG differ by a level or two.
        for photo in (room / "drawn").rglob("*.jpg"):
            to = (room / "cat" / photo.relative_to(room / "drawn")).with_suffix(".png")
            to.parent.mkdir(parents=True, exist_ok=True)
            Image.open(photo).convert("RGB").save(to)
        models = {}
        for arch, dim in [("resnet10_tiny", 32), ("resnet18", 0), ("resnet18", 32), ("resnet50", 0), ("mobilenet_v2", 32)]:
            name = f"{arch}{', linear' if dim else ''}"
            head = ("--embedding-dim", dim) if dim else ()
            semblance(
                "train", "--data", "cat", "--arch", arch, *head, "--resize", SIZE, "--crop", SIZE, "--steps", 3,
                "--batch", 8, "--holdout", 0, "--lr", 0.01, "--out", name.replace(", ", "-"),
            )  # fmt: skip
            models[name] = (room / name.replace(", ", "-") / "last", ())
        if args.weights:
            models["mobilenet_v2, ImageNet"] = (Path(args.weights).resolve(), ("--resize", SIZE, "--crop", SIZE))
        print("| model | ONNX Runtime | timm |")
        print("|---|---|---|")
        for i, (name, (model, size)) in enumerate(models.items()):
            semblance("embed", "--data", "cat", "--model", model, *size, "--out", f"vectors{i}")
            vectors = np.load(room / f"vectors{i}" / "vectors.npy")
            items = (room / f"vectors{i}" / "items.csv").read_text().splitlines()
            column = items[0].split(",").index("path")
            paths = [line.split(",")[column] for line in items[1:]]
            semblance("export", "--model", model, *size, "--format", "onnx", "--out", f"onnx{i}")
            found = [np.abs(by_onnxruntime(room / f"onnx{i}" / "model.onnx", paths, room / "cat") - vectors).max()]
            if not name.startswith("resnet10_tiny"):
                semblance("export", "--model", model, *size, "--out", f"timm{i}")
                found.append(np.abs(by_timm(room / f"timm{i}", paths, room / "cat") - vectors).max())
            failed |= max(found) > LIMIT
            print(f"| {name} | " + " | ".join(f"{v:.1e}" for v in found) + (" |" if len(found) == 2 else " | – |"), flush=True)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
