// The live figure of the NCSN post: points dropped where the reader clicks, moved by Langevin dynamics; score fields.

const POINTS = 200;
const GRID = Array.from({ length: 169 }, (_, at) => [(at % 13) * 0.6 - 3.6, Math.floor(at / 13) * 0.6 - 3.6]).flat();
const PLACES = Array.from({ length: 33 }, (_, at) => (at - 16) / 4);

/** The exact score (B, 2) of the mixture with noise of deviation sigma on it, at points (B, 2).
 * @param {any} toy @param {ArrayLike<number>} x @param {number} sigma */
function exactScore(toy, x, sigma) {
  const found = new Float64Array(x.length);
  for (let at = 0; at < x.length; at += 2) {
    const parts = toy.means.map((/** @type {number[]} */ mean, /** @type {number} */ k) => {
      const variance = toy.deviations[k] ** 2 + sigma ** 2;
      const away = [mean[0] - x[at], mean[1] - x[at + 1]];
      return { log: Math.log(toy.weights[k] / variance) - (away[0] ** 2 + away[1] ** 2) / (2 * variance), away, variance };
    });
    const most = Math.max(...parts.map((/** @type {any} */ part) => part.log));
    const total = parts.reduce((/** @type {number} */ sum, /** @type {any} */ part) => sum + Math.exp(part.log - most), 0);
    for (const { log, away, variance } of parts) {
      for (const axis of [0, 1]) found[at + axis] += (Math.exp(log - most) / total) * (away[axis] / variance);
    }
  }
  return found;
}

/** @param {import("../../theme/live/kit.js").Kit} kit */
export default function (kit) {
  const svg = (/** @type {string} */ tag, /** @type {any} */ attributes) => kit.element(tag, { svg: 1, ...attributes });
  const plot = svg("svg", { viewBox: "-4 -4 8 8", class: "live-plot", role: "img", "aria-label": "Points and score fields" });
  const arrows = ["true", "ours"].map((kind) => GRID.filter((_, at) => at % 2 === 0).map(() => svg("line", { class: kind })));
  const dots = Array.from({ length: POINTS }, () => svg("circle", { r: 0.045 }));
  plot.append(...arrows.flat(), ...dots);
  kit.stage.append(plot, kit.element("p", { class: "live-key" },
    kit.element("span", { class: "ours" }, "learnt score"), " ", kit.element("span", { class: "true" }, "exact score")));
  kit.choice("dynamics", "Langevin dynamics",
    { annealed: "annealed: down the ladder", naive: "naive: at the last level only" }, "annealed");
  const levels = Array.from({ length: 20 }, (_, level) => level);
  kit.range("level", "Fields at level", levels, 19, (level) => `${level + 1} (noise ${(6 * (0.05 / 6) ** (level / 19)).toFixed(2)})`);
  kit.range("across", "Drop at, across", PLACES, -3);
  kit.range("up", "up", PLACES, 2);
  kit.keepsPicture = true;
  kit.seed();
  kit.tries({ naive: { dynamics: "naive" },
    "naive, from the right": { dynamics: "naive", across: 3, up: -1 }, "fields with much noise": { level: 0 } });
  plot.addEventListener("click", (/** @type {MouseEvent} */ event) => {
    const box = plot.getBoundingClientRect();
    const nearest = (/** @type {number} */ value) => Math.max(-4, Math.min(4, Math.round(4 * value) / 4));
    kit.known.across.set(nearest(((event.clientX - box.left) / box.width) * 8 - 4));
    kit.known.up.set(nearest(4 - ((event.clientY - box.top) / box.height) * 8));
    kit.changed();
  });

  const score = async (/** @type {Float32Array} */ x, /** @type {number} */ level) => {
    const count = x.length / 2;
    const given = { data: new BigInt64Array(count).fill(BigInt(level)), dims: [count] };
    return /** @type {Float32Array} */ ((await kit.net("score", { x: { data: x, dims: [count, 2] }, level: given })).out.data);
  };
  const move = (/** @type {Float32Array} */ x) => dots.forEach((dot, at) => {
    dot.setAttribute("cx", x[2 * at]);
    dot.setAttribute("cy", -x[2 * at + 1]);
  });

  kit.run("Drop again", async ({ dynamics, level, across, up, seed }, step) => {
    const { sigma, step: sizes, steps } = kit.tables;
    const learnt = await score(Float32Array.from(GRID), level);
    const exact = exactScore(kit.tables, GRID, sigma[level]);
    [exact, learnt].forEach((field, kind) => arrows[kind].forEach((line, at) => {
      const [x, y, long] = [GRID[2 * at], GRID[2 * at + 1], Math.hypot(field[2 * at], field[2 * at + 1]) / 0.4];
      const ends = { x1: x, y1: -y, x2: x + field[2 * at] / long, y2: -(y + field[2 * at + 1] / long) };
      for (const [name, value] of Object.entries(ends)) line.setAttribute(name, value);
    }));
    let x = Float32Array.from({ length: 2 * POINTS }, (_, at) => (at % 2 ? up : across));
    for (let at = 0; at < steps * sigma.length; at++) {
      const here = dynamics === "naive" ? sigma.length - 1 : Math.floor(at / steps);
      const slope = await score(x, here);
      const noise = kit.normal(seed, at, 2 * POINTS);
      x = x.map((value, p) => value + (sizes[here] / 2) * slope[p] + Math.sqrt(sizes[here]) * noise[p]); // langevin_step
      await step(() => move(x));
    }
    move(x);
    const shares = kit.tables.means.map(() => 0);
    for (let at = 0; at < POINTS; at++) {
      const far = kit.tables.means.map((/** @type {number[]} */ mean) => Math.hypot(mean[0] - x[2 * at], mean[1] - x[2 * at + 1]));
      shares[far.indexOf(Math.min(...far))] += 100 / POINTS;
    }
    const told = shares.map((/** @type {number} */ share) => share.toFixed(0)).join(", ");
    kit.say(`Nearest to the left, right and upper blob: ${told} %. True: 50, 30, 20 %.`);
    const ofNoise = (/** @type {ArrayLike<number>} */ field) => Array.from(field, (value) => sigma[level] * value);
    return { points: Array.from(x), learnt: ofNoise(learnt), exact: ofNoise(exact) };
  });
}
