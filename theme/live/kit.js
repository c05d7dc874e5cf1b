// What a post's script (docs/live/<post>.js) makes its figure of: controls, a stage, networks, Python, random numbers.
import { normal, uniform } from "./noise.js";

/** @typedef {import("./worker.js").Tensor} Tensor */
/** @typedef {Record<string, any>} Values what the controls say */
/** @typedef {(draw?: () => void) => Promise<void>} Step draws, unless motion is unwanted; throws where the reader stopped */
/** @typedef {HTMLElement & {figure: HTMLElement, picture: HTMLElement, bar: HTMLElement, button: HTMLButtonElement,
 *   said: HTMLElement, files: Record<string, number>, total: number, megabytes: (bytes: number) => string,
 *   fail: (error: any) => void, result?: unknown}} LiveFigure */

class Stopped extends Error {}

/** @param {string} tag @param {Record<string, any>} [attributes] @param {(string | Node)[]} inside @returns {any} */
export function element(tag, attributes = {}, ...inside) {
  const made = tag === "svg" || attributes.svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name !== "svg") made.setAttribute(name, String(value));
  }
  made.append(...inside);
  return made;
}

let count = 0;

export class Kit {
  /** @param {LiveFigure} host */
  constructor(host) {
    this.host = host;
    this.stage = element("div", { class: "live-stage" });
    this.controls = element("div", { class: "live-controls" });
    /** @type {Record<string, {get: () => any, set: (value: any) => void, first: any}>} */
    this.known = {};
    /** @type {any} */
    this.tables = {};
    /** @type {Map<number, {resolve: (found: any) => void, reject: (error: Error) => void}>} */
    this.waiting = new Map();
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.calls = this.turn = 0;
    /** @type {Promise<unknown> | undefined} */
    this.idle = undefined;
    this.keepsPicture = false; // where it shows something else than the stage
    this.uniform = uniform;
    this.normal = normal;
    this.element = element;
  }

