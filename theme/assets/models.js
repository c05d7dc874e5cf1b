// The survey's table: sorted by a click on a column's name, filtered by family and words. It is whole without this.
"use strict";

for (const table of document.querySelectorAll("table.models")) {
  const body = table.tBodies[0], rows = [...body.rows];
  const families = [...new Set(rows.map((row) => row.dataset.family))];
  const form = document.createElement("form");
  form.className = "models-filter";
  form.innerHTML = `<label>Family <select><option value="">all</option></select></label>
    <label>Words <input type="search" autocomplete="off"></label> <output aria-live="polite"></output>`;
  const [family, words, shown] = form.querySelectorAll("select, input, output");
  family.append(...families.map((name) => new Option(name, name)));

  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      const text = `${row.textContent} ${row.querySelector("a").title}`.toLowerCase();
      row.hidden = (family.value && row.dataset.family !== family.value) || !wanted.every((word) => text.includes(word));
    }
    shown.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} models`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());

  // "1.3 B" → 1.3e9, so that parameters are sorted by number; months and words as they are
  const size = (text) => { const found = text.match(/([\d.]+) ([MB])/); return found ? found[1] * (found[2] === "B" ? 1e9 : 1e6) : -1; };
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: cell.textContent });
    cell.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = cell.ariaSort !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", up ? "ascending" : "descending");
      const text = (row) => row.cells[column].textContent;
      const order = button.textContent === "Parameters"
        ? (a, b) => size(text(a)) - size(text(b)) : (a, b) => text(a).localeCompare(text(b));
      body.append(...rows.sort((a, b) => (up ? 1 : -1) * order(a, b)));
    });
  });
  table.before(form);
  filter();
}
