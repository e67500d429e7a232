// What waits for the user over all sessions: the counter in the bar, the title, the icon, and notifications.

const NOTIFY_NAME = "codexd.notify";

// The shown notification of each request.
const notifications = new Map();

// A request without a listed session is shown whatever session is selected.
const isShownHere = (request) => request.sessionId === sessions.chosen || sessions.get(request.sessionId) === null;

// The request that the user was led to last: a click on the counter takes the focus from its card.
let visitedId = null;

// Goes to the request after the focused or last visited one, else to the first one of the selected session.
function goToNextRequest() {
  const waiting = [...requests.pending.values()];
  if (waiting.length === 0) return;
  const focused = waiting.findIndex(({ requestId }) => requests.cards.get(requestId)?.element.contains(document.activeElement));
  const visited = waiting.findIndex((request) => request.requestId === visitedId && isShownHere(request));
  const at = focused < 0 ? visited : focused;
  goToRequest(waiting[at < 0 ? Math.max(0, waiting.findIndex(isShownHere)) : (at + 1) % waiting.length]);
}

function goToRequest(request) {
  visitedId = request.requestId;
  if (!isShownHere(request)) openSession(request.sessionId);
  document.body.dataset.view = "conversation";
  requests.cards.get(request.requestId)?.element.focus();
}

// What a request asks, in a few words.
function shortTitleOf(request) {
  const command = request.params?.commandActions?.[0]?.command ?? commandOf(request.params ?? {});
  const isCommand = ["item/commandExecution/requestApproval", "execCommandApproval"].includes(request.method) && request.params?.kind !== "writeStdin";
  return isCommand && command ? `Run ${escapeInvisible(baseName(command.trim().split(/\s/)[0]))}?` : titleOf(request);
}

// The name of the session or, with `isShort`, of its directory: a tab has space for a few words.
function sessionNameOf(request, isShort) {
  const record = sessions.get(request.sessionId);
  if (record === null) return "Codex";
  return escapeInvisible((isShort && baseName(record.cwd)) || nameOf(record));
}

function drawWaiting() {
  const waiting = [...requests.pending.values()];
  const count = waiting.length;
  setText(byId("waiting"), `${count} ${count === 1 ? "waits" : "wait"}`);
  show(byId("waiting"), count > 0);
  const record = sessions.current;
  const name = record ? `${escapeInvisible(nameOf(record))} – codexd` : "codexd";
  const title = count > 0 ? `(${count}) ${sessionNameOf(waiting[0], true)}: ${shortTitleOf(waiting[0])} – codexd` : name;
  if (document.title !== title) document.title = title;
  const icon = byId("icon");
  const wanted = count > 0 ? icon.dataset.waiting : icon.dataset.plain;
  if (icon.href !== wanted) icon.href = wanted;
}

const isNotifying = () => "Notification" in window && Notification.permission === "granted" && localStorage.getItem(NOTIFY_NAME) === "on";

function drawNotify() {
  show(byId("notify"), "Notification" in window);
  byId("notify").setAttribute("aria-pressed", String(isNotifying()));
}

// Turns the notifications on or off. The browser asks for the permission only at a click.
async function toggleNotify() {
  const isOn = !isNotifying();
  if (isOn && (await Notification.requestPermission()) !== "granted") {
    notice("The browser does not allow notifications of this page; its settings for this site can allow them.");
  } else {
    localStorage.setItem(NOTIFY_NAME, isOn ? "on" : "off");
    if (isOn) announce("Codex's requests are shown as notifications while this page is hidden.");
  }
  drawNotify();
}

function notifyOf(request) {
  if (!document.hidden || !isNotifying()) return;
  try {
    const shown = new Notification(`${sessionNameOf(request, false)}: ${shortTitleOf(request)}`, { body: titleOf(request), tag: request.requestId });
    shown.onclick = () => {
      window.focus();
      if (requests.pending.has(request.requestId)) goToRequest(request);
      shown.close();
    };
    notifications.set(request.requestId, shown);
  } catch {
    // Some browsers of phones show notifications of installed pages only.
  }
}

function endNotification(requestId) {
  notifications.get(requestId)?.close();
  notifications.delete(requestId);
}
