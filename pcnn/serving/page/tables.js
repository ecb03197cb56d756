// Results as JSON and CSV, in the words and digits of pcnn-predict.

const COLUMNS = [
  "source", "face", "label", "confidence", "x1", "y1", "x2", "y2", "detection_score", "angle",
  "quality",
];
// Where landmarks lie in an upright face, as pcnn/results/angle.py has them.
export const UPRIGHT = [[-0.5, 0], [0.5, 0], [0, 0.61], [-0.4, 1.085], [0.4, 1.085]];
const digits = (value, count) => Number(value.toFixed(count));
const rounded = (scores) =>
  Object.fromEntries(Object.entries(scores).map(([name, score]) => [name, digits(score, 6)]));

/** Degrees clockwise by which a face lies from upright, in (-180, 180]; see angle_of in Python. */
export function angleOf(points) {
  const middle = [0, 1].map((axis) => UPRIGHT.reduce((sum, p) => sum + p[axis], 0) / UPRIGHT.length);
  let real = 0, imaginary = 0, most = 0;
  points.forEach(([x, y], i) => {
    const [u, v] = [UPRIGHT[i][0] - middle[0], UPRIGHT[i][1] - middle[1]];
    real += u * x + v * y;
    imaginary += u * y - v * x;
    most = Math.max(most, Math.hypot(x, y));
  });
  if (!(Math.hypot(real, imaginary) > 1e-9 * most)) return 0;
  const angle = (Math.atan2(imaginary, real) * 180) / Math.PI;
  return angle === -180 ? 180 : angle;
}

/** What pcnn-predict --format json would write of a picture. */
export function entry({ source, width, height, faces }) {
  return {
    source, width, height,
    faces: faces.map((face) => ({
      label: face.label,
      confidence: digits(face.confidence, 6),
      scores: rounded(face.scores),
      regions: Object.fromEntries(
        Object.entries(face.regions).map(([name, scores]) => [name, rounded(scores)]),
      ),
      box: face.box.map((edge) => digits(edge, 2)),
      detection_score: digits(face.score, 6),
      angle: digits(angleOf(face.landmarks), 2),
      quality: digits(face.quality, 4),
      landmarks: face.landmarks.map((point) => point.map((value) => digits(value, 2))),
    })),
  };
}

/** All pictures as CSV, one line a face; cells that a spreadsheet would compute begin with '. */
export function csv(pictures, classes) {
  const lines = [[...COLUMNS, ...classes]];
  for (const { source, faces } of pictures.map(entry)) {
    faces.forEach((face, i) => {
      const scores = classes.map((name) => face.scores[name]);
      lines.push([
        source, i + 1, face.label, face.confidence, ...face.box, face.detection_score,
        face.angle, face.quality, ...scores,
      ]);
    });
  }
  return lines.map((line) => line.map(cell).join(",")).join("\n") + "\n";
}

function cell(value) {
  let text = String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
