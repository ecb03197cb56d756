// A face's expression from an image, and where in the face it lies.

import { faceTransform } from "./geometry.js";
import { clamp, cutView, shrinkFace } from "./pixels.js";

// Squares that are hidden one after another: their side and their distance, as shares of the face.
const HIDDEN = 1 / 4;
const STEP = 1 / 12;
const AT_ONCE = 10;

/** The face as the classifier takes it, (channels, side, side) bytes. */
export function faceView(image, landmarks, model) {
  const { side, mean } = model;
  const transform = faceTransform(landmarks, model.template, side);
  const source = shrinkFace(image, transform, model.footprint, side);
  return cutView(source.image, source.transform, side, source.footprint, mean.length);
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
  const { classes, regions, side, mean } = model;
  const size = mean.length * side * side;
  const batch = new Uint8Array(views.length * size);
  views.forEach((view, i) => batch.set(view, i * size));
  const answer = await run(batch, views.length);
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

/** What the answer loses where the face is hidden: heat, (cells, cells) of 0…1, in log-odds, since
 * the probability of a sure answer hardly moves; most, the largest loss; least, what is then left
 * of the probability. view: as faceView gives it. progress: called with 0…1. */
export async function occlusion(view, label, confidence, model, run, progress = () => {}) {
  const { side, mean, classes } = model;
  const cells = Math.round(1 / STEP);
  const width = Math.round(HIDDEN * side);
  const colour = mean.map((value) => Math.round(255 * value));
  const places = [];
  for (let row = 0; row < cells; row++) {
    for (let column = 0; column < cells; column++) {
      places.push([(column + 0.5) / cells, (row + 0.5) / cells]);
    }
  }
  const drops = new Float32Array(places.length);
  let least = confidence;
  for (let start = 0; start < places.length; start += AT_ONCE) {
    const some = places.slice(start, start + AT_ONCE);
    const batch = new Uint8Array(some.length * view.length);
    some.forEach(([x, y], i) => {
      const hidden = Uint8Array.from(view);
      const left = Math.round(x * side - width / 2), top = Math.round(y * side - width / 2);
      for (let c = 0; c < mean.length; c++) {
        for (let row = Math.max(0, top); row < Math.min(side, top + width); row++) {
          const from = (c * side + row) * side;
          const last = clamp(left + width, 0, side);
          hidden.fill(colour[c], from + Math.max(0, left), from + last);
        }
      }
      batch.set(hidden, i * view.length);
    });
    const { scores } = await run(batch, some.length);
    const own = classes.indexOf(label);
    some.forEach((_, i) => {
      const score = scores[i * classes.length + own];
      drops[start + i] = Math.max(0, logOdds(confidence) - logOdds(score));
      least = Math.min(least, score);
    });
    progress(Math.min(1, (start + AT_ONCE) / places.length));
  }
  const most = Math.max(...drops);
  return { cells, most, least, heat: drops.map((drop) => (most > 0 ? drop / most : 0)) };
}
