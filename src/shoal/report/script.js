"use strict";
(() => {
  const grid = document.getElementById("grid");
  const inspector = document.getElementById("inspector");
  const dialog = document.getElementById("large");
  const numbers = document.querySelector("#numbers tbody");
  const cells = [...grid.children];
  const byIndex = new Map(cells.map((cell) => [cell.dataset.i, cell]));
  document.querySelectorAll(".sort, .js").forEach((e) => { e.hidden = false; });
  // Without a script the numbers are the tooltip; with one they are the label.
  cells.forEach((cell) => {
    cell.setAttribute("aria-label", cell.title);
    cell.removeAttribute("title");
  });

  const write = (element, cell) => {
    const [first, ...rest] = cell.getAttribute("aria-label").split(" · ");
    const name = document.createElement("b");
    name.textContent = first;
    element.replaceChildren(name, ...rest.map((fact) => {
      const line = document.createElement("span");
      line.textContent = fact;
      return line;
    }));
  };
  const place = (tile, cell) => {
    for (const axis of ["--x", "--y"]) tile.style.setProperty(axis, cell.style.getPropertyValue(axis));
  };
  const fill = (panel, cell) => {
    write(panel.querySelector(".facts"), cell);
    const near = panel.querySelector(".near");
    if (!near) return;
    const mate = byIndex.get(cell.dataset.n);
    place(panel.querySelector(".this"), cell);
    near.hidden = !mate;
    if (mate) place(near.querySelector(".tile"), mate);
  };

  let on = cells[0];
  let mate = null;
  const point = (cell) => {
    on.classList.remove("on");
    if (mate) mate.classList.remove("mate");
    on = cell;
    mate = byIndex.get(cell.dataset.n) || null;
    on.classList.add("on");
    if (mate) mate.classList.add("mate");
    if (inspector) fill(inspector, cell);
  };
  if (inspector) fill(inspector, on);

  // One tab stop for the whole grid; the arrow keys move within it.
  let stop = cells[0];
  stop.tabIndex = 0;
  const hold = (cell) => {
    stop.tabIndex = -1;
    stop = cell;
    stop.tabIndex = 0;
  };
  const visible = () => [...grid.children].filter((cell) => !cell.hidden);
  const rowLength = () => {
    const list = visible();
    const next = list.findIndex((cell) => cell.offsetTop !== list[0].offsetTop);
    return next < 0 ? list.length : next;
  };
  grid.addEventListener("pointerover", (event) => {
    const cell = event.target.closest("[data-i]");
    if (cell) point(cell);
  });
  grid.addEventListener("focusin", (event) => {
    const cell = event.target.closest("[data-i]");
    if (cell) { hold(cell); point(cell); }
  });
  grid.addEventListener("keydown", (event) => {
    const list = visible();
    const at = list.indexOf(event.target);
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -rowLength(), ArrowDown: rowLength() };
    const to = { Home: 0, End: list.length - 1 }[event.key] ?? at + (moves[event.key] ?? NaN);
    if (at < 0 || !list[to]) return;
    event.preventDefault();
    list[to].focus();
  });

  // An atom has an address, #atom=17, that can be sent to somebody.
  const address = (hash) => {
    try { history.replaceState(null, "", hash || location.pathname); } catch { /* a page without one */ }
  };
  dialog.addEventListener("close", () => address(""));

  // What is told of an atom where it is enlarged: its codes, what goes with it, rows that fire it.
  const data = document.getElementById("portraits");
  const portraits = data ? JSON.parse(data.textContent) : {};
  const sheet = document.getElementById("shots");
  const shots = sheet ? JSON.parse(sheet.textContent) : { numbers: [] };
  const shotOf = new Map(shots.numbers.map((row, place) => [row, place]));
  const portray = (index) => {
    const panel = document.getElementById("portrait");
    const found = portraits[index];
    if (!panel) return;
    panel.hidden = !found;
    if (!found) return;
    const drawing = panel.querySelector("svg");
    const most = Math.max(...found.histogram);
    const wide = 240 / found.histogram.length;
    drawing.setAttribute("aria-label", `Histogram of its codes, from ${found.range[0]} to ${found.range[1]}`);
    drawing.replaceChildren(...found.histogram.map((count, place) => {
      const bar = document.createElementNS(drawing.namespaceURI, "rect");
      const height = 60 * count / most;
      const at = { x: place * wide, y: 60 - height, width: wide - 1, height };
      for (const [name, to] of Object.entries(at)) bar.setAttribute(name, to);
      return bar;
    }));
    const [low, , high] = panel.querySelectorAll("figcaption span");
    [low.textContent, high.textContent] = found.range;
    const [lost, together, top, quantiles] = panel.querySelectorAll("td");
    lost.textContent = found.lost ? `${found.lost} of the variance` : "–";
    together.replaceChildren(...found.together.flatMap(([other, share]) => {
      const name = document.createElement(byIndex.has(String(other)) ? "button" : "span");
      name.textContent = other;
      if (name.localName === "button") {
        name.type = "button";
        name.setAttribute("aria-label", `Atom ${other}`);
        name.addEventListener("click", () => visit(String(other)));
      }
      return [name, ` on ${share} of its rows `];
    }));
    if (!found.together.length) together.textContent = "–";
    // Rows are drawn where there are pictures of all of a list; of others there are the numbers.
    const picture = ([row, code]) => {
      const at = shotOf.get(row);
      const shot = document.createElement("span");
      shot.className = "shot";
      shot.title = `row ${row}, code ${code}`;
      shot.setAttribute("role", "img");
      shot.setAttribute("aria-label", shot.title);
      const [left, up] = [at % shots.columns, Math.floor(at / shots.columns)];
      shot.style.backgroundPosition = `${-left * shots.width}px ${-up * shots.height}px`;
      return shot;
    };
    const rows = (list) => list.every(([row]) => shotOf.has(row)) ? list.map(picture)
      : [list.map(([row, code]) => `${row} (${code})`).join(", ")];
    top.replaceChildren(...rows(found.top));
    quantiles.replaceChildren(...rows(found.quantiles));
  };

  let shown = null;
  const enlarge = (cell) => {
    shown = cell;
    fill(dialog, cell);
    portray(cell.dataset.i);
    const drawing = cell.querySelector("svg");
    if (drawing) document.getElementById("large-picture").replaceChildren(drawing.cloneNode(true));
    if (!dialog.open) dialog.showModal();
    address(`#atom=${cell.dataset.i}`);
  };
  const move = (by) => {
    const list = visible();
    const cell = list[list.indexOf(shown) + by];
    if (cell) { hold(cell); point(cell); enlarge(cell); }
  };
  grid.addEventListener("click", (event) => {
    const cell = event.target.closest("[data-i]");
    if (cell) enlarge(cell);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
    const by = event.target.dataset.move;
    if (by) move(Number(by));
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") move(-1);
    if (event.key === "ArrowRight") move(1);
  });

  const visit = (index) => {
    const cell = byIndex.get(index);
    if (!cell) return false;
    hold(cell); point(cell); enlarge(cell);
    return true;
  };
  const linked = () => {
    const found = /^#atom=([0-9]+)$/.exec(location.hash);
    if (found) visit(found[1]);
  };
  addEventListener("hashchange", linked);
  linked();
  const field = document.getElementById("find");
  field.addEventListener("input", () => field.setCustomValidity(""));
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || field.value === "" || visit(String(Number(field.value)))) return;
    field.setCustomValidity("No such atom is drawn here.");
    field.reportValidity();
  });

  // Where a certificate is known: only the atoms with one verdict.
  const only = document.getElementById("only");
  const select = () => {
    for (const each of [...grid.children, ...numbers.children]) {
      each.hidden = only.value !== "" && each.dataset.v !== only.value;
    }
    const first = visible()[0];
    if (first) { hold(first); point(first); }
  };
  if (only) {
    only.addEventListener("change", select);
    if (only.value) select();  // a browser may remember what was chosen
  }

  const value = (element, key) => (key === "i" ? -Number(element.dataset.i) : Number(element.dataset.k.split(" ")[key]));
  const sort = (parent, key) => {
    const list = [...parent.children].map((element) => [value(element, key), element]);
    list.sort((a, b) => b[0] - a[0]);
    parent.append(...list.map((pair) => pair[1]));
  };
  const buttons = [...document.querySelectorAll("[data-sort]")];
  buttons.forEach((button) => button.addEventListener("click", () => {
    buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    sort(grid, button.dataset.sort);
    sort(numbers, button.dataset.sort);
  }));
})();
