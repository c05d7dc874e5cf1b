// The live figure of the ControlNet post: a mask that the reader draws, a caption, and the picture that obeys both.
import { SIDE, coverage, drawable, names } from "./scenes.js";

const SIZE = 4 * 8 * 8;
const PIXELS = SIDE * SIDE;
const GUIDANCE = 3;
const ELSEWHERE = "large circle at the bottom right";

/** The intersection over the union of a mask with what is painted: painted and overlap of the page.
 * @param {import("./scenes.js").Known} scenes @param {ArrayLike<number>} mask @param {ArrayLike<number>} picture */
function overlap(scenes, mask, picture) {
  const palette = Object.values(scenes.colours).map((colour) => colour.map((value) => 1 - value));
  const squares = palette.map((taken) => taken.reduce((sum, value) => sum + value ** 2, 0));
  let [both, either] = [0, 0];
  for (let at = 0; at < PIXELS; at++) {
    const along = palette.map((taken) => taken.reduce((sum, value, plane) => sum + (value * (1 - picture[plane * PIXELS + at])) / 2, 0));
    const directions = along.map((value, k) => value / Math.sqrt(squares[k]));
    const nearest = directions.indexOf(Math.max(...directions));
    const drawn = along[nearest] / squares[nearest] > 0.5 ? 1 : 0;
    both += Math.min(drawn, mask[at]);
    either += Math.max(drawn, mask[at]);
  }
  return either ? both / either : 1;
}

/** @param {import("../../theme/live/kit.js").Kit} kit */
export default function (kit) {
  const { scenes } = kit.tables;
  const titles = ["mask: draw here", "drawn", "expected"];
  const canvases = titles.map((name) => {
    const canvas = kit.canvas(SIDE, SIDE, name);
    canvas.setAttribute("style", "border: 1px solid var(--line)");
    canvas.classList.add("live-matrix");
    return canvas;
  });
  kit.stage.append(kit.element("div", { class: "live-matrices" },
    ...titles.map((name, at) => kit.element("div", {}, name, canvases[at]))));
  const places = Object.keys(scenes.places);
  const masks = places.flatMap((place) => scenes.kinds.flatMap((/** @type {string} */ kind) =>
    [`large ${kind} at the ${place}`, `small ${kind} in the ${place} corner`]));
  kit.choice("mask", "Mask", { own: "your own drawing", "": "none", ...Object.fromEntries(masks.map((name) => [name, name])) },
    "small square in the top left corner");
  kit.choice("shape", "Caption", { "": "no caption", ...names(scenes) }, "small red square");
  kit.choice("place", "at the", Object.fromEntries(places.map((place) => [place, place])), "top left");
  kit.range("scale", "Control scale", [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2], 1);
  kit.keepsPicture = true;
  kit.seed();
  kit.tries({ "a scale of 0": { scale: 0 }, "the mask elsewhere": { mask: ELSEWHERE },
    "elsewhere, at a scale of 2": { mask: ELSEWHERE, scale: 2 }, "no caption": { shape: "" } });

  let mask = new Float32Array(PIXELS);
  let own = mask;
  drawable(canvases[0], () => {
    own = mask = mask.slice();
    kit.known.mask.set("own");
    return own;
  }, () => kit.paint(canvases[0], own), () => kit.changed());

  kit.run("Other noise", async ({ mask: name, shape, place, scale, seed }, step) => {
    const { levels, ratio, vocabulary, length } = kit.tables;
    const began = performance.now();
    const corner = name.endsWith(" corner");
    const [size, kind, , , ...where] = name.replace(" corner", "").split(" ");
    const centre = (scenes.places[where.join(" ")] ?? []).map((/** @type {number} */ c) => c + (corner ? (c > 16 ? 2.5 : -2.5) : 0));
    mask = name === "own" ? own : new Float32Array(PIXELS);
    if (centre.length) mask = Float32Array.from(coverage(scenes, { size, kind, place }, centre), (share) => Number(share > 0.5));
    kit.paint(canvases[0], mask);
    const tokens = new BigInt64Array(2 * length); // the caption, then the empty one
    (shape ? `a ${shape} at the ${place}`.split(" ") : []).forEach((word, at) => { tokens[at] = BigInt(vocabulary.indexOf(word)); });
    const text = (await kit.net("text", { tokens: { data: tokens, dims: [2, length] } })).out;
    const hint = { data: Float32Array.from({ length: 6 * PIXELS }, (_, at) => mask[at % PIXELS]), dims: [2, 3, SIDE, SIDE] };
    const strength = { data: Float32Array.of(scale), dims: [] };
    let x = kit.normal(seed, 0, SIZE);
    const show = async (/** @type {Float32Array} */ data, /** @type {HTMLCanvasElement} */ canvas) => {
      const picture = (await kit.net("decoder", { latents: { data, dims: [1, 4, 8, 8] } })).out.data;
      kit.paint(canvas, Array.from(picture, (value) => (Number(value) + 1) / 2), 3);
      return Array.from(picture, (value) => Math.min(1, Math.max(-1, Number(value))));
    };
    for (let at = 0; at < levels.length; at++) {
      const [here, there] = [ratio[at], ratio[at + 1]];
      const both = { data: Float32Array.of(...x, ...x), dims: [2, 4, 8, 8] };
      const t = { data: new BigInt64Array(2).fill(BigInt(levels[at])), dims: [2] };
      const out = (await kit.net("controlled", { x: both, t, text, hint, scale: strength })).out.data;
      const alphaBar = 1 / (1 + here ** 2);
      // guide, noise_from_velocity and a step of sample_latents of the page
      const eps = x.map((value, p) => {
        const velocity = out[SIZE + p] + GUIDANCE * (out[p] - out[SIZE + p]);
        return Math.sqrt(1 - alphaBar) * value + Math.sqrt(alphaBar) * velocity;
      });
      const expected = x.map((value, p) => (value - Math.sqrt(1 - alphaBar) * eps[p]) / Math.sqrt(alphaBar));
      x = x.map((value, p) => (value * Math.sqrt(1 + here ** 2) + (there - here) * eps[p]) / Math.sqrt(1 + there ** 2));
      await step();
      await show(x, canvases[1]);
      await show(expected, canvases[2]);
    }
    const picture = await show(x, canvases[1]);
    const share = mask.some(Boolean) ? overlap(scenes, mask, picture) : null;
    const fit = share === null ? "There is no mask." : `IoU with the mask: ${share.toFixed(2)}.`;
    kit.say(`Drawn in ${levels.length} steps, ${((performance.now() - began) / 1000).toFixed(1)} s. ${fit}`);
    return { mask: Array.from(mask), picture, overlap: share };
  });
}
