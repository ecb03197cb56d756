"""The page's camera, run in node with a browser's parts made for it."""

from __future__ import annotations

import json
import subprocess

import pytest
from served import PAGE
from vectors import NODE

pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")

# A camera that gives one picture and then fails; prints what it told, and whether it is on.
SCRIPT = """
import { pathToFileURL } from "node:url";
const { Camera } = await import(pathToFileURL(`${process.argv[1]}/camera.js`));
const element = () => ({
  querySelector: () => null, append() {}, replaceChildren() {}, parentElement: null, hidden: false,
});
const video = { ...element(), parentElement: element() };
globalThis.document = {
  querySelector: (name) => (name === "#video" ? video : element()),
  createElementNS: () => ({ setAttribute() {}, append() {} }),
};
let pictures = 0, stopped = 0;
globalThis.createImageBitmap = async () => {
  if (pictures++) throw new Error("no picture now");
  return {};
};
const told = [];
const found = { width: 8, height: 6, faces: [] };
const camera = new Camera(async () => found, (text) => told.push(text), (on) => told.push(on));
camera.stream = { getTracks: () => [{ stop: () => { stopped += 1; } }] };
await camera.read(camera.stream).catch((error) => told.push(`lost: ${error.message}`));
console.log(JSON.stringify({ told, stopped, on: camera.stream !== null }));
"""


def test_a_camera_that_gives_no_picture_is_told_of_and_switched_off() -> None:
    done = subprocess.run(
        [str(NODE), "--input-type=module", "-e", SCRIPT, str(PAGE)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == {"told": ["no picture now", False], "stopped": 1, "on": False}
