// What is seen, as a file: PNG, SVG, and the link to it.

import { SvgSurface } from "./surface.js";

/** Offer bytes or text as a download. */
export function download(name, type, content) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** The lanes below each other, as one SVG file. */
export function svgOf(lanes, palette, paint) {
  const height = lanes.reduce((sum, lane) => sum + lane.height + 34, 0);
  const surface = new SvgSurface(lanes[0].width, height);
  surface.rect(0, 0, surface.width, height, palette.ground);
  let y = 0;
  for (const lane of lanes) {
    surface.text(lane.title, 8, y + 22, { size: 15, fill: palette.text, weight: 600 });
    surface.parts.push(`<g transform="translate(0 ${y + 34})">`);
    paint(surface, lane);
    surface.parts.push("</g>");
    y += lane.height + 34;
  }
  return surface.file;
}

/** The same as PNG: the SVG drawn on a canvas, twice as fine. */
export async function pngOf(svg) {
  const image = new Image();
  image.src = `data:image/svg+xml;base64,${btoa(Array.from(new TextEncoder().encode(svg), (c) => String.fromCharCode(c)).join(""))}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth * 2;
  canvas.height = image.naturalHeight * 2;
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}
