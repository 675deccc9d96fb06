// Confusion matrix, figures of each class, and the most confident errors of an evaluation.

const MAX_CLASSES = 34; // of a matrix; of more, those with the most errors are shown
const MAX_PAIRS = 20;
const MAX_SHEETS = 24;

/** Rows and columns of the matrix: all classes, or those that take part in most errors. */
function chosenClasses(confusion) {
  const all = confusion.map((_, number) => number);
  if (all.length <= MAX_CLASSES) return all;
  const errors = all.map((i) => confusion[i].reduce((sum, one, j) => sum + (i === j ? 0 : one + confusion[j][i]), 0));
  return all.sort((a, b) => errors[b] - errors[a] || a - b).slice(0, MAX_CLASSES).sort((a, b) => a - b);
}

function buildConfusion(panel) {
  const { confusion } = DATA.evaluation;
  const classes = chosenClasses(confusion);
  const body = classes.map((truth) => {
    const total = confusion[truth].reduce((a, b) => a + b, 0) || 1;
    return h("tr", {}, h("th", { scope: "row", title: LABELS[truth] }, bdi(LABELS[truth])), classes.map((predicted) => h("td", {}, matrixCell(truth, predicted, confusion[truth][predicted], total))));
  });
  const head = h("tr", {}, h("td", {}, "true ↓  predicted →"), classes.map((label) => h("th", { scope: "col", title: LABELS[label] }, h("span", {}, bdi(LABELS[label])))));
  const table = h("table", { class: classes.length > 20 ? "matrix small" : "matrix" }, h("caption", { class: "hidden" }, "Confusion matrix: rows are true labels, columns predicted labels"), h("thead", {}, head), h("tbody", {}, body));
  table.addEventListener("keydown", moveInMatrix);
  const first = table.querySelector(".cell:not([disabled])");
  if (first) first.tabIndex = 0;
  panel.append(
    h("p", { class: "soft" }, classes.length < confusion.length ? `The ${classes.length} of ${count(confusion.length)} classes with the most errors. ` : "", "Each row is shaded by its share of the class's clips. Choose a cell to see its clips; arrow keys move between cells."),
    h("div", { class: "beside" }, h("div", { class: "matrix-box" }, table), pairs(confusion)),
  );
}

/** How dark a cell is: no shade in between on which neither dark nor white digits could be read. */
const shade = (share) => (share > 0.5 ? 0.76 + 0.24 * share : 0.06 + 1.1 * share);

function matrixCell(truth, predicted, number, total) {
  const share = number / total;
  const kind = ["cell", !number && "zero", share > 0.5 && "dark", truth === predicted && "right"].filter(Boolean).join(" ");
  const said = `${LABELS[truth]} predicted as ${LABELS[predicted]}: ${clipsText(number)}`;
  return h("button", { type: "button", class: kind, tabindex: "-1", "aria-label": said, title: said, "--shade": shade(share), "aria-disabled": String(!number), onclick: () => number && showPair(truth, predicted) }, number ? count(number) : "0");
}

/** Arrow keys, Home and End move the one cell that takes the focus. */
function moveInMatrix(event) {
  const cell = event.target.closest(".cell");
  const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [];
  if (!cell || down === undefined) return;
  event.preventDefault();
  const column = cell.parentElement.cellIndex + right;
  const row = cell.closest("tr").rowIndex + down;
  const next = event.currentTarget.rows[row]?.cells[column]?.querySelector(".cell");
  if (!next) return;
  cell.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function pairs(confusion) {
  const found = [];
  confusion.forEach((row, truth) => row.forEach((number, predicted) => number && truth !== predicted && found.push([number, truth, predicted])));
  found.sort((a, b) => b[0] - a[0]);
  if (!found.length) return null;
  const longest = found[0][0];
  return h(
    "section",
    { class: "pairs" },
    h("h2", {}, "Most frequent confusions"),
    h(
      "table",
      { class: "table" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "True label"), h("th", { scope: "col" }, "Predicted label"), h("th", { scope: "col", class: "number" }, "Clips"))),
      h(
        "tbody",
        {},
        found.slice(0, MAX_PAIRS).map(([number, truth, predicted]) =>
          h(
            "tr",
            { onclick: () => showPair(truth, predicted) },
            h("td", {}, h("button", { type: "button", class: "link" }, bdi(LABELS[truth]))),
            h("td", {}, bdi(LABELS[predicted])),
            h("td", { class: "number" }, count(number)),
          ),
        ),
      ),
    ),
  );
}

const several = Boolean(DATA.evaluation?.several); // labels a clip
const CLASS_COLUMNS = [
  ["Label", (row) => LABELS[row.number]],
  ["Support", (row) => row.support],
  ["Recall", (row) => row.recall ?? undefined],
  ["Precision", (row) => row.precision ?? undefined],
  ["F1", (row) => row.f1 ?? undefined],
  ...(several ? [["Average precision", (row) => row.ap ?? undefined], ["Best threshold", (row) => row.threshold ?? undefined], ["F1 there", (row) => row.best ?? undefined]] : []),
];

