// The threads that Codex has on this machine, those of the terminal included; each can be opened as a session.

const THREADS_AT_ONCE = 20;

let nextThreads = null;

// Reads a page of the threads that match the search, the last used ones first; `isFirst` replaces the list.
async function readThreads(isFirst) {
  const query = new URLSearchParams({ limit: String(THREADS_AT_ONCE) });
  const words = byId("search").value.trim();
  if (words) query.set("search", words);
  if (!isFirst) query.set("after", nextThreads);
  setText(byId("threads-note"), "");
  try {
    const { threads, next } = await callApi(`${API}/threads?${query}`);
    nextThreads = next;
    if (isFirst) byId("threads").replaceChildren();
    byId("threads").append(...threads.map(threadRow));
    if (isFirst && threads.length === 0) setText(byId("threads-note"), words ? "No thread matches." : "No threads.");
  } catch (error) {
    nextThreads = null;
    setText(byId("threads-note"), messageOf(error));
  }
  show(byId("more-threads"), nextThreads !== null);
}

function threadRow(thread) {
  const button = make(
    "button",
    { type: "button", class: "session-row", title: thread.cwd, onclick: () => openThread(thread, button) },
    make("span", { class: "name", text: thread.title ?? thread.threadId }),
    make("time", { class: "faint", datetime: thread.updatedAt, text: shortTime(thread.updatedAt) }),
    make("span", { class: "faint about", text: baseName(thread.cwd) }),
    make("span", { class: "badge", hidden: thread.sessionId === null, text: "session" }),
  );
  return make("li", {}, button);
}

// Opens the session that has the thread, or a new one.
async function openThread(thread, button) {
  button.disabled = true;
  try {
    // The session may have been closed since the list was read.
    if (sessions.get(thread.sessionId)?.status === "closed") thread.sessionId = null;
    thread.sessionId ??= (await callApi(`${API}/sessions`, { body: { threadId: thread.threadId } })).session.sessionId;
    const sessionId = thread.sessionId;
    // The event of the new session may come after the response.
    if (sessions.get(sessionId) === null) {
      const { session } = await callApi(`${API}/sessions/${encodeURIComponent(sessionId)}`);
      sessions.records.set(sessionId, session);
    }
    openSession(sessionId);
  } catch (error) {
    setText(byId("threads-note"), messageOf(error));
  }
  button.disabled = false;
}
