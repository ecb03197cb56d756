"""What the page's service worker keeps, run in node with a browser's parts made for it."""

from __future__ import annotations

import json
import subprocess

import pytest
from served import PAGE
from vectors import NODE

pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")

SCOPE = "http://host/faces/"
# Fetches the addresses of argv while the network is there and after, and prints the statuses.
SCRIPT = """
import { readFileSync } from "node:fs";
import vm from "node:vm";
const [file, scope, ...names] = process.argv.slice(1);
const kept = new Map(), heard = {};
let online = true;
const cache = {
  match: async ({ url }) => kept.get(url),
  put: async ({ url }, answer) => { kept.set(url, answer); },
};
const self = { registration: { scope }, addEventListener: (kind, act) => { heard[kind] = act; } };
const fetch = async () => {
  if (!online) throw new TypeError("no network");
  return { ok: true, clone: () => "kept" };
};
const caches = { open: async () => cache };
const world = { self, caches, fetch, location: new URL(scope), URL };
vm.runInNewContext(readFileSync(file, "utf-8"), world);
const found = {};
for (const name of names) {
  const request = { method: "GET", url: new URL(name, scope).href };
  found[name] = [];
  for (online of [true, false]) {
    let answer = "left to the browser";
    heard.fetch({ request, respondWith: (given) => { answer = given; } });
    const told = (own) => (own.ok ? "fresh" : own);
    found[name].push(await Promise.resolve(answer).then(told, () => "failed"));
  }
}
console.log(JSON.stringify(found));
"""


def test_only_files_of_the_page_are_kept() -> None:
    ours = ("", "index.html", "app.js", "app.js?v=2", "built/manifest.json", "built/a.onnx.gz")
    others = ("healthz", "metrics", "openapi.json", "../app.js", "http://other/faces/app.js")
    words = ["--input-type=module", "-e", SCRIPT, str(PAGE / "sw.js"), SCOPE]
    done = subprocess.run(
        [str(NODE), *words, *ours, *others],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert {name: found[name] for name in ours} == {key: ["fresh", "kept"] for key in ours}
    browser = "left to the browser"
    assert {name: found[name] for name in others} == {key: [browser, browser] for key in others}
