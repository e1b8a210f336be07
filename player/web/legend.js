// What the colours mean.

import { boundColour } from "./bands.js";
import { byId, element } from "./dom.js";
import { say } from "./words.js";

let shown = "";

/** The legend in the palette and language of now, with what bound the steps of the runs in view. */
export function showLegend(app) {
  const codes = [...new Set(app.lanes.flatMap((lane) => lane.bands.boundCodes))].sort();
  const key = `${app.theme.name}/${app.language}/${codes}`;
  if (shown === key) return;
  shown = key;
  const { palette } = app.theme;
  const entries = [
    [say("legend_decode"), palette.requests.slice(0, 4)],
    [say("legend_prefill"), [palette.prefill]],
    [say("legend_idle"), [palette.idle_slot]],
  ];
  const bounds = codes.map((code) => app.data.bounds[code]).map((bound) => [say(`bound_${bound}`), [boundColour(bound, palette)]]);
  byId("legend").replaceChildren(
    ...entries.map(entry),
    element("li", { class: "lead" }, say("legend_bound")),
    ...bounds.map(entry),
  );
}

function entry([text, colours]) {
  const swatches = colours.map((colour) => {
    const swatch = element("span", { class: "swatch" });
    swatch.style.background = colour;
    return swatch;
  });
  return element("li", {}, ...swatches, text);
}
