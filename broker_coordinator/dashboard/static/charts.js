// Charts over versions, by uPlot. Whoever can't see one has the same numbers in a table.

import { element } from "./dom.js";

const HEIGHT = 190;
const LEAST_WIDTH = 200;
const drawn = new Set();

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((chart) => chart.draw()));

// `lines` are {label, values, dashed}; null is a gap.
export class Chart {
  constructor(title) {
    this.place = element("div", { class: "chart", role: "img", "aria-label": title });
    this.caption = element("figcaption", {}, title);
    this.figure = element("figure", {}, this.caption, this.place);
    this.title = title;
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.figure);
    drawn.add(this);
  }

  show(versions, lines) {
    this.data = [versions, ...lines.map((line) => line.values)];
    this.lines = lines;
    this.caption.textContent = lines.length > 1 ? `${this.title}: ${lines.map((line) => `${line.label} (${line.dashed ? "dashed" : "solid"})`).join(", ")}` : this.title;
    this.place.setAttribute("aria-label", `${this.caption.textContent}. ${spoken(versions, lines)}`);
    this.draw();
  }

  draw() {
    if (!this.data) return;
    this.plot?.destroy();
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
    const few = this.data[0].length < 60;
    this.plot = new window.uPlot({
      width: this.width(),
      height: HEIGHT,
      legend: { show: false },
      scales: { x: { time: false } },
      axes: [{ ...axis, size: 32 }, { ...axis, size: 60 }],
      series: [{}, ...this.lines.map((line, place) => ({
        label: line.label,
        stroke: colour(place ? "--second" : "--accent"),
        width: 2,
        dash: line.dashed ? [6, 4] : undefined,
        spanGaps: true,
        points: { show: few },
      }))],
    }, this.data, this.place);
  }

  width() {
    return Math.max(LEAST_WIDTH, this.figure.clientWidth - 18);
  }

  resize() {
    if (this.plot && this.plot.width !== this.width()) this.plot.setSize({ width: this.width(), height: HEIGHT });
  }

  remove() {
    this.observer.disconnect();
    this.plot?.destroy();
    drawn.delete(this);
  }
}

function spoken(versions, lines) {
  return lines.map((line) => {
    const last = line.values.findLastIndex((value) => value !== null);
    return last < 0 ? `No ${line.label} yet.` : `${line.label} of version ${versions[last]}: ${line.values[last]}.`;
  }).join(" ");
}
