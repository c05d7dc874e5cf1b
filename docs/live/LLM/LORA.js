// The live figure of the LoRA post: one prompt continued by the base and by the adapted model, with alpha to set.
import { Reader, paced, pick, prompt, softmax, written } from "./llama.js";

const [COUNT, TRAINED, END] = [120, 16, "↵\n"];
const CODE = "    def close(self):\n        if self._file is not None:\n            self._file.";
const PROSE = "Return the number of bytes that were written, or raise an error if the file ";

/** Mean bits of a prompt's bytes but the first. @param {number[]} bytes @param {Float32Array[]} logits after each */
function cost(bytes, logits) {
  const bits = bytes.slice(1).map((byte, at) => -Math.log2(softmax(logits[at])[byte]));
  return bits.reduce((sum, one) => sum + one, 0) / Math.max(1, bits.length);
}

/** @param {import("../../../theme/live/kit.js").Kit} kit */
export default function (kit) {
  const { element } = kit;
  const texts = ["Base", "Adapted"].map((name) => {
    const text = element("p", { class: "live-words live-pre", "aria-label": `${name}: the text` });
    kit.stage.append(text);
    return { name, text };
  });
  kit.text("text", "Prompt", CODE, 3);
  kit.range("alpha", "Alpha", [-16, -8, 0, 2, 4, 8, 12, TRAINED, 24, 32, 64], TRAINED,
    (alpha) => `${alpha}, ${alpha / TRAINED} of the trained change`);
  kit.range("temperature", "Temperature", [0, 0.5, 0.8, 1], 0.8);
  kit.keepsPicture = true;
  kit.seed();
  kit.tries({ "alpha 0": { alpha: 0 }, "alpha 64": { alpha: 64 }, "alpha −16": { alpha: -16 }, "prose": { text: PROSE } });

  kit.run("Other numbers", async ({ text: asked, alpha, temperature, seed }, step) => {
    const given = prompt(asked, COUNT);
    if (!given.length) {
      kit.say("The models want at least one letter to go on from.");
      return null;
    }
    const chances = kit.uniform(seed, 0, COUNT);
    const amount = { data: Float32Array.of(alpha), dims: [] };
    const readers = [new Reader(kit, "llama"), new Reader(kit, "lora", { alpha: amount })];
    /** @type {number[][]} */
    const found = [[], []];
    const bits = [0, 0];
    const draw = () => texts.forEach(({ name, text }, at) =>
      text.replaceChildren(element("b", {}, `${name}\n`), written(given, END),
        element(at ? "mark" : "i", {}, written(found[at], END))));
    const due = paced();
    for (let at = 0; at < COUNT; at++) {
      for (const [side, reader] of readers.entries()) {
        const logits = await reader.read(at ? found[side].slice(-1) : given);
        if (at === 0) bits[side] = cost(given, logits);
        found[side].push(pick(softmax(logits[logits.length - 1], temperature), chances[at]));
      }
      await step(due(draw));
    }
    draw();
    kit.say(`The prompt costs the base ${bits[0].toFixed(2)} bits a byte, the adapted model ${bits[1].toFixed(2)}.`);
    return { base: found[0], adapted: found[1], bits };
  });
}
