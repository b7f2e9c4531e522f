// What can be sorted and folded at once; the page can be read without it.
document.querySelectorAll("table.sort").forEach(table => [...table.rows[0].cells].forEach((cell, column) => {
  const button = document.createElement("button");
  button.textContent = cell.textContent;
  cell.replaceChildren(button);
  let descending = false;
  button.onclick = () => {
    descending = !descending;
    // A tensor that cannot be compared has one cell in the place of the last ones.
    const key = row => row.cells[column]?.dataset.v ?? row.cells[column]?.textContent ?? "";
    const by = (a, b) => isNaN(key(a)) || isNaN(key(b)) ? key(a).localeCompare(key(b)) : key(a) - key(b);
    const rows = [...table.rows].slice(1).sort((a, b) => descending ? by(b, a) : by(a, b));
    table.tBodies[0].append(...rows);
  };
}));
document.querySelectorAll(".map").forEach(map => {
  const button = document.createElement("button");
  button.textContent = "fold or unfold all";
  button.onclick = () => {
    const folded = map.querySelector("details:not([open])") !== null;
    map.querySelectorAll("details").forEach(node => node.open = folded);
  };
  map.before(button);
});
