// Fields for what is answered in words.

// An answer that cannot be sent yet.
class Unfinished extends Error {}

// Fields for the questions of `item/tool/requestUserInput`; the function gives the answer in the app-server's words.
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
    fields.push(make("label", { for: id, text: visible(question.question ?? question.header ?? question.id) }), input);
    if (options.length) {
      fields.push(make("datalist", { id: `${id}-options` }, ...options.map((option) => make("option", { value: option.label }))));
      const pick = (option) =>
        make("button", { type: "button", title: visible(option.description ?? ""), text: visible(option.label), onclick: () => { input.value = option.label; } });
      fields.push(make("div", { class: "row" }, ...options.map(pick)));
    }
    readers.push(() => [question.id, { answers: [input.value] }]);
  }
  return { fields, read: () => ({ answers: Object.fromEntries(readers.map((reader) => reader())) }) };
}

// A field for an answer that has no form of its own here.
function plainFields(request) {
  const id = `answer-${request.requestId}`;
  const field = make("textarea", { id, rows: "3" });
  field.value = '{"action": "accept", "content": {}}';
  const read = () => {
    try {
      return JSON.parse(field.value);
    } catch {
      throw new Unfinished("The answer is not JSON.");
    }
  };
  const wanted = make("pre", { text: visible(plainly(request.params?.requestedSchema ?? {})) });
  return { fields: [wanted, make("label", { for: id, text: "Answer, as JSON" }), field], read };
}

// The choices of a field as values with their names, where it has any (Model Context Protocol, elicitation).
function choicesOf(schema) {
  if (Array.isArray(schema.enum) && schema.enum.length) return schema.enum.map((value, at) => [value, schema.enumNames?.[at] ?? value]);
  if (Array.isArray(schema.oneOf) && schema.oneOf.length) return schema.oneOf.map((one) => [one.const, one.title ?? one.const]);
  return null;
}

function fieldOf(id, schema, isRequired) {
  const choices = choicesOf(schema);
  if (choices) {
    const options = choices.map(([value, name]) => make("option", { value, text: visible(name) }));
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

// Fields for a form of an MCP server, which has texts, numbers, choices and yes or no.
function elicitationFields(request) {
  const schema = request.params?.requestedSchema ?? {};
  const all = Object.entries(schema.properties ?? {});
  const isSimple = ([, one]) => ["string", "number", "integer", "boolean"].includes(one?.type);
  if (all.length === 0 || !all.every(isSimple)) return plainFields(request);
  const fields = [];
  const readers = [];
  for (const [name, one] of all) {
    const id = `answer-${request.requestId}-${name}`;
    const isRequired = (schema.required ?? []).includes(name);
    const { field, read } = fieldOf(id, one, isRequired);
    const title = visible(one.title ?? name);
    const words = one.description ? `${title}: ${visible(one.description)}` : title;
    if (field.type === "checkbox") fields.push(make("label", { class: "check" }, field, ` ${words}`));
    else fields.push(make("label", { for: id, text: words }), field);
    readers.push(() => {
      const value = read();
      if (value === undefined && isRequired) throw new Unfinished(`“${title}” has to be filled in.`);
      return [name, value];
    });
  }
  const read = () => {
    const content = readers.map((reader) => reader()).filter(([, value]) => value !== undefined);
    return { action: "accept", content: Object.fromEntries(content), _meta: null };
  };
  return { fields, read };
}

function formOf(request) {
  if (request.method === "item/tool/requestUserInput") return questionFields(request);
  // Where it can be accepted there is nothing to fill in.
  if (request.method === "mcpServer/elicitation/request" && !request.decisions.includes("accept")) return elicitationFields(request);
  return null;
}
