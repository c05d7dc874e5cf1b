// The search dialog; verbatim.js imports this when it first opens. MiniSearch ranks, the index is MkDocs' own.
import MiniSearch from "./minisearch.js";

const MOST = 20; // results shown
const WORDS = /[\p{L}\p{M}\p{N}]+/gu;
const query = document.getElementById("search-query");
const status = document.getElementById("search-status");
const results = document.getElementById("search-results");
const address = new URL(document.documentElement.dataset.index, location);
const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

const engine = new MiniSearch({
  fields: ["title", "page", "text"],
  storeFields: ["title", "page", "text"],
  tokenize: (text) => text.match(WORDS) ?? [],
  processTerm: fold,
  searchOptions: {
    combineWith: "AND",
    prefix: true,
    fuzzy: (term) => term.length > 3 && 0.2,
    boost: { title: 8, page: 2 },
    boostDocument: (id) => (id.includes("#") ? 1 : 1.5),
  },
});

const parser = new DOMParser();
const plain = (html) =>
  parser.parseFromString(html.replace(/<\/?(?:p|li|pre|t[dh])>/g, " "), "text/html").body.textContent.replace(/\s+/g, " ").trim();

// The index has a page and the section of its heading; only the first is kept, with the text of the second
function read({ docs }) {
  const pages = new Map();
  for (const { location: id, title, text } of docs) {
    const page = pages.get(id.split("#")[0]);
    const section = { id, title: plain(title), text: plain(text), page: page?.title ?? "" };
    if (!page) pages.set(id, section);
    else if (page.title === section.title) page.text ||= section.text;
    else pages.set(id, section);
  }
  return [...pages.values()];
}

// The text with its words in <mark> where they were found; a long one from a little before the first of them
function marked(text, terms, most = Infinity) {
  const found = [...text.matchAll(WORDS)].filter(([word]) => terms.has(fold(word)));
  const start = found.length && text.length > most ? Math.max(0, text.lastIndexOf(" ", found[0].index - 60)) : 0;
  const parts = [start ? "…" : ""];
  let end = start;
  for (const { 0: word, index } of found) {
    if (index - start > most) break;
    const mark = document.createElement("mark");
    mark.append(word);
    parts.push(text.slice(end, index), mark);
    end = index + word.length;
  }
  const rest = text.slice(end, Math.max(end, start + most));
  return [...parts, rest, end + rest.length < text.length ? "…" : ""];
}

function line(name, parts) {
  const made = document.createElement(name);
  made.append(...parts);
  return made;
}

function show() {
  const found = engine.search(query.value);
  status.textContent = found.length ? `${found.length} found` : query.value.trim() && "Nothing found";
  results.replaceChildren(...found.slice(0, MOST).map(({ id, title, page, text, terms }) => {
    const words = new Set(terms);
    const link = line("a", [line("small", page), line("strong", marked(title, words)), line("span", marked(text, words, 170))]);
    link.href = new URL(`../${id}`, address);
    return line("li", [link]);
  }));
}

engine.addAll(read(await (await fetch(address)).json()));
query.addEventListener("input", show);
show();
