//! Splits Rust source into tokens and paths, as far as the rules need it.

use std::fs;
use std::path::Path;

/// The layer that is a submodule: it is pure, so that layers below `codex` may use it too.
pub(crate) const PROTOCOL: &str = "codex::protocol";

/// One source file of the package.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) lines: usize,
    pub(crate) tokens: Vec<String>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), lines: text.lines().count(), tokens: tokens(text) }
    }

    /// The modules from the crate's root to this file; none for `main.rs` and `lib.rs`.
    pub(crate) fn module(&self) -> Vec<&str> {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path).trim_end_matches(".rs");
        let mut names: Vec<_> = path.split('/').collect();
        if names.last() == Some(&"mod") || ["main", "lib"].contains(&path) {
            names.pop();
        }
        names
    }

    /// The layer of the file: its first module, or [`PROTOCOL`].
    pub(crate) fn layer(&self) -> &str {
        match self.module().as_slice() {
            ["codex", "protocol", ..] => PROTOCOL,
            [first, ..] => first,
            [] if self.path == "src/main.rs" => "main",
            [] => "lib",
        }
    }

    pub(crate) fn is_below(&self, places: &[&str]) -> bool {
        let is_here = |place: &&str| self.path == *place || self.path.starts_with(&format!("{place}/"));
        places.iter().any(is_here)
    }

    /// The same file without test code.
    pub(crate) fn without_tests(&self) -> Self {
        let path = self.path.clone();
        let is_test = self.module().contains(&"tests");
        let tokens = if is_test { Vec::new() } else { without_tests(&self.tokens) };
        Self { path, lines: self.lines, tokens }
    }
}

/// All Rust files below these directories.
pub(crate) fn sources(directories: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut waiting: Vec<_> = directories.iter().map(|directory| root.join(directory)).collect();
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                found.push(Source::new(name, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

/// The names, punctuation and `::` of a text, without comments, strings, characters, lifetimes and numbers.
fn tokens(text: &str) -> Vec<String> {
    let text: Vec<char> = text.chars().collect();
    let at = |index: usize| text.get(index).copied().unwrap_or('\0');
    let in_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut index = 0;
    while index < text.len() {
        match (at(index), at(index + 1)) {
            ('/', '/') => index = end_of(&text, index, "\n"),
            ('/', '*') => index = end_of_comment(&text, index),
            ('"', _) => index = end_of_quote(&text, index),
            // 'a' and '\n' are characters, 'a is a lifetime.
            ('\'', next) if next == '\\' || at(index + 2) == '\'' => index = end_of_quote(&text, index),
            ('\'', _) => index += 1 + text[index + 1..].iter().take_while(|c| in_name(**c)).count(),
            (':', ':') => {
                tokens.push("::".to_owned());
                index += 2;
            }
            (c, _) if in_name(c) => {
                let name: String = text[index..].iter().take_while(|c| in_name(**c)).collect();
                index += name.chars().count();
                let hashes = text[index..].iter().take_while(|c| **c == '#').count();
                if ["r", "br", "cr"].contains(&name.as_str()) && at(index + hashes) == '"' {
                    index = end_of(&text, index + hashes + 1, &format!("\"{}", "#".repeat(hashes)));
                } else if !(c.is_ascii_digit() || name == "r" && hashes == 1) {
                    tokens.push(name);
                }
            }
            (c, _) => {
                if !c.is_whitespace() {
                    tokens.push(c.to_string());
                }
                index += 1;
            }
        }
    }
    tokens
}

/// The index after the next `end`.
fn end_of(text: &[char], from: usize, end: &str) -> usize {
    let end: Vec<char> = end.chars().collect();
    let found = text[from..].windows(end.len()).position(|window| window == end);
    found.map_or(text.len(), |offset| from + offset + end.len())
}

fn end_of_comment(text: &[char], from: usize) -> usize {
    let (mut index, mut depth) = (from, 0);
    while index < text.len() {
        match text.get(index..index + 2) {
            Some(['/', '*']) => (index, depth) = (index + 2, depth + 1),
            Some(['*', '/']) => (index, depth) = (index + 2, depth - 1),
            _ => index += 1,
        }
        if depth == 0 {
            break;
        }
    }
    index
}

fn end_of_quote(text: &[char], from: usize) -> usize {
    let mut index = from + 1;
    while index < text.len() && text[index] != text[from] {
        index += if text[index] == '\\' { 2 } else { 1 };
    }
    index + 1
}

/// The tokens without the items after `#[cfg(test)]`.
pub(crate) fn without_tests(tokens: &[String]) -> Vec<String> {
    let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        if !tokens[index..].iter().take(mark.len()).eq(mark.iter()) {
            kept.push(tokens[index].clone());
            index += 1;
            continue;
        }
        index += mark.len();
        let mut depth = 0;
        while index < tokens.len() {
            index += 1;
            match tokens[index - 1].as_str() {
                "{" | "(" | "[" => depth += 1,
                ")" | "]" => depth -= 1,
                "}" if depth == 1 => break,
                "}" => depth -= 1,
                ";" if depth == 0 => break,
                _ => {}
            }
        }
    }
    kept
}

/// All paths, with groups in braces expanded; a single name is a path too.
pub(crate) fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        let is_continued = index > 0 && tokens[index - 1] == "::";
        if is_name(&tokens[index]) && !is_continued {
            index = read_path(tokens, index, &[], &mut paths);
        } else {
            index += 1;
        }
    }
    paths
}

