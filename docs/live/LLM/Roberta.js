// The live figure of the RoBERTa post: byte-level BPE learns from the reader's own text, merge by merge.

const TEXT = "The lowest tower is lower than the low wall, and the newest tower is newer than the new wall.";
const TRIES = { Greek: "το νερό και το νησί, το νησί και το νερό", "one long word": "banana".repeat(8) };

/** @param {import("../../../theme/live/kit.js").Kit} kit */
export default function (kit) {
  const { element } = kit;
  const cut = element("p", { class: "live-words", "aria-label": "The text in pieces" });
  const last = element("p", { class: "live-words" });
  kit.stage.append(cut, last);
  kit.keepsPicture = true;
  kit.text("text", "Text", TEXT, 2);
  kit.range("merges", "Merges", Array.from({ length: 61 }, (_, count) => count), 10);
  kit.tries({ "no merge": { merges: 0 }, "sixty merges": { merges: 60 }, Greek: { text: TRIES.Greek },
    "one long word": { text: TRIES["one long word"] } });

  kit.run("Again", async (given, step) => {
    const found = await kit.python(given);
    await step();
    const parts = found.pieces.flatMap((/** @type {string[]} */ chunk, /** @type {number} */ at) =>
      chunk.flatMap((piece) => [element(at % 2 ? "i" : "mark", {}, piece), "\u200b"]));
    cut.replaceChildren(...parts);
    const names = found.merges.map((/** @type {string[]} */ pair) => pair.join(" + "));
    const shown = names.slice(-8);
    last.replaceChildren(element("b", {}, names.length > 8 ? "Last merges" : "Merges"), shown.join(", ") || "none yet");
    const count = found.pieces.flat().length;
    kit.say(`${found.bytes} bytes in ${count} pieces, after ${names.length} merge${names.length === 1 ? "" : "s"}.`);
    return found;
  });
}
