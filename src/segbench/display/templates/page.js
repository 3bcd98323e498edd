for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = row => {
      const text = row.cells[column].textContent.trim(), number = parseFloat(text.replace(/^[<>] /, ""));
      return [text === "" || text === "undefined", Number.isNaN(number) ? null : number, text];
    };
    const body = table.tBodies[0];
    const rows = [...body.rows].map(row => [value(row), row]);
    rows.sort(([a], [b]) => {
      if (a[0] !== b[0]) return a[0] - b[0];
      const order = a[1] !== null && b[1] !== null ? a[1] - b[1] : a[2].localeCompare(b[2]);
      return down ? -order : order;
    });
    body.append(...rows.map(([, row]) => row));
  }));
}
