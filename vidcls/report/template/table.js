// A table of clips that is sorted and filtered; it shows one page of rows at a time, whatever their number.

const PAGE = 50;

/**
 * Columns are {title, cell(clip), value(clip), number, wide}; only those with a value can be sorted by.
 * Filters are {title, options: [[value, text], …], keep(clip, value)}.
 */
class ClipTable {
  // Roles are written out: cells that are laid out as cards on narrow screens would lose those of a table.
  constructor(panel, clips, columns, filters, caption) {
    Object.assign(this, { clips, columns, filters, found: clips, page: 0, by: null, down: false });
    this.texts = new Map();
    this.search = h("input", { type: "search", placeholder: "Name or label", oninput: () => this.update() });
    this.selects = filters.map((filter) =>
      h("select", { onchange: () => this.update() }, filter.options.map(([value, text]) => h("option", { value }, text))),
    );
    this.status = h("p", { class: "count", role: "status" });
    this.heads = columns.map((column) => this.head(column));
    this.body = h("tbody", { role: "rowgroup" });
    this.pager = h("nav", { class: "pager", "aria-label": `Pages of ${caption}` });
    this.empty = h("p", { class: "empty" }, "No clip matches these filters.");
    panel.append(
      h(
        "div",
        { class: "tools", role: "search", "aria-label": `Filter ${caption}` },
        h("label", {}, "Search", this.search),
        this.selects.map((select, at) => h("label", {}, filters[at].title, select)),
        this.status,
      ),
      h("table", { class: "table stacked", role: "table" }, h("caption", { class: "hidden" }, caption), h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, this.heads)), this.body),
      this.empty,
      this.pager,
    );
    this.update();
  }

  head(column) {
    const attributes = { scope: "col", role: "columnheader", class: [column.number && "number", column.wide && "wide", !column.value && "plain"].filter(Boolean).join(" ") };
    if (!column.value) return h("th", attributes, column.title);
    return h("th", attributes, h("button", { type: "button", class: "sort", onclick: () => this.sort(column) }, column.title));
  }

  /** Sort by a column: numbers from the largest first, then the other way, then as the file has them. */
  sort(column) {
    const first = Boolean(column.number);
    if (this.by !== column) [this.by, this.down] = [column, first];
    else if (this.down === first) this.down = !first;
    else this.by = null;
    this.update();
  }

  /** Show clips by name of a filter and its value, all other filters off. */
  choose(values) {
    this.search.value = "";
    this.filters.forEach((filter, at) => (this.selects[at].value = values[filter.title] ?? ""));
    this.update();
  }

  text(clip) {
    if (!this.texts.has(clip)) {
      const names = [clip.path, clip.error ?? "", ...clip.top.slice(0, 1).map((one) => LABELS[one.label]), ...(clip.truth ?? []).map((label) => LABELS[label])];
      this.texts.set(clip, names.join("\n").toLowerCase());
    }
    return this.texts.get(clip);
  }

  update() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const active = this.filters.map((filter, at) => [filter, this.selects[at].value]).filter(([, value]) => value !== "");
    this.found = this.clips.filter(
      (clip) => active.every(([filter, value]) => filter.keep(clip, value)) && words.every((word) => this.text(clip).includes(word)),
    );
    if (this.by) {
      const keys = new Map(this.found.map((clip) => [clip, this.by.value(clip)]));
      const sign = this.down ? -1 : 1;
      this.found.sort((a, b) => compare(keys.get(a), keys.get(b), sign) || a.number - b.number);
    }
    this.heads.forEach((head, at) => {
      if (this.columns[at] === this.by) head.setAttribute("aria-sort", this.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const all = this.found.length === this.clips.length;
    this.status.textContent = (all ? "" : `${count(this.found.length)} of `) + clipsText(this.clips.length);
    this.show(0);
  }

  show(page) {
    this.page = page;
    const rows = this.found.slice(page * PAGE, (page + 1) * PAGE);
    this.body.replaceChildren(...rows.map((clip) => this.row(clip)));
    this.empty.hidden = rows.length > 0;
    const last = Math.ceil(this.found.length / PAGE) - 1;
    this.pager.hidden = last < 1;
    const step = (title, to) => h("button", { type: "button", disabled: to < 0 || to > last, onclick: () => this.turn(to, title) }, title);
    const range = `${count(page * PAGE + 1)}–${count(page * PAGE + rows.length)} of ${count(this.found.length)}`;
    this.pager.replaceChildren(step("First", page ? 0 : -1), step("Previous", page - 1), h("span", {}, range), step("Next", page + 1), step("Last", page < last ? last : -1));
  }

  /** Go to a page, and leave the focus on the button that was used, or on one that still can be. */
  turn(page, title) {
    this.show(page);
    this.body.parentElement.scrollIntoView({ block: "start" });
    const buttons = [...this.pager.querySelectorAll("button")];
    (buttons.find((one) => one.textContent === title && !one.disabled) ?? buttons.find((one) => !one.disabled)).focus({ preventScroll: true });
  }

  row(clip) {
    const open = () => openClip(clip, this.found);
    const cells = this.columns.map((column) =>
      h("td", { role: "cell", class: [column.number && "number", column.wide && "wide"].filter(Boolean).join(" ") || null }, column.cell(clip)),
    );
    return h("tr", { role: "row", onclick: (event) => event.target.closest("a, select, input") || window.getSelection().toString() || open() }, cells);
  }
}

/** Compare values of one kind; unknown ones come last either way. */
function compare(a, b, sign) {
  if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
  return sign * (typeof a === "string" ? COLLATOR.compare(a, b) : a - b);
}
const COLLATOR = new Intl.Collator("en", { numeric: true });

const nameOf = (clip) => h("div", {}, h("button", { type: "button", class: "link name", "aria-haspopup": "dialog" }, bdi(clip.name)), clip.folder && h("small", {}, bdi(clip.folder)));
const nameColumn = { title: "Clip", value: (clip) => clip.path, cell: (clip) => h("div", { class: "clip" }, thumbnail(clip), nameOf(clip)) };
const plainNameColumn = { ...nameColumn, cell: (clip) => h("div", { class: "plain-clip" }, nameOf(clip)) };
const labelColumn = {
  title: "Label",
  value: (clip) => LABELS[best(clip)?.label],
  cell: (clip) => [bdi(LABELS[best(clip).label]), clip.truth === undefined ? null : verdict(clip)],
};
const scoreColumn = {
  title: "Score",
  number: true,
  value: (clip) => best(clip)?.score,
  cell: (clip) => h("span", { class: "score" }, track(best(clip).score), h("span", { class: "number" }, percent(best(clip).score))),
};
const othersColumn = {
  title: "Runners-up",
  wide: true,
  cell: (clip) =>
    h(
      "span",
      { class: "others" },
      clip.top.slice(1, 3).map((one) => h("span", {}, h("bdi", { title: LABELS[one.label] }, LABELS[one.label]), track(one.score), h("span", { class: "number" }, percent(one.score)))),
    ),
};
const lengthColumn = { title: "Length", number: true, wide: true, value: (clip) => clip.duration, cell: (clip) => seconds(clip.duration) };
const kindColumn = { title: "Kind", value: (clip) => clip.kind, cell: (clip) => clip.kind };
const errorColumn = { title: "Error", value: (clip) => clip.error, cell: (clip) => h("span", { class: "soft name" }, bdi(clip.error)) };

/** What an evaluation says of a clip. */
function verdict(clip) {
  if (!clip.truth.length) return h("span", { class: "truth bad" }, "✗ no true label");
  const said = clip.truth.length === 1 ? "true label " : "true labels ";
  if (isWrong(clip)) return h("span", { class: "truth bad" }, `✗ ${said}`, labelList(clip.truth));
  return h("span", { class: "truth soft" }, "✓ right", clip.truth.length > 1 ? [`, ${said}`, labelList(clip.truth)] : null);
}

const SCORES = [
  ["", "Any"],
  ["high", "90% and more"],
  ["middle", "50% to 90%"],
  ["low", "Below 50%"],
];
const scoreFilter = {
  title: "Score",
  options: SCORES,
  keep: (clip, value) => (best(clip).score >= 0.9 ? "high" : best(clip).score >= 0.5 ? "middle" : "low") === value,
};

/** A filter by a value that clips have, or by one of several values of each; the most frequent first. */
function valueFilter(title, clips, value, text) {
  const values = (clip) => [value(clip)].flat();
  const counts = new Map();
  for (const clip of clips) for (const one of values(clip)) counts.set(one, (counts.get(one) ?? 0) + 1);
  const sorted = [...counts].sort((a, b) => b[1] - a[1]);
  return {
    title,
    options: [["", "Any"], ...sorted.map(([one, number]) => [String(one), `${text(one)} (${count(number)})`])],
    keep: (clip, wanted) => values(clip).some((one) => String(one) === wanted),
  };
}
