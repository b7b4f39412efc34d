// The catalogue, page by page, and adding to it.

import { addItem, items } from "./api.js";
import { byId, clearError, ghosts, h, number, showError, showWarnings } from "./dom.js";
import { FilterFields } from "./filter.js";
import { showItem, tile } from "./item.js";

/** Items of a page. */
const PAGE = 48;

export class BrowseView {
  constructor(app) {
    this.app = app;
    this.filter = new FilterFields(byId("browse-filter"), () => this.reload());
    byId("browse-filter").addEventListener("submit", (event) => event.preventDefault());
    byId("more").addEventListener("click", () => this.load());
    this.stale = true;
  }

  /** To be called when the view is shown. */
  open() {
    if (this.stale) this.reload();
  }

  reload() {
    this.stale = false;
    this.after = null;
    byId("items").replaceChildren();
    return this.load();
  }

  async load() {
    const [place, more, status, problem] = [byId("items"), byId("more"), byId("browse-status"), byId("browse-error")];
    const turn = this.turn = {};
    clearError(problem);
    more.disabled = true;
    const waiting = ghosts("li", this.after === null ? 12 : 4);
    place.append(...waiting);
    try {
      const filter = this.filter.value();
      const page = await items(this.app.index.name, { after: this.after, limit: PAGE, filter });
      if (turn !== this.turn) return;
      showWarnings(byId("browse-warnings"), page.warnings);
      this.after = page.next;
      place.append(...page.items.map((item) => this.tile(item)));
      more.hidden = page.next === null;
      const count = page.total === 1 ? "1 item" : `${number(page.total)} items`;
      status.textContent = filter ? `${count} with the filter` : `${count} in all`;
      if (place.querySelectorAll(".tile").length === 0) {
        place.replaceChildren(h("li", { class: "empty" }, filter ? "Nothing meets the filter." : "This index is empty."));
      }
    } catch (error) {
      if (turn === this.turn) showError(problem, error, () => this.load());
    } finally {
      for (const ghost of waiting) ghost.remove();
      more.disabled = false;
    }
  }

  tile(item) {
    const onSearch = () => this.app.go("search", item.id);
    const onDeleted = () => { element.remove(); this.app.changed(); };
    const element = tile(item, { onSearch, onMore: () => showItem(this.app.index, item, { onSearch, onDeleted }) });
    return element;
  }
}

export class AddView {
  constructor(app) {
    this.app = app;
    byId("add-photo").addEventListener("change", () => this.preview());
    byId("add").addEventListener("submit", (event) => { event.preventDefault(); this.add(event.submitter); });
  }

  preview() {
    const [file] = byId("add-photo").files;
    const image = byId("add-preview");
    if (this.address) URL.revokeObjectURL(this.address);
    this.address = file ? URL.createObjectURL(file) : null;
    image.hidden = !file;
    if (file) image.src = this.address;
    image.onerror = () => { image.hidden = true; };
    byId("add-status").textContent = file ? file.name : "";
  }

  async add(button) {
    const [status, problem, form] = [byId("add-status"), byId("add-error"), byId("add")];
    clearError(problem);
    showWarnings(byId("add-warnings"));
    const text = (id) => byId(id).value.trim() || null;
    const description = { class: text("add-class"), super_class: text("add-super"), metadata: pairs(byId("add-more").value) };
    if (text("add-key")) description.key = text("add-key");
    button.disabled = true;
    status.textContent = "Adding …";
    try {
      const item = await addItem(this.app.index.name, byId("add-photo").files[0], description, byId("add-replace").checked);
      showWarnings(byId("add-warnings"), item.warnings);
      form.reset();
      this.preview();
      status.replaceChildren(`Added as ${item.key}. `, h("a", { href: `#search/${item.id}` }, "Search with it"));
      this.app.changed();
    } catch (error) {
      status.textContent = "";
      showError(problem, error);
    } finally {
      button.disabled = false;
    }
  }
}

/** Lines of `name: value`; numbers, true and false are taken as such. */
function pairs(text) {
  const found = {};
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":");
    if (colon < 1) continue;
    const value = line.slice(colon + 1).trim();
    const isTyped = /^(-?(0|[1-9]\d*)(\.\d+)?|true|false)$/.test(value);
    found[line.slice(0, colon).trim()] = isTyped ? JSON.parse(value) : value;
  }
  return found;
}
