"""Random square crops of photographs, so that a few thousand give the vectors of many: `python crops.py OUT_DIR FOLDER...`.

Each photograph gives N crops of 40 to 100 % of its shorter side, wherever they fall, 256 pixels wide. Nothing else is
changed. What they are embedded to is then measured with `data.py --npy` and `bench.py`.
"""
import argparse
import pathlib
import random

from PIL import Image, ImageOps

parser = argparse.ArgumentParser()
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("folders", type=pathlib.Path, nargs="+")
parser.add_argument("--crops", type=int, default=7)
parser.add_argument("--seed", type=int, default=0)
a = parser.parse_args()
draw = random.Random(a.seed)
a.out.mkdir(parents=True, exist_ok=True)
photos = sorted(p for folder in a.folders for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
for number, path in enumerate(photos):
    photo = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    for crop in range(a.crops):
        side = round(min(photo.size) * draw.uniform(0.4, 1.0))
        left, top = draw.randint(0, photo.width - side), draw.randint(0, photo.height - side)
        box = (left, top, left + side, top + side)
        photo.resize((256, 256), Image.Resampling.BICUBIC, box).save(a.out / f"{number:05}-{crop}.jpg", quality=92)
