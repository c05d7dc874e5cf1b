// What the live figures of the pages on decoder-only models, decoding and LoRA share: one text, read with a cache.

/** @typedef {import("../../../theme/live/kit.js").Kit} Kit */

const [CONTEXT, LAYERS, PARTS, HEADS, DIM, VOCABULARY] = [512, 4, 2, 2, 32, 256];
const ROW = LAYERS * PARTS * HEADS * DIM; // numbers of the cache for one position

export class Reader {
  /** @param {Kit} kit @param {string} name of the network @param {Record<string, import("../../../theme/live/worker.js").Tensor>} [more] */
  constructor(kit, name, more = {}) {
    this.kit = kit;
    this.name = name;
    this.more = more;
    this.cache = new Float32Array(CONTEXT * ROW);
    this.length = 0; // positions in the cache; set it back to forget the last ones
  }

  /** Logits of the byte after each of these, which follow those in the cache.
   * @param {ArrayLike<number>} bytes @returns {Promise<Float32Array[]>} */
  async read(bytes) {
    const { length } = this;
    const { logits, rows } = await this.kit.net(this.name, {
      tokens: { data: BigInt64Array.from(Array.from(bytes), BigInt), dims: [1, bytes.length] },
      cache: { data: this.cache.slice(0, length * ROW), dims: [length, LAYERS, PARTS, HEADS, DIM] },
      ...this.more,
    });
    this.cache.set(rows.data, length * ROW);
    this.length += bytes.length;
    return Array.from(bytes, (_, at) => logits.data.subarray(at * VOCABULARY, (at + 1) * VOCABULARY));
  }
}

/** The newest bytes of a prompt that leave room for so many new ones. @param {string} text @param {number} count */
export function prompt(text, count) {
  return Array.from(new TextEncoder().encode(text)).slice(count - CONTEXT);
}

/** Probabilities of logits over a temperature; of the likeliest alone where it is 0.
 * @param {ArrayLike<number>} logits @param {number} temperature @returns {number[]} */
export function softmax(logits, temperature = 1) {
  const most = Math.max(...Array.from(logits));
  if (temperature === 0) return Array.from(logits, (_, at) => Number(at === Array.from(logits).indexOf(most)));
  const powers = Array.from(logits, (logit) => Math.exp((logit - most) / temperature));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}

/** What a number between 0 and 1 draws from probabilities, or from anything in proportion to them.
 * @param {number[]} weights @param {number} chance */
export function pick(weights, chance) {
  const aim = chance * weights.reduce((sum, weight) => sum + weight, 0);
  let sum = 0;
  const found = weights.findIndex((weight) => (sum += weight) > aim);
  return found < 0 ? weights.indexOf(Math.max(...weights)) : found;
}

/** A byte as it is shown. @param {number} byte */
export function shown(byte) {
  if (byte > 32 && byte < 127) return String.fromCharCode(byte);
  return byte === 32 ? "␣" : byte === 10 ? "↵" : `\\x${byte.toString(16).padStart(2, "0")}`;
}

/** Bytes as running text. @param {ArrayLike<number>} bytes @param {string} [end] of a line */
export function written(bytes, end = "↵ ") {
  return new TextDecoder().decode(Uint8Array.from(Array.from(bytes))).replaceAll("\n", end);
}

/** Of drawings, those that are due: where a frame takes long, drawing gets a quarter of the time. */
export function paced() {
  let next = 0;
  return (/** @type {() => void} */ draw) => {
    if (performance.now() < next) return undefined;
    return () => {
      const from = performance.now();
      next = Infinity;
      draw();
      requestAnimationFrame(() => setTimeout(() => { next = 4 * performance.now() - 3 * from; }));
    };
  };
}
