// What the selected session and the daemon are doing: the time of the running turn, the tokens, the rate of events.
// The timers run only while there is something to count.

const RATE_SECONDS = 5;

const SECOND_MS = 1_000;

function durationText(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3_600)} h ${Math.floor((seconds % 3_600) / 60)} min`;
}

// The tokens of the session, and how much of its context is full.
function usageText(usage) {
  const total = usage?.total?.totalTokens;
  if (total === undefined) return "";
  const share = usage.modelContextWindow ? ` · ${Math.min(100, Math.round((100 * (usage.last?.totalTokens ?? 0)) / usage.modelContextWindow))} % of the context` : "";
  return `${total.toLocaleString()} tokens${share}`;
}

let workTimer = null;

function drawActivity() {
  clearTimeout(workTimer);
  const record = sessions.current;
  show(byId("activity"), record !== null && record.status !== "closed");
  setText(byId("usage"), usageText(conversation?.usage));
  const turnId = record?.currentTurnId ?? null;
  const start = turnId === null || isLost() ? NaN : startOfTurn(record, turnId);
  const seconds = Math.max(0, Math.floor((Date.now() - start) / SECOND_MS));
  const isAsking = turnId !== null && stateOf(record) === "asking";
  const word = isAsking ? "Waits for your answer" : "Working";
  byId("working").dataset.state = isAsking ? "asking" : "running";
  setText(byId("working"), turnId === null || isLost() ? "" : Number.isNaN(seconds) ? word : `${word} · ${durationText(seconds)}`);
  if (!Number.isNaN(seconds) && !document.hidden) workTimer = setTimeout(drawActivity, SECOND_MS - ((Date.now() - start) % SECOND_MS));
}

// When a turn started. For a turn that was running before the page was opened, the daemon is asked once.
function startOfTurn(record, turnId) {
  if (!turnStarts.has(turnId)) {
    turnStarts.set(turnId, NaN);
    callApi(`${pathOf(record)}/turns/${encodeURIComponent(turnId)}`)
      .then(({ turn }) => turnStarts.set(turnId, Date.parse(turn.startedAt)), () => {})
      .then(() => runInNextFrame(drawActivity));
  }
  return turnStarts.get(turnId);
}

const rate = { counts: [], timer: null };

// Counts an event of the stream.
function countEvent() {
  rate.timer ??= setInterval(drawRate, SECOND_MS);
}

// Runs once a second while events arrive; shows the rate over the last seconds.
function drawRate() {
  rate.counts.push(stream.received);
  if (rate.counts.length > RATE_SECONDS + 1) rate.counts.shift();
  const seconds = Math.max(1, rate.counts.length - 1);
  const perSecond = (rate.counts.at(-1) - rate.counts[0]) / seconds;
  setText(byId("rate"), perSecond > 0 ? `${perSecond >= 10 ? Math.round(perSecond).toLocaleString() : perSecond.toFixed(1)} events/s` : "");
  if (perSecond > 0 || rate.counts.length <= RATE_SECONDS) return;
  clearInterval(rate.timer);
  Object.assign(rate, { counts: [], timer: null });
}
