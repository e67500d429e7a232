use super::*;

const DIRECTORY: &str = "/home/me/my.project";

fn directory() -> Directory {
    Directory::named(DIRECTORY, &["/home/me"])
}

/// An answer with one project layer for each of these, and these entries of `projects`.
fn read(disabled: &[bool], projects: &Value) -> ConfigRead {
    let layer = |disabled: &bool| {
        json!({
            "name": { "type": "project", "dotCodexFolder": format!("{DIRECTORY}/.codex") },
            "disabledReason": disabled.then_some("To load it, add it as a trusted project."),
        })
    };
    let mut layers: Vec<_> = disabled.iter().map(layer).collect();
    layers
        .push(json!({ "name": { "type": "user", "file": "/home/me/.codex/config.toml", "profile": null } }));
    serde_json::from_value(json!({ "config": { "projects": projects }, "layers": layers })).unwrap()
}

#[test]
fn directory_is_decided_by_layers_and_entries_that_the_app_server_uses() {
    let entry = |path: &str, level: &str| json!({ path: { "trust_level": level } });
    for (disabled, projects, decided) in [
        (&[] as &[bool], Value::Null, false),
        (&[true], Value::Null, false),
        (&[false], Value::Null, true),
        (&[true, false], Value::Null, false),
        (&[], entry(DIRECTORY, "trusted"), true),
        (&[], entry("/home/me", "trusted"), true),
        (&[], entry("/home", "trusted"), false),
        (&[], entry("/home/me/my", "trusted"), false),
        (&[true], entry(DIRECTORY, "untrusted"), true),
        // The app-server leaves the layer out all the same, so it does not take this entry for the directory's.
        (&[true], entry("/home/me", "trusted"), false),
        (&[], json!({ DIRECTORY: { "trust_level": null } }), false),
    ] {
        let read = read(disabled, &projects);
        assert_eq!(is_decided(&read, &directory()), decided, "{disabled:?} {projects}");
    }
}

#[test]
fn client_decides_with_a_nested_object_or_a_dotted_key_without_other_dots() {
    let dotted = |path: &str| json!({ format!("projects.{path}.trust_level"): "trusted" });
    for (config, decides) in [
        (json!({}), false),
        (json!({ "projects": { DIRECTORY: { "trust_level": "trusted" } } }), true),
        (json!({ "projects": { DIRECTORY: {} } }), false),
        (json!({ "projects": { "/elsewhere": { "trust_level": "trusted" } } }), false),
        (json!({ "projects": "x" }), false),
        (dotted("/home/me"), true),
        (dotted(DIRECTORY), false),
    ] {
        assert_eq!(decided_by_caller(config.as_object().unwrap(), &directory()), decides, "{config}");
    }
}

#[test]
fn trust_decision_is_added_to_the_settings_of_the_client() {
    for (config, expected) in [
        (Value::Null, json!({ "projects": { DIRECTORY: { "trust_level": "untrusted" } } })),
        (
            json!({ "model": "x", "projects": { "/other": { "trust_level": "trusted" } } }),
            json!({
                "model": "x",
                "projects": {
                    "/other": { "trust_level": "trusted" },
                    DIRECTORY: { "trust_level": "untrusted" },
                },
            }),
        ),
        (json!({ "projects": 7 }), json!({ "projects": { DIRECTORY: { "trust_level": "untrusted" } } })),
    ] {
        let mut params = Map::new();
        if !config.is_null() {
            params.insert("config".to_owned(), config);
        }
        add_projects(&mut params, &[&directory()], Trust::Untrusted);
        assert_eq!(params["config"], expected);
    }
}
