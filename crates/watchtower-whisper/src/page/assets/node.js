// The node that this page is from: what it is asked, and what it tells.
//
// Knows nothing of how that looks.

const token = document.querySelector('meta[name="token"]').content;

const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 15_000;

// Asks for something to be done. Fails with a sentence for a person.
export async function ask(path, body = {}) {
  const headers = { "content-type": "application/json", "x-page-token": token };
  let response;
  try {
    response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  } catch {
    throw new Error("The node does not answer.");
  }
  return read(response.status, await response.text());
}

// Hands a file over. `onProgress` is told how much of it is done, from 0 to 1.
export function upload(file, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/upload?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("content-type", "application/octet-stream");
    request.setRequestHeader("x-page-token", token);
    request.upload.onprogress = ({ loaded, total }) => onProgress(total > 0 ? loaded / total : 0);
    request.onerror = () => reject(new Error("The node did not take it."));
    request.onabort = () => reject(new DOMException("Cancelled", "AbortError"));
    request.onload = () => {
      try {
        resolve(read(request.status, request.responseText));
      } catch (error) {
        reject(error);
      }
    };
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

function read(status, text) {
  let answer = {};
  try {
    answer = JSON.parse(text);
  } catch {
    // What is not the node's own has a status alone.
  }
  if (status >= 400) throw new Error(answer.error ?? `The node answers ${status}.`);
  return answer;
}

// Listens for as long as the page is there. `onUpdate` is told what the node
// tells, `onState` whether the node is there ("open" or "waiting", and why).
export function listen({ onUpdate, onState }) {
  let failures = 0;
  let socket;
  let timer;

  function open() {
    clearTimeout(timer);
    socket = new WebSocket(`ws://${location.host}/events`, ["whisper-page", token]);
    let opened = false;
    socket.onopen = () => {
      opened = true;
      onState("open");
    };
    socket.onmessage = ({ data }) => {
      // Only now: one that is let in and closed at once is no success.
      failures = 0;
      onUpdate(JSON.parse(data));
    };
    socket.onclose = ({ reason }) => {
      onState("waiting", reason);
      if (!opened) reloadIfRestarted();
      const wait = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** failures);
      failures += 1;
      timer = setTimeout(open, wait * (0.75 + Math.random() / 2));
    };
  }

  // Rather at once than when the wait is over: the machine is back.
  function hurry() {
    if (socket.readyState === WebSocket.CLOSED && document.visibilityState === "visible") open();
  }

  document.addEventListener("visibilitychange", hurry);
  window.addEventListener("online", hurry);
  open();
}

// A node that was started anew has another token: so has its page.
async function reloadIfRestarted() {
  try {
    const page = await (await fetch("/")).text();
    if (page.includes('name="token"') && !page.includes(token)) location.reload();
  } catch {
    // It is not there yet.
  }
}
