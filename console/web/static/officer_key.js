// Opens an officer's key file (client/store/keys.py) in this browser. File, passphrase and key go nowhere from here.
import { bytes, canonical, fromHex } from "./canonical.js";

const LEAST_ITERATIONS = 600_000, MOST_ITERATIONS = 60_000_000, MOST_LETTERS = 10_000;
const HEX = { key: 64, salt: 64, nonce: 24, sealed: 96 };
const PKCS8 = fromHex("302e020100300506032b657004220420");

// What went wrong, by the name of the words on the page that say so.
export class Fault extends Error {
  constructor(words) { super(words); this.words = words; }
}

// Whether this browser can make Ed25519 signatures at all.
export async function able() {
  try {
    await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"]);
    return true;
  } catch { return false; }
}

// {officer, key, sign(message)} of a key file's text. Throws Fault.
export async function openKey(text, passphrase) {
  const file = parsed(text), { sealed, ...about } = file;
  const typed = await crypto.subtle.importKey("raw", bytes(passphrase), "PBKDF2", false, ["deriveKey"]);
  const kdf = { name: "PBKDF2", hash: "SHA-256", salt: fromHex(file.salt), iterations: file.iterations };
  const cipher = await crypto.subtle.deriveKey(kdf, typed, { name: "AES-GCM", length: 256 }, false, ["decrypt"]);
  const gcm = { name: "AES-GCM", iv: fromHex(file.nonce), additionalData: bytes(canonical(about)) };
  let seed;
  try {
    seed = new Uint8Array(await crypto.subtle.decrypt(gcm, cipher, fromHex(sealed)));
  } catch { throw new Fault("passphrase"); }
  const whole = new Uint8Array(PKCS8.length + seed.length);
  whole.set(PKCS8);
  whole.set(seed, PKCS8.length);
  const secret = await crypto.subtle.importKey("pkcs8", whole, "Ed25519", false, ["sign"]);
  seed.fill(0);
  whole.fill(0);
  const open = await crypto.subtle.importKey("raw", fromHex(file.key), "Ed25519", false, ["verify"]);
  const sign = async (message) => {
    const signature = await crypto.subtle.sign("Ed25519", secret, message);
    // A file may name another key than it holds.
    if (!(await crypto.subtle.verify("Ed25519", open, signature, message))) throw new Fault("file");
    return signature;
  };
  return { officer: file.officer, key: file.key, sign };
}

function parsed(text) {
  let file;
  try { file = text.length > MOST_LETTERS ? null : JSON.parse(text); } catch { file = null; }
  const names = ["format", "iterations", "kdf", "officer", ...Object.keys(HEX)];
  const right = file !== null && typeof file === "object" && Object.keys(file).sort().join() === names.sort().join()
    && file.format === "wardround/officer-key/1" && file.kdf === "PBKDF2-HMAC-SHA256" && typeof file.officer === "string"
    && Number.isInteger(file.iterations) && file.iterations >= LEAST_ITERATIONS && file.iterations <= MOST_ITERATIONS
    && Object.entries(HEX).every(([name, length]) => new RegExp(`^[0-9a-f]{${length}}$`).test(file[name]));
  if (!right) throw new Fault("file");
  return file;
}