function buildClasses(panel) {
  const rows = DATA.evaluation.classes.map(([support, recall, precision, f1, ap], number) => {
    const [threshold, best] = DATA.evaluation.thresholds?.[number] ?? [];
    return { number, support, recall, precision, f1, ap, threshold, best };
  });
  let by = 4;
  let down = false;
  const body = h("tbody");
  const figure = (value) => h("td", { class: "number" }, percent(value ?? null));
  const heads = CLASS_COLUMNS.map(([title], at) =>
    h("th", { scope: "col", class: at ? "number" : null }, h("button", { type: "button", class: "sort", onclick: () => ([by, down] = [at, at === by ? !down : at > 0]) && show() }, title)),
  );
  const show = () => {
    const value = CLASS_COLUMNS[by][1];
    rows.sort((a, b) => compare(value(a), value(b), down ? -1 : 1) || a.number - b.number);
    heads.forEach((head, at) => (at === by ? head.setAttribute("aria-sort", down ? "descending" : "ascending") : head.removeAttribute("aria-sort")));
    body.replaceChildren(
      ...rows.map((row) =>
        h(
          "tr",
          { onclick: () => showClips({ "True label": String(row.number) }) },
          h("td", {}, h("button", { type: "button", class: "link" }, bdi(LABELS[row.number]))),
          h("td", { class: "number" }, count(row.support)),
          figure(row.recall),
          figure(row.precision),
          figure(row.f1),
          ...(several ? [figure(row.ap), figure(row.threshold), figure(row.best)] : []),
        ),
      ),
    );
  };
  show();
  const means = Object.entries(DATA.evaluation.means).map(([kind, mean]) =>
    h("tr", {}, h("td", {}, `${kind === "macro" ? "Macro" : "Weighted"} mean`), h("td"), figure(mean.recall), figure(mean.precision), figure(mean.f1)),
  );
  if (several) panel.append(h("p", {}, "Recall, precision and F1 are at a score of 50%. The best threshold is the score above which F1 is highest on these clips; F1 on other clips will be lower."));
  panel.append(
    h("div", { class: "matrix-box" }, h("table", { class: "table figures-table" }, h("caption", { class: "hidden" }, "Figures of each class"), h("thead", {}, h("tr", {}, heads)), body, h("tfoot", {}, means))),
  );
}

/** Accuracy over confidence; the diagonal is perfect. */
function calibration() {
  const bins = DATA.evaluation.bins;
  const svg = (tag, attributes, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
    element.append(...children);
    return element;
  };
  const said = bins.filter(([number]) => number).map(([number, confidence, accuracy]) => `${count(number)} clips of confidence ${percent(confidence)}: accuracy ${percent(accuracy)}`);
  const width = 400 / bins.length;
  const drawn = svg(
    "svg",
    { class: "histogram", role: "img", viewBox: "0 0 400 172", "aria-label": `Calibration. ${said.join("; ")}` },
    ...bins.map(([number, , accuracy], at) => {
      const title = svg("title", {}, number ? said[bins.slice(0, at).filter(([n]) => n).length] : "no clips");
      return svg("rect", { x: at * width + 1, width: width - 2, y: 150 - 150 * accuracy, height: number ? 150 * accuracy : 0, rx: 2 }, title);
    }),
    svg("path", { d: "M0 150.5H400" }),
    svg("path", { d: "M0 150L400 0", class: "diagonal" }),
    svg("text", { x: 0, y: 168 }, "0%"),
    svg("text", { x: 200, y: 168, "text-anchor": "middle" }, "confidence"),
    svg("text", { x: 400, y: 168, "text-anchor": "end" }, "100%"),
  );
  return h("section", { class: "card calibration" }, h("h2", {}, "Calibration"), drawn, h("p", {}, "Accuracy of the clips in each span of confidence. On the dashed line, a score of 80% is right 80% of the time."));
}

function buildWorst(panel) {
  const wrong = CLIPS.filter(isWrong).sort((a, b) => best(b).score - best(a).score || a.number - b.number);
  const sheets = wrong.slice(0, MAX_SHEETS).map((clip) =>
    h(
      "li",
      { class: "sheet" },
      h("button", { type: "button", class: "link name", "aria-haspopup": "dialog", onclick: () => openClip(clip, wrong) }, bdi(clip.name)),
      h("p", {}, h("span", { class: "bad" }, bdi(LABELS[best(clip).label]), ` ${percent(best(clip).score)}`), h("span", { class: "soft" }, ", true label "), labelList(clip.truth)),
      clip.views.length ? h("div", { class: "frames" }, contact(clip)) : h("p", { class: "soft" }, "No frames."),
    ),
  );
  panel.append(h("ul", { class: "sheets" }, sheets));
}

/** Eight frames that are spread over a clip's views. */
function contact(clip) {
  const all = clip.views.flatMap((view) => view.t.map((time, at) => ({ view, at, time }))).sort((a, b) => a.time - b.time);
  const number = Math.min(8, all.length);
  return Array.from({ length: number }, (_, at) => all[Math.floor(((at + 0.5) * all.length) / number)]).map(({ view, at }) => frame(view, at, Math.floor((72 * 78) / Math.max(view.w, 78))));
}
