"""Clustered unit vectors, the same for the same seed: `python data.py OUT_DIR [--latent N --noise X --sigma X]`.
Or the vectors of a .npy file, shuffled and made unit vectors: `python data.py OUT_DIR --npy FILE`.

Centres and the spread around them live in a space of few dimensions, as the vectors of photographs do, mapped to all
of them by a random matrix, plus a little noise in every dimension.
"""
import argparse
import pathlib

import numpy as np


def generate(n, dim, clusters, latent, sigma, noise, seed):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, latent), dtype=np.float32)
    mapping = rng.standard_normal((latent, dim), dtype=np.float32) / np.sqrt(latent)
    points = centres[rng.integers(0, clusters, n)] + sigma * rng.standard_normal((n, latent), dtype=np.float32)
    vectors = points @ mapping + noise * rng.standard_normal((n, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--npy", type=pathlib.Path, help="a matrix of vectors, of which --queries become queries")
    parser.add_argument("--n", type=int, default=60_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--clusters", type=int, default=11_316)
    parser.add_argument("--latent", type=int, default=32)
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--noise", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    if a.npy:
        vectors = np.load(a.npy).astype(np.float32)
        np.random.default_rng(a.seed).shuffle(vectors)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        a.n = len(vectors) - a.queries
    else:
        vectors = generate(a.n + a.queries, a.dim, a.clusters, a.latent, a.sigma, a.noise, a.seed)
    vectors[: a.n].astype("<f4").tofile(a.out / "base.f32")
    vectors[a.n :].astype("<f4").tofile(a.out / "queries.f32")
    best = []
    for query in np.array_split(vectors[a.n :], 20):
        best.append(np.argsort(-(query @ vectors[: a.n].T), axis=1, kind="stable")[:, :100])
    np.concatenate(best).astype("<u4").tofile(a.out / "truth.u32")
