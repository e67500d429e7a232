// Form fields for requests that are answered with text.

// One question: its label and its field.
const fieldBox = (...children) => make("div", { class: "field" }, ...children);

const requiredMark = () => make("span", { class: "faint", text: " (required)" });

// Thrown for an answer that is incomplete or invalid.
class IncompleteAnswer extends Error {}

// Fields for the questions of `item/tool/requestUserInput`; `read` returns the result for the app-server.
function questionFields(request) {
  const fields = [];
  const readers = [];
  for (const question of request.params?.questions ?? []) {
    const id = `question-${request.requestId}-${question.id}`;
    const options = question.options ?? [];
    const input = make("input", {
      id,
      type: question.isSecret ? "password" : "text",
      autocomplete: "off",
      list: options.length ? `${id}-options` : null,
    });
    const box = fieldBox(make("label", { for: id, text: escapeInvisible(question.question ?? question.header ?? question.id) }), input);
    fields.push(box);
    if (options.length) {
      box.append(make("datalist", { id: `${id}-options` }, ...options.map((option) => make("option", { value: option.label }))));
      const pick = (option) =>
        make("button", { type: "button", title: escapeInvisible(option.description ?? ""), text: escapeInvisible(option.label), onclick: () => { input.value = option.label; } });
      box.append(make("div", { class: "row" }, ...options.map(pick)));
    }
    readers.push(() => [question.id, { answers: [input.value] }]);
  }
  return { fields, read: () => ({ answers: Object.fromEntries(readers.map((reader) => reader())) }) };
}

// One field for an answer as JSON, for schemas without a form.
function jsonFields(request) {
  const id = `answer-${request.requestId}`;
  const field = make("textarea", { id, rows: "3" });
  field.value = '{"action": "accept", "content": {}}';
  const read = () => {
    try {
      return JSON.parse(field.value);
    } catch {
      throw new IncompleteAnswer("The answer is not JSON.");
    }
  };
  const schema = make("pre", { text: escapeInvisible(formatPlain(request.params?.requestedSchema ?? {})) });
  return { fields: [schema, fieldBox(make("label", { for: id, text: "Answer, as JSON" }), field)], read };
}

// The choices of a field as [value, name], or null (Model Context Protocol, elicitation).
function choicesOf(schema) {
  if (Array.isArray(schema.enum) && schema.enum.length) return schema.enum.map((value, at) => [value, schema.enumNames?.[at] ?? value]);
  if (Array.isArray(schema.oneOf) && schema.oneOf.length) return schema.oneOf.map((one) => [one.const, one.title ?? one.const]);
  return null;
}

function fieldOf(id, schema, isRequired) {
  const choices = choicesOf(schema);
  if (choices) {
    const options = choices.map(([value, name]) => make("option", { value, text: escapeInvisible(name) }));
    const field = make("select", { id }, ...(isRequired ? [] : [make("option", { value: "", text: "(no answer)" })]), ...options);
    field.value = schema.default ?? (isRequired ? choices[0][0] : "");
    return { field, read: () => field.value || undefined };
  }
  if (schema.type === "boolean") {
    const field = make("input", { id, type: "checkbox" });
    field.checked = schema.default === true;
    return { field, read: () => field.checked };
  }
  const isNumber = schema.type !== "string";
  const field = make("input", { id, type: isNumber ? "number" : "text", step: isNumber ? "any" : null, autocomplete: "off" });
  field.value = schema.default ?? "";
  return { field, read: () => (field.value === "" ? undefined : isNumber ? Number(field.value) : field.value) };
}

// Fields for a form of an MCP server: texts, numbers, choices and checkboxes.
function elicitationFields(request) {
  const schema = request.params?.requestedSchema ?? {};
  const all = Object.entries(schema.properties ?? {});
  const isSimple = ([, one]) => ["string", "number", "integer", "boolean"].includes(one?.type);
  if (all.length === 0 || !all.every(isSimple)) return jsonFields(request);
  const fields = [];
  const readers = [];
  for (const [name, one] of all) {
    const id = `answer-${request.requestId}-${name}`;
    const isRequired = (schema.required ?? []).includes(name);
    const { field, read } = fieldOf(id, one, isRequired);
    const title = escapeInvisible(one.title ?? name);
    const label = one.description ? `${title}: ${escapeInvisible(one.description)}` : title;
    // A checkbox always has an answer.
    if (field.type === "checkbox") fields.push(make("label", { class: "check" }, field, ` ${label}`));
    else fields.push(fieldBox(make("label", { for: id, text: label }, ...(isRequired ? [requiredMark()] : [])), field));
    field.required = isRequired && field.type !== "checkbox";
    readers.push(() => {
      const value = read();
      if (value === undefined && isRequired) throw new IncompleteAnswer(`“${title}” is required.`);
      return [name, value];
    });
  }
  const read = () => {
    const content = readers.map((reader) => reader()).filter(([, value]) => value !== undefined);
    return { action: "accept", content: Object.fromEntries(content), _meta: null };
  };
  return { fields, read };
}

function formFor(request) {
  if (request.method === "item/tool/requestUserInput") return questionFields(request);
  // A request that can be accepted has nothing to fill in.
  if (request.method === "mcpServer/elicitation/request" && !request.decisions.includes("accept")) return elicitationFields(request);
  return null;
}