/// Reads one path, prefixed with `before`, and returns the index after it.
fn read_path(tokens: &[String], from: usize, before: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    let mut index = from;
    loop {
        match tokens.get(index).map(String::as_str) {
            Some("{") => {
                index += 1;
                while let Some(token) = tokens.get(index).filter(|token| *token != "}") {
                    let starts = is_name(token) || token == "*";
                    index = if starts { read_path(tokens, index, &path, paths) } else { index + 1 };
                }
                return index + 1;
            }
            Some(name) if is_name(name) || name == "*" => path.push(name.to_owned()),
            _ => break,
        }
        index += 1;
        if tokens.get(index).is_none_or(|token| token != "::") {
            break;
        }
        index += 1;
    }
    paths.push(path);
    index
}

/// The path of each `use` declaration and the name that it gets; globs are left out.
pub(crate) fn use_declarations(tokens: &[String]) -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    for index in (0..tokens.len()).filter(|index| tokens[*index] == "use") {
        read_use(tokens, index + 1, &[], &mut found);
    }
    found
}

/// Reads one tree of a `use`, prefixed with `before`, and returns the index after it.
fn read_use(
    tokens: &[String],
    from: usize,
    before: &[String],
    found: &mut Vec<(Vec<String>, String)>,
) -> usize {
    let mut path = before.to_vec();
    let mut index = from;
    loop {
        match tokens.get(index).map(String::as_str) {
            Some("{") => {
                index += 1;
                while let Some(token) = tokens.get(index).filter(|token| *token != "}") {
                    index = if is_name(token) { read_use(tokens, index, &path, found) } else { index + 1 };
                }
                return index + 1;
            }
            Some("self") if !path.is_empty() => {}
            Some(name) if is_name(name) => path.push(name.to_owned()),
            _ => return index,
        }
        index += 1;
        if tokens.get(index).is_none_or(|token| token != "::") {
            break;
        }
        index += 1;
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if let Some([r#as, alias]) = tokens.get(index..index + 2)
        && r#as == "as"
    {
        name.clone_from(alias);
        index += 2;
    }
    found.push((path, name));
    index
}

pub(crate) fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The layers that a file names by `crate::`, by `codexd::`, or by as many `super::` as lead to the root.
pub(crate) fn layers_used(source: &Source) -> Vec<String> {
    let mut used = Vec::new();
    // The brace depth at which each inline module was opened.
    let (mut depth, mut modules) = (0, Vec::new());
    let tokens = &source.tokens;
    for index in 0..tokens.len() {
        match tokens[index].as_str() {
            "{" => {
                depth += 1;
                if index >= 2 && tokens[index - 2] == "mod" {
                    modules.push(depth);
                }
            }
            "}" => {
                modules.pop_if(|opened| *opened == depth);
                depth -= 1;
            }
            "crate" | "codexd" | "super" if index == 0 || tokens[index - 1] != "::" => {
                let mut paths = Vec::new();
                read_path(tokens, index, &[], &mut paths);
                let level = source.module().len() + modules.len();
                for path in paths {
                    let supers = path.iter().take_while(|name| *name == "super").count();
                    let is_absolute = supers == 0;
                    if let Some(name) = path.get(supers.max(1)).filter(|_| is_absolute || supers >= level) {
                        let next = path.get(supers.max(1) + 1);
                        let is_protocol = name == "codex" && next.is_some_and(|next| next == "protocol");
                        used.push(if is_protocol { PROTOCOL.to_owned() } else { name.clone() });
                    }
                }
            }
            _ => {}
        }
    }
    used
}
