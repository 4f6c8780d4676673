// Hours-long recordings: how many events of every class began in every hour, and where to hear them.

/** Day and hour of a moment; as report/day.py has them. */
function hourOf(recording, onset) {
  if (!recording.start) return [recording.name, Math.floor(onset / 3600)];
  const time = new Date(Date.parse(`${recording.start}Z`) + Math.round(onset * 1000));
  return [time.toISOString().slice(0, 10), time.getUTCHours()];
}

/** Clock time of a moment, where it is known. */
function clockTime(recording, onset) {
  return recording.start ? new Date(Date.parse(`${recording.start}Z`) + Math.round(onset * 1000)).toISOString().slice(11, 19) : null;
}

/** jump(index of the recording, onset) */
function drawDays(jump) {
  const host = byId("days");
  if (!host) return;
  const days = new Map(); // day -> {hours: hour -> {label: [[recording, onset]]}, recorded: hours}
  const dayOf = (name) => days.get(name) || days.set(name, { hours: new Map(), recorded: new Set() }).get(name);
  report.recordings.forEach((recording, index) => {
    for (let at = 0; at < recording.duration; at += 60) {
      const [day, hour] = hourOf(recording, at);
      dayOf(day).recorded.add(hour);
    }
    for (const lane of recording.lanes) {
      for (const [onset] of lane.detected) {
        const [day, hour] = hourOf(recording, onset);
        const { hours, recorded } = dayOf(day);
        recorded.add(hour);
        if (!hours.has(hour)) hours.set(hour, {});
        (hours.get(hour)[lane.label] ||= []).push([index, onset]);
      }
    }
  });
  const most = Math.max(1, ...[...days.values()].flatMap((day) => [...day.hours.values()].flatMap((hour) => Object.values(hour).map((found) => found.length))));
  const counted24 = (day) => /^\d{4}-\d\d-\d\d$/.test(day);
  host.replaceChildren(...[...days].sort(([a], [b]) => a.localeCompare(b)).map(([day, { hours, recorded }]) => {
    const all = counted24(day) ? Array.from({ length: 24 }, (_, hour) => hour) : Array.from({ length: Math.max(...recorded) + 1 }, (_, hour) => hour);
    const present = labels.filter((label) => [...hours.values()].some((hour) => hour[label]));
    const cell = (label, hour) => {
      if (!recorded.has(hour)) return make("td", { class: "unrecorded", title: "not recorded" });
      const found = hours.get(hour)?.[label] || [];
      if (!found.length) return make("td", {}, "·");
      let next = 0;
      return make("td", { style: `--share:${(0.15 + 0.85 * Math.sqrt(found.length / most)).toFixed(3)}` }, make("button", {
        type: "button", class: "cell", "data-day": day, "data-hour": hour, "data-label": label,
        "aria-label": `${counted(found.length, "event")} of ${spaced(label)}, ${day}, hour ${hour}: listen to the next`,
        onclick: () => jump(...found[next++ % found.length]),
      }, String(found.length)));
    };
    return make("div", { class: "scroll" }, make("table", { class: "day" },
      make("caption", {}, counted24(day) ? day : `${day}, hours from its start`),
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, ""), all.map((hour) => make("th", { scope: "col" }, String(hour).padStart(2, "0"))))),
      make("tbody", {}, (present.length ? present : labels.slice(0, 1)).map((label) => make("tr", { style: `--c:${colour(colours[label])}` },
        make("th", { scope: "row" }, make("i", { class: "dot" }), spaced(label)), all.map((hour) => cell(label, hour)))))));
  }));
  const link = make("a", { id: "counts-csv", download: "counts.csv", href: `data:text/csv;charset=utf-8,${encodeURIComponent(report.counts)}` }, "Counts per class and hour (CSV)");
  host.append(make("p", { class: "lead" }, link));
}
