// Random numbers that are the same in every browser and in Python: `threefry`, `uniform`, `normal` of tools/live.py.

/** Threefry-2x32 with 20 rounds (Salmon et al. 2011).
 * @param {number} key0 @param {number} key1 @param {number} counter @returns {[number, number]} */
export function threefry(key0, key1, counter) {
  const keys = [key0, key1, key0 ^ key1 ^ 0x1bd11bda];
  let a = (counter + keys[0]) | 0;
  let b = keys[1] | 0;
  for (let group = 0; group < 5; group++) {
    for (const turn of group % 2 ? [17, 29, 16, 24] : [13, 15, 26, 6]) {
      a = (a + b) | 0;
      b = ((b << turn) | (b >>> (32 - turn))) ^ a;
    }
    a = (a + keys[(group + 1) % 3]) | 0;
    b = (b + keys[(group + 2) % 3] + group + 1) | 0;
  }
  return [a >>> 0, b >>> 0];
}

/** Numbers in (0, 1); each stream of a seed is a sequence of its own.
 * @param {number} seed @param {number} stream @param {number} count */
export function uniform(seed, stream, count) {
  const found = new Float64Array(count);
  for (let at = 0; at < count; at += 2) {
    const words = threefry(seed | 0, stream | 0, at / 2);
    found[at] = (words[0] + 0.5) / 2 ** 32;
    if (at + 1 < count) found[at + 1] = (words[1] + 0.5) / 2 ** 32;
  }
  return found;
}

/** Standard normal numbers, by Box and Muller.
 * @param {number} seed @param {number} stream @param {number} count */
export function normal(seed, stream, count) {
  const flat = uniform(seed, stream, count + (count % 2));
  const found = new Float32Array(count);
  for (let at = 0; at < count; at += 2) {
    const radius = Math.sqrt(-2 * Math.log(flat[at]));
    const angle = 2 * Math.PI * flat[at + 1];
    found[at] = radius * Math.cos(angle);
    if (at + 1 < count) found[at + 1] = radius * Math.sin(angle);
  }
  return found;
}
