// The page: pictures in, faces drawn, results out. Everything is computed in worker.js.

import { Camera } from "./camera.js";
import { csv, entry } from "./tables.js";
import {
  UNCERTAIN, addHeat, bars, boxes, heatSentence, make, percent, regionTable, sentence, square,
} from "./views.js";

const MOST_PIXELS = 50_000_000;
// Files that may move, by how they begin, for names are often wrong: GIF, WebP, AVIF, and PNG with
// the chunk acTL, which comes before the pixels (IDAT). What is read is their first picture, so
// that is what is shown.
const MOVING = /^(GIF8|RIFF....WEBP|....ftypavi)/s;
const BEGINNING = 1 << 20; // bytes, in which colour profiles have room
const STILL = 1600; // pixels of the longer side of such a picture

const $ = (selector) => document.querySelector(selector);
const pictures = [];
let classes = [];
let cleared = 0; // how often

const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map();
worker.addEventListener("message", ({ data }) => {
  const { resolve, reject, progress } = waiting.get(data.id);
  if ("progress" in data) return progress?.(data.progress);
  waiting.delete(data.id);
  if ("error" in data) reject(new Error(data.error));
  else resolve(data.answer);
});
worker.addEventListener("error", (event) => complain(event.message || "The worker cannot start."));

let last = 0;
function ask(task, rest, { progress, transfer = [] } = {}) {
  return new Promise((resolve, reject) => {
    const id = ++last;
    waiting.set(id, { resolve, reject, progress });
    worker.postMessage({ id, task, ...rest }, transfer);
  });
}

const say = (text) => { $("#status").textContent = text; };

function complain(text) {
  const line = make("p", {}, text);
  $("#failure").append(line);
  return line;
}

// The lines of what failed, each until it succeeds, or all are cleared.
// what: a file's name; with a slash, which those do not have, something else.
const failures = new Map();
function fail(what, text) {
  forget(what);
  failures.set(what, complain(text));
  offer();
}
function forget(what) {
  failures.get(what)?.remove();
  failures.delete(what);
  offer();
}

/** Show the buttons for which there is something. */
function offer() {
  $("#none").hidden = pictures.length > 0;
  $("#json").disabled = $("#csv").disabled = !pictures.length;
  $("#actions").hidden = !pictures.length && !failures.size;
}

// Whether the networks are there.
const loaded = load().then(() => true, (error) => {
  $("#loading").hidden = true;
  complain(`The networks cannot be loaded: ${error.message}`);
  return false;
});

async function load() {
  const answer = await fetch("built/manifest.json");
  if (!answer.ok) throw new Error("they are not built; run `make page`, see docs/server.md");
  const manifest = await answer.json();
  classes = manifest.classifier.classes;
  const { threads } = await ask("load", { manifest }, {
    progress: (share) => { $("#progress").value = share; },
  });
  $("#loading").hidden = true;
  const many = threads === 1 ? "1 thread" : `${threads} threads`;
  $("#about").textContent = `pcnn ${manifest.pcnn}, trained on ${manifest.classifier.trained_on}; ${many}.`;
  document.body.dataset.ready = "yes";
  say("Ready.");
  keep();
}

/** Keep the page for later without a network. Not before it is loaded: then the browser has its
 * files, and nothing is fetched twice. */
function keep() {
  navigator.serviceWorker?.register("sw.js").then(
    () => navigator.serviceWorker.ready.then(() => { document.body.dataset.offline = "yes"; }),
    () => {}, // without one the page works, but not offline
  );
}

async function add(files) {
  const before = cleared;
  if (!(await loaded)) return;
  for (const [i, file] of files.entries()) {
    const name = file.name || "pasted picture";
    say(files.length > 1 ? `Reading ${i + 1} of ${files.length}` : `Reading ${name}`);
    try {
      await check(file);
      const found = await ask("predict", { picture: file });
      const image = await still(file, name, found);
      if (cleared !== before) return;
      show({ source: name, ...found }, image);
      forget(name);
    } catch (error) {
      if (cleared !== before) return;
      fail(name, `${name}: ${error.message}`);
      say("");
    }
  }
}

/** Refuse a file that is no picture or too large, before all of its pixels are in memory. */
async function check(file) {
  if (!file.size) throw new Error("is empty");
  const image = new Image();
  image.src = URL.createObjectURL(file);
  try {
    await new Promise((resolve, reject) => {
      image.addEventListener("load", resolve);
      image.addEventListener("error", () => reject(new Error(unreadable(file))));
    });
    const { naturalWidth: width, naturalHeight: height } = image;
    if (width * height > MOST_PIXELS) {
      throw new Error(`${width} × ${height} pixels are more than this page takes`);
    }
  } finally {
    URL.revokeObjectURL(image.src);
  }
}

