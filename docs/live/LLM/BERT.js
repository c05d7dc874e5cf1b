// The live figure of the BERT post: pieces of the reader's sentence, one of them hidden, the guesses, and each head.

const GUESSES = 5;
const LAYERS = 2;
const HEADS = 4;
const TEXT = "If the argument is not given, it is ignored.";
const OTHER = "The function returns a list of the names in the directory.";
const ITSELF = "the piece itself";

/** @param {import("../../../theme/live/kit.js").Kit} kit */
export default function (kit) {
  const { element } = kit;
  const row = element("p", { class: "live-words", "aria-label": "The text in pieces" });
  const guessed = element("div");
  kit.stage.append(row, guessed);
  const canvases = Array.from({ length: LAYERS }, (_, layer) => {
    const maps = Array.from({ length: HEADS }, (_, head) => element("canvas", { width: 1, height: 1, class: "live-matrix",
      role: "img", "aria-label": `Attention of layer ${layer + 1}, head ${head + 1}` }));
    kit.stage.append(element("p", { class: "live-key" }, `Layer ${layer + 1}, heads 1 to ${HEADS}`),
      element("div", { class: "live-matrices" }, ...maps.map((map) => element("div", {}, map))));
    return maps;
  }).flat();
  const places = Array.from({ length: 62 }, (_, at) => at + 1);
  kit.text("text", "Text", TEXT, 2);
  kit.range("hide", "Hide", places, 6, (place) => `piece ${place}`);
  kit.choice("stands", "In its place stands", { "[MASK]": "[MASK]", [ITSELF]: ITSELF }, "[MASK]");
  kit.choice("head", "Shade pieces by", Object.fromEntries(canvases.map((_, at) =>
    [at, `layer ${Math.floor(at / HEADS) + 1}, head ${(at % HEADS) + 1}`])), "1");
  kit.keepsPicture = true;
  kit.tries({ "hide “the”": { hide: 2 }, "hide nothing": { stands: ITSELF }, "another sentence": { text: OTHER, hide: 8 } });

  /** @param {number} share */
  const percent = (share) => `${(100 * share).toFixed(share < 0.01 ? 1 : 0)} %`;

  kit.run("Again", async ({ text, hide, stands, head }, step) => {
    const { pieces: vocabulary } = kit.tables;
    const read = await kit.python({ text, pieces: vocabulary });
    await step();
    const count = read.tokens.length;
    const place = Math.min(hide, count - 2); // 0 where there is no text
    const mask = vocabulary.indexOf("[MASK]");
    const shown = read.tokens.map((/** @type {number} */ token, /** @type {number} */ at) =>
      at > 0 && at === place && stands === "[MASK]" ? mask : token);
    const row_of = (/** @type {number[]} */ values) => ({ data: BigInt64Array.from(values, BigInt), dims: [1, count] });
    const { chances, maps } = await kit.net("bert", { tokens: row_of(shown), segments: row_of(read.segments) });
    await step();

    const looks = (/** @type {number} */ which, /** @type {number} */ from, /** @type {number} */ to) =>
      maps.data[(which * count + from) * count + to];
    row.replaceChildren(...shown.flatMap((/** @type {number} */ token, /** @type {number} */ at) => {
      const share = Math.round(40 * Math.min(1, place > 0 ? looks(Number(head), place, at) / 0.6 : 0));
      const piece = element("span", { style: `padding: 0.15em 0.25em; border-radius: 3px; cursor: pointer; background: ` +
        `color-mix(in srgb, var(--link) ${share}%, transparent)${at === place ? "; outline: 2px solid var(--ink)" : ""}` },
        vocabulary[token]);
      piece.addEventListener("click", () => {
        kit.known.hide.set(Math.max(1, Math.min(at, count - 2)));
        kit.changed();
      });
      return [piece, " "];
    }));
    canvases.forEach((canvas, which) => {
      canvas.width = canvas.height = count;
      const share = /** @type {Float32Array} */ (maps.data.subarray(which * count * count, (which + 1) * count * count));
      kit.paint(canvas, share.map((one) => one / 0.6));
    });

    const asked = shown.flatMap((/** @type {number} */ token, /** @type {number} */ at) =>
      at > 0 && (at === place || token === mask) ? [at] : []);
    const guesses = asked.map((/** @type {number} */ at) => {
      const here = Array.from(chances.data.subarray(at * vocabulary.length, (at + 1) * vocabulary.length), Number);
      const order = here.map((_, token) => token).sort((a, b) => here[b] - here[a]);
      const right = read.tokens[at];
      return { at, best: order.slice(0, GUESSES).map((token) => [vocabulary[token], here[token]]),
        right: [vocabulary[right], here[right], order.indexOf(right) + 1] };
    });
    guessed.replaceChildren(...guesses.map((/** @type {any} */ { at, best, right: [piece, share, rank] }) =>
      element("p", { class: "live-words" }, element("b", {}, `At piece ${at}`),
        best.map((/** @type {[string, number]} */ [name, chance]) => `${name} ${percent(chance)}`).join(", "),
        piece === "[MASK]" ? "" : `. There ${shown[at] === mask ? "stood" : "stands"} “${piece}”: ${percent(share)}, guess no. ${rank}.`)));
    const first = guesses.find((/** @type {any} */ { at }) => at === place);
    kit.say(first ? `The first guess at piece ${place} is “${first.best[0][0]}”, with ${percent(first.best[0][1])}.`
      : "There is no piece to hide.");
    return { pieces: read.pieces, guesses, maps: Array.from(maps.data) };
  });
}
