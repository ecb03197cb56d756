// The second search, for faces that lie turned in the picture or are faint: what
// faces/orientation.py does, which says where numbers come from. A find is {face, turn}: a face in
// the picture's own pixels, and the rotation of the picture in which it was seen.

import { misfit } from "./geometry.js";
import { stretched } from "./light.js";
import { cutView, shrinkFace } from "./pixels.js";
import { angleOf } from "./tables.js";

const [SURE_SCORE, SURE_ANGLE, SURE_MISFIT] = [0.95, 12, 0.25];
const [NEARLY_SURE, SURE_AGAIN] = [0.9, 0.97];
const UNCLEAR = 25;
const BESIDE = 0.5;
const [SIDE, LEAST_FACE, MOST_FACE] = [160, 64, 96];
const [OFF_CENTRE, CONFIRMED, AHEAD] = [0.4, 0.9, 0.02];
const [ROUNDS, MOST_FACES] = [3, 24];
const [FAINT, MOST_FAINT, CLEAR_NEARBY] = [0.3, 8, 0.8];
const QUARTERS = [1, 2, 3];

const modulo = (value, divisor) => ((value % divisor) + divisor) % divisor;
const side = ({ box }) => Math.max(box[2] - box[0], box[3] - box[1]);
const distance = (one, other) =>
  one.box.reduce((sum, edge, i) => sum + Math.abs(edge - other.box[i]), 0);

function makeFind(face, turn = 0) {
  const tilt = 180 - modulo(180 - angleOf(face.landmarks) + turn, 360);
  const plausible = misfit(face.landmarks) <= SURE_MISFIT;
  const tilted = Math.abs(tilt) > SURE_ANGLE;
  const clear = face.score >= SURE_SCORE && Math.abs(tilt) < UNCLEAR && plausible;
  const nearlySure = face.score >= NEARLY_SURE && !tilted && plausible;
  return { face, turn, tilt, plausible, tilted, clear, sure: clear && !tilted, nearlySure };
}

const doubtful = ({ finds }, leastScore = 0) =>
  !finds.some((find) => find.sure && find.face.score >= leastScore);

/** A picture's faces, corrected if a first search left them in doubt, best first.
 * found: of that search. look: finds upright faces in an image, best first; it takes the least
 * score, if that is not the usual one. turned: false leaves out further searches of the whole
 * picture; tilted faces that were found are still set upright. */
export async function lookAgain(image, found, look, turned = true) {
  const seen = { image, finds: found.map((face) => makeFind(face)) };
  if (turned) {
    await setUpright(seen, look, true);
    if (doubtful(seen) && !(await confirmed(seen, look))) {
      await relight(seen, look);
      if (doubtful(seen, SURE_AGAIN)) await turn(seen, look);
      if (!seen.finds.length) await lookCloser(seen, image, look);
    }
  }
  await setUpright(seen, look, false);
  return seen.finds.map(({ face }) => face).sort((one, two) => two.score - one.score);
}

/** Whether a search of its own confirms the best face. */
async function confirmed({ image, finds: [best] }, look) {
  if (!best?.nearlySure) return false;
  const square = squareAbout(image, best.face, 0);
  const again = findIn(square, await look(square.image));
  return again !== null && again.sure && again.face.score >= SURE_AGAIN;
}

/** Search a picture in unusual light again after its correction, which it keeps. */
async function relight(seen, look) {
  const lit = stretched(seen.image);
  if (lit === seen.image) return;
  seen.image = lit;
  addFinds(seen, (await look(lit)).map((face) => makeFind(face)));
}

/** Search the picture rotated by 90°, 180° and 270°. */
async function turn(seen, look) {
  const finds = [];
  for (const quarters of QUARTERS) {
    const faces = await look(rotated(seen.image, quarters));
    finds.push(...faces.map((face) => turnedBack(face, quarters, seen.image)));
  }
  addFinds(seen, finds);
  // Uncertain faces that were found with another rotation than the surest face are none.
  const sure = seen.finds.filter((find) => find.sure);
  if (!sure.length) return;
  const best = sure.reduce((one, two) => (two.face.score > one.face.score ? two : one));
  seen.finds = seen.finds.filter((find) => find.sure || find.turn === best.turn);
}

