// Asks for the token of [dashboard] token_file.

import { post } from "../api.js";
import { element } from "../dom.js";

export class LoginPage {
  title = "Log in";

  constructor(app) {
    this.app = app;
    this.token = element("input", { id: "token", type: "password", autocomplete: "current-password", required: true });
    this.error = element("p", { class: "bad", role: "alert" });
    this.place = element("form", { class: "line", onsubmit: (event) => this.send(event) },
      element("label", {}, "Token, as in the file that [dashboard] token_file names", this.token),
      element("button", { class: "strong" }, "Log in"), this.error);
  }

  async send(event) {
    event.preventDefault();
    try {
      await post("/api/login", { token: this.token.value });
      await this.app.enter();
    } catch (error) {
      this.error.textContent = error.message;
      this.token.select();
    }
  }

  async refresh() {
    this.token.focus();
  }
}
