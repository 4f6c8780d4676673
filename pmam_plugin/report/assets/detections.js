// The page of detected events: a list of recordings, one player, a table of events.

const labels = [...new Set(report.recordings.flatMap((recording) => recording.lanes.map((lane) => lane.label)))];
const colours = Object.fromEntries(labels.map((label, index) => [label, index]));
let current = null;

function eventsOf(recording) {
  return recording.lanes
    .flatMap((lane) => lane.detected.map(([onset, offset, score]) => ({ label: lane.label, onset, offset, score })))
    .sort((a, b) => a.onset - b.onset || a.label.localeCompare(b.label));
}

function strip(recording) {
  const rows = recording.lanes.filter((lane) => lane.detected.length);
  return make("svg:svg", { class: "strip", viewBox: `0 0 ${recording.duration} 20`, preserveAspectRatio: "none", "aria-hidden": "true" },
    rows.flatMap((lane, row) => lane.detected.map(([onset, offset]) => make("svg:rect", {
      class: "mini", x: onset, width: offset - onset, y: 1 + (18 * row) / rows.length, height: Math.min(6, 16 / rows.length),
      style: `--c:${colour(colours[lane.label])}`,
    }))));
}

function listRecordings() {
  const list = byId("file-list");
  if (!list) return;
  list.append(...report.recordings.map((recording, index) =>
    make("button", { type: "button", class: "file", "data-index": index, onclick: () => select(index) },
      make("span", { class: "file-name" }, recording.name),
      strip(recording),
      make("span", { class: "file-facts" }, `${clock(recording.duration)} · ${counted(eventsOf(recording).length, "event")}`))));
}

function tabulate(recording) {
  const events = eventsOf(recording);
  const shown = events.slice(0, 1000);
  const rows = shown.map((event) => make("tr", { style: `--c:${colour(colours[event.label])}` },
    recording.start ? make("td", {}, clockTime(recording, event.onset)) : null,
    make("td", {}, make("button", { type: "button", class: "jump", onclick: () => current.seek(event.onset) }, clock(event.onset, 2))),
    make("td", {}, clock(event.offset, 2)),
    make("td", {}, make("i", { class: "dot" }), spaced(event.label)),
    make("td", { class: "score" }, event.score === null ? "–" : scoreText(event.score))));
  byId("event-table").replaceChildren(
    events.length
      ? make("table", { class: "events" },
          make("thead", {}, make("tr", {}, [...(recording.start ? ["clock"] : []), "onset", "offset", "class", "score"].map((name) => make("th", {}, name)))),
          make("tbody", {}, rows))
      : make("p", { class: "lead" }, "Nothing was detected in this recording."));
  if (events.length > shown.length) byId("event-table").append(make("p", { class: "lead" }, `… and ${events.length - shown.length} more.`));
}

function select(index) {
  if (current) current.close();
  const recording = report.recordings[index];
  current = new Player(byId("player"), recording, { colours, eager: true });
  keyboardPlayer = current;
  tabulate(recording);
  for (const button of document.querySelectorAll(".file")) {
    button.setAttribute("aria-current", String(Number(button.dataset.index) === index));
  }
}

/** To a moment of a recording, shown in a stretch of half a minute. */
function jumpTo(index, onset) {
  select(index);
  current.show(onset - 10, onset + 20);
  current.seek(onset);
  byId("player-section").scrollIntoView({ block: "nearest" });
}

drawDays(jumpTo);
listRecordings();
if (report.recordings.length) select(0);
