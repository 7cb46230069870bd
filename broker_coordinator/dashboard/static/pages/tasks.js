// Every task in one row, and the devices counted.

import { get } from "../api.js";
import { element, number, percent, replace, table } from "../dom.js";

const COLUMNS = [
  { label: "Task", value: (row) => element("a", { href: `#/tasks/${row.task}`, "data-key": row.task }, row.task) },
  { label: "State", value: (row) => (row.paused ? "paused" : "takes updates") },
  { label: "Version", number: true, value: (row) => number(row.version) },
  { label: "Accuracy", number: true, value: (row) => percent(row.accuracy) },
  { label: "Loss", number: true, value: (row) => number(row.loss) },
  { label: "Evaluated version", number: true, value: (row) => number(row.evaluated_version) },
  { label: "Updates waiting", number: true, value: (row) => `${number(row.waiting)} of ${number(row.buffer_size)}` },
  { label: "Updates accepted", number: true, value: (row) => number(row.accepted) },
  { label: "Set aside", number: true, value: (row) => number(row.set_aside) },
];

export class TasksPage {
  title = "Tasks";
  place = element("div");

  async refresh() {
    const { tasks, devices, connected } = await get("/api/overview");
    replace(this.place,
      element("p", {}, `Devices: ${number(devices.approved)} approved, ${number(connected)} of them connected; `,
        element("a", { href: "#/devices", "data-key": "pending" }, `${number(devices.pending)} waiting for approval`), "."),
      table("Tasks that are served", COLUMNS, tasks, "No task yet; add one with: broker-coordinator tasks publish FOLDER"));
  }
}
