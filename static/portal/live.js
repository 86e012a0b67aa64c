// Keep the page of a deployment or a step up to date: told by a stream of events, or by asking where
// there is none. What a tool said is shown as text, whatever it is.
"use strict";

(() => {
  const HIDDEN_SECONDS = 30;
  const ASK_SECONDS = 2;
  const PAINT_MILLISECONDS = 40;
  const MOST_CHARACTERS = 2_000_000;

  const log = document.getElementById("log");
  const state = document.getElementById("log-state");
  let source = null;
  let after = log.querySelector("[name=seen]").value;
  let waiting = [];
  let painting = 0;
  let leaving = 0;
  let asking = 0;
  let over = false;
  let turn = [...log.querySelectorAll("[data-turn]")].pop()?.dataset.turn;
  let size = log.textContent.length;

  const renew = (id) => htmx.trigger(`#${id}`, "renew");
  const scrollDown = (pane) => (pane.scrollTop = pane.scrollHeight);

  function open() {
    if (source || asking || over || document.hidden) return;
    const url = new URL(log.dataset.events, location);
    url.searchParams.set("after", after);
    source = new EventSource(url);
    source.onopen = () => (state.textContent = "live");
    source.onerror = () => {
      state.textContent = "reconnecting";
      if (source.readyState === EventSource.CLOSED) ask();
    };
    source.addEventListener("log", (event) => {
      after = event.lastEventId;
      waiting.push(...JSON.parse(event.data));
      painting ||= setTimeout(paint, PAINT_MILLISECONDS);
    });
    source.addEventListener("status", () => renew("live"));
    source.addEventListener("end", () => {
      over = true;
      close();
      renew("live");
    });
  }

  function close() {
    source?.close();
    source = null;
    state.textContent = "";
  }

  function ask() {
    close();
    asking = setInterval(() => {
      if (document.hidden) return;
      if (document.querySelector("#live [data-ended]")) clearInterval(asking);
      else renew("live");
      renew("log");
    }, ASK_SECONDS * 1000);
  }

  function paint() {
    painting = 0;
    const pane = log.querySelector("pre");
    const follows = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 40;
    const said = document.createDocumentFragment();
    for (const chunk of waiting) {
      const whose = `${chunk.step}/${chunk.attempt}`;
      if (whose !== turn) {
        turn = whose;
        const title = `${chunk.action} ${chunk.resource} (attempt ${chunk.attempt})`;
        span(said, "log-turn", title);
      }
      span(said, `log-${chunk.level}`, chunk.text);
    }
    waiting = [];
    pane.append(said);
    shorten(pane);
    if (follows) scrollDown(pane);
  }

  function span(parent, name, text) {
    const element = document.createElement("span");
    element.className = name;
    element.textContent = text;
    size += text.length;
    return parent.appendChild(element);
  }

  function shorten(pane) {
    while (size > MOST_CHARACTERS && pane.childElementCount > 1) {
      size -= pane.firstChild.textContent.length;
      pane.firstChild.remove();
      document.getElementById("log-shortened").hidden = false;
    }
  }

  // A browser has six connections to a server for all its tabs: one that nobody sees gives its back.
  document.addEventListener("visibilitychange", () => {
    clearTimeout(leaving);
    if (document.hidden) leaving = setTimeout(close, HIDDEN_SECONDS * 1000);
    else open();
  });
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", open);

  scrollDown(log.querySelector("pre"));
  if (log.dataset.events && window.EventSource) open();
  else ask();
})();
