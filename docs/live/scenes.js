// Scenes of coloured shapes for live figures: the four places as controls, and the page's drawing of them (snippets/data/scenes.py).

/** @typedef {import("../../theme/live/kit.js").Kit} Kit */
/** @typedef {{size: string, colour: string, kind: string, place: string}} Shape */
/** What the exporters write of the module. @typedef {{kinds: string[], colours: Record<string, number[]>,
 *   radius: Record<string, number>, places: Record<string, number[]>, arm: number}} Known */

export const SIDE = 32;
export const TOO_MANY = "One to three shapes, please: the page's scenes have no other number.";

/** Every size, colour and kind, as options. @param {Known} known @returns {Record<string, string>} */
export function names({ kinds, colours, radius }) {
  const found = Object.keys(radius).reverse().flatMap((size) =>
    Object.keys(colours).flatMap((colour) => kinds.map((kind) => `${size} ${colour} ${kind}`)));
  return Object.fromEntries(found.map((name) => [name, name]));
}

/** A control for each place: which shape is there. @param {Kit} kit @param {Known} known @param {Record<string, string>} first by place */
export function placeControls(kit, known, first) {
  const options = { "": "nothing", ...names(known) };
  for (const place of Object.keys(known.places)) {
    kit.choice(place, place[0].toUpperCase() + place.slice(1), options, first[place] ?? "");
  }
}

/** The shapes that the controls say. @param {Known} known @param {Record<string, any>} values @returns {Shape[]} */
export function shapesOf({ places }, values) {
  return Object.keys(places).filter((place) => values[place]).map((place) => {
    const [size, colour, kind] = values[place].split(" ");
    return { size, colour, kind, place };
  });
}

/** How much of each pixel a shape covers, in the middle of its place or elsewhere: coverage of the page.
 * @param {Known} known @param {{size: string, kind: string, place: string}} shape @param {number[]} [centre] */
export function coverage({ radius, places, arm }, { size, kind, place }, centre = places[place]) {
  const r = radius[size];
  return Float64Array.from({ length: SIDE * SIDE }, (_, at) => {
    const x = Math.abs((at % SIDE) + 0.5 - centre[0]) / r;
    const y = (Math.floor(at / SIDE) + 0.5 - centre[1]) / r;
    const [far, near] = [Math.max(x, Math.abs(y)), Math.min(x, Math.abs(y))];
    const distance = kind === "circle" ? Math.hypot(x, y) - 1 : kind === "square" ? far - 1
      : kind === "triangle" ? Math.max((2 * x - 1 - y) / Math.sqrt(5), far - 1) : Math.max(far - 1, near - arm);
    return Math.min(1, Math.max(0, 0.5 - r * distance));
  });
}

/** The picture as networks of scenes read it, three planes: white is 0, the darkest -1 (the page's ink).
 * @param {Known} known @param {Shape[]} shapes */
export function ink(known, shapes) {
  const picture = new Float32Array(3 * SIDE * SIDE);
  for (const shape of shapes) {
    const cover = coverage(known, shape);
    known.colours[shape.colour].forEach((value, plane) => cover.forEach((share, at) => {
      picture[plane * SIDE * SIDE + at] += share * (value - 1 - picture[plane * SIDE * SIDE + at]);
    }));
  }
  return picture;
}

/** Let the reader draw on a canvas with the pointer; a stroke that begins on ink erases.
 * @param {HTMLCanvasElement} canvas @param {() => Float32Array} begin what a stroke draws on: 1 for ink, else 0
 * @param {() => void} show @param {() => void} done */
export function drawable(canvas, begin, show, done) {
  /** @type {{pixels: Float32Array, ink: number, x: number, y: number} | undefined} */
  let stroke;
  const place = (/** @type {PointerEvent} */ event) => {
    const box = canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * SIDE, y: ((event.clientY - box.top) / box.height) * SIDE };
  };
  const draw = (/** @type {PointerEvent} */ event) => {
    if (!stroke) return;
    const to = place(event);
    for (let share = 0; share <= 1; share += 1 / 32) {
      const [x, y] = [stroke.x + share * (to.x - stroke.x), stroke.y + share * (to.y - stroke.y)];
      for (let at = 0; at < SIDE * SIDE; at++) {
        if (Math.hypot((at % SIDE) + 0.5 - x, Math.floor(at / SIDE) + 0.5 - y) < 1.5) stroke.pixels[at] = stroke.ink;
      }
    }
    Object.assign(stroke, to);
    show();
  };
  const end = () => {
    if (stroke) done();
    stroke = undefined;
  };
  canvas.style.cssText += "; cursor: crosshair; touch-action: none";
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    const [at, pixels] = [place(event), begin()];
    stroke = { pixels, ink: pixels[Math.floor(at.y) * SIDE + Math.floor(at.x)] ? 0 : 1, ...at };
    draw(event);
  });
  canvas.addEventListener("pointermove", draw);
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
}
