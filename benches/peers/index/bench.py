"""This index beside hnswlib and faiss: one table, interleaved medians, one run.

    python -m venv VENV && VENV/bin/pip install numpy hnswlib faiss-cpu
    cargo build --release -p semblance-index --example peer
    VENV/bin/python benches/peers/index/data.py DATA_DIR
    VENV/bin/python benches/peers/index/bench.py DATA_DIR target/release/examples/peer RESULTS_DIR

Each engine answers the same queries in turn, round after round, a few times in a row (a thousand queries last a few
hundredths of a second, and the first find the others' data in the caches); a cell is the median over the rounds. Queries per
second at a recall are read between the two widths around it, on a logarithmic scale.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time

import numpy as np

M, EF_CONSTRUCTION, K = 16, 200, 10
TARGETS = [0.95, 0.99]


class Ours:
    def __init__(self, program, data, codes, folder):
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

    def open(self):
        return self.ask(f"open {self.dir}")

    def search(self, ef, threads, repeat):
        answer = self.ask(f"search {ef} {threads} {repeat}")
        return statistics.median(answer["qps"]), answer["recall"]


class Peer:
    def search(self, ef, threads, repeat):
        self.set(ef, threads)
        speeds = []
        for _ in range(repeat):
            start = time.perf_counter()
            found = self.query()
            speeds.append(len(self.queries) / (time.perf_counter() - start))
        hits = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), self.truth))
        return statistics.median(speeds), hits / (K * len(self.queries))


class Hnswlib(Peer):
    name = "hnswlib"

    def __init__(self, queries, truth):
        self.queries, self.truth = queries, truth

    def build(self, base):
        import hnswlib

        start = time.perf_counter()
        self.index = hnswlib.Index("ip", base.shape[1])
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
            self.index = hnswlib.Index("ip", self.queries.shape[1])
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
        self.index = faiss.IndexHNSWFlat(base.shape[1], M, faiss.METRIC_INNER_PRODUCT)
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


def memory_of_hnswlib(path, dim):
    """Anonymous memory a loaded index takes, in MiB, in a process of its own."""
    code = (
        "import hnswlib, sys\n"
        "rss = lambda: int(next(l for l in open('/proc/self/status') if l.startswith('RssAnon')).split()[1])\n"
        f"before = rss(); index = hnswlib.Index('ip', {dim}); index.load_index(sys.argv[1]); print((rss() - before) / 1024)"
    )
    return float(subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout)


def build(a, base, ours, peers, seconds):
    for _ in range(a.builds):
        for e in peers + ours:
            value = e.build(base) if e in peers else e.build()
            seconds.setdefault(e.name, []).append(value)
            print(f"built {e.name}: {value:.1f} s", flush=True)
            if e in peers:
                e.save(a.keep)


def search(a, ours, peers, results):
    for e in ours:
        e.open()
    for e in peers:
        e.load(a.keep)
    for _ in range(a.rounds):
        for threads in (1, 2):
            for ef in a.efs:
                for e in ours + peers:
                    qps, recall = e.search(ef, threads, a.repeat)
                    results["recall"].setdefault(e.name, {})[str(ef)] = recall
                    results["speed"].setdefault(f"{threads}", {}).setdefault(e.name, {}).setdefault(str(ef), []).append(qps)


def memory(a, dim, results):
    results["memory"] = {"hnswlib": memory_of_hnswlib(os.path.join(a.keep, "hnswlib"), dim)}
    fresh = Ours(a.program, a.data, "i8", a.keep)
    before = fresh.ask("memory")
    fresh.open()
    fresh.search(64, 1, 1)
    after = fresh.ask("memory")
    for kind in ("anonymous_mib", "mapped_mib"):
        results["memory"][kind] = after[kind] - before[kind]


def exact(a, base, ours, results):
    import faiss

    a.exact = min(a.exact, len(base))
    flat = faiss.IndexFlatIP(base.shape[1])
    flat.add(base)
    faiss.omp_set_num_threads(2)
    ours.open()
    for _ in range(a.rounds if a.exact < 20_000 else 1):
        answer = ours.ask(f"exact 1000 {a.exact}")
        results["exact"].setdefault("ours", []).append(answer["seconds"])
        results["exact"]["peak_mib"] = answer["peak_mib"]
        start = time.perf_counter()
        flat.search(base[: a.exact], 1000)
        results["exact"].setdefault("faiss flat", []).append(time.perf_counter() - start)
    results["exact"]["queries"] = a.exact


def table(results):
    """Every bar, what was measured, and whether it is met."""
    median, rows = statistics.median, []

    def row(what, ours, peer, ratio, bar, met):
        rows.append((what, ours, peer, f"{ratio:.2f}", bar, "yes" if met else "NO"))

    peers = ("hnswlib", "faiss HNSW")
    for threads, speed in sorted(results["speed"].items()):
        for codes, bar in (("f32", 1.3), ("i8", 2.5 if threads == "1" else 1.3)):
            for target in TARGETS:
                found = {n: at([(results["recall"][n][ef], median(q)) for ef, q in points.items()], target) for n, points in speed.items()}
                mine, best = found[f"semblance {codes}"], max(peers, key=lambda n: found[n] or 0)
                if mine and found[best]:
                    row(f"queries/s, {codes}, {threads} thread(s), ann_recall@10 {target}", f"{mine:.0f}", f"{found[best]:.0f} ({best})", mine / found[best], f">= {bar}", mine / found[best] >= bar)
    builds = {n: median(t) for n, t in results["build"].items() if t}
    for codes in ("f32", "i8"):
        name = f"semblance {codes}"
        if name in builds:
            best = min(peers, key=lambda n: builds.get(n, math.inf))
            row(f"build, {codes}, 2 threads", f"{builds[name]:.1f} s", f"{builds[best]:.1f} s ({best})", builds[best] / builds[name], ">= 1.0", builds[best] >= builds[name])
    if results["memory"]:
        m = results["memory"]
        row("memory, i8", f"{m['anonymous_mib']:.0f} MiB (+ {m['mapped_mib']:.0f} of mapped files)", f"{m['hnswlib']:.0f} MiB (hnswlib)", m["anonymous_mib"] / m["hnswlib"], "<= 0.4", m["anonymous_mib"] <= 0.4 * m["hnswlib"])
    for name, times in results["open"].items():
        row(f"open and first query, {name.split()[1]}", f"{median(times):.1f} ms", "", median(times) / 50, "< 50 ms", median(times) < 50)
    if results["exact"]:
        x = results["exact"]
        mine, peer = median(x["ours"]), median(x["faiss flat"])
        row(f"exact top 1000, {x['queries']} queries, 2 threads", f"{mine:.1f} s", f"{peer:.1f} s (faiss flat)", peer / mine, ">= 1.5", peer / mine >= 1.5)
        row("memory of that, peak", f"{x['peak_mib']} MiB", "", x["peak_mib"] / 1024, "< 1 GiB", x["peak_mib"] < 1024)
    for share, f in results["filter"].items():
        row(f"filter letting {share} % through: recall", f"{f['recall']:.3f}", "1 (exact)", f["recall"], ">= 0.99", f["recall"] >= 0.99)
        row(f"filter letting {share} % through: queries/s", f"{f['qps']:.0f}", f"{f['exact_qps']:.0f} (exact)", f["qps"] / f["exact_qps"], ">= 1", f["qps"] >= 0.95 * f["exact_qps"])
    print("\n| bar | ours | the better peer | ratio | wanted | met |\n|---|---|---|---|---|---|")
    for cells in rows:
        print("| " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("program")
    parser.add_argument("keep", help="folder for built indexes and results; phases left out are taken from it")
    parser.add_argument("--phases", default="build,open,search,memory,exact,filter")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=3, help="times an engine answers all queries in a row, of which the median counts")
    parser.add_argument("--builds", type=int, default=1)
    parser.add_argument("--exact", type=int, default=60_000, help="queries of the exact comparison, top 1000")
    parser.add_argument("--efs", type=lambda t: [int(ef) for ef in t.split(",")], default=[12, 16, 24, 32, 48, 64, 96, 128])
    a = parser.parse_args()
    read = lambda name, kind, width: np.fromfile(os.path.join(a.data, name), kind).reshape(-1, width)
    truth = read("truth.u32", "<u4", 100)
    dim = read("queries.f32", "<f4", 1).size // len(truth)
    base, queries = read("base.f32", "<f4", dim), read("queries.f32", "<f4", dim)
    truth = [set(row[:K].tolist()) for row in truth]
    os.makedirs(a.keep, exist_ok=True)
    ours = [Ours(a.program, a.data, codes, a.keep) for codes in ("f32", "i8")]
    peers = [Hnswlib(queries, truth), Faiss(queries, truth)]
    path, phases = os.path.join(a.keep, "results.json"), a.phases.split(",")
    results = json.load(open(path)) if os.path.exists(path) else {}
    for part in ("build", "open", "recall", "speed", "memory", "exact", "filter"):
        results.setdefault(part, {})
    if "build" in phases:
        results["build"] = {}
        build(a, base, ours, peers, results["build"])
    if "search" in phases:
        results.update({"recall": {}, "speed": {}})
        search(a, ours, peers, results)
    if "open" in phases:
        results["open"] = {e.name: [e.open()["with_first_query_ms"] for _ in range(21)] for e in ours}
    if "memory" in phases:
        memory(a, base.shape[1], results)
    if "exact" in phases:
        results["exact"] = {}
        exact(a, base, ours[1], results)
    if "filter" in phases:
        ours[1].open()
        results["filter"] = {f"{below / 20:g}": ours[1].ask(f"filter {below} 64") for below in (1000, 100, 10, 1)}
    with open(path, "w") as file:
        json.dump(results, file)
    for threads, speed in sorted(results["speed"].items()):
        print(f"\nqueries/s and recall, {threads} thread(s)")
        for name, points in speed.items():
            print(f"  {name:16}" + "  ".join(f"ef {ef} {statistics.median(q):.0f} {results['recall'][name][ef]:.3f}" for ef, q in points.items()))
    table(results)


if __name__ == "__main__":
    main()
