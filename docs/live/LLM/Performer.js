// The live figure of the Performer post: a matrix of attention weights, exact and estimated by random features.

const [PLACES, DIM, MOST] = [24, 16, 256];
const KINDS = { 0: "positive features", 1: "sines and cosines" };

/** Rows of 16x16 rotations, as the page's orthogonal_rows makes them: the columns of normal numbers, made orthogonal.
 * @param {Float32Array} rows @param {Float32Array} others numbers for the rows' lengths */
function orthogonal(rows, others) {
  const found = new Float32Array(rows.length);
  for (let block = 0; block < rows.length; block += DIM * DIM) {
    /** @type {Float64Array[]} */
    const columns = [];
    for (let at = 0; at < DIM; at++) {
      const column = Float64Array.from({ length: DIM }, (_, row) => rows[block + row * DIM + at]);
      for (const before of columns) {
        const overlap = before.reduce((sum, value, row) => sum + value * column[row], 0);
        for (let row = 0; row < DIM; row++) column[row] -= overlap * before[row];
      }
      const length = Math.hypot(...column);
      columns.push(column.map((value) => value / length));
    }
    for (let row = 0; row < DIM; row++) {
      const start = block + row * DIM;
      const length = Math.hypot(...others.subarray(start, start + DIM));
      for (let at = 0; at < DIM; at++) found[start + at] = length * columns[at][row];
    }
  }
  return found;
}

/** @param {import("../../../theme/live/kit.js").Kit} kit */
export default function (kit) {
  const squares = ["exact", "estimate"].map((name) => {
    const canvas = kit.canvas(PLACES, PLACES, `${name} weights of ${PLACES} queries and keys`);
    canvas.classList.add("live-matrix");
    return { name, canvas };
  });
  kit.stage.append(kit.element("div", { class: "live-matrices" },
    ...squares.map(({ name, canvas }) => kit.element("div", {}, name, canvas))));
  kit.range("count", "Features", [4, 8, 16, 32, 64, 128, 256], 32);
  kit.range("size", "Entries", [0.25, 0.5, 0.75, 1, 1.5], 0.5);
  kit.choice("kind", "Kind", KINDS, "0");
  kit.choice("directions", "Directions", { independent: "independent", orthogonal: "orthogonal" }, "independent");
  kit.keepsPicture = true;
  kit.seed();
  kit.tries({ "more features": { count: 256 }, "entries of 1": { count: 256, size: 1 },
    "sines and cosines, entries of 1": { count: 256, size: 1, kind: "1" } });

  kit.run("Other directions", async ({ count, size, kind, directions, seed }, step) => {
    const entries = kit.normal(seed, 0, 2 * PLACES * DIM).map((value) => size * value);
    const rows = kit.normal(seed, 1, MOST * DIM);
    const omega = directions === "independent" ? rows : orthogonal(rows, kit.normal(seed, 2, MOST * DIM));
    // sines and cosines make two features of each direction
    const used = Number(kind) ? count / 2 : count;
    const { out } = await kit.net(`weights${used}`, {
      query: { data: entries.slice(0, PLACES * DIM), dims: [PLACES, DIM] },
      key: { data: entries.slice(PLACES * DIM), dims: [PLACES, DIM] },
      omega: { data: omega.slice(0, used * DIM), dims: [used, DIM] },
    });
    await step();
    const part = (/** @type {number} */ at) => out.data.slice(at * PLACES ** 2, (at + 1) * PLACES ** 2);
    const found = { exact: part(0), estimate: part(1 + Number(kind)) };
    const largest = Math.max(...found.exact);
    squares.forEach(({ name, canvas }) => kit.paint(canvas,
      Array.from(found[/** @type {"exact" | "estimate"} */ (name)], (value) => value / largest)));
    const norm = (/** @type {number[]} */ values) => Math.hypot(...values);
    const exact = /** @type {number[]} */ (Array.from(found.exact));
    const estimate = /** @type {number[]} */ (Array.from(found.estimate));
    const error = norm(estimate.map((value, at) => value - exact[at])) / norm(exact);
    kit.say(`Error ${(100 * error).toFixed(0)} % of the exact matrix; smallest weight ${Math.min(...estimate).toFixed(3)}.`);
    return { exact, estimate };
  });
}
