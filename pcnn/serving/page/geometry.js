// From landmarks to the map along which a face is cut out: what faces/geometry.py does.

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
