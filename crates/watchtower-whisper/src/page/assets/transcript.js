// The messages, as a list.
//
// Everything that peers sent becomes text by `textContent` and nothing else.

// Older ones are dropped from the page.
const ITEMS_MAX = 300;

// Messages of one nick within this stand together.
const TOGETHER_MS = 5 * 60_000;

// How far from the end somebody may be who still follows.
const FOLLOWING_PX = 80;

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (key === "class") made.className = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== undefined));
  return made;
}

export function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let number = bytes;
  while (number >= 1000 && unit < units.length - 1) {
    number /= 1000;
    unit += 1;
  }
  return `${number < 10 && unit > 0 ? number.toFixed(1) : Math.round(number)} ${units[unit]}`;
}

// A colour that stays the same for a nick.
function hue(nick) {
  let hash = 0x811c9dc5;
  for (const character of nick) hash = Math.imul(hash ^ character.codePointAt(0), 0x01000193);
  // So that names of few letters lie apart too.
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  return ((hash ^ (hash >>> 13)) >>> 0) % 360;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

function time(millis) {
  const at = new Date(millis);
  const format = at.toDateString() === new Date().toDateString() ? clock : day;
  return element("time", { datetime: at.toISOString(), title: whole.format(at) }, format.format(at));
}

function nick({ name, named }) {
  const shown = element("bdi", { class: named ? "nick" : "nick nobody" }, name);
  if (named) shown.style.setProperty("--hue", hue(name));
  return shown;
}

const VERIFIED = "Signed by the key that this nick had first";
const CHANGED = "This is signed by another key than this nick had first. Somebody else may be using it.";

export function fileLink(file) {
  return element("a", { href: `/files/${file.id}`, download: file.name }, element("bdi", {}, file.name));
}

function attachment(file) {
  if (!file.image) {
    const length = element("span", { class: "size" }, size(file.bytes));
    return element("p", { class: "attachment" }, fileLink(file), length);
  }
  const image = element("img", { src: `/files/${file.id}`, alt: file.name, loading: "lazy", decoding: "async" });
  return element("a", { class: "picture", href: image.src, target: "_blank", rel: "noopener noreferrer" }, image);
}

export class Transcript {
  #list = document.querySelector("#transcript");
  #toEnd = document.querySelector("#to-end");
  // The messages that are on the page, by their number.
  #messages = new Map();
  // The number of the newest item.
  #newest = 0;
  #last = null;
  #previews = new Map();

  constructor() {
    this.#toEnd.addEventListener("click", () => this.#goToEnd());
    this.#list.addEventListener("scroll", () => {
      if (this.#isFollowing()) this.#toEnd.hidden = true;
    });
    // Pictures have a height once they are there.
    this.#list.addEventListener("load", () => this.#follow(this.#wasFollowing), true);
    new ResizeObserver(() => this.#follow(this.#wasFollowing)).observe(this.#list);
  }

  #wasFollowing = true;

  #isFollowing() {
    const { scrollHeight, scrollTop, clientHeight } = this.#list;
    this.#wasFollowing = scrollHeight - scrollTop - clientHeight < FOLLOWING_PX;
    return this.#wasFollowing;
  }

  #goToEnd() {
    this.#list.scrollTop = this.#list.scrollHeight;
    this.#wasFollowing = true;
    this.#toEnd.hidden = true;
  }

  #follow(follows) {
    if (follows) this.#goToEnd();
  }

  // All that is kept, after opening and after each reconnect: nobody wants to
  // have that read aloud.
  addAll(items) {
    this.#list.setAttribute("aria-busy", "true");
    for (const item of items) this.add(item);
    this.#goToEnd();
    requestAnimationFrame(() => this.#list.removeAttribute("aria-busy"));
  }

  // True when the item is a new message of somebody else.
  add(item) {
    if (item.n <= this.#newest) return false;
    this.#newest = item.n;
    const makers = { message: this.#message, saved: this.#saved, sent: this.#sent, failed: this.#failed, warning: this.#warning };
    makers[item.is].call(this, item);
    return item.is === "message" && !item.own;
  }

  // Something to know for now, that is not kept.
  note(text) {
    this.#last = null;
    this.#append(element("li", { class: "note" }, element("bdi", {}, text)));
  }

  // A picture that is being sent from here, to be shown with its message.
  preview(name, url) {
    this.#previews.set(name, url);
  }

  #append(item) {
    const follows = this.#isFollowing();
    this.#list.append(item);
    while (this.#list.childElementCount > ITEMS_MAX) {
      const oldest = this.#list.firstElementChild;
      this.#messages.delete(Number(oldest.dataset.n));
      oldest.remove();
    }
    if (follows) this.#goToEnd();
    else this.#toEnd.hidden = false;
  }

  #message(message) {
    const together = !message.me && message.mark !== "changed" && this.#last !== null
      && ["name", "named", "own", "mark"].every((key) => this.#last[key] === message[key])
      && Math.abs(message.time - this.#last.time) < TOGETHER_MS;
    this.#last = message.me ? null : message;
    const classes = ["message", message.own && "own", message.me && "action", together && "follows",
      message.mark === "changed" && "changed"];
    const item = element("li", { class: classes.filter(Boolean).join(" "), "data-n": message.n });
    const mark = message.mark === "verified" && !message.own
      ? element("span", { class: "mark", role: "img", "aria-label": VERIFIED, title: VERIFIED }, "✓")
      : undefined;
    const you = message.own ? element("span", { class: "you" }, "you") : undefined;
    const text = element("p", { class: "text", dir: "auto" });
    if (message.me) {
      text.append(nick(message), mark ?? "", " ", message.text, " ");
      item.append(element("div", { class: "by" }, text, you ?? "", time(message.time)));
    } else {
      text.append(message.text);
      item.append(element("div", { class: "by" }, nick(message), mark ?? "", you ?? "", time(message.time)), text);
    }
    if (message.mark === "changed") item.prepend(element("p", { class: "warning" }, CHANGED));
    if (message.own && message.file) item.append(this.#previewed(message.file.name));
    this.#messages.set(message.n, item);
    this.#append(item);
  }

  // The picture of that name that was sent from here, if it was.
  #previewed(name) {
    const preview = this.#previews.get(name);
    if (preview === undefined) return "";
    this.#previews.delete(name);
    return element("span", { class: "picture" }, element("img", { src: preview, alt: name }));
  }

  #sent({ name, bytes, time: sent }) {
    this.#last = null;
    const words = element("p", { class: "text" }, "You sent ", element("bdi", {}, name), `, ${size(bytes)}. `, time(sent));
    this.#append(element("li", { class: "message own" }, element("div", { class: "by" }, words), this.#previewed(name)));
  }

  #saved({ message, name, named, file, time: saved }) {
    const item = this.#messages.get(message);
    if (item !== undefined) {
      const follows = this.#isFollowing();
      item.append(attachment(file));
      const text = item.querySelector(".text");
      // It would be there twice.
      if (!file.image && text.textContent === file.name) text.remove();
      this.#follow(follows);
      return;
    }
    this.#last = null;
    const by = element("div", { class: "by" }, nick({ name, named }), time(saved));
    this.#append(element("li", { class: "message" }, by, attachment(file)));
  }

  #failed({ name, reason }) {
    this.#warning({ text: `${name}: ${reason}` });
  }

  #warning({ text }) {
    this.#last = null;
    this.#append(element("li", { class: "note warning" }, element("bdi", {}, text)));
  }
}
