'use strict';

const root = document.documentElement;

function stored(key, value) {
  try {
    if (value === undefined) return localStorage.getItem(key);
    localStorage.setItem(key, value);
  } catch (error) { /* a page from a file may not store anything */ }
  return null;
}

function isDark() {
  if (root.dataset.theme) return root.dataset.theme === 'dark';
  return matchMedia('(prefers-color-scheme: dark)').matches;
}

function setTheme(theme) {
  if (theme) root.dataset.theme = theme;
  document.getElementById('theme').textContent = isDark() ? 'Light' : 'Dark';
}

document.getElementById('theme').addEventListener('click', () => {
  const theme = isDark() ? 'light' : 'dark';
  setTheme(theme);
  stored('theme', theme);
});
setTheme(stored('theme'));

function compare(a, b) {
  const x = parseFloat(a), y = parseFloat(b);
  if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
  return a.localeCompare(b);
}

function sortBy(table, index, isDescending) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const value = (row) => row.cells[index].dataset.value ?? '';
  rows.sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === '' || y === '') return (x === '') - (y === '');  // last
    return isDescending ? compare(y, x) : compare(x, y);
  });
  body.append(...rows);
  Array.from(table.tHead.rows[0].cells).forEach((cell, i) => {
    if (i !== index) cell.removeAttribute('aria-sort');
    else cell.ariaSort = isDescending ? 'descending' : 'ascending';
  });
}

document.querySelectorAll('table.sorts').forEach((table) => {
  Array.from(table.tHead.rows[0].cells).forEach((cell, index) => {
    const button = cell.querySelector('button');
    if (button) button.addEventListener('click', () => {
      sortBy(table, index, cell.ariaSort === 'ascending');
    });
  });
});

document.querySelectorAll('input.filter').forEach((input) => {
  const table = input.parentElement.nextElementSibling.firstElementChild;
  input.addEventListener('input', () => {
    const words = input.value.toLowerCase().split(/\s+/);
    Array.from(table.tBodies[0].rows).forEach((row) => {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    });
  });
});

function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  if (target && target.tagName === 'DETAILS') {
    target.open = true;
    target.scrollIntoView();
  }
}
addEventListener('hashchange', openTarget);
openTarget();

document.querySelectorAll('button.copy').forEach((button) => {
  button.addEventListener('click', async () => {
    const pre = button.parentElement.querySelector('pre');
    try {
      await navigator.clipboard.writeText(pre.textContent);
      button.textContent = 'Copied';
    } catch (error) {
      getSelection().selectAllChildren(pre);
    }
  });
});
