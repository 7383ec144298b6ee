'use strict';

const all = (selector, action) => {
  document.querySelectorAll(selector).forEach(action);
};

// Numbers as such and before words.
function compare(a, b) {
  const [x, y] = [a, b].map((text) => parseFloat(text.replaceAll(',', '')));
  if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y) || a.localeCompare(b);
  return x - y;
}

function sortBy(table, index, sign) {
  const text = (row) => row.cells[index].textContent;
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const [x, y] = [text(a), text(b)];
    return (!x - !y) || sign * compare(x, y);  // empty cells are last
  });
  table.tBodies[0].append(...rows);
}

all('table.sorts th', (cell) => {
  const table = cell.closest('table');
  cell.querySelector('button').onclick = () => {
    const isDescending = cell.ariaSort === 'ascending';
    for (const other of cell.parentElement.cells) {
      other.removeAttribute('aria-sort');
    }
    cell.ariaSort = isDescending ? 'descending' : 'ascending';
    sortBy(table, cell.cellIndex, isDescending ? -1 : 1);
  };
});

all('input.filter', (input) => {
  const [body] = input.parentElement.nextElementSibling.querySelector('table')
    .tBodies;
  input.oninput = () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  };
});
