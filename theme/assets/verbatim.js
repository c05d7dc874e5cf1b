// What the page cannot do without a script: colours, copying, the current section, search. The text reads well without it.
"use strict";

const root = document.documentElement;

// Colours: the system's, until the reader chooses
document.getElementById("palette-button").addEventListener("click", () => {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.palette = (root.dataset.palette || system) === "dark" ? "light" : "dark";
  try { localStorage.setItem("palette", root.dataset.palette); } catch { /* not remembered in a private window */ }
});

// A copy button on each block of code; without a secure context browsers have no clipboard
if (navigator.clipboard) {
  for (const block of document.querySelectorAll("div.highlight:has(pre)")) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "copy", textContent: "Copy" });
    button.setAttribute("aria-live", "polite");
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.querySelector("pre").textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    block.append(button);
  }
}

// What scrolls sideways can be reached by keyboard. All sizes are read before anything is written: one layout, not one a block
const scrollers = new ResizeObserver((entries) => {
  const wide = entries.map(({ target }) => target.scrollWidth > target.clientWidth);
  entries.forEach(({ target }, i) => {
    if (wide[i]) target.tabIndex = 0;
    else if (target !== document.activeElement) target.removeAttribute("tabindex");
  });
});
for (const block of document.querySelectorAll(".prose pre, .prose table, .map, .prose figure > p")) scrollers.observe(block);

// Formulas that were never on screen have no fonts yet, and print needs them: they are fetched once the reader does anything
const fonts = () => [...document.fonts].filter(({ family }) => family.includes("KaTeX")).forEach((face) => face.load());
for (const sign of ["pointermove", "touchstart", "keydown", "scroll", "beforeprint"]) addEventListener(sign, fonts, { once: true, passive: true });

// The survey's table can be sorted and filtered
if (document.querySelector("table.models")) import("./models.js");

// A live figure is a button, until it is clicked
if (document.querySelector("live-figure")) import("./live.js");

// The current section in the contents
const contents = document.getElementById("contents");
if (contents) {
  const links = new Map([...contents.querySelectorAll("a")].map((link) => [decodeURIComponent(link.hash.slice(1)), link]));
  const headings = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
  const watcher = new IntersectionObserver(() => {
    const passed = headings.filter((heading) => heading.getBoundingClientRect().top < innerHeight * 0.25);
    const current = passed.length && links.get(passed.at(-1).id);
    for (const link of links.values()) {
      if (link === current) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    const wide = contents.scrollHeight > contents.clientHeight;
    if (current && wide) contents.scrollTop = current.offsetTop - contents.clientHeight / 2;
  }, { rootMargin: "1000000px 0px -75% 0px" });
  headings.forEach((heading) => watcher.observe(heading));
  contents.addEventListener("click", (event) => {
    if (event.target.closest("a") && contents.matches(":popover-open")) contents.hidePopover();
  });
}

// Search: its code and index are fetched when the dialog first opens
const search = document.getElementById("search");
const query = document.getElementById("search-query");

async function open() {
  search.showModal();
  query.select();
  try {
    await import("./search.js");
  } catch {
    document.getElementById("search-status").textContent = "The search could not be loaded";
  }
}

document.getElementById("search-button").addEventListener("click", open);
search.addEventListener("click", (event) => {
  if (event.target === search || event.target.closest("a")) search.close();
});
search.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const stops = [query, ...search.querySelectorAll("a")];
  if (event.key === "Enter" && document.activeElement === query) {
    event.preventDefault();
    stops[1]?.click();
  } else if (step) {
    event.preventDefault();
    stops[Math.max(0, Math.min(stops.length - 1, stops.indexOf(document.activeElement) + step))].focus();
  }
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    open();
  }
});
