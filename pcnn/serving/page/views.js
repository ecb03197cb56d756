// What people see of faces: bars, boxes, heat.

// Below this the answer is shown as uncertain: another class may well be as likely.
export const UNCERTAIN = 0.5;
// Of what a region says: so many classes, and none of less than a hundredth but the first.
const RUNNERS_UP = 2;
const WORTH_SAYING = 0.01;
// Log-odds: a part that takes less decides nothing.
const DECISIVE = 0.2;
const SVG = "http://www.w3.org/2000/svg";

/** A share in whole hundredths, near 1 in tenths rounded down: hardly anything is quite sure. */
export function percent(share) {
  const text = share > 0.99 ? (Math.floor(1000 * share) / 10).toFixed(1) : Math.round(100 * share);
  return `${text} %`;
}
export const words = (name) => name.replaceAll("_", " ");

/** An element with attributes (`class`, …) and children (elements or text). */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** What a face says in words. */
export function sentence(face, number, count) {
  const who = count > 1 ? `${number}: ` : "";
  const doubt = face.confidence < UNCERTAIN ? " (uncertain)" : "";
  return `${who}${face.label} ${percent(face.confidence)}${doubt}`;
}

/** A list of bars, one for each class, the likeliest first. */
export function bars(scores, label, most = Infinity) {
  const rows = ranked(scores).slice(0, most);
  return make(
    "ul", { class: "scores" },
    ...rows.map(([name, score]) => {
      const fill = make("span", { class: "fill" });
      fill.style.width = `${100 * score}%`;
      return make(
        "li", name === label ? { class: "best" } : {},
        make("span", { class: "name" }, name),
        make("span", { class: "track", "aria-hidden": "true" }, fill),
        make("span", { class: "value" }, percent(score)),
      );
    }),
  );
}

/** Where each face's label lies, and what it says: its number alone where others would cover it. */
function labels(faces, width, letters) {
  const placed = (text, { box: [left, top, , bottom] }) => {
    const wide = 0.55 * letters * text.length;
    const x = Math.max(0, Math.min(left, width - wide));
    return { text, wide, x, y: top > 1.3 * letters ? top - 0.35 * letters : bottom + letters };
  };
  const meet = (one, other) => Math.abs(one.y - other.y) < letters
    && one.x < other.x + other.wide && other.x < one.x + one.wide;
  const whole = faces.map((face, i) => placed(sentence(face, i + 1, faces.length), face));
  return whole.map((own, i) => (
    whole.some((other) => other !== own && meet(own, other)) ? placed(`${i + 1}`, faces[i]) : own
  ));
}

/** Boxes with labels over a picture of width × height. */
export function boxes({ width, height, faces }) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("aria-hidden", "true");
  const letters = Math.max(width, height) / 26;
  faces.forEach((face, i) => {
    const [left, top, right, bottom] = face.box;
    const doubtful = face.confidence < UNCERTAIN;
    for (const kind of ["below", doubtful ? "doubtful" : "sure"]) {
      const rect = document.createElementNS(SVG, "rect");
      const place = { x: left, y: top, width: right - left, height: bottom - top, class: kind };
      for (const [name, value] of Object.entries(place)) rect.setAttribute(name, value);
      svg.append(rect);
    }
  });
  for (const { text, x, y } of labels(faces, width, letters)) {
    const label = document.createElementNS(SVG, "text");
    label.textContent = text;
    for (const [name, value] of Object.entries({ "font-size": letters, x, y })) {
      label.setAttribute(name, value);
    }
    svg.append(label);
  }
  return svg;
}

/** The face as it lies in its square. name: for those who do not see it. */
export function square({ data, width, height }, name) {
  const canvas = make("canvas", { width, height, role: "img", "aria-label": name });
  canvas.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
  return canvas;
}

/** Lay heat over a face's square: the more of the answer goes with a place, the redder it is. */
export function addHeat(canvas, face, { heat, cells }) {
  const context = canvas.getContext("2d");
  const small = new OffscreenCanvas(cells, cells);
  const pixels = new ImageData(cells, cells);
  heat.forEach((value, i) => pixels.data.set([213, 40, 0, 190 * value], 4 * i));
  small.getContext("2d").putImageData(pixels, 0, 0);
  context.putImageData(new ImageData(face.square.data, canvas.width, canvas.height), 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

const ranked = (scores) => Object.entries(scores).sort((one, two) => two[1] - one[1]);
const best = (scores) =>
  ranked(scores)
    .filter(([, score], place) => place === 0 || (place < RUNNERS_UP && score >= WORTH_SAYING))
    .map(([label, score]) => `${label} ${percent(score)}`)
    .join(", ");

/** What is read with each region hidden, and what each says alone where the weights know that, as
 * a table. alone, without: region → class → score. */
export function regionTable(alone, without) {
  const says = Object.keys(alone).length > 0;
  const titles = ["region", ...(says ? ["says alone"] : []), "the face without it"];
  const row = (name) => make(
    "tr", {},
    make("th", { scope: "row" }, words(name)),
    ...(says ? [make("td", {}, best(alone[name]))] : []),
    make("td", {}, best(without[name])),
  );
  return make(
    "table", { class: "regions" },
    make("thead", {}, make("tr", {}, ...titles.map((title) => make("th", { scope: "col" }, title)))),
    make("tbody", {}, ...Object.keys(without).map(row)),
  );
}

/** What the heat says in words: where the strongest loss lies, and what it leaves. */
export function heatSentence({ heat, cells, most, least }, { label, confidence }) {
  if (most < DECISIVE) return `Hiding any part of the face leaves ${label} as it is.`;
  const at = heat.indexOf(Math.max(...heat));
  const row = ["upper", "middle", "lower"][Math.floor((3 * Math.floor(at / cells)) / cells)];
  const column = ["left", "middle", "right"][Math.floor((3 * (at % cells)) / cells)];
  const place = row === column ? "middle" : `${row} ${column}`;
  const same = percent(least) === percent(confidence);
  const left = same ? `but leaves ${percent(least)}` : `to ${percent(least)}`;
  return `Hiding the ${place} of the face weakens ${label} most, ${left}.`;
}
