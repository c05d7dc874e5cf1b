// Scenes of coloured shapes for live figures: the four places as controls, and the page's drawing of them (snippets/data/scenes.py).

/** @typedef {import("../../theme/live/kit.js").Kit} Kit */
/** @typedef {{size: string, colour: string, kind: string, place: string}} Shape */
/** What the exporters write of the module. @typedef {{kinds: string[], colours: Record<string, number[]>,
 *   radius: Record<string, number>, places: Record<string, number[]>, arm: number}} Known */

export const SIDE = 32;
export const TOO_MANY = "One to three shapes, please: the page's scenes have no other number.";

/** A control for each place: which shape is there. @param {Kit} kit @param {Known} known @param {Record<string, string>} first by place */
export function placeControls(kit, { kinds, colours, radius, places }, first) {
  const names = Object.keys(radius).reverse().flatMap((size) =>
    Object.keys(colours).flatMap((colour) => kinds.map((kind) => `${size} ${colour} ${kind}`)));
  const options = Object.fromEntries([["", "nothing"], ...names.map((name) => [name, name])]);
  for (const place of Object.keys(places)) {
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

/** How much of each pixel a shape in the middle of its place covers: coverage of the page.
 * @param {Known} known @param {Shape} shape */
export function coverage({ radius, places, arm }, { size, kind, place }) {
  const r = radius[size];
  return Float64Array.from({ length: SIDE * SIDE }, (_, at) => {
    const x = Math.abs((at % SIDE) + 0.5 - places[place][0]) / r;
    const y = (Math.floor(at / SIDE) + 0.5 - places[place][1]) / r;
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
