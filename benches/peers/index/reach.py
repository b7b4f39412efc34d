"""Nodes that searches do not find, beside hnswlib, over seeds and numbers of threads.

    python -m venv VENV && VENV/bin/pip install numpy hnswlib
    cargo build --release -p semblance-index --example peer
    VENV/bin/python benches/peers/index/reach.py target/release/examples/peer WORK_DIR

Per graph: nodes without an incoming link on the ground layer (`no in`), nodes that a breadth-first walk over the ground
layer from the entry does not reach (`unreached`), and stored vectors whose search at ef 10, 64 and 256 does not return
first an item that scores as high as the vector itself, less 1e-6. Counts are sums over the seeds.
"""
import argparse
import json
import pathlib
import struct
import subprocess
import os

import hnswlib
import numpy as np

M, EF_CONSTRUCTION, WIDTHS = 16, 200, [10, 64, 256]
NONE = 0xFFFFFFFF


def unit(v):
    return (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32)


def draw(kind, n, dim, seed):
    """`iid`, `clustered` (clusters of 100, sigma 0.07 per dimension) or `copies:NOISE` (clusters of 60)."""
    rng = np.random.default_rng(seed)
    if kind == "iid":
        return unit(rng.standard_normal((n, dim), dtype=np.float32))
    size, sigma = (100, 0.07) if kind == "clustered" else (60, float(kind.partition(":")[2]))
    centres = unit(rng.standard_normal((n // size, dim), dtype=np.float32))
    return unit(centres[np.arange(n) % len(centres)] + sigma * rng.standard_normal((n, dim), dtype=np.float32))


def count(rows, entry):
    """Nodes without incoming links and nodes not reached from the entry; `rows` holds links, NONE where there is none."""
    n = len(rows)
    incoming = np.zeros(n, bool)
    incoming[rows[rows != NONE]] = True
    seen = np.zeros(n, bool)
    seen[entry], front = True, np.array([entry])
    while len(front):
        links = np.unique(rows[front])
        links = links[links != NONE]
        front = links[~seen[links]]
        seen[front] = True
    return int((~incoming).sum()), int((~seen).sum())


def our_graph(folder):
    """The ground layer of an index: a header of eight words, then rows of whole cache lines."""
    (path,) = [p for p in pathlib.Path(folder).rglob("*") if p.is_file() and p.open("rb").read(8) == b"SEMGRPH1"]
    data = path.read_bytes()
    _, nodes, m, entry = struct.unpack_from("<4Q", data)
    stride = -(-2 * m // 16) * 16
    return np.frombuffer(data, "<u4", nodes * stride, 64).reshape(nodes, stride), entry


def their_graph(path):
    """The ground layer of a graph saved by hnswlib: a header, then per node its links (count first), vector and label."""
    data = pathlib.Path(path).read_bytes()
    header = "<6QiIQQQdQ"
    _, _, nodes, size, _, _, _, entry, _, most, *_ = struct.unpack_from(header, data)
    raw = np.frombuffer(data, np.uint8, nodes * size, struct.calcsize(header)).reshape(nodes, size)
    links = np.ascontiguousarray(raw[:, : 4 + 4 * most]).view("<u4")
    rows = links[:, 1:].copy()
    rows[np.arange(most)[None] >= (links[:, :1] & 0xFFFF)] = NONE
    return rows, entry


def ours(program, folder, codes, threads, step):
    env = dict(os.environ, RAYON_NUM_THREADS=str(threads))
    index = folder / "index"
    asks = [f"build {index} {codes} native {M} {EF_CONSTRUCTION}", f"open {index}", *(f"own {ef} {step}" for ef in WIDTHS)]
    ran = subprocess.run([program, folder], input="\n".join(asks) + "\n", capture_output=True, text=True, check=True, env=env)
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    return [*count(*our_graph(index)), *(a["missed"] for a in answers[2:])]


def theirs(base, folder, threads, step):
    index = hnswlib.Index("ip", base.shape[1])
    index.init_index(len(base), M=M, ef_construction=EF_CONSTRUCTION)
    index.add_items(base, num_threads=threads)
    index.save_index(str(folder / "hnswlib"))
    asked, missed = base[::step], []
    for ef in WIDTHS:
        index.set_ef(ef)
        found = index.knn_query(asked, 10)[0][:, 0]
        score, own = (base[found] * asked).sum(1), (asked * asked).sum(1)
        missed.append(int((score < own - 1e-6).sum()))
    return [*count(*their_graph(folder / "hnswlib")), *missed]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--n", type=int, default=60_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--kinds", nargs="+", default=["clustered", "iid", "copies:0.02", "copies:0.002"])
    parser.add_argument("--codes", nargs="+", default=["i8", "f16"])
    parser.add_argument("--step", type=int, default=3, help="of the stored vectors, one in so many is searched for")
    a = parser.parse_args()
    a.folder.mkdir(parents=True, exist_ok=True)
    print("| data | threads | engine | no in | unreached |", *(f"missed at ef {ef} |" for ef in WIDTHS))
    print("|---|---|---|---|---|" + "---|" * len(WIDTHS))
    for kind in a.kinds:
        for threads in a.threads:
            sums = {}
            for seed in range(a.seeds):
                base = draw(kind, a.n, a.dim, seed)
                base.astype("<f4").tofile(a.folder / "base.f32")
                base[:1].astype("<f4").tofile(a.folder / "queries.f32")
                np.zeros(100, "<u4").tofile(a.folder / "truth.u32")
                found = {f"semblance {codes}": ours(a.program, a.folder, codes, threads, a.step) for codes in a.codes}
                found["hnswlib"] = theirs(base, a.folder, threads, a.step)
                for name, counts in found.items():
                    sums[name] = [x + y for x, y in zip(sums.get(name, [0] * len(counts)), counts)]
            for name, counts in sums.items():
                print(f"| {kind} | {threads} | {name} |", *(f"{c} |" for c in counts), flush=True)
