// The live figure of the GLIP post: phrases looked for in a scene; boxes with scores, and a map of each token.
import { SIDE, TOO_MANY, ink, placeControls, shapesOf } from "./scenes.js";

const CELLS = 8; // of the fine map, a side
const COLOURS = ["#d55e00", "#0072b2", "#009e73", "#a0508a", "#8a6d00", "#56707f"];
const FLEX = "display: flex; flex-wrap: wrap";

/** The pieces of a text, as the page's Pieces cuts them, and the phrase that each belongs to, or -1.
 * @param {string[]} known @param {string[]} phrases */
function cut(known, phrases) {
  /** @type {{name: string, phrase: number}[]} */
  const found = [];
  phrases.forEach((text, phrase) => {
    if (phrase) found.push({ name: ".", phrase: -1 });
    for (const [word] of text.matchAll(/[\p{L}\p{N}_]+|[^\p{L}\p{N}_\s]/gu)) {
      const pieces = [];
      for (let start = 0; start < word.length;) {
        let end = word.length;
        const name = () => (start ? "##" : "") + word.slice(start, end).toLowerCase();
        while (end > start && !known.includes(name())) end--;
        pieces.push(end > start ? name() : "[UNK]");
        start = end > start ? end : word.length;
      }
      const whole = pieces.includes("[UNK]") ? ["[UNK]"] : pieces;
      found.push(...whole.map((name) => ({ name, phrase })));
    }
  });
  return found;
}

/** The intersection over the union of two boxes. @param {number[]} a @param {number[]} b */
function overlap(a, b) {
  const side = (/** @type {number} */ k) => Math.max(0, Math.min(a[k + 2], b[k + 2]) - Math.max(a[k], b[k]));
  const area = (/** @type {number[]} */ box) => (box[2] - box[0]) * (box[3] - box[1]);
  const both = side(0) * side(1);
  return both / (area(a) + area(b) - both);
}

