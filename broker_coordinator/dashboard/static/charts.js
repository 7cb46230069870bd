// Charts, by uPlot. Whoever can't see one has the same numbers in a table.

import { bytes, element, number, percent } from "./dom.js";

const HEIGHT = 190;
const LEAST_WIDTH = 200;
const MANY = 60; // places: from here on, points would hide the line
const BAR = [0.8, 80]; // share of a place, and the most pixels
const LAST_LABEL = 30; // pixels that half of it needs
const SHOWN_AS = { bytes, number, percent };
const HEADROOM = 1.05; // above the highest bar
const SHARES = [0, 1];
const COLOURS = ["--accent", "--second", "--text"];
const drawn = new Set();

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((chart) => chart.draw()));

// `shape` is {x, y: {label, unit, log}, places, height, legend}; a unit is number, percent or bytes, and x may say where
// it `begins`. With `places`, their names, the lines are bars. `lines` are {label, values, dashed}; null is a gap.
export class Chart {
  constructor(title, shape = {}) {
    this.shape = { height: HEIGHT, ...shape, x: { label: "version", ...shape.x }, y: { ...shape.y } };
    this.place = element("div", { class: "chart", role: "img", "aria-label": title });
    this.caption = element("figcaption", {}, title);
    this.figure = element("figure", {}, this.caption, this.place);
    this.title = title;
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.figure);
    drawn.add(this);
  }

  show(places, lines) {
    this.data = [places, ...lines.map((line) => line.values)];
    this.lines = lines;
    this.caption.textContent = lines.length > 1 && !this.shape.legend ? `${this.title}: ${lines.map((line) => `${line.label} (${line.dashed ? "dashed" : "solid"})`).join(", ")}` : this.title;
    this.place.setAttribute("aria-label", `${this.caption.textContent}. ${this.spoken(places, lines)}`);
    this.draw();
  }

  draw() {
    if (!this.data) return;
    this.plot?.destroy();
    const { x, y, places, height, legend } = this.shape;
    this.plot = new window.uPlot({
      width: this.width(),
      height,
      legend: { show: legend ?? false },
      ...(legend && { padding: [null, LAST_LABEL, null, null] }),
      scales: {
        x: { time: false, distr: x.log ? 3 : 1, ...this.reach() },
        y: y.unit === "percent" ? { range: SHARES } : places ? { range: (_, low, high) => [Math.min(0, low), HEADROOM * high || 1] } : {},
      },
      axes: [this.axis(x, legend ? 50 : 32, places), this.axis(y, 60)],
      series: [{ label: x.label, value: (_, at) => this.named(at) }, ...this.lines.map((line, place) => this.series(line, place))],
    }, this.data, this.place);
  }

  reach() {
    const { x: { begins }, places } = this.shape;
    if (places) return { range: [-0.5, places.length - 0.5] };
    return typeof begins === "number" ? { range: (_, low, high) => [Math.min(begins, low), high] } : {};
  }

  axis({ label, unit }, size, places) {
    const lines = { stroke: colour("--line"), width: 1 };
    const shown = places ? (at) => (Number.isInteger(at) ? places[at] ?? "" : "") : unit && SHOWN_AS[unit];
    return {
      stroke: colour("--soft"), grid: lines, ticks: lines, size,
      ...(this.shape.legend && { label, labelSize: 20 }),
      ...(shown && { values: (_, splits) => splits.map((at) => (at === null ? "" : shown(at))) }),
    };
  }

  series(line, place) {
    const bars = this.shape.places && { paths: window.uPlot.paths.bars({ size: BAR }), fill: colour(COLOURS[place]) };
    return {
      label: line.label,
      stroke: colour(COLOURS[line.reference ? 2 : place]),
      width: line.reference ? 1 : 2,
      dash: line.dashed ? [6, 4] : undefined,
      spanGaps: true,
      points: { show: !bars && !line.reference && this.data[0].length < MANY },
      value: (_, at) => this.worded(at),
      ...bars,
    };
  }

  named(at) {
    return at === null || at === undefined ? "–" : this.shape.places?.[at] ?? SHOWN_AS[this.shape.x.unit ?? "number"](at);
  }

  worded(value) {
    return SHOWN_AS[this.shape.y.unit ?? "number"](value);
  }

  spoken(places, lines) {
    return lines.map((line) => {
      const last = line.values.findLastIndex((value) => value !== null);
      return last < 0 ? `No ${line.label} yet.` : `${line.label} of ${this.shape.x.label} ${this.named(places[last])}: ${this.worded(line.values[last])}.`;
    }).join(" ");
  }

  width() {
    return Math.max(LEAST_WIDTH, this.figure.clientWidth - 18);
  }

  resize() {
    if (this.plot && this.plot.width !== this.width()) this.plot.setSize({ width: this.width(), height: this.shape.height });
  }

  remove() {
    this.observer.disconnect();
    this.plot?.destroy();
    drawn.delete(this);
  }
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
