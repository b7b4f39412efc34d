"""What every measurement on Grocery shares: which classes are learnt and which never seen, lists, training, evaluation.

The 81 classes are split once by a seed, and written down in split.json: 41 are learnt, 40 never seen. Photographs of
train.txt alone are learnt from. Queries are those of val.txt, the gallery those of train.txt, of the learnt classes
("learnt") or of the others ("unseen"). Settings are chosen on neither: 12 of the 41 classes are held out of training
for that, and the later half of their photographs in train.txt searched among the first two of each class, since
neighbouring photographs look alike and among many of them nearly every search would succeed.
"""

import csv
import json
import random
import shutil
import statistics
import subprocess
import time
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
SPLIT = HERE / "split.json"
LEARNT, HELD_OUT, CHOOSE_SEED = 41, 12, 100
BATCH = 32
# The short side before the crop, in torchvision's proportion.
RESIZE = {64: 73, 96: 110, 112: 128, 128: 146, 160: 182, 192: 219, 224: 256}

# The paper's or reference's settings, which are the program's defaults, but for those that are normalised here.
NORMALIZED = ["--normalize", "--scale", "20"]
CLASSIFYING = {
    "softmax": NORMALIZED,
    "arcmargin": [],
    "subcenter": [],
    "soft_triple": [],
    "proxy_nca": [],
    "proxy_anchor": [],
}
PAIRS = ["--per-class", "4"]
COMPARING = {
    "triplet": [*PAIRS, "--miner", "semi-hard"],
    "quadruplet": PAIRS,
    "eml": [*PAIRS, *NORMALIZED],
    "npairs": ["--per-class", "2", *NORMALIZED],
    "contrastive": PAIRS,
    "multi_similarity": PAIRS,
    "circle": PAIRS,
    "supcon": PAIRS,
    "smooth_ap": PAIRS,
    "recall_surrogate": PAIRS,
}
LOSSES = CLASSIFYING | COMPARING
# Learning rates to choose from; the losses' gradients differ in size by orders of magnitude.
RATES = (0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
FIRST_RATE = 0.003


class Failed(Exception):
    """A training that diverged or exploded: a result, not a mistake."""


class Program:
    """The program, Grocery and a room to work in."""

    arch = "mobilenet_v2"
    frozen_norms = True

    def __init__(self, semblance, grocery, weights, work):
        self.path, self.weights = Path(semblance).resolve(), Path(weights).resolve()
        self.grocery, self.work = Path(grocery).resolve(), Path(work).resolve()
        self.lists = self.work / "lists"
        self.version = subprocess.run(
            [self.path, "--version"], capture_output=True, text=True, check=True
        ).stdout.strip()
        self.write_lists()

    def ask(self, *words):
        """What a command prints as JSON."""
        command = [str(word) for word in (self.path, *words, "--json", "--quiet")]
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode:
            reason = ran.stderr.strip()
            if "A lower learning rate" in reason:
                raise Failed(reason)
            raise SystemExit(f"{' '.join(command)}\n{reason}")
        return json.loads(ran.stdout)

    def write_lists(self):
        """Tables of the photographs of each part, below the room."""
        found = {}
        for name in ("train", "val"):
            with open(self.grocery / f"{name}.txt") as file:
                found[name] = [row for row in csv.reader(file, skipinitialspace=True) if row]
        if not SPLIT.exists():
            SPLIT.write_text(in_lines(new_split({int(row[1]) for row in found["train"]})))
        split = json.loads(SPLIT.read_text())
        learnt, unseen, held_out = (set(split[key]) for key in ("learnt", "unseen", "held_out_to_choose"))
        self.lists.mkdir(parents=True, exist_ok=True)

        def write(name, rows):
            with open(self.lists / f"{name}.csv", "w", newline="") as file:
                csv.writer(file).writerows([["path", "class", "super_class"], *rows])

        for name, rows in found.items():
            write(f"learnt-{name}", [row for row in rows if int(row[1]) in learnt])
            write(f"unseen-{name}", [row for row in rows if int(row[1]) in unseen])
        write("choose-train", [row for row in found["train"] if int(row[1]) in learnt - held_out])
        by_class = defaultdict(list)
        for row in sorted(found["train"]):
            if int(row[1]) in held_out:
                by_class[row[1]].append(row)
        write("choose-gallery", [row for rows in by_class.values() for row in rows[:2]])
        write("choose-queries", [row for rows in by_class.values() for row in rows[len(rows) // 2 :]])

    def train(
        self, out, *, loss, lr, seed, steps, data="learnt-train", size=96, train_size=None, init=None, flags=None
    ):
        """Trains into the folder `out`; the seconds it took, and the losses of its steps."""
        shutil.rmtree(out, ignore_errors=True)
        start = ["--init", init] if init else ["--model", self.weights, "--resize", RESIZE[size], "--crop", size]
        # Class weights and proxies start at random, far from where pre-trained features want them.
        own = ["--loss-lr", 10] if loss in CLASSIFYING else []
        began = time.monotonic()
        self.ask(
            "train", "--data", self.lists / f"{data}.csv", "--root", self.grocery, *start, "--out", out,
            "--loss", loss, *(LOSSES[loss] if flags is None else flags), *own,
            "--batch", BATCH, "--steps", steps, "--lr", lr, "--nesterov", "--lr-schedule", "cosine",
            "--train-size", train_size or size, "--crop-min", 0.3, "--holdout", 0,
            "--freeze-norms", "all" if self.frozen_norms else "none", "--save-every", steps, "--seed", seed,
        )  # fmt: skip
        seconds = time.monotonic() - began
        log = [json.loads(line) for line in (Path(out) / "train.jsonl").read_text().splitlines()]
        return seconds, [line["loss"] for line in log if "loss" in line]

    def evaluate(self, model, parts, size=None):
        """Recall@1 and MAP@R of each part by exact search; `size` is for weight files, checkpoints have their own."""
        bare = ["--arch", self.arch, "--resize", RESIZE[size], "--crop", size] if size else []
        measured = {}
        for part in parts:
            gallery, queries = ("gallery", "queries") if part == "choose" else ("train", "val")
            report = self.ask(
                "eval", "--model", model, *bare, "--data", self.lists / f"{part}-{gallery}.csv",
                "--queries", self.lists / f"{part}-{queries}.csv", "--root", self.grocery, "-k", 1,
            )  # fmt: skip
            search = report["searches"][0]
            measured[part] = {
                "recall_at_1": search["recall_at_k"][0]["value"],
                "map_at_r": search["map_at_r"],
                "queries": report["query_counts"]["scored"],
                "gallery": report["gallery_items"],
            }
        return measured


def new_split(classes):
    """81 classes in two, and of the first those held out to choose settings by."""
    classes = sorted(classes)
    random.Random(0).shuffle(classes)
    learnt, unseen = sorted(classes[:LEARNT]), sorted(classes[LEARNT:])
    held_out = list(learnt)
    random.Random(CHOOSE_SEED).shuffle(held_out)
    return {"learnt": learnt, "unseen": unseen, "held_out_to_choose": sorted(held_out[:HELD_OUT])}


def in_lines(parts):
    """JSON, a part a line."""
    return "{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in parts.items()) + "\n}\n"


def spread(values, digits=3):
    """Mean ± standard deviation."""
    if not values:
        return "–"
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"
