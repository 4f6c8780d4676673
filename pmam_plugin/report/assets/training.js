// The page of a training run: curves, prototypes per E-step, PSD-ROC, classes, clips.

const SERIES_TINTS = [0, 1, 2, 3, 4, 5].map(colour);

/** train_loss and validation_loss belong into one chart: what a curve measures, and on what. */
function kindOf(name) {
  const [, place, measure] = name.match(/^(?:(train|validation|selection|test|student|teacher)[_/])?(.+)$/);
  return { place: place || "", measure };
}

function drawCurves() {
  for (const stage of report.stages) {
    const host = document.querySelector(`[data-curves="${CSS.escape(stage.name)}"]`);
    if (!host) continue;
    const groups = new Map();
    for (const [name, points] of Object.entries(stage.curves)) {
      const { place, measure } = kindOf(name);
      if (!groups.has(measure)) groups.set(measure, []);
      groups.get(measure).push({ name: place || measure, points });
    }
    const single = [];
    for (const [measure, lines] of groups) {
      // One point is no curve.
      if (lines.every((line) => line.points.length < 2)) {
        for (const { name, points } of lines) single.push([name === measure ? spaced(measure) : `${name} ${spaced(measure)}`, points[0]?.[1]]);
        continue;
      }
      const series = lines.map((line, i) => ({ ...line, tint: SERIES_TINTS[i % 6] }));
      const chart = make("div", { class: "plot" });
      host.append(make("div", { class: "card" }, make("h3", {}, spaced(measure)), chart, series.length > 1 ? legendOf(series) : null));
      lineChart(chart, { series, xLabel: "update", height: 170, label: `${spaced(measure)} of ${stage.name} over optimiser steps` });
    }
    if (single.length) host.after(make("div", { class: "stage-facts single" }, single.map(([name, value]) => make("span", {}, `${name} `, make("b", {}, figure(value))))));
  }
}

function drawPrototypes() {
  for (const host of document.querySelectorAll("[data-weights]")) {
    const stage = report.stages[Number(host.dataset.weights)];
    const weights = stage.usage.map((value, index) => [value, index]).sort((a, b) => b[0] - a[0]);
    columns(host, {
      values: weights.map((pair) => pair[0]), tints: colour(0), xLabel: "prototypes, by share", yLabel: "share of frames", height: 150,
      tips: weights.map(([value, index]) => [`prototype ${index}`, [colour(0), "frames", `${(100 * value).toFixed(1)} %`]]),
      label: `Weights of the ${weights.length} prototypes of ${stage.name}, largest first`,
    });
  }
}

function drawRoc() {
  // A staircase begins at no false positives and keeps its last height.
  const whole = (points) => points.length ? [...(points[0][0] > 0 ? [[0, 0]] : []), ...points, [100, points.at(-1)[1]]] : [];
  for (const host of document.querySelectorAll("[data-roc]")) {
    const { all, classes } = report.psd_roc[host.dataset.roc];
    const thin = Object.entries(classes).map(([label, points], i) => ({ name: spaced(label), points: whole(points), tint: colour(i + 2), step: true, thin: true }));
    lineChart(host, {
      series: [{ name: "all classes", points: whole(all), tint: colour(host.dataset.tint), step: true, area: true }, ...thin],
      x: [0, 100], y: [0, 1], xLabel: "false positives per hour", height: 270, label: `PSD-ROC, ${host.dataset.roc}`,
    });
  }
}

function drawClasses() {
  const host = byId("class-bars");
  if (!host) return;
  const { names, metrics } = report.per_class;
  const choice = byId("class-metric");
  const show = () => {
    const metric = metrics[choice.value];
    barRows(host, {
      rows: metric.map(([label, values]) => ({ label, values, intervals: [] })), names, tints: names.map((_, i) => SERIES_TINTS[i]), format: (value) => (value === null ? "–" : (100 * value).toFixed(1)),
    });
  };
  choice.addEventListener("change", show);
  show();
  if (names.length > 1) host.after(legendOf(names.map((name, i) => ({ name, tint: SERIES_TINTS[i] }))));
}

function drawLearning() {
  const host = byId("learning-curve");
  if (!host) return;
  const points = report.learning;
  const all = points.map((point) => [100 * point.share, point.event_f1_macro]);
  const classes = Object.keys(points.at(-1).event_f1).map((label, i) => ({
    name: `${spaced(label)}, ${points.at(-1).events[label]} examples`, tint: colour(i + 2), thin: true,
    points: points.map((point) => [100 * point.share, point.event_f1[label] ?? null]),
  }));
  const series = [{ name: "mean over classes", points: all, tint: colour(0) }, ...classes];
  const chart = make("div", {});
  host.append(chart, legendOf(series));
  lineChart(chart, { series, x: [0, 100], y: [0, 1], xLabel: "% of the labelled recordings", yLabel: "event F1", height: 260, label: "Event F1 over the share of labels" });
}

function drawClips() {
  report.clips.forEach((clip, index) => new Player(byId(`clip-${index}`), clip, { colours: report.colours }));
}

drawCurves();
drawPrototypes();
drawRoc();
drawClasses();
drawLearning();
drawClips();
drawMistakes();
drawThresholds();
