// The data of the page, and how a map of them is laid out and drawn.
const data = JSON.parse(document.getElementById("data").textContent);
const STAR = 1, HATCH = 2, CHANCE = 4, TOP = 8;
const LIGHT = { ink: "#1a1a1a", soft: "#5a5f66", none: "#e3e4e6", noneLine: "#a4a7ab" };
const DARK = { ink: "#e4e6e9", soft: "#a3aab2", none: "#2e3237", noneLine: "#686d73" };
const dark = matchMedia("(prefers-color-scheme: dark)");
const textOf = place => data.texts[place];
const pick = (numbers, k) => {
  const found = Array.isArray(numbers) ? numbers[k] : numbers;
  return found === undefined || found === null ? NaN : Number(found);
};
for (const grid of data.grids) {
  grid.name = textOf(grid.name);
  grid.rows = grid.rows.map(textOf);
  grid.columns = grid.columns.map(textOf);
  grid.own = new Set(grid.own);
  for (const map of grid.maps) map.label = textOf(map.label);
}

function readCell(grid, map, i, j) {
  const k = i * grid.columns.length + j;
  return { value: pick(map.v, k), low: pick(map.l, k), high: pick(map.h, k), n: pick(map.n, k),
    signs: parseInt(map.s[k], 16), own: grid.own.has(k),
    word: map.w >= 0 ? textOf(data.lists[map.w][k]) : "",
    lines: map.lines.map(list => textOf(data.lists[list][k])).filter(Boolean) };
}

// As many digits as fit: three decimals, fewer from 10 on (residuals have no upper limit).
function formatValue(value, digits = 3) {
  const size = Math.abs(value);
  if (!isFinite(value)) return isNaN(value) ? "" : value > 0 ? "∞" : "−∞";
  if (size < 0.5 * 10 ** -digits) value = 0;
  if (size < 10) return value.toFixed(digits);
  return size < 100 ? value.toFixed(1) : size < 1e4 ? value.toFixed(0) : value.toExponential(1);
}

function describeInterval(cell, format = String) {
  return isNaN(cell.low) || isNaN(cell.high) ? "" : `[${format(cell.low)}, ${format(cell.high)}]`;
}

// Background and text of a value: bright always means similar.
function pickColours(map, value) {
  const share = Math.min(1, Math.max(0, (value - map.low) / (map.high - map.low)));
  const step = Math.min(255, Math.floor(256 * share));
  const k = map.larger ? step : 255 - step;
  return ["#" + data.colours.slice(6 * k, 6 * k + 6), data.inks[k] === "1" ? "#000" : "#fff"];
}

const widths = new Map();
const ruler = document.createElement("canvas").getContext("2d");
// Shorten a name in its middle, because names of layers often differ at the end.
function fit(words, room, size) {
  ruler.font = `${size}px ${FONT}`;
  let n = words.length, shown = words;
  while (n > 2 && ruler.measureText(shown).width > room) {
    n = Math.min(n - 1, Math.ceil(n * .93));
    shown = `${words.slice(0, Math.ceil(n / 2))}…${words.slice(words.length - Math.floor(n / 2))}`;
  }
  return shown;
}
function measureWidest(names, size) {
  if (!widths.has(names)) {
    ruler.font = `${size}px ${FONT}`;
    widths.set(names, names.reduce((most, name) => Math.max(most, ruler.measureText(name.slice(0, 60)).width), 0));
  }
  return widths.get(names);
}

// Lay a grid out within a width and, for its cells, a height: sizes in pixels.
function layOut(grid, room, most) {
  const rows = grid.rows.length, columns = grid.columns.length, size = 11;
  const left = 20 + Math.min(measureWidest(grid.rows, size) + 4, room * .36);
  const names = 20 + Math.min(measureWidest(grid.columns, size) + 6, 120);
  const cell = Math.max(2, Math.min(most.cell, most.height / rows, (room - left - 4) / columns,
    ((most.whole || Infinity) - names - 4) / rows));
  const whole = cell > 12 ? Math.floor(cell) : cell;
  const wide = measureWidest(grid.columns, size);
  const turned = wide > whole - 4;
  const top = 20 + (turned ? Math.min(wide + 6, 120) : 14);
  return { cell: whole, left, top, size, turned, width: left + whole * columns + 4, height: top + whole * rows + 4,
    every: Math.max(1, Math.ceil(11 / whole)) };
}

function drawLabels(pen, grid, at, palette) {
  const { cell, left, top, size } = at, middle = { fill: palette.soft, size };
  pen.text(grid.sides[1], left + cell * grid.columns.length / 2, 8, { ...middle, style: "italic" });
  pen.text(grid.sides[0], 8, top + cell * grid.rows.length / 2, { ...middle, style: "italic", turned: true });
  grid.rows.forEach((name, i) => {
    if (i % at.every === 0) {
      pen.text(fit(name, left - 22, size), left - 5, top + cell * (i + .5), { ...middle, align: "end" });
    }
  });
  grid.columns.forEach((name, j) => {
    if (j % at.every !== 0) return;
    const x = left + cell * (j + .5);
    if (at.turned) pen.text(fit(name, top - 22, size), x, top - 5, { ...middle, align: "start", turned: true });
    else pen.text(name, x, top - 9, middle);
  });
}

