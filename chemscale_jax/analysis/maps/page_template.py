"""The page of `map_page`: HTML, styles and the script, without data.

``@META@`` stands for what the page knows of all points, ``@RECORDS@`` for the packed
records of single molecules, a line for each chunk, ``@STYLE@`` for that of structures.
"""

PAGE = r"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none';
 script-src 'unsafe-inline'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>@TITLE@</title>
<style>
body{margin:12px;font:14px/1.4 system-ui,sans-serif;color:#111;background:#fff}
h1{font-size:18px;margin:0 0 6px}
#bar{display:flex;gap:16px;flex-wrap:wrap;align-items:center;margin-bottom:8px}
#panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(320px,1fr));gap:10px}
figure{margin:0}
figcaption{font-weight:600}
canvas{width:100%;height:420px;border:1px solid #ccc;cursor:crosshair;display:block;
 touch-action:none}
#legend{display:flex;flex-wrap:wrap;gap:8px;margin:8px 0}
#legend button{display:flex;align-items:center;gap:6px;background:#fff;font:inherit;
 border:1px solid #ccc;border-radius:4px;padding:2px 8px;cursor:pointer;color:inherit}
#legend button[aria-pressed=false]{opacity:.35}
#legend svg.mol{width:96px;height:72px}
#card{position:fixed;background:#fff;border:1px solid #888;border-radius:6px;
 padding:6px;box-shadow:0 2px 10px #0004;width:300px;pointer-events:none;z-index:2}
#card.pinned{pointer-events:auto;border-color:#000}
#card svg{width:288px;height:216px;display:block}
#card table{border-collapse:collapse;font-size:12px;width:100%}
#card td{vertical-align:top;padding:0 4px;overflow-wrap:anywhere}
#card td:first-child{color:#666;white-space:nowrap}
#hint{color:#555;font-size:12px}
@STYLE@</style>
</head>
<body>
<h1>@TITLE@</h1>
<div id="bar">
<label>colour by <select id="color"></select></label>
<label>find <input id="find" type="search" placeholder="SMILES, row or cell"></label>
<span id="found" role="status"></span>
</div>
<div id="panels"></div>
<div id="legend"></div>
<p id="hint">Drag moves, the wheel zooms, a double click shows all. A click keeps the
card open, Escape closes it. Groups of the legend can be switched off. Rings mark the
same molecule in every space.</p>
<div id="card" hidden></div>
<noscript>This page needs JavaScript; nothing is loaded from elsewhere.</noscript>
<script type="application/json" id="meta">@META@</script>
<script type="text/plain" id="records">@RECORDS@</script>
<script>
"use strict";
const byId = id => document.getElementById(id);
const meta = JSON.parse(byId("meta").textContent);
const chunks = byId("records").textContent.trim().split("\n");
const card = byId("card"), legend = byId("legend");
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const n = meta.molecules;

// Records of molecules, unpacked a chunk at a time.
const unpacked = new Map();
async function unpack(text) {
  const stream = new Blob([bytes(text)]).stream()
    .pipeThrough(new DecompressionStream("deflate"));
  const all = await new Response(stream).text();
  return all.split("\x1e").map(one => one.split("\x1f"));
}
function chunk(place) {
  if (!unpacked.has(place)) unpacked.set(place, unpack(chunks[place]));
  return unpacked.get(place);
}
async function record(i) {
  return (await chunk(Math.floor(i / meta.chunk)))[i % meta.chunk];
}

// Labels: a style for each molecule.
const labels = meta.labels.map(label => ({...label, codes: bytes(label.codes)}));
let label = labels[0], hidden = new Set(), ringed = [], current = -1, pinned = false;

const shapes = {
  o: (c, x, y, r) => { c.moveTo(x + r, y); c.arc(x, y, r, 0, 7); },
  s: (c, x, y, r) => c.rect(x - r * .85, y - r * .85, r * 1.7, r * 1.7),
  "^": (c, x, y, r) => polygon(c, x, y, r * 1.2, 3, -Math.PI / 2),
  v: (c, x, y, r) => polygon(c, x, y, r * 1.2, 3, Math.PI / 2),
  D: (c, x, y, r) => polygon(c, x, y, r * 1.15, 4, 0),
  P: (c, x, y, r) => { const a = r * 1.1, b = r * .4;
    c.rect(x - a, y - b, 2 * a, 2 * b); c.rect(x - b, y - a, 2 * b, 2 * a); },
  X: (c, x, y, r) => { const a = r * .95, b = r * .45;
    for (const s of [1, -1]) { c.moveTo(x - a - b * s, y - s * a + b);
      c.lineTo(x - a + b * s, y - s * a - b); c.lineTo(x + a + b * s, y + s * a - b);
      c.lineTo(x + a - b * s, y + s * a + b); c.closePath(); } },
  "*": (c, x, y, r) => polygon(c, x, y, r * 1.35, 10, -Math.PI / 2, .45),
  ".": (c, x, y, r) => { c.moveTo(x + r * .7, y); c.arc(x, y, r * .7, 0, 7); },
  x: (c, x, y, r) => { const a = r * .7, b = r * .2;
    c.rect(x - a, y - b, 2 * a, 2 * b); },
};
function polygon(c, x, y, r, corners, start, inner = 1) {
  for (let k = 0; k < corners; k++) {
    const a = start + 2 * Math.PI * k / corners, q = k % 2 ? r * inner : r;
    c[k ? "lineTo" : "moveTo"](x + q * Math.cos(a), y + q * Math.sin(a));
  }
  c.closePath();
}

class Panel {
  constructor(space) {
    const raw = new Uint16Array(bytes(space.points).buffer);
    this.points = Float32Array.from(raw, v => v / 65535);
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = space.name;
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("aria-label", "map of " + space.name);
    figure.append(caption, this.canvas);
    byId("panels").append(figure);
    this.context = this.canvas.getContext("2d");
    this.reset();
    this.listen();
    new ResizeObserver(() => this.resize()).observe(this.canvas);
  }
  reset() { this.zoom = 1; this.x = this.y = .5; }
  resize() {
    const ratio = window.devicePixelRatio || 1, c = this.canvas;
    this.width = c.clientWidth; this.height = c.clientHeight;
    c.width = this.width * ratio; c.height = this.height * ratio;
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.draw();
  }
  get scale() { return this.zoom * .92 * Math.min(this.width, this.height); }
  place(i) {
    return [(this.points[2 * i] - this.x) * this.scale + this.width / 2,
      (this.y - this.points[2 * i + 1]) * this.scale + this.height / 2];
  }
  draw() {
    const c = this.context, codes = label.codes;
    c.clearRect(0, 0, this.width, this.height);
    const r = Math.min(6, Math.max(1.6, 4.2 - Math.log10(n) * .7) *
      Math.pow(this.zoom, .3));
    c.globalAlpha = .85;
    // The first styles are those of the largest groups and are drawn on top.
    for (let code = label.styles.length - 1; code >= 0; code--) {
      if (hidden.has(code)) continue;
      const style = label.styles[code], shape = shapes[style.marker];
      c.fillStyle = style.color;
      c.beginPath();
      for (let i = 0; i < n; i++) {
        if (codes[i] !== code) continue;
        const [x, y] = this.place(i);
        if (x > -9 && y > -9 && x < this.width + 9 && y < this.height + 9)
          shape(c, x, y, r);
      }
      c.fill();
    }
    c.globalAlpha = 1;
    this.rings(ringed, r + 3, "#000", 1);
    if (current >= 0) this.rings([current], r + 5, "#c00", 2);
  }
  rings(which, r, color, width) {
    const c = this.context;
    c.strokeStyle = color; c.lineWidth = width;
    for (const i of which) {
      const [x, y] = this.place(i);
      c.beginPath(); c.arc(x, y, r, 0, 7); c.stroke();
    }
  }
  nearest(x, y) {
    let best = -1, least = 100;
    for (let i = 0; i < n; i++) {
      if (hidden.has(label.codes[i])) continue;
      const [px, py] = this.place(i), d = (px - x) ** 2 + (py - y) ** 2;
      if (d < least) { least = d; best = i; }
    }
    return best;
  }
  listen() {
    const c = this.canvas;
    let from = null, moved = false;
    c.addEventListener("pointerdown", e => { from = [e.offsetX, e.offsetY];
      moved = false; try { c.setPointerCapture(e.pointerId); } catch {} });
    c.addEventListener("pointermove", e => {
      if (from) {
        const dx = e.offsetX - from[0], dy = e.offsetY - from[1];
        if (!moved && dx * dx + dy * dy < 16) return;
        moved = true;
        this.x -= dx / this.scale; this.y += dy / this.scale;
        from = [e.offsetX, e.offsetY];
        this.draw();
      } else if (!pinned) show(this.nearest(e.offsetX, e.offsetY), e);
    });
    c.addEventListener("pointerup", e => {
      if (from && !moved) {
        const i = this.nearest(e.offsetX, e.offsetY);
        pinned = false; show(i, e); pinned = i >= 0;
        card.classList.toggle("pinned", pinned);
      }
      from = null;
    });
    c.addEventListener("pointerleave", () => { if (!pinned) show(-1); });
    c.addEventListener("dblclick", () => { this.reset(); this.draw(); });
    c.addEventListener("wheel", e => {
      e.preventDefault();
      const factor = Math.exp(-e.deltaY * .0015), old = this.scale;
      const zoom = Math.min(400, Math.max(.5, this.zoom * factor));
      const dx = (e.offsetX - this.width / 2), dy = (e.offsetY - this.height / 2);
      this.zoom = zoom;
      this.x += dx / old - dx / this.scale; this.y -= dy / old - dy / this.scale;
      this.draw();
    }, {passive: false});
  }
}

// The card of a molecule.
async function show(i, at) {
  if (i !== current) { current = i; panels.forEach(panel => panel.draw()); }
  if (i < 0) { card.hidden = true; return; }
  const [svg, ...cells] = await record(i);
  if (i !== current) return;
  card.replaceChildren(structure(svg));
  const table = card.appendChild(document.createElement("table"));
  meta.columns.forEach((name, k) => {
    if (!cells[k]) return;
    const row = table.insertRow();
    row.insertCell().textContent = name;
    row.insertCell().textContent = cells[k];
  });
  card.hidden = false;
  const {width, height} = card.getBoundingClientRect();
  const x = at.clientX + 16, y = at.clientY + 16;
  card.style.left = Math.max(4, x + width > innerWidth ? x - width - 32 : x) + "px";
  card.style.top = Math.max(4, Math.min(y, innerHeight - height - 4)) + "px";
}
function structure(svg) {
  const holder = document.createElement("div");
  // Made by this package of atoms and bonds, never of text of the input.
  holder.innerHTML = '<svg class="mol" viewBox="0 0 320 240">' + svg + "</svg>";
  return holder.firstChild;
}

// The legend, whose groups can be switched off.
function write() {
  legend.replaceChildren();
  label.styles.forEach((style, code) => {
    if (!style.name) return;
    const button = legend.appendChild(document.createElement("button"));
    const mark = button.appendChild(document.createElement("canvas"));
    mark.width = mark.height = 16;
    mark.style.cssText = "width:16px;height:16px;border:0";
    const c = mark.getContext("2d");
    c.fillStyle = style.color;
    c.beginPath(); shapes[style.marker](c, 8, 8, 6); c.fill();
    if (style.svg) { button.append(structure(style.svg)); button.title = style.name; }
    else button.append(style.name + " ");
    if (style.count !== undefined) button.append("(" + style.count + ")");
    if (label.fixed) { button.disabled = true; return; }
    button.setAttribute("aria-pressed", !hidden.has(code));
    button.onclick = () => {
      if (!hidden.delete(code)) hidden.add(code);
      write(); panels.forEach(panel => panel.draw());
    };
  });
}

// Text is sought in all records.
let asked = 0;
async function find(text) {
  const own = ++asked, wanted = text.trim().toLowerCase(), found = [];
  for (let k = 0; wanted && k < chunks.length; k++) {
    const some = await chunk(k);
    if (own !== asked) return;
    some.forEach(([, ...cells], j) => {
      if (cells.some(cell => cell.toLowerCase().includes(wanted)))
        found.push(k * meta.chunk + j);
    });
  }
  ringed = found;
  byId("found").textContent = wanted ? found.length + " found" : "";
  panels.forEach(panel => panel.draw());
}

labels.forEach((one, k) => byId("color").add(new Option(one.name, k)));
byId("color").onchange = e => {
  label = labels[e.target.value]; hidden = new Set();
  write(); panels.forEach(panel => panel.draw());
};
byId("find").oninput = e => find(e.target.value);
addEventListener("keydown", e => {
  if (e.key === "Escape") { pinned = false; card.classList.remove("pinned"); show(-1); }
});
const panels = meta.spaces.map(space => new Panel(space));
write();
</script>
</body>
</html>
"""
