// The networks, in a thread of their own so that the page stays quick. One message, one answer.

import { findFaces } from "./detection.js";
import { lookAgain } from "./orientation.js";
import { faceQuality } from "./quality.js";
import {
  faceSquare, faceView, occlusion, readFaces, refineFaces, withoutRegions,
} from "./recognition.js";

const SQUARE = 200; // pixels of a face that is drawn
const MOST_THREADS = 4;
let ready;

/** The bytes of a file of ours, unpacked; progress is told of as they come. */
async function fetched({ file, bytes, unpacked_bytes: unpacked }, progress) {
  const answer = await fetch(file);
  if (!answer.ok) throw new Error(`${file}: ${answer.status} ${answer.statusText}`);
  const parts = [];
  const reader = answer.body.getReader();
  for (let part; (part = await reader.read()), !part.done; ) {
    parts.push(part.value);
    progress(part.value.length);
  }
  const came = new Blob(parts);
  // A server may have said that it is packed: then the browser has unpacked it already.
  if (came.size !== bytes && came.size !== unpacked) {
    throw new Error(`${file}: has ${came.size} bytes, expected ${bytes}`);
  }
  const stream = came.size === unpacked
    ? came.stream()
    : came.stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function load({ manifest }, tell) {
  const { runtime, classifier, detector, landmarks } = manifest;
  const parts = [runtime.wasm, classifier, detector, landmarks];
  const total = parts.reduce((sum, part) => sum + part.bytes, 0);
  let loaded = 0;
  const progress = (bytes) => tell({ progress: Math.min(1, (loaded += bytes) / total) });
  const [wasm, ...networks] = await Promise.all(parts.map((part) => fetched(part, progress)));
  const ort = await import(new URL(runtime.module.file, location.href).href);
  ort.env.wasm.wasmPaths = {
    mjs: new URL(runtime.loader.file, location.href).href,
    wasm: new URL(runtime.wasm.file, location.href).href,
  };
  ort.env.wasm.wasmBinary = wasm.buffer;
  const cores = navigator.hardwareConcurrency || 1;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(MOST_THREADS, cores) : 1;
  ort.env.logLevel = "error";
  const [reads, finds, points] = await Promise.all(
    networks.map((network) => ort.InferenceSession.create(network)),
  );
  const values = (answer) =>
    Object.fromEntries(Object.entries(answer).map(([name, tensor]) => [name, tensor.data]));
  const wanted = classifier.regions.length ? ["scores", "region_scores"] : ["scores"];
  const faces = (batch, count, { side, mean }) =>
    new ort.Tensor("uint8", batch, [count, mean.length, side, side]);
  ready = {
    ...{ classifier, detector, landmarks },
    async find({ data, width, height }) {
      const image = new ort.Tensor("uint8", data, [1, height, width, 3]);
      return values(await finds.run({ image }));
    },
    async point(batch, count) {
      return values(await points.run({ face: faces(batch, count, landmarks) }));
    },
    async read(batch, count) {
      return values(await reads.run({ face: faces(batch, count, classifier) }, wanted));
    },
  };
  return { threads: ort.env.wasm.numThreads };
}

/** The upright pixels of a picture, transparency laid on white. picture: a Blob or ImageBitmap. */
async function pixelsOf(picture) {
  let bitmap = picture;
  if (picture instanceof Blob) {
    try {
      // Colours as the file has them, as pcnn reads it.
      const as = { imageOrientation: "from-image", colorSpaceConversion: "none" };
      bitmap = await createImageBitmap(picture, as);
    } catch {
      throw new Error("this browser cannot read it as a picture");
    }
  }
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}

/** squares: whether each face's view, square and quality are wanted, too. turned: whether faces
 * may lie on their side or upside down, see lookAgain. */
async function predict({ picture, maxSide, most = 100, squares = true, turned = true }) {
  const { classifier, detector, landmarks, find, point, read } = ready;
  const image = await pixelsOf(picture);
  const look = (seen, confidence = detector.confidence) =>
    findFaces(seen, { ...detector, confidence }, find, maxSide);
  const rough = (await lookAgain(image, await look(image), look, turned)).slice(0, most);
  const found = await refineFaces(image, rough, landmarks, point);
  const views = found.map((face) => faceView(image, face.landmarks, classifier));
  const answers = await readFaces(views, classifier, read);
  const faces = found.map((face, i) => ({
    ...face,
    ...answers[i],
    quality: squares ? faceQuality(image, face) : null,
    view: squares ? views[i] : null,
    square: squares ? faceSquare(image, face.landmarks, classifier, SQUARE) : null,
  }));
  return { width: image.width, height: image.height, faces };
}

const TASKS = {
  load,
  predict,
  async explain({ view, label, confidence }, tell) {
    const { classifier, read } = ready;
    const progress = (share) => tell({ progress: share });
    const heat = await occlusion(view, label, confidence, classifier, read, progress);
    return { ...heat, without: await withoutRegions(view, classifier, read) };
  },
};

// One after another: a session runs one thing at a time.
let queue = Promise.resolve();
self.addEventListener("message", ({ data: { id, task, ...rest } }) => {
  queue = queue.then(async () => {
    try {
      const answer = await TASKS[task](rest, (more) => self.postMessage({ id, ...more }));
      self.postMessage({ id, answer });
    } catch (error) {
      self.postMessage({ id, error: error.message });
    }
  });
});
