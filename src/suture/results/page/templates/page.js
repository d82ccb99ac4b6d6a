// What the reader does: choose a cell in one map and see it in all, open a table, take files away, print.
let chosen = null;
const panel = document.getElementById("panel");
const plots = [...document.querySelectorAll("figure[data-map]")].map(figure => new Plot(figure));
sizeAll(plots);
const profiles = [...document.querySelectorAll(".profile")].map(element => new Profile(element));


const watcher = new IntersectionObserver(entries => {
  for (const entry of entries) {
    const plot = plots.find(p => p.frame === entry.target);
    plot.near = entry.isIntersecting;
    if (plot.near) plot.refresh(); else if (!roomy) plot.release();
  }
}, { rootMargin: "400px" });
for (const plot of plots) watcher.observe(plot.frame);
// A phone shows the groups of maps closed, one below the other.
if (innerWidth < 640) for (const group of document.querySelectorAll("details.group")) group.open = false;
// Drawn maps are kept if they fit into memory, so that a picture of the whole page has all of them.
const ratio = Math.min(3, Math.max(1, devicePixelRatio));
const roomy = plots.reduce((sum, { at }) => sum + 4 * at.width * at.height * ratio ** 2, 0) < 1e8;
function drawRest(rest) {
  if (!rest.length) return;
  if (!rest[0].drawn && rest[0].figure.offsetParent) rest[0].refresh();
  (window.requestIdleCallback || setTimeout)(() => drawRest(rest.slice(1)));
}
if (roomy) (window.requestIdleCallback || setTimeout)(() => drawRest(plots));

// Choose a cell of a map: it is marked in all maps that have it, and the panel says what it holds.
function choose(plot, i, j, spoken = true) {
  const { grid, map } = plot;
  plot.last = [i, j];
  chosen = { plot, i, j, row: grid.rows[i], column: grid.columns[j] };
  for (const other of plots) if (other.near) other.mark(chosen);
  for (const profile of profiles) if (profile.grid === grid) profile.show(i, j);
  say(grid, map, i, j, spoken);
}

function say(grid, map, i, j, spoken) {
  const cell = readCell(grid, map, i, j), interval = describeInterval(cell);
  const number = isNaN(cell.value) ? "no value" : String(cell.value);
  const parts = [number, interval && `95 % interval ${interval}`, isNaN(cell.n) ? "" : `n = ${cell.n}`,
    cell.signs & TOP ? "most similar of its column" : "", cell.signs & CHANCE ? "° not above chance" : ""];
  const lines = [`${map.label}: ${parts.filter(Boolean).join(", ")}`, ...cell.lines];
  const where = document.createElement("strong");
  where.textContent = `${grid.rows[i]} → ${grid.columns[j]}`;
  const box = panel.querySelector("[aria-live]");
  box.setAttribute("aria-live", spoken ? "polite" : "off"); // a pointer that passes says nothing aloud
  box.replaceChildren(where, ...lines.filter(Boolean).map(line => {
    const made = document.createElement("p");
    made.textContent = line;
    return made;
  }));
  panel.classList.add("on");
  box.scrollTop = 0;
  box.tabIndex = 0; // for it may scroll
  panel.querySelector("button").hidden = false;
}

function clear() {
  chosen = null;
  for (const plot of plots) plot.mark(null);
  panel.classList.remove("on");
  panel.querySelector("[aria-live]").replaceChildren();
  panel.querySelector("[aria-live]").removeAttribute("tabindex");
  panel.querySelector("button").hidden = true;
}
panel.querySelector("button").addEventListener("click", clear);
document.addEventListener("keydown", event => { if (event.key === "Escape") clear(); });

// Lay maps out; all are measured before any changes, because a change would lay the page out again each time.
function sizeAll(some) {
  for (const plot of some) plot.measure();
  for (const plot of some) plot.size();
}
function redraw() {
  sizeAll(plots);
  for (const plot of plots) { plot.release(); if (plot.near || roomy) plot.refresh(); }
}
dark.addEventListener("change", redraw);
let wait = 0;
addEventListener("resize", () => { clearTimeout(wait); wait = setTimeout(redraw, 120); });
// A panel that was closed had no width.
document.addEventListener("toggle", event => {
  const inside = plots.filter(plot => event.target.contains(plot.figure) && plot.figure.offsetParent);
  const before = inside.map(plot => plot.room);
  for (const plot of inside) plot.measure();
  const grown = inside.filter((plot, k) => plot.room !== before[k]);
  sizeAll(grown);
  for (const plot of grown) { plot.release(); plot.refresh(); }
}, true);

function offer(name, kind, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: kind }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// The table lies compressed in the page; without DecompressionStream it is taken away as it lies.
for (const link of document.querySelectorAll("a[data-table]")) {
  if (!window.DecompressionStream) continue;
  link.addEventListener("click", async event => {
    event.preventDefault();
    const bytes = Uint8Array.from(atob(link.href.split("base64,")[1]), c => c.charCodeAt(0));
    const text = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    offer(link.dataset.table, "text/csv", await new Response(text).blob());
  });
}
for (const button of document.querySelectorAll("button.print")) button.addEventListener("click", () => print());
for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", async () => {
    const of = document.getElementById(button.dataset.of), words = button.textContent;
    const pairs = [...of.querySelectorAll("dt")].map(name => {
      const value = name.nextElementSibling;
      return `${name.textContent}: ${(value.querySelector("code") || value).textContent}`;
    });
    try {
      await navigator.clipboard.writeText(pairs.join("\n") || of.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(of);
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => { button.textContent = words; }, 4000);
  });
}

// On paper: closed panels that belong there are open, and all maps are drawn in light colours.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details.paper:not([open])")];
  for (const details of opened) details.open = true;
  for (const plot of plots) if (plot.figure.offsetParent) plot.print();
});
addEventListener("afterprint", () => {
  for (const details of opened) details.open = false;
  redraw();
});

// What scrolls sideways can be scrolled by keyboard; what does not is no stop of Tab.
function markScrolls() {
  for (const box of document.querySelectorAll(".scroll:not(.values), pre")) {
    if (!box.clientWidth) continue; // in a closed panel
    if (box.scrollWidth > box.clientWidth) {
      const name = box.dataset.name || box.getAttribute("aria-label") || "table";
      Object.entries({ tabindex: "0", role: "group", "aria-label": name }).forEach(([k, v]) => box.setAttribute(k, v));
    } else {
      box.dataset.name ||= box.getAttribute("aria-label") || "";
      for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
    }
  }
}
markScrolls();
document.addEventListener("toggle", markScrolls, true);
addEventListener("resize", markScrolls);
