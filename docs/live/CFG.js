// The live figure of the CFG post: ten digits of one class from the same noise, with and without guidance.

const DIGITS = 10;
const PIXELS = 64;
const NONE = 10; // the class that stands for no class

/** @param {import("../../theme/live/kit.js").Kit} kit */
export default function (kit) {
  const digits = Array.from({ length: 10 }, (_, digit) => String(digit));
  const rows = ["s = 1", "guided"].map((name) => {
    const canvases = Array.from({ length: DIGITS }, (_, at) => kit.canvas(8, 8, `${name}, digit ${at + 1}`));
    kit.stage.append(kit.element("div", { class: "live-row" }, kit.element("span", {}, name), ...canvases));
    return canvases;
  });
  kit.choice("class", "Class", Object.fromEntries(digits.map((digit) => [digit, digit])), "4");
  kit.range("scale", "Scale", [0, 0.5, 1, 1.5, 2, 3, 4, 6, 8], 3, (s) => `s = ${s}, w = ${s - 1}`);
  kit.choice("away", "Away from", { [NONE]: "no class", ...Object.fromEntries(digits.map((digit) => [digit, digit])) }, String(NONE));
  kit.keepsPicture = true;
  kit.seed();
  kit.tries({ "s = 0": { scale: 0 }, "s = 8": { scale: 8 }, "a 4, away from 9": { away: "9" } });

  const draw = (/** @type {number} */ row, /** @type {ArrayLike<number>} */ x) => rows[row].forEach((canvas, at) =>
    kit.paint(canvas, Array.from({ length: PIXELS }, (_, p) => (x[at * PIXELS + p] + 1) / 2)));

  kit.run("Other noise", async ({ class: asked, scale, away, seed }, step) => {
    const began = performance.now();
    const { alpha_bar: alphaBar, levels } = kit.tables;
    const count = DIGITS * PIXELS;
    const noise = kit.normal(seed, 0, count);
    let x = [noise, noise]; // s = 1, guided
    const condition = BigInt64Array.from({ length: 3 * DIGITS }, (_, at) => BigInt(at < 2 * DIGITS ? asked : away));
    for (let at = 0; at + 1 < levels.length; at++) {
      const here = alphaBar[levels[at]];
      const there = levels[at + 1] < 0 ? 1 : alphaBar[levels[at + 1]];
      const { out } = await kit.net("unet", {
        x: { data: Float32Array.of(...x[0], ...x[1], ...x[1]), dims: [3 * DIGITS, 1, 8, 8] },
        t: { data: new BigInt64Array(3 * DIGITS).fill(BigInt(levels[at])), dims: [3 * DIGITS] },
        condition: { data: condition, dims: [3 * DIGITS] },
      });
      const told = out.data.subarray(count, 2 * count);
      const untold = out.data.subarray(2 * count);
      // guide of the page, then its step of DDIM without fresh noise
      const guided = Float32Array.from(told, (value, p) => Number(untold[p]) + scale * (Number(value) - Number(untold[p])));
      x = [/** @type {Float32Array} */ (out.data.subarray(0, count)), guided].map((clean, row) => clean.map((value, p) => {
        const eps = (x[row][p] - Math.sqrt(here) * value) / Math.sqrt(1 - here);
        return Math.sqrt(there) * value + Math.sqrt(1 - there) * eps;
      }));
      await step(() => x.forEach((images, row) => draw(row, images)));
    }
    x.forEach((images, row) => draw(row, images));
    kit.say(`Ten digits asked to be a ${asked}, in ${((performance.now() - began) / 1000).toFixed(2)} s.`);
    return x.map((images) => Array.from(images));
  });
}
