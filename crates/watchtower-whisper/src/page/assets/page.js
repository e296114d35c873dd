// The page of a whispernet peer: what is said and what is handed over, put
// together with what the node tells.

import { ask, listen, upload } from "/node.js";
import { Panel } from "/panel.js";
import { Transcript, element, size } from "/transcript.js";

const IMAGE_TYPES = ["image/png", "image/jpeg", "image/gif", "image/webp"];

const find = (id) => document.getElementById(id);

const transcript = new Transcript();
const panel = new Panel(problem);
let uploadBytesMax = Infinity;
let isOpen = false;
let connected = 0;
let unread = 0;

// What went wrong with what was last asked for; null when nothing did.
function problem(text) {
  find("problem").hidden = text === null;
  find("problem").textContent = text ?? "";
}

function showState(why) {
  const state = find("state");
  state.dataset.is = isOpen ? "open" : "waiting";
  const peers = ["No peer yet", "1 peer"][connected] ?? `${connected} peers`;
  const trying = `The node does not answer; trying again${why ? ` (${why})` : ""}`;
  state.textContent = isOpen ? peers : trying;
}

// What the node tells.

const updates = {
  hello(hello) {
    uploadBytesMax = hello.upload_bytes_max;
    panel.self(hello);
    panel.transfersAre(hello.transfers);
    updates.peers(hello.peers);
    updates.nick(hello);
    for (const item of hello.log) if (item.is === "saved") panel.saved(item);
    transcript.addAll(hello.log);
  },
  peers(peers) {
    connected = panel.peers(peers);
    showState();
  },
  nick({ nick }) {
    const field = find("nick");
    if (document.activeElement !== field) field.value = nick ?? "";
    field.dataset.is = nick ?? "";
  },
  notice: ({ text }) => transcript.note(text),
  transfer: (transfer) => panel.transfer(transfer),
  "transfer-ended": ({ transfer }) => panel.transferEnded(transfer),
  saved(item) {
    panel.saved(item);
    transcript.add(item);
  },
};

function take(update) {
  if (update.is in updates) return updates[update.is](update);
  if (transcript.add(update) && document.hidden) {
    unread += 1;
    document.title = `(${unread}) Whispernet`;
  }
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  unread = 0;
  document.title = "Whispernet";
});

listen({
  onUpdate: take,
  onState(state, why) {
    isOpen = state === "open";
    showState(why);
  },
});

// What is said.

const text = find("text");
text.value = sessionStorage.getItem("draft") ?? "";
text.addEventListener("input", keepDraft);

const commands = {
  nick: (name) => setNick(name),
  connect: (peer) => panel.connect(peer),
  disconnect: (peer) => panel.disconnect(peer),
};

// Whether it was said, or done; if not, it was told why.
async function say(body) {
  const [, command, rest] = /^\/([a-z]+)(?:\s+([^]*))?$/.exec(body) ?? [];
  if (command !== undefined && command !== "me") {
    if (command in commands) return commands[command](rest ?? "");
    problem(`There is no /${command} here. There are /me, /nick NAME, /connect HOST:PORT and /disconnect IP:PORT.`);
    return false;
  }
  // A second slash is for what begins with one.
  return attempt(() => ask("/say", { body: body.replace(/^\/\//, "/") }));
}

async function attempt(action) {
  try {
    await action();
    problem(null);
    return true;
  } catch (error) {
    problem(error.message);
    return false;
  }
}

// What is asked for is asked for one after the other: what is said after a new
// nick was entered is said by it.
let last = Promise.resolve();

function inOrder(action) {
  last = last.then(action);
  return last;
}

function keepDraft() {
  sessionStorage.setItem("draft", text.value);
}

find("composer").addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = text.value.replace(/\s+$/, "");
  if (body === "") return;
  text.value = "";
  keepDraft();
  text.focus();
  if (await inOrder(() => say(body))) return;
  // Back to where it can be put right, before what was begun meanwhile.
  text.value = [body, text.value].filter((part) => part !== "").join("\n");
  keepDraft();
});

text.addEventListener("keydown", (event) => {
  // While a word is being composed, Enter takes it.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  find("composer").requestSubmit();
});

function setNick(nick) {
  return attempt(() => ask("/nick", { nick: nick.trim() }));
}

const nick = find("nick");
find("nick-form").addEventListener("submit", (event) => {
  event.preventDefault();
  text.focus();
});
nick.addEventListener("change", async () => {
  if (!(await inOrder(() => setNick(nick.value)))) nick.value = nick.dataset.is ?? "";
});

// Files, one after the other.

const waiting = [];
let isUploading = false;

function send(files) {
  for (const file of files) {
    if (file.size > uploadBytesMax) {
      problem(`${file.name} has ${size(file.size)}, and may have ${size(uploadBytesMax)}.`);
      continue;
    }
    waiting.push(queued(file));
  }
  uploadNext();
}

function queued(file) {
  const abort = new AbortController();
  const cancel = element("button", { type: "button", class: "plain", "aria-label": `Cancel ${file.name}` }, "Cancel");
  cancel.addEventListener("click", () => abort.abort());
  const progress = element("progress", { max: "1", value: "0", "aria-label": file.name });
  const item = element("li", {}, element("bdi", {}, file.name), cancel, progress);
  find("uploads").append(item);
  return { file, abort, progress, item };
}

async function uploadNext() {
  if (isUploading || waiting.length === 0) return;
  isUploading = true;
  const { file, abort, progress, item } = waiting.shift();
  if (!abort.signal.aborted) {
    const preview = IMAGE_TYPES.includes(file.type) ? URL.createObjectURL(file) : undefined;
    if (preview !== undefined) transcript.preview(file.name, preview);
    try {
      await upload(file, (done) => (progress.value = done), abort.signal);
      problem(null);
    } catch (error) {
      if (error.name !== "AbortError") problem(`${file.name}: ${error.message}`);
    }
  }
  item.remove();
  isUploading = false;
  uploadNext();
}

find("file-button").addEventListener("click", () => find("file").click());
find("file").addEventListener("change", ({ target }) => {
  send([...target.files]);
  target.value = "";
  text.focus();
});
text.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length === 0) return;
  event.preventDefault();
  send(files);
});

// How deep within the page what is dragged is; it leaves with the last.
let depth = 0;
const hasFiles = ({ dataTransfer }) => dataTransfer?.types.includes("Files") ?? false;

document.addEventListener("dragenter", (event) => {
  if (!hasFiles(event)) return;
  depth += 1;
  find("drop").hidden = false;
});
document.addEventListener("dragleave", (event) => {
  if (!hasFiles(event)) return;
  depth -= 1;
  find("drop").hidden = depth <= 0;
});
document.addEventListener("dragover", (event) => {
  if (hasFiles(event)) event.preventDefault();
});
document.addEventListener("drop", (event) => {
  depth = 0;
  find("drop").hidden = true;
  if (!hasFiles(event)) return;
  event.preventDefault();
  send([...event.dataTransfer.files]);
});
