// A face's expression from an image, and where in the face it lies.

import { faceTransform, similarity } from "./geometry.js";
import { clamp, cutView, shrinkFace } from "./pixels.js";

// Squares that are hidden one after another: their side and their distance, as shares of the face.
const HIDDEN = 1 / 4;
const STEP = 1 / 12;
const AT_ONCE = 10;

/** The face as a network takes it, (channels, side, side) bytes. */
export function faceView(image, landmarks, model) {
  const { side, mean } = model;
  const transform = faceTransform(landmarks, model.template, side);
  const source = shrinkFace(image, transform, model.footprint, side);
  return cutView(source.image, source.transform, side, source.footprint, mean.length);
}

/** The same bytes of several faces after one another, as networks take them. */
function joined(views, { side, mean }) {
  const size = mean.length * side * side;
  const batch = new Uint8Array(views.length * size);
  views.forEach((view, i) => batch.set(view, i * size));
  return batch;
}

/** An image's faces with better landmarks, which a network sees in the face that the first ones
 * align: what faces/landmarks.py does. run: views → {points}, shares of the view's side. */
export async function refineFaces(image, faces, model, run) {
  if (!faces.length) return faces;
  const views = faces.map(({ landmarks }) => faceView(image, landmarks, model));
  const { points } = await run(joined(views, model), faces.length);
  return faces.map((face, i) => {
    const [across, down] = similarity(model.template, face.landmarks);
    const place = ([along, below, shift], x, y) => along * x + below * y + shift;
    const landmarks = face.landmarks.map((_, point) => {
      const x = points[2 * (5 * i + point)], y = points[2 * (5 * i + point) + 1];
      return [place(across, x, y), place(down, x, y)];
    });
    return { ...face, landmarks };
  });
}

/** The same square as people look at it: RGBA, sharper. */
export function faceSquare(image, landmarks, model, side) {
  const transform = faceTransform(landmarks, model.template, side);
  const source = shrinkFace(image, transform, 1, side);
  const planes = cutView(source.image, source.transform, side, source.footprint, 3);
  const data = new Uint8ClampedArray(side * side * 4).fill(255);
  for (let at = 0; at < side * side; at++) {
    for (let c = 0; c < 3; c++) data[4 * at + c] = planes[c * side * side + at];
  }
  return { data, width: side, height: side };
}

/** class → score, of the row that begins at `at`. */
export function named(classes, values, at = 0) {
  return Object.fromEntries(classes.map((name, i) => [name, values[at + i]]));
}

/** What the classifier says of views of one image's faces. run: views → {scores, region_scores}. */
export async function readFaces(views, model, run) {
  if (!views.length) return [];
  const { classes, regions } = model;
  const answer = await run(joined(views, model), views.length);
  return views.map((_, i) => {
    const scores = named(classes, answer.scores, i * classes.length);
    const label = classes.reduce((one, two) => (scores[two] > scores[one] ? two : one));
    const own = regions.map((region, place) => [
      region,
      named(classes, answer.region_scores, (i * regions.length + place) * classes.length),
    ]);
    return { label, confidence: scores[label], scores, regions: Object.fromEntries(own) };
  });
}

const logOdds = (p) => Math.log(clamp(p, 1e-6, 1 - 1e-6) / (1 - clamp(p, 1e-6, 1 - 1e-6)));

/** Places of the regions in a face of side × side pixels: name → [left, top, right, bottom]. What
 * networks/regions.py does. */
export function regionBoxes(side, layout) {
  const column = Math.trunc(side * layout.middle);
  const eyes = Math.trunc(side * layout.eyes_end);
  const cheeks = Math.trunc(side * layout.cheeks_end);
  return {
    left_eye: [0, 0, column, eyes],
    right_eye: [column, 0, side, eyes],
    left_cheek: [0, eyes, column, cheeks],
    right_cheek: [column, eyes, side, cheeks],
    mouth: [0, cheeks, side, side],
  };
}

/** A view with a box hidden: filled with the mean of the training faces. */
export function hide(view, [left, top, right, bottom], { side, mean }) {
  const hidden = Uint8Array.from(view);
  mean.forEach((value, c) => {
    for (let row = Math.max(0, top); row < Math.min(side, bottom); row++) {
      const from = (c * side + row) * side;
      hidden.fill(Math.round(255 * value), from + Math.max(0, left), from + clamp(right, 0, side));
    }
  });
  return hidden;
}

/** What is read with each region hidden: region → class → score. */
export async function withoutRegions(view, model, run) {
  const boxes = Object.entries(regionBoxes(model.side, model.layout));
  const views = boxes.map(([, box]) => hide(view, box, model));
  const answers = await readFaces(views, model, run);
  return Object.fromEntries(boxes.map(([name], i) => [name, answers[i].scores]));
}

/** What the answer loses where the face is hidden: heat, (cells, cells) of 0…1, in log-odds, since
 * the probability of a sure answer hardly moves; most, the largest loss; least, what is then left
 * of the probability. view: as faceView gives it. progress: called with 0…1. */
export async function occlusion(view, label, confidence, model, run, progress = () => {}) {
  const { side, classes } = model;
  const cells = Math.round(1 / STEP);
  const width = Math.round(HIDDEN * side);
  const own = classes.indexOf(label);
  const boxes = Array.from({ length: cells * cells }, (_, cell) => {
    const left = Math.round((((cell % cells) + 0.5) / cells) * side - width / 2);
    const top = Math.round(((Math.floor(cell / cells) + 0.5) / cells) * side - width / 2);
    return [left, top, left + width, top + width];
  });
  const drops = new Float32Array(boxes.length);
  let least = confidence;
  for (let start = 0; start < boxes.length; start += AT_ONCE) {
    const some = boxes.slice(start, start + AT_ONCE);
    const hidden = some.map((box) => hide(view, box, model));
    const { scores } = await run(joined(hidden, model), some.length);
    some.forEach((_, i) => {
      const score = scores[i * classes.length + own];
      drops[start + i] = Math.max(0, logOdds(confidence) - logOdds(score));
      least = Math.min(least, score);
    });
    progress(Math.min(1, (start + AT_ONCE) / boxes.length));
  }
  const most = Math.max(...drops);
  return { cells, most, least, heat: drops.map((drop) => (most > 0 ? drop / most : 0)) };
}
