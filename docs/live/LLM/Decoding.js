// The live figure of the decoding post: a draft guesses bytes, and the model accepts or refuses them.
import { Reader, paced, pick, prompt, shown, softmax, written } from "./llama.js";

const [COUNT, DISCOUNT, SIZE] = [120, 0.75, 256];

/** Probabilities of the byte after these, from what followed the last ones in a text: the page's `CountedDraft.row`.
 * @param {Uint8Array} codes @param {number} order @param {number[]} past */
function row(codes, order, past) {
  const counts = Array.from({ length: order }, () => new Float64Array(SIZE));
  for (let at = 0; at < codes.length; at++) {
    counts[0][codes[at]]++;
    for (let n = 1; n < order && n <= Math.min(at, past.length) && codes[at - n] === past[past.length - n]; n++)
      counts[n][codes[at]]++;
  }
  let found = new Float64Array(SIZE).fill(1 / SIZE);
  for (const count of counts) {
    const [total, kinds] = [count.reduce((sum, one) => sum + one, 0), count.filter((one) => one > 0).length];
    if (total > 0) found = found.map((share, byte) =>
      (share * DISCOUNT * kinds + Math.max(0, count[byte] - DISCOUNT)) / total);
  }
  return found;
}

/** @param {import("../../../theme/live/kit.js").Kit} kit */
export default function (kit) {
  const { element } = kit;
  const codes = Uint8Array.from(kit.tables.text, (letter) => letter.charCodeAt(0));
  /** @typedef {{drafted: number, q: number, p: number, chance: number, stays: boolean}} Guess */
  /** @type {{guesses: Guess[], last: number, kept: number, shown: HTMLElement}[]} */
  let rounds = [];
  const text = element("p", { class: "live-words live-letters live-rounds", "aria-label": "The text" });
  const [head, rows] = [element("caption"), element("tbody")];
  const table = element("table", { class: "live-bars" }, head, element("thead", {}, element("tr", {},
    ...["guess", "q", "p", "number", ""].map((name) => element(name ? "th" : "td", {}, name)))), rows);
  const at = element("input", { type: "range", min: 1, max: COUNT, step: 1, "aria-label": "Round to look at",
    oninput: () => look(at.value - 1) });
  kit.stage.append(text, element("div", { class: "live-look" }, "Look at round", at), table);
  const percent = (/** @type {number} */ share) => `${(100 * share).toFixed(1)} %`;

  /** Show one round: each guess, and whether it stayed. @param {number} place */
  function look(place) {
    const { guesses, last, kept, shown: part } = rounds[place];
    at.max = rounds.length;
    at.value = place + 1;
    at.setAttribute("aria-valuetext", String(place + 1));
    text.querySelector(".live-seen")?.classList.remove("live-seen");
    part.classList.add("live-seen");
    head.textContent = `Round ${place + 1}: ${kept} of ${guesses.length} stay, then the model's ${shown(last)}`;
    rows.replaceChildren(...guesses.map(({ drafted, q, p, chance, stays }, n) => element("tr", stays ? { class: "live-chosen" } : {},
      element("th", {}, shown(drafted)), element("td", {}, percent(q)), element("td", {}, percent(p)),
      element("td", {}, chance.toFixed(2)),
      element("td", {}, n > kept ? "thrown away" : `${stays ? "<" : "≥"} p / q: ${stays ? "stays" : "refused"}`))));
  }

  kit.text("text", "Prompt", "Return a new ");
  kit.range("count", "Drafted at once", [1, 2, 3, 4, 6, 8], 4);
  kit.range("order", "Bytes that the draft sees", [0, 1, 2, 3, 4, 5], 4);
  kit.range("temperature", "Temperature", [0, 0.5, 0.8, 1, 1.5], 0.8);
  kit.keepsPicture = true;
  kit.seed();
  kit.tries({ "a draft that sees nothing": { order: 0 }, "temperature 0": { temperature: 0 },
    "the same, sees nothing": { temperature: 0, order: 0 },
    "one at once": { count: 1 }, "eight at once": { count: 8 } });

  kit.run("Other numbers", async ({ text: asked, count, order, temperature, seed }, step) => {
    const tokens = prompt(asked, COUNT);
    if (!tokens.length) {
      kit.say("The model wants at least one letter to go on from.");
      return null;
    }
    const [end, reader, due] = [tokens.length + COUNT, new Reader(kit, "llama"), paced()];
    const numbers = kit.uniform(seed, 0, 20 * COUNT);
    let [used, drafts, stayed] = [0, 0, 0];
    rounds = [];
    text.replaceChildren(written(tokens));
    const draw = () => {
      text.append(...rounds.slice(text.childElementCount).map(({ shown: part }) => part));
      look(rounds.length - 1);
    };
    while (tokens.length < end) {
      const asked = Math.min(count, end - tokens.length - 1); // none before the last byte
      const [past, proposals] = [[...tokens], /** @type {number[][]} */ ([])];
      for (let n = 0; n < asked; n++) {
        const logs = Array.from(row(codes, order + 1, past), (share) => Math.fround(Math.log(share)));
        proposals.push(softmax(logs, temperature));
        past.push(pick(proposals[n], numbers[used++]));
      }
      const drafted = past.slice(tokens.length);
      const logits = (await reader.read(past.slice(reader.length))).slice(-asked - 1);
      const target = logits.map((one) => softmax(one, temperature));
      const guesses = drafted.map((byte, n) => {
        const [p, q, chance] = [target[n][byte], proposals[n][byte], numbers[used++]];
        return { drafted: byte, q, p, chance, stays: chance < p / q };
      });
      const refused = guesses.findIndex(({ stays }) => !stays);
      const kept = refused < 0 ? asked : refused;
      // what the draft gives too rarely
      const missing = target[kept].map((p, byte) => (kept < asked ? Math.max(0, p - proposals[kept][byte]) : p));
      const last = pick(missing.some((weight) => weight > 0) ? missing : target[kept], numbers[used++]);
      tokens.push(...drafted.slice(0, kept), last);
      reader.length = Math.min(reader.length, tokens.length - 1); // forget what was refused
      [drafts, stayed] = [drafts + asked, stayed + kept];
      guesses.forEach((guess, n) => { guess.stays &&= n < kept; });
      const part = element("span", {}, ...[[drafted.slice(0, kept), "mark"], [drafted.slice(kept), "s"], [[last], "i"]]
        .filter(([bytes]) => bytes.length).map(([bytes, tag]) => element(String(tag), {}, written(/** @type {number[]} */ (bytes)))));
      const place = rounds.push({ guesses, last, kept, shown: part }) - 1;
      part.addEventListener("click", () => look(place));
      await step(due(draw));
    }
    draw();
    look(0);
    const share = drafts ? `${Math.round((100 * stayed) / drafts)} % of ${drafts} guesses stayed` : "no guesses";
    kit.say(`${COUNT} bytes in ${rounds.length} readings by the model; ${share}.`);
    return { tokens: tokens.slice(-COUNT), drafts, stayed };
  });
}
