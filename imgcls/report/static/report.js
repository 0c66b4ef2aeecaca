"use strict";

const read = (id) => JSON.parse(document.getElementById(id).textContent);

// Tables: a click on a header sorts, a second one reverses; missing values stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const rows = [...body.rows];
      const numeric = rows.some((row) => row.cells[column].hasAttribute("data-value"));
      const before = head.getAttribute("aria-sort");
      const sign = before === "descending" ? 1 : before === "ascending" ? -1 : numeric ? -1 : 1;
      const key = (row) => (numeric ? row.cells[column].dataset.value : row.cells[column].textContent) ?? "";
      rows.sort((a, b) => {
        const [one, other] = [key(a), key(b)];
        if (one === "" || other === "") return (one === "") - (other === "");
        return sign * (numeric ? Number(one) - Number(other) : one.localeCompare(other, undefined, { numeric: true }));
      });
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      body.append(...rows);
    });
  });
}

for (const field of document.querySelectorAll("input.filter")) {
  const rows = [...field.parentElement.querySelectorAll("tbody tr")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    rows.forEach((row, i) => { row.hidden = !texts[i].includes(wanted); });
  });
}

// Precision, recall and thresholds of the chosen class.
for (const part of document.querySelectorAll(".pick")) {
  const content = read(part.dataset.source);
  const select = part.querySelector("select");
  const readout = part.querySelector(".readout");
  const [curve, thresholds] = part.querySelectorAll("svg");
  const draw = (line, xs, ys) => {
    const [left, bottom, right, top] = line.closest("svg").dataset.box.split(" ").map(Number);
    const points = xs.map((x, i) => [x, ys[i]]).filter(([x, y]) => x !== null && y !== null);
    const place = ([x, y]) => `${(left + x * (right - left)).toFixed(1)},${(bottom + y * (top - bottom)).toFixed(1)}`;
    line.setAttribute("points", points.map(place).join(" "));
  };
  const show = () => {
    const precision = content.precision[select.value], recall = content.recall[select.value];
    const steps = precision.map((_, i) => i / (precision.length - 1));
    const f1 = precision.map((p, i) => (p === null || recall[i] === null || p + recall[i] === 0 ? null : 2 * p * recall[i] / (p + recall[i])));
    draw(curve.querySelector("polyline"), recall, precision);
    [precision, recall, f1].forEach((values, i) => draw(thresholds.querySelectorAll("polyline")[i], steps, values));
    const best = f1.reduce((at, value, i) => (value !== null && (at < 0 || value > f1[at]) ? i : at), -1);
    readout.textContent = best < 0
      ? "This class has no positives in the test set."
      : `F1 is largest, ${f1[best].toFixed(3)}, at the threshold ${steps[best].toFixed(2)} on these images; the run uses ${content.threshold}.`;
  };
  select.addEventListener("change", show);
  show();
}

// Matrices of many classes: a canvas that shows names and numbers once its cells are large enough.
class Matrix {
  constructor(part) {
    this.data = read(part.dataset.source);
    this.size = this.data.names.length;
    this.canvas = part.querySelector("canvas");
    this.readout = part.querySelector(".readout");
    this.cells = new Map();
    this.data.rows.forEach((row, i) => this.cells.set(row * this.size + this.data.columns[i], this.data.counts[i]));
    this.gutter = 130;
    this.x = this.y = 0;
    this.zoom = 1;
    for (const button of part.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => this.zoomBy(Number(button.dataset.zoom)));
    }
    const field = part.querySelector("input");
    field.addEventListener("change", () => this.goTo(this.data.names.indexOf(field.value)));
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  get span() { return this.side - this.gutter; }
  get cell() { return this.span / this.size * this.zoom; }

  listen() {
    const canvas = this.canvas;
    let from = null;
    canvas.addEventListener("pointerdown", (event) => { from = [event.clientX, event.clientY, this.x, this.y]; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointerup", () => { from = null; });
    canvas.addEventListener("pointermove", (event) => {
      if (from) {
        this.moveTo(from[2] - (event.clientX - from[0]) / this.cell, from[3] - (event.clientY - from[1]) / this.cell);
      } else {
        this.tell(event);
      }
    });
    canvas.addEventListener("dblclick", (event) => this.zoomBy(3, this.at(event)));
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;  // otherwise the page scrolls
      event.preventDefault();
      this.zoomBy(event.deltaY < 0 ? 1.25 : 0.8, this.at(event));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const step = Math.max(1, this.span / this.cell / 8);
      const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
      if (event.key in moves) this.moveTo(this.x + moves[event.key][0], this.y + moves[event.key][1]);
      else if (event.key === "+" || event.key === "=") this.zoomBy(2);
      else if (event.key === "-") this.zoomBy(0.5);
      else return;
      event.preventDefault();
    });
  }

  at(event) {
    return [this.x + (event.offsetX - this.gutter) / this.cell, this.y + (event.offsetY - this.gutter) / this.cell];
  }

