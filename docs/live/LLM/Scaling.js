// The live figure of the scaling post: memory and traffic of a GPU, by the page's own formulas.

const MODELS = ["1 M", "125 M", "1 B", "8 B", "70 B"];
const GIB = 2 ** 30;
const ROOM = 80; // GiB of a GPU
const POWERS = Array.from({ length: 11 }, (_, power) => power);
const PARTS = ["weights, gradients, moments", "activations", "whole weights of two blocks and the rest"];

/** @param {import("../../../theme/live/kit.js").Kit} kit */
export default function (kit) {
  const { element } = kit;
  const svg = (/** @type {string} */ tag, /** @type {any} */ attributes) => element(tag, { svg: 1, ...attributes });
  const height = (/** @type {number} */ bytes) => -0.35 * Math.log2(bytes / GIB); // each doubling is as high
  const plot = svg("svg", { viewBox: "-0.2 -4 10.4 6", class: "live-plot", role: "img",
    "aria-label": "Memory of a GPU over the number of GPUs, as copies and as shards" });
  const lines = { copies: svg("polyline", { class: "true" }), shards: svg("polyline", { class: "ours" }) };
  const here = svg("circle", { r: 0.1 });
  const room = height(ROOM * GIB);
  plot.append(svg("line", { x1: -0.2, x2: 10.2, y1: room, y2: room, class: "live-face" }), ...Object.values(lines), here);
  const table = element("table", { "aria-label": "Memory and traffic of a GPU" });
  kit.stage.append(plot, element("p", { class: "live-key" }, element("span", { class: "ours" }, "shards"), " ",
    element("span", { class: "true" }, "copies")), element("p", { class: "live-key" },
    `Memory of a GPU, for 1 GPU (left) to 1,024. The level line is ${ROOM} GiB. Both scales are logarithmic.`), table);
  kit.choice("model", "Model", Object.fromEntries(MODELS.map((name) => [name, `${name} weights`])), "8 B");
  kit.choice("way", "Each GPU holds", { shards: "shards", copies: "a copy" }, "shards");
  kit.range("gpus", "GPUs", POWERS.map((power) => 2 ** power), 8);
  kit.range("tokens", "Tokens of a GPU at once", POWERS.slice(0, 7).map((power) => 1024 * 2 ** power), 8192,
    (count) => count.toLocaleString("en"));
  kit.range("rounds", "Rounds of a step", [1, 2, 4, 8, 16, 32], 1);
  kit.choice("blocks", "Blocks are", { again: "computed again", kept: "kept" }, "again");
  kit.tries({ "copies on 1,024": { way: "copies", gpus: 1024 }, "64 GPUs": { gpus: 64 }, "eight rounds": { gpus: 64, rounds: 8 } });

  /** @param {number} value */
  const number = (value) => value.toLocaleString("en", { maximumSignificantDigits: 3 });

  kit.run("Compute again", async ({ model, way, gpus, tokens, rounds, blocks }, step) => {
    const found = await kit.python({ model, way, gpus, tokens, rounds, recomputed: blocks === "again" });
    await step();
    for (const [name, line] of Object.entries(lines)) {
      line.setAttribute("points", POWERS.map((power) => `${power},${height(found.curves[name][power])}`).join(" "));
    }
    const whole = found.curves[way][Math.log2(gpus)];
    here.setAttribute("cx", Math.log2(gpus));
    here.setAttribute("cy", height(whole));
    const wire = gpus > 8 ? "between machines, at 50 GB/s" : "within a machine, at 450 GB/s";
    const [sending, computing] = found.seconds;
    const rows = [...PARTS.map((name, at) => [name, `${number(found.parts[at] / GIB)} GiB`]),
      ["together", `${number(whole / GIB)} GiB`],
      ["sent in a step", `${number(found.sent / 1e9)} GB`],
      [`sending it ${wire}`, `${number(sending)} s`],
      ["computing", `${number(computing)} s`]];
    table.replaceChildren(element("tbody", {}, ...rows.map(([name, value]) => element("tr", {},
      element("th", { scope: "row", style: "text-align: left; font-weight: 400; padding-right: 1.5rem" }, name),
      element("td", { style: "text-align: right; white-space: nowrap" }, value)))));
    const waits = sending > computing ? "Sending takes longer than computing." : "Computing takes longer than sending.";
    kit.say(`${number(whole / GIB)} GiB ${whole > ROOM * GIB ? "do not fit" : "fit"} on a GPU of ${ROOM} GiB. ${waits}`);
    return found;
  });
}
