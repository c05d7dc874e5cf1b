// The live figure of the DDPM post: ten digits from the reader's noise, and what each is taken to be on the way.

const DIGITS = 10;
const PIXELS = 64;

/** @param {import("../../theme/live/kit.js").Kit} kit */
export default function (kit) {
  const row = (/** @type {string} */ name) => {
    const canvases = Array.from({ length: DIGITS }, (_, at) => kit.canvas(8, 8, `${name}, digit ${at + 1}`));
    kit.stage.append(kit.element("div", { class: "live-row" }, kit.element("span", {}, name), ...canvases));
    return canvases;
  };
  const noisy = row("on the way");
  const implied = row("implied");
  kit.range("steps", "Steps", [1, 2, 3, 5, 10, 20, 50, 100, 250, 1000], 20);
  kit.choice("eta", "Sampler", { 0: "DDIM: no fresh noise", 1: "DDPM: fresh noise at each step" }, "0");
  kit.seed();
  kit.tries({ "one step": { steps: 1 }, "five steps": { steps: 5 }, "250 steps": { steps: 250 }, DDPM: { eta: "1" } });

  const draw = (/** @type {HTMLCanvasElement[]} */ canvases, /** @type {ArrayLike<number>} */ images) =>
    canvases.forEach((canvas, at) => kit.paint(canvas, Array.from({ length: PIXELS }, (_, p) => (images[at * PIXELS + p] + 1) / 2)));

  kit.run("Other noise", async ({ steps, eta, seed }, step) => {
    const alphaBar = kit.tables.alpha_bar;
    const began = performance.now();
    const stops = kit.tables.levels[steps]; // from T - 1 down to -1, as ddim_levels says
    let x = kit.normal(seed, 0, DIGITS * PIXELS);
    let clean = x;
    for (let at = 0; at < steps; at++) {
      const t = new BigInt64Array(DIGITS).fill(BigInt(stops[at]));
      const { out } = await kit.net("unet", { x: { data: x, dims: [DIGITS, 1, 8, 8] }, t: { data: t, dims: [DIGITS] } });
      const eps = /** @type {Float32Array} */ (out.data);
      const fresh = kit.normal(seed, at + 1, DIGITS * PIXELS);
      // ddim_step of the page
      const here = alphaBar[stops[at]];
      const there = stops[at + 1] < 0 ? 1 : alphaBar[stops[at + 1]];
      const sigma = Number(eta) * Math.sqrt(((1 - there) / (1 - here)) * (1 - here / there));
      const direction = Math.sqrt(1 - there - sigma ** 2);
      clean = x.map((value, p) => (value - Math.sqrt(1 - here) * eps[p]) / Math.sqrt(here));
      x = clean.map((value, p) => Math.sqrt(there) * value + direction * eps[p] + sigma * fresh[p]);
      await step(() => {
        draw(noisy, x);
        draw(implied, clean);
      });
    }
    draw(noisy, x);
    draw(implied, clean);
    kit.say(`Ten digits after ${steps} step${steps > 1 ? "s" : ""}, in ${((performance.now() - began) / 1000).toFixed(2)} s.`);
    return Array.from(x);
  });
}
