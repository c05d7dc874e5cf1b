// The live figure of the RoPE post: two positions, the turning pairs as clocks, and the score over the offset.

const PAIRS = 16;
const FARTHEST = 256;
const KINDS = ["as trained", "interpolation", "NTK-aware", "YaRN", "Llama 3.1"];

/** @param {import("../../../theme/live/kit.js").Kit} kit */
export default function (kit) {
  const svg = (/** @type {string} */ tag, /** @type {any} */ attributes) => kit.element(tag, { svg: 1, ...attributes });
  const clocks = svg("svg", { viewBox: "0 0 16 4.4", class: "live-plot", role: "img", "aria-label": "Sixteen pairs as clocks" });
  const hands = Array.from({ length: PAIRS }, (_, pair) => {
    const [x, y] = [1 + 2 * (pair % 8), 1.1 + 2.2 * Math.floor(pair / 8)];
    clocks.append(svg("circle", { cx: x, cy: y, r: 0.85, class: "live-face" }));
    return ["ours", "true"].map((kind) => {
      const hand = svg("line", { x1: x, y1: y, class: kind });
      clocks.append(hand);
      return { hand, x, y };
    });
  });
  const curve = svg("svg", { viewBox: "0 -1.15 4 1.8", class: "live-plot", role: "img", "aria-label": "Score over the offset" });
  const line = svg("polyline", { class: "ours" });
  const here = svg("circle", { r: 0.04 });
  curve.append(svg("line", { x1: 0, y1: 0, x2: 4, y2: 0, class: "live-face" }), line, here);
  kit.stage.append(clocks, kit.element("p", { class: "live-key" }, kit.element("span", { class: "ours" }, "query"), " ",
    kit.element("span", { class: "true" }, "key")), curve,
    kit.element("p", { class: "live-key" }, "Score from −0.65 to 1, for offsets from 0 (left) to 256."));
  const places = Array.from({ length: FARTHEST + 1 }, (_, at) => at);
  kit.keepsPicture = true;
  kit.range("query", "Query at", places, 40);
  kit.range("key", "Key at", places, 34);
  kit.choice("kind", "Frequencies", Object.fromEntries(KINDS.map((kind) => [kind, kind])), KINDS[0]);
  kit.tries({ "both 60 further": { query: 100, key: 94 }, interpolation: { kind: KINDS[1] }, YaRN: { kind: KINDS[3] } });

  kit.run("Compute again", async ({ query, key, kind }, step) => {
    const theta = Float32Array.from(kit.tables.theta[kind]);
    const found = await kit.net("rope", {
      vectors: { data: Float32Array.from({ length: 4 * PAIRS }, (_, at) => (at + 1) % 2), dims: [1, 1, 2, 2 * PAIRS] },
      positions: { data: Float32Array.of(query, key), dims: [2] },
      theta: { data: theta, dims: [PAIRS] },
      distances: { data: Float32Array.from(places), dims: [FARTHEST + 1] },
    });
    await step();
    const { turned, score, curve: scores } = found;
    hands.forEach((pair, at) => pair.forEach(({ hand, x, y }, which) => {
      const place = 2 * (which * PAIRS + at);
      hand.setAttribute("x2", x + 0.8 * turned.data[place + 1]); // as in the picture: from the top, clockwise
      hand.setAttribute("y2", y - 0.8 * turned.data[place]);
    }));
    line.setAttribute("points", places.map((at) => `${at / 64},${-scores.data[at]}`).join(" "));
    here.setAttribute("cx", Math.abs(query - key) / 64);
    here.setAttribute("cy", -score.data[0]);
    kit.say(`Offset ${query - key}: score ${score.data[0].toFixed(4)}.`);
    return { turned: Array.from(turned.data), score: score.data[0], curve: Array.from(scores.data) };
  });
}
