// The live figure of the text-to-image post: one caption drawn by the flow in one, two, five and twenty steps.
import { SIDE, names } from "./scenes.js";

const SIZE = 4 * 8 * 8;
const STEPS = [1, 2, 5, 20];

/** @param {import("../../theme/live/kit.js").Kit} kit */
export default function (kit) {
  const { scenes, vocabulary, words } = kit.tables;
  const canvases = STEPS.map((steps) => {
    const canvas = kit.canvas(SIDE, SIDE, `drawn in ${steps} steps`);
    canvas.setAttribute("style", "border: 1px solid var(--line)");
    canvas.classList.add("live-matrix");
    return canvas;
  });
  const titles = STEPS.map((steps) => kit.element("span", {}, `${steps} step${steps > 1 ? "s" : ""}`));
  kit.stage.append(kit.element("div", { class: "live-matrices" },
    ...canvases.map((canvas, at) => kit.element("div", {}, titles[at], canvas))));
  kit.choice("shape", "Caption", names(scenes), "large red circle");
  kit.choice("place", "at the", Object.fromEntries(scenes.places.map((/** @type {string} */ place) => [place, place])), "top left");
  kit.range("scale", "Guidance", [1, 1.5, 2, 3, 4, 6, 8], 4, (value) => (value === 1 ? "1, which is none" : String(value)));
  kit.keepsPicture = true;
  kit.seed();
  kit.tries({ "no guidance": { scale: 1 }, "a guidance of 8": { scale: 8 }, "a pair that it never saw": { shape: "large red square" } });

  kit.run("Other noise", async ({ shape, place, scale, seed }, step) => {
    const condition = new BigInt64Array(2 * words); // the caption, then the empty one
    `a ${shape} at the ${place}`.split(" ").forEach((word, at) => { condition[at] = BigInt(vocabulary.indexOf(word)); });
    const pictures = [];
    const took = [];
    for (const [column, steps] of STEPS.entries()) {
      const began = performance.now();
      let x = kit.normal(seed, 0, SIZE);
      const show = async () => {
        const found = (await kit.net("decoder", { latents: { data: x, dims: [1, 4, 8, 8] } })).out.data;
        kit.paint(canvases[column], Array.from(found, (value) => (Number(value) + 1) / 2), 3);
        return Array.from(found, (value) => Math.min(1, Math.max(-1, Number(value))));
      };
      for (let at = 0; at < steps; at++) {
        const { out } = await kit.net("flow", {
          x: { data: Float32Array.of(...x, ...x), dims: [2, 4, 8, 8] },
          t: { data: new Float32Array(2).fill((1000 * at) / steps), dims: [2] },
          condition: { data: condition, dims: [2, words] },
        });
        // guided_flow and a step of flow_paths of the page
        x = x.map((value, p) => {
          const untold = out.data[SIZE + p];
          return value + (untold + scale * (out.data[p] - untold)) / steps;
        });
        await step();
      }
      took.push(performance.now() - began);
      pictures.push(await show());
    }
    const passes = scale === 1 ? "one pass a step would do" : "two passes a step";
    const seconds = took.map((time, column) => `${STEPS[column]}: ${(time / 1000).toFixed(2)} s`).join(", ");
    kit.say(`Seconds by steps: ${seconds}; ${passes}.`);
    return pictures;
  });
}
