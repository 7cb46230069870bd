// The devices, found and sorted by the server; letting them in, and out.

import { get } from "../api.js";
import { button, element, moment, number, replace, table } from "../dom.js";

const ROWS = 50;
const STATES = { "": "all", pending: "waiting for approval", approved: "approved", revoked: "revoked" };
const SORTS = { name: "name", state: "state", presence: "presence", profile: "profile", software: "software", changed: "last enrolled", refused: "refusals" };

export class DevicesPage {
  title = "Devices";

  constructor(app) {
    this.app = app;
    this.asked = { first: 0, rows: ROWS, search: "", state: "", sort: "name", descending: false };
    this.list = element("div");
    this.invitations = element("div");
    this.made = element("div", { "aria-live": "polite" });
    this.place = element("div", {}, this.form(), this.list, element("h2", {}, "Invitations"), this.inviting(), this.made, this.invitations);
  }

  form() {
    const change = (key, value) => this.turn({ [key]: value, first: 0 });
    const choice = (label, key, options) => element("label", {}, label,
      element("select", { onchange: (event) => change(key, event.target.value) },
        Object.entries(options).map(([value, word]) => element("option", { value }, word))));
    return element("form", { class: "line", role: "search", onsubmit: (event) => event.preventDefault() },
      element("label", {}, "Name, profile or software", element("input", { type: "search", maxlength: 100, oninput: (event) => change("search", event.target.value) })),
      choice("State", "state", STATES), choice("Sorted by", "sort", SORTS),
      element("label", { class: "inline" }, element("input", { type: "checkbox", onchange: (event) => change("descending", event.target.checked) }), "backwards"));
  }

  inviting() {
    const name = element("input", { required: true, pattern: "[a-z0-9_\\-]{1,48}", title: "1 to 48 characters of a-z, 0-9, - and _" });
    const again = element("input", { type: "checkbox" });
    const send = async (event) => {
      event.preventDefault();
      const done = await this.app.change("/api/invitations", { name: name.value, again: again.checked }, `${name.value} is invited`);
      if (done) replace(this.made, element("p", {}, `For ${done.device} alone, once, until ${moment(done.expires)}. Whoever has this line can join in its place:`),
        element("code", { class: "invitation" }, `sudo edge-agent join ${done.invitation}`));
    };
    return element("form", { class: "line", onsubmit: send },
      element("label", {}, "Name of a new device", name),
      element("label", { class: "inline" }, again, "it was made anew, with another key"),
      element("button", { class: "strong", disabled: !this.app.session.may_change }, "Invite"));
  }

  async refresh() {
    const page = await get("/api/devices", this.asked);
    const last = page.first + page.devices.length;
    const range = page.total ? `Devices ${number(page.first + 1)} to ${number(last)} of ${number(page.total)}` : "Devices";
    replace(this.list, table(range, this.columns(page), page.devices, "No device fits."),
      element("p", {},
        button("Before", "before", () => this.turn({ first: Math.max(0, page.first - ROWS) }), { disabled: page.first === 0 }), " ",
        button("After", "after", () => this.turn({ first: page.first + ROWS }), { disabled: last >= page.total })));
    replace(this.invitations, table("Invitations that are open, or were refused", INVITATIONS, page.invitations, "None is open."));
  }

  columns(page) {
    const since = `not since ${moment(page.watched_since)}`;
    return [
      { label: "Name", value: (row) => row.name },
      { label: "State", value: (row) => element("span", { class: row.state === "approved" ? "good" : row.state === "revoked" ? "bad" : null }, row.presence ? `${row.state}, ${row.presence}` : row.state) },
      { label: "Key id", value: (row) => element("code", {}, row.key_id) },
      { label: "Action", value: (row) => this.action(row) },
      { label: "Profile", value: (row) => row.profile || "–" },
      { label: "Software", value: (row) => row.software || "–" },
      { label: "Trains from", value: (row) => (row.task === null ? "–" : `version ${row.version} of ${row.task}`) },
      { label: "Updates", number: true, value: (row) => number(row.updates) },
      { label: "Last heard", value: (row) => (row.heard === null ? since : moment(row.heard)) },
      { label: "Refused", value: (row) => Object.entries(row.refused).map(([reason, count]) => `${reason} ${number(count)}`).join(", ") || "–" },
      { label: "Note", value: (row) => row.note || "–" },
    ];
  }

  action(row) {
    if (!this.app.session.may_change || row.state === "revoked") return "–";
    return row.state === "pending" ? this.approve(row) : this.revoke(row);
  }

  approve(row) {
    return button("Approve", `approve ${row.key_id}`, async () => {
      const words = ["Its key has the id ", element("code", {}, row.key_id), ". Compare it with what `edge-agent key` prints on the device: a name alone can be anybody's."];
      if (await this.app.confirm(`Let ${row.name} take part?`, words, "Approve")) {
        await this.app.change(`/api/devices/${row.name}/approve`, { key: row.key_id }, `${row.name} is approved`);
      }
    }, { "aria-label": `Approve ${row.name}` });
  }

  revoke(row) {
    return button("Revoke", `revoke ${row.key_id}`, async () => {
      const words = "Its messages are refused from now on, and later versions remember nothing of what it sent. It can join again only with another key.";
      if (await this.app.confirm(`Revoke ${row.name}?`, words, "Revoke")) {
        await this.app.change(`/api/devices/${row.name}/revoke`, {}, `${row.name} is revoked`);
      }
    }, { "aria-label": `Revoke ${row.name}` });
  }

  turn(asked) {
    Object.assign(this.asked, asked);
    this.app.refresh();
  }
}

const INVITATIONS = [
  { label: "Device", value: (row) => row.device },
  { label: "State", value: (row) => row.state },
  { label: "Until", value: (row) => moment(row.expires) },
  { label: "Refused", number: true, value: (row) => number(row.refused) },
  { label: "Last refusal", value: (row) => row.last_refusal || "–" },
];
