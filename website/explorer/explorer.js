// The explorer. KNOWN (known.js, written by explore.py) has the questions, and of each file a table: which
// content belongs to which answers. The first half computes; the second half is the page.

"use strict";

function look(table, answers) {
  return table.by[table.on.map((name) => answers[name]).join(",")];
}

/** Why these answers do not go together; undefined if they do. */
function refusal(known, answers) {
  return look(known.refused, answers);
}

/** The files of a variant: by path the number of a content. */
function filesOf(known, answers) {
  const found = {};
  for (const [path, table] of Object.entries(known.files)) {
    const id = look(table, answers);
    if (id !== undefined) found[path] = id;
  }
  return found;
}

/** A content as text. */
function textOf(content) {
  return typeof content === "string" ? content : `${content.bytes} bytes that are no text; SHA-256 ${content.sha256}\n`;
}

function defaults(known) {
  return Object.fromEntries(known.questions.map((question) => [question.name, question.default]));
}

/** The command that makes this variant. */
function command(known, answers) {
  const usual = defaults(known);
  const own = Object.keys(usual).filter((name) => answers[name] !== usual[name]);
  const data = own.map((name) => `    --data ${name}=${answers[name]} \\\n`).join("");
  return `copier copy --defaults --vcs-ref HEAD \\\n${data}    "$PWD" ../flight-delays`;
}

