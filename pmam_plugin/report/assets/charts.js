// Charts as SVG, drawn to the width they get: lines over steps, bars with intervals, histograms, heat maps.

const INTERVAL_TEXT = ([low, high]) => `${figure(low)} – ${figure(high)}`;

/** Axes in an SVG of the host's width. Returns the frame to draw in. */
function frame(host, { height = 190, x, y, xLabel = "", yLabel = "", left = 46, right = 12, top = 8, bottom = 34, label = "" }) {
  const width = Math.max(160, host.clientWidth);
  const picture = make("svg:svg", { class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const sx = (value) => left + ((value - x[0]) / (x[1] - x[0] || 1)) * (width - left - right);
  const sy = (value) => height - bottom - ((value - y[0]) / (y[1] - y[0] || 1)) * (height - top - bottom);
  for (const value of ticks(y[0], y[1], (height - top - bottom) / 34)) {
    picture.append(make("svg:line", { class: "grid", x1: left, x2: width - right, y1: sy(value), y2: sy(value) }),
      make("svg:text", { x: left - 6, y: sy(value) + 4, "text-anchor": "end" }, figure(value)));
  }
  for (const value of ticks(x[0], x[1], (width - left - right) / 80)) {
    picture.append(make("svg:line", { class: "tick", x1: sx(value), x2: sx(value), y1: height - bottom, y2: height - bottom + 4 }),
      make("svg:text", { x: sx(value), y: height - bottom + 16, "text-anchor": "middle" }, figure(value, 4)));
  }
  picture.append(make("svg:line", { class: "base", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
    make("svg:text", { class: "axis-label", x: width - right, y: height - 4, "text-anchor": "end" }, xLabel),
    make("svg:text", { class: "axis-label", x: 0, y: 0, transform: `translate(11 ${top}) rotate(-90)`, "text-anchor": "end" }, yLabel));
  host.replaceChildren(picture);
  return { picture, sx, sy, width, height, left, right, top, bottom };
}

/**
 * Lines over a common x axis with a crosshair (mouse, touch, or arrow keys).
 * series: [{name, points: [[x, y]], tint, step, area}]
 */
function lineChart(host, { series, xLabel, yLabel, x, y, height, label }) {
  const drawn = series.map((line) => ({ ...line, points: line.points.filter((point) => point[1] !== null) })).filter((line) => line.points.length);
  if (!drawn.length) return host.replaceChildren(make("p", { class: "lead" }, "no values"));
  const every = drawn.flatMap((line) => line.points);
  const xs = every.map((point) => point[0]);
  const ys = every.map((point) => point[1]);
  const spread = (low, high) => [low - (high - low) * 0.05 - (high === low ? Math.abs(low) * 0.05 + 1e-3 : 0), high + (high - low) * 0.05 + (high === low ? Math.abs(high) * 0.05 + 1e-3 : 0)];
  const xRange = x || [Math.min(...xs), Math.max(...xs) === Math.min(...xs) ? Math.min(...xs) + 1 : Math.max(...xs)];
  const yRange = y || spread(Math.min(...ys), Math.max(...ys));
  let at = null;

  const draw = () => {
    const area = frame(host, { height, x: xRange, y: yRange, xLabel, yLabel, label });
    for (const line of [...drawn].reverse()) {
      let path = "";
      line.points.forEach(([px, py], i) => {
        const [cx, cy] = [area.sx(clamp(px, ...xRange)).toFixed(1), area.sy(py).toFixed(1)];
        path += i === 0 ? `M${cx} ${cy}` : line.step ? `H${cx}V${cy}` : `L${cx} ${cy}`;
      });
      if (line.area) {
        const last = area.sx(clamp(line.points.at(-1)[0], ...xRange));
        area.picture.append(make("svg:path", { d: `${path}L${last} ${area.sy(yRange[0])}L${area.sx(clamp(line.points[0][0], ...xRange))} ${area.sy(yRange[0])}Z`, fill: line.tint, opacity: 0.1 }));
      }
      area.picture.append(make("svg:path", { class: line.thin ? "series thin" : "series", d: path, stroke: line.tint }));
      if (line.points.length <= 40 && !line.step) {
        for (const [px, py] of line.points) area.picture.append(make("svg:circle", { cx: area.sx(px), cy: area.sy(py), r: 2.4, fill: line.tint }));
      }
    }
    const cross = make("svg:g", { class: "cross" });
    area.picture.append(cross);
    area.picture.setAttribute("tabindex", 0);
    area.picture.dataset.keys = "own";
    const nearest = (line, value) => {
      if (line.step) return line.points.findLast((point) => point[0] <= value) || line.points[0];
      return line.points.reduce((best, point) => (Math.abs(point[0] - value) < Math.abs(best[0] - value) ? point : best));
    };
    const mark = (value, clientX, clientY) => {
      at = value;
      const found = drawn.map((line) => [line, nearest(line, value)]);
      const place = drawn[0].step ? value : found[0][1][0];
      cross.replaceChildren(make("svg:line", { x1: area.sx(place), x2: area.sx(place), y1: area.top, y2: area.height - area.bottom }),
        ...found.map(([line, point]) => make("svg:circle", { cx: area.sx(line.step ? value : point[0]), cy: area.sy(point[1]), r: 4, fill: line.tint })));
      tip(clientX, clientY, [`${xLabel} ${figure(place, 3)}`, ...found.map(([line, point]) => [line.tint, line.name, figure(point[1], 3)])]);
    };
    const away = () => { cross.replaceChildren(); hideTip(); };
    area.picture.addEventListener("pointermove", (event) => {
      const box = area.picture.getBoundingClientRect();
      const value = xRange[0] + ((event.clientX - box.left - area.left) / (area.width - area.left - area.right)) * (xRange[1] - xRange[0]);
      mark(clamp(value, ...xRange), event.clientX, event.clientY);
    });
    area.picture.addEventListener("pointerleave", away);
    area.picture.addEventListener("blur", away);
    area.picture.addEventListener("keydown", (event) => {
      const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!direction) return;
      event.preventDefault();
      const grid = drawn[0].step ? Array.from({ length: 41 }, (_, i) => xRange[0] + ((xRange[1] - xRange[0]) * i) / 40) : drawn[0].points.map((point) => point[0]);
      const next = at === null ? grid[0] : direction > 0 ? grid.find((v) => v > at + 1e-9) ?? grid.at(-1) : grid.findLast((v) => v < at - 1e-9) ?? grid[0];
      const box = area.picture.getBoundingClientRect();
      mark(next, box.left + area.sx(next), box.top + area.top + 40);
    });
  };
  onResize(host, draw);
}

function legendOf(series) {
  return make("p", { class: "chart-legend" }, series.map((line) => make("span", {}, make("i", { style: `background:${line.tint}` }), line.name)));
}

/**
 * Horizontal bars in groups: rows [{label, values: [number|null], intervals: [[low, high]|null]}], names and tints per value.
 */
function barRows(host, { rows, names, tints, most = 1, format = (value) => figure(value, 3) }) {
  const place = (value) => `${(clamp(value / most, 0, 1) * 100).toFixed(2)}%`;
  host.replaceChildren(make("div", { class: "bars", role: "table" }, rows.map((row) =>
    make("div", { class: "bar-row", role: "row", "data-label": row.label },
      make("div", { class: "bar-label", role: "rowheader" }, spaced(row.label)),
      make("div", { class: "bar-group" }, row.values.map((value, i) =>
        make("div", { class: "bar-line", role: "cell", title: `${names[i]}: ${format(value)}${row.intervals?.[i] ? ` (95 %: ${INTERVAL_TEXT(row.intervals[i])})` : ""}` },
          make("div", { class: "bar-track" },
            make("div", { class: "bar-fill", style: `width:${place(value ?? 0)};background:${tints[i]}` }),
            row.intervals?.[i] ? make("div", { class: "whisker", style: `left:${place(row.intervals[i][0])};width:${place(row.intervals[i][1] - row.intervals[i][0])}` }) : null),
          make("span", { class: "bar-value" }, format(value)))))))));
}

/** Vertical bars: values with optional tooltips; `tints` one colour or one per bar. */
function columns(host, { values, tips, tints, x, xLabel, yLabel, height = 170, label, onpick, marks }) {
  const draw = () => {
    const top = Math.max(...values, 1e-12) * 1.05;
    const area = frame(host, { height, x: x || [0, values.length], y: [0, top], xLabel, yLabel, label });
    const inner = area.width - area.left - area.right;
    values.forEach((value, i) => {
      const wide = inner / values.length;
      const bar = make("svg:rect", {
        class: "column", x: area.left + i * wide + Math.min(1, wide * 0.08), width: Math.max(0.5, wide - Math.min(2, wide * 0.16)), y: area.sy(value),
        height: Math.max(0, area.sy(0) - area.sy(value)), fill: Array.isArray(tints) ? tints[i] : tints,
      });
      const catcher = make("svg:rect", {
        class: "catcher", x: area.left + i * wide, width: wide, y: area.top, height: area.height - area.top - area.bottom,
        onpointermove: (event) => tip(event.clientX, event.clientY, tips[i]), onpointerleave: hideTip,
        onclick: onpick ? () => onpick(i) : () => {},
      });
      area.picture.append(bar, catcher);
    });
    for (const { value, text } of marks || []) {
      area.picture.append(make("svg:line", { class: "mark", x1: area.sx(value), x2: area.sx(value), y1: area.top, y2: area.height - area.bottom }),
        make("svg:text", { x: area.sx(value) + (value > (x ? (x[0] + x[1]) / 2 : 0) ? -5 : 5), y: area.top + 12, "text-anchor": value > (x ? (x[0] + x[1]) / 2 : 0) ? "end" : "start" }, text));
    }
  };
  onResize(host, draw);
}
