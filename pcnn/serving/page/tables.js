// Results as JSON and CSV, in the words and digits of pcnn-predict.

const COLUMNS = ["source", "face", "label", "confidence", "x1", "y1", "x2", "y2", "detection_score"];
const digits = (value, count) => Number(value.toFixed(count));
const rounded = (scores) =>
  Object.fromEntries(Object.entries(scores).map(([name, score]) => [name, digits(score, 6)]));

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
        source, i + 1, face.label, face.confidence, ...face.box, face.detection_score, ...scores,
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
