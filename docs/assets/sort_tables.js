// Tables whose rows can be sorted: a click on a heading sorts by that column, a second one the other way round.
document.addEventListener('DOMContentLoaded', () => {
  const number = (text) => parseFloat(text.replace(/,/g, ''));
  const order = (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (!isNaN(x) && !isNaN(y)) return x - y;
    return a.localeCompare(b, undefined, { numeric: true });
  };
  const empty = (text) => text === '' || text === '-';
  for (const table of document.querySelectorAll('.md-typeset table')) {
    if (table.closest('.highlighttable') || !table.tHead || table.tBodies[0].rows.length < 2) continue;
    const headings = [...table.tHead.rows[0].cells];
    if (headings.every((heading) => heading.textContent.trim() === '')) continue;
    headings.forEach((heading, column) => {
      heading.classList.add('sortable');
      heading.tabIndex = 0;
      const sort = () => {
        const up = heading.getAttribute('aria-sort') !== 'ascending';
        headings.forEach((other) => other.removeAttribute('aria-sort'));
        heading.setAttribute('aria-sort', up ? 'ascending' : 'descending');
        const rows = [...table.tBodies[0].rows].map((row) => [row.cells[column].textContent.trim(), row]);
        // What was not measured stays at the end in both directions.
        rows.sort(([a], [b]) => empty(a) - empty(b) || (up ? order(a, b) : order(b, a)));
        table.tBodies[0].append(...rows.map(([, row]) => row));
      };
      heading.addEventListener('click', sort);
      heading.addEventListener('keydown', (event) => event.key === 'Enter' && sort());
    });
  }
});
