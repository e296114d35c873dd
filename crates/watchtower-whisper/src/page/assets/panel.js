// Peers and files, and what this node is.

import { ask } from "/node.js";
import { element, fileLink, size } from "/transcript.js";

const FILES_MAX = 100;

const find = (id) => document.getElementById(id);

export class Panel {
  #peers = new Map();
  #transfers = new Map();
  #seen = new Set();
  #onProblem;

  constructor(onProblem) {
    this.#onProblem = onProblem;
    const button = find("panel-button");
    const panel = find("panel");
    const show = (open) => {
      panel.classList.toggle("open", open);
      button.setAttribute("aria-expanded", String(open));
    };
    button.addEventListener("click", () => show(!panel.classList.contains("open")));
    document.addEventListener("keydown", ({ key }) => {
      if (key === "Escape" && panel.classList.contains("open")) {
        show(false);
        button.focus();
      }
    });
    find("connect").addEventListener("submit", (event) => {
      event.preventDefault();
      this.connect(find("peer").value).then((done) => {
        if (done) find("peer").value = "";
      });
    });
    find("clear-refused").addEventListener("click", () => this.#ask("/clear-refused"));
  }

  // Whether the node did it; if not, it was told why.
  async #ask(path, body) {
    try {
      await ask(path, body);
      this.#onProblem(null);
      return true;
    } catch (error) {
      this.#onProblem(error.message);
      return false;
    }
  }

  connect(peer) {
    return this.#ask("/connect", { peer: peer.trim() });
  }

  disconnect(peer) {
    return this.#ask("/disconnect", { peer: peer.trim() });
  }

  self({ address, key }) {
    find("address").textContent = address;
    find("key").textContent = key;
  }

  peers({ peers, refused }) {
    const before = this.#peers;
    this.#peers = new Map(peers.map((peer) => [peer.address, before.get(peer.address) ?? this.#peer(peer.address)]));
    for (const { address, connected } of peers) {
      const item = this.#peers.get(address);
      item.dataset.connected = connected;
      item.querySelector(".how").textContent = connected ? "connected" : "being dialled";
    }
    for (const [address, item] of before) {
      if (this.#peers.has(address)) continue;
      // Who works by keyboard goes on from somewhere near.
      if (item.contains(document.activeElement)) find("peer").focus();
      item.remove();
    }
    const list = find("peers");
    [...this.#peers.values()].forEach((item, index) => {
      if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
    });
    const connected = peers.filter((peer) => peer.connected).length;
    find("peer-count").textContent = connected;
    find("no-peers").hidden = peers.length > 0;
    find("refused").hidden = refused.length === 0;
    find("refused-list").replaceChildren(...refused.map((address) => element("li", {}, address)));
    return connected;
  }

  #peer(address) {
    const label = `Disconnect ${address}`;
    const button = element("button", { type: "button", class: "plain", title: label, "aria-label": label }, "×");
    button.addEventListener("click", async () => {
      button.disabled = true;
      await this.disconnect(address);
      button.disabled = false;
    });
    const words = element("span", { class: "address" }, address, element("br"), element("span", { class: "how" }));
    return element("li", {}, element("span", { class: "state-dot", "aria-hidden": "true" }), words, button);
  }

  // A file under way, in either direction.
  transfer({ transfer, name, outgoing, done, all }) {
    let item = this.#transfers.get(transfer);
    if (item === undefined) {
      const label = `${outgoing ? "Sending" : "Receiving"} ${name}`;
      item = element("li", {}, element("bdi", {}, label), " ", element("span", { class: "size" }),
        element("progress", { max: "1", "aria-label": label }));
      this.#transfers.set(transfer, item);
      find("transfers").append(item);
    }
    item.querySelector("progress").value = all > 0 ? done / all : 0;
    item.querySelector(".size").textContent = `${size(done)} of ${size(all)}`;
    this.#tellIfNone();
  }

  transferEnded(transfer) {
    this.#transfers.get(transfer)?.remove();
    this.#transfers.delete(transfer);
    this.#tellIfNone();
  }

  // Only these are under way.
  transfersAre(transfers) {
    find("transfers").replaceChildren();
    this.#transfers.clear();
    for (const transfer of transfers) this.transfer(transfer);
  }

  saved({ file }) {
    if (this.#seen.has(file.id)) return;
    this.#seen.add(file.id);
    const list = find("files");
    list.prepend(element("li", {}, fileLink(file), " ", element("span", { class: "size" }, size(file.bytes))));
    if (list.childElementCount > FILES_MAX) list.lastElementChild.remove();
    this.#tellIfNone();
  }

  #tellIfNone() {
    find("no-files").hidden = this.#transfers.size > 0 || this.#seen.size > 0;
  }
}