/** Search faint faces separately, in both lights. given: the image in its own light. */
async function lookCloser(seen, given, look) {
  const lights = seen.image === given ? [given] : [given, seen.image];
  const faint = (await look(seen.image, FAINT)).slice(0, MOST_FAINT);
  const finds = [];
  for (const face of faint.filter(({ landmarks }) => misfit(landmarks) <= SURE_MISFIT)) {
    for (const image of lights) {
      const square = squareAbout(image, face, 0);
      const find = findIn(square, await look(square.image));
      if (find?.plausible && find.face.score >= CLEAR_NEARBY) finds.push(find);
    }
  }
  addFinds(seen, finds);
}

/** Add finds and keep the best of each face; of equals, the earlier one. */
function addFinds(seen, finds) {
  const every = [...seen.finds, ...finds].sort((one, two) =>
    two.plausible - one.plausible || two.face.score - one.face.score);
  seen.finds = [];
  for (const find of every) {
    if (!seen.finds.some((other) => sameFace(find.face, other.face))) seen.finds.push(find);
  }
}

/** Whether the boxes share more than half of the smaller one. */
function sameFace({ box: one }, { box: two }) {
  const area = ([left, top, right, bottom]) => (right - left) * (bottom - top);
  const width = Math.min(one[2], two[2]) - Math.max(one[0], two[0]);
  const height = Math.min(one[3], two[3]) - Math.max(one[1], two[1]);
  return width > 0 && height > 0 && width * height > Math.min(area(one), area(two)) / 2;
}

/** Search tilted faces again, cut out and rotated upright. clear: only clear ones. */
async function setUpright(seen, look, clear) {
  const sure = seen.finds.filter((find) => find.sure).map(({ face }) => side(face));
  const least = Math.max(0, ...sure) * BESIDE;
  let tilted = seen.finds
    .filter((find) => find.tilted && side(find.face) >= least)
    .slice(0, MOST_FACES)
    .filter((find) => find.clear || !clear);
  for (let round = 0; round < ROUNDS && tilted.length; round++) {
    const before = [];
    for (const find of tilted) before.push([find, await searchedAlone(seen.image, find, look)]);
    tilted = [];
    for (const [find, turns] of before) {
      const best = bestTurn(find, turns);
      if (best === null || !means(seen.finds, find, best)) continue;
      seen.finds[seen.finds.indexOf(find)] = best;
      if (best.tilted) tilted.push(best);
    }
  }
}

/** What is found of a face in each rotation that it may have. */
async function searchedAlone(image, find, look) {
  const turns = Math.abs(find.tilt) < UNCLEAR ? [0] : [0, 90, 180, -90];
  const finds = [];
  for (const degrees of turns) {
    const square = squareAbout(image, find.face, degrees);
    finds.push(findIn(square, await look(square.image)));
  }
  return finds;
}

/** Whether a new find is the same face as `find`, not a neighbour. */
function means(finds, find, { face }) {
  const own = distance(find.face, face);
  return finds.every((other) => other === find || own < distance(other.face, face));
}

/** The best find of a face among several rotations; null if none is good enough. The first one
 * agrees with the earlier search, and is taken unless another one is clearly better. */
function bestTurn(find, turns) {
  const least = Math.min(find.face.score, CONFIRMED);
  const scores = turns.map((one, i) =>
    (one?.plausible ? one.face.score : 0) + (i === 0 ? AHEAD : 0));
  const best = turns[scores.indexOf(Math.max(...scores))];
  return best?.plausible && best.face.score >= least ? best : null;
}

