"""This index beside hnswlib and faiss: one table, interleaved medians, one run.

    python -m venv VENV && VENV/bin/pip install numpy hnswlib faiss-cpu
    cargo build --release -p semblance-index --example peer
    VENV/bin/python benches/peers/index/data.py DATA_DIR
    VENV/bin/python benches/peers/index/bench.py DATA_DIR target/release/examples/peer

Each engine answers the same queries in turn, round after round; a cell is the median over the rounds. Queries per
second at a recall are read between the two widths around it, on a logarithmic scale.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

DIM, M, EF_CONSTRUCTION, K = 512, 16, 200, 10
TARGETS = [0.95, 0.99]


class Ours:
    def __init__(self, program, data, codes, folder, resident=False):
        env = dict(os.environ, RAYON_NUM_THREADS="2")
        self.name = f"semblance {codes}"
        self.child = subprocess.Popen([program, data], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.dir, self.codes, self.stored = os.path.join(folder, codes), codes, float("nan")

    def ask(self, line):
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        answer = self.child.stdout.readline()
        if not answer:
            sys.exit(f"{self.name} ended at {line!r}")
        return json.loads(answer)

    def build(self, builder="native"):
        answer = self.ask(f"build {self.dir} {self.codes} {builder} {M} {EF_CONSTRUCTION}")
        self.stored = answer["stored"]
        return answer["build"]

    def load(self, folder):
        return os.path.exists(os.path.join(self.dir, "manifest.json"))

    def open(self):
        return self.ask(f"open {self.dir}")

    def search(self, ef, threads):
        answer = self.ask(f"search {ef} {threads} 1")
        return answer["qps"][0], answer["recall"]


class Peer:
    def search(self, ef, threads):
        self.set(ef, threads)
        start = time.perf_counter()
        found = self.query()
        seconds = time.perf_counter() - start
        hits = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), self.truth))
        return len(self.queries) / seconds, hits / (K * len(self.queries))


class Hnswlib(Peer):
    name = "hnswlib"

    def __init__(self, queries, truth):
        self.queries, self.truth = queries, truth

    def build(self, base):
        import hnswlib

        start = time.perf_counter()
        self.index = hnswlib.Index("ip", DIM)
        self.index.init_index(len(base), M=M, ef_construction=EF_CONSTRUCTION)
        self.index.set_num_threads(2)
        self.index.add_items(base)
        return time.perf_counter() - start

    def save(self, folder):
        self.index.save_index(os.path.join(folder, "hnswlib"))

    def load(self, folder):
        import hnswlib

        path = os.path.join(folder, "hnswlib")
        if os.path.exists(path):
            self.index = hnswlib.Index("ip", DIM)
            self.index.load_index(path)
        return os.path.exists(path)

    def set(self, ef, threads):
        self.index.set_ef(ef)
        self.index.set_num_threads(threads)

    def query(self):
        return self.index.knn_query(self.queries, K)[0]


class Faiss(Peer):
    name = "faiss HNSW"

    def __init__(self, queries, truth):
        self.queries, self.truth = queries, truth

    def build(self, base):
        import faiss

        faiss.omp_set_num_threads(2)
        start = time.perf_counter()
        self.index = faiss.IndexHNSWFlat(DIM, M, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = EF_CONSTRUCTION
        self.index.add(base)
        return time.perf_counter() - start

    def save(self, folder):
        import faiss

        faiss.write_index(self.index, os.path.join(folder, "faiss"))

    def load(self, folder):
        import faiss

        path = os.path.join(folder, "faiss")
        if os.path.exists(path):
            self.index = faiss.read_index(path)
        return os.path.exists(path)

    def set(self, ef, threads):
        import faiss

        faiss.omp_set_num_threads(threads)
        self.index.hnsw.efSearch = ef

    def query(self):
        return self.index.search(self.queries, K)[1]


def at(points, target):
    """Queries per second at a recall, between the measured points around it."""
    points = sorted(points)
    for (r0, q0), (r1, q1) in zip(points, points[1:]):
        if r0 <= target <= r1 and r1 > r0:
            part = (target - r0) / (r1 - r0)
            return math.exp(math.log(q0) * (1 - part) + math.log(q1) * part)
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("program")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--builds", type=int, default=1)
    parser.add_argument("--exact", type=int, default=0, help="queries of the exact comparison, top 1000; 0 leaves it out")
    parser.add_argument("--efs", type=lambda t: [int(ef) for ef in t.split(",")], default=[12, 16, 24, 32, 48, 64, 96, 128])
    parser.add_argument("--keep", help="folder to keep built indexes in; those in it are opened, not built")
    parser.add_argument("--filters", action="store_true", help="measure filtered search as well")
    a = parser.parse_args()
    efs = a.efs
    read = lambda name, kind, width: np.fromfile(os.path.join(a.data, name), kind).reshape(-1, width)
    base, queries = read("base.f32", "<f4", DIM), read("queries.f32", "<f4", DIM)
    truth = [set(row[:K].tolist()) for row in read("truth.u32", "<u4", 100)]
    temporary = tempfile.TemporaryDirectory()
    folder = a.keep or temporary.name
    os.makedirs(folder, exist_ok=True)
    ours = [Ours(a.program, a.data, codes, folder) for codes in ("f32", "i8")]
    peers = [Hnswlib(queries, truth), Faiss(queries, truth)]

    builds = {e.name: [] for e in ours + peers}
    for _ in range(a.builds):
        for e in peers + ours:
            if a.keep and e.load(folder):
                continue
            builds[e.name].append(e.build(base) if e in peers else e.build())
            print(f"built {e.name}: {builds[e.name][-1]:.1f} s", flush=True)
            if a.keep and e in peers:
                e.save(folder)
    opened = {e.name: [e.open() for _ in range(5)] for e in ours}
    engines = ours + peers
    speed = {(e.name, ef, t): [] for e in engines for ef in efs for t in (1, 2)}
    recall = {}
    for _ in range(a.rounds):
        for threads in (1, 2):
            for ef in efs:
                for e in engines:
                    qps, recall[e.name, ef] = e.search(ef, threads)
                    speed[e.name, ef, threads].append(qps)
    median = statistics.median
    print(f"\nbuild, 2 threads, {len(base)} x {DIM}, M {M}, ef_construction {EF_CONSTRUCTION}, seconds")
    fastest = min((median(builds[e.name]) for e in peers if builds[e.name]), default=0)
    for e in engines:
        if builds[e.name]:
            seconds = median(builds[e.name])
            print(f"  {e.name:16} {seconds:7.1f}   speed ratio {fastest / seconds:5.2f}")
    for e in ours:
        print(f"  {e.name:16} storing first: {e.stored:.1f} s;  open and first query: "
              f"{median(o['with_first_query_ms'] for o in opened[e.name]):.1f} ms")
    for threads in (1, 2):
        print(f"\nqueries/s, {threads} thread(s)\n  {'':16}" + "".join(f"  ef {ef:<11}" for ef in efs))
        for e in engines:
            cells = (f"{median(speed[e.name, ef, threads]):8.0f} {recall[e.name, ef]:.3f}  " for ef in efs)
            print(f"  {e.name:16}" + " ".join(cells))
        for target in TARGETS:
            found = {e.name: at([(recall[e.name, ef], median(speed[e.name, ef, threads])) for ef in efs], target) for e in engines}
            row = "   ".join(f"{n} {q:.0f}" if q else f"{n} -" for n, q in found.items())
            print(f"  at recall {target}: {row}")
            top = max((found[e.name] or 0) for e in peers)
            ratios = ", ".join(f"{e.name} {found[e.name] / top:.2f}" for e in ours if found[e.name] and top)
            print(f"    ratio to the best peer: {ratios}")
    for e in ours:
        e.open()
        e.search(64, 1)
        print(f"\nmemory of {e.name} after searching: {e.ask('memory')}")
    if a.exact:
        import faiss

        flat = faiss.IndexFlatIP(DIM)
        flat.add(base)
        faiss.omp_set_num_threads(2)
        times = {"faiss flat": [], "semblance": []}
        for _ in range(a.rounds):
            start = time.perf_counter()
            flat.search(base[: a.exact], 1000)
            times["faiss flat"].append(time.perf_counter() - start)
            answer = ours[1].ask(f"exact 1000 {a.exact}")
            times["semblance"].append(answer["seconds"])
        print(f"\nexact top 1000, {a.exact} queries, 2 threads, seconds: " + ", ".join(f"{n} {median(t):.2f}" for n, t in times.items()),
              f"  ratio {median(times['faiss flat']) / median(times['semblance']):.2f}")
    for below in (1000, 100, 10, 1) if a.filters else ():
        print("filter", f"{below / 20}%", ours[1].ask(f"filter {below} 64"))


if __name__ == "__main__":
    main()
