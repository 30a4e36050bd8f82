// What a browser adds to the pages, all of which can be read and used without it.
"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const number = new Intl.NumberFormat("en");
  const main = $("#main");
  document.documentElement.classList.add("scripted");

  // --- text

  function put(element, text) {
    if (element && element.textContent !== text) element.textContent = text;
  }

  function say(text) {
    put($("#said"), text);
  }

  const two = (value) => String(value).padStart(2, "0");

  function localTimes(root) {
    const today = new Date().toDateString();
    for (const each of $$("time", root)) {
      const at = new Date(each.dateTime);
      const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
      const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
      each.title = each.textContent;
      put(each, at.toDateString() === today ? clock : `${day} ${clock}`);
    }
  }

  function made(html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    localTimes(template.content);
    return template.content.firstElementChild;
  }

  // What gives way to what the server says now takes the focus along, to the same link or field.
  function keepFocus(old, fresh, swap) {
    const focused = document.activeElement;
    const inside = focused !== old && old.contains(focused);
    swap();
    if (!inside) return;
    const named = (each) => `${each.tagName} ${each.id} ${each.getAttribute("href")} ${each.getAttribute("name")}`;
    const same = $$("a, button, input, select, textarea, summary", fresh).find((each) => named(each) === named(focused));
    (same || $("a, button", fresh) || main).focus({ preventScroll: true });
  }

  function replace(old, html) {
    const fresh = made(html);
    keepFocus(old, fresh, () => old.replaceWith(fresh));
  }

  // --- films: one plays at a time, while the pointer or the focus is on it, or until it is stopped where it was clicked

  let playing = null;
  let kept = false;

  function stop() {
    if (playing) playing.remove();
    playing = null;
    kept = false;
  }

  function play(film, keep) {
    if (playing && playing.parentNode === film.parentNode) {
      if (!keep || kept) return;
    }
    stop();
    const video = document.createElement("video");
    video.src = film.href;
    video.playsInline = true;
    video.muted = !keep;
    video.loop = !keep;
    video.controls = keep;
    video.setAttribute("aria-label", film.getAttribute("aria-label"));
    if (!keep) video.tabIndex = -1;
    film.parentNode.append(video);
    playing = video;
    kept = keep;
    if (keep) {
      video.tabIndex = 0;
      video.focus();
    }
    video.play().catch(() => {});
  }

  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const filmAt = (target) => {
    const frame = target.closest && target.closest(".frame");
    return frame && $("a.film", frame);
  };

  document.addEventListener("pointerover", (event) => {
    const film = filmAt(event.target);
    if (film && !kept && !still.matches && event.pointerType !== "touch") play(film, false);
    else if (!film && !kept) stop();
  });
  document.addEventListener("focusin", (event) => {
    const film = event.target.matches("a.film") ? event.target : null;
    if (film && !still.matches) play(film, false);
    else if (!filmAt(event.target)) stop();
  });
  document.addEventListener("click", (event) => {
    const film = filmAt(event.target);
    if (!film || event.ctrlKey || event.metaKey || event.shiftKey || kept) return;
    event.preventDefault();
    play(film, true);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !playing) return;
    const film = filmAt(playing);
    stop();
    if (film) film.focus();
    stop();
  });
  document.addEventListener("error", (event) => {
    if (event.target.matches && event.target.matches(".film img")) event.target.hidden = true; // there is no poster
  }, true);

  // --- live

  const lost = $("#lost");
  let stream = null;
  let pause = 1000;
  let last = "";
  let latest = "";

  async function again() {
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
      if ([401, 404, 410].includes(answer.status)) location.reload(); // the session has ended, or the batch is gone
      if (!answer.ok) return false;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
      if (main.dataset.again && fresh.innerHTML === latest) return true;
      latest = fresh.innerHTML;
      const open = $$("details[open]", main).map((each) => each.textContent);
      stop();
      keepFocus(main, main, () => main.replaceChildren(...fresh.childNodes));
      Object.assign(main.dataset, fresh.dataset);
      $$("details", main).forEach((each) => { each.open = each.open || open.includes(each.textContent); });
      localTimes(main);
      return true;
    } catch {
      return false;
    }
  }

  function numbers(root, values) {
    for (const [name, value] of Object.entries(values)) {
      for (const each of $$(`[data-n="${name}"]`, root)) {
        if (each.tagName === "PROGRESS") each.value = value;
        else put(each, number.format(value));
        const tab = each.closest(".tabs a");
        if (tab) tab.hidden = !value && !tab.hasAttribute("aria-current");
        if (name === "failed" && each.parentNode.classList.contains("bad")) {
          each.parentNode.classList.toggle("none", !value);
        }
      }
    }
  }

  let finished = null;

  function batchChanged(message) {
    const head = $("#head");
    if (head && message.head && head.dataset.state !== message.state) {
      replace(head, message.head);
      say(message.state.slice(message.state.indexOf(" ") + 1));
    }
    numbers(main, message.n);
    if (message.cost && $("#cost")) {
      put($("#cost"), message.cost[1]);
      put($("[data-cost]"), message.cost[0]);
      $("[data-cost]").parentNode.hidden = !message.cost[0];
    }
    const done = message.n.completed + message.n.failed;
    if (finished !== null && done > finished && !message.ended) say(`${done} of ${message.total} videos finished`);
    finished = done;
    for (const [index, progress] of Object.entries(message.bars)) {
      const cell = $(`#v${index}`);
      if (!cell) continue;
      const bar = $("[data-p]", cell);
      if (bar) bar.value = progress;
      put($("[data-pt]", cell), String(progress));
    }
    for (const [index, html] of Object.entries(message.cards)) {
      const cell = $(`#v${index}`);
      if (!cell) continue;
      const fresh = made(html);
      if (!main.dataset.video) replace(cell, html);
      else if (!fresh.classList.contains(`is-${main.dataset.status}`)) again();
    }
    if (message.waits) {
      put($("#wait"), message.waits[""] || "");
      for (const each of $$("[data-w]", main)) {
        put(each, message.waits[each.closest("[data-i]").dataset.i] || "");
      }
    }
    const moments = $("#moments");
    if (moments && message.moments) {
      const list = document.createElement("template");
      list.innerHTML = message.moments;
      localTimes(list.content);
      const fresh = [...list.content.children].filter((each) => !$(`[data-s="${each.dataset.s}"]`, moments));
      moments.prepend(...fresh);
      while (moments.children.length > 12) moments.lastElementChild.remove();
    }
    if (message.ended && main.dataset.filtered !== undefined) again();
  }

  function listChanged(message) {
    if (message.running !== undefined) {
      const section = $("#running");
      section.innerHTML = message.running;
      localTimes(section);
    }
    for (const [id, html] of Object.entries(message.rows || {})) {
      for (const each of $$("[data-batch]").filter((row) => row.dataset.batch === id)) replace(each, html);
    }
    const rows = $("#rows");
    for (const [id, html] of message.new || []) {
      if (rows && rows.dataset.first !== undefined && !$$("[data-batch]", rows).some((row) => row.dataset.batch === id)) {
        rows.prepend(made(html));
      } else if ($("#empty")) again();
    }
    for (const [id, values] of Object.entries(message.b || {})) {
      for (const row of $$("[data-batch]")) if (row.dataset.batch === id) numbers(row, values);
    }
  }

  function listen() {
    const query = main.dataset.since ? `?since=${encodeURIComponent(last || main.dataset.since)}` : "";
    stream = new EventSource(main.dataset.live + query);
    stream.onopen = () => {
      lost.hidden = true;
      pause = 1000;
    };
    stream.onmessage = async (event) => {
      last = event.lastEventId || last;
      const message = JSON.parse(event.data);
      if (message.reload) await again();
      else if (main.dataset.since) batchChanged(message);
      else listChanged(message);
    };
    stream.onerror = () => {
      lost.hidden = false;
      if (stream.readyState !== EventSource.CLOSED) return; // the browser tries by itself
      stream.close();
      setTimeout(async () => {
        if (await again()) last = "";
        listen();
      }, pause);
      pause = Math.min(pause * 2, 15000);
    };
  }

  if (main.dataset.live) {
    listen();
    // A browser keeps only few connections to a place: tabs that nobody sees let theirs go.
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) stream.close();
      else if (stream.readyState === EventSource.CLOSED) listen();
    });
    addEventListener("pagehide", () => stream.close());
    addEventListener("pageshow", (event) => { if (event.persisted) again().then(listen); });
  }
  if (main.dataset.again) {
    setInterval(async () => {
      if (!document.hidden) lost.hidden = await again();
    }, main.dataset.again * 1000);
  }

  // --- a form is sent only where somebody takes it: what was written is not lost on a page of the browser's

  document.addEventListener("submit", async (event) => {
    const sent = event.target;
    if (sent.method !== "post" || sent.dataset.taken) return;
    event.preventDefault();
    try {
      await fetch("/livez", { cache: "no-store" });
      sent.dataset.taken = "yes";
      sent.requestSubmit(event.submitter);
    } catch {
      put(lost, "Connection lost: the form was not sent. Send it again when the service is back.");
      lost.hidden = false;
    } finally {
      delete sent.dataset.taken;
    }
  });

  // --- a new batch: how many videos it would have, and a file that is dropped

  const form = $("#new");
  if (form) {
    const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);
    const most = Number(form.dataset.most);
    let typed = 0;
    const said = (text, bad) => {
      put($("#count"), text);
      $("#count").classList.toggle("bad", bad);
    };
    const ask = async () => {
      const fields = new FormData(form);
      fields.delete("file");
      const asked = ++typed;
      try {
        const answer = await fetch("/new/quote", { method: "POST", body: fields });
        if (!answer.ok || asked !== typed) return;
        const { text, problem } = await answer.json();
        const [, first, rest] = text.match(/^([^.]*)\. ?(.*)$/) || [];
        put($("#price"), rest || "");
        if (form.elements.document.value.trim()) said(first || problem || "No videos", !first);
      } catch {
        // the next key tries again
      }
    };
    let soon = 0;
    const askSoon = () => {
      clearTimeout(soon);
      soon = setTimeout(ask, 400);
    };
    const count = () => {
      const written = form.elements.document.value.trim() !== "";
      if (written) $("#batch-file").hidden = false;
      if (written || form.dataset.priced !== undefined) askSoon();
      if (written) return; // the service reads it
      const prompts = lines(form.prompts.value).filter((line) => line[0] !== "#").length;
      let each = Math.max(1, parseInt(form.takes.value, 10) || 1);
      for (const line of lines(form.matrix.value)) {
        const values = line.slice(line.indexOf("=") + 1).split(",").filter((value) => value.trim());
        each *= Math.max(1, values.length);
      }
      const videos = prompts * each;
      const text = videos === 1 ? "1 video" : `${number.format(videos)} videos`;
      const over = videos > most;
      said(over ? `${text}: at most ${number.format(most)} are allowed (BATCH_MAX_SIZE)` : text, over);
    };
    form.addEventListener("input", count);
    const take = async (file) => {
      if (!file) return;
      if (/\.(jsonl?|ndjson|ya?ml|csv)$/i.test(file.name)) {
        form.elements.document.value = await file.text();
        form.elements.document_name.value = file.name;
        put($("#document-title"), file.name);
        count();
        say(`${file.name} is the batch file`);
        return;
      }
      if (!/\.txt$/i.test(file.name) && !file.type.startsWith("text/")) {
        const text = `${file.name} was not taken: give a text with one prompt per line, or CSV, YAML, JSON or JSON Lines`;
        said(text, true);
        say(text);
        return;
      }
      const before = form.prompts.value.trim();
      form.prompts.value = (before ? before + "\n" : "") + (await file.text()).trim() + "\n";
      count();
      say(`${file.name} was added to the prompts`);
    };
    form.file.addEventListener("change", async () => {
      await take(form.file.files[0]);
      form.file.value = "";
    });
    const drop = $("#drop");
    for (const kind of ["dragover", "dragleave", "drop"]) {
      drop.addEventListener(kind, (event) => {
        if (!event.dataTransfer || ![...event.dataTransfer.types].includes("Files")) return;
        event.preventDefault();
        drop.classList.toggle("over", kind === "dragover");
        if (kind === "drop") take(event.dataTransfer.files[0]);
      });
    }
    count();
  }

  localTimes(document);
  const problems = $("#problems");
  if (problems) problems.focus();
})();
