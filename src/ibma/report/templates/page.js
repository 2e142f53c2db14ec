// Sort a table by a column, filter its rows by words; without this the tables are as they are.
"use strict";
const value = (row, place) => row.cells[place]?.textContent.trim() ?? "";
const compare = (a, b) => {
  const [x, y] = [a, b].map((text) => parseFloat(text.replace(/,/g, "")));
  if (Number.isNaN(x) && Number.isNaN(y)) return a.localeCompare(b);
  return Number.isNaN(x) ? 1 : Number.isNaN(y) ? -1 : x - y;
};
for (const table of document.querySelectorAll(".scroll > table")) {
  const body = table.tBodies[0];
  if (body.rows.length < 4) continue;
  for (const head of table.querySelectorAll("th[data-place]")) {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sorted = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a, head.dataset.place), value(b, head.dataset.place)];
        const order = compare(x, y);
        const empty = (text) => !/\d/.test(text) && /\d/.test(x + y);
        return empty(x) || empty(y) ? order : down ? -order : order;
      });
      body.append(...sorted);
    });
  }
  if (body.rows.length < 10) continue;
  const filter = document.createElement("input");
  filter.className = "filter";
  filter.type = "search";
  filter.placeholder = "filter rows";
  filter.setAttribute("aria-label", `Filter the rows of: ${table.parentElement.getAttribute("aria-label")}`);
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/);
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
  table.parentElement.before(filter);
}
if (matchMedia("(max-width: 56rem)").matches) document.getElementById("contents").open = false;
const open = () => document.getElementById(decodeURIComponent(location.hash.slice(1)))?.closest("details")?.setAttribute("open", "");
addEventListener("hashchange", open);
open();