/** The lines of two texts side by side: [left, right], of which one is undefined where a line has no partner. */
function sideBySide(one, other) {
  const a = one.split("\n"), b = other.split("\n");
  let start = 0, end = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const left = a.slice(start, a.length - end), right = b.slice(start, b.length - end);
  // common[i][j]: how many lines left from i and right from j have in common, in order
  const common = Array.from({ length: left.length + 1 }, () => new Uint16Array(right.length + 1));
  for (let i = left.length - 1; i >= 0; i--) {
    for (let j = right.length - 1; j >= 0; j--) {
      common[i][j] = left[i] === right[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
    }
  }
  const rows = a.slice(0, start).map((line) => [line, line]);
  let removed = [], added = [];
  const flush = () => {
    for (let k = 0; k < Math.max(removed.length, added.length); k++) rows.push([removed[k], added[k]]);
    removed = [];
    added = [];
  };
  for (let i = 0, j = 0; i < left.length || j < right.length;) {
    if (i < left.length && j < right.length && left[i] === right[j]) {
      flush();
      rows.push([left[i++], right[j++]]);
    } else if (j === right.length || (i < left.length && common[i + 1][j] >= common[i][j + 1])) removed.push(left[i++]);
    else added.push(right[j++]);
  }
  flush();
  return rows.concat(a.slice(a.length - end).map((line) => [line, line]));
}

/** Reads answers, other answers and a path from an address; what is no answer is left at the default. */
function fromHash(known, hash) {
  const said = new URLSearchParams(hash.replace(/^#/, ""));
  const read = (prefix, usual) => Object.fromEntries(known.questions.map(({ name, choices }) => {
    const value = said.get(prefix + name);
    return [name, choices.some((choice) => choice[1] === value) ? value : usual[name]];
  }));
  const answers = read("", defaults(known));
  return { answers, others: said.has("compare") ? read("other.", answers) : null, path: said.get("file") || "README.md" };
}

function toHash(known, { answers, others, path }) {
  const said = new URLSearchParams();
  const write = (prefix, values, usual) => {
    for (const { name } of known.questions) if (values[name] !== usual[name]) said.set(prefix + name, values[name]);
  };
  write("", answers, defaults(known));
  if (others) {
    said.set("compare", "1");
    write("other.", others, answers);
  }
  said.set("file", path);
  return `#${said}`;
}

if (typeof module !== "undefined") module.exports = { refusal, filesOf, command, sideBySide, fromHash, toHash };
else start(KNOWN);

// The page

function start(known) {
  const at = (id) => document.getElementById(id);
  let state = fromHash(known, location.hash);
  let open = new Set(), focused = "", rows = [];

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  /** A select for the answers, or the other answers, to a question. */
  function select(question, which) {
    const made = element("select", { id: `${which}-${question.name}` });
    made.append(...question.choices.map(([label, value]) => element("option", { value }, label)));
    made.addEventListener("change", () => {
      state[which] = { ...state[which], [question.name]: made.value };
      if (state.others) unfold();
      show();
    });
    return made;
  }

  for (const question of known.questions) {
    const label = element("label", { htmlFor: `answers-${question.name}` }, question.help, " ", element("code", {}, question.name));
    const other = select(question, "others");
    other.setAttribute("aria-label", `${question.help} The other answers`);
    at("questions").append(element("div", { className: "question" }, label, select(question, "answers"), other));
  }

  /** Sets the selects; an answer that would be refused beside the others says so. */
  function showAnswers() {
    at("compare").checked = Boolean(state.others);
    for (const { name, choices } of known.questions) {
      for (const which of ["answers", "others"]) {
        const made = at(`${which}-${name}`), values = state[which] ?? state.answers;
        choices.forEach(([label, value], i) => {
          const refused = value !== values[name] && refusal(known, { ...values, [name]: value });
          made.options[i].text = refused ? `${label} - refused` : label;
        });
        made.value = values[name];
      }
      at(`others-${name}`).hidden = !state.others;
      at(`answers-${name}`).parentElement.classList.toggle("differs", Boolean(state.others) && state.others[name] !== state.answers[name]);
    }
    at("sides").hidden = !state.others;
  }

  /** The paths to list, each with its mark. */
  function listed() {
    const mine = filesOf(known, state.answers);
    if (!state.others) return { ...Object.fromEntries(Object.keys(mine).map((path) => [path, ""])), ".copier-answers.yml": "" };
    const theirs = filesOf(known, state.others);
    const all = Object.keys({ ...mine, ...theirs }).filter((path) => mine[path] !== theirs[path]);
    return Object.fromEntries(all.map((path) => [path, !(path in theirs) ? "only yours" : !(path in mine) ? "only other" : "differs"]));
  }

  /** The rows of the tree: folders before files, in the order of their names. */
  function walk(paths, folder, level) {
    const inside = Object.keys(paths).filter((path) => path.startsWith(folder));
    const names = [...new Set(inside.map((path) => path.slice(folder.length).replace(/\/.*/, "/")))];
    names.sort((a, b) => b.endsWith("/") - a.endsWith("/") || (a < b ? -1 : 1));
    for (const name of names) {
      const path = folder + name, isFolder = name.endsWith("/");
      const many = isFolder && inside.filter((one) => one.startsWith(path)).length;
      rows.push({ path, name, level, isFolder, many, mark: paths[path] });
      if (isFolder && open.has(path)) walk(paths, path, level + 1);
    }
  }

  function showTree(paths) {
    rows = [];
    walk(paths, "", 1);
    if (!rows.some(({ path }) => path === focused)) focused = rows.length ? rows[0].path : "";
    at("tree").replaceChildren(...rows.map((row) => {
      const made = element("div", { className: "row", tabIndex: row.path === focused ? 0 : -1 }, row.name);
      made.setAttribute("role", "treeitem");
      made.setAttribute("aria-level", row.level);
      made.style.setProperty("--level", row.level);
      made.dataset.path = row.path;
      if (row.isFolder) made.setAttribute("aria-expanded", open.has(row.path));
      else made.setAttribute("aria-selected", row.path === state.path);
      const beside = row.isFolder ? row.many : row.mark;
      if (beside) made.append(" ", element("small", {}, String(beside)));
      made.addEventListener("click", () => take(row));
      return made;
    }));
  }

  function focus(path) {
    focused = path;
    for (const row of at("tree").children) {
      row.tabIndex = row.dataset.path === path ? 0 : -1;
      if (!row.tabIndex) row.focus();
    }
  }

  /** Opens or closes a folder, or shows a file. */
  function take(row) {
    if (!row.isFolder) state.path = row.path;
    else if (!open.delete(row.path)) open.add(row.path);
    show();
    focus(row.path);
  }

  at("tree").addEventListener("keydown", (event) => {
    const now = rows.findIndex(({ path }) => path === focused), row = rows[now];
    const is = row?.isFolder && open.has(row.path);
    const to = { ArrowDown: now + 1, ArrowUp: now - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (to !== undefined) focus(rows[Math.min(Math.max(to, 0), rows.length - 1)].path);
    else if (["Enter", " "].includes(event.key)) take(row);
    else if (event.key === "ArrowRight" && row.isFolder) is ? focus(rows[now + 1].path) : take(row);
    else if (event.key === "ArrowLeft" && is) take(row);
    else if (event.key === "ArrowLeft" && row.level > 1) focus(rows.slice(0, now).findLast(({ level }) => level < row.level).path);
    else return;
    event.preventDefault();
  });

  function contentOf(answers) {
    const id = filesOf(known, answers)[state.path];
    return id === undefined ? "" : textOf(known.contents[id]);
  }

  function showFile(paths) {
    at("path").textContent = state.path;
    if (!(state.path in paths)) {
      at("content").textContent = Object.keys(paths).length ? "Choose a file." : "Both answers make the same files.";
      at("path").textContent = "";
    } else if (state.path === ".copier-answers.yml") {
      at("content").textContent = "Copier keeps your answers here, with the template's address and version, for make update.";
    } else if (!state.others) {
      at("content").replaceChildren(element("pre", {}, contentOf(state.answers)));
    } else {
      at("content").replaceChildren(difference(sideBySide(contentOf(state.answers), contentOf(state.others))));
    }
  }

  /** Two columns; of what is the same, three lines around each difference. */
  function difference(pairs) {
    const near = pairs.map((_, i) => pairs.slice(Math.max(0, i - 3), i + 4).some(([a, b]) => a !== b));
    const body = element("tbody");
    pairs.forEach(([a, b], i) => {
      if (!near[i]) {
        if (i === 0 || near[i - 1]) body.append(element("tr", {}, element("td", { colSpan: 2, className: "same" }, "the same")));
        return;
      }
      const cell = (line, tag) => element("td", {}, line === undefined ? "" : a === b ? line : element(tag, {}, line || " "));
      body.append(element("tr", {}, cell(a, "del"), cell(b, "ins")));
    });
    const head = element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Your answers"), element("th", { scope: "col" }, "The other answers")));
    return element("table", {}, head, body);
  }

  function summary(paths) {
    const marks = Object.values(paths), count = (mark) => marks.filter((one) => one === mark).length;
    if (!state.others) return `${marks.length} files.`;
    const parts = `${count("differs")} in their content, ${count("only yours")} only with your answers, ${count("only other")} only with the others`;
    return `Files that differ: ${marks.length} (${parts}).`;
  }

  function show() {
    showAnswers();
    const whyNot = state.others && refusal(known, state.others);
    const why = refusal(known, state.answers) || (whyNot && `The other answers: ${whyNot}`) || "";
    at("refused").textContent = why;
    at("made").hidden = Boolean(why);
    const paths = why ? {} : listed();
    // In a comparison the first file that differs is shown, not one that is the same.
    if (state.others && !(state.path in paths)) state.path = Object.keys(paths).find((path) => paths[path] === "differs") ?? state.path;
    history.replaceState(null, "", toHash(known, state));
    at("status").textContent = why ? "" : summary(paths);
    at("command").textContent = command(known, state.answers);
    showTree(paths);
    showFile(paths);
  }

  /** Opens the folders of what is shown: in a comparison all, else those of the chosen file. */
  function unfold() {
    const paths = state.others ? Object.keys(listed()) : [state.path];
    for (const path of paths) path.split("/").slice(0, -1).forEach((_, i, all) => open.add(`${all.slice(0, i + 1).join("/")}/`));
  }

  at("compare").addEventListener("change", () => {
    state.others = at("compare").checked ? { ...state.answers } : null;
    open = new Set();
    unfold();
    show();
  });
  for (const [id, text] of [["copy", () => at("command").textContent], ["share", () => location.href]]) {
    at(id).addEventListener("click", async () => {
      let said = "Copied.";
      try {
        await navigator.clipboard.writeText(text());
      } catch {
        said = "This browser does not let the page copy: select the text, or take the address.";
      }
      at("status").textContent = said;
    });
  }
  window.addEventListener("hashchange", () => {
    state = fromHash(known, location.hash);
    unfold();
    show();
  });
  unfold();
  show();
}
