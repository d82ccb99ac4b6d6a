// Profiles: a row and a column of the leading maps as lines with intervals, those of the chosen cell.
const WIDTH = 380, HEIGHT = 150, MARGIN = { left: 38, right: 8, top: 10, bottom: 20 };

class Profile {
  constructor(element) {
    this.element = element;
    this.grid = data.grids[element.dataset.grid];
    this.maps = element.dataset.maps.split(",").map(k => this.grid.maps[k]);
    this.show(0, 0);
    element.hidden = false;
  }
  // Show the row and the column of a cell.
  show(i, j) {
    if (this.at === `${i},${j}`) return;
    this.at = `${i},${j}`;
    const { grid } = this;
    this.element.querySelector(".row").replaceChildren(...this.draw(
      `${grid.sides[0]} ${grid.rows[i]} into every ${grid.sides[1]}`, grid.columns, k => [i, k], j));
    this.element.querySelector(".column").replaceChildren(...this.draw(
      `every ${grid.sides[0]} into ${grid.sides[1]} ${grid.columns[j]}`, grid.rows, k => [k, j], i));
  }
  draw(title, names, place, chosen) {
    const caption = document.createElement("p");
    caption.className = "soft";
    caption.textContent = title;
    const pen = new SvgPen(WIDTH, HEIGHT, title);
    pen.svg.setAttribute("role", "img");
    pen.svg.setAttribute("aria-label", `Lines: ${title}`);
    pen.to.lastChild.remove();
    const wide = WIDTH - MARGIN.left - MARGIN.right, tall = HEIGHT - MARGIN.top - MARGIN.bottom;
    const x = k => MARGIN.left + wide * (k + .5) / names.length;
    pen.add("rect", { class: "chosen", x: x(chosen - .5), y: MARGIN.top, width: wide / names.length, height: tall });
    this.drawAxes(pen, names, x, wide, tall);
    this.maps.forEach((map, k) => this.drawLine(pen, map, k, names.map((_, n) => place(n)), x, tall));
    return [caption, pen.svg];
  }
  drawAxes(pen, names, x, wide, tall) {
    const same = this.maps.every(m => m.low === this.maps[0].low && m.high === this.maps[0].high && m.larger);
    const words = same ? [this.maps[0].high, this.maps[0].low] : ["more", "less"];
    pen.add("rect", { class: "frame", x: MARGIN.left, y: MARGIN.top, width: wide, height: tall });
    const label = (text, attributes) => { pen.add("text", attributes).textContent = text; };
    label(words[0], { x: MARGIN.left - 4, y: MARGIN.top + 8, "text-anchor": "end" });
    label(words[1], { x: MARGIN.left - 4, y: MARGIN.top + tall, "text-anchor": "end" });
    const room = wide / names.length, every = Math.max(1, Math.ceil(26 / room));
    names.forEach((name, k) => {
      if (k % every === 0) {
        label(fit(name, room * every - 3, 10), { x: x(k), y: HEIGHT - 6, "text-anchor": "middle" });
      }
    });
  }
  drawLine(pen, map, order, places, x, tall) {
    const y = value => {
      const share = Math.min(1, Math.max(0, (value - map.low) / (map.high - map.low)));
      return MARGIN.top + tall * (1 - (map.larger ? share : 1 - share));
    };
    let path = "", broken = true;
    const points = pen.add("g", { class: `line line${order}` });
    const outer = pen.to;
    pen.to = points;
    places.forEach(([i, j], k) => {
      const cell = readCell(this.grid, map, i, j);
      if (isNaN(cell.value)) { broken = true; return; }
      path += `${broken ? "M" : "L"}${x(k).toFixed(1)} ${y(cell.value).toFixed(1)}`;
      broken = false;
      if (!isNaN(cell.low)) pen.add("path", { class: "whisker", d: `M${x(k)} ${y(cell.low)}V${y(cell.high)}` });
      pen.dot(x(k), y(cell.value), cell.signs & HATCH ? 3.2 : 2.2, "currentColor");
    });
    if (path) pen.add("path", { class: "through", d: path });
    pen.to = outer;
  }
}
