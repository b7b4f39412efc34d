// A catalogue the program draws, its index, and the server over it, in a folder that goes away.

import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const BINARY = process.env.SEMBLANCE ?? new URL("../../target/debug/semblance", import.meta.url).pathname;

export async function serve(more = [], environment = {}) {
  const dir = mkdtempSync(join(tmpdir(), "semblance-browser-"));
  const run = (...args) => execFileSync(BINARY, args, { cwd: dir, stdio: "pipe" });
  run("data", "sample", "--quiet", "--out", "cat", "--classes", "12", "--images-per-class", "4", "--size", "96");
  run("index", "build", "--quiet", "--data", "cat", "--name", "shop", "--model", "random:resnet10_tiny", "--crop", "64");
  const child = spawn(BINARY, ["serve", "--index", "shop", "--listen", "127.0.0.1:0", "--log-level", "error", ...more],
    { cwd: dir, stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, ...environment } });
  const line = await new Promise((done, failed) => {
    createInterface(child.stdout).once("line", done);
    child.once("exit", (code) => failed(new Error(`the server ended with ${code}`)));
  });
  const photos = readdirSync(join(dir, "cat"), { recursive: true }).map(String).filter((name) => name.endsWith(".jpg")).sort();
  return {
    url: line.split(" ")[0],
    dir,
    photos,
    photo: (at) => join(dir, "cat", photos[at]),
    async stop() {
      const ended = new Promise((done) => child.once("exit", done));
      child.kill("SIGTERM");
      await ended;
      rmSync(dir, { recursive: true });
    },
  };
}
