// Prints what the page's JavaScript makes of the vectors that a test wrote: node check_vectors.mjs
// FOLDER_OF_THE_PAGE < vectors.json > answers.json

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const page = pathToFileURL(`${process.argv[2]}/`);
const load = (name) => import(new URL(name, page));
const { cutView, resize, roundEven, shrinkFace } = await load("pixels.js");
const { faceTransform, misfit, similarity } = await load("geometry.js");
const { anchorGrid, canvasOf, decode, findFaces, levelSides, merged, suppress } =
  await load("detection.js");
const { faceView, hide, occlusion, readFaces, refineFaces, regionBoxes, withoutRegions } =
  await load("recognition.js");
const { lookAgain } = await load("orientation.js");
const { stretched } = await load("light.js");
const { faceQuality } = await load("quality.js");
const { csv, entry } = await load("tables.js");

const image = ({ data, width, height }) => ({
  data: Uint8ClampedArray.from(Buffer.from(data, "base64")), width, height,
});
const numbers = (values) => [...values];
const TASKS = {
  resize: ({ image: own, width, height }) => numbers(resize(image(own), width, height).data),
  roundEven: ({ values }) => values.map(roundEven),
  similarity: ({ source, target }) => similarity(source, target),
  transform: ({ landmarks, template, size }) => faceTransform(landmarks, template, size),
  view: ({ image: own, transform, size, footprint, channels }) => {
    const source = shrinkFace(image(own), transform, footprint, size);
    return numbers(cutView(source.image, source.transform, size, source.footprint, channels));
  },
  face: ({ image: own, landmarks, model }) => numbers(faceView(image(own), landmarks, model)),
  levels: ({ sizes, settings }) => sizes.map(([w, h]) => levelSides(w, h, settings)),
  anchors: ({ width, height, settings }) => numbers(anchorGrid(width, height, settings).places),
  decode: ({ offsets, anchors, variances }) =>
    anchors.map((anchor, i) => decode(offsets, 14 * i, anchor, variances)),
  suppress: ({ faces, iou }) => suppress(faces, iou).map(({ index }) => index),
  merged: ({ found, sides, longest, trusted }) => merged(found, sides, longest, trusted),
  canvas: ({ image: own, settings }) => {
    const { data, width, height } = canvasOf(image(own), settings);
    return { data: numbers(data), width, height };
  },
  find: async ({ image: own, settings, answers }) => {
    const seen = [];
    const run = async ({ width, height }) => {
      seen.push([width, height]);
      return answers[seen.length - 1];
    };
    return { faces: await findFaces(image(own), settings, run), seen };
  },
  again: async ({ image: own, found, answers, turned }) => {
    const seen = [];
    const look = async ({ data, width, height }) => {
      seen.push({ data: Buffer.from(data).toString("base64"), width, height });
      return answers[seen.length - 1];
    };
    return { faces: await lookAgain(image(own), found, look, turned), seen };
  },
  stretched: ({ image: own }) => {
    const given = image(own);
    const lit = stretched(given);
    return lit === given ? null : numbers(lit.data);
  },
  misfit: ({ faces }) => faces.map(misfit),
  read: ({ views, model, answer }) =>
    readFaces(views.map((view) => Uint8Array.from(view)), model, async () => answer),
  refine: async ({ image: own, faces, model, points }) => {
    const seen = [];
    const run = async (batch) => {
      seen.push(...batch);
      return { points: points.flat(2) };
    };
    return { faces: await refineFaces(image(own), faces, model, run), seen };
  },
  quality: ({ image: own, face }) => faceQuality(image(own), face),
  boxes: ({ side, layout }) => regionBoxes(side, layout),
  hide: ({ view, box, model }) => numbers(hide(Uint8Array.from(view), box, model)),
  // A network that tells how much of each view's upper left quarter is above 100.
  explain: async ({ view, model }) => {
    const { side, classes } = model;
    const run = async (batch, count) => ({
      scores: Array.from({ length: count }, (_, i) => {
        const first = batch.subarray(i * side * side, (i + 1) * side * side);
        const seen = first.filter((value, at) => value > 100 && at % side < side / 2 && at < first.length / 2);
        const share = (4 * seen.length) / first.length;
        return [1 - share, share];
      }).flat(),
    });
    const own = Uint8Array.from(view);
    const { scores } = await run(own, 1);
    return {
      heat: await occlusion(own, classes[1], scores[1], model, run),
      without: await withoutRegions(own, model, run),
    };
  },
  table: ({ pictures, classes }) => ({ json: pictures.map(entry), csv: csv(pictures, classes) }),
};

const answers = {};
for (const [name, { task, ...input }] of Object.entries(JSON.parse(readFileSync(0, "utf8")))) {
  answers[name] = await TASKS[task](input);
}
process.stdout.write(JSON.stringify(answers));
