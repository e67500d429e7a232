// The actions for the selected session: its menu, and the dialog that asks for confirmation or for a text.

// What the open dialog does; null if it is closed.
let openedAction = null;

// Opens the dialog. `action` gets the text of the field; without `label` there is no field.
function openAction({ title, text = "", label = "", type = "text", value = "", submit, isDanger = false, action }) {
  openedAction = action;
  setText(byId("action-title"), title);
  setText(byId("action-text"), text);
  setText(byId("action-label"), label);
  show(byId("action-label"), label !== "");
  show(byId("action-field"), label !== "");
  show(byId("action-problem"), false);
  const field = byId("action-field");
  field.type = type;
  field.value = value;
  setText(byId("action-submit"), submit);
  byId("action-submit").className = isDanger ? "danger" : "main";
  byId("action-dialog").showModal();
  if (label) field.select();
}

async function runAction() {
  byId("action-submit").disabled = true;
  try {
    await openedAction(byId("action-field").value);
    byId("action-dialog").close();
  } catch (error) {
    setText(byId("action-problem"), error instanceof IncompleteAnswer ? error.message : messageOf(error));
    show(byId("action-problem"), true);
  }
  byId("action-submit").disabled = false;
}

const pathOf = (record) => `${API}/sessions/${encodeURIComponent(record.sessionId)}`;

function renameSession(record, title) {
  if (title.trim() === "") throw new IncompleteAnswer("Give a title.");
  return changeSession(record, { title });
}

const changeSession = (record, body) => callApi(pathOf(record), { method: "PATCH", body });

function drawMenu() {
  const record = sessions.current;
  if (record === null) return toggleMenu(false);
  const isOpen = record.status !== "closed";
  show(byId("rename-session"), !record.archived);
  show(byId("fork-session"), record.lastTurnId !== null && !record.archived);
  show(byId("revert-session"), isOpen && record.lastTurnId !== null && record.currentTurnId === null && !record.archived);
  setText(byId("archive-session"), record.archived ? "Unarchive" : "Archive");
  show(byId("close-session"), isOpen);
}

function toggleMenu(isShown = byId("menu").hidden) {
  if (isShown) drawMenu();
  show(byId("menu"), isShown);
  byId("show-menu").setAttribute("aria-expanded", String(isShown));
}

// The arrow keys move within the menu.
function onMenuKey(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const items = [...byId("menu").querySelectorAll("button:not([hidden])")];
  items.at((items.indexOf(document.activeElement) + step) % items.length)?.focus();
}

// Runs an action of the menu that needs no dialog.
async function runMenuAction(action) {
  const record = sessions.current;
  byId("show-menu").focus();
  notice("");
  try {
    await action(record);
  } catch (error) {
    notice(messageOf(error));
  }
}

const MENU_ACTIONS = {
  "rename-session": (record) =>
    openAction({ title: "Rename this session", label: "Title", value: record.title ?? "", submit: "Rename", action: (title) => renameSession(record, title) }),
  "fork-session": async (record) => {
    const { session } = await callApi(`${API}/sessions`, { body: { forkFrom: record.sessionId } });
    if (sessions.get(session.sessionId) === null) sessions.records.set(session.sessionId, session);
    openSession(session.sessionId);
    byId("prompt").focus();
  },
  "revert-session": (record) =>
    openAction({
      title: "Remove the last turn?",
      text: "Codex forgets the last turn of this thread. Files stay as they are.",
      submit: "Remove it",
      isDanger: true,
      action: () => callApi(`${API}/app-server/call`, { body: { sessionId: record.sessionId, method: "thread/revert", params: { beforeTurnId: record.lastTurnId } } }),
    }),
  "export-session": exportSession,
  "copy-id": async (record) => {
    try {
      await navigator.clipboard.writeText(record.sessionId);
      announce("The session ID is copied.");
    } catch {
      // The browser does not let the page write to the clipboard.
      notice(record.sessionId);
    }
  },
  "archive-session": (record) => changeSession(record, { archived: !record.archived }),
  "close-session": (record) =>
    openAction({
      title: "Close this session?",
      text: `It then accepts no more turns and stays readable; turns in its queue are removed.${record.currentTurnId ? " The running turn is interrupted." : ""}`,
      submit: "Close it",
      isDanger: true,
      action: () => callApi(`${pathOf(record)}${sessions.get(record.sessionId)?.currentTurnId ? "?interrupt=true" : ""}`, { method: "DELETE" }),
    }),
};

// Marks the turns on the page that the thread no longer has. Codex reports that it removed turns, but not which.
async function markRevertedTurns() {
  const it = conversation;
  if (it === null) return;
  try {
    const body = { sessionId: it.sessionId, method: "thread/turns/list", params: { limit: 100, sortDirection: "desc", itemsView: "notLoaded" } };
    const { result } = await callApi(`${API}/app-server/call`, { body });
    const kept = new Set(result.data.map((turn) => turn.id));
    const oldest = result.nextCursor === null ? "" : [...kept].at(-1);
    for (const [id, turn] of it.turns) {
      // The IDs of turns rise with time; older turns than the list has are not known.
      const isReverted = id > oldest && !kept.has(id) && turn.end.dataset.state !== "inProgress";
      turn.section.classList.toggle("reverted", isReverted);
    }
  } catch {
    // The session may be closed, or Codex not running: then the page shows the turns unmarked.
  }
}
