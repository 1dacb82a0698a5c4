/* SPDX-License-Identifier: Apache-2.0 */
/* The units that are most active in a span of the text, which is selected with the mouse, with keys or by numbers. */
"use strict";
(function () {
  const source = document.getElementById("unit-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const byId = (id) => document.getElementById("unit-" + id);
  const text = byId("text"), shown = byId("shown"), from = byId("from"), to = byId("to");
  const last = data.tokens.length - 1;
  const STRONGEST = 0.5, LISTED = 10;
  let anchor = 0, head = 0;

  const spans = data.tokens.map((token, i) => {
    const span = document.createElement("span");
    span.textContent = token === "\n" ? "↵\n" : token.replace(/[\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
    span.dataset.i = i;
    text.append(span, data.gaps && token !== "\n" ? " " : "");
    return span;
  });
  data.unit.forEach((unit, k) => shown.append(new Option("unit " + unit, k)));
  const means = data.activity.map((row) => row.reduce((sum, a) => sum + a, 0) / row.length);
  const number = (hundredths) => (hundredths / 100 * data.scale).toFixed(3).replace("-", "−");

  function colour() {
    const row = data.activity[shown.value];
    spans.forEach((span, i) => {
      span.classList.toggle("up", row[i] > 0);
      span.classList.toggle("down", row[i] < 0);
      span.style.setProperty("--a", (Math.abs(row[i]) / 100 * STRONGEST).toFixed(3));
    });
  }

  function list(first, end) {
    const length = end - first + 1;
    const active = data.activity.map((row, k) => {
      let sum = 0, size = 0;
      for (let i = first; i <= end; i++) { sum += row[i]; size += Math.abs(row[i]); }
      return { k, mean: sum / length, size: size / length };
    }).sort((a, b) => b.size - a.size).slice(0, LISTED);
    const body = byId("most").tBodies[0];
    body.replaceChildren(...active.map((unit) => {
      const row = document.createElement("tr"), button = document.createElement("button");
      button.type = "button";
      button.className = "unit";
      button.textContent = "unit " + data.unit[unit.k];
      button.title = "Show its colours";
      button.addEventListener("click", () => { shown.value = unit.k; colour(); });
      row.insertCell().append(button);
      for (const value of [unit.mean, means[unit.k]]) {
        const cell = row.insertCell();
        cell.className = "num";
        cell.textContent = number(value);
      }
      return row;
    }));
    const words = data.tokens.slice(first, Math.min(end + 1, first + 60)).join(data.gaps ? " " : "");
    byId("span").textContent = "Tokens " + (first + 1) + " to " + (end + 1) + ": “" + words + (length > 60 ? "…" : "") +
      "”. Most active: unit " + data.unit[active[0].k] + ", mean " + number(active[0].mean) + ".";
  }

  function select(newAnchor, newHead) {
    const clamp = (i) => Math.max(0, Math.min(last, i));
    anchor = clamp(newAnchor);
    head = clamp(newHead);
    const first = Math.min(anchor, head), end = Math.max(anchor, head);
    spans.forEach((span, i) => {
      span.classList.toggle("in", i >= first && i <= end);
      span.classList.toggle("at", i === head);
    });
    from.value = first + 1;
    to.value = end + 1;
    list(first, end);
  }

  const indexOf = (node) => {
    const span = (node && node.nodeType === Node.TEXT_NODE ? node.parentNode : node);
    return span && text.contains(span) && span.dataset.i !== undefined ? Number(span.dataset.i) : -1;
  };
  document.addEventListener("selectionchange", () => {
    const chosen = document.getSelection();
    const a = indexOf(chosen.anchorNode), b = indexOf(chosen.focusNode);
    if (a >= 0 && b >= 0 && !chosen.isCollapsed) select(a, b);
  });
  text.addEventListener("click", (event) => {
    const i = indexOf(event.target);
    if (i >= 0 && document.getSelection().isCollapsed) select(event.shiftKey ? anchor : i, i);
  });
  text.addEventListener("keydown", (event) => {
    const line = () => {
      const top = spans[head].offsetTop, left = spans[head].offsetLeft, way = event.key === "ArrowDown" ? 1 : -1;
      let i = head;
      while (spans[i] && spans[i].offsetTop === top) i += way;
      if (!spans[i]) return head;
      const goal = spans[i].offsetTop;
      let best = i;
      for (; spans[i] && spans[i].offsetTop === goal; i += way)
        if (Math.abs(spans[i].offsetLeft - left) < Math.abs(spans[best].offsetLeft - left)) best = i;
      return best;
    };
    const moves = { ArrowLeft: () => head - 1, ArrowRight: () => head + 1, ArrowUp: line, ArrowDown: line,
      Home: () => 0, End: () => last };
    const move = moves[event.key];
    if (!move || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const i = move();
    document.getSelection().removeAllRanges();
    select(event.shiftKey ? anchor : i, i);
    spans[head].scrollIntoView({ block: "nearest" });
  });
  /* The number that was not written gives way where the first comes after the last. */
  const index = (input) => (Number(input.value) || 1) - 1;
  from.addEventListener("change", () => select(index(from), Math.max(index(from), index(to))));
  to.addEventListener("change", () => select(Math.min(index(from), index(to)), index(to)));
  shown.addEventListener("change", colour);

  byId("view").hidden = false;
  colour();
  select(0, Math.min(last, 20));
})();
