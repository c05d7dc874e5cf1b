// The search dialog; verbatim.js imports this when it first opens. MiniSearch ranks, theme/site/search.py made the index.
import MiniSearch from "./minisearch.js";
import { STOP, SYNONYMS } from "./words.js";

const MOST = 20; // results shown
const WORDS = /(?<![\p{L}\p{N}])[-−]\d+|[\p{L}\p{M}\p{N}_]+/gu;
const GREEK = Object.fromEntries("α alpha β beta γ gamma δ delta ε epsilon ζ zeta η eta θ theta κ kappa λ lambda μ mu ν nu ξ xi π pi ρ rho σ sigma τ tau φ phi χ chi ψ psi ω omega"
  .split(" ").map((word, at, all) => [word, all[at + 1]]).filter((_, at) => at % 2 === 0));
const ACCENTS = { "\u0304": "bar", "\u0302": "hat", "\u0303": "tilde" };
const LESS = new Set(["References", "Exercises", "Verified against", "At full size", "In the library", "The program"]);
const query = document.getElementById("search-query");
const status = document.getElementById("search-status");
const results = document.getElementById("search-results");
const address = new URL(document.documentElement.dataset.index, location);

// A word as it is compared: q_sample is qsample, ᾱ is alphabar, é is e
const fold = (word) => word.toLowerCase().normalize("NFKD").replace(/_/g, "").replace("−", "-")
  .replace(/([α-ω]|^[a-z])([\u0304\u0302\u0303])/gu, (_, letter, mark) => (GREEK[letter] ?? letter) + ACCENTS[mark])
  .replace(/[α-ω]/gu, (letter) => GREEK[letter] ?? letter).replace(/\p{M}/gu, "");
const words = (text) => text.match(WORDS) ?? [];

const engine = new MiniSearch({
  fields: ["title", "page", "defined", "names", "text"],
  storeFields: ["title", "page", "text", "kind"],
  tokenize: (text) => words(text).flatMap((word) => (word.includes("_") ? [word, ...word.split("_").filter(Boolean)] : [word])),
  processTerm: fold,
  searchOptions: {
    tokenize: words,
    prefix: (term) => term.length > 1,
    combineWith: "AND",
    boost: { title: 8, page: 6, defined: 6, names: 2 },
    boostDocument: (id, term, { title, kind }) => (LESS.has(title) || kind ? 0.1 : 1),
  },
});

for (const [url, page, kind, sections, badge] of await (await fetch(address)).json())
  for (const [anchor, title, text, names, defined] of sections)
    engine.add({ id: anchor ? `${url}#${anchor}` : url, kind, title, page: anchor ? page : (badge ?? ""), text, names, defined });

// A word and its stem; loosely, of a name with underscores also its parts
function either(word, loose) {
  const stem = word.replace(/(ings?|ed|ions?|ers?|e?s)$/, "");
  const others = stem !== word && stem.length > 3 ? [stem] : [];
  if (loose && word.includes("_")) others.push({ combineWith: "AND", queries: word.split("_").filter(Boolean).map(fold) });
  return others.length ? { combineWith: "OR", queries: [fold(word), ...others] } : fold(word);
}

// The query's words, all of which have to be found; for a phrase that others call otherwise, either will do
function meant(text, loose) {
  const all = words(text.toLowerCase());
  const told = all.some((word) => !STOP.has(word)) ? all.filter((word) => !STOP.has(word)) : all;
  const found = [];
  for (let at = 0; at < told.length; ) {
    const starts = (phrase) => phrase.every((word, next) => fold(told[at + next] ?? "") === word);
    const group = SYNONYMS.find((phrases) => phrases.some(starts));
    const accent = Object.values(ACCENTS).includes(told[at + 1]);
    if (accent) found.push(told[at] + told[at + 1]);
    else if (group) found.push({ combineWith: "OR", queries: group.map((queries) => ({ combineWith: "AND", queries })) });
    else found.push(either(told[at], loose));
    at += accent ? 2 : group ? Math.max(...group.filter(starts).map((phrase) => phrase.length)) : 1;
  }
  return found;
}

// Posts before other pages, labs and source; where nothing has all words, what is spelt otherwise or has some of them
function search(text) {
  const phrase = text.trim().toLowerCase();
  const has = (part) => part.toLowerCase().includes(phrase);
  for (const options of [{}, { loose: true }, { loose: true, fuzzy: (term) => term.length > 3 && 0.2 }, { loose: true, fuzzy: 0.2, combineWith: "OR" }]) {
    const queries = meant(text, options.loose);
    const found = queries.length ? engine.search({ combineWith: "AND", queries, ...options }) : [];
    for (const one of found) one.score *= has(one.title) ? 2 : phrase.includes(" ") && has(one.text) ? 1.4 : 1;
    if (found.length) return found.sort((one, other) => one.kind - other.kind || other.score - one.score);
  }
  return [];
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
  const found = search(query.value);
  status.textContent = found.length ? `${found.length} found` : query.value.trim() && "Nothing found";
  results.replaceChildren(...found.slice(0, MOST).map(({ id, title, page, text, terms }) => {
    const known = new Set(terms);
    const link = line("a", [line("small", page), line("strong", marked(title, known)), line("span", marked(text, known, 170))]);
    link.href = new URL(`../${id}`, address);
    return line("li", [link]);
  }));
}

query.addEventListener("input", show);
show();