function drawCell(pen, map, cell, x, y, side, palette) {
  const inner = side > 5 ? side - 1 : side;
  if (isNaN(cell.value)) {
    pen.rect(x, y, inner, inner, palette.none);
    if (side > 5) pen.lines(hatch(x, y, inner, inner, 5, false), palette.noneLine, 1, 1);
  } else {
    const [ground, ink] = pickColours(map, cell.value);
    pen.rect(x, y, inner, inner, ground);
    if (cell.signs & HATCH) pen.lines(hatch(x, y, inner, inner, Math.max(3, Math.min(7, side / 5)), true), ink, 1, .7);
    drawValue(pen, cell, x, y, side, inner, ground, ink);
  }
  if (cell.own && side > 7) {
    pen.frame(x, y, inner, inner, "#000");
    pen.frame(x + 1, y + 1, inner - 2, inner - 2, "#fff");
  }
}

const numbers = new Map();
// Width of a number at one pixel; a page has thousands of them, and measuring is slow.
function measureNumber(words, style) {
  const key = style + words;
  if (!numbers.has(key)) {
    ruler.font = `${style} 20px ${FONT}`;
    numbers.set(key, ruler.measureText(words).width / 20);
  }
  return numbers.get(key);
}
// A number with as many digits as its cell has room for, in a size that can be read; nothing if there is none.
function fitNumber(value, style, side, room) {
  for (let digits = side >= 34 ? 3 : 2; digits >= 0; digits--) {
    const words = formatValue(value, digits), most = Math.min(13, Math.max(8, side * (digits === 3 ? .29 : .34)));
    const size = Math.min(most, room / measureNumber(words, style));
    if (size >= Math.max(7.5, .75 * most)) return { words, size };
  }
  return null;
}

function drawValue(pen, cell, x, y, side, inner, ground, ink) {
  const middle = x + inner / 2, style = cell.signs & TOP ? "bold" : "";
  const found = side >= 22 && fitNumber(cell.value, style, side, inner - (cell.own ? 5 : 1));
  if (found) {
    const { words, size } = found, wide = measureNumber(words, style) * size + 3;
    if (cell.signs & HATCH) pen.rect(middle - wide / 2, y + inner / 2 - size * .62, wide, size * 1.24, ground);
    pen.text(words, middle, y + inner / 2, { fill: ink, size, style });
    if (cell.signs & TOP) pen.dot(x + 5, y + 5, Math.min(2.2, side / 12), ink);
  }
  if (side < 9) return;
  const sign = Math.min(14, Math.max(9, side * .36));
  if (cell.signs & STAR) pen.text("*", x + inner - sign * .32, y + sign * .55, { fill: ink, size: sign, style: "bold" });
  if (cell.signs & CHANCE) pen.text("°", x + sign * .35, y + inner - sign * .25, { fill: ink, size: sign });
}

function drawMap(pen, grid, map, at, palette) {
  drawLabels(pen, grid, at, palette);
  grid.rows.forEach((_, i) => grid.columns.forEach((_, j) => drawCell(pen, map, readCell(grid, map, i, j),
    at.left + at.cell * j, at.top + at.cell * i, at.cell, palette)));
}

// A map as a file of its own: title, scale and the meaning of its signs.
function makeSvg(grid, map) {
  const at = layOut(grid, 720, { cell: 44, height: 900 });
  const seen = [...map.s].reduce((all, s) => all | parseInt(s, 16), 0);
  const key = [[HATCH, "hatched: works, beyond what natural inputs reach"], [STAR, "*: not to be trusted"],
    [CHANCE, "°: not above chance"]].filter(([sign]) => seen & sign).map(([, words]) => words);
  const ends = map.larger ? [map.low, map.high] : [map.high, map.low];
  const width = Math.max(at.width, 330), shift = 44;
  const pen = new SvgPen(width, at.height + shift + 34 + 14 * key.length, `${map.label}, ${grid.name}`);
  pen.text(fit(map.label, width - 8, 14), 4, 12, { fill: LIGHT.ink, size: 14, align: "start", style: "bold" });
  pen.text(fit(grid.name, width - 8, 11), 4, 30, { fill: LIGHT.soft, size: 11, align: "start" });
  const outer = pen.to;
  pen.to = pen.add("g", { transform: `translate(0 ${shift})` });
  drawMap(pen, grid, map, at, LIGHT);
  pen.to = outer;
  const y = shift + at.height + 8, words = { fill: LIGHT.soft, size: 10, align: "start" };
  for (let k = 0; k < 64; k++) pen.rect(40 + 2 * k, y, 2.2, 9, "#" + data.colours.slice(24 * k, 24 * k + 6));
  pen.text(String(ends[0]), 36, y + 5, { ...words, align: "end" });
  pen.text(`${ends[1]}  more similar`, 172, y + 5, words);
  key.forEach((line, k) => pen.text(line, 4, y + 24 + 14 * k, words));
  return new XMLSerializer().serializeToString(pen.svg);
}
