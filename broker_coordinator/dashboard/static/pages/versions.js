// The versions of a task: going back to one, pausing, and taking the model.

import { get } from "../api.js";
import { button, element, number, replace, table } from "../dom.js";
import { VERSION_COLUMNS } from "./version_columns.js";

const ROWS = 50;

export class VersionsPage {
  constructor(app, task) {
    this.app = app;
    this.task = task ?? null;
    this.before = null;
    this.title = task ? `Versions of ${task}` : "Versions";
    this.choice = element("form", { class: "line" });
    this.head = element("div");
    this.list = element("div");
    this.place = element("div", {}, this.choice, this.head, this.list);
  }

  async refresh() {
    await this.choose();
    if (this.task === null) return replace(this.list, element("p", {}, "No task yet."));
    const path = `/api/tasks/${encodeURIComponent(this.task)}`;
    const page = await get(`${path}/versions`, { rows: ROWS, before: this.before });
    this.showHead(path, page);
    const actions = { label: "Action", value: (row) => this.back(path, page, row) };
    replace(this.list,
      table(`Versions of ${this.task}, the newest first`, [...VERSION_COLUMNS, actions], page.versions.toReversed(), "No version yet."),
      element("p", {},
        button("Newest", "newest", () => this.turn(null), { disabled: this.before === null }), " ",
        button("Older", "older", () => this.turn(page.before), { disabled: page.before === null })));
    return undefined;
  }

  async choose() {
    const { tasks } = await get("/api/overview");
    const names = tasks.map((row) => row.task);
    this.task ??= names[0] ?? null;
    const options = names.map((name) => element("option", { value: name, selected: name === this.task }, name));
    replace(this.choice, element("label", {}, "Task",
      element("select", { "data-key": "task", onchange: (event) => { location.hash = `#/versions/${event.target.value}`; } }, options)));
  }

  showHead(path, page) {
    const may = this.app.session.may_change;
    const [verb, word, said] = page.paused ? ["resume", "Resume", "takes updates again"] : ["pause", "Pause", "is paused: devices keep their updates"];
    const toggle = button(word, "pause", () => this.app.change(`${path}/${verb}`, {}, `${this.task} ${said}`), { disabled: !may });
    const model = may ? element("a", { href: `${path}/model`, download: true, "data-key": "model" }, "Model to use (safetensors)") : null;
    replace(this.head, element("p", {}, `Version ${number(page.newest)} is the newest. `, toggle, " ", model));
  }

  back(path, page, row) {
    if (!this.app.session.may_change || !row.kept || row.number === page.newest || row.number < page.first_version) return "–";
    return button(`Go back to version ${row.number}`, `back ${row.number}`, async () => {
      const words = `Devices will train from the weights of version ${row.number} again, in a new version. Updates that wait still count.`;
      if (await this.app.confirm(`Go back to version ${row.number} of ${this.task}?`, words, "Go back")) {
        await this.app.change(`${path}/rollback`, { version: row.number }, (done) => `Version ${done.version} is as version ${done.restored}`);
      }
    });
  }

  turn(before) {
    this.before = before;
    this.app.refresh();
  }
}
