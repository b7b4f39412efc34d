// Searching: with a photograph or an item, filtered, and what was found.

import { searchItem, searchPhoto, thumbnailAddress, item as fetchItem } from "./api.js";
import { byId, clearError, ghosts, h, number, showError, showWarnings } from "./dom.js";
import { FilterFields } from "./filter.js";
import { nameOf, showComparison, showItem, tile } from "./item.js";
import { Stage, prepare } from "./photo.js";

/** Most items side by side. */
const SIDE_BY_SIDE = 5;

export class SearchView {
  constructor(app) {
    this.app = app;
    this.query = null;
    // The file chosen last, for the way back to it.
    this.photo = null;
    this.chosen = new Map();
    this.stage = new Stage((box) => { if (this.query) { this.query.box = box; this.search(); } });
    this.filter = new FilterFields(byId("search-filter"), () => this.search());
    for (const id of ["group", "count"]) byId(id).addEventListener("change", () => this.search());
    byId("options").addEventListener("submit", (event) => event.preventDefault());
    for (const id of ["choose", "take"]) {
      byId(id).addEventListener("change", (event) => {
        const [file] = event.target.files;
        event.target.value = "";
        if (file) this.withPhoto(file);
      });
    }
    byId("clear").addEventListener("click", () => { location.hash = "#search"; this.reset(); });
    byId("compare").addEventListener("click", () =>
      showComparison(this.app.index, { id: this.query?.id, address: this.stage.address }, [...this.chosen.values()]));
    // Where there is little room, what was found comes first.
    byId("filter-fold").open = !matchMedia("(max-width: 860px)").matches;
    this.listenForPhotos();
    this.empty("Choose, drop, paste or take a photo, and the items most like it appear here.");
  }

  listenForPhotos() {
    const drop = byId("drop");
    // Wherever it is dropped, the browser must not leave the page for it.
    for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
    document.addEventListener("dragenter", () => drop.classList.add("over"));
    document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
    document.addEventListener("drop", (event) => {
      drop.classList.remove("over");
      const [file] = event.dataTransfer.files;
      if (file) this.withPhoto(file);
    });
    document.addEventListener("paste", (event) => {
      const [file] = event.clipboardData.files;
      if (file) this.withPhoto(file);
    });
  }

  /** Another index: nothing of the last search holds. */
  reset() {
    this.running?.abort();
    this.query = null;
    this.photo = null;
    this.stage.clear();
    byId("drop").classList.remove("full");
    byId("drop-empty").hidden = false;
    byId("clear").hidden = true;
    clearError(byId("search-error"));
    showWarnings(byId("search-warnings"));
    byId("search-status").textContent = "";
    this.compareNone();
    this.empty("Choose, drop, paste or take a photo, and the items most like it appear here.");
  }

  empty(text) {
    byId("hits").replaceChildren(h("li", { class: "empty" }, text));
  }

  filled() {
    byId("drop").classList.add("full");
    byId("drop-empty").hidden = true;
    byId("clear").hidden = false;
  }

  async withPhoto(file) {
    const photo = await prepare(file);
    this.photo = file;
    this.query = { photo: photo.blob, box: null };
    this.stage.show(photo);
    this.filled();
    this.app.go("search", "photo");
    await this.search();
  }

  /** Searches with the item of this id. */
  async withItem(id) {
    if (this.query?.id === id) return;
    this.query = { id };
    this.filled();
    const asked = fetchItem(this.app.index.name, id).then((item) => {
      if (this.query?.id === id) this.stage.showItem(thumbnailAddress(item, 640), nameOf(item));
    });
    await Promise.allSettled([asked, this.search()]);
  }

  async search() {
    if (!this.query) return;
    this.running?.abort();
    const running = this.running = new AbortController();
    const { query, app } = this;
    const wanted = { k: Number(byId("count").value), filter: this.filter.value(), group_by: byId("group").checked ? "class" : null };
    const [hits, status, problem] = [byId("hits"), byId("search-status"), byId("search-error")];
    clearError(problem);
    showWarnings(byId("search-warnings"));
    this.compareNone();
    status.textContent = "Searching …";
    hits.setAttribute("aria-busy", "true");
    hits.replaceChildren(...ghosts("li", 12));
    try {
      const answer = query.photo
        ? await searchPhoto(app.index.name, query.photo, query.box, wanted, running.signal)
        : await searchItem(app.index.name, query.id, wanted, running.signal);
      this.show(answer);
    } catch (error) {
      if (error.name === "AbortError") return;
      hits.replaceChildren();
      status.textContent = "";
      // What the server refuses once it will refuse again.
      showError(problem, error, error.status === 0 || error.status >= 500 ? () => this.search() : null);
    } finally {
      if (this.running === running) hits.removeAttribute("aria-busy");
    }
  }

  show({ hits, took_ms, warnings }) {
    showWarnings(byId("search-warnings"), warnings);
    const count = hits.length === 1 ? "1 item" : `${number(hits.length)} items`;
    byId("search-status").textContent = `${count} in ${took_ms.toFixed(took_ms < 10 ? 1 : 0)} ms`;
    if (hits.length === 0) {
      this.empty("Nothing meets the filter.");
      return;
    }
    byId("hits").replaceChildren(...hits.map((hit) => {
      const element = tile(hit, {
        onSearch: (item) => this.app.go("search", item.id),
        onMore: (item) => this.more(item, element),
        compare: (item, isChosen) => this.compare(item, isChosen),
      });
      return element;
    }));
  }

  more(item, element) {
    showItem(this.app.index, item, {
      onSearch: () => this.app.go("search", item.id),
      onDeleted: () => { element.remove(); this.app.changed(); },
    });
  }

  compare(item, isChosen) {
    if (isChosen) this.chosen.set(item.id, item);
    else this.chosen.delete(item.id);
    const button = byId("compare");
    button.hidden = this.chosen.size === 0;
    button.disabled = this.chosen.size > SIDE_BY_SIDE;
    button.textContent = button.disabled ? `At most ${SIDE_BY_SIDE} side by side` : `Compare ${this.chosen.size}`;
  }

  compareNone() {
    this.chosen.clear();
    byId("compare").hidden = true;
  }
}
