// An item as a tile and in full, and several side by side.

import { byId, facts, h } from "./dom.js";
import { deleteItem, item as fetchItem, photoAddress, thumbnailAddress } from "./api.js";

/** What an item is called. */
export const nameOf = (item) => item.class ?? item.key;

const score = (value) => value.toFixed(3);
const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));
const metadata = (item) => Object.entries(item.metadata).map(([name, value]) => [name, shown(value)]);

function picture(item, className, size) {
  const address = size ? thumbnailAddress(item, size) : photoAddress(item);
  const image = h("img", { class: className, src: address, alt: "", loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => {
    image.replaceWith(h("div", { class: `${className} gone`, role: "img", "aria-label": "no picture" }));
  }, { once: true });
  return image;
}

/** A tile: the picture searches, the tools compare and tell more. */
export function tile(item, { onSearch, onMore, compare }) {
  const name = nameOf(item);
  const found = item.score === undefined ? null : h("span", { class: "score" }, score(item.score));
  const label = `Search with ${name}${item.score === undefined ? "" : `, score ${score(item.score)}`}`;
  const open = h("button", { class: "open", type: "button", "aria-label": label, onclick: () => onSearch(item) },
    picture(item, "thumb", 320), found);
  const more = [item.super_class, ...metadata(item).map(([key, value]) => `${key}: ${value}`)].filter(Boolean);
  const words = h("div", { class: "words" },
    h("div", { class: "name" }, name), h("div", { class: "more", title: more.join(", ") }, more.join(", ") || item.key));
  const element = h("li", { class: "tile" });
  const tools = h("div", { class: "tools" });
  if (compare) {
    const box = h("input", { type: "checkbox", "aria-label": `Compare ${name}, ${item.key}`, onchange: () => {
      element.classList.toggle("chosen", box.checked);
      compare(item, box.checked);
    } });
    tools.append(h("label", { class: "check" }, box, "Compare"));
  } else tools.append(h("span"));
  tools.append(h("button", { type: "button", "aria-label": `More about ${name}, ${item.key}`, onclick: () => onMore(item) }, "More"));
  element.append(open, words, tools);
  return element;
}

const allFacts = (item) => facts([
  ["Score", item.score === undefined ? null : score(item.score)], ["Class", item.class], ["Super class", item.super_class],
  ["Key", item.key], ["Id", item.id], ...metadata(item),
]);

const closeButton = (dialog) => h("button", { type: "button", onclick: () => dialog.close() }, "Close");

/** Shows everything known of an item; it can be deleted where that is allowed. */
export function showItem(index, item, { onSearch, onDeleted }) {
  const dialog = byId("item-dialog");
  const problem = h("p", { class: "notice error", role: "alert", hidden: true });
  const search = h("button", { class: "primary", type: "button", onclick: () => { dialog.close(); onSearch(item); } }, "Search with it");
  const tools = h("div", { class: "row" }, search,
    h("a", { class: "button", href: photoAddress(item), target: "_blank", rel: "noopener" }, "Original"));
  if (index.writable) tools.append(deleteButton(index, item, problem, dialog, onDeleted));
  tools.append(closeButton(dialog));
  dialog.replaceChildren(h("div", { class: "stack" },
    h("h2", { id: "item-title" }, nameOf(item)), picture(item, "large", 640), allFacts(item), problem, tools));
  dialog.showModal();
}

/** Deletes on the second press. */
function deleteButton(index, item, problem, dialog, onDeleted) {
  const button = h("button", { class: "danger", type: "button" }, "Delete");
  let sure = false;
  button.addEventListener("click", async () => {
    if (!sure) {
      sure = true;
      button.textContent = "Really delete it?";
      return;
    }
    button.disabled = true;
    try {
      await deleteItem(index.name, item.id);
      dialog.close();
      onDeleted(item);
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
      button.disabled = false;
    }
  });
  return button;
}

/** Shows items beside what was searched with. */
export async function showComparison(index, query, chosen) {
  const dialog = byId("compare-dialog");
  const column = (title, image, more) => h("div", { class: "stack" }, h("h3", {}, title), image, more);
  const asked = query.id === undefined ? null : await fetchItem(index.name, query.id).catch(() => null);
  const first = asked
    ? column("Searched with", picture(asked, "large", 640), allFacts(asked))
    : query.address && column("Searched with", h("img", { class: "large", src: query.address, alt: "The photo searched with" }));
  const columns = chosen.map((item) => column(nameOf(item), picture(item, "large", 640), allFacts(item)));
  dialog.replaceChildren(h("div", { class: "stack" },
    h("h2", { id: "compare-title" }, "Side by side"), h("div", { class: "pairs" }, first, columns),
    h("div", { class: "row" }, closeButton(dialog))));
  dialog.showModal();
}
