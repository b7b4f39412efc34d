// What the index is, and how good it is.

import { docsAddress, indexInfo, reportAddress } from "./api.js";
import { byId, facts, h, number, size } from "./dom.js";

export async function showAbout(name) {
  const place = byId("facts");
  place.setAttribute("aria-busy", "true");
  try {
    const index = await indexInfo(name);
    place.replaceChildren(
      facts([
        ["Index", index.name],
        ["Items", number(index.items)],
        ["Catalogue", index.catalogue],
        ["Pictures", index.pictures ? "shown from the catalogue's folder" : index.pictures_remark ?? "the catalogue's folder is not here"],
        ["Model", `${index.model.arch}, ${index.model.pixels} × ${index.model.pixels} pixels, ${index.dim} numbers`],
        ["Fingerprint", index.model.fingerprint],
        ["Graph", `HNSW, ${index.graph.m} links, built with ${index.graph.ef_construction} candidates, ${index.graph.codes} codes`],
        ["Files", `${size(index.bytes)}, generation ${index.generation}`],
        ["Changes", index.writable ? "can be made" : index.remark ?? "cannot be made"],
        ["Not published yet", index.unpublished || null],
      ]),
      h("div", { class: "row" },
        index.report
          ? h("a", { class: "button primary", href: reportAddress(name), target: "_blank", rel: "noopener" }, "Evaluation report")
          : h("p", { class: "hint" }, "No evaluation report yet: semblance eval --report writes one."),
        h("a", { class: "button", href: docsAddress, target: "_blank", rel: "noopener" }, "API")),
    );
  } catch (error) {
    place.replaceChildren(h("p", { class: "notice error", role: "alert" }, error.message));
  } finally {
    place.removeAttribute("aria-busy");
  }
}
