// What this page has: tabs for what there is.

let clipTable;
let errorTable;
const good = CLIPS.filter((clip) => clip.error === undefined && clip.top.length);
const failed = CLIPS.filter((clip) => clip.error !== undefined || !clip.top.length);
const evaluated = DATA.evaluation !== null;

function buildClips(panel) {
  const filters = [valueFilter(evaluated ? "Predicted label" : "Label", good, (clip) => best(clip).label, (label) => LABELS[label])];
  if (evaluated) {
    filters.unshift(valueFilter("True label", good, (clip) => clip.truth, (label) => LABELS[label]));
    const options = [["", "Any"], ["right", "Right"], ["wrong", "Wrong"]];
    filters.push({ title: "Result", options, keep: (clip, value) => (isWrong(clip) ? "wrong" : "right") === value });
  }
  filters.push(scoreFilter);
  const columns = [nameColumn, labelColumn, scoreColumn, othersColumn, lengthColumn];
  clipTable = new ClipTable(panel, good, columns, filters, "clips");
}

function buildErrors(panel) {
  const filters = [valueFilter("Kind", failed, (clip) => clip.kind, (kind) => kind)];
  errorTable = new ClipTable(panel, failed, [plainNameColumn, kindColumn, errorColumn], filters, "clips that could not be scored");
}

function showClips(values) {
  selectTab("clips", true);
  clipTable.choose(values);
}
const showPair = (truth, predicted) => showClips({ "True label": String(truth), "Predicted label": String(predicted) });

if (DATA.films.length) {
  addTab("timelines", "Timelines", buildFilms, DATA.films.length);
  addTab("times", "Time by label");
}
if (CLIPS.length) {
  addTab("summary", "Summary");
  if (good.length) addTab("clips", "Clips", buildClips, good.length);
  if (failed.length) addTab("errors", "Errors", buildErrors, failed.length);
}
if (evaluated) {
  if (!several) {
    document.querySelector("#summary .column").append(calibration());
    addTab("confusion", "Confusion matrix", buildConfusion);
  }
  addTab("classes", "Classes", buildClasses);
  const wrong = CLIPS.filter(isWrong).length;
  if (wrong) addTab("worst", "Confident errors", buildWorst, wrong);
}

// A bar of the summary leads to its clips.
byId("main").addEventListener("click", (event) => {
  const { filter, value } = event.target.closest("[data-filter]")?.dataset ?? {};
  if (filter === "label") showClips({ [evaluated ? "Predicted label" : "Label"]: String(LABELS.indexOf(value)) });
  if (filter === "kind") {
    selectTab("errors", true);
    errorTable.choose({ Kind: value });
  }
});

const wanted = TABS.find((tab) => `#/${tab.id}` === location.hash) ?? TABS[0];
if (wanted) selectTab(wanted.id);
