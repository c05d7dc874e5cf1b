// What the page cannot do without a script: colours, copying, the current section, search. The text reads well without it.
"use strict";

const root = document.documentElement;

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// Colours: the system's, until the reader chooses
document.getElementById("palette-button").addEventListener("click", () => {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.palette = (root.dataset.palette || system) === "dark" ? "light" : "dark";
  try { localStorage.setItem("palette", root.dataset.palette); } catch { /* not remembered in a private window */ }
});

// A copy button on each block of code; without a secure context browsers have no clipboard
if (navigator.clipboard) {
  for (const block of document.querySelectorAll("div.highlight:has(pre)")) {
    const button = element("button", { type: "button", className: "copy", textContent: "Copy" });
    button.setAttribute("aria-live", "polite");
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.querySelector("pre").textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    block.append(button);
  }
}

// What scrolls sideways can be reached by keyboard
const scrollers = new ResizeObserver((entries) => {
  for (const { target } of entries) target.toggleAttribute("tabindex", false);
  for (const { target } of entries) if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
});
for (const block of document.querySelectorAll(".text pre, .text table")) scrollers.observe(block);

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

// Search: the index is fetched when the dialog first opens
const search = document.getElementById("search");
const query = document.getElementById("search-query");
const status = document.getElementById("search-status");
const results = document.getElementById("search-results");
const index = new URL(root.dataset.index, location);
const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
const MOST = 20;
let sections;

async function load() {
  const answer = await fetch(index);
  const parser = new DOMParser();
  const plain = (html) => parser.parseFromString(html, "text/html").body.textContent.replace(/\s+/g, " ").trim();
  sections = (await answer.json()).docs.map(({ location: place, title, text }) => ({ place, title: plain(title), text: plain(text) }));
  const pages = new Map(sections.filter(({ place }) => !place.includes("#")).map((section) => [section.place, section]));
  sections = sections.filter((section) => { // the section of a page's own heading is the page
    const page = pages.get(section.place.split("#")[0]);
    if (page === section || page?.title !== section.title) return true;
    page.text = section.text;
    return false;
  });
  for (const section of sections) {
    section.page = pages.get(section.place.split("#")[0])?.title ?? "";
    section.foldedTitle = fold(section.title);
    section.foldedText = fold(`${section.page} ${section.title} ${section.text}`);
  }
}

function score(section, words) {
  let sum = 0;
  for (const word of words) {
    if (!section.foldedText.includes(word)) return 0;
    const inTitle = section.foldedTitle.includes(word);
    sum += 1 + (inTitle ? 8 : 0) + (inTitle && !section.place.includes("#") ? 4 : 0);
    sum += Math.min(3, section.foldedText.split(word).length / 4);
  }
  return sum;
}

function excerpt(text, words) {
  const places = words.map((word) => text.toLowerCase().indexOf(word)).filter((place) => place >= 0);
  const start = Math.max(0, Math.min(...places, text.length) - 60);
  const shown = (start ? "…" : "") + text.slice(places.length ? start : 0, (places.length ? start : 0) + 170);
  const pattern = new RegExp(`(${words.map((word) => word.replace(/[^\p{L}\p{N}]/gu, "\\$&")).join("|")})`, "giu");
  return shown.split(pattern).map((part, index) => (index % 2 ? element("mark", { textContent: part }) : part));
}

function show() {
  const words = fold(query.value).split(/\s+/).filter(Boolean);
  const found = words.length ? sections.map((section) => [score(section, words), section]).filter(([points]) => points) : [];
  found.sort(([a], [b]) => b - a);
  status.textContent = !words.length ? "" : found.length ? `${found.length} found` : "Nothing found";
  results.replaceChildren(...found.slice(0, MOST).map(([, section]) => {
    const where = section.place.includes("#") && section.page ? element("small", { textContent: section.page }) : "";
    const link = element("a", { href: new URL(`../${section.place}`, index) }, where, element("strong", { textContent: section.title }));
    link.append(element("span", {}, ...excerpt(section.text, words)));
    return element("li", {}, link);
  }));
}

async function open() {
  search.showModal();
  query.focus();
  query.select();
  try {
    if (!sections) await load();
    show();
  } catch {
    status.textContent = "The search index could not be read";
  }
}

document.getElementById("search-button").addEventListener("click", open);
query.addEventListener("input", () => sections && show());
search.addEventListener("click", (event) => {
  if (event.target === search || event.target.closest("a")) search.close();
});
search.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const stops = [query, ...results.querySelectorAll("a")];
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
