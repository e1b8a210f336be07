// Where a picture is drawn: a canvas on screen, or an SVG file. The painters know neither.

const FACE = "Inter, system-ui, -apple-system, 'Segoe UI', 'Noto Sans', 'Noto Sans SC', sans-serif";

/** Draws on a canvas; lengths are CSS pixels. */
export class CanvasSurface {
  constructor(canvas, width, height, ratio) {
    this.width = width;
    this.height = height;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    this.context = canvas.getContext("2d");
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  rect(x, y, width, height, fill, alpha = 1) {
    this.context.globalAlpha = alpha;
    this.context.fillStyle = fill;
    this.context.fillRect(x, y, width, height);
    this.context.globalAlpha = 1;
  }

  frame(x, y, width, height, stroke, thickness = 1) {
    this.context.strokeStyle = stroke;
    this.context.lineWidth = thickness;
    this.context.strokeRect(x, y, width, height);
  }

  line(points, stroke, thickness = 1) {
    this.context.strokeStyle = stroke;
    this.context.lineWidth = thickness;
    this.context.beginPath();
    for (const [x, y] of points) this.context.lineTo(x, y);
    this.context.stroke();
  }

  /** Text at its baseline; align -1 left, 0 middle, 1 right. */
  text(text, x, y, { size = 12, fill, align = -1, weight = 400 }) {
    this.context.font = `${weight} ${size}px ${FACE}`;
    this.context.fillStyle = fill;
    this.context.textAlign = ["left", "center", "right"][align + 1];
    this.context.fillText(text, x, y);
  }

  textWidth(text, size, weight = 400) {
    this.context.font = `${weight} ${size}px ${FACE}`;
    return this.context.measureText(text).width;
  }

  image(picture, x, y, width, height) {
    this.context.imageSmoothingEnabled = false;
    this.context.drawImage(picture, x, y, width, height);
  }

  clipped(x, y, width, height, paint) {
    this.context.save();
    this.context.beginPath();
    this.context.rect(x, y, width, height);
    this.context.clip();
    paint();
    this.context.restore();
  }
}

/** Writes SVG elements; text is escaped, so that nothing of a trace becomes markup. */
export class SvgSurface {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.parts = [];
    this.clips = 0;
    this.measure = document.createElement("canvas").getContext("2d");
  }

  rect(x, y, width, height, fill, alpha = 1) {
    const opacity = alpha === 1 ? "" : ` opacity="${alpha}"`;
    this.parts.push(`<rect ${box(x, y, width, height)} fill="${fill}"${opacity}/>`);
  }

  frame(x, y, width, height, stroke, thickness = 1) {
    const outline = `fill="none" stroke="${stroke}" stroke-width="${thickness}"`;
    this.parts.push(`<rect ${box(x, y, width, height)} ${outline}/>`);
  }

  line(points, stroke, thickness = 1) {
    const path = points.map(([x, y]) => `${short(x)},${short(y)}`).join(" ");
    this.parts.push(`<polyline points="${path}" fill="none" stroke="${stroke}" stroke-width="${thickness}"/>`);
  }

  text(text, x, y, { size = 12, fill, align = -1, weight = 400 }) {
    const anchor = ["start", "middle", "end"][align + 1];
    this.parts.push(
      `<text x="${short(x)}" y="${short(y)}" font-size="${size}" font-weight="${weight}" fill="${fill}" ` +
        `text-anchor="${anchor}">${escaped(text)}</text>`,
    );
  }

  textWidth(text, size, weight = 400) {
    this.measure.font = `${weight} ${size}px ${FACE}`;
    return this.measure.measureText(text).width;
  }

  image(picture, x, y, width, height) {
    const style = `preserveAspectRatio="none" style="image-rendering:pixelated"`;
    this.parts.push(`<image ${box(x, y, width, height)} ${style} href="${picture.toDataURL()}"/>`);
  }

  clipped(x, y, width, height, paint) {
    const name = `clip${this.clips++}`;
    this.parts.push(`<clipPath id="${name}"><rect ${box(x, y, width, height)}/></clipPath><g clip-path="url(#${name})">`);
    paint();
    this.parts.push("</g>");
  }

  /** The whole file. */
  get file() {
    const size = `width="${this.width}" height="${this.height}" viewBox="0 0 ${this.width} ${this.height}"`;
    return `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="${escaped(FACE)}">${this.parts.join("\n")}</svg>\n`;
  }
}

function box(x, y, width, height) {
  return `x="${short(x)}" y="${short(y)}" width="${short(width)}" height="${short(height)}"`;
}

function short(value) {
  return String(Math.round(value * 100) / 100);
}

function escaped(text) {
  // What XML cannot hold is shown by its sign before it gets here; a lone surrogate could still be left.
  const marks = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.toWellFormed().replace(/[&<>"']/g, (mark) => marks[mark]);
}
