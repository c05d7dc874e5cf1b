// The live figure of the classifier guidance post: points of the mixture, drawn by DDIM with an exact classifier's gradient.

const POINTS = 200;
const GRID = Array.from({ length: 169 }, (_, at) => [(at % 13) * 0.5 - 3, Math.floor(at / 13) * 0.5 - 3]).flat();

/** Score of the noisy mixture, the classifier's gradient towards a component, and its opinion of it, at one point.
 * @param {any} toy @param {number} x @param {number} y @param {number} signal @param {number} noise @param {number} asked */
function exact(toy, x, y, signal, noise, asked) {
  const parts = toy.means.map((/** @type {number[]} */ mean, /** @type {number} */ k) => {
    const variance = (signal * toy.deviations[k]) ** 2 + noise ** 2;
    const away = [signal * mean[0] - x, signal * mean[1] - y];
    const log = Math.log(toy.weights[k] / variance) - (away[0] ** 2 + away[1] ** 2) / (2 * variance);
    return { log, score: away.map((one) => one / variance) };
  });
  const most = Math.max(...parts.map((/** @type {any} */ part) => part.log));
  const shares = parts.map((/** @type {any} */ part) => Math.exp(part.log - most));
  const total = shares.reduce((/** @type {number} */ a, /** @type {number} */ b) => a + b, 0);
  const score = [0, 1].map((axis) => parts.reduce((/** @type {number} */ sum, /** @type {any} */ part, /** @type {number} */ k) =>
    sum + (shares[k] / total) * part.score[axis], 0));
  return { score, gradient: [0, 1].map((axis) => parts[asked].score[axis] - score[axis]), opinion: shares[asked] / total };
}

/** @param {import("../../theme/live/kit.js").Kit} kit */
export default function (kit) {
  const svg = (/** @type {string} */ tag, /** @type {any} */ attributes) => kit.element(tag, { svg: 1, ...attributes });
  const plot = svg("svg", { viewBox: "-4 -4 8 8", class: "live-plot", role: "img", "aria-label": "Drawn points and the gradient" });
  const arrows = GRID.filter((_, at) => at % 2 === 0).map(() => svg("line", { class: "true" }));
  const dots = Array.from({ length: POINTS }, () => svg("circle", { r: 0.045 }));
  plot.append(...arrows, ...dots);
  const opinion = svg("svg", { viewBox: "0 -1.05 4 1.1", class: "live-plot", role: "img", "aria-label": "Opinion at each step" });
  const curve = svg("polyline", { class: "ours" });
  opinion.append(svg("line", { x1: 0, y1: 0, x2: 4, y2: 0, class: "live-face" }), curve);
  kit.stage.append(plot, kit.element("p", { class: "live-key" }, "Arrows: the gradient at the level that is chosen. Below: the "
    + "classifier's mean opinion that a point is of the class asked for, from 0 to 1, step by step."), opinion);
  kit.keepsPicture = true;
  kit.choice("asked", "Class", { 0: "left", 1: "lower right", 2: "upper" }, "1");
  kit.range("scale", "Scale", [0, 0.5, 1, 2, 4, 8], 1, (scale) => `s = ${scale}`);
  kit.range("level", "Arrows at level", [0, 100, 200, 300, 500, 700, 999], 300);
  kit.seed();
  kit.tries({ "s = 0": { scale: 0 }, "s = 4": { scale: 4 }, "arrows in much noise": { level: 999 } });

  const move = (/** @type {Float64Array} */ x) => dots.forEach((dot, at) => {
    dot.setAttribute("cx", x[2 * at]);
    dot.setAttribute("cy", -x[2 * at + 1]);
  });

  kit.run("Other noise", async ({ asked, scale, level, seed }, step) => {
    const { alpha_bar: alphaBar, levels } = kit.tables;
    const at = (/** @type {number} */ t) => [Math.sqrt(alphaBar[t]), Math.sqrt(1 - alphaBar[t])];
    const field = arrows.flatMap((line, k) => {
      const [x, y] = [GRID[2 * k], GRID[2 * k + 1]];
      const { gradient } = exact(kit.tables, x, y, at(level)[0], at(level)[1], asked);
      const long = Math.max(1e-9, Math.hypot(...gradient)) / 0.35;
      const ends = { x1: x, y1: -y, x2: x + gradient[0] / long, y2: -y - gradient[1] / long };
      for (const [name, value] of Object.entries(ends)) line.setAttribute(name, value);
      return gradient;
    });
    let x = Float64Array.from(kit.normal(seed, 0, 2 * POINTS));
    const opinions = [];
    for (let stop = 0; stop + 1 < levels.length; stop++) {
      const [signal, noise] = at(levels[stop]);
      const [after, left] = levels[stop + 1] < 0 ? [1, 0] : at(levels[stop + 1]);
      const next = new Float64Array(x.length);
      let sure = 0;
      for (let p = 0; p < x.length; p += 2) {
        const { score, gradient, opinion: one } = exact(kit.tables, x[p], x[p + 1], signal, noise, asked);
        sure += one / POINTS;
        for (const axis of [0, 1]) {
          const eps = -noise * score[axis] - noise * scale * gradient[axis]; // guided_eps of the page
          next[p + axis] = (after * (x[p + axis] - noise * eps)) / signal + left * eps;
        }
      }
      x = next;
      opinions.push(sure);
      await step(() => move(x));
      await new Promise((done) => setTimeout(done));
    }
    move(x);
    curve.setAttribute("points", opinions.map((value, stop) => `${(4 * stop) / (opinions.length - 1)},${-value}`).join(" "));
    kit.say(`The classifier's mean opinion went from ${opinions[0].toFixed(2)} to ${opinions[opinions.length - 1].toFixed(2)}.`);
    return { points: Array.from(x), opinions, field };
  });
}
