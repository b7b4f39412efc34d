// Talking to the server.

import { byId } from "./dom.js";

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Tries again as often when the server is too busy. */
const RETRIES = 3;

/** Answer of the server as JSON; asks for the token where one is wanted. */
export async function api(path, options = {}) {
  for (let tries = 0; ; tries += 1) {
    let response;
    try {
      response = await fetch(path, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "unreachable", "The server cannot be reached.");
    }
    if (response.ok) return response.status === 204 ? null : response.json();
    if (response.status === 401) {
      await signIn();
      continue;
    }
    if (response.status === 503 && tries < RETRIES) {
      const seconds = Number(response.headers.get("retry-after")) || 1;
      await new Promise((done) => setTimeout(done, seconds * 1000));
      continue;
    }
    let problem = {};
    try { problem = await response.json(); } catch { /* no words of the server's */ }
    throw new ApiError(response.status, problem.code, sentence(problem.message ?? `The server answered ${response.status}`));
  }
}

function sentence(text) {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}

let signingIn = null;

/** Asks for the token till it is right; several requests share one question. */
function signIn() {
  signingIn ??= askForToken().finally(() => { signingIn = null; });
  return signingIn;
}

async function askForToken() {
  const dialog = byId("sign-in");
  const field = byId("token");
  byId("sign-in-error").hidden = true;
  for (;;) {
    field.value = "";
    dialog.showModal();
    await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
    const token = field.value.trim();
    if (!token) continue;
    const response = await fetch("session", { method: "POST", headers: { authorization: `Bearer ${token}` } });
    if (response.ok) return;
    byId("sign-in-error").hidden = false;
  }
}

// Relative to the page, so that a proxy can serve it below any path.
const at = (index) => `v1/indexes/${encodeURIComponent(index)}`;

export const indexes = () => api("v1/indexes");
export const indexInfo = (index) => api(at(index));
export const facets = (index) => api(`${at(index)}/facets`);
export const reportAddress = (index) => `${at(index)}/report`;
export const docsAddress = "docs/";

/** Address of an item's picture, or of a small one of at least `size` pixels. */
export const photoAddress = (item) => here(item.photo);
export const thumbnailAddress = (item, size) => `${here(item.thumbnail)}?size=${size}`;

/** An address from an answer, which counts from the server's root, from where the page is. */
const here = (address) => address.slice(address.lastIndexOf("/v1/indexes/") + 1);

export function items(index, { after, limit, filter }) {
  const query = new URLSearchParams({ limit });
  if (after !== null && after !== undefined) query.set("after", after);
  if (filter) query.set("filter", JSON.stringify(filter));
  return api(`${at(index)}/items?${query}`);
}

export const item = (index, id) => api(`${at(index)}/items/${id}`);
export const deleteItem = (index, id) => api(`${at(index)}/items/${id}`, { method: "DELETE" });

/** Searches with a photograph, or a part of it. */
export function searchPhoto(index, photo, box, wanted, signal) {
  const form = new FormData();
  form.set("photo", photo, "photo");
  form.set("k", wanted.k);
  if (box) form.set("box", [box.x, box.y, box.width, box.height].join(","));
  if (wanted.filter) form.set("filter", JSON.stringify(wanted.filter));
  if (wanted.group_by) form.set("group_by", wanted.group_by);
  return api(`${at(index)}/search/photo`, { method: "POST", body: form, signal });
}

/** Searches with an item. */
export const searchItem = (index, id, wanted, signal) => api(`${at(index)}/search`, {
  method: "POST", signal, headers: { "content-type": "application/json" }, body: JSON.stringify({ id, ...wanted }),
});

/** Adds an item, or replaces the one with its key. */
export function addItem(index, photo, description, replace) {
  const form = new FormData();
  form.set("photo", photo, "photo");
  form.set("item", JSON.stringify(description));
  return api(`${at(index)}/items`, { method: replace ? "PUT" : "POST", body: form });
}
