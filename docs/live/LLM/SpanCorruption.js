// The live figure of the span corruption post: the reader's own words, corrupted and rebuilt by the page's functions.

const TEXT = "Span corruption hides a few short runs of words, puts a numbered mark in the place of each, and asks the "
  + "network for the hidden words alone, each run behind the mark that stands for it.";

/** @param {import("../../../theme/live/kit.js").Kit} kit */
export default function (kit) {
  const { element } = kit;
  const lines = ["Input", "Target", "Rebuilt"].map((name) => element("p", { class: "live-words", "aria-label": name }));
  kit.stage.append(...lines);
  kit.keepsPicture = true;
  kit.text("text", "Text", TEXT, 3);
  kit.range("density", "Hidden", [0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6], 0.15, (share) => `${Math.round(100 * share)} %`);
  kit.range("span", "Mean span", [1, 1.5, 2, 3, 4, 5, 8], 3);
  kit.seed();
  kit.tries({ "half of the words": { density: 0.5 }, "spans of one word": { span: 1 }, "another seed": { seed: 2 } });

  kit.run("Other spans", async (given, step) => {
    const found = await kit.python(given);
    await step();
    if (found.error) {
      kit.say(`The page's code refuses: ${found.error}.`);
      return found;
    }
    const mark = /^<\d+>$/;
    const hidden = (/** @type {string} */ word) => [element("mark", {}, word), " "];
    const sentinel = (/** @type {string} */ word) => [element("i", {}, word), " "];
    const plain = (/** @type {string} */ word) => [`${word} `];
    const fill = (/** @type {number} */ line, /** @type {string} */ name, /** @type {(string | Node)[]} */ parts) =>
      lines[line].replaceChildren(element("b", {}, name), ...parts);
    fill(0, "Input", found.source.flatMap((/** @type {string} */ word) => (mark.test(word) ? sentinel : plain)(word)));
    fill(1, "Target", found.target.flatMap((/** @type {string} */ word) => (mark.test(word) ? sentinel : hidden)(word)));
    fill(2, "Rebuilt", found.whole.flatMap((/** @type {string} */ word, /** @type {number} */ at) =>
      (found.mask[at] ? hidden : plain)(word)));
    const spans = found.source.filter((/** @type {string} */ word) => mark.test(word)).length;
    const count = found.mask.filter(Boolean).length;
    const where = `${spans} span${spans > 1 ? "s" : ""}`;
    kit.say(`${count} of ${found.mask.length} words hidden in ${where}; target of ${found.target.length} pieces.`);
    return found;
  });
}
