// Two pens with the same strokes: one paints on a canvas, one writes SVG for downloads.
const SVG = new DOMParser().parseFromString("<svg></svg>", "text/html").body.firstChild.namespaceURI;
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";

// Lines of a hatching within a rectangle, at 45 degrees, rising or falling.
function hatch(x, y, w, h, step, rising) {
  const lines = [];
  for (let d = step - h; d < w; d += step) {
    const a = Math.max(0, d), b = Math.min(w, d + h); // along x; y runs with x - d
    lines.push(rising ? [x + a, y + h - (a - d), x + b, y + h - (b - d)]
                      : [x + a, y + (a - d), x + b, y + (b - d)]);
  }
  return lines;
}

class CanvasPen {
  constructor(canvas, width, height, ratio) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    this.to = canvas.getContext("2d");
    this.to.scale(ratio, ratio);
    this.to.textBaseline = "middle";
  }
  rect(x, y, w, h, fill) {
    this.to.fillStyle = fill;
    this.to.fillRect(x, y, w, h);
  }
  frame(x, y, w, h, stroke) {
    this.to.strokeStyle = stroke;
    this.to.lineWidth = 1;
    this.to.strokeRect(x + .5, y + .5, w - 1, h - 1);
  }
  lines(lines, stroke, width, alpha) {
    const to = this.to;
    to.globalAlpha = alpha;
    to.strokeStyle = stroke;
    to.lineWidth = width;
    to.beginPath();
    for (const [a, b, c, d] of lines) { to.moveTo(a, b); to.lineTo(c, d); }
    to.stroke();
    to.globalAlpha = 1;
  }
  dot(x, y, r, fill) {
    this.to.fillStyle = fill;
    this.to.beginPath();
    this.to.arc(x, y, r, 0, 2 * Math.PI);
    this.to.fill();
  }
  text(words, x, y, { fill, size, align = "center", turned = false, style = "" }) {
    const to = this.to;
    to.font = `${style} ${size}px ${FONT}`;
    to.fillStyle = fill;
    to.textAlign = { start: "left", center: "center", end: "right" }[align];
    to.save();
    to.translate(x, y);
    if (turned) to.rotate(-Math.PI / 2);
    to.fillText(words, 0, 0);
    to.restore();
  }
}

class SvgPen {
  constructor(width, height, title) {
    this.svg = this.make("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
    this.to = this.svg;
    this.add("title", {}).textContent = title;
    this.add("rect", { width, height, fill: "#fff" });
  }
  make(tag, attributes) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) {
      made.setAttribute(name, typeof value === "number" ? +value.toFixed(2) : value);
    }
    return made;
  }
  add(tag, attributes) { return this.to.appendChild(this.make(tag, attributes)); }
  rect(x, y, width, height, fill) { this.add("rect", { x, y, width, height, fill }); }
  frame(x, y, w, h, stroke) {
    this.add("rect", { x: x + .5, y: y + .5, width: w - 1, height: h - 1, fill: "none", stroke });
  }
  lines(lines, stroke, width, alpha) {
    const d = lines.map(line => "M" + line.slice(0, 2).map(v => v.toFixed(1)).join(" ")
                                + "L" + line.slice(2).map(v => v.toFixed(1)).join(" ")).join("");
    this.add("path", { d, stroke, "stroke-width": width, "stroke-opacity": alpha, fill: "none" });
  }
  dot(cx, cy, r, fill) { this.add("circle", { cx, cy, r, fill }); }
  text(words, x, y, { fill, size, align = "center", turned = false, style = "" }) {
    const made = this.add("text", { x, y, fill, "font-size": size, "font-family": FONT,
      "text-anchor": align === "center" ? "middle" : align, "dominant-baseline": "central" });
    if (turned) made.setAttribute("transform", `rotate(-90 ${x.toFixed(2)} ${y.toFixed(2)})`);
    if (style.includes("bold")) made.setAttribute("font-weight", "bold");
    if (style.includes("italic")) made.setAttribute("font-style", "italic");
    made.textContent = words;
  }
}