/** @param {import("../../theme/live/kit.js").Kit} kit */
export default function (kit) {
  const { element, tables: { scenes, pieces, length, anchors, weights } } = kit;
  const canvas = kit.canvas(SIDE, SIDE, "the scene");
  canvas.setAttribute("style", "display: block; width: 100%");
  const over = "position: absolute; inset: 0; width: 100%";
  const boxes = element("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, "aria-hidden": "true", style: over });
  const table = element("table", { "aria-label": "Phrases and the scores of their boxes", style: "flex: 1 1 14rem" });
  const maps = element("div", { style: `${FLEX}; gap: 0.4rem 0.6rem; margin-top: 0.75rem` });
  const frame = element("div", { style: "position: relative; flex: none; width: 14rem; max-width: 100%; border: 1px solid var(--line)" },
    canvas, boxes);
  kit.stage.append(element("div", { style: `${FLEX}; gap: 0.75rem 1.5rem; align-items: center` }, frame, table), maps);
  placeControls(kit, scenes, { "top left": "large red circle", "top right": "small green square", "bottom right": "large blue triangle" });
  kit.text("phrases", "Phrases, a full stop between", "red circle. blue triangle. yellow cross");
  kit.range("threshold", "Threshold", [0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8], 0.2);
  kit.keepsPicture = true;
  kit.tries({ "a low threshold": { threshold: 0.02 }, "one phrase": { phrases: "circle" },
    "more phrases": { phrases: "circle. square. triangle. cross" }, "colours alone": { phrases: "red. green. blue" } });

  kit.run("Look again", async ({ phrases: said, threshold, ...places }, step) => {
    const phrases = said.split(".").map((/** @type {string} */ one) => one.trim()).filter(Boolean);
    const tokens = cut(pieces, phrases);
    const shapes = shapesOf(scenes, places);
    if (!tokens.length || tokens.length > length || shapes.length < 1 || shapes.length > 3) {
      kit.say(shapes.length < 1 || shapes.length > 3 ? TOO_MANY
        : `One phrase at least, please, and not more than ${length} tokens: these are ${tokens.length}.`);
      return null;
    }
    const ids = BigInt64Array.from({ length }, (_, at) => BigInt(at < tokens.length ? pieces.indexOf(tokens[at].name) : 0));
    const real = Uint8Array.from({ length }, (_, at) => Number(at < tokens.length));
    const pictures = ink(scenes, shapes);
    const out = await kit.net("glip", { pictures: { data: pictures, dims: [1, 3, SIDE, SIDE] },
      ids: { data: ids, dims: [1, length] }, real: { data: real, dims: [1, length] } });
    await step();
    const chance = (/** @type {number} */ region, /** @type {number} */ token) => Number(out.probabilities.data[region * length + token]);
    /** @type {{box: number[], score: number, label: number}[]} */
    const found = [];
    anchors.forEach((/** @type {number[]} */ anchor, /** @type {number} */ region) =>
      phrases.forEach((/** @type {string} */ _, /** @type {number} */ label) => {
      // phrase_scores, then ask and decode of the page
      const own = tokens.flatMap((token, at) => (token.phrase === label ? [chance(region, at)] : []));
      const p = own.reduce((sum, value) => sum + value, 0) / own.length;
      if (!(p > threshold)) return;
      const change = weights.map((/** @type {number} */ unit, /** @type {number} */ k) => out.change.data[4 * region + k] / unit);
      const side = anchor[2] - anchor[0];
      const middle = [0, 1].map((k) => anchor[k] + side / 2 + change[k] * side);
      const half = [2, 3].map((k) => (side * Math.exp(Math.min(change[k], Math.log(1000 / 16)))) / 2);
      const box = [middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1]];
      const inside = box.map((value) => Math.min(SIDE, Math.max(0, value)));
      found.push({ box: inside, score: Math.sqrt(p * Number(out.centre.data[region])), label });
    }));
    found.sort((a, b) => b.score - a.score); // nms of the page: the best first, without those that they overlap
    /** @type {typeof found} */
    const kept = [];
    for (const one of found) {
      if (!kept.some((other) => other.label === one.label && overlap(other.box, one.box) > 0.6)) kept.push(one);
    }
    const heat = tokens.map((_, at) => Array.from({ length: CELLS * CELLS }, (_, region) => chance(region, at)));
    kit.paint(canvas, pictures.map((value) => value + 1), 3);
    boxes.replaceChildren(...[...kept].reverse().flatMap(({ box: [left, top, right, bottom], score, label }) => {
      const colour = COLOURS[label % COLOURS.length];
      const line = { svg: 1, fill: "none", stroke: colour, "stroke-width": 0.35 };
      const halo = { svg: 1, fill: colour, stroke: "#fff", "stroke-width": 0.5, "paint-order": "stroke", "font-size": 2.4 };
      return [element("rect", { x: left, y: top, width: right - left, height: bottom - top, ...line }),
        element("text", { x: left + 0.4, y: bottom - 0.5, ...halo }, score.toFixed(2))];
    }));
    table.replaceChildren(
      element("thead", {}, element("tr", {}, ...["phrase", "scores of its boxes"].map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, ...phrases.map((/** @type {string} */ phrase, /** @type {number} */ label) => element("tr", {},
        element("th", { scope: "row", style: `font-weight: 400; text-align: left; padding-left: 0.5rem; border-left: 0.3rem solid ${
          COLOURS[label % COLOURS.length]}` }, phrase),
        element("td", {}, kept.filter((one) => one.label === label).map((one) => one.score.toFixed(2)).join(", ") || "none")))));
    maps.replaceChildren(...tokens.map(({ name }, at) => {
      const map = kit.canvas(CELLS, CELLS, `how well each cell fits ${name}`);
      map.setAttribute("style", "display: block; width: 3.25rem; border: 1px solid var(--line)");
      kit.paint(map, heat[at]);
      return element("div", {}, name, map);
    }));
    kit.say(`Boxes found: ${kept.map(({ label, score }) => `${phrases[label]} ${score.toFixed(2)}`).join(", ") || "none"}.`);
    return { heat, boxes: kept.map(({ box }) => box), scores: kept.map(({ score }) => score), labels: kept.map(({ label }) => label) };
  });
}
