// RFC 8785 for values of JSON: the same bytes as protocol/canonical.py. Numbers and escapes are ECMAScript's own, and
// keys are sorted by UTF-16 code units, as sort() does.
export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value !== null && typeof value === "object") {
    return `{${Object.keys(value).sort().map((key) => `${canonical(key)}:${canonical(value[key])}`).join(",")}}`;
  }
  if (typeof value === "number" && !Number.isFinite(value)) throw new TypeError("no canonical form");
  if (typeof value === "string" && /\p{Surrogate}/u.test(value)) throw new TypeError("no canonical form");
  const text = JSON.stringify(value);
  if (text === undefined) throw new TypeError("no canonical form");
  return text;
}

export const bytes = (text) => new TextEncoder().encode(text);

export const fromHex = (text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));

export const toHex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");

export const sha256 = async (data) => toHex(await crypto.subtle.digest("SHA-256", data));

// protocol.canonical.digest of one part: SHA-256(label || 0x00 || length in 8 bytes || content).
export function labelled(label, content) {
  const head = bytes(`${label}\0`), all = new Uint8Array(head.length + 8 + content.length);
  all.set(head);
  new DataView(all.buffer).setBigUint64(head.length, BigInt(content.length));
  all.set(content, head.length + 8);
  return sha256(all);
}
