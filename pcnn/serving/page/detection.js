// Faces of an image, from what the detector's network says of its anchors: what faces/detector.py,
// networks/anchors.py and networks/boxes.py do.

import { resize, roundEven } from "./pixels.js";

const STRIDE = 32;
// See faces/detector.py for where each of these comes from.
const RANGE = [0.44, 1.12];
const ENOUGH = 1.25;
const HINT_SCORE = 0.3;
const HINT_SIDE = 0.7;
const MOST_ENLARGED = 4;
const MOST_CANDIDATES = 2000;
const LARGEST_EXPONENT = 16;

/**
 * Longest sides at which the network sees an image: whole, halved, quartered, …
 * A long image keeps half of maxSide across.
 */
export function levelSides(width, height, settings, maxSide = settings.max_side) {
  const longest = Math.max(width, height);
  const enlarged = Math.max(longest, Math.min(settings.least_side, MOST_ENLARGED * longest));
  const trusted = settings.trusted_side;
  const long = trusted ? Math.floor((maxSide * longest) / (2 * Math.min(width, height))) : 0;
  const sides = [Math.min(Math.max(maxSide, long), enlarged)];
  while (trusted && sides.at(-1) > ENOUGH * trusted) sides.push(Math.floor(sides.at(-1) / 2));
  return sides;
}

/** Anchors of an input: cx, cy, side for each, and how many belong to the finest level. */
export function anchorGrid(width, height, settings) {
  const places = [];
  let fine = 0;
  settings.steps.forEach((step, level) => {
    for (let row = 0; row < Math.ceil(height / step); row++) {
      for (let column = 0; column < Math.ceil(width / step); column++) {
        for (const side of settings.min_sizes[level]) {
          places.push((column + 0.5) * step, (row + 0.5) * step, side);
        }
      }
    }
    if (level === 0) fine = places.length / 3;
  });
  return { places: Float32Array.from(places), fine };
}

/** Box and landmarks that an anchor's offsets stand for. values: the network's; at: the first. */
export function decode(values, at, [cx, cy, side], variances) {
  const [place, size] = variances;
  const x = cx + values[at] * place * side, y = cy + values[at + 1] * place * side;
  const half = (offset) =>
    (side * Math.exp(Math.min(offset * size, LARGEST_EXPONENT))) / 2;
  const w = half(values[at + 2]), h = half(values[at + 3]);
  const landmarks = [];
  for (let point = at + 4; point < at + 14; point += 2) {
    landmarks.push([cx + values[point] * place * side, cy + values[point + 1] * place * side]);
  }
  return { box: [x - w, y - h, x + w, y + h], landmarks };
}

const area = ([left, top, right, bottom]) =>
  Math.max(0, right - left) * Math.max(0, bottom - top);
const shared = (one, two) =>
  area([
    Math.max(one[0], two[0]), Math.max(one[1], two[1]),
    Math.min(one[2], two[2]), Math.min(one[3], two[3]),
  ]);

/** Faces kept by greedy suppression, best first; overlap strictly above iou is suppressed. */
export function suppress(faces, iou) {
  const kept = [];
  for (const face of [...faces].sort((one, two) => two.score - one.score)) {
    const rival = kept.some((other) => {
      const common = shared(face.box, other.box);
      const union = area(face.box) + area(other.box) - common;
      return union > 0 && common / union > iou;
    });
    if (!rival) kept.push(face);
  }
  return kept;
}

/** Faces of one look, in the image's pixels, and whether there may be larger ones. */
function facesOf({ scores, offsets }, grid, first, scale, settings) {
  const { confidence, trusted_side: trusted, variances } = settings;
  let candidates = [];
  for (let anchor = first; anchor < scores.length; anchor++) {
    if (scores[anchor] >= Math.min(confidence, HINT_SCORE)) candidates.push(anchor);
  }
  candidates.sort((one, two) => scores[two] - scores[one]);
  candidates = candidates.slice(0, MOST_CANDIDATES);
  let hint = false;
  const sure = [];
  for (const anchor of candidates) {
    const place = grid.places.subarray(3 * anchor, 3 * anchor + 3);
    const face = { score: scores[anchor], ...decode(offsets, 14 * anchor, place, variances) };
    hint ||= trusted != null && shorterSide(face) >= HINT_SIDE * trusted;
    if (face.score >= confidence) sure.push(face);
  }
  const faces = suppress(sure, settings.nms_iou).map(({ score, box, landmarks }) => ({
    score,
    box: box.map((edge, i) => edge * scale[i % 2]),
    landmarks: landmarks.map(([x, y]) => [x * scale[0], y * scale[1]]),
  }));
  return { faces, hint };
}

const shorterSide = ({ box }) => Math.min(box[2] - box[0], box[3] - box[1]);

/** Each level's faces of the sizes it is trusted with, the coarser level's word first. */
export function merged(found, sides, longest, trusted) {
  if (trusted == null || found.length === 1) return found[0];
  const kept = [];
  for (let depth = found.length - 1; depth >= 0; depth--) {
    const scale = sides[depth] / longest;
    const least = depth === 0 ? 0 : (RANGE[0] * trusted) / scale;
    const most = depth === found.length - 1 ? Infinity : (RANGE[1] * trusted) / scale;
    for (const face of found[depth]) {
      const side = shorterSide(face);
      if (side < least || side >= most) continue;
      const lies = kept.some((other) => shared(face.box, other.box) > area(face.box) / 2);
      if (!lies) kept.push(face);
    }
  }
  return kept.sort((one, two) => two.score - one.score);
}

/** What the network takes: the image in the upper left of its own mean colour, RGB bytes. */
export function canvasOf(image, settings) {
  const width = Math.ceil(image.width / STRIDE) * STRIDE;
  const height = Math.ceil(image.height / STRIDE) * STRIDE;
  const colour = settings.mean.map(Math.round);
  if (settings.channels === "bgr") colour.reverse();
  const data = new Uint8Array(width * height * 3);
  for (let row = 0, to = 0; row < height; row++) {
    for (let column = 0; column < width; column++, to += 3) {
      const inside = row < image.height && column < image.width;
      const from = (row * image.width + column) * 4;
      for (let c = 0; c < 3; c++) data[to + c] = inside ? image.data[from + c] : colour[c];
    }
  }
  return { data, width, height };
}

/** Faces of an image, best first: {score, box, landmarks} in its own pixels.
 * run: what the network makes of a canvas, {scores, offsets}. */
export async function findFaces(image, settings, run, maxSide = settings.max_side) {
  const longest = Math.max(image.width, image.height);
  const sides = levelSides(image.width, image.height, settings, maxSide);
  const trusted = settings.trusted_side;
  // In halved images no face is looked for that the smallest anchors could be meant for.
  const alwaysFine = 2 * Math.max(...settings.min_sizes[0]) > RANGE[0] * (trusted || 0);
  const found = [];
  let whole = image;
  for (const [depth, side] of sides.entries()) {
    const width = Math.max(1, roundEven((image.width * side) / longest));
    const height = Math.max(1, roundEven((image.height * side) / longest));
    const pixels = resize(whole, width, height);
    if (depth === 0) whole = pixels;
    const canvas = canvasOf(pixels, settings);
    const grid = anchorGrid(canvas.width, canvas.height, settings);
    const first = alwaysFine || depth === 0 ? 0 : grid.fine;
    const scale = [image.width / width, image.height / height];
    const { faces, hint } = facesOf(await run(canvas), grid, first, scale, settings);
    found.push(faces);
    if (!hint) break;
  }
  return merged(found, sides, longest, trusted);
}
