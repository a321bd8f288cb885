
"use strict";

// A click on a column's title sorts by it: numbers the largest first, text from a to z, another click the other way.
function sortBy(button) {
  const header = button.closest("th");
  const table = header.closest("table");
  const column = [...header.parentNode.children].indexOf(header);
  const numeric = header.classList.contains("number");
  const now = header.getAttribute("aria-sort");
  const direction = now === "none" ? (numeric ? "descending" : "ascending")
    : now === "ascending" ? "descending" : "ascending";
  for (const other of header.parentNode.children) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", direction);

  const sign = direction === "ascending" ? 1 : -1;
  const value = row => {
    const cell = row.cells[column];
    if (!numeric) return cell.textContent.trim();
    return cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
  };
  const compare = (first, second) => {
    if (!numeric) return sign * first.localeCompare(second, undefined, { numeric: true });
    // What has no value stays last, whichever way.
    if (isNaN(first) || isNaN(second)) return isNaN(first) - isNaN(second);
    return sign * (first - second);
  };
  const body = table.tBodies[0];
  body.append(...[...body.rows].sort((first, second) => compare(value(first), value(second))));
}

// Only rows that hold every word stay visible.
function filterRows(input) {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...document.getElementById(input.dataset.table).tBodies[0].rows];
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
    shown += !row.hidden;
  }
  document.getElementById(input.dataset.table + "-count").textContent = `${shown} of ${rows.length} rows`;
}

for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => sortBy(button));
for (const input of document.querySelectorAll("input[data-table]")) {
  input.addEventListener("input", () => filterRows(input));
  filterRows(input);
}
