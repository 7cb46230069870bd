// Asks the coordinator. An answer that is no success is an error with the server's words.

export class Refused extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

export async function get(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const address = given.length ? `${path}?${new URLSearchParams(given)}` : path;
  return answer(await asked(address, {}));
}

export async function post(path, body = {}) {
  const headers = { "Content-Type": "application/json" };
  return answer(await asked(path, { method: "POST", headers, body: JSON.stringify(body) }));
}

async function asked(address, options) {
  try {
    return await fetch(address, { ...options, credentials: "same-origin", redirect: "error" });
  } catch {
    throw new Refused(0, "the coordinator does not answer; this page tries again by itself");
  }
}

async function answer(response) {
  const value = await response.json().catch(() => ({ error: `the server answers ${response.status}` }));
  if (!response.ok) throw new Refused(response.status, value.error ?? `the server answers ${response.status}`);
  return value;
}