  tell(event) {
    const [column, row] = this.at(event).map(Math.floor);
    const { names, totals, words } = this.data;
    if (event.offsetX < this.gutter || event.offsetY < this.gutter || !(row in names) || !(column in names)) return;
    const count = this.cells.get(row * this.size + column) ?? 0;
    const share = totals[row] ? (100 * count / totals[row]).toFixed(1) : "0";
    this.readout.textContent = `${words[0]} ${names[row]}, ${words[1]} ${names[column]}: ${count} of ${totals[row]} (${share} %)`;
  }

  zoomBy(factor, around) {
    const [x, y] = around ?? [this.x + this.span / this.cell / 2, this.y + this.span / this.cell / 2];
    const before = this.cell;
    this.zoom = factor === 0 ? 1 : Math.min(Math.max(1, this.zoom * factor), Math.max(1, this.size / 8));
    const ratio = before / this.cell;
    this.moveTo(x - (x - this.x) * ratio, y - (y - this.y) * ratio);
  }

  goTo(index) {
    if (index < 0) return;
    this.zoom = Math.max(1, this.size / 20);
    const half = this.span / this.cell / 2;
    this.moveTo(index + 0.5 - half, index + 0.5 - half);
  }

  moveTo(x, y) {
    const most = this.size - this.span / this.cell;
    this.x = Math.min(Math.max(0, x), Math.max(0, most));
    this.y = Math.min(Math.max(0, y), Math.max(0, most));
    this.draw();
  }

  draw() {
    const ratio = devicePixelRatio || 1;
    this.side = this.canvas.clientWidth;
    const pixels = Math.round(this.side * ratio);
    if (this.canvas.width !== pixels) this.canvas.width = this.canvas.height = pixels;
    const style = getComputedStyle(document.documentElement);
    const [ink, wrong, text, back, rule] = ["--ink", "--wrong", "--text", "--card", "--rule"].map((name) => style.getPropertyValue(name).trim());
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, this.side, this.side);
    const cell = this.cell, gutter = this.gutter, { names, totals, words } = this.data;
    pen.save();
    pen.beginPath();
    pen.rect(gutter, gutter, this.span, this.span);
    pen.clip();
    pen.strokeStyle = rule;
    pen.beginPath();
    pen.moveTo(gutter - this.x * cell, gutter - this.y * cell);
    pen.lineTo(gutter + (this.size - this.x) * cell, gutter + (this.size - this.y) * cell);
    pen.stroke();
    pen.font = "11px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    const side = Math.max(cell, 2), least = cell < 6 ? 0.4 : 0.15;
    for (const [key, count] of this.cells) {
      const row = Math.floor(key / this.size), column = key % this.size;
      const left = gutter + (column - this.x) * cell, top = gutter + (row - this.y) * cell;
      if (left < gutter - cell || top < gutter - cell || left > this.side || top > this.side) continue;
      const strength = Math.sqrt(count / Math.max(1, totals[row]));
      const mistake = words[0] === "true" && row !== column;
      pen.fillStyle = `rgba(${mistake ? wrong : ink}, ${Math.max(least, strength)})`;
      pen.fillRect(left, top, side, side);
      if (cell >= 24) {
        pen.fillStyle = strength > 0.7 ? back : text;
        pen.fillText(String(count), left + cell / 2, top + cell / 2);
      }
    }
    pen.restore();
    pen.strokeStyle = rule;
    pen.strokeRect(gutter, gutter, this.span, this.span);
    this.label(pen, text, names, words);
  }

  label(pen, colour, names, words) {
    const cell = this.cell, gutter = this.gutter;
    pen.fillStyle = colour;
    pen.textBaseline = "middle";
    pen.font = "12px system-ui, sans-serif";
    pen.textAlign = "right";
    pen.fillText(`${words[0]} ↓`, gutter - 8, gutter - 26);
    pen.fillText(`${words[1]} →`, gutter - 8, gutter - 10);
    if (cell < 11) {
      pen.textAlign = "center";
      pen.fillText("zoom in to see names", gutter + this.span / 2, gutter - 14);
      return;
    }
    pen.font = `${Math.min(12, Math.max(9, cell - 2))}px system-ui, sans-serif`;
    const first = [this.x, this.y].map(Math.floor), count = Math.ceil(this.span / cell) + 1;
    for (let i = 0; i < count; i += 1) {
      const [column, row] = [first[0] + i, first[1] + i];
      const across = gutter + (column + 0.5 - this.x) * cell, down = gutter + (row + 0.5 - this.y) * cell;
      if (row < this.size && down > gutter && down < this.side) {
        pen.textAlign = "right";
        pen.fillText(this.short(pen, names[row]), gutter - 6, down);
      }
      if (column < this.size && across > gutter && across < this.side) {
        pen.save();
        pen.translate(across, gutter - 6);
        pen.rotate(-Math.PI / 2);
        pen.textAlign = "left";
        pen.fillText(this.short(pen, names[column]), 0, 0);
        pen.restore();
      }
    }
  }

  short(pen, name) {
    const most = this.gutter - 14;
    if (pen.measureText(name).width <= most) return name;
    const characters = [...name];
    while (characters.length > 1 && pen.measureText(`${characters.join("")}…`).width > most) characters.pop();
    return `${characters.join("")}…`;
  }
}

for (const part of document.querySelectorAll(".matrix")) new Matrix(part);