/** The image rotated by quarters of a circle, counterclockwise as numpy.rot90 has it. */
export function rotated({ data, width, height }, quarters) {
  const from = new Uint32Array(data.buffer, data.byteOffset, width * height);
  const pixels = new Uint32Array(width * height);
  const [wide, high] = quarters === 2 ? [width, height] : [height, width];
  for (let row = 0, to = 0; row < high; row++) {
    for (let column = 0; column < wide; column++, to++) {
      const [x, y] = {
        1: [width - 1 - row, column],
        2: [width - 1 - column, height - 1 - row],
        3: [row, height - 1 - column],
      }[quarters];
      pixels[to] = from[y * width + x];
    }
  }
  return { data: new Uint8ClampedArray(pixels.buffer), width: wide, height: high };
}

/** A face of a rotated picture, in the pixels of the picture itself. */
function turnedBack(face, quarters, { width, height }) {
  const back = {
    1: [[0, -1, width], [1, 0, 0]],
    2: [[-1, 0, width], [0, -1, height]],
    3: [[0, 1, 0], [-1, 0, height]],
  }[quarters];
  return makeFind(moved(face, back), [0, 90, 180, -90][quarters]);
}

/** A face after a similarity; its box is rotated about its middle by the nearest quarter. */
function moved({ score, box, landmarks }, [across, down]) {
  const place = ([along, below, shift], x, y) => along * x + below * y + shift;
  const [left, top, right, bottom] = box;
  const middle = [(left + right) / 2, (top + bottom) / 2];
  const x = place(across, ...middle), y = place(down, ...middle);
  const [along, beside] = [Math.abs(across[0]), Math.abs(down[0])];
  const half = Math.hypot(along, beside) / 2;
  const sides = [right - left, bottom - top];
  if (along < beside) sides.reverse();
  const [w, h] = sides.map((length) => half * length);
  return {
    score,
    box: [x - w, y - h, x + w, y + h],
    landmarks: landmarks.map((point) => [place(across, ...point), place(down, ...point)]),
  };
}

/** The surroundings of a face, rotated by its landmarks' angle plus `degrees`: {image, back, turn,
 * faceSide}. back: its continuous coordinates → the picture's. */
export function squareAbout(image, face, degrees) {
  const own = Math.max(side(face), 1);
  const faceSide = Math.min(Math.max(own, LEAST_FACE), MOST_FACE);
  const turn = angleOf(face.landmarks) + degrees;
  const scale = own / faceSide;
  const along = scale * Math.cos((turn * Math.PI) / 180);
  const across = scale * Math.sin((turn * Math.PI) / 180);
  const [left, top, right, bottom] = face.box;
  const shift = [
    (left + right) / 2 - ((along - across) * SIDE) / 2,
    (top + bottom) / 2 - ((across + along) * SIDE) / 2,
  ];
  const back = [[along, -across, shift[0]], [across, along, shift[1]]];
  // Pixel centres count from 0, continuous coordinates from the first pixel's corner.
  const toPixels = back.map(([u, v, w]) => [u, v, (u + v) / 2 + w - 0.5]);
  const source = shrinkFace(image, toPixels, 1, SIDE);
  // Half the footprint takes a quarter of the time, without loss for the detector.
  const planes = cutView(source.image, source.transform, SIDE, source.footprint / 2, 3);
  const data = new Uint8ClampedArray(SIDE * SIDE * 4).fill(255);
  for (let at = 0; at < SIDE * SIDE; at++) {
    for (let c = 0; c < 3; c++) data[4 * at + c] = planes[c * SIDE * SIDE + at];
  }
  return { image: { data, width: SIDE, height: SIDE }, back, turn, faceSide };
}

/** The face in the middle of a square, in the picture's pixels; null without one. */
function findIn({ back, turn, faceSide }, faces) {
  for (const face of faces) {
    const [left, top, right, bottom] = face.box;
    const off = Math.max(Math.abs(left + right - SIDE), Math.abs(top + bottom - SIDE)) / 2;
    if (off <= OFF_CENTRE * faceSide) return makeFind(moved(face, back), turn);
  }
  return null;
}
