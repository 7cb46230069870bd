// What was refused, and why.

import { get } from "../api.js";
import { button, element, number, replace, table } from "../dom.js";

const ROWS = 50;
const PAYLOADS = [
  { label: "Place", number: true, value: (row) => number(row.position) },
  { label: "Device", value: (row) => row.device },
  { label: "Sequence", number: true, value: (row) => number(row.sequence) },
  { label: "Reason", value: (row) => row.reason },
  { label: "Why", value: (row) => row.detail || "–" },
];

export class LogPage {
  title = "What was refused";

  constructor(app) {
    this.app = app;
    this.asked = { rows: ROWS, before: null, device: "", reason: "" };
    this.reasons = element("div");
    this.list = element("div");
    this.place = element("div", {}, element("h2", {}, "By reason"), this.reasons, element("h2", {}, "One by one"), this.form(), this.list);
  }

  form() {
    const device = element("input", { type: "search", maxlength: 48, oninput: (event) => this.turn({ device: event.target.value, before: null }) });
    return element("form", { class: "line", role: "search", onsubmit: (event) => event.preventDefault() }, element("label", {}, "Whole name of a device", device));
  }

  async refresh() {
    const page = await get("/api/refused", this.asked);
    const choose = (row) => button(row.reason, `reason ${row.reason}`, () => this.turn({ reason: row.reason === this.asked.reason ? "" : row.reason, before: null }), { "aria-pressed": row.reason === this.asked.reason });
    replace(this.reasons, table("Refused messages by reason; a reason can be chosen", [
      { label: "Reason", value: choose },
      { label: "Messages", number: true, value: (row) => number(row.messages) },
      { label: "Devices", number: true, value: (row) => number(row.devices) },
      { label: "Of no known device", number: true, value: (row) => number(row.unproven) },
    ], page.reasons, "Nothing was refused."));
    replace(this.list, table("Refused payloads of devices, the newest first", PAYLOADS, page.payloads, "None was refused."),
      element("p", {},
        button("Newest", "newest", () => this.turn({ before: null }), { disabled: this.asked.before === null }), " ",
        button("Older", "older", () => this.turn({ before: page.before }), { disabled: page.before === null })));
  }

  turn(asked) {
    Object.assign(this.asked, asked);
    this.app.refresh();
  }
}
