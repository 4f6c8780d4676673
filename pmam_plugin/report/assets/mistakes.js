// What a detector gets wrong, with the sound to it, and thresholds to move.

function drawMistakes() {
  const host = byId("mistakes");
  if (!host) return;
  const { kinds, classes, examples, hours } = report.mistakes;
  const show = (found) => {
    byId("mistake-players").replaceChildren(...found.map((example) => {
      const place = make("div", {});
      new Player(place, example.recording, { colours: report.colours });
      return make("figure", { class: "mistake" }, make("figcaption", {}, example.text), place);
    }));
    applyThresholds();
    byId("mistake-players").scrollIntoView({ block: "nearest" });
  };
  const cell = (row, kind) => {
    const count = row.counts[kind];
    const found = examples.filter((example) => example.label === row.label && example.kind === kind);
    const text = kind === "false_alarm" ? `${figure(count / hours, 2)} / h` : String(count);
    if (!found.length) return make("td", {}, count ? text : "–");
    return make("td", {}, make("button", {
      type: "button", class: "jump", "data-label": row.label, "data-kind": kind,
      "aria-label": `${spaced(row.label)}: ${count} ${kinds.find(([name]) => name === kind)[1]}, listen`, onclick: () => show(found),
    }, text));
  };
  host.replaceChildren(make("table", { class: "events wrong" },
    make("thead", {}, make("tr", {}, ["class", "events", "right", ...kinds.map(([, title]) => title)].map((title) => make("th", { scope: "col" }, title)))),
    make("tbody", {}, classes.map((row) => make("tr", { style: `--c:${colour(report.colours[row.label] ?? 0)}` },
      make("th", { scope: "row" }, make("i", { class: "dot" }), spaced(row.label)), make("td", {}, String(row.events)), make("td", {}, String(row.right)),
      kinds.map(([kind]) => cell(row, kind)))))));
  drawConfusions(classes.map((row) => row.label));
}

/** Rows: what is there; columns: what was heard at it. */
function drawConfusions(labels) {
  const names = [...labels.map(spaced), "nothing"];
  const matrix = report.mistakes.confusions;
  byId("confusions").replaceChildren(make("table", { class: "confusions" },
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "there ↓ heard →"), names.map((name) => make("th", { scope: "col" }, make("span", {}, name))))),
    make("tbody", {}, matrix.map((row, there) => {
      const most = Math.max(1, sum(row));
      return make("tr", {}, make("th", { scope: "row" }, names[there]), row.map((count, heard) => make("td", {
        class: there === heard ? "same" : "", style: `--share:${(count / most).toFixed(3)}`, title: `${names[there]} heard as ${names[heard]}: ${count}`,
      }, there === labels.length && heard === labels.length ? "" : String(count || "·"))));
    }))));
}

// ---- thresholds ------------------------------------------------------------------------------------------------------

const moved = {}; // class -> threshold, where it is not the model's own

function applyThresholds() {
  for (const { label } of report.thresholds) for (const player of players) player.setThreshold(label, moved[label] ?? null);
}

function drawThresholds() {
  const host = byId("threshold-desk");
  if (!host) return;
  const desks = report.thresholds;
  const choice = make("select", { id: "threshold-class" }, desks.map((desk, i) => make("option", { value: i }, spaced(desk.label))));
  const slider = make("input", { type: "range", id: "threshold-slider", min: 0, step: 1, "aria-label": "Threshold" });
  const told = make("output", { id: "threshold-text", for: "threshold-slider" });
  const chart = make("div", {});
  const back = make("button", { type: "button", id: "threshold-reset" }, "As the model has it");
  let desk = desks[0];
  let at = 0;

  const show = () => {
    const [threshold, recall, alarms] = desk.points[at];
    const shown = desk.label in moved ? threshold : desk.chosen;
    told.textContent = `threshold ${scoreText(shown)}: finds ${Math.round(100 * recall)} % of ${counted(desk.events, "event")}, ${figure(alarms, 2)} false alarms per hour`;
    slider.setAttribute("aria-valuetext", told.textContent);
    const tint = colour(report.colours[desk.label] ?? 0);
    const most = desk.points.at(-1)[2];
    const limit = Math.max(Math.min(most, Math.max(20, 3 * desk.points[desk.own][2])), alarms, 1);
    const fresh = make("div", {});
    chart.replaceChildren(fresh);
    lineChart(fresh, {
      series: [
        { name: "here", points: [[alarms, recall]], tint: "var(--ink)" },
        { name: spaced(desk.label), points: [...desk.points.filter((point) => point[2] <= limit).map((point) => [point[2], point[1]])], tint },
      ],
      x: [0, limit], y: [0, 1], xLabel: "false alarms per hour", yLabel: "recall", height: 230, label: `Recall of ${spaced(desk.label)} over false alarms per hour`,
    });
  };
  const pick = () => {
    desk = desks[Number(choice.value)];
    slider.max = desk.points.length - 1;
    at = desk.label in moved ? desk.points.findIndex(([threshold]) => threshold === moved[desk.label]) : desk.own;
    slider.value = at;
    show();
  };
  choice.addEventListener("change", pick);
  slider.addEventListener("input", () => {
    at = Number(slider.value);
    moved[desk.label] = desk.points[at][0];
    show();
    applyThresholds();
  });
  back.addEventListener("click", () => {
    delete moved[desk.label];
    pick();
    applyThresholds();
  });
  host.replaceChildren(
    make("p", { class: "controls-line" }, make("label", { for: "threshold-class" }, "Class"), choice, "fewer ", slider, " more", back),
    make("p", {}, told), chart,
    make("p", { class: "lead" }, "To keep a threshold, write it into model/config.json, under postprocessing, threshold."));
  pick();
}
