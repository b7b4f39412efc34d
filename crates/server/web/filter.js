// Filters by class, super class and attributes, made of what the index has.

import { h, number } from "./dom.js";

/** Attributes that get a field of their own. */
const MOST = 6;

/** Fields for the facets; `onChange` is called when one changes. */
export class FilterFields {
  constructor(place, onChange) {
    this.place = place;
    this.onChange = onChange;
    this.fields = [];
  }

  /** Rebuilds the fields and keeps the choices that are still offered. */
  fill(facets) {
    const chosen = new Map(this.fields.map(({ name, select }) => [name, select.value]));
    const named = [["class", "Class", facets.classes], ["super_class", "Super class", facets.super_classes]];
    const attributes = facets.attributes.filter((attribute) => attribute.values.length > 0).slice(0, MOST);
    named.push(...attributes.map(({ name, values }) => [`metadata.${name}`, name, values]));
    this.fields = named.filter(([, , values]) => values.length > 0).map(([name, label, values]) => {
      const options = values.map(({ value, items }) =>
        h("option", { value: JSON.stringify(value) }, `${value} (${number(items)})`));
      const select = h("select", { onchange: this.onChange }, h("option", { value: "" }, "any"), options);
      select.value = chosen.get(name) ?? "";
      if (select.selectedIndex < 0) select.value = "";
      return { name, select, label: h("label", {}, label, select) };
    });
    const fields = this.fields.map(({ label }) => label);
    this.place.replaceChildren(...(fields.length ? fields : [h("p", { class: "hint" }, "This index has no classes.")]));
  }

  /** The filter as the server wants it, or null. */
  value() {
    const chosen = this.fields.filter(({ select }) => select.value !== "");
    const conditions = chosen.map(({ name, select }) => ({ eq: { field: name, value: JSON.parse(select.value) } }));
    if (conditions.length === 0) return null;
    return conditions.length === 1 ? conditions[0] : { and: conditions };
  }
}
