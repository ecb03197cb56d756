// Pictures at another size, and views cut out of them: what faces/resampling.py, faces/shrinking.py
// and ops/reference.py do. An image is {data, width, height}: RGBA bytes, row after row.

// Rec. 601 luma, the weights by which RGB becomes grey.
const LUMA = [0.299, 0.587, 0.114];
const MOST_TAPS = 64;
// Faces of which a view's pixel averages more pixels than this along a side are shrunk first, to
// averages over so many.
const MOST_EXTENT = 4;
const EXTENT = 2.5;

/** For each new place along a side: the first old one that counts, and the weights from there. */
function triangles(from, to) {
  const scale = from / to;
  const reach = Math.max(scale, 1);
  const places = [];
  for (let place = 0; place < to; place++) {
    const centre = scale * (place + 0.5);
    const first = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const last = Math.min(Math.trunc(centre + reach + 0.5), from);
    const weights = [];
    for (let at = first; at < last; at++) {
      weights.push(Math.max(0, 1 - Math.abs((at + 0.5 - centre) / reach)));
    }
    const sum = weights.reduce((total, weight) => total + weight, 0);
    places.push({ first, weights: weights.map((weight) => weight / sum) });
  }
  return places;
}

/** The image at another size: averaged to shrink, bilinear to enlarge; alpha is left out. */
export function resize(image, width, height) {
  if (width === image.width && height === image.height) return image;
  const across = triangles(image.width, width);
  const down = triangles(image.height, height);
  // Along rows first, each result rounded, as PyTorch has it.
  const narrow = new Uint8ClampedArray(image.height * width * 4);
  for (let row = 0; row < image.height; row++) {
    const start = row * image.width;
    for (let column = 0; column < width; column++) {
      const { first, weights } = across[column];
      let red = 0, green = 0, blue = 0;
      for (let at = 0, from = (start + first) * 4; at < weights.length; at++, from += 4) {
        const weight = weights[at];
        red += weight * image.data[from];
        green += weight * image.data[from + 1];
        blue += weight * image.data[from + 2];
      }
      const to = (row * width + column) * 4;
      narrow[to] = red;
      narrow[to + 1] = green;
      narrow[to + 2] = blue;
      narrow[to + 3] = 255;
    }
  }
  const data = new Uint8ClampedArray(height * width * 4).fill(255);
  const stride = width * 4;
  for (let row = 0; row < height; row++) {
    const { first, weights } = down[row];
    for (let at = 0; at < stride; at++) {
      if (at % 4 === 3) continue;
      let sum = 0;
      for (let tap = 0, from = first * stride + at; tap < weights.length; tap++, from += stride) {
        sum += weights[tap] * narrow[from];
      }
      data[row * stride + at] = sum;
    }
  }
  return { data, width, height };
}

/** The part of an image from left, top to right, bottom. */
function part(image, left, top, right, bottom) {
  const width = right - left;
  const data = new Uint8ClampedArray(width * (bottom - top) * 4);
  for (let row = top; row < bottom; row++) {
    const start = (row * image.width + left) * 4;
    data.set(image.data.subarray(start, start + width * 4), (row - top) * width * 4);
  }
  return { data, width, height: bottom - top };
}

/** The surroundings of a large face, made smaller: {image, transform, footprint}. */
export function shrinkFace(image, transform, footprint, size) {
  const [[xx, xy, x0], [yx, yy, y0]] = transform;
  const extent = Math.min(Math.hypot(xx, yx), Math.hypot(xy, yy)) * footprint;
  if (!(extent > MOST_EXTENT && Number.isFinite(extent + x0 + y0))) {
    return { image, transform, footprint };
  }
  const ratio = extent / EXTENT;
  const spread = extent ** 2 / 12 + 1 / 6 - ratio ** 2 / 3;
  const ends = [-footprint / 2, size - 1 + footprint / 2];
  const xs = ends.flatMap((x) => ends.map((y) => xx * x + xy * y + x0));
  const ys = ends.flatMap((x) => ends.map((y) => yx * x + yy * y + y0));
  const range = (values, limit) => {
    const first = clamp(Math.floor(Math.min(...values) - 2 * ratio), 0, limit - 1);
    return [first, clamp(Math.ceil(Math.max(...values) + 2 * ratio), first + 1, limit)];
  };
  const [left, right] = range(xs, image.width);
  const [top, bottom] = range(ys, image.height);
  const width = Math.max(1, roundEven((right - left) / ratio));
  const height = Math.max(1, roundEven((bottom - top) / ratio));
  const across = (right - left) / width;
  const down = (bottom - top) / height;
  return {
    image: resize(part(image, left, top, right, bottom), width, height),
    transform: [
      [xx / across, xy / across, (x0 + 0.5 - left) / across - 0.5],
      [yx / down, yy / down, (y0 + 0.5 - top) / down - 0.5],
    ],
    footprint: (footprint * Math.sqrt(12 * spread)) / extent,
  };
}

/** A square view, (channels, size, size) bytes. transform: view pixel → image pixel.
 * Each pixel is the mean of k × k bilinear samples of its footprint; edges are replicated. */
export function cutView(image, transform, size, footprint, channels) {
  const [[xx, xy, x0], [yx, yy, y0]] = transform;
  const scale = Math.max(Math.hypot(xx, yx), Math.hypot(xy, yy)) * footprint;
  const taps = Number.isFinite(scale) ? clamp(Math.ceil(scale - 1e-3), 1, MOST_TAPS) : 1;
  const offsets = Array.from({ length: taps }, (_, tap) => ((tap + 0.5) / taps - 0.5) * footprint);
  const view = new Uint8ClampedArray(channels * size * size);
  const sums = [0, 0, 0];
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      sums.fill(0);
      for (const below of offsets) {
        for (const beside of offsets) {
          const u = column + beside, v = row + below;
          addSample(image, xx * u + xy * v + x0, yx * u + yy * v + y0, sums);
        }
      }
      const count = taps * taps;
      const at = row * size + column;
      if (channels === 1) {
        view[at] = (LUMA[0] * sums[0] + LUMA[1] * sums[1] + LUMA[2] * sums[2]) / count;
      } else {
        for (let c = 0; c < 3; c++) view[c * size * size + at] = sums[c] / count;
      }
    }
  }
  return new Uint8Array(view.buffer);
}

function addSample({ data, width, height }, x, y, sums) {
  x = clamp(x || 0, 0, width - 1);
  y = clamp(y || 0, 0, height - 1);
  const left = Math.floor(x), top = Math.floor(y);
  const along = x - left, down = y - top;
  const right = Math.min(left + 1, width - 1), bottom = Math.min(top + 1, height - 1);
  const a = (top * width + left) * 4, b = (top * width + right) * 4;
  const c = (bottom * width + left) * 4, d = (bottom * width + right) * 4;
  for (let channel = 0; channel < 3; channel++) {
    const upper = data[a + channel] + (data[b + channel] - data[a + channel]) * along;
    const lower = data[c + channel] + (data[d + channel] - data[c + channel]) * along;
    sums[channel] += upper + (lower - upper) * down;
  }
}

export const clamp = (value, least, most) => Math.min(Math.max(value, least), most);

/** The nearest whole number, halves to the even one, as Python rounds. */
export function roundEven(value) {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 ? low + 1 : low;
}
