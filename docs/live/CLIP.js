// The live figure of the CLIP post: a scene that the reader builds, against captions that the reader writes.
import { SIDE, TOO_MANY, ink, placeControls, shapesOf } from "./scenes.js";

const CAPTIONS = ["a red circle left of a blue cross", "a blue cross left of a red circle",
  "a blue circle left of a red cross", "a red circle", "a green square"];
const UNSEEN = ["a red square", "a red cross", "a red circle", "a blue square", "a purple square"];
const OTHER = ["a blue circle", "a blue cross", "a blue square", "a red circle", "a purple circle"];
const NONE = { "top left": "", "top right": "" };

/** @param {ArrayLike<number>} a @param {ArrayLike<number>} b */
function cosine(a, b) {
  const dot = (/** @type {ArrayLike<number>} */ x, /** @type {ArrayLike<number>} */ y) =>
    Array.from(x).reduce((sum, value, at) => sum + value * y[at], 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

/** @param {import("../../theme/live/kit.js").Kit} kit */
export default function (kit) {
  const { element, tables: { scenes, vocabulary, start, end, length, temperature: learnt } } = kit;
  const canvas = kit.canvas(SIDE, SIDE, "the scene");
  canvas.setAttribute("style", "width: 9rem; border: 1px solid var(--line)");
  const table = element("table", { "aria-label": "Captions, their cosines with the scene, and shares", style: "flex: 1 1 18rem" });
  kit.stage.append(element("div", { style: "display: flex; flex-wrap: wrap; gap: 0.75rem 1.5rem; align-items: center" }, canvas, table));
  placeControls(kit, scenes, { "top left": "large red circle", "top right": "small blue cross" });
  kit.text("captions", "Captions, one a line", CAPTIONS.join("\n"), 5);
  kit.range("temperature", "Temperature", [1, 0.3, 0.1, learnt, 0.03, 0.01], learnt,
    (value) => (value === learnt ? `${value.toFixed(2)}, as learnt` : String(value)));
  kit.keepsPicture = true;
  kit.tries({ "a temperature of 1": { temperature: 1 }, "a temperature of 0.01": { temperature: 0.01 },
    "a pair that it never saw": { ...NONE, "bottom left": "large red square", captions: UNSEEN.join("\n") },
    "another one": { ...NONE, "bottom left": "small blue circle", captions: OTHER.join("\n") } });

  kit.run("Compare again", async ({ captions, temperature, ...places }, step) => {
    const texts = captions.split("\n").map((/** @type {string} */ line) => line.trim().toLowerCase()).filter(Boolean);
    const rows = texts.map((/** @type {string} */ text) => text.split(/\s+/));
    const unknown = rows.flat().find((/** @type {string} */ word) => !(word in vocabulary));
    const shapes = shapesOf(scenes, places);
    if (unknown || !rows.length || rows.some((/** @type {string[]} */ row) => row.length > length - 2)) {
      kit.say(unknown ? `No caption of the training had the word ${unknown}, only: ${Object.keys(vocabulary).join(", ")}.`
        : `One caption at least, please, and none of more than ${length - 2} words.`);
      return null;
    }
    if (shapes.length < 1 || shapes.length > 3) {
      kit.say(TOO_MANY);
      return null;
    }
    const pictures = ink(scenes, shapes);
    const tokens = new BigInt64Array(rows.length * length).fill(BigInt(end)); // padded as by the page's tokenizer
    rows.forEach((/** @type {string[]} */ row, /** @type {number} */ at) =>
      [start, ...row.map((word) => vocabulary[word])].forEach((id, place) => { tokens[at * length + place] = BigInt(id); }));
    const seen = (await kit.net("vision", { pictures: { data: pictures, dims: [1, 3, SIDE, SIDE] } })).out;
    const read = (await kit.net("text", { tokens: { data: tokens, dims: [rows.length, length] } })).out;
    await step();
    // similarities and the softmax of zero_shot of the page
    const width = seen.data.length;
    const cosines = texts.map((/** @type {string} */ _, /** @type {number} */ at) =>
      cosine(seen.data, read.data.subarray(at * width, (at + 1) * width)));
    const most = Math.max(...cosines);
    const raised = cosines.map((/** @type {number} */ one) => Math.exp((one - most) / temperature));
    const total = raised.reduce((/** @type {number} */ sum, /** @type {number} */ value) => sum + value, 0);
    const shares = raised.map((/** @type {number} */ value) => value / total);
    kit.paint(canvas, pictures.map((value) => value + 1), 3);
    table.replaceChildren(
      element("thead", {}, element("tr", {}, ...["caption", "cosine", "share"].map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, ...texts.map((/** @type {string} */ text, /** @type {number} */ at) => element("tr", {},
        element("th", { scope: "row", style: "font-weight: 400; text-align: left" }, text),
        element("td", {}, cosines[at].toFixed(3)),
        element("td", {}, element("meter", { min: 0, max: 1, value: shares[at], "aria-label": `share of: ${text}`, style: "width: 4rem" }),
          ` ${(100 * shares[at]).toFixed(1)} %`)))));
    const best = cosines.indexOf(most);
    kit.say(`Nearest: ${texts[best]}, with a cosine of ${most.toFixed(2)} and ${(100 * shares[best]).toFixed(0)} % of the share.`);
    return { picture: Array.from(pictures), cosines, shares };
  });
}
