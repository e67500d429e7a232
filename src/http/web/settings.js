// The settings of the next turn: model, effort, sandbox and approvals, at the foot of the message field.

// The texts of the values; others are shown as they are.
const EFFORT_TEXTS = lookupTable({ "": "default effort" });
const SANDBOX_TEXTS = lookupTable({ "": "default sandbox", "danger-full-access": "no sandbox" });
const APPROVAL_TEXTS = lookupTable({ "": "default approvals", untrusted: "asks often", "on-request": "asks on request", "on-failure": "asks on failure", never: "never asks" });

const EFFORTS = ["low", "medium", "high"];
const SANDBOXES = ["read-only", "workspace-write", "danger-full-access"];
const APPROVALS = ["untrusted", "on-request", "never"];

// The types of a sandbox in the form of a turn.
const SANDBOX_TYPES = lookupTable({ "read-only": "readOnly", "workspace-write": "workspaceWrite", "danger-full-access": "dangerFullAccess" });

// The models of Codex, read once; an empty list is read again.
let models = [];

async function readModels() {
  if (models.length > 0) return models;
  try {
    models = (await callApi(`${API}/models`)).models;
    runInNextFrame(drawSettings);
  } catch {
    // The model of the session and the default can still be used.
  }
  return models;
}

// The settings of the thread, as the log of the session reports them. Only newer versions of Codex report changes.
function settingsOfThread({ threadSettings }) {
  const type = threadSettings.sandboxPolicy?.type;
  const policy = threadSettings.approvalPolicy;
  return {
    model: threadSettings.model,
    effort: threadSettings.effort,
    sandbox: SANDBOXES.find((name) => SANDBOX_TYPES[name] === type) ?? type,
    approvals: typeof policy === "string" ? policy : "own rules",
  };
}

// The settings with which a session was created.
function settingsOfSession({ settings = {}, session = {} }) {
  const policy = settings.approvalPolicy;
  return {
    model: session.model,
    effort: session.reasoningEffort,
    sandbox: settings.sandbox,
    approvals: policy && typeof policy !== "string" ? "own rules" : policy,
  };
}

// The fields of a turn for what the user has chosen.
function settingsOfTurn({ model, effort, sandbox, approvals }) {
  return {
    ...(model && { model }),
    ...(effort && { effort }),
    ...(sandbox && { sandboxPolicy: { type: SANDBOX_TYPES[sandbox] } }),
    ...(approvals && { approvalPolicy: approvals }),
  };
}

function drawSettings() {
  const record = sessions.current;
  if (record === null) return;
  const now = conversation?.settings ?? {};
  const chosen = choices.get(record.sessionId) ?? {};
  const currentModel = now.model ?? record.model ?? "";
  const model = models.find((one) => (one.model ?? one.id) === (chosen.model || currentModel));
  const efforts = (model?.supportedReasoningEfforts ?? []).map((one) => one.reasoningEffort);
  const names = models.filter((one) => !one.hidden).map((one) => one.model ?? one.id);
  const text = (texts, suffix = "") => (value) => texts[value] ?? `${value}${suffix}`;
  drawSetting("model", currentModel, chosen.model, names, (name) => name || "default model");
  drawSetting("effort", now.effort ?? record.reasoningEffort ?? "", chosen.effort, efforts.length > 0 ? efforts : EFFORTS, text(EFFORT_TEXTS, " effort"));
  drawSetting("sandbox", now.sandbox ?? "", chosen.sandbox, SANDBOXES, text(SANDBOX_TEXTS));
  drawSetting("approvals", now.approvals ?? "", chosen.approvals, APPROVALS, text(APPROVAL_TEXTS));
}

// Draws one setting: `current` applies unless another value is chosen.
function drawSetting(name, current, chosen, values, textOfValue) {
  const field = byId(`turn-${name}`);
  const all = [...new Set([current, ...values, ...(chosen ? [chosen] : [])])];
  const wanted = JSON.stringify(all);
  // New options would close an open list.
  if (field.dataset.values !== wanted) {
    field.dataset.values = wanted;
    field.replaceChildren(...all.map((value) => make("option", { value, text: textOfValue(value) })));
  }
  field.value = chosen || current;
  field.dataset.current = current;
  field.dataset.value = field.value;
  field.classList.toggle("changed", field.value !== current);
}

function chooseSetting(name) {
  const id = sessions.chosen;
  const { value, dataset } = byId(`turn-${name}`);
  choices.set(id, { ...choices.get(id), [name]: value === dataset.current ? null : value });
  drawSettings();
}
