//! Makes the LaunchAgent of launchd from the template.

use super::search;
use super::spec::ServiceSpec;
use crate::codex::protocol::environment::CODEX_HOME;
use crate::config::settings;

/// The template; `tests/launchd.rs` checks it and the files made from it.
const TEMPLATE: &str = include_str!("../../launchd/codexd.plist");
/// The first comment of the template, and its replacement in an installed file.
const TEMPLATE_COMMENT: &str = "a template, in which codexd service install replaces every __NAME__.";
const AGENT_COMMENT: &str = "written by codexd service install, which overwrites it.";
/// The value of `BAA_CODEXD_LOG` in the template, its last environment variable.
const LOG_FILTER_VALUE: &str = "<string>warn</string>\n";

/// The limit of open files in the template.
const OPEN_FILES: &str = "<integer>1024</integer>";

/// The property list.
pub(super) fn agent(spec: &ServiceSpec<'_>) -> String {
    let log = spec.variables.iter().find(|(name, _)| *name == settings::LOG_FILTER);
    let mut variables = format!("<string>{}</string>\n", escape(log.map_or("warn", |(_, filter)| filter)));
    let codex_home = spec.codex_home.map(|directory| (CODEX_HOME, directory));
    let others = spec.variables.iter().filter(|(name, _)| *name != settings::LOG_FILTER);
    for (name, value) in
        codex_home.into_iter().chain(others.map(|(name, value)| (name.as_str(), value.as_str())))
    {
        let indent = "        ";
        variables
            .push_str(&format!("{indent}<key>{name}</key>\n{indent}<string>{}</string>\n", escape(value)));
    }
    fill(
        TEMPLATE,
        &[
            (TEMPLATE_COMMENT, AGENT_COMMENT),
            // Before the home directory, with which it begins.
            (search::MACOS_PATH, &escape(&spec.search_path)),
            ("__HOME__", &escape(spec.home)),
            ("__CODEXD__", &escape(spec.program)),
            (OPEN_FILES, &format!("<integer>{}</integer>", spec.open_files())),
            (LOG_FILTER_VALUE, &variables),
        ],
    )
}

/// Replaces each placeholder in one pass, so that a value is never taken for a placeholder.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    loop {
        let found = values
            .iter()
            .filter_map(|(placeholder, value)| Some((rest.find(placeholder)?, *placeholder, *value)));
        let Some((at, placeholder, value)) = found.min_by_key(|(at, ..)| *at) else {
            filled.push_str(rest);
            return filled;
        };
        let (before, after) = rest.split_at(at);
        filled.push_str(before);
        filled.push_str(value);
        rest = after.strip_prefix(placeholder).unwrap_or_default();
    }
}

/// Escapes the content of an XML element.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_template_contains_each_placeholder() {
        for (placeholder, count) in [
            (TEMPLATE_COMMENT, 1),
            ("__CODEXD__", 1),
            (search::MACOS_PATH, 1),
            (LOG_FILTER_VALUE, 1),
            (OPEN_FILES, 1),
            ("__HOME__", 5),
        ] {
            assert_eq!(TEMPLATE.matches(placeholder).count(), count, "{placeholder}");
        }
    }

    #[test]
    fn fill_does_not_replace_in_values() {
        assert_eq!(fill("a b a", &[("a", "b"), ("b", "a")]), "b a b");
        assert_eq!(fill("", &[("a", "b")]), "");
    }
}
