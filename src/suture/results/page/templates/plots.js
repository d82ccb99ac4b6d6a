// A map on the page: a canvas in a frame that takes the keyboard, a line with the chosen value, and two buttons.
class Plot {
  constructor(figure) {
    this.figure = figure;
    this.lead = figure.classList.contains("lead");
    this.grid = data.grids[figure.dataset.grid];
    this.map = this.grid.maps[figure.dataset.map];
    this.frame = figure.querySelector(".plot");
    this.readout = figure.querySelector(".readout");
    this.canvas = document.createElement("canvas");
    this.cursor = document.createElement("div");
    this.cursor.className = "cursor";
    this.frame.replaceChildren(this.canvas, this.cursor);
    Object.entries({ role: "application", "aria-roledescription": "heat map", "aria-label": this.frame.dataset.about,
      tabindex: "0" }).forEach(([name, value]) => this.frame.setAttribute(name, value));
    this.near = false;
    this.listen();
  }
  measure() {
    this.room = this.lead ? this.figure.clientWidth : this.figure.parentElement.clientWidth || 900;
    // On a desktop the maps of the first screen end where it ends.
    const top = this.frame.getBoundingClientRect().top + scrollY;
    this.tall = this.lead && innerWidth >= 640 && top < innerHeight ? Math.max(240, innerHeight - top - 6) : Infinity;
  }
  size() {
    const { room, lead } = this, columns = this.grid.columns.length;
    const alone = lead && this.figure.matches(":only-child");
    // Small maps are as wide as their numbers need, as long as there are few columns.
    const wide = lead ? Math.min(room, 620) : Math.min(room, Math.max(290, columns <= 12 ? 70 + 22 * columns : 0));
    this.at = layOut(this.grid, wide, { cell: lead ? 54 : 38, height: !lead ? 300 : alone ? 520 : 324, whole: this.tall });
    if (!lead) this.figure.style.width = `${Math.min(room, Math.max(this.at.width, 250))}px`;
    this.canvas.style.width = `${this.at.width}px`;
    this.canvas.style.aspectRatio = `${this.at.width} / ${this.at.height}`;
  }
  refresh() {
    if (!this.drawn) this.paint(ratio, dark.matches ? DARK : LIGHT);
    this.drawn = true;
    this.mark(chosen);
  }
  paint(ratio, palette) {
    drawMap(new CanvasPen(this.canvas, this.at.width, this.at.height, ratio), this.grid, this.map, this.at, palette);
  }
  print() { this.drawn = false; this.paint(3, LIGHT); }
  release() { this.drawn = false; this.canvas.width = this.canvas.height = 0; }

  // Mark the chosen cell, found by the names of its row and column, and write its value above the map.
  mark(cell) {
    const here = cell && cell.plot.grid === this.grid;
    const i = here ? cell.i : cell ? this.grid.rows.indexOf(cell.row) : -1;
    const j = here ? cell.j : cell ? this.grid.columns.indexOf(cell.column) : -1;
    this.place = i < 0 || j < 0 ? null : [i, j];
    this.cursor.style.display = this.place ? "block" : "none";
    this.readout.textContent = "";
    if (!this.place) return;
    const { left, top, cell: side } = this.at, found = readCell(this.grid, this.map, i, j);
    this.cursor.style.transform = `translate(${left + side * j - 2}px, ${top + side * i - 2}px)`;
    this.cursor.style.width = this.cursor.style.height = `${side + 3}px`;
    this.readout.textContent = isNaN(found.value) ? "no value"
      : `${formatValue(found.value)} ${describeInterval(found, formatValue)}${found.signs & STAR ? " *" : ""}`;
  }
  find(event) {
    const box = this.canvas.getBoundingClientRect(), scale = this.at.width / box.width;
    const i = Math.floor(((event.clientY - box.top) * scale - this.at.top) / this.at.cell);
    const j = Math.floor(((event.clientX - box.left) * scale - this.at.left) / this.at.cell);
    return i >= 0 && j >= 0 && i < this.grid.rows.length && j < this.grid.columns.length ? [i, j] : null;
  }
  listen() {
    const point = event => {
      const at = this.find(event);
      const same = chosen && chosen.plot === this && at && chosen.i === at[0] && chosen.j === at[1];
      if (at && !same) choose(this, ...at, event.type === "click");
    };
    this.canvas.addEventListener("pointermove", event => { if (event.pointerType === "mouse") point(event); });
    this.canvas.addEventListener("click", point);
    this.frame.addEventListener("focus", () => {
      if (this.frame.matches(":focus-visible")) choose(this, ...(this.place || this.last || [0, 0]));
    });
    this.frame.addEventListener("keydown", event => this.move(event));
    this.figure.querySelector("button.table").addEventListener("click", event => this.toggleTable(event.target));
    this.figure.querySelector("button.svg").addEventListener("click", () => offer(
      `${`${this.map.key}-${this.grid.name}`.replace(/[^\w.-]+/g, "-").slice(0, 120)}.svg`, "image/svg+xml", makeSvg(this.grid, this.map)));
  }
  move(event) {
    const rows = this.grid.rows.length, columns = this.grid.columns.length, [i, j] = this.place || this.last || [0, 0];
    const to = { ArrowUp: [i - 1, j], ArrowDown: [i + 1, j], ArrowLeft: [i, j - 1], ArrowRight: [i, j + 1],
      Home: [event.ctrlKey ? 0 : i, 0], End: [event.ctrlKey ? rows - 1 : i, columns - 1],
      PageUp: [0, j], PageDown: [rows - 1, j] }[event.key];
    if (!to || !rows || !columns) return;
    event.preventDefault();
    choose(this, Math.min(rows - 1, Math.max(0, to[0])), Math.min(columns - 1, Math.max(0, to[1])));
  }
  toggleTable(button) {
    const open = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(open));
    if (!open) { this.figure.querySelector(".values").remove(); return; }
    const box = document.createElement("div");
    box.className = "values scroll";
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", `Table of ${this.map.label}`);
    box.append(this.makeTable());
    this.figure.append(box);
  }
  makeTable() {
    const table = document.createElement("table"), { grid, map } = this;
    table.className = "table";
    table.createCaption().textContent = `${map.label}: ${grid.sides[0]} in rows, ${grid.sides[1]} in columns`;
    const add = (row, tag, words, scope) => {
      const made = row.appendChild(document.createElement(tag));
      if (scope) made.scope = scope;
      made.textContent = words;
    };
    const head = table.createTHead().insertRow(), body = table.createTBody();
    add(head, "th", grid.sides.join(" → "), "col");
    for (const name of grid.columns) add(head, "th", name, "col");
    grid.rows.forEach((name, i) => {
      const row = body.insertRow();
      add(row, "th", name, "row");
      grid.columns.forEach((_, j) => {
        const cell = readCell(grid, map, i, j);
        add(row, "td", isNaN(cell.value) ? cell.lines[0] || "no value"
          : [`${cell.value} ${describeInterval(cell)}`.trim(), cell.word, cell.signs & STAR ? "marked" : "",
            cell.signs & CHANCE ? "not above chance" : ""].filter(Boolean).join("; "));
      });
    });
    return table;
  }
}
