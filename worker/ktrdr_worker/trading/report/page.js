// Draws the charts in the colours of the page, and again when those change: light, dark, paper.
(function () {
  "use strict";
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const root = document.documentElement;
  const PAPER_WIDTH = 690;

  function coloured(value, style) {
    if (typeof value === "string") {
      const name = /^var\((--[a-z-]+)\)$/.exec(value);
      return name ? style.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return typeof value[0] === "number" ? value : value.map((item) => coloured(item, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, style)]));
  }

  function smaller(traces) {
    return traces.map((trace) => trace.mode === "markers"
      ? Object.assign({}, trace, { marker: Object.assign({}, trace.marker, { size: trace.marker.size * 0.65 }) }) : trace);
  }

  function draw(paper) {
    const style = getComputedStyle(root);
    for (const [name, spec] of Object.entries(specs)) {
      const place = document.getElementById("chart-" + name);
      const narrow = !paper && place.clientWidth < 560;
      const layout = Object.assign({}, coloured(spec.layout, style), {
        autosize: !paper,
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { color: style.getPropertyValue("--ink").trim(), family: getComputedStyle(document.body).fontFamily, size: 12 },
        hoverlabel: { align: "left" },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: style.getPropertyValue("--soft").trim(), activecolor: style.getPropertyValue("--equity").trim() },
        margin: { l: narrow ? 44 : 64, r: narrow ? 8 : 16, t: 30, b: 44 },
        dragmode: narrow ? false : "zoom",
      });
      if (paper) layout.width = place.parentElement.parentElement.classList.contains("columns") ? PAPER_WIDTH / 2 - 16 : PAPER_WIDTH;
      const options = { responsive: !paper, displaylogo: false, displayModeBar: narrow || paper ? false : "hover",
        modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]] };
      const data = coloured(spec.data, style);
      if (narrow) for (const note of layout.annotations || []) note.font.size *= 0.6;
      Plotly.react(place, narrow ? smaller(data) : data, layout, options);
    }
  }

  function onPaper(paper) {
    root.classList.toggle("paper", paper);
    draw(paper);
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(false));
  addEventListener("beforeprint", () => onPaper(true));
  addEventListener("afterprint", () => onPaper(false));
  draw(false);
  for (const months of document.querySelectorAll(".scroll:has(> .months)")) months.scrollLeft = months.scrollWidth; // the newest first
})();
