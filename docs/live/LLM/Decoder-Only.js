// The live figure of the decoder-only post: text written byte by byte, with the distribution that each is drawn from.
import { Reader, paced, pick, prompt, shown, softmax, written } from "./llama.js";

const [COUNT, MOST] = [120, 8];

/** Probabilities from which a byte is drawn, as `Sampling.probabilities` of the page on decoding makes them.
 * @param {ArrayLike<number>} logits @param {Record<string, any>} values @returns {number[]} */
function sampled(logits, { temperature, k, p, least }) {
  if (temperature === 0) return softmax(logits, 0);
  const all = softmax(Array.from(logits, (logit) => logit / temperature));
  let kept = Array.from(all.keys()).sort((a, b) => all[b] - all[a]).slice(0, k === "all" ? all.length : k);
  const total = kept.reduce((sum, byte) => sum + all[byte], 0);
  let before = 0;
  if (p !== 1) kept = kept.filter((byte) => (before += all[byte] / total) - all[byte] / total < p);
  kept = kept.filter((byte) => all[byte] >= least * all[kept[0]]);
  const rest = kept.reduce((sum, byte) => sum + all[byte], 0);
  return all.map((value, byte) => (kept.includes(byte) ? value / rest : 0));
}

/** @param {import("../../../theme/live/kit.js").Kit} kit */
export default function (kit) {
  const { element } = kit;
  /** @type {{byte: number, model: number[], drawn: number[], shade: HTMLElement}[]} */
  let steps = [];
  const text = element("p", { class: "live-words live-letters", "aria-label": "The text" });
  const head = element("caption");
  const rows = element("tbody");
  const bars = element("table", { class: "live-bars" }, head, element("thead", {}, element("tr", {},
    ...["byte", "model", "drawn from", ""].map((name) => element(name ? "th" : "td", {}, name)))), rows);
  const at = element("input", { type: "range", min: 1, max: COUNT, step: 1, "aria-label": "Byte to look at",
    oninput: () => look(at.value - 1) });
  kit.stage.append(text, element("div", { class: "live-look" }, "Look at byte", at), bars);
  const percent = (/** @type {number} */ share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

  /** Show what one byte was drawn from. @param {number} place */
  function look(place) {
    const { byte, model, drawn, shade } = steps[place];
    at.value = place + 1;
    at.setAttribute("aria-valuetext", `${place + 1}, ${shown(byte)}`);
    text.querySelector(".live-seen")?.classList.remove("live-seen");
    shade.classList.add("live-seen");
    const likely = Array.from(model.keys()).sort((a, b) => model[b] - model[a]).slice(0, MOST);
    if (!likely.includes(byte)) likely[MOST - 1] = byte;
    head.textContent = `Byte ${place + 1}: ${shown(byte)} was drawn, of ${drawn.filter((share) => share > 0).length} that could be.`;
    rows.replaceChildren(...likely.map((one) => element("tr", one === byte ? { class: "live-chosen" } : {},
      element("th", {}, shown(one)), element("td", {}, percent(model[one])), element("td", {}, drawn[one] ? percent(drawn[one]) : "cut"),
      element("td", {}, ...[model, drawn].map((shares) => element("span", { style: `width: ${100 * shares[one]}%` }))))));
  }

  kit.text("text", "Prompt", "Return a new ");
  kit.range("temperature", "Temperature", [0, 0.3, 0.5, 0.7, 0.8, 1, 1.2, 1.5, 2], 1);
  kit.range("k", "Top-k", [1, 2, 3, 5, 10, 20, 40, "all"], "all");
  kit.range("p", "Top-p", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1], 1);
  kit.range("least", "Min-p", [0, 0.02, 0.05, 0.1, 0.2, 0.5], 0);
  kit.keepsPicture = true;
  kit.seed();
  kit.tries({ "temperature 0": { temperature: 0 }, "temperature 1.5": { temperature: 1.5 },
    "1.5 with min-p 0.1": { temperature: 1.5, least: 0.1 } });

  kit.run("Other numbers", async (values, step) => {
    const given = prompt(values.text, COUNT);
    if (!given.length) {
      kit.say("The model wants at least one letter to go on from.");
      return null;
    }
    const chances = kit.uniform(values.seed, 0, COUNT);
    const reader = new Reader(kit, "llama");
    steps = [];
    text.replaceChildren(written(given));
    const draw = () => {
      text.append(...steps.slice(text.childElementCount).map(({ shade }) => shade));
      look(steps.length - 1);
    };
    const began = performance.now();
    const due = paced();
    let unread = given;
    while (steps.length < COUNT) {
      const logits = (await reader.read(unread))[unread.length - 1];
      const [model, drawn] = [softmax(logits), sampled(logits, values)];
      const byte = pick(drawn, chances[steps.length]);
      unread = [byte];
      const letter = byte === 32 ? " " : byte === 10 ? "↵ " : shown(byte);
      const shade = element("span", { style: `--shade: ${Math.min(100, -100 * Math.log2(model[byte]) / 9)}%` }, letter);
      const place = steps.push({ byte, model, drawn, shade }) - 1;
      shade.addEventListener("click", () => look(place));
      await step(due(draw));
    }
    const seconds = (performance.now() - began) / 1000;
    draw();
    const costs = steps.map(({ byte, model }) => -Math.log2(model[byte]));
    const mean = costs.reduce((sum, bits) => sum + bits, 0) / COUNT;
    kit.say(`${COUNT} bytes, ${(COUNT / seconds).toFixed(0)} a second; they cost the model ${mean.toFixed(2)} bits each.`);
    return { written: steps.map(({ byte }) => byte), costs };
  });
}
