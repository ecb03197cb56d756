// From landmarks to the map along which a face is cut out: what faces/geometry.py does.

import { UPRIGHT } from "./tables.js";

/** The rotation, scale and shift that best takes source points to target points: [[…3], […3]]. */
export function similarity(source, target) {
  const mean = (points, axis) => points.reduce((sum, p) => sum + p[axis], 0) / points.length;
  const [sx, sy, tx, ty] = [mean(source, 0), mean(source, 1), mean(target, 0), mean(target, 1)];
  let real = 0, imaginary = 0, spread = 0;
  source.forEach(([x, y], i) => {
    const [u, v] = [x - sx, y - sy];
    const [p, q] = [target[i][0] - tx, target[i][1] - ty];
    real += u * p + v * q;
    imaginary += u * q - v * p;
    spread += u * u + v * v;
  });
  const a = spread > 0 ? real / spread : 0;
  const b = spread > 0 ? imaginary / spread : 0;
  return [
    [a, -b, tx - a * sx + b * sy],
    [b, a, ty - b * sx - a * sy],
  ];
}

/** The map from the face view's pixels to the image's. template: fractions of the view's side. */
export function faceTransform(landmarks, template, size) {
  const places = template.map(([x, y]) => [x * size, y * size]);
  // Between continuous coordinates; the centre of pixel p lies at p + ½.
  return similarity(places, landmarks).map(([along, down, shift]) => [
    along, down, 0.5 * (along + down) + shift - 0.5,
  ]);
}

/** The mean distance of landmarks from those of a frontal face in any rotation, in distances
 * between its eyes; infinite where they say nothing. */
export function misfit(landmarks) {
  const [[along, across, right], [below, down, low]] = similarity(UPRIGHT, landmarks);
  const eyes = Math.hypot(along, below);
  if (!(eyes > 0 && eyes < Infinity)) return Infinity;
  const off = UPRIGHT.map(([x, y], i) => Math.hypot(
    along * x + across * y + right - landmarks[i][0],
    below * x + down * y + low - landmarks[i][1],
  ));
  return off.reduce((sum, length) => sum + length, 0) / off.length / eyes;
}
