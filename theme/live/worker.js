// Runs a figure's networks (onnxruntime-web) or its Python (Pyodide) in a thread of its own.

/** @typedef {{data: Float32Array | BigInt64Array | Uint8Array, dims: number[]}} Tensor */
/** @typedef {{root: string, files: Record<string, number>}} Places */

/** @type {Record<string, any>} */
const sessions = {};
/** @type {any} */
let ort;
/** @type {any} */
let python;
let loaded = 0;

/** A file's bytes, counted as they come; an error where it is missing or not of its size.
 * @param {string} address @param {string} name @param {number} size */
async function bytes(address, name, size) {
  const answer = await fetch(address).catch(() => null);
  const short = name.split("/").pop();
  if (!answer?.ok || !answer.body) throw new Error(`the file ${short} is missing`);
  const whole = new Uint8Array(size);
  let at = 0;
  const reader = answer.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (at + part.value.length > size) throw new Error(`the file ${short} is damaged`);
    whole.set(part.value, at);
    at += part.value.length;
    loaded += part.value.length;
    postMessage({ loaded });
  }
  if (at !== size) throw new Error(`the file ${short} is damaged`);
  return whole;
}

/** Load everything that the figure needs.
 * @param {Places} places */
async function load({ root, files }) {
  /** @type {Record<string, Uint8Array>} */
  const found = {};
  await Promise.all(Object.entries(files).map(async ([name, size]) => {
    found[name] = await bytes(root + name, name, size);
  }));
  const text = (/** @type {string} */ name) => new TextDecoder().decode(found[name]);
  const named = (/** @type {string} */ ending) => Object.keys(files).filter((name) => name.endsWith(ending));
  const [engine] = named("ort-wasm-simd-threaded.wasm");
  if (engine) {
    ort = await import(root + named("ort.mjs")[0]);
    Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: found[engine].buffer });
    // a network may refer to weights in another one's file
    const externalData = named(".onnx").map((name) => ({ path: name.split("/").pop(), data: found[name] }));
    for (const name of named(".onnx")) {
      const short = /** @type {string} */ (name.split("/").pop()).slice(0, -5);
      sessions[short] = await ort.InferenceSession.create(found[name], { executionProviders: ["wasm"], externalData })
        .catch(() => { throw new Error(`the file ${short}.onnx is damaged`); });
    }
  }
  const [main] = named("pyodide.mjs");
  if (main) {
    const { loadPyodide } = await import(root + main);
    const answer = self.fetch; // Pyodide asks for its files once more: they are here
    self.fetch = async (asked, ...rest) => {
      const name = Object.keys(found).find((one) => String(asked).endsWith(one));
      const type = name?.endsWith(".wasm") ? "application/wasm" : "application/octet-stream";
      return name ? new Response(/** @type {any} */ (found[name]), { headers: { "Content-Type": type } }) : answer(asked, ...rest);
    };
    python = await loadPyodide({ indexURL: root + main.slice(0, -"pyodide.mjs".length) });
    self.fetch = answer;
    for (const name of named(".py")) python.runPython(text(name), { filename: name });
  }
  return Object.fromEntries(named("tables.json").map((name) => ["tables", JSON.parse(text(name))]));
}

/** One call of a network.
 * @param {{name: string, inputs: Record<string, Tensor>}} call */
async function net({ name, inputs }) {
  /** @type {Record<string, string>} */
  const types = { Float32Array: "float32", BigInt64Array: "int64", Uint8Array: "bool" };
  const feeds = Object.fromEntries(Object.entries(inputs).map(([key, { data, dims }]) =>
    [key, new ort.Tensor(types[data.constructor.name], data, dims)]));
  const found = await sessions[name].run(feeds);
  return Object.fromEntries(Object.keys(found).map((key) => [key, { data: found[key].data, dims: found[key].dims }]));
}

/** What the function live of the figure's Python makes of something that JSON can hold.
 * @param {unknown} given */
function live(given) {
  python.globals.set("given_text", JSON.stringify(given));
  return JSON.parse(python.runPython("import json\njson.dumps(live(json.loads(given_text)))"));
}

/** @type {Record<string, (given: any) => unknown>} */
const jobs = { load, net, live };
addEventListener("message", async ({ data: { id, job, given } }) => {
  try {
    postMessage({ id, found: await jobs[job](given) });
  } catch (error) {
    const lines = String(/** @type {any} */ (error).message ?? error).trim().split("\n");
    postMessage({ id, wrong: lines[lines.length - 1] });
  }
});

export {};
