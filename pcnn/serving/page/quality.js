// How well a face can be seen, 0…1: what faces/quality.py does, which says where numbers come from.

import { clamp } from "./pixels.js";
import { faceView } from "./recognition.js";
import { UPRIGHT } from "./tables.js";

const SIDE = 48;
const EYES = 0.367;
const VIEW = {
  side: SIDE, mean: [0], footprint: 1,
  template: UPRIGHT.map(([x, y]) => [0.5 + EYES * x, 0.4 + EYES * y]),
};
const [NO_DETAIL, FULL_DETAIL] = [0.05, 0.12];
const REACH = 3; // pixels of a blur with a standard deviation of one pixel
const [UNSURE, SURE] = [0.7, 1];
const NOSE = 0.72;

const share = (value, least, most) => clamp((value - least) / (most - least), 0, 1);

/** The quality of a face of an image. face: {score, landmarks}. */
export function faceQuality(image, { score, landmarks }) {
  const detail = detailOf(faceView(image, landmarks, VIEW));
  const quality = share(score, UNSURE, SURE) * share(detail, NO_DETAIL, FULL_DETAIL)
    * facing(landmarks);
  return Number.isFinite(quality) ? quality : 0;
}

/** The view blurred along rows (step 1) or columns (step SIDE); beyond its edges all is 0. */
function blurred(view, step) {
  const weights = Array.from({ length: 2 * REACH + 1 }, (_, at) => Math.exp(-((at - REACH) ** 2) / 2));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return Float64Array.from(view, (_, at) => {
    const place = step === 1 ? at % SIDE : Math.floor(at / SIDE);
    let value = 0;
    for (let tap = -REACH; tap <= REACH; tap++) {
      const inside = place + tap >= 0 && place + tap < SIDE;
      if (inside) value += weights[tap + REACH] * view[at + tap * step];
    }
    return value / sum;
  });
}

/** The share of a view's contrast that a blur of one pixel removes, in its middle. */
function detailOf(view) {
  const soft = blurred(blurred(view, 1), SIDE);
  const edge = SIDE / 6;
  const coarse = [], fine = [];
  for (let row = edge; row < SIDE - edge; row++) {
    for (let column = edge; column < SIDE - edge; column++) {
      const at = row * SIDE + column;
      coarse.push(view[at] / 255);
      fine.push((view[at] - soft[at]) / 255);
    }
  }
  return deviation(fine) / Math.max(deviation(coarse), 1e-6);
}

function deviation(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1));
}

/** The cosine of the angle by which a face is turned to the side; NaN where its points say nothing. */
function facing([left, right, nose, mouthLeft, mouthRight]) {
  const across = [0, 1].map((axis) =>
    (right[axis] - left[axis] + mouthRight[axis] - mouthLeft[axis]) / 2);
  const aside = [0, 1].map((axis) =>
    nose[axis] - (left[axis] + right[axis] + mouthLeft[axis] + mouthRight[axis]) / 4);
  const turned = (aside[0] * across[0] + aside[1] * across[1]) / (across[0] ** 2 + across[1] ** 2);
  return 1 / Math.hypot(1, turned / NOSE);
}
