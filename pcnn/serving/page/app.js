// The page: pictures in, faces drawn, results out. Everything is computed in worker.js.

import { Camera } from "./camera.js";
import { csv, entry } from "./tables.js";
import {
  UNCERTAIN, addHeat, bars, boxes, heatSentence, make, percent, regionTable, sentence, square,
} from "./views.js";

const $ = (selector) => document.querySelector(selector);
const pictures = [];
let classes = [];

const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map();
worker.addEventListener("message", ({ data }) => {
  const { resolve, reject, progress } = waiting.get(data.id);
  if ("progress" in data) return progress?.(data.progress);
  waiting.delete(data.id);
  if ("error" in data) reject(new Error(data.error));
  else resolve(data.answer);
});
worker.addEventListener("error", (event) => fail(event.message || "The worker cannot start."));

let last = 0;
function ask(task, rest, { progress, transfer = [] } = {}) {
  return new Promise((resolve, reject) => {
    const id = ++last;
    waiting.set(id, { resolve, reject, progress });
    worker.postMessage({ id, task, ...rest }, transfer);
  });
}

const say = (text) => { $("#status").textContent = text; };
const fail = (text) => { $("#failure").textContent = text; };

const loaded = load().catch((error) => {
  fail(`The networks cannot be loaded: ${error.message}`);
  throw error;
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
  fail("");
  await loaded;
  for (const [i, file] of files.entries()) {
    const name = file.name || "pasted picture";
    say(files.length > 1 ? `Reading ${i + 1} of ${files.length}` : `Reading ${name}`);
    try {
      const found = await ask("predict", { picture: file });
      show({ source: name, ...found }, file);
    } catch (error) {
      fail(`${name}: ${error.message}`);
    }
  }
}

function show(picture, file) {
  pictures.push(picture);
  $("#none").hidden = true;
  $("#actions").hidden = false;
  const { source, faces } = picture;
  const image = make("img", { alt: source });
  image.src = URL.createObjectURL(file);
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
      shown.textContent = heatSentence(heat, face.label);
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
const pictured = (items) => [...items].filter((file) => file.type.startsWith("image/"));
addEventListener("paste", ({ clipboardData }) => {
  const found = pictured(clipboardData.files);
  if (found.length) add(found);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault(); // else the browser would open what is dropped
    $("#drop").classList.toggle("over", kind === "dragover");
    if (kind !== "drop") return;
    const found = pictured(event.dataTransfer.files);
    if (found.length) add(found);
    else fail("That is no picture.");
  });
}

const camera = new Camera(ask, fail);
$("#camera").addEventListener("click", async ({ currentTarget: button }) => {
  fail("");
  await loaded;
  const on = camera.stream ? (camera.stop(), false) : await camera.start();
  button.setAttribute("aria-pressed", on);
  button.textContent = on ? "Switch the camera off" : "Switch the camera on";
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
  $("#pictures").replaceChildren();
  $("#none").hidden = false;
  $("#actions").hidden = true;
  say("Cleared.");
  $("#files").focus();
});
