// The live figure of the latent diffusion post: a caption becomes a latent, step by step, decoded at each.

const SIZE = 4 * 8 * 8;
const CAPTION = "a large red circle at the top left and a small blue cross at the bottom right";
const TRIES = { other: "a large purple triangle at the bottom left", unseen: "a large blue circle at the bottom right" };

/** @param {import("../../theme/live/kit.js").Kit} kit */
export default function (kit) {
  const named = /** @type {[string, number][]} */ ([["latent", 8], ["decoded", 32], ["expected, decoded", 32]]);
  const canvases = named.map(([name, side]) => {
    const canvas = kit.canvas(side, side, name);
    canvas.classList.add("live-matrix");
    return canvas;
  });
  kit.stage.append(kit.element("div", { class: "live-matrices" },
    ...named.map(([name], at) => kit.element("div", {}, name, canvases[at]))));
  kit.keepsPicture = true;
  kit.text("caption", "Caption", CAPTION, 2);
  kit.range("guidance", "Guidance", [0, 1, 2, 3, 5, 8], 3);
  kit.seed();
  kit.tries({ "no guidance at all": { guidance: 0 }, "another caption": { caption: TRIES.other },
    "a pair that it never saw": { caption: TRIES.unseen } });

  kit.run("Other noise", async ({ caption, guidance, seed }, step) => {
    const { levels, ratio, vocabulary, length } = kit.tables;
    const words = caption.toLowerCase().split(/\s+/).filter(Boolean);
    const unknown = words.find((/** @type {string} */ word) => !vocabulary.includes(word));
    if (unknown || words.length > length) {
      kit.say(unknown ? `The network knows no word ${unknown}, only: ${vocabulary.slice(1).join(", ")}.` : "The caption is too long.");
      return null;
    }
    const began = performance.now();
    const tokens = new BigInt64Array(2 * length); // the caption, then the empty one
    words.forEach((/** @type {string} */ word, /** @type {number} */ at) => { tokens[at] = BigInt(vocabulary.indexOf(word)); });
    const text = (await kit.net("text", { tokens: { data: tokens, dims: [2, length] } })).out;
    let x = kit.normal(seed, 0, SIZE);
    let expected = x;
    const show = async () => {
      const latents = { data: Float32Array.of(...x, ...expected), dims: [2, 4, 8, 8] };
      const pictures = (await kit.net("decoder", { latents })).out.data;
      kit.paint(canvases[0], Array.from(x.subarray(0, 192), (value) => value / 5 + 0.5), 3);
      for (const at of [0, 1]) {
        const part = pictures.subarray(at * 3072, (at + 1) * 3072);
        kit.paint(canvases[at + 1], Array.from(part, (value) => (Number(value) + 1) / 2), 3);
      }
      return pictures;
    };
    for (let at = 0; at < levels.length; at++) {
      const [here, there] = [ratio[at], ratio[at + 1]];
      const both = { data: Float32Array.of(...x, ...x), dims: [2, 4, 8, 8] };
      const level = { data: new BigInt64Array(2).fill(BigInt(levels[at])), dims: [2] };
      const out = (await kit.net("unet", { x: both, t: level, text })).out.data;
      const alphaBar = 1 / (1 + here ** 2);
      // guide, noise_from_velocity and a step of sample_latents of the page
      const eps = x.map((value, p) => {
        const velocity = out[SIZE + p] + guidance * (out[p] - out[SIZE + p]);
        return Math.sqrt(1 - alphaBar) * value + Math.sqrt(alphaBar) * velocity;
      });
      expected = x.map((value, p) => (value - Math.sqrt(1 - alphaBar) * eps[p]) / Math.sqrt(alphaBar));
      x = x.map((value, p) => (value * Math.sqrt(1 + here ** 2) + (there - here) * eps[p]) / Math.sqrt(1 + there ** 2));
      await step();
      await show();
    }
    const picture = Array.from((await show()).subarray(0, 3072), Number);
    kit.say(`Drawn in ${levels.length} steps, ${((performance.now() - began) / 1000).toFixed(1)} s.`);
    return { latent: Array.from(x), picture };
  });
}