function unreadable({ name, type }) {
  const kind = /\b(hei[cf]|tiff?|jp2|jxl)$/i.exec(name || type)?.[1].toUpperCase();
  return kind
    ? `this browser cannot read ${kind} files: save it as JPEG or PNG`
    : "this browser cannot read it as a picture";
}

/** The picture on the page; the first one of those that may move. */
async function still(file, name, { width, height }) {
  const beginning = await file.slice(0, BEGINNING).arrayBuffer();
  const text = new TextDecoder("latin1").decode(beginning);
  if (!MOVING.test(text) && !text.split("IDAT", 1)[0].includes("acTL")) {
    const image = make("img", { alt: name });
    image.src = URL.createObjectURL(file);
    return image;
  }
  const scale = Math.min(1, STILL / Math.max(width, height));
  const size = { width: Math.ceil(width * scale), height: Math.ceil(height * scale) };
  const canvas = make("canvas", { ...size, role: "img", "aria-label": name });
  const bitmap = await createImageBitmap(file);
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas;
}

function show(picture, image) {
  pictures.push(picture);
  offer();
  const { source, faces } = picture;
  const list = faces.length
    ? make("ul", { class: "faces" }, ...faces.map((face, i) => card(face, i + 1, faces.length)))
    : make("p", { class: "hint" }, "No face found.");
  const count = faces.length === 1 ? "1 face" : `${faces.length || "no"} faces`;
  $("#pictures").prepend(
    make(
      "article", { class: "picture" },
      make("h3", {}, `${source}: ${count}`),
      make("div", { class: "stage" }, image, boxes(picture)),
      list,
    ),
  );
  const told = faces.map((face, i) => sentence(face, i + 1, faces.length)).join("; ");
  say(`${count} in ${source}${told ? `: ${told}` : ""}`);
}

function card(face, number, count) {
  const canvas = square(face.square, `face ${number}, upright`);
  const why = make("div", { class: "why", "aria-live": "polite" });
  const button = make("button", { type: "button" }, "Why?");
  button.setAttribute("aria-label", `Why is face ${number} read as ${face.label}?`);
  button.addEventListener("click", async () => {
    button.disabled = true;
    const shown = make("p", {}, "Hiding parts of the face …");
    why.replaceChildren(shown);
    try {
      const { view, label, confidence } = face;
      const heat = await ask("explain", { view, label, confidence }, {
        progress: (share) => { shown.textContent = `Hiding parts of the face … ${percent(share)}`; },
      });
      addHeat(canvas, face, heat);
      shown.textContent = heatSentence(heat, face);
      why.append(regionTable(face.regions, heat.without));
    } catch (error) {
      shown.textContent = error.message;
      button.disabled = false;
    }
  });
  const title = make("h4", {}, sentence(face, number, count));
  if (face.confidence < UNCERTAIN) title.className = "doubt";
  return make(
    "li", { class: "face", "data-label": face.label },
    make("div", {}, canvas, button),
    make("div", {}, title, bars(face.scores, face.label)),
    why,
  );
}

function download(name, kind, text) {
  const link = make("a", { download: name });
  link.href = URL.createObjectURL(new Blob([text], { type: kind }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

$("#files").addEventListener("change", ({ target }) => {
  add([...target.files]);
  target.value = ""; // so that the same one can be chosen again
});
addEventListener("paste", ({ clipboardData }) => {
  if (clipboardData.files.length) add([...clipboardData.files]);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault(); // else the browser would open what is dropped
    $("#drop").classList.toggle("over", kind === "dragover");
    if (kind !== "drop") return;
    forget("/drop");
    if (event.dataTransfer.files.length) add([...event.dataTransfer.files]);
    else fail("/drop", "That is no picture.");
  });
}

const camera = new Camera(ask, (text) => fail("/camera", text), (on) => {
  $("#camera").setAttribute("aria-pressed", on);
  $("#camera").textContent = on ? "Switch the camera off" : "Switch the camera on";
});
$("#camera").addEventListener("click", async ({ currentTarget: button }) => {
  if (!(await loaded)) return;
  forget("/camera");
  if (camera.stream) return camera.stop();
  button.disabled = true;
  await camera.start();
  button.disabled = false;
  button.focus();
});

$("#json").addEventListener("click", () => {
  download("faces.json", "application/json", `${JSON.stringify(pictures.map(entry), null, 2)}\n`);
});
$("#csv").addEventListener("click", () => {
  download("faces.csv", "text/csv", csv(pictures, classes));
});
$("#clear").addEventListener("click", () => {
  for (const image of document.querySelectorAll("#pictures img")) URL.revokeObjectURL(image.src);
  pictures.length = 0;
  cleared += 1;
  for (const what of failures.keys()) forget(what);
  $("#pictures").replaceChildren();
  offer();
  say("Cleared.");
  $("#files").focus();
});
