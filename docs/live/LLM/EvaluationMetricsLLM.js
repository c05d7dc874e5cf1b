// The live figure of the metrics post: a candidate and a reference that the reader types, and every text metric of the page.

const REFERENCE = "The old bridge is not safe, so the trucks have to take the long way round.";
const TRIES = {
  "the not left out": "The old bridge is safe, so the trucks have to take the long way round.",
  "said in other words": "The old bridge is not secure, so the lorries must take the long route round.",
  "the other half first": "So the trucks have to take the long way round, the old bridge is not safe.",
};

/** @param {import("../../../theme/live/kit.js").Kit} kit */
export default function (kit) {
  const { element } = kit;
  const words = element("p", { class: "live-words" });
  const table = element("table", { "aria-label": "Scores" });
  kit.stage.append(words, table);
  kit.keepsPicture = true;
  kit.text("reference", "Reference", REFERENCE, 2);
  kit.text("candidate", "Candidate", TRIES["the not left out"], 2);
  kit.tries(Object.fromEntries(Object.entries(TRIES).map(([name, candidate]) => [name, { candidate }])));

  kit.run("Score again", async (given, step) => {
    const found = await kit.python(given);
    await step();
    words.replaceChildren(element("b", {}, "Candidate"), ...found.words.flatMap((/** @type {string} */ word, /** @type {number} */ at) => {
      const order = found.orders[at];
      return [order ? element("mark", { "data-n": order, title: `in ${order} words of the reference` }, word) : word, " "];
    }));
    const rows = Object.entries(found.scores).map(([name, score]) => element("tr", {},
      element("th", { scope: "row" }, name),
      element("td", {}, score.toFixed(1)),
      element("td", {}, element("meter", { min: 0, max: 100, value: Math.min(100, score), "aria-label": name }))));
    table.replaceChildren(element("tbody", {}, ...rows));
    kit.say(`BLEU ${found.scores.BLEU.toFixed(1)}, TER ${found.scores.TER.toFixed(1)}, ROUGE-L ${found.scores["ROUGE-L"].toFixed(1)}.`);
    return found;
  });
}
