// One task: how it learns, what it has told, and what is advised.

import { get } from "../api.js";
import { Chart } from "../charts.js";
import { element, facts, number, percent, replace, table, words } from "../dom.js";
import { VERSION_COLUMNS } from "./version_columns.js";

const SHOWN_VERSIONS = 200;
const CHARTS = { "Accuracy on held-out samples": "percent", Loss: "number", "Mean staleness of updates": "number", "Bytes of updates": "bytes" };
const SET_ASIDE = [
  { label: "Device", value: (row) => row.device },
  { label: "Sequence", number: true, value: (row) => number(row.sequence) },
  { label: "Kind", value: (row) => row.kind },
  { label: "Reason", value: (row) => row.reason },
];

export class TaskPage {
  constructor(app, name) {
    this.name = name;
    this.title = `Task ${name}`;
    this.path = `/api/tasks/${encodeURIComponent(name)}`;
    this.charts = Object.entries(CHARTS).map(([title, unit]) => new Chart(title, { y: { unit } }));
    [this.head, this.table, this.told] = [element("div"), element("div"), element("div")];
    this.details = element("details", {}, element("summary", {}, "The same numbers as a table"), this.table);
    this.place = element("div", {}, this.head, element("h2", {}, "Over versions"),
      element("div", { class: "figures" }, this.charts.map((chart) => chart.figure)), this.details, this.told);
  }

  async refresh() {
    const [page, { versions }] = await Promise.all([get(this.path), get(`${this.path}/versions`, { rows: SHOWN_VERSIONS })]);
    const row = page.row;
    replace(this.head,
      page.advice.map((each) => element("p", { class: "advice" }, each)),
      facts([
        ["state", row.paused ? "paused: takes no updates" : "takes updates"],
        ["newest version", element("a", { href: `#/versions/${this.name}`, "data-key": "versions" }, number(row.version))],
        ["updates waiting", `${number(row.waiting)}; the next version takes ${number(row.buffer_size)}`],
        ["updates accepted", number(row.accepted)],
        ["evaluated", row.evaluated_version === null ? "no version; see [[evaluations]] of coordinator.toml"
          : `version ${row.evaluated_version}: ${percent(row.accuracy)} right, loss ${number(row.loss)}`],
      ]));
    this.draw(versions);
    replace(this.table, table(`Versions of ${this.name}`, VERSION_COLUMNS, versions.toReversed(), "No version yet."));
    replace(this.told, element("h2", {}, "What it promises, and has told"), words(page.told),
      element("h2", {}, "Set aside"), table("Payloads that can't be applied", SET_ASIDE, page.set_aside, "Nothing is set aside."));
  }

  draw(versions) {
    const numbers = versions.map((each) => each.number);
    const of = (key) => versions.map((each) => each[key]);
    const [accuracy, loss, staleness, bytes] = this.charts;
    accuracy.show(numbers, [{ label: "accuracy", values: of("accuracy") }]);
    loss.show(numbers, [{ label: "of devices, in training", values: of("mean_loss") }, { label: "on held-out samples", values: of("evaluated_loss"), dashed: true }]);
    staleness.show(numbers, [{ label: "staleness", values: of("mean_staleness") }]);
    bytes.show(numbers, [{ label: "bytes", values: of("update_bytes") }]);
  }

  remove() {
    this.charts.forEach((chart) => chart.remove());
  }
}
