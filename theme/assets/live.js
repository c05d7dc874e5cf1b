// A live figure before the first click: a button below the lab's picture. The click loads all else (theme/live/).
"use strict";

class LiveFigure extends HTMLElement {
  connectedCallback() {
    const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
    this.files = JSON.parse(this.dataset.files);
    this.total = Object.values(this.files).reduce((sum, size) => sum + size, 0);
    this.figure = this.querySelector("figure");
    this.picture = this.figure.firstElementChild;
    this.bar = make("div", { className: "live-bar" });
    this.button = make("button", { type: "button", textContent: this.dataset.label, onclick: () => this.start() });
    this.said = make("span", { textContent: `Computed in your browser, after loading ${this.megabytes(this.total)} MB.` });
    this.said.setAttribute("role", "status");
    this.bar.append(this.button, this.said);
    this.picture.after(this.bar);
    this.dataset.state = "idle";
  }

  megabytes(bytes) {
    return (bytes / 1e6).toFixed(1);
  }

  async start() {
    if (this.dataset.state === "loading") return;
    this.dataset.state = "loading";
    this.said.textContent = "Loading …";
    try {
      if (typeof WebAssembly !== "object") throw new Error("this browser has no WebAssembly");
      const { start } = await import("./live/kit.js");
      await start(this);
    } catch (error) {
      this.fail(error);
    }
  }

  fail(error) {
    this.dataset.state = "error";
    this.bar.querySelector("progress")?.remove();
    this.button.textContent = "Try again";
    this.button.onclick = () => this.start();
    this.said.textContent = `The picture stays: ${String(error.message || error).split("\n")[0].slice(0, 200)}.`;
  }
}

customElements.define("live-figure", LiveFigure);