  /** Ask the worker. @param {string} job @param {unknown} given @returns {Promise<any>} */
  ask(job, given) {
    const id = ++this.calls;
    this.worker.postMessage({ id, job, given });
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  /** One call of a network. @param {string} name @param {Record<string, Tensor>} inputs @returns {Promise<Record<string, any>>} a tensor by each output's name */
  net(name, inputs) {
    return this.ask("net", { name, inputs });
  }

  /** The page's Python: what its function live makes of this. @param {unknown} given */
  python(given) {
    return this.ask("live", given);
  }

  /** @param {string} label @param {HTMLElement} control @param {HTMLElement} [shown] */
  place(label, control, shown) {
    control.id = `live-${++count}`;
    this.controls.append(element("div", { class: `live-control ${control.tagName.toLowerCase()}` },
      element("label", { for: control.id }, label), control, ...(shown ? [shown] : [])));
  }

  /** @param {string} name @param {any} first @param {() => any} get @param {(value: any) => void} set */
  know(name, first, get, set) {
    this.known[name] = { first, get, set };
    set(first);
  }

  /** A slider over a list of values. @param {string} name @param {string} label @param {any[]} values @param {any} first
   * @param {(value: any) => string} [show] */
  range(name, label, values, first, show = String) {
    const output = element("span", { class: "live-value", "aria-hidden": "true" });
    const input = element("input", { type: "range", min: 0, max: values.length - 1, step: 1 });
    const update = () => {
      output.textContent = show(values[input.value]);
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.addEventListener("input", () => { update(); this.changed(); });
    this.place(label, input, output);
    this.know(name, first, () => values[input.value], (value) => { input.value = values.indexOf(value); update(); });
  }

  /** @param {string} name @param {string} label @param {Record<string, string>} options label by value @param {string} first */
  choice(name, label, options, first) {
    const input = element("select", { onchange: () => this.changed() },
      ...Object.entries(options).map(([value, text]) => element("option", { value }, text)));
    this.place(label, input);
    this.know(name, first, () => input.value, (value) => { input.value = value; });
  }

  /** A line of text, or several. @param {string} name @param {string} label @param {string} first @param {number} [rows] */
  text(name, label, first, rows = 1) {
    const input = element(rows > 1 ? "textarea" : "input", { rows, maxlength: 1000, spellcheck: "false", autocomplete: "off" });
    input.addEventListener("input", () => {
      clearTimeout(this.typed);
      this.turn++; // what runs is of the text before
      this.host.dataset.state = "running";
      this.typed = setTimeout(() => this.changed(), 250);
    });
    this.place(label, input);
    this.know(name, first, () => input.value, (value) => { input.value = value; });
  }

  /** Buttons that set controls: what the caption says to try. @param {Record<string, Values>} values by a button's text */
  tries(values) {
    const buttons = Object.entries(values).map(([text, given]) => element("button", { type: "button", onclick: () => {
      for (const [name, { set, first }] of Object.entries(this.known)) set(name in given ? given[name] : first);
      this.changed();
    } }, text));
    this.controls.append(element("div", { class: "live-tries", role: "group", "aria-label": "To try" }, "Try:", ...buttons));
  }

  /** The seed of the figure's random numbers. @param {number} [first] */
  seed(first = 1) {
    const input = element("input", { type: "number", min: 0, max: 2 ** 31 - 1, step: 1, onchange: () => this.changed() });
    this.place("Seed", input);
    this.know("seed", first, () => Math.max(0, Math.trunc(Number(input.value) || 0)), (value) => { input.value = value; });
  }

  /** Pixels from 0 (white) to 1 (ink), or red, green and blue from 0 to 1, on a canvas of their size.
   * @param {HTMLCanvasElement} canvas @param {ArrayLike<number>} pixels @param {number} [channels] planes of pixels */
  paint(canvas, pixels, channels = 1) {
    const size = canvas.width * canvas.height;
    const image = new ImageData(canvas.width, canvas.height);
    for (let at = 0; at < size; at++) {
      for (let colour = 0; colour < 3; colour++) {
        const value = Math.min(1, Math.max(0, channels === 1 ? 1 - pixels[at] : pixels[colour * size + at]));
        image.data[4 * at + colour] = Math.round(255 * value);
      }
      image.data[4 * at + 3] = 255;
    }
    canvas.getContext("2d")?.putImageData(image, 0, 0);
  }

  /** @param {number} width @param {number} height @param {string} label what it shows @returns {HTMLCanvasElement} */
  canvas(width, height, label) {
    return element("canvas", { width, height, role: "img", "aria-label": label });
  }

  /** Tell what came out; screen readers read it. @param {string} text */
  say(text) {
    this.host.said.textContent = text;
  }

  get values() {
    return Object.fromEntries(Object.entries(this.known).map(([name, { get }]) => [name, get()]));
  }

  /** The figure's work: called at once, by the button, and when a control changes.
   * @param {string} label of the button @param {(values: Values, step: Step) => Promise<unknown>} work */
  run(label, work) {
    this.label = label;
    this.work = work;
  }

  changed() {
    return this.go();
  }

  async go() {
    const { host, work } = this;
    const turn = ++this.turn; // a later call stops this one
    clearTimeout(this.typed); // it reads what was typed, too
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    host.dataset.state = "running";
    this.stop.disabled = false;
    const before = this.idle;
    const mine = (async () => {
      await before?.catch(() => {}); // it notices that it is stopped
      /** @type {Step} */
      const step = async (draw) => {
        if (turn !== this.turn) throw new Stopped();
        if (!calm) draw?.();
      };
      await step();
      return work?.(this.values, step);
    })();
    this.idle = mine;
    try {
      host.result = await mine;
    } catch (error) {
      if (!(error instanceof Stopped)) host.fail(error);
    } finally {
      if (turn === this.turn && host.dataset.state === "running") host.dataset.state = "done";
      if (turn === this.turn) this.stop.disabled = true;
    }
  }

  /** Put stage and controls in place of the picture. */
  ready() {
    const { host } = this;
    this.stop = element("button", { type: "button", disabled: "", onclick: () => {
      this.turn++;
      this.stop.disabled = true;
      host.dataset.state = "done";
      this.say("Stopped.");
      host.button.focus();
    } }, "Stop");
    const reset = element("button", { type: "button", onclick: () => {
      for (const { set, first } of Object.values(this.known)) set(first);
      this.go();
    } }, "Reset");
    if (this.keepsPicture) host.picture.after(this.stage, this.controls);
    else host.picture.before(this.stage, this.controls);
    host.picture.classList.toggle("live-replaced", !this.keepsPicture);
    host.button.textContent = this.label ?? "Again";
    host.button.onclick = () => {
      if (this.known.seed) this.known.seed.set(this.known.seed.get() + 1);
      this.go();
    };
    host.button.after(this.stop, reset);
    host.dataset.state = "ready";
    return this.go();
  }
}

/** Load a figure with a bar of progress, and run it. @param {LiveFigure} host */
export async function start(host) {
  const root = new URL(/** @type {string} */ (host.dataset.root), document.baseURI).href;
  const bar = element("progress", { max: host.total, value: 0, "aria-label": "Loading" });
  const sheet = element("link", { rel: "stylesheet", href: new URL("live.css", import.meta.url).href });
  document.head.append(sheet);
  host.said.before(bar);
  const kit = new Kit(host);
  kit.worker.onerror = () => host.fail(new Error("the worker does not start"));
  kit.worker.onmessage = ({ data: { id, found, wrong, loaded } }) => {
    if (loaded) {
      bar.value = loaded;
      const text = `${host.megabytes(loaded)} of ${host.megabytes(host.total)} MB`;
      bar.title = loaded < host.total ? text : "Starting …";
    }
    const asked = kit.waiting.get(id);
    kit.waiting.delete(id);
    if (wrong) asked?.reject(new Error(wrong));
    else asked?.resolve(found);
  };
  try {
    const [{ default: script }, { tables }] = await Promise.all([
      import(root + host.dataset.script),
      kit.ask("load", { root, files: host.files }),
    ]);
    kit.tables = tables;
    await script(kit);
  } catch (error) {
    kit.worker.terminate();
    throw error;
  }
  bar.remove();
  await kit.ready();
}
