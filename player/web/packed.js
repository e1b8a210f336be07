// The columns of a recording as typed arrays, from the base64 text that the page holds. See columns.py for the layout.

/** Bytes of a base64 text. */
export function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** Unpack one recording: {columns: name -> typed array, texts, ids, prompts, reasons}. */
export async function unpack(base64) {
  const stream = new Blob([bytesOf(base64)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return decode(new Uint8Array(await new Response(stream).arrayBuffer()));
}

function decode(bytes) {
  const headLength = new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + headLength)));
  const columns = {};
  let at = 4 + headLength;
  for (const [name, width, differs, length] of head.columns) {
    columns[name] = column(bytes.subarray(at, at + width * length), width, differs, length);
    at += width * length;
  }
  return { ...head, columns };
}

function column(bytes, width, differs, length) {
  const values = width === 8 ? new Float64Array(bytes.slice().buffer) : joined(bytes, width, length);
  return differs ? summed(values) : values;
}

/** Signed integers from planes of bytes, the lowest first. */
function joined(bytes, width, length) {
  if (width === 1) return new Int8Array(bytes.slice().buffer);
  const values = width === 2 ? new Int16Array(length) : new Int32Array(length);
  for (let i = 0; i < length; i++) {
    let value = 0;
    for (let plane = 0; plane < width; plane++) value |= bytes[plane * length + i] << (8 * plane);
    values[i] = value;
  }
  return values;
}

function summed(differences) {
  const values = new Float64Array(differences.length);
  let sum = 0;
  for (let i = 0; i < differences.length; i++) values[i] = sum += differences[i];
  return values;
}
