// The live figure of the encoder-decoder post: a task and an input, written token by token, and the beams as a tree.

const ROOM = 24; // tokens of a target, as in the page's answers
const TASKS = { digits: "digits:", words: "words:", iso: "iso:", date: "date:", reverse: "reverse:", "": "a question" };
const NUMBER = "seven thousand and forty-two";
const QUESTION = "what colour is the ring? a large blue cross at the top right";

/** @typedef {{tokens: number[], total: number}} Beam tokens begin with the start; total log-probability */

/** @param {import("../../../theme/live/kit.js").Kit} kit */
export default function (kit) {
  const { element } = kit;
  const { pieces, characters, start, end } = kit.tables;
  const lines = element("div", { "aria-label": "What is written, and where the decoder looks", role: "group" });
  const tree = element("div", { "aria-label": "Beams", role: "group" });
  kit.stage.append(lines, element("p", { class: "live-key" }, "Beams: what is grey stands above. Behind the end ▪, the score."), tree);
  kit.choice("task", "Task", TASKS, "digits");
  kit.text("input", "Input", NUMBER, 2);
  kit.range("beams", "Beams", [1, 2, 3, 4, 5, 6, 7, 8], 4);
  kit.keepsPicture = true;
  kit.tries({ "a word backwards": { task: "reverse", input: "kbxtq" }, "a longer word": { task: "reverse", input: "transformer" },
    "another prefix": { task: "iso" }, "a ring that is not there": { task: "", input: QUESTION } });

  /** The page's to_ids, without the end; characters that it refuses are left out. @param {string} text @returns {number[]} */
  const toIds = (text) => (Array.from(text.toLowerCase()).filter((one) => characters.includes(one)).join("").match(/ ?[a-z]+|./g) ?? [])
    .flatMap((part) => (pieces.includes(part) ? [part] : [...part])).map((piece) => pieces.indexOf(piece));
  const toText = (/** @type {number[]} */ tokens) =>
    tokens.map((token) => token === end ? "▪" : token === start ? "" : pieces[token]).join("");

  kit.run("Write again", async ({ task, input, beams }, step) => {
    const source = [...toIds(task ? `${task}: ${input}` : input).slice(0, 60), end];
    /** Of each beam: log-probabilities of its next token, and where it looks. @param {Beam[]} live */
    const next = async (live) => {
      const [count, length] = [live.length, live[0].tokens.length];
      const repeated = live.flatMap(() => source);
      const { logs, looks } = await kit.net("t5", {
        source: { data: BigInt64Array.from(repeated, BigInt), dims: [count, source.length] },
        written: { data: BigInt64Array.from(live.flatMap(({ tokens }) => tokens), BigInt), dims: [count, length] },
      });
      return live.map((_, at) => ({ logs: Array.from(logs.data.subarray(at * pieces.length, (at + 1) * pieces.length), Number),
        looks: Array.from(looks.data.subarray(at * source.length, (at + 1) * source.length), Number) }));
    };

    // greedy, as the page's write
    const greedy = { tokens: [start], total: 0 };
    const seen = [];
    lines.replaceChildren();
    while (greedy.tokens.length <= ROOM && greedy.tokens[greedy.tokens.length - 1] !== end) {
      const [{ logs, looks }] = await next([greedy]);
      const token = logs.indexOf(Math.max(...logs));
      greedy.tokens.push(token);
      seen.push(looks);
      lines.append(element("p", { class: "live-words", style: "margin: 0; line-height: 1.7" }, element("b", {}, toText([token])),
        ...source.map((read, at) => element("span", { style: "white-space: pre-wrap; background: " +
          `color-mix(in srgb, var(--link) ${Math.round(40 * Math.min(1, looks[at] / 0.6))}%, transparent)` }, toText([read])))));
      await step();
    }

    // the page's beam_search for one source
    /** @type {Beam[]} */
    let live = [{ tokens: [start], total: 0 }];
    /** @type {(Beam & {score: number})[]} */
    let best = [];
    const kept = [];
    for (let length = 1, hopeful = true; length <= ROOM && hopeful; length++) {
      const found = await next(live);
      const grown = live.flatMap(({ tokens, total }, at) =>
        found[at].logs.map((log, token) => ({ tokens: [...tokens, token], total: total + log })))
        .sort((a, b) => b.total - a.total).slice(0, 2 * beams);
      const ended = (/** @type {Beam} */ { tokens }) => tokens[length] === end || length === ROOM;
      const final = grown.slice(0, beams).filter(ended).map((beam) => ({ ...beam, score: beam.total / length }));
      best = [...best, ...final].sort((a, b) => b.score - a.score).slice(0, beams);
      live = grown.filter((beam) => !ended(beam)).slice(0, beams);
      kept.push(...live);
      hopeful = live.length > 0 && (best.length < beams || live[0].total / length > best[beams - 1].score);
      await step();
    }

    /** @type {Map<number, any>} */
    const root = new Map();
    for (const { tokens } of [...best, ...kept]) {
      let node = root;
      for (const token of tokens.slice(1)) {
        if (!node.has(token)) node.set(token, new Map());
        node = node.get(token);
      }
    }
    const scores = new Map(best.map(({ tokens, score }) => [tokens.slice(1).join(), score]));
    /** @type {any[]} */
    const rows = [];
    const walk = (/** @type {Map<number, any>} */ node, /** @type {number[]} */ before, /** @type {number} */ fresh) => {
      if (!node.size) {
        const score = scores.get(before.join());
        rows.push(element("p", { style: "margin: 0; white-space: pre-wrap" },
          element("span", { style: "color: var(--quiet)" }, toText(before.slice(0, fresh))), toText(before.slice(fresh)),
          score === undefined ? " …" : element("b", {}, ` ${score.toFixed(2)}`)));
      }
      [...node].forEach(([token, below], at) => walk(below, [...before, token], at ? before.length : fresh));
    };
    walk(root, [], 0);
    tree.replaceChildren(...rows);
    const answer = toText(greedy.tokens).replace("▪", "");
    const first = toText(best[0].tokens).replace("▪", "");
    kit.say(`Written: “${answer}”. ${first === answer ? "The best beam is the same." : `The best beam: “${first}”.`}`);
    return { written: greedy.tokens.slice(1), looks: seen.flat(), beams: best.map(({ tokens, score }) => [toText(tokens), score]) };
  });
}
