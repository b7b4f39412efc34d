// The page as a whole: which index, which view, what the address says.

import { showAbout } from "./about.js";
import { facets, indexInfo, indexes } from "./api.js";
import { AddView, BrowseView } from "./browse.js";
import { byId, h, showError } from "./dom.js";
import { SearchView } from "./search.js";

const VIEWS = ["search", "browse", "add", "about"];

const app = {
  /** The index that is looked at. */
  index: null,

  /** Goes to a view; the address remembers it, so that the way back works. */
  go(view, id) {
    const hash = id === undefined ? `#${view}` : `#${view}/${id}`;
    if (location.hash === hash) route();
    else location.hash = hash;
  },

  /** To be called when items came or went. */
  async changed() {
    browse.stale = true;
    await loadFacets();
  },
};

const search = new SearchView(app);
const browse = new BrowseView(app);
new AddView(app);

async function loadFacets() {
  const found = await facets(app.index.name);
  search.filter.fill(found);
  browse.filter.fill(found);
  byId("classes").replaceChildren(...found.classes.map(({ value }) => h("option", { value })));
}

function route() {
  const [name, id] = location.hash.slice(1).split("/");
  const view = VIEWS.includes(name) && !(name === "add" && !app.index.writable) ? name : "search";
  for (const other of VIEWS) byId(`view-${other}`).hidden = other !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${view[0].toUpperCase()}${view.slice(1)} – Semblance`;
  if (view === "search" && /^\d+$/.test(id ?? "")) search.withItem(Number(id));
  if (view === "search" && id === "photo" && !search.query?.photo && search.photo) search.withPhoto(search.photo);
  if (view === "browse") browse.open();
  if (view === "about") showAbout(app.index.name);
}

async function open(name) {
  app.index = await indexInfo(name);
  document.querySelector('nav [data-view="add"]').hidden = !app.index.writable;
  search.reset();
  browse.stale = true;
  await loadFacets();
  route();
}

async function start() {
  const fatal = byId("fatal");
  fatal.hidden = true;
  try {
    const { indexes: all } = await indexes();
    const choice = byId("index");
    choice.replaceChildren(...all.map(({ name }) => h("option", {}, name)));
    choice.parentElement.hidden = all.length < 2;
    choice.onchange = () => { history.replaceState(null, "", "#search"); open(choice.value); };
    await open(all[0].name);
    window.addEventListener("hashchange", route);
  } catch (error) {
    showError(fatal, error, start);
  }
}

start();
