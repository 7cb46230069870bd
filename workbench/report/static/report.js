// Draws what a page has inside as data: each `.plot` holds the JSON of one chart (workbench/report/plots.py).

import { Chart } from "./charts.js";

for (const place of document.querySelectorAll(".plot")) {
  const { title, shape, places, lines } = JSON.parse(place.querySelector("script").textContent);
  const chart = new Chart(title, shape);
  place.prepend(chart.figure);
  chart.show(places, lines);
}
