// Which page is shown, who looks at it, and when there is something new.

import { get, post } from "./api.js";
import { element, replace } from "./dom.js";
import { DevicesPage } from "./pages/devices.js";
import { LogPage } from "./pages/log.js";
import { LoginPage } from "./pages/login.js";
import { TaskPage } from "./pages/task.js";
import { TasksPage } from "./pages/tasks.js";
import { VersionsPage } from "./pages/versions.js";

const PAGES = { tasks: TasksPage, devices: DevicesPage, versions: VersionsPage, log: LogPage };
const LEAST_SECONDS = 1; // between two refreshes, however much happens
const STATUS_SECONDS = 8;
const AGAIN_SECONDS = 5; // to ask again where a database or the coordinator is away

const at = (id) => document.getElementById(id);

class App {
  session = null;
  page = null;
  stream = null;
  isRefreshing = false;
  isStale = false;

  async start() {
    addEventListener("hashchange", () => this.open());
    at("logout").addEventListener("click", () => this.leave());
    document.querySelector(".skip").addEventListener("click", (event) => {
      event.preventDefault(); // the hash names the page
      at("main").focus();
    });
    await this.enter();
  }

  async enter() {
    try {
      this.session = await get("/api/session");
    } catch (error) {
      if (error.status === 401) {
        this.stream?.close();
        this.stream = null;
        return this.show(new LoginPage(this));
      }
      this.trouble(error.message);
      setTimeout(() => this.enter(), 1000 * AGAIN_SECONDS);
      return undefined;
    }
    const { fleet, name, may_change: mayChange, has_token: hasToken } = this.session;
    at("fleet").textContent = fleet;
    at("visitor").textContent = mayChange ? name : `${name} (looking only)`.trim();
    at("logout").hidden = !hasToken;
    this.listen();
    return this.open();
  }

  async leave() {
    await post("/api/logout").catch((error) => this.say(error.message));
    at("logout").hidden = true;
    this.enter();
  }

  listen() {
    this.stream?.close();
    this.stream = new EventSource("/api/events");
    this.stream.onmessage = (event) => this.hear(JSON.parse(event.data));
    this.stream.onerror = () => {
      this.trouble("the coordinator's dashboard does not answer; this page tries again by itself");
      // A refusal ends a stream for good, where a connection that broke is made again by the browser.
      if (this.stream?.readyState === EventSource.CLOSED) setTimeout(() => this.listenAgain(), 1000 * AGAIN_SECONDS);
    };
  }

  listenAgain() {
    if (!this.stream) return; // logged out meanwhile
    this.listen();
    this.refresh();
  }

  hear(signal) {
    this.trouble(signal.database ? `The database can't be read: ${signal.database}. This page tries again by itself.` : "");
    for (const [task, version] of Object.entries(signal.versions)) {
      if (this.versions && this.versions[task] !== undefined && this.versions[task] !== version) this.say(`Version ${version} of ${task}`);
    }
    if (!signal.database) {
      this.versions = signal.versions;
      this.refresh();
    }
  }

  open() {
    const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decoded);
    const known = PAGES[name] ? name : "tasks";
    for (const link of document.querySelectorAll("nav a")) {
      if (link.hash === `#/${known}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const page = known === "tasks" && rest[0] ? new TaskPage(this, rest[0]) : new PAGES[known](this, rest[0]);
    return this.show(page);
  }

  async show(page) {
    this.page?.remove?.();
    this.page = page;
    document.title = `${page.title} – edgeflock`;
    replace(at("main"), element("h1", {}, page.title), page.place);
    at("main").focus();
    await this.refresh();
  }

  // The page's newest data; what comes meanwhile is asked for once, a second later.
  async refresh() {
    if (this.isRefreshing) {
      this.isStale = true;
      return;
    }
    this.isRefreshing = true;
    this.isStale = false;
    const page = this.page;
    let wait = LEAST_SECONDS;
    try {
      await page.refresh();
      if (page.hasTrouble) this.trouble("");
      page.hasTrouble = false;
    } catch (error) {
      if (error.status === 401) return void this.enter();
      page.hasTrouble = true;
      this.trouble(error.message);
      this.isStale = error.status === 0 || error.status === 503;
      wait = AGAIN_SECONDS;
    } finally {
      this.isRefreshing = false;
    }
    if (page !== this.page) await this.refresh();
    else if (this.isStale) setTimeout(() => this.refresh(), 1000 * wait);
  }

  // Makes a change, says so, and shows what came of it; returns the answer, or null.
  async change(path, body, said) {
    try {
      const done = await post(path, body);
      this.say(typeof said === "function" ? said(done) : said);
      await this.refresh();
      return done;
    } catch (error) {
      if (error.status === 401) await this.enter();
      this.say(error.message);
      return null;
    }
  }

  async confirm(title, sentence, verb) {
    const dialog = at("dialog");
    at("dialog-title").textContent = title;
    at("dialog-words").replaceChildren(...[sentence].flat());
    at("dialog-confirm").textContent = verb;
    dialog.returnValue = "cancel";
    dialog.showModal();
    at("dialog-cancel").focus();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    return dialog.returnValue === "confirm";
  }

  say(sentence) {
    at("status").textContent = sentence;
    clearTimeout(this.silence);
    this.silence = setTimeout(() => { at("status").textContent = ""; }, 1000 * STATUS_SECONDS);
  }

  trouble(sentence) {
    at("trouble").textContent = sentence;
    at("trouble").hidden = !sentence;
  }
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return "";
  }
}

new App().start();
