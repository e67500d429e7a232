//! The configuration of Codex, as far as it decides whether a directory is trusted.

use serde::Deserialize;
use serde_json::{Map, Value};

/// The table of the directories about which the user has decided, in a configuration.
pub const PROJECTS: &str = "projects";
/// The key of an entry of this table that has the decision.
pub const TRUST_LEVEL: &str = "trust_level";
/// The trust level of a directory whose `.codex` is used.
pub const TRUSTED: &str = "trusted";
/// The trust level of a directory whose `.codex` is not used.
pub const UNTRUSTED: &str = "untrusted";
/// The keys that set a sandbox.
pub const SANDBOX_KEYS: [&str; 2] = ["sandbox_mode", "default_permissions"];
/// The key that sets an approval policy.
pub const APPROVAL_POLICY_KEY: &str = "approval_policy";

/// The answer to `config/read`.
#[derive(Debug, Default, Deserialize)]
pub struct ConfigRead {
    /// The configuration that holds.
    #[serde(default)]
    pub config: Map<String, Value>,
    #[serde(default)]
    layers: Option<Vec<Layer>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    name: LayerName,
    #[serde(default)]
    disabled_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayerName {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    dot_codex_folder: Option<String>,
}

impl ConfigRead {
    /// How many layers come from the directory, and how many of these are used.
    pub fn project_layers(&self) -> (usize, usize) {
        let enabled = self.layers_of_project().filter(|layer| layer.disabled_reason.is_none()).count();
        (self.layers_of_project().count(), enabled)
    }

    /// The `.codex` directories that are not used.
    pub fn unused_directories(&self) -> Vec<String> {
        let disabled = self.layers_of_project().filter(|layer| layer.disabled_reason.is_some());
        disabled.filter_map(|layer| layer.name.dot_codex_folder.clone()).collect()
    }

    fn layers_of_project(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().flatten().filter(|layer| layer.name.kind == "project")
    }
}

/// The trust level that a table of projects has for the first of these names that it knows.
pub fn trust_level<'a>(
    projects: &'a Map<String, Value>,
    mut names: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    names.find_map(|name| projects.get(name)?.get(TRUST_LEVEL)?.as_str())
}

/// The table of projects of a configuration.
pub fn projects(config: &Map<String, Value>) -> Option<&Map<String, Value>> {
    config.get(PROJECTS).and_then(Value::as_object)
}
